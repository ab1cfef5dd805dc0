"""Padding under NNlib's names; `fx.pad` has NumPy's.

`pad` is one number for both sides of every axis in `dims`, or one for each of them, or
(low, high, low, high, ...); the axes in `dims` are meant in their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.ops.arrange import pad as padded
from fluxc.ops.layout import normal_axis
from fluxc.ops.spatial import is_integer
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "pad_circular", "pad_constant", "pad_reflect", "pad_repeat", "pad_symmetric", "pad_zeros",
]  # fmt: skip


def pad_constant(x: TensorLike, pad: Any, val: TensorLike = 0, dims: Any = None) -> Tensor:
    """x with `val` around it.

    dims    one axis or several; all by default.
    Shapes  [..., n, ...] -> [..., low + n + high, ...] along the axes in `dims`.
    Errors  ShapeError if `pad` is neither one number, nor one or two for each axis in `dims`.
    PyTorch's nn.functional.pad, whose tuples begin with the last axis.
    """
    t = as_tensor(x)
    axes = list(range(t.ndim)) if dims is None else _axes(dims, t.ndim)
    return padded(t, _widths("pad_constant", pad, axes, t.ndim), constant_values=val)


def pad_zeros(x: TensorLike, pad: Any, dims: Any = None) -> Tensor:
    """x with zeros around it: `pad_constant` of 0."""
    return pad_constant(x, pad, 0, dims)


def pad_repeat(x: TensorLike, pad: Any, dims: Any = None) -> Tensor:
    """x with its outermost elements repeated around it: 1 2 3 gives 1 1 1 2 3 3 3.

    dims    one axis or several.  By default one number pads all axes but the first two, batch and
            channels; two numbers for each of some axes pad the last ones.
    Shapes  and errors as in `pad_constant`; the size of an axis must be 1 or more.
    PyTorch's padding mode "replicate".
    """
    return _mirrored("pad_repeat", "edge", x, pad, dims)


def pad_reflect(x: TensorLike, pad: Any, dims: Any = None) -> Tensor:
    """x mirrored at its outermost elements: 1 2 3 gives 3 2 1 2 3 2 1.

    dims, shapes and errors as in `pad_repeat`.  More elements than there are mirror again; of a
    symbolic size the axis must be sure to have them.
    PyTorch's padding mode "reflect".
    """
    return _mirrored("pad_reflect", "reflect", x, pad, dims)


def pad_symmetric(x: TensorLike, pad: Any, dims: Any = None) -> Tensor:
    """x mirrored at its edges: 1 2 3 gives 2 1 1 2 3 3 2; all else as in `pad_reflect`."""
    return _mirrored("pad_symmetric", "symmetric", x, pad, dims)


def pad_circular(x: TensorLike, pad: Any, dims: Any = None) -> Tensor:
    """x continued from its other side: 1 2 3 gives 2 3 1 2 3 1 2; all else as in `pad_reflect`.

    PyTorch's padding mode "circular".
    """
    return _mirrored("pad_circular", "wrap", x, pad, dims)


def _mirrored(name: str, mode: str, x: TensorLike, pad: Any, dims: Any) -> Tensor:
    t = as_tensor(x)
    if dims is not None:
        axes = _axes(dims, t.ndim)
    elif isinstance(pad, tuple | list):
        axes = list(range(max(t.ndim - len(pad) // 2, 0), t.ndim))
    elif t.ndim > 2:
        axes = list(range(2, t.ndim))
    else:
        fail(ShapeError, f"{name} of no axis but batch and channels", got=str(t.type), hint="dims=")
    return padded(t, _widths(name, pad, axes, t.ndim), mode)


def _axes(dims: Any, rank: int) -> list[int]:
    many = dims if isinstance(dims, tuple | list) else (dims,)
    axes = [normal_axis(a, rank) for a in many]
    if len(set(axes)) != len(axes):
        fail(ShapeError, f"dims {dims!r} name one axis twice")
    return axes


def _widths(name: str, pad: Any, axes: Sequence[int], rank: int) -> list[tuple[int, int]]:
    """(low, high) of each of `rank` axes."""
    count = len(axes)
    each = list(pad) if isinstance(pad, tuple | list) else [pad] * count
    if len(each) == count:
        each = [p for p in each for _ in range(2)]
    if len(each) != 2 * count or not all(is_integer(p) and p >= 0 for p in each):
        fail(
            ShapeError,
            f"{name}: pad of {count} {'axis' if count == 1 else 'axes'}",
            expected=f"an integer >= 0, {count} of them, or {2 * count} as low, high",
            got=repr(pad),
        )
    widths = [(0, 0)] * rank
    for axis, low, high in zip(axes, each[::2], each[1::2], strict=True):
        widths[axis] = (int(low), int(high))
    return widths
