"""Layers that make noise in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.nn.checks import float_input
from fluxc.nn.mode import Moded, checked_mode
from fluxc.ops.noise import probability

if TYPE_CHECKING:
    from fluxc.tensor import Tensor, TensorLike

__all__ = ["AlphaDropout", "Dropout"]


class Dropout(Moded):
    """In training each element is 0 with probability p, and the others are divided by 1 - p.

    In test it is the identity.
    dims    axes along which elements drop independently; along the others they drop together.
            PyTorch's Dropout2d is `Dropout(p, dims=(0, 1))`.
    active  True, False or None, as `nn.trainmode` sets it.
    Errors  ShapeError unless 0 <= p <= 1, or for an axis that the input has not.
    """

    def __init__(self, p: float, *, dims: Any = None, active: bool | None = None) -> None:
        self.p, self.dims = probability("Dropout", p), dims
        self.active = checked_mode(active)

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x)
        return ops.dropout(t, self.p, self.dims) if self.trains() else t

    def describe(self) -> str:
        dims = "" if self.dims is None else f", dims={self.dims}"
        return f"Dropout({self.p:g}{dims})"


class AlphaDropout(Moded):
    """Dropout for networks of `fx.selu`: in training, `fx.alpha_dropout`; in test the identity.

    Each element is -1.7580993 with probability p, and all are scaled and shifted so that mean 0 and
    variance 1 stay.
    active  True, False or None, as `nn.trainmode` sets it.
    Errors  ShapeError unless 0 <= p <= 1.
    """

    def __init__(self, p: float, *, active: bool | None = None) -> None:
        self.p, self.active = probability("AlphaDropout", p), checked_mode(active)

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x)
        return ops.alpha_dropout(t, self.p) if self.trains() else t

    def describe(self) -> str:
        return f"AlphaDropout({self.p:g})"
