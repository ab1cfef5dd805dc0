"""Images [batch, channels, spatial...] in other sizes: interpolation and pixel shuffling.

Interpolation goes axis by axis.  Between fixed sizes it is a table of positions and weights, and
its gradient the transposed table: nothing scatters.  Where a size is symbolic positions are
computed, and the gradient scatters.
"""

from __future__ import annotations

import functools
import operator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Size, exact_quotient, floordiv, largest
from fluxc.ops import elementwise
from fluxc.ops.create import arange
from fluxc.ops.elementwise import as_float
from fluxc.ops.index import gather_axes
from fluxc.ops.layout import repeat, reshape, transpose
from fluxc.ops.reduce import sum
from fluxc.ops.spatial import fits, image_rank, is_integer, sizes_of
from fluxc.tensor import Tensor, TensorLike, as_tensor, cast
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "pixel_shuffle", "pixel_unshuffle", "upsample_bicubic", "upsample_bilinear", "upsample_linear",
    "upsample_nearest", "upsample_trilinear",
]  # fmt: skip

Taps = list[tuple[Any, Any]]  # positions and weights of one term of every element


def upsample_nearest(x: TensorLike, scale: Any = None, size: Any = None) -> Tensor:
    """The element i*S // S' of each axis.

        S' = floor(S * scale), or `size`

    scale   one number for all spatial axes, or one for each, taken as the nearest fraction with a
            denominator of 1000 or less; `size` likewise.  Flux takes whole scales alone.
    Shapes  x [N, C, S...], any dtype -> [N, C, S'...].
    Errors  ShapeError unless exactly one of scale and size is given.
    PyTorch's interpolate(mode="nearest").
    """
    t = as_tensor(x)
    for axis, size_after in enumerate(_sizes("upsample_nearest", t, None, scale, size), 2):
        t = _nearest(t, axis, size_after)
    return t


def _nearest(x: Tensor, axis: int, m: Size) -> Tensor:
    n = x.shape[axis]
    times = exact_quotient(m, n) if n != 0 else None
    if isinstance(times, int) and times > 0:
        return repeat(x, times, axis)
    step = exact_quotient(n, m) if m != 0 else None
    if isinstance(step, int) and step > 0:
        return x[(*(slice(None),) * axis, slice(None, None, step))]
    if isinstance(n, int) and isinstance(m, int) and x.type.dtype.is_float:
        index = np.arange(m) * n // m
        return _by_table(x, axis, index[:, None], np.ones((m, 1)))
    return gather_axes(x, [axis], [arange(m, dtype=ir.i64) * n // as_tensor(m, ir.i64)], axis)


def upsample_linear(
    x: TensorLike, scale: Any = None, size: Any = None, align_corners: bool = True
) -> Tensor:
    """Linear interpolation of the two elements on both sides of the position of each element.

        p = i*(S - 1)/(S' - 1), 0 if S' is 1          align_corners=True, as Flux has it
        p = max((i + 1/2)*S/S' - 1/2, 0)              align_corners=False

    S'      and `scale`, `size` as in `upsample_nearest`.  Positions follow from S and S' alone:
            PyTorch with a scale that is no quotient of them, and recompute_scale_factor=False,
            divides by the scale instead of S'/S.
    Shapes  x [N, C, S] -> [N, C, S']; integers become f32.
    Errors  ShapeError for another number of axes.
    PyTorch's interpolate(mode="linear"), whose align_corners is False by default.
    """
    return _upsampled("upsample_linear", 1, _linear, x, scale, size, align_corners)


def upsample_bilinear(
    x: TensorLike, scale: Any = None, size: Any = None, align_corners: bool = True
) -> Tensor:
    """`upsample_linear` along both axes of images [N, C, H, W]."""
    return _upsampled("upsample_bilinear", 2, _linear, x, scale, size, align_corners)


def upsample_trilinear(
    x: TensorLike, scale: Any = None, size: Any = None, align_corners: bool = True
) -> Tensor:
    """`upsample_linear` along the three axes of volumes [N, C, D, H, W]."""
    return _upsampled("upsample_trilinear", 3, _linear, x, scale, size, align_corners)


def upsample_bicubic(
    x: TensorLike, scale: Any = None, size: Any = None, align_corners: bool = True
) -> Tensor:
    """Cubic convolution with a = -3/4 along both axes of images [N, C, H, W].

    Positions as in `upsample_linear`, but without the maximum; elements outside are those at the
    border.  Keys 1981.  PyTorch's interpolate(mode="bicubic").
    """
    return _upsampled("upsample_bicubic", 2, _cubic, x, scale, size, align_corners)


def _upsampled(
    name: str,
    rank: int,
    taps: Callable[..., Taps],
    x: TensorLike,
    scale: Any,
    size: Any,
    align_corners: bool,
) -> Tensor:
    t = as_float(x)
    sizes = _sizes(name, t, rank, scale, size)
    y = cast(t, ir.f32) if t.type.dtype.bits == 16 else t
    for axis, m in enumerate(sizes, 2):
        if y.shape[axis] != m:
            y = _interpolated(y, axis, m, taps, align_corners)
    return cast(y, t.type.dtype)


def _sizes(name: str, x: Tensor, rank: int | None, scale: Any, size: Any) -> tuple[Size, ...]:
    """The sizes of the result's spatial axes."""
    count = image_rank(name, x)
    if rank not in (None, count):
        fail(ShapeError, f"{name} takes {rank} spatial axes", got=str(x.type))
    if (scale is None) == (size is None):
        fail(ShapeError, f"{name} takes scale or size", got=f"scale={scale!r}, size={size!r}")
    if size is not None:
        sizes = sizes_of(f"{name}: size", size, count)
    else:
        factors = _factors(name, scale, count)
        sizes = tuple(
            floordiv(n * f.numerator, f.denominator)
            for n, f in zip(x.shape[2:], factors, strict=True)
        )
    for axis, m in enumerate(sizes, 2):
        fits(name, x.shape, axis, m, 1)
    return sizes


def _factors(name: str, scale: Any, count: int) -> list[Fraction]:
    each = list(scale) if isinstance(scale, tuple | list) else [scale] * count
    numbers = all(is_integer(s) or isinstance(s, float | Fraction | np.floating) for s in each)
    if len(each) != count or not numbers or not all(0 < s < 1e6 for s in each):
        fail(
            ShapeError,
            f"{name}: scale of {count} spatial axes",
            expected=f"a number above 0, or {count} of them",
            got=repr(scale),
        )
    return [Fraction(float(s)).limit_denominator(1000) for s in each]


def _interpolated(
    x: Tensor, axis: int, m: Size, taps: Callable[..., Taps], align_corners: bool
) -> Tensor:
    n = x.shape[axis]
    if isinstance(n, int) and isinstance(m, int):
        terms = taps(np, _positions(np.arange(m), n, m, align_corners), n)
        index, weight = (np.stack(columns, -1) for columns in zip(*terms, strict=True))
        return _by_table(x, axis, index, weight)
    places = _positions(as_tensor(arange(m), x.dtype), n, m, align_corners)
    parts = [
        gather_axes(x, [axis], [index], axis) * _along(weight, axis, x.ndim)
        for index, weight in taps(elementwise, places, n)
    ]
    return functools.reduce(operator.add, parts)


# Positions and their neighbours, of NumPy's arrays or of tensors: `xp` is their namespace.


def _positions(i: Any, n: Size, m: Size, align_corners: bool) -> Any:
    if align_corners:
        return i * (n - 1) / largest(m - 1, 1)
    return (i + 0.5) * n / m - 0.5


def _linear(xp: Any, places: Any, n: Size) -> Taps:
    inside = xp.maximum(places, 0)
    low = xp.floor(inside)
    share, first = inside - low, low.astype(np.dtype(np.int64))
    return [(xp.minimum(first, n - 1), 1 - share), (xp.minimum(first + 1, n - 1), share)]


CUBIC = -0.75


def _cubic(xp: Any, places: Any, n: Size) -> Taps:
    low = xp.floor(places)
    t, first = places - low, low.astype(np.dtype(np.int64))
    weights = (_far(t + 1), _near(t), _near(1 - t), _far(2 - t))
    places_of = (xp.maximum(xp.minimum(first + k, n - 1), 0) for k in range(-1, 3))
    return list(zip(places_of, weights, strict=True))


def _near(d: Any) -> Any:
    """The weight at a distance of 1 at most."""
    return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1


def _far(d: Any) -> Any:
    """The weight at a distance from 1 to 2."""
    return ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC


# Sums by tables: y[o] = sum over t of weight[o, t] * x[index[o, t]].


def _by_table(x: Tensor, axis: int, index: np.ndarray, weight: np.ndarray) -> Tensor:
    """The sum along an axis, and its gradient by the transposed table."""
    from fluxc.transforms import custom_vjp

    back = _transposed(index, weight, x.shape[axis])

    def resample(x: Tensor) -> Tensor:
        return _summed(x, axis, index, weight)

    def backward(inputs: Any, y: Tensor, dy: Tensor) -> tuple[Tensor]:
        del inputs, y
        return (_summed(dy, axis, *back),)

    y: Tensor = custom_vjp(resample, backward)(x)
    return y


def _transposed(index: np.ndarray, weight: np.ndarray, n: Any) -> tuple[np.ndarray, np.ndarray]:
    """The table that sums to each x what the table takes from it; 0 times element 0 elsewhere."""
    out, term = np.nonzero(weight)
    source = index[out, term]
    order = np.argsort(source, kind="stable")
    counts = np.bincount(source, minlength=n)
    place = np.arange(source.size) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (n, max(int(counts.max(initial=0)), 1))
    back, share = np.zeros(shape, np.int64), np.zeros(shape)
    at = (source[order], place)
    back[at], share[at] = out[order], weight[out, term][order]
    return back, share


UNROLLED = 8


def _summed(x: Tensor, axis: int, index: np.ndarray, weight: np.ndarray) -> Tensor:
    """Term by term where they are few; a reduction of all terms elsewhere."""
    if index.shape[1] > UNROLLED:
        seen = gather_axes(x, [axis], [as_tensor(index.astype(np.int32))], axis)
        return sum(seen * _along(as_tensor(weight, x.dtype), axis, x.ndim), axis + 1)
    terms = []
    for t in range(index.shape[1]):
        term = gather_axes(x, [axis], [as_tensor(index[:, t].astype(np.int32))], axis)
        if (weight[:, t] != 1).any():
            term = term * _along(as_tensor(weight[:, t], x.dtype), axis, x.ndim)
        terms.append(term)
    return functools.reduce(operator.add, terms)


def _along(weight: Tensor, axis: int, rank: int) -> Tensor:
    """Weights of the elements of an axis, beside tensors of this many axes."""
    return reshape(weight, (*weight.shape, *(1,) * (rank - axis - 1)))


# Pixels from channels.


def pixel_shuffle(x: TensorLike, r: int) -> Tensor:
    """Channels as the pixels of an image r times as large along every spatial axis.

        y[n, c, h*r + i, w*r + j] = x[n, (c*r + i)*r + j, h, w]

    Shapes  x [N, C * r**d, S...] of d spatial axes -> [N, C, S*r...].
    Errors  ShapeError if r**d does not divide the channels.
    PyTorch's PixelShuffle, for any number of axes.
    """
    t = as_tensor(x)
    count = image_rank("pixel_shuffle", t)
    _check_factor("pixel_shuffle", r)
    channels = exact_quotient(t.shape[1], r**count)
    if channels is None:
        fail(
            ShapeError,
            f"pixel_shuffle: {r}**{count} must divide the channels",
            expected=f"a multiple of {r**count} channels",
            got=str(t.type),
        )
    sizes = t.shape[2:]
    split = t.reshape((t.shape[0], channels, *(r,) * count, *sizes))
    order = [0, 1, *(a for i in range(count) for a in (2 + count + i, 2 + i))]
    return transpose(split, order).reshape((t.shape[0], channels, *(s * r for s in sizes)))


def pixel_unshuffle(x: TensorLike, r: int) -> Tensor:
    """Pixels as channels: the inverse of `pixel_shuffle`.

    Shapes  x [N, C, S...] of d spatial axes -> [N, C * r**d, S/r...].
    Errors  ShapeError if r does not divide a size.
    PyTorch's PixelUnshuffle, for any number of axes.
    """
    t = as_tensor(x)
    count = image_rank("pixel_unshuffle", t)
    _check_factor("pixel_unshuffle", r)
    sizes = [exact_quotient(s, r) for s in t.shape[2:]]
    if None in sizes:
        fail(ShapeError, f"pixel_unshuffle: {r} must divide the sizes", got=str(t.type))
    split = t.reshape((*t.shape[:2], *(part for s in sizes for part in (s, r))))
    order = [0, 1, *(3 + 2 * i for i in range(count)), *(2 + 2 * i for i in range(count))]
    return transpose(split, order).reshape((t.shape[0], t.shape[1] * r**count, *sizes))


def _check_factor(name: str, r: Any) -> None:
    if not is_integer(r) or r < 1:
        fail(ShapeError, f"{name}: r must be an integer >= 1", got=repr(r))
