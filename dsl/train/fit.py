"""`fit`: epochs over a compiled training step, with all that surrounds them."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fluxc.compiler.errors import FluxcError
from fluxc.train import checkpoint as files
from fluxc.train.callbacks import Moment
from fluxc.train.checkpoint import MODEL, Checkpoint
from fluxc.train.evaluation import Evaluation, batch_size, call, check_batches, measure
from fluxc.train.history import History
from fluxc.train.metrics import Means, Metric
from fluxc.train.progress import Show, progress_bar

__all__ = ["NonFiniteLoss", "fit"]


class NonFiniteLoss(FluxcError, ArithmeticError):
    """A loss, or a parameter after a step, that is infinite or not a number.

    step, epoch  where it appeared, both counted from 1.
    """

    def __init__(self, summary: str, *, step: int, epoch: int, restored: str) -> None:
        hint = "a smaller learning rate, or look for a log or a division of 0"
        super().__init__(f"{summary} at step {step} (epoch {epoch}){restored}", hint=hint)
        self.step, self.epoch = step, epoch


def fit(
    step: Callable[..., Any],
    data: Iterable[Any],
    *,
    epochs: int = 1,
    metrics: Mapping[str, Metric] | None = None,
    evaluate: Evaluation | Sequence[Evaluation] = (),
    callbacks: Any = (),
    checkpoint: Checkpoint | str | Path | None = None,
    resume: bool = False,
    restore: bool = True,
    progress: bool = True,
    model: Any = None,
) -> History:
    """Call a training step on every batch of the data, `epochs` times over.

    step        `model.train_step`, or any function that returns a loss, or (loss, aux...).
    data        a `DataLoader`, or another iterable of batches: tuples of arguments, dicts of them
                by name, or single arguments.
    metrics     functions of (aux, targets) by name, averaged over the epoch: aux are what the step
                returns after its loss, targets a batch's last part.
    evaluate    an `Evaluation`, or several.
    callbacks   one or several: functions of a `Moment`, called after every epoch, or objects with
                `on_step` and `on_epoch`; what returns True stops the training.
    checkpoint  a folder, or a `Checkpoint` that says how often.
    resume      go on from the newest complete checkpoint, if there is one.  A run that is killed at
                any moment and resumed ends with the bits of one that was not, where `data` is a
                `DataLoader`, or gives the same batches each time.
    restore     on a loss that is infinite or NaN, give the model its last good weights: those of
                the last checkpoint; without checkpoints, those after the last epoch, which are kept
                in a temporary file.
    progress    show a bar on a terminal; a pipe stays empty.
    model       what is saved and restored; by default the model whose method the step is.
    Errors      NonFiniteLoss, with its step and epoch; FluxcError for data that make no batch.
    """
    callbacks = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    _check_options(step, epochs, callbacks, metrics, resume)
    if isinstance(checkpoint, str | Path):
        checkpoint = Checkpoint(checkpoint)
    evaluations = [evaluate] if isinstance(evaluate, Evaluation) else list(evaluate)
    for batches in (data, *(e.data for e in evaluations)):
        _check(batches, once=epochs <= 1 and checkpoint is None)
    model = getattr(step, "__self__", None) if model is None else model
    if checkpoint is not None and not hasattr(model, "save"):
        raise FluxcError(
            "a checkpoint needs the model", got=f"step={step!r}", hint="fit(..., model=model)"
        )
    run = _Run(step, data, epochs, metrics or {}, evaluations, callbacks, model, checkpoint)
    resumed = checkpoint is not None and _begin(run, checkpoint, resume=resume)
    with tempfile.TemporaryDirectory(prefix="fluxc-") as scratch:
        if checkpoint is None and restore and hasattr(model, "save"):
            run.scratch = Path(scratch) / MODEL
        try:
            if not resumed:
                run.save()
            with progress_bar(_total(data, epochs), wanted=progress) as show:
                while run.epoch < epochs and not run.stopped:
                    run.pass_over(show)
        except _NotFinite as error:
            step_number, epoch = run.step, error.epoch
            restored = _restore(run) if restore else ""
            raise NonFiniteLoss(
                error.what, step=step_number, epoch=epoch, restored=restored
            ) from error.__cause__
        finally:
            for c in callbacks:
                getattr(c, "close", lambda: None)()
    return run.history


def _check_options(step: Any, epochs: Any, callbacks: Any, metrics: Any, resume: Any) -> None:
    """Refuse what would fail, or be taken for something else, in the middle of the training."""
    if not callable(step):
        raise FluxcError(
            f"fit takes a training step, not a {type(step).__name__}",
            hint="fit(model.train_step, loader)",
        )
    if isinstance(epochs, bool) or not hasattr(epochs, "__index__") or epochs < 0:
        raise FluxcError("fit: epochs is no number of epochs", got=repr(epochs))
    if not all(callable(c) or hasattr(c, "on_step") or hasattr(c, "on_epoch") for c in callbacks):
        raise FluxcError(
            "fit: callbacks are functions, or objects with on_step or on_epoch",
            got=", ".join(map(repr, callbacks)),
        )
    if metrics is not None and not isinstance(metrics, Mapping):
        raise FluxcError(
            "fit: metrics are functions by name",
            got=repr(metrics),
            hint="metrics={'accuracy': lambda outputs, y: (outputs.argmax(1) == y).mean()}",
        )
    if not isinstance(resume, bool):
        raise FluxcError(
            "fit: resume is True or False", got=repr(resume), hint="checkpoint=folder, resume=True"
        )


def _loss(value: Any) -> float:
    """A step's loss as a number.  Errors  FluxcError if it is none."""
    if np.size(value) != 1:
        raise FluxcError(
            "the step returns no loss",
            expected="a number, or a tuple that begins with it",
            got=f"an array {list(np.shape(value))}",
        )
    return float(np.asarray(value).reshape(()))


def _check(batches: Iterable[Any], *, once: bool) -> None:
    check_batches(batches)
    if isinstance(batches, Iterator) and not once:
        raise FluxcError(
            "an iterator gives its batches once",
            expected="data that every epoch can begin anew",
            hint="a DataLoader, or list(batches)",
        )


class _NotFinite(Exception):
    """Says what is not finite, and in which epoch."""

    def __init__(self, what: str, epoch: int) -> None:
        super().__init__(what)
        self.what, self.epoch = what, epoch


def _begin(run: _Run, place: Checkpoint, *, resume: bool) -> bool:
    """Load the newest checkpoint where there is one to resume."""
    found = files.newest(place.folder)
    if found is None:
        return False
    if not resume:
        raise FluxcError(
            f"{place.folder} holds the checkpoints of another run",
            hint="resume=True to go on with it, or another folder",
        )
    run.load(found.facts)
    run.model.load(str(found.weights))
    run.kept = (found.weights, run.step)
    return True


def _restore(run: _Run) -> str:
    if run.kept is None:
        return ""
    weights, step = run.kept
    run.model.load(str(weights))
    return f"; the model has its weights of step {step} again"


def _total(data: Any, epochs: int) -> int | None:
    return len(data) * epochs if hasattr(data, "__len__") else None


class _Run:
    """A training and where it stands: all that a checkpoint holds beside the model."""

    def __init__(
        self,
        step: Callable[..., Any],
        data: Iterable[Any],
        epochs: int,
        metrics: Mapping[str, Metric],
        evaluations: list[Evaluation],
        callbacks: Sequence[Any],
        model: Any,
        place: Checkpoint | None,
    ) -> None:
        self.call_step, self.data, self.epochs, self.metrics = step, data, epochs, metrics
        self.evaluations, self.callbacks = evaluations, callbacks
        self.model, self.place = model, place
        self.step, self.epoch, self.position, self.stopped = 0, 0, 0, False
        self.seconds, self.means, self.history = 0.0, Means(), History()
        self.scratch: Path | None = None
        self.kept: tuple[Path, int] | None = None  # weights that are good, and their step

    # ---- one epoch ----

    def pass_over(self, show: Show) -> None:
        begun = time.perf_counter() - self.seconds
        for batch in self._batches():
            self._one(batch)
            self.seconds = time.perf_counter() - begun
            loss = self.means.values()["loss"]
            show(self.step, f"epoch {self.epoch + 1}/{self.epochs}, loss {loss:.4f}")
            if self.stopped:
                break
            if self.place is not None and self.place.steps and self.step % self.place.steps == 0:
                self.save()
        if not self.position:
            raise FluxcError("the data make no batch", got=repr(self.data)[:80])
        self._end()

    def _batches(self) -> Iterator[Any]:
        """What is left of the epoch; a loader that keeps its place knows where it stands."""
        skip = 0 if hasattr(self.data, "load_state") else self.position
        return itertools.islice(self.data, skip, None)

    def _one(self, batch: Any) -> None:
        result = call(self.call_step, batch)
        loss, *aux = result if isinstance(result, tuple) else (result,)
        loss = _loss(loss)
        self.step, self.position = self.step + 1, self.position + 1
        if not math.isfinite(loss):
            raise _NotFinite(f"the loss is {loss}", self.epoch + 1)
        if self.metrics and not aux:
            raise FluxcError(
                "the step returns its loss alone, so there is nothing to measure",
                hint="return loss, outputs; or evaluate=Evaluation(...)",
            )
        outputs = aux[0] if len(aux) == 1 else tuple(aux)
        values = {"loss": loss, **measure(outputs, batch, self.metrics)}
        self.means.add(values, batch_size(batch))
        moment = Moment(self.step, self.epoch + 1, loss, values)
        self._tell("on_step", moment)
        found = self._evaluated(lambda e: e.steps is not None and self.step % e.steps == 0)
        if found:
            self.history.rows.append({"epoch": self.epoch + 1, "step": self.step, **found})

    def _end(self) -> None:
        """The end of an epoch: its row, the callbacks, what is saved."""
        self.epoch += 1
        last = self.stopped or self.epoch == self.epochs
        found = self._evaluated(lambda e: e.steps is None and (last or self.epoch % e.epochs == 0))
        means = self.means.values()
        row = {"epoch": self.epoch, "step": self.step, **means, **found, "seconds": self.seconds}
        self.history.rows.append(row)
        self.position, self.seconds, self.means = 0, 0.0, Means()
        self._tell("on_epoch", Moment(self.step, self.epoch, means["loss"], row))
        last = self.stopped or self.epoch == self.epochs
        if self.place is None or last or self.epoch % self.place.epochs == 0:
            self.save()

    def _evaluated(self, due: Callable[[Evaluation], bool]) -> dict[str, float]:
        return {k: v for e in self.evaluations if due(e) for k, v in e.values().items()}

    def _tell(self, event: str, moment: Moment) -> None:
        """Call every callback, whatever the others want."""
        for c in self.callbacks:
            plain = not (hasattr(c, "on_step") or hasattr(c, "on_epoch"))
            listener = getattr(c, event, c if plain and event == "on_epoch" else None)
            answer = None if listener is None else listener(moment)
            # A callback that returns a number does not mean to stop.
            if isinstance(answer, bool | np.bool_) and answer:
                self.stopped = True

    # ---- what a checkpoint holds ----

    def save(self) -> None:
        """Write a checkpoint, or the weights alone where there is only something to restore."""
        try:
            if self.place is not None:
                self.kept = (files.save(self.model, self.facts(), self.place), self.step)
            elif self.scratch is not None:
                self.model.save(str(self.scratch))
                self.kept = (self.scratch, self.step)
        except ValueError as error:  # what a model raises for a parameter that is not finite
            epoch = self.epoch + (self.position > 0)
            raise _NotFinite("a parameter is not finite", epoch) from error

    def facts(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "epoch": self.epoch,
            "position": self.position,
            "stopped": self.stopped,
            "seconds": self.seconds,
            "means": self.means.state(),
            "history": self.history.rows,
            "stateful": [part.state() for part in self._stateful()],
        }

    def load(self, facts: dict[str, Any]) -> None:
        parts = self._stateful()
        if len(facts["stateful"]) != len(parts):
            raise FluxcError(
                "the checkpoint is of a run with other data loaders, evaluations or callbacks",
                expected=f"{len(facts['stateful'])} that keep a state",
                got=str(len(parts)),
            )
        for part, state in zip(parts, facts["stateful"], strict=True):
            part.load_state(state)
        self.step, self.epoch, self.position = facts["step"], facts["epoch"], facts["position"]
        self.stopped, self.seconds = facts["stopped"], facts["seconds"]
        self.means.load_state(facts["means"])
        self.history.rows[:] = facts["history"]

    def _stateful(self) -> list[Any]:
        """Whatever has a state beside the model's: loaders and callbacks."""
        parts = (self.data, *(e.data for e in self.evaluations), *self.callbacks)
        return [part for part in parts if hasattr(part, "state") and hasattr(part, "load_state")]
