"""Attention over a sequence, from matrix products alone; positions from a table."""

import fluxc as fx
from fluxc import losses, nn, optim


class Attention(fx.Module):
    def __init__(self, size, heads):
        self.heads = heads
        self.qkv = nn.Dense(size, 3 * size, bias=False)
        self.out = nn.Dense(size, size)

    def __call__(self, x):
        batch, time, size = x.shape
        q, k, v = self.qkv(x).reshape(batch, time, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        scores = q @ k.mT / (size // self.heads) ** 0.5
        past = fx.arange(time)[:, None] >= fx.arange(time)
        weights = fx.softmax(fx.where(past, scores, -1e9), axis=-1)
        return self.out((weights @ v).transpose(0, 2, 1, 3).reshape(batch, time, size))


class Language(fx.Module):
    def __init__(self, vocabulary=11, size=8, longest=16):
        self.tokens = nn.Embedding(vocabulary, size)
        self.positions = fx.Param((longest, size), init=fx.init.randn)
        self.norms = [nn.LayerNorm(size) for _ in range(3)]
        self.attention = Attention(size, 2)
        self.mlp = nn.Chain(nn.Dense(size, 4 * size, fx.gelu), nn.Dense(4 * size, size))

    def __call__(self, tokens):
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        x = x + self.attention(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        return self.norms[2](x) @ self.tokens.weight.T


time = fx.dim("time", min=2, max=16)
language = Language()


@fx.export
def logits(tokens: fx.i32["batch", time]):
    return language(tokens)


@fx.export(optimizer=optim.Chain(optim.ClipNorm(1.0, global_norm=True), optim.Adam(1e-2)))
def train_step(tokens: fx.i32["batch", time]):
    return losses.logitcrossentropy(language(tokens)[:, :-1], tokens[:, 1:])
