"""Schedules that go up and down between two levels l0 and l1, in whichever order."""

from __future__ import annotations

import math
from typing import Any

from fluxc.schedules.schedule import (
    Moment,
    Schedule,
    asin,
    ceil,
    check_count,
    cos,
    floor,
    magnitude,
    minimum,
    pick,
    sin,
)

__all__ = [
    "CosAnneal", "OneCycle", "Sin", "SinDecay2", "SinExp", "Triangle", "TriangleDecay2",
    "TriangleExp",
]  # fmt: skip


def _triangle(s: Moment) -> Any:
    return (2 / math.pi) * magnitude(asin(sin(math.pi * (s.t - 1) / s["period"])))


def _sine(s: Moment) -> Any:
    return magnitude(sin(math.pi * (s.t - 1) / s["period"]))


def _cycle(s: Moment, share: Any) -> Any:
    """The value that lies `share` of the way from the lower level to the upper one."""
    low, high = s["l0"], s["l1"]
    return magnitude(low - high) * share + minimum(low, high)


def _halved(s: Moment) -> Any:
    return 0.5 ** floor((s.t - 1) / s["period"])


class _Cycle(Schedule):
    def __init__(self, l0: Any, l1: Any, period: Any) -> None:
        length = check_count(f"{type(self).__name__}: period", period)
        super().__init__({"l0": l0, "l1": l1, "period": length})


class _FadingCycle(Schedule):
    def __init__(self, l0: Any, l1: Any, period: Any, decay: Any) -> None:
        length = check_count(f"{type(self).__name__}: period", period)
        super().__init__({"l0": l0, "l1": l1, "period": length, "decay": decay})


class Triangle(_Cycle):
    """A triangle wave.  PyTorch's CyclicLR.

    s(t) = abs(l0 - l1) * tri(t) + min(l0, l1),  tri(t) = 2/pi*abs(asin(sin(pi*(t - 1)/period)))
    """

    def formula(self, s: Moment) -> Any:
        return _cycle(s, _triangle(s))


class TriangleDecay2(_Cycle):
    """A triangle wave whose height halves each period.  PyTorch's CyclicLR(mode="triangular2").

    s(t) = abs(l0 - l1) * 0.5**floor((t - 1)/period) * tri(t) + min(l0, l1)
    """

    def formula(self, s: Moment) -> Any:
        return _cycle(s, _halved(s) * _triangle(s))


class TriangleExp(_FadingCycle):
    """A triangle wave whose height decays each step.  PyTorch's CyclicLR(mode="exp_range").

    s(t) = abs(l0 - l1) * decay**(t - 1) * tri(t) + min(l0, l1)
    """

    def formula(self, s: Moment) -> Any:
        return _cycle(s, s["decay"] ** (s.t - 1) * _triangle(s))


class Sin(_Cycle):
    """The magnitude of a sine wave.

    s(t) = abs(l0 - l1) * abs(sin(pi*(t - 1)/period)) + min(l0, l1)
    """

    def formula(self, s: Moment) -> Any:
        return _cycle(s, _sine(s))


class SinDecay2(_Cycle):
    """A sine wave whose height halves each period.

    s(t) = abs(l0 - l1) * 0.5**floor((t - 1)/period) * abs(sin(pi*(t - 1)/period)) + min(l0, l1)
    """

    def formula(self, s: Moment) -> Any:
        return _cycle(s, _halved(s) * _sine(s))


class SinExp(_FadingCycle):
    """A sine wave whose height decays each step.

    s(t) = abs(l0 - l1) * decay**(t - 1) * abs(sin(pi*(t - 1)/period)) + min(l0, l1)
    """

    def formula(self, s: Moment) -> Any:
        return _cycle(s, s["decay"] ** (s.t - 1) * _sine(s))


class CosAnneal(Schedule):
    """Half a cosine wave down, again and again.  PyTorch's CosineAnnealingWarmRestarts.

        s(t) = abs(l0 - l1) * (1 + cos(pi*u/period))/2 + min(l0, l1),  u = (t - 1) mod period

    restart  False: u = t - 1, a wave that comes up as it went down; PyTorch's CosineAnnealingLR.
    """

    def __init__(self, l0: Any, l1: Any, period: Any, restart: bool = True) -> None:
        parts = {"l0": l0, "l1": l1, "period": check_count("CosAnneal: period", period)}
        super().__init__(parts, restart=restart)

    def formula(self, s: Moment) -> Any:
        period = s["period"]
        past = (s.t - 1) % period if self.options["restart"] else s.t - 1
        return _cycle(s, (1 + cos(math.pi * past / period)) / 2)


class OneCycle(Schedule):
    """Half a cosine wave up, then half a longer one down.  PyTorch's OneCycleLR.

        s(t) = startval + (maxval - startval) * (1 - cos(pi*(t - 1)/up))/2            for t <= up
        s(t) = endval + (maxval - endval) * (1 + cos(pi*(t - 1 - up)/(nsteps - up)))/2  after it,
        up = ceil(percent_start*nsteps)

    Beyond nsteps it stays at endval.
    startval, endval  by default maxval/25 and maxval/100_000, also of a maxval that changes.
    """

    def __init__(
        self,
        nsteps: Any,
        maxval: Any,
        startval: Any = None,
        endval: Any = None,
        percent_start: Any = 0.25,
    ) -> None:
        ends = {"startval": startval, "endval": endval}
        super().__init__(
            {
                "nsteps": check_count("OneCycle: nsteps", nsteps),
                "maxval": maxval,
                **{name: x for name, x in ends.items() if x is not None},
                "percent_start": percent_start,
            }
        )

    def formula(self, s: Moment) -> Any:
        up, top = ceil(s["percent_start"] * s["nsteps"]), s["maxval"]
        low = s["startval"] if "startval" in self.parts else top / 25
        end = s["endval"] if "endval" in self.parts else top / 1e5

        def rising() -> Any:
            return low + (top - low) * (1 - cos(math.pi * (s.t - 1) / up)) / 2

        def falling() -> Any:
            past = minimum((s.t - 1 - up) / (s["nsteps"] - up), 1.0)
            return end + (top - end) * (1 + cos(math.pi * past)) / 2

        return pick([s.t <= up], [rising, falling])
