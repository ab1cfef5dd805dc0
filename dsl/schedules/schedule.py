"""What a schedule is, and its value at one moment: a number in Python, a tensor in a step."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.tensor import Operators, Tensor, as_tensor
from fluxc.trace import user_loc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Moment", "Schedule", "as_part", "check_count", "pick"]


class Schedule:
    """The base of all schedules: their numbers, and a formula over them.

        class Halving(schedules.Schedule):
            def __init__(self, start):
                super().__init__({"start": start})

            def formula(self, s):
                return s["start"] * 0.5 ** (s.t - 1)

    parts    numbers, which stay changeable in a compiled step, and other schedules, by name.
    options  what is fixed when the model is compiled.
    """

    parts: dict[str, Any]
    options: dict[str, Any]

    def __init__(self, parts: dict[str, Any], **options: Any) -> None:
        kept = {name: as_part(f"{type(self).__name__}: {name}", p) for name, p in parts.items()}
        self.__dict__.update(parts=kept, options=options)

    def formula(self, s: Moment) -> Any:
        """The value at s.t, from `s[name]` and `s.at(name, t)`."""
        raise NotImplementedError

    def __call__(self, t: int) -> float:
        """The value at step t, from 1.

        Errors  ShapeError if t is no step; IndexError beyond the end of a schedule that has one.
        """
        if isinstance(t, bool) or not isinstance(t, int | np.integer) or t < 1:
            raise ShapeError(
                f"{type(self).__name__}: a schedule is called with a step",
                loc=user_loc(),
                expected="a whole number from 1",
                got=repr(t),
            )
        return float(Moment(self, int(t), lambda _, value: float(value)).value())

    def __iter__(self) -> Iterator[float]:
        """Its values from step 1; without an end, unless the schedule has one."""
        for t in itertools.count(1):
            try:
                value = self(t)
            except IndexError:
                return
            yield value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self!r} is immutable; make another one")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *self.parts.items()))

    def __repr__(self) -> str:
        shown = {**self.parts, **self.options}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


@dataclass(frozen=True, slots=True)
class Moment:
    """A schedule that is asked for its value at `t`.

    number   gives the present value of a number from its path and its first value.
    path     of the schedule among those around it: `schedule.`, or nothing.
    """

    schedule: Schedule
    t: Any
    number: Callable[[str, float], Any]
    path: str = ""

    def value(self) -> Any:
        return self.schedule.formula(self)

    def __getitem__(self, name: str) -> Any:
        """A part's value now."""
        return self.at(name, self.t)

    def at(self, name: str, t: Any) -> Any:
        """A part's value at another time."""
        part = self.schedule.parts[name]
        if isinstance(part, Schedule):
            return self.of(part, t, f"{self.path}{name}.")
        return part if isinstance(part, Tensor) else self.number(self.path + name, part)

    def of(self, schedule: Schedule, t: Any, path: str) -> Any:
        """The value of another schedule at a time."""
        return replace(self, schedule=schedule, t=t, path=path).value()

    def bounded(self, t: Any, last: Any) -> Any:
        """t, which must not lie beyond `last`; a compiled step stays at `last`."""
        if _is_traced(t, last):
            return ops.minimum(t, last)
        if t > last:
            raise IndexError(f"{type(self.schedule).__name__} ends at step {last:g}, got {t}")
        return t


class _Function(Schedule):
    """A Python function of t."""

    def __init__(self, f: Callable[[Any], Any]) -> None:
        super().__init__({}, f=f)

    def formula(self, s: Moment) -> Any:
        found = self.options["f"](s.t)
        return as_tensor(found, ir.f64) if isinstance(s.t, Tensor) else found

    def __repr__(self) -> str:
        return getattr(self.options["f"], "__name__", repr(self.options["f"]))


def as_part(what: str, x: Any) -> Any:
    """A number, a schedule, or a function as a schedule."""
    if isinstance(x, Schedule | Tensor):
        return x
    if isinstance(x, int | float | np.number) and not isinstance(x, bool) and math.isfinite(x):
        return x
    if callable(x) and not isinstance(x, type | Operators):
        return _Function(x)
    raise ShapeError(
        f"{what} is not usable in a schedule",
        loc=user_loc(),
        expected="a finite number, a schedule, or a function of the step",
        got=repr(x),
        hint="schedules.Stateful lives in Python: model.optimizer['lr'] = schedules.next(it)"
        if type(x).__name__ == "Stateful"
        else "",
    )


def check_count(what: str, x: Any, least: int = 1) -> Any:
    """A number of steps; a schedule of them, or a tensor, is taken as it is."""
    if isinstance(x, Schedule | Tensor):
        return x
    whole = isinstance(x, int | float | np.number) and not isinstance(x, bool)
    if not whole or x != math.floor(x) or x < least:
        raise ShapeError(
            f"{what} is a number of steps",
            loc=user_loc(),
            expected=f"a whole number >= {least}",
            got=repr(x),
        )
    return int(x)


# Arithmetic on numbers and on tensors, so that a formula is written once.


def _is_traced(*xs: Any) -> bool:
    return any(isinstance(x, Tensor) for x in xs)


def _either(plain: Callable[..., Any], traced: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *xs: traced(*xs) if _is_traced(*xs) else plain(*xs)


sin = _either(math.sin, ops.sin)
cos = _either(math.cos, ops.cos)
asin = _either(math.asin, ops.asin)
floor = _either(math.floor, ops.floor)
ceil = _either(math.ceil, ops.ceil)
magnitude = _either(abs, ops.abs)
minimum = _either(min, ops.minimum)


def pick(tests: list[Any], values: list[Callable[[], Any]]) -> Any:
    """The first value whose test holds, else the last; in Python the others are not computed."""
    *firsts, last = values
    if not _is_traced(*tests):
        pairs = zip(tests, firsts, strict=True)
        return next((value for test, value in pairs if test), last)()
    found = as_tensor(last(), ir.f64)
    for test, value in reversed(list(zip(tests, firsts, strict=True))):
        found = ops.where(test, as_tensor(value(), ir.f64), found)
    return found
