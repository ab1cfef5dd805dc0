"""Losses of yes and no."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc import ops
from fluxc.losses.terms import Aggregate, epsilon, pair, xlogy
from fluxc.tensor import as_tensor

if TYPE_CHECKING:
    from fluxc.tensor import Tensor, TensorLike

__all__ = [
    "binary_focal_loss", "binarycrossentropy", "dice_coeff_loss", "hinge_loss",
    "logitbinarycrossentropy", "squared_hinge_loss", "tversky_loss",
]  # fmt: skip


def binarycrossentropy(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    eps: float | None = None,
) -> Tensor:
    """agg(-target*log(p + eps) - (1 - target)*log(1 - p + eps)) of probabilities p."""
    y, t = pair("binarycrossentropy", prediction, target)
    e = epsilon(y.type.dtype, eps)
    return agg(-xlogy(t, y + e) - xlogy(1 - t, 1 - y + e))


def logitbinarycrossentropy(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    *,
    weight: TensorLike | None = None,
    pos_weight: TensorLike | None = None,
) -> Tensor:
    """agg((1 - target)*x - logsigmoid(x)) of logits x.  PyTorch's BCEWithLogitsLoss.

    weight      broadcasts to the losses and multiplies them.
    pos_weight  broadcasts to the losses and multiplies their part with target 1:
                -pos_weight*target*log(p) - (1 - target)*log(1 - p), p = sigmoid(x).
    """
    y, t = pair("logitbinarycrossentropy", prediction, target)
    if pos_weight is None:
        losses = (1 - t) * y - ops.logsigmoid(y)
    else:
        positive = 1 + (as_tensor(pos_weight, y.dtype) - 1) * t
        losses = (1 - t) * y - positive * ops.logsigmoid(y)
    return agg(losses if weight is None else losses * as_tensor(weight, y.dtype))


def binary_focal_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    gamma: float = 2.0,
    eps: float | None = None,
) -> Tensor:
    """agg(-(1 - p)**gamma * log(p)), p the probability given to the target, + eps."""
    y, t = pair("binary_focal_loss", prediction, target)
    q = y + epsilon(y.type.dtype, eps)
    p = t * q + (1 - t) * (1 - q)
    return agg(-((1 - p) ** gamma) * ops.log(p))


def hinge_loss(prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean) -> Tensor:
    """agg(max(0, 1 - prediction*target)), target -1 or 1."""
    y, t = pair("hinge_loss", prediction, target)
    return agg(ops.relu(1 - y * t))


def squared_hinge_loss(
    prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean
) -> Tensor:
    """agg(max(0, 1 - prediction*target)**2), target -1 or 1."""
    y, t = pair("squared_hinge_loss", prediction, target)
    return agg(ops.square(ops.relu(1 - y * t)))


def dice_coeff_loss(prediction: TensorLike, target: TensorLike, smooth: float = 1.0) -> Tensor:
    """1 - (2*sum(p*t) + smooth) / (sum(t**2) + sum(p**2) + smooth) over all elements."""
    y, t = pair("dice_coeff_loss", prediction, target)
    overlap = 2 * ops.sum(y * t) + smooth
    return 1 - overlap / (ops.sum(ops.square(t)) + ops.sum(ops.square(y)) + smooth)


def tversky_loss(prediction: TensorLike, target: TensorLike, beta: float = 0.7) -> Tensor:
    """1 - (sum(p*t) + 1) / (sum(p*t + beta*(1 - t)*p + (1 - beta)*t*(1 - p)) + 1)."""
    y, t = pair("tversky_loss", prediction, target)
    overlap = y * t
    whole = overlap + beta * (1 - t) * y + (1 - beta) * t * (1 - y)
    return 1 - (ops.sum(overlap) + 1) / (ops.sum(whole) + 1)
