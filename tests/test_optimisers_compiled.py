"""Optimisers as native code: every rule in one artifact, stopped and resumed at every call."""

# ruff: noqa: PLW0108 (an entry is a function)

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_models import read_file
from test_optimisers import RULES, SHAPE, START, gradients, transcribed

import fluxc as fx
from fluxc import nn, optim, schedules

pytestmark = pytest.mark.cc
PLAIN = {name: rule(**hypers) for name, (rule, _, hypers) in RULES.items()}
AVERAGE = optim.EMA(0.75)
WARM = schedules.Warmup(schedules.CosAnneal(0.125, 0.0, 6), 2, start=0.25)
CALLS = 5


def entry(name, f, x, **options):
    f.__annotations__ = {"x": x}
    return fx.export(name=name, **options)(f)


def one_rule(name, rule, dtype="f32"):
    """A parameter, and a step whose gradient is the input."""
    w = fx.Param(SHAPE, init=START, dtype=dtype)
    spec = {"f64": fx.f64, "f32": fx.f32, "f16": fx.f16, "bf16": fx.bf16}[dtype]
    return {
        f"w_{name}": w,
        name: entry(name, lambda x: (x * w).astype(fx.f32).sum(), spec[SHAPE], optimizer=rule),
    }


def tiny_gradients(name, rule):
    """A step with a gradient of 2**-26 that passes, between two products, through f16's memory."""
    w = fx.Param((2, 2), init=0.0, dtype="f16")
    v = fx.Param((2, 2), init=np.eye(2), dtype="f16", trainable=False)
    loss = lambda x: fx.tanh(x @ w @ v).astype(fx.f32).sum() * 2.0**-26
    wide = optim.MixedPrecision(rule)
    space = {f"w_{name}": w, f"v_{name}": v}
    return space | {name: entry(name, loss, fx.f16[3, 2], optimizer=wide)}


def small_model():
    """Groups, a schedule, accumulation, a loss scale, dropout, statistics and an average."""
    model = nn.Chain(nn.Dense(4, 8, fx.tanh), nn.BatchNorm(8), nn.Dropout(0.5), nn.Dense(8, 1))
    groups = optim.Groups(
        {"*.bias": optim.Descent(0.1), "*layers.1.*": None}, default=optim.AdamW(WARM)
    )
    rule = optim.Chain(
        optim.LossScale(4.0, interval=2),
        optim.AccumGrad(2),
        optim.ClipNorm(1.0, global_norm=True),
        groups,
    )
    x = fx.f32["n", 4]
    loss = lambda x: (model(x) ** 2).mean()
    return {
        "model": model,
        "train": entry("train", loss, x, optimizer=rule, average=AVERAGE),
        "last": entry("last", lambda x: model(x), x),
        "mean": entry("mean", lambda x: model(x), x, weights=AVERAGE),
    }


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    space = {}
    for name, rule in PLAIN.items():
        space |= one_rule(name, rule)
    space |= one_rule("accumulated", optim.Chain(optim.AccumGrad(2), optim.Adam(WARM)))
    space |= one_rule("wide", optim.Adam(), "f64")
    for dtype in ("f16", "bf16"):
        space |= one_rule(f"lost_{dtype}", optim.Descent(2.0**-12), dtype)
        mixed = optim.MixedPrecision(optim.Chain(optim.LossScale(8.0), optim.Descent(2.0**-12)))
        space |= one_rule(f"mixed_{dtype}", mixed, dtype)
    space |= tiny_gradients("vanishing", optim.Descent(1.0))
    space |= tiny_gradients("scaled", optim.Chain(optim.LossScale(2.0**12), optim.Descent(1.0)))
    space |= small_model()
    folder = tmp_path_factory.mktemp("optimisers") / "optimisers"
    return fx.compile(space, output=folder)


def test_f64_parameters_are_updated_in_f64(package):
    """By hyper-parameters in f64: 0.001 is not rounded to f32 on its way."""
    model, grads = package.Model(), gradients(CALLS)
    for g, x in zip(grads, transcribed(RULES["adam"][1], grads), strict=True):
        model.wide(g)
        np.testing.assert_allclose(model.parameters["w_wide"], x, rtol=1e-12)


def call_all(model, i):
    """The i-th call of every training entry."""
    g = gradients(CALLS)[i]
    for name in (*PLAIN, "accumulated"):
        getattr(model, name)(g.astype(np.float32))
    for dtype in ("f16", "bf16"):
        for kind in ("lost", "mixed"):
            narrow = g.astype(np.float16) if dtype == "f16" else bf16(g)
            getattr(model, f"{kind}_{dtype}")(narrow)
    x = np.random.default_rng(i).normal(size=(3 + i, 4)).astype(np.float32)
    if i == 3:
        x[0, 0] = np.inf
    model.train(x)


def bf16(a):
    """The bits of numbers, cut off after those that bf16 has."""
    return (np.asarray(a, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def test_compiled_rules_are_their_transcriptions(package):
    """Every rule's own entry, ten calls in f32."""
    model = package.Model()
    grads = gradients(10)
    for name, (_, plain, hypers) in RULES.items():
        rounded = [g.astype(np.float32).astype(np.float64) for g in grads]
        for g, x in zip(rounded, transcribed(plain, rounded, **hypers), strict=True):
            getattr(model, name)(g.astype(np.float32))
            got = model.parameters[f"w_{name}"]
            np.testing.assert_allclose(got, x, rtol=2e-4, atol=2e-5, err_msg=name)


def test_mixed_precision_adds_up_what_rounding_loses(package):
    """Small steps move the f32 copy, and with it the 16-bit parameter."""
    for dtype in ("f16", "bf16"):
        model = package.Model()
        names = [f"w_{kind}_{dtype}" for kind in ("lost", "mixed")]
        one = np.ones(SHAPE)
        big = np.full(SHAPE, 4.0)
        narrow = (lambda a: a.astype(np.float16)) if dtype == "f16" else bf16
        read = (lambda a: a.astype(np.float32)) if dtype == "f16" else from_bf16
        for name in names:
            model.parameters[name] = narrow(big)
        for _ in range(256):
            getattr(model, f"lost_{dtype}")(narrow(one))
            getattr(model, f"mixed_{dtype}")(narrow(one))
        lost, mixed = (read(np.array(model.parameters[name])) for name in names)
        np.testing.assert_array_equal(lost, 4.0)
        np.testing.assert_array_equal(mixed, 4.0 - 256 * 2.0**-12)


def test_a_loss_scale_saves_what_vanishes_in_16_bits(package, tmp_path):
    model = package.Model()
    for name in ("vanishing", "scaled"):
        getattr(model, name)(np.ones((3, 2), np.float16))
    model.save(tmp_path / "w.safetensors")
    kept = read_file(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(kept["optimizer.vanishing.master.w_vanishing"], 0)
    np.testing.assert_array_equal(kept["optimizer.scaled.master.w_scaled"], -3 * 2.0**-26)


def test_hyper_parameters_are_run_time_values(package):
    """Those of groups, schedules and averages have names, and their values count in the step."""
    model = package.Model()
    assert {
        "*.bias.lr", "train.lr.start", "train.lr.schedule.l0", "train.growth", "decay",
        "accumulated.lr.start",
    } <= set(model.optimizer)  # fmt: skip
    before = np.array(model.parameters["w_descent"])
    model.optimizer["descent.lr"] = 0.5
    model.descent(np.ones(SHAPE, np.float32))
    np.testing.assert_array_equal(before - model.parameters["w_descent"], 0.5)
    model.optimizer["accumulated.lr.start"] = 0.0
    before = np.array(model.parameters["w_accumulated"])
    for _ in range(2):
        model.accumulated(np.ones(SHAPE, np.float32))
    np.testing.assert_array_equal(model.parameters["w_accumulated"], before)


def test_an_average_predicts(package, tmp_path):
    """mean = 0.75*mean + 0.25*w at each update; what is not trained stands for itself."""
    model = package.Model(seed=3)
    names = [n for n in model.parameters if n.startswith("model.")]
    mean = {n: np.array(model.parameters[n], np.float64) for n in names}
    x = np.random.default_rng(9).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(model.mean(x), model.last(x))
    for i in range(8):
        model.train(x[: i + 1])
        if i % 2:
            for n in names:
                mean[n] = 0.75 * mean[n] + 0.25 * model.parameters[n]
    got = model.mean(x)
    assert np.abs(got - model.last(x)).max() > 1e-3
    model.save(tmp_path / "w.safetensors")
    other = package.Model(weights=tmp_path / "w.safetensors")
    np.testing.assert_array_equal(other.mean(x), got)
    for n in names:
        other.parameters[n] = mean[n].astype(np.float32)
    np.testing.assert_allclose(
        other.last(x), got, rtol=1e-4, atol=1e-5, err_msg="the mean's weights predict alike"
    )


def test_an_average_is_shipped(tmp_path):
    """An artifact that only predicts gets the average from --weights; without one, the weights."""
    space = small_model()
    x = np.random.default_rng(9).normal(size=(5, 4)).astype(np.float32)
    whole = fx.compile(space, output=tmp_path / "whole")
    trained = whole.Model(seed=3)
    for _ in range(4):
        trained.train(x)
    trained.save(tmp_path / "w.safetensors")
    predict = {"entries": ("mean", "last"), "output": tmp_path / "predict"}
    shipped = fx.compile(space, weights=tmp_path / "w.safetensors", **predict).Model()
    assert not shipped.optimizer
    np.testing.assert_array_equal(shipped.mean(x), trained.mean(x))
    np.testing.assert_array_equal(shipped.last(x), trained.last(x))
    initial = tmp_path / "whole" / "whole.safetensors"
    shipped = fx.compile(space, weights=initial, **predict).Model()
    np.testing.assert_array_equal(shipped.mean(x), whole.Model().last(x))
    shipped.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(shipped.mean(x), trained.mean(x))


RESUME = """
import sys
sys.path[:0] = sys.argv[1:3]
import numpy as np, optimisers
from test_optimisers_compiled import call_all
model = optimisers.Model(weights=sys.argv[3], threads=1)
for i in range(int(sys.argv[4]), int(sys.argv[5])):
    call_all(model, i)
model.save(sys.argv[6])
"""


def test_a_run_that_is_stopped_and_resumed_has_the_same_bits(package, tmp_path):
    """After every call: a new model from the saved file goes on as the first one did."""
    model = package.Model(seed=7)
    for i in range(CALLS):
        model.save(tmp_path / f"{i}.safetensors")
        call_all(model, i)
    model.save(tmp_path / "end.safetensors")
    whole = (tmp_path / "end.safetensors").read_bytes()
    for start in range(CALLS):
        resumed = package.Model(weights=tmp_path / f"{start}.safetensors", threads=2)
        for i in range(start, CALLS):
            call_all(resumed, i)
        resumed.save(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == whole, (
            f"resumed after {start} calls"
        )
    here = Path(__file__).parent
    folder = Path(package.__file__).parent.parent
    arguments = [folder, here, tmp_path / "3.safetensors", 3, CALLS, tmp_path / "new.safetensors"]
    subprocess.run([sys.executable, "-c", RESUME, *map(str, arguments)], check=True)
    assert (tmp_path / "new.safetensors").read_bytes() == whole, "resumed in another process"
