"""Multi-head attention, its cache of keys and values, and embeddings of positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from fluxc import init as inits
from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.module import Module, Param, State
from fluxc.nn.basic import Dense
from fluxc.nn.checks import checked_size, count, float_input
from fluxc.nn.dropout import Dropout
from fluxc.ops.attention import attended
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail, training

if TYPE_CHECKING:
    from fluxc.types import DTypeLike

__all__ = [
    "KVCache", "MultiHeadAttention", "PositionEmbedding", "RotaryEmbedding", "SinusoidalEmbedding",
]  # fmt: skip


class KVCache(Module):
    """Keys and values of the tokens seen so far, which the model keeps between calls.

    Shapes  k [batch, nheads, length, d], v [batch, nheads, length, d_v], both 0 at first; nheads
            is that of the keys (MultiHeadAttention's nkvheads).

        cache = nn.KVCache(1, 8, 256, 64)

        @fx.export(stateful=True)
        def decode(token: fx.i32[1, 1], position: fx.i32):
            y, _ = attention.step(embed(token), cache, position)
    """

    def __init__(
        self,
        batch: int,
        nheads: int,
        length: int,
        d: int,
        d_v: int | None = None,
        dtype: DTypeLike = "f32",
    ) -> None:
        sizes = {"batch": batch, "nheads": nheads, "length": length, "d": d}
        lead = [count(f"KVCache: {name}", size) for name, size in sizes.items()]
        self.k = State(lead, dtype=dtype)
        self.v = State([*lead[:3], d if d_v is None else count("KVCache: d_v", d_v)], dtype=dtype)

    def append(self, k: TensorLike, v: TensorLike, position: TensorLike) -> tuple[Tensor, Tensor]:
        """Write keys and values [batch, nheads, n, d] from `position` on; all keys and values.

        Rows that are not written yet are 0, for a causal mask to hide.  A position beyond
        length - n is moved back to it.
        """
        keys, values = appended((self.k, self.v), k, v, position)
        self.k.assign(keys)
        self.v.assign(values)
        return keys, values

    def describe(self) -> str:
        *lead, d = self.k.shape
        d_v = self.v.shape[-1]
        sizes = [*lead, d] if d == d_v else [*lead, d, d_v]
        return f"KVCache({', '.join(map(str, sizes))})"


Cache: TypeAlias = "KVCache | tuple[TensorLike, TensorLike]"


def appended(
    cache: tuple[TensorLike, TensorLike], k: TensorLike, v: TensorLike, position: TensorLike
) -> tuple[Tensor, Tensor]:
    """The two tensors of a cache with new rows at `position` of their second last axis."""
    at = as_tensor(position)
    found = []
    for old, new in zip(cache, (k, v), strict=True):
        whole, part = as_tensor(old), as_tensor(new)
        others = [s for i, s in enumerate(whole.shape) if i != whole.ndim - 2]
        if whole.ndim != part.ndim or others != [
            s for i, s in enumerate(part.shape) if i != part.ndim - 2
        ]:
            fail(
                ShapeError,
                "the cache is one for other keys and values",
                expected="[batch, nheads, length, d], [batch, nheads, n, d]",
                got=f"{whole.type}, {part.type}",
            )
        starts = [as_tensor(0)] * whole.ndim
        starts[-2] = at
        found.append(ops.dynamic_update_slice(whole, part, starts))
    return found[0], found[1]


class MultiHeadAttention(Module):
    """y = out_proj(attention(q_proj(q), k_proj(k), v_proj(v))), and the weights alpha of each head.

    `MultiHeadAttention(64)`, `MultiHeadAttention(64, 32, 64)` (in, qkv, out),
    `MultiHeadAttention(64, (32, 48), 64)` (in, (qk, v), out),
    `MultiHeadAttention((64, 80, 80), (32, 48), 64)` ((q_in, k_in, v_in), (qk, v), out).
    Heads are neighbouring chunks of qk and v.  PyTorch's MultiheadAttention.

    nheads    how many, 8 by default; it divides qk and v.  `MultiHeadAttention(64, 4)` has 4.
    nkvheads  how many heads keys and values have, where `nheads / nkvheads` heads of queries share
              one: grouped-query attention, with 1 multi-query attention.  qk and v are the sizes
              of all heads of queries; k_proj and v_proj are smaller by nheads / nkvheads.
    bias      of the four projections.
    dropout_prob  of the weights, in training.
    rotary    a RotaryEmbedding that turns queries and keys by their positions.
    window    a query sees so many keys up to its own position (see `fx.attention`).

    Shapes    q [..., q_len, q_in], k [..., kv_len, k_in], v [..., kv_len, v_in]
              -> y [..., q_len, out], alpha [..., nheads, q_len, kv_len], after dropout.
              `mha(x)` is mha(x, x, x), `mha(q, kv)` is mha(q, kv, kv).
    bias, mask, causal and position of the call are those of `fx.attention`; alpha costs nothing
    where it is not used.  A query that sees no key has zeros in place of its mean of values.
    Errors    ShapeError for sizes that heads do not divide, or that inputs do not have.
    """

    def __init__(
        self,
        *dims: Any,
        nheads: int | None = None,
        nkvheads: int | None = None,
        bias: bool = False,
        init: Any = inits.glorot_uniform,
        dropout_prob: float = 0.0,
        rotary: RotaryEmbedding | None = None,
        window: int | None = None,
        dtype: DTypeLike = "f32",
    ) -> None:
        if len(dims) == 2 and nheads is None:
            *dims, nheads = dims  # type: ignore[assignment]
        (q_in, k_in, v_in), (qk, v), out = _sizes(tuple(dims))
        self.nheads = count("MultiHeadAttention: nheads", 8 if nheads is None else nheads)
        shared = self.nheads if nkvheads is None else nkvheads
        self.nkvheads = count("MultiHeadAttention: nkvheads", shared)
        _check_divides("nkvheads", self.nkvheads, "nheads", self.nheads)
        _check_divides("nheads", self.nheads, "the features of queries and keys", qk)
        _check_divides("nheads", self.nheads, "the features of values", v)
        options = {"bias": bias, "init": init, "dtype": dtype}
        self.q_proj = Dense(q_in, qk, **options)
        self.k_proj = Dense(k_in, qk // self.nheads * self.nkvheads, **options)
        self.v_proj = Dense(v_in, v // self.nheads * self.nkvheads, **options)
        self.attn_drop = Dropout(dropout_prob)
        self.out_proj = Dense(v, out, **options)
        self.rotary, self.window = rotary, window

    def __call__(
        self,
        q: TensorLike,
        k: TensorLike | None = None,
        v: TensorLike | None = None,
        bias: TensorLike | None = None,
        *,
        mask: TensorLike | None = None,
        causal: bool = False,
        position: TensorLike = 0,
    ) -> tuple[Tensor, Tensor]:
        k = q if k is None else k
        v = k if v is None else v
        self._check_input(q, k, v)
        heads = self._heads(q, k, v, position, 0)
        y, alpha = attended(
            *heads, bias, mask, causal=causal, window=self.window, position=position,
            dropout=self._dropout(),
        )  # fmt: skip
        return self.out_proj(ops.merge_heads(y)), alpha

    def _dropout(self) -> Dropout | None:
        return self.attn_drop if training() and self.attn_drop.p else None

    def step(
        self,
        x: TensorLike,
        cache: Cache,
        position: TensorLike,
        bias: TensorLike | None = None,
        *,
        mask: TensorLike | None = None,
    ) -> tuple[Tensor, Any]:
        """Causal self-attention of the next tokens, whose predecessors' keys are in a cache.

        Shapes    x [batch, n, in], the first of the n at `position`, an integer
                  -> y [batch, n, out], which is what the whole sequence gives for them, and the
                  cache with their keys and values.
        cache     an nn.KVCache, which the model keeps (the entry is fx.export(stateful=True)), or
                  a pair of tensors k, v [batch, nkvheads, length, d] that the caller does.
        """
        self._check_input(x, x, x)
        q, k, v = self._heads(x, x, x, position, position)
        if isinstance(cache, KVCache):
            kept: Any = cache
            keys, values = cache.append(k, v, position)
        else:
            kept = keys, values = appended(cache, k, v, position)
        y = ops.attention(
            q, keys, values, bias, mask, causal=True, window=self.window, position=position,
            dropout=self._dropout(),
        )  # fmt: skip
        return self.out_proj(ops.merge_heads(y)), kept

    def cache(self, batch: int, length: int, dtype: DTypeLike = "f32") -> KVCache:
        """A cache for sequences of up to `length` tokens."""
        d = self.q_proj.out_size // self.nheads
        return KVCache(batch, self.nkvheads, length, d, self.out_proj.in_size // self.nheads, dtype)

    def _heads(
        self, q: TensorLike, k: TensorLike, v: TensorLike, q_at: TensorLike, k_at: TensorLike
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Projected queries, keys and values, [..., heads, len, d]."""
        queries = ops.split_heads(self.q_proj(q), self.nheads)
        keys = ops.split_heads(self.k_proj(k), self.nkvheads)
        if self.rotary is not None:
            queries, keys = self.rotary(queries, q_at), self.rotary(keys, k_at)
        return queries, keys, ops.split_heads(self.v_proj(v), self.nkvheads)

    def _check_input(self, *inputs: TensorLike) -> None:
        projections = self.q_proj, self.k_proj, self.v_proj
        for name, x, projection in zip("qkv", inputs, projections, strict=True):
            size = projection.in_size
            t = as_tensor(x)
            if t.ndim < 2 or t.shape[-1] != size:
                fail(
                    ShapeError,
                    f"{self.constructor()}: {name} does not fit",
                    expected=f"[..., len, {size}]",
                    got=str(t.type),
                )

    def constructor(self) -> str:
        """The constructor call."""
        q, k, v = self.q_proj, self.k_proj, self.v_proj
        ins, out = (q.in_size, k.in_size, v.in_size), self.out_proj.out_size
        qk, values = q.out_size, self.out_proj.in_size
        if {*ins, qk, values, out} == {out}:
            dims = f"{out}"
        else:
            first = ins[0] if len(set(ins)) == 1 else ins
            dims = f"{first}, {qk if qk == values else (qk, values)}, {out}"
        shared = f", nkvheads={self.nkvheads}" if self.nkvheads != self.nheads else ""
        return f"MultiHeadAttention({dims}, nheads={self.nheads}{shared})"


_FORMS = "d | in, qkv, out | in, (qk, v), out | (q_in, k_in, v_in), (qk, v), out"


def _sizes(dims: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """(q_in, k_in, v_in), (qk, v), out."""
    if len(dims) == 1 and isinstance(dims[0], tuple | list):
        dims = tuple(dims[0])
    ins, inner, out = dims * 3 if len(dims) == 1 else dims if len(dims) == 3 else (None,) * 3
    ins = tuple(ins) if isinstance(ins, tuple | list) else (ins,) * 3
    inner = tuple(inner) if isinstance(inner, tuple | list) else (inner,) * 2
    if out is None or len(ins) != 3 or len(inner) != 2:
        fail(
            ShapeError,
            "MultiHeadAttention: the sizes are not of a known form",
            expected=_FORMS,
            got=", ".join(map(repr, dims)),
            hint="the number of heads is nheads=...",
        )
    names = ("q_in", "k_in", "v_in", "qk", "v", "out")
    sizes = [
        count(f"MultiHeadAttention: {n}", s)
        for n, s in zip(names, (*ins, *inner, out), strict=True)
    ]
    return tuple(sizes[:3]), tuple(sizes[3:5]), sizes[5]


def _check_divides(what: str, divisor: int, name: str, size: int) -> None:
    if size % divisor:
        fail(
            ShapeError,
            f"MultiHeadAttention: {what} does not divide {name}",
            expected=f"a multiple of {divisor}",
            got=str(size),
        )


class RotaryEmbedding(Module):
    """Turns pairs of features of queries and keys by their positions: `fx.rotary` as a layer.

    Shapes  x [..., heads, len, d] -> the same; `size` features, all of d, are turned by default.
    """

    def __init__(
        self, size: int | None = None, *, base: float = 10000.0, interleaved: bool = False
    ) -> None:
        self.size = None if size is None else count("RotaryEmbedding: size", size, 2)
        self.base, self.interleaved = float(base), bool(interleaved)

    def __call__(self, x: TensorLike, position: TensorLike = 0) -> Tensor:
        return ops.rotary(x, position, base=self.base, size=self.size, interleaved=self.interleaved)

    def describe(self) -> str:
        options = [] if self.size is None else [str(self.size)]
        options += [] if self.base == 10000.0 else [f"base={self.base:g}"]
        options += ["interleaved=True"] if self.interleaved else []
        return f"RotaryEmbedding({', '.join(options)})"


class SinusoidalEmbedding(Module):
    """x + sinusoidal(len, d, position): the fixed embedding of positions, added (`fx.sinusoidal`).

    Shapes  x [..., len, d] -> the same.
    scale   x is multiplied by it first; Vaswani et al. take sqrt(d).
    """

    def __init__(self, d: int, *, base: float = 10000.0, scale: float = 1.0) -> None:
        self.d = count("SinusoidalEmbedding: d", d, 2)
        if d % 2:
            fail(ShapeError, "SinusoidalEmbedding: d must be even", got=str(d))
        self.base, self.scale = float(base), float(scale)

    def __call__(self, x: TensorLike, position: TensorLike = 0) -> Tensor:
        t = float_input(x)
        _check_sequence(self, t, self.d)
        added = ops.sinusoidal(t.shape[-2], self.d, position, base=self.base, dtype=t.dtype)
        return (t if self.scale == 1 else t * self.scale) + added

    def describe(self) -> str:
        return f"SinusoidalEmbedding({self.d})"


class PositionEmbedding(Module):
    """x + weight[position : position + len]: a learned embedding of positions, added.

    Shapes  x [..., len, d] -> the same; weight [n, d].
    Errors  ShapeError if len may be more than n: a symbolic one is declared with fx.dim(max=n).
            A position that is a tensor must leave len rows: it is moved back to n - len.
    """

    def __init__(
        self, n: int, d: int, *, init: Any = inits.randn, dtype: DTypeLike = "f32"
    ) -> None:
        self.n, self.d = count("PositionEmbedding: n", n), count("PositionEmbedding: d", d)
        self.weight = Param((n, d), init=init, dtype=dtype)

    def __call__(self, x: TensorLike, position: TensorLike = 0) -> Tensor:
        t = float_input(x, self.weight)
        _check_sequence(self, t, self.d)
        length = t.shape[-2]
        if isinstance(position, int):
            if isinstance(length, int) and position + length > self.n:
                fail(
                    ShapeError,
                    f"{self.describe()}: the sequence is longer than there are positions",
                    expected=f"at most {self.n - position}",
                    got=str(t.type),
                )
            return t + self.weight[position : position + length]
        return t + ops.dynamic_slice(self.weight, (position, 0), (length, self.d))

    def describe(self) -> str:
        return f"PositionEmbedding({self.n}, {self.d})"


def _check_sequence(layer: Module, x: Tensor, d: int) -> None:
    checked_size(layer, x, -1, d, f"[..., len, {d}]")
    if x.ndim < 2:
        fail(ShapeError, f"{layer.describe()}: one row is no sequence", got=str(x.type))
