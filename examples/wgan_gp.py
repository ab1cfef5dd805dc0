"""A Wasserstein GAN with a gradient penalty: a loss that has a gradient in it.

A critic gives points a height.  If it is nowhere steeper than 1, then no critic can put two clouds
of points farther apart, in the mean of their heights, than the earth mover's distance: how far the
points of one must be carried, at least, to make the other.  The best such critic tells exactly that
distance, and its slope tells a generator where to move its points.  Gulrajani and others (2017) ask
for the steepness in the loss:

    mean(critic(b)) - mean(critic(a)) + strictness * mean((|gradient of the critic| - 1)**2)

The gradient is taken by points somewhere between the clouds; training differentiates it once more,
by the critic's weights.  In fluxc that is `fx.grad` in an entry that has an optimizer.

    python examples/wgan_gp.py
"""

import numpy as np

import fluxc as fx
from fluxc import nn, optim

LATENT = 4


def network(inputs, outputs):
    return nn.Chain(
        nn.Dense(inputs, 64, fx.leakyrelu), nn.Dense(64, 64, fx.leakyrelu), nn.Dense(64, outputs)
    )


critic, unbounded, generator = network(2, 1), network(2, 1), network(LATENT, 2)
adam = optim.Adam(1e-3, beta=(0.0, 0.9))


def make(n):
    """Points of the generator, from normal numbers."""
    return generator(fx.random.normal((n, LATENT)))


def steepness(f, points):
    """The length of the gradient at each point: [n, 2] -> [n]."""
    return fx.vector_norm(fx.grad(lambda p: f(p).sum())(points), axis=-1)


def apart(f, a, b):
    return f(a).mean() - f(b).mean()


@fx.export(optimizer=adam, wrt=critic)
def critic_step(a: fx.f32["n", 2], b: fx.f32["n", 2], strictness: fx.f32[()]):
    """The loss, and how far apart the critic puts the clouds.

    A strict critic measures well; one that is less strict learns sooner.
    """
    between = a + fx.random.uniform((a.shape[0], 1)) * (b - a)
    penalty = fx.square(steepness(critic, between) - 1).mean()
    distance = apart(critic, a, b)
    return strictness * penalty - distance, distance


@fx.export(optimizer=adam, wrt=unbounded)
def unbounded_step(a: fx.f32["n", 2], b: fx.f32["n", 2]):
    """The same without the penalty: there is no end to how steep a critic can be."""
    distance = apart(unbounded, a, b)
    return -distance, distance


@fx.export(optimizer=adam, wrt=generator)
def generator_step(a: fx.f32["n", 2]):
    """Moves the points that the generator makes to where the critic is higher."""
    return apart(critic, a, make(a.shape[0]))


@fx.export
def draw(like: fx.f32["n", 2]):
    """As many points of the generator as are given."""
    return make(like.shape[0])


@fx.export
def slopes(points: fx.f32["n", 2]):
    """How steep the critics are at the points, in the mean."""
    return steepness(critic, points).mean(), steepness(unbounded, points).mean()


def ring(rng, n):
    """Points near the circle of radius 1."""
    angles = rng.uniform(0, 2 * np.pi, n)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (points + 0.05 * rng.normal(size=(n, 2))).astype(np.float32)


def from_ring(points):
    """How far the points are from the circle, in the mean."""
    return np.abs(np.linalg.norm(points, axis=1) - 1).mean()


def main():
    rng = np.random.default_rng(0)
    package = fx.compile(__file__)

    # A cloud and the same cloud elsewhere are as far apart as the one was shifted.
    model, shift = package.Model(seed=0), np.array([1.2, 0.9], np.float32)
    for _ in range(400):
        a, b = ring(rng, 128), ring(rng, 128) + shift
        _, found = model.critic_step(a, b, 10.0)
        _, unbounded = model.unbounded_step(a, b)
    slope, steep = model.slopes(a)
    print(f"shifted by 1.50: the critic finds {found:.2f} with a slope of {slope:.2f};", end=" ")
    print(f"without the penalty {unbounded:.0f} with {steep:.0f}")

    model = package.Model(seed=1)
    before = from_ring(model.draw(a))
    for step in range(1, 501):
        for _ in range(4):
            a = ring(rng, 128)
            _, found = model.critic_step(a, model.draw(a), 1.0)
        model.generator_step(a)
        if step % 100 == 0:
            print(f"step {step}: the clouds are {found:.2f} apart")
    made = model.draw(ring(rng, 1000))
    eighths = np.histogram(np.arctan2(*made.T), bins=8, range=(-np.pi, np.pi))[0]
    print(f"from the ring: {before:.2f} -> {from_ring(made):.2f}", end=", ")
    print(f"and at least {eighths.min() / len(made):.1%} of the points in each eighth of it")


if __name__ == "__main__":
    main()
