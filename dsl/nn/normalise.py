"""Normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.dims import Size, largest, product
from fluxc.module import Module, Param, State
from fluxc.nn.checks import (
    checked_size,
    count,
    float_input,
    sizes_and_activation,
    with_activation,
)
from fluxc.nn.mode import Moded, checked_mode
from fluxc.ops.normalisation import widened
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import current, fail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm",
    "hasaffine",
]  # fmt: skip


class _ByExample(Module):
    """Normalisation of each example over its last axes, and a scale for each element there."""

    bias: Param | None = None

    def __init__(
        self,
        *size: Any,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        init_scale: Any = 1.0,
        affine: bool = True,
        eps: float = 1e-5,
    ) -> None:
        self.activation: Callable[[Tensor], Tensor]
        self.size, self.activation = sizes_and_activation(type(self).__name__, size, activation)
        self.eps = eps
        self.scale = Param(self.size, init=init_scale) if affine else None

    def _normalised(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        raise NotImplementedError

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x)
        y = self._normalised(widened(t), self._axes(t))
        if self.scale is not None:
            y = y * as_tensor(self.scale, y.dtype)
        if self.bias is not None:
            y = y + as_tensor(self.bias, y.dtype)
        return self.activation(as_tensor(y, t.dtype))

    def _axes(self, x: Tensor) -> tuple[int, ...]:
        """The last axes of x, which have these sizes, or a ShapeError."""
        expected = f"[..., {', '.join(map(str, self.size))}]"
        for i, s in enumerate(self.size):
            checked_size(self, x, i - len(self.size), s, expected)
        return tuple(range(-len(self.size), 0))

    def describe(self) -> str:
        call = f"{type(self).__name__}({', '.join(map(str, self.size))}"
        text = with_activation(call, self.activation)
        return text if self.scale is not None else f"{text[:-1]}, affine=False)"


class LayerNorm(_ByExample):
    """Normalisation of each example, over the last axes.

        y = activation(scale * (x - mean) / sqrt(var + eps) + bias), with the biased variance

    `LayerNorm(64)`, `LayerNorm(4, 5)`, `LayerNorm(64, fx.relu)`.
    Shapes  x [..., *size], scale and bias [*size]; affine=False: neither.
    init_scale and init_bias are first values: numbers, arrays or initialisers.
    Errors  ShapeError if the last axes of x are not `size`.
    """

    def __init__(
        self, *size: Any, init_bias: Any = 0.0, affine: bool = True, **options: Any
    ) -> None:
        super().__init__(*size, affine=affine, **options)
        self.bias = Param(self.size, init=init_bias) if affine else None

    def _normalised(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        return ops.normalise(x, axes, self.eps)


class RMSNorm(_ByExample):
    """Normalisation of each example's mean square, over the last axes.

        y = activation(scale * x / sqrt(mean(x * x) + eps))

    `RMSNorm(64)`, `RMSNorm(4, 5)`, `RMSNorm(64, fx.relu)`.
    Shapes  x [..., *size], scale [*size], which starts at init_scale; affine=False: none.
    PyTorch's RMSNorm, whose eps is by default that of the dtype.
    Errors  ShapeError if the last axes of x are not `size`.
    """

    def _normalised(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        return ops.rms_normalise(x, axes, self.eps)


class _ByChannel(Module):
    """A scale and a bias for each channel, axis 1, after a normalisation."""

    least_axes = 2

    def __init__(
        self,
        channels: int,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        init_bias: Any = 0.0,
        init_scale: Any = 1.0,
        affine: bool = True,
        eps: float = 1e-5,
    ) -> None:
        self.channels = count(f"{type(self).__name__}: channels", channels)
        self.activation, self.eps = activation, eps
        self.scale = Param(channels, init=init_scale) if affine else None
        self.bias = Param(channels, init=init_bias) if affine else None

    def _checked(self, x: TensorLike) -> Tensor:
        """The input, [batch, channels, *spatial]."""
        t = float_input(x)
        spatial = "size, " * (self.least_axes - 2) + "..."
        if t.ndim < self.least_axes or t.shape[1] != self.channels:
            fail(
                ShapeError,
                f"{self.describe()}: the input does not fit",
                expected=f"{t.type.dtype}[batch, {self.channels}, {spatial}]",
                got=str(t.type),
                hint="fx.moveaxis(x, -1, 1): channels are axis 1" if self._is_last(t) else "",
            )
        return t

    def _is_last(self, x: Tensor) -> bool:
        return x.ndim > 2 and x.shape[-1] == self.channels

    def _aligned(self, x: Any, like: Tensor) -> Tensor:
        """[channels] where axis 1 of the input stands, in its dtype."""
        return as_tensor(x, like.dtype).reshape((self.channels,) + (1,) * (like.ndim - 2))

    def _finished(self, x: Tensor, mean: Tensor, var: Tensor, dtype: Any) -> Tensor:
        """The affine step and the activation; mean and var broadcast with x."""
        factor = ops.rsqrt(var + self.eps)
        if self.scale is not None:
            factor = factor * self._aligned(self.scale, x)
        y = (x - mean) * factor
        if self.bias is not None:
            y = y + self._aligned(self.bias, x)
        return self.activation(as_tensor(y, dtype))

    def _arguments(self) -> str:
        return str(self.channels)

    def describe(self) -> str:
        call = f"{type(self).__name__}({self._arguments()}"
        options = "".join(f", {name}={value}" for name, value in self._options().items())
        return f"{with_activation(call, self.activation)[:-1]}{options})"

    def _options(self) -> dict[str, Any]:
        """Keywords that are not at their defaults."""
        return {} if self.scale is not None else {"affine": False}


class _Recording(_ByChannel, Moded):
    """A normalisation that may record statistics in training, for use in test."""

    def __init__(
        self,
        channels: int,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        init_bias: Any = 0.0,
        init_scale: Any = 1.0,
        affine: bool = True,
        track_stats: bool = True,
        active: bool | None = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__(
            channels,
            activation,
            init_bias=init_bias,
            init_scale=init_scale,
            affine=affine,
            eps=eps,
        )
        self.active, self.momentum = checked_mode(active), momentum
        self.mean = State(channels, init=0.0) if track_stats else None
        self.var = State(channels, init=1.0) if track_stats else None

    def _statistics_axes(self, x: Tensor) -> tuple[int, ...]:
        raise NotImplementedError

    def __call__(self, x: TensorLike) -> Tensor:
        t = self._checked(x)
        wide = widened(t)
        if self.mean is not None and self.var is not None and not self.trains():
            mean, var = self._aligned(self.mean, wide), self._aligned(self.var, wide)
        else:
            mean, var = self._measured(wide)
        return self._finished(wide, mean, var, t.dtype)

    def _measured(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the input, which are recorded in a training step."""
        axes = self._statistics_axes(x)
        n = product(x.shape[a] for a in axes)
        if self.trains() and n == 1:
            fail(
                ShapeError,
                f"{self.describe()}: one value a channel has no variance",
                got=str(x.type),
                expected="a larger batch in training, or more places",
            )
        mean = ops.mean(x, axes, keepdims=True)
        centred = x - mean
        var = ops.mean(centred * centred, axes, keepdims=True)
        if self.trains() and current().stateful:
            self._record(mean, var, n)
        return mean, var

    def _record(self, mean: Tensor, var: Tensor, n: Size) -> None:
        if self.mean is None or self.var is None:
            return
        unbiased = var * (as_tensor(n, var.dtype) / as_tensor(largest(n - 1, 1), var.dtype))
        for state, new in ((self.mean, mean), (self.var, unbiased)):
            each = ops.mean(ops.stop_gradient(new).reshape((-1, self.channels)), 0)
            state.assign(state * (1 - self.momentum) + each * self.momentum)


class BatchNorm(_Recording):
    """Normalisation of each channel, over the batch and all places.

        y = activation(scale * (x - mean) / sqrt(var + eps) + bias)

    Shapes    x [batch, channels] or [batch, channels, *spatial]; scale, bias, mean, var [channels].
    Training  takes mean and the biased variance from the batch, and records
              mean <- (1 - momentum) * mean + momentum * batch mean,
              var <- (1 - momentum) * var + momentum * batch variance * n / (n - 1),
              where n is the number of values of a channel.
    Test      takes the recorded mean and var; with track_stats=False, the batch's.
    affine    False: no scale and bias.  init_scale and init_bias are their first values.
    active    True: as in training in every entry; False: as in test; None: as the entry is.
    PyTorch's BatchNorm1d, 2d, 3d.
    Errors    ShapeError for another number of channels, or one value a channel in training.
    """

    def _statistics_axes(self, x: Tensor) -> tuple[int, ...]:
        return (0, *range(2, x.ndim))

    def _options(self) -> dict[str, Any]:
        return super()._options() | ({} if self.mean is not None else {"track_stats": False})


class InstanceNorm(_Recording):
    """Normalisation of each channel of each example, over all places.

        y = activation(scale * (x - mean) / sqrt(var + eps) + bias), with the biased variance

    By default without scale and bias, and the same in training and test.
    Shapes       x [batch, channels, *spatial], at least one spatial axis.
    affine       True: scale and bias [channels], which start at init_scale and init_bias.
    track_stats  True: training records the batch's mean of what it measures in each example,
                 as BatchNorm does, and test takes the record.
    active, eps and momentum as BatchNorm has them.
    PyTorch's InstanceNorm1d, 2d, 3d.
    Errors       ShapeError for another number of channels, no spatial axis, or one value a channel
                 in training.
    """

    least_axes = 3

    def __init__(
        self,
        channels: int,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        affine: bool = False,
        track_stats: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(channels, activation, affine=affine, track_stats=track_stats, **options)

    def _statistics_axes(self, x: Tensor) -> tuple[int, ...]:
        return tuple(range(2, x.ndim))

    def _options(self) -> dict[str, Any]:
        affine = {} if self.scale is None else {"affine": True}
        return affine | ({} if self.mean is None else {"track_stats": True})


class GroupNorm(_ByChannel):
    """Normalisation of each group of channels of each example, over all places.

        y = activation(scale * (x - mean) / sqrt(var + eps) + bias), with the biased variance

    `GroupNorm(channels, groups)`: groups of channels that follow one another.  It is the same in
    training and test.
    Shapes  x [batch, channels, ...], scale and bias [channels]; affine=False: neither.
    init_scale and init_bias are first values.  PyTorch's GroupNorm, with the arguments exchanged.
    Errors  ShapeError for another number of channels, or if `groups` does not divide it.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        init_bias: Any = 0.0,
        init_scale: Any = 1.0,
        affine: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(
            channels,
            activation,
            init_bias=init_bias,
            init_scale=init_scale,
            affine=affine,
            eps=eps,
        )
        self.groups = count("GroupNorm: groups", groups)
        if self.channels % self.groups:
            fail(
                ShapeError,
                "GroupNorm: groups must divide channels",
                got=f"{self.channels} by {self.groups}",
            )

    def __call__(self, x: TensorLike) -> Tensor:
        t = self._checked(x)
        wide = widened(t)
        n, spatial = t.shape[0], t.shape[2:]
        apart = wide.reshape((n, self.groups, self.channels // self.groups, *spatial))
        axes = tuple(range(2, apart.ndim))
        mean = ops.mean(apart, axes, keepdims=True)
        centred = apart - mean
        factor = ops.rsqrt(ops.mean(centred * centred, axes, keepdims=True) + self.eps)
        y = (centred * factor).reshape(t.shape)
        if self.scale is not None:
            y = y * self._aligned(self.scale, y) + self._aligned(self.bias, y)
        return self.activation(as_tensor(y, t.dtype))

    def _arguments(self) -> str:
        return f"{self.channels}, {self.groups}"


class LocalResponseNorm(Module):
    """Each channel divided by what its neighbours hold, at every place for itself.

        x[c] / (k + alpha / size * sum(x[i]**2 for i in c - size // 2 .. c + (size - 1) // 2))**beta

    Neighbours that do not exist count as 0.
    Shapes  x [batch, channels, ...] -> the same.  PyTorch's LocalResponseNorm.
    Errors  ShapeError for less than two axes.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size = count("LocalResponseNorm: size", size)
        self.alpha, self.beta, self.k = alpha, beta, k

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.local_response_norm(float_input(x), self.size, self.alpha, self.beta, self.k)

    def describe(self) -> str:
        return f"LocalResponseNorm({self.size})"


def hasaffine(layer: Any) -> bool:
    """Whether a normalising layer has parameters: False of any other layer."""
    return isinstance(layer, _ByChannel | _ByExample) and layer.scale is not None
