"""Linear systems: triangular ones, Cholesky's factorisation, elimination with pivots."""

from __future__ import annotations

from typing import Any, NamedTuple

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.control import fori_loop
from fluxc.linalg.shared import (
    column_of,
    diagonal,
    diagonal_matrix,
    flip,
    identity,
    positions,
    row_of,
    square,
    times_column,
)
from fluxc.ops.create import eye, full, iota, tril, triu, zeros
from fluxc.ops.elementwise import abs, log, sign, sqrt, where
from fluxc.ops.index import take_along_axis
from fluxc.ops.layout import expand_dims
from fluxc.ops.order import argmax
from fluxc.ops.reduce import prod, sum
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast, broadcast_shapes, cast
from fluxc.trace import fail
from fluxc.transforms import custom_vjp

__all__ = [
    "SlogdetResult",
    "cholesky",
    "det",
    "inv",
    "matrix_power",
    "slogdet",
    "solve",
    "substitute",
    "triangular_solve",
]


class SlogdetResult(NamedTuple):
    sign: Tensor
    logabsdet: Tensor


# Triangular systems.


def triangular_solve(
    a: TensorLike,
    b: TensorLike,
    *,
    lower: bool = True,
    unit_diagonal: bool = False,
) -> Tensor:
    """x with a @ x = b for triangular a; the other triangle of a is not read.

    Shapes  a [..., n, n], b [..., n, k] or, a vector, [n]; leading axes broadcast.
    """
    matrix = square(a, "triangular_solve")
    right, vector = _right_side(matrix, b, "triangular_solve")
    matrix = broadcast(matrix, (*right.shape[:-2], *matrix.shape[-2:]))

    def run(a: Tensor, b: Tensor) -> Tensor:
        return substitute(a, b, lower=lower, unit=unit_diagonal)

    def backward(args: Any, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
        inverse = substitute(args[0], identity(args[0]), lower=lower, unit=unit_diagonal)
        db = flip(inverse) @ dx
        da = -(db @ flip(x))
        offset = 1 if unit_diagonal else 0
        return tril(da, -offset) if lower else triu(da, offset), db

    x: Tensor = custom_vjp(run, backward)(matrix, right)
    return x[..., 0] if vector else x


def _right_side(a: Tensor, b: TensorLike, what: str) -> tuple[Tensor, bool]:
    """b as matrices of the batch's shape, and whether it was one vector."""
    x = as_tensor(b, a.type.dtype)
    vector = x.ndim == 1
    columns = expand_dims(x, -1) if vector else x
    if columns.ndim < 2 or columns.shape[-2] != a.shape[-1]:
        fail(
            ShapeError,
            f"{what}: the right side does not fit the matrix",
            expected=f"[..., {a.shape[-1]}, k]",
            got=str(x.type),
        )
    batch = broadcast_shapes(a.shape[:-2], columns.shape[:-2])
    return broadcast(columns, (*batch, *columns.shape[-2:])), vector


def substitute(a: Tensor, b: Tensor, *, lower: bool, unit: bool = False) -> Tensor:
    """One row of x after another; rows that are not known yet are 0."""
    n = a.shape[-1]
    at = positions(n)

    def step(i: Tensor, x: Tensor) -> Tensor:
        row = i if lower else (n - 1) - i
        coefficients = row_of(a, row)
        known = where(at == row, 0.0, coefficients)
        rest = row_of(b, row) - sum(expand_dims(known, -1) * x, -2)
        if not unit:
            rest = rest / expand_dims(column_of(coefficients, row), -1)
        here = expand_dims(at == row, -1)
        return where(here, expand_dims(rest, -2), x)

    x: Tensor = fori_loop(0, n, step, zeros(b.shape, b.type.dtype))
    return x


# Cholesky's factorisation.


def cholesky(a: TensorLike, *, upper: bool = False) -> Tensor:
    """The lower triangular L with L @ L.T = a (upper: its transpose), for positive definite a.

    Only the lower triangle of a is read; its gradient is symmetric.  NaN where a is not positive
    definite.
    """
    factor: Tensor = custom_vjp(_cholesky, _cholesky_backward)(square(a, "cholesky"))
    return flip(factor) if upper else factor


def _cholesky(a: Tensor) -> Tensor:
    n = a.shape[-1]
    at = positions(n)

    def step(j: Tensor, factor: Tensor) -> Tensor:
        column = column_of(a, j) - times_column(factor, row_of(factor, j))
        pivot = sqrt(column_of(column, j))
        new = where(at >= j, column / expand_dims(pivot, -1), 0.0)
        return where(at == j, expand_dims(new, -1), factor)

    found: Tensor = fori_loop(0, n, step, zeros(a.shape, a.type.dtype))
    return found


def _cholesky_backward(_args: Any, factor: Tensor, dfactor: Tensor) -> tuple[Tensor]:
    """Murray, Differentiation of the Cholesky decomposition (2016), equation 10."""
    inner = tril(flip(factor) @ tril(dfactor))
    halved = inner - 0.5 * diagonal_matrix(diagonal(inner))
    inverse = substitute(factor, identity(factor), lower=True)
    both = flip(inverse) @ halved @ inverse
    return (0.5 * (both + flip(both)),)


# Elimination with partial pivoting.


def _lu(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both factors in one matrix, the rows' order, and its sign."""
    n = a.shape[-1]
    at = positions(n)
    batch = a.shape[:-2]
    rows = broadcast(at, (*batch, n))

    def step(k: Tensor, state: Any) -> Any:
        lu, order, parity = state
        column = column_of(lu, k)
        chosen = cast(argmax(where(at >= k, abs(column), -1.0), -1), ir.i32)
        pivot = expand_dims(chosen, -1)
        swapped = where(rows == k, pivot, where(rows == pivot, k, rows))
        lu = take_along_axis(lu, expand_dims(swapped, -1) + broadcast(at * 0, (*batch, n, n)), -2)
        order = take_along_axis(order, swapped, -1)
        parity = where(chosen == k, parity, -parity)
        top = row_of(lu, k)
        factor = where(at > k, column_of(lu, k) / expand_dims(column_of(top, k), -1), 0.0)
        # Where the pivot is 0 so is all below it: nothing is left to eliminate.
        factor = where(expand_dims(column_of(top, k) == 0.0, -1), 0.0, factor)
        rest = lu - expand_dims(factor, -1) * expand_dims(where(at > k, top, 0.0), -2)
        below = expand_dims(at > k, -1) & (at == k)
        return where(below, expand_dims(factor, -1), rest), order, parity

    start = (a, rows, full(batch, 1.0, a.type.dtype))
    found: tuple[Tensor, Tensor, Tensor] = fori_loop(0, n, step, start)
    return found


def solve(a: TensorLike, b: TensorLike) -> Tensor:
    """x with a @ x = b.

    Shapes  a [..., n, n], b [..., n, k] or, a vector, [n]; leading axes broadcast.
    Infinite or NaN where a is singular.
    """
    matrix = square(a, "solve")
    right, vector = _right_side(matrix, b, "solve")
    matrix = broadcast(matrix, (*right.shape[:-2], *matrix.shape[-2:]))
    x: Tensor = custom_vjp(_solve, _solve_backward)(matrix, right)
    return x[..., 0] if vector else x


def _solve(a: Tensor, b: Tensor) -> Tensor:
    lu, order, _ = _lu(a)
    index = expand_dims(order, -1) + broadcast(iota((b.shape[-1],)) * 0, b.shape)
    permuted = take_along_axis(b, index, -2)
    y = substitute(tril(lu), permuted, lower=True, unit=True)
    return substitute(triu(lu), y, lower=False)


def _solve_backward(args: Any, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    db = flip(_inverse(args[0])) @ dx
    return -(db @ flip(x)), db


def _inverse(a: Tensor) -> Tensor:
    return _solve(a, identity(a))


def inv(a: TensorLike) -> Tensor:
    """The inverse; infinite or NaN where a is singular."""
    x = square(a, "inv")
    return solve(x, eye(x.shape[-1], dtype=x.type.dtype))


def slogdet(a: TensorLike) -> SlogdetResult:
    """The determinant's sign (-1, 0 or 1) and the logarithm of its size."""
    found = custom_vjp(_slogdet, _slogdet_backward)(square(a, "slogdet"))
    return SlogdetResult(*found)


def _slogdet(a: Tensor) -> tuple[Tensor, Tensor]:
    lu, _, parity = _lu(a)
    pivots = diagonal(lu)
    return parity * prod(sign(pivots), -1), sum(log(abs(pivots)), -1)


def _slogdet_backward(args: Any, _result: Any, cotangent: Any) -> tuple[Tensor]:
    return (expand_dims(expand_dims(cotangent[1], -1), -1) * flip(_inverse(args[0])),)


def det(a: TensorLike) -> Tensor:
    """The determinant.  Its gradient, det(a) * inv(a).T, is not finite where a is singular."""
    found: Tensor = custom_vjp(_det, _det_backward)(square(a, "det"))
    return found


def _det(a: Tensor) -> Tensor:
    lu, _, parity = _lu(a)
    return parity * prod(diagonal(lu), -1)


def _det_backward(args: Any, result: Tensor, cotangent: Tensor) -> tuple[Tensor]:
    return (expand_dims(expand_dims(cotangent * result, -1), -1) * flip(_inverse(args[0])),)


def matrix_power(a: TensorLike, n: int) -> Tensor:
    """a @ a @ ... @ a, n times; of inv(a) for negative n; the identity for 0."""
    x = square(a, "matrix_power")
    if n < 0:
        return matrix_power(inv(x), -n)
    if n == 0:
        return broadcast(eye(x.shape[-1], dtype=x.type.dtype), x.shape)
    result: Tensor | None = None
    while n:
        if n % 2:
            result = x if result is None else result @ x
        n //= 2
        x = x @ x if n else x
    assert result is not None
    return result
