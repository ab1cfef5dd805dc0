"""Indexing: `x[...]` as NumPy has it, and reading at computed positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError, TraceError
from fluxc.compiler.ir.dims import Dim, Size, ceildiv, is_at_least
from fluxc.ops.create import iota
from fluxc.ops.elementwise import where
from fluxc.ops.layout import expand_dims, normal_axis, stack, transpose
from fluxc.tensor import Operators, Tensor, TensorLike, as_tensor, broadcast, broadcast_shapes
from fluxc.trace import NeedsSize, emit, fail, user_loc
from fluxc.types import DTypeLike, as_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "gather",
    "gather_rows",
    "getitem",
    "one_hot",
    "pick",
    "take",
    "take_along_axis",
    "unstack",
]


def getitem(x: TensorLike, index: Any) -> Tensor:
    """x[index]: integers, slices with steps of either sign, None, `...`, and integer tensors.

    An integer drops its axis, None adds one of size 1, integer tensors (or lists, arrays) select:
    several broadcast together, and their axes stand where the first one stood (first of all where
    others lie between them).  Negative positions count from the end.  Positions in an integer
    tensor that are out of range are clamped.
    Sizes that are symbolic must contain the part that is read for every value of their range; a
    name without a stated range gets the least size that does.

    Errors  ShapeError for too many indices or one out of range; TraceError for a bool mask.
    """
    x = as_tensor(x)
    items = list(index) if isinstance(index, tuple) else [index]
    items = [_item(i) for i in items]
    _expand_ellipsis(items, x)
    basic, advanced = _basic(x, items)
    return _select(basic, advanced, first=_is_separated(items)) if advanced else basic


def _item(i: Any) -> Any:
    """One index, with arrays and lists as tensors; bools are refused."""
    if isinstance(i, bool | np.bool_):
        fail(TraceError, "a bool is not an index", hint="fx.where(mask, x, y)")
    if isinstance(i, list | np.ndarray | Operators):
        return positions(as_tensor(i))
    if i is None or i is Ellipsis or isinstance(i, slice | Dim):
        return i
    if not hasattr(i, "__index__"):
        fail(
            TraceError,
            f"{i!r} is not an index",
            expected="integers, slices, None, ..., integer tensors",
        )
    return int(i)


def positions(i: Tensor) -> Tensor:
    if i.type.dtype.kind == "b":
        fail(
            TraceError,
            "a bool mask as an index: how many elements it selects is not known while tracing",
            got=f"x[{i.type}]",
            hint="fx.where(mask, x, 0), then reduce, or index with integers",
        )
    if not i.type.dtype.is_integer:
        fail(DTypeError, "an index must be an integer tensor", got=str(i.type))
    return i


def _expand_ellipsis(items: list[Any], x: Tensor) -> None:
    places = [n for n, i in enumerate(items) if i is Ellipsis]
    used = sum(1 for i in items if i is not None and i is not Ellipsis)
    if len(places) > 1:
        fail(ShapeError, "an index has one ... at most")
    if used > x.ndim:
        fail(ShapeError, f"{used} indices of a tensor with {x.ndim} axes", got=str(x.type))
    place = places[0] if places else len(items)
    items[place : place + len(places)] = [slice(None)] * (x.ndim - used)


def _basic(x: Tensor, items: list[Any]) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """Everything but integer tensors; those are returned with the axes that they select along."""
    spans: list[tuple[Size, Size, int, bool]] = []  # one per axis of x
    shape: list[Size] = []
    advanced: list[tuple[int, Tensor]] = []
    for item in items:
        if item is None:
            shape.append(1)
            continue
        axis = len(spans)
        whole = slice(None) if isinstance(item, Tensor) else item
        spans.append(_span(whole, x.shape[axis], axis))
        if isinstance(item, Tensor):
            advanced.append((len(shape), item))
        if isinstance(whole, slice):
            start, limit, step, _ = spans[-1]
            shape.append(ceildiv(limit - start, step))
    return _cut(x, spans, tuple(shape)), advanced


def _cut(x: Tensor, spans: list[tuple[Size, Size, int, bool]], shape: tuple[Size, ...]) -> Tensor:
    """The spans of x, each read in its direction, in a shape without the axes that are dropped."""
    starts, limits, steps, turned = zip(*spans, strict=True) if spans else ((),) * 4
    value = x.value
    if any(s != 0 for s in starts) or limits != x.shape or any(s != 1 for s in steps):
        value = emit("slice", value, starts=starts, limits=limits, steps=steps)
    axes = tuple(a for a, backwards in enumerate(turned) if backwards)
    if axes:
        value = emit("reverse", value, axes=axes)
    if shape != value.type.shape:
        value = emit("reshape", value, shape=shape)
    return Tensor(value)


def _is_separated(items: list[Any]) -> bool:
    """Whether a slice or None stands between positions: NumPy then puts their axes first."""
    places = [n for n, i in enumerate(items) if i is not None and not isinstance(i, slice)]
    return bool(places) and places != list(range(places[0], places[-1] + 1))


def _span(item: Any, size: Size, axis: int) -> tuple[Size, Size, int, bool]:
    """start, limit, step >= 1 and whether the span is read backwards."""
    if not isinstance(item, slice):
        start = item if not _is_negative(item) else size + item
        if isinstance(size, int) and isinstance(item, int) and not -size <= item < size:
            fail(ShapeError, f"index {item} is out of range for axis {axis} of size {size}")
        _require(size, start, start + 1, f"index {item} of axis {axis}")
        return start, start + 1, 1, False
    step = 1 if item.step is None else item.step
    if not isinstance(step, int) or step == 0:
        fail(ShapeError, f"a slice's step must be an integer other than 0, got {item.step!r}")
    for bound in (item.start, item.stop):
        if bound is not None and not isinstance(bound, Dim) and not hasattr(bound, "__index__"):
            fail(TraceError, f"a slice from {item.start!r} to {item.stop!r}", expected="integers")
    if isinstance(size, int) and not any(isinstance(b, Dim) for b in (item.start, item.stop)):
        return _fixed_span(range(*item.indices(size)))
    if step < 0:
        return _backward_span(item, size, step, axis)
    start = _bound(item.start, size, 0)
    limit = _bound(item.stop, size, size)
    _require(size, start, limit, f"slice {_show(item)} of axis {axis}")
    return start, limit, step, False


def _fixed_span(span: range) -> tuple[Size, Size, int, bool]:
    if not span:
        return 0, 0, 1, False
    low, high = (span[0], span[-1]) if span.step > 0 else (span[-1], span[0])
    return low, high + 1, abs(span.step), span.step < 0


def _backward_span(item: slice, size: Size, step: int, axis: int) -> tuple[Size, Size, int, bool]:
    """A slice with a negative step: the elements that it reads, from the lowest."""
    first = _bound(item.start, size, size - 1)
    end = -1 if item.stop is None else _bound(item.stop, size, 0)  # exclusive
    limit = first + 1
    if step == -1:
        start: Size = end + 1
    else:
        count = ceildiv(first - end, -step)
        start = first - (count - 1) * -step
    _require(size, start, limit, f"slice {_show(item)} of axis {axis}")
    return start, limit, -step, True


def _bound(bound: Size | None, size: Size, default: Size) -> Size:
    if bound is None:
        return default
    return size + bound if _is_negative(bound) else bound


def _is_negative(i: Size) -> bool:
    """Whether an index counts from the end: a negative integer, or a size that is never more."""
    return i < 0 if isinstance(i, int) else is_at_least(-1, i)


def _show(item: slice) -> str:
    parts = ["" if p is None else str(p) for p in (item.start, item.stop)]
    return ":".join(parts + ([] if item.step is None else [str(item.step)]))


def _require(size: Size, start: Size, limit: Size, what: str) -> None:
    """0 <= start <= limit <= size must hold for every value of the symbols."""
    for least, most in ((0, start), (start, limit), (limit, size)):
        if not is_at_least(most, least):
            error = ShapeError(
                f"{what}, whose size is {size}, may lie outside of it",
                loc=user_loc(),
                expected=f"{most} >= {least} for every size in the declared range",
                hint="declare the greatest size, such as fx.dim('n', max=...)"
                if isinstance(most, int)
                else "declare the least size, such as fx.dim('n', min=...)",
            )
            raise NeedsSize(most - least, 0, error)


# Integer tensors.


def position_columns(what: str, x: Tensor, index: Any) -> list[Tensor]:
    """Positions along the first axes of x, one tensor for each of them, all of one shape."""
    items = list(index) if isinstance(index, tuple) else [index]
    if not 1 <= len(items) <= x.ndim:
        fail(ShapeError, f"{what}: {len(items)} positions in a tensor with {x.ndim} axes")
    given = [positions(as_tensor(i)) for i in items]
    at = broadcast_shapes(*(i.shape for i in given))
    return [wrapped(broadcast(i, at), x.shape[axis]) for axis, i in enumerate(given)]


def joined(columns: list[Tensor]) -> Tensor:
    """Positions along several axes as the last axis of one tensor."""
    met = columns if len(columns) == 1 else [as_tensor(c, "i64") for c in columns]
    return stack(met, axis=-1) if len(met) > 1 else expand_dims(met[0], -1)


def _select(x: Tensor, advanced: list[tuple[int, Tensor]], *, first: bool) -> Tensor:
    """Read x at integer tensors along some axes; `first` puts the tensors' own axes first."""
    axes = [axis for axis, _ in advanced]
    at = broadcast_shapes(*(i.shape for _, i in advanced))
    columns = [wrapped(broadcast(i, at), x.shape[axis]) for axis, i in advanced]
    return gather_axes(x, axes, columns, 0 if first else axes[0])


def wrapped(index: Tensor, size: Size) -> Tensor:
    """Negative positions count from the end."""
    if index.type.dtype.kind == "u":
        return index
    index = as_tensor(index, "i64") if index.type.dtype.bits < 32 else index
    return where(index < 0, index + size, index)


def gather_axes(x: Tensor, axes: list[int], columns: list[Tensor], place: int) -> Tensor:
    """x read at columns[i] along axes[i]; the columns' own axes come to stand at `place`."""
    rest = [a for a in range(x.ndim) if a not in axes]
    front = transpose(x, [*axes, *rest])
    y = Tensor(emit("gather", front.value, joined(columns).value, batch=0))
    rank, before = columns[0].ndim, sum(1 for a in rest if a < place)
    moved = [*range(rank, rank + before), *range(rank), *range(rank + before, y.ndim)]
    return transpose(y, moved)


def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """x at integer positions along an axis (of the flat tensor by default); negative from the end.

    Shapes  the axis is replaced by the axes of `indices`.  Positions out of range are clamped.
    """
    x = as_tensor(x)
    x = x.ravel() if axis is None else x
    a = normal_axis(0 if axis is None else axis, x.ndim)
    i = _integers(indices)
    return gather_axes(x, [a], [wrapped(i, x.shape[a])], a)


def gather(x: TensorLike, index: Any) -> Tensor:
    """x at integer positions along its first axes; what `scatter` writes, this reads.

        fx.gather(x, i)          y[a...] = x[i[a...]]
        fx.gather(x, (i, j))     y[a...] = x[i[a...], j[a...]]

    index   an integer tensor, or a tuple of them for the first axes; they broadcast together.
    Shapes  x [n1, ..., nk, R...], index [A...] -> [A..., R...].
    Negative positions count from the end; those out of range are clamped, where Flux raises.
    NNlib's gather, whose positions count from 1 and are those of the last axes.
    """
    t = as_tensor(x)
    columns = position_columns("gather", t, index)
    return gather_axes(t, list(range(len(columns))), columns, 0)


def gather_rows(x: TensorLike, indices: TensorLike) -> Tensor:
    """x[indices] for positions in 0 .. size - 1; a compiled entry checks those that are inputs."""
    return gather_axes(as_tensor(x), [0], [_integers(indices)], 0)


def _integers(indices: TensorLike) -> Tensor:
    i = as_tensor(indices)
    if not i.type.dtype.is_integer:
        fail(DTypeError, "indices must be integers", got=str(i.type), hint="indices.astype(fx.i32)")
    return i


def take_along_axis(x: TensorLike, indices: TensorLike, axis: int = -1) -> Tensor:
    """y[..., i, ...] = x[..., indices[..., i, ...], ...] along an axis; negative from the end.

    Shapes  x and indices are equal but for `axis`.
    """
    x, i = as_tensor(x), _integers(indices)
    a = normal_axis(axis, x.ndim)
    if i.ndim != x.ndim or any(s != t for n, (s, t) in enumerate(_zip(x, i)) if n != a):
        fail(
            ShapeError,
            f"take_along_axis along axis {axis}: shapes differ elsewhere",
            expected=str(x.type),
            got=str(i.type),
        )
    order = [*(n for n in range(x.ndim) if n != a), a]
    front, at = transpose(x, order), transpose(wrapped(i, x.shape[a]), order)
    y = emit("gather", front.value, expand_dims(at, -1).value, batch=x.ndim - 1)
    back = [*range(a), x.ndim - 1, *range(a, x.ndim - 1)]
    return transpose(Tensor(y), back)


def _zip(x: Tensor, y: Tensor) -> list[tuple[Size, Size]]:
    return list(zip(x.shape, y.shape, strict=True))


def pick(x: TensorLike, labels: TensorLike) -> Tensor:
    """x[..., labels[...]]: one element of the last axis for each label in 0 .. size - 1.

    Shapes  [..., n], [...] -> [...].
    """
    x, i = as_tensor(x), _integers(labels)
    value = emit("gather", x.value, expand_dims(i, -1).value, batch=x.ndim - 1)
    return Tensor(value)


def one_hot(x: TensorLike, num_classes: Size, axis: int = -1, dtype: DTypeLike = "f32") -> Tensor:
    """1 where a new axis of `num_classes` equals the label, 0 elsewhere; other labels give zeros.

    Shapes  [...] -> [..., num_classes] for axis = -1.
    """
    labels = _integers(x)
    place = normal_axis(axis, labels.ndim + 1)
    shape = (*labels.shape[:place], num_classes, *labels.shape[place:])
    classes = iota(shape, place, labels.dtype)
    return (classes == expand_dims(labels, place)).astype(as_dtype(dtype))


def unstack(x: TensorLike, axis: int = 0) -> Sequence[Tensor]:
    """The parts of a tensor along an axis of fixed size, without that axis."""
    x = as_tensor(x)
    a = normal_axis(axis, x.ndim)
    count, whole = x.shape[a], (slice(None),) * a
    if not isinstance(count, int):
        fail(ShapeError, f"unstack of axis {axis}, whose size {count} is not fixed")
    return [x[(*whole, i)] for i in range(count)]
