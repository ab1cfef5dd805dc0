"""Losses of distances and likeness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.losses.classes import logitcrossentropy
from fluxc.losses.terms import Aggregate, pair
from fluxc.ops.elementwise import as_float
from fluxc.tensor import as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.tensor import Tensor, TensorLike

__all__ = [
    "cosine_embedding_loss", "info_nce_loss", "margin_ranking_loss", "siamese_contrastive_loss",
    "triplet_margin_loss",
]  # fmt: skip


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


def _vectors(name: str, a: TensorLike, *others: TensorLike) -> list[Tensor]:
    """Float tensors of the first one's shape, [..., features]."""
    first = as_float(a)
    found = [first, *(as_tensor(x, first.dtype) for x in others)]
    for x in found:
        if x.shape != first.shape or x.ndim == 0:
            fail(
                ShapeError,
                f"{name}: vectors [..., features] of one shape",
                expected=str(first.type),
                got=str(x.type),
            )
    return found


def cosine_embedding_loss(
    a: TensorLike,
    b: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    margin: float = 0.0,
) -> Tensor:
    """agg(1 - cos(a, b) where target = 1, max(0, cos(a, b) - margin) where it is -1).

    Shapes  a, b [..., features], target [...].
    """
    x, y = _vectors("cosine_embedding_loss", a, b)
    cosine = ops.cosine_similarity(x, y)
    _, t = pair("cosine_embedding_loss", cosine, target)
    return agg(ops.where(t > 0, 1 - cosine, ops.relu(cosine - margin)))


def margin_ranking_loss(
    a: TensorLike,
    b: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    margin: float = 0.0,
) -> Tensor:
    """agg(max(0, margin - target*(a - b))): target 1 wants a above b, -1 below."""
    x, y = pair("margin_ranking_loss", a, b)
    _, t = pair("margin_ranking_loss", x, target)
    return agg(ops.relu(margin - t * (x - y)))


def triplet_margin_loss(
    anchor: TensorLike,
    positive: TensorLike,
    negative: TensorLike,
    agg: Aggregate = ops.mean,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
) -> Tensor:
    """agg(max(0, d(anchor, positive) - d(anchor, negative) + margin)).

    Shapes  all [..., features]; d(x, y) = norm(x - y + eps) with exponent p, as PyTorch has it.
    """
    a, near, far = _vectors("triplet_margin_loss", anchor, positive, negative)
    return agg(ops.relu(_distance(a, near, p, eps) - _distance(a, far, p, eps) + margin))


def _distance(x: Tensor, y: Tensor, p: float, eps: float) -> Tensor:
    return ops.vector_norm(x - y + eps, -1, ord=p)


def info_nce_loss(
    queries: TensorLike,
    keys: TensorLike,
    agg: Aggregate = ops.mean,
    temperature: float = 0.1,
) -> Tensor:
    """agg(logitcrossentropy(cos(query i, key j) / temperature, i)): key i is query i's own.

    Shapes  queries, keys [n, features].  Errors  ShapeError unless temperature > 0.
    """
    if not temperature > 0:
        fail(ShapeError, "info_nce_loss: temperature must be positive", got=repr(temperature))
    q, k = _vectors("info_nce_loss", queries, keys)
    if q.ndim != 2:
        fail(ShapeError, "info_nce_loss", expected="[n, features]", got=str(q.type))
    cosines = ops.matmul(_unit(q), ops.transpose(_unit(k)))
    return logitcrossentropy(cosines / temperature, ops.arange(q.shape[0]), agg)


def _unit(x: Tensor, eps: float = 1e-8) -> Tensor:
    """x [n, features] with rows of norm 1; rows of 0 stay 0."""
    return x / ops.maximum(ops.vector_norm(x, -1, keepdims=True), eps)
