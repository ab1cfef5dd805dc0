"""A compiled entry as data: kernels, where their buffers lie, and the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size, Symbol
    from fluxc.compiler.ir.types import DType, TensorType
    from fluxc.compiler.kernels.kernel import Kernel
    from fluxc.compiler.kernels.schedule import Schedule

__all__ = [
    "ArenaAt",
    "Constant",
    "ConstantAt",
    "InputAt",
    "Launch",
    "OutputAt",
    "Place",
    "Prepared",
    "PreparedAt",
    "Program",
    "Scheduled",
    "StorageAt",
]


@dataclass(frozen=True, slots=True)
class InputAt:
    """The caller's i-th input array."""

    position: int


@dataclass(frozen=True, slots=True)
class OutputAt:
    """The caller's i-th output array."""

    position: int


@dataclass(frozen=True, slots=True)
class StorageAt:
    """The model's storage of this name, read or updated in place."""

    name: str


@dataclass(frozen=True, slots=True)
class PreparedAt:
    """The i-th result of this program's prepare phase: kept in the model until weights change."""

    position: int


@dataclass(frozen=True, slots=True)
class ConstantAt:
    """The i-th constant array of this program, read-only data of the library."""

    position: int


@dataclass(frozen=True, slots=True)
class ArenaAt:
    """Scratch memory of one call, at a byte offset that may depend on the symbolic sizes."""

    offset: Size


Place: TypeAlias = InputAt | OutputAt | StorageAt | PreparedAt | ConstantAt | ArenaAt


@dataclass(frozen=True, slots=True, eq=False)
class Scheduled:
    """A kernel and how to run it on the target."""

    kernel: Kernel
    schedule: Schedule


@dataclass(frozen=True, slots=True, eq=False)
class Launch:
    """One run of a kernel: a place for each of `kernel.buffers`, in order.

    independent: it neither reads what the launches of its region wrote nor overwrites what they
                 use, so all of them may run in one parallel region.  A region is a launch that is
                 not independent and the independent ones that follow it.
    sizes:       the values of `kernel_symbols(kernel)`, in that order, as sizes of the entry; None:
                 the entry's symbols of the same names.  Given where a kernel serves several shapes.
    """

    scheduled: Scheduled
    places: tuple[Place, ...]
    independent: bool = False
    sizes: tuple[Size, ...] | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tensor that prepare makes (packed or folded weights)."""

    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """Data of an array constant, row-major, in the storage format of its dtype."""

    type: TensorType
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """One entry, ready for a back end.

    symbols:     the named sizes, in the order of the C interface.
    inputs, outputs: types of the caller's arrays.
    reads, updates:  names of the storages read, and of those written in place.
    arena, prepare_arena: bytes of scratch memory that run and prepare need, as sizes.
    prepare:     launches that depend on storages alone: run once after weights have changed.
                 Empty for entries that update storages.
    run:         launches of every call.
    index_ranges: for each input, (low, high) where its values are used as indices and must lie in
                 low <= v < high; else None.
    """

    name: str
    symbols: tuple[Symbol, ...]
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    reads: tuple[str, ...]
    updates: tuple[str, ...]
    prepared: tuple[Prepared, ...]
    constants: tuple[Constant, ...]
    prepare: tuple[Launch, ...]
    prepare_arena: int
    run: tuple[Launch, ...]
    arena: Size
    index_ranges: tuple[tuple[int, int] | None, ...] = ()
