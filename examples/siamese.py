"""A Siamese network: are these two digits the same?

One network maps an image to a point of a space of eight dimensions, and the same network, with the
same weights, maps another one.  The contrastive loss pulls the points of a like pair together
and pushes those of an unlike pair apart, until they are a margin away:

    d**2                    for a like pair,
    max(0, margin - d)**2   for an unlike one.

No class is ever named: what is learned is a distance.  A threshold, the best one for the training's
pairs, then tells like pairs from unlike ones among images that the network never saw; the same is
done with the distance of the pixels.

    python examples/siamese.py
"""

import numpy as np
from digits import load_digits

import fluxc as fx
from fluxc import losses, nn, optim, train

MARGIN = 1.0

twin = nn.Chain(
    nn.Conv((3, 3), 1, 16, fx.relu, pad=nn.SamePad()),
    nn.MaxPool((2, 2)),
    nn.Conv((3, 3), 16, 32, fx.relu, pad=nn.SamePad()),
    nn.MaxPool((2, 2)),
    nn.flatten,
    nn.Dense(32 * 2 * 2, 8),
)


@fx.export
def distance(a: fx.f32["n", 64], b: fx.f32["n", 64]):
    """How far apart the network sees the images of each pair: [n]."""
    images = [x.reshape((-1, 1, 8, 8)) for x in (a, b)]
    return fx.vector_norm(twin(images[0]) - twin(images[1]), axis=-1)


@fx.export(optimizer=optim.Adam(2e-3))
def train_step(a: fx.f32["n", 64], b: fx.f32["n", 64], unlike: fx.f32["n"]):
    """One step on pairs; `unlike` is 1 where the two show different digits, else 0."""
    return losses.siamese_contrastive_loss(distance(a, b), unlike, margin=MARGIN)


def pairs(rng, x, y, count):
    """As many like pairs as unlike ones."""
    a, b = rng.integers(len(x), size=(2, count))
    for i in range(0, count, 2):
        b[i] = rng.choice(np.flatnonzero(y == y[a[i]]))
    return x[a], x[b], (y[a] != y[b]).astype(np.float32)


def told_apart(fitted, asked):
    """How often a threshold of the distance is right, where it is the best one for other pairs."""
    distances, unlike = fitted
    candidates = np.quantile(distances, np.linspace(0, 1, 101))
    threshold = max(candidates, key=lambda c: np.mean((distances > c) == unlike))
    distances, unlike = asked
    return np.mean((distances > threshold) == unlike)


def by_pixels(a, b):
    """How far apart two images are as they stand."""
    return np.linalg.norm(a - b, axis=1)


def main():
    rng = np.random.default_rng(0)
    training, held_out = load_digits()
    model = fx.compile(__file__).Model(seed=0)
    train.fit(model.train_step, [pairs(rng, *training, 64) for _ in range(800)])

    *fitted, unlike_fitted = pairs(rng, *training, 2000)
    *asked, unlike = pairs(rng, *held_out, 2000)
    found = model.distance(*asked)
    print(f"like pairs are {found[unlike == 0].mean():.2f} apart", end=", ")
    print(f"unlike ones {found[unlike == 1].mean():.2f}")
    for title, distance in (("network", model.distance), ("pixels", by_pixels)):
        right = told_apart((distance(*fitted), unlike_fitted), (distance(*asked), unlike))
        print(f"told apart by the {title}: {right:.1%}")


if __name__ == "__main__":
    main()
