"""Positions in sequences: angles that grow with them, turned features and fixed embeddings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.ops.create import arange
from fluxc.ops.elementwise import as_float, cos, exp, sin
from fluxc.ops.layout import concatenate, expand_dims, stack
from fluxc.tensor import Tensor, TensorLike, as_tensor, cast
from fluxc.trace import fail
from fluxc.types import as_dtype

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.types import DTypeLike

__all__ = ["rotary", "sinusoidal"]


def places(position: TensorLike, length: Size, batch: tuple[Size, ...]) -> Tensor:
    """position, position + 1, ...: [length]; of one position for each of the batch [..., 1, len].

    Errors  ShapeError unless the position is one integer, or those of the batch.
    """
    first = as_tensor(position)
    if not first.type.dtype.is_integer or (first.ndim and first.shape != batch):
        sizes = ", ".join(map(str, batch))
        fail(
            ShapeError,
            "a position is an integer, or one for each element of the batch",
            expected=f"i32[] or i32[{sizes}]",
            got=str(first.type),
        )
    steps = arange(length)
    if isinstance(position, int) and position == 0:
        return steps
    first = cast(first, ir.i32)
    return steps + (expand_dims(first, (-2, -1)) if first.ndim else first)


def _wide(dtype: ir.DType) -> ir.DType:
    """What angles of a dtype are computed in."""
    return ir.f32 if dtype.bits == 16 else dtype


def _angles(places: Tensor, count: int, base: float, dtype: ir.DType) -> Tensor:
    """places[..., i] * base**(-j / count) for j = 0 .. count - 1."""
    rates = exp(arange(count).astype(dtype) * (-math.log(base) / count))
    return expand_dims(cast(places, dtype), -1) * rates


def rotary(
    x: TensorLike,
    position: TensorLike = 0,
    *,
    base: float = 10000.0,
    size: int | None = None,
    interleaved: bool = False,
) -> Tensor:
    """Pairs of features turned by angles that grow with the position: products of a turned query
    and key depend on the distance of their positions alone (RoPE, Su et al. 2021).

        y[2p] = x[2p] cos(a) - x[2p+1] sin(a),  y[2p+1] = x[2p] sin(a) + x[2p+1] cos(a),
        a = place * base**(-2p / size)

    Shapes       x [..., heads, len, d] or [..., len, d] -> the same.
    position     of the first row: an integer, or one for each element of the batch.
    size         how many features, from the first, are turned; all by default.
    interleaved  pairs are neighbours, as in the formula; else feature p and p + size / 2 are a
                 pair, as in Llama and GPT-NeoX.
    Angles are computed in f32 at least.
    Errors       ShapeError if the size is odd, or more than d.
    """
    x = as_float(x)
    d = x.shape[-1] if x.ndim >= 2 else None
    turned = d if size is None else size
    if not isinstance(d, int) or not isinstance(turned, int) or turned % 2 or not 0 < turned <= d:
        fail(
            ShapeError,
            f"rotary: {turned} features cannot be turned in pairs",
            expected="[..., len, d], an even size of at most d",
            got=str(x.type),
        )
    wide = _wide(x.type.dtype)
    at = places(position, x.shape[-2], x.shape[:-3])
    angle = _angles(at, turned // 2, base, wide)
    part = cast(x[..., :turned], wide)
    y = cast(_turned(part, cos(angle), sin(angle), interleaved=interleaved), x.type.dtype)
    return y if turned == d else concatenate([y, x[..., turned:]], -1)


def _turned(x: Tensor, c: Tensor, s: Tensor, *, interleaved: bool) -> Tensor:
    half = x.shape[-1] // 2
    if not interleaved:
        a, b = x[..., :half], x[..., half:]
        return concatenate([a * c - b * s, a * s + b * c], -1)
    pairs = x.reshape((*x.shape[:-1], half, 2))
    a, b = pairs[..., 0], pairs[..., 1]
    return stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)


def sinusoidal(
    length: Size,
    size: int,
    position: TensorLike = 0,
    *,
    base: float = 10000.0,
    dtype: DTypeLike = "f32",
) -> Tensor:
    """sin and cos of each place at `size / 2` rates, one after the other (Vaswani et al. 2017).

        y[i, 2j] = sin(place * base**(-2j / size)),  y[i, 2j + 1] = cos(the same)

    Shapes    [length, size] in `dtype`, place i = position + i.
    Angles are computed in f32 at least.
    Errors    ShapeError if the size is odd.
    """
    if size % 2 or size < 2:
        fail(ShapeError, f"sinusoidal: size {size}", expected="an even size")
    stored = as_dtype(dtype)
    angle = _angles(places(position, length, ()), size // 2, base, _wide(stored))
    y = stack([sin(angle), cos(angle)], -1).reshape((*angle.shape[:-1], size))
    return cast(y, stored)
