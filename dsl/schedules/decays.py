"""Schedules that fall."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import ShapeError
from fluxc.schedules.schedule import Moment, Schedule, check_count, floor
from fluxc.trace import user_loc

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Constant", "Exp", "Inv", "Poly", "Step"]


class Constant(Schedule):
    """One value at every step.

    s(t) = value
    """

    def __init__(self, value: Any) -> None:
        super().__init__({"value": value})

    def formula(self, s: Moment) -> Any:
        return s["value"]


class Step(Schedule):
    """A level that is multiplied by `decay` after each segment.  PyTorch's StepLR, MultiStepLR.

        s(t) = start * decay**i,  i the number of completed segments

    step_sizes  the length of every segment, or a list of lengths; the last one goes on.
    """

    def __init__(self, start: Any, decay: Any, step_sizes: int | Iterable[int]) -> None:
        if isinstance(step_sizes, int | float | np.number | Schedule):
            parts = {"step_sizes": check_count("Step: step_sizes", step_sizes)}
            super().__init__({"start": start, "decay": decay, **parts})
            return
        sizes = tuple(check_count("Step: each of step_sizes", n) for n in step_sizes)
        if not sizes:
            raise ShapeError("Step: step_sizes has no segment", loc=user_loc(), got="[]")
        super().__init__({"start": start, "decay": decay}, step_sizes=sizes)

    def formula(self, s: Moment) -> Any:
        if "step_sizes" in self.parts:
            completed = floor((s.t - 1) / s["step_sizes"])
        else:
            ends = itertools.accumulate(self.options["step_sizes"][:-1])
            completed = sum(((s.t > end) * 1.0 for end in ends), s.t * 0.0)
        return s["start"] * s["decay"] ** completed


class Exp(Schedule):
    """A geometric decay.  PyTorch's ExponentialLR.

    s(t) = start * decay**(t - 1)
    """

    def __init__(self, start: Any, decay: Any) -> None:
        super().__init__({"start": start, "decay": decay})

    def formula(self, s: Moment) -> Any:
        return s["start"] * s["decay"] ** (s.t - 1)


class Poly(Schedule):
    """A power of what is left.  PyTorch's PolynomialLR.

        s(t) = start * (1 - (t - 1)/max_iter)**degree

    Errors  IndexError for t > max_iter; a compiled step stays at the value of step max_iter.
    """

    def __init__(self, start: Any, degree: Any, max_iter: Any) -> None:
        last = check_count("Poly: max_iter", max_iter)
        super().__init__({"start": start, "degree": degree, "max_iter": last})

    def formula(self, s: Moment) -> Any:
        last = s["max_iter"]
        return s["start"] * (1 - (s.bounded(s.t, last) - 1) / last) ** s["degree"]


class Inv(Schedule):
    """A decay as a power of time.

    s(t) = start / (1 + (t - 1)*decay)**degree
    """

    def __init__(self, start: Any, decay: Any, degree: Any) -> None:
        super().__init__({"start": start, "decay": decay, "degree": degree})

    def formula(self, s: Moment) -> Any:
        return s["start"] / (1 + (s.t - 1) * s["decay"]) ** s["degree"]
