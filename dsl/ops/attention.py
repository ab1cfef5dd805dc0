"""Attention over tensors: the general form, Flux's form, masks, and rotated positions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Dim, largest
from fluxc.ops.create import arange
from fluxc.ops.einsum import einsum
from fluxc.ops.elementwise import as_float, cos, exp, rsqrt, sin, where
from fluxc.ops.layout import concatenate, expand_dims, stack, swapaxes
from fluxc.ops.reduce import max, stop_gradient, sum
from fluxc.tensor import (
    Tensor,
    TensorLike,
    as_tensor,
    cast,
    common_dtype,
    promote,
    scalar,
)
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.dims import Size

__all__ = [
    "attention", "dot_product_attention", "dot_product_attention_scores", "make_causal_mask",
    "merge_heads", "rotary", "sinusoidal", "split_heads",
]  # fmt: skip


def attention(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    bias: TensorLike | None = None,
    mask: TensorLike | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    position: TensorLike = 0,
    scale: TensorLike | None = None,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """softmax(scale * q @ k.T + bias) @ v, head by head.  PyTorch's scaled_dot_product_attention.

    Shapes    q [..., heads, q_len, d], k [..., kv_heads, kv_len, d], v [..., kv_heads, kv_len, e]
              -> [..., heads, q_len, e].  Leading axes broadcast; a matrix [len, d] is one head.
              Where kv_heads is less than heads it divides it, and neighbouring heads share keys
              and values: grouped-query attention, with kv_heads = 1 multi-query attention.
    bias      floats that are added; they broadcast to [..., heads, q_len, kv_len].
    mask      bools that broadcast likewise: a query sees the keys where it is true.
    causal    a query sees the keys up to its own position.
    window    a query sees the `window` keys up to its own position; without `causal` also the
              window - 1 keys behind it.
    position  which key stands where the first query does, for causal and window: an integer, one
              for all or one for each element of the batch, [...].  0 aligns them as PyTorch does.
    scale     1 / sqrt(d) by default.
    dropout   is applied to the weights, such as nn.Dropout(0.1).
    A query that sees no key, by masks or by a bias of -inf, has zeros as its result, and its
    gradients are 0.  16-bit floats are computed in f32.
    Errors    ShapeError where sizes differ, DTypeError for a mask that is not bool.
    """
    weights = attention_weights(
        q, k, bias, mask, causal=causal, window=window, position=position, scale=scale,
        dropout=dropout,
    )  # fmt: skip
    return weights.means(v)


def dot_product_attention(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    bias: TensorLike | None = None,
    *,
    mask: TensorLike | None = None,
    nheads: int = 1,
    nkvheads: int | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """`attention` whose heads are neighbouring chunks of the features, and its weights.

    Shapes   q [..., q_len, d], k [..., kv_len, d], v [..., kv_len, e] -> y [..., q_len, e] and
             alpha [..., nheads, q_len, kv_len], after dropout; bias and mask as in `attention`.
             With nkvheads the features of k and v are those of so many heads.
    options  causal, window, position, scale and dropout (Flux's fdrop) as in `attention`.
    alpha costs nothing where it is not used.
    Errors   ShapeError where heads do not divide the features.
    """
    shared = nheads if nkvheads is None else nkvheads
    heads = split_heads(q, nheads), split_heads(k, shared)
    weights = attention_weights(*heads, bias, mask, **options)
    return merge_heads(weights.means(split_heads(v, shared))), weights.alpha()


def dot_product_attention_scores(
    q: TensorLike,
    k: TensorLike,
    bias: TensorLike | None = None,
    *,
    mask: TensorLike | None = None,
    nheads: int = 1,
    nkvheads: int | None = None,
    **options: Any,
) -> Tensor:
    """The weights alpha of `dot_product_attention`, with its options.

    Shapes  q [..., q_len, d], k [..., kv_len, d] -> [..., nheads, q_len, kv_len].
    """
    heads = split_heads(q, nheads), split_heads(k, nheads if nkvheads is None else nkvheads)
    return attention_weights(*heads, bias, mask, **options).alpha()


def split_heads(x: TensorLike, nheads: int) -> Tensor:
    """[..., len, features] -> [..., nheads, len, features / nheads]: heads are chunks of features.

    Errors  ShapeError if nheads does not divide the features.
    """
    x = as_tensor(x)
    size = x.shape[-1] if x.ndim else 0
    if x.ndim < 2 or nheads < 1 or not isinstance(size, int) or size % nheads:
        fail(
            ShapeError,
            f"{nheads} heads do not divide the features",
            expected=f"[..., len, a multiple of {nheads}]",
            got=str(x.type),
        )
    parts = x.reshape((*x.shape[:-1], nheads, size // nheads))
    return swapaxes(parts, -2, -3)


def merge_heads(x: TensorLike) -> Tensor:
    """[..., nheads, len, d] -> [..., len, nheads * d]: undoes `split_heads`."""
    x = swapaxes(x, -2, -3)
    return x.reshape((*x.shape[:-2], x.shape[-2] * x.shape[-1]))


def make_causal_mask(x: TensorLike, axis: int = -2) -> Tensor:
    """Bools [len, len], true where key j <= query i: a query sees what is not after it.

    x     a tensor [..., len, features] whose `axis` is the sequence, or the length itself.
    `attention(..., causal=True)` needs no mask.
    """
    length = x if isinstance(x, int | Dim) else as_tensor(x).shape[axis]
    places = arange(length)
    return places <= expand_dims(places, 1)


def attention_weights(
    q: TensorLike,
    k: TensorLike,
    bias: TensorLike | None = None,
    mask: TensorLike | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    position: TensorLike = 0,
    scale: TensorLike | None = None,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> AttentionWeights:
    """The weights of `attention`."""
    met = common_dtype(as_float(q), as_float(k))
    wide = ir.f32 if met.bits == 16 else met
    queries, keys = as_tensor(q, wide), as_tensor(k, wide)
    groups = _groups(queries, keys)
    products = _by_heads("...gqd,...kd->...gqk", _apart(queries, groups), keys, groups)
    logits = products * _factor(scale, queries)
    seen = _near(logits.shape[-2:], queries.shape[:-3], causal, window, position)
    if bias is not None:
        added = as_tensor(bias, wide)
        _check_broadcasts(added, logits, groups, "bias")
        logits = logits + _apart(added, groups)
    if mask is not None:
        given = as_tensor(mask)
        _check_mask(given, logits, groups)
        seen = given if seen is None else seen & given
    if seen is not None:
        logits = where(_apart(seen, groups), logits, -math.inf)
    e = exp(logits - _shift(logits))
    total = sum(e, -1, keepdims=True)
    dropped = e if dropout is None else _dropped(dropout, e)
    # The sum of a query that sees no key is 0: so are its weights.
    return AttentionWeights(dropped, where(total == 0, 1.0, total), groups, met)


@dataclass(frozen=True)
class AttentionWeights:
    """exp(logits - max) [..., heads, q_len, kv_len] and what they are divided by.

    Dividing the means of the values by it, rather than the weights, is less work.
    groups: how many heads of queries share one of keys.  Where it is not 1 the heads are two axes,
            [..., kv_heads, groups, q_len, kv_len].
    dtype:  of queries and keys.
    """

    e: Tensor
    total: Tensor
    groups: int
    dtype: ir.DType

    def means(self, v: TensorLike) -> Tensor:
        """The weighted means of values [..., kv_heads, kv_len, d]."""
        values = as_float(v)
        heads = self.e.shape[:-2] if self.groups == 1 else self.e.shape[:-3]
        fits = values.ndim == len(heads) + 2 and values.shape[-2] == self.e.shape[-1]
        if not fits or values.shape[-3:-2] != heads[-1:]:
            fail(
                ShapeError,
                "attention: the values do not fit the keys",
                expected=f"[..., {', '.join(map(str, (*heads[-1:], self.e.shape[-1])))}, d]",
                got=str(values.type),
            )
        means = _by_heads("...gqk,...kd->...gqd", self.e, values, self.groups) / self.total
        return cast(_together(means, self.groups), promote(self.dtype, values.type.dtype))

    def alpha(self) -> Tensor:
        """The weights themselves, [..., heads, q_len, kv_len]."""
        return cast(_together(self.e / self.total, self.groups), self.dtype)


def _by_heads(pattern: str, x: Tensor, y: Tensor, groups: int) -> Tensor:
    """Products head by head, where `groups` heads of x, axis g of the pattern, share one of y."""
    if groups != 1:
        return einsum(pattern, x, y)
    return einsum(pattern.replace("g", ""), x, y)


def _apart(x: Tensor, groups: int) -> Tensor:
    """[..., heads, m, n] -> [..., heads / groups, groups, m, n]; one head for all is for all."""
    if groups == 1 or x.ndim < 3:
        return x
    *lead, heads, m, n = x.shape
    split = (1, 1) if heads == 1 else (heads // groups, groups)
    return x.reshape((*lead, *split, m, n))


def _together(x: Tensor, groups: int) -> Tensor:
    """Undoes `_apart`."""
    if groups == 1:
        return x
    *lead, heads, _, m, n = x.shape
    return x.reshape((*lead, heads * groups, m, n))


def _factor(scale: TensorLike | None, q: Tensor) -> TensorLike:
    """What the products are multiplied by."""
    if scale is not None:
        return as_tensor(scale, q.dtype)
    size = largest(q.shape[-1], 1)
    return 1 / math.sqrt(size) if isinstance(size, int) else rsqrt(as_tensor(size, q.dtype))


def _shift(logits: Tensor) -> Tensor:
    """The greatest logit of a row, or 0 where all are -inf."""
    if logits.shape[-1] == 0:
        return scalar(0.0, logits.type.dtype)
    greatest = max(stop_gradient(logits), -1, keepdims=True)
    return where(greatest == -math.inf, 0.0, greatest)


def _dropped(dropout: Callable[[Tensor], Tensor], e: Tensor) -> Tensor:
    if not callable(dropout):
        fail(
            DTypeError,
            f"attention: dropout={dropout!r}",
            expected="a function of the weights",
            hint=f"dropout=nn.Dropout({dropout!r})",
        )
    return dropout(e)


def _groups(q: Tensor, k: Tensor) -> int:
    """How many heads of queries share one of keys."""
    if q.ndim != k.ndim or q.ndim < 2 or q.shape[-1] != k.shape[-1]:
        fail(
            ShapeError,
            "attention: queries and keys do not fit each other",
            expected="[..., heads, q_len, d], [..., kv_heads, kv_len, d]",
            got=f"{q.type}, {k.type}",
        )
    if q.ndim < 3 or q.shape[-3] == k.shape[-3]:
        return 1
    heads, shared = q.shape[-3], k.shape[-3]
    if not (isinstance(heads, int) and isinstance(shared, int)) or not shared or heads % shared:
        fail(
            ShapeError,
            "attention: the heads of the keys do not divide those of the queries",
            got=f"{q.type}, {k.type}",
        )
    return heads // shared


def _check_broadcasts(x: Tensor, logits: Tensor, groups: int, what: str) -> None:
    *lead, m, n = logits.shape
    wanted = (*lead, m, n) if groups == 1 else (*lead[:-2], lead[-2] * groups, m, n)
    paired = zip(reversed(x.shape), reversed(wanted), strict=False)
    if x.ndim > len(wanted) or any(s not in (1, t) for s, t in paired):
        fail(
            ShapeError,
            f"attention: the {what} does not broadcast to the logits",
            expected=f"[..., heads, q_len, kv_len] = {logits.type.with_shape(*wanted)}",
            got=str(x.type),
        )


def _check_mask(mask: Tensor, logits: Tensor, groups: int) -> None:
    if mask.type.dtype != ir.bool_:
        fail(
            DTypeError,
            "attention: a mask says which keys are seen",
            expected="bool",
            got=str(mask.type),
            hint="mask != 0; floats that are added are a bias",
        )
    _check_broadcasts(mask, logits, groups, "mask")


def _near(
    size: tuple[Size, ...],
    batch: tuple[Size, ...],
    causal: bool,
    window: int | None,
    position: TensorLike,
) -> Tensor | None:
    """Which keys causal and window let a query see, or None where they let all."""
    if window is not None and (isinstance(window, bool) or window < 1):
        fail(ShapeError, f"attention: window={window!r}", expected="an integer >= 1")
    if not causal and window is None:
        return None
    rows, columns = size
    query = expand_dims(places(position, rows, batch), -1)
    key = arange(columns)
    seen = key <= query if causal else None
    if window is not None:
        after = key > query - window
        seen = after & (key < query + window if seen is None else seen)
    return seen


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


# Positions.


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
    wide = ir.f32 if x.type.dtype.bits == 16 else x.type.dtype
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
    length: Size, size: int, position: TensorLike = 0, *, base: float = 10000.0
) -> Tensor:
    """sin and cos of each place at `size / 2` rates, one after the other (Vaswani et al. 2017).

        y[i, 2j] = sin(place * base**(-2j / size)),  y[i, 2j + 1] = cos(the same)

    Shapes    [length, size] in f32, place i = position + i.
    Errors    ShapeError if the size is odd.
    """
    if size % 2 or size < 2:
        fail(ShapeError, f"sinusoidal: size {size}", expected="an even size")
    angle = _angles(places(position, length, ()), size // 2, base, ir.f32)
    return stack([sin(angle), cos(angle)], -1).reshape((*angle.shape[:-1], size))
