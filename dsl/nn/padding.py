"""Padding of images [batch, channels, spatial...], any number of spatial axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.module import Module
from fluxc.nn.images import check_image, shortest
from fluxc.ops.spatial import SamePad, pads
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CircularPad", "ConstantPad", "ReflectionPad", "ReplicationPad", "ZeroPad"]


class _Padding(Module):
    """`pad` is one number, one for each spatial axis, or (low, high, low, high, ...).

    In the order of the axes, as `Conv` takes it: PyTorch's tuples begin with the last axis.
    """

    def __init__(self, pad: Any) -> None:
        if isinstance(pad, SamePad):
            fail(ShapeError, f"{type(self).__name__} has no kernel, which SamePad() asks for")
        self.pad = tuple(pad) if isinstance(pad, list) else pad

    def _padded(self, x: TensorLike, function: Callable[..., Tensor], *value: Any) -> Tensor:
        t = as_tensor(x)
        check_image(self, t, None, None)
        rank = t.ndim - 2
        around = pads(f"{type(self).__name__}: pad", self.pad, (1,) * rank)
        flat = tuple(side for pair in around for side in pair)
        return function(t, flat, *value, dims=tuple(range(2, t.ndim)))

    def describe(self) -> str:
        return f"{type(self).__name__}({shortest(self.pad)!r})"


class ZeroPad(_Padding):
    """Zeros around the image: [N, C, S...] -> [N, C, low + S + high...].

    pad     one number, one for each spatial axis, or (low, high, low, high, ...) in the order of
            the axes, as Conv takes it; PyTorch's tuples begin with the last axis.
    Errors  ShapeError if the number of spatial axes is another.
    PyTorch's ZeroPad1d, 2d, 3d.
    """

    def __call__(self, x: TensorLike) -> Tensor:
        return self._padded(x, ops.pad_zeros)


class ConstantPad(_Padding):
    """`value` around the image; `pad` as ZeroPad takes it.  PyTorch's ConstantPad1d, 2d, 3d."""

    def __init__(self, pad: Any, value: float = 0.0) -> None:
        super().__init__(pad)
        self.value = value

    def __call__(self, x: TensorLike) -> Tensor:
        return self._padded(x, ops.pad_constant, self.value)

    def describe(self) -> str:
        return f"ConstantPad({shortest(self.pad)!r}, {self.value})"


class ReflectionPad(_Padding):
    """The image mirrored at its outermost elements; `pad` as ZeroPad takes it.

    `fx.pad_reflect`; PyTorch's ReflectionPad1d, 2d, 3d.
    """

    def __call__(self, x: TensorLike) -> Tensor:
        return self._padded(x, ops.pad_reflect)


class ReplicationPad(_Padding):
    """The image's outermost elements repeated; `pad` as ZeroPad takes it.

    `fx.pad_repeat`; PyTorch's ReplicationPad1d, 2d, 3d.
    """

    def __call__(self, x: TensorLike) -> Tensor:
        return self._padded(x, ops.pad_repeat)


class CircularPad(_Padding):
    """The image continued from its other side; `pad` as ZeroPad takes it.

    `fx.pad_circular`; PyTorch's CircularPad1d, 2d, 3d.
    """

    def __call__(self, x: TensorLike) -> Tensor:
        return self._padded(x, ops.pad_circular)
