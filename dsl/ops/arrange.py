"""Elements at other places: rolling, turning, padding by what is there, grids, and joining."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.ops import layout
from fluxc.ops.create import arange
from fluxc.ops.index import take
from fluxc.ops.layout import (
    atleast_1d,
    concatenate,
    expand_dims,
    flip,
    normal_axis,
    pad_pairs,
    swapaxes,
    transpose,
)
from fluxc.tensor import (
    Operators,
    Tensor,
    TensorLike,
    as_tensor,
    broadcast,
    broadcast_shapes,
    scalar,
)
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "atleast_2d", "atleast_3d", "broadcast_arrays", "column_stack", "concat", "diag", "diff",
    "dstack", "fliplr", "flipud", "matrix_transpose", "meshgrid", "pad", "permute_dims", "roll",
    "rot90", "tri",
]  # fmt: skip

concat = concatenate
permute_dims = transpose
_MODES = {
    "edge": "edge", "replicate": "edge", "reflect": "reflect", "symmetric": "symmetric",
    "wrap": "wrap", "circular": "wrap",
}  # fmt: skip


def pad(
    x: TensorLike, pad_width: Any, mode: str = "constant", constant_values: TensorLike = 0
) -> Tensor:
    """x with elements around it.

    pad_width  n: on every side; (low, high): of every axis; ((low, high), ...): axis by axis.
    mode       constant: `constant_values`; edge or replicate: the outermost element;
               reflect: mirrored at the outermost element; symmetric: mirrored at the edge;
               wrap or circular: from the other side.
    Errors     ShapeError for another mode or width, or a mirror of more elements than a symbolic
               size is sure to have.
    """
    x = as_tensor(x)
    if mode == "constant":
        return layout.pad(x, pad_width, constant_values)
    if mode not in _MODES:
        fail(ShapeError, f"pad mode {mode!r}", expected=", ".join(["constant", *_MODES]))
    for axis, (low, high) in enumerate(pad_pairs(pad_width, x.ndim)):
        if low or high:
            x = _padded(x, axis, low, high, _MODES[mode])
    return x


def _padded(x: Tensor, axis: int, low: int, high: int, mode: str) -> Tensor:
    size = x.shape[axis]
    reach = max(low, high) + (mode == "reflect")
    if isinstance(size, int) and (size == 0 or (mode != "edge" and reach > size)):
        if size == 0:
            fail(ShapeError, f"pad by {mode} of an axis without elements", got=str(x.type))
        places = np.pad(np.arange(size), (low, high), mode)  # type: ignore[call-overload]
        return take(x, as_tensor(places), axis)
    first = int(mode == "reflect")
    if mode == "edge":
        before, after = _part(x, axis, 0, 1), _part(x, axis, -1, None)
        parts = [_stretched(before, axis, low), x, _stretched(after, axis, high)]
    elif mode == "wrap":
        parts = [_part(x, axis, -low, None), x, _part(x, axis, 0, high)]
    else:
        before = _part(x, axis, first, first + low)
        after = _part(x, axis, -high - first, -first if first else None)
        parts = [flip(before, axis), x, flip(after, axis)]
    kept = [p for p, count in zip(parts, (low, 1, high), strict=True) if count]
    return concatenate(kept, axis)


def _part(x: Tensor, axis: int, start: int, stop: int | None) -> Tensor:
    return x[(*(slice(None),) * axis, slice(start, stop))]


def _stretched(x: Tensor, axis: int, count: int) -> Tensor:
    return broadcast(x, tuple(count if a == axis else s for a, s in enumerate(x.shape)))


def roll(x: TensorLike, shift: Any, axis: Any = None) -> Tensor:
    """Elements move by `shift` places along an axis, and come in again at its other end.

    shift  an integer or a tensor, or one for each axis; without axes the flat tensor is rolled.
    """
    x = as_tensor(x)
    if axis is None:
        return roll(x.ravel(), shift, 0).reshape(x.shape)
    axes = [normal_axis(a, x.ndim) for a in (axis if isinstance(axis, tuple | list) else (axis,))]
    shifts = list(shift) if isinstance(shift, tuple | list) else [shift] * len(axes)
    if len(axes) == 1:
        axes = axes * len(shifts)
    if len(shifts) != len(axes):
        fail(ShapeError, f"roll by {shift!r} along {axis!r}: one shift for each axis")
    for by, a in zip(shifts, axes, strict=True):
        x = _rolled(x, by, a)
    return x


def _rolled(x: Tensor, by: Any, axis: int) -> Tensor:
    size = x.shape[axis]
    if isinstance(size, int) and not isinstance(by, Operators):
        cut = -operator.index(by) % size if size else 0
        if cut == 0:
            return x
        return concatenate([_part(x, axis, cut, None), _part(x, axis, 0, cut)], axis)
    places = (arange(size, dtype=ir.i64) - by) % as_tensor(size, ir.i64)
    return take(x, places, axis)


def flipud(x: TensorLike) -> Tensor:
    """The first axis in reverse order."""
    return flip(x, 0)


def fliplr(x: TensorLike) -> Tensor:
    """The second axis in reverse order."""
    return flip(x, 1)


def rot90(x: TensorLike, k: int = 1, axes: Sequence[int] = (0, 1)) -> Tensor:
    """k quarter turns from the first of two axes towards the second."""
    x = as_tensor(x)
    a, b = (normal_axis(i, x.ndim) for i in axes)
    if a == b:
        fail(ShapeError, f"rot90 in the plane of axes {axes!r}", got=str(x.type))
    turns = k % 4
    if turns == 0:
        return x
    if turns == 2:
        return flip(x, (a, b))
    return swapaxes(flip(x, b), a, b) if turns == 1 else flip(swapaxes(x, a, b), b)


def matrix_transpose(x: TensorLike) -> Tensor:
    """The last two axes change places."""
    return swapaxes(x, -1, -2)


def broadcast_arrays(*xs: TensorLike) -> list[Tensor]:
    """All in the shape in which they meet."""
    tensors = [as_tensor(x) for x in xs]
    shape = broadcast_shapes(*(x.shape for x in tensors))
    return [broadcast(x, shape) for x in tensors]


def meshgrid(*xs: TensorLike, indexing: str = "xy") -> list[Tensor]:
    """Grids of coordinates of vectors: element i of the result holds xs[i] along its own axis.

    indexing  "ij": axis i belongs to xs[i]; "xy": the first two axes are exchanged.
    """
    if indexing not in ("xy", "ij"):
        fail(ShapeError, f"meshgrid: indexing={indexing!r}", expected="'xy' or 'ij'")
    vectors = [as_tensor(x).ravel() for x in xs]
    order = list(range(len(vectors)))
    if indexing == "xy" and len(order) > 1:
        order[0], order[1] = 1, 0
    shape = tuple(vectors[i].size for i in order)
    grids = []
    for i, x in enumerate(vectors):
        aligned = tuple(x.size if k == order.index(i) else 1 for k in range(len(order)))
        grids.append(broadcast(x.reshape(aligned), shape))
    return grids


def diff(
    x: TensorLike,
    n: int = 1,
    axis: int = -1,
    prepend: TensorLike | None = None,
    append: TensorLike | None = None,
) -> Tensor:
    """Differences of neighbours along an axis, n times; what stands before and after may be given.

    Of bools whether neighbours differ.
    """
    x = as_tensor(x)
    a = normal_axis(axis, x.ndim)
    if n < 0:
        fail(ShapeError, f"diff: n={n}", expected="n >= 0")
    if n == 0:
        return x
    ends = [e if e is None else _as_slice(e, x, a) for e in (prepend, append)]
    x = concatenate([e for e in (ends[0], x, ends[1]) if e is not None], a)
    for _ in range(n):
        if x.shape[a] == 0:
            return x
        later, earlier = _part(x, a, 1, None), _part(x, a, 0, -1)
        x = later != earlier if x.type.dtype.kind == "b" else later - earlier
    return x


def _as_slice(value: TensorLike, x: Tensor, axis: int) -> Tensor:
    t = as_tensor(value, x.dtype)
    return (
        t if t.ndim else broadcast(t, tuple(1 if i == axis else s for i, s in enumerate(x.shape)))
    )


def atleast_2d(x: TensorLike) -> Tensor:
    """A number as a 1 by 1 matrix, a vector as a row."""
    x = as_tensor(x)
    return x if x.ndim >= 2 else x.reshape((1, x.size))


def atleast_3d(x: TensorLike) -> Tensor:
    """As NumPy: a vector [n] as [1, n, 1], a matrix [m, n] as [m, n, 1]."""
    x = as_tensor(x)
    return x if x.ndim >= 3 else expand_dims(atleast_2d(x), 2)


def column_stack(xs: Sequence[TensorLike]) -> Tensor:
    """Vectors, and the columns of matrices, as the columns of one matrix."""
    tensors = [atleast_1d(x) for x in xs]
    return concatenate([expand_dims(x, 1) if x.ndim == 1 else x for x in tensors], 1)


def dstack(xs: Sequence[TensorLike]) -> Tensor:
    """Tensors one behind another along the third axis."""
    return concatenate([atleast_3d(x) for x in xs], 2)


def tri(n: Any, m: Any = None, k: int = 0, dtype: Any = "f32") -> Tensor:
    """1 at and below diagonal k of an n by m matrix, 0 above."""
    columns = n if m is None else m
    rows = expand_dims(arange(n), 1)
    return (arange(columns) <= rows + k).astype(dtype)


def diag(x: TensorLike, k: int = 0) -> Tensor:
    """A vector as diagonal k of a square of zeros, or diagonal k of a matrix."""
    from fluxc.ops.einsum import diagonal
    from fluxc.ops.elementwise import where

    x = as_tensor(x)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        fail(ShapeError, "diag takes a vector or a matrix", got=str(x.type))
    low, high = max(-k, 0), max(k, 0)
    size = x.size + low + high
    on = arange(size) == expand_dims(arange(size), 1) + k
    rows = layout.pad(x, ((low, high),))
    return where(on, expand_dims(rows, 1), scalar(0, x.type.dtype))
