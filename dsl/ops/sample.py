"""Images read at computed places: grids of coordinates, and rotations."""

from __future__ import annotations

import functools
import math
import operator
from itertools import product
from typing import Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Size, floordiv, largest
from fluxc.ops.contract import matmul
from fluxc.ops.create import arange, ones
from fluxc.ops.elementwise import abs as absolute
from fluxc.ops.elementwise import as_float, cos, floor, fmod, sin, where
from fluxc.ops.elementwise import round as to_whole
from fluxc.ops.layout import as_shape, expand_dims, moveaxis, stack, swapaxes
from fluxc.ops.spatial import image_rank
from fluxc.tensor import Operators, Tensor, TensorLike, as_tensor, broadcast, cast, promote
from fluxc.trace import emit, fail

__all__ = ["affine_grid", "grid_sample", "imrotate"]

_LINEAR = {1: ("linear",), 2: ("linear", "bilinear"), 3: ("linear", "bilinear", "trilinear")}
_BORDERS = ("zeros", "border", "reflection")


def grid_sample(
    x: TensorLike,
    grid: TensorLike,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = True,
) -> Tensor:
    """The image at places of a grid: coordinates from -1 to 1, that of the last axis first.

        place = (g + 1)/2 * (S - 1)          align_corners=True, as Flux has it: -1 is the
                                             middle of the first pixel
        place = ((g + 1)*S - 1)/2            align_corners=False: -1 is its outer edge

    mode          "nearest" (halves to the even place), or linear along each axis: "linear",
                  "bilinear" for two axes (and three, as PyTorch says it), "trilinear" for three.
    padding_mode  outside of the image: "zeros"; "border": the pixel at the border; "reflection":
                  mirrored at the middle of the border's pixels, or their edge.
    Shapes  x [N, C, S...] of d spatial axes, grid [N, T..., d] -> [N, C, T...].
    The derivative by the grid is that of the cell between floor(place) and the next; clamped at
    the border it is 0 there; of "nearest" it is 0.
    Errors  ShapeError if the shapes do not match, or for another mode.
    PyTorch's nn.functional.grid_sample, whose align_corners is False by default.
    """
    t, g = as_tensor(x), as_float(grid)
    count = image_rank("grid_sample", t)
    if g.ndim < 2 or g.shape[0] != t.shape[0] or g.shape[-1] != count:
        fail(
            ShapeError,
            "grid_sample: the grid does not fit",
            expected=f"[{t.shape[0]}, ..., {count}] for x {t.type}",
            got=str(g.type),
        )
    linear = mode in _LINEAR.get(count, ("linear",))
    if not linear and mode != "nearest":
        known = ("nearest", *_LINEAR.get(count, ("linear",)))
        what = f"grid_sample: mode {mode!r} of {count} spatial axes"
        fail(ShapeError, what, expected=", ".join(map(repr, known)))
    if padding_mode not in _BORDERS:
        what = f"grid_sample: padding_mode {padding_mode!r}"
        fail(ShapeError, what, expected=", ".join(map(repr, _BORDERS)))
    g = _wide(g)
    places = [
        _bounded(_place(g[..., count - 1 - a], n, align_corners), n, padding_mode, align_corners)
        for a, n in enumerate(t.shape[2:])
    ]
    if linear:
        return _interpolated(t, places, zeros=padding_mode == "zeros")
    return _nearest(t, [to_whole(p) for p in places], zeros=padding_mode == "zeros")


def _wide(x: Tensor) -> Tensor:
    """Places are computed in f32 at least."""
    return cast(x, ir.f32) if x.type.dtype.bits == 16 else x


def _place(g: Tensor, n: Size, align_corners: bool) -> Tensor:
    return (g + 1) * (n - 1) / 2 if align_corners else ((g + 1) * n - 1) / 2


def _bounded(place: Tensor, n: Size, padding_mode: str, align_corners: bool) -> Tensor:
    if padding_mode == "zeros":
        return place
    if padding_mode == "reflection":
        low, span = (0.0, n - 1) if align_corners else (-0.5, n)
        place = _reflected(place, low, span)
    # The derivative is 0 at the border, as PyTorch has it.
    return where(place <= 0, 0, where(place >= n - 1, n - 1, place))


def _reflected(place: Tensor, low: float, span: Size) -> Tensor:
    """Mirrored at low and at low + span until it lies between."""
    if span == 0:
        return 0 * place
    far = absolute(place - low)
    period = as_tensor(largest(span, 1), place.dtype)
    rest = fmod(far, period)
    turned = fmod(floor(far / period), 2) != 0
    return where(turned, period - rest, rest) + low


def _read(front: Tensor, places: list[Tensor]) -> Tensor:
    """[N, S..., C] at places [N, T...], one tensor for each axis S: [N, T..., C]; clamped."""
    at = stack([cast(p, ir.i64) for p in places], -1)
    return Tensor(emit("gather", front.value, at.value, batch=1))


def _inside(places: list[Tensor], sizes: tuple[Size, ...]) -> Tensor:
    """Whether places lie between the first and the last element of each axis."""
    inside = [(p >= 0) & (p <= n - 1) for p, n in zip(places, sizes, strict=True)]
    return functools.reduce(operator.and_, inside)


def _nearest(x: Tensor, places: list[Tensor], *, zeros: bool) -> Tensor:
    """The elements at whole places, 0 outside on request."""
    y = _read(moveaxis(x, 1, -1), places)
    if zeros:
        y = where(expand_dims(_inside(places, x.shape[2:]), -1), y, 0)
    return moveaxis(y, -1, 1)


def _interpolated(x: Tensor, places: list[Tensor], *, zeros: bool) -> Tensor:
    """The mean of the elements around each place, weighted by how close they are."""
    t = as_float(x)
    dtype = t.type.dtype
    met = promote(_wide(t).type.dtype, places[0].type.dtype)
    front = moveaxis(cast(t, met), 1, -1)
    lows = [floor(p) for p in places]
    shares = [cast(p - low, met) for p, low in zip(places, lows, strict=True)]
    total: Tensor | None = None
    for corner in product((0, 1), repeat=len(places)):
        at = [low + up for low, up in zip(lows, corner, strict=True)]
        weight: Any = 1
        for share, up in zip(shares, corner, strict=True):
            weight = weight * (share if up else 1 - share)
        seen = _read(front, at)
        if zeros:
            seen = where(expand_dims(_inside(at, t.shape[2:]), -1), seen, 0)
        part = seen * expand_dims(weight, -1)
        total = part if total is None else total + part
    assert total is not None, "an image has a spatial axis"
    return moveaxis(cast(total, dtype), -1, 1)


def affine_grid(theta: TensorLike, size: Any, align_corners: bool = True) -> Tensor:
    """The grid for `grid_sample` that an affine map of coordinates gives.

        grid[n, p] = theta[n] @ (coordinates of pixel p, that of the last axis first; 1)

    size    of the image to be made, [N, C, S...] or its spatial sizes alone.
    Shapes  theta [N, d, d + 1] of d spatial axes -> [N, S..., d].
    Errors  ShapeError if the shapes do not match.
    PyTorch's nn.functional.affine_grid, whose align_corners is False by default.
    """
    t = as_float(theta)
    sizes = as_shape(size)
    count = t.shape[1] if t.ndim == 3 and isinstance(t.shape[1], int) else 0
    if not count or t.shape[2] != count + 1 or len(sizes) not in (count, count + 2):
        fail(
            ShapeError,
            "affine_grid: theta and the size do not match",
            expected="theta [N, d, d + 1], size [N, C, S...] with d spatial sizes",
            got=f"{t.type} and {list(sizes)}",
        )
    sizes = sizes[-count:]
    wide = _wide(t)
    columns = []
    for a in range(count - 1, -1, -1):
        n = sizes[a]
        twice = 2 * as_tensor(arange(n), wide.dtype) - (n - 1)
        line = twice / (largest(n - 1, 1) if align_corners else n)
        columns.append(broadcast(line.reshape((n, *(1,) * (count - 1 - a))), sizes))
    points = stack([*columns, ones(sizes, wide.dtype)], -1).reshape((-1, count + 1))
    grid = matmul(points, swapaxes(wide, 1, 2)).reshape((t.shape[0], *sizes, count))
    return cast(grid, t.type.dtype)


def imrotate(
    x: TensorLike, theta: TensorLike, method: str = "bilinear", rotation_center: Any = None
) -> Tensor:
    """Each image of a batch, turned counter-clockwise by theta radians about a pixel.

        y[h, w] = x at (cy + sin*(w - cx) + cos*(h - cy), cx + cos*(w - cx) - sin*(h - cy))

    theta            one number for all images, or one for each: [N].  Quarter turns by a number
                     that is known while tracing are exact.
    rotation_center  (cy, cx), counted from 0; (H // 2, W // 2) by default.
    method           "bilinear", or "nearest" (halves to the even pixel, counted from 1 as Flux
                     does), which alone takes integers.
    Shapes   x [N, C, H, W] -> the same; 0 where the place is outside of the image.
    Gradient by x and, which Flux does not have, by theta.
    Errors   ShapeError for other shapes or another method; DTypeError for integers.
    """
    t = as_tensor(x)
    if t.ndim != 4:
        fail(ShapeError, "imrotate takes images [N, C, H, W]", got=str(t.type))
    if method not in ("bilinear", "nearest"):
        fail(ShapeError, f"imrotate: method {method!r}", expected="'bilinear' or 'nearest'")
    if method == "bilinear" and not t.type.dtype.is_float:
        fail(DTypeError, "imrotate of integers", got=str(t.type), hint="method='nearest'")
    n, _, *sizes = t.shape
    centers = [floordiv(s, 2) for s in sizes] if rotation_center is None else list(rotation_center)
    if len(centers) != 2:
        got = repr(rotation_center)
        fail(ShapeError, "imrotate: rotation_center", expected="two numbers", got=got)
    dtype = ir.f64 if t.type.dtype == ir.f64 else ir.f32
    down, right = (
        (as_tensor(arange(s), dtype) - c).reshape(shape)
        for s, c, shape in zip(sizes, centers, ((sizes[0], 1), (1, sizes[1])), strict=True)
    )
    sine, cosine = _sine_cosine(theta, n, dtype)
    turned = (sine * right + cosine * down, cosine * right - sine * down)
    places = [broadcast(p + c, (n, *sizes)) for p, c in zip(turned, centers, strict=True)]
    if method == "nearest":
        return _nearest(t, [to_whole(p + 1) - 1 for p in places], zeros=True)
    inside = expand_dims(_inside(places, t.shape[2:]), 1)
    return where(inside, _interpolated(t, places, zeros=False), 0)


def _sine_cosine(theta: TensorLike, n: Size, dtype: ir.DType) -> tuple[Any, Any]:
    if not isinstance(theta, Operators):
        return _nearly_whole(math.sin(theta)), _nearly_whole(math.cos(theta))  # type: ignore[arg-type]
    angle = as_tensor(theta, dtype)
    if angle.shape not in ((), (n,)):
        fail(ShapeError, "imrotate: one angle, or one for each image", got=str(angle.type))
    each = angle if angle.ndim == 0 else angle.reshape((n, 1, 1))
    return sin(each), cos(each)


def _nearly_whole(v: float) -> float:
    """A whole number where it is one but for the rounding of the angle."""
    return float(round(v)) if abs(v - round(v)) < 1e-12 else v
