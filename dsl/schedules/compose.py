"""Schedules made of schedules."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.schedules.schedule import Moment, Schedule, as_part, ceil, check_count, pick
from fluxc.trace import user_loc

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ComposedSchedule", "Interpolator", "Loop", "Scheduler", "Sequence", "Shifted", "Shortened",
    "Warmup",
]  # fmt: skip


class Sequence(Schedule):
    """Schedules one after another, each from its own step 1; the last goes on.

        schedules.Sequence((schedules.Exp(1e-2, 0.9), 10), (1e-3, 50))

    PyTorch's SequentialLR.
    pieces  pairs of a schedule and the number of its steps, or two lists of these.
    """

    def __init__(self, *pieces: Any) -> None:
        if len(pieces) == 2 and all(isinstance(p, list) for p in pieces):
            if len(pieces[0]) != len(pieces[1]):
                self._refuse(pieces)
            pieces = tuple(zip(*pieces, strict=True))
        if not pieces or not all(isinstance(p, tuple) and len(p) == 2 for p in pieces):
            self._refuse(pieces)
        steps = tuple(check_count("Sequence: each number of steps", n) for _, n in pieces)
        super().__init__({str(i): s for i, (s, _) in enumerate(pieces)}, steps=steps)

    def _refuse(self, pieces: Any) -> None:
        raise ShapeError(
            "Sequence: schedules and their numbers of steps",
            loc=user_loc(),
            expected="pairs (schedule, steps), or two lists of one length",
            got=repr(pieces),
        )

    def formula(self, s: Moment) -> Any:
        starts = [0, *itertools.accumulate(self.options["steps"])][:-1]

        def piece(i: int) -> Callable[[], Any]:
            return lambda: s.at(str(i), s.t - starts[i])

        return pick([s.t <= start for start in starts[1:]], [piece(i) for i in range(len(starts))])


class Loop(Schedule):
    """The first `period` steps of a schedule, again and again.

    s(t) = f((t - 1) mod period + 1)
    """

    def __init__(self, f: Any, period: Any) -> None:
        super().__init__({"f": f, "period": check_count("Loop: period", period)})

    def formula(self, s: Moment) -> Any:
        return s.at("f", (s.t - 1) % s["period"] + 1)


class Interpolator(Schedule):
    """A schedule in larger steps, such as epochs.

    s(t) = schedule(ceil(t/rate))
    """

    def __init__(self, schedule: Any, rate: Any) -> None:
        if isinstance(rate, int | float) and not rate > 0:
            raise ShapeError("Interpolator: rate must be positive", loc=user_loc(), got=repr(rate))
        super().__init__({"schedule": schedule, "rate": rate})

    def formula(self, s: Moment) -> Any:
        return s.at("schedule", ceil(s.t / s["rate"]))


class Shifted(Schedule):
    """A schedule that begins at its step `offset`.

    s(t) = schedule(t - 1 + offset)
    """

    def __init__(self, schedule: Any, offset: Any) -> None:
        super().__init__({"schedule": schedule, "offset": check_count("Shifted: offset", offset)})

    def formula(self, s: Moment) -> Any:
        return s.at("schedule", s.t - 1 + s["offset"])


class Shortened(Schedule):
    """The first n steps of a schedule.

    Errors  IndexError for t > n; a compiled step stays at the value of step n.
    """

    def __init__(self, schedule: Any, n: Any) -> None:
        super().__init__({"schedule": schedule, "n": check_count("Shortened: n", n)})

    def formula(self, s: Moment) -> Any:
        return s.at("schedule", s.bounded(s.t, s["n"]))


class Warmup(Schedule):
    """A line from `start` to a schedule's first value in `steps` steps, then that schedule.

        s(t) = start + (schedule(1) - start)*(t - 1)/steps   for t <= steps
        s(t) = schedule(t - steps)                           after it

    PyTorch's LinearLR in a SequentialLR.
    """

    def __init__(self, schedule: Any, steps: Any, start: Any = 0.0) -> None:
        parts = {"schedule": schedule, "steps": check_count("Warmup: steps", steps)}
        super().__init__({**parts, "start": start})

    def formula(self, s: Moment) -> Any:
        steps, start = s["steps"], s["start"]

        def rising() -> Any:
            first = s.at("schedule", s.t * 0 + 1)
            return start + (first - start) * (s.t - 1) / steps

        return pick([s.t <= steps], [rising, lambda: s.at("schedule", s.t - steps)])


class ComposedSchedule(Schedule):
    """A schedule whose numbers are schedules themselves.

        schedules.ComposedSchedule(schedules.Sin(0, 1, 10), (0.0, schedules.Exp(1.0, 0.9), 10))

    At step t it is the schedule that `compose` makes of the parameters' values at t, at t.
    compose     (schedule, *values) -> schedule, before the others; by default one of the same
                kind whose numbers have these values.
    parameters  numbers and schedules, by position or, in a dict, by name.
    """

    def __init__(self, *arguments: Any) -> None:
        if len(arguments) not in (2, 3) or not isinstance(arguments[-2], Schedule):
            raise ShapeError(
                "ComposedSchedule takes a schedule and its parameters",
                loc=user_loc(),
                expected="ComposedSchedule([compose,] schedule, parameters)",
                got=repr(arguments),
            )
        schedule, parameters = arguments[-2:]
        if not isinstance(parameters, dict):
            names = list(schedule.parts) if len(arguments) == 2 else map(str, itertools.count())
            parameters = dict(zip(names, parameters, strict=False))
        if len(arguments) == 2 and not set(parameters) <= set(schedule.parts):
            raise ShapeError(
                f"ComposedSchedule: {type(schedule).__name__} has other parameters",
                loc=user_loc(),
                expected=", ".join(schedule.parts),
                got=", ".join(parameters),
            )
        compose = arguments[0] if len(arguments) == 3 else _with_numbers
        super().__init__(parameters, schedule=schedule, compose=compose)

    def formula(self, s: Moment) -> Any:
        values = {name: s[name] for name in self.parts}
        schedule, compose = self.options["schedule"], self.options["compose"]
        if compose is _with_numbers:
            return s.of(_with_numbers(schedule, values), s.t, s.path + "schedule.")
        return s.of(compose(schedule, *values.values()), s.t, s.path + "schedule.")


def _with_numbers(schedule: Schedule, values: dict[str, Any]) -> Schedule:
    """The schedule with other numbers."""
    made: Schedule = object.__new__(type(schedule))
    made.__dict__.update(parts={**schedule.parts, **values}, options=schedule.options)
    return made


def Scheduler(rule: Callable[..., Any], *schedules: Any, **named: Any) -> Any:  # noqa: N802 (Flux's)
    """The rule with schedules as hyper-parameters, as Flux writes it.

        schedules.Scheduler(optim.Adam, schedules.Exp(1e-3, 0.99), beta=(0.9, 0.99))

    is optim.Adam(schedules.Exp(1e-3, 0.99), beta=(0.9, 0.99)).
    """
    for x in (*schedules, *named.values()):
        if not isinstance(x, bool | tuple):
            as_part("Scheduler: an argument", x)
    return rule(*schedules, **named)
