"""Parts at positions that are known when the program runs, and writing at computed positions.

Tensors are immutable: each function returns the tensor with the change made.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.ops.create import full, ones_like, zeros_like
from fluxc.ops.elementwise import as_float, maximum
from fluxc.ops.index import joined, position_columns, positions, wrapped
from fluxc.ops.layout import as_shape, expand_dims, normal_axis, transpose
from fluxc.tensor import (
    Operators,
    Tensor,
    TensorLike,
    as_tensor,
    broadcast,
    broadcast_shapes,
    cast,
)
from fluxc.trace import emit, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.graph import Value

__all__ = ["dynamic_slice", "dynamic_update_slice", "put_along_axis", "scatter"]

_REDUCE = ("set", "add", "mul", "max", "min")
_SCATTER = ("set", "add", "sub", "mul", "div", "max", "min", "mean")


def _starts(x: Tensor, starts: Any, what: str) -> list[Value]:
    """One integer scalar for each axis."""
    given = list(starts) if isinstance(starts, list | tuple) else [starts]
    if len(given) != x.ndim:
        fail(ShapeError, f"{what} takes one start for each axis of {x.type}", got=f"{len(given)}")
    tensors = [as_tensor(s) for s in given]
    for t in tensors:
        if t.shape != () or not t.type.dtype.is_integer:
            fail(DTypeError, f"{what}: a start is an integer scalar", got=str(t.type))
    return [cast(t, ir.i64).value for t in tensors]


def dynamic_slice(x: TensorLike, starts: Any, sizes: Any) -> Tensor:
    """The part of x of the given sizes that begins at `starts`, integer scalars.

    A start out of range is moved so that the part lies inside.
    Errors  ShapeError if a size is more than that of its axis.
    """
    x = as_tensor(x)
    value = emit(
        "dynamic_slice", x.value, *_starts(x, starts, "dynamic_slice"), sizes=as_shape(sizes)
    )
    return Tensor(value)


def dynamic_update_slice(x: TensorLike, update: TensorLike, starts: Any) -> Tensor:
    """x with the part that begins at `starts`, integer scalars, replaced by `update`.

    A start out of range is moved so that the part lies inside.
    Errors  ShapeError if a size of `update` is more than that of its axis.
    """
    x = as_tensor(x)
    part = as_tensor(update, x.type.dtype)
    firsts = _starts(x, starts, "dynamic_update_slice")
    if part.ndim != x.ndim:
        fail(
            ShapeError,
            "dynamic_update_slice: the update has as many axes as the tensor",
            expected=f"{x.ndim} axes",
            got=str(part.type),
        )
    return Tensor(emit("dynamic_update", x.value, part.value, *firsts))


def _check_reduce(what: str, reduce: Any, known: tuple[str, ...] = _REDUCE) -> None:
    if reduce not in known:
        fail(ShapeError, f"{what}: no reduction is {reduce!r}", expected=", ".join(known))


def scatter(
    x: Any,
    index: Any,
    updates: Any,
    reduce: str = "set",
    *,
    dstsize: Any = None,
    init: Any = None,
) -> Tensor:
    """x with `updates` put at x[index]: set, add, sub, mul, div, max, min or mean.

        fx.scatter(x, i, u)                          x[i] = u
        fx.scatter(x, (i, j), u, reduce="add")       x[i, j] += u
        fx.scatter("add", u, i, dstsize=n)           zeros(n)[i] += u, Flux's form

    index    an integer tensor, or a tuple of them for the first axes; they broadcast together.
    updates  broadcasts to the shape of x[index].
    mean     adds the mean of the updates of each place to what is there; `div` divides by them.
    dstsize  with a reduction first: the sizes of the axes that index selects along, or the whole
             shape; of positions that are known while tracing by default the least that hold them.
    init     with a reduction first: what the updates meet.  By default 0, of mul and div 1, of
             max the least and of min the greatest number of the dtype.
    Negative positions count from the end; updates at positions out of range are dropped.  Of
    several updates at one place "set" keeps the last in row-major order, and the others combine.
    Of equal elements of max and min each gets an equal share of the gradient, in Flux all of it.
    """
    if isinstance(x, str):
        return _scattered(x, as_tensor(index), updates, dstsize, init)
    if dstsize is not None or init is not None:
        fail(ShapeError, "scatter: dstsize and init are for scatter(reduce, updates, index)")
    t = as_tensor(x)
    _check_reduce("scatter", reduce, _SCATTER)
    if reduce in ("div", "mean"):
        t = as_float(t)
    columns = position_columns("scatter", t, index)
    new = broadcast(as_tensor(updates, t.type.dtype), (*columns[0].shape, *t.shape[len(columns) :]))
    at = joined(columns)
    if reduce == "sub":
        return _put(t, at, -new, "add")
    if reduce == "div":
        return t / _put(ones_like(t), at, new, "mul")
    if reduce == "mean":
        count = _put(zeros_like(t), at, ones_like(new), "add")
        return t + _put(zeros_like(t), at, new, "add") / maximum(count, 1)
    return _put(t, at, new, reduce)


def _put(x: Tensor, at: Tensor, updates: Tensor, reduce: str) -> Tensor:
    return Tensor(emit("scatter", x.value, at.value, updates.value, batch=0, reduce=reduce))


def _scattered(reduce: str, updates: Tensor, index: Any, dstsize: Any, init: Any) -> Tensor:
    """A new tensor with the updates, which are of the shape [index..., rest...]."""
    _check_reduce("scatter", reduce, _SCATTER)
    items = index if isinstance(index, tuple) else (index,)
    rank = len(broadcast_shapes(*(as_tensor(i).shape for i in items)))
    rest = updates.shape[rank:]
    sizes = as_shape([_least_size(i) for i in items] if dstsize is None else dstsize)
    if len(sizes) == len(items):
        sizes = (*sizes, *rest)
    if len(sizes) != len(items) + len(rest):
        fail(
            ShapeError,
            "scatter: dstsize",
            expected=f"{len(items)} sizes, or {len(items) + len(rest)}",
            got=repr(dstsize),
        )
    first = _neutral(reduce, updates.type.dtype) if init is None else init
    return scatter(full(sizes, first, updates.dtype), index, updates, reduce)


def _least_size(index: Any) -> int:
    """One more than the greatest of positions that are known."""
    if isinstance(index, Operators):
        fail(
            ShapeError,
            "scatter: the positions are known when the program runs, the size must be now",
            hint="dstsize=...",
        )
    return int(np.max(index, initial=-1)) + 1


def _neutral(reduce: str, dtype: ir.DType) -> float:
    """What changes no update that it meets."""
    if reduce in ("mul", "div"):
        return 1
    if reduce in ("max", "min"):
        sign = 1 if reduce == "min" else -1
        if dtype.is_float:
            return sign * math.inf
        info = np.iinfo(dtype.numpy)
        return int(info.max if reduce == "min" else info.min)
    return 0


def put_along_axis(
    x: TensorLike, indices: TensorLike, values: TensorLike, axis: int, reduce: str = "set"
) -> Tensor:
    """x with y[..., indices[..., i, ...], ...] = values[..., i, ...] along an axis.

    Shapes  x and indices are equal but for `axis`; values broadcasts to indices.
    Positions and `reduce` as in `scatter`; what `take_along_axis` reads, this writes.
    """
    x, i = as_tensor(x), positions(as_tensor(indices))
    _check_reduce("put_along_axis", reduce)
    a = normal_axis(axis, x.ndim)
    others: Sequence[int] = [n for n in range(x.ndim) if n != a]
    if i.ndim != x.ndim or any(x.shape[n] != i.shape[n] for n in others):
        fail(
            ShapeError,
            f"put_along_axis along axis {axis}: shapes differ elsewhere",
            expected=str(x.type),
            got=str(i.type),
        )
    order = [*others, a]
    new = broadcast(as_tensor(values, x.type.dtype), i.shape)
    front, at, moved = (transpose(t, order) for t in (x, wrapped(i, x.shape[a]), new))
    column = expand_dims(at, -1)
    value = emit("scatter", front.value, column.value, moved.value, batch=x.ndim - 1, reduce=reduce)
    back = [*range(a), x.ndim - 1, *range(a, x.ndim - 1)]
    return transpose(Tensor(value), back)
