"""Order along an axis: positions of extremes, sorting, running results."""

from __future__ import annotations

from typing import Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import is_at_least
from fluxc.ops.elementwise import isnan
from fluxc.ops.index import take_along_axis
from fluxc.ops.layout import expand_dims, normal_axis
from fluxc.ops.reduce import sum as total
from fluxc.tensor import Tensor, TensorLike, as_tensor, cast, operands
from fluxc.trace import NeedsSize, emit, fail, user_loc

__all__ = [
    "argmax", "argmin", "argsort", "cummax", "cummin", "cumprod", "cumsum", "recurrence",
    "searchsorted", "sort", "top_k", "topk",
]  # fmt: skip


def _extreme(op: str, x: TensorLike, axis: int | None, *, keepdims: bool) -> Tensor:
    x = as_tensor(x)
    rank = x.ndim
    line = x.ravel() if axis is None else x
    a = 0 if axis is None else normal_axis(axis, rank)
    _require_some(op, line, a)
    y = Tensor(emit(op, line.value, axis=a))
    if not keepdims:
        return y
    return y.reshape((1,) * rank) if axis is None else expand_dims(y, a)


def _require_some(what: str, x: Tensor, axis: int) -> None:
    """A named size that may be 0 gets the least size 1."""
    size = x.shape[axis]
    if not is_at_least(size, 1):
        error = ShapeError(
            f"{what} along an axis without elements",
            loc=user_loc(),
            got=str(x.type),
            hint="declare the least size, such as fx.dim('n', min=1)",
        )
        if isinstance(size, int):
            raise error
        raise NeedsSize(size - 1, 0, error)


def argmax(x: TensorLike, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    """The position, i64, of the greatest element along an axis (of the flat tensor by default).

    Of equal elements the first one counts; NaN counts as the greatest.
    Errors  ShapeError along an axis of size 0.
    """
    return _extreme("argmax", x, axis, keepdims=keepdims)


def argmin(x: TensorLike, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    """The position, i64, of the least element along an axis (of the flat tensor by default).

    Of equal elements the first one counts; a NaN counts as the least, as in NumPy.
    Errors  ShapeError along an axis of size 0.
    """
    return _extreme("argmin", x, axis, keepdims=keepdims)


def argsort(x: TensorLike, axis: int = -1, *, descending: bool = False) -> Tensor:
    """The positions, i64, of the elements along an axis in order.

    Equal elements keep their order in both directions.  NaN counts as greater than every number.
    """
    x = as_tensor(x)
    a = normal_axis(axis, x.ndim)
    return Tensor(emit("argsort", x.value, axis=a, descending=bool(descending)))


def sort(x: Any, axis: int = -1, *, descending: bool = False) -> Any:
    """The elements along an axis in order; of several tensors, in the order of the first one.

    x  a tensor, or a tuple of tensors of one shape: all are permuted alike, and a tuple returned.
    Equal elements keep their order in both directions.  NaN counts as greater than every number.
    A gradient goes back to where each element came from.
    """
    if isinstance(x, tuple):
        tensors = [as_tensor(t) for t in x]
        for t in tensors[1:]:
            if t.shape != tensors[0].shape:
                fail(
                    ShapeError,
                    "sort: what is sorted together has one shape",
                    expected=str(tensors[0].type),
                    got=str(t.type),
                )
        order = argsort(tensors[0], axis, descending=descending)
        return tuple(take_along_axis(t, order, axis) for t in tensors)
    x = as_tensor(x)
    return take_along_axis(x, argsort(x, axis, descending=descending), axis)


def top_k(x: TensorLike, k: int, axis: int = -1, *, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The k greatest elements along an axis, greatest first, and their positions (i64).

    largest  False: the k least elements, least first.
    Of equal elements those with the lower positions count.  NaN counts as the greatest.
    `fx.topk` too, as MLUtils and PyTorch have it; MLUtils's `rev` is `largest`.
    Errors  ShapeError if the axis has less than k elements.
    """
    x = as_tensor(x)
    a = normal_axis(axis, x.ndim)
    order = argsort(x, a, descending=bool(largest))[(*(slice(None),) * a, slice(k))]
    return take_along_axis(x, order, a), order


topk = top_k


def searchsorted(a: TensorLike, v: TensorLike, side: str = "left") -> Tensor:
    """For each v the position, i64, at which it would be put into the sorted vector `a`.

    side  "left": before equal elements, "right": after them.
    Shapes  a [n], v [...] -> [...].
    """
    if side not in ("left", "right"):
        fail(ShapeError, f"searchsorted: no side is {side!r}", expected="left or right")
    line, values = operands(a, expand_dims(as_tensor(v), -1))
    if as_tensor(a).ndim != 1:
        fail(ShapeError, "searchsorted: the sorted tensor is a vector", got=str(as_tensor(a).type))
    before = line < values if side == "left" else line <= values
    if line.type.dtype.is_float:  # NaN stands behind all numbers
        last = isnan(values)
        before = before | (last & ~isnan(line) if side == "left" else last)
    return total(before, axis=-1)


def _running(reduce: str, x: TensorLike, axis: int | None, *, reverse: bool, widen: bool) -> Tensor:
    x = as_tensor(x)
    x = x.ravel() if axis is None else x
    a = normal_axis(0 if axis is None else axis, x.ndim)
    if x.type.dtype.kind == "b" or (widen and not x.type.dtype.is_float):
        x = cast(x, ir.i64 if widen else ir.i32)
    return Tensor(emit("cumulative", x.value, axis=a, reduce=reduce, reverse=bool(reverse)))


def cumsum(x: TensorLike, axis: int | None = None, *, reverse: bool = False) -> Tensor:
    """The sums of the elements up to each one along an axis (of the flat tensor by default).

    reverse  the sums of each element and all after it.
    Integers and bools are summed in i64.
    """
    return _running("sum", x, axis, reverse=reverse, widen=True)


def cumprod(x: TensorLike, axis: int | None = None, *, reverse: bool = False) -> Tensor:
    """The products of the elements up to each one along an axis (of the flat tensor by default).

    reverse  the products of each element and all after it.
    Integers and bools are multiplied in i64.
    """
    return _running("prod", x, axis, reverse=reverse, widen=True)


def cummax(x: TensorLike, axis: int | None = None, *, reverse: bool = False) -> Tensor:
    """The greatest element up to each one along an axis; NaN from the first NaN on."""
    return _running("max", x, axis, reverse=reverse, widen=False)


def cummin(x: TensorLike, axis: int | None = None, *, reverse: bool = False) -> Tensor:
    """The least element up to each one along an axis; NaN from the first NaN on."""
    return _running("min", x, axis, reverse=reverse, widen=False)


def recurrence(a: TensorLike, b: TensorLike, axis: int = 0, *, reverse: bool = False) -> Tensor:
    """y[t] = a[t] * y[t-1] + b[t] along an axis, with 0 before the first: one pass over memory.

    a may be a number or broadcast against b.  reverse: y[t] = a[t] * y[t+1] + b[t], from the end.
    Moving averages, discounted sums and linear state-space layers are such.
    """
    factor, term = operands(a, b)
    if term.type.dtype.kind == "b":
        fail(DTypeError, "a recurrence of bools", got=str(term.type))
    place = normal_axis(axis, term.ndim)
    value = emit("recurrence", factor.value, term.value, axis=place, reverse=bool(reverse))
    return Tensor(value)
