"""Losses of distances and likeness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.losses.terms import Aggregate, pair
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.tensor import Tensor, TensorLike

__all__ = ["siamese_contrastive_loss"]


def siamese_contrastive_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    margin: float = 1.0,
) -> Tensor:
    """agg((1 - target)*d**2 + target*max(0, margin - d)**2) of distances d."""
    if margin < 0:
        fail(ShapeError, "siamese_contrastive_loss: margin must not be negative", got=repr(margin))
    y, t = pair("siamese_contrastive_loss", prediction, target)
    return agg((1 - t) * ops.square(y) + t * ops.square(ops.relu(margin - y)))
