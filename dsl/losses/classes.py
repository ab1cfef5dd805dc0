"""Losses of classes."""

from __future__ import annotations

from fluxc import ops
from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.losses.terms import Aggregate, epsilon, pair, xlogx, xlogy
from fluxc.ops.elementwise import as_float
from fluxc.ops.layout import normal_axis
from fluxc.ops.reduce import shift_of
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

__all__ = ["crossentropy", "focal_loss", "kldivergence", "label_smoothing", "logitcrossentropy"]


def _classes_last(
    name: str, y: Tensor, target: TensorLike, axis: int
) -> tuple[Tensor, Tensor, bool]:
    """Prediction and target with the classes last, and whether the target is integer labels."""
    t = as_tensor(target)
    a = normal_axis(axis, y.ndim)
    last = ops.moveaxis(y, a, -1)
    if t.shape == y.shape:
        return last, ops.moveaxis(as_tensor(t, y.dtype), a, -1), False
    if t.shape != last.shape[:-1]:
        fail(
            ShapeError,
            f"{name}: the target does not fit the prediction {y.type}",
            expected=f"i32[{', '.join(map(str, last.shape[:-1]))}] of labels, or {y.type}",
            got=str(t.type),
        )
    if not t.type.dtype.is_integer:
        fail(
            DTypeError,
            f"{name}: labels must be integers",
            expected=f"i32[{', '.join(map(str, t.shape))}]",
            got=str(t.type),
        )
    return last, t, True


def crossentropy(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    axis: int = -1,
    eps: float | None = None,
) -> Tensor:
    """agg(-sum(target * log(prediction + eps), axis)) of class probabilities.

    Shapes  prediction [..., classes]; target the same, or integer labels [...].
    """
    y = as_float(prediction)
    e = epsilon(y.type.dtype, eps)
    y, t, labels = _classes_last("crossentropy", y, target, axis)
    if labels:
        return agg(-ops.log(ops.pick(y, t) + e))
    return agg(-ops.sum(xlogy(t, y + e), -1))


def logitcrossentropy(
    prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean, axis: int = -1
) -> Tensor:
    """agg(-sum(target * logsoftmax(prediction), axis)).  PyTorch's CrossEntropyLoss.

    Shapes  prediction [..., classes]; target the same, or integer labels [...].
    """
    y, t, labels = _classes_last("logitcrossentropy", as_float(prediction), target, axis)
    if labels:
        z = y - shift_of(y, -1)
        return agg(ops.log(ops.sum(ops.exp(z), -1)) - ops.pick(z, t))
    return agg(-ops.sum(t * ops.logsoftmax(y, -1), -1))


def kldivergence(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    axis: int = -1,
    eps: float | None = None,
) -> Tensor:
    """agg(sum(target * log(target), axis)) + crossentropy(prediction, target)."""
    y, t = pair("kldivergence", prediction, target)
    return agg(ops.sum(xlogx(t), axis)) + crossentropy(y, t, agg, axis, eps)


def focal_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    axis: int = -1,
    gamma: float = 2.0,
    eps: float | None = None,
) -> Tensor:
    """agg(sum(-target * (1 - p)**gamma * log(p), axis)), p = prediction + eps."""
    y, t, labels = _classes_last("focal_loss", as_float(prediction), target, axis)
    p = y + epsilon(y.type.dtype, eps)
    if labels:
        p = ops.pick(p, t)
        return agg(-((1 - p) ** gamma) * ops.log(p))
    return agg(ops.sum(-t * (1 - p) ** gamma * ops.log(p), -1))


def label_smoothing(target: TensorLike, alpha: float, axis: int | None = -1) -> Tensor:
    """target*(1 - alpha) + alpha/classes; with axis=None, of binary targets, + alpha/2."""
    if not 0 < alpha < 1:
        fail(ShapeError, "label_smoothing: alpha must be in 0 .. 1", got=repr(alpha))
    t = as_float(target)
    classes = 2 if axis is None else t.shape[normal_axis(axis, t.ndim)]
    return t * (1 - alpha) + alpha / as_tensor(classes, t.dtype)
