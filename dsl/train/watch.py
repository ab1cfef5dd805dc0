"""Functions that watch a number and say when it is time: Flux's callback helpers.

Each is called with the arguments of the function that it was given, and `fit` calls it with a
`Moment` after every epoch: what returns True there stops the training.  Counts are part of a
checkpoint.
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Throttle", "Trigger", "early_stopping", "patience", "plateau", "throttle"]

Distance = Callable[[Any, Any], Any]


class Trigger:
    """True once a predicate has been true `wait` times in a row; see `patience`."""

    def __init__(self, predicate: Callable[..., Any], wait: int) -> None:
        self.predicate, self.wait, self.count = predicate, wait, 0

    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        self.count = self.count + 1 if self.predicate(*args, **kwargs) else 0
        return self.count >= self.wait

    def reset(self) -> None:
        """Count from 0 again; scores that were seen stay known."""
        self.count = 0

    def state(self) -> dict[str, Any]:
        score = {"score": self.predicate.score} if isinstance(self.predicate, _Score) else {}
        return {"count": self.count, **score}

    def load_state(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        if isinstance(self.predicate, _Score):
            self.predicate.score = state["score"]


class _Score:
    """Whether what `f` returns is near a score seen before: the best one, or the last."""

    def __init__(
        self, f: Callable[..., Any], distance: Distance, score: Any, near: Any, *, best: bool
    ) -> None:
        self.f, self.distance, self.score, self.near, self.best = f, distance, score, near, best

    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        score = self.f(*args, **kwargs)
        change = self.distance(self.score, score)
        if not self.best:
            change = abs(change)
        if not (self.best and change < 0):
            self.score = score
        return bool(change < self.near)


def patience(predicate: Callable[..., Any], wait: int) -> Trigger:
    """A function that is true once `predicate` has been true `wait` times in a row.

    What is not true sets the count back to 0; the count goes on where wait is exceeded.
    """
    return Trigger(predicate, wait)


def early_stopping(
    f: Callable[..., Any],
    delay: int,
    *,
    distance: Distance = operator.sub,
    init_score: Any = float("inf"),
    min_dist: Any = 0,
) -> Trigger:
    """A function that is true once the score `f` has not improved `delay` times in a row.

        d = distance(best, score);  counts if d < min_dist;  best = score unless d < 0

    A score that equals the best one does not count where min_dist is 0, and any that is no worse
    becomes the best, be it by less than min_dist.  Flux's documentation says `<=`; its code, and
    this, compare by `<`.

    >>> stop = early_stopping(lambda loss: loss, 2)
    >>> [stop(loss) for loss in (3, 2, 2.5, 2.4, 1)]
    [False, False, False, True, False]
    """
    return Trigger(_Score(f, distance, init_score, min_dist, best=True), delay)


def plateau(
    f: Callable[..., Any],
    width: int,
    *,
    distance: Distance = operator.sub,
    init_score: Any = float("inf"),
    min_dist: Any = 1e-6,
) -> Trigger:
    """A function that is true once the score `f` has hardly changed `width` times in a row.

        d = abs(distance(last, score));  counts if d < min_dist;  last = score

    >>> flat = plateau(lambda loss: loss, 2, min_dist=0.1)
    >>> [flat(loss) for loss in (3, 2, 2.05, 2.04, 1)]
    [False, False, False, True, False]
    """
    return Trigger(_Score(f, distance, init_score, min_dist, best=False), width)


class Throttle:
    """See `throttle`."""

    def __init__(
        self, f: Callable[..., Any], timeout: float, *, leading: bool, trailing: bool
    ) -> None:
        self.f, self.timeout, self.leading, self.trailing = f, timeout, leading, trailing
        self.result: Any = None
        self._quiet_until = -float("inf")
        self._later: Callable[[], Any] | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            if self._timer is None and time.monotonic() >= self._quiet_until:
                if self.leading:
                    self.result = self.f(*args, **kwargs)
                else:
                    self._later = lambda: self.f(*args, **kwargs)
                self._wait()
            elif self.trailing:
                self._later = lambda: self._keep(self.f(*args, **kwargs))
            return self.result

    def _keep(self, result: Any) -> None:
        self.result = result

    def _wait(self) -> None:
        """Be quiet for the timeout; a thread is needed only where something may follow it."""
        self._quiet_until = time.monotonic() + self.timeout
        if self.trailing or not self.leading:
            self._timer = threading.Timer(self.timeout, self._elapsed)
            self._timer.daemon = True
            self._timer.start()

    def _elapsed(self) -> None:
        with self._lock:
            self._timer = None
            if self._later is not None:
                self.flush()
                self._wait()

    def flush(self) -> None:
        """Make now the call that was put off, if there is one."""
        with self._lock:
            later, self._later = self._later, None
            if later is not None:
                later()


def throttle(
    f: Callable[..., Any], timeout: float, *, leading: bool = True, trailing: bool = False
) -> Throttle:
    """`f`, called at most once in `timeout` seconds, however often the result is.

    leading   the first call is made at once; else it is put off to the end of the timeout.
    trailing  the last call within a timeout is made at its end, on a thread of its own.
    Returns   what the latest call of f that was made returned; None before the first.
    A call that was put off is lost where the process ends before; `flush()` makes it now.
    """
    return Throttle(f, timeout, leading=leading, trailing=trailing)
