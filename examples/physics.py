"""A network that obeys an equation: heat in a rod, from nothing but its physics.

The temperature u(x, t) of a rod whose ends are kept at 0 obeys u_t = RATE * u_xx.  No measurement
is needed to find it: a network stands for u, and the loss says by how much it breaks the equation
at random places, and how far it is from where u begins and from 0 at the ends.  The equation is
made of the network's derivatives by its *inputs*; the training step takes the gradient of those by
the parameters.  That is three derivatives, one in the other, compiled to one native function which
draws its own places (Raissi, Perdikaris and Karniadakis, 2019).

    python examples/physics.py
"""

import math
import sys

import numpy as np

import fluxc as fx
from fluxc import nn, optim, schedules

RATE = 0.1
POINTS = 128  # in the rod's inside, at each step

network = nn.Chain(
    nn.Dense(2, 24, fx.tanh), nn.Dense(24, 24, fx.tanh), nn.Dense(24, 24, fx.tanh), nn.Dense(24, 1)
)


def temperature(at):
    """u at one place and time: [2] -> []."""
    return network(at)[0]


def excess(at):
    """u_t - RATE * u_xx, which is 0 where the equation holds: [2] -> []."""
    along_x = fx.array([1.0, 0.0])
    (_, u_t), (u_xx, _) = fx.jvp(fx.grad(temperature), (at,), (along_x,))
    return u_t - RATE * u_xx


@fx.export(optimizer=optim.Adam(schedules.Exp(1e-2, 0.998)))
def train_step():
    """One step on places and times that are drawn anew."""
    at = fx.random.uniform((POINTS, 2))
    x, t = at[:, :1], at[:, 1:]
    inside = fx.vmap(excess)(at)
    first = network(fx.concatenate([x, fx.zeros_like(x)], axis=1)) - fx.sin(math.pi * x)
    ends = network(fx.concatenate([fx.round(x), t], axis=1))
    return (inside**2).mean() + 10 * (first**2).mean() + 10 * (ends**2).mean()


@fx.export
def predict(at: fx.f32["n", 2]):
    """Temperatures at places and times."""
    return network(at)[:, 0]


def main():
    compiled = fx.compile(__file__).Model(seed=0)
    for step in range(1, 2001):
        loss = compiled.train_step()
        if step % 500 == 0:
            print(f"step {step}: loss {loss:.6f}")

    x, t = np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 41), indexing="ij")
    found = compiled.predict(np.stack([x.ravel(), t.ravel()], 1).astype(np.float32))
    truth = np.exp(-RATE * np.pi**2 * t) * np.sin(np.pi * x)
    error = np.abs(found - truth.ravel()).max()
    print(f"largest error against the exact solution: {error:.4f}")
    if error > 0.02:
        sys.exit("the network does not obey the equation")


if __name__ == "__main__":
    main()
