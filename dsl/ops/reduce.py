"""Reductions over axes: `axis` is one axis, several, or None for all; `keepdims` leaves size 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Size, product
from fluxc.ops.elementwise import as_float, exp, isfinite, log, sqrt, where
from fluxc.ops.layout import normal_axes
from fluxc.tensor import Tensor, TensorLike, as_tensor, cast, scalar
from fluxc.trace import emit, fail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "all", "any", "count_nonzero", "logsumexp", "max", "mean", "min", "prod", "std",
    "stop_gradient", "sum", "var",
]  # fmt: skip


def _reduce(op: str, x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    axes = normal_axes(axis, x.ndim)
    if not axes:
        return x
    value = emit(op, x.value, axes=axes)
    if keepdims:
        value = emit(
            "reshape", value, shape=tuple(1 if i in axes else s for i, s in enumerate(x.shape))
        )
    return Tensor(value)


def _accumulator(x: Tensor) -> Tensor:
    """Bools and narrow integers are summed in i64, as NumPy does."""
    return x if x.type.dtype.is_float else cast(x, ir.i64)


def sum(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """The sum; integers and bools are summed in i64."""
    return _reduce("reduce_sum", _accumulator(as_tensor(x)), axis, keepdims)


def prod(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """The product; integers and bools are multiplied in i64."""
    return _reduce("reduce_prod", _accumulator(as_tensor(x)), axis, keepdims)


def _extreme(name: str, op: str, bools: str) -> Callable[..., Tensor]:
    def function(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        x = as_tensor(x)
        if product(x.shape[a] for a in normal_axes(axis, x.ndim)) == 0:
            fail(ShapeError, f"{name} over no elements", got=str(x.type))
        return _reduce(op if x.type.dtype.kind != "b" else bools, x, axis, keepdims)

    function.__name__ = function.__qualname__ = name
    return function


max = _extreme("max", "reduce_max", "reduce_or")
max.__doc__ = (
    "The greatest element; NaN if there is one.  Equal greatest elements share the gradient."
)
min = _extreme("min", "reduce_min", "reduce_and")
min.__doc__ = "The least element; NaN if there is one.  Equal least elements share the gradient."


def any(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """Whether any element is not 0."""
    return _reduce("reduce_or", as_tensor(x, ir.bool_), axis, keepdims)


def all(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """Whether every element is not 0."""
    return _reduce("reduce_and", as_tensor(x, ir.bool_), axis, keepdims)


def count_nonzero(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """The number of elements that are not 0, in i64."""
    return sum(as_tensor(x, ir.bool_), axis, keepdims=keepdims)


def reduced_count(x: Tensor, axis: Any) -> Size:
    """The number of elements that a reduction over `axis` takes in."""
    return product(x.shape[a] for a in normal_axes(axis, x.ndim))


def mean(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """The arithmetic mean, a float; NaN of no elements."""
    x = as_float(x)
    count = reduced_count(x, axis)
    total = _reduce("reduce_sum", x, axis, keepdims)
    # 16-bit floats cannot hold a large count.
    if x.type.dtype.bits == 16:
        return cast(cast(total, ir.f32) / count, x.type.dtype)
    return total / count


def var(x: TensorLike, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """The mean of (x - mean(x))**2, with the count less `ddof` below."""
    x = as_float(x)
    centred = x - mean(x, axis, keepdims=True)
    squares = centred * centred
    if ddof == 0:
        return mean(squares, axis, keepdims=keepdims)
    return sum(squares, axis, keepdims=keepdims) / (reduced_count(x, axis) - ddof)


def std(x: TensorLike, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Tensor:
    """The square root of `var`."""
    return sqrt(var(x, axis, ddof=ddof, keepdims=keepdims))


def stop_gradient(x: TensorLike) -> Tensor:
    """x, held constant by every derivative."""
    x = as_tensor(x)
    return Tensor(emit("stop_gradient", x.value)) if x.type.dtype.is_float else x


def shift_of(x: Tensor, axis: Any) -> Tensor:
    """The greatest element along `axis`, kept as size 1: exponentials are taken relative to it."""
    if not x.type.dtype.is_float:
        fail(DTypeError, "exponentials of a tensor that is not float", got=str(x.type))
    return max(stop_gradient(x), axis, keepdims=True)


def logsumexp(x: TensorLike, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) without overflow."""
    x = as_float(x)
    shift = shift_of(x, axis)
    # An infinite greatest element: inf - inf would be NaN, and exp(inf) is right as it is.
    shift = where(isfinite(shift), shift, scalar(0.0, x.type.dtype, shift.shape))
    total = log(sum(exp(x - shift), axis, keepdims=True)) + shift
    if keepdims:
        return total
    axes = normal_axes(axis, x.ndim)
    return total.reshape(tuple(s for i, s in enumerate(x.shape) if i not in axes))
