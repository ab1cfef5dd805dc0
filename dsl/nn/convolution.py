"""Convolutions of images [batch, channels, spatial...]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc import init as inits
from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.module import Module
from fluxc.nn.checks import (
    bias_parameter,
    count,
    float_input,
    is_given,
    weight_parameter,
    with_activation,
)
from fluxc.nn.images import check_image, kernel_sizes, options_text, shortest, sizes_text
from fluxc.ops.spatial import SamePad, flatten, numbers, pads
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.dims import Size
    from fluxc.tensor import Tensor, TensorLike
    from fluxc.types import DTypeLike

__all__ = [
    "Conv",
    "ConvTranspose",
    "Convolution",
    "CrossCor",
    "DepthwiseConv",
    "SamePad",
    "flatten",
]


class Convolution(Module):
    """What convolutions have in common."""

    def __init__(
        self,
        kernel: Any,
        in_size: Any = None,
        out_size: Any = None,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        stride: Any = 1,
        pad: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        flip: bool = False,
        bias: Any = True,
        init: Any = inits.glorot_uniform,
        dtype: DTypeLike = "f32",
    ) -> None:
        name = type(self).__name__
        self.groups = count(f"{name}: groups", groups)
        weight = kernel if is_given(kernel) else None
        if weight is not None:  # (weight, bias, activation)
            bias = bias if in_size is None else in_size
            activation = activation if out_size is None else out_size
            kernel, in_size, out_size = self._taken_from(weight)
        self.kernel = kernel_sizes(name, kernel)
        rank = len(self.kernel)
        self.in_size, self.out_size = count(f"{name}: in", in_size), count(f"{name}: out", out_size)
        for what, size in (("in", self.in_size), ("out", self.out_size)):
            if size % self.groups:
                fail(ShapeError, f"{name}: groups must divide {what}", got=f"{size} by {groups}")
        self.activation, self.flip = activation, bool(flip)
        self.stride = numbers(f"{name}: stride", stride, rank)
        self.dilation = numbers(f"{name}: dilation", dilation, rank)
        pads(f"{name}: pad", pad, self.kernel)
        self.pad = pad
        self.weight = weight_parameter(weight, (*self._channels(), *self.kernel), init, dtype)
        self.bias = bias_parameter(bias, (self.out_size,), dtype)

    def _channels(self) -> tuple[int, int]:
        """The first two sizes of the weight."""
        return self.out_size, self.in_size // self.groups

    def _taken_from(self, weight: Any) -> tuple[tuple[Size, ...], Size, Size]:
        """Kernel, in and out of a given weight."""
        if weight.ndim < 3:
            fail(
                ShapeError,
                f"{type(self).__name__} of a weight with {weight.ndim} axes",
                expected="two axes of channels, and one or more of the kernel",
                got=str(list(weight.shape)),
            )
        first, second, *kernel = weight.shape
        return tuple(kernel), *self._from_channels(first, second)

    def _from_channels(self, first: int, second: int) -> tuple[int, int]:
        """in and out, of the first two sizes of the weight."""
        return second * self.groups, first

    def _apply(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x, self.weight)
        check_image(self, t, len(self.kernel), self.in_size)
        return ops.bias_act(self.activation, self._apply(t), self.bias)

    def _options(self) -> dict[str, tuple[Any, Any]]:
        """Keywords and their defaults."""
        ones = (1,) * len(self.kernel)
        return {
            "stride": (self.stride, ones),
            "pad": (shortest(self.pad), 0),
            "dilation": (self.dilation, ones),
            "groups": (self.groups, 1),
            "flip": (self.flip, False),
            "bias": (self.bias is not None, True),
        }

    def describe(self) -> str:
        start = f"{type(self).__name__}({sizes_text(self.kernel)}, {self.in_size}, {self.out_size}"
        text = with_activation(start, self.activation)
        return f"{text[:-1]}{options_text(self._options())})"


class Conv(Convolution):
    """y = activation(conv(x, weight) + bias): a cross-correlation; flip=True reverses the kernel.

    `Conv((3, 3), in, out, activation)` makes its weight; `Conv(weight, bias, activation)` takes
    an array for its first value, or a parameter to share.
    PyTorch's Conv1d, Conv2d, Conv3d, with an activation.  Flux's Conv reverses the kernel.
    Shapes  x [N, in, S...], weight [out, in / groups, *kernel], bias [out] -> [N, out, S'...];
            `fx.conv` gives S' and says what stride, pad, dilation and groups take.
    init    of the weight.  bias=True: starts at 0; False: none; an array: its first value.
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

    Shapes  weight [out, 1, *kernel]; one that is given may be [in, out / in, *kernel].
    """

    def __init__(
        self,
        kernel: Any,
        in_size: Any = None,
        out_size: Any = None,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        **options: Any,
    ) -> None:
        if "groups" in options:
            fail(ShapeError, "DepthwiseConv has as many groups as channels", got="groups=...")
        groups = in_size
        if is_given(kernel):
            groups = kernel.shape[0]
            if isinstance(kernel, np.ndarray) and kernel.ndim > 2:
                kernel = kernel.reshape(-1, 1, *kernel.shape[2:])
            elif kernel.shape[1] != 1:
                got = str(list(kernel.shape))
                fail(
                    ShapeError, "DepthwiseConv: a shared weight", expected="[out, 1, ...]", got=got
                )
        super().__init__(kernel, in_size, out_size, activation, groups=groups, **options)

    def _options(self) -> dict[str, tuple[Any, Any]]:
        return {name: pair for name, pair in super()._options().items() if name != "groups"}


class ConvTranspose(Convolution):
    """y = activation(conv_transpose(x, weight) + bias): the gradient of Conv by its input.

    `ConvTranspose(weight, bias, activation)` as for Conv.
    PyTorch's ConvTranspose1d, 2d, 3d; `outpad` is its output_padding.
    Shapes  x [N, in, S...], weight [in, out / groups, *kernel], bias [out] -> [N, out, S'...];
            `fx.conv_transpose` gives S'.
    """

    def __init__(
        self,
        kernel: Any,
        in_size: Any = None,
        out_size: Any = None,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        outpad: Any = 0,
        **options: Any,
    ) -> None:
        super().__init__(kernel, in_size, out_size, activation, **options)
        self.outpad = numbers("ConvTranspose: outpad", outpad, len(self.kernel), 0)

    def _channels(self) -> tuple[int, int]:
        return self.in_size, self.out_size // self.groups

    def _from_channels(self, first: int, second: int) -> tuple[int, int]:
        return first, second * self.groups

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

    def _options(self) -> dict[str, tuple[Any, Any]]:
        return super()._options() | {"outpad": (self.outpad, (0,) * len(self.kernel))}
