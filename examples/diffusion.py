"""Points out of noise: a score-based diffusion model of two half moons.

Noise is added to a point little by little, until after time 1 nothing of it can be told any more:
dx = 25**t dw.  At time t the point has been moved by a normal number of standard deviation

    sigma(t) = sqrt((25**(2*t) - 1) / (2*log(25)))

The way back needs one thing that is not known, the score: in which direction points become more
probable, for each place and time.  A network learns it from points to which noise was added, as
the score of a normal distribution around its centre is known: -z / sigma for noise z*sigma
(Song and others, 2021).  New points begin as noise and follow the score back, a `fx.scan`.

    python examples/diffusion.py
"""

import math
import sys

import numpy as np

import fluxc as fx
from fluxc import data, nn, optim, schedules, train

STEPS = 400  # on the way back
RATE = 25.0
SPREAD = 3.0  # how wide the points lie, beside a noise that grows to 9.8
BEGIN = 1e-3  # where the way back ends: at time 0 there is no noise to learn from


def sigma(t):
    return fx.sqrt((RATE ** (2 * t) - 1) / (2 * math.log(RATE)))


class Score(fx.Module):
    """Which way points become more probable: points [n, 2], times [n] -> [n, 2]."""

    def __init__(self, width=64, scale=3.0):
        # Waves of the time, of random frequencies that stay as they are: "Gaussian Fourier".
        self.scale = scale
        self.frequencies = fx.Param(width // 2, init=fx.init.randn32, trainable=False)
        self.of_time = nn.Dense(width, width)
        self.of_place = nn.Dense(2, width)
        self.rest = nn.Chain(
            nn.Dense(width, width, fx.swish), nn.Dense(width, width, fx.swish), nn.Dense(width, 2)
        )

    def __call__(self, x, t):
        turns = 2 * math.pi * self.scale * t[:, None] * self.frequencies
        waves = fx.concatenate([fx.sin(turns), fx.cos(turns)], axis=-1)
        width = sigma(t)[:, None]
        place = self.of_place(x / fx.sqrt(SPREAD**2 + width**2))
        return self.rest(fx.swish(place + self.of_time(waves))) / width


score = Score()


@fx.export(optimizer=optim.Adam(schedules.Exp(5e-3, 0.999)))
def train_step(x: fx.f32["n", 2]):
    """How far the score at noisy points is from the one of the noise; noise and times are drawn
    anew at each step, inside the compiled program."""
    t = fx.random.uniform(x.shape[:1], BEGIN, 1.0)
    z = fx.random.normal(x.shape)
    width = sigma(t)[:, None]
    return ((score(x + z * width, t) * width + z) ** 2).sum(axis=-1).mean()


@fx.export
def sample(start: fx.f32["n", 2]):
    """Points from standard normal ones: each step follows the score, and all but the last add a
    little noise."""
    dt = (1 - BEGIN) / STEPS

    def back(carry, i):
        x, t = carry[0], 1 - i * dt
        rate = RATE ** (2 * t)
        mean = x + rate * dt * score(x, fx.full(x.shape[:1], t))
        return (mean + fx.sqrt(rate * dt) * fx.random.normal(x.shape), mean), None

    first = (start * sigma(fx.array(1.0)), start)
    return fx.scan(back, first, fx.arange(STEPS).astype(fx.f32))[0][1]


def picture(points):
    """Where the points lie, as letters."""
    counts = np.histogram2d(-points[:, 1], points[:, 0], bins=(12, 48))[0]
    return "\n".join("".join(" .#"[min(int(n), 2)] for n in row) for row in counts)


def nearest(some, others):
    """How far it is from each of some points to the nearest of others, in widths of the moons."""
    return np.sqrt(((some[:, None] - others) ** 2).sum(-1)).min(1) / SPREAD


def main():
    moons = data.make_moons(2000, noise=0.05, seed=0)[0]
    points = (SPREAD * data.normalise(moons)).astype(np.float32)
    compiled = fx.compile(__file__).Model(seed=0)
    train.fit(compiled.train_step, data.DataLoader(points, 250, shuffle=True), epochs=300)

    start = np.random.default_rng(1).normal(size=(1000, 2)).astype(np.float32)
    made = compiled.sample(start)
    print(picture(made))
    near = np.mean(nearest(made, points) < 0.1)
    covered = np.mean(nearest(points, made) < 0.2)
    print(f"of the new points {near:.1%} lie on the moons, and cover {covered:.1%} of them")
    if near < 0.9 or covered < 0.9:
        sys.exit("the score was not learned")


if __name__ == "__main__":
    main()
