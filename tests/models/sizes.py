"""Sizes: several names, arithmetic on them, ranges, 0 and 1, and every form of index."""

import fluxc as fx
from fluxc import losses, nn, optim

rows = fx.dim("rows", min=8, max=64, multiple_of=8)
line = nn.Dense(3, 2)


@fx.export
def pairs(x: fx.f32["2*n", 3], y: fx.f32["n+1"]):
    """Halves of twice n, and neighbours of n + 1."""
    halves = x.reshape(2, y.shape[0] - 1, 3)
    return halves[0] - halves[1], y[1:] - y[:-1], x.shape[0] * fx.ones(())


@fx.export
def folded(x: fx.f32[rows, 3]):
    return x.reshape(-1, 8, 3).sum(axis=1), x.reshape(4, -1).max(axis=0)


@fx.export
def outer(x: fx.f32["n"], y: fx.f32["m"], z: fx.f32["n", "m", "k"]):
    w = x[:, None] * y
    return (w[..., None] + z).sum(axis=(0, 2)), z.transpose(2, 0, 1), fx.concatenate([x, y])


@fx.export
def cut(x: fx.f32["n", 9, 4]):
    last = x[:, -1, None]
    return x[:, ::2], x[:, ::-1, 1:3], x[:, 7:1:-3], x[..., None, 2], last, x[::-1]


@fx.export
def even(x: fx.i32["n"]):
    return x[::2], x[-1], x[1:-1], x[::-2]


@fx.export
def thin(x: fx.f32["n", 1, 3], nothing: fx.f32["n", 0, 3]):
    both = fx.concatenate([x, nothing], axis=1)
    none = nothing.sum(axis=1)
    return both.sum(1), none, line(nothing), (x + none[:, None]).mean()


@fx.export
def chosen(x: fx.f32["n", 5], at: fx.i32["m"]):
    return x[:, at], x[at], fx.take(x, at, axis=1), fx.one_hot(at, 5)


@fx.export(optimizer=optim.Descent(0.1))
def fit(x: fx.f32[rows, 3], y: fx.f32[rows, 2]):
    return losses.mse(line(x), y)
