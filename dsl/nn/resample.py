"""Images [batch, channels, spatial...] in other sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.module import Module
from fluxc.nn.checks import count
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.tensor import Tensor, TensorLike

__all__ = ["PixelShuffle", "PixelUnshuffle", "Upsample"]

_SMOOTH = {
    "linear": ops.upsample_linear,
    "bilinear": ops.upsample_bilinear,
    "trilinear": ops.upsample_trilinear,
    "bicubic": ops.upsample_bicubic,
}


class Upsample(Module):
    """Images in another size: `Upsample(2)`, `Upsample("bilinear", size=(32, 32))`.

    mode           "nearest" for any number of spatial axes; "linear", "bilinear", "trilinear" for
                   one, two and three; "bicubic" for two.
    scale, size    exactly one: a number for all spatial axes, or one for each.
    align_corners  of all modes but "nearest"; True by default as in Flux, False in PyTorch.
    Shapes  x [N, C, S...] -> [N, C, floor(S*scale)...]; `fx.upsample_bilinear` and its kin say
            which places are read.
    PyTorch's Upsample, whose scale is scale_factor.
    """

    def __init__(
        self,
        *given: Any,
        scale: Any = None,
        size: Any = None,
        mode: str = "nearest",
        align_corners: bool = True,
    ) -> None:
        for value in given:
            if isinstance(value, str):
                mode = value
            else:
                scale = value
        if mode != "nearest" and mode not in _SMOOTH:
            known = ", ".join(map(repr, ("nearest", *_SMOOTH)))
            fail(ShapeError, f"Upsample: mode {mode!r}", expected=known)
        if len(given) > 2 or (scale is None) == (size is None):
            fail(ShapeError, "Upsample takes scale or size", got=f"scale={scale!r}, size={size!r}")
        self.mode, self.scale, self.size = mode, scale, size
        self.align_corners = bool(align_corners)

    def __call__(self, x: TensorLike) -> Tensor:
        if self.mode == "nearest":
            return ops.upsample_nearest(x, self.scale, self.size)
        return _SMOOTH[self.mode](x, self.scale, self.size, self.align_corners)

    def describe(self) -> str:
        target = f"size={self.size}" if self.scale is None else f"{self.scale}"
        corners = "" if self.align_corners else ", align_corners=False"
        return f"Upsample({target}, mode={self.mode!r}{corners})"


class PixelShuffle(Module):
    """Channels as the pixels of an image r times as large: `fx.pixel_shuffle`.

    Shapes  x [N, C * r**d, S...] of d spatial axes -> [N, C, S*r...].
    """

    def __init__(self, r: int) -> None:
        self.r = count("PixelShuffle: r", r)

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.pixel_shuffle(x, self.r)

    def describe(self) -> str:
        return f"PixelShuffle({self.r})"


class PixelUnshuffle(Module):
    """Pixels as channels, the inverse of PixelShuffle: `fx.pixel_unshuffle`.

    Shapes  x [N, C, S...] of d spatial axes -> [N, C * r**d, S/r...].
    """

    def __init__(self, r: int) -> None:
        self.r = count("PixelUnshuffle: r", r)

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.pixel_unshuffle(x, self.r)

    def describe(self) -> str:
        return f"PixelUnshuffle({self.r})"
