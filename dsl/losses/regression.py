"""Losses of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.losses.terms import Aggregate, epsilon, pair, xlogy
from fluxc.tensor import as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.tensor import Tensor, TensorLike

__all__ = [
    "gaussian_nll_loss", "huber_loss", "mae", "mse", "msle", "poisson_loss", "quantile_loss",
    "smooth_l1_loss",
]  # fmt: skip


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


def smooth_l1_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    beta: float = 1.0,
) -> Tensor:
    """agg(e**2/(2*beta) where e < beta, e - beta/2 elsewhere), e = abs(prediction - target).

    That is huber_loss with delta = beta, divided by beta.  Errors  ShapeError unless beta > 0.
    """
    if not beta > 0:
        fail(ShapeError, "smooth_l1_loss: beta must be positive", got=repr(beta))
    return huber_loss(prediction, target, agg, beta) / beta


def quantile_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    q: float = 0.5,
) -> Tensor:
    """agg(max(q*e, (q - 1)*e)), e = target - prediction: least where a share q lies below.

    Also called the pinball loss.  The derivative where e = 0 is (1 - q).
    Errors  ShapeError unless 0 <= q <= 1.
    """
    if not 0 <= q <= 1:
        fail(ShapeError, "quantile_loss: q must be in 0 .. 1", got=repr(q))
    y, t = pair("quantile_loss", prediction, target)
    e = t - y
    return agg(ops.where(e > 0, q * e, (q - 1.0) * e))


def gaussian_nll_loss(
    prediction: TensorLike,
    target: TensorLike,
    var: TensorLike,
    agg: Aggregate = ops.mean,
    eps: float = 1e-6,
) -> Tensor:
    """agg((log(v) + (prediction - target)**2 / v) / 2), v = max(var, eps).

    Shapes  var broadcasts to the prediction.  Below eps its derivative is 0.
    """
    y, t = pair("gaussian_nll_loss", prediction, target)
    given = as_tensor(var, y.dtype)
    v = ops.where(given > eps, given, eps)
    return agg(0.5 * (ops.log(v) + ops.square(y - t) / v))
