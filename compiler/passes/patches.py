"""Convolutions of an input with gaps: as a sum of patches, and as a convolution by their input.

Every element of the input gives a patch: what the whole kernel makes of it.  Patches of neighbours
begin `gap` places apart, so blocks of `gap` places, one of each patch, lie side by side without
overlap, and the sum of all patches is a sum of as many such images as a patch has blocks.
"""

from __future__ import annotations

import functools
import itertools
import operator
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import exact_quotient, largest, product
from fluxc.compiler.ir.types import f32
from fluxc.compiler.ops.convolution import (
    channels_first,
    channels_last,
    conv_lines,
    exchanged,
    exchanged_first,
    window_attrs,
)
from fluxc.compiler.ops.geometry import Line
from fluxc.compiler.ops.term import Term

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Node, Value
    from fluxc.compiler.passes.rewrite import Rewriter

__all__ = ["blocks_of", "by_input", "by_patches", "lines_of"]


def by_patches(r: Rewriter, n: Node) -> Value:
    """One product of the channels, then the sum of patches.

    No stride, no dilation; sizes of the kernel and padding before the input are integers.
    """
    x, w = (Term(r, v) for v in n.inputs)
    along = lines_of(n)
    narrow = x.dtype.bits < f32.bits
    if narrow:  # so that a sum of patches is rounded once
        x, w = (t.cast(dtype=f32) for t in (x, w))
    patches = _patches(x, w, n.attrs["groups"])
    blocks = itertools.product(*(range(blocks_of(z)) for z in along))
    y = functools.reduce(operator.add, (_image(patches, along, at) for at in blocks))
    y = y.transpose(axes=channels_first(y.type.rank))
    return (y.cast(dtype=n.output.type.dtype) if narrow else y).value


def by_input(r: Rewriter, n: Node) -> Value:
    """The kernel convolved by the input: a gap of the one is a dilation of the other.

    x [N, g*C, S...] is a kernel [g*N, C, S...], w [g*O, C, K...] images [O, g*C, K...].
    """
    x, w = (Term(r, v) for v in n.inputs)
    groups = n.attrs["groups"]
    kernel = exchanged(exchanged_first(x), groups)
    images = exchanged_first(exchanged(w, groups))
    along = [_exchanged(z) for z in lines_of(n)]
    y = images.conv(kernel, **window_attrs(along), groups=groups)
    y = exchanged_first(exchanged(exchanged_first(y), groups))
    return y.reverse(axes=tuple(range(2, y.type.rank))).value


def blocks_of(z: Line) -> int:
    """How many blocks of `gap` places a kernel has along an axis."""
    assert isinstance(z.window, int)
    return -(-z.window // (z.interior + 1))


def lines_of(n: Node) -> tuple[Line, ...]:
    x, w = n.inputs
    return conv_lines(x.type.shape, w.type.shape, **n.attrs)


def _exchanged(z: Line) -> Line:
    """The line of windows as the input shapes them over the kernel, in reversed order."""
    gap = z.interior + 1
    last = (z.count - 1) * z.stride
    low = last - z.low
    high = last + z.span - low - z.reach
    return Line(z.window, z.size, z.stride, low, high, gap, z.dilation - 1)


def _patches(x: Term, w: Term, groups: Size) -> Term:
    """[N, g*C, S...] by [g*O, C, K...] -> [N, S..., g, K..., O]; a kernel is read backwards."""
    _, each, *kernel = w.shape
    rank = len(kernel)
    outputs = exact_quotient(w.shape[0], groups)
    w = w.reverse(axes=tuple(range(2, rank + 2)))
    w = w.reshape(shape=(groups, outputs, each, *kernel))
    w = w.transpose(axes=(0, *range(3, rank + 3), 1, 2))
    _, *places, _ = shape = w.shape
    w = w.reshape(shape=(product((groups, *places)), each, *(1 for _ in kernel)))
    plain = dict.fromkeys(("low", "high", "interior"), (0,) * rank)
    steps = dict.fromkeys(("stride", "dilation"), (1,) * rank)
    x = x.transpose(axes=channels_last(rank + 2))
    y = x.conv_last(w, **plain, **steps, groups=groups)
    return y.reshape(shape=(*y.shape[:-1], *shape[:-1]))


def _image(patches: Term, along: tuple[Line, ...], at: tuple[int, ...]) -> Term:
    """One block of every patch where it lies in the output: [N, places..., g*O]."""
    rank = len(along)
    starts, limits = [0] * (2 * rank + 3), list(patches.shape)
    low, high = [0] * (2 * rank + 3), [0] * (2 * rank + 3)
    for i, (z, block) in enumerate(zip(along, at, strict=True)):
        assert isinstance(z.window, int)
        gap = z.interior + 1
        first, end = block * gap, min((block + 1) * gap, z.window)
        starts[2 + rank + i], limits[2 + rank + i] = first, end
        low[1 + 2 * i], high[1 + 2 * i] = block, blocks_of(z) - 1 - block
        high[2 + 2 * i] = first + gap - end
    taken = patches.slice(starts=tuple(starts), limits=tuple(limits), steps=(1,) * len(starts))
    pairs = (axis for i in range(rank) for axis in (1 + i, 2 + rank + i))
    image = taken.transpose(axes=(0, *pairs, 1 + rank, 2 + 2 * rank))
    image = _padded(image, low, high)
    images, *sizes, groups, outputs = image.shape
    joined = (sizes[2 * i] * sizes[2 * i + 1] for i in range(rank))
    return _cropped(image.reshape(shape=(images, *joined, groups * outputs)), along)


def _cropped(x: Term, along: tuple[Line, ...]) -> Term:
    """The places of the output among all that patches reach, and beyond them."""
    starts = [z.window - 1 - z.low for z in along]
    low = [max(0, -start) for start in starts]
    reached = zip(starts, x.shape[1:], along, strict=False)
    high = [largest(0, start + z.count - size) for start, size, z in reached]
    first = [start + a for start, a in zip(starts, low, strict=True)]
    limits = [f + z.count for f, z in zip(first, along, strict=True)]
    return _padded(x, (0, *low, 0), (0, *high, 0)).slice(
        starts=(0, *first, 0),
        limits=(x.shape[0], *limits, x.shape[-1]),
        steps=(1,) * x.type.rank,
    )


def _padded(x: Term, low: Sequence[Size], high: Sequence[Size]) -> Term:
    zero = x.full(0.0, x.dtype, ())
    return x.pad(zero, low=tuple(low), high=tuple(high), interior=(0,) * x.type.rank)
