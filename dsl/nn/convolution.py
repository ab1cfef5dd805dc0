"""Convolutions and pooling over images [batch, channels, spatial...]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc import init as inits
from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.module import Module, Param
from fluxc.nn.checks import count, float_input, with_activation
from fluxc.ops.convolution import SamePad, flatten, numbers, pads
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.types import DTypeLike

__all__ = [
    "AdaptiveMaxPool", "AdaptiveMeanPool", "Conv", "ConvTranspose", "Convolution", "CrossCor",
    "DepthwiseConv",
    "GlobalMaxPool", "GlobalMeanPool", "MaxPool", "MeanPool", "SamePad", "flatten",
]  # fmt: skip


def _kernel(name: str, k: Any) -> tuple[int, ...]:
    """The kernel's sizes; one number is a kernel along one axis."""
    sizes = tuple(k) if isinstance(k, tuple | list) else (k,)
    return numbers(f"{name}: kernel", sizes, max(len(sizes), 1))


def _image(layer: Module, x: Tensor, rank: int, channels: int | None) -> None:
    """[batch, channels, one size for each of `rank` spatial axes], or a ShapeError."""
    if x.ndim == rank + 2 and channels in (None, x.shape[1]):
        return
    sizes = ", ".join(("height", "width") if rank == 2 else ["size"] * rank)
    fail(
        ShapeError,
        f"{layer.describe()}: the input does not fit",
        expected=f"{x.type.dtype}[batch, {channels or 'channels'}, {sizes}]",
        got=str(x.type),
    )


def _per_channel(bias: Any, rank: int) -> Tensor:
    t = as_tensor(bias)
    return t.reshape((t.shape[0], *(1,) * rank))


class Convolution(Module):
    """What convolutions have in common."""

    def __init__(
        self,
        kernel: Any,
        in_size: int,
        out_size: int,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        stride: Any = 1,
        pad: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        flip: bool = False,
        bias: bool = True,
        init: Any = inits.glorot_uniform,
        dtype: DTypeLike = "f32",
    ) -> None:
        name = type(self).__name__
        self.kernel = _kernel(name, kernel)
        rank = len(self.kernel)
        self.in_size, self.out_size = count(f"{name}: in", in_size), count(f"{name}: out", out_size)
        self.groups = count(f"{name}: groups", groups)
        for what, size in (("in", self.in_size), ("out", self.out_size)):
            if size % self.groups:
                fail(ShapeError, f"{name}: groups must divide {what}", got=f"{size} by {groups}")
        self.activation, self.flip = activation, bool(flip)
        self.stride = numbers(f"{name}: stride", stride, rank)
        self.dilation = numbers(f"{name}: dilation", dilation, rank)
        pads(f"{name}: pad", pad, self.kernel)
        self.pad = pad
        self.weight = Param((*self._channels(), *self.kernel), init=init, dtype=dtype)
        self.bias = Param((self.out_size,), init=0.0, dtype=dtype) if bias else None

    def _channels(self) -> tuple[int, int]:
        return self.out_size, self.in_size // self.groups

    def _apply(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x, self.weight)
        _image(self, t, len(self.kernel), self.in_size)
        y = self._apply(t)
        if self.bias is not None:
            y = y + _per_channel(self.bias, len(self.kernel))
        return self.activation(y)

    def _options(self) -> dict[str, Any]:
        """Keywords that are not at their defaults."""
        ones = (1,) * len(self.kernel)
        given = {
            "stride": (_short(self.stride), _short(ones)),
            "pad": (_short(self.pad), 0),
            "dilation": (_short(self.dilation), _short(ones)),
            "groups": (self.groups, 1),
            "flip": (self.flip, False),
            "bias": (self.bias is not None, True),
        }
        return {name: value for name, (value, usual) in given.items() if value != usual}

    def describe(self) -> str:
        kernel = ", ".join(map(str, self.kernel)) + ("," if len(self.kernel) == 1 else "")
        start = f"{type(self).__name__}(({kernel}), {self.in_size}, {self.out_size}"
        text = with_activation(start, self.activation)
        options = "".join(f", {name}={value!r}" for name, value in self._options().items())
        return f"{text[:-1]}{options})"


def _short(value: Any) -> Any:
    """One number for all axes where they have one."""
    if isinstance(value, tuple | list) and len(set(value)) == 1:
        return value[0]
    return value


class Conv(Convolution):
    """y = activation(conv(x, weight) + bias): a cross-correlation; flip=True reverses the kernel.

    PyTorch's Conv1d, Conv2d, Conv3d, with an activation.
    Shapes  x [N, in, S...], weight [out, in / groups, *kernel], bias [out] -> [N, out, S'...];
            `fx.conv` gives S' and says what stride, pad, dilation and groups take.
    init    of the weight; biases start at 0.  bias=False: none.
    Errors  ShapeError if the input has other channels or axes, or the kernel does not fit.
    """

    def _apply(self, x: Tensor) -> Tensor:
        return ops.conv(
            x, self.weight, self.stride, self.pad, self.dilation, self.groups, self.flip
        )


class CrossCor(Conv):
    """Conv under Flux's name for a cross-correlation."""


class DepthwiseConv(Conv):
    """Conv with every channel a group of its own; out is a multiple of in.

    Shapes  weight [out, 1, *kernel].
    """

    def __init__(
        self,
        kernel: Any,
        in_size: int,
        out_size: int,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        **options: Any,
    ) -> None:
        if "groups" in options:
            fail(ShapeError, "DepthwiseConv has as many groups as channels", got="groups=...")
        super().__init__(kernel, in_size, out_size, activation, groups=in_size, **options)

    def _options(self) -> dict[str, Any]:
        return {name: value for name, value in super()._options().items() if name != "groups"}


class ConvTranspose(Convolution):
    """y = activation(conv_transpose(x, weight) + bias): the gradient of Conv by its input.

    PyTorch's ConvTranspose1d, 2d, 3d; `outpad` is its output_padding.
    Shapes  x [N, in, S...], weight [in, out / groups, *kernel], bias [out] -> [N, out, S'...];
            `fx.conv_transpose` gives S'.
    """

    def __init__(
        self,
        kernel: Any,
        in_size: int,
        out_size: int,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        outpad: Any = 0,
        **options: Any,
    ) -> None:
        super().__init__(kernel, in_size, out_size, activation, **options)
        self.outpad = numbers("ConvTranspose: outpad", outpad, len(self.kernel), 0)

    def _channels(self) -> tuple[int, int]:
        return self.in_size, self.out_size // self.groups

    def _apply(self, x: Tensor) -> Tensor:
        return ops.conv_transpose(
            x,
            self.weight,
            self.stride,
            self.pad,
            self.dilation,
            self.groups,
            self.flip,
            self.outpad,
        )

    def _options(self) -> dict[str, Any]:
        given = super()._options()
        return given | {"outpad": _short(self.outpad)} if any(self.outpad) else given


class _Pool(Module):
    """A window of fixed size that moves over the image."""

    def __init__(self, k: Any, *, stride: Any = None, pad: Any = 0) -> None:
        name = type(self).__name__
        self.k = _kernel(name, k)
        steps = self.k if stride is None else stride
        self.stride = numbers(f"{name}: stride", steps, len(self.k))
        pads(f"{name}: pad", pad, self.k)
        self.pad = pad

    def _checked(self, x: TensorLike) -> Tensor:
        t = as_tensor(x)
        _image(self, t, len(self.k), None)
        return t

    def describe(self) -> str:
        kernel = ", ".join(map(str, self.k)) + ("," if len(self.k) == 1 else "")
        stride = "" if self.stride == self.k else f", stride={_short(self.stride)!r}"
        pad = "" if _short(self.pad) == 0 else f", pad={_short(self.pad)!r}"
        return f"{type(self).__name__}(({kernel}){stride}{pad})"


class MaxPool(_Pool):
    """The greatest element of each window; padding is never one.  `stride` is `k` by default.

    Shapes  x [N, C, S...] -> [N, C, S'...], S' = (S + low + high - k) // stride + 1.
    PyTorch's MaxPool1d, 2d, 3d.
    """

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.maxpool(self._checked(x), self.k, self.stride, self.pad)


class MeanPool(_Pool):
    """The mean of each window, padding counted as zeros.  `stride` is `k` by default.

    Shapes  as MaxPool has them.  PyTorch's AvgPool1d, 2d, 3d.
    """

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.meanpool(self._checked(x), self.k, self.stride, self.pad)


class _Adaptive(Module):
    """Windows that divide the image into `out` parts."""

    def __init__(self, out: Any) -> None:
        self.out = _kernel(type(self).__name__, out)

    def _checked(self, x: TensorLike) -> Tensor:
        t = as_tensor(x)
        _image(self, t, len(self.out), None)
        return t

    def describe(self) -> str:
        out = ", ".join(map(str, self.out)) + ("," if len(self.out) == 1 else "")
        return f"{type(self).__name__}(({out}))"


class AdaptiveMaxPool(_Adaptive):
    """The greatest elements of windows chosen so that the result has the sizes `out`.

    Window i of an axis of size S covers i*S // out up to ceil((i + 1)*S / out), as PyTorch has it.
    Shapes  x [N, C, S...] -> [N, C, *out].
    """

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.adaptive_maxpool(self._checked(x), self.out)


class AdaptiveMeanPool(_Adaptive):
    """The means of windows chosen so that the result has the sizes `out`; see AdaptiveMaxPool."""

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.adaptive_meanpool(self._checked(x), self.out)


class _Global(Module):
    def _axes(self, x: TensorLike) -> tuple[Tensor, tuple[int, ...]]:
        t = as_tensor(x)
        if t.ndim < 3:
            _image(self, t, 1, None)
        return t, tuple(range(2, t.ndim))

    def describe(self) -> str:
        return f"{type(self).__name__}()"


class GlobalMaxPool(_Global):
    """The greatest element of each channel: [N, C, S...] -> [N, C, 1...]."""

    def __call__(self, x: TensorLike) -> Tensor:
        t, axes = self._axes(x)
        return ops.max(t, axes, keepdims=True)


class GlobalMeanPool(_Global):
    """The mean of each channel: [N, C, S...] -> [N, C, 1...]."""

    def __call__(self, x: TensorLike) -> Tensor:
        t, axes = self._axes(x)
        return ops.mean(t, axes, keepdims=True)
