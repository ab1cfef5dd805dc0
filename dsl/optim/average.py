"""Averages of weights over the steps of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.optim.rule import Slot, check_hyper, count_of, hyper_value, wide
from fluxc.tensor import Tensor, as_tensor, cast
from fluxc.trace import user_loc

if TYPE_CHECKING:
    from fluxc.module import Param
    from fluxc.optim.rule import Update
    from fluxc.trace import Trace

__all__ = ["EMA"]


class EMA:
    """The exponential moving average of the weights that a step trains.

        average = optim.EMA(0.999)

        @fx.export(optimizer=optim.Adam(1e-3), average=average)
        def train_step(x: ..., y: ...): ...

        @fx.export(weights=average)
        def predict(x: ...): return model(x)

    After each update of a weight w, mean <- decay*mean + (1 - decay)*w; first, mean = w.
    decay  a number, or a schedule of the number of updates; `model.optimizer["ema.decay"]`.
    name   of what is kept, `optimizer.<name>...`, where a file has several averages.
    What is kept is mean - w: weights that are loaded without an average are the average, and an
    assignment to a weight moves it too.  Weights that are not averaged stand for themselves; a step
    without `average=` changes weights and leaves their average where it is.
    PyTorch's AveragedModel with get_ema_multi_avg_fn.
    """

    def __init__(self, decay: Any = 0.999, *, name: str = "ema") -> None:
        value = check_hyper("EMA: decay", decay)
        if isinstance(value, float) and value > 1:
            raise ShapeError(
                "EMA: decay is a share", loc=user_loc(), expected="0 to 1", got=repr(decay)
            )
        if not isinstance(name, str) or not name.isidentifier():
            raise ShapeError(f"EMA: {name!r} cannot be a name", loc=user_loc())
        self.decay, self.name = value, name

    def update(self, u: Update, before: Tensor, after: Tensor) -> None:
        """Trace the update of the average beside that of the parameter."""
        dtype = wide(u.p)
        key = self._key(u.p)
        apart = Tensor(u.trace.read(key, u.p.type.with_dtype(dtype)))
        count = lambda: count_of(u.trace, u.counter, u.ready)
        decay = cast(hyper_value(u.trace, "decay", self.decay, count, self.name), dtype)
        moved = decay * (cast(before, dtype) - cast(after, dtype) + apart)
        u.trace.updates[key] = u.chosen(moved, apart).value

    def stay(self, u: Update, before: Tensor, after: Tensor) -> None:
        """Trace that the average stays where it is while the parameter moves."""
        key, dtype = self._key(u.p), wide(u.p)
        apart = Tensor(u.trace.read(key, u.p.type.with_dtype(dtype)))
        u.trace.updates[key] = (apart + (cast(before, dtype) - cast(after, dtype))).value

    def read(self, trace: Trace, p: Param) -> Tensor:
        """The average of a parameter in the parameter's dtype."""
        dtype = wide(p)
        apart = Tensor(trace.read(self._key(p), p.type.with_dtype(dtype)))
        return cast(as_tensor(p, dtype) + apart, p.type.dtype)

    def keeps(self, key: Any) -> bool:
        """Whether a key of a trace is of this average."""
        return isinstance(key, Slot) and key.owner == self.name

    def _key(self, p: Param) -> Slot:
        return Slot("apart", id(p), 0.0, self.name)

    def __repr__(self) -> str:
        return f"EMA({self.decay!r})"
