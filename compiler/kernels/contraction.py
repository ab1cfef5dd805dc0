"""How a contraction runs on a target: register tile, blocking, packing; and whether it is one at all.

The model counts cycles of the inner loop.  A tile of `r` rows x `v` vectors takes, for each step of
k, `r * v` multiply-adds and `r + v` loads, and its `r * v` chains must be enough to hide the latency
of one multiply-add.  Sizes that are known only at run time stand for the values in `_TYPICAL`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import Dim, ceildiv, product, size_bounds
from fluxc.compiler.kernels.kernel import Apply, Const, Extent, Index
from fluxc.compiler.kernels.schedule import ContractSchedule

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.kernels.kernel import Axis, Contract, Expr, Load
    from fluxc.compiler.kernels.schedule import Target

__all__ = [
    "Affine",
    "affine_index",
    "choose_contract_schedule",
    "contract_cycles",
    "contract_tasks",
    "flat_index",
    "worth_contract",
    "worth_packing",
]

_TYPICAL = (1, 16, 256)  # what a size that only run time knows is taken for
_FMA_PER_CYCLE = 2
_LOADS_PER_CYCLE = 2
_FMA_LATENCY = 4
_TILE_OVERHEAD = 30  # cycles to start a tile and to hand its accumulators to the epilogue
_TASK_CYCLES = 50_000  # fewest cycles that are worth a thread: 15-25 microseconds


@dataclass(frozen=True, slots=True)
class Affine:
    """`constant + sum of steps[axis] * axis`, all of them sizes."""

    constant: Size
    steps: dict[Axis, Size]

    def step(self, axis: Axis) -> Size:
        return self.steps.get(axis, 0)


def flat_index(load: Load) -> Affine | None:
    """Where in its buffer, counted in elements, a load reads; None where that is not affine."""
    parts = [affine_index(e) for e in load.index]
    strides = [product(load.buffer.shape[i + 1 :]) for i in range(len(parts))]
    total = Affine(0, {})
    for part, stride in zip(parts, strides, strict=True):
        if part is None:
            return None
        total = _add(total, _scale(part, stride))
    return total


def affine_index(e: Expr) -> Affine | None:
    """An index expression as constant + steps * axes, or None."""
    match e:
        case Const(value=int(value)):
            return Affine(value, {})
        case Extent(size=size):
            return Affine(size, {})
        case Index(axis=axis):
            return Affine(0, {axis: 1})
        case Apply(op="add" | "sub" | "mul" as op, args=(left, right)):
            x, y = affine_index(left), affine_index(right)
            if x is None or y is None:
                return None
            if op == "mul":
                return (
                    _scale(x, y.constant)
                    if not y.steps
                    else None
                    if x.steps
                    else _scale(y, x.constant)
                )
            return _add(x, y if op == "add" else _scale(y, -1))
        case Apply(op="neg", args=(x,)):
            inner = affine_index(x)
            return inner and _scale(inner, -1)
    return None


def _add(x: Affine, y: Affine) -> Affine:
    steps = {a: x.step(a) + y.step(a) for a in {**x.steps, **y.steps}}
    return Affine(x.constant + y.constant, {a: s for a, s in steps.items() if s != 0})


def _scale(x: Affine, factor: Size) -> Affine:
    if factor == 0:
        return Affine(0, {})
    return Affine(x.constant * factor, {a: s * factor for a, s in x.steps.items()})


def accumulator_bits(dtype: DType) -> int:
    """16-bit floats are summed in f32."""
    return 32 if dtype.is_float and dtype.bits == 16 else dtype.bits


def choose_contract_schedule(
    m: Size,
    n: Size,
    k: Size,
    dtype: DType,
    target: Target,
    *,
    batch: Size = 1,
    packed: int | None = None,
) -> ContractSchedule:
    """The tile that loses least on `m` and `n`, and tasks that fit the caches.

    dtype   of the accumulator, or the 16-bit float that is summed in f32
    packed  the panel width of a `b` that is packed already, in columns
    Panels made for the schedule are `nv * width` columns wide.
    """
    width = max(1, target.vector_bytes * 8 // accumulator_bits(dtype))
    mr, nv = _best_tile(tuple(_typical(m)), tuple(_typical(n)), width, target, packed)
    itemsize = width and target.vector_bytes // width
    kc = _long_run(k, mr, nv, itemsize * width, target)
    mc = _rows_of_a_task(m, n, k, mr, nv * width, itemsize, kc, target)
    task = _tile_cycles(mr, nv) * min(_typical(k)[-1], 1 << 16) * -(-min(mc, _typical(m)[-1]) // mr)
    grain = max(1, math.ceil(_TASK_CYCLES / max(task, 1.0)))
    tasks = batch * ceildiv(m, mc) * ceildiv(n, nv * width)
    if size_bounds(tasks)[1] < 2 * grain:
        grain = 0
    return ContractSchedule(mr=mr, nv=nv, width=width, kc=kc, mc=mc, grain=grain)


def contract_tasks(kernel: Contract, schedule: ContractSchedule) -> Size:
    """The number of tasks: batch elements x blocks of mc rows x panels of columns."""
    panels = ceildiv(kernel.n.extent, schedule.nv * schedule.width)
    return product(x.extent for x in kernel.batch) * ceildiv(kernel.m.extent, schedule.mc) * panels


def contract_cycles(m: Size, n: Size, k: Size, dtype: DType, target: Target) -> float:
    """A guess of the cycles that the product takes on one core, packing aside."""
    width = max(1, target.vector_bytes * 8 // accumulator_bits(dtype))
    ms, ns, ks = _typical(m), _typical(n), _typical(k)
    mr, nv = _best_tile(tuple(ms), tuple(ns), width, target, None)
    return _plane_cycles(ms[-1], ns[-1], width, mr, nv) * ks[-1]


def worth_contract(m: Size, n: Size, k: Size, dtype: DType, target: Target) -> bool:
    """Whether a Contract beats a Nest that sums over k with vectors along k.

    The tile wastes all but n lanes of its vectors; the Nest wastes a shuffle tree per sum.
    """
    width = max(1, target.vector_bytes * 8 // accumulator_bits(dtype))
    columns = size_bounds(n)[1]
    if columns * 4 < width or columns == 1:
        return False
    return not (size_bounds(m)[1] <= 1 and columns * 2 < width)


def worth_packing(
    m: Size,
    n: Size,
    k: Size,
    dtype: DType,
    target: Target,
    *,
    unit_stride: bool,
    constant: bool,
) -> bool:
    """Whether `b` is copied into panels before the product.

    unit_stride  `b`'s neighbouring columns lie side by side: it can be read where it is
    constant     it depends on parameters alone, so that packing happens once, outside the call
    """
    if constant:
        return True
    rows = size_bounds(m)[1]
    if not unit_stride:
        return True
    if size_bounds(n)[1] * target.vector_bytes <= target.vector_bytes:
        return False
    # A copy costs about as much as one row of the product; in return every tile reads whole lines
    # in order.  Short panels stay in the first-level cache and gain nothing.
    return rows >= 256 and size_bounds(k)[1] * size_bounds(n)[1] * dtype.itemsize > target.l2


def _typical(size: Size) -> list[int]:
    """Values that stand for a size: itself, or what its range and `_TYPICAL` have in common."""
    if not isinstance(size, Dim):
        return [size]
    low, high = size_bounds(size)
    return sorted({int(min(max(v, low), high)) for v in _TYPICAL})


@lru_cache(maxsize=4096)
def _best_tile(
    ms: tuple[int, ...], ns: tuple[int, ...], width: int, target: Target, packed: int | None
) -> tuple[int, int]:
    vectors = [packed // width] if packed else range(1, 9)
    best = (math.inf, 0, 0)
    for nv in vectors:
        for mr in range(1, target.vector_registers + 1):
            if mr * nv + nv + 1 > target.vector_registers and mr > 1:
                break
            cost = math.prod(_plane_cycles(m, n, width, mr, nv) for m in ms for n in ns)
            best = min(best, (cost, mr, nv))
    return best[1], best[2]


def _plane_cycles(m: int, n: int, width: int, mr: int, nv: int) -> float:
    """Cycles for one step of k over the whole m x n plane."""
    rows = row_steps(m, mr)
    whole, rest = divmod(-(-n // width), nv)
    per_panel = sum(_tile_cycles(r, nv) for r in rows)
    tail = sum(_tile_cycles(r, rest) for r in rows) if rest else 0.0
    return max(whole * per_panel + tail, 0.25)


def row_steps(m: int, mr: int) -> list[int]:
    """How `m` rows are cut into tiles: mr each, the last two balanced."""
    steps = []
    while m > 0:
        step = mr if m >= 2 * mr else (m + 1) // 2 if m > mr else m
        steps.append(step)
        m -= step
    return steps


def _tile_cycles(r: int, v: int) -> float:
    """Cycles that a tile takes for one step of k."""
    chains = r * v if r * v >= _FMA_LATENCY * _FMA_PER_CYCLE else _FMA_LATENCY * _FMA_PER_CYCLE
    fma = r * v / _FMA_PER_CYCLE
    latency = _FMA_LATENCY * r * v / chains
    return max(fma, (r + v) / _LOADS_PER_CYCLE, latency, 1.0) + _TILE_OVERHEAD / 512


def _long_run(k: Size, mr: int, nv: int, vector_bytes: int, target: Target) -> int:
    """kc: the panel must stay in the second-level cache while the rows of a task pass by."""
    high = size_bounds(k)[1]
    longest = max(256, target.l2 // 4 // (nv * vector_bytes))
    if high <= longest:
        return max(1, int(high))
    if isinstance(k, int):
        blocks = -(-k // longest)
        return -(-k // blocks // 8) * 8 if k // blocks >= 8 else longest
    return longest // 8 * 8


def _rows_of_a_task(
    m: Size, n: Size, k: Size, mr: int, nr: int, itemsize: int, kc: int, target: Target
) -> int:
    """mc: the rows of `a` fill half of the second-level cache, and tasks stay small enough to share."""
    fit = max(mr, target.l2 // 2 // (itemsize * kc) // mr * mr)
    rows = min(fit, -(-256 // mr) * mr)
    if isinstance(m, int):
        if m <= rows:
            return max(m, 1)
        blocks = -(-m // rows)
        return -(-(-(-m // blocks)) // mr) * mr
    return rows
