"""The record that says everything about one operation, and the table of all operations."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import FluxcError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from fluxc.compiler.ir.types import TensorType

__all__ = ["OPS", "GraphRule", "NoGradient", "Op", "ZeroGradient", "infer", "register"]


@dataclass(frozen=True, slots=True)
class NoGradient:
    """Says, in words, why an operation has no derivative.  Asking for one is an error."""

    reason: str


@dataclass(frozen=True, slots=True)
class ZeroGradient:
    """Says, in words, why the derivative is zero wherever it exists (step functions, barriers)."""

    reason: str


@dataclass(frozen=True, slots=True)
class GraphRule:
    """A derivative that is made of the derivatives of the operation's own graphs.

    As `vjp`: rule(b, dys, ys, *xs, wanted, pullback, **attrs) -> one cotangent or None per input.
    dys and ys are tuples, dys with None for zero; `wanted` says of each input whether its
    cotangent is asked for; `pullback` is `autodiff.pullback`.
    """

    rule: Callable[..., tuple[Any, ...]]

    def __call__(self, *values: Any, **attrs: Any) -> tuple[Any, ...]:
        return self.rule(*values, **attrs)


@dataclass(frozen=True, slots=True)
class Op:
    """Everything the compiler knows about one operation.

    The convention "arrays positional, attributes by keyword" holds in every column.

    name:      the mnemonic in textual IR.
    infer:     (*input types, **attrs) -> output type, or a tuple of them.
               Raises ShapeError or DTypeError.
    reference: (*arrays, **attrs) -> array, or a tuple of them.  The meaning, in NumPy.  Floats come
               and go in float64, integers and bools in their own dtype.  Sizes in attrs are
               integers, graphs are functions of arrays (`ir.interp.Function`).
    vjp:       (b, dy, y, *xs, **attrs) -> one cotangent or None per input.  `b` is a Builder; for
               an operation with several outputs dy and y are tuples.  See also `GraphRule`.
    sample:    (rng) -> ((*arrays), attrs).  Inputs on which it is defined and smooth, in float64
               where it takes floats; sizes small and different from one another.
    scalar:    (*scalars, **attrs) -> scalar, on objects with the methods of `ops.scalar.Scalar`.
               Elementwise operations only; all back ends lower from it.
    lower:     (k, index, types, *reads, **attrs) -> scalar expression of the output at `index`
               (a tuple of index expressions).  `reads[i](index)` is input i at an index (a second
               argument guards it: 0 where false), `types` are the input types and the output type,
               `k` makes expressions (`kernels.kernel.Expressions`).  Layout operations only.
    doc:       one sentence, with the formula.
    batch:     (b, size, *xs, batched, **attrs) -> output or tuple of them, for a whole batch at
               once.  Inputs whose flag in `batched` is set carry a leading axis of `size`, and so
               must every output.  Elementwise operations need none, nor do those without inputs.
               Helpers: `ops.batching`.
    jvp:       (b, y, *xs, tangents, **attrs) -> tangent or None of each output (a tuple for an
               operation with several), where `tangents` has one or None per input.  Only where
               it cannot be had by transposing `vjp` twice.  As a `GraphRule`: ys is a tuple, and
               so is what is returned; `pushforward` is `autodiff.pushforward`.

    Exactly one of `scalar` and `lower` is given, or neither for an operation that the table
    `kernels.lower.STRUCTURED` lowers to a loop nest of its own.
    """

    name: str
    infer: Callable[..., TensorType | tuple[TensorType, ...]]
    reference: Callable[..., np.ndarray | tuple[np.ndarray, ...]]
    vjp: Callable[..., tuple[Any, ...]] | GraphRule | NoGradient | ZeroGradient
    sample: Callable[[np.random.Generator], tuple[tuple[np.ndarray, ...], dict[str, Any]]]
    doc: str
    scalar: Callable[..., Any] | None = None
    lower: Callable[..., Any] | None = None
    batch: Callable[..., Any] | None = None
    jvp: Callable[..., Any] | None = None

    @property
    def elementwise(self) -> bool:
        return self.scalar is not None


def _check_call(record: Op, types: tuple[TensorType, ...], attrs: Mapping[str, Any]) -> None:
    """Say which operands and attributes an operation takes, if these are others."""
    signature = inspect.signature(record.infer)
    try:
        signature.bind(*types, **attrs)
    except TypeError:
        raise ShapeError(
            f"{record.name}: these are not its operands and attributes",
            expected=", ".join(str(p).partition(":")[0] for p in signature.parameters.values()),
            got=", ".join([*map(str, types), *attrs]),
        ) from None


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    assert op.name not in OPS, f"{op.name} is declared twice"
    assert op.scalar is None or op.lower is None, f"{op.name} has a scalar body and a lowering"
    OPS[op.name] = op
    return op


def infer(
    op: str, types: tuple[TensorType, ...], attrs: Mapping[str, Any]
) -> tuple[TensorType, ...]:
    """The output types of an operation; the `Infer` of `ir.build.Builder`."""
    record = OPS.get(op)
    if record is None:
        raise FluxcError(f"unknown operation {op!r}", expected=", ".join(sorted(OPS)))
    try:
        result = record.infer(*types, **attrs)
    except FluxcError:
        raise
    except TypeError as error:
        _check_call(record, types, attrs)
        raise AssertionError(f"the type rule of {op} failed") from error
    return result if isinstance(result, tuple) else (result,)
