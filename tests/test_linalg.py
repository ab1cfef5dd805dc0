"""Linear algebra against NumPy, and it, sorting and scatter against PyTorch, with gradients."""

import numpy as np
import pytest
from compiled import compile_graphs, expected
from golden import primitives as golden
from golden_cases import Golden

import fluxc as fx
from dsl import run
from fluxc import linalg
from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.types import f32, f64

GOLDEN = Golden(golden)
RNG = np.random.default_rng(0)
SQUARE = RNG.normal(size=(2, 3, 5, 5))


# ---- PyTorch's values


@pytest.mark.parametrize("name", golden.CASES)
def test_the_interpreter_agrees_with_pytorch(name):
    got = expected(GOLDEN.differentiated(name), GOLDEN.arguments(name))
    GOLDEN.assert_all(got, name, f64, "interpreted")


# Their loops and formulas are those of the others, which are compiled.
LIKE_OTHERS = {"cummin", "put_min", "qr_r", "sort_descending", "svd_wide", "svdvals", "eigvalsh"}


@pytest.mark.cc
@pytest.mark.parametrize("part", range(3))
def test_compiled_code_agrees_with_pytorch(part, tmp_path):
    names = [n for n in golden.CASES if n not in LIKE_OTHERS][part::3]
    compiled = compile_graphs({name: GOLDEN.differentiated(name) for name in names}, tmp_path)
    for threads in (1, 2):
        model = compiled.model(threads)
        for name in names:
            got = getattr(model, name)(*GOLDEN.arguments(name))
            GOLDEN.assert_all(got, name, f64, f"{threads} threads")


@pytest.mark.cc
def test_compiled_code_agrees_with_pytorch_in_f32(tmp_path):
    names = ["sort", "put_mul", "inv", "solve", "qr_q", "svdvals", "slogdet"]
    compiled = compile_graphs({n: GOLDEN.differentiated(n, "f32") for n in names}, tmp_path)
    model = compiled.model()
    for name in names:
        GOLDEN.assert_all(
            getattr(model, name)(*GOLDEN.arguments(name, np.float32)), name, f32, "f32"
        )


# ---- NumPy's values


def orthonormal(q):
    inner = q.swapaxes(-1, -2) @ q
    np.testing.assert_allclose(inner, np.broadcast_to(np.eye(q.shape[-1]), inner.shape), atol=1e-12)


@pytest.mark.parametrize("name", ["inv", "det"])
def test_numpy_agrees(name):
    got = run(getattr(linalg, name), SQUARE)
    np.testing.assert_allclose(got, getattr(np.linalg, name)(SQUARE), rtol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_factorisations_of_every_size(n):
    a = RNG.normal(size=(n, n))
    spd = a @ a.T + np.eye(n)
    np.testing.assert_allclose(run(linalg.cholesky, spd), np.linalg.cholesky(spd), atol=1e-10)
    values, vectors = run(linalg.eigh, spd)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(spd), rtol=1e-10)
    np.testing.assert_allclose(vectors * values @ vectors.T, spd, atol=1e-10)
    orthonormal(vectors)
    sign, size = run(linalg.slogdet, a)
    np.testing.assert_allclose([sign, size], np.linalg.slogdet(a), rtol=1e-9)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 4), (4, 1), (5, 5), (7, 4), (4, 7)])
def test_rectangles(m, n):
    a = RNG.normal(size=(2, m, n))
    q, r = run(linalg.qr, a)
    wanted_q, wanted_r = np.linalg.qr(a)
    np.testing.assert_allclose(q, wanted_q, atol=1e-12)
    np.testing.assert_allclose(r, wanted_r, atol=1e-12)
    u, s, vh = run(linalg.svd, a)
    np.testing.assert_allclose(s, np.linalg.svd(a)[1], rtol=1e-10)
    np.testing.assert_allclose(u * s[:, None] @ vh, a, atol=1e-12)
    orthonormal(u)
    orthonormal(vh.swapaxes(-1, -2))
    np.testing.assert_allclose(run(linalg.pinv, a), np.linalg.pinv(a), atol=1e-10)


def test_equal_and_vanishing_singular_values():
    for a in (np.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0]), np.zeros((4, 3)), np.eye(4, 3) * 2):
        u, s, vh = run(linalg.svd, a)
        np.testing.assert_allclose(u * s @ vh, a, atol=1e-12)
        orthonormal(u)
        orthonormal(vh.T)
    values, vectors = run(linalg.eigh, np.eye(4) * 3)
    np.testing.assert_allclose(values, 3.0)
    orthonormal(vectors)


def test_gradients_of_equal_eigenvalues_and_singular_values():
    """Sums of all of them are smooth: the trace, and the squared norm."""
    got = run(fx.grad(lambda a: linalg.eigvalsh(a).sum()), np.eye(3) * 2)
    np.testing.assert_allclose(got, np.eye(3), atol=1e-12)
    got = run(fx.grad(lambda a: (linalg.svdvals(a) ** 2).sum()), np.eye(4, 3) * 2)
    np.testing.assert_allclose(got, np.eye(4, 3) * 4, atol=1e-12)


def test_pivots_that_are_zero():
    a = np.array([[0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    np.testing.assert_allclose(run(linalg.det, a), -6.0)
    np.testing.assert_allclose(run(linalg.solve, a, np.eye(3)), np.linalg.inv(a))
    singular = np.ones((3, 3))
    assert run(linalg.det, singular) == 0.0
    assert tuple(run(linalg.slogdet, singular)) == (0.0, -np.inf)


def test_vectors_and_batches_on_the_right():
    b = RNG.normal(size=5)
    np.testing.assert_allclose(run(linalg.solve, SQUARE[0, 0], b), np.linalg.solve(SQUARE[0, 0], b))
    many = RNG.normal(size=(3, 5, 2))
    got = run(linalg.solve, SQUARE, many)
    np.testing.assert_allclose(got, np.linalg.solve(SQUARE, np.broadcast_to(many, (2, 3, 5, 2))))


@pytest.mark.parametrize("power", [-3, -1, 0, 1, 2, 7])
def test_powers(power):
    got = run(lambda a: linalg.matrix_power(a, power), SQUARE)
    np.testing.assert_allclose(got, np.linalg.matrix_power(SQUARE, power), rtol=1e-7, atol=1e-9)


def test_the_unread_triangle_is_not_read():
    a = np.tril(RNG.normal(size=(4, 4))) + 4 * np.eye(4)
    b = RNG.normal(size=(4, 2))
    noisy = a + np.triu(np.full((4, 4), 7.0), 1)
    np.testing.assert_allclose(run(linalg.triangular_solve, noisy, b), np.linalg.solve(a, b))
    noisy = a @ a.T + np.triu(np.full((4, 4), 7.0), 1)
    np.testing.assert_allclose(run(linalg.cholesky, noisy), np.linalg.cholesky(a @ a.T))


SECOND = {
    "cholesky": lambda a: linalg.cholesky(a @ a.T + np.eye(3))[1, 0] ** 2,
    "solve": lambda a: (linalg.solve(a, np.ones(3)) ** 2).sum(),
    "slogdet": lambda a: linalg.slogdet(a)[1],
    "qr": lambda a: (linalg.qr(a)[0][:, 0] * np.arange(3.0)).sum(),
    "eigh": lambda a: (linalg.eigh(a)[1][:, 0] ** 2 * np.arange(3.0)).sum(),
    "svd": lambda a: (linalg.svd(a)[1] ** 3).sum(),
}


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives(name):
    f, a = SECOND[name], RNG.normal(size=(3, 3))
    direction = RNG.normal(size=(3, 3))
    slope = lambda a: (fx.grad(f)(a) * direction).sum()
    got = run(fx.grad(slope), a)
    steps = np.eye(9).reshape(9, 3, 3) * 1e-6
    change = [float(run(slope, a + s)) - float(run(slope, a - s)) for s in steps]
    np.testing.assert_allclose(got.reshape(-1), np.array(change) / 2e-6, rtol=1e-4, atol=1e-5)


BOTH_WAYS = {
    **SECOND,
    "triangular": lambda a: linalg.triangular_solve(a, np.ones(3)).sum(),
    "eigvalsh": lambda a: linalg.eigvalsh(a)[0],
    "svdvals": lambda a: linalg.svdvals(a)[0],
}


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_forward_mode_and_batches_agree_with_the_gradient(name):
    f = BOTH_WAYS[name]
    a, direction = RNG.normal(size=(2, 3, 3)), RNG.normal(size=(3, 3))
    gradients = run(fx.vmap(fx.grad(f)), a)
    forward = run(fx.vmap(lambda a: fx.jvp(f, (a,), (direction,))[1]), a)
    np.testing.assert_allclose((gradients * direction).sum((1, 2)), forward, rtol=1e-8)


@pytest.mark.parametrize(
    ("f", "arrays", "error", "message"),
    [
        (linalg.det, [np.zeros((2, 3))], ShapeError, "square"),
        (linalg.qr, [np.zeros(3)], ShapeError, "less than two axes"),
        (linalg.inv, [np.zeros((2, 2), int)], DTypeError, "f32 and f64"),
        (linalg.solve, [np.zeros((2, 2)), np.zeros(3)], ShapeError, "does not fit"),
    ],
)
def test_errors(f, arrays, error, message):
    with pytest.raises(error, match=message):
        run(f, *arrays)
