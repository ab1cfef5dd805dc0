"""How a contraction runs on a target: register tile, blocking, packing; and whether it is one.

The model counts cycles.  For each step of k a tile of `r` rows x `v` vectors takes `r * v`
multiply-adds and `r + v` loads, its sums must be enough to hide the latency of a multiply-add, and
its `v` vectors of `b` come from the second-level cache.  A size that only run time knows stands for
the values in `_TYPICAL`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import Dim, ceildiv, dim, product, size_bounds
from fluxc.compiler.kernels.affine import flat_index, levels, walked_index
from fluxc.compiler.kernels.schedule import ContractSchedule

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.kernels.kernel import Contract
    from fluxc.compiler.kernels.schedule import Target

__all__ = [
    "STAGED_RUN",
    "aligned_rows",
    "choose_contract_schedule",
    "contract_cycles",
    "contract_staged",
    "contract_tasks",
    "row_heights",
    "row_segment",
    "row_steps",
    "worth_contract",
    "worth_packing",
]

_TYPICAL = (1, 16, 256)  # what a size that only run time knows is taken for
_FMA_PER_CYCLE = 2
_LOADS_PER_CYCLE = 2
_ISSUED_PER_CYCLE = 4
_FMA_LATENCY = 4
_BYTES_PER_CYCLE = 24  # from the second-level cache
_TILE_CYCLES = 20  # to start a tile
_SUM_CYCLES = 3  # to hand one vector of sums to the epilogue
_THREAD_CYCLES = 50_000  # fewest cycles that are worth a thread: 15 to 25 microseconds
_SHARES = 8  # tasks that a product is cut into if it is large enough, so that threads end together
_PACKED_RUN = 2048  # the longest run of k over panels in memory,
STAGED_RUN = 256  # and over a panel that is copied to the stack first
_ROWS = 256  # of a task: enough to pay for a copy of the panel, few enough to stay in cache
_ANY = dim("rows")
_STREAMS = 8  # rows of `a` that a core follows at ease


def accumulator_bits(dtype: DType) -> int:
    """16-bit floats are summed in f32."""
    return 32 if dtype.is_float and dtype.bits == 16 else dtype.bits


@dataclass(frozen=True, slots=True)
class _Problem:
    """Typical sizes, and the machine as the model sees it.

    segment: rows that a tile may hold, counted from a multiple of it; None: any rows that follow
             one another.  fixed: whether m and the segment are known.
    """

    ms: tuple[int, ...]
    ns: tuple[int, ...]
    ks: tuple[int, ...]
    width: int
    itemsize: int
    registers: int
    segment: int | None
    fixed: bool

    @property
    def largest(self) -> tuple[int, int, int]:
        return self.ms[-1], self.ns[-1], self.ks[-1]


def _problem(
    m: Size, n: Size, k: Size, dtype: DType, target: Target, segment: Size | None = None
) -> _Problem:
    itemsize = accumulator_bits(dtype) // 8
    width = max(1, target.vector_bytes // itemsize)
    sizes = (_typical(m), _typical(n), _typical(k))
    part = None if segment is None else _typical(segment)[-1]
    fixed = isinstance(m if segment is None else segment, int)
    return _Problem(*sizes, width, itemsize, target.vector_registers, part, fixed)


def _typical(size: Size) -> tuple[int, ...]:
    """Values that stand for a size: itself, or what its range leaves of `_TYPICAL`."""
    if not isinstance(size, Dim):
        return (size,)
    low, high = size_bounds(size)
    return tuple(sorted({int(min(max(v, low), high)) for v in _TYPICAL}))


# Decisions.


def choose_contract_schedule(
    m: Size,
    n: Size,
    k: Size,
    dtype: DType,
    target: Target,
    *,
    batch: Size = 1,
    packed: int | None = None,
    segment: Size | None = None,
) -> ContractSchedule:
    """The tile that loses least on `m` and `n`, and tasks that fit the caches.

    dtype   of the operands; 16-bit floats are summed in f32
    packed  the panel width of a `b` that is packed, in columns.  Panels made for a schedule are
            `nv * width` columns wide, and asking again with that width gives the same tile.
    segment the rows of `a` that lie equally far apart, see `row_segment`
    """
    p = _problem(m, n, k, dtype, target, segment)
    mr, nv = _best_tile(p, packed)
    kc = _run_of_k(k, _PACKED_RUN if packed else STAGED_RUN)
    mc = _rows_of_a_task(p, _typical(batch)[-1], mr, nv, kc, target.l2)
    cycles = _task_cycles(p, mr, nv, mc)
    grain = max(1, math.ceil(_THREAD_CYCLES / max(cycles, 1.0)))
    tasks = batch * ceildiv(m, mc) * ceildiv(n, nv * p.width)
    never = size_bounds(tasks)[1] < 2 * grain
    staged = packed is None and size_bounds(m)[1] >= 2 * mr
    return ContractSchedule(
        mr=mr, nv=nv, width=p.width, kc=kc, mc=mc, grain=0 if never else grain, staged=staged
    )


def row_segment(kernel: Contract) -> Size | None:
    """How many rows of `a` lie equally far apart, where they are not all of them."""
    where = walked_index(kernel.a)
    rows = None if where is None else levels(where, kernel.m)
    return None if rows is None or len(rows) == 1 else rows[-1].extent


def contract_tasks(kernel: Contract, schedule: ContractSchedule) -> Size:
    """The number of tasks: batch elements x blocks of mc rows x panels of columns."""
    panels = ceildiv(kernel.n.extent, schedule.nv * schedule.width)
    return product(x.extent for x in kernel.batch) * ceildiv(kernel.m.extent, schedule.mc) * panels


def contract_staged(kernel: Contract, schedule: ContractSchedule) -> bool:
    """Whether a task copies its panel of `b`: where the schedule says so, or columns lie apart."""
    if kernel.packed is not None or kernel.n.extent == 1:
        return False
    where = flat_index(kernel.b)
    if where is None:
        return schedule.staged
    columns, depth = where.step(kernel.n), where.step(kernel.k)
    same = kernel.b.dtype == kernel.acc.dtype
    if same and columns == 1 and depth == schedule.nv * schedule.width:
        return False  # a panel of its own as it lies
    return schedule.staged or columns != 1


def contract_cycles(m: Size, n: Size, k: Size, dtype: DType, target: Target) -> float:
    """A guess of the cycles that the product takes on one core, packing aside."""
    p = _problem(m, n, k, dtype, target)
    return _plane_cycles(p, *p.largest, *_best_tile(p, None))


def worth_contract(
    m: Size, n: Size, k: Size, dtype: DType, target: Target, *, unit_stride: bool = True
) -> bool:
    """Whether a Contract beats a Nest that sums over k with vectors along k.

    unit_stride  `b`'s neighbouring columns lie side by side.  Where they do not, a Contract copies
                 `b` first, which one row does not pay for.
    A Contract wastes the lanes beyond n, a Nest a tree of shuffles for each sum.
    """
    rows, columns, _ = (size_bounds(x)[1] for x in (m, n, k))
    width = max(1, target.vector_bytes * 8 // accumulator_bits(dtype))
    if columns == 1 or columns * 4 < width:
        return False
    return unit_stride or rows > 1


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
    """Whether `b` is packed into panels by a kernel of its own.

    constant  it depends on parameters alone: packing happens once, outside the call.
    Other operands are copied panel by panel inside the contraction, see `contract_staged`: no
    memory, no second pass, whatever their strides are.
    """
    del m, n, k, dtype, unit_stride
    return constant and not target.gpu


# The model.


@lru_cache(maxsize=4096)
def _best_tile(p: _Problem, packed: int | None) -> tuple[int, int]:
    vectors = [packed // p.width] if packed else range(1, 9)
    best = (math.inf, 1, 1)
    for nv in vectors:
        for mr in range(1, p.registers):
            if mr * nv + nv + max(1, p.registers // 10) > p.registers:
                break
            shapes = ((m, n, k) for m in p.ms for n in p.ns for k in p.ks)
            # Large sizes are where time goes: each counts as much as all the smaller ones.
            cost = 0.0
            for shape in shapes:
                cost += max(cost, 1.0) * math.log(_plane_cycles(p, *shape, mr, nv))
            best = min(best, (cost, mr, nv))
    return best[1], best[2]


def _plane_cycles(p: _Problem, m: int, n: int, k: int, mr: int, nv: int) -> float:
    """Cycles of a whole product."""
    panels, rest = divmod(-(-n // p.width), nv)
    rows, times = _steps(p, m, mr)
    cycles = times * panels * sum(_tile_cycles(p, r, nv, k) for r in rows)
    if rest:  # code for one more kind of panel
        cycles *= 1.01
        cycles += times * sum(_tile_cycles(p, r, rest, k) for r in rows)
    return max(cycles, 1.0)


def _steps(p: _Problem, m: int, mr: int) -> tuple[list[int], float]:
    """How m rows are cut into tiles: those of a segment, and the number of segments."""
    if p.segment is None:
        return row_steps(m, mr, known=p.fixed), 1
    return row_steps(p.segment, mr, known=p.fixed), m / max(p.segment, 1)


def row_heights(m: Size, mr: int, mc: int, segment: Size | None = None) -> list[int]:
    """The rows of tiles, ascending: what a known m asks for, else powers of two and mr."""
    known = m if segment is None else aligned_rows(mc, segment)
    if not isinstance(known, int):
        return [1 << i for i in range(mr.bit_length()) if 1 << i < mr] + [mr]
    if segment is not None:
        return sorted(set(_balanced(known, mr))) or [1]
    blocks = ([mc] if known >= mc else []) + [known % mc]
    return sorted({r for rows in blocks for r in _balanced(rows, mr)}) or [1]


def aligned_rows(mc: int, segment: Size) -> int | None:
    """The rows that tasks and segments have in common, where they are always as many."""
    if not isinstance(segment, int) or segment == 0:
        return None
    return segment if mc % segment == 0 else mc if segment % mc == 0 else None


def row_steps(rows: int, mr: int, *, known: bool) -> list[int]:
    """How the rows of a task are cut into tiles."""
    if known:
        return _balanced(rows, mr)
    heights, steps = row_heights(_ANY, mr, 0), []
    while rows > 0:
        steps.append(max(h for h in heights if h <= rows))
        rows -= steps[-1]
    return steps


def _balanced(rows: int, mr: int) -> list[int]:
    """mr rows each, the last two alike: 9 rows are 5 + 4, not 8 + 1."""
    steps = [mr] * max(0, rows // mr - 1)
    rest = rows - mr * len(steps)
    halves = [rest] if rest <= mr else [(rest + 1) // 2, rest // 2]
    return steps + [h for h in halves if h]


@lru_cache(maxsize=65536)
def _tile_cycles(p: _Problem, r: int, v: int, k: int) -> float:
    count = r * v
    sums = count * max(1, min(4, _FMA_LATENCY * _FMA_PER_CYCLE // count))
    loads, far = (r + v) / _LOADS_PER_CYCLE, v * p.width * p.itemsize / _BYTES_PER_CYCLE
    step = max(count / _FMA_PER_CYCLE, loads, _FMA_LATENCY * count / sums, far)
    # Loads overlap with arithmetic, but never quite; and every instruction must be issued.
    step += 0.02 * (loads + far) + 0.1 * (count + r + v) / _ISSUED_PER_CYCLE
    step *= 1 + 0.01 * max(0, r - _STREAMS)
    return k * step + _TILE_CYCLES + _SUM_CYCLES * count


def _task_cycles(p: _Problem, mr: int, nv: int, mc: int) -> float:
    m, n, k = p.largest
    vectors = max(1, min(nv, -(-n // p.width)))
    rows, times = _steps(replace(p, fixed=True), min(m, mc), mr)
    return times * sum(_tile_cycles(p, r, vectors, k) for r in rows)


def _run_of_k(k: Size, longest: int) -> int:
    """kc: all of k, or equal runs of at most `longest`."""
    high = size_bounds(k)[1]
    if high <= longest:
        return max(1, int(high))
    if not isinstance(k, int):
        return longest
    runs = -(-k // longest)
    return -(-k // runs // 8) * 8


def _rows_of_a_task(p: _Problem, batch: int, mr: int, nv: int, kc: int, l2: int) -> int:
    """mc: its rows of `a` fill at most half of the second-level cache; there are tasks to share."""
    m, n, _ = p.largest
    rows = min(_ROWS, max(mr, l2 // 2 // (p.itemsize * kc)))
    rows = min(rows, max(m, 1))
    panels = batch * -(-n // (nv * p.width))
    while rows > 8 * mr and panels * -(-m // rows) < _SHARES:
        if _task_cycles(p, mr, nv, rows) < 2 * _THREAD_CYCLES:
            break
        rows = -(-rows // 2)
    if p.segment is not None:
        return _whole_segments(rows, mr, p.segment)
    if rows >= m and len(p.ms) == 1:
        return rows
    blocks = -(-m // rows)
    return -(-m // blocks // mr) * mr


def _whole_segments(rows: int, mr: int, segment: int) -> int:
    """About `rows`: segments, or equal parts of one."""
    if segment <= rows:
        return max(1, rows // max(segment, 1) * segment)
    parts = (d for d in range(-(-segment // rows), segment + 1) if segment % d == 0)
    part = segment // next(parts)
    return part if part >= 2 * mr or part * 2 > rows else -(-rows // mr) * mr
