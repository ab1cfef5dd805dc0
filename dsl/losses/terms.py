"""What losses have in common: how a target is fitted to its prediction, and safe logarithms."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.ops.elementwise import as_float
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.types import DType

__all__ = ["Aggregate", "epsilon", "pair", "weighted", "xlogx", "xlogy"]

Aggregate: TypeAlias = "Callable[[Tensor], Tensor]"

_EPS = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}


def epsilon(dtype: DType, eps: float | None) -> float:
    return _EPS[dtype.name] if eps is None else eps


def pair(name: str, prediction: TensorLike, target: TensorLike) -> tuple[Tensor, Tensor]:
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


def weighted(agg: Aggregate, losses: Tensor, weights: Tensor) -> Tensor:
    """agg of losses that are multiplied by weights: a mean divides by the sum of the weights.

    Where that sum is 0 the mean is 0.
    """
    if agg is not ops.mean:
        return agg(losses)
    total = ops.sum(weights)
    return ops.sum(losses) / ops.where(total == 0, 1.0, total)


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
