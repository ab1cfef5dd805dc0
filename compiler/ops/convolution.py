"""Convolution: any number of spatial axes, stride, padding, dilation, groups, gaps in the input.

`conv_last` is `conv` of images whose channels are the last axis: what `passes.assign_layouts` makes
of it, because neighbouring channels are multiplied and stored side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.dims import exact_quotient
from fluxc.compiler.ops.checks import check_dtype, check_shape
from fluxc.compiler.ops.geometry import (
    Line,
    check_numbers,
    check_pads,
    lines,
    spread,
    window_places,
)
from fluxc.compiler.ops.op import Op, register
from fluxc.compiler.ops.reference import quiet
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import TensorType

__all__ = [
    "channels_first",
    "channels_last",
    "conv_lines",
    "exchanged",
    "exchanged_first",
    "window_attrs",
]

Sizes = tuple["Size", ...]
Numbers = tuple[int, ...]


def conv_lines(
    x: Sequence[Size],
    w: Sequence[Size],
    *,
    stride: Numbers,
    low: Sizes,
    high: Sizes,
    dilation: Numbers,
    interior: Numbers,
    groups: Size = 1,
) -> tuple[Line, ...]:
    """The windows along each spatial axis, of the shapes of the operands."""
    del groups
    return lines(x[2:], w[2:], stride, low, high, dilation, interior)


def infer_conv(
    x: TensorType,
    w: TensorType,
    *,
    stride: Numbers,
    low: Sizes,
    high: Sizes,
    dilation: Numbers,
    interior: Numbers,
    groups: Size,
) -> TensorType:
    check_dtype("conv", x, "fiu")
    if w.dtype != x.dtype:
        raise DTypeError("conv: operands differ in dtype", expected=str(x.dtype), got=str(w))
    if x.rank < 3 or w.rank != x.rank:
        raise ShapeError(
            "conv takes an input [N, C, spatial...] and a weight [O, C/groups, kernel...]",
            got=f"{x} and {w}",
        )
    count = x.rank - 2
    check_numbers("conv", "stride", stride, count, 1)
    check_numbers("conv", "dilation", dilation, count, 1)
    check_numbers("conv", "interior", interior, count, 0)
    check_pads("conv", "low", low, count)
    check_pads("conv", "high", high, count)
    check_shape("conv", (groups,))
    divides = groups == w.shape[0] == 0 or exact_quotient(w.shape[0], groups) is not None
    if x.shape[1] != w.shape[1] * groups or not divides:
        raise ShapeError(
            f"conv: channels do not match in {groups} group{'s' * (groups != 1)}",
            expected=f"a weight [multiple of {groups}, channels / {groups}, ...] for {x}",
            got=str(w),
        )
    along = conv_lines(
        x.shape, w.shape, stride=stride, low=low, high=high, dilation=dilation, interior=interior
    )
    spatial = [line.checked("conv", axis).count for axis, line in enumerate(along, 2)]
    return x.with_shape(x.shape[0], w.shape[0], *spatial)


def conv_reference(x: np.ndarray, w: np.ndarray, *, groups: int, **attrs: Any) -> np.ndarray:
    """One product of channels for each place in the kernel, added up."""
    along = conv_lines(x.shape, w.shape, **attrs)
    wide = spread(x, along, 0)
    out: list[Any] = [line.count for line in along]
    n, channels, outputs = x.shape[0], w.shape[1], w.shape[0] // max(groups, 1)
    points = int(np.prod(out))
    result = np.zeros((n, groups, outputs, points), x.dtype)
    for at in np.ndindex(*w.shape[2:]):
        seen = wide[window_places(along, at)].reshape(n, groups, channels, points)
        kernel = w[(..., *at)].reshape(groups, outputs, channels)
        result += np.matmul(kernel, seen)
    return result.reshape(n, w.shape[0], *out)


def conv_vjp(dy: Term, _y: Term, x: Term, w: Term, **attrs: Any) -> tuple[Term, Term]:
    return input_gradient(dy, x, w, **attrs), weight_gradient(dy, x, w, **attrs)


def input_gradient(dy: Term, x: Term, w: Term, *, groups: Size, **attrs: Any) -> Term:
    """A convolution of dy, with gaps where the stride was, by the reversed kernel."""
    along = [z.transposed() for z in conv_lines(x.shape, w.shape, **attrs)]
    flipped = w.reverse(axes=tuple(range(2, w.type.rank)))
    return dy.conv(exchanged(flipped, groups), **window_attrs(along), groups=groups)


def weight_gradient(dy: Term, x: Term, w: Term, *, groups: Size, **attrs: Any) -> Term:
    """A convolution of x by dy, with batch and channels exchanged, stride and dilation too."""
    along = []
    for z in conv_lines(x.shape, w.shape, **attrs):
        high = z.reach - 1 + (z.count - 1) * z.stride + 1 - z.low - z.span
        along.append(Line(z.size, z.count, z.dilation, z.low, high, z.stride, z.interior))
    kernel = exchanged_first(dy)
    if groups == 1:
        return exchanged_first(exchanged_first(x).conv(kernel, **window_attrs(along), groups=1))
    # [N, g*c, S] -> [c, g*N, S]: a group's channels are the batch, its examples the channels.
    n, _, *spatial = x.shape
    each = w.shape[1]
    split = x.reshape(shape=(n, groups, each, *spatial))
    axes = (2, 1, 0, *range(3, split.type.rank))
    moved = split.transpose(axes=axes).reshape(shape=(each, n * groups, *spatial))
    return exchanged_first(moved.conv(kernel, **window_attrs(along), groups=groups))


def exchanged_first(x: Term) -> Term:
    """The first two axes exchanged."""
    return x.transpose(axes=(1, 0, *range(2, x.type.rank)))


def exchanged(w: Term, groups: Size) -> Term:
    """Inputs and outputs of a weight exchanged: [O, C/groups, K...] -> [C, O/groups, K...]."""
    if groups == 1:
        return exchanged_first(w)
    out, each, *kernel = w.shape
    outputs = exact_quotient(out, groups)
    assert outputs is not None, "checked by the type rule"
    split = w.reshape(shape=(groups, outputs, each, *kernel))
    moved = split.transpose(axes=(0, 2, 1, *range(3, split.type.rank)))
    return moved.reshape(shape=(each * groups, outputs, *kernel))


def window_attrs(along: Sequence[Line]) -> dict[str, Any]:
    """The attributes of a convolution by its windows along each axis."""
    names = ("stride", "low", "high", "dilation", "interior")
    return {name: tuple(getattr(z, name) for z in along) for name in names}


def conv_batch(
    b: Any, size: Size, x: Any, w: Any, *, batched: tuple[bool, ...], groups: Size, **attrs: Any
) -> Any:
    """Examples of one weight are one longer batch; weights of their own are more groups."""
    xs, ws = Term(b, x), Term(b, w)
    if not batched[1]:
        _, n, *rest = xs.shape
        y = xs.reshape(shape=(size * n, *rest)).conv(ws, groups=groups, **attrs)
        return y.reshape(shape=(size, n, *y.shape[1:])).value
    if not batched[0]:
        axes = (0, *range(2, xs.type.rank + 1))
        shape = (xs.shape[0], size, *xs.shape[1:])
        joined = xs.broadcast(shape=shape, axes=axes)
    else:
        joined = exchanged_first(xs)
    n, _, channels, *spatial = joined.shape
    joined = joined.reshape(shape=(n, size * channels, *spatial))
    _, outputs, each, *kernel = ws.shape
    weights = ws.reshape(shape=(size * outputs, each, *kernel))
    y = joined.conv(weights, groups=groups * size, **attrs)
    split = y.reshape(shape=(n, size, outputs, *y.shape[2:]))
    return exchanged_first(split).value


def sample_conv(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """Two groups; stride, padding, dilation and gaps differ along both axes; one pad cuts."""
    attrs = {
        "stride": (2, 1),
        "low": (1, -1),
        "high": (0, 2),
        "dilation": (1, 2),
        "interior": (0, 1),
        "groups": 2,
    }
    return (rng.normal(size=(3, 4, 6, 4)), rng.normal(size=(6, 2, 3, 2))), attrs


register(
    Op(
        name="conv",
        infer=infer_conv,
        reference=quiet(conv_reference),
        vjp=derivative(conv_vjp),
        sample=sample_conv,
        batch=conv_batch,
        doc="y[n, o, p] = sum over c, k of x[n, c, p*stride + k*dilation - low] * w[o, c, k]; x "
        "has `interior` gaps between neighbours and 0 around; output o reads its group's channels",
    )
)


# ---- channels last


def channels_first(rank: int) -> Numbers:
    """The transpose of [N, S..., C] that gives [N, C, S...]."""
    return (0, rank - 1, *range(1, rank - 1))


def channels_last(rank: int) -> Numbers:
    """The transpose of [N, C, S...] that gives [N, S..., C]."""
    return (0, *range(2, rank), 1)


def infer_conv_last(
    x: TensorType,
    w: TensorType,
    *,
    stride: Numbers,
    low: Sizes,
    high: Sizes,
    dilation: Numbers,
    interior: Numbers,
    groups: Size,
) -> TensorType:
    if x.rank < 3:
        raise ShapeError("conv_last takes an input [N, spatial..., C]", got=str(x))
    y = infer_conv(
        x.with_shape(*(x.shape[a] for a in channels_first(x.rank))), w, stride=stride, low=low,
        high=high, dilation=dilation, interior=interior, groups=groups,
    )  # fmt: skip
    return y.with_shape(*(y.shape[a] for a in channels_last(y.rank)))


def conv_last_reference(x: np.ndarray, w: np.ndarray, **attrs: Any) -> np.ndarray:
    y = conv_reference(x.transpose(channels_first(x.ndim)), w, **attrs)
    return y.transpose(channels_last(y.ndim))


def conv_last_vjp(dy: Term, _y: Term, x: Term, w: Term, **attrs: Any) -> tuple[Term, Term]:
    first, last = channels_first(x.type.rank), channels_last(x.type.rank)
    dx, dw = conv_vjp(dy.transpose(axes=first), _y, x.transpose(axes=first), w, **attrs)
    return dx.transpose(axes=last), dw


def conv_last_batch(
    b: Any, size: Size, x: Any, w: Any, *, batched: tuple[bool, ...], **attrs: Any
) -> Any:
    rank = x.type.rank - batched[0]

    def axes(order: Numbers, *, has: bool) -> Numbers:
        return (0, *(a + 1 for a in order)) if has else order

    first = Term(b, x).transpose(axes=axes(channels_first(rank), has=batched[0]))
    y = Term(b, conv_batch(b, size, first.value, w, batched=batched, **attrs))
    return y.transpose(axes=axes(channels_last(rank), has=True)).value


def sample_conv_last(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    (x, w), attrs = sample_conv(rng)
    return (x.transpose(channels_last(x.ndim)).copy(), w), attrs


register(
    Op(
        name="conv_last",
        infer=infer_conv_last,
        reference=quiet(conv_last_reference),
        vjp=derivative(conv_last_vjp),
        sample=sample_conv_last,
        batch=conv_last_batch,
        doc="conv of x[n, p, c] with the same w[o, c, k], giving y[n, p, o]",
    )
)
