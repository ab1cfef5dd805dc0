"""A smooth model in f64, for gradients against finite differences."""

import fluxc as fx
from fluxc import losses, nn, optim


class Smooth(fx.Module):
    def __init__(self):
        self.embed = nn.Embedding(5, 3, dtype="f64")
        self.first = nn.Dense(7, 6, fx.tanh, dtype="f64")
        self.second = nn.Dense(6, 6, fx.gelu, dtype="f64")
        self.scale = fx.Param((3, 1), init=1.0, dtype="f64")
        self.last = nn.Dense(6, 4, dtype="f64")

    def __call__(self, kind, x):
        x = fx.concatenate([self.embed(kind), x], axis=1)
        x = self.second(self.first(x))
        x = fx.softplus(x) * fx.exp(-fx.square(x[:, ::-1]))
        x = x.reshape(-1, 3, 2) * self.scale / fx.sqrt(1 + fx.square(x).sum(axis=1))[:, None, None]
        x = fx.concatenate([x[:, 1:], x[:, :1]], axis=1).reshape(-1, 6)
        return self.last(x - x.mean(axis=0) + fx.pad(x[:, 1:4], ((0, 0), (0, 3))))


model = Smooth()


def loss_of(kind, x, y):
    slope = fx.grad(lambda x: fx.logsoftmax(model(kind, x)).mean())(x)
    return losses.logitcrossentropy(model(kind, x), y) + fx.square(slope).sum()


@fx.export(training=True)
def loss(kind: fx.i32["n"], x: fx.f64["n", 4], y: fx.i32["n"]):
    return loss_of(kind, x, y)


@fx.export(optimizer=optim.Descent(1.0))
def descend(kind: fx.i32["n"], x: fx.f64["n", 4], y: fx.i32["n"]):
    return loss_of(kind, x, y)
