"""What functions of images [batch, channels, spatial...] take, for any number of spatial axes.

`stride`, `dilation` and window sizes are one number for all spatial axes, or one for each.
`pad` is a number, one for each spatial axis, or (low, high, low, high, ...); or `SamePad()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.dims import Dim, Size, floordiv, is_at_least, product
from fluxc.ops.layout import as_shape, reshape, show
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import NeedsSize, fail, user_loc

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SamePad", "flatten"]

Pads = tuple[tuple[Size, Size], ...]


class SamePad:
    """Padding of k_eff - 1 in all, k_eff what a dilated window spans; an odd rest goes first.

    A convolution then gives ceil(size / stride), a transposed one size * stride.
    """

    def __repr__(self) -> str:
        return "SamePad()"


def numbers(what: str, value: Any, count: int, least: int = 1) -> tuple[int, ...]:
    """One integer for each spatial axis, from one for all or one for each."""
    each = tuple(value) if isinstance(value, tuple | list) else (value,) * count
    if len(each) != count or not all(is_integer(v) and v >= least for v in each):
        fail(
            ShapeError,
            f"{what} of {count} spatial ax{'i' if count == 1 else 'e'}s",
            expected=f"an integer >= {least}, or {count} of them",
            got=repr(value),
        )
    return tuple(int(v) for v in each)


def is_integer(v: Any) -> bool:
    return not isinstance(v, bool) and hasattr(v, "__index__")


def pads(what: str, value: Any, reaches: Sequence[Size]) -> Pads:
    """(low, high) of each spatial axis; `reaches` are the places that the windows span."""
    count = len(reaches)
    if isinstance(value, SamePad):
        return tuple((floordiv(r, 2), r - 1 - floordiv(r, 2)) for r in reaches)
    each = list(value) if isinstance(value, tuple | list) else [value] * count
    if not all(is_integer(v) and v >= 0 for v in each) or len(each) not in {count, 2 * count}:
        fail(
            ShapeError,
            f"{what} of {count} spatial ax{'i' if count == 1 else 'e'}s",
            expected=f"an integer >= 0, {count} of them, {2 * count} as low, high, or SamePad()",
            got=repr(value),
        )
    if len(each) == count:
        return tuple((int(v), int(v)) for v in each)
    return tuple((int(low), int(high)) for low, high in zip(each[::2], each[1::2], strict=True))


def sizes_of(what: str, value: Any, count: int) -> tuple[Size, ...]:
    """One size, which may be symbolic, for each spatial axis: one for all or one for each."""
    each = as_shape(value)
    each = each * count if len(each) == 1 else each
    if len(each) != count or not all(isinstance(s, Dim) or s >= 0 for s in each):
        fail(
            ShapeError,
            f"{what} of {count} spatial axes",
            expected=f"{count} sizes",
            got=repr(value),
        )
    return each


def image_rank(name: str, x: Tensor) -> int:
    """The number of spatial axes."""
    if x.ndim < 3:
        fail(ShapeError, f"{name} takes [batch, channels, spatial...]", got=str(x.type))
    return x.ndim - 2


def fits(name: str, shape: Sequence[Size], axis: int, room: Size, reach: Size) -> None:
    """A window must fit, and an axis have an element, for every value of the symbols."""
    for most, least in ((shape[axis], 1), (room, reach)):
        if is_at_least(most, least):
            continue
        error = ShapeError(
            f"{name}: a window that spans {reach} does not fit along axis {axis}",
            loc=user_loc(),
            expected=f"{most} >= {least}",
            got=show(shape),
            hint="declare the least size, such as fx.dim('n', min=...)"
            if isinstance(most, Dim)
            else "",
        )
        if isinstance(most, Dim):
            raise NeedsSize(most - least, 0, error)
        raise error


def reaches_of(kernel: Sequence[Size], dilation: Sequence[int]) -> list[Size]:
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]


def flatten(x: TensorLike) -> Tensor:
    """All axes but the first as one: [N, ...] -> [N, product of the others]."""
    t = as_tensor(x)
    if t.ndim == 0:
        fail(ShapeError, "flatten of a scalar", got=str(t.type))
    return reshape(t, (t.shape[0], product(t.shape[1:])))
