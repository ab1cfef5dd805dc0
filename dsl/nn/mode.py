"""Whether layers are in training, layer by layer."""

from __future__ import annotations

from typing import Any, TypeVar

from fluxc.compiler.errors import TraceError
from fluxc.module import Module, is_container, modules
from fluxc.trace import fail, training

__all__ = ["Moded", "testmode", "trainmode"]

T = TypeVar("T")


class Moded(Module):
    """A layer that does one thing in training and another in test.

    active  True: always as in training; False: always as in test; None: as the entry does.
    """

    active: bool | None = None

    def trains(self) -> bool:
        """Whether to do what is done in training."""
        return training() if self.active is None else self.active


def checked_mode(mode: Any) -> bool | None:
    """True, False or None; "auto" is None."""
    if not (mode is None or isinstance(mode, bool) or mode == "auto"):
        fail(TraceError, f"a mode cannot be {mode!r}", expected='True, False, None or "auto"')
    return None if mode == "auto" else mode


def trainmode(model: T, mode: Any = True) -> T:
    """Fix what Dropout, AlphaDropout, BatchNorm and InstanceNorm below do; returns the model.

    mode  True: as in training, in every entry; False: as in test, in training steps too (a
          BatchNorm then takes its recorded statistics and leaves them alone); None or "auto": as
          each entry does, which is how layers start.
    `fx.training()`, and layers of your own that ask it, stay as the entry is.
    An entry that may not assign states, since it neither trains nor is `stateful`, records no
    statistics in any mode.
    Entries are traced when the whole model file has been read: what was set last holds for all.
    PyTorch's `model.train(mode)`, at declaration time.

    Errors  TraceError for another mode, or what is no model.
    """
    chosen = checked_mode(mode)
    if not is_container(model):
        fail(TraceError, f"a {type(model).__name__} has no mode", expected="a module")
    for layer in modules(model):
        if isinstance(layer, Moded):
            layer.active = chosen
    return model


def testmode(model: T, mode: Any = True) -> T:  # noqa: PT028  (no test)
    """`trainmode(model, not mode)`; None and "auto" as there.  PyTorch's `model.eval()`.

    Errors  TraceError as `trainmode` has them.
    """
    chosen = checked_mode(mode)
    return trainmode(model, None if chosen is None else not chosen)
