"""Normalisation and dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.dims import Size, largest, product
from fluxc.module import Module, Param, State
from fluxc.nn.checks import checked_size, count, float_input, with_activation
from fluxc.ops import random
from fluxc.ops.layout import normal_axes
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail, training

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BatchNorm", "Dropout", "LayerNorm"]


class Dropout(Module):
    """In training each element is 0 with probability p, and the others are divided by 1 - p.

    In test mode it is the identity.
    dims    axes along which elements drop independently; along the others they drop together.
    Errors  ShapeError unless 0 <= p <= 1.
    """

    def __init__(self, p: float, *, dims: Any = None) -> None:
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
            fail(ShapeError, "Dropout: p must be a number in 0 .. 1", got=repr(p))
        self.p, self.dims = float(p), dims

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x)
        if not training() or self.p == 0:
            return t
        if self.p == 1:
            return ops.zeros_like(t)
        kept = random.uniform(self._mask_shape(t)) >= self.p
        return ops.where(kept, t * (1 / (1 - self.p)), 0.0)

    def _mask_shape(self, x: Tensor) -> tuple[Size, ...]:
        if self.dims is None:
            return x.shape
        free = normal_axes(self.dims, x.ndim)
        return tuple(s if i in free else 1 for i, s in enumerate(x.shape))

    def describe(self) -> str:
        dims = "" if self.dims is None else f", dims={self.dims}"
        return f"Dropout({self.p:g}{dims})"


class LayerNorm(Module):
    """activation(scale * (x - mean) / sqrt(var + eps) + bias) over the last len(size) axes.

    `LayerNorm(64)`, `LayerNorm(4, 5)`, `LayerNorm(64, fx.relu)`.
    Shapes  x [..., *size], scale and bias [*size]; affine=False: neither.
    """

    def __init__(
        self,
        *size: Any,
        affine: bool = True,
        eps: float = 1e-5,
        activation: Callable[[Tensor], Tensor] = ops.identity,
    ) -> None:
        *sizes, last = size or (None,)
        if callable(last):
            activation = last
        else:
            sizes.append(last)
        if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
            sizes = list(sizes[0])
        self.size = tuple(count("LayerNorm: size", s) for s in sizes)
        if not self.size:
            fail(ShapeError, "LayerNorm needs at least one size")
        self.eps, self.activation = eps, activation
        self.scale = Param(self.size, init=1.0) if affine else None
        self.bias = Param(self.size, init=0.0) if affine else None

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x)
        expected = f"[..., {', '.join(map(str, self.size))}]"
        for i, s in enumerate(self.size):
            checked_size(self, t, i - len(self.size), s, expected)
        axes = tuple(range(-len(self.size), 0))
        y = normalise(t, axes, self.eps)
        if self.scale is not None:
            y = y * as_tensor(self.scale, t.dtype) + as_tensor(self.bias, t.dtype)
        return self.activation(y)

    def describe(self) -> str:
        text = with_activation(f"LayerNorm({', '.join(map(str, self.size))}", self.activation)
        return text if self.scale is not None else f"{text[:-1]}, affine=False)"


def normalise(x: Tensor, axis: Any, eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) over axes, with the biased variance, in f32 at least."""
    wide = as_tensor(x, "f32") if x.type.dtype.bits == 16 else x
    centred = wide - ops.mean(wide, axis, keepdims=True)
    var = ops.mean(centred * centred, axis, keepdims=True)
    return as_tensor(centred * ops.rsqrt(var + eps), x.dtype)


class BatchNorm(Module):
    """activation(scale * (x - mean) / sqrt(var + eps) + bias), channel by channel.

    Shapes    x [batch, channels] or [batch, channels, *spatial]; scale, bias, mean, var [channels].
    Training  takes mean and the biased variance from the batch, and records
              mean <- (1 - momentum) * mean + momentum * batch mean,
              var <- (1 - momentum) * var + momentum * batch variance * n / (n - 1),
              where n is the number of values of a channel.
    Test      takes the recorded mean and var; with track_stats=False, the batch's.
    Errors    ShapeError for another number of channels, or one value a channel in training.
    """

    def __init__(
        self,
        channels: int,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        affine: bool = True,
        track_stats: bool = True,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        self.channels = count("BatchNorm: channels", channels)
        self.activation, self.eps, self.momentum = activation, eps, momentum
        self.scale = Param(channels, init=1.0) if affine else None
        self.bias = Param(channels, init=0.0) if affine else None
        self.mean = State(channels, init=0.0) if track_stats else None
        self.var = State(channels, init=1.0) if track_stats else None

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x)
        if t.ndim < 2:
            fail(
                ShapeError,
                f"{self.describe()}: the input does not fit",
                expected=f"[batch, {self.channels}] or [batch, {self.channels}, *spatial]",
                got=str(t.type),
            )
        checked_size(self, t, 1, self.channels, f"[batch, {self.channels}, ...]")
        wide = as_tensor(t, "f32") if t.type.dtype.bits == 16 else t
        if training() or self.mean is None:
            mean, var = self._batch_statistics(wide)
        else:
            mean, var = as_tensor(self.mean, wide.dtype), as_tensor(self.var, wide.dtype)
        factor = ops.rsqrt(var + self.eps)
        if self.scale is not None:
            factor = factor * as_tensor(self.scale, wide.dtype)
        y = (wide - self._aligned(mean, t)) * self._aligned(factor, t)
        if self.bias is not None:
            y = y + self._aligned(as_tensor(self.bias, wide.dtype), t)
        return self.activation(as_tensor(y, t.dtype))

    def _aligned(self, x: Tensor, like: Tensor) -> Tensor:
        """[channels] where axis 1 of the input stands."""
        return x.reshape((self.channels,) + (1,) * (like.ndim - 2))

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        axes = (0, *range(2, x.ndim))
        n = product(x.shape[a] for a in axes)
        if n == 1 and training():
            fail(
                ShapeError,
                f"{self.describe()}: one value a channel has no variance",
                got=str(x.type),
                expected="a larger batch in training",
            )
        mean = ops.mean(x, axes)
        centred = x - self._aligned(mean, x)
        var = ops.mean(centred * centred, axes)
        if training() and self.mean is not None and self.var is not None:
            keep, fresh = 1 - self.momentum, self.momentum
            unbiased = var * (as_tensor(n, x.dtype) / as_tensor(largest(n - 1, 1), x.dtype))
            self.mean.assign(self.mean * keep + ops.stop_gradient(mean) * fresh)
            self.var.assign(self.var * keep + ops.stop_gradient(unbiased) * fresh)
        return mean, var

    def describe(self) -> str:
        extra = "" if self.scale is not None else ", affine=False"
        extra += "" if self.mean is not None else ", track_stats=False"
        return f"{with_activation(f'BatchNorm({self.channels}', self.activation)[:-1]}{extra})"
