"""Convolutions of an input with gaps, as strided gradients and transposed ones are, without them.

An output at p meets elements of the input only at the places k of the kernel with
`(p + k*dilation - low) % gap == 0`.  Outputs of one remainder p % gap thus see a part of the kernel
and no gaps: a convolution of its own.  The parts are put side by side again by padding and sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import gcd
from typing import TYPE_CHECKING

from fluxc.compiler.passes.rewrite import rewrite

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Graph, Node, Value
    from fluxc.compiler.passes.rewrite import Rewriter

__all__ = ["split_gaps"]

_WORTH = 2  # outputs of a group below which a convolution is a nest and its parts are not faster
_PARTS = 16


def split_gaps(g: Graph) -> Graph:
    """Replace convolutions with gaps along axes of known sizes by their parts without gaps."""
    return rewrite(g, {"conv": (conv_with_gaps,)})


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


def conv_with_gaps(r: Rewriter, n: Node) -> Value | None:
    x, w = n.inputs
    at, y = n.attrs, n.output.type
    outputs, groups = w.type.shape[0], at["groups"]
    if not isinstance(outputs, int) or not isinstance(groups, int) or not groups:
        return None
    known = [
        isinstance(s, int) and isinstance(k, int) and stride == 1
        for s, k, stride in zip(x.type.shape[2:], w.type.shape[2:], at["stride"], strict=True)
    ]
    split = [bool(gap) and fine for gap, fine in zip(at["interior"], known, strict=True)]
    if not any(split) or not y.dtype.is_float or outputs // groups < _WORTH:
        return None
    axes = [_parts(n, i) if cut else [_whole(n, i)] for i, cut in enumerate(split)]
    choices = list(product(*axes))
    if len(choices) > _PARTS:
        return None
    total: Value | None = None
    for parts in choices:
        value = _part(r, n, parts)
        total = value if total is None else r.emit("add", total, value)
    return r.full(0.0, y) if total is None else total


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
