"""Sorting, positions, running results, parts, scatter and random numbers of the language."""

import math

import numpy as np
import pytest

import fluxc as fx
from dsl import run
from fluxc.compiler.errors import DTypeError, ShapeError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5, 4))
TIES = np.array([[3.0, 1.0, np.nan, 1.0, -0.0, 0.0], [2.0, 2.0, 1.0, 1.0, 2.0, 1.0]])


def agree(f, want, *arrays):
    got = run(f, *arrays)
    for g, w in zip(
        got if isinstance(got, tuple) else (got,),
        want if isinstance(want, tuple) else (want,),
        strict=True,
    ):
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_numpy_agrees_along_an_axis(axis):
    agree(lambda x: fx.argmax(x, axis), np.argmax(X, axis), X)
    agree(lambda x: x.argmin(axis, keepdims=True), np.argmin(X, axis, keepdims=True), X)
    agree(lambda x: fx.sort(x, axis), np.sort(X, axis), X)
    agree(lambda x: x.argsort(axis), np.argsort(X, axis), X)
    agree(lambda x: fx.sort(x, axis, descending=True), -np.sort(-X, axis), X)
    agree(lambda x: fx.cumsum(x, axis), np.cumsum(X, axis), X)
    agree(lambda x: x.cumprod(axis), np.cumprod(X, axis), X)
    agree(lambda x: fx.cummax(x, axis), np.maximum.accumulate(X, axis), X)
    agree(
        lambda x: fx.cummin(x, axis, reverse=True),
        np.flip(np.minimum.accumulate(np.flip(X, axis), axis), axis),
        X,
    )


def test_without_an_axis_tensors_are_flat():
    agree(fx.argmax, np.argmax(X), X)
    agree(lambda x: fx.argmin(x, keepdims=True), np.argmin(X, keepdims=True), X)
    agree(fx.cumsum, np.cumsum(X), X)


def test_ties_and_nan():
    agree(lambda x: fx.argmax(x, 1), np.argmax(TIES, 1), TIES)
    agree(lambda x: fx.argmin(x, 1), np.argmin(TIES, 1), TIES)
    agree(lambda x: fx.argsort(x, 1), np.argsort(TIES, 1, kind="stable"), TIES)
    want = np.array([[2, 0, 1, 3, 4, 5], [0, 1, 4, 2, 3, 5]])
    agree(lambda x: fx.argsort(x, 1, descending=True), want, TIES)


def test_sums_of_small_integers_are_wide():
    x = np.full(300, 100, np.int8)
    assert run(fx.cumsum, x)[-1] == 30_000


def test_several_tensors_are_sorted_by_the_first():
    keys, values = np.array([3.0, 1.0, 2.0]), np.array([10, 20, 30])
    got = run(lambda k, v: fx.sort((k, v)), keys, values)
    np.testing.assert_array_equal(got[1], [20, 30, 10])
    with pytest.raises(ShapeError, match="sorted together"):
        run(lambda k, v: fx.sort((k, v)), keys, values[:2])


def test_top_k_is_the_head_of_a_sort():
    values, places = run(lambda x: fx.top_k(x, 2, axis=1), X)
    np.testing.assert_allclose(values, -np.sort(-X, 1)[:, :2])
    np.testing.assert_allclose(np.take_along_axis(X, places, 1), values)
    values, places = run(lambda x: fx.topk(x, 2, axis=1, largest=False), X)
    np.testing.assert_allclose(values, np.sort(X, 1)[:, :2])
    np.testing.assert_allclose(np.take_along_axis(X, places, 1), values)


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted(side):
    a = np.array([1.0, 2.0, 2.0, 3.0, np.nan])
    v = np.array([[0.0, 1.0, 2.0], [2.5, 9.0, np.nan]])
    agree(lambda a, v: fx.searchsorted(a, v, side), np.searchsorted(a, v, side), a, v)


def test_recurrence_is_a_moving_average():
    x = RNG.normal(size=(6, 2))
    want = np.zeros_like(x)
    for t in range(6):
        want[t] = 0.9 * (want[t - 1] if t else 0) + x[t]
    agree(lambda x: fx.recurrence(0.9, x), want, x)


def test_positions_need_an_element():
    with pytest.raises(ShapeError, match="without elements"):
        run(lambda x: fx.argmax(x, 0), np.zeros((0, 2)))


# ---- writing


@pytest.mark.parametrize("reduce", ["set", "add", "mul", "max", "min"])
def test_scatter_is_an_assignment_in_numpy(reduce):
    x, i, j = RNG.normal(size=(4, 5)), np.array([0, -1, 2, 0]), np.array([1, 2, 3, 4])
    u = RNG.normal(size=4)
    want = x.copy()
    if reduce == "set":
        want[i, j] = u
    else:
        {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduce].at(
            want, (i, j), u
        )
    agree(lambda x, i, j, u: fx.scatter(x, (i, j), u, reduce), want, x, i, j, u)
    rows = RNG.normal(size=(4, 5))
    want = x.copy()
    if reduce == "set":
        for row, update in zip(i, rows, strict=True):
            want[row] = update
    else:
        {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduce].at(
            want, i, rows
        )
    agree(lambda x, i, u: fx.scatter(x, i, u, reduce), want, x, i, rows)


def test_updates_out_of_range_are_dropped():
    got = run(lambda x, i: fx.scatter(x, i, 1.0), np.zeros(3), np.array([5, -9, 1]))
    np.testing.assert_array_equal(got, [0, 1, 0])


def test_put_along_axis_writes_where_take_along_axis_reads():
    i = np.argsort(X, 1)
    agree(lambda x, i: fx.put_along_axis(x * 0, i, fx.take_along_axis(x, i, 1), 1), X, X, i)
    with pytest.raises(ShapeError, match="shapes differ"):
        run(lambda x, i: fx.put_along_axis(x, i, 0.0, 1), X, i[:1])


def test_dynamic_parts_are_moved_inside():
    x = np.arange(20.0).reshape(4, 5)
    agree(lambda x, i: fx.dynamic_slice(x, (i, 9), (2, 3)), x[1:3, 2:], x, np.array(1))
    want = x.copy()
    want[2:, :2] = -1
    agree(
        lambda x, i: fx.dynamic_update_slice(x, -fx.ones((2, 2), "f64"), (i, i - 9)),
        want,
        x,
        np.array(7),
    )
    with pytest.raises(ShapeError, match="one start for each axis"):
        run(lambda x: fx.dynamic_slice(x, (0,), (2, 3)), x)
    with pytest.raises(DTypeError, match="integer scalar"):
        run(lambda x: fx.dynamic_slice(x, (0.5, 0), (2, 3)), x)


# ---- gradients of what is made of these


def gradient(f, x):
    return run(fx.grad(f), x)


def difference(f, x, eps=1e-6):
    steps = np.eye(x.size).reshape(x.size, *x.shape)
    value = lambda x: float(run(f, x))
    return np.array([(value(x + eps * s) - value(x - eps * s)) / (2 * eps) for s in steps]).reshape(
        x.shape
    )


def part(x):
    return fx.dynamic_slice(x, (1, 1), (2, 2))


W = RNG.normal(size=(3, 4))
SMOOTH = {
    "sort": lambda x: (fx.sort(x, 0) * W).sum(),
    "top_k": lambda x: (fx.top_k(x, 2)[0] ** 2).sum(),
    "cumprod": lambda x: (fx.cumprod(x, 1) * W).sum(),
    "cummax": lambda x: (fx.cummax(x, 1) * W).sum(),
    "recurrence": lambda x: (fx.recurrence(x, x * W, axis=1) * W).sum(),
    "scatter mul": lambda x: (fx.scatter(x, np.array([0, 0, 2]), x * W, "mul") ** 2).sum(),
    "put": lambda x: (fx.put_along_axis(x, np.zeros((3, 2), int), x[:, :2] * 2, 1) ** 2).sum(),
    "dynamic": lambda x: (fx.dynamic_update_slice(x, part(x) * 3.0, (0, 2)) ** 2).sum(),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients(name):
    x = RNG.normal(size=(3, 4))
    np.testing.assert_allclose(
        gradient(SMOOTH[name], x), difference(SMOOTH[name], x), rtol=1e-5, atol=1e-7
    )


def test_gradient_of_products_with_zeros():
    x = np.array([2.0, 0.0, 3.0, 0.0])
    got = gradient(lambda x: fx.cumprod(x).sum(), x)
    np.testing.assert_allclose(got, [1.0, 2.0 + 6.0, 0.0, 0.0])
    got = gradient(
        lambda x: fx.scatter(fx.ones((1,), "f64"), fx.zeros((4,), "i32"), x, "mul").sum(), x
    )
    np.testing.assert_allclose(got, 0.0)


# ---- random numbers: moments within five standard errors

N = 40_000


def draw(f):
    return run(f, values={"random.seed": np.array(3), "random.step": np.array(5)})


def standard_error(x):
    return x.std() / math.sqrt(x.size)


GAMMA = 0.5772156649015329
MOMENTS = {
    "normal": (lambda: fx.random.normal((N,)), 0.0, 1.0),
    "uniform": (lambda: fx.random.uniform((N,), 2.0, 4.0), 3.0, 4 / 12),
    "exponential": (lambda: fx.random.exponential((N,), 2.0), 2.0, 4.0),
    "gumbel": (lambda: fx.random.gumbel((N,)), GAMMA, math.pi**2 / 6),
    "laplace": (lambda: fx.random.laplace((N,)), 0.0, 2.0),
    "logistic": (lambda: fx.random.logistic((N,)), 0.0, math.pi**2 / 3),
    "rademacher": (lambda: fx.random.rademacher((N,)), 0.0, 1.0),
    "randint": (lambda: fx.random.randint((N,), -3, 7).astype("f32"), 1.5, 99 / 12),
    "truncated": (lambda: fx.random.truncated_normal((N,)), 0.0, 0.7737413),
}  # fmt: skip


@pytest.mark.parametrize("name", MOMENTS)
def test_moments(name):
    f, mean, variance = MOMENTS[name]
    x = np.asarray(draw(f), np.float64)
    assert np.isfinite(x).all()
    assert abs(x.mean() - mean) < 5 * standard_error(x)
    squares = (x - mean) ** 2
    assert abs(squares.mean() - variance) < 5 * standard_error(squares) + 1e-6


def test_ranges():
    x = draw(lambda: fx.random.truncated_normal((N,), -0.5, 1.0))
    assert x.min() >= -0.5
    assert x.max() <= 1.0
    assert abs(np.mean(x < 0) - (0.1914625 / (0.1914625 + 0.3413447))) < 0.02
    i = draw(lambda: fx.random.randint((N,), -3, 7))
    assert set(np.unique(i)) == set(range(-3, 7))


def test_quartiles_of_cauchy():
    x = draw(lambda: fx.random.cauchy((N,)))
    np.testing.assert_allclose(np.quantile(x, [0.25, 0.5, 0.75]), [-1, 0, 1], atol=0.05)


def test_categorical_draws_by_softmax():
    logits = np.log(np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]))
    x = draw(lambda: fx.random.categorical(fx.array(logits), shape=(N, 2)))
    assert x.shape == (N, 2)
    for column in (0, 1):
        share = np.bincount(x[:, column], minlength=3) / N
        np.testing.assert_allclose(share, np.exp(logits[column]), atol=0.02)


def test_permutation_is_one_and_uniform():
    x = draw(lambda: fx.stack([fx.random.permutation(4) for _ in range(400)]))
    assert (np.sort(x, 1) == np.arange(4)).all()
    counts = np.stack([np.bincount(x[:, i], minlength=4) for i in range(4)])
    assert abs(counts - 100).max() < 5 * math.sqrt(400 * 3 / 16)
    rows = draw(lambda: fx.random.permutation(fx.arange(6).reshape(3, 2)))
    assert sorted(map(tuple, rows)) == [(0, 1), (2, 3), (4, 5)]
