"""Optimisers, whole training steps, schedules, and what watches a training."""

# ruff: noqa: ARG001 (runners of one signature)

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest

import fluxc as fx
from conformance.cases import Stated, array, covers, dtype_of
from dsl import call, first_values, trace
from fluxc import init, nn, optim, schedules, train


class Steps:
    """A training step whose gradients are its arguments, and all that it keeps, by name."""

    def __init__(self, rule, dtype="f64", fixed=(), **start):
        self.parameters = {
            name: fx.Param(
                np.shape(x), init=np.asarray(x), dtype=dtype, trainable=name not in fixed
            )
            for name, x in start.items()
        }
        self.values = {}
        self.use(rule)

    def use(self, rule):
        """Another rule from now on; the parameters stay."""
        parameters = self.parameters.values()

        def loss(*gradients):
            return sum((g * p).sum() for g, p in zip(gradients, parameters, strict=True))

        specs = [getattr(fx, p.type.dtype.name)[p.type.shape] for p in parameters]
        self.entry, kept = trace(loss, *specs, namespace=self.parameters, optimizer=rule)
        present = {name: x for name, x in self.values.items() if name in self.parameters}
        self.values = first_values(kept) | present

    def step(self, *gradients):
        call(self.entry, self.values, *(np.asarray(g, np.float64) for g in gradients))
        return self

    def __getitem__(self, name):
        return self.values[name]

    def slot(self, name):
        """What the rule keeps for the parameter x."""
        return self.values[f"optimizer.f.{name}.x"]


def updated(rule, args):
    return Steps(rule, x=args["x"]).step(args["dx"])["x"]


ONE_STEP = {
    "optim Descent(0.1)": optim.Descent(0.1),
    "optim WeightDecay(0.1) alone": optim.WeightDecay(0.1),
    "optim SignDecay(0.1) alone": optim.SignDecay(0.1),
    "optim SignDecay(0.1) mixed signs": optim.SignDecay(0.1),
    "optim ClipGrad(2) alone": optim.ClipGrad(2),
    "optim OptimiserChain(ClipGrad(2),WeightDecay(0.1))": optim.OptimiserChain(
        optim.ClipGrad(2), optim.WeightDecay(0.1)
    ),
    "optim OptimiserChain(Descent(0.1))": optim.OptimiserChain(optim.Descent(0.1)),
    "optim OptimiserChain() identity": optim.OptimiserChain(),
    "optim Momentum(1/30) update doc": optim.Momentum(1 / 30),
    "optim OptimiserChain(ClipGrad(1),Descent(0.1)) doc": optim.OptimiserChain(
        optim.ClipGrad(1), optim.Descent(0.1)
    ),
}


@covers(*ONE_STEP)
def one_step(case):
    return updated(ONE_STEP[case.what], case.args)


@covers("optim AdamW(0.1) first step, lambda=0")
def adamw(case):
    x = array(case.args["x"])
    return Steps(optim.AdamW(0.1), x=x).step(2 * x)["x"]


@covers("optim Momentum(0.1) state after one step")
def momentum_state(case):
    a = case.args
    rule = optim.Momentum(a["eta"], a["rho"])
    return Steps(rule, x=a["x"]).step(a["dx"]).slot("v")


@covers("optim Momentum trainable subset")
def momentum_of_some(case):
    a = case.args
    steps = Steps(optim.Momentum(a["eta"], a["rho"]), fixed="y", x=a["x"], y=[5.0])
    steps.step(a["dx"], [1.0])
    assert steps["y"] == [5]
    return steps["x"]


@covers("optim Momentum(1/9) Float16")
def momentum_f16(case):
    dtype = dtype_of(case.args)
    steps = Steps(optim.Momentum(1 / 9), "f16", x=array(case.args["x"], dtype))
    return steps.step(case.args["dx"])["x"]


@covers("optim ClipGrad(13) applied delta")
def clip_grad(case):
    return -updated(optim.ClipGrad(case.args["delta"]), {"x": [0, 0, 0], **case.args})


def clipped(case, gradient):
    rule = optim.ClipNorm(case.args["omega"], case.args["p"])
    return -updated(rule, {"x": np.zeros(len(gradient)), "dx": gradient})


@covers("optim ClipNorm(10) norm of update")
def clip_norm(case):
    (small,) = clipped(case, [0.1])
    norm = np.linalg.norm(clipped(case, case.args["dx"]))
    return {"norm2_of_update": norm, "small array [0.1] unchanged": small}


@covers("optim ClipNorm(5,1) L1")
def clip_norm_1(case):
    return {"norm1_of_update": np.abs(clipped(case, case.args["dx"])).sum()}


@covers("optim OptimiserChain(ClipGrad(2),Adam()) first moment")
def clipped_moment(case):
    rule = optim.OptimiserChain(optim.ClipGrad(2), optim.Adam())
    return Steps(rule, x=[0, 0, 0]).step(case.args["dx"]).slot("m")


@covers("optim freeze then thaw, Descent")
def freeze_and_thaw(case):
    a, after = case.args, {}
    steps = Steps(optim.Groups({"y": None}, default=optim.Descent(0.1)), x=a["x"], y=a["y"])
    for number, rule in ((1, None), (2, optim.Descent(0.2))):
        if rule is not None:
            steps.use(rule)
        steps.step(a["dx"], a["dy"])
        after |= {f"{name} after {number}": steps[name] for name in "xy"}
    return after


@covers("optim AccumGrad(3) + Descent")
def accumulated(case):
    """Nothing for two steps, then the mean of three gradients, then nothing again."""
    start, lr, gradients = np.array([1.0, 2.0]), 0.1, np.arange(8.0).reshape(4, 2)
    steps = Steps(optim.OptimiserChain(optim.AccumGrad(3), optim.Descent(lr)), x=start)
    moved = start - lr * gradients[:3].mean(axis=0)
    return Stated([steps.step(g)["x"] for g in gradients], [start, start, moved, moved])


@covers("optim AccumGrad(2)+WeightDecay(0.01)+Descent(0.1) doc")
def accumulated_decay(case):
    rule = optim.OptimiserChain(optim.AccumGrad(2), optim.WeightDecay(0.01), optim.Descent(0.1))
    a = case.args
    steps = Steps(rule, x=a["x"], y=a["y"])
    for g in a["grads"]:
        steps.step([g["x"]], [g["y"]])
    return {name: steps[name][0] for name in "xy"}


@covers("optim Nesterov() velocity doc")
def nesterov(case):
    rule = optim.Nesterov(case.args["eta"], case.args["rho"])
    return Steps(rule, x=[0, 0]).step(case.args["dx"]).slot("v")


@covers("optim Adam(0.1) state after unit gradient, then zero gradient")
def adam_state(case):
    """Powers of beta are not kept, but the number of updates; Flux's run one ahead."""
    beta = (0.9, 0.999)
    steps = Steps(optim.Adam(0.1, beta), x=0.0)

    def state(gradient):
        steps.step(gradient)
        powers = [b ** (steps["optimizer.f.step"] + 1) for b in beta]
        return {"m": steps.slot("m"), "v": steps.slot("v"), "beta_t": powers}

    first, second = map(state, case.args["dx"])
    return {"after 1": first, "after 2 (zero grad)": second}


@covers("train! with Momentum(0.1)*")
def train_a_layer(case):
    x, y = (array(case.args[k]) for k in "xy")
    layer = nn.Dense(2, 1, fx.leakyrelu, init=init.ones, dtype="f64")
    loss = lambda x, y: fx.sum(abs(layer(x) - y)) * 100
    rule = optim.Momentum(0.1, 0.9)
    specs, namespace = (fx.f64[2], fx.f64[1]), {"layer": layer}
    entry, kept = trace(loss, *specs, namespace=namespace, optimizer=rule)
    values = first_values(kept)
    for _ in range(2):
        call(entry, values, x, y)
    velocity = lambda name: -values[f"optimizer.f.v.{name}"].ravel()
    return {
        "bias": values["bias"][0],
        "momentum_weight": -velocity("weight"),
        "momentum_bias": -velocity("bias")[0],
    }


class Model:
    """What `fit` needs of a model, around a step that the interpreter runs."""

    def __init__(self):
        layer = nn.Dense(1, 1, init=init.zeros)
        loss = lambda x, scale: layer(x).sum() * scale
        options = {"namespace": {"layer": layer}, "optimizer": optim.Descent(0.1)}
        self.entry, kept = trace(loss, fx.f32[1], fx.f32[()], **options)
        self.values = first_values(kept)

    def train_step(self, scale):
        return call(self.entry, self.values, np.ones(1, np.float32), np.float32(scale))[0]

    def save(self, path):
        with Path(path).open("wb") as f:
            np.savez(f, **self.values)

    def load(self, path):
        with np.load(path) as kept:
            self.values = dict(kept)


@covers("train! stops at NaN")
def stops_at_nan(case):
    """With a checkpoint of every step, the step of the NaN leaves no trace, as in Flux."""
    model = Model()
    items = [1.0] * 50 + [math.nan] + [1.0] * 49
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = train.Checkpoint(folder, steps=1)
        with pytest.raises(train.NonFiniteLoss) as stopped:
            train.fit(model.train_step, items, checkpoint=checkpoint, progress=False)
    return {"steps_run": stopped.value.step, "weight": model.values["weight"][0, 0]}


# ---- schedules


@covers("schedule Sequence*")
def sequence(case):
    schedule = schedules.Sequence((1, 1), (schedules.Step(0.1, 0.5, 10), 50))
    return [schedule(t) for t in case.args["t"]]


@covers("schedule Interpolator*")
def interpolator(case):
    steps = schedules.Sequence((1, 10), (2, 10), (3, 30))
    schedule = schedules.Interpolator(steps, 5)
    return Stated([schedule(t) for t in range(1, 251)], [1] * 50 + [2] * 50 + [3] * 150)


# ---- watching


def calls_until_true(trigger, values):
    """How many calls come before the one that is true."""
    return [trigger(v) for v in values].index(True)


@covers("patience(true,3)")
def patience(case):
    trigger = train.patience(lambda: True, 3)
    return [trigger() for _ in range(case.args["calls"])]


@covers("patience with reset")
def patience_again(case):
    trigger = train.patience(lambda v: v, case.args["wait"])
    return {"iterations before stop": calls_until_true(trigger, case.args["values"])}


@covers("early_stopping min_dist=3 continued")
def early_stopping(case):
    a = case.args
    trigger = train.early_stopping(lambda v: v, a["delay"], min_dist=a["min_dist"])
    assert not any(trigger(-3 * n) for n in range(99))
    return {"extra iterations": calls_until_true(trigger, [-n for n in range(20)])}


@covers("plateau")
def plateau(case):
    a = case.args
    options = {k: a[k] for k in ("init_score", "min_dist")}
    trigger = train.plateau(lambda v: v, a["width"], **options)
    return {"iterations before stop": calls_until_true(trigger, [-9, 8, -7, 6, -5])}
