"""Pooling of images [batch, channels, spatial...], any number of spatial axes.

`fluxc.ops.spatial` says what window sizes, `stride`, `dilation` and `pad` take.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Size, ceildiv, exact_quotient, floordiv, product
from fluxc.ops import random
from fluxc.ops.create import arange, ones, zeros
from fluxc.ops.elementwise import as_float, floor, where
from fluxc.ops.index import take_along_axis
from fluxc.ops.layout import concatenate, expand_dims, moveaxis, squeeze
from fluxc.ops.order import argmax
from fluxc.ops.reduce import max as greatest
from fluxc.ops.reduce import mean
from fluxc.ops.spatial import fits, image_rank, numbers, pads, reaches_of, sizes_of
from fluxc.ops.update import put_along_axis
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import emit, fail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "adaptive_maxpool", "adaptive_meanpool", "fractional_maxpool", "lpnormpool", "maxpool",
    "maxunpool", "meanpool",
]  # fmt: skip


def maxpool(
    x: TensorLike,
    k: Any,
    stride: Any = None,
    pad: Any = 0,
    dilation: Any = 1,
    *,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The greatest element of each window; padding is never one, and a NaN is the greatest.

        S' = (S + low + high - ((k - 1)*dilation + 1)) // stride + 1

    ceil_mode       rounds the division up, for a last window that begins inside of the image or
                    its low padding and ends outside.
    return_indices  gives (y, indices): where each greatest element lies, as its row-major number
                    in the spatial axes of x, i64; `maxunpool` takes them.
    Shapes  x [N, C, S...] -> [N, C, S'...]; `stride` is `k` by default.
    Of equal greatest elements the first gets the gradient.  Of padding alone: -inf, the least
    integer, and the index behind the last.
    PyTorch's max_pool1d, 2d, 3d.
    """
    t = as_tensor(x)
    attrs = _windows("maxpool", t, k, stride, pad, dilation, ceil_mode)
    y = Tensor(emit("window_max", t.value, **attrs))
    return (y, _places(t, attrs)) if return_indices else y


def _places(x: Tensor, attrs: dict[str, Any]) -> Tensor:
    """The row-major number in x's spatial axes of the greatest element of each window."""
    rest = found = as_tensor(Tensor(emit("window_argmax", x.value, **attrs)), ir.i64)
    number = as_tensor(0, ir.i64)
    for axis in range(2, x.ndim):
        inner = math.prod(attrs["sizes"][axis + 1 :])
        offset, rest = rest // inner, rest % inner
        count = rest.shape[axis]
        first = arange(count, dtype=ir.i64) * attrs["strides"][axis] - attrs["low"][axis]
        along = first.reshape((count, *(1,) * (x.ndim - axis - 1)))
        number = number * x.shape[axis] + along + offset * attrs["dilation"][axis]
    return where(found < math.prod(attrs["sizes"]), number, product(x.shape[2:]))


def maxunpool(
    x: TensorLike,
    indices: TensorLike,
    k: Any,
    stride: Any = None,
    pad: Any = 0,
    size: Any = None,
) -> Tensor:
    """Zeros, with each element of x where `maxpool(..., return_indices=True)` found it.

        S' = (S - 1)*stride + k - low - high, unless `size` says it

    Shapes  x and indices [N, C, S...] -> [N, C, S'...].
    Elements whose index is outside of the result are dropped; of several with one index the last
    is kept, and gets the gradient.
    Errors  ShapeError if the shapes differ.
    PyTorch's max_unpool1d, 2d, 3d.
    """
    t, at = as_tensor(x), as_tensor(indices)
    count = image_rank("maxunpool", t)
    if at.shape != t.shape:
        fail(
            ShapeError,
            "maxunpool: one index for each element",
            expected=str(list(t.shape)),
            got=str(at.type),
        )
    sizes = numbers("maxunpool: window", k, count)
    steps = sizes if stride is None else numbers("maxunpool: stride", stride, count)
    around = pads("maxunpool: pad", pad, sizes)
    shape = [
        (n - 1) * step + window - low - high
        for n, step, window, (low, high) in zip(t.shape[2:], steps, sizes, around, strict=True)
    ]
    if size is not None:
        shape = list(sizes_of("maxunpool: size", size, count))
    lead = t.shape[:2]
    line = (*lead, product(t.shape[2:]))
    empty = zeros((*lead, product(shape)), t.dtype)
    y = put_along_axis(empty, at.reshape(line), t.reshape(line), 2)
    return y.reshape((*lead, *shape))


def meanpool(
    x: TensorLike,
    k: Any,
    stride: Any = None,
    pad: Any = 0,
    count_include_pad: bool = True,
    *,
    ceil_mode: bool = False,
) -> Tensor:
    """The mean of each window, padding counted as zeros or, on request, not at all.

    Shapes  x [N, C, S...] -> [N, C, S'...], S' and `ceil_mode` as `maxpool` has them; what a
            window of ceil_mode reaches beyond the padding is never counted.
    A window of padding alone that is not counted gives NaN.
    PyTorch's avg_pool1d, 2d, 3d.
    """
    t = as_float(x)
    attrs = _windows("meanpool", t, k, stride, pad, 1, ceil_mode)
    total = Tensor(emit("window_sum", t.value, **attrs))
    high = (0, 0, *(h for _, h in pads("meanpool: pad", pad, attrs["sizes"][2:])))
    if count_include_pad and attrs["high"] == high:
        points: int = math.prod(attrs["sizes"])
        return total * (1 / points)
    shape, low = t.shape[2:], attrs["low"]
    if count_include_pad:
        shape = tuple(s + a + z for s, a, z in zip(shape, low[2:], high[2:], strict=True))
        beyond = tuple(e - z for e, z in zip(attrs["high"], high, strict=True))
        attrs = attrs | {"low": (0,) * t.ndim, "high": beyond}
    one = ones((1, 1, *shape), t.dtype)
    return total / Tensor(emit("window_sum", one.value, **attrs))


def lpnormpool(
    x: TensorLike,
    p: float,
    k: Any,
    stride: Any = None,
    pad: Any = 0,
    *,
    ceil_mode: bool = False,
) -> Tensor:
    """The root of the sum of powers of each window.

        y = (sum of x**p) ** (1/p)

    No absolute value is taken: a sum that is negative gives NaN, and PyTorch's lp_pool 0.  No mean
    is taken either: a window at the border sums what it holds.
    Shapes  x [N, C, S...] -> [N, C, S'...], S' and `ceil_mode` as `maxpool` has them.
    Where a sum is 0, so is its gradient, unless p is 1.
    Errors  ShapeError unless p is positive and finite.
    """
    t = powers("lpnormpool", x, p)
    attrs = _windows("lpnormpool", t, k, stride, pad, 1, ceil_mode)
    return root(Tensor(emit("window_sum", t.value, **attrs)), p)


def powers(name: str, x: TensorLike, p: float) -> Tensor:
    """x**p for a norm."""
    if not 0 < p < math.inf:
        fail(ShapeError, f"{name}: p must be positive and finite", got=repr(p))
    t = as_float(x)
    return t if p == 1 else t**p


def root(total: Tensor, p: float) -> Tensor:
    """total ** (1/p), whose derivative at 0 is 0 unless p is 1."""
    if p == 1:
        return total
    return where(total == 0, 0, where(total == 0, 1, total) ** (1 / p))


def _windows(
    name: str, x: Tensor, k: Any, stride: Any, pad: Any, dilation: Any, ceil_mode: bool
) -> dict[str, Any]:
    """The attributes of a window operation over all axes."""
    count = image_rank(name, x)
    if x.type.dtype.kind == "b":
        fail(DTypeError, f"{name} of bool tensors", hint="x.astype(fx.f32) first")
    sizes = numbers(f"{name}: window", k, count)
    steps = sizes if stride is None else numbers(f"{name}: stride", stride, count)
    gaps = numbers(f"{name}: dilation", dilation, count)
    reaches = reaches_of(sizes, gaps)
    around: list[tuple[Size, Size]] = []
    for axis, (low, high) in enumerate(pads(f"{name}: pad", pad, reaches), 2):
        size, reach, step = x.shape[axis], reaches[axis - 2], steps[axis - 2]
        fits(name, x.shape, axis, size + low + high + (step - 1 if ceil_mode else 0), reach)
        # The last window of ceil_mode begins before the image ends, and before windows fit no more.
        last = ceildiv(size + low + min(high - reach + step, 0), step) - 1
        around.append((low, last * step + reach - size - low if ceil_mode else high))
    return {
        "sizes": (1, 1, *sizes),
        "strides": (1, 1, *steps),
        "low": (0, 0, *(low for low, _ in around)),
        "high": (0, 0, *(high for _, high in around)),
        "dilation": (1, 1, *gaps),
    }


# Windows chosen so that the result has given sizes.


def adaptive_maxpool(x: TensorLike, out: Any) -> Tensor:
    """The greatest element of each of `out` windows per axis: [i*S // out, ceil((i+1)*S / out)).

    Shapes  x [N, C, S...] -> [N, C, out...].
    PyTorch's adaptive_max_pool1d, 2d, 3d; Flux's windows are the same where `out` divides S.
    """
    return _adaptive("adaptive_maxpool", x, out, maxpool, greatest)


def adaptive_meanpool(x: TensorLike, out: Any) -> Tensor:
    """The mean of each of `out` windows per axis, see `adaptive_maxpool`.

    PyTorch's adaptive_avg_pool1d, 2d, 3d.
    """
    return _adaptive("adaptive_meanpool", x, out, meanpool, mean)


def _adaptive(
    name: str,
    x: TensorLike,
    out: Any,
    pool: Callable[..., Tensor],
    reduce: Callable[..., Tensor],
) -> Tensor:
    """Equal windows at once; else axis by axis, which means and maxima of rectangles allow."""
    t = as_tensor(x)
    sizes = numbers(f"{name}: out", out, image_rank(name, t))
    whole = [exact_quotient(s, o) for s, o in zip(t.shape[2:], sizes, strict=True)]
    if all(isinstance(k, int) and k > 0 for k in whole):
        return pool(t, tuple(whole))
    for axis, o in enumerate(sizes, 2):
        size = t.shape[axis]
        if o == 1:
            t = reduce(t, axis, keepdims=True)
            continue
        lead = (slice(None),) * axis
        spans = [(floordiv(size * i, o), ceildiv(size * (i + 1), o)) for i in range(o)]
        parts = [reduce(t[(*lead, slice(a, z))], axis, keepdims=True) for a, z in spans]
        t = concatenate(parts, axis)
    return t


def fractional_maxpool(
    x: TensorLike, k: Any, out: Any, samples: TensorLike | None = None
) -> Tensor:
    """The greatest element of `out` windows per axis, of size k, that begin at random places.

        first of window i = floor((i + u)*a) - floor(u*a), a = (S - k)/(out - 1); of the last S - k

    samples  u in [0, 1) of each image, channel and axis; drawn where none are given, in test mode
             too, as PyTorch does.
    Shapes   x [N, C, S...], samples [N, C, number of spatial axes] -> [N, C, out...].
    Of equal greatest elements the first gets the gradient.
    Errors   ShapeError unless out + k - 1 <= S.
    Graham 2014.  PyTorch's fractional_max_pool2d (whose samples begin with the last axis), 3d.
    """
    t = as_tensor(x)
    count = image_rank("fractional_maxpool", t)
    windows = numbers("fractional_maxpool: window", k, count)
    outs = numbers("fractional_maxpool: out", out, count)
    shape = (*t.shape[:2], count)
    u = random.uniform(shape) if samples is None else as_float(samples)
    if u.shape != shape:
        fail(ShapeError, "fractional_maxpool: samples", expected=f"{list(shape)}", got=str(u.type))
    for a, (window, o) in enumerate(zip(windows, outs, strict=True)):
        fits("fractional_maxpool", t.shape, a + 2, t.shape[a + 2], window + o - 1)
        last = t.shape[a + 2] - window
        first = _fractional_starts(expand_dims(u[..., a], 2), last, o)
        at = expand_dims(first, 3) + arange(window, dtype=ir.i64)
        moved = moveaxis(t, a + 2, 2)
        seen = Tensor(emit("gather", moved.value, expand_dims(at, 4).value, batch=2))
        best = take_along_axis(seen, argmax(seen, 3, keepdims=True), 3)
        t = moveaxis(squeeze(best, 3), 2, a + 2)
    return t


def _fractional_starts(u: Tensor, last: Size, out: int) -> Tensor:
    """Where the windows begin, [N, C, out], for samples [N, C, 1]."""
    ends = as_tensor(last, ir.i64).reshape((1, 1, 1))
    i = arange(out, dtype=ir.i64)
    if out == 1:
        return ends + 0 * as_tensor(floor(u), ir.i64)
    step = as_tensor(last, u.dtype) / (out - 1)
    first = floor((i + u) * step) - floor(u * step)
    return where(i == out - 1, ends, as_tensor(first, ir.i64))
