"""A schedule with a place in it, for loops in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.schedules.decays import Constant
from fluxc.schedules.schedule import Schedule, as_part

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Stateful", "next", "reset"]


class Stateful:
    """A schedule and the step at which it stands, from 1.

        rate = schedules.Stateful(schedules.Exp(1e-2, 0.5), advance=lambda t: loss_is_stuck())
        model.optimizer["lr"] = schedules.next(rate)

    advance  whether to go on to the next step, asked with the present one after each value.
    It lives in Python and cannot be compiled into a step.
    """

    def __init__(self, schedule: Any, *, advance: Callable[[int], bool] = lambda _: True) -> None:
        part = as_part("Stateful: schedule", schedule)
        self.schedule = part if isinstance(part, Schedule) else Constant(part)
        self.advance, self.state = advance, 1

    def next(self) -> float:
        """The present value; then one step on, if `advance` says so."""
        value = self.schedule(self.state)
        if self.advance(self.state):
            self.state += 1
        return value

    def reset(self) -> None:
        """Back to step 1."""
        self.state = 1

    def __repr__(self) -> str:
        return f"Stateful({self.schedule!r}, at step {self.state})"


def next(cursor: Stateful) -> float:
    """Flux's next!: `cursor.next()`."""
    return cursor.next()


def reset(cursor: Stateful) -> None:
    """Flux's reset!: `cursor.reset()`."""
    cursor.reset()
