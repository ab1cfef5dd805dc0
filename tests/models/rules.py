"""Activations with their own derivative, and derivatives taken inside entries."""

import fluxc as fx
from fluxc import nn, optim


@fx.custom_vjp
def hard_sign(x):
    return fx.sign(x)


hard_sign.defvjp(lambda x: (fx.sign(x), x), lambda x, dy: (fx.where(fx.abs(x) < 1, dy, 0.0),))
smooth = fx.custom_vjp(
    lambda x: x * fx.sigmoid(x),
    lambda xs, y, dy: (dy * (y + fx.sigmoid(xs[0]) * (1 - y)),),
)

field = nn.Chain(nn.Dense(3, 16, fx.tanh), nn.Dense(16, 16, smooth), nn.Dense(16, 1))
binary = nn.Chain(nn.Dense(3, 12, hard_sign), nn.Dense(12, 1))


def energy(x):
    return field(x).sum()


@fx.export
def force(x: fx.f32["n", 3]):
    """The field's slope: a gradient with respect to an input."""
    value, slope = fx.value_and_grad(energy)(x)
    return value, -slope


@fx.export
def curvature(x: fx.f32["n", 3], v: fx.f32["n", 3]):
    """The Hessian of the energy times v."""
    return fx.grad(lambda x: (fx.grad(energy)(x) * v).sum())(x)


@fx.export
def pulled(x: fx.f32["n", 3], dy: fx.f32["n", 1]):
    y, pull = fx.vjp(field, x)
    return y, pull(dy)[0]


@fx.export(optimizer=optim.Adam(5e-3))
def train_field(x: fx.f32["n", 3], y: fx.f32["n"]):
    """Fits values with a penalty on slopes: second derivatives."""
    slope = fx.grad(energy)(x)
    error = fx.square(field(x)[:, 0] - y).mean()
    return error + 0.1 * fx.square(fx.sqrt((slope * slope).sum(-1) + 1e-6) - 1).mean()


@fx.export(optimizer=optim.Descent(0.05))
def train_binary(x: fx.f32["n", 3], y: fx.f32["n"]):
    return fx.square(binary(x)[:, 0] - y).mean()
