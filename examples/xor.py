"""Noisy XOR: two classes that no straight line divides, and a layer that changes with its use.

A point of the unit square is of class 1 if exactly one of its coordinates is above a half.  A
hidden layer of three units suffices; batch normalisation between the layers takes its mean and
variance from the batch while the network trains, records them on the way, and takes the recorded
ones in `predict`.  One model, two compiled entries: which of the two is meant is decided when they
are compiled, not by a switch at run time.

    python examples/xor.py
"""

import numpy as np

import fluxc as fx
from fluxc import losses, nn, optim

model = nn.Chain(
    nn.Dense(2, 3, fx.tanh),
    nn.BatchNorm(3),
    nn.Dense(3, 2),
)


@fx.export
def predict(points: fx.f32["n", 2]):
    """The probability of each class, by the recorded statistics."""
    return fx.softmax(model(points), axis=-1)


@fx.export(optimizer=optim.Adam(0.01))
def train_step(points: fx.f32["n", 2], labels: fx.i32["n"]):
    """One step on a batch, by the batch's own statistics."""
    return losses.logitcrossentropy(model(points), labels)


def draw(rng, n):
    points = rng.random((n, 2), np.float32)
    return points, np.logical_xor(*(points > 0.5).T).astype(np.int32)


def main():
    rng = np.random.default_rng(0)
    points, labels = draw(rng, 1000)
    unseen, truth = draw(rng, 1000)

    compiled = fx.compile(__file__).Model(seed=1)
    before = np.mean(compiled.predict(unseen).argmax(1) == truth)
    for _ in range(500):
        for part in np.array_split(rng.permutation(len(points)), 16):
            compiled.train_step(points[part], labels[part])
    after = np.mean(compiled.predict(unseen).argmax(1) == truth)
    print(f"accuracy on unseen points: {before:.1%} -> {after:.1%}")
    print("recorded means:", compiled.states["layers.1.mean"].round(2))


if __name__ == "__main__":
    main()
