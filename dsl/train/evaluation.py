"""Metrics of an entry over data that it is not trained on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fluxc.compiler.errors import FluxcError
from fluxc.train.metrics import Means, Metric

__all__ = ["Evaluation", "batch_size", "call", "check_batches", "evaluate", "targets_of"]


def evaluate(
    entry: Callable[..., Any],
    data: Iterable[Any],
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, float]:
    """The metrics of an entry over batches, averaged over their observations.

    entry    is called with as many parts of a batch as it has inputs: `predict(x)` of (x, y).
    metrics  functions of what it returned and of the batch's last part, by name; without any, the
             entry returns one number, which is the `loss`.
    Errors   FluxcError where there is no batch.
    """
    check_batches(data)
    inputs, means = _inputs(entry), Means()
    for batch in data:
        outputs = call(entry, _first(batch, inputs))
        values = measure(outputs, batch, metrics) if metrics else {"loss": _number(outputs, entry)}
        means.add(values, batch_size(batch))
    if not means.totals:
        raise FluxcError("there is no batch to evaluate")
    return means.values()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `fit` evaluates meanwhile: `evaluate(entry, data, metrics)`, under `name_metric`.

    steps   after every so many steps; None: after epochs.
    epochs  after every so many epochs, and after the last.
    """

    entry: Callable[..., Any]
    data: Iterable[Any]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    name: str = "validation"
    steps: int | None = None
    epochs: int = 1

    def values(self) -> dict[str, float]:
        found = evaluate(self.entry, self.data, self.metrics)
        return {f"{self.name}_{metric}": value for metric, value in found.items()}


def measure(outputs: Any, batch: Any, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Every metric of one batch."""
    targets = targets_of(batch)
    return {name: float(metric(outputs, targets)) for name, metric in metrics.items()}


def call(entry: Callable[..., Any], batch: Any) -> Any:
    """`entry` of a batch: the parts of a tuple in order, those of a dict by name."""
    if isinstance(batch, Mapping):
        return entry(**batch)
    return entry(*batch) if isinstance(batch, tuple) else entry(batch)


def targets_of(batch: Any) -> Any:
    """The last part of a batch, or a batch that has no parts."""
    if isinstance(batch, Mapping):
        return list(batch.values())[-1]
    return batch[-1] if isinstance(batch, tuple) else batch


def batch_size(batch: Any) -> int:
    """The number of observations in a batch: the size of its first part along axis 0."""
    if isinstance(batch, Mapping):
        return batch_size(next(iter(batch.values()), None))
    if isinstance(batch, tuple):
        return batch_size(batch[0]) if batch else 1
    if isinstance(batch, list):
        return len(batch)
    shape = np.shape(batch)
    return int(shape[0]) if shape else 1


def check_batches(data: Any) -> None:
    """Refuse data that are not in batches: an array, a tuple of arrays, a dict of them."""
    arrays = isinstance(data, tuple) and any(isinstance(part, np.ndarray) for part in data)
    if arrays or isinstance(data, np.ndarray | Mapping) or not hasattr(data, "__iter__"):
        raise FluxcError(
            "data are given in batches",
            expected="a DataLoader, or another iterable of batches",
            got=type(data).__name__,
            hint="fluxc.data.DataLoader(data, batchsize=64)",
        )


def _inputs(entry: Callable[..., Any]) -> list[str] | None:
    """The names of an entry's inputs; None where it takes what comes."""
    kinds = inspect.Parameter
    try:
        parameters = inspect.signature(entry).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD) for p in parameters):
        return None
    return [p.name for p in parameters if p.default is kinds.empty]


def _first(batch: Any, inputs: list[str] | None) -> Any:
    if inputs is None:
        return batch
    if isinstance(batch, Mapping):
        return {name: batch[name] for name in inputs if name in batch}
    return batch[: len(inputs)] if isinstance(batch, tuple) else batch


def _number(outputs: Any, entry: Callable[..., Any]) -> float:
    if np.ndim(outputs) or isinstance(outputs, tuple | list | dict):
        raise FluxcError(
            f"{getattr(entry, '__name__', 'the entry')} returns no single number",
            hint='metrics={"accuracy": train.accuracy}',
        )
    return float(outputs)
