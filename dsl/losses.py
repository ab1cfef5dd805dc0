"""Losses: `loss(prediction, target, agg=fx.mean)`.

`agg` is any reduction; `fx.identity` gives the losses one by one.  Targets have the prediction's
shape, or are scalars.  Losses of classes take integer labels as well as one-hot targets; labels
must be in 0 .. classes - 1, which a compiled entry checks where they are its inputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fluxc import ops
from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.ops.elementwise import as_float
from fluxc.ops.layout import normal_axis
from fluxc.ops.reduce import shift_of
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.types import DType

__all__ = [
    "binary_focal_loss", "binarycrossentropy", "crossentropy", "dice_coeff_loss", "focal_loss",
    "hinge_loss", "huber_loss", "kldivergence", "label_smoothing", "logitbinarycrossentropy",
    "logitcrossentropy", "mae", "mse", "msle", "poisson_loss", "siamese_contrastive_loss",
    "squared_hinge_loss", "tversky_loss", "xlogx", "xlogy",
]  # fmt: skip

Aggregate: TypeAlias = "Callable[[Tensor], Tensor]"

_EPS = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}


def _epsilon(dtype: DType, eps: float | None) -> float:
    return _EPS[dtype.name] if eps is None else eps


def _pair(name: str, prediction: TensorLike, target: TensorLike) -> tuple[Tensor, Tensor]:
    """Prediction and target in the prediction's dtype and one shape."""
    y = as_float(prediction)
    t = as_tensor(target)
    if t.shape not in (y.shape, ()):
        fail(
            ShapeError,
            f"{name}: prediction and target differ in shape",
            expected=str(y.type),
            got=str(t.type),
        )
    return y, as_tensor(t, y.dtype)


def mae(prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean) -> Tensor:
    """agg(abs(prediction - target)).  PyTorch's L1Loss."""
    y, t = _pair("mae", prediction, target)
    return agg(ops.abs(y - t))


def mse(prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean) -> Tensor:
    """agg((prediction - target)**2)."""
    y, t = _pair("mse", prediction, target)
    return agg(ops.square(y - t))


def msle(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    eps: float | None = None,
) -> Tensor:
    """agg(log((prediction + eps) / (target + eps))**2)."""
    y, t = _pair("msle", prediction, target)
    e = _epsilon(y.type.dtype, eps)
    return agg(ops.square(ops.log((y + e) / (t + e))))


def huber_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    delta: float = 1.0,
) -> Tensor:
    """agg(e**2/2 where e < delta, delta*(e - delta/2) elsewhere), e = abs(prediction - target)."""
    y, t = _pair("huber_loss", prediction, target)
    e = ops.abs(y - t)
    return agg(ops.where(e < delta, 0.5 * e * e, delta * (e - 0.5 * delta)))


# Classes.


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
    e = _epsilon(y.type.dtype, eps)
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
    y, t = _pair("kldivergence", prediction, target)
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
    p = y + _epsilon(y.type.dtype, eps)
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


# Binary.


def binarycrossentropy(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    eps: float | None = None,
) -> Tensor:
    """agg(-target*log(p + eps) - (1 - target)*log(1 - p + eps)) of probabilities p."""
    y, t = _pair("binarycrossentropy", prediction, target)
    e = _epsilon(y.type.dtype, eps)
    return agg(-xlogy(t, y + e) - xlogy(1 - t, 1 - y + e))


def logitbinarycrossentropy(
    prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean
) -> Tensor:
    """agg((1 - target)*x - logsigmoid(x)) of logits x.  PyTorch's BCEWithLogitsLoss."""
    y, t = _pair("logitbinarycrossentropy", prediction, target)
    return agg((1 - t) * y - ops.logsigmoid(y))


def binary_focal_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    gamma: float = 2.0,
    eps: float | None = None,
) -> Tensor:
    """agg(-(1 - p)**gamma * log(p)), p the probability given to the target, + eps."""
    y, t = _pair("binary_focal_loss", prediction, target)
    q = y + _epsilon(y.type.dtype, eps)
    p = t * q + (1 - t) * (1 - q)
    return agg(-((1 - p) ** gamma) * ops.log(p))


def hinge_loss(prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean) -> Tensor:
    """agg(max(0, 1 - prediction*target)), target -1 or 1."""
    y, t = _pair("hinge_loss", prediction, target)
    return agg(ops.relu(1 - y * t))


def squared_hinge_loss(
    prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean
) -> Tensor:
    """agg(max(0, 1 - prediction*target)**2), target -1 or 1."""
    y, t = _pair("squared_hinge_loss", prediction, target)
    return agg(ops.square(ops.relu(1 - y * t)))


# Others.


def poisson_loss(prediction: TensorLike, target: TensorLike, agg: Aggregate = ops.mean) -> Tensor:
    """agg(prediction - target*log(prediction))."""
    y, t = _pair("poisson_loss", prediction, target)
    return agg(y - xlogy(t, y))


def dice_coeff_loss(prediction: TensorLike, target: TensorLike, smooth: float = 1.0) -> Tensor:
    """1 - (2*sum(p*t) + smooth) / (sum(t**2) + sum(p**2) + smooth) over all elements."""
    y, t = _pair("dice_coeff_loss", prediction, target)
    overlap = 2 * ops.sum(y * t) + smooth
    return 1 - overlap / (ops.sum(ops.square(t)) + ops.sum(ops.square(y)) + smooth)


def tversky_loss(prediction: TensorLike, target: TensorLike, beta: float = 0.7) -> Tensor:
    """1 - (sum(p*t) + 1) / (sum(p*t + beta*(1 - t)*p + (1 - beta)*t*(1 - p)) + 1)."""
    y, t = _pair("tversky_loss", prediction, target)
    overlap = y * t
    whole = overlap + beta * (1 - t) * y + (1 - beta) * t * (1 - y)
    return 1 - (ops.sum(overlap) + 1) / (ops.sum(whole) + 1)


def siamese_contrastive_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    margin: float = 1.0,
) -> Tensor:
    """agg((1 - target)*d**2 + target*max(0, margin - d)**2) of distances d."""
    if margin < 0:
        fail(ShapeError, "siamese_contrastive_loss: margin must not be negative", got=repr(margin))
    y, t = _pair("siamese_contrastive_loss", prediction, target)
    return agg((1 - t) * ops.square(y) + t * ops.square(ops.relu(margin - y)))


def xlogx(x: TensorLike) -> Tensor:
    """x*log(x), 0 at 0."""
    x = as_float(x)
    zero = x == 0
    return ops.where(zero, 0.0, x * ops.log(ops.where(zero, 1.0, x)))


def xlogy(x: TensorLike, y: TensorLike) -> Tensor:
    """x*log(y), 0 where x is 0, also for y = 0."""
    x, y = as_float(x), as_float(y)
    zero = x == 0
    return ops.where(zero, 0.0, x * ops.log(ops.where(zero, 1.0, y)))
