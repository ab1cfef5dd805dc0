"""Schedules: hyper-parameters as functions of the step, t = 1, 2, ...

    fx.export(optimizer=optim.Adam(lr=schedules.CosAnneal(1e-3, 1e-5, 1000)))

A schedule is an immutable value.  Called with a step it gives a number; as a hyper-parameter it is
compiled into the training step and evaluated, in f64, at the number of updates that its rule has
made.  Its own numbers stay inputs of the step: `model.optimizer["lr.l0"] = 2e-3`.
Where a schedule takes another one, it also takes a number, and a Python function of t that is
arithmetic.
"""

from fluxc.schedules.compose import (
    ComposedSchedule,
    Interpolator,
    Loop,
    Scheduler,
    Sequence,
    Shifted,
    Shortened,
    Warmup,
)
from fluxc.schedules.cursor import Stateful, next, reset
from fluxc.schedules.cycles import (
    CosAnneal,
    OneCycle,
    Sin,
    SinDecay2,
    SinExp,
    Triangle,
    TriangleDecay2,
    TriangleExp,
)
from fluxc.schedules.decays import Constant, Exp, Inv, Poly, Step
from fluxc.schedules.schedule import Moment, Schedule

__all__ = [
    "ComposedSchedule", "Constant", "CosAnneal", "Exp", "Interpolator", "Inv", "Loop", "Moment",
    "OneCycle", "Poly", "Schedule", "Scheduler", "Sequence", "Shifted", "Shortened", "Sin",
    "SinDecay2", "SinExp", "Stateful", "Step", "Triangle", "TriangleDecay2", "TriangleExp",
    "Warmup", "next", "reset",
]  # fmt: skip
