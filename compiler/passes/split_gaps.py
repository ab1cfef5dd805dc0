"""Convolutions of an input with gaps, as strided gradients and transposed ones are, without them.

Three ways of it multiply nothing by a gap:

patches  one product of the input and the whole kernel, and a sum of what comes to lie at a place;
         `passes.patches`.  It needs a kernel of known sizes without dilation.
input    the kernel convolved by the input, whose gaps are a dilation there; `passes.patches`.
         Every output meets every element of the input.
parts    an output at p meets elements of the input only at the places k of the kernel with
         `(p + k*dilation - low) % gap == 0`.  Outputs of one remainder p % gap thus see a part of
         the kernel and no gaps: a convolution of its own.  The parts are put side by side again by
         padding and sums.

With S elements of an image, K of a kernel and P outputs, patches and parts take S * K products for
each pair of channels, the input takes S * P: the lesser of K and P chooses.  Patches are stored and
read once, K of them where parts store an output for each gap; but every part whose windows leave
the input reads a padded copy, and a part with few outputs is no fast product.  The input's images
are the outputs of its own convolution, so that a single one is a last resort.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from math import gcd, prod
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import exact_quotient, is_at_least, product
from fluxc.compiler.passes.patches import blocks_of, by_input, by_patches, lines_of
from fluxc.compiler.passes.rewrite import rewrite

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Graph, Node, Value
    from fluxc.compiler.ops.geometry import Line
    from fluxc.compiler.passes.rewrite import Rewriter

__all__ = ["split_gaps"]

_BLOCKS = 64  # images that a sum of patches has: as many terms at each output
_PARTS = 16
_FULL = 16  # outputs of a group that fill a vector
_COPY = 4  # how much dearer an element of a padded copy is than one of a patch
_FEW = 2  # outputs of a group below which a part is no product


def split_gaps(g: Graph) -> Graph:
    """Replace convolutions with gaps by what multiplies no gap."""
    return rewrite(g, {"conv": (conv_with_gaps,)})


def conv_with_gaps(r: Rewriter, n: Node) -> Value | None:
    at, along = n.attrs, lines_of(n)
    if not any(at["interior"]) or at["groups"] == 0 or not n.output.type.dtype.is_float:
        return None
    plain = all(z.dilation == 1 for z in along)
    less_by_input = plain and _is_less_by_input(along)
    if less_by_input and n.inputs[0].type.shape[0] != 1:
        return by_input(r, n)
    choices = _choices(n)
    if choices is not None and _parts_are_less(n, along, choices):
        return _by_parts(r, n, choices)
    if plain and _has_patches(along):
        return by_patches(r, n)
    if choices is not None:
        return _by_parts(r, n, choices)
    return by_input(r, n) if less_by_input else None


def _is_less_by_input(along: tuple[Line, ...]) -> bool:
    """Whether outputs are fewer than places in the kernel; one of unknown size is an image's."""
    places, outputs = product(z.window for z in along), product(z.count for z in along)
    if isinstance(places, int) and isinstance(outputs, int):
        return outputs < places
    return not isinstance(places, int)


def _has_patches(along: tuple[Line, ...]) -> bool:
    known = all(isinstance(s, int) for z in along for s in (z.window, z.low))
    return known and all(z.stride == 1 for z in along) and prod(map(blocks_of, along)) <= _BLOCKS


@dataclass(frozen=True, slots=True)
class _Part:
    """Along one axis: what is taken of the kernel, and where the results go.

    first, step:          the kernel's places.
    low, high, dilation:  of the part's convolution; gap of its input, 0 where it is split.
    offset, spread, room: of the padding of its result.
    """

    first: int
    step: int
    low: Size
    high: Size
    dilation: int
    gap: int
    offset: int = 0
    spread: int = 0
    room: int = 0


def _choices(n: Node) -> list[tuple[_Part, ...]] | None:
    """The parts of all axes, where sizes are known and outputs enough for products."""
    x, w = n.inputs
    at = n.attrs
    outputs, groups = w.type.shape[0], at["groups"]
    if not isinstance(outputs, int) or not isinstance(groups, int) or not groups:
        return None
    known = [
        isinstance(s, int) and isinstance(k, int) and stride == 1
        for s, k, stride in zip(x.type.shape[2:], w.type.shape[2:], at["stride"], strict=True)
    ]
    split = [bool(gap) and fine for gap, fine in zip(at["interior"], known, strict=True)]
    if not any(split) or outputs // groups < _FEW:
        return None
    axes = [_parts(n, i) if cut else [_whole(n, i)] for i, cut in enumerate(split)]
    return list(itertools.product(*axes)) if prod(map(len, axes)) <= _PARTS else None


def _parts_are_less(n: Node, along: tuple[Line, ...], choices: list[tuple[_Part, ...]]) -> bool:
    """Whether parts store and copy less than patches do, where vectors of outputs are full."""
    outputs, channels, *kernel = n.inputs[1].type.shape
    each = exact_quotient(outputs, n.attrs["groups"])
    places = product(kernel)
    if not (isinstance(each, int) and isinstance(channels, int) and isinstance(places, int)):
        return False
    lines = [p for parts in choices for p in parts]
    inside = all(is_at_least(0, p.low) and is_at_least(0, p.high) for p in lines)
    copied = 0 if inside else _COPY * channels
    gaps = prod(z.interior + 1 for z in along)
    return each >= _FULL and places * each > gaps * (each + copied)


def _by_parts(r: Rewriter, n: Node, choices: list[tuple[_Part, ...]]) -> Value:
    if not choices:
        return r.full(0.0, n.output.type)
    return functools.reduce(functools.partial(r.emit, "add"), (_part(r, n, c) for c in choices))


def _whole(n: Node, i: int) -> _Part:
    at = n.attrs
    return _Part(0, 1, at["low"][i], at["high"][i], at["dilation"][i], at["interior"][i])


def _parts(n: Node, i: int) -> list[_Part]:
    """The parts of one axis, without those that see nothing of the kernel."""
    x, w = n.inputs
    size, window, count = (t.shape[i + 2] for t in (x.type, w.type, n.output.type))
    low, dilation, gap = n.attrs["low"][i], n.attrs["dilation"][i], n.attrs["interior"][i] + 1
    assert isinstance(size, int)
    assert isinstance(window, int)
    assert isinstance(count, int)
    step = gap // gcd(dilation, gap)
    found = []
    for offset in range(min(gap, count)):
        places = [k for k in range(window) if (offset + k * dilation - low) % gap == 0]
        if not places:
            continue
        here = -(-(count - offset) // gap)
        before = -((offset + places[0] * dilation - low) // gap)
        apart = step * dilation // gap
        after = here - 1 + (len(places) - 1) * apart + 1 - before - size
        room = count - offset - ((here - 1) * gap + 1)
        found.append(_Part(places[0], step, before, after, apart, 0, offset, gap - 1, room))
    return found


def _part(r: Rewriter, n: Node, parts: tuple[_Part, ...]) -> Value:
    x, w = n.inputs
    kernel = r.emit(
        "slice",
        w,
        starts=(0, 0, *(p.first for p in parts)),
        limits=w.type.shape,
        steps=(1, 1, *(p.step for p in parts)),
    )
    attrs = {
        **n.attrs,
        "low": tuple(p.low for p in parts),
        "high": tuple(p.high for p in parts),
        "dilation": tuple(p.dilation for p in parts),
        "interior": tuple(p.gap for p in parts),
    }
    y = r.emit("conv", x, kernel, **attrs)
    zero = r.emit("full", value=0.0, dtype=y.type.dtype, shape=())
    return r.emit(
        "pad",
        y,
        zero,
        low=(0, 0, *(p.offset for p in parts)),
        high=(0, 0, *(p.room for p in parts)),
        interior=(0, 0, *(p.spread for p in parts)),
    )
