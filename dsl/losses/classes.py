"""Losses of classes.

Predictions have the classes along `axis`; targets are one-hot or probabilities of the same shape,
or integer labels without that axis.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fluxc import ops
from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.losses.terms import Aggregate, epsilon, pair, weighted, xlogx, xlogy
from fluxc.ops.activation import shifted
from fluxc.ops.elementwise import as_float
from fluxc.ops.layout import normal_axis
from fluxc.ops.reduce import shift_of
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

__all__ = [
    "crossentropy", "focal_loss", "kldivergence", "label_smoothing", "logitcrossentropy",
    "nll_loss",
]  # fmt: skip


class _Labels(NamedTuple):
    """Integer labels: places in 0 .. classes - 1, and where they stand for a loss at all.

    A label that is neither a class nor ignored is no class's: its loss is NaN.
    """

    at: Tensor
    counts: Tensor | None
    valid: Tensor | None


class _Target(NamedTuple):
    """Prediction with its classes last, and what it is measured against: labels or shares."""

    prediction: Tensor
    labels: _Labels | None
    shares: Tensor | None


def _target(
    name: str, y: Tensor, target: TensorLike, axis: int, ignore_index: int | None = None
) -> _Target:
    t = as_tensor(target)
    a = normal_axis(axis, y.ndim)
    last = ops.moveaxis(y, a, -1)
    if t.shape == y.shape:
        if ignore_index is not None:
            fail(ShapeError, f"{name}: ignore_index= is for integer labels", got=str(t.type))
        return _Target(last, None, ops.moveaxis(as_tensor(t, y.dtype), a, -1))
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
    return _Target(last, _labels(t, last.shape[-1], ignore_index), None)


def _labels(t: Tensor, classes: Any, ignore_index: int | None) -> _Labels:
    if ignore_index is None:
        return _Labels(t, None, None)
    counts = t != ignore_index
    known = ops.logical_and(t >= 0, t < as_tensor(classes, t.dtype))
    return _Labels(ops.where(known, t, 0), counts, ops.logical_or(known, ~counts))


def _class_weights(name: str, weight: TensorLike | None, y: Tensor) -> Tensor | None:
    """One weight for each class, in the prediction's dtype."""
    if weight is None:
        return None
    w = as_tensor(weight, y.dtype)
    if w.shape != y.shape[-1:]:
        expected = f"[{y.shape[-1]}], one weight for each class"
        fail(ShapeError, f"{name}: weight does not fit", expected=expected, got=str(w.type))
    return w


def _of_logs(
    name: str,
    x: Tensor,
    norm: Tensor | None,
    target: _Target,
    agg: Aggregate,
    *,
    weight: TensorLike | None,
    smoothing: float = 0.0,
) -> Tensor:
    """The cross entropy, where x - norm are the logarithms of probabilities.

    Shapes  x [..., classes], norm [...] or None for 0: of labels alone no more is computed.
    """
    if not 0 <= smoothing < 1:
        fail(ShapeError, f"{name}: label_smoothing must be in 0 .. 1", got=repr(smoothing))
    w = _class_weights(name, weight, x)
    share = smoothing / as_tensor(x.shape[-1], x.dtype)
    if target.labels is None:
        assert target.shares is not None
        shares = target.shares * (1 - smoothing) + share if smoothing else target.shares
        return agg(-ops.sum(_scaled(_product(shares, _less(x, norm)), w), -1))
    at, counts, valid = target.labels
    picked = ops.pick(x, at)
    losses = -picked if norm is None else norm - picked
    own = None if w is None else ops.take(w, at)
    losses = _scaled(losses, own)
    if smoothing:
        others = ops.sum(_scaled(_less(x, norm), w), -1)
        losses = losses * (1 - smoothing) - share * others
    if valid is not None:
        losses = ops.where(valid, losses, float("nan"))
    if counts is not None:
        losses = ops.where(counts, losses, 0.0)
        own = ops.where(counts, 1.0 if own is None else own, 0.0).astype(x.dtype)
    return agg(losses) if own is None else weighted(agg, losses, own)


def _less(x: Tensor, norm: Tensor | None) -> Tensor:
    return x if norm is None else x - ops.expand_dims(norm, -1)


def _scaled(x: Tensor, w: Tensor | None) -> Tensor:
    return x if w is None else x * w


def _product(shares: Tensor, logs: Tensor) -> Tensor:
    """shares * logs, 0 where the share is 0 even if the probability is too."""
    zero = shares == 0
    return ops.where(zero, 0.0, shares * ops.where(zero, 0.0, logs))


def crossentropy(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    axis: int = -1,
    eps: float | None = None,
    *,
    weight: TensorLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """agg(-sum(target * log(prediction + eps), axis)) of class probabilities.

    Shapes  prediction [..., classes]; target the same, or integer labels [...].
    eps     by default the prediction's dtype's: 2**-23 for f32.
    The other arguments are `logitcrossentropy`'s.
    """
    y = as_float(prediction)
    e = epsilon(y.type.dtype, eps)
    t = _target("crossentropy", y, target, axis, ignore_index)
    logs = ops.log(t.prediction + e)
    return _of_logs("crossentropy", logs, None, t, agg, weight=weight, smoothing=label_smoothing)


def logitcrossentropy(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    axis: int = -1,
    *,
    weight: TensorLike | None = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """agg(-sum(target * logsoftmax(prediction), axis)).  PyTorch's CrossEntropyLoss.

    Shapes           prediction [..., classes]; target the same, or integer labels [...].
    weight           [classes]: what a loss of each class counts.  With labels, `agg=fx.mean` is
                     the weighted mean, sum(weight * loss) / sum(weight); with shares it is not.
    ignore_index     a label whose losses are 0 and count for nothing in the mean; if nothing
                     counts, the mean is 0 (PyTorch: NaN).  Another label outside of
                     0 .. classes - 1 then makes the loss NaN.
    label_smoothing  s: the target becomes target*(1 - s) + s/classes.
    Errors           ShapeError where the target or the weight does not fit.
    """
    t = _target("logitcrossentropy", as_float(prediction), target, axis, ignore_index)
    z = shifted(t.prediction, shift_of(t.prediction, -1))
    norm = ops.log(ops.sum(ops.exp(z), -1))
    return _of_logs("logitcrossentropy", z, norm, t, agg, weight=weight, smoothing=label_smoothing)


def nll_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    axis: int = -1,
    *,
    weight: TensorLike | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """agg(-prediction[label]) of logarithms of probabilities, such as logsoftmax gives.

    PyTorch's NLLLoss.  Shapes and arguments as `logitcrossentropy` has them.
    """
    t = _target("nll_loss", as_float(prediction), target, axis, ignore_index)
    return _of_logs("nll_loss", t.prediction, None, t, agg, weight=weight)


def kldivergence(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    axis: int = -1,
    eps: float | None = None,
) -> Tensor:
    """agg(sum(target * log(target), axis)) + crossentropy(prediction, target).

    Of probabilities, both of one shape.  PyTorch's KLDivLoss takes the prediction's logarithm.
    """
    y, t = pair("kldivergence", prediction, target)
    t = ops.broadcast_to(t, y.shape)
    e = epsilon(y.type.dtype, eps)
    return agg(ops.sum(xlogx(t), axis)) + agg(-ops.sum(xlogy(t, y + e), axis))


def focal_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    axis: int = -1,
    gamma: float = 2.0,
    eps: float | None = None,
) -> Tensor:
    """agg(sum(-target * (1 - p)**gamma * log(p), axis)), p = prediction + eps.

    Shapes  prediction [..., classes] of probabilities; target the same, or integer labels [...].
    """
    y = as_float(prediction)
    t = _target("focal_loss", y, target, axis)
    p = t.prediction + epsilon(y.type.dtype, eps)
    if t.labels is not None:
        p = ops.pick(p, t.labels.at)
        return agg(-((1 - p) ** gamma) * ops.log(p))
    assert t.shares is not None
    return agg(ops.sum(-t.shares * (1 - p) ** gamma * ops.log(p), -1))


def label_smoothing(target: TensorLike, alpha: float, axis: int | None = -1) -> Tensor:
    """target*(1 - alpha) + alpha/classes; with axis=None, of binary targets, + alpha/2.

    Errors  ShapeError unless 0 < alpha < 1.
    """
    if not 0 < alpha < 1:
        fail(ShapeError, "label_smoothing: alpha must be in 0 .. 1", got=repr(alpha))
    t = as_float(target)
    classes = 2 if axis is None else t.shape[normal_axis(axis, t.ndim)]
    return t * (1 - alpha) + alpha / as_tensor(classes, t.dtype)
