"""Convolutions of images [batch, channels, spatial...], any number of spatial axes.

`fluxc.ops.spatial` says what `stride`, `dilation` and `pad` take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.dims import Size, exact_quotient
from fluxc.ops.elementwise import identity
from fluxc.ops.layout import flip, reshape
from fluxc.ops.spatial import (
    Pads,
    SamePad,
    fits,
    image_rank,
    is_integer,
    numbers,
    pads,
    reaches_of,
)
from fluxc.tensor import Tensor, TensorLike, as_tensor, common_dtype
from fluxc.trace import emit, fail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["bias_act", "conv", "conv_bias_act", "conv_transpose", "depthwise_conv"]


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
    count = image_rank("conv", x)
    groups = _groups("conv", groups)
    if w.ndim != x.ndim or w.shape[1] * groups != x.shape[1] or _part(w.shape[0], groups) is None:
        _mismatch("conv", x, w, groups, "[multiple of groups, channels / groups, kernel...]")
    steps, gaps = (
        numbers(f"conv: {name}", v, count)
        for name, v in (("stride", stride), ("dilation", dilation))
    )
    kernel = _reversed(w) if flip else w
    reaches = reaches_of(w.shape[2:], gaps)
    around = pads("conv: pad", pad, reaches)
    for axis, ((low, high), reach) in enumerate(zip(around, reaches, strict=True), 2):
        fits("conv", x.shape, axis, x.shape[axis] + low + high, reach)
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
    count = image_rank("conv_transpose", x)
    groups = _groups("conv_transpose", groups)
    if w.ndim != x.ndim or w.shape[0] != x.shape[1] or _part(w.shape[0], groups) is None:
        _mismatch("conv_transpose", x, w, groups, "[channels, outputs / groups, kernel...]")
    steps = numbers("conv_transpose: stride", stride, count)
    gaps = numbers("conv_transpose: dilation", dilation, count)
    more = numbers("conv_transpose: outpad", outpad, count, 0)
    reaches = reaches_of(w.shape[2:], gaps)
    cut = [r - s + 1 for r, s in zip(reaches, steps, strict=True)]
    around = pads("conv_transpose: pad", pad, cut if isinstance(pad, SamePad) else reaches)
    full = []
    for axis, (low, high) in enumerate(around):
        reach = reaches[axis]
        full.append((reach - 1 - low, reach - 1 - high + more[axis]))
        span = (x.shape[axis + 2] - 1) * steps[axis] + 1
        fits("conv_transpose", x.shape, axis + 2, span + sum(full[axis]), reach)
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
    image_rank("depthwise_conv", t)
    channels = t.shape[1]
    if not isinstance(channels, int):
        fail(ShapeError, "depthwise_conv: the number of channels must be known", got=str(t.type))
    return conv(t, w, stride, pad, dilation, channels, flip)


def bias_act(activation: Callable[[Tensor], Tensor], x: TensorLike, bias: Any = False) -> Tensor:
    """activation(x + bias), the bias of each channel added to all of its elements.

    Shapes  x [N, C, ...], bias [C] or False for none -> what the activation makes of x's shape.
    Errors  ShapeError if the bias is not one number for each channel.
    NNlib's bias_act!; nothing is overwritten here, and the whole is one pass over x.
    """
    t = as_tensor(x)
    if bias is False or bias is None:
        return activation(t)
    b = as_tensor(bias)
    if t.ndim < 2 or b.shape != (t.shape[1],):
        fail(
            ShapeError,
            "bias_act: one number for each channel",
            expected=f"[{t.shape[1] if t.ndim > 1 else 'channels'}] for x {t.type}",
            got=str(b.type),
        )
    return activation(t + b.reshape((b.shape[0], *(1,) * (t.ndim - 2))))


def conv_bias_act(
    x: TensorLike,
    w: TensorLike,
    bias: Any = False,
    activation: Callable[[Tensor], Tensor] = identity,
    **options: Any,
) -> Tensor:
    """`bias_act` of `conv`, whose keywords it takes; one kernel once compiled."""
    return bias_act(activation, conv(x, w, **options), bias)


def _operands(name: str, x: TensorLike, w: TensorLike) -> tuple[Tensor, Tensor]:
    dtype = common_dtype(x, w)
    if dtype.kind == "b":
        fail(DTypeError, f"{name} of bool tensors", hint="x.astype(fx.f32) first")
    return as_tensor(x, dtype), as_tensor(w, dtype)


def _groups(name: str, groups: Any) -> int:
    if not is_integer(groups) or groups < 1:
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
