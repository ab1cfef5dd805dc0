"""A spatial transformer: a network that learns where to look.

The digits lie anywhere on a larger canvas, turned a little.  A small network looks at the canvas
and answers with six numbers, an affine map; `fx.affine_grid` makes of it a grid of places,
`fx.grid_sample` reads the canvas at them, and what it reads is what the classifier gets to see
(Jaderberg and others, 2015).  Nobody says where the digits are: reading at a place between pixels
has a derivative by the place, so that the error of the classifier teaches the first network too.

The same classifier is trained on the canvas as it is, for contrast.

    python examples/spatial_transformer.py
"""

import numpy as np
from digits import load_digits

import fluxc as fx
from fluxc import data, losses, nn, optim, train

SIZE = 16  # of the canvas


def classifier():
    return nn.Chain(
        nn.Conv((3, 3), 1, 16, fx.relu),
        nn.MaxPool((2, 2)),
        nn.Conv((3, 3), 16, 32, fx.relu),
        nn.MaxPool((2, 2)),
        nn.flatten,
        nn.Dense(32 * 2 * 2, 64, fx.relu),
        nn.Dense(64, 10),
    )


class SpatialTransformer(fx.Module):
    """The canvas as an affine map shows it; which one, the canvas itself tells."""

    def __init__(self):
        unchanged = np.array([1, 0, 0, 0, 1, 0], np.float32)
        self.localise = nn.Chain(
            nn.Conv((5, 5), 1, 16, fx.relu),
            nn.MaxPool((2, 2)),
            nn.Conv((5, 5), 16, 16, fx.relu),
            nn.flatten,
            nn.Dense(16 * 2 * 2, 32, fx.relu),
            nn.Dense(32, 6, init=fx.init.zeros, bias=unchanged),  # the map that it begins with
        )

    def __call__(self, x):
        theta = self.localise(x).reshape((-1, 2, 3))
        return fx.grid_sample(x, fx.affine_grid(theta, x.shape))


plain = classifier()
look, seeing = SpatialTransformer(), classifier()


@fx.export
def predict(x: fx.f32["n", 1, SIZE, SIZE]):
    return seeing(look(x))


@fx.export
def predict_plain(x: fx.f32["n", 1, SIZE, SIZE]):
    return plain(x)


@fx.export
def seen(x: fx.f32["n", 1, SIZE, SIZE]):
    """What the classifier gets to see."""
    return look(x)


@fx.export(optimizer=optim.Adam(2e-3))
def train_step(x: fx.f32["n", 1, SIZE, SIZE], y: fx.i32["n"]):
    return losses.logitcrossentropy(seeing(look(x)), y)


@fx.export(optimizer=optim.Adam(2e-3))
def train_plain(x: fx.f32["n", 1, SIZE, SIZE], y: fx.i32["n"]):
    return losses.logitcrossentropy(plain(x), y)


def scatter(rng, x):
    """Each digit somewhere on an empty canvas, turned by up to 45 degrees."""
    n = len(x)
    angle = rng.uniform(-np.pi / 4, np.pi / 4, (n, 1, 1))
    middle = rng.uniform(5, SIZE - 6, (2, n, 1, 1))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    down, right = rows - middle[0], columns - middle[1]
    # Where on the digit a pixel of the canvas lies, and the nearest pixel there.
    row = np.rint(np.cos(angle) * down - np.sin(angle) * right + 3.5).astype(int)
    column = np.rint(np.sin(angle) * down + np.cos(angle) * right + 3.5).astype(int)
    inside = (row >= 0) & (row < 8) & (column >= 0) & (column < 8)
    pixels = x.reshape(-1, 8, 8)[np.arange(n)[:, None, None], row.clip(0, 7), column.clip(0, 7)]
    return np.where(inside, pixels, 0)[:, None].astype(np.float32)


def wander(images):
    """How far the middles of what is on the images are from their mean, in the mean."""
    weights = images[:, 0] / (images[:, 0].sum(axis=(1, 2), keepdims=True) + 1e-6)
    middles = np.einsum("nij,kij->nk", weights, np.mgrid[:SIZE, :SIZE])
    return np.linalg.norm(middles - middles.mean(axis=0), axis=1).mean()


def main():
    rng = np.random.default_rng(0)
    (x, y), (x_test, y_test) = load_digits()
    training = scatter(rng, np.tile(x, (3, 1))), np.tile(y, 3)
    held_out = scatter(rng, np.tile(x_test, (2, 1))), np.tile(y_test, 2)

    model = fx.compile(__file__).Model(seed=0)
    batches, unseen = data.DataLoader(training, 64, shuffle=True), data.DataLoader(held_out, 128)
    for title, step, predict in (
        ("the canvas as it is", model.train_plain, model.predict_plain),
        ("what the transformer shows", model.train_step, model.predict),
    ):
        train.fit(step, batches, epochs=6)
        found = train.evaluate(predict, unseen, {"accuracy": train.accuracy})
        print(f"accuracy with {title}: {found['accuracy']:.1%}")

    before, after = wander(held_out[0]), wander(model.seen(held_out[0]))
    print(f"pixels that the digits are off their mean place: {before:.1f} -> {after:.1f}")


if __name__ == "__main__":
    main()
