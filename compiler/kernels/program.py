"""A compiled entry as data: kernels, where their buffers lie, and the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fluxc.compiler.ir.dims import Size, Symbol
    from fluxc.compiler.ir.types import DType, TensorType
    from fluxc.compiler.kernels.kernel import Kernel
    from fluxc.compiler.kernels.schedule import Schedule

__all__ = [
    "ArenaAt",
    "Choice",
    "Constant",
    "ConstantAt",
    "InputAt",
    "Launch",
    "Loop",
    "OutputAt",
    "PartAt",
    "Place",
    "Prepared",
    "PreparedAt",
    "Program",
    "Scheduled",
    "Step",
    "StorageAt",
    "While",
    "all_launches",
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


@dataclass(frozen=True, slots=True)
class PartAt:
    """`bytes` behind the begin of a whole array; the offset may depend on the steps of loops."""

    whole: InputAt | OutputAt | StorageAt | PreparedAt | ConstantAt
    bytes: Size


Place: TypeAlias = InputAt | OutputAt | StorageAt | PreparedAt | ConstantAt | ArenaAt | PartAt


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


@dataclass(frozen=True, slots=True, eq=False)
class Loop:
    """`for counter in 0 .. trips - 1: body`.  Places and sizes in the body may name the counter."""

    counter: Symbol
    trips: Size
    body: tuple[Step, ...]


@dataclass(frozen=True, slots=True, eq=False)
class While:
    """`test; while the bool at goes_on: body; test`."""

    test: tuple[Step, ...]
    goes_on: Place
    body: tuple[Step, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The branch whose number is the i32 at `index`, or the nearest one."""

    index: Place
    branches: tuple[tuple[Step, ...], ...]


Step: TypeAlias = Launch | Loop | While | Choice


def all_launches(steps: Iterable[Step]) -> Iterator[Launch]:
    """The launches of some steps, those inside loops and choices included, as they are written."""
    for step in steps:
        match step:
            case Launch():
                yield step
            case Loop(body=body):
                yield from all_launches(body)
            case While(test=test, body=body):
                yield from all_launches((*test, *body))
            case Choice(branches=branches):
                for branch in branches:
                    yield from all_launches(branch)


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
    prepare:     steps that depend on storages alone: run once after weights have changed.
                 Empty for entries that update storages.
    run:         steps of every call.
    index_ranges: for each input, (low, high) where its values are used as indices and must lie in
                 low <= v < high; else None.
    recomputed:  values that are computed a second time rather than kept, in words.
    """

    name: str
    symbols: tuple[Symbol, ...]
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    reads: tuple[str, ...]
    updates: tuple[str, ...]
    prepared: tuple[Prepared, ...]
    constants: tuple[Constant, ...]
    prepare: tuple[Step, ...]
    prepare_arena: int
    run: tuple[Step, ...]
    arena: Size
    index_ranges: tuple[tuple[int, int] | None, ...] = ()
    recomputed: tuple[str, ...] = ()
