"""The loop IR: one kernel language for every back end.

A kernel is a nest of axes over typed buffers, with scalar expressions at each point.

`Nest` is the general form.  Its `rows` are independent (or `sequential`) axes.  For each row the
`passes` run one after another; a pass visits its own inner `axes` and at each point updates
reductions and stores values.  Softmax is one Nest: rows are the leading axes, three passes over
the last one.

`Contract` is the tile notation: `acc[batch, m, n] = sum over k of a[batch, m, k] * b[batch, k, n]`,
then an epilogue of stores that reads the accumulator.  Matrix products of every kind are Contracts.

Expressions are directed acyclic graphs: an `Expr` used twice is computed once.  They are compared by
identity; the printer's text is the structural form, and equal text means an equal kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from fluxc.compiler.ir.types import bool_, i64

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import DType

__all__ = [
    "Apply",
    "Axis",
    "Buffer",
    "Const",
    "Contract",
    "Expr",
    "Extent",
    "Index",
    "Kernel",
    "Load",
    "Local",
    "Nest",
    "Pass",
    "Reduction",
    "Store",
]


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Memory that a kernel reads or writes: row-major and contiguous.  Rank 0 is one element.

    Two buffers of a kernel never overlap unless they are the same Buffer; a kernel that updates
    in place loads and stores one Buffer at the same index.
    """

    name: str
    dtype: DType
    shape: tuple[Size, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """A loop `for name in 0 .. extent - 1`."""

    name: str
    extent: Size


@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """A number.  `value` is a Python bool, int or float (inf, nan and -0.0 included)."""

    value: float | int | bool
    dtype: DType


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The position along an axis, an i64."""

    axis: Axis

    @property
    def dtype(self) -> DType:
        return i64


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """The value of a size at run time, an i64."""

    size: Size

    @property
    def dtype(self) -> DType:
        return i64


@dataclass(frozen=True, slots=True, eq=False)
class Apply:
    """An elementwise operation of the graph IR (`ops.OPS[op].scalar`) on scalars."""

    op: str
    args: tuple[Expr, ...]
    dtype: DType
    attrs: Mapping[str, Any] = field(default=MappingProxyType({}))


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """`buffer[index]`; where `guard` is false, 0 and no memory is touched."""

    buffer: Buffer
    index: tuple[Expr, ...]
    guard: Expr | None = None

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Local:
    """The result of a reduction in an earlier pass of the same row, or a Contract's accumulator."""

    name: str
    dtype: DType


Expr: TypeAlias = Const | Index | Extent | Apply | Load | Local


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """`target = op over the pass's axes of value`.  op: add, mul, maximum, minimum, and, or.

    The empty reduction is the identity of op.  `target.dtype` is the accumulator's dtype.
    """

    target: Local
    op: str
    value: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """`buffer[index] = value`, or `+=` where `accumulate`; nothing where `guard` is false."""

    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr
    guard: Expr | None = None
    accumulate: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One visit of the inner `axes` (outermost first; none: one point per row)."""

    axes: tuple[Axis, ...]
    reductions: tuple[Reduction, ...] = ()
    stores: tuple[Store, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Nest:
    """`for rows: passes`.  Rows are independent of one another; passes of a row run in order.

    A pass whose stores accumulate visits its axes in order, outermost first.

    name:     says what it computes; part of the emitted symbol.
    buffers:  every buffer that is loaded or stored, in the order of the kernel's arguments.
    """

    name: str
    buffers: tuple[Buffer, ...]
    rows: tuple[Axis, ...]
    passes: tuple[Pass, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Contract:
    """`acc = sum over k of a * b` at every (batch, m, n), then `stores`.

    a, b:    expressions at the axes (batch..., m, k) and (batch..., k, n); usually one Load each
             whose index is affine in the axes.  `b` packed in panels is a Load of the packed buffer,
             see `packed`.
    packed:  None, or the panel width nr: `b.buffer` then has the shape
             [batch..., ceildiv(n, nr), k, nr], zero beyond n, and b reads [batch..., n//nr, k, n%nr].
    acc:     the accumulator, read by the stores' values.
    stores:  the epilogue, at the axes (batch..., m, n).
    """

    name: str
    buffers: tuple[Buffer, ...]
    batch: tuple[Axis, ...]
    m: Axis
    n: Axis
    k: Axis
    a: Load
    b: Load
    acc: Local
    stores: tuple[Store, ...]
    packed: int | None = None


Kernel: TypeAlias = Nest | Contract


class Expressions:
    """Makes expressions and simplifies index arithmetic while doing so.

    Handed to `Op.lower`, so that `ops` does not import `kernels`.
    """

    true = Const(True, bool_)
