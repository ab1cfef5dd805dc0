"""Parts at positions that are known when the program runs, and writing at computed positions.

Tensors are immutable: each function returns the tensor with the change made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.ops.index import positions, wrapped
from fluxc.ops.layout import as_shape, expand_dims, normal_axis, stack, transpose
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast, broadcast_shapes, cast
from fluxc.trace import emit, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.graph import Value

__all__ = ["dynamic_slice", "dynamic_update_slice", "put_along_axis", "scatter"]

_REDUCE = ("set", "add", "mul", "max", "min")


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


def _check_reduce(what: str, reduce: str) -> None:
    if reduce not in _REDUCE:
        fail(ShapeError, f"{what}: no reduction is {reduce!r}", expected=", ".join(_REDUCE))


def scatter(x: TensorLike, index: Any, updates: TensorLike, reduce: str = "set") -> Tensor:
    """x with `updates` put at x[index]: set, add, mul, max or min.

        fx.scatter(x, i, u)                          x[i] = u
        fx.scatter(x, (i, j), u, reduce="add")       x[i, j] += u

    index    an integer tensor, or a tuple of them for the first axes; they broadcast together.
    updates  broadcasts to the shape of x[index].
    Negative positions count from the end; updates at positions out of range are dropped.  Of
    several updates at one place "set" keeps the last in row-major order, and the others combine.
    """
    x = as_tensor(x)
    _check_reduce("scatter", reduce)
    items = list(index) if isinstance(index, tuple) else [index]
    if not 1 <= len(items) <= x.ndim:
        fail(ShapeError, f"scatter: {len(items)} positions in a tensor with {x.ndim} axes")
    given = [positions(as_tensor(i)) for i in items]
    at = broadcast_shapes(*(i.shape for i in given))
    columns = [wrapped(broadcast(i, at), x.shape[axis]) for axis, i in enumerate(given)]
    met = columns if len(columns) == 1 else [as_tensor(c, "i64") for c in columns]
    indices = stack(met, axis=-1) if len(met) > 1 else expand_dims(met[0], -1)
    new = broadcast(as_tensor(updates, x.type.dtype), (*at, *x.shape[len(items) :]))
    return Tensor(emit("scatter", x.value, indices.value, new.value, batch=0, reduce=reduce))


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
