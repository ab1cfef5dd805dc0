"""Attention over tensors: the general form and Flux's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import largest, product, size_bounds
from fluxc.ops.einsum import einsum
from fluxc.ops.elementwise import as_float, exp, rsqrt, where
from fluxc.ops.layout import expand_dims, swapaxes
from fluxc.ops.masks import check_broadcasts, check_mask, near
from fluxc.ops.reduce import max, stop_gradient, sum
from fluxc.tensor import (
    Tensor,
    TensorLike,
    as_tensor,
    broadcast,
    broadcast_shapes,
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
    "attention", "dot_product_attention", "dot_product_attention_scores", "merge_heads",
    "split_heads",
]  # fmt: skip


_MANY = 1 << 16  # weights of a head whose products are worth a launch of their own


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
    by_head: bool | None = None,
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
    by_head   computes one head of keys after another, so that the weights of one alone lie in
              memory, in the gradient too, which computes them again.  By default where a head is
              known to have 65536 weights or more: they then stay in a core's cache.
    A query that sees no key, by masks or by a bias of -inf, has zeros as its result, and its
    gradients are 0.  16-bit floats are computed in f32.
    Errors    ShapeError where sizes differ, DTypeError for a mask that is not bool.
    """
    options: dict[str, Any] = {
        "causal": causal,
        "window": window,
        "scale": scale,
        "dropout": dropout,
    }
    if _is_by_head(by_head, q, k):
        return _by_head(q, k, v, bias, mask, position, options)
    return attention_weights(q, k, bias, mask, position=position, **options).means(v)


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
    heads = split_heads(q, nheads), split_heads(k, shared), split_heads(v, shared)
    y, alpha = attended(*heads, bias, mask, **options)
    return merge_heads(y), alpha


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


def attended(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    bias: TensorLike | None,
    mask: TensorLike | None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """`attention` and its weights, of which either may be left unused at no cost."""
    weights = attention_weights(q, k, bias, mask, **options)
    if options.get("dropout") is not None:  # both drop the same weights
        return weights.means(v), weights.alpha()
    return attention(q, k, v, bias, mask, **options), weights.alpha()


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
    products = _products("...gqd,...kd->...gqk", _apart(queries, groups), keys, groups)
    logits = products * _factor(scale, queries)
    seen = near(logits.shape[-2:], queries.shape[:-3], causal, window, position)
    if bias is not None:
        added = as_tensor(bias, wide)
        check_broadcasts(added, logits, groups, "bias")
        logits = logits + _apart(added, groups)
    if mask is not None:
        given = as_tensor(mask)
        check_mask(given, logits, groups)
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
        lead = self.e.shape[:-2] if self.groups == 1 else self.e.shape[:-3]
        _check_values(values, (*lead, self.e.shape[-1]))
        means = _products("...gqk,...kd->...gqd", self.e, values, self.groups) / self.total
        return cast(_together(means, self.groups), promote(self.dtype, values.type.dtype))

    def alpha(self) -> Tensor:
        """The weights themselves, [..., heads, q_len, kv_len]."""
        return cast(_together(self.e / self.total, self.groups), self.dtype)


def _check_values(v: Tensor, keys: tuple[Size, ...]) -> None:
    """The values are as many as the keys [..., kv_heads, kv_len]; batches may broadcast."""
    if v.ndim != len(keys) + 1 or v.shape[-3:-1] != keys[-2:]:
        fail(
            ShapeError,
            "attention: the values do not fit the keys",
            expected=f"[..., {', '.join(map(str, keys[-2:]))}, d]",
            got=str(v.type),
        )


def _products(pattern: str, x: Tensor, y: Tensor, groups: int) -> Tensor:
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


def _is_by_head(asked: bool | None, q: TensorLike, k: TensorLike) -> bool:
    rows, columns = as_tensor(q).shape, as_tensor(k).shape
    if len(rows) < 3 or len(columns) < 3:
        return False
    return size_bounds(rows[-2] * columns[-2])[0] >= _MANY if asked is None else asked


def _by_head(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    bias: TensorLike | None,
    mask: TensorLike | None,
    position: TensorLike,
    options: dict[str, Any],
) -> Tensor:
    """`attention`, head by head of the keys."""
    from fluxc.control import scan

    queries, keys, values = as_tensor(q), as_tensor(k), as_tensor(v)
    groups = _groups(queries, keys)
    _check_values(values, keys.shape[:-1])
    batch = broadcast_shapes(*(x.shape[:-3] for x in (queries, keys, values)))
    heads, shared = queries.shape[-3], keys.shape[-3]
    count, row = product((*batch, shared)), () if groups == 1 else (groups,)

    def each(x: Tensor) -> Tensor:
        """[..., heads, m, n] or [..., 1, m, n] -> [count, groups, m, n]."""
        tail = x.shape[-2:]
        return broadcast(x, (*batch, heads, *tail)).reshape((count, *row, *tail))

    def each_shared(x: Tensor) -> Tensor:
        """[..., kv_heads, m, n] -> [count, 1, m, n]."""
        one, tail = (1,) * len(row), x.shape[-2:]
        return broadcast(x, (*batch, shared, *tail)).reshape((count, *one, *tail))

    own: dict[str, Any] = {}  # a part for each step
    same: dict[str, Any] = dict(options)  # what is one for all heads
    for name, given in (("bias", bias), ("mask", mask)):
        if given is not None:
            x = as_tensor(given)
            if any(s != 1 for s in x.shape[:-2]):
                own[name] = each(x)
            else:
                same[name] = x.reshape(x.shape[-2:])
    at = as_tensor(position)
    if at.ndim:
        own["position"] = broadcast(expand_dims(at, -1), (*batch, shared)).reshape((count,))
    else:
        same["position"] = position

    def step(carry: Any, x: Any) -> Any:
        q, k, v, own = x
        return carry, attention(q, k, v, **own, **same, by_head=False)

    xs = each(queries), each_shared(keys), each_shared(values), own
    y: Tensor = scan(step, (), xs, remat=True)[1]
    return y.reshape((*batch, heads, *y.shape[-2:]))


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
