"""Functions that move elements without computing: shapes, axes, joining, splitting, padding."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.dims import Dim, Size, exact_quotient, floordiv, is_multiple_of, product
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast, cast, common_dtype, scalar
from fluxc.trace import emit, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "atleast_1d", "broadcast_to", "concatenate", "expand_dims", "flip", "hstack", "moveaxis",
    "ravel", "reshape", "split", "squeeze", "stack", "swapaxes", "tile", "transpose",
    "unsqueeze", "vstack",
]  # fmt: skip


def normal_axis(axis: int, rank: int, what: str = "axis") -> int:
    """An axis counted from the left.  Errors  ShapeError if there is no such axis."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__") or not -rank <= axis < rank:
        fail(
            ShapeError,
            f"{what} {axis!r} of a tensor with {rank} axes",
            expected=f"an integer in {-rank} .. {rank - 1}" if rank else "no axis",
        )
    return int(axis) % rank


def normal_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """One axis, several, or None for all: counted from the left, without repeats, sorted."""
    if axis is None:
        return tuple(range(rank))
    many = axis if isinstance(axis, tuple | list) else (axis,)
    axes = tuple(sorted(normal_axis(a, rank) for a in many))
    if len(set(axes)) != len(axes):
        fail(ShapeError, f"axis {axis!r} names one axis twice")
    return axes


def as_shape(shape: Any) -> tuple[Any, ...]:
    """A shape from one size or a sequence of sizes."""
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    checked = []
    for s in sizes:
        if isinstance(s, bool) or not (isinstance(s, Dim) or hasattr(s, "__index__")):
            fail(ShapeError, f"{s!r} is not a size", expected="an integer or a tensor's size")
        checked.append(s if isinstance(s, Dim) else int(s))
    return tuple(checked)


def show(shape: Sequence[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def reshape(x: TensorLike, shape: Any) -> Tensor:
    """The same elements, in row-major order, in another shape; one size may be -1.

    Errors  ShapeError if the numbers of elements differ, or -1 is not a whole size.
    """
    x = as_tensor(x)
    sizes = as_shape(shape)
    if sizes.count(-1) > 1:
        fail(ShapeError, "reshape infers one size at most", got=show(sizes))
    if -1 in sizes:
        rest = product(s for s in sizes if s != -1)
        whole = exact_quotient(x.size, rest) if rest != 0 else None
        if whole is None and isinstance(rest, int) and rest and is_multiple_of(x.size, rest):
            whole = floordiv(x.size, rest)
        if whole is None:
            fail(
                ShapeError,
                f"reshape of {x.type} to {show(sizes)}: the size for -1 is not whole",
                got=f"{x.size} elements, {rest} per row",
            )
        sizes = tuple(whole if s == -1 else s for s in sizes)
    if product(sizes) != x.size:
        fail(
            ShapeError,
            f"reshape of {x.type} to {show(sizes)} changes the number of elements",
            expected=str(x.size),
            got=str(product(sizes)),
        )
    return _reshape(x, sizes)


def _reshape(x: Tensor, shape: tuple[Size, ...]) -> Tensor:
    return x if x.shape == shape else Tensor(emit("reshape", x.value, shape=shape))


def ravel(x: TensorLike) -> Tensor:
    """All elements in one axis."""
    return reshape(x, -1)


def transpose(x: TensorLike, axes: Sequence[int] | None = None) -> Tensor:
    """Axes in another order: axis i of the result is axis axes[i] of x; all reversed by default."""
    x = as_tensor(x)
    order = (
        tuple(range(x.ndim))[::-1] if axes is None else tuple(normal_axis(a, x.ndim) for a in axes)
    )
    if sorted(order) != list(range(x.ndim)):
        fail(ShapeError, f"axes {axes!r} are not an order of {x.ndim} axes", got=str(x.type))
    if order == tuple(range(x.ndim)):
        return x
    return Tensor(emit("transpose", x.value, axes=order))


def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """Two axes change places."""
    x = as_tensor(x)
    order = list(range(x.ndim))
    a, b = normal_axis(axis1, x.ndim), normal_axis(axis2, x.ndim)
    order[a], order[b] = order[b], order[a]
    return transpose(x, order)


def moveaxis(x: TensorLike, source: Any, destination: Any) -> Tensor:
    """Axes move to new places, the others keep their order."""
    x = as_tensor(x)
    sources = source if isinstance(source, tuple | list) else (source,)
    destinations = destination if isinstance(destination, tuple | list) else (destination,)
    s = [normal_axis(a, x.ndim) for a in sources]
    d = [normal_axis(a, x.ndim) for a in destinations]
    if len(s) != len(d) or len(set(s)) != len(s) or len(set(d)) != len(d):
        fail(ShapeError, f"moveaxis from {source!r} to {destination!r}: axes do not pair up")
    order = [a for a in range(x.ndim) if a not in s]
    for place, axis in sorted(zip(d, s, strict=True)):
        order.insert(place, axis)
    return transpose(x, order)


def squeeze(x: TensorLike, axis: Any = None) -> Tensor:
    """Without axes of size 1: those in `axis`, or all of them.

    Errors  ShapeError if an axis named has another size.
    """
    x = as_tensor(x)
    axes = (
        tuple(i for i, s in enumerate(x.shape) if s == 1)
        if axis is None
        else normal_axes(axis, x.ndim)
    )
    for a in axes:
        if x.shape[a] != 1:
            fail(ShapeError, f"squeeze of axis {a}, whose size is {x.shape[a]}", got=str(x.type))
    return _reshape(x, tuple(s for i, s in enumerate(x.shape) if i not in axes))


def expand_dims(x: TensorLike, axis: int | Sequence[int]) -> Tensor:
    """New axes of size 1 at the places `axis` of the result."""
    x = as_tensor(x)
    places = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    new = normal_axes(places, x.ndim + len(places))
    sizes = iter(x.shape)
    rank = x.ndim + len(new)
    return _reshape(x, tuple(1 if i in new else next(sizes) for i in range(rank)))


unsqueeze = expand_dims


def atleast_1d(x: TensorLike) -> Tensor:
    """A scalar becomes a vector of one element."""
    x = as_tensor(x)
    return x if x.ndim else _reshape(x, (1,))


def broadcast_to(x: TensorLike, shape: Any) -> Tensor:
    """x stretched to `shape`: axes align at the right, sizes are equal or 1.

    Errors  ShapeError if they are neither.
    """
    x = as_tensor(x)
    target = as_shape(shape)
    aligned = target[len(target) - x.ndim :] if len(target) >= x.ndim else None
    if aligned is None or any(s not in (1, t) for s, t in zip(x.shape, aligned, strict=True)):
        fail(
            ShapeError,
            "broadcast_to",
            expected=f"a shape that fits {show(target)}",
            got=str(x.type),
        )
    return broadcast(x, target)


# Joining and splitting.


def _joined(xs: Sequence[TensorLike]) -> list[Tensor]:
    xs = list(xs)
    if not xs:
        fail(ShapeError, "nothing to join")
    dtype = common_dtype(*xs)
    return [as_tensor(x, dtype) for x in xs]


def concatenate(xs: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors one after another along `axis`.

    Shapes  equal but for `axis`.
    Errors  ShapeError if not.
    """
    tensors = _joined(xs)
    a = normal_axis(axis, tensors[0].ndim)
    first = tensors[0]
    for x in tensors[1:]:
        if x.ndim != first.ndim or any(
            s != t for i, (s, t) in enumerate(zip(x.shape, first.shape, strict=True)) if i != a
        ):
            fail(
                ShapeError,
                f"concatenate along axis {axis}: shapes differ elsewhere",
                expected=str(first.type),
                got=str(x.type),
            )
    if len(tensors) == 1:
        return first
    return Tensor(emit("concatenate", *(x.value for x in tensors), axis=a))


def stack(xs: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors of one shape along a new axis."""
    tensors = _joined(xs)
    for x in tensors:
        if x.shape != tensors[0].shape:
            fail(
                ShapeError,
                "stack of different shapes",
                expected=str(tensors[0].type),
                got=str(x.type),
            )
    place = normal_axis(axis, tensors[0].ndim + 1)
    return concatenate([expand_dims(x, place) for x in tensors], place)


def vstack(xs: Sequence[TensorLike]) -> Tensor:
    """Rows one below another; vectors are rows."""
    tensors = _joined(xs)
    return concatenate([x if x.ndim > 1 else _reshape(x, (1, x.size)) for x in tensors], 0)


def hstack(xs: Sequence[TensorLike]) -> Tensor:
    """Columns one beside another; vectors one after another."""
    tensors = [atleast_1d(x) for x in _joined(xs)]
    return concatenate(tensors, 0 if tensors[0].ndim == 1 else 1)


def split(x: TensorLike, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Equal parts along an axis, or the parts between the given positions.

    Errors  ShapeError if the axis does not divide into equal parts.
    """
    x = as_tensor(x)
    a = normal_axis(axis, x.ndim)
    if isinstance(sections, int):
        part = exact_quotient(x.shape[a], sections) if sections > 0 else None
        if part is None:
            fail(
                ShapeError,
                f"axis {axis} does not split into {sections} equal parts",
                got=str(x.type),
            )
        bounds = [part * i for i in range(sections + 1)]
        return [_span(x, a, lo, hi) for lo, hi in pairwise(bounds)]
    cuts = [None, *sections, None]
    whole = (slice(None),) * a
    return [x[(*whole, slice(lo, hi))] for lo, hi in pairwise(cuts)]


def _span(x: Tensor, axis: int, low: Size, high: Size) -> Tensor:
    starts = tuple(low if i == axis else 0 for i in range(x.ndim))
    limits = tuple(high if i == axis else s for i, s in enumerate(x.shape))
    return Tensor(emit("slice", x.value, starts=starts, limits=limits, steps=(1,) * x.ndim))


# Repeating, reversing, padding.


def flip(x: TensorLike, axis: Any = None) -> Tensor:
    """The elements of the axes (all by default) in reverse order."""
    x = as_tensor(x)
    axes = normal_axes(axis, x.ndim)
    return Tensor(emit("reverse", x.value, axes=axes)) if axes else x


def repeat(x: TensorLike, repeats: int, axis: int | None = None) -> Tensor:
    """Each element `repeats` times in a row along an axis; of the flat tensor by default."""
    x = ravel(x) if axis is None else as_tensor(x)
    a = normal_axis(0 if axis is None else axis, x.ndim)
    wide = (*x.shape[: a + 1], repeats, *x.shape[a + 1 :])
    shape = tuple(s * repeats if i == a else s for i, s in enumerate(x.shape))
    return _reshape(broadcast(expand_dims(x, a + 1), wide), shape)


def tile(x: TensorLike, reps: int | Sequence[int]) -> Tensor:
    """The whole tensor `reps` times along each axis."""
    x = as_tensor(x)
    counts = tuple(reps) if isinstance(reps, tuple | list) else (reps,)
    rank = max(x.ndim, len(counts))
    counts = (1,) * (rank - len(counts)) + counts
    sizes = (1,) * (rank - x.ndim) + x.shape
    paired = _reshape(x, tuple(s for size in sizes for s in (1, size)))
    wide = tuple(s for pair in zip(counts, sizes, strict=True) for s in pair)
    shape = tuple(c * s for c, s in zip(counts, sizes, strict=True))
    return _reshape(broadcast(paired, wide), shape)


def pad(x: TensorLike, pad_width: Any, constant_values: TensorLike = 0) -> Tensor:
    """x with `constant_values` around it; widths as in `arrange.pad`."""
    x = as_tensor(x)
    pairs = pad_pairs(pad_width, x.ndim)
    value = (
        cast(constant_values, x.type.dtype)
        if isinstance(constant_values, Tensor)
        else scalar(constant_values, x.type.dtype)
    )
    low, high = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
    return Tensor(emit("pad", x.value, value.value, low=low, high=high, interior=(0,) * x.ndim))


def pad_pairs(width: Any, rank: int) -> list[tuple[int, int]]:
    """(low, high) of each axis."""
    try:
        pairs = np.broadcast_to(np.asarray(width), (rank, 2))
    except ValueError:
        pairs = np.full((rank, 2), -1)
    if pairs.dtype.kind not in "iu" or (pairs < 0).any():
        fail(
            ShapeError,
            f"pad_width {width!r} for {rank} axes",
            expected="n, (low, high), or one (low, high) per axis, none negative",
        )
    return [(int(low), int(high)) for low, high in pairs]
