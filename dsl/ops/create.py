"""Tensors out of nothing."""

from __future__ import annotations

import math
from typing import Any

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Dim
from fluxc.ops.layout import as_shape, normal_axis
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast, scalar
from fluxc.trace import emit, fail
from fluxc.types import DTypeLike, as_dtype

__all__ = [
    "arange", "array", "eye", "full", "full_like", "iota", "linspace", "ones", "ones_like", "tril",
    "triu", "zeros", "zeros_like",
]  # fmt: skip


def array(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """A tensor from a number, nested lists, an array or a tensor; numbers are f32, i32 or bool."""
    return as_tensor(x, dtype)


def full(shape: Any, value: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """`value` everywhere."""
    sizes = as_shape(shape)
    if isinstance(value, bool | int | float):
        return scalar(value, as_dtype(dtype or type(value)), sizes)
    x = as_tensor(value, dtype)
    return broadcast(x, sizes)


def zeros(shape: Any, dtype: DTypeLike = "f32") -> Tensor:
    """0 everywhere."""
    return scalar(0, as_dtype(dtype), as_shape(shape))


def ones(shape: Any, dtype: DTypeLike = "f32") -> Tensor:
    """1 everywhere."""
    return scalar(1, as_dtype(dtype), as_shape(shape))


def full_like(x: TensorLike, value: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """`value` everywhere, in the shape and dtype of x."""
    x = as_tensor(x)
    return full(x.shape, value, dtype or x.dtype)


def zeros_like(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """0 everywhere, in the shape and dtype of x."""
    return full_like(x, 0, dtype)


def ones_like(x: TensorLike, dtype: DTypeLike | None = None) -> Tensor:
    """1 everywhere, in the shape and dtype of x."""
    return full_like(x, 1, dtype)


def iota(shape: Any, axis: int = 0, dtype: DTypeLike = "i32") -> Tensor:
    """Each element's own index along `axis`."""
    sizes = as_shape(shape)
    a = normal_axis(axis, len(sizes))
    return Tensor(emit("iota", dtype=as_dtype(dtype), shape=sizes, axis=a))


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: DTypeLike | None = None) -> Tensor:
    """start, start + step, ... below stop.  Integers give i32, floats f32.

    Sizes may be symbolic where step is 1: `fx.arange(x.shape[0])`.
    """
    if stop is None:
        start, stop = 0, start
    floats = any(isinstance(v, float) for v in (start, stop, step))
    chosen = as_dtype(dtype or ("f32" if floats else "i32"))
    if step == 0:
        fail(ShapeError, "arange with step 0")
    if isinstance(start, Dim) or isinstance(stop, Dim):
        if step != 1:
            fail(ShapeError, "arange over a symbolic size takes step 1", got=f"step {step}")
        count = stop - start
    else:
        count = max(0, math.ceil((stop - start) / step))
    place = ir.f32 if chosen.bits == 16 and chosen.is_float else chosen
    index = Tensor(emit("iota", dtype=place, shape=(count,), axis=0))
    return as_tensor(start + index * step if (start, step) != (0, 1) else index, chosen)


def linspace(start: float, stop: float, num: int, dtype: DTypeLike = "f32") -> Tensor:
    """`num` numbers at equal distances from start to stop, both included."""
    step = (stop - start) / max(num - 1, 1)
    return arange(0, num, 1, dtype) * step + start


def eye(n: Any, m: Any = None, dtype: DTypeLike = "f32") -> Tensor:
    """1 on the diagonal of an n by m matrix, 0 elsewhere."""
    shape = (n, n if m is None else m)
    return (iota(shape, 0) == iota(shape, 1)).astype(dtype)


def tril(x: TensorLike, k: int = 0) -> Tensor:
    """x with 0 above diagonal k of its last two axes."""
    return _triangle(x, lambda row, column: column <= row + k)


def triu(x: TensorLike, k: int = 0) -> Tensor:
    """x with 0 below diagonal k of its last two axes."""
    return _triangle(x, lambda row, column: column >= row + k)


def _triangle(x: TensorLike, keep: Any) -> Tensor:
    from fluxc.ops.elementwise import where

    x = as_tensor(x)
    if x.ndim < 2:
        fail(ShapeError, "a triangle of a tensor with less than two axes", got=str(x.type))
    shape = x.shape[-2:]
    return where(keep(iota(shape, 0), iota(shape, 1)), x, scalar(0, x.type.dtype))
