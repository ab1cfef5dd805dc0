"""Schedules of nests: the vector axis by the strides of all accesses, width, unrolling, grain."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import Dim, product, size_bounds
from fluxc.compiler.kernels.inline import computing
from fluxc.compiler.kernels.kernel import (
    Apply,
    Axis,
    Expressions,
    Load,
    Local,
    Nest,
    Pass,
    kernel_roots,
    kernel_stores,
    operands,
    walk,
)
from fluxc.compiler.kernels.schedule import NestSchedule

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.kernel import Expr, Sort
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["schedule_nest", "schedule_sort"]

_THREAD_NS = 15_000.0  # work that is worth waking a thread for
_NS_PER_BYTE = 0.03
_NS_PER_OP = 0.25  # of one instruction, whatever its width
_OPS = {
    "exp": 12, "exp2": 10, "expm1": 20, "log": 16, "log2": 16, "log10": 18, "log1p": 24, "tanh": 20,
    "erf": 24, "sin": 24, "cos": 24, "tan": 36, "asin": 24, "acos": 24, "atan": 24, "sinh": 28,
    "cosh": 28, "asinh": 36, "acosh": 36, "atanh": 30, "cbrt": 24, "pow": 50, "atan2": 36,
    "div": 5, "sqrt": 5, "rsqrt": 6, "floor_div": 20, "mod": 20, "fmod": 40,
}  # fmt: skip
_TYPICAL = 64
_LINE = 64  # bytes
_SQUARES = 1 << 16  # points below which all that a transposition reads stays near
_LATENCY = 4.0  # what a point of a running sum waits for the point before, in instructions


@dataclass(frozen=True, slots=True)
class _Access:
    """A load or store: how far it moves for a step along an axis, and its bytes."""

    stride: dict[Axis, Size | None]
    bytes: int
    store: bool


def typical(size: Size) -> int:
    """A number for a size: itself, or what its range has next to 64."""
    if not isinstance(size, Dim):
        return size
    low, high = size_bounds(size)
    return int(min(max(_TYPICAL, low), high))


def schedule_nest(nest: Nest, target: Target) -> tuple[Nest, NestSchedule]:
    """The nest with its axes in the order that suits it, and how it runs."""
    lanes = target.vector_bytes * 8 // _widest(nest)
    best = min(_candidates(nest), key=lambda axis: _cost(nest, axis, lanes))
    nest = _last(nest, best) if best is not None else nest
    extent = None if best is None else best.extent
    width = 1 if best is None else lanes
    unroll = _unroll(nest, best, extent, width)
    if best is not None:
        nest, best = _in_squares(nest, best, width * unroll)
    return nest, NestSchedule(best, width, unroll, _grain(nest, best, width, unroll))


def schedule_sort(sort: Sort) -> NestSchedule:
    """Rows one by one: a row takes about 3 ns for each element and each doubling of its length."""
    n = max(typical(sort.length.extent), 2)
    grain = max(1, round(_THREAD_NS / (3.0 * n * math.log2(n))))
    few = size_bounds(sort.row.extent)[1] < 2 * grain
    return NestSchedule(None, 1, 1, 0 if few else grain)


def _widest(nest: Nest) -> int:
    """Bits of the widest value, index arithmetic aside."""
    loaded: set[Expr] = set()
    for e in walk(*kernel_roots(nest)):
        if isinstance(e, Load | Local) or any(x in loaded for x in operands(e)):
            loaded.add(e)
    values = [e for e in _values(nest) if isinstance(e, Load | Apply) and e.dtype.kind != "b"]
    dtypes = [e.dtype for e in values if e in loaded or e.dtype.is_float]
    dtypes += [s.buffer.dtype for s in kernel_stores(nest)]
    return max([8, *(computing(t).bits for t in dtypes)])


def _values(nest: Nest) -> list[Expr]:
    """All expressions but those of indices."""
    roots: list[Expr] = []
    for p in nest.passes:
        roots += [r.value for r in p.reductions]
        roots += [c.value for c in p.carries]
        roots += [s.value for s in p.stores]
    seen: dict[Expr, None] = {}
    stack = list(reversed(roots))
    while stack:
        e = stack.pop()
        if e not in seen:
            seen[e] = None
            if isinstance(e, Apply):
                stack.extend(e.args)
    return list(seen)


def _candidates(nest: Nest) -> list[Axis | None]:
    """Axes that may be the vector axis; None where there is none."""
    found: list[Axis | None] = [None]
    if any(p.carries or any(s.accumulate for s in p.stores) for p in nest.passes):
        return [*found, *nest.rows]
    inner = list(dict.fromkeys(a for p in nest.passes for a in p.axes))
    lasts = {p.axes for p in nest.passes if p.axes}
    found += nest.rows
    if len(lasts) == 1:
        found += inner
    else:
        found += [p.axes[-1] for p in nest.passes if p.axes]
    return list(dict.fromkeys(found))


def _accesses(p: Pass, k: Expressions, axes: tuple[Axis, ...]) -> list[_Access]:
    roots: list[Expr] = [r.value for r in p.reductions]
    roots += [c.value for c in p.carries]
    for s in p.stores:
        roots += [s.value, *s.index]
    loads = [e for e in walk(*roots) if isinstance(e, Load)]
    found = []
    for buffer, index, store in [
        *((e.buffer, e.index, False) for e in loads),
        *((s.buffer, s.index, True) for s in p.stores),
    ]:
        form = k.linear(k.flatten(index, buffer.shape))
        strides = {a: form.stride(a) for a in axes}
        found.append(_Access(strides, buffer.dtype.itemsize, store))
    return found


def _cost(nest: Nest, axis: Axis | None, lanes: int) -> float:
    """Instructions of the whole nest, about."""
    k = Expressions()
    axes = (*nest.rows, *(a for p in nest.passes for a in p.axes))
    rows = math.prod(typical(a.extent) for a in nest.rows)
    total: float = 0.0
    for p in nest.passes:
        points = float(rows * math.prod(typical(a.extent) for a in p.axes))
        speed = 1.0
        vector = axis is not None and (axis in nest.rows or axis in p.axes)
        if vector and axis is not None:
            extent = max(typical(axis.extent), 1)
            speed = extent / (-(-extent // lanes))
        work = _instructions(p) + 1.0
        for access in _accesses(p, k, axes):
            stride = access.stride[axis] if vector and axis is not None else 0
            if not vector or stride in {0, 1}:
                work += 1.0 if stride or not vector else 0.3
            else:
                work += speed * (1.5 if access.store else 1.0)
        total += points * work / speed
        if vector and axis in p.axes and p.reductions:
            total += len(p.reductions) * 12.0 * points / max(typical(axis.extent), 1)
    return total


def _instructions(p: Pass) -> float:
    """Arithmetic of a point of a pass."""
    body = Nest("", (), (), (p,))
    ops = sum(_OPS.get(e.op, 1) for e in _values(body) if isinstance(e, Apply))
    return ops + len(p.reductions) + _LATENCY * len(p.carries)


def _last(nest: Nest, axis: Axis) -> Nest:
    """The nest with `axis` innermost among its rows or its inner axes."""

    def moved(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return (*(a for a in axes if a is not axis), axis) if axis in axes else axes

    passes = tuple(Pass(moved(p.axes), p.reductions, p.stores, p.carries) for p in nest.passes)
    return Nest(nest.name, nest.buffers, moved(nest.rows), passes)


def _in_squares(nest: Nest, vector: Axis, block: int) -> tuple[Nest, Axis]:
    """The nest with a transposition cut in squares, and its vector axis.

    Where lanes lie apart in what is read and neighbours along another row side by side, as many
    rows as share a line of the cache follow one another before the next block of lanes.
    """
    other = _side_by_side(nest, vector)
    if (
        block == 1
        or other is None
        or not isinstance(vector.extent, int)
        or not isinstance(other[0].extent, int)
    ):
        return nest, vector
    row, line = other
    if (
        row.extent % line
        or vector.extent % block
        or math.prod(typical(a.extent) for a in nest.rows) < _SQUARES
    ):
        return nest, vector
    outer, inner = Axis(row.name, row.extent // line), Axis(f"{row.name}_line", line)
    blocks, lanes = Axis(vector.name, vector.extent // block), Axis(f"{vector.name}_block", block)
    k = Expressions()
    place = {
        row: k.add(k.mul(k.index(outer), line), k.index(inner)),
        vector: k.add(k.mul(k.index(blocks), block), k.index(lanes)),
    }
    stores = []
    for s in nest.passes[0].stores:
        value, *index = k.substitute((s.value, *s.index), place)
        guard = None if s.guard is None else k.substitute((s.guard,), place)[0]
        stores.append(replace(s, index=tuple(index), value=value, guard=guard))
    others = tuple(a for a in nest.rows if a not in {row, vector})
    rows = (*others, *(a for a in (outer, blocks) if a.extent != 1), inner, lanes)
    return Nest(nest.name, nest.buffers, rows, (Pass((), (), tuple(stores)),)), lanes


def _side_by_side(nest: Nest, vector: Axis) -> tuple[Axis, int] | None:
    """A row along which something lies side by side that lies apart along the vector axis, and
    how many elements share a line; None where there is none, or a point is more than itself."""
    first, *more = nest.passes
    plain = not (more or first.axes or any(s.accumulate for s in first.stores))
    if not plain or vector not in nest.rows:
        return None
    for access in _accesses(first, Expressions(), nest.rows):
        apart = access.stride[vector] not in {0, 1}
        beside = [a for a in nest.rows if access.stride[a] == 1]
        if apart and beside:
            return beside[0], _LINE // access.bytes
    return None


def _unroll(nest: Nest, axis: Axis | None, extent: Size | None, width: int) -> int:
    """Vectors in flight: sums need several to hide latency, heavy bodies have enough of it."""
    if axis is None or extent is None:
        return 1
    heaviest = max((_instructions(p) for p in nest.passes), default=0.0)
    most = 1 if heaviest > 40 else 2 if heaviest > 12 else 4
    if any(e for e in _values(nest) if isinstance(e, Load) and any(map(_gathers, e.index))):
        most = 1
    high = size_bounds(extent)[1]
    while most > 1 and high < most * width:
        most //= 2
    return most


def _gathers(index: Expr) -> bool:
    return any(isinstance(e, Load) for e in walk(index))


def _grain(nest: Nest, axis: Axis | None, width: int, unroll: int) -> int:
    """Points of the parallel space that make up a thread's least share."""
    if not nest.rows:
        return 0
    rows = axis is not None and axis in nest.rows
    per_point = 0.0
    k = Expressions()
    axes = (*nest.rows, *(a for p in nest.passes for a in p.axes))
    for p in nest.passes:
        inner = float(math.prod(typical(a.extent) for a in p.axes))
        vector = rows or (axis is not None and axis in p.axes)
        speed = width if vector else 1
        accesses = _accesses(p, k, axes)
        moved = sum(a.bytes for a in accesses if any(s != 0 for s in a.stride.values()))
        ops = _instructions(p) + len(accesses)
        per_point += inner * max(ops * _NS_PER_OP / speed, moved * _NS_PER_BYTE)
    unit = per_point * (width * unroll if rows else 1)
    grain = max(1, round(_THREAD_NS / max(unit, 1e-3)))
    points = product(a.extent for a in nest.rows)
    if rows:
        points = points // (width * unroll)
    return 0 if size_bounds(points)[1] < 2 * grain else grain
