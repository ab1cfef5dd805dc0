"""Dropout as functions: they drop whenever they are called, in test mode too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.ops.activation import SELU_ALPHA, SELU_SCALE
from fluxc.ops.create import zeros_like
from fluxc.ops.elementwise import as_float, where
from fluxc.ops.layout import normal_axes
from fluxc.ops.random import uniform
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.tensor import Tensor, TensorLike

__all__ = ["alpha_dropout", "dropout"]


def probability(what: str, p: Any) -> float:
    """A number in 0 .. 1, or a ShapeError."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        fail(ShapeError, f"{what}: p must be a number in 0 .. 1", got=repr(p))
    return float(p)


def _mask_shape(x: Tensor, dims: Any) -> tuple[Size, ...]:
    free = normal_axes(dims, x.ndim)
    return tuple(s if i in free else 1 for i, s in enumerate(x.shape))


def dropout(x: TensorLike, p: float, dims: Any = None) -> Tensor:
    """Each element is 0 with probability p, and the others are divided by 1 - p.

    dims    axes along which elements drop independently, all by default; along the others they
            drop together: `dims=(0, 1)` drops whole channels of [batch, channels, ...].
    `nn.Dropout` is the same in training alone.
    Errors  ShapeError unless 0 <= p <= 1.
    """
    t, p = as_float(x), probability("dropout", p)
    if p == 0:
        return t
    if p == 1:
        return zeros_like(t)
    kept = uniform(_mask_shape(t, dims)) >= p
    return where(kept, t * (1 / (1 - p)), 0.0)


def alpha_dropout(x: TensorLike, p: float) -> Tensor:
    """Dropout that keeps the mean 0 and the variance 1 of what `fx.selu` makes.

        a * (x where kept, else s) + b,  s = -1.7580993,  a = 1 / sqrt((1 - p)(1 + p s**2)),
        b = -a s p

    Each element is kept with probability 1 - p.  p = 1 gives zeros.
    `nn.AlphaDropout` is the same in training alone.
    Errors  ShapeError unless 0 <= p <= 1.
    """
    t, p = as_float(x), probability("alpha_dropout", p)
    if p == 0:
        return t
    if p == 1:
        return zeros_like(t)
    saturated = -SELU_SCALE * SELU_ALPHA
    a = 1 / math.sqrt((1 - p) * (1 + p * saturated**2))
    kept = uniform(t.shape) >= p
    return where(kept, t, saturated) * a - a * saturated * p
