"""Losses of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc import ops
from fluxc.losses.terms import Aggregate, epsilon, pair, xlogy

if TYPE_CHECKING:
    from fluxc.tensor import Tensor, TensorLike

__all__ = ["huber_loss", "mae", "mse", "msle", "poisson_loss"]


def mae(prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean) -> Tensor:
    """agg(abs(prediction - target)).  PyTorch's L1Loss."""
    y, t = pair("mae", prediction, target)
    return agg(ops.abs(y - t))


def mse(prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean) -> Tensor:
    """agg((prediction - target)**2)."""
    y, t = pair("mse", prediction, target)
    return agg(ops.square(y - t))


def msle(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    eps: float | None = None,
) -> Tensor:
    """agg(log((prediction + eps) / (target + eps))**2)."""
    y, t = pair("msle", prediction, target)
    e = epsilon(y.type.dtype, eps)
    return agg(ops.square(ops.log((y + e) / (t + e))))


def huber_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    delta: float = 1.0,
) -> Tensor:
    """agg(e**2/2 where e < delta, delta*(e - delta/2) elsewhere), e = abs(prediction - target)."""
    y, t = pair("huber_loss", prediction, target)
    e = ops.abs(y - t)
    return agg(ops.where(e < delta, 0.5 * e * e, delta * (e - 0.5 * delta)))


def poisson_loss(prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean) -> Tensor:
    """agg(prediction - target*log(prediction))."""
    y, t = pair("poisson_loss", prediction, target)
    return agg(y - xlogy(t, y))
