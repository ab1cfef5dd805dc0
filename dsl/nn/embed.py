"""Tables of vectors for tokens."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc import init as inits
from fluxc import ops
from fluxc.compiler.errors import DTypeError, ShapeError, TraceError
from fluxc.compiler.ir.dims import is_at_least, largest
from fluxc.module import Module, Param
from fluxc.nn.checks import (
    checked_size,
    count,
    float_input,
    function_name,
    given_shape,
    is_given,
    weight_parameter,
)
from fluxc.ops.normalisation import widened
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.types import DTypeLike

__all__ = ["Embedding", "EmbeddingBag"]


class Embedding(Module):
    """Row i of the weight for each token i; one-hot rows are multiplied by it.

        y = weight[x]

    `Embedding(n, d)` makes its weight; `Embedding(weight)` takes an array as its first value, or
    the parameter of another layer, which then is one in both.
    Shapes       integers [...] -> [..., d]; floats [..., n] -> [..., d]; weight [n, d].
    init         of the weight, standard normal by default.
    padding_idx  a token whose row starts at zero, unless the parameter is another layer's, and
                 gets no gradient; -1 is the last.
    Errors       ShapeError if one-hot rows have another size, or there is no row `padding_idx`.
                 A compiled entry refuses tokens among its inputs that are not in 0 .. n - 1;
                 tokens that the program itself computes are brought into that range.
    """

    def __init__(
        self,
        n: Any,
        d: int | None = None,
        *,
        init: Any = inits.randn,
        padding_idx: int | None = None,
        dtype: DTypeLike = "f32",
    ) -> None:
        weight = n if is_given(n) else None
        if weight is not None:
            n, d = given_shape("Embedding", weight, "n, d")
        self.n, self.d = count("Embedding: n", n), count("Embedding: d", d)
        self.padding_idx = None if padding_idx is None else self._row(padding_idx)
        self.weight = weight_parameter(weight, (n, d), init, dtype)
        if self.padding_idx is not None and self.weight is not weight:
            first = functools.partial(_without_row, self.weight.initial, self.padding_idx)
            self.weight = Param((n, d), init=first, dtype=dtype)

    def _row(self, index: Any) -> int:
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            fail(ShapeError, "Embedding: padding_idx is no integer", got=repr(index))
        row = int(index)
        if not -self.n <= row < self.n:
            fail(
                ShapeError,
                "Embedding: there is no row padding_idx",
                expected=f"{-self.n} .. {self.n - 1}",
                got=str(row),
            )
        return row % self.n

    def __call__(self, x: TensorLike) -> Tensor:
        t = as_tensor(x)
        if t.type.dtype.is_integer:
            y = ops.gather_rows(self.weight, t)
            return y if self.padding_idx is None else self._masked(y, t)
        t = float_input(t, self.weight)
        checked_size(self, t, -1, self.n, f"[..., {self.n}]")
        weight = as_tensor(self.weight)
        if self.padding_idx is not None:
            weight = self._masked(weight, ops.arange(self.n))
        return ops.matmul(t, weight)

    def _masked(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """The rows of the tokens, those of the padding token without a gradient."""
        padding = ops.expand_dims(tokens == self.padding_idx, -1)
        return ops.where(padding, ops.stop_gradient(rows), rows)

    def describe(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"Embedding({self.n}, {self.d}{padding})"


def _without_row(
    first: Any, row: int, rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:
    """The first value of a table with a row of zeros."""
    table = np.array(first(rng)) if callable(first) else np.full(shape, first)
    table[row] = 0
    return table


_REDUCTIONS = {"mean": "mean", "sum": "sum", "max": "max", "maximum": "max", "amax": "max"}


class EmbeddingBag(Module):
    """The mean, sum or maximum of the rows of an Embedding over each bag of tokens.

        y = reduction(weight[bag])

    `EmbeddingBag(n, d)` takes means; `EmbeddingBag(n, d, "sum")`, or `fx.sum`, `fx.max`;
    `EmbeddingBag(weight, "sum")` takes an array or a parameter, as Embedding does.

    Shapes  one bag, integers [size] -> [d]; bags of one size, integers [..., size] -> [..., d];
            a list or tuple of bags of any sizes -> [bags, d];
            all bags one after the other and the position at which each begins,
            `bag(tokens, offsets)`, [count] and [bags] -> [bags, d];
            the same with the size of each, `bag(tokens, lengths=lengths)`;
            one-hot rows, floats [..., size, n] -> [..., d]; weight [n, d].
    Offsets begin with 0 and do not decrease; the last bag ends with the tokens.  Tokens that belong
    to no bag are left out.  An empty bag gives zeros.
    Ties of a maximum share the gradient.
    Errors  ShapeError for another reduction, a single token or one-hot row, or offsets that, where
            they are known, do not begin with 0, decrease or go beyond the tokens; DTypeError for
            offsets that are no integers.
    """

    def __init__(
        self,
        n: Any,
        d: Any = None,
        reduction: Any = "mean",
        *,
        init: Any = inits.randn,
        dtype: DTypeLike = "f32",
    ) -> None:
        weight = n if is_given(n) else None
        if weight is not None:  # (weight, reduction)
            reduction = reduction if d is None else d
            n, d = given_shape("EmbeddingBag", weight, "n, d")
        self.n, self.d = count("EmbeddingBag: n", n), count("EmbeddingBag: d", d)
        name = reduction if isinstance(reduction, str) else function_name(reduction)
        if name not in _REDUCTIONS:
            fail(
                ShapeError,
                f"EmbeddingBag: no reduction is {name!r}",
                expected="mean, sum or max",
            )
        self.reduction = _REDUCTIONS[name]
        self.weight = weight_parameter(weight, (n, d), init, dtype)

    def __call__(
        self, x: Any, offsets: TensorLike | None = None, *, lengths: TensorLike | None = None
    ) -> Tensor:
        if offsets is not None and lengths is not None:
            fail(TraceError, f"{self.describe()} takes offsets or lengths, not both")
        if offsets is not None:
            return self._flat(x, _starts(self, x, offsets))
        if lengths is not None:
            sizes = _integers(self, "lengths", lengths)
            return self._flat(x, ops.cumsum(sizes, 0) - sizes, ops.sum(sizes))
        if isinstance(x, list | tuple) and not all(isinstance(i, int) for i in x):
            return ops.stack([self(bag) for bag in x])
        t = as_tensor(x)
        if t.type.dtype.is_integer and t.ndim >= 1:
            return self._reduced(ops.gather_rows(self.weight, t))
        if t.type.dtype.is_integer or t.ndim < 2:
            fail(
                ShapeError,
                f"{self.describe()} takes bags, not a single token",
                expected=f"integers [..., size] or one-hot rows [..., size, {self.n}]",
                got=str(t.type),
                hint="x[None] is a bag of one",
            )
        t = float_input(t, self.weight)
        checked_size(self, t, -1, self.n, f"[..., size, {self.n}]")
        return self._reduced(ops.matmul(t, self.weight))

    def _reduced(self, rows: Tensor) -> Tensor:
        """[..., size, d] without the axis of the bag."""
        size = rows.shape[-2]
        if self.reduction == "sum" or size == 0:
            return ops.sum(rows, -2)
        if self.reduction == "mean":
            return ops.sum(rows, -2) / as_tensor(largest(size, 1), rows.dtype)
        greatest = ops.max(rows, -2)
        return greatest if is_at_least(size, 1) else ops.where(as_tensor(size) > 0, greatest, 0.0)

    def _flat(self, x: TensorLike, starts: Tensor, total: Tensor | None = None) -> Tensor:
        """Bags that lie one after the other and begin at `starts`."""
        tokens = as_tensor(x)
        if tokens.ndim != 1 or not tokens.type.dtype.is_integer:
            fail(
                ShapeError,
                f"{self.describe()}: bags one after the other are one row of tokens",
                expected="integers [count]",
                got=str(tokens.type),
            )
        bags, (length,) = starts.shape[0], tokens.shape
        rows = widened(ops.gather_rows(self.weight, tokens))
        begun = ops.scatter(ops.zeros(length, "i32"), starts, 1, "add")
        own = ops.cumsum(begun, 0) - 1
        outside = own < 0
        if total is not None:
            outside = outside | (ops.arange(length) >= total)
        own = ops.where(outside, bags, own)  # positions out of range are dropped
        sizes = ops.expand_dims(ops.scatter(ops.zeros(bags, "i32"), own, 1, "add"), -1)
        if self.reduction == "max":
            least = ops.full((bags, self.d), -ops.inf, rows.dtype)
            y = ops.where(sizes == 0, 0.0, ops.scatter(least, own, rows, "max"))
        else:
            y = ops.scatter(ops.zeros((bags, self.d), rows.dtype), own, rows, "add")
        y = y / ops.maximum(sizes, 1) if self.reduction == "mean" else y
        return as_tensor(y, self.weight.dtype)

    def describe(self) -> str:
        reduction = "" if self.reduction == "mean" else f", {self.reduction!r}"
        return f"EmbeddingBag({self.n}, {self.d}{reduction})"


def _integers(layer: EmbeddingBag, what: str, x: TensorLike) -> Tensor:
    t = as_tensor(x)
    if not t.type.dtype.is_integer:
        fail(DTypeError, f"{layer.describe()}: {what} are no integers", got=str(t.type))
    if t.ndim != 1:
        fail(ShapeError, f"{layer.describe()}: {what} in one row", got=str(t.type))
    return t


def _starts(layer: EmbeddingBag, tokens: Any, offsets: TensorLike) -> Tensor:
    at = _integers(layer, "offsets", offsets)
    if isinstance(offsets, list | tuple | np.ndarray) and len(offsets):
        known = np.asarray(offsets)
        count = as_tensor(tokens).shape[0]
        beyond = isinstance(count, int) and known[-1] > count
        if known[0] != 0 or (np.diff(known) < 0).any() or beyond:
            fail(
                ShapeError,
                f"{layer.describe()}: offsets do not divide the tokens into bags",
                expected=f"0 first, none less than the one before, none beyond {count}",
                got=str(list(map(int, known))),
            )
    return at
