"""Linear algebra: `fx.linalg.solve`, `cholesky`, `qr`, `eigh`, `svd`, ...

Matrices are the last two axes; axes before them are batches.  Every algorithm is a loop of the
compiled program over whole rows and columns, without a library behind it, in f32 or f64.

Derivatives are formulas over the results, and can be differentiated again.  They are not finite
where a factorisation is not differentiable: eigenvectors of equal eigenvalues, singular vectors of
equal singular values, solutions of singular systems.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import is_at_least
from fluxc.control import fori_loop
from fluxc.ops.arrange import matrix_transpose
from fluxc.ops.contract import matmul, outer, tensordot
from fluxc.ops.create import eye, full, iota, tril, triu, zeros
from fluxc.ops.einsum import diagonal as diagonal_of
from fluxc.ops.einsum import trace as trace_of
from fluxc.ops.elementwise import abs, log, maximum, mod, sign, sqrt, where
from fluxc.ops.index import take_along_axis
from fluxc.ops.layout import concatenate, expand_dims, swapaxes
from fluxc.ops.order import argmax, argsort
from fluxc.ops.reduce import prod, sum
from fluxc.ops.statistics import cross, matrix_norm, norm, vecdot, vector_norm
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast, broadcast_shapes, cast
from fluxc.trace import fail
from fluxc.transforms import custom_vjp

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size

__all__ = [
    "EighResult", "QRResult", "SVDResult", "SlogdetResult", "cholesky", "cross", "det", "diagonal",
    "eigh", "eigvalsh", "inv", "matmul", "matrix_norm", "matrix_power", "matrix_rank",
    "matrix_transpose", "norm", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals",
    "tensordot", "trace", "triangular_solve", "vecdot", "vector_norm",
]  # fmt: skip


class EighResult(NamedTuple):
    eigenvalues: Tensor
    eigenvectors: Tensor


class QRResult(NamedTuple):
    Q: Tensor
    R: Tensor


class SVDResult(NamedTuple):
    U: Tensor
    S: Tensor
    Vh: Tensor


class SlogdetResult(NamedTuple):
    sign: Tensor
    logabsdet: Tensor


# What all of them share.


def _matrix(a: TensorLike, what: str) -> Tensor:
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


def _square(a: TensorLike, what: str) -> Tensor:
    x = _matrix(a, what)
    if x.shape[-1] != x.shape[-2]:
        fail(ShapeError, f"{what} takes square matrices", expected="[..., n, n]", got=str(x.type))
    return x


def _t(x: Tensor) -> Tensor:
    return swapaxes(x, -1, -2)


def _at(size: Size) -> Tensor:
    """0, 1, 2, ..."""
    return iota((size,), 0, "i32")


def _column(x: Tensor, j: Tensor) -> Tensor:
    """x[..., :, j]"""
    return x[(..., j)]


def _row(x: Tensor, i: Tensor) -> Tensor:
    """x[..., i, :]"""
    return x[(..., i, slice(None))]


def _diagonal(x: Tensor) -> Tensor:
    return sum(where(eye(x.shape[-2], x.shape[-1], "bool"), x, 0.0), -1)


def _identity(x: Tensor) -> Tensor:
    """The identity for each of some square matrices."""
    return broadcast(eye(x.shape[-1], dtype=x.type.dtype), x.shape)


def _diagonal_matrix(d: Tensor) -> Tensor:
    return expand_dims(d, -1) * eye(d.shape[-1], dtype=d.type.dtype)


def _times_column(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix @ x for a vector, batched."""
    return sum(matrix * expand_dims(x, -2), -1)


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
    matrix = _square(a, "triangular_solve")
    right, vector = _right_side(matrix, b, "triangular_solve")
    matrix = broadcast(matrix, (*right.shape[:-2], *matrix.shape[-2:]))

    def run(a: Tensor, b: Tensor) -> Tensor:
        return _substitute(a, b, lower=lower, unit=unit_diagonal)

    def backward(args: Any, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
        inverse = _substitute(args[0], _identity(args[0]), lower=lower, unit=unit_diagonal)
        db = _t(inverse) @ dx
        da = -(db @ _t(x))
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


def _substitute(a: Tensor, b: Tensor, *, lower: bool, unit: bool = False) -> Tensor:
    """One row of x after another; rows that are not known yet are 0."""
    n = a.shape[-1]
    at = _at(n)

    def step(i: Tensor, x: Tensor) -> Tensor:
        row = i if lower else (n - 1) - i
        coefficients = _row(a, row)
        known = where(at == row, 0.0, coefficients)
        rest = _row(b, row) - sum(expand_dims(known, -1) * x, -2)
        if not unit:
            rest = rest / expand_dims(_column(coefficients, row), -1)
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
    factor: Tensor = custom_vjp(_cholesky, _cholesky_backward)(_square(a, "cholesky"))
    return _t(factor) if upper else factor


def _cholesky(a: Tensor) -> Tensor:
    n = a.shape[-1]
    at = _at(n)

    def step(j: Tensor, factor: Tensor) -> Tensor:
        column = _column(a, j) - _times_column(factor, _row(factor, j))
        pivot = sqrt(_column(column, j))
        new = where(at >= j, column / expand_dims(pivot, -1), 0.0)
        return where(at == j, expand_dims(new, -1), factor)

    found: Tensor = fori_loop(0, n, step, zeros(a.shape, a.type.dtype))
    return found


def _cholesky_backward(_args: Any, factor: Tensor, dfactor: Tensor) -> tuple[Tensor]:
    """Murray, Differentiation of the Cholesky decomposition (2016), equation 10."""
    inner = tril(_t(factor) @ tril(dfactor))
    halved = inner - 0.5 * _diagonal_matrix(_diagonal(inner))
    inverse = _substitute(factor, _identity(factor), lower=True)
    both = _t(inverse) @ halved @ inverse
    return (0.5 * (both + _t(both)),)


# Elimination with partial pivoting.


def _lu(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both factors in one matrix, the rows' order, and its sign."""
    n = a.shape[-1]
    at = _at(n)
    batch = a.shape[:-2]
    rows = broadcast(at, (*batch, n))

    def step(k: Tensor, state: Any) -> Any:
        lu, order, parity = state
        column = _column(lu, k)
        chosen = cast(argmax(where(at >= k, abs(column), -1.0), -1), ir.i32)
        pivot = expand_dims(chosen, -1)
        swapped = where(rows == k, pivot, where(rows == pivot, k, rows))
        lu = take_along_axis(lu, expand_dims(swapped, -1) + broadcast(at * 0, (*batch, n, n)), -2)
        order = take_along_axis(order, swapped, -1)
        parity = where(chosen == k, parity, -parity)
        top = _row(lu, k)
        factor = where(at > k, _column(lu, k) / expand_dims(_column(top, k), -1), 0.0)
        # Where the pivot is 0 so is all below it: nothing is left to eliminate.
        factor = where(expand_dims(_column(top, k) == 0.0, -1), 0.0, factor)
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
    matrix = _square(a, "solve")
    right, vector = _right_side(matrix, b, "solve")
    matrix = broadcast(matrix, (*right.shape[:-2], *matrix.shape[-2:]))
    x: Tensor = custom_vjp(_solve, _solve_backward)(matrix, right)
    return x[..., 0] if vector else x


def _solve(a: Tensor, b: Tensor) -> Tensor:
    lu, order, _ = _lu(a)
    index = expand_dims(order, -1) + broadcast(iota((b.shape[-1],)) * 0, b.shape)
    permuted = take_along_axis(b, index, -2)
    y = _substitute(tril(lu), permuted, lower=True, unit=True)
    return _substitute(triu(lu), y, lower=False)


def _solve_backward(args: Any, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    db = _t(_inverse(args[0])) @ dx
    return -(db @ _t(x)), db


def _inverse(a: Tensor) -> Tensor:
    return _solve(a, _identity(a))


def inv(a: TensorLike) -> Tensor:
    """The inverse; infinite or NaN where a is singular."""
    x = _square(a, "inv")
    return solve(x, eye(x.shape[-1], dtype=x.type.dtype))


def slogdet(a: TensorLike) -> SlogdetResult:
    """The determinant's sign (-1, 0 or 1) and the logarithm of its size."""
    found = custom_vjp(_slogdet, _slogdet_backward)(_square(a, "slogdet"))
    return SlogdetResult(*found)


def _slogdet(a: Tensor) -> tuple[Tensor, Tensor]:
    lu, _, parity = _lu(a)
    diagonal = _diagonal(lu)
    return parity * prod(sign(diagonal), -1), sum(log(abs(diagonal)), -1)


def _slogdet_backward(args: Any, _result: Any, cotangent: Any) -> tuple[Tensor]:
    return (expand_dims(expand_dims(cotangent[1], -1), -1) * _t(_inverse(args[0])),)


def det(a: TensorLike) -> Tensor:
    """The determinant.  Its gradient, det(a) * inv(a).T, is not finite where a is singular."""
    found: Tensor = custom_vjp(_det, _det_backward)(_square(a, "det"))
    return found


def _det(a: Tensor) -> Tensor:
    lu, _, parity = _lu(a)
    return parity * prod(_diagonal(lu), -1)


def _det_backward(args: Any, result: Tensor, cotangent: Tensor) -> tuple[Tensor]:
    return (expand_dims(expand_dims(cotangent * result, -1), -1) * _t(_inverse(args[0])),)


def matrix_power(a: TensorLike, n: int) -> Tensor:
    """a @ a @ ... @ a, n times; of inv(a) for negative n; the identity for 0."""
    x = _square(a, "matrix_power")
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


# Householder's factorisation.


def qr(a: TensorLike) -> QRResult:
    """Q with orthonormal columns and upper triangular R with Q @ R = a.

    Shapes  a [..., m, n] -> Q [..., m, k], R [..., k, n] with k = min(m, n).
    """
    return QRResult(*custom_vjp(_qr, _qr_backward)(_matrix(a, "qr")))


def _least(m: Size, n: Size) -> Size:
    if is_at_least(m, n):
        return n
    if not is_at_least(n, m):
        fail(ShapeError, "which of a matrix's sizes is the lesser is not known", got=f"[{m}, {n}]")
    return m


def _qr(a: Tensor) -> tuple[Tensor, Tensor]:
    m, n = a.shape[-2:]
    k = _least(m, n)
    rows, columns = _at(m), _at(k)

    def reflect(j: Tensor, state: Any) -> Any:
        r, vectors = state
        x = where(rows >= j, _column(r, j), 0.0)
        head = _column(x, j)
        total = sum(x * x, -1)
        length = where(total == 0.0, 0.0, sqrt(where(total == 0.0, 1.0, total)))
        turned = where(head < 0.0, length, -length)
        below = where(rows > j, x, 0.0)
        v = where(rows == j, expand_dims(head - turned, -1), x)
        # What is zero below its head stays as it is.
        idle = sum(below * below, -1) == 0.0
        size = sqrt(where(idle, 1.0, sum(v * v, -1)))
        v = where(expand_dims(idle, -1), 0.0, v / expand_dims(size, -1))
        r = _reflected(r, v)
        return r, where(columns == j, expand_dims(v, -1), vectors)

    vectors = zeros((*a.shape[:-1], k), a.type.dtype)
    r, vectors = fori_loop(0, k, reflect, (a, vectors))

    def gather(i: Tensor, q: Tensor) -> Tensor:
        return _reflected(q, _column(vectors, (k - 1) - i))

    q = fori_loop(0, k, gather, broadcast(eye(m, k, a.type.dtype), vectors.shape))
    return q, triu(r[..., :k, :])


def _reflected(x: Tensor, v: Tensor) -> Tensor:
    """x - 2 v (v.T x)"""
    along = sum(expand_dims(v, -1) * x, -2)
    return x - 2.0 * expand_dims(v, -1) * expand_dims(along, -2)


def _qr_backward(_args: Any, result: Any, cotangent: Any) -> tuple[Tensor]:
    """Walter and Lehmann, On evaluating higher-order derivatives of the QR decomposition (2010);
    of a wide matrix the columns beyond the square are products with Q."""
    (q, r), (dq, dr) = result, cotangent
    k, n = r.shape[-2:]
    if k == n:
        return (_square_qr_backward(q, r, dq, dr),)
    beyond = r[..., k:]
    dq = dq + (q @ beyond) @ _t(dr[..., k:])
    first = _square_qr_backward(q, r[..., :k], dq, dr[..., :k])
    return (concatenate([first, q @ dr[..., k:]], -1),)


def _square_qr_backward(q: Tensor, r: Tensor, dq: Tensor, dr: Tensor) -> Tensor:
    inner = r @ _t(triu(dr)) - _t(dq) @ q
    symmetric = tril(inner) + _t(tril(inner, -1))
    right = dq + q @ symmetric
    return right @ _t(_substitute(r, _identity(r), lower=False))


# Jacobi's rotations: pairs of columns that do not overlap are turned at once.

_SWEEPS = {"f32": 9, "f64": 12}


def _partners(n: Size, turn: Tensor) -> Tensor:
    """With whom each of n meets in a turn of a round robin; with itself if it has nobody."""
    even = (n + 1) // 2 * 2
    last = even - 1
    at = _at(n)
    other = mod(turn - at, last)
    other = where(other == at, last, other)
    other = where(at == last, mod(turn * (even // 2), last), other)
    return where(other >= n, at, other)


def _angles(alpha: Tensor, off: Tensor, partner: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """For each column the cosine, and the factor of its partner, that make them orthogonal.

    alpha: the diagonal, off: the element beside it that shall vanish.
    """
    first = at < partner
    other = take_along_axis(alpha, broadcast(partner, alpha.shape), -1)
    difference = where(first, other - alpha, alpha - other)
    idle = (off == 0.0) | (at == partner)
    theta = difference / where(idle, 1.0, 2.0 * off)
    tangent = where(theta < 0.0, -1.0, 1.0) / (abs(theta) + sqrt(theta * theta + 1.0))
    tangent = where(idle, 0.0, tangent)
    cosine = 1.0 / sqrt(tangent * tangent + 1.0)
    sine = tangent * cosine
    return cosine, where(first, -sine, sine)


def _turned(x: Tensor, partner: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """The columns of x turned with their partners."""
    other = take_along_axis(x, broadcast(partner, x.shape), -1)
    return expand_dims(cosine, -2) * x + expand_dims(sine, -2) * other


def eigh(a: TensorLike) -> EighResult:
    """Eigenvalues in ascending order and orthonormal eigenvectors, as columns, of symmetric a.

    a is made symmetric first: (a + a.T) / 2.  Eigenvectors are unique up to sign.
    """
    return EighResult(*custom_vjp(_eigh, _eigh_backward)(_square(a, "eigh")))


def eigvalsh(a: TensorLike) -> Tensor:
    """The eigenvalues of symmetric a in ascending order."""
    values = custom_vjp(lambda a: _eigh(a)[0])
    values.defvjp(_values_and_vectors, _eigenvalues_backward)
    found: Tensor = values(_square(a, "eigvalsh"))
    return found


def _values_and_vectors(a: Tensor) -> tuple[Tensor, Tensor]:
    found = eigh(a)
    return found.eigenvalues, found.eigenvectors


def _eigenvalues_backward(vectors: Tensor, dvalues: Tensor) -> tuple[Tensor]:
    return ((vectors * expand_dims(dvalues, -2)) @ _t(vectors),)


def _eigh(a: Tensor) -> tuple[Tensor, Tensor]:
    n = a.shape[-1]
    at = _at(n)
    start = 0.5 * (a + _t(a))

    def step(i: Tensor, state: Any) -> Any:
        x, vectors = state
        partner = _partners(n, mod(i, _turns(n)))
        off = take_along_axis(x, broadcast(expand_dims(partner, -1), (*x.shape[:-1], 1)), -1)
        cosine, sine = _angles(_diagonal(x), off[..., 0], partner, at)
        x = _turned(x, partner, cosine, sine)
        x = _t(_turned(_t(x), partner, cosine, sine))
        return x, _turned(vectors, partner, cosine, sine)

    identity = _identity(a)
    count = _SWEEPS[a.type.dtype.name] * _turns(n)
    x, vectors = fori_loop(0, count, step, (start, identity))
    values = _diagonal(x)
    order = argsort(values)
    return take_along_axis(values, order, -1), _chosen(vectors, order)


def _turns(n: Size) -> Size:
    return (n + 1) // 2 * 2 - 1


def _chosen(x: Tensor, order: Tensor) -> Tensor:
    """The columns of x in an order."""
    return take_along_axis(x, broadcast(expand_dims(order, -2), x.shape), -1)


def _gaps(values: Tensor) -> Tensor:
    """1 / (values[j] - values[i]), and 0 on the diagonal."""
    difference = expand_dims(values, -2) - expand_dims(values, -1)
    same = eye(values.shape[-1], dtype="bool")
    return where(same, 0.0, 1.0 / where(same, 1.0, difference))


def _eigh_backward(_args: Any, result: Any, cotangent: Any) -> tuple[Tensor]:
    """Giles, Collected matrix derivative results (2008), 3.1."""
    (values, vectors), (dvalues, dvectors) = result, cotangent
    inner = _diagonal_matrix(dvalues) + _gaps(values) * (_t(vectors) @ dvectors)
    da = vectors @ inner @ _t(vectors)
    return (0.5 * (da + _t(da)),)


def svd(a: TensorLike) -> SVDResult:
    """U, the singular values in descending order, and Vh with U @ diag(S) @ Vh = a.

    Shapes  a [..., m, n] -> U [..., m, k], S [..., k], Vh [..., k, n] with k = min(m, n).
    The columns of U and rows of Vh are orthonormal, and unique up to a common sign.
    """
    return SVDResult(*custom_vjp(_svd, _svd_backward)(_matrix(a, "svd")))


def svdvals(a: TensorLike) -> Tensor:
    """The singular values in descending order."""
    values = custom_vjp(lambda a: _svd(a)[1])
    values.defvjp(_values_and_sides, _singular_values_backward)
    found: Tensor = values(_matrix(a, "svdvals"))
    return found


def _values_and_sides(a: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    found = svd(a)
    return found.S, (found.U, found.Vh)


def _singular_values_backward(sides: tuple[Tensor, Tensor], ds: Tensor) -> tuple[Tensor]:
    u, vh = sides
    return ((u * expand_dims(ds, -2)) @ vh,)


def _svd(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m, n = a.shape[-2:]
    if _least(m, n) != n:
        u, s, vh = _svd(_t(a))
        return _t(vh), s, _t(u)
    at = _at(n)
    first, triangle = _qr(a)

    def step(i: Tensor, state: Any) -> Any:
        x, v = state
        partner = _partners(n, mod(i, _turns(n)))
        off = sum(x * take_along_axis(x, broadcast(partner, x.shape), -1), -2)
        cosine, sine = _angles(sum(x * x, -2), off, partner, at)
        return _turned(x, partner, cosine, sine), _turned(v, partner, cosine, sine)

    identity = _identity(triangle)
    count = _SWEEPS[a.type.dtype.name] * _turns(n)
    x, v = fori_loop(0, count, step, (triangle, identity))
    s = sqrt(sum(x * x, -2))
    order = argsort(s, descending=True)
    s, x, v = take_along_axis(s, order, -1), _chosen(x, order), _chosen(v, order)
    u = x / expand_dims(where(s == 0.0, 1.0, s), -2)
    # Orthonormal also where singular values are 0: the factorisation finds what is missing.
    q, r = _qr(u)
    u = q * expand_dims(where(_diagonal(r) < 0.0, -1.0, 1.0), -2)
    return first @ u, s, _t(v)


def _svd_backward(_args: Any, result: Any, cotangent: Any) -> tuple[Tensor]:
    """Townsend, Differentiating the singular value decomposition (2016)."""
    (u, s, vh), (du, ds, dvh) = result, cotangent
    v, dv = _t(vh), _t(dvh)
    gaps = _gaps(s * s)
    left, right = _t(u) @ du, _t(v) @ dv
    inner = (gaps * (left - _t(left))) * expand_dims(s, -2)
    inner = inner + expand_dims(s, -1) * (gaps * (right - _t(right))) + _diagonal_matrix(ds)
    da = u @ inner @ vh
    if u.shape[-2] != u.shape[-1]:
        da = da + ((du - u @ left) / expand_dims(s, -2)) @ vh
    if v.shape[-2] != v.shape[-1]:
        da = da + (u / expand_dims(s, -2)) @ _t(dv - v @ right)
    return (da,)


def diagonal(a: TensorLike, offset: int = 0) -> Tensor:
    """The elements beside or on the diagonal of the last two axes; see `fx.diagonal`."""
    return diagonal_of(a, offset, -2, -1)


def trace(a: TensorLike, offset: int = 0) -> Tensor:
    """The sum of a diagonal of the last two axes."""
    return trace_of(a, offset, -2, -1)


def matrix_rank(a: TensorLike, rtol: float | None = None) -> Tensor:
    """How many singular values are above rtol times the greatest, i64; `rtol` as for `pinv`."""
    x = _matrix(a, "matrix_rank")
    return _counts(x, svdvals(x), rtol).sum(-1)


def _counts(x: Tensor, s: Tensor, rtol: float | None) -> Tensor:
    """Which singular values of x do not count as 0."""
    precision = {"f32": 2.0**-23, "f64": 2.0**-52}[x.type.dtype.name]
    largest = maximum(as_tensor(x.shape[-1], x.type.dtype), x.shape[-2])
    return s > s[..., :1] * (largest * precision if rtol is None else rtol)


def pinv(a: TensorLike, rtol: float | None = None) -> Tensor:
    """Moore and Penrose's inverse; singular values below rtol times the greatest count as 0.

    rtol  by default the larger size of the matrix times the dtype's precision.
    """
    x = _matrix(a, "pinv")
    u, s, vh = svd(x)
    kept = _counts(x, s, rtol)
    inverse = where(kept, 1.0 / where(kept, s, 1.0), 0.0)
    return _t(vh) @ (expand_dims(inverse, -1) * _t(u))
