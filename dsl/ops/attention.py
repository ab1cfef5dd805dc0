"""Attention over tensors: the general form, Flux's form, masks, and rotated positions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Dim
from fluxc.ops.contract import matmul
from fluxc.ops.create import arange
from fluxc.ops.elementwise import as_float, cos, exp, sin, where
from fluxc.ops.layout import concatenate, expand_dims, stack, swapaxes
from fluxc.ops.reduce import max, stop_gradient, sum
from fluxc.tensor import (
    Tensor,
    TensorLike,
    as_tensor,
    broadcast_shapes,
    cast,
    common_dtype,
)
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.dims import Size

__all__ = [
    "attention", "dot_product_attention", "dot_product_attention_scores", "make_causal_mask",
    "merge_heads", "rotary", "sinusoidal", "split_heads",
]  # fmt: skip

Dropout = "Callable[[Tensor], Tensor] | None"


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
    weights = _Weights(q, k, v, bias, mask, causal, window, position, scale, dropout)
    return weights.apply()


def dot_product_attention(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    bias: TensorLike | None = None,
    *,
    mask: TensorLike | None = None,
    nheads: int = 1,
    nkvheads: int | None = None,
    causal: bool = False,
    window: int | None = None,
    position: TensorLike = 0,
    scale: TensorLike | None = None,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """`attention` whose heads are neighbouring chunks of the features, and its weights.

    Shapes  q [..., q_len, d], k [..., kv_len, d], v [..., kv_len, e] -> y [..., q_len, e] and
            alpha [..., nheads, q_len, kv_len], after dropout; bias and mask as in `attention`.
            With nkvheads the features of k and v are those of so many heads.
    alpha costs nothing where it is not used.  Flux's fdrop is `dropout`.
    Errors  ShapeError where heads do not divide the features.
    """
    kv = nheads if nkvheads is None else nkvheads
    heads = split_heads(q, nheads), split_heads(k, kv), split_heads(v, kv)
    weights = _Weights(*heads, bias, mask, causal, window, position, scale, dropout)
    return merge_heads(weights.apply()), weights.alpha()


def dot_product_attention_scores(
    q: TensorLike,
    k: TensorLike,
    bias: TensorLike | None = None,
    *,
    mask: TensorLike | None = None,
    nheads: int = 1,
    nkvheads: int | None = None,
    causal: bool = False,
    window: int | None = None,
    position: TensorLike = 0,
    scale: TensorLike | None = None,
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The weights alpha of `dot_product_attention`.

    Shapes  q [..., q_len, d], k [..., kv_len, d] -> [..., nheads, q_len, kv_len].
    """
    keys = split_heads(k, nheads if nkvheads is None else nkvheads)
    heads = split_heads(q, nheads), keys, keys
    return _Weights(*heads, bias, mask, causal, window, position, scale, dropout).alpha()


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


class _Weights:
    """The weights of attention, not yet divided by their sums: e = exp(logits - max)."""

    def __init__(
        self,
        q: TensorLike,
        k: TensorLike,
        v: TensorLike,
        bias: TensorLike | None,
        mask: TensorLike | None,
        causal: bool,
        window: int | None,
        position: TensorLike,
        scale: TensorLike | None,
        dropout: Callable[[Tensor], Tensor] | None,
    ) -> None:
        met = common_dtype(as_float(q), as_float(k), as_float(v))
        wide = ir.f32 if met.bits == 16 else met
        q, k, self.v = (as_tensor(x, wide) for x in (q, k, v))
        _check_operands(q, k, self.v)
        self.dtype = met
        self.groups = _groups(q, k)
        factor = 1 / math.sqrt(_features(q)) if scale is None else as_tensor(scale, wide)
        logits = self._apart(matmul(self._together(q), swapaxes(k, -1, -2)) * factor)
        if bias is not None:
            logits = _joined(logits, as_tensor(bias, wide), "bias")
        seen = _seen(logits, mask, causal, window, position)
        if seen is not None:
            logits = where(seen, logits, -math.inf)
        e = exp(logits - _shift(logits))
        total = sum(e, -1, keepdims=True)
        # The sum of a query that sees no key is 0: so are its weights.
        self.total = where(total == 0, 1.0, total)
        self.e = e if dropout is None else _dropped(dropout, e)

    def apply(self) -> Tensor:
        """The weighted means of v."""
        means = self._apart(matmul(self._together(self.e), self.v)) / self.total
        return cast(means, self.dtype)

    def alpha(self) -> Tensor:
        return cast(self.e / self.total, self.dtype)

    def _together(self, x: Tensor) -> Tensor:
        """[..., heads, q_len, n] -> [..., kv_heads, heads / kv_heads * q_len, n]."""
        if self.groups == 1:
            return x
        *lead, heads, rows, n = x.shape
        return x.reshape((*lead, heads // self.groups, rows * self.groups, n))

    def _apart(self, x: Tensor) -> Tensor:
        """Undoes `_together`."""
        if self.groups == 1:
            return x
        *lead, heads, rows, n = x.shape
        return x.reshape((*lead, heads * self.groups, rows // self.groups, n))


def _shift(logits: Tensor) -> Tensor:
    """The greatest logit of a row, or 0 where all are -inf."""
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


def _features(q: Tensor) -> Size:
    return q.shape[-1]


def _check_operands(q: Tensor, k: Tensor, v: Tensor) -> None:
    ranks = {x.ndim for x in (q, k, v)}
    fits = len(ranks) == 1 and min(ranks) >= 2
    if not fits or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        fail(
            ShapeError,
            "attention: queries, keys and values do not fit each other",
            expected="[..., heads, q_len, d], [..., kv_heads, kv_len, d], "
            "[..., kv_heads, kv_len, e]",
            got=f"{q.type}, {k.type}, {v.type}",
        )
    if q.ndim >= 3 and k.shape[-3] != v.shape[-3]:
        fail(ShapeError, "attention: keys and values differ in heads", got=f"{k.type}, {v.type}")


def _groups(q: Tensor, k: Tensor) -> int:
    """How many heads of queries share one of keys."""
    if q.ndim < 3 or q.shape[-3] == k.shape[-3]:
        return 1
    heads, shared = q.shape[-3], k.shape[-3]
    if not (isinstance(heads, int) and isinstance(shared, int)) or not shared or heads % shared:
        fail(
            ShapeError,
            "attention: the heads of the keys do not divide those of the queries",
            got=f"{q.type} and {k.type}",
        )
    return heads // shared


def _joined(logits: Tensor, bias: Tensor, what: str) -> Tensor:
    _check_broadcasts(logits, bias, what)
    return logits + bias


def _check_broadcasts(logits: Tensor, x: Tensor, what: str) -> None:
    if x.ndim > logits.ndim or broadcast_shapes(x.shape, logits.shape) != logits.shape:
        fail(
            ShapeError,
            f"attention: the {what} does not broadcast to the logits",
            expected=f"[..., heads, q_len, kv_len] = {logits.type}",
            got=str(x.type),
        )


def _seen(
    logits: Tensor,
    mask: TensorLike | None,
    causal: bool,
    window: int | None,
    position: TensorLike,
) -> Tensor | None:
    """Which keys a query sees, or None where it sees all."""
    seen = _near(logits, causal, window, position)
    if mask is None:
        return seen
    given = as_tensor(mask)
    if given.type.dtype != ir.bool_:
        fail(
            DTypeError,
            "attention: a mask says which keys are seen",
            expected="bool",
            got=str(given.type),
            hint="mask != 0; floats that are added are a bias",
        )
    _check_broadcasts(logits, given, "mask")
    return given if seen is None else seen & given


def _near(logits: Tensor, causal: bool, window: int | None, position: TensorLike) -> Tensor | None:
    """What causal and window let through."""
    if window is not None and (isinstance(window, bool) or window < 1):
        fail(ShapeError, f"attention: window={window!r}", expected="an integer >= 1")
    if not causal and window is None:
        return None
    rows, columns = logits.shape[-2:]
    query = expand_dims(places(position, rows, logits.shape[:-3]), -1)
    key = arange(columns)
    seen = key <= query if causal else None
    if window is not None:
        after = key > query - window
        seen = after & (seen if seen is not None else key < query + window)
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
    where_ = places(position, x.shape[-2], x.shape[:-3])
    angle = _angles(where_, turned // 2, base, wide)
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
