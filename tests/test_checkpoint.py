"""Recomputation: the same numbers in less memory."""

from dataclasses import replace

import numpy as np
import pytest
from kernels_oracle import TARGET

import fluxc as fx
from dsl import call, first_values, run, trace
from fluxc import nn, optim
from fluxc.compiler.kernels.plan import plan
from fluxc.compiler.passes.pipeline import optimize

RNG = np.random.default_rng(6)
WIDTH, INSIDE, DEPTH = 16, 128, 6
WEIGHTS = [
    (RNG.normal(size=(WIDTH, INSIDE)) / 4, RNG.normal(size=(INSIDE, WIDTH)) / 8)
    for _ in range(DEPTH)
]


def block(x, up, down):
    """A narrow value with wide ones inside."""
    return x + fx.tanh(fx.sin(x @ up) * 2) @ down


def loss(x, *weights, wrap):
    for up, down in zip(weights[::2], weights[1::2], strict=True):
        x = wrap(block)(x, up, down)
    return (x * x).sum()


def gradients(wrap, depth=DEPTH):
    count = 2 * depth + 1
    return fx.value_and_grad(lambda *a: loss(*a, wrap=wrap), argnums=tuple(range(count)))


def inputs():
    return RNG.normal(size=(8, WIDTH)), *(w for pair in WEIGHTS for w in pair)


def test_values_and_gradients_are_the_same():
    given = inputs()
    plain, held = (run(gradients(w), *given) for w in (lambda f: f, fx.checkpoint))
    for one, other in zip(plain, held, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def arena(wrap, depth):
    specs = [fx.f32[4096, WIDTH], *([fx.f32[WIDTH, INSIDE], fx.f32[INSIDE, WIDTH]] * depth)]
    entry, _ = trace(gradients(wrap, depth), *specs)
    return plan(replace(entry, graph=optimize(entry.graph)), TARGET).arena


def test_a_checkpoint_needs_less_memory():
    """What one more block adds: its narrow argument instead of what is inside of it."""
    narrow, wide = (4 * 4096 * size for size in (WIDTH, INSIDE))
    plain = arena(lambda f: f, DEPTH) - arena(lambda f: f, DEPTH - 3)
    held = arena(fx.checkpoint, DEPTH) - arena(fx.checkpoint, DEPTH - 3)
    assert plain >= 3 * wide
    assert held <= 3 * 2 * narrow
    assert arena(fx.checkpoint, DEPTH) < arena(lambda f: f, DEPTH) / 2


def test_without_a_derivative_nothing_is_left_of_it():
    entry, _ = trace(fx.checkpoint(fx.sin), fx.f32[4])
    assert [n.op for n in optimize(entry.graph).nodes] == ["sin"]


def test_in_other_transformations():
    x = RNG.normal(size=3)
    wave = fx.checkpoint(lambda t, k: fx.sin(t * k) * t)
    plain = lambda t, k: fx.sin(t * k) * t
    ways = {
        "jvp": lambda f: lambda x: fx.jvp(lambda t: f(t, 2), (x,), (x,))[1],
        "hessian": lambda f: fx.hessian(lambda t: f(t, 2).sum()),
        "vmap(grad)": lambda f: fx.vmap(fx.grad(lambda t: f(t, t * t).sum())),
        "grad(vmap)": lambda f: fx.grad(lambda t: fx.vmap(f, (0, None))(t, t[0]).sum()),
        "grad(jvp)": lambda f: fx.grad(lambda t: fx.jvp(lambda s: f(s, s), (t,), (t,))[1].sum()),
        "grad(grad)": lambda f: fx.grad(lambda t: fx.grad(lambda s: f(s, s).sum())(t).sum()),
        "nested": lambda f: fx.grad(lambda t: fx.checkpoint(lambda s: f(f(s, s), 2))(t).sum()),
    }
    for name, way in ways.items():
        want = run(way(plain), x)
        np.testing.assert_allclose(run(way(wave), x), want, rtol=1e-12, err_msg=name)


def test_modules_states_and_random_numbers():
    """Parameters get their gradients, states their new values, and dropout drops the same twice."""

    def step(wrap):
        model = nn.Chain(nn.Dense(4, 8, fx.tanh), nn.BatchNorm(8), nn.Dropout(0.5), nn.Dense(8, 1))
        f = wrap(model)
        return trace(
            lambda x: (f(x) ** 2).mean(),
            fx.f32[6, 4],
            namespace={"model": model},
            optimizer=optim.Descent(0.1),
        )

    x = RNG.normal(size=(6, 4)).astype(np.float32)
    results = []
    for wrap in (lambda f: f, fx.checkpoint):
        entry, storages = step(wrap)
        values = first_values(storages)
        losses = [call(entry, values, x)[0] for _ in range(3)]
        results.append((losses, values))
    (one, first), (other, second) = results
    np.testing.assert_allclose(one, other, rtol=1e-10)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.cc
def test_compiled_checkpoints():
    given = [a.astype(np.float32) for a in inputs()]
    got = fx.jit(gradients(fx.checkpoint))(*given)
    value, grads = got
    want = run(gradients(fx.checkpoint), *given)
    for one, other in zip((value, *grads), want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
