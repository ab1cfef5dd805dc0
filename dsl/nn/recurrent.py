"""Recurrence along the time axis of sequences [batch, time, features]."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.compiler.errors import DTypeError, ShapeError, TraceError
from fluxc.control import scan
from fluxc.module import Module
from fluxc.nn.cells import GRUCell, GRUv3Cell, LSTMCell, RNNCell
from fluxc.nn.checks import function_name
from fluxc.nn.dropout import Dropout
from fluxc.tensor import Tensor, TensorLike, as_tensor, common_dtype
from fluxc.trace import fail
from fluxc.tree import leaves, map_leaves, refill, structure

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.dims import Size

__all__ = ["GRU", "LSTM", "RNN", "Bidirectional", "GRUv3", "Recurrence", "Stacked"]


class Recurrence(Module):
    """A cell along the time axis of a sequence, as one loop, compiled once for any length.

        for t in range(time):
            y[t], state = cell(x[t], state)

    `layer(x)`, `layer(x, state)`, `layer(x, state, lengths=n)`.
    cell     any module with `out, state = cell(x_t, state)` and `cell.initialstates()`, which are
             tensors or nested tuples, lists and dicts of them.
    Shapes   x [batch, time, in], or [time, in] -> y [batch, time, out] or [time, out].
    state    what the cell begins with, by default `cell.initialstates()`; a state without a batch
             is the same for all.
    lengths  i32[batch], how long each sequence is: beyond, y is 0 and the state stays, so that the
             last state is the one at the sequence's true end.  PyTorch's packed sequences.
    return_state  True: gives (y, last state).  In a call it overrides the constructor's.
    reverse  True: from the last step to the first, y[t] still belonging to x[t]; with lengths,
             each sequence begins at its own last step.
    Errors   ShapeError if x has no time axis, or lengths or a state do not fit the batch.
    """

    def __init__(self, cell: Any, *, return_state: bool = False, reverse: bool = False) -> None:
        if not callable(cell) or not hasattr(cell, "initialstates"):
            fail(
                TraceError,
                f"{type(self).__name__}: {function_name(cell)} is no cell",
                expected="out, state = cell(x_t, state), and cell.initialstates()",
            )
        self.cell, self.return_state, self.reverse = cell, bool(return_state), bool(reverse)

    def __call__(
        self,
        x: TensorLike,
        state: Any = None,
        *,
        lengths: TensorLike | None = None,
        return_state: bool | None = None,
    ) -> Any:
        t = as_tensor(x)
        if t.ndim < 2:
            fail(
                ShapeError,
                f"{self._name()}: the input has no time axis",
                expected="[batch, time, features] or [time, features]",
                got=str(t.type),
            )
        batch = t.shape[:-2]
        start = self._start(t, state, batch)
        xs: Any = (ops.moveaxis(t, -2, 0), None)
        counts = None
        if lengths is not None:
            xs, counts = (xs[0], ops.arange(t.shape[-2])), self._lengths(lengths, batch)

        def step(state: Any, row: tuple[Tensor, Any]) -> tuple[Any, Any]:
            out, after = self.cell(row[0], state)
            return (after, out) if counts is None else _ended(row[1] >= counts, state, after, out)

        last, y = scan(step, start, xs, reverse=self.reverse)
        y = map_leaves(lambda leaf: ops.moveaxis(leaf, 0, len(batch)), y)
        wanted = self.return_state if return_state is None else return_state
        return (y, last) if wanted else y

    def _start(self, x: Tensor, given: Any, batch: tuple[Size, ...]) -> Any:
        """The first state, for the whole batch, in the dtype that steps give it."""
        usual = self.cell.initialstates()
        if given is None:
            given = usual
        elif structure(given) != structure(usual):
            fail(
                ShapeError,
                f"{self._name()}: the initial state has another structure",
                expected=_types(usual),
                got=_types(given),
            )
        floats = [s for s in (*leaves(given), *leaves(usual)) if as_tensor(s).type.dtype.is_float]
        floats += [x] if x.type.dtype.is_float else []
        dtype = common_dtype(*floats) if floats else None
        pairs = zip(leaves(given), leaves(usual), strict=True)
        return refill(usual, iter([self._leaf(s, u, batch, dtype) for s, u in pairs]))

    def _leaf(self, given: Any, usual: Any, batch: tuple[Size, ...], dtype: Any) -> Tensor:
        s = as_tensor(given)
        shape = (*batch, *as_tensor(usual).shape)
        if s.shape not in (shape, shape[len(batch) :]):
            fail(
                ShapeError,
                f"{self._name()}: the initial state does not fit",
                expected=str(s.type.with_shape(*shape)),
                got=str(s.type),
            )
        s = s.astype(dtype) if s.type.dtype.is_float else s
        return ops.broadcast_to(s, shape)

    def _lengths(self, lengths: TensorLike, batch: tuple[Size, ...]) -> Tensor:
        counts = as_tensor(lengths)
        if counts.shape != batch or not counts.type.dtype.is_integer:
            fail(
                ShapeError if counts.type.dtype.is_integer else DTypeError,
                f"{self._name()}: lengths must be one integer a sequence",
                expected=f"i32[{', '.join(map(str, batch))}]",
                got=str(counts.type),
            )
        return counts

    def _name(self) -> str:
        return self.describe() or f"{type(self).__name__}({function_name(self.cell)})"


def _types(state: Any) -> str:
    return str(map_leaves(lambda s: str(as_tensor(s).type), state)).replace("'", "")


def _ended(over: Tensor, before: Any, after: Any, out: Any) -> tuple[Any, Any]:
    """A step's state and output, where sequences that are over keep the state and put out 0."""
    kept = [_where(over, x, y) for x, y in zip(leaves(before), leaves(after), strict=True)]
    return refill(after, iter(kept)), map_leaves(lambda y: _where(over, 0, y), out)


def _where(over: Tensor, x: TensorLike, y: TensorLike) -> Tensor:
    """x where a sequence is over, else y; `over` has the leading axes of y."""
    t = as_tensor(y)
    return ops.where(over.reshape((*over.shape, *(1,) * (t.ndim - over.ndim))), x, t)


class _OfCell(Recurrence):
    """A Recurrence whose cell is made from sizes, or given."""

    cell_type: Callable[..., Any]

    def __init__(
        self,
        in_size: Any,
        out_size: int | None = None,
        *args: Any,
        return_state: bool = False,
        reverse: bool = False,
        **options: Any,
    ) -> None:
        name, wanted = type(self).__name__, type(self).cell_type
        cell = in_size
        if not isinstance(in_size, Module):
            cell = wanted(in_size, out_size, *args, **options)
        elif not isinstance(in_size, wanted) or out_size is not None or args or options:  # type: ignore[arg-type]
            fail(
                TraceError,
                f"{name} takes sizes and options of a cell, or a cell alone",
                expected=f"nn.{name}(in, out) or nn.{name}(nn.{function_name(wanted)}(in, out))",
            )
        super().__init__(cell, return_state=return_state, reverse=reverse)

    def describe(self) -> str:
        flags = [f"{f}=True" for f in ("return_state", "reverse") if getattr(self, f)]
        return f"{type(self).__name__}({', '.join([*self.cell.arguments(), *flags])})"


class RNN(_OfCell):
    """`Recurrence` of an `RNNCell`: `RNN(in, out, activation)`, or `RNN(cell)`.

    Other options are the cell's; shapes, state, lengths, return_state and reverse those of
    `Recurrence`.  PyTorch's RNN, with one bias and the batch first.
    """

    cell_type = RNNCell


class LSTM(_OfCell):
    """`Recurrence` of an `LSTMCell`: `LSTM(in, out)`, or `LSTM(cell)`.  Its state is (h, c).

    Other options are the cell's; shapes, state, lengths, return_state and reverse those of
    `Recurrence`.  PyTorch's LSTM, with one bias and the batch first.
    """

    cell_type = LSTMCell


class GRU(_OfCell):
    """`Recurrence` of a `GRUCell`: `GRU(in, out)`, or `GRU(cell)`.

    Other options are the cell's; shapes, state, lengths, return_state and reverse those of
    `Recurrence`.  With reset_bias=True PyTorch's GRU, the batch first.
    """

    cell_type = GRUCell


class GRUv3(_OfCell):
    """`Recurrence` of a `GRUv3Cell`: `GRUv3(in, out)`, or `GRUv3(cell)`.

    Other options are the cell's; shapes, state, lengths, return_state and reverse those of
    `Recurrence`.
    """

    cell_type = GRUv3Cell


MERGES = {
    "concat": lambda a, b: ops.concatenate([a, b], axis=-1),
    "sum": lambda a, b: a + b,
    "mean": lambda a, b: (a + b) / 2,
    "mul": lambda a, b: a * b,
}


class Bidirectional(Module):
    """One recurrence from the first step on, one from the last step back, and both outputs merged.

    `Bidirectional(nn.LSTM(3, 4))`: the way back is a copy with parameters of its own;
    `Bidirectional(nn.LSTM(3, 4), nn.GRU(3, 4))`: another layer.  Layers or cells.
    merge    "concat" along the last axis, "sum", "mean", "mul", or a function of both outputs.
    state    (state forward, state backward), of either None for the cell's own; so is the last
             state with return_state=True, each at its own end.
    lengths  i32[batch] as in `Recurrence`: the way back begins at each sequence's own last step.
    PyTorch's bidirectional=True.
    """

    def __init__(
        self,
        forward: Any,
        backward: Any = None,
        *,
        merge: str | Callable[[Tensor, Tensor], Any] = "concat",
        return_state: bool = False,
    ) -> None:
        if not callable(merge) and merge not in MERGES:
            fail(
                TraceError,
                f"Bidirectional: merge={merge!r}",
                expected=f"a function, or one of {', '.join(MERGES)}",
            )
        first = _cell_of(forward)
        second = copy.deepcopy(first) if backward is None else _cell_of(backward)
        self.forward = Recurrence(first, return_state=True)
        self.backward = Recurrence(second, return_state=True, reverse=True)
        self.merge, self.return_state = merge, bool(return_state)

    def __call__(
        self,
        x: TensorLike,
        state: Any = None,
        *,
        lengths: TensorLike | None = None,
        return_state: bool | None = None,
    ) -> Any:
        there, back = _states(self, state, 2)
        y, last = self.forward(x, there, lengths=lengths)
        z, first = self.backward(x, back, lengths=lengths)
        merge = self.merge if callable(self.merge) else MERGES[self.merge]
        merged = merge(y, z)
        wanted = self.return_state if return_state is None else return_state
        return (merged, (last, first)) if wanted else merged


def _cell_of(layer: Any) -> Any:
    return layer.cell if isinstance(layer, Recurrence) else layer


def _states(layer: Module, state: Any, number: int) -> tuple[Any, ...]:
    """A state for each of the parts of a layer; None for each of which there is none."""
    if state is None:
        return (None,) * number
    if not isinstance(state, tuple | list) or len(state) != number:
        fail(
            ShapeError,
            f"{type(layer).__name__}: the initial state has another structure",
            expected=f"a tuple of {number} states, None where a part begins as usual",
            got=_types(state),
        )
    return tuple(state)


class Stacked(Module):
    """Sequence layers one after the other, each reading the outputs of the one before.

    `Stacked(nn.LSTM(3, 8), nn.LSTM(8, 8), dropout=0.2)`; layers are Recurrences (RNN, LSTM, GRU,
    ...), Bidirectional, or Stacked themselves.  PyTorch's num_layers=2.
    dropout  in training, the share of elements dropped between layers, not after the last.
    state    a tuple of each layer's; so is the last state with return_state=True.
    lengths  i32[batch] as in `Recurrence`.
    """

    def __init__(self, *layers: Any, dropout: float = 0.0, return_state: bool = False) -> None:
        kinds = (Recurrence, Bidirectional, Stacked)
        if not layers or not all(isinstance(layer, kinds) for layer in layers):
            fail(
                TraceError,
                f"Stacked of {', '.join(map(function_name, layers)) or 'nothing'}",
                expected="sequence layers: nn.LSTM(in, out), nn.Bidirectional(...), ...",
                hint="nn.Chain composes any layers",
            )
        self.layers = layers
        self.dropout = Dropout(dropout) if dropout else None
        self.return_state = bool(return_state)

    def __call__(
        self,
        x: TensorLike,
        state: Any = None,
        *,
        lengths: TensorLike | None = None,
        return_state: bool | None = None,
    ) -> Any:
        y: Any = x
        ends = []
        for i, (layer, begin) in enumerate(
            zip(self.layers, _states(self, state, len(self.layers)), strict=True)
        ):
            y = self.dropout(y) if i and self.dropout else y
            y, end = layer(y, begin, lengths=lengths, return_state=True)
            ends.append(end)
        wanted = self.return_state if return_state is None else return_state
        return (y, tuple(ends)) if wanted else y
