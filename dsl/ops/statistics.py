"""Statistics, norms and running totals.  `axis` and `keepdims` are those of reductions."""

from __future__ import annotations

import math
from typing import Any

from fluxc.compiler.errors import ShapeError
from fluxc.ops.contract import outer
from fluxc.ops.einsum import einsum
from fluxc.ops.elementwise import abs, as_float, isnan, sqrt, where
from fluxc.ops.layout import concatenate, moveaxis, normal_axes, normal_axis
from fluxc.ops.order import cumprod, cumsum, sort
from fluxc.ops.reduce import any, max, mean, min, prod, sum
from fluxc.tensor import (
    Tensor,
    TensorLike,
    as_tensor,
    broadcast,
    broadcast_shapes,
    common_dtype,
    scalar,
)
from fluxc.trace import fail

__all__ = [
    "average", "corrcoef", "cosine_similarity", "cov", "cross", "cumulative_prod",
    "cumulative_sum", "kron", "matrix_norm", "median", "nanmax", "nanmean", "nanmin", "nanprod",
    "nanstd", "nansum", "nanvar", "norm", "percentile", "ptp", "quantile", "trapezoid",
    "vander", "vecdot", "vector_norm",
]  # fmt: skip


# Running totals.


def cumulative_sum(
    x: TensorLike, axis: int | None = None, *, include_initial: bool = False
) -> Tensor:
    """Sums of all elements so far; with `include_initial` a 0 comes first."""
    return _cumulative(cumsum, 0, x, axis, include_initial)


def cumulative_prod(
    x: TensorLike, axis: int | None = None, *, include_initial: bool = False
) -> Tensor:
    """Products of all elements so far; with `include_initial` a 1 comes first."""
    return _cumulative(cumprod, 1, x, axis, include_initial)


def _cumulative(running: Any, start: int, x: TensorLike, axis: int | None, initial: bool) -> Tensor:
    x = as_tensor(x)
    if axis is None and x.ndim != 1:
        fail(ShapeError, "a running total of several axes needs axis=...", got=str(x.type))
    a = normal_axis(0 if axis is None else axis, x.ndim)
    total: Tensor = running(x, a)
    if not initial:
        return total
    shape = tuple(1 if i == a else s for i, s in enumerate(total.shape))
    return concatenate([scalar(start, total.type.dtype, shape), total], a)


# Norms.


def cosine_similarity(x: TensorLike, y: TensorLike, axis: int = -1, eps: float = 1e-8) -> Tensor:
    """sum(x*y) / max(norm(x)*norm(y), eps) along `axis`; derivative 0 where a norm is 0."""
    a = as_float(x)
    b = as_tensor(y, a.dtype)
    squares = sum(a * a, axis) * sum(b * b, axis)
    small = squares <= eps * eps
    norms = where(small, eps, sqrt(where(small, 1.0, squares)))
    return sum(a * b, axis) / norms


def vector_norm(
    x: TensorLike, axis: Any = None, *, keepdims: bool = False, ord: float = 2
) -> Tensor:
    """(sum |x|**ord)**(1/ord); inf, -inf: the greatest, least; 0: how many are not 0.

    The gradient of the 2-norm of zeros is 0.
    """
    x = as_float(x)
    if ord == math.inf:
        return max(abs(x), axis, keepdims=keepdims)
    if ord == -math.inf:
        return min(abs(x), axis, keepdims=keepdims)
    if ord == 0:
        return sum((x != 0).astype(x.dtype), axis, keepdims=keepdims)
    if ord == 1:
        return sum(abs(x), axis, keepdims=keepdims)
    if ord == 2:
        return _root(sum(x * x, axis, keepdims=keepdims))
    return sum(abs(x) ** ord, axis, keepdims=keepdims) ** (1 / ord)


def _root(x: Tensor) -> Tensor:
    """Square root with the derivative 0 at 0."""
    one, zero = scalar(1.0, x.type.dtype), scalar(0.0, x.type.dtype)
    return where(x == 0, zero, sqrt(where(x == 0, one, x)))


def matrix_norm(x: TensorLike, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """Of the last two axes: "fro" the root of the sum of squares; 1, -1 the greatest, least sum of
    a column; inf, -inf of a row."""
    x = as_float(x)
    if x.ndim < 2:
        fail(ShapeError, "matrix_norm of less than two axes", got=str(x.type))
    if ord == "fro":
        return vector_norm(x, (-2, -1), keepdims=keepdims)
    if ord not in (1, -1, math.inf, -math.inf):
        fail(ShapeError, f"matrix_norm: ord={ord!r}", expected="'fro', 1, -1, inf, -inf")
    sums = sum(abs(x), -2 if ord in (1, -1) else -1, keepdims=True)
    return (max if ord > 0 else min)(sums, (-2, -1), keepdims=keepdims)


def norm(x: TensorLike, ord: Any = None, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """NumPy's `linalg.norm`: of a vector, or of a matrix where axis is a pair and ord is given."""
    x = as_float(x)
    if ord is None:
        return vector_norm(x, axis, keepdims=keepdims)
    axes = normal_axes(axis, x.ndim)
    if len(axes) == 1:
        return vector_norm(x, axes, keepdims=keepdims, ord=ord)
    if len(axes) != 2:
        fail(ShapeError, f"norm of order {ord!r} over {len(axes)} axes", got=str(x.type))
    pair = axis if isinstance(axis, tuple | list) else axes
    found = matrix_norm(moveaxis(x, tuple(pair), (-2, -1)), ord=ord)
    if not keepdims:
        return found
    return found.reshape(tuple(1 if i in axes else s for i, s in enumerate(x.shape)))


# Means and spreads.


def average(x: TensorLike, axis: Any = None, weights: TensorLike | None = None) -> Tensor:
    """The mean, each element counted as much as its weight says."""
    x = as_float(x)
    if weights is None:
        return mean(x, axis)
    w = as_tensor(weights, common_dtype(x, weights))
    if w.shape != x.shape:
        axes = normal_axes(axis, x.ndim)
        if w.ndim != 1 or len(axes) != 1 or w.shape[0] != x.shape[axes[0]]:
            fail(ShapeError, "average: the weights do not fit", got=f"{w.type} for {x.type}")
        w = broadcast(w.reshape(tuple(-1 if i == axes[0] else 1 for i in range(x.ndim))), x.shape)
    return sum(x * w, axis) / sum(w, axis)


def ptp(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """The greatest less the least."""
    return max(x, axis, keepdims=keepdims) - min(x, axis, keepdims=keepdims)


def quantile(x: TensorLike, q: Any, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    """The value below which the share q of the elements lies, linearly between neighbours.

    q       one number in 0..1, or several: then the results stand along a first axis.
    NaN     if there is one.
    """
    x = as_float(x)
    if isinstance(q, tuple | list):
        from fluxc.ops.layout import stack

        return stack([quantile(x, one, axis, keepdims=keepdims) for one in q])
    if not isinstance(q, int | float) or not 0 <= q <= 1:
        fail(ShapeError, f"quantile: q={q!r}", expected="numbers in 0..1")
    rank = x.ndim
    line, a = (x.ravel(), 0) if axis is None else (x, normal_axis(axis, rank))
    count = line.shape[a]
    if not isinstance(count, int) or count == 0:
        fail(ShapeError, "a quantile needs an axis of fixed size, not 0", got=str(x.type))
    ordered = sort(line, a)
    place = q * (count - 1)
    low = math.floor(place)
    whole = (slice(None),) * a
    below, above = ordered[(*whole, low)], ordered[(*whole, math.ceil(place))]
    found = below if place == low else below + (above - below) * (place - low)
    found = where(any(isnan(line), a), math.nan, found)
    if not keepdims:
        return found
    return found.reshape(tuple(1 if axis is None or i == a else s for i, s in enumerate(x.shape)))


def percentile(x: TensorLike, q: Any, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    """`quantile` with q in 0..100."""
    parts = [one / 100 for one in q] if isinstance(q, tuple | list) else q / 100
    return quantile(x, parts, axis, keepdims=keepdims)


def median(x: TensorLike, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    """The middle element in order, or the mean of the two in the middle."""
    return quantile(x, 0.5, axis, keepdims=keepdims)


def cov(x: TensorLike, *, rowvar: bool = True, ddof: int = 1) -> Tensor:
    """The covariances of variables: each row holds the observations of one (`rowvar`)."""
    x = _variables(x, rowvar)
    centred = x - mean(x, 1, keepdims=True)
    return einsum("ik,jk->ij", centred, centred) / (x.shape[1] - ddof)


def _variables(x: TensorLike, rowvar: bool) -> Tensor:
    x = as_float(x)
    if x.ndim not in (1, 2):
        fail(ShapeError, "covariances of more than two axes", got=str(x.type))
    if x.ndim == 1:
        return x.reshape((1, x.size))
    return x if rowvar else x.T


def corrcoef(x: TensorLike, *, rowvar: bool = True) -> Tensor:
    """The correlations of variables, as `cov`."""
    from fluxc.ops.einsum import diagonal

    c = cov(x, rowvar=rowvar)
    scale = sqrt(diagonal(c))
    return c / outer(scale, scale)


def _nan_reduction(name: str, reduce: Any, start: float | None) -> Any:
    def function(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        x = as_tensor(x)
        if not x.type.dtype.is_float:
            found: Tensor = reduce(x, axis, keepdims=keepdims)
            return found
        gone = isnan(x)
        if start is not None and math.isfinite(start):
            filled: Tensor = reduce(where(gone, start, x), axis, keepdims=keepdims)
            return filled
        end = -math.inf if reduce is max else math.inf
        best = reduce(where(gone, end, x), axis, keepdims=keepdims)
        return where((~gone).any(axis, keepdims=keepdims), best, math.nan)

    function.__name__ = function.__qualname__ = name
    return function


nansum = _nan_reduction("nansum", sum, 0.0)
nansum.__doc__ = "The sum; NaN counts as 0."
nanprod = _nan_reduction("nanprod", prod, 1.0)
nanprod.__doc__ = "The product; NaN counts as 1."
nanmax = _nan_reduction("nanmax", max, None)
nanmax.__doc__ = "The greatest element that is not NaN; NaN if there is none."
nanmin = _nan_reduction("nanmin", min, None)
nanmin.__doc__ = "The least element that is not NaN; NaN if there is none."


def _present(x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    return sum((~isnan(x)).astype(x.dtype), axis, keepdims=keepdims)


def nanmean(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """The mean of the elements that are not NaN; NaN if there are none."""
    x = as_float(x)
    total: Tensor = nansum(x, axis, keepdims=keepdims)
    return total / _present(x, axis, keepdims)


def nanvar(x: TensorLike, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """The variance of the elements that are not NaN."""
    x = as_float(x)
    centred = x - nanmean(x, axis, keepdims=True)
    total: Tensor = nansum(centred * centred, axis, keepdims=keepdims)
    return total / (_present(x, axis, keepdims) - ddof)


def nanstd(x: TensorLike, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """The square root of `nanvar`."""
    return sqrt(nanvar(x, axis, ddof=ddof, keepdims=keepdims))


# Products of vectors.


def vecdot(x: TensorLike, y: TensorLike, axis: int = -1) -> Tensor:
    """The sum of products along an axis; the others broadcast."""
    a, b = as_tensor(x), as_tensor(y)
    if a.ndim == 0 or b.ndim == 0 or a.shape[axis] != b.shape[axis]:
        fail(ShapeError, f"vecdot along axis {axis}: sizes differ", got=f"{a.type} and {b.type}")
    return einsum("...i,...i->...", moveaxis(a, axis, -1), moveaxis(b, axis, -1))


def cross(x: TensorLike, y: TensorLike, axis: int = -1) -> Tensor:
    """The vector product of vectors of three numbers along an axis; the others broadcast."""
    a, b = moveaxis(as_tensor(x), axis, -1), moveaxis(as_tensor(y), axis, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        fail(ShapeError, f"cross along axis {axis}: not size 3", got=f"{a.type} and {b.type}")
    ahead, behind = [1, 2, 0], [2, 0, 1]
    turned = _at(a, ahead) * _at(b, behind) - _at(a, behind) * _at(b, ahead)
    return moveaxis(turned, -1, axis)


def _at(x: Tensor, places: list[int]) -> Tensor:
    """Elements of the last axis."""
    return concatenate([x[..., i : i + 1] for i in places], -1)


def kron(x: TensorLike, y: TensorLike) -> Tensor:
    """Every element of x, times all of y: the sizes multiply."""
    a, b = as_tensor(x), as_tensor(y)
    rank = len(broadcast_shapes((1,) * a.ndim, (1,) * b.ndim))
    sa = (1,) * (rank - a.ndim) + a.shape
    sb = (1,) * (rank - b.ndim) + b.shape
    left = a.reshape(tuple(s for size in sa for s in (size, 1)))
    right = b.reshape(tuple(s for size in sb for s in (1, size)))
    return (left * right).reshape(tuple(s * t for s, t in zip(sa, sb, strict=True)))


def vander(x: TensorLike, n: int | None = None, *, increasing: bool = False) -> Tensor:
    """The powers of each element along a last axis, from n - 1 down to 0, or up."""
    from fluxc.ops.create import arange

    x = as_tensor(x)
    count = x.shape[0] if n is None else n
    powers = arange(count, dtype=x.dtype)
    powers = powers if increasing else powers[::-1]
    return x.reshape((x.size, 1)) ** powers


def trapezoid(
    y: TensorLike, x: TensorLike | None = None, dx: float = 1.0, axis: int = -1
) -> Tensor:
    """The integral along an axis by trapezoids, at positions x or `dx` apart."""
    y = moveaxis(as_float(y), axis, -1)
    middle = (y[..., 1:] + y[..., :-1]) / 2
    if x is None:
        return sum(middle, -1) * dx
    t = as_float(x)
    t = t if t.ndim == 1 else moveaxis(t, axis, -1)
    return sum(middle * (t[..., 1:] - t[..., :-1]), -1)
