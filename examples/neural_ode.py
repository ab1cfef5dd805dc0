"""A neural ordinary differential equation: learn how points move, from where they were seen.

The field is a network.  Training follows it with a fixed number of steps, a `fx.scan`, which has
gradients in reverse.  The answer is computed with steps as long as the error allows, a
`fx.while_loop`: nobody knows beforehand how many there will be.
"""

import sys

import numpy as np

import fluxc as fx
from fluxc import nn, optim

field = nn.Chain(nn.Dense(2, 32, fx.tanh), nn.Dense(32, 2))
SEEN = 20  # points of the path, 0.15 apart
GAP = 0.15


def runge_kutta(x, dt):
    """One classic step of fourth order."""
    a = field(x)
    b = field(x + a * (dt / 2))
    c = field(x + b * (dt / 2))
    d = field(x + c * dt)
    return x + (a + 2 * b + 2 * c + d) * (dt / 6)


@fx.export(optimizer=optim.Adam(1e-2))
def train_step(start: fx.f32["n", 2], path: fx.f32[SEEN, "n", 2]):
    """How far from the points that were seen the field leads."""

    def step(x, seen):
        x = runge_kutta(x, GAP)
        return x, ((x - seen) ** 2).mean()

    return fx.scan(step, start, path)[1].mean()


@fx.export
def flow(start: fx.f32["n", 2], time: fx.f32[()], tolerance: fx.f32[()]):
    """Where the points are at `time`, and in how many steps: two steps of second order against
    one of third tell the error, which tells how long the next step may be."""

    def attempt(carry):
        x, t, dt, count = carry
        dt = fx.minimum(dt, time - t)
        a = field(x)
        b = field(x + a * (dt / 2))
        c = field(x + b * (dt * 3 / 4))
        new = x + (2 * a + 3 * b + 4 * c) * (dt / 9)
        d = field(new)
        error = fx.abs((-5 * a + 6 * b + 8 * c - 9 * d) * (dt / 72)).max()
        good = error <= tolerance
        grow = fx.clip(0.9 * (tolerance / fx.maximum(error, 1e-12)) ** (1 / 3), 0.2, 5.0)
        return fx.where(good, new, x), fx.where(good, t + dt, t), dt * grow, count + 1

    begin = (start, 0.0, 0.1, 0)
    x, _, _, count = fx.while_loop(lambda c: (c[1] < time) & (c[3] < 10000), attempt, begin)
    return x, count


def spiral(start, t):
    """The truth: points go round and draw near the centre."""
    turn = np.exp((-0.2 + 1.5j) * t)
    z = (start[:, 0] + 1j * start[:, 1]) * turn
    return np.stack([z.real, z.imag], axis=-1).astype(np.float32)


def main():
    rng = np.random.default_rng(0)
    model = fx.compile(__file__).Model(seed=0)
    for step in range(600):
        start = rng.uniform(-1, 1, (32, 2)).astype(np.float32)
        path = np.stack([spiral(start, GAP * (i + 1)) for i in range(SEEN)])
        loss = model.train_step(start, path)
        if step % 200 == 0:
            print(f"step {step:3}: loss {loss:.5f}")
    start = rng.uniform(-0.7, 0.7, (16, 2)).astype(np.float32)
    end = GAP * SEEN
    for tolerance in (1e-3, 1e-6):
        x, steps = model.flow(start, end, tolerance)
        print(f"tolerance {tolerance:.0e}: {steps} steps")
    error = float(np.abs(x - spiral(start, end)).max())
    print(f"farthest from the truth: {error:.3f}")
    if error > 0.1:
        sys.exit("the field was not learned")


if __name__ == "__main__":
    main()
