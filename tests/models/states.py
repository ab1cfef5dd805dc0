"""States that are only written, only read, or both; entries without an optimiser change them."""

import fluxc as fx
from fluxc import losses, optim

last = fx.State(3, init=0.5)
total = fx.State((), init=2.0)
scale = fx.Param(3, init=1.5)


@fx.export(training=True)
def remember(x: fx.f32["n", 3]):
    """What is written was never read."""
    last.assign(x.sum(0) * scale)
    return x.mean()


@fx.export(training=True)
def accumulate(x: fx.f32["n", 3]):
    total.assign(total + x.sum())
    return total * 2


@fx.export
def recall(x: fx.f32["n", 3]):
    return x + last * total


@fx.export(optimizer=optim.Descent(0.1))
def fit(x: fx.f32["n", 3]):
    last.assign(x.sum(0))
    return losses.mse(x * scale, x * fx.array([0.5, 1.0, 2.0]))
