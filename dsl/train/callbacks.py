"""What `fit` tells its callbacks, and the callbacks that come with it.

A callback is a function of a `Moment`, called after every epoch; or an object with `on_step` or
`on_epoch`, or both.  What returns True stops the training.  An object with `state` and `load_state`
goes on after a resume as it was; one with `close` is closed at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import FluxcError
from fluxc.train.watch import Trigger

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Moment", "ReduceOnPlateau", "TensorBoard", "every", "reduce_on_plateau", "tensorboard"]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a training stands, as a callback is told.

    step    how many steps are done in all.
    epoch   the number of the epoch, from 1.
    loss    that of the step; after an epoch, the mean over its observations.
    values  after an epoch, the row of the history: `moment["validation_loss"]`.
    """

    step: int
    epoch: int
    loss: float
    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        if name not in self.values:
            raise FluxcError(
                f"this moment has no {name!r}", expected=", ".join(self.values) or "no values"
            )
        return self.values[name]


Callback = Callable[[Moment], Any]


@dataclass(frozen=True, slots=True)
class Every:
    """See `every`."""

    steps: int
    callback: Callback

    def on_step(self, moment: Moment) -> Any:
        return self.callback(moment) if moment.step % self.steps == 0 else None

    def state(self) -> Any:
        found = getattr(self.callback, "state", None)
        return found() if found is not None else None

    def load_state(self, state: Any) -> None:
        found = getattr(self.callback, "load_state", None)
        if found is not None:
            found(state)


def every(steps: int, callback: Callback) -> Every:
    """The callback that calls another one after every so many steps, not after epochs."""
    if steps < 1:
        raise FluxcError("steps are counted from 1", got=f"every({steps}, ...)")
    return Every(steps, callback)


class ReduceOnPlateau:
    """See `reduce_on_plateau`."""

    def __init__(
        self, model: Any, trigger: Trigger, *, name: str, factor: float, least: float
    ) -> None:
        self.optimizer: MutableMapping[str, Any] = model.optimizer
        self.trigger, self.name, self.factor, self.least = trigger, name, factor, least
        self.state, self.load_state = trigger.state, trigger.load_state

    def __call__(self, moment: Moment) -> None:
        if self.trigger(moment):
            self.trigger.reset()
            self.optimizer[self.name] = max(self.least, self.optimizer[self.name] * self.factor)


def reduce_on_plateau(
    model: Any, trigger: Trigger, *, name: str = "lr", factor: float = 0.1, least: float = 0.0
) -> ReduceOnPlateau:
    """A callback that multiplies `model.optimizer[name]` by `factor` when `trigger` is true.

    trigger  `plateau(f, width)` or `early_stopping(f, delay)`; it counts from 0 again each time.
    least    the value never becomes smaller.
    PyTorch's name: `ReduceLROnPlateau`, which counts as early_stopping does.
    """
    if not isinstance(trigger, Trigger):
        raise FluxcError(
            "what to wait for is not said",
            expected="plateau(...), early_stopping(...) or patience(...)",
            got=type(trigger).__name__,
        )
    model.optimizer[name]  # an unknown name is an error now, not after an hour
    return ReduceOnPlateau(model, trigger, name=name, factor=factor, least=least)


class TensorBoard:
    """See `tensorboard`."""

    def __init__(self, folder: str | Path, steps: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise FluxcError(
                "event files need tensorboardX",
                got=str(error),
                hint="pip install 'fluxc[tensorboard]'",
            ) from error
        self._open = SummaryWriter
        self._writer: Any = None
        self.folder, self.steps = folder, steps

    def _write(self, moment: Moment, values: Mapping[str, Any]) -> None:
        if self._writer is None:
            # What an earlier run wrote after the checkpoint that this one began from is forgotten.
            self._writer = self._open(str(self.folder), purge_step=moment.step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, moment.step)

    def on_step(self, moment: Moment) -> None:
        if moment.step % self.steps == 0:
            self._write(moment, {"step/loss": moment.loss})

    def on_epoch(self, moment: Moment) -> None:
        values = {k: v for k, v in moment.values.items() if k != "step"}
        self._write(moment, {f"epoch/{name}": value for name, value in values.items()})
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def tensorboard(folder: str | Path, *, steps: int = 1) -> TensorBoard:
    """A callback that writes event files: `step/loss` every so many steps, `epoch/...` every epoch.

    Errors  FluxcError without tensorboardX, which `pip install 'fluxc[tensorboard]'` brings.
    """
    return TensorBoard(folder, steps)
