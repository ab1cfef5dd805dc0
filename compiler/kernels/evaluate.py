"""Runs kernels and programs with NumPy: slow, simple, and the oracle for fusion and the back ends.

Every expression becomes an array over the grid of its axes.  Floats are computed in float64 and
rounded where they are stored, so an error of a back end's arithmetic shows as a difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.ir.dims import Dim, evaluate_size, product
from fluxc.compiler.ir.types import bool_, i32
from fluxc.compiler.kernels.kernel import (
    Apply,
    Buffer,
    Const,
    Contract,
    Extent,
    Index,
    Load,
    Local,
    Sort,
    kernel_symbols,
    walk,
)
from fluxc.compiler.kernels.program import (
    ArenaAt,
    Choice,
    ConstantAt,
    InputAt,
    Launch,
    Loop,
    OutputAt,
    PartAt,
    PreparedAt,
    StorageAt,
    While,
)
from fluxc.compiler.ops import OPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluxc.compiler.ir.types import DType, TensorType
    from fluxc.compiler.kernels.kernel import (
        Axis,
        Expr,
        Kernel,
        Nest,
        Pass,
        Reduction,
        Store,
    )
    from fluxc.compiler.kernels.program import Place, Program, Step

__all__ = ["from_storage", "run_kernel", "run_prepare", "run_program", "sizes_of", "to_storage"]

_FOLD: dict[str, tuple[Any, Any]] = {
    "add": (np.add, 0),
    "mul": (np.multiply, 1),
    "maximum": (np.maximum, -np.inf),
    "minimum": (np.minimum, np.inf),
    "and": (np.logical_and, True),
    "or": (np.logical_or, False),
}


def from_storage(array: np.ndarray, dtype: DType) -> np.ndarray:
    """An array as computed with: floats in float64, the rest in its own dtype."""
    if dtype.name == "bf16":
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64) if dtype.is_float else array


def to_storage(array: np.ndarray, dtype: DType) -> np.ndarray:
    """An array as stored, rounded to the nearest, ties to even."""
    if dtype.name == "bf16":
        with np.errstate(over="ignore"):
            bits = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        quiet = ((bits >> 16) & 0x8000) | 0x7FC0
        nan = (bits & 0x7FFFFFFF) > 0x7F800000
        return np.where(nan, quiet, rounded).astype(np.uint16)
    with np.errstate(over="ignore"):
        return np.asarray(array).astype(dtype.numpy)


class _Grid:
    """Expressions as arrays over the axes, in order; unused axes have length 1."""

    def __init__(
        self,
        axes: Sequence[Axis],
        memory: Mapping[Buffer, np.ndarray],
        sizes: Mapping[str, int],
        given: Mapping[str, np.ndarray],
        fixed: Mapping[Axis, int] | None = None,
    ) -> None:
        self.fixed = fixed or {}
        self.axes, self.memory, self.sizes, self.given = tuple(axes), memory, sizes, given
        self.shape = tuple(evaluate_size(a.extent, sizes) for a in self.axes)
        self.values: dict[Expr, np.ndarray] = {}

    def __call__(self, root: Expr) -> np.ndarray:
        if root not in self.values:
            for e in walk(root):
                if e not in self.values:
                    self.values[e] = np.asarray(self._compute(e))
        return self.values[root]

    def full(self, root: Expr) -> np.ndarray:
        return np.broadcast_to(self(root), self.shape)

    def _compute(self, e: Expr) -> Any:  # noqa: PLR0911, one for each form
        match e:
            case Const(value=value, dtype=dtype):
                return np.array(value, np.float64 if dtype.is_float else dtype.numpy)
            case Extent(size=size):
                return np.array(evaluate_size(size, self.sizes), np.int64)
            case Index(axis=axis) if axis in self.fixed:
                return np.array(self.fixed[axis], np.int64)
            case Index(axis=axis):
                position = self.axes.index(axis)
                shape = [1] * len(self.axes)
                shape[position] = -1
                return np.arange(self.shape[position], dtype=np.int64).reshape(shape)
            case Local(name=name):
                return self.given[name].reshape(
                    self.given[name].shape + (1,) * (len(self.axes) - self.given[name].ndim)
                )
            case Load():
                return self._load(e)
        assert isinstance(e, Apply)
        args = [self.values[a] for a in e.args]
        if e.op == "bitcast":
            return _bitcast(args[0], e.args[0].dtype, e.dtype)
        with np.errstate(all="ignore"):
            result = np.asarray(OPS[e.op].reference(*args, **e.attrs))
        if e.dtype.is_float:
            return result.astype(np.float64)
        return result.astype(e.dtype.numpy)

    def position(self, buffer: Buffer, index: Sequence[Expr], mask: np.ndarray | None) -> Any:
        """Flat positions in a buffer, checked against its shape wherever `mask` holds."""
        total: Any = np.zeros((), np.int64)
        for i, size in zip(index, buffer.shape, strict=True):
            extent, at = evaluate_size(size, self.sizes), self(i)
            inside = (at >= 0) & (at < extent)
            checked = inside if mask is None else inside | ~mask
            empty = 0 in np.broadcast_shapes(at.shape, () if mask is None else mask.shape)
            assert empty or 0 in self.shape or checked.all(), f"index outside of {buffer}"
            total = total * extent + np.where(inside, at, 0)
        return total

    def _load(self, e: Load) -> np.ndarray:
        data = self.memory[e.buffer].reshape(-1)
        mask = None if e.guard is None else self(e.guard)
        at = self.position(e.buffer, e.index, mask)
        if data.size == 0:
            shape = np.broadcast_shapes(np.shape(at), () if mask is None else mask.shape)
            return np.zeros(shape, np.float64 if e.dtype.is_float else e.dtype.numpy)
        value = from_storage(data[at], e.dtype)
        return value if mask is None else np.where(mask, value, np.zeros_like(value))

    def store(self, s: Store) -> None:
        data = self.memory[s.buffer].reshape(-1)
        mask = None if s.guard is None else self.full(s.guard)
        at = np.broadcast_to(self.position(s.buffer, s.index, mask), self.shape).reshape(-1)
        value = self.full(s.value).reshape(-1)
        if mask is not None:
            at, value = at[mask.reshape(-1)], value[mask.reshape(-1)]
        if s.accumulate in _FOLD:
            total = from_storage(data, s.buffer.dtype).copy()
            _FOLD[s.accumulate][0].at(total, at, value)
            data[:] = to_storage(total, s.buffer.dtype)
        elif s.accumulate == "set":
            data[at] = to_storage(value, s.buffer.dtype)  # NumPy assigns in order
        else:
            assert len(np.unique(at)) == len(at), f"two points store one element of {s.buffer}"
            data[at] = to_storage(value, s.buffer.dtype)


def _bitcast(x: np.ndarray, source: DType, target: DType) -> np.ndarray:
    stored = np.ascontiguousarray(to_storage(x, source)).reshape(-1)
    return from_storage(stored.view(target.numpy), target).reshape(x.shape)


def run_kernel(
    kernel: Kernel, memory: Mapping[Buffer, np.ndarray], sizes: Mapping[str, int]
) -> None:
    """Run a kernel on arrays in storage format; each is contiguous."""
    if isinstance(kernel, Contract):
        _run_contract(kernel, memory, sizes)
    elif isinstance(kernel, Sort):
        _run_sort(kernel, memory, sizes)
    else:
        _run_nest(kernel, memory, sizes)


def _run_sort(kernel: Sort, memory: Mapping[Buffer, np.ndarray], sizes: Mapping[str, int]) -> None:
    shape = tuple(evaluate_size(a.extent, sizes) for a in (kernel.row, kernel.length))
    keys, order, *_ = (memory[b].reshape(shape) for b in kernel.buffers)
    order[...] = np.argsort(keys, axis=1, kind="stable")
    for b in (kernel.buffers[0], *kernel.buffers[2:]):
        memory[b][...] = -1  # nobody may rely on what is left there


def _run_nest(kernel: Nest, memory: Mapping[Buffer, np.ndarray], sizes: Mapping[str, int]) -> None:
    given: dict[str, np.ndarray] = {}
    for p in kernel.passes:
        if p.carries:
            _run_carried(kernel, p, memory, sizes, given)
            continue
        grid = _Grid((*kernel.rows, *p.axes), memory, sizes, dict(given))
        inner = tuple(range(len(kernel.rows), len(grid.axes)))
        values = [_reduce(r, grid, inner) for r in p.reductions]
        # All values of a point are computed before its stores.
        for s in p.stores:
            grid(s.value)
        for s in p.stores:
            grid.store(s)
        given |= {r.target.name: v for r, v in zip(p.reductions, values, strict=True)}


def _run_carried(
    kernel: Nest,
    p: Pass,
    memory: Mapping[Buffer, np.ndarray],
    sizes: Mapping[str, int],
    given: Mapping[str, np.ndarray],
) -> None:
    """One point of the pass after another, all rows at once."""
    assert not p.reductions, "a pass carries or reduces"
    first = _Grid(kernel.rows, memory, sizes, given)
    held = {c.target.name: first.full(c.start) for c in p.carries}
    for at in np.ndindex(*(evaluate_size(a.extent, sizes) for a in p.axes)):
        fixed = dict(zip(p.axes, at, strict=True))
        grid = _Grid(kernel.rows, memory, sizes, {**given, **held}, fixed)
        held = {c.target.name: grid.full(c.value) for c in p.carries}
        for s in p.stores:
            grid(s.value)
        for s in p.stores:
            grid.store(s)


def _reduce(r: Reduction, grid: _Grid, inner: tuple[int, ...]) -> np.ndarray:
    fold, identity = _FOLD[r.op]
    value = grid.full(r.value)
    dtype = r.target.dtype
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        identity = {"maximum": info.min, "minimum": info.max}.get(r.op, identity)
    with np.errstate(all="ignore"):
        result = fold.reduce(value, axis=inner, initial=identity)
    return np.asarray(result).astype(np.float64 if dtype.is_float else dtype.numpy)


def _run_contract(
    kernel: Contract, memory: Mapping[Buffer, np.ndarray], sizes: Mapping[str, int]
) -> None:
    a = _Grid((*kernel.batch, kernel.m, kernel.k), memory, sizes, {}).full(kernel.a)
    b = _Grid((*kernel.batch, kernel.k, kernel.n), memory, sizes, {}).full(kernel.b)
    dtype = kernel.acc.dtype
    kind = np.dtype(np.float64) if dtype.is_float else dtype.numpy
    with np.errstate(all="ignore"):
        acc = np.matmul(a.astype(kind), b.astype(kind))
    grid = _Grid((*kernel.batch, kernel.m, kernel.n), memory, sizes, {kernel.acc.name: acc})
    for s in kernel.stores:
        grid(s.value)
    for s in kernel.stores:
        grid.store(s)


def sizes_of(types: Sequence[TensorType], arrays: Sequence[np.ndarray]) -> dict[str, int]:
    """The values of the symbols that stand alone in the types of some arrays."""
    found: dict[str, int] = {}
    for type, array in zip(types, arrays, strict=True):
        for size, extent in zip(type.shape, array.shape, strict=True):
            if isinstance(size, Dim) and str(size).isidentifier():
                found.setdefault(str(size), extent)
    return found


def run_prepare(program: Program, storages: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """The tensors that prepare makes of the storages."""
    prepared = tuple(_garbage(p.dtype, p.shape) for p in program.prepared)
    machine = _Machine(program, {}, (), (), storages, prepared, program.prepare_arena)
    machine.run(program.prepare)
    return prepared


def run_program(
    program: Program,
    inputs: Sequence[np.ndarray],
    storages: Mapping[str, np.ndarray],
    sizes: Mapping[str, int] | None = None,
) -> tuple[np.ndarray, ...]:
    """Prepare and run: arrays in storage format in and out; updated storages change in place."""
    values = sizes_of(program.inputs, inputs) if sizes is None else dict(sizes)
    outputs = tuple(
        _garbage(t.dtype, tuple(evaluate_size(s, values) for s in t.shape)) for t in program.outputs
    )
    prepared = run_prepare(program, storages)
    arena = evaluate_size(program.arena, values)
    machine = _Machine(program, values, inputs, outputs, storages, prepared, arena)
    machine.run(program.run)
    return outputs


def _garbage(dtype: DType, shape: Sequence[int]) -> np.ndarray:
    """Memory that nobody has written: reading it must show."""
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    fill = np.full(count, 1 if dtype.kind == "b" else 0xCB, np.uint8)
    return fill.view(dtype.numpy).reshape(tuple(shape))


class _Machine:
    def __init__(
        self,
        program: Program,
        sizes: Mapping[str, int],
        inputs: Sequence[np.ndarray],
        outputs: Sequence[np.ndarray],
        storages: Mapping[str, np.ndarray],
        prepared: Sequence[np.ndarray],
        arena: int,
    ) -> None:
        self.sizes, self.inputs, self.outputs = dict(sizes), inputs, outputs
        self.storages, self.prepared = storages, prepared
        self.arena = np.full(arena, 0xCB, np.uint8)
        self.constants = [
            np.frombuffer(bytearray(c.data), c.type.dtype.numpy) for c in program.constants
        ]

    def run(self, steps: Sequence[Step]) -> None:
        """Regions in order; the launches of a region backwards, for they are independent."""
        region: list[Launch] = []
        for step in steps:
            if not isinstance(step, Launch):
                self._region(region)
                region = []
                self._control(step)
                continue
            if not step.independent:
                self._region(region)
                region = []
            region.append(step)
        self._region(region)

    def _control(self, step: Loop | While | Choice) -> None:
        match step:
            case Loop(counter=counter, trips=trips, body=body):
                for i in range(evaluate_size(trips, self.sizes)):
                    self.sizes[counter.name] = i
                    self.run(body)
                self.sizes.pop(counter.name, None)
            case While(test=test, goes_on=place, body=body):
                self.run(test)
                while self._number(place, bool_):
                    self.run(body)
                    self.run(test)
            case Choice(index=place, branches=branches):
                index = self._number(place, i32)
                self.run(branches[min(max(index, 0), len(branches) - 1)])

    def _number(self, place: Place, dtype: DType) -> int:
        """The one number that lies at a place."""
        return int(self._memory(Buffer("number", dtype, ()), place, self.sizes)[0])

    def _region(self, region: Sequence[Launch]) -> None:
        for launch in reversed(region):
            kernel = launch.scheduled.kernel
            sizes = dict(self.sizes)
            if launch.sizes is not None:
                names = [s.name for s in kernel_symbols(kernel)]
                values = [evaluate_size(s, self.sizes) for s in launch.sizes]
                sizes = dict(zip(names, values, strict=True))
            memory = {
                b: self._memory(b, place, sizes)
                for b, place in zip(kernel.buffers, launch.places, strict=True)
            }
            run_kernel(kernel, memory, sizes)

    def _memory(self, buffer: Buffer, place: Place, sizes: Mapping[str, int]) -> np.ndarray:
        """The elements of a buffer, one after another."""
        count, dtype = evaluate_size(product(buffer.shape), sizes), buffer.dtype
        match place:
            case ArenaAt(offset=offset):
                array = self.arena
            case PartAt(whole=whole, bytes=offset):
                array = self._whole(whole).reshape(-1).view(np.uint8)
            case _:
                array = self._whole(place)
                flat = array.reshape(-1)
                assert np.shares_memory(flat, array) or array.size == 0
                assert flat.dtype == dtype.numpy, (place, flat.dtype, buffer.dtype)
                assert flat.size == count, (place, flat.size, buffer)
                return flat
        start = evaluate_size(offset, self.sizes)
        stop = start + count * dtype.itemsize
        assert 0 <= start <= stop <= len(array), f"{buffer} lies beyond {place}"
        return array[start:stop].view(dtype.numpy)

    def _whole(self, place: Place) -> np.ndarray:
        match place:
            case InputAt(position=i):
                return np.ascontiguousarray(self.inputs[i])
            case OutputAt(position=i):
                return self.outputs[i]
            case StorageAt(name=name):
                return self.storages[name]
            case PreparedAt(position=i):
                return self.prepared[i]
            case ConstantAt(position=i):
                return self.constants[i]
        raise AssertionError(f"{place} is no array of its own")
