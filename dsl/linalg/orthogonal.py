"""Householder's factorisation: an orthonormal and a triangular matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.dims import is_at_least
from fluxc.control import fori_loop
from fluxc.linalg.shared import column_of, flip, identity, matrix, positions
from fluxc.linalg.systems import substitute
from fluxc.ops.create import eye, tril, triu, zeros
from fluxc.ops.elementwise import sqrt, where
from fluxc.ops.layout import concatenate, expand_dims
from fluxc.ops.reduce import sum
from fluxc.tensor import Tensor, TensorLike, broadcast
from fluxc.trace import fail
from fluxc.transforms import custom_vjp

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size

__all__ = ["QRResult", "least", "qr", "qr_of"]


class QRResult(NamedTuple):
    Q: Tensor
    R: Tensor


# Householder's factorisation.


def qr(a: TensorLike) -> QRResult:
    """Q with orthonormal columns and upper triangular R with Q @ R = a.

    Shapes  a [..., m, n] -> Q [..., m, k], R [..., k, n] with k = min(m, n).
    """
    return QRResult(*custom_vjp(qr_of, _qr_backward)(matrix(a, "qr")))


def least(m: Size, n: Size) -> Size:
    if is_at_least(m, n):
        return n
    if not is_at_least(n, m):
        fail(ShapeError, "which of a matrix's sizes is the lesser is not known", got=f"[{m}, {n}]")
    return m


def qr_of(a: Tensor) -> tuple[Tensor, Tensor]:
    m, n = a.shape[-2:]
    k = least(m, n)
    rows, columns = positions(m), positions(k)

    def reflect(j: Tensor, state: Any) -> Any:
        r, vectors = state
        x = where(rows >= j, column_of(r, j), 0.0)
        head = column_of(x, j)
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
        return _reflected(q, column_of(vectors, (k - 1) - i))

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
    dq = dq + (q @ beyond) @ flip(dr[..., k:])
    first = _square_qr_backward(q, r[..., :k], dq, dr[..., :k])
    return (concatenate([first, q @ dr[..., k:]], -1),)


def _square_qr_backward(q: Tensor, r: Tensor, dq: Tensor, dr: Tensor) -> Tensor:
    inner = r @ flip(triu(dr)) - flip(dq) @ q
    symmetric = tril(inner) + flip(tril(inner, -1))
    right = dq + q @ symmetric
    return right @ flip(substitute(r, identity(r), lower=False))
