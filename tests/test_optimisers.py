"""Optimisers beside float64 transcriptions of their updates, one call after another."""

# ruff: noqa: ARG001, PLW0108 (functions of one signature)

import numpy as np
import pytest

import fluxc as fx
from dsl import call, first_values, trace
from fluxc import nn, optim, schedules

# Numbers that f32 has, so that f64 parameters see exactly these.
LR, B1, B2, EPS = 0.125, 0.875, 0.96875, 2.0**-10
RHO, LAMBDA = 0.75, 0.25


# Each update from the state s (kept between calls), the parameter, the gradient and the step.


def descent(s, x, g, t, *, lr=0.1):
    return lr * g


def momentum(s, x, g, t, *, lr=0.01, rho=0.9):
    s["v"] = rho * s.get("v", 0) + lr * g
    return s["v"]


def nesterov(s, x, g, t, *, lr=0.001, rho=0.9):
    v = s.get("v", 0)
    s["v"] = rho * v - lr * g
    return -(rho**2) * v + (1 + rho) * lr * g


def rprop(s, x, g, t, *, lr=1e-3, ell=(0.5, 1.2), gamma=(1e-6, 50)):
    g, eta = g.copy(), s.get("eta", np.full(g.shape, lr))
    for i in np.ndindex(g.shape):
        sign = s.get("g", np.zeros(g.shape))[i] * g[i]
        if sign > 0:
            eta[i] = min(ell[1] * eta[i], gamma[1])
        elif sign < 0:
            eta[i], g[i] = max(ell[0] * eta[i], gamma[0]), 0
    s.update(eta=eta, g=g)
    return eta * np.sign(g)


def rmsprop(s, x, g, t, *, lr=0.001, rho=0.9, eps=1e-8, centred=False):
    s["q"] = rho * s.get("q", 0) + (1 - rho) * g**2
    s["l"] = rho * s.get("l", 0) + (1 - rho) * g
    return lr * g / (np.sqrt(s["q"] - (s["l"] ** 2 if centred else 0)) + eps)


def moments(s, g, beta, first=0.0):
    s["m"] = beta[0] * s.get("m", first) + (1 - beta[0]) * g
    s["v"] = beta[1] * s.get("v", first) + (1 - beta[1]) * g**2
    return s["m"], s["v"]


def adam(s, x, g, t, *, lr=0.001, beta=(0.9, 0.999), eps=1e-8):
    m, v = moments(s, g, beta)
    return lr * (m / (1 - beta[0] ** t)) / (np.sqrt(v / (1 - beta[1] ** t)) + eps)


def lion(s, x, g, t, *, lr=0.001, beta=(0.9, 0.999)):
    s["s"] = beta[1] * g + (1 - beta[1]) * s.get("s", 0)
    return lr * np.sign((beta[1] - beta[0]) * g + beta[0] * s["s"])


def radam(s, x, g, t, *, lr=0.001, beta=(0.9, 0.999), eps=1e-8):
    m, v = moments(s, g, beta)
    last = 2 / (1 - beta[1]) - 1
    rho = last - 2 * t * beta[1] ** t / (1 - beta[1] ** t)
    if rho <= 4:
        return lr * m / (1 - beta[0] ** t)
    r = np.sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho))
    return lr * (m / (1 - beta[0] ** t)) / (np.sqrt(v / (1 - beta[1] ** t)) + eps) * r


def adamax(s, x, g, t, *, lr=0.001, beta=(0.9, 0.999), eps=1e-8):
    m, _ = moments(s, g, beta)
    s["u"] = np.maximum(beta[1] * s.get("u", 0), np.abs(g))
    return lr / (1 - beta[0] ** t) * m / (s["u"] + eps)


def oadam(s, x, g, t, *, lr=0.001, beta=(0.5, 0.9), eps=1e-8):
    before, s["term"] = s.get("term", 0), adam(s, x, g, t, lr=lr, beta=beta, eps=eps)
    return 2 * s["term"] - before


def adagrad(s, x, g, t, *, lr=0.1, eps=1e-8):
    s["acc"] = s.get("acc", eps) + g**2
    return lr * g / (np.sqrt(s["acc"]) + eps)


def adadelta(s, x, g, t, *, rho=0.9, eps=1e-8):
    s["acc"] = rho * s.get("acc", 0) + (1 - rho) * g**2
    step = g * np.sqrt(s.get("delta", 0) + eps) / np.sqrt(s["acc"] + eps)
    s["delta"] = rho * s.get("delta", 0) + (1 - rho) * step**2
    return step


def amsgrad(s, x, g, t, *, lr=0.001, beta=(0.9, 0.999), eps=1e-8):
    m, v = moments(s, g, beta, eps)
    s["top"] = np.maximum(s.get("top", eps), v)
    return lr * m / (np.sqrt(s["top"]) + eps)


def nadam(s, x, g, t, *, lr=0.001, beta=(0.9, 0.999), eps=1e-8):
    m, v = moments(s, g, beta)
    ahead = beta[0] * m / (1 - beta[0] ** (t + 1)) + (1 - beta[0]) * g / (1 - beta[0] ** t)
    return lr * ahead / (np.sqrt(beta[1] * v / (1 - beta[1] ** t)) + eps)


def adamw(s, x, g, t, *, lr=0.001, beta=(0.9, 0.999), lambda_=0.0, eps=1e-8, couple=True):
    a = adam(s, x, g, t, lr=1.0, beta=beta, eps=eps)
    return lr * (a + lambda_ * x) if couple else lr * a + lambda_ * x


def adabelief(s, x, g, t, *, lr=0.001, beta=(0.9, 0.999), eps=1e-16):
    m, _ = moments(s, g, beta)
    s["s"] = beta[1] * s.get("s", 0) + (1 - beta[1]) * (g - m) ** 2 + eps
    return lr * (m / (1 - beta[0] ** t)) / (np.sqrt(s["s"] / (1 - beta[1] ** t)) + eps)


def weight_decay(s, x, g, t, *, lambda_=5e-4):
    return g + lambda_ * x


def sign_decay(s, x, g, t, *, lambda_=1e-3):
    return g + lambda_ * np.sign(x)


def clip_grad(s, x, g, t, *, delta=10.0):
    return np.clip(g, -delta, delta)


def clip_norm(s, x, g, t, *, omega=10.0, p=2):
    return g * min(omega / np.linalg.norm(g.ravel(), p), 1)


MOMENTS = {"lr": LR, "beta": (B1, B2), "eps": EPS}
# name: the rule, its transcription, and the hyper-parameters of both.
RULES = {
    "descent": (optim.Descent, descent, {"lr": LR}),
    "momentum": (optim.Momentum, momentum, {"lr": LR, "rho": RHO}),
    "nesterov": (optim.Nesterov, nesterov, {"lr": LR, "rho": RHO}),
    "rprop": (optim.Rprop, rprop, {"lr": LR, "ell": (0.5, 1.25), "gamma": (0.0625, 0.25)}),
    "rmsprop": (optim.RMSProp, rmsprop, {"lr": LR, "rho": RHO, "eps": EPS}),
    "centred": (optim.RMSProp, rmsprop, {"lr": LR, "rho": RHO, "eps": EPS, "centred": True}),
    "adam": (optim.Adam, adam, MOMENTS),
    "lion": (optim.Lion, lion, {"lr": LR, "beta": (B1, B2)}),
    "radam": (optim.RAdam, radam, MOMENTS),
    "adamax": (optim.AdaMax, adamax, MOMENTS),
    "oadam": (optim.OAdam, oadam, MOMENTS),
    "adagrad": (optim.AdaGrad, adagrad, {"lr": LR, "eps": EPS}),
    "adadelta": (optim.AdaDelta, adadelta, {"rho": RHO, "eps": EPS}),
    "amsgrad": (optim.AMSGrad, amsgrad, MOMENTS),
    "nadam": (optim.NAdam, nadam, MOMENTS),
    "adamw": (optim.AdamW, adamw, {**MOMENTS, "lambda_": LAMBDA}),
    "uncoupled": (optim.AdamW, adamw, {**MOMENTS, "lambda_": LAMBDA, "couple": False}),
    "adabelief": (optim.AdaBelief, adabelief, MOMENTS),
    "weight_decay": (optim.WeightDecay, weight_decay, {"lambda_": LAMBDA}),
    "sign_decay": (optim.SignDecay, sign_decay, {"lambda_": LAMBDA}),
    "clip_grad": (optim.ClipGrad, clip_grad, {"delta": 0.5}),
    "clip_norm": (optim.ClipNorm, clip_norm, {"omega": 0.5}),
    "clip_norm_1": (optim.ClipNorm, clip_norm, {"omega": 0.5, "p": 1}),
    "clip_norm_inf": (optim.ClipNorm, clip_norm, {"omega": 0.5, "p": np.inf}),
}
SHAPE = (3, 2)
START = np.random.default_rng(1).normal(size=SHAPE)


def gradients(steps, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, *SHAPE))


def parameter(dtype="f64", shape=SHAPE):
    return fx.Param(shape, init=START if shape == SHAPE else 1.0, dtype=dtype)


def made(rule, w, **options):
    """A step whose gradient is its argument, and what it keeps, by name, at first."""
    spec = w.type.dtype.name
    loss = lambda g: (g * w).sum()
    typed = {"f64": fx.f64, "f32": fx.f32, "f16": fx.f16, "bf16": fx.bf16}[spec]
    namespace = {"w": w}
    entry, kept = trace(loss, typed[w.type.shape], namespace=namespace, optimizer=rule, **options)
    return entry, first_values(kept)


def transcribed(plain, grads, **hypers):
    """The parameter after each step."""
    x, state = START.copy(), {}
    for t, g in enumerate(grads, 1):
        x = x - plain(state, x, g, t, **hypers)
        yield x


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    """Ten steps of each rule are those of its formulas, in f64."""
    rule, plain, hypers = RULES[name]
    entry, values = made(rule(**hypers), parameter())
    grads = gradients(10)
    for g, x in zip(grads, transcribed(plain, grads, **hypers), strict=True):
        call(entry, values, g)
        np.testing.assert_allclose(values["w"], x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in RULES if RULES[n][1] is not clip_norm])
def test_defaults(name):
    """Without arguments each rule has Flux's hyper-parameters, in f32."""
    rule, plain, hypers = RULES[name]
    fixed = {k: v for k, v in hypers.items() if isinstance(v, bool)}
    entry, values = made(rule(**fixed), parameter("f32"))
    grads = gradients(10)
    for g, x in zip(grads, transcribed(plain, grads, **fixed), strict=True):
        call(entry, values, g.astype(np.float32))
        np.testing.assert_allclose(values["w"], x, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("name", RULES)
def test_parameters_of_any_shape(name, shape):
    """Whatever its rank and size, a parameter keeps its shape and stays finite."""
    rule, _, hypers = RULES[name]
    entry, values = made(rule(**hypers), fx.Param(shape, init=1.0))
    for _ in range(2):
        call(entry, values, np.full(shape, 0.5, np.float32))
    assert values["w"].shape == shape
    assert np.isfinite(values["w"]).all()


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("name", RULES)
def test_narrow_parameters_keep_f32_beside_them(name, dtype):
    """16-bit parameters are updated in f32; what is kept beside them is f32."""
    rule, _, hypers = RULES[name]
    entry, _ = made(rule(**hypers), parameter(dtype))
    stored = dict(zip(entry.storages, entry.graph.params[len(entry.inputs) :], strict=True))
    slots = {n: v.type.dtype.name for n, v in stored.items() if n.endswith(".w")}
    assert len(slots) >= len(rule.slots) - (name == "rmsprop")
    assert set(slots.values()) <= {"f32"}
    assert stored["w"].type.dtype.name == dtype


def test_chains_apply_one_rule_after_another():
    """OptimiserChain is Chain; chains nest; none is the gradient itself."""
    assert optim.OptimiserChain is optim.Chain
    inner = optim.Chain(optim.ClipNorm(0.5), optim.AdamW(LR, (B1, B2), LAMBDA, EPS))
    entry, values = made(optim.Chain(optim.WeightDecay(0.25), inner), parameter())

    def plain(s, x, g, t):
        clipped = clip_norm(s, x, g + 0.25 * x, t, omega=0.5)
        return adamw(s, x, clipped, t, lambda_=LAMBDA, **MOMENTS)

    grads = gradients(10)
    for g, x in zip(grads, transcribed(plain, grads), strict=True):
        call(entry, values, g)
        np.testing.assert_allclose(values["w"], x, rtol=1e-10)
    entry, values = made(optim.Chain(), parameter())
    call(entry, values, grads[0])
    np.testing.assert_allclose(values["w"], START - grads[0])


@pytest.mark.parametrize("p", [1, 2, 3, np.inf])
def test_global_norm(p):
    """With global_norm all gradients, of whatever dtype and size, are scaled by one factor."""
    a, b = fx.Param(2, init=1.0), fx.Param(1, init=1.0, dtype="f64")
    nothing = fx.Param(0)
    rule = optim.Chain(optim.ClipNorm(1.0, p, global_norm=True), optim.Descent(1.0))
    f = lambda: 3 * a.sum() + 4 * b.sum() + nothing.sum()
    entry, kept = trace(f, namespace={"a": a, "b": b, "c": nothing}, optimizer=rule)
    values = first_values(kept)
    call(entry, values)
    norm = np.linalg.norm([3, 3, 4], p)
    np.testing.assert_allclose(1 - values["a"], 3 / norm, rtol=1e-6)
    np.testing.assert_allclose(1 - values["b"], 4 / norm, rtol=1e-12)


# Accumulation.


def test_accumulated_gradients_are_applied_at_each_nth_call():
    """Between them parameters, the inner rules' state and their counter stay as they are."""
    rule = optim.Chain(optim.AccumGrad(4), optim.Adam(LR, (B1, B2), EPS))
    entry, values = made(rule, parameter())
    grads = gradients(11)
    means = [grads[i : i + 4].mean(0) for i in (0, 4)]
    expected = [START, *transcribed(adam, means, **MOMENTS)]
    for i, g in enumerate(grads, 1):
        before = {k: v for k, v in values.items() if k not in ("optimizer.f.acc.w", CALLS)}
        call(entry, values, g)
        np.testing.assert_allclose(values["w"], expected[i // 4], rtol=1e-10)
        assert values[CALLS] == i % 4
        if i % 4:
            assert all(np.array_equal(values[k], v) for k, v in before.items()), i
    assert values["optimizer.f.accumgrad.step"] == 2


CALLS = "optimizer.f.accumgrad.calls"


def test_rules_before_an_accumulation_run_at_every_call():
    """Chain(ClipGrad, AccumGrad, Descent) clips each gradient, not their mean."""
    rule = optim.Chain(optim.ClipGrad(0.5), optim.AccumGrad(2), optim.Descent(1.0))
    entry, values = made(rule, parameter())
    grads = gradients(2) * 3
    for g in grads:
        call(entry, values, g)
    np.testing.assert_allclose(values["w"], START - np.clip(grads, -0.5, 0.5).mean(0))


def test_accumulation_with_weight_decay_is_flux_s():
    """The example of Flux's own documentation."""
    rule = optim.Chain(optim.AccumGrad(2), optim.WeightDecay(0.01), optim.Descent(0.1))
    w = fx.Param(2, init=[1.0, 2.0])
    entry, values = made(rule, w)
    call(entry, values, np.array([33, 0], np.float32))
    call(entry, values, np.array([0, 444], np.float32))
    np.testing.assert_allclose(values["w"], [-0.651, -20.202002], rtol=1e-6)


def test_two_accumulations_multiply():
    rule = optim.Chain(optim.AccumGrad(2), optim.AccumGrad(3), optim.Descent(1.0))
    entry, values = made(rule, parameter())
    grads = gradients(6)
    for i, g in enumerate(grads, 1):
        call(entry, values, g)
        want = START - grads.mean(0) if i == 6 else START
        np.testing.assert_allclose(values["w"], want, atol=1e-12)


# 16-bit parameters.


def test_an_assigned_parameter_is_its_own_copy():
    """What does not round to the parameter is no copy of it."""
    w = fx.Param(2, init=1.0, dtype="f16")
    entry, values = made(optim.MixedPrecision(optim.Descent(0.25)), w)
    g = np.ones(2, np.float16)
    call(entry, values, g)
    values["w"] = np.full(2, 8.0, np.float16)
    call(entry, values, g)
    np.testing.assert_array_equal(values["w"], 7.75)
    np.testing.assert_array_equal(values["optimizer.f.master.w"], 7.75)


def test_mixed_precision_of_wide_parameters_is_the_rule():
    """An f32 parameter has no f32 copy, but an f64 one."""
    entry, _ = made(optim.MixedPrecision(optim.Descent(0.25)), parameter("f32"))
    assert "optimizer.f.master.w" not in entry.storages
    entry, values = made(optim.MixedPrecision(fx.f64, optim.Descent(0.25)), parameter("f32"))
    grads = gradients(3)
    for g in grads:
        call(entry, values, g.astype(np.float32))
    total = grads.astype(np.float32).sum(0, dtype=np.float64)
    want = START.astype(np.float32).astype(np.float64) - 0.25 * total
    np.testing.assert_allclose(values["optimizer.f.master.w"], want, rtol=1e-14)


def scaled(rule, **options):
    entry, values = made(rule, parameter("f32"), **options)
    inf = np.full(SHAPE, np.inf, np.float32)
    return entry, values, gradients(12).astype(np.float32), inf


SCALE, CALM, STEPS = (f"optimizer.f.lossscale.{n}" for n in ("scale", "calm", "step"))


def test_a_dynamic_loss_scale():
    """Gradients are unscaled; one that is not finite skips the update and halves the scale."""
    scale = optim.LossScale(8.0, interval=3)
    entry, values, grads, inf = scaled(optim.Chain(scale, optim.Adam(LR, (B1, B2), EPS)))
    done = []
    for i, g in enumerate(grads):
        bad = i in (1, 6)
        before = dict(values)
        call(entry, values, inf if bad else g)
        if bad:
            same = [k for k in values if k not in (SCALE, CALM)]
            assert all(np.array_equal(values[k], before[k]) for k in same)
            assert values[SCALE] == before[SCALE] / 2
            assert values[CALM] == 0
        else:
            done.append(g.astype(np.float64))
            (*_, x) = transcribed(adam, done, **MOMENTS)
            np.testing.assert_allclose(values["w"], x, rtol=1e-4, atol=1e-6)
    # good, bad, three good, good, bad, three good, two good
    assert values[SCALE] == 8 / 2 * 2 / 2 * 2
    assert values[STEPS] == 10


def test_a_static_loss_scale_is_a_hyper_parameter():
    rule = optim.Chain(optim.LossScale(1024.0, dynamic=False), optim.Descent(LR))
    entry, values, grads, inf = scaled(rule)
    call(entry, values, inf)
    np.testing.assert_array_equal(values["w"], START.astype(np.float32))
    call(entry, values, grads[0])
    np.testing.assert_allclose(values["w"], START - LR * grads[0], rtol=1e-5)
    assert values["optimizer.f.scale"] == 1024


def test_a_loss_scale_stands_first():
    for rule in (
        optim.Chain(optim.ClipNorm(), optim.LossScale()),
        optim.Chain(optim.LossScale(), optim.LossScale()),
        optim.Chain(optim.Descent(), optim.Groups({"w": optim.LossScale()}, default=None)),
    ):
        with pytest.raises(fx.TraceError, match="LossScale stands first, once"):
            made(rule, parameter())


# Rules as values.


def test_rules_are_values():
    """Rules compare by what they say and cannot be changed."""
    assert optim.Adam(1e-3) == optim.Adam(lr=1e-3)
    assert optim.Adam(eta=1e-3, epsilon=1e-6) == optim.Adam(1e-3, eps=1e-6)
    assert optim.AdamW(epsilon=1e-6) == optim.AdamW(eps=1e-6)
    assert optim.RMSProp(epsilon=1e-6) == optim.RMSProp(eps=1e-6)
    assert optim.RMSProp(centered=True) == optim.RMSProp(centred=True)
    assert optim.ClipNorm(2.0, throw=False) == optim.ClipNorm(2.0)
    with pytest.raises(fx.Unsupported, match="a compiled step cannot raise"):
        optim.ClipNorm(1.0, throw=True)
    assert optim.Adam(1e-3) != optim.Adam(1e-4)
    assert optim.Adam() != optim.NAdam()
    assert repr(optim.Descent(0.5)) == "Descent(lr=0.5)"
    assert hash(optim.Adam(schedules.Exp(1, 0.5))) == hash(optim.Adam(schedules.Exp(1, 0.5)))
    with pytest.raises(AttributeError):
        optim.Descent().lr = 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: optim.Descent(-1), "not negative"),
        (lambda: optim.Descent("fast"), "not negative"),
        (lambda: optim.Descent(schedules.Stateful(schedules.Exp(1, 0.5))), "schedules.next"),
        (lambda: optim.Adam(beta=0.9), "beta must be two numbers"),
        (lambda: optim.Chain(3), "3 is not an optimiser"),
        (lambda: optim.Groups({"w": 3}, default=None), "w: 3 is not an optimiser"),
        (lambda: optim.AccumGrad(0), "a number of calls"),
        (lambda: optim.AccumGrad(2.0), "a number of calls"),
        (lambda: optim.MixedPrecision(fx.bf16, optim.Adam()), "f32 or f64"),
        (lambda: optim.LossScale(0), "must be positive"),
        (lambda: optim.EMA(1.5), "a share"),
        (lambda: optim.EMA(name="a b"), "cannot be a name"),
    ],
)
def test_wrong_rules(wrong, message):
    with pytest.raises(fx.FluxcError, match=message):
        wrong()


def test_hyper_parameters_are_inputs():
    """Hyper-parameters are storages with readable names; shared names carry the rule's."""
    w = parameter("f32")
    rule = optim.Chain(optim.WeightDecay(0.1), optim.AdamW(0.01, lambda_=0.2))
    entry, kept = trace(lambda: (w * w).sum(), namespace={"w": w}, optimizer=rule)
    hypers = {n: s.init for n, s in kept.items() if s.kind == "hyper"}
    prefix = "optimizer.f."
    assert hypers == {
        prefix + "weightdecay.lambda": 0.1, prefix + "lr": 0.01, prefix + "beta1": 0.9,
        prefix + "beta2": 0.999, prefix + "adamw.lambda": 0.2, prefix + "eps": 1e-8,
    }  # fmt: skip
    assert {n for n, s in kept.items() if s.kind == "optimizer"} == {
        "optimizer.f.m.w", "optimizer.f.v.w", "optimizer.f.step",
    }  # fmt: skip
    values = first_values(kept)
    values[prefix + "lr"] = np.float32(0)
    before = values["w"].copy()
    call(entry, values)
    np.testing.assert_array_equal(values["w"], before)


@pytest.mark.parametrize("name", RULES)
def test_hyper_parameters_of_f64_parameters_are_f64(name):
    """A default such as 0.001 is not rounded to f32 on its way."""
    rule, plain, hypers = RULES[name]
    fixed = {k: v for k, v in hypers.items() if isinstance(v, bool)}
    entry, values = made(rule(**fixed), parameter())
    grads = gradients(3)
    for g, x in zip(grads, transcribed(plain, grads, **fixed), strict=True):
        call(entry, values, g)
        np.testing.assert_allclose(values["w"], x, rtol=1e-13, atol=1e-15)


def test_hyper_parameters_of_mixed_parameters_are_f64():
    """One value for all of a rule's parameters, each in its dtype."""
    wide, narrow = parameter(), parameter("f32")
    namespace = {"wide": wide, "narrow": narrow}
    total = lambda: (wide.sum() + narrow.sum().astype("f64")) * 1.0
    entry, kept = trace(total, namespace=namespace, optimizer=optim.Descent(0.1))
    values = first_values(kept)
    assert kept["optimizer.f.lr"].type.dtype.name == "f64"
    call(entry, values)
    np.testing.assert_array_equal(values["wide"], START - 0.1)
    np.testing.assert_allclose(values["narrow"], START - 0.1, rtol=1e-6)


def test_slots_of_one_name_carry_the_rule_s():
    rule = optim.Chain(optim.AccumGrad(2), optim.AdaGrad(), optim.Momentum(), optim.Momentum())
    entry, _ = made(rule, parameter())
    kept = {n for n in entry.updates if n.endswith(".w")}
    assert kept == {
        "optimizer.f.accumgrad.acc.w", "optimizer.f.adagrad.acc.w",
        "optimizer.f.momentum.v.w", "optimizer.f.momentum_2.v.w",
    }  # fmt: skip


def test_a_rule_of_one_s_own():
    """A subclass declares what it keeps, and what is there at first, and gives the step."""

    class SignMomentum(optim.Rule):
        slots = {"v": "start"}  # noqa: RUF012

        def __init__(self, lr=LR, rho=RHO, start=0.5):
            super().__init__({"lr": lr, "rho": rho, "start": start})

        def step(self, u):
            v = u.keep("v", u["rho"] * u.slot("v") + (1 - u["rho"]) * u.g)
            return u["lr"] * fx.sign(v) / u.t

    def plain(s, x, g, t):
        s["v"] = RHO * s.get("v", 0.5) + (1 - RHO) * g
        return LR * np.sign(s["v"]) / t

    entry, values = made(optim.Chain(optim.AccumGrad(1), SignMomentum()), parameter())
    grads = gradients(10)
    for g, x in zip(grads, transcribed(plain, grads), strict=True):
        call(entry, values, g)
        np.testing.assert_allclose(values["w"], x, rtol=1e-10)


class Wrong(optim.Rule):
    """A rule whose step is a function of the update."""

    def __init__(self, f):
        super().__init__({"lr": 0.1}, f=f)

    def step(self, u):
        return self.options["f"](u)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda u: u.slot("v"), "Wrong keeps nothing named 'v'"),
        (lambda u: u.keep("v", u.g), "Wrong keeps nothing named 'v'"),
        (lambda u: u["rho"] * u.g, "Wrong has no hyper-parameter 'rho'\n +expected: +lr"),
        (lambda u: u.g.sum(), "a step of Wrong has another shape"),
        (lambda _: None, "NoneType"),
        (lambda u: u.g / undefined, "name 'undefined' is not defined"),  # noqa: F821
    ],
)
def test_mistakes_in_rules_of_one_s_own(f, message):
    """Each is reported at the user's own line."""
    with pytest.raises(fx.FluxcError, match=message) as caught:
        made(Wrong(f), parameter())
    assert caught.value.loc.file == __file__


def test_a_rule_that_forgets_a_parameter():
    class Forgetful(optim.Rule):
        def steps(self, updates):
            return [u.g for u in updates[1:]]

    with pytest.raises(fx.TraceError, match=r"Forgetful\.steps returns 0 steps of 1 parameters"):
        made(Forgetful({}), parameter())


# Groups.


def two_layers():
    return nn.Chain(nn.Dense(3, 2), nn.Dense(2, 1))


def grouped(rule, model=None):
    model = model or two_layers()
    loss = lambda x: (model(x) ** 2).mean()
    return trace(loss, fx.f32["n", 3], namespace={"model": model}, optimizer=rule)


def test_groups_have_rules_of_their_own():
    """A parameter belongs to the first pattern that matches its path; None leaves it alone."""
    rule = optim.Groups(
        {"layers.0.*": None, "*.bias": optim.Descent(0.5)}, default=optim.Momentum(0.25, 0.5)
    )
    entry, kept = grouped(rule)
    values = first_values(kept)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    first, velocity = dict(values), 0
    for _ in range(3):
        w, b = (values[f"layers.1.{n}"].astype(np.float64) for n in ("weight", "bias"))
        hidden = x @ first["layers.0.weight"].T + first["layers.0.bias"]
        error = 2 * (hidden @ w.T + b) / 4
        call(entry, values, x)
        velocity = 0.5 * velocity + 0.25 * error.T @ hidden
        np.testing.assert_allclose(values["layers.1.weight"], w - velocity, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(values["layers.1.bias"], b - 0.5 * error.sum(0), rtol=1e-5)
    for name in ("layers.0.weight", "layers.0.bias"):
        np.testing.assert_array_equal(values[name], first[name])
    hypers = {n.removeprefix("optimizer.f."): s.init for n, s in kept.items() if s.kind == "hyper"}
    assert hypers == {"*.bias.lr": 0.5, "lr": 0.25, "rho": 0.5}
    assert "optimizer.f.v.layers.1.weight" in entry.updates


def test_groups_in_a_chain_share_a_norm():
    """ClipNorm over all groups sees the gradients of none that is frozen."""
    a, b, c = (fx.Param(1, init=[1.0]) for _ in range(3))
    groups = optim.Groups({"a": optim.Descent(1.0), "c": None}, default=optim.Descent(0.5))
    rule = optim.Chain(optim.ClipNorm(1.0, global_norm=True), groups)
    f = lambda: 3 * a.sum() + 4 * b.sum() + 100 * c.sum()
    entry, kept = trace(f, namespace={"a": a, "b": b, "c": c}, optimizer=rule)
    values = first_values(kept)
    call(entry, values)
    np.testing.assert_allclose(
        [values[n][0] for n in "abc"], [1 - 3 / 5, 1 - 0.5 * 4 / 5, 1], rtol=1e-6
    )


def test_groups_count_their_own_updates():
    """One group that accumulates leaves the others' steps and counters alone."""
    a, b = fx.Param(1, init=[1.0]), fx.Param(1, init=[1.0])
    slow = optim.Chain(optim.AccumGrad(2), optim.Adam(schedules.Exp(LR, 0.5)))
    rule = optim.Groups({"a": slow}, default=optim.Adam(schedules.Exp(LR, 0.5)))
    entry, kept = trace(lambda: a.sum() + b.sum(), namespace={"a": a, "b": b}, optimizer=rule)
    values = first_values(kept)
    for _ in range(4):
        call(entry, values)
    assert values["optimizer.f.a.accumgrad.step"] == 2
    assert values["optimizer.f.step"] == 4
    np.testing.assert_allclose(values["a"], 1 - LR * (1 + 0.5), rtol=1e-5)
    np.testing.assert_allclose(values["b"], 1 - LR * (1 + 0.5 + 0.25 + 0.125), rtol=1e-5)
    assert {n for n, s in kept.items() if n.endswith("lr.start")} == {
        "optimizer.f.a.lr.start", "optimizer.f.lr.start",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"encoder.*": None}, "'encoder.\\*' matches no parameter that the step trains"),
        ({"*": None, "*.bias": optim.Descent()}, "'\\*.bias' matches what earlier patterns"),
        ({"*": None}, "leaves every parameter alone"),
    ],
)
def test_patterns_that_say_nothing(patterns, message):
    with pytest.raises(fx.TraceError, match=message) as caught:
        grouped(optim.Groups(patterns, default=optim.Descent()))
    assert "layers.0.weight" in str(caught.value)


def test_names_that_meet():
    """A pattern whose hyper-parameter has the name of another parameter's state."""
    space = {"m": fx.Param(2), "lr": fx.Param(2)}
    rule = optim.Groups({"m": optim.Descent()}, default=optim.Adam())
    f = lambda: (space["m"] * space["lr"]).sum()
    with pytest.raises(
        fx.ModelFileError, match=r"two stored tensors are named 'optimizer\.f\.m\.lr'"
    ):
        trace(f, namespace=space, optimizer=rule)


def test_groups_of_nothing():
    rule = optim.Groups({}, default=optim.Descent())
    with pytest.raises(fx.ModelFileError, match="reaches no trainable parameter"):
        trace(lambda x: x.sum(), fx.f32[2], optimizer=rule)


def test_patterns_see_the_names_of_the_whole_file():
    """Where several modules are used, by whichever entries, paths start with their variables."""
    a, b = nn.Dense(2, 2), nn.Dense(2, 1)
    rule = optim.Groups({"a.*": None}, default=optim.Descent())
    entry, _ = trace(
        lambda x: b(a(x)).sum(), fx.f32["n", 2], namespace={"a": a, "b": b}, optimizer=rule
    )
    assert set(entry.updates) == {"b.weight", "b.bias"}


# Freezing.


def test_frozen_parameters_keep_their_values_and_have_no_state():
    """freeze before tracing: no update and nothing kept; thaw: as if it had never been."""
    model = two_layers()
    nn.freeze(model[0])
    entry, kept = grouped(optim.Adam(0.1), model)
    values = first_values(kept)
    frozen = {n: v for n, v in values.items() if n.startswith("layers.0")}
    assert len(frozen) == 2
    assert not any(".layers.0." in n for n in kept)
    moving = values["layers.1.weight"].copy()
    for _ in range(3):
        call(entry, values, np.ones((2, 3), np.float32))
    assert all(np.array_equal(values[n], v) for n, v in frozen.items())
    assert (values["layers.1.weight"] != moving).all()
    nn.thaw(model[0])
    assert "optimizer.f.m.layers.0.weight" in grouped(optim.Adam(0.1), model)[0].updates
    nn.freeze(model)
    with pytest.raises(fx.ModelFileError, match="reaches no trainable parameter"):
        grouped(optim.Adam(0.1), model)


def test_a_frozen_batch_norm_still_records_statistics():
    layer = nn.BatchNorm(3)
    model = nn.Chain(layer, nn.Dense(3, 1))
    nn.freeze(layer)
    entry, _ = grouped(optim.Descent(), model)
    assert {"layers.0.mean", "layers.0.var"} <= set(entry.updates)
    assert "layers.0.scale" not in entry.updates
