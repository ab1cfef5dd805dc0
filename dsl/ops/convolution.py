"""Convolution and pooling over images [batch, channels, spatial...], any number of spatial axes.

`stride`, `dilation` and window sizes are one number for all spatial axes, or one for each.
`pad` is a number, one for each spatial axis, or (low, high, low, high, ...); or `SamePad()`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.dims import (
    Dim,
    Size,
    ceildiv,
    exact_quotient,
    floordiv,
    is_at_least,
    product,
)
from fluxc.ops.create import ones
from fluxc.ops.layout import concatenate, flip, reshape
from fluxc.ops.reduce import max as greatest
from fluxc.ops.reduce import mean
from fluxc.tensor import Tensor, TensorLike, as_tensor, common_dtype
from fluxc.trace import NeedsSize, emit, fail, user_loc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "SamePad", "adaptive_maxpool", "adaptive_meanpool", "conv", "conv_transpose", "depthwise_conv",
    "flatten", "lpnormpool", "maxpool", "meanpool",
]  # fmt: skip

Pads = tuple[tuple[Size, Size], ...]


class SamePad:
    """Padding of k_eff - 1 in all, k_eff what a dilated window spans; an odd rest goes first.

    A convolution then gives ceil(size / stride), a transposed one size * stride.
    """

    def __repr__(self) -> str:
        return "SamePad()"


def numbers(what: str, value: Any, count: int, least: int = 1) -> tuple[int, ...]:
    """One integer for each spatial axis, from one for all or one for each."""
    each = tuple(value) if isinstance(value, tuple | list) else (value,) * count
    if len(each) != count or not all(_is_integer(v) and v >= least for v in each):
        fail(
            ShapeError,
            f"{what} of {count} spatial ax{'i' if count == 1 else 'e'}s",
            expected=f"an integer >= {least}, or {count} of them",
            got=repr(value),
        )
    return tuple(int(v) for v in each)


def _is_integer(v: Any) -> bool:
    return not isinstance(v, bool) and hasattr(v, "__index__")


def pads(what: str, value: Any, reaches: Sequence[Size]) -> Pads:
    """(low, high) of each spatial axis; `reaches` are the places that the windows span."""
    count = len(reaches)
    if isinstance(value, SamePad):
        return tuple((floordiv(r, 2), r - 1 - floordiv(r, 2)) for r in reaches)
    each = list(value) if isinstance(value, tuple | list) else [value] * count
    if not all(_is_integer(v) and v >= 0 for v in each) or len(each) not in {count, 2 * count}:
        fail(
            ShapeError,
            f"{what} of {count} spatial ax{'i' if count == 1 else 'e'}s",
            expected=f"an integer >= 0, {count} of them, {2 * count} as low, high, or SamePad()",
            got=repr(value),
        )
    if len(each) == count:
        return tuple((int(v), int(v)) for v in each)
    return tuple((int(low), int(high)) for low, high in zip(each[::2], each[1::2], strict=True))


def _image(name: str, x: Tensor) -> int:
    """The number of spatial axes."""
    if x.ndim < 3:
        fail(ShapeError, f"{name} takes [batch, channels, spatial...]", got=str(x.type))
    return x.ndim - 2


def _fits(name: str, x: Tensor, axis: int, room: Size, reach: Size) -> None:
    """A window must fit, and an axis have an element, for every value of the symbols."""
    for most, least in ((x.shape[axis], 1), (room, reach)):
        if is_at_least(most, least):
            continue
        error = ShapeError(
            f"{name}: a window that spans {reach} does not fit along axis {axis}",
            loc=user_loc(),
            expected=f"{most} >= {least}",
            got=str(x.type),
            hint="declare the least size, such as fx.dim('n', min=...)"
            if isinstance(most, Dim)
            else "",
        )
        if isinstance(most, Dim):
            raise NeedsSize(most - least, 0, error)
        raise error


# Convolution.


def conv(
    x: TensorLike,
    w: TensorLike,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    flip: bool = False,
) -> Tensor:
    """y[n, o, p] = sum over c, k of x[n, c, p*stride + k*dilation - pad] * w[o, c, k].

    A cross-correlation, as PyTorch's conv1d, conv2d, conv3d; flip=True reverses the kernel, as
    Flux does.  With groups, channels and outputs are split, and each part sees its own.
    Shapes  x [N, C, S...], w [O, C / groups, K...] -> [N, O, S'...],
            S' = (S + low + high - ((K - 1)*dilation + 1)) // stride + 1.
    Errors  ShapeError if channels do not match or a kernel does not fit.
    """
    x, w = _operands("conv", x, w)
    count = _image("conv", x)
    groups = _groups("conv", groups)
    if w.ndim != x.ndim or w.shape[1] * groups != x.shape[1] or _part(w.shape[0], groups) is None:
        _mismatch("conv", x, w, groups, "[multiple of groups, channels / groups, kernel...]")
    steps, gaps = (
        numbers(f"conv: {name}", v, count)
        for name, v in (("stride", stride), ("dilation", dilation))
    )
    kernel = _reversed(w) if flip else w
    reaches = _reaches(w.shape[2:], gaps)
    around = pads("conv: pad", pad, reaches)
    for axis, ((low, high), reach) in enumerate(zip(around, reaches, strict=True), 2):
        _fits("conv", x, axis, x.shape[axis] + low + high, reach)
    return _conv(x, kernel, steps, around, gaps, (0,) * count, groups)


def conv_transpose(
    x: TensorLike,
    w: TensorLike,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    flip: bool = False,
    outpad: Any = 0,
) -> Tensor:
    """The gradient of `conv` with respect to its input, for x as the gradient of its result.

    PyTorch's conv_transpose1d, 2d, 3d; its output_padding is `outpad`.
    Shapes  x [N, C, S...], w [C, O / groups, K...] -> [N, O, S'...],
            S' = (S - 1)*stride + (K - 1)*dilation + 1 - low - high + outpad.
    Errors  ShapeError if channels do not match or nothing is left of the result.
    """
    x, w = _operands("conv_transpose", x, w)
    count = _image("conv_transpose", x)
    groups = _groups("conv_transpose", groups)
    if w.ndim != x.ndim or w.shape[0] != x.shape[1] or _part(w.shape[0], groups) is None:
        _mismatch("conv_transpose", x, w, groups, "[channels, outputs / groups, kernel...]")
    steps = numbers("conv_transpose: stride", stride, count)
    gaps = numbers("conv_transpose: dilation", dilation, count)
    more = numbers("conv_transpose: outpad", outpad, count, 0)
    reaches = _reaches(w.shape[2:], gaps)
    cut = [r - s + 1 for r, s in zip(reaches, steps, strict=True)]
    around = pads("conv_transpose: pad", pad, cut if isinstance(pad, SamePad) else reaches)
    full = []
    for axis, (low, high) in enumerate(around):
        reach = reaches[axis]
        full.append((reach - 1 - low, reach - 1 - high + more[axis]))
        span = (x.shape[axis + 2] - 1) * steps[axis] + 1
        _fits("conv_transpose", x, axis + 2, span + sum(full[axis]), reach)
    kernel = _exchanged(w if flip else _reversed(w), groups)
    inner = tuple(s - 1 for s in steps)
    return _conv(x, kernel, (1,) * count, tuple(full), gaps, inner, groups)


def depthwise_conv(
    x: TensorLike,
    w: TensorLike,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    flip: bool = False,
) -> Tensor:
    """`conv` with every channel a group of its own.

    Shapes  x [N, C, S...], w [C * multiplier, 1, K...] -> [N, C * multiplier, S'...].
    """
    t = as_tensor(x)
    _image("depthwise_conv", t)
    channels = t.shape[1]
    if not isinstance(channels, int):
        fail(ShapeError, "depthwise_conv: the number of channels must be known", got=str(t.type))
    return conv(t, w, stride, pad, dilation, channels, flip)


def _operands(name: str, x: TensorLike, w: TensorLike) -> tuple[Tensor, Tensor]:
    dtype = common_dtype(x, w)
    if dtype.kind == "b":
        fail(DTypeError, f"{name} of bool tensors", hint="x.astype(fx.f32) first")
    return as_tensor(x, dtype), as_tensor(w, dtype)


def _groups(name: str, groups: Any) -> int:
    if not _is_integer(groups) or groups < 1:
        fail(ShapeError, f"{name}: groups must be an integer >= 1", got=repr(groups))
    return int(groups)


def _part(size: Size, groups: int) -> Size | None:
    return exact_quotient(size, groups)


def _mismatch(name: str, x: Tensor, w: Tensor, groups: int, expected: str) -> None:
    fail(
        ShapeError,
        f"{name}: input and weight do not match" + (f" in {groups} groups" if groups > 1 else ""),
        expected=f"x [batch, channels, spatial...] and w {expected}",
        got=f"x {x.type} and w {w.type}",
    )


def _reaches(kernel: Sequence[Size], dilation: Sequence[int]) -> list[Size]:
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]


def _reversed(w: Tensor) -> Tensor:
    return flip(w, tuple(range(2, w.ndim)))


def _exchanged(w: Tensor, groups: int) -> Tensor:
    """[C, O / groups, K...] as the weight [O, C / groups, K...]."""
    channels, each, *kernel = w.shape
    inner = _part(channels, groups)
    split = reshape(w, (groups, inner, each, *kernel))
    moved = split.transpose((0, 2, 1, *range(3, split.ndim)))
    return reshape(moved, (groups * each, inner, *kernel))


def _conv(
    x: Tensor,
    w: Tensor,
    stride: tuple[int, ...],
    around: Pads,
    dilation: tuple[int, ...],
    interior: tuple[int, ...],
    groups: int,
) -> Tensor:
    value = emit(
        "conv",
        x.value,
        w.value,
        stride=stride,
        low=tuple(low for low, _ in around),
        high=tuple(high for _, high in around),
        dilation=dilation,
        interior=interior,
        groups=groups,
    )
    return Tensor(value)


# Pooling.


def maxpool(x: TensorLike, k: Any, stride: Any = None, pad: Any = 0, dilation: Any = 1) -> Tensor:
    """The greatest element of each window; padding is never one.  `stride` is `k` by default.

    Of equal greatest elements the first gets the gradient.
    Shapes  x [N, C, S...] -> [N, C, S'...], S' as `conv` has it.
    """
    t = as_tensor(x)
    return Tensor(emit("window_max", t.value, **_windows("maxpool", t, k, stride, pad, dilation)))


def meanpool(
    x: TensorLike, k: Any, stride: Any = None, pad: Any = 0, count_include_pad: bool = True
) -> Tensor:
    """The mean of each window, padding counted as zeros or, on request, not at all.

    Shapes  x [N, C, S...] -> [N, C, S'...], S' as `conv` has it; `stride` is `k` by default.
    """
    t = as_tensor(x)
    t = t if t.type.dtype.is_float else as_tensor(t, "f32")
    attrs = _windows("meanpool", t, k, stride, pad, 1)
    total = Tensor(emit("window_sum", t.value, **attrs))
    if count_include_pad or not any((*attrs["low"], *attrs["high"])):
        points: int = math.prod(attrs["sizes"])
        return total * (1 / points)
    one = ones((1, 1, *t.shape[2:]), t.dtype)
    return total / Tensor(emit("window_sum", one.value, **attrs))


def lpnormpool(x: TensorLike, p: float, k: Any, stride: Any = None, pad: Any = 0) -> Tensor:
    """(sum of x**p over each window) ** (1/p), p > 0: no mean, and no absolute value."""
    if not p > 0:
        fail(ShapeError, "lpnormpool: p must be positive", got=repr(p))
    t = as_tensor(x)
    t = t if t.type.dtype.is_float else as_tensor(t, "f32")
    powers = t**p
    attrs = _windows("lpnormpool", powers, k, stride, pad, 1)
    return Tensor(emit("window_sum", powers.value, **attrs)) ** (1 / p)


def _windows(
    name: str, x: Tensor, k: Any, stride: Any, pad: Any, dilation: Any
) -> dict[str, tuple[Any, ...]]:
    """The attributes of a window operation over all axes."""
    count = _image(name, x)
    if x.type.dtype.kind == "b":
        fail(DTypeError, f"{name} of bool tensors", hint="x.astype(fx.f32) first")
    sizes = numbers(f"{name}: window", k, count)
    steps = sizes if stride is None else numbers(f"{name}: stride", stride, count)
    gaps = numbers(f"{name}: dilation", dilation, count)
    reaches = _reaches(sizes, gaps)
    around = pads(f"{name}: pad", pad, reaches)
    for axis, ((low, high), reach) in enumerate(zip(around, reaches, strict=True), 2):
        _fits(name, x, axis, x.shape[axis] + low + high, reach)
    return {
        "sizes": (1, 1, *sizes),
        "strides": (1, 1, *steps),
        "low": (0, 0, *(low for low, _ in around)),
        "high": (0, 0, *(high for _, high in around)),
        "dilation": (1, 1, *gaps),
    }


def adaptive_maxpool(x: TensorLike, out: Any) -> Tensor:
    """The greatest element of each of `out` windows per axis: [i*S // out, ceil((i+1)*S / out)).

    Shapes  x [N, C, S...] -> [N, C, out...].
    """
    return _adaptive("adaptive_maxpool", x, out, maxpool, greatest)


def adaptive_meanpool(x: TensorLike, out: Any) -> Tensor:
    """The mean of each of `out` windows per axis, see `adaptive_maxpool`."""
    return _adaptive("adaptive_meanpool", x, out, meanpool, mean)


def _adaptive(
    name: str,
    x: TensorLike,
    out: Any,
    pool: Callable[..., Tensor],
    reduce: Callable[..., Tensor],
) -> Tensor:
    """Equal windows at once; else axis by axis, which means and maxima of rectangles allow."""
    t = as_tensor(x)
    sizes = numbers(f"{name}: out", out, _image(name, t))
    whole = [exact_quotient(s, o) for s, o in zip(t.shape[2:], sizes, strict=True)]
    if all(isinstance(k, int) and k > 0 for k in whole):
        return pool(t, tuple(whole))
    for axis, o in enumerate(sizes, 2):
        size = t.shape[axis]
        if o == 1:
            t = reduce(t, axis, keepdims=True)
            continue
        lead = (slice(None),) * axis
        spans = [(floordiv(size * i, o), ceildiv(size * (i + 1), o)) for i in range(o)]
        parts = [reduce(t[(*lead, slice(a, z))], axis, keepdims=True) for a, z in spans]
        t = concatenate(parts, axis)
    return t


def flatten(x: TensorLike) -> Tensor:
    """All axes but the first as one: [N, ...] -> [N, product of the others]."""
    t = as_tensor(x)
    if t.ndim == 0:
        fail(ShapeError, "flatten of a scalar", got=str(t.type))
    return reshape(t, (t.shape[0], product(t.shape[1:])))
