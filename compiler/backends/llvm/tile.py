"""The register tile of a contraction: `rows x vectors` sums over a run of k.

For every step of k it loads the vectors of `b`, splats one element of `a` per row, and adds the
products.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir

from fluxc.compiler.backends.llvm import memory
from fluxc.compiler.backends.llvm.scalar import LlvmScalar, number
from fluxc.compiler.backends.llvm.values import merge
from fluxc.compiler.ir.types import i64

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluxc.compiler.ir.types import DType

__all__ = [
    "Plane", "Run", "Stride", "Tile", "columns", "counted_loop", "emit_tile", "fetch", "moved",
    "times",
]  # fmt: skip

I8, I32, I64 = (ir.IntType(n) for n in (8, 32, 64))
Stride: TypeAlias = "int | ir.Value"  # in elements
_CHAINS = 8  # sums in flight that hide the latency of a multiply-add: 4 cycles x 2 units
_LINE = 64  # bytes that a prefetch brings


@dataclass(frozen=True, slots=True)
class Plane:
    """The elements `pointer[outer * i + inner * j]`.  `a` has (i, j) = (m, k), `b` has (k, n)."""

    pointer: ir.Value
    dtype: DType
    outer: Stride
    inner: Stride

    def at(self, b: ir.IRBuilder, i: Stride, j: Stride = 0) -> Plane:
        """The plane that begins at the element (i, j)."""
        pointer = moved(b, self.pointer, [(i, self.outer), (j, self.inner)], self.dtype.itemsize)
        return Plane(pointer, self.dtype, self.outer, self.inner)


@dataclass(frozen=True, slots=True)
class Tile:
    """masks:    for each vector the lanes that may be loaded, or None for all of them.
    unroll:   steps of k per turn of the loop.
    prefetch: where to fetch ahead from, and how many lines per turn.
    ahead:    so many steps of k ahead `a` is fetched; 0: the machine sees by itself what comes.
    """

    rows: int
    width: int
    masks: tuple[ir.Value | None, ...]
    unroll: int
    prefetch: tuple[ir.Value, int] | None = None
    ahead: int = 0

    @property
    def vectors(self) -> int:
        return len(self.masks)


def moved(
    b: ir.IRBuilder, pointer: ir.Value, steps: Sequence[tuple[Stride, Stride]], size: int
) -> ir.Value:
    """`pointer + size * sum(count * stride)`; constant parts are one displacement."""
    fixed = 0
    for count, stride in steps:
        if isinstance(count, int) and isinstance(stride, int):
            fixed += count * stride
        elif 0 not in (count, stride):
            c, s = (I64(x) if isinstance(x, int) else x for x in (count, stride))
            elements = c if stride == 1 else s if count == 1 else b.mul(c, s, flags=("nsw",))
            pointer = b.gep(pointer, [elements], source_etype=ir.ArrayType(I8, size))
    if fixed:
        pointer = b.gep(pointer, [I64(fixed * size)], source_etype=I8)
    return pointer


def counted_loop(
    b: ir.IRBuilder,
    name: str,
    stop: ir.Value,
    step: int,
    carried: Sequence[ir.Value],
    body: Callable[..., Sequence[ir.Value]],
    start: ir.Value | None = None,
) -> list[ir.Value]:
    """`while i < stop: carried = body(i, *carried); i += step`; the values carried out."""
    start = I64(0) if start is None else start
    before, inside, after = b.block, *(b.append_basic_block(x) for x in (name, f"{name}_end"))
    b.cbranch(b.icmp_signed("<", start, stop), inside, after)
    b.position_at_end(inside)
    index, *phis = (b.phi(v.type) for v in (start, *carried))
    new = body(index, *phis)
    following = b.add(index, I64(step), flags=("nsw",))
    b.cbranch(b.icmp_signed("<", following, stop), inside, after)
    latch = b.block
    for phi, first, next in zip((index, *phis), (start, *carried), (following, *new), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(next, latch)
    b.position_at_end(after)
    return merge(b, (before, carried), (latch, new))


@dataclass(frozen=True, slots=True)
class Run:
    """Steps of k: `count` of them in line, once for each step of the loops `around`.

    A loop around is how often, and how far `a` moves each time; `b` goes on where it stands.
    """

    count: Stride
    around: tuple[tuple[Stride, Stride], ...] = ()

    def inside(self, b: ir.IRBuilder) -> Stride:
        """The steps of k in one step of the outermost loop."""
        total = self.count
        for often, _ in self.around[1:]:
            total = times(b, total, often)
        return total


def times(b: ir.IRBuilder, x: Stride, y: Stride) -> Stride:
    if isinstance(x, int) and isinstance(y, int):
        return x * y
    return b.mul(*(I64(v) if isinstance(v, int) else v for v in (x, y)), flags=("nsw",))


def emit_tile(
    b: ir.IRBuilder, tile: Tile, a: Plane, bb: Plane, run: Run, start: list[LlvmScalar]
) -> list[LlvmScalar]:
    """`start + a @ b`, row by row, vector by vector."""
    if not run.around:
        return _emit_line(b, tile, a, bb, run.count, start)
    (often, step), *deeper = run.around
    inside = run.inside(b)

    def body(at: ir.Value, pa: ir.Value, pb: ir.Value, *values: ir.Value) -> list[ir.Value]:
        part_a, part_b = (Plane(p, x.dtype, x.outer, x.inner) for p, x in ((pa, a), (pb, bb)))
        sums = [x.with_value(v) for x, v in zip(start, values, strict=True)]
        inner = replace(tile, prefetch=_prefetch_from(b, tile, at, inside))
        sums = emit_tile(b, inner, part_a, part_b, Run(run.count, tuple(deeper)), sums)
        following = moved(b, pa, [(1, step)], a.dtype.itemsize), part_b.at(b, inside).pointer
        return [*following, *(x.v for x in sums)]

    stop = I64(often) if isinstance(often, int) else often
    state = [a.pointer, bb.pointer, *(x.v for x in start)]
    state = counted_loop(b, "k_outer", stop, 1, state, body)
    return [x.with_value(v) for x, v in zip(start, state[2:], strict=True)]


def _prefetch_from(
    b: ir.IRBuilder, tile: Tile, at: ir.Value, inside: Stride
) -> tuple[ir.Value, int] | None:
    """Where to fetch from in step `at` of a loop around `inside` steps of k."""
    if tile.prefetch is None:
        return None
    pointer, lines = tile.prefetch
    return moved(b, pointer, [(times(b, inside, at), lines * _LINE // tile.unroll)], 1), lines


def _emit_line(
    b: ir.IRBuilder, tile: Tile, a: Plane, bb: Plane, k: Stride, start: list[LlvmScalar]
) -> list[LlvmScalar]:
    """`start + a @ b` over steps of k in line.

    Few sums cannot hide the latency of a multiply-add: then neighbouring steps of k have sums of
    their own, which are added at the end.
    """
    count, dtype = len(start), start[0].dtype
    sets = max(1, min(4, _CHAINS // count, tile.unroll))
    sums = [x.v for x in start] + [number(b, dtype, 0, tile.width).v] * (count * (sets - 1))

    def turn(steps: int) -> Callable[..., list[ir.Value]]:
        def body(at: ir.Value, pa: ir.Value, pb: ir.Value, *values: ir.Value) -> list[ir.Value]:
            new = list(values)
            part_a, part_b = (Plane(p, x.dtype, x.outer, x.inner) for p, x in ((pa, a), (pb, bb)))
            if steps > 1:
                _fetch_ahead(b, tile, at)
            for kk in range(steps):
                base = kk % sets * count
                group = slice(base, base + count)
                new[group] = _one_step(b, tile, part_a, part_b, kk, new[group], dtype)
            return [part_a.at(b, 0, steps).pointer, part_b.at(b, steps).pointer, *new]

        return body

    u = k if isinstance(k, int) and 0 < k <= 2 * tile.unroll else tile.unroll
    whole = I64(k // u * u) if isinstance(k, int) else b.and_(k, I64(-u))
    state = [a.pointer, bb.pointer, *sums]
    state = counted_loop(b, "k", whole, u, state, turn(u))
    if not isinstance(k, int) or k % u:
        total = I64(k) if isinstance(k, int) else k
        state = counted_loop(b, "k_rest", total, 1, state, turn(1), start=whole)
    parts = [LlvmScalar(b, v, dtype) for v in state[2:]]
    return [_total(parts[i::count]) for i in range(count)]


def _total(parts: list[LlvmScalar]) -> LlvmScalar:
    while len(parts) > 1:
        parts = [x + y for x, y in zip(parts[::2], parts[1::2], strict=False)] + (
            parts[-1:] if len(parts) % 2 else []
        )
    return parts[0]


def _one_step(
    b: ir.IRBuilder, tile: Tile, a: Plane, bb: Plane, k: int, sums: list[ir.Value], dtype: DType
) -> list[ir.Value]:
    vectors = [
        columns(b, bb.at(b, k), v, tile.width, mask).cast(dtype)
        for v, mask in enumerate(tile.masks)
    ]
    if tile.ahead:
        fetch(b, a.at(b, 0, k + tile.ahead).pointer, near=True)
    new = []
    for r in range(tile.rows):
        x = memory.load(b, a.at(b, r, k).pointer, a.dtype).cast(dtype).splat(tile.width)
        for v, y in enumerate(vectors):
            new.append(x.fma(y, LlvmScalar(b, sums[r * tile.vectors + v], dtype)).v)
    return new


def columns(b: ir.IRBuilder, row: Plane, v: int, width: int, mask: ir.Value | None) -> LlvmScalar:
    """Vector v of one row of `b`."""
    at = row.at(b, 0, v * width).pointer
    if row.inner == 1 or width == 1:
        return memory.load(b, at, row.dtype, width, mask)
    stride = I64(row.inner) if isinstance(row.inner, int) else row.inner
    lanes = b.mul(memory.iota(width), LlvmScalar(b, stride, i64).splat(width).v)
    return memory.gather(b, memory.pointers(b, at, lanes, row.dtype), row.dtype, mask)


def fetch(b: ir.IRBuilder, at: ir.Value, *, near: bool = False) -> None:
    """Asks for a line, into the first-level cache if `near`, else into the second."""
    kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), I32, I32, I32])
    prefetch = b.module.globals.get("llvm.prefetch.p0") or ir.Function(
        b.module, kind, "llvm.prefetch.p0"
    )
    b.call(prefetch, [at, I32(0), I32(3 if near else 2), I32(1)])  # to read, as data


def _fetch_ahead(b: ir.IRBuilder, tile: Tile, at: ir.Value) -> None:
    """Asks for the lines that belong to this turn; `at` counts steps of k."""
    if tile.prefetch is None:
        return
    pointer, lines = tile.prefetch
    for line in range(lines):
        fetch(b, moved(b, pointer, [(at, lines * _LINE // tile.unroll), (line, _LINE)], 1))
