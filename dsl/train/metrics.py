"""Metrics: functions of what an entry returned and of the targets, averaged over observations."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import Any, TypeAlias

import numpy as np

from fluxc.compiler.errors import FluxcError

__all__ = ["Means", "Metric", "accuracy", "binary_accuracy", "mean", "mean_of"]

Metric: TypeAlias = Callable[[Any, Any], Any]
"""(outputs, targets) -> the mean over the batch.  Targets are a batch's last part."""


def accuracy(outputs: Any, targets: Any) -> float:
    """The share of observations whose largest output is at the target's class.

    Shapes  outputs: [..., n]; targets: integers [...] or one-hot [..., n]
    Errors  FluxcError for other shapes, or where there is nothing to count.
    """
    scores, wanted = np.asarray(outputs), np.asarray(targets)
    if scores.ndim and wanted.shape == scores.shape:
        wanted = wanted.argmax(-1)
    if scores.ndim == 0 or wanted.shape != scores.shape[:-1] or wanted.dtype.kind not in "iub":
        raise FluxcError(
            "an accuracy needs a score for each class, and the class",
            expected="outputs [..., n], targets of integers [...] or one-hot [..., n]",
            got=f"{_type(outputs)} and {_type(targets)}",
        )
    return _share(scores.argmax(-1) == wanted)


def binary_accuracy(outputs: Any, targets: Any, *, threshold: float = 0.5) -> float:
    """The share of outputs on their target's side of `threshold`; 0 for logits, 0.5 else.

    Shapes  outputs, targets: the same shape; targets are 0 or 1
    """
    scores, wanted = np.asarray(outputs), np.asarray(targets)
    if scores.shape != wanted.shape:
        raise FluxcError(
            "outputs and targets differ in shape", expected=_type(outputs), got=_type(targets)
        )
    return _share((scores > threshold) == (wanted > 0.5))


def mean(outputs: Any, _targets: Any = None) -> float:
    """The mean of an output."""
    array = np.asarray(outputs)
    if array.size == 0:
        raise FluxcError("nothing has no mean", got=_type(outputs))
    return float(array.mean(dtype=np.float64))


def mean_of(index: int) -> Metric:
    """The metric that is the mean of output `index`, where an entry returns several."""
    return lambda outputs, _targets: mean(outputs[index])


def _share(hits: np.ndarray) -> float:
    return mean(hits)


def _type(x: Any) -> str:
    array = np.asarray(x)
    return f"{array.dtype}{list(array.shape)}"


class Means:
    """Means of named numbers, weighted; what `fit` and `evaluate` sum up batch by batch."""

    def __init__(self) -> None:
        self.totals: dict[str, float] = {}
        self.weight = 0.0

    def add(self, values: dict[str, float], weight: float) -> None:
        self.weight += weight
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value * weight

    def values(self) -> dict[str, float]:
        """The means; NaN where nothing had a weight."""
        return {n: total / self.weight if self.weight else nan for n, total in self.totals.items()}

    def state(self) -> dict[str, Any]:
        return {"totals": self.totals, "weight": self.weight}

    def load_state(self, state: dict[str, Any]) -> None:
        self.totals, self.weight = dict(state["totals"]), state["weight"]
