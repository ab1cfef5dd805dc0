"""Schedules for GPUs: how many points a program takes, by the memory that it moves and wastes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxc.compiler.errors import Unsupported
from fluxc.compiler.ir.dims import product, size_bounds
from fluxc.compiler.kernels.cost import typical
from fluxc.compiler.kernels.kernel import Contract, Expressions, Load, Sort, kernel_roots, walk
from fluxc.compiler.kernels.schedule import BlockSchedule, TileSchedule

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.kernel import Axis, Kernel, Nest

__all__ = ["MOST_INNER", "choose_block_schedule", "power_of_two"]

MOST_INNER = 8192  # points of a row that a program holds at once
_MOST_POINTS = 8192
_SECTOR = 32  # bytes that memory hands out together
_PROGRAMS = 132 * 4  # that keep a large chip busy
_ALONE = 1024  # points of a program without inner axes


def power_of_two(n: int) -> int:
    """The least power of two >= n."""
    return 1 << max(0, n - 1).bit_length()


def choose_block_schedule(kernel: Kernel) -> BlockSchedule | TileSchedule:
    if isinstance(kernel, Sort):
        raise Unsupported(
            f"kernel {kernel.name}: a GPU's kernels do not sort yet",
            hint="compile it for a CPU: --target native",
        )
    if isinstance(kernel, Contract):
        return _tile(kernel)
    return _block(kernel)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What the cost of a block depends on.

    rows, inner: points.
    along: bytes of the accesses that move by one element along the rows, along the inner axes.
    again: passes after the first: they find the row in registers if it is held whole.
    """

    rows: int
    inner: int
    along: tuple[int, int]
    again: int


def _block(nest: Nest) -> BlockSchedule:
    rows = _most_typical([a.extent for a in nest.rows])
    sizes = [_most_typical([a.extent for a in p.axes]) for p in nest.passes if p.axes]
    if not sizes:
        points = min(_ALONE, max(32, power_of_two(rows)))
        return BlockSchedule(points, 1, _warps(points))
    shape = _Shape(rows, max(1, *sizes), _contiguous(nest), len(nest.passes) - 1)
    exponents = range(14)
    found = [(1 << r, 1 << c) for r in exponents for c in exponents if r + c <= 13]
    r, c = min(found, key=lambda block: (_cost(shape, *block), block))
    return BlockSchedule(r, c, _warps(r * c))


def _cost(s: _Shape, rows: int, inner: int) -> float:
    """Bytes that memory moves, about, scaled up where too few programs share the work."""
    programs = -(-s.rows // rows)
    visited = programs * rows * -(-s.inner // inner) * inner
    traffic = 0.0
    for bytes, run in zip(s.along, (rows, inner), strict=True):
        if bytes:
            traffic += visited * bytes * max(1.0, _SECTOR / (bytes * run))
    traffic = traffic or float(visited)
    if inner < s.inner:
        traffic *= 1 + 0.5 * s.again
        traffic *= 1 + 64 / inner  # of a loop's turn
    few = math.sqrt(max(1.0, _PROGRAMS / programs))
    small = max(1.0, 128 / (rows * inner))
    large = math.sqrt(max(1.0, rows * inner / 2048))
    return traffic * few * small * large


def _contiguous(nest: Nest) -> tuple[int, int]:
    """Bytes of the accesses whose neighbours lie along the rows, and along the inner axes."""
    k = Expressions()
    loads = [(e.buffer, e.index) for e in walk(*kernel_roots(nest)) if isinstance(e, Load)]
    stores = [(s.buffer, s.index) for p in nest.passes for s in p.stores]
    inner = {p.axes[-1] for p in nest.passes if p.axes}
    outer: set[Axis] = set(nest.rows[-1:])
    totals = [0, 0]
    for buffer, index in [*loads, *stores]:
        form = k.linear(k.flatten(index, buffer.shape))
        for place, axes in enumerate((outer, inner)):
            if any(form.stride(a) == 1 for a in axes):
                totals[place] += buffer.dtype.itemsize
    return totals[0], totals[1]


def _most_typical(sizes: list[Size]) -> int:
    size = product(sizes)
    return size if isinstance(size, int) else max(typical(size), 1)


def _warps(points: int) -> int:
    return min(8, max(1, power_of_two(points) // 256))


def _tile(kernel: Contract) -> TileSchedule:
    m, n, k = (_side(a.extent) for a in (kernel.m, kernel.n, kernel.k))
    wide = kernel.a.dtype.bits
    deep = min(k, 64 if wide == 16 else 32 if wide == 32 else 16)
    most = 128 if wide == 16 else 64
    m, n = min(m, most), min(n, most)
    warps = 8 if m * n >= 128 * 128 else 4 if m * n >= 32 * 64 else 2
    return TileSchedule(m, n, deep, 8, warps, 3 if deep < k else 2)


def _side(size: Size) -> int:
    """The tile that covers a size, at least what a matrix unit takes."""
    high = size_bounds(size)[1]
    return max(16, power_of_two(int(min(high, 128))))
