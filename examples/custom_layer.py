"""A layer of your own with a derivative of your own: weights that are -1, 0 or 1.

Rounding has the derivative 0 almost everywhere, so nothing can be learned through it.  Training
with rounded weights works all the same if the gradient is handed on as if rounding were not there
(the "straight-through" estimate of Bengio, Leonard and Courville, 2013).  That takes two things:

  - `fx.custom_vjp` gives a function the derivative that it should have,
  - `fx.Module` makes a layer: parameters in `__init__`, what it computes in `__call__`.

The same digits are learned with full weights and with weights that have three values, one step
for each row, from the start.  The full weights are then rounded to three values too: what was not
trained for them does worse.

    python examples/custom_layer.py
"""

from pathlib import Path

import numpy as np

import fluxc as fx
from fluxc import losses, nn, optim


@fx.custom_vjp
def ternary(x):
    """The nearest of -1, 0 and 1."""
    return fx.clip(fx.round(x), -1, 1)


# Forward: the result, and what the backward function wants to know.  Backward: what it kept and
# the cotangent of the result give the cotangent of each argument, handed on within the range.
ternary.defvjp(
    lambda x: (ternary.f(x), x),
    lambda x, dy: (fx.where(fx.abs(x) <= 1.5, dy, 0.0),),
)


class TernaryDense(fx.Module):
    """activation(x @ (step * ternary(weight)).T + bias)."""

    def __init__(self, in_size, out_size, activation=fx.identity):
        self.weight = fx.Param((out_size, in_size), init=fx.init.randn)
        self.step = fx.Param((out_size, 1), init=in_size**-0.5)
        self.bias = fx.Param((out_size,), init=0.0)
        self.activation = activation

    def __call__(self, x):
        return self.activation(x @ (self.step * ternary(self.weight)).T + self.bias)


full = nn.Chain(nn.Dense(64, 48, fx.relu), nn.Dense(48, 10))
three = nn.Chain(TernaryDense(64, 48, fx.relu), TernaryDense(48, 10))


@fx.export
def predict_full(x: fx.f32["n", 64]):
    return full(x)


@fx.export
def predict_three(x: fx.f32["n", 64]):
    return three(x)


@fx.export(optimizer=optim.Adam(3e-3))
def train_full(x: fx.f32["n", 64], y: fx.i32["n"]):
    return losses.logitcrossentropy(full(x), y)


@fx.export(optimizer=optim.Adam(3e-3))
def train_three(x: fx.f32["n", 64], y: fx.i32["n"]):
    return losses.logitcrossentropy(three(x), y)


def round_afterwards(model):
    """Three values for each row of the full weights."""
    for name in ("full.layers.0.weight", "full.layers.1.weight"):
        w = model.parameters[name]
        step = 1.5 * np.abs(w).mean(axis=1, keepdims=True)
        model.parameters[name] = step * np.clip(np.rint(w / step), -1, 1)


def main():
    with np.load(Path(__file__).parent / "data" / "digits.npz") as data:
        x, y = data["x"].astype(np.float32) / 16, data["y"].astype(np.int32)
    rng = np.random.default_rng(0)
    held_out, train = np.split(rng.permutation(len(x)), [len(x) // 5])

    model = fx.compile(__file__).Model(seed=0)
    for _ in range(30):
        for part in np.array_split(rng.permutation(train), len(train) // 64):
            model.train_full(x[part], y[part])
            model.train_three(x[part], y[part])

    def accuracy(predict):
        return np.mean(predict(x[held_out]).argmax(1) == y[held_out])

    print(f"full weights: {accuracy(model.predict_full):.1%}")
    print(f"three values, trained so: {accuracy(model.predict_three):.1%}")
    round_afterwards(model)
    print(f"three values, rounded afterwards: {accuracy(model.predict_full):.1%}")


if __name__ == "__main__":
    main()
