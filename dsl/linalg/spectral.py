"""Eigenvalues and singular values, by Jacobi's rotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fluxc.control import fori_loop
from fluxc.linalg.orthogonal import least, qr_of
from fluxc.linalg.shared import diagonal, diagonal_matrix, flip, identity, matrix, positions, square
from fluxc.ops.create import eye
from fluxc.ops.elementwise import abs, maximum, mod, sqrt, where
from fluxc.ops.index import take_along_axis
from fluxc.ops.layout import expand_dims
from fluxc.ops.order import argsort
from fluxc.ops.reduce import sum
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast
from fluxc.transforms import custom_vjp

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size

__all__ = ["EighResult", "SVDResult", "eigh", "eigvalsh", "matrix_rank", "pinv", "svd", "svdvals"]


class EighResult(NamedTuple):
    eigenvalues: Tensor
    eigenvectors: Tensor


class SVDResult(NamedTuple):
    U: Tensor
    S: Tensor
    Vh: Tensor


# Jacobi's rotations: pairs of columns that do not overlap are turned at once.

_SWEEPS = {"f32": 9, "f64": 12}


def _partners(n: Size, turn: Tensor) -> Tensor:
    """With whom each of n meets in a turn of a round robin; with itself if it has nobody."""
    even = (n + 1) // 2 * 2
    last = even - 1
    at = positions(n)
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
    return EighResult(*custom_vjp(_eigh, _eigh_backward)(square(a, "eigh")))


def eigvalsh(a: TensorLike) -> Tensor:
    """The eigenvalues of symmetric a in ascending order."""
    values = custom_vjp(lambda a: _eigh(a)[0])
    values.defvjp(_values_and_vectors, _eigenvalues_backward)
    found: Tensor = values(square(a, "eigvalsh"))
    return found


def _values_and_vectors(a: Tensor) -> tuple[Tensor, Tensor]:
    found = eigh(a)
    return found.eigenvalues, found.eigenvectors


def _eigenvalues_backward(vectors: Tensor, dvalues: Tensor) -> tuple[Tensor]:
    return ((vectors * expand_dims(dvalues, -2)) @ flip(vectors),)


def _eigh(a: Tensor) -> tuple[Tensor, Tensor]:
    n = a.shape[-1]
    at = positions(n)
    start = 0.5 * (a + flip(a))

    def step(i: Tensor, state: Any) -> Any:
        x, vectors = state
        partner = _partners(n, mod(i, _turns(n)))
        off = take_along_axis(x, broadcast(expand_dims(partner, -1), (*x.shape[:-1], 1)), -1)
        cosine, sine = _angles(diagonal(x), off[..., 0], partner, at)
        x = _turned(x, partner, cosine, sine)
        x = flip(_turned(flip(x), partner, cosine, sine))
        return x, _turned(vectors, partner, cosine, sine)

    count = _SWEEPS[a.type.dtype.name] * _turns(n)
    x, vectors = fori_loop(0, count, step, (start, identity(a)))
    values = diagonal(x)
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
    inner = diagonal_matrix(dvalues) + _gaps(values) * (flip(vectors) @ dvectors)
    da = vectors @ inner @ flip(vectors)
    return (0.5 * (da + flip(da)),)


def svd(a: TensorLike) -> SVDResult:
    """U, the singular values in descending order, and Vh with U @ diag(S) @ Vh = a.

    Shapes  a [..., m, n] -> U [..., m, k], S [..., k], Vh [..., k, n] with k = min(m, n).
    The columns of U and rows of Vh are orthonormal, and unique up to a common sign.
    """
    return SVDResult(*custom_vjp(_svd, _svd_backward)(matrix(a, "svd")))


def svdvals(a: TensorLike) -> Tensor:
    """The singular values in descending order."""
    values = custom_vjp(lambda a: _svd(a)[1])
    values.defvjp(_values_and_sides, _singular_values_backward)
    found: Tensor = values(matrix(a, "svdvals"))
    return found


def _values_and_sides(a: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    found = svd(a)
    return found.S, (found.U, found.Vh)


def _singular_values_backward(sides: tuple[Tensor, Tensor], ds: Tensor) -> tuple[Tensor]:
    u, vh = sides
    return ((u * expand_dims(ds, -2)) @ vh,)


def _svd(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m, n = a.shape[-2:]
    if least(m, n) != n:
        u, s, vh = _svd(flip(a))
        return flip(vh), s, flip(u)
    at = positions(n)
    first, triangle = qr_of(a)

    def step(i: Tensor, state: Any) -> Any:
        x, v = state
        partner = _partners(n, mod(i, _turns(n)))
        off = sum(x * take_along_axis(x, broadcast(partner, x.shape), -1), -2)
        cosine, sine = _angles(sum(x * x, -2), off, partner, at)
        return _turned(x, partner, cosine, sine), _turned(v, partner, cosine, sine)

    count = _SWEEPS[a.type.dtype.name] * _turns(n)
    x, v = fori_loop(0, count, step, (triangle, identity(triangle)))
    s = sqrt(sum(x * x, -2))
    order = argsort(s, descending=True)
    s, x, v = take_along_axis(s, order, -1), _chosen(x, order), _chosen(v, order)
    u = x / expand_dims(where(s == 0.0, 1.0, s), -2)
    # Orthonormal also where singular values are 0: the factorisation finds what is missing.
    q, r = qr_of(u)
    u = q * expand_dims(where(diagonal(r) < 0.0, -1.0, 1.0), -2)
    return first @ u, s, flip(v)


def _svd_backward(_args: Any, result: Any, cotangent: Any) -> tuple[Tensor]:
    """Townsend, Differentiating the singular value decomposition (2016)."""
    (u, s, vh), (du, ds, dvh) = result, cotangent
    v, dv = flip(vh), flip(dvh)
    gaps = _gaps(s * s)
    left, right = flip(u) @ du, flip(v) @ dv
    inner = (gaps * (left - flip(left))) * expand_dims(s, -2)
    inner = inner + expand_dims(s, -1) * (gaps * (right - flip(right))) + diagonal_matrix(ds)
    da = u @ inner @ vh
    if u.shape[-2] != u.shape[-1]:
        da = da + ((du - u @ left) / expand_dims(s, -2)) @ vh
    if v.shape[-2] != v.shape[-1]:
        da = da + (u / expand_dims(s, -2)) @ flip(dv - v @ right)
    return (da,)


def matrix_rank(a: TensorLike, rtol: float | None = None) -> Tensor:
    """How many singular values are above rtol times the greatest, i64; `rtol` as for `pinv`."""
    x = matrix(a, "matrix_rank")
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
    x = matrix(a, "pinv")
    u, s, vh = svd(x)
    kept = _counts(x, s, rtol)
    inverse = where(kept, 1.0 / where(kept, s, 1.0), 0.0)
    return flip(vh) @ (expand_dims(inverse, -1) * flip(u))
