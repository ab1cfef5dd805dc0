"""Copies of a panel of `b` on the stack: [k, nr] of the accumulator's dtype, zero where b ends.

A panel that is read by many rows is worth a copy: lines in order, no strides that share cache sets,
16-bit floats widened once.  Where k is the contiguous axis, squares are transposed in registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from fluxc.compiler.backends.llvm import memory
from fluxc.compiler.backends.llvm.scalar import LlvmScalar, number
from fluxc.compiler.backends.llvm.tile import I32, I64, Plane, columns, counted_loop, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.types import DType

__all__ = ["copy_panel"]

_AHEAD = 8  # rows of `b` between a copy and the lines that it asks for


def copy_panel(
    b: ir.IRBuilder,
    source: Plane,
    stage: ir.Value,
    dtype: DType,
    width: int,
    vectors: int,
    masks: Sequence[ir.Value | None],
    count: ir.Value,
) -> Plane:
    """Copies `count` rows of the panel at `source`; the copy.

    masks are the panel's; `vectors` >= len(masks) is the width of a row of the copy.  The copy has
    room for `count` rounded up to a multiple of `width`.
    """
    copy = Plane(stage, dtype, vectors * width, 1)
    if source.outer == 1 and source.inner != 1 and width > 1:
        _transpose(b, source, copy, width, masks, count)
        return copy

    def row(k: ir.Value) -> list[ir.Value]:
        if source.inner == 1:
            for line in range(0, len(masks) * width * source.dtype.itemsize, 64):
                step = line // source.dtype.itemsize
                fetch(b, source.at(b, b.add(k, I64(_AHEAD)), step).pointer, near=True)
        for v, mask in enumerate(masks):
            x = columns(b, source.at(b, k), v, width, mask)
            memory.store(x.cast(dtype), copy.at(b, k, v * width).pointer)
        return []

    def rows(k: ir.Value) -> list[ir.Value]:
        for i in range(4):
            row(b.add(k, I64(i)))
        return []

    whole = b.and_(count, I64(-4))
    counted_loop(b, "stage", whole, 4, [], rows)
    counted_loop(b, "stage_rest", count, 1, [], row, start=whole)
    return copy


def _transpose(
    b: ir.IRBuilder,
    source: Plane,
    copy: Plane,
    width: int,
    masks: Sequence[ir.Value | None],
    count: ir.Value,
) -> None:
    """Blocks of width x width: one vector along k from each column, then exchanged."""

    def block(k: ir.Value, mask: ir.Value | None) -> None:
        for v, exist in enumerate(masks):
            vectors = []
            for lane in range(width):
                at = source.at(b, k, v * width + lane).pointer
                wanted = mask
                if exist is not None:
                    here = LlvmScalar(b, b.extract_element(exist, I32(lane)), source.dtype)
                    every = here.splat(width).v
                    wanted = every if mask is None else b.and_(every, mask)
                x = memory.load(b, at, source.dtype, width, wanted).cast(copy.dtype)
                vectors.append(x)
            for i, x in enumerate(_exchanged(b, vectors)):
                memory.store(x, copy.at(b, b.add(k, I64(i)), v * width).pointer)

    def whole_block(k: ir.Value) -> list[ir.Value]:
        block(k, None)
        return []

    def cut_block(k: ir.Value) -> list[ir.Value]:
        block(k, memory.tail_mask(b, k, count, width))
        return []

    whole = b.and_(count, I64(-width))
    counted_loop(b, "stage", whole, width, [], whole_block)
    counted_loop(b, "stage_rest", count, width, [], cut_block, start=whole)


def _exchanged(b: ir.IRBuilder, rows: list[LlvmScalar]) -> list[LlvmScalar]:
    """The columns of the square whose rows these are, by halves: log2(n) rounds of n shuffles."""
    n = len(rows)
    half = n // 2
    while half:
        new = list(rows)
        # In blocks of 2 * half, exchange the upper right with the lower left quarter.
        low = [i if i % (2 * half) < half else n + i - half for i in range(n)]
        high = [i + half if i % (2 * half) < half else n + i for i in range(n)]
        for i in range(n):
            if i % (2 * half) < half:
                x, y = rows[i], rows[i + half]
                new[i] = x.with_value(_shuffled(b, x.v, y.v, low))
                new[i + half] = x.with_value(_shuffled(b, x.v, y.v, high))
        rows, half = new, half // 2
    return rows


def _shuffled(b: ir.IRBuilder, x: ir.Value, y: ir.Value, order: list[int]) -> ir.Value:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(order)), order))


def zero_rows(b: ir.IRBuilder, at: ir.Value, dtype: DType, width: int, count: int) -> None:
    """`count` vectors of zeros from `at` on."""
    zero, start = number(b, dtype, 0, width), Plane(at, dtype, width, 1)

    def clear(i: ir.Value) -> list[ir.Value]:
        memory.store(zero, start.at(b, i).pointer)
        return []

    counted_loop(b, "clear", I64(count), 1, [], clear)
