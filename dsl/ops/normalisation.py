"""Tensors brought to a mean of 0 and a variance of 1, and their kin.

16-bit floats are computed in f32 and rounded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import product
from fluxc.ops.elementwise import as_float, power, rsqrt
from fluxc.ops.pooling import meanpool
from fluxc.ops.reduce import mean
from fluxc.tensor import cast
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.tensor import Tensor, TensorLike

__all__ = ["local_response_norm", "normalise", "rms_normalise"]


def widened(x: Tensor) -> Tensor:
    """x in f32 at least."""
    return cast(x, ir.f32) if x.type.dtype.bits == 16 else x


def normalise(x: TensorLike, axis: Any = 0, eps: float = 1e-5) -> Tensor:
    """Mean 0 and variance 1 over axes.

        (x - mean(x)) / sqrt(var(x) + eps), with the biased variance

    axis  one, several, or None for all; by default the first, the batch: each feature for itself.
    Flux's `normalise`, whose `dims` are by default the last, its batch.
    """
    t = as_float(x)
    wide = widened(t)
    centred = wide - mean(wide, axis, keepdims=True)
    var = mean(centred * centred, axis, keepdims=True)
    return cast(centred * rsqrt(var + eps), t.type.dtype)


def rms_normalise(x: TensorLike, axis: Any = -1, eps: float = 1e-5) -> Tensor:
    """Mean square 1 over axes; the mean stays.

    x / sqrt(mean(x * x) + eps)
    """
    t = as_float(x)
    wide = widened(t)
    return cast(wide * rsqrt(mean(wide * wide, axis, keepdims=True) + eps), t.type.dtype)


def local_response_norm(
    x: TensorLike, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Each channel divided by what its neighbours hold, at every place for itself.

        x[c] / (k + alpha / size * sum(x[i]**2 for i in c - size // 2 .. c + (size - 1) // 2))**beta

    Neighbours that do not exist count as 0.
    Shapes  x [batch, channels, ...] -> the same.  PyTorch's function of this name.
    Errors  ShapeError for less than two axes.
    """
    t = as_float(x)
    if t.ndim < 2:
        fail(ShapeError, "local_response_norm takes [batch, channels, ...]", got=str(t.type))
    wide = widened(t)
    n, channels, *rest = t.shape
    squares = (wide * wide).reshape((n, 1, channels, product(rest)))
    around = meanpool(squares, (size, 1), 1, (size // 2, (size - 1) // 2, 0, 0))
    divisor = power(around.reshape(t.shape) * alpha + k, beta)
    return cast(wide / divisor, t.type.dtype)
