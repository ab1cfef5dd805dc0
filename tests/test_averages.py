"""Averages of weights: what a step keeps, what entries compute with, and what makes no sense."""

import numpy as np
import pytest

import fluxc as fx
from dsl import Typed, call, first_values
from fluxc import nn, optim, schedules
from fluxc.export import trace_exports

G = [np.full(2, g, np.float32) for g in (1.0, 2.0, 3.0, 4.0)]


def entries(space, **functions):
    """The entries of functions, given with their types and options, and all first values."""
    exports = []
    for name, (f, specs, options) in functions.items():
        made = Typed(f, specs, **options)
        made.name = name
        exports.append(made)
    spec = trace_exports(exports, space)
    return {e.name: e for e in spec.entries}, first_values({s.name: s for s in spec.storages})


def averaged(rule, average):
    w = fx.Param(2, init=[1.0, 2.0])
    return entries(
        {"w": w},
        mean=(lambda: w * 1.0, [], {"weights": average}),
        step=(lambda g: (g * w).sum(), [fx.f32[2]], {"optimizer": rule, "average": average}),
        last=(lambda: w * 1.0, [], {}),
    )


def test_an_average_follows_the_weights():
    """mean <- decay*mean + (1 - decay)*w after each update; first, it is w."""
    made, values = averaged(optim.Descent(0.5), optim.EMA(0.75))
    w = mean = np.array([1.0, 2.0])
    np.testing.assert_array_equal(call(made["mean"], values)[0], w)
    for g in G:
        call(made["step"], values, g)
        w = w - 0.5 * g
        mean = 0.75 * mean + 0.25 * w
        np.testing.assert_allclose(call(made["mean"], values)[0], mean, rtol=1e-6)
        np.testing.assert_allclose(call(made["last"], values)[0], w)
    assert {n for n in values if n.startswith("optimizer.ema")} == {
        "optimizer.ema.apart.w", "optimizer.ema.decay",
    }  # fmt: skip


def test_the_decay_is_a_hyper_parameter_and_may_follow_a_schedule():
    decay = schedules.Warmup(0.5, 2)
    made, values = averaged(optim.Descent(0.5), optim.EMA(decay, name="slow"))
    values["optimizer.slow.decay.schedule"] = np.float64(0.75)
    w = mean = np.array([1.0, 2.0])
    for g, d in zip(G, (0.0, 0.375, 0.75, 0.75), strict=True):
        call(made["step"], values, g)
        w = w - 0.5 * g
        mean = d * mean + (1 - d) * w
        np.testing.assert_allclose(call(made["mean"], values)[0], mean, rtol=1e-6)


def test_a_call_without_an_update_leaves_the_average_alone():
    rule = optim.Chain(optim.AccumGrad(2), optim.Descent(0.5))
    made, values = averaged(rule, optim.EMA(0.75))
    w = mean = np.array([1.0, 2.0])
    for i, g in enumerate(G):
        call(made["step"], values, g)
        if i % 2:
            w = w - 0.5 * (G[i - 1] + g) / 2
            mean = 0.75 * mean + 0.25 * w
        np.testing.assert_allclose(call(made["mean"], values)[0], mean, rtol=1e-6)


def test_averages_inside_control_flow_and_derivatives():
    """What an entry computes with stands for the weights everywhere in it."""
    cell, average = nn.Dense(2, 2, bias=False), optim.EMA(0.5)

    def looped(x):
        return fx.fori_loop(0, 3, lambda _, h: cell(h), x)

    def slope(x):
        return fx.grad(lambda m: (m(x) ** 2).sum())(cell)["weight"]

    x2 = [fx.f32["n", 2]]
    made, values = entries(
        {"cell": cell},
        step=(lambda x: cell(x).sum(), x2, {"optimizer": optim.Descent(1.0), "average": average}),
        looped=(looped, x2, {"weights": average}),
        slope=(slope, x2, {"weights": average}),
    )
    x = np.ones((1, 2), np.float32)
    before = values["weight"].copy()
    call(made["step"], values, x)
    mean = (before + values["weight"]) / 2
    want = x @ mean.T @ mean.T @ mean.T
    np.testing.assert_allclose(call(made["looped"], values, x)[0], want, rtol=1e-5)
    want = 2 * (x @ mean.T).T @ x
    np.testing.assert_allclose(call(made["slope"], values, x)[0], want, rtol=1e-5)


def test_two_steps_keep_one_average():
    """As a GAN's two steps do; parameters that neither trains stand for themselves."""
    a, b, c = (fx.Param(2, init=1.0) for _ in range(3))
    average = optim.EMA(0.5)
    train = lambda p: (
        lambda g: (g * p).sum(),
        [fx.f32[2]],
        {"optimizer": optim.Descent(1.0), "average": average},
    )
    made, values = entries(
        {"a": a, "b": b, "c": c},
        first=train(a),
        second=train(b),
        mean=(lambda: (a * 1.0, b * 1.0, c * 1.0), [], {"weights": average}),
    )
    call(made["first"], values, G[0])
    call(made["second"], values, G[1])
    np.testing.assert_allclose(call(made["mean"], values), [[0.5, 0.5], [0, 0], [1, 1]])


def test_a_step_without_the_average_leaves_it_where_it_is():
    """So does one that keeps another average, at calls without an update as well."""
    w, fast, slow = fx.Param(2, init=1.0), optim.EMA(0.5), optim.EMA(0.75, name="slow")
    step = (lambda g: (g * w).sum(), [fx.f32[2]])
    read = (lambda: w * 1.0, [])
    twice = optim.Chain(optim.AccumGrad(2), optim.Descent(1.0))
    made, values = entries(
        {"w": w},
        plain=(*step, {"optimizer": optim.Groups({"w": optim.Descent(1.0)}, default=None)}),
        quick=(*step, {"optimizer": optim.Descent(1.0), "average": fast}),
        slowly=(*step, {"optimizer": twice, "average": slow}),
        mean_fast=(*read, {"weights": fast}),
        mean_slow=(*read, {"weights": slow}),
    )
    x, means, waiting = 1.0, {"fast": 1.0, "slow": 1.0}, False
    for name in ("quick", "slowly", "plain", "slowly", "quick", "plain"):
        call(made[name], values, np.ones(2, np.float32))
        waiting = not waiting if name == "slowly" else waiting
        x -= not (name == "slowly" and waiting)
        if name == "quick":
            means["fast"] = 0.5 * means["fast"] + 0.5 * x
        if name == "slowly" and not waiting:
            means["slow"] = 0.75 * means["slow"] + 0.25 * x
        np.testing.assert_allclose(values["w"], x)
        for kind, mean in means.items():
            np.testing.assert_allclose(
                call(made[f"mean_{kind}"], values)[0], mean, err_msg=f"{name}, {kind}"
            )


AVERAGE = optim.EMA()
W = fx.Param(2, init=1.0)
STEP = (lambda g: (g * W).sum(), [fx.f32[2]])
RULE = {"optimizer": optim.Descent()}
KEEPING = {**RULE, "average": AVERAGE}
READ = (lambda: W * 1.0, [])
WRONG = {
    "weights of nobody": ({"mean": (*READ, {"weights": AVERAGE})}, "no training step keeps"),
    "no optimiser": ({"f": (*READ, {"average": AVERAGE})}, "kept by a training step"),
    "not an average": ({"f": (*STEP, {**RULE, "average": 0.9})}, "average= takes an average"),
    "a step with weights": ({"f": (*STEP, {**RULE, "weights": AVERAGE})}, "that it trains"),
    "one name twice": (
        {"f": (*STEP, KEEPING), "g": (*STEP, {**RULE, "average": optim.EMA()})},
        "another average or entry is named 'ema'",
    ),
    "an entry's name": ({"ema": (*STEP, KEEPING)}, "another average or entry"),
}


@pytest.mark.parametrize("name", WRONG)
def test_averages_that_make_no_sense(name):
    functions, message = WRONG[name]
    with pytest.raises(fx.ModelFileError, match=message):
        entries({"w": W}, **functions)
