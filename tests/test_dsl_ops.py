"""Functions on tensors against NumPy."""

# ruff: noqa: ARG005, E501, PLW0108, RUF005 (tables of functions of one signature, a row each)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fluxc as fx
from dsl import run, type_of

RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 4, 5))
B = RNG.normal(size=(4, 1))
V = RNG.normal(size=5)
POSITIVE = np.abs(A) + 0.1
I = np.array([[3, -2, 7], [0, 5, -9]], np.int32)  # noqa: E741
J = np.array([2, -3, 4], np.int32)

UNARY = [
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt", "sin", "cos", "tan",
    "sinh", "cosh", "tanh", "floor", "ceil", "trunc", "round", "negative", "sign", "abs", "square",
    "reciprocal", "isnan", "isinf", "isfinite", "deg2rad", "rad2deg",
]  # fmt: skip
ARC = ["asin", "acos", "atan", "asinh", "atanh"]
BINARY = [
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "mod", "fmod", "floor_divide",
    "atan2", "copysign", "hypot", "logaddexp", "fmax", "fmin", "equal", "not_equal", "less",
    "less_equal", "greater", "greater_equal", "logical_and", "logical_or", "logical_xor",
]  # fmt: skip
REDUCTIONS = ["sum", "prod", "mean", "max", "min", "any", "all", "var", "std"]


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    """Unary functions agree with NumPy's of the same name."""
    np.testing.assert_allclose(run(getattr(fx, name), POSITIVE), getattr(np, name)(POSITIVE))


@pytest.mark.parametrize("name", ARC)
def test_inverse_functions(name):
    """Inverse functions agree with NumPy's arc functions."""
    x = np.tanh(A)
    np.testing.assert_allclose(run(getattr(fx, name), x), getattr(np, "arc" + name[1:])(x))


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    """Binary functions broadcast and agree with NumPy's of the same name."""
    np.testing.assert_allclose(run(getattr(fx, name), A, B), getattr(np, name)(A, B))


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), ()])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, axis, keepdims):
    """Reductions over any axes agree with NumPy's."""
    got = run(lambda x: getattr(fx, name)(x, axis, keepdims=keepdims), A)
    np.testing.assert_allclose(got, getattr(np, name)(A, axis=axis, keepdims=keepdims))


OPERATORS = [
    lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x // y,
    lambda x, y: x % y, lambda x, y: x & y, lambda x, y: x | y, lambda x, y: x ^ y,
    lambda x, y: -x, lambda x, y: ~x, lambda x, y: abs(x), lambda x, y: x < y,
    lambda x, y: x == y, lambda x, y: x**2, lambda x, y: x**3, lambda x, y: 2 - x,
    lambda x, y: 7 // y, lambda x, y: x << 2, lambda x, y: x >> 1, lambda x, y: +x,
]  # fmt: skip


@pytest.mark.parametrize("f", OPERATORS)
def test_integer_operators(f):
    """Operators on integers agree with NumPy's in value and dtype."""
    got, want = run(f, I, J), f(I, J)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == want.dtype


INTEGER_FUNCTIONS = [
    "bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift", "float_power",
    "true_divide",
]  # fmt: skip


@pytest.mark.parametrize("name", INTEGER_FUNCTIONS)
def test_functions_of_two_integers(name):
    """They agree with NumPy's of the same name; floats come in f32."""
    shifts = np.array([1, 2, 5], np.int32)
    np.testing.assert_allclose(
        run(getattr(fx, name), I, shifts), getattr(np, name)(I, shifts), rtol=1e-6
    )


def test_functions_with_names_of_their_own():
    """What has no namesake in NumPy, or another signature there."""
    np.testing.assert_array_equal(run(fx.logical_not, I), I == 0)
    assert run(lambda x: fx.count_nonzero(x), I) == 5
    np.testing.assert_array_equal(run(lambda x: fx.count_nonzero(x, 0), I), [1, 2, 2])
    np.testing.assert_array_equal(run(lambda x: fx.full_like(x, 7), I), np.full_like(I, 7))
    np.testing.assert_array_equal(run(lambda x: fx.unsqueeze(x, 1), I), I[:, None])
    np.testing.assert_array_equal(run(lambda x: fx.unstack(x, 1)[2], I), I[:, 2])


def test_integer_division_by_zero_is_zero():
    """An integer divided by, or modulo, zero is zero."""
    zero = np.zeros(3, np.int32)
    np.testing.assert_array_equal(run(lambda x, y: x // y, J, zero), zero)
    np.testing.assert_array_equal(run(lambda x, y: x % y, J, zero), zero)


PROMOTIONS = [
    (lambda x: x * 2.0, "f16", "f16"), (lambda x: x + 1, "bf16", "bf16"),
    (lambda x: x * 2.0, "i32", "f32"), (lambda x: x * 2, "i8", "i8"),
    (lambda x: x + 1, "bool_", "i32"), (lambda x: x * 1.5, "bool_", "f32"),
    (lambda x: x / 2, "i64", "f32"), (lambda x: fx.exp(x), "i32", "f32"),
    (lambda x: x + np.float64(2), "f32", "f32"), (lambda x: x + np.ones(2), "f32", "f64"),
    (lambda x: x + [1.0, 2.0], "f32", "f32"), (lambda x: x.sum(), "i32", "i64"),
    (lambda x: x.mean(), "i32", "f32"), (lambda x: x.astype(fx.f16) + x, "bf16", "f32"),
    (lambda x: x.astype(fx.f32) + x, "bf16", "f32"), (lambda x: x.astype(fx.i64) + x, "f16", "f16"),
    (lambda x: x.astype(fx.u8) + x, "i8", "i16"), (lambda x: x < 2, "f32", "bool"),
    (lambda x: x + x, "bool_", "bool"), (lambda x: 2 ** x, "f32", "f32"),
    (lambda x: fx.where(x > 0, x, 0), "f16", "f16"), (lambda x: x**-1, "f32", "f32"),
    (lambda x: fx.where(x > 0, 1, 0), "f16", "i32"), (lambda x: x.max(), "u8", "u8"),
    (lambda x: x.sum() / x.shape[0], "f16", "f16"), (lambda x: True + x, "i8", "i8"),
]  # fmt: skip


@pytest.mark.parametrize(("f", "dtype", "result"), PROMOTIONS)
def test_promotion(f, dtype, result):
    """Scalars are weak, tensors and arrays keep their dtype."""
    assert type_of(f, getattr(fx, dtype)[2]).split("[")[0] == result


def test_scalars_that_do_not_fit_are_refused():
    """A scalar out of an integer tensor's range is an error, not a wrap."""
    with pytest.raises(fx.DTypeError, match="300 does not fit into u8"):
        type_of(lambda x: x + 300, fx.u8[2])


INDICES = [
    0, -1, (1, 2), (1, -1, 3), slice(1, None), slice(None, -1), slice(None, None, 2),
    slice(None, None, -1), slice(3, 0, -2), (slice(None), 2), (..., 1), (..., slice(1, 4)),
    (None, 0), (slice(None), None, 1), (0, ..., None), (slice(5, 1), ), (slice(-100, 100),),
    (slice(None, None, -2), slice(1, 3), slice(4, None, -3)), Ellipsis, (),
    [0, 2, -1], (slice(None), [3, 0]), ([0, 1], [1, 2]), ([0, 2], slice(1, 3), [4, 0]),
    (slice(None), [0, 1], [1, 2]), (0, [1, 2]), ([[0, 1], [2, 0]], ), (..., [1, 1, 1]),
    ([[0], [2]], [1, 2]), (0, slice(None), [1, 2]), ([0, 1], slice(None), 2), (None, 0, [1, 2]), (slice(None, None, -1), [1, 2], slice(None, None, 2)),
    (None, [0, 1]), (slice(1, 3), None, [0, 3]),
]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing(index):
    """Indexing means what it means in NumPy."""
    got = run(lambda x: x[index] * 1.0, A)
    np.testing.assert_array_equal(got, A[index])


SIZE = st.integers(0, 6)
BOUND = st.none() | st.integers(-8, 8)
STEP = st.none() | st.integers(-3, 3).filter(bool)


@settings(max_examples=60, deadline=None)
@given(size=SIZE, start=BOUND, stop=BOUND, step=STEP)
def test_slices_of_any_bounds(size, start, stop, step):
    """Every slice of every small size is NumPy's."""
    x = np.arange(float(size))
    np.testing.assert_array_equal(run(lambda t: t[start:stop:step] + 0, x), x[start:stop:step])


def test_symbolic_slices_and_indices():
    """Parts of symbolic sizes have symbolic sizes, and are NumPy's for each size."""
    n = fx.f64["n", 3]
    for f in (
        lambda x: x[1:] - x[:-1], lambda x: x[::-1], lambda x: x[-1], lambda x: x[2:5],
        lambda x: x[::2], lambda x: x[1::3], lambda x: x[::-2], lambda x: x[-2:],
        lambda x: x[[0, -1]], lambda x: x[-3::-1], lambda x: x[:0:-1],
    ):  # fmt: skip
        for size in (5, 6, 9):
            x = RNG.normal(size=(size, 3))
            np.testing.assert_allclose(run(f, x, specs=[n]), f(x))
    assert type_of(lambda x: x[1:] - x[:-1], n) == "f64[n - 1, 3]"
    assert type_of(lambda x: x[-1], n) == "f64[3]"


def test_parts_outside_of_a_stated_range_are_refused():
    """A read that a declared range does not cover is an error at the user's line."""
    n = fx.dim("n", min=2)
    assert type_of(lambda x: x[1], fx.f32[n]) == "f32[]"
    with pytest.raises(fx.ShapeError, match=r"test_dsl_ops.*index 2 of axis 0"):
        type_of(lambda x: x[2], fx.f32[n])


LAYOUT = [
    lambda m, x: m.reshape(x, (5, -1)), lambda m, x: x.reshape(12, 5), lambda m, x: m.transpose(x),
    lambda m, x: m.transpose(x, (1, 0, 2)), lambda m, x: x.swapaxes(0, -1),
    lambda m, x: m.moveaxis(x, 0, -1), lambda m, x: m.moveaxis(x, (0, 1), (-1, 0)),
    lambda m, x: m.expand_dims(x, (0, -1)), lambda m, x: m.squeeze(x[:1]), lambda m, x: x.T,
    lambda m, x: m.squeeze(x[:, :1], 1), lambda m, x: m.concatenate([x, x[:1]], 0),
    lambda m, x: m.stack([x, x + 1], -1), lambda m, x: m.concatenate(m.split(x, 2, 1), 0),
    lambda m, x: m.concatenate(m.split(x, [1, 3], 1)[::-1], 1), lambda m, x: m.flip(x),
    lambda m, x: m.flip(x, (0, 2)), lambda m, x: m.pad(x, 1), lambda m, x: m.pad(x, (1, 2)),
    lambda m, x: m.pad(x, ((0, 1), (2, 0), (0, 0)), constant_values=7),
    lambda m, x: m.broadcast_to(x, (2, 3, 4, 5)), lambda m, x: m.tile(x, 2),
    lambda m, x: m.tile(x, (2, 1, 3, 1)), lambda m, x: m.repeat(x, 3), lambda m, x: x.ravel(),
    lambda m, x: m.repeat(x, 2, 1), lambda m, x: m.vstack([x, x]), lambda m, x: m.hstack([x, x]),
    lambda m, x: m.where(x > 0, x, -1), lambda m, x: m.clip(x, -0.5, 0.5), lambda m, x: x.clip(0),
    lambda m, x: m.take(x, np.array([1, -1]), 1), lambda m, x: m.take(x, np.array([[7, 3]])),
    lambda m, x: m.take_along_axis(x, np.array([[[1]], [[-2]], [[0]]]) + 0 * np.ones((3, 1, 5), int), 1),
    lambda m, x: m.tril(x), lambda m, x: m.triu(x, 1), lambda m, x: m.isclose(x, x + 1e-9),
    lambda m, x: m.zeros_like(x) + m.ones((4, 5)), lambda m, x: x * m.arange(5) + m.arange(1, 9, 2).sum(),
    lambda m, x: x @ m.eye(5, 3), lambda m, x: m.full((2,), 3.0) * m.linspace(0, 1, 2),
]  # fmt: skip


@pytest.mark.parametrize("f", LAYOUT)
def test_layout_and_creation(f):
    """Functions that move elements are NumPy's."""
    np.testing.assert_allclose(run(lambda x: f(fx, x), A), f(np, A))


MATMULS = [
    ((5,), (5,)), ((3, 5), (5,)), ((5,), (5, 4)), ((3, 5), (5, 4)), ((2, 3, 5), (5, 4)),
    ((3, 5), (2, 5, 4)), ((2, 3, 5), (2, 5, 4)), ((2, 1, 3, 5), (6, 5, 4)), ((5,), (2, 5, 4)),
    ((2, 3, 5), (5,)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), MATMULS)
def test_matmul(left, right):
    """Products of vectors, matrices and batches are NumPy's."""
    x, y = RNG.normal(size=left), RNG.normal(size=right)
    np.testing.assert_allclose(run(lambda a, b: a @ b, x, y), x @ y)
    np.testing.assert_allclose(run(fx.dot, x, y), np.dot(x, y))


def test_other_products():
    """tensordot, inner, outer, vdot and linear are NumPy's."""
    x, y = RNG.normal(size=(3, 4, 5)), RNG.normal(size=(4, 5, 2))
    np.testing.assert_allclose(run(fx.tensordot, x, y), np.tensordot(x, y))
    axes = ((1, 2), (0, 1))
    np.testing.assert_allclose(
        run(lambda a, b: fx.tensordot(a, b, axes), x, y), np.tensordot(x, y, axes)
    )
    np.testing.assert_allclose(run(fx.outer, V, V[:2]), np.outer(V, V[:2]))
    np.testing.assert_allclose(run(fx.inner, x, V), np.inner(x, V))
    w = RNG.normal(size=(2, 5))
    np.testing.assert_allclose(
        run(lambda a, b: fx.linear(a, b, [1.0, 2.0]), x, w), x @ w.T + [1, 2]
    )


def test_softmax_family():
    """softmax, logsoftmax and logsumexp are stable, also with infinities."""
    x = np.array([[1.0, 2.0, 1000.0], [3.0, np.inf, np.inf], [-1e5, -1e5, -np.inf]])
    got = run(fx.softmax, x)
    np.testing.assert_allclose(got, [[0, 0, 1], [0, 0.5, 0.5], [0.5, 0.5, 0]])
    np.testing.assert_allclose(run(lambda x: fx.softmax(x, (0, 1)), x[:2]).sum(), 1)
    np.testing.assert_allclose(np.exp(run(fx.logsoftmax, x)), got, atol=1e-300)
    want = np.logaddexp.reduce(x, -1)
    np.testing.assert_allclose(run(lambda x: fx.logsumexp(x, -1), x), want)
    assert run(fx.logsumexp, np.full(3, -np.inf)) == -np.inf


def test_one_hot_and_pick():
    """one_hot places 1 at each label."""
    labels = np.array([[0, 2], [1, 5]], np.int32)
    got = run(lambda y: fx.one_hot(y, 3), labels)
    np.testing.assert_array_equal(got, np.eye(6, 3)[labels])
    got = run(lambda y: fx.one_hot(y, 3, axis=0), labels)
    np.testing.assert_array_equal(got, np.moveaxis(np.eye(6, 3)[labels], -1, 0))


def test_sizes_are_numbers():
    """A symbolic size is a scalar in arithmetic."""
    x = np.arange(6.0)
    got = run(lambda t: t.sum() / t.shape[0] + t.shape[0] * 2, x, specs=[fx.f64["n"]])
    assert got == x.mean() + 12
    got = run(lambda t: fx.arange(t.shape[0]) + t, x, specs=[fx.f64["n"]])
    np.testing.assert_array_equal(got, 2 * x)
    got = run(
        lambda t: fx.array(3 * t.shape[0] * t.shape[0]).astype(fx.f64) + t, x, specs=[fx.f64["n"]]
    )
    np.testing.assert_array_equal(got, 108 + x)


def test_constants_are_deduced():
    """NumPy arrays, lists and lists of tensors are tensors."""
    got = run(lambda x: fx.array([[x[0], x[1]], [1.0, 2.0]]) + np.arange(2), V)
    np.testing.assert_allclose(got, [[V[0], V[1] + 1], [1, 3]])


def test_random_numbers():
    """Uniform numbers lie in [0, 1), normal ones have the asked moments, sites differ."""
    values = {"random.seed": 5, "random.step": 0}
    u, v, z, b = run(
        lambda: (fx.random.uniform(4000), fx.random.uniform(4000), fx.random.normal(4000, 1.0, 2.0),
                 fx.random.bernoulli(0.3, 4000)),
        values=values,
    )  # fmt: skip
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(u, v)[0, 1]) < 0.05
    assert abs(z.mean() - 1) < 0.1
    assert abs(z.std() - 2) < 0.1
    assert abs(b.mean() - 0.3) < 0.03
