"""Golden values of sorting, running results, scatter and linear algebra, with gradients.

`python tests/golden/primitives.py` writes primitives.npz beside this file and needs PyTorch; the
tests need the file alone.  A case has a function of fluxc, one of PyTorch, and the shapes of its
float operands.  For each the file holds the result and the gradients of `sum(result * seed)` by
every operand.  Of factorisations that are unique up to signs, combinations without them are taken.
"""

from pathlib import Path

import numpy as np
import record
from record import seed  # noqa: F401  (tests take it from here)

FILE = Path(__file__).with_suffix(".npz")
PLACES = np.array([[0, 2, 2], [1, 0, 2], [3, 3, 3], [1, 2, 1], [0, 1, 0]])
LATER = np.array([[4, 0, 3], [2, 1, 0], [0, 3, 2]])  # no place of a column comes twice


def positive(x, eye=np.eye):
    """A symmetric matrix whose eigenvalues are 1 and more."""
    return x @ x.swapaxes(-1, -2) + eye(x.shape[-1])


def _running(name):
    return lambda fx, x: getattr(fx, name)(x, 1)


def _put(reduce):
    return lambda fx, x, u: fx.put_along_axis(x, PLACES, u, 0, reduce)


def _torch_put(reduce):
    return lambda torch, x, u: x.scatter_reduce(0, torch.tensor(PLACES), u, reduce)


def _of_svd(linalg, x):
    u, s, vh = linalg.svd(x) if linalg.__name__ != "torch.linalg" else linalg.svd(x, False)
    return (u * (s + 1.0 / s)[..., None, :]) @ vh


def _of_eigh(linalg, x, eye=np.eye):
    values, vectors = linalg.eigh(positive(x, eye))
    return (vectors * (values**0.5)[..., None, :]) @ vectors.swapaxes(-1, -2)


# name: shapes, by fluxc, by PyTorch; operands come as float64.
CASES = {
    "sort": ([(3, 7)], lambda fx, x: fx.sort(x, 0), lambda t, x: t.sort(x, 0).values),
    "sort_descending": (
        [(3, 7)],
        lambda fx, x: fx.sort(x, descending=True),
        lambda t, x: t.sort(x, descending=True).values,
    ),
    "top_k": ([(4, 9)], lambda fx, x: fx.top_k(x, 3)[0], lambda t, x: t.topk(x, 3).values),
    "cumsum": ([(2, 6, 3)], _running("cumsum"), lambda t, x: t.cumsum(x, 1)),
    "cumprod": ([(2, 6, 3)], _running("cumprod"), lambda t, x: t.cumprod(x, 1)),
    "cumprod_zeros": (
        [(2, 6, 3)],
        lambda fx, x: fx.cumprod(x * ZEROS, 1),
        lambda t, x: t.cumprod(x * t.tensor(ZEROS), 1),
    ),
    "cummax": ([(2, 6, 3)], _running("cummax"), lambda t, x: t.cummax(x, 1).values),
    "cummin": ([(2, 6, 3)], _running("cummin"), lambda t, x: t.cummin(x, 1).values),
    "put_add": ([(4, 3), (5, 3)], _put("add"), _torch_put("sum")),
    "put_mul": ([(4, 3), (5, 3)], _put("mul"), _torch_put("prod")),
    "put_max": ([(4, 3), (5, 3)], _put("max"), _torch_put("amax")),
    "put_min": ([(4, 3), (5, 3)], _put("min"), _torch_put("amin")),
    "put_set": (
        [(5, 3), (3, 3)],
        lambda fx, x, u: fx.put_along_axis(x, LATER, u, 0),
        lambda t, x, u: x.scatter(0, t.tensor(LATER), u),
    ),
    "scatter_pairs": (
        [(4, 5, 2), (3, 2)],
        lambda fx, x, u: fx.scatter(x, (PLACES[0], PLACES[2]), u, "add"),
        lambda t, x, u: x.index_put((t.tensor(PLACES[0]), t.tensor(PLACES[2])), u, True),
    ),
    "cholesky": (
        [(2, 5, 5)],
        lambda fx, x: fx.linalg.cholesky(positive(x)),
        lambda t, x: t.linalg.cholesky(positive(x, t.eye)),
    ),
    "triangular_solve": (
        [(2, 5, 5), (2, 5, 3)],
        lambda fx, a, b: fx.linalg.triangular_solve(a + 3 * np.eye(5), b, lower=False),
        lambda t, a, b: t.linalg.solve_triangular((a + 3 * t.eye(5)).triu(), b, upper=True),
    ),
    "solve": (
        [(2, 5, 5), (2, 5, 3)],
        lambda fx, a, b: fx.linalg.solve(a, b),
        lambda t, a, b: t.linalg.solve(a, b),
    ),
    "inv": ([(2, 4, 4)], lambda fx, x: fx.linalg.inv(x), lambda t, x: t.linalg.inv(x)),
    "det": ([(3, 5, 5)], lambda fx, x: fx.linalg.det(x), lambda t, x: t.linalg.det(x)),
    "slogdet": (
        [(3, 5, 5)],
        lambda fx, x: fx.linalg.slogdet(x)[1],
        lambda t, x: t.linalg.slogdet(x)[1],
    ),
    "qr_q": ([(2, 6, 4)], lambda fx, x: fx.linalg.qr(x)[0], lambda t, x: t.linalg.qr(x)[0]),
    "qr_r": ([(2, 6, 4)], lambda fx, x: fx.linalg.qr(x)[1], lambda t, x: t.linalg.qr(x)[1]),
    "qr_wide": ([(3, 5)], lambda fx, x: fx.linalg.qr(x)[1], lambda t, x: t.linalg.qr(x)[1]),
    "eigvalsh": (
        [(2, 5, 5)],
        lambda fx, x: fx.linalg.eigvalsh(positive(x)),
        lambda t, x: t.linalg.eigvalsh(positive(x, t.eye)),
    ),
    "eigh": (
        [(5, 5)],
        lambda fx, x: _of_eigh(fx.linalg, x),
        lambda t, x: _of_eigh(t.linalg, x, t.eye),
    ),
    "svdvals": (
        [(2, 4, 6)],
        lambda fx, x: fx.linalg.svdvals(x),
        lambda t, x: t.linalg.svdvals(x),
    ),
    "svd_tall": ([(6, 4)], lambda fx, x: _of_svd(fx.linalg, x), lambda t, x: _of_svd(t.linalg, x)),
    "svd_wide": ([(3, 5)], lambda fx, x: _of_svd(fx.linalg, x), lambda t, x: _of_svd(t.linalg, x)),
    "pinv": ([(5, 3)], lambda fx, x: fx.linalg.pinv(x), lambda t, x: t.linalg.pinv(x)),
    "matrix_power": (
        [(3, 3)],
        lambda fx, x: fx.linalg.matrix_power(x, 5),
        lambda t, x: t.linalg.matrix_power(x, 5),
    ),
}


def inputs(name):
    """The operands of a case."""
    return record.normal(name, CASES[name][0])


ZEROS = (np.random.default_rng(0).random((2, 6, 3)) < 0.7).astype(np.float64)


def main():
    record.record(FILE, CASES, inputs, lambda torch, name, xs: CASES[name][2](torch, *xs))


if __name__ == "__main__":
    main()
