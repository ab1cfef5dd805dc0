"""NumPy's and the array API standard's names: what there is agrees with NumPy, what is not says why."""

# ruff: noqa: E501, PLW0108, SIM905 (a row of a table is one line; functions of one signature)

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fluxc as fx
from dsl import run

# The functions and constants of the Python array API standard, 2024.12.
STANDARD = {
    "constants": "e inf nan newaxis pi",
    "creation": "arange asarray empty empty_like eye from_dlpack full full_like linspace meshgrid"
    " ones ones_like tril triu zeros zeros_like",
    "data types": "astype broadcast_arrays broadcast_to can_cast finfo iinfo isdtype result_type"
    " bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128",
    "elementwise": "abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift"
    " bitwise_invert bitwise_or bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh"
    " divide equal exp expm1 floor floor_divide greater greater_equal hypot imag isfinite isinf"
    " isnan less less_equal log log1p log2 log10 logaddexp logical_and logical_not logical_or"
    " logical_xor maximum minimum multiply negative nextafter not_equal positive pow real"
    " reciprocal remainder round sign signbit sin sinh square sqrt subtract tan tanh trunc",
    "indexing": "take take_along_axis",
    "linear algebra": "matmul matrix_transpose tensordot vecdot",
    "manipulation": "concat expand_dims flip moveaxis permute_dims repeat reshape roll squeeze"
    " stack tile unstack",
    "searching": "argmax argmin count_nonzero nonzero searchsorted where",
    "sets": "unique_all unique_counts unique_inverse unique_values",
    "sorting": "argsort sort",
    "statistics": "cumulative_prod cumulative_sum max mean min prod std sum var",
    "utility": "all any diff",
    "inspection": "__array_namespace_info__",
    "fft": "fft.fft fft.ifft fft.fftn fft.ifftn fft.rfft fft.irfft fft.rfftn fft.irfftn fft.hfft"
    " fft.ihfft fft.fftfreq fft.rfftfreq fft.fftshift fft.ifftshift",
    "linalg": "linalg.cholesky linalg.cross linalg.det linalg.diagonal linalg.eigh linalg.eigvalsh"
    " linalg.inv linalg.matmul linalg.matrix_norm linalg.matrix_power linalg.matrix_rank"
    " linalg.matrix_transpose linalg.outer linalg.pinv linalg.qr linalg.slogdet linalg.solve"
    " linalg.svd linalg.svdvals linalg.tensordot linalg.trace linalg.vecdot linalg.vector_norm",
}

SHORT = "dtypes have short names: fx.{}"
COMPLEX = "there are no complex dtypes"
SIZES = "the size of its result depends on values, which a compiled program cannot have"
ABSENT = {
    "empty": "a tensor without contents has no meaning in a pure program: fx.zeros",
    "empty_like": "a tensor without contents has no meaning in a pure program: fx.zeros_like",
    "from_dlpack": "compiled entries take anything with DLPack; a traced tensor has no memory",
    "conj": COMPLEX, "imag": COMPLEX, "real": COMPLEX, "complex64": COMPLEX, "complex128": COMPLEX,
    "bool": "Python's own bool would be hidden: fx.bool_",
    "int8": SHORT.format("i8"), "int16": SHORT.format("i16"), "int32": SHORT.format("i32"),
    "int64": SHORT.format("i64"), "uint8": SHORT.format("u8"),
    "float32": SHORT.format("f32"), "float64": SHORT.format("f64"),
    "uint16": "inside programs alone: no entry takes it", "uint32": "inside programs alone: no entry"
    " takes it", "uint64": "inside programs alone: no entry takes it",
    "nonzero": SIZES, "unique_all": SIZES, "unique_counts": SIZES, "unique_inverse": SIZES,
    "unique_values": SIZES,
    "__array_namespace_info__": "a traced tensor is on no device",
    **{f"fft.{n.partition('.')[2]}": COMPLEX for n in STANDARD["fft"].split()},
}  # fmt: skip


def found(name):
    space, _, last = name.rpartition(".")
    return hasattr(getattr(fx, space, None) if space else fx, last)


@pytest.mark.parametrize("name", " ".join(STANDARD.values()).split())
def test_every_name_of_the_standard_is_there_or_has_a_reason(name):
    assert found(name) != (name in ABSENT)


# ---- against NumPy

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, np.inf, -np.inf, np.nan]
ANY = st.one_of(st.floats(-8, 8), st.sampled_from(SPECIAL))
TAME = st.floats(-8, 8)
WHOLE = st.integers(-9, 9)
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


def floats(elements=ANY, shape=SHAPES):
    return arrays(np.float64, shape, elements=elements)


def ints(low=-9, high=9, shape=SHAPES):
    return arrays(np.int32, shape, elements=st.integers(low, high))


def bools(shape=SHAPES):
    return arrays(np.bool_, shape)


def pair(draw_one):
    """Two arrays of one shape, or shapes that broadcast."""
    return st.tuples(SHAPES, st.booleans()).flatmap(
        lambda s: st.tuples(draw_one(shape=s[0]), draw_one(shape=s[0][-1:] if s[1] else s[0]))
    )


def one(strategy):
    return strategy.map(lambda x: (x,))


def tame(shape=SHAPES):
    return floats(TAME, shape)


def fixed(*shape):
    return one(tame(shape))


UNARY = (
    "acos acosh asin asinh atan atanh cbrt cos cosh exp exp2 expm1 fabs floor ceil log log10 log1p"
    " log2 nan_to_num negative positive abs absolute reciprocal sign signbit sin sinc sinh sqrt"
    " square tan tanh trunc round isnan isinf isfinite deg2rad rad2deg degrees radians nansum"
    " nanprod"
).split()
BINARY = (
    "add subtract multiply divide true_divide floor_divide remainder mod fmod copysign hypot atan2"
    " maximum minimum fmax fmin logaddexp logaddexp2 heaviside nextafter equal not_equal less"
    " less_equal greater greater_equal isclose logical_and logical_or logical_xor float_power"
).split()
WHOLES = (
    "bitwise_and bitwise_or bitwise_xor add subtract multiply maximum minimum equal less".split()
)

CASES = {
    **{n: (one(floats()), lambda xp, x, n=n: getattr(xp, n)(x)) for n in UNARY},
    **{n: (pair(lambda shape: floats(shape=shape)), lambda xp, x, y, n=n: getattr(xp, n)(x, y)) for n in BINARY},
    **{f"{n} of integers": (pair(lambda shape: ints(shape=shape)), lambda xp, x, y, n=n: getattr(xp, n)(x, y)) for n in WHOLES},
    "pow": (st.tuples(floats(st.floats(0.1, 4), (3,)), tame((3,))), lambda xp, x, y: xp.pow(x, y)),
    "power": (one(tame()), lambda xp, x: xp.power(x, 3)),
    "bitwise_left_shift": (st.tuples(ints(shape=(4,)), ints(0, 20, (4,))), lambda xp, x, y: xp.bitwise_left_shift(x, y)),
    "left_shift": (st.tuples(ints(shape=(4,)), ints(0, 20, (4,))), lambda xp, x, y: xp.left_shift(x, y)),
    "bitwise_right_shift": (st.tuples(ints(-999, 999, (4,)), ints(0, 20, (4,))), lambda xp, x, y: xp.bitwise_right_shift(x, y)),
    "right_shift": (st.tuples(ints(-999, 999, (4,)), ints(0, 20, (4,))), lambda xp, x, y: xp.right_shift(x, y)),
    "bitwise_invert": (one(ints()), lambda xp, x: xp.bitwise_invert(x)),
    "bitwise_not": (one(ints()), lambda xp, x: xp.bitwise_not(x)),
    "invert": (one(bools()), lambda xp, x: xp.invert(x)),
    "bitwise_count": (one(ints(-(2**31), 2**31 - 1)), lambda xp, x: xp.bitwise_count(x)),
    "signbit of integers": (one(ints()), lambda xp, x: xp.signbit(x)),
    "logical_not": (one(floats()), lambda xp, x: xp.logical_not(x)),
    "ldexp": (one(tame((3,))), lambda xp, x: xp.ldexp(x, np.array([3, -2, 0], np.int32))),
    "clip": (one(floats()), lambda xp, x: xp.clip(x, -1.5, 2.0)),
    "where": (st.tuples(bools((2, 3)), floats(shape=(3,)), floats(shape=(2, 1))), lambda xp, c, x, y: xp.where(c, x, y)),
    "divmod": (pair(lambda shape: tame(shape)), lambda xp, x, y: xp.divmod(x, y)),
    "allclose": (pair(lambda shape: floats(shape=shape)), lambda xp, x, y: xp.allclose(x, y)),
    "array_equal": (pair(lambda shape: floats(st.sampled_from([0.0, 1.0]), shape)), lambda xp, x, y: xp.array_equal(x, y)),
    "astype": (one(tame()), lambda xp, x: xp.astype(x, np.int32)),
    # Creation.
    "arange": (one(tame((1,))), lambda xp, x: x + xp.arange(2, 11, 3)),
    "linspace": (one(tame((1,))), lambda xp, x: x + xp.linspace(-1, 2, 7)),
    "eye": (one(tame((1,))), lambda xp, x: x + xp.eye(3, 4)),
    "tri": (one(tame((1,))), lambda xp, x: x + xp.tri(3, 4, -1)),
    "full": (one(tame((1,))), lambda xp, x: x + xp.full((2, 3), 2.5)),
    "full_like": (one(tame()), lambda xp, x: xp.full_like(x, 3)),
    "zeros": (one(tame((1,))), lambda xp, x: x + xp.zeros((2, 3))),
    "ones": (one(tame((1,))), lambda xp, x: x + xp.ones(3)),
    "zeros_like": (one(tame()), lambda xp, x: xp.zeros_like(x)),
    "ones_like": (one(ints()), lambda xp, x: xp.ones_like(x)),
    "asarray": (one(tame((2,))), lambda xp, x: x + xp.asarray([1.5, 2.5])),
    "meshgrid": (st.tuples(tame((3,)), tame((2,)), tame((4,))), lambda xp, x, y, z: xp.meshgrid(x, y, z)),
    "meshgrid ij": (st.tuples(tame((3,)), tame((2,))), lambda xp, x, y: xp.meshgrid(x, y, indexing="ij")),
    "tril": (fixed(2, 3, 4), lambda xp, x: xp.tril(x, 1)),
    "triu": (fixed(3, 4), lambda xp, x: xp.triu(x, -1)),
    "diag": (fixed(3), lambda xp, x: xp.diag(x, -2)),
    "diag of a matrix": (fixed(3, 4), lambda xp, x: xp.diag(x, 1)),
    "vander": (fixed(3), lambda xp, x: xp.vander(x)),
    # Layout.
    "broadcast_to": (fixed(3, 1), lambda xp, x: xp.broadcast_to(x, (2, 3, 4))),
    "broadcast_arrays": (st.tuples(tame((3, 1)), tame((4,))), lambda xp, x, y: list(xp.broadcast_arrays(x, y))),
    "concat": (st.tuples(tame((2, 3)), tame((2, 1))), lambda xp, x, y: xp.concat([x, y], axis=1)),
    "concatenate": (st.tuples(tame((2, 3)), tame((1, 3))), lambda xp, x, y: xp.concatenate([x, y])),
    "stack": (st.tuples(tame((2, 3)), tame((2, 3))), lambda xp, x, y: xp.stack([x, y], -1)),
    "hstack": (st.tuples(tame((2, 3)), tame((2, 1))), lambda xp, x, y: xp.hstack([x, y])),
    "vstack": (st.tuples(tame((2, 3)), tame((3,))), lambda xp, x, y: xp.vstack([x, y])),
    "dstack": (st.tuples(tame((2, 3)), tame((2, 3))), lambda xp, x, y: xp.dstack([x, y])),
    "column_stack": (st.tuples(tame((3, 2)), tame((3,))), lambda xp, x, y: xp.column_stack([x, y])),
    "atleast_1d": (fixed(), lambda xp, x: xp.atleast_1d(x)),
    "atleast_2d": (fixed(3), lambda xp, x: xp.atleast_2d(x)),
    "atleast_3d": (fixed(3, 2), lambda xp, x: xp.atleast_3d(x)),
    "expand_dims": (one(tame()), lambda xp, x: xp.expand_dims(x, 1)),
    "flip": (one(tame()), lambda xp, x: xp.flip(x)),
    "flipud": (one(tame()), lambda xp, x: xp.flipud(x)),
    "fliplr": (fixed(2, 3), lambda xp, x: xp.fliplr(x)),
    "moveaxis": (fixed(2, 3, 4), lambda xp, x: xp.moveaxis(x, (0, 1), (-1, 0))),
    "permute_dims": (fixed(2, 3, 4), lambda xp, x: xp.permute_dims(x, (1, 2, 0))),
    "transpose": (one(tame()), lambda xp, x: xp.transpose(x)),
    "swapaxes": (fixed(2, 3, 4), lambda xp, x: xp.swapaxes(x, 0, -1)),
    "matrix_transpose": (fixed(2, 3, 4), lambda xp, x: xp.matrix_transpose(x)),
    "repeat": (one(tame()), lambda xp, x: xp.repeat(x, 3, axis=0)),
    "tile": (one(tame()), lambda xp, x: xp.tile(x, (2, 1, 3))),
    "reshape": (fixed(2, 6), lambda xp, x: xp.reshape(x, (3, -1))),
    "ravel": (one(tame()), lambda xp, x: xp.ravel(x)),
    "squeeze": (fixed(1, 3, 1), lambda xp, x: xp.squeeze(x, 0)),
    "split": (fixed(6, 2), lambda xp, x: xp.split(x, 3)),
    "unstack": (fixed(3, 2), lambda xp, x: list(xp.unstack(x, axis=1))),
    "roll": (st.tuples(tame((3, 4)), st.integers(-9, 9)), lambda xp, x, k: xp.roll(x, k, 1)),
    "roll flat": (st.tuples(tame((3, 4)), st.integers(-20, 20)), lambda xp, x, k: xp.roll(x, k)),
    "roll several": (fixed(3, 4), lambda xp, x: xp.roll(x, (1, -2), (0, 1))),
    "rot90": (st.tuples(tame((3, 4)), st.integers(-5, 5)), lambda xp, x, k: xp.rot90(x, k)),
    "diagonal": (fixed(3, 4, 2), lambda xp, x: xp.diagonal(x, 1)),
    "pad": (fixed(2, 3), lambda xp, x: xp.pad(x, ((1, 2), (0, 3)), constant_values=2.0)),
    **{f"pad {mode}": (st.tuples(tame((2, 5)), st.integers(0, 4), st.integers(0, 4)), lambda xp, x, a, b, mode=mode: xp.pad(x, ((0, 1), (a, b)), mode)) for mode in ("edge", "reflect", "symmetric", "wrap")},
    **{f"pad {mode} far": (fixed(3), lambda xp, x, mode=mode: xp.pad(x, (7, 11), mode)) for mode in ("edge", "reflect", "symmetric", "wrap")},
    "diff": (st.tuples(tame((2, 5)), st.integers(0, 6)), lambda xp, x, n: xp.diff(x, n)),
    "diff with ends": (fixed(2, 5), lambda xp, x: xp.diff(x, axis=0, prepend=0.0, append=x[:1])),
    # Indexing and searching.
    "take": (fixed(3, 4), lambda xp, x: xp.take(x, np.array([2, 0, -1]), axis=1)),
    "take_along_axis": (fixed(2, 4), lambda xp, x: xp.take_along_axis(x, np.array([[2], [-1]]), axis=1)),
    "argmax": (one(floats()), lambda xp, x: xp.argmax(x, 0)),
    "argmin": (one(floats()), lambda xp, x: xp.argmin(x)),
    "count_nonzero": (one(floats(st.sampled_from([0.0, 1.0]))), lambda xp, x: xp.count_nonzero(x, 0)),
    "searchsorted": (st.tuples(tame((5,)).map(np.sort), tame((2, 3))), lambda xp, a, v: xp.searchsorted(a, v)),
    "sort": (one(floats()), lambda xp, x: xp.sort(x, axis=0)),
    "argsort": (one(floats(st.floats(-8, 8, allow_subnormal=False))), lambda xp, x: xp.argsort(x, axis=-1, **({"kind": "stable"} if xp is np else {}))),
    # Statistics.
    **{n: (one(tame()), lambda xp, x, n=n: getattr(xp, n)(x, axis=0)) for n in ("max", "mean", "min", "prod", "std", "sum", "var", "ptp", "median", "average")},
    **{f"{n} of all": (one(floats()), lambda xp, x, n=n: getattr(xp, n)(x, keepdims=True)) for n in ("max", "mean", "min", "prod", "sum")},
    **{n: (one(bools()), lambda xp, x, n=n: getattr(xp, n)(x, axis=-1)) for n in ("all", "any")},
    **{n: (one(floats(st.sampled_from([1.5, -2.0, 3.0, np.nan]), (3, 4))), lambda xp, x, n=n: getattr(xp, n)(x, axis=1)) for n in ("nanmax", "nanmin", "nanmean", "nanvar", "nanstd")},
    "sum of integers": (one(ints()), lambda xp, x: xp.sum(x, axis=0)),
    "cumulative_sum": (fixed(2, 3), lambda xp, x: xp.cumulative_sum(x, axis=1, include_initial=True)),
    "cumulative_prod": (fixed(4), lambda xp, x: xp.cumulative_prod(x)),
    "cumsum": (fixed(2, 3), lambda xp, x: xp.cumsum(x, axis=0)),
    "cumprod": (fixed(2, 3), lambda xp, x: xp.cumprod(x, axis=1)),
    "quantile": (st.tuples(tame((3, 5)), st.floats(0, 1)), lambda xp, x, q: xp.quantile(x, q, axis=1)),
    "percentile": (fixed(3, 5), lambda xp, x: xp.percentile(x, [10, 50, 95])),
    "cov": (fixed(3, 5), lambda xp, x: xp.cov(x)),
    "corrcoef": (one(tame((2, 5)).filter(lambda x: (x.std(1) > 0.1).all())), lambda xp, x: xp.corrcoef(x)),
    "average with weights": (st.tuples(tame((2, 3)), floats(st.floats(1, 2), (3,))), lambda xp, x, w: xp.average(x, axis=1, weights=w)),
    "trapezoid": (st.tuples(tame((2, 5)), tame((5,))), lambda xp, y, x: xp.trapezoid(y, x)),
    # Products.
    "matmul": (st.tuples(tame((2, 3, 4)), tame((4, 5))), lambda xp, x, y: xp.matmul(x, y)),
    "tensordot": (st.tuples(tame((2, 3, 4)), tame((4, 3))), lambda xp, x, y: xp.tensordot(x, y, ((1, 2), (1, 0)))),
    "vecdot": (st.tuples(tame((2, 3)), tame((3,))), lambda xp, x, y: xp.vecdot(x, y)),
    "vdot": (st.tuples(tame((2, 3)), tame((2, 3))), lambda xp, x, y: xp.vdot(x, y)),
    "dot": (st.tuples(tame((2, 3)), tame((3,))), lambda xp, x, y: xp.dot(x, y)),
    "inner": (st.tuples(tame((2, 3)), tame((4, 3))), lambda xp, x, y: xp.inner(x, y)),
    "outer": (st.tuples(tame((2,)), tame((3,))), lambda xp, x, y: xp.outer(x, y)),
    "cross": (st.tuples(tame((2, 3)), tame((2, 3))), lambda xp, x, y: xp.cross(x, y)),
    "kron": (st.tuples(tame((2, 3)), tame((3, 2))), lambda xp, x, y: xp.kron(x, y)),
    "trace": (fixed(3, 4, 2), lambda xp, x: xp.trace(x, 1)),
    "einsum": (st.tuples(tame((2, 3)), tame((3, 4))), lambda xp, x, y: xp.einsum("ij,jk->ki", x, y)),
}  # fmt: skip
NORMS = {
    "vector_norm": lambda s, x: s.vector_norm(x, axis=1),
    **{f"vector_norm {o}": lambda s, x, o=o: s.vector_norm(x, axis=1, ord=o) for o in (0, 1, 3, math.inf, -math.inf)},
    **{f"matrix_norm {o}": lambda s, x, o=o: s.matrix_norm(x, ord=o) for o in ("fro", 1, -1, math.inf, -math.inf)},
    "norm": lambda s, x: s.norm(x, axis=(0, 1), keepdims=True),
    "norm of columns": lambda s, x: s.norm(x, 1, axis=0),
    "norm of a matrix": lambda s, x: s.norm(x, math.inf, axis=(1, 0)),
}  # fmt: skip


def flat(result):
    return list(result) if isinstance(result, tuple | list) else [result]


def compare(f, np_f, drawn):
    numbers = [x for x in drawn if not isinstance(x, np.ndarray)]
    tensors = [x for x in drawn if isinstance(x, np.ndarray)]
    with np.errstate(all="ignore"):
        want = flat(np_f(*drawn))
    got = run(lambda *xs: f(*xs, *numbers), *tensors)
    for a, b in zip(flat(got), want, strict=True):
        assert a.shape == np.shape(b)
        assert (a.dtype.kind == "b") == (np.asarray(b).dtype.kind == "b")
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of empty means and the like
def test_agrees_with_numpy(name):
    strategy, f = CASES[name]

    @settings(max_examples=12, deadline=None)
    @given(strategy)
    def check(drawn):
        compare(lambda *xs: f(fx, *xs), lambda *xs: f(np, *xs), drawn)

    check()


@pytest.mark.parametrize("name", NORMS)
def test_norms_agree_with_numpy(name):
    f = NORMS[name]

    @settings(max_examples=12, deadline=None)
    @given(fixed(3, 4))
    def check(drawn):
        compare(lambda x: f(fx, x), lambda x: f(np.linalg, x), drawn)

    check()


def test_diagonals_of_the_last_two_axes():
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    got = run(lambda x: (fx.linalg.diagonal(x, 1), fx.linalg.trace(x, -1)), x)
    np.testing.assert_array_equal(got[0], np.linalg.diagonal(x, offset=1))
    np.testing.assert_allclose(got[1], np.linalg.trace(x, offset=-1))


def test_ranks_of_matrices():
    rng = np.random.default_rng(0)
    for rank in range(4):
        x = rng.normal(size=(2, 5, rank)) @ rng.normal(size=(2, rank, 4))
        np.testing.assert_array_equal(run(fx.linalg.matrix_rank, x), [rank, rank])


def test_every_function_that_is_there_is_compared():
    elsewhere = {"can_cast", "finfo", "iinfo", "isdtype", "result_type"}  # below
    functions = {
        n
        for names in STANDARD.values()
        for n in names.split()
        if "." not in n and callable(getattr(fx, n, None))
    }
    compared = {c.partition(" ")[0] for c in (*CASES, *NORMS)}
    assert functions - compared - elsewhere == set()


def test_limits_and_kinds_of_dtypes():
    for name in ("f16", "f32", "f64"):
        mine, info = fx.finfo(getattr(fx, name)), np.finfo(fx.finfo(name).dtype.numpy)
        assert (mine.bits, mine.eps, mine.max, mine.min, mine.smallest_normal) == (
            info.bits, float(info.eps), float(info.max), float(info.min), float(info.smallest_normal),
        )  # fmt: skip
    assert fx.finfo(fx.bf16).max == float(np.float32(3.3895314e38))
    assert (fx.iinfo(fx.i8).min, fx.iinfo(fx.i8).max, fx.iinfo("u8").max) == (-128, 127, 255)
    assert fx.isdtype(fx.f32, "real floating")
    assert fx.isdtype(fx.i8, ("bool", "integral"))
    assert not fx.isdtype(fx.bool_, "numeric")
    assert fx.isdtype(fx.i32, fx.i32)
    assert fx.result_type(fx.f16, 2.0, fx.i32).dtype == fx.f16.dtype
    assert fx.can_cast(fx.f32, fx.f64)
    assert not fx.can_cast(fx.f64, fx.f32)
    with pytest.raises(fx.DTypeError, match="finfo of i32"):
        fx.finfo(fx.i32)


def test_rolling_and_padding_symbolic_sizes():
    x = np.arange(5.0)
    for shift in (2, -7, 12):
        got = run(lambda t, s=shift: fx.roll(t, s), x, specs=[fx.f64["n"]])
        np.testing.assert_array_equal(got, np.roll(x, shift))
    got = run(lambda t: fx.roll(t, t.sum().astype(fx.i32)), x, specs=[fx.f64["n"]])
    np.testing.assert_array_equal(got, np.roll(x, 10))
    for mode in ("edge", "reflect", "symmetric", "wrap"):
        got = run(lambda t, m=mode: fx.pad(t, (2, 3), m), x, specs=[fx.f64["n"]])
        np.testing.assert_array_equal(got, np.pad(x, (2, 3), mode))


def test_derivatives_at_the_edges_of_functions():
    zeros = np.zeros(3)
    for f in (fx.vector_norm, lambda t: fx.sinc(t).sum(), lambda t: fx.nan_to_num(t).sum()):
        assert np.isfinite(run(fx.grad(f), zeros)).all()
    holes = np.array([1.0, np.nan, 3.0])
    got = run(fx.grad(lambda t: fx.nanmean(t)), holes)
    np.testing.assert_allclose(got, [0.5, 0, 0.5])
    got = run(fx.grad(lambda t: (fx.pad(t, (3, 3), "reflect") ** 2).sum()), np.arange(4.0))
    np.testing.assert_allclose(got, [0 * 1, 2 * 3 * 1, 2 * 3 * 2, 2 * 2 * 3])


WRONG = {
    "mode": (lambda x: fx.pad(x, 1, "mirror"), "pad mode 'mirror'"),
    "empty": (lambda x: fx.pad(x[:0], 1, "edge"), "without elements"),
    "roll": (lambda x: fx.roll(x, (1, 2), (0, 1, 0)), "one shift for each axis"),
    "grid": (lambda x: fx.meshgrid(x, indexing="yx"), "indexing='yx'"),
    "norm": (lambda x: fx.norm(x, 3, axis=(0, 1)), "ord=3"),
    "quantile": (lambda x: fx.quantile(x, 1.5), "q=1.5"),
    "total": (lambda x: fx.cumulative_sum(x), "needs axis"),
    "plane": (lambda x: fx.rot90(x, 1, (0, 0)), "rot90"),
    "diag": (lambda x: fx.diag(x[None]), "a vector or a matrix"),
    "weights": (lambda x: fx.average(x, 0, x[0]), "weights do not fit"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case):
    f, message = WRONG[case]
    with pytest.raises(fx.FluxcError, match=message):
        run(f, np.ones((3, 4)))
