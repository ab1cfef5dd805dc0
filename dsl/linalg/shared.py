"""What all of linear algebra shares: checked operands, rows, columns, diagonals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.ops.create import eye, iota
from fluxc.ops.elementwise import where
from fluxc.ops.layout import expand_dims, swapaxes
from fluxc.ops.reduce import sum
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size

__all__ = [
    "column_of",
    "diagonal",
    "diagonal_matrix",
    "flip",
    "identity",
    "matrix",
    "positions",
    "row_of",
    "square",
    "times_column",
]


def matrix(a: TensorLike, what: str) -> Tensor:
    x = as_tensor(a)
    if x.ndim < 2:
        fail(ShapeError, f"{what} of a tensor with less than two axes", got=str(x.type))
    if not x.type.dtype.is_float or x.type.dtype.bits == 16:
        fail(
            DTypeError,
            f"{what} takes f32 and f64",
            got=str(x.type),
            hint="a.astype(fx.f32)",
        )
    return x


def square(a: TensorLike, what: str) -> Tensor:
    x = matrix(a, what)
    if x.shape[-1] != x.shape[-2]:
        fail(ShapeError, f"{what} takes square matrices", expected="[..., n, n]", got=str(x.type))
    return x


def flip(x: Tensor) -> Tensor:
    return swapaxes(x, -1, -2)


def positions(size: Size) -> Tensor:
    """0, 1, 2, ..."""
    return iota((size,), 0, "i32")


def column_of(x: Tensor, j: Tensor) -> Tensor:
    """x[..., :, j]"""
    return x[(..., j)]


def row_of(x: Tensor, i: Tensor) -> Tensor:
    """x[..., i, :]"""
    return x[(..., i, slice(None))]


def diagonal(x: Tensor) -> Tensor:
    return sum(where(eye(x.shape[-2], x.shape[-1], "bool"), x, 0.0), -1)


def identity(x: Tensor) -> Tensor:
    """The identity for each of some square matrices."""
    return broadcast(eye(x.shape[-1], dtype=x.type.dtype), x.shape)


def diagonal_matrix(d: Tensor) -> Tensor:
    return expand_dims(d, -1) * eye(d.shape[-1], dtype=d.type.dtype)


def times_column(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix @ x for a vector, batched."""
    return sum(matrix * expand_dims(x, -2), -1)
