"""Fitting a line: the smallest training there is.

Two parameters, a loss, and gradient descent: everything that a large model has.  The data lie on
y = 4*x + 2 with a little noise; one dense layer of one input and one output is a line too, and the
compiled step moves its slope and intercept downhill until it lies on the other.

    python examples/line.py
"""

import numpy as np

import fluxc as fx
from fluxc import losses, nn, optim

line = nn.Dense(1, 1)


@fx.export
def predict(x: fx.f32["n", 1]):
    return line(x)


@fx.export(optimizer=optim.Descent(0.1))
def train_step(x: fx.f32["n", 1], y: fx.f32["n", 1]):
    return losses.mse(line(x), y)


def main():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (200, 1)).astype(np.float32)
    y = (4 * x + 2 + rng.normal(0, 0.05, x.shape)).astype(np.float32)

    model = fx.compile(__file__).Model(seed=0)
    first = model.train_step(x, y)
    for _ in range(200):
        last = model.train_step(x, y)
    slope, intercept = model.parameters["weight"].item(), model.parameters["bias"].item()
    print(f"loss {first:.3f} -> {last:.4f}")
    print(f"y = {slope:.2f}*x + {intercept:.2f}")
    print(f"at x = 0.5: {model.predict(np.array([[0.5]], np.float32)).item():.2f}")


if __name__ == "__main__":
    main()
