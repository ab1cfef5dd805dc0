"""Small generated data sets, as float64; observations along axis 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from fluxc.data.observations import Seed, generator

__all__ = ["make_moons", "make_poly", "make_sin", "make_spiral"]


def make_sin(
    n: int = 50, start: float = 0, stop: float = 2 * np.pi, *, noise: float = 0.3, seed: Seed = 0
) -> tuple[np.ndarray, np.ndarray]:
    """`n` points at equal distances from start to stop, and their sines with normal noise.

    Shapes  x: [n], y: [n]
    """
    x = np.linspace(start, stop, n)
    return x, np.sin(x) + noise * generator(seed).normal(size=n)


def make_poly(
    coef: Any, x: Any, *, noise: float = 0.1, seed: Seed = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A polynomial at `x` with normal noise; the first coefficient is of the highest power.

    Shapes  x: [n], y: [n]
    """
    x = np.array(x, np.float64)
    return x, np.polyval(np.asarray(coef, np.float64), x) + noise * generator(seed).normal(
        size=x.shape
    )


def make_spiral(
    n: int = 97,
    a: float = 6.5,
    theta: float = 16.0,
    b: float = 104.0,
    *,
    noise: float = 0.1,
    seed: Seed = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Two spirals in each other, `n` points each, of labels 1 and 0.

        angle_i = i * pi / theta,  radius_i = a * (b - i) / b
        x_i = +-radius_i * (sin(angle_i), cos(angle_i)) + noise * normal

    Shapes  x: [2 * n, 2], y: i64[2 * n]
    """
    i = np.arange(n)
    angle, radius = i * np.pi / theta, a * (b - i) / b
    arm = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    x = np.concatenate([arm, -arm])
    return x + noise * generator(seed).normal(size=x.shape), np.repeat([1, 0], n)


def make_moons(
    n: int | tuple[int, int] = 100, *, noise: float = 0.0, shuffle: bool = True, seed: Seed = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles that reach into each other, of labels 0 and 1.

    Shapes  x: [n, 2], y: i64[n]
    n       the points in all, or of each half circle.
    """
    first, second = (n // 2, n - n // 2) if isinstance(n, int) else n
    rng = generator(seed)
    outer, inner = rng.uniform(0, np.pi, first), rng.uniform(0, np.pi, second)
    x = np.concatenate(
        [
            np.stack([np.cos(outer), np.sin(outer)], axis=1),
            np.stack([1 - np.cos(inner), 0.5 - np.sin(inner)], axis=1),
        ]
    )
    x += noise * rng.normal(size=x.shape)
    y = np.repeat([0, 1], [first, second])
    order = rng.permutation(len(x)) if shuffle else np.arange(len(x))
    return x[order], y[order]
