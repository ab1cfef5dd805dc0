"""Transformer blocks: attention and a feed-forward network, each with a norm and a short cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.module import Module
from fluxc.nn.attention import MultiHeadAttention
from fluxc.nn.basic import Dense
from fluxc.nn.checks import count, float_input
from fluxc.nn.dropout import Dropout
from fluxc.nn.normalise import LayerNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.nn.attention import RotaryEmbedding
    from fluxc.tensor import Tensor, TensorLike
    from fluxc.types import DTypeLike

__all__ = [
    "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
    "TransformerEncoderLayer",
]  # fmt: skip


class _Block(Module):
    """What the layers have in common: self-attention, the feed-forward network, short cuts."""

    def __init__(
        self,
        dim: int,
        nheads: int = 8,
        hidden: int | None = None,
        activation: Callable[[Tensor], Tensor] = ops.relu,
        *,
        nkvheads: int | None = None,
        dropout_prob: float = 0.1,
        norm_first: bool = False,
        bias: bool = True,
        eps: float = 1e-5,
        rotary: RotaryEmbedding | None = None,
        window: int | None = None,
        dtype: DTypeLike = "f32",
    ) -> None:
        name = type(self).__name__
        self.dim, self.nheads = count(f"{name}: dim", dim), count(f"{name}: nheads", nheads)
        self.hidden = 4 * dim if hidden is None else count(f"{name}: hidden", hidden)
        self.norm_first, self.eps = bool(norm_first), eps
        shared: dict[str, Any] = {
            "nheads": nheads, "dropout_prob": dropout_prob, "bias": bias, "dtype": dtype
        }  # fmt: skip
        self.attention = MultiHeadAttention(
            dim, nkvheads=nkvheads, rotary=rotary, window=window, **shared
        )
        self._cross(shared)
        self.dense1 = Dense(dim, self.hidden, activation, bias=bias, dtype=dtype)
        self.dense2 = Dense(self.hidden, dim, bias=bias, dtype=dtype)
        self.norm1, self.norm2 = LayerNorm(dim, eps=eps), LayerNorm(dim, eps=eps)
        self.drop = Dropout(dropout_prob)

    def _cross(self, options: dict[str, Any]) -> None:
        """Where a decoder declares its second attention."""

    def _add(self, x: Tensor, norm: LayerNorm, f: Callable[[Tensor], Tensor]) -> Tensor:
        """x + f(norm(x)), or norm(x + f(x))."""
        if self.norm_first:
            return x + self.drop(f(norm(x)))
        return norm(x + self.drop(f(x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dense2(self.drop(self.dense1(x)))

    def _attend_step(self, x: Tensor, cache: Any, position: TensorLike) -> tuple[Tensor, Any]:
        """The short cut around self-attention with a cache."""
        kept: list[Any] = []

        def attend(x: Tensor) -> Tensor:
            y, new = self.attention.step(x, cache, position)
            kept.append(new)
            return y

        return self._add(x, self.norm1, attend), kept[0]

    def cache(self, batch: int, length: int, dtype: DTypeLike = "f32") -> Any:
        """An nn.KVCache for `step`, for sequences of up to `length` tokens."""
        return self.attention.cache(batch, length, dtype)


class TransformerEncoderLayer(_Block):
    """Self-attention, then a feed-forward network.  PyTorch's TransformerEncoderLayer.

        x = norm1(x + drop(attention(x)));  x = norm2(x + drop(dense2(drop(activation(dense1(x))))))

    norm_first    x = x + drop(attention(norm1(x))) and so on: the norm inside the short cut.
    hidden        features between dense1 and dense2, 4 * dim by default.
    dropout_prob  in training; bias: of all projections; eps: of the norms.
    nkvheads, rotary and window are those of MultiHeadAttention.

    Shapes  x [..., len, dim] -> the same; mask broadcasts to [..., nheads, len, len], true where a
            query sees a key; `causal=True` in the call makes it a language model's block.
    """

    def __call__(
        self,
        x: TensorLike,
        bias: TensorLike | None = None,
        *,
        mask: TensorLike | None = None,
        causal: bool = False,
    ) -> Tensor:
        def attend(x: Tensor) -> Tensor:
            return self.attention(x, x, x, bias, mask=mask, causal=causal)[0]

        y = self._add(float_input(x), self.norm1, attend)
        return self._add(y, self.norm2, self._feed_forward)

    def step(self, x: TensorLike, cache: Any, position: TensorLike) -> tuple[Tensor, Any]:
        """What a causal call gives for the next tokens; see MultiHeadAttention.step.

        Shapes  x [batch, n, dim] -> the same, and the cache.
        """
        y, kept = self._attend_step(float_input(x), cache, position)
        return self._add(y, self.norm2, self._feed_forward), kept


class TransformerDecoderLayer(_Block):
    """Causal self-attention, attention to an encoder's result, a feed-forward network.

        x = norm1(x + drop(attention(x)));  x = norm2(x + drop(cross_attention(x, memory)));
        x = norm3(x + drop(dense2(drop(activation(dense1(x))))))

    Options as in TransformerEncoderLayer.  PyTorch's TransformerDecoderLayer, whose self-attention
    is causal only if a mask says so: here `causal=False` lifts that.

    Shapes  x [..., len, dim], memory [..., kv_len, dim] -> [..., len, dim]; mask is that of the
            self-attention, memory_mask broadcasts to [..., nheads, len, kv_len].
    """

    def _cross(self, options: dict[str, Any]) -> None:
        self.cross_attention = MultiHeadAttention(self.dim, **options)
        self.norm3 = LayerNorm(self.dim, eps=self.eps)

    def __call__(
        self,
        x: TensorLike,
        memory: TensorLike,
        *,
        mask: TensorLike | None = None,
        memory_mask: TensorLike | None = None,
        causal: bool = True,
    ) -> Tensor:
        def attend(x: Tensor) -> Tensor:
            return self.attention(x, mask=mask, causal=causal)[0]

        y = self._add(float_input(x), self.norm1, attend)
        return self._after(y, memory, memory_mask)

    def step(
        self,
        x: TensorLike,
        memory: TensorLike,
        cache: Any,
        position: TensorLike,
        *,
        memory_mask: TensorLike | None = None,
    ) -> tuple[Tensor, Any]:
        """What a causal call gives for the next tokens; see MultiHeadAttention.step."""
        y, kept = self._attend_step(float_input(x), cache, position)
        return self._after(y, memory, memory_mask), kept

    def _after(self, x: Tensor, memory: TensorLike, mask: TensorLike | None) -> Tensor:
        def cross(x: Tensor) -> Tensor:
            return self.cross_attention(x, memory, mask=mask)[0]

        y = self._add(x, self.norm2, cross)
        return self._add(y, self.norm3, self._feed_forward)


class _Stack(Module):
    """Layers of one kind, one after another, with a norm behind the last if theirs come first."""

    kind: type[_Block]

    def __init__(self, depth: int, dim: int, nheads: int = 8, *args: Any, **options: Any) -> None:
        name = type(self).__name__
        layers = range(count(f"{name}: depth", depth))
        self.layers: Any = [self.kind(dim, nheads, *args, **options) for _ in layers]
        last = self.layers[-1]
        self.norm = LayerNorm(dim, eps=last.eps) if last.norm_first else None

    def _last(self, x: Tensor) -> Tensor:
        return x if self.norm is None else self.norm(x)

    def cache(self, batch: int, length: int, dtype: DTypeLike = "f32") -> list[Any]:
        """An nn.KVCache for each layer, for `step`."""
        return [layer.cache(batch, length, dtype) for layer in self.layers]


class TransformerEncoder(_Stack):
    """`depth` TransformerEncoderLayers; after layers with norm_first, a LayerNorm.

    `TransformerEncoder(6, 512, 8)`; further arguments are those of the layers.
    Shapes  x [..., len, dim] -> the same; bias, mask and causal of the call are each layer's.
    """

    kind = TransformerEncoderLayer

    def __call__(self, x: TensorLike, bias: TensorLike | None = None, **options: Any) -> Tensor:
        y = float_input(x)
        for layer in self.layers:
            y = layer(y, bias, **options)
        return self._last(y)

    def step(self, x: TensorLike, caches: Any, position: TensorLike) -> tuple[Tensor, list[Any]]:
        """What a causal call gives for the next tokens, with one cache a layer."""
        y, kept = float_input(x), []
        for layer, cache in zip(self.layers, caches, strict=True):
            y, new = layer.step(y, cache, position)
            kept.append(new)
        return self._last(y), kept


class TransformerDecoder(_Stack):
    """`depth` TransformerDecoderLayers; after layers with norm_first, a LayerNorm.

    Shapes  x [..., len, dim], memory [..., kv_len, dim] -> [..., len, dim].
    """

    kind = TransformerDecoderLayer

    def __call__(self, x: TensorLike, memory: TensorLike, **options: Any) -> Tensor:
        y = float_input(x)
        for layer in self.layers:
            y = layer(y, memory, **options)
        return self._last(y)

    def step(
        self,
        x: TensorLike,
        memory: TensorLike,
        caches: Any,
        position: TensorLike,
        **options: Any,
    ) -> tuple[Tensor, list[Any]]:
        """What a causal call gives for the next tokens, with one cache a layer."""
        y, kept = float_input(x), []
        for layer, cache in zip(self.layers, caches, strict=True):
            y, new = layer.step(y, memory, cache, position, **options)
            kept.append(new)
        return self._last(y), kept
