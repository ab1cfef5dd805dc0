"""Schedules beside transcriptions of their formulas: in Python, in traced steps, in native code."""

import itertools
import math

import numpy as np
import pytest

import fluxc as fx
from dsl import call, first_values, trace
from fluxc import optim, schedules
from fluxc.schedules import (
    ComposedSchedule,
    Constant,
    CosAnneal,
    Exp,
    Interpolator,
    Inv,
    Loop,
    OneCycle,
    Poly,
    Sequence,
    Shifted,
    Shortened,
    Sin,
    SinDecay2,
    SinExp,
    Stateful,
    Step,
    Triangle,
    TriangleDecay2,
    TriangleExp,
    Warmup,
)

PI = math.pi


def triangle(t, period):
    return 2 / PI * abs(math.asin(math.sin(PI * (t - 1) / period)))


def sine(t, period):
    return abs(math.sin(PI * (t - 1) / period))


def segments(t, pieces):
    """The value of the piece that t falls into, counted from its own first step."""
    for f, steps in pieces[:-1]:
        if t <= steps:
            return f(t)
        t -= steps
    return pieces[-1][0](t)


def one_cycle(t, n, top, low, end, share=0.25):
    up = math.ceil(share * n)
    if t <= up:
        return low + (top - low) * (1 + math.cos(PI * (up + t - 1) / up)) / 2
    return end + (top - end) * (1 + math.cos(PI * min(t - up - 1, n - up) / (n - up))) / 2


# The schedule and its formula.
SCHEDULES = {
    "constant": (Constant(0.3), lambda _: 0.3),
    "step": (Step(0.8, 0.5, 7), lambda t: 0.8 * 0.5 ** ((t - 1) // 7)),
    "step sizes": (
        Step(0.8, 0.5, [3, 5, 4]),
        lambda t: 0.8 * (1 if t <= 3 else 0.5 if t <= 8 else 0.25),
    ),
    "exp": (Exp(0.9, 0.97), lambda t: 0.9 * 0.97 ** (t - 1)),
    "poly": (Poly(0.9, 2, 200), lambda t: 0.9 * (1 - (t - 1) / 200) ** 2),
    "inv": (Inv(0.9, 0.1, 1.5), lambda t: 0.9 / (1 + (t - 1) * 0.1) ** 1.5),
    "triangle": (Triangle(0.1, 0.9, 9), lambda t: 0.8 * triangle(t, 9) + 0.1),
    "triangle halved": (
        TriangleDecay2(0.9, 0.1, 9),
        lambda t: 0.8 * 0.5 ** (math.ceil(t / 9) - 1) * triangle(t, 9) + 0.1,
    ),
    "triangle exp": (
        TriangleExp(0.1, 0.9, 9, 0.95),
        lambda t: 0.8 * 0.95 ** (t - 1) * triangle(t, 9) + 0.1,
    ),
    "sin": (Sin(0.1, 0.9, 9), lambda t: 0.8 * sine(t, 9) + 0.1),
    "sin halved": (
        SinDecay2(0.1, 0.9, 9),
        lambda t: 0.8 * 0.5 ** (math.ceil(t / 9) - 1) * sine(t, 9) + 0.1,
    ),
    "sin exp": (SinExp(0.9, 0.1, 9, 0.95), lambda t: 0.8 * 0.95 ** (t - 1) * sine(t, 9) + 0.1),
    "cos": (
        CosAnneal(0.9, 0.1, 10),
        lambda t: 0.8 * (1 + math.cos(PI * ((t - 1) % 10) / 10)) / 2 + 0.1,
    ),
    "cos without restart": (
        CosAnneal(0.1, 0.9, 10, restart=False),
        lambda t: 0.8 * (1 + math.cos(PI * (t - 1) / 10)) / 2 + 0.1,
    ),
    "sequence": (
        Sequence((1.0, 1), (Step(0.1, 0.5, 10), 50)),
        lambda t: segments(t, [(lambda _: 1.0, 1), (lambda u: 0.1 * 0.5 ** ((u - 1) // 10), 50)]),
    ),
    "sequence of lists": (
        Sequence([Exp(1.0, 0.9), 0.5, Exp(0.2, 0.8)], [4, 3, 2]),
        lambda t: segments(
            t,
            [
                (lambda u: 0.9 ** (u - 1), 4),
                (lambda _: 0.5, 3),
                (lambda u: 0.2 * 0.8 ** (u - 1), 2),
            ],
        ),
    ),
    "loop": (Loop(Exp(0.9, 0.5), 4), lambda t: 0.9 * 0.5 ** ((t - 1) % 4)),
    "loop of a function": (Loop(lambda t: 1 / (t + 1), 5), lambda t: 1 / ((t - 1) % 5 + 2)),
    "interpolator": (
        Interpolator(Exp(0.9, 0.5), 4),
        lambda t: 0.9 * 0.5 ** (math.ceil(t / 4) - 1),
    ),
    "slower than one": (
        Interpolator(Exp(0.9, 0.99), 0.4),
        lambda t: 0.9 * 0.99 ** (math.ceil(t / 0.4) - 1),
    ),
    "shifted": (Shifted(Exp(0.9, 0.9), 6), lambda t: 0.9 * 0.9 ** (t + 4)),
    "shortened": (Shortened(Exp(0.9, 0.9), 150), lambda t: 0.9 * 0.9 ** (t - 1)),
    "composed": (
        ComposedSchedule(Sin(0, 1, 10), (0.1, Exp(1.0, 0.95), 10)),
        lambda t: abs(0.1 - 0.95 ** (t - 1)) * sine(t, 10) + min(0.1, 0.95 ** (t - 1)),
    ),
    "composed by name": (
        ComposedSchedule(Exp(0.9, 0.5), {"start": Inv(1.0, 0.1, 1)}),
        lambda t: 1 / (1 + (t - 1) * 0.1) * 0.5 ** (t - 1),
    ),
    "composed by a function": (
        ComposedSchedule(lambda _, a: Exp(a, 0.9), Exp(0.9, 0.5), (Inv(1.0, 0.1, 1),)),
        lambda t: 1 / (1 + (t - 1) * 0.1) * 0.9 ** (t - 1),
    ),
    "a schedule of a schedule": (
        CosAnneal(Exp(0.9, 0.9), 0.0, 10),
        lambda t: 0.9 * 0.9 ** (t - 1) * (1 + math.cos(PI * ((t - 1) % 10) / 10)) / 2,
    ),
    "one cycle": (OneCycle(30, 0.5), lambda t: one_cycle(t, 30, 0.5, 0.02, 5e-6)),
    "one cycle with ends": (
        OneCycle(31, 0.5, startval=0.1, endval=0.05, percent_start=0.4),
        lambda t: one_cycle(t, 31, 0.5, 0.1, 0.05, 0.4),
    ),
    "warm-up": (
        Warmup(CosAnneal(0.9, 0.1, 20), 5, start=0.1),
        lambda t: 0.1 + 0.8 * (t - 1) / 5
        if t <= 5
        else 0.8 * (1 + math.cos(PI * ((t - 6) % 20) / 20)) / 2 + 0.1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_value_in_python(name):
    schedule, formula = SCHEDULES[name]
    for t in (*range(1, 60), 101, 140):
        assert schedule(t) == pytest.approx(formula(t), rel=1e-9, abs=1e-12), f"t = {t}"
    assert list(itertools.islice(schedule, 5)) == [schedule(t) for t in range(1, 6)]
    assert type(schedule(3)) is float


def every_schedule():
    """A parameter for each schedule, a loss that falls as they do, and the rule that uses all."""
    ws = {f"w{i}": fx.Param((), init=0.0, dtype="f64") for i in range(len(SCHEDULES))}
    rates = (optim.Descent(schedule) for schedule, _ in SCHEDULES.values())
    rule = optim.Groups(dict(zip(ws, rates, strict=True)), default=None)
    return ws, lambda: sum(w * 1.0 for w in ws.values()), rule


def assert_lost(before, after, t):
    """Each parameter lost its schedule's value at step t."""
    for i, (name, (_, formula)) in enumerate(SCHEDULES.items()):
        lost = before[f"w{i}"] - after[f"w{i}"]
        np.testing.assert_allclose(lost, formula(t), rtol=1e-9, atol=1e-12, err_msg=f"{name}, {t}")


def test_values_in_a_step():
    """Each schedule at the step's own counter, in f64."""
    ws, loss, rule = every_schedule()
    entry, kept = trace(loss, namespace=ws, optimizer=rule)
    values = first_values(kept)
    for t in range(1, 40):
        before = dict(values)
        call(entry, values)
        assert_lost(before, values, t)


@pytest.mark.cc
def test_values_in_a_compiled_step():
    ws, loss, rule = every_schedule()
    step = fx.export(name="step", optimizer=rule)(loss)
    model = fx.compile({**ws, "step": step}).Model()
    for t in range(1, 40):
        before = {name: float(model.parameters[name]) for name in ws}
        model.step()
        assert_lost(before, model.parameters, t)
    names = {n for n in model.optimizer if n.startswith("w8.")}
    assert names == {"w8.lr.l0", "w8.lr.l1", "w8.lr.period", "w8.lr.decay"}
    model.optimizer["w0.lr.value"] = 2.0
    before = float(model.parameters["w0"])
    model.step()
    assert before - float(model.parameters["w0"]) == pytest.approx(2.0)


def lost_by(schedule, calls, **changed):
    """What a parameter loses at each call; `changed` numbers of the schedule are set before."""
    w = fx.Param((), init=0.0, dtype="f64")
    entry, kept = trace(lambda: w * 1.0, namespace={"w": w}, optimizer=optim.Descent(schedule))
    values = first_values(kept)
    for name, value in changed.items():
        assert f"optimizer.f.lr.{name}" in values
        values[f"optimizer.f.lr.{name}"] = np.float64(value)
    lost = []
    for _ in range(calls):
        before = values["w"]
        call(entry, values)
        lost.append(float(before - values["w"]))
    return lost


def test_the_end_of_a_schedule():
    """Beyond it a call in Python is an error, and a step stays at the last value."""
    for schedule, last in ((Poly(1.0, 1, 4), 0.25), (Shortened(Exp(1.0, 0.5), 4), 0.125)):
        assert list(schedule) == pytest.approx(lost_by(schedule, 4))
        with pytest.raises(IndexError, match="ends at step 4, got 5"):
            schedule(5)
        assert lost_by(schedule, 7)[3:] == pytest.approx([last] * 4)
    mixed = Sequence((Poly(1.0, 1, 3), 3), (0.5, 10))
    assert [mixed(t) for t in range(1, 6)] == pytest.approx(lost_by(mixed, 5))


def test_numbers_are_run_time_values():
    """Every number of a schedule is one, also inside of others; what is derived follows."""
    assert lost_by(Exp(1.0, 0.5), 3, decay=0.1) == pytest.approx([1, 0.1, 0.01])
    assert lost_by(CosAnneal(1.0, 0.0, 10), 3, period=2) == pytest.approx([1, 0.5, 1])
    assert lost_by(
        Warmup(Constant(1.0), 2), 3, steps=4, **{"schedule.value": 2.0}
    ) == pytest.approx([0, 0.5, 1])
    assert lost_by(OneCycle(8, 1.0), 1, maxval=50.0) == pytest.approx([2.0])


def test_a_hyper_parameter_that_is_not_a_rate():
    """beta and lambda follow schedules as well."""
    w = fx.Param((), init=1.0, dtype="f64")
    rule = optim.Chain(optim.WeightDecay(Exp(0.5, 0.5)), optim.Descent(1.0))
    entry, kept = trace(lambda: w * 0.0, namespace={"w": w}, optimizer=rule)
    values = first_values(kept)
    for want in (0.5, 0.5 * 0.75, 0.5 * 0.75 * 0.875):
        call(entry, values)
        np.testing.assert_allclose(values["w"], want)
    assert optim.Adam(beta=(0.9, Exp(0.99, 1.0))).hypers["beta2"] == Exp(0.99, 1.0)


def test_scheduler_is_the_rule_with_schedules():
    decay = Exp(1e-3, 0.9)
    assert schedules.Scheduler(optim.Adam, decay) == optim.Adam(decay)
    assert schedules.Scheduler(optim.AdamW, eta=decay, lambda_=0.1) == optim.AdamW(
        decay, lambda_=0.1
    )
    assert schedules.Scheduler(optim.Adam, decay, beta=(0.8, 0.9)).hypers["beta1"] == 0.8
    with pytest.raises(fx.ShapeError, match="an argument is not usable in a schedule"):
        schedules.Scheduler(optim.Adam, "fast")


def test_stateful_goes_on_when_it_is_told_to():
    stuck = iter([True, False, True, True])
    cursor = Stateful(Exp(1.0, 0.5), advance=lambda _: next(stuck))
    assert [schedules.next(cursor) for _ in range(4)] == [1, 0.5, 0.5, 0.25]
    schedules.reset(cursor)
    assert cursor.state == 1
    assert Stateful(0.25).next() == 0.25


def test_schedules_are_values():
    assert Exp(1, 0.5) == Exp(1.0, 0.5)
    assert Exp(1, 0.5) != Exp(1, 0.25)
    assert hash(Warmup(Exp(1, 0.5), 3)) == hash(Warmup(Exp(1, 0.5), 3))
    assert (
        repr(Warmup(Exp(1, 0.5), 3))
        == "Warmup(schedule=Exp(start=1, decay=0.5), steps=3, start=0.0)"
    )
    with pytest.raises(AttributeError, match="immutable"):
        Exp(1, 0.5).start = 3


def test_a_schedule_of_one_s_own():
    class Halving(schedules.Schedule):
        def __init__(self, start):
            super().__init__({"start": start})

        def formula(self, s):
            return s["start"] * 0.5 ** (s.t - 1)

    assert lost_by(Halving(2.0), 3) == [Halving(2.0)(t) for t in (1, 2, 3)] == [2, 1, 0.5]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Exp(1, 0.5)(0), "called with a step"),
        (lambda: Exp(1, 0.5)(1.5), "called with a step"),
        (lambda: Exp("a", 0.5), "Exp: start is not usable in a schedule"),
        (lambda: Exp(1, math.nan), "Exp: decay is not usable in a schedule"),
        (lambda: Exp(Stateful(1.0), 0.5), "schedules.Stateful lives in Python"),
        (lambda: Step(1, 0.5, 0), "Step: step_sizes is a number of steps"),
        (lambda: Step(1, 0.5, []), "has no segment"),
        (lambda: Poly(1, 1, 2.5), "Poly: max_iter is a number of steps"),
        (lambda: Sequence(Exp(1, 0.5), 3), "pairs \\(schedule, steps\\)"),
        (lambda: Sequence([1.0, 2.0], [3]), "pairs \\(schedule, steps\\)"),
        (lambda: Interpolator(1.0, 0), "rate must be positive"),
        (lambda: Shifted(1.0, -1), "a whole number"),
        (lambda: ComposedSchedule(1.0, (2,)), "takes a schedule and its parameters"),
        (lambda: ComposedSchedule(Exp(1, 0.5), {"rate": 2}), "Exp has other parameters"),
    ],
)
def test_wrong_schedules(wrong, message):
    with pytest.raises(fx.ShapeError, match=message):
        wrong()
