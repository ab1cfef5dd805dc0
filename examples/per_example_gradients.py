"""Per-example gradients: which images does a model have the hardest time with?

The gradient of a mean loss is the mean of the examples' gradients: a training step never sees the
parts.  `fx.vmap(fx.grad(loss))` gives all of them at once, in one compiled function without a loop:
the gradient is written for one image, and `vmap` adds the batch.  Their lengths tell how much each
example pulls at the model.  Here some digits get wrong labels on purpose, and the lengths find
them.  (Clipping the same gradients one by one and adding noise to the sum is how training with
differential privacy begins.)  Run it:

    python examples/per_example_gradients.py
"""

from pathlib import Path

import numpy as np

import fluxc as fx
from fluxc import losses, nn, optim

WRONG = 40  # labels that are changed

model = nn.Chain(nn.Dense(64, 32, fx.relu), nn.Dense(32, 10))


def loss(m, image, label):
    """The loss of one image: [64], [] -> []."""
    return losses.logitcrossentropy(m(image[None]), label[None])


@fx.export(optimizer=optim.Adam(2e-3))
def train_step(x: fx.f32["batch", 64], y: fx.i32["batch"]):
    return losses.logitcrossentropy(model(x), y)


@fx.export
def gradient_lengths(x: fx.f32["batch", 64], y: fx.i32["batch"]):
    """The length of the gradient of each example's loss, over all parameters: [batch]."""
    each = fx.vmap(fx.grad(loss), in_axes=(None, 0, 0))(model, x, y)
    return fx.sqrt(sum((g * g).reshape((x.shape[0], -1)).sum(1) for g in each.values()))


@fx.export
def mean_gradient(x: fx.f32["batch", 64], y: fx.i32["batch"]):
    """The gradient that a training step uses, and the mean of the examples' gradients: equal."""
    whole = fx.grad(lambda m: losses.logitcrossentropy(m(x), y))(model)
    each = fx.vmap(fx.grad(loss), in_axes=(None, 0, 0))(model, x, y)
    return [(whole[name], each[name].mean(0)) for name in whole]


def main():
    rng = np.random.default_rng(0)
    with np.load(Path(__file__).parent / "data" / "digits.npz") as data:
        x, y = data["x"].astype(np.float32) / 16, data["y"].astype(np.int32)
    changed = rng.choice(len(x), WRONG, replace=False)
    y[changed] = (y[changed] + rng.integers(1, 10, WRONG)) % 10

    compiled = fx.compile(globals()).Model(seed=0)
    for _ in range(12):
        for part in np.array_split(rng.permutation(len(x)), len(x) // 32):
            value = compiled.train_step(x[part], y[part])
    print(f"loss of the last batch: {value:.3f}")

    for whole, mean in compiled.mean_gradient(x[:64], y[:64]):
        np.testing.assert_allclose(whole, mean, rtol=1e-3, atol=1e-6)

    lengths = compiled.gradient_lengths(x, y)
    suspects = np.argsort(-lengths)[:WRONG]
    found = len(set(suspects) & set(changed))
    print(f"median length of a gradient: {np.median(lengths):.3f}")
    print(f"shortest among the {WRONG} longest: {lengths[suspects[-1]]:.3f}")
    print(f"wrong labels among them: {found} of {WRONG}")


if __name__ == "__main__":
    main()
