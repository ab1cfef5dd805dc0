"""Initialisers: functions of a NumPy generator and a shape.  All give f32.

`init=fx.init.glorot_uniform` uses one as it is; `init=fx.init.glorot_uniform(gain=2)` with other
keywords.  A fan is the number of inputs or outputs of one unit: of a weight [out, in, *kernel],
fan_in = in * prod(kernel), fan_out = out * prod(kernel).
"""

from __future__ import annotations

import functools
import inspect
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fluxc.compiler.errors import TraceError
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "glorot_normal", "glorot_uniform", "identity_init", "kaiming_normal", "kaiming_uniform",
    "lecun_normal", "nfan", "ones", "ones32", "orthogonal", "rand", "rand32", "randn", "randn32",
    "sparse_init", "truncated_normal", "zeros", "zeros32",
]  # fmt: skip

Shape: TypeAlias = tuple[int, ...]


def nfan(shape: Shape) -> tuple[int, int]:
    """fan_in and fan_out of a weight [out, in, *kernel]; (1, n) of a vector of n."""
    if len(shape) < 2:
        return 1, shape[0] if shape else 1
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def initialiser(f: Callable[..., np.ndarray]) -> Callable[..., Any]:
    """`f(rng, shape)` applies it; `f(keyword=...)` gives an initialiser with that keyword."""
    known = list(inspect.signature(f).parameters)[2:]

    @functools.wraps(f)
    def init(*args: Any, **options: Any) -> Any:
        unknown = [name for name in options if name not in known]
        if unknown:
            fail(
                TraceError,
                f"{f.__name__} has no option {unknown[0]!r}",
                expected=", ".join(known) or "no option",
            )
        if not args:
            # A wrong keyword fails where it stands, not when the weights are written.
            inspect.signature(f).bind_partial(None, None, **options)
            return functools.partial(init, **options)
        rng, shape = args
        return np.asarray(f(rng, tuple(shape), **options), np.float32).reshape(shape)

    return init


@initialiser
def zeros(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """0 everywhere."""
    del rng
    return np.zeros(shape)


@initialiser
def ones(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """1 everywhere."""
    del rng
    return np.ones(shape)


@initialiser
def rand(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Uniform on [0, 1)."""
    return rng.random(shape, np.float32)


@initialiser
def randn(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Normal, mean 0, standard deviation 1."""
    return rng.standard_normal(shape)


# Flux's names: all initialisers give f32.
ones32, zeros32, rand32, randn32 = ones, zeros, rand, randn


@initialiser
def glorot_uniform(rng: np.random.Generator, shape: Shape, *, gain: float = 1.0) -> np.ndarray:
    """Uniform on (-b, b), b = gain * sqrt(6 / (fan_in + fan_out)); also called Xavier's."""
    bound = gain * math.sqrt(6 / sum(nfan(shape)))
    return rng.uniform(-bound, bound, shape)


@initialiser
def glorot_normal(rng: np.random.Generator, shape: Shape, *, gain: float = 1.0) -> np.ndarray:
    """Normal with standard deviation gain * sqrt(2 / (fan_in + fan_out))."""
    return rng.standard_normal(shape) * (gain * math.sqrt(2 / sum(nfan(shape))))


@initialiser
def kaiming_uniform(
    rng: np.random.Generator, shape: Shape, *, gain: float = math.sqrt(2)
) -> np.ndarray:
    """Uniform on (-b, b), b = gain * sqrt(3 / fan_in); also called He's."""
    bound = gain * math.sqrt(3 / nfan(shape)[0])
    return rng.uniform(-bound, bound, shape)


@initialiser
def kaiming_normal(
    rng: np.random.Generator, shape: Shape, *, gain: float = math.sqrt(2)
) -> np.ndarray:
    """Normal with standard deviation gain / sqrt(fan_in)."""
    return rng.standard_normal(shape) * (gain / math.sqrt(nfan(shape)[0]))


@initialiser
def truncated_normal(
    rng: np.random.Generator,
    shape: Shape,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    lo: float = -2.0,
    hi: float = 2.0,
) -> np.ndarray:
    """Normal, confined to [lo, hi] by the inverse of its distribution function."""
    from statistics import NormalDist  # a slow import, seldom needed

    normal = NormalDist(mean, std)
    low, high = normal.cdf(lo), normal.cdf(hi)
    tiny = 1e-12
    at = np.clip(rng.uniform(low, high, shape), tiny, 1 - tiny)
    drawn = np.fromiter((normal.inv_cdf(p) for p in at.ravel()), np.float64, at.size)
    return np.clip(drawn, lo, hi).reshape(shape)


@initialiser
def lecun_normal(rng: np.random.Generator, shape: Shape, *, gain: float = 1.0) -> np.ndarray:
    """Truncated normal with standard deviation gain / sqrt(fan_in), confined to [-2, 2]."""
    x: np.ndarray = truncated_normal(rng, shape, std=gain / math.sqrt(nfan(shape)[0]))
    return x


@initialiser
def orthogonal(rng: np.random.Generator, shape: Shape, *, gain: float = 1.0) -> np.ndarray:
    """Orthonormal rows or columns, whichever are fewer; axes after the first count as columns.

    Errors  ValueError for less than two axes.
    """
    if len(shape) < 2:
        raise ValueError(f"orthogonal needs at least two axes, got shape {shape}")
    rows, columns = shape[0], math.prod(shape[1:])
    normal = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(normal)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return gain * (q if rows >= columns else q.T).reshape(shape)


@initialiser
def sparse_init(
    rng: np.random.Generator, shape: Shape, *, sparsity: float, std: float = 0.01
) -> np.ndarray:
    """Normal with standard deviation std; for each input a share `sparsity` of zeros.

    ceil(min(1, sparsity) * out) places of each column are 0, drawn at random.

    Errors  ValueError unless there are two axes: [out, in].
    """
    if len(shape) != 2:
        raise ValueError(f"sparse_init needs two axes, got shape {shape}")
    weight = rng.standard_normal(shape) * std
    count = math.ceil(min(1.0, sparsity) * shape[0])
    for column in range(shape[1]):
        weight[rng.permutation(shape[0])[:count], column] = 0
    return weight


@initialiser
def identity_init(
    rng: np.random.Generator, shape: Shape, *, gain: float = 1.0, shift: int | Shape = 0
) -> np.ndarray:
    """The identity map: gain on the diagonal of [out, in], at the kernel's centre of a convolution.

    The centre is k // 2, where `SamePad` of a cross-correlation has it, for even kernels too; Flux
    reverses kernels and has the place before.  A vector is 0.  `shift` rolls the result along its
    axes.  PyTorch's nn.init.dirac_.
    """
    del rng
    weight = np.zeros(shape)
    if len(shape) >= 2:
        centre = tuple(k // 2 for k in shape[2:])
        for i in range(min(shape[:2])):
            weight[(i, i, *centre)] = gain
    return np.roll(weight, shift, tuple(range(len(shape))) if isinstance(shift, tuple) else None)
