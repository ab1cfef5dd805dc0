"""Every operation's record is complete and its columns agree with one another."""

# ruff: noqa: E501  (a row of a table is one line)

import numpy as np
import pytest
from op_graphs import carries_graphs, type_of

from fluxc.compiler.errors import DTypeError, FluxcError, ShapeError
from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.types import (  # fmt: skip
    DTYPES,
    TensorType,
    bf16,
    bool_,
    f16,
    f32,
    f64,
    i8,
    i32,
    i64,
    u8,
    u32,
    u64,
)
from fluxc.compiler.ops import OPS, NoGradient, ZeroGradient, infer
from fluxc.compiler.ops.random import philox
from fluxc.compiler.ops.reference import computed

EVERY_OP = pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
# Operations that have neither a scalar body nor a lowering by index.
STRUCTURED = {
    "argmax", "argmin", "argsort", "checkpoint", "constant", "contract", "conv", "conv_last",
    "cumulative", "custom_vjp", "recurrence", "reduce_and", "reduce_max", "reduce_min", "reduce_or",
    "reduce_prod", "reduce_sum", "scatter",
    "window_argmax", "window_max", "window_place", "window_sum",
    "scan", "switch", "while",
}  # fmt: skip


def sample(op):
    arrays, attrs = op.sample(np.random.default_rng(0))
    types = infer(op.name, tuple(map(type_of, arrays)), attrs)
    return arrays, attrs, types


def run(op, *arrays, **attrs):
    result = OPS[op].reference(*arrays, **attrs)
    return result if isinstance(result, tuple) else (result,)


@EVERY_OP
def test_every_record_is_complete(op):
    assert op.doc
    assert all(map(callable, (op.infer, op.reference, op.sample)))
    assert callable(op.vjp) or (isinstance(op.vjp, (NoGradient, ZeroGradient)) and op.vjp.reason)


def test_exactly_the_structured_operations_have_no_body():
    assert {op.name for op in OPS.values() if op.scalar is None and op.lower is None} == STRUCTURED


@EVERY_OP
def test_reference_gives_the_inferred_types(op):
    if carries_graphs(op):
        pytest.skip("its reference takes graphs as functions; test_batch evaluates it")
    arrays, attrs, types = sample(op)
    for got, type in zip(run(op.name, *arrays, **attrs), types, strict=True):
        assert got.shape == type.shape
        assert got.dtype == computed(type.dtype)


def numbers(rng, dtype, shape):
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.is_float:
        return rng.normal(size=shape) * 3
    info = np.iinfo(dtype.numpy)
    return rng.integers(max(info.min, -130), min(info.max, 130), shape, dtype.numpy, endpoint=True)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3)])
@pytest.mark.parametrize("op", [o for o in OPS.values() if o.elementwise], ids=lambda op: op.name)
def test_elementwise_references_keep_shape_and_dtype(op, shape):
    """Over all dtypes that the operation takes; warnings are errors here, so none escapes."""
    rng, taken = np.random.default_rng(0), 0
    arity = len(op.sample(rng)[0])
    for dtype in DTYPES.values():
        dtypes = (bool_, dtype, dtype) if arity == 3 else (dtype,) * arity
        attrs = {"dtype": dtype} if op.name in ("cast", "bitcast") else {}
        try:
            (type,) = infer(op.name, tuple(TensorType(d, shape) for d in dtypes), attrs)
        except DTypeError:
            continue
        (got,) = run(op.name, *(numbers(rng, d, shape) for d in dtypes), **attrs)
        assert (got.shape, got.dtype) == (shape, computed(type.dtype))
        taken += 1
    assert taken


# ---- scalar bodies and lowerings, on plain numbers


class Plain:
    """A scalar whose methods are the references: a body of one method is trivially right on it."""

    def __init__(self, array):
        self.array = np.asarray(array)
        self.dtype = type_of(self.array).dtype

    def like(self, number):
        return Plain(np.asarray(number).astype(self.array.dtype))

    def _apply(self, op, *others, **attrs):
        others = [o if isinstance(o, Plain) else self.like(o) for o in others]
        return Plain(OPS[op].reference(self.array, *(o.array for o in others), **attrs))

    def cast(self, dtype):
        return self._apply("cast", dtype=dtype)

    def bitcast(self, dtype):
        return self._apply("bitcast", dtype=dtype)

    def __getattr__(self, name):
        op = {"shl": "shift_left", "shr": "shift_right"}.get(name, name)
        return lambda *others: self._apply(op, *others)


for symbol, name in {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "neg": "neg", "and": "and", "or": "or", "xor": "xor", "invert": "not"}.items():  # fmt: skip
    setattr(Plain, f"__{symbol}__", lambda self, *o, name=name: self._apply(name, *o))


@pytest.mark.parametrize("op", [o for o in OPS.values() if o.elementwise], ids=lambda op: op.name)
def test_scalar_bodies_agree_with_references(op):
    arrays, attrs, (type,) = sample(op)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0])
    inputs = [arrays]
    if all(a.dtype.kind == "f" for a in arrays):
        inputs.append(tuple(np.roll(special, i) for i in range(len(arrays))))
    for xs in inputs:
        got = op.scalar(*map(Plain, xs), **attrs)
        assert got.dtype == type.dtype
        np.testing.assert_array_equal(got.array, op.reference(*xs, **attrs))


class PlainExpressions:
    """Index expressions that are numbers, with the methods of `kernels.kernel.Expressions`."""

    def const(self, value, dtype):
        return np.asarray(value).astype(dtype.numpy)

    size = staticmethod(int)
    add = staticmethod(lambda a, b: a + b)
    sub = staticmethod(lambda a, b: a - b)
    mul = staticmethod(lambda a, b: a * b)
    floordiv = staticmethod(lambda a, b: a // b)
    mod = staticmethod(lambda a, b: a % b)
    lt = staticmethod(lambda a, b: a < b)
    le = staticmethod(lambda a, b: a <= b)
    eq = staticmethod(lambda a, b: a == b)
    ge = staticmethod(lambda a, b: a >= b)
    both = staticmethod(lambda p, q: q if p is None else p if q is None else p and q)
    select = staticmethod(lambda c, x, y: x if c else y)
    cast = staticmethod(lambda e, dtype: OPS["cast"].reference(np.asarray(e), dtype=dtype))
    apply = staticmethod(lambda op, *args: OPS[op].reference(*map(np.asarray, args)))
    clamp = staticmethod(lambda i, low, high: int(max(min(i, high), low)))


def reader(array):
    def read(index, guard=None):
        if guard is not None and not guard:
            return array.dtype.type(0)
        for i, size in zip(index, array.shape, strict=True):
            assert 0 <= i < size, "read out of bounds"
        return array[tuple(map(int, index))]

    return read


RNG = np.random.default_rng(1)
LOWERED = {
    "broadcast": [({"shape": (2, 3, 4), "axes": (0, 2)}, [(2, 4)]), ({"shape": (2,), "axes": ()}, [()])],
    "reshape": [
        ({"shape": (3, 2, 4)}, [(2, 3, 4)]),
        ({"shape": (2, 12)}, [(2, 3, 4)]),
        ({"shape": (2, 3, 2, 2)}, [(6, 4)]),
        ({"shape": (1, 6, 1)}, [(2, 3)]),
        ({"shape": ()}, [(1, 1)]),
        ({"shape": (1, 1)}, [()]),
        ({"shape": (4, 3)}, [(2, 1, 6)]),
        ({"shape": (0, 5)}, [(3, 0)]),
    ],
    "slice": [({"starts": (1, 0, 2), "limits": (3, 0, 7), "steps": (1, 1, 2)}, [(4, 3, 7)])],
    "pad": [
        ({"low": (0, 2), "high": (0, 0), "interior": (0, 0)}, [(2, 3), ()]),
        ({"low": (0, 1), "high": (0, 2), "interior": (3, 1)}, [(2, 3), ()]),
        ({"low": (1, 1), "high": (0, 2), "interior": (3, 1)}, [(0, 1), ()]),
        ({"low": (0,), "high": (0,), "interior": (0,)}, [(3,), ()]),
    ],
    "concatenate": [({"axis": 0}, [(2, 3)]), ({"axis": 0}, [(0, 3), (2, 3), (1, 3)])],
    "reverse": [({"axes": ()}, [(2, 3)]), ({"axes": (0, 1)}, [(2, 3)])],
    "full": [({"value": 3, "dtype": i32, "shape": ()}, []), ({"value": True, "dtype": bool_, "shape": (2,)}, [])],
    "iota": [({"dtype": f32, "shape": (3, 2), "axis": 0}, []), ({"dtype": u8, "shape": (300,), "axis": 0}, [])],
}  # fmt: skip


def lowerings():
    for op in (o for o in OPS.values() if o.lower):
        yield op, *op.sample(np.random.default_rng(0))
        for attrs, shapes in LOWERED.get(op.name, []):
            yield op, tuple(RNG.normal(size=s) for s in shapes), attrs
    indices = np.array([[-7, 2], [1, 1]], np.int8)
    yield OPS["gather"], (RNG.normal(size=(2, 2, 3)), indices), {"batch": 0}
    yield OPS["gather"], (np.zeros((2, 0, 3)), indices[None]), {"batch": 0}
    big = {"site": 2**32 - 1, "shape": (3, 2)}
    yield OPS["random_bits"], (np.array(-5), np.array(2**40 + 1)), big


@pytest.mark.parametrize(("op", "arrays", "attrs"), [pytest.param(*c, id=c[0].name) for c in lowerings()])  # fmt: skip
def test_lowerings_read_where_the_reference_reads(op, arrays, attrs):
    expected = op.reference(*arrays, **attrs)
    types = (*map(type_of, arrays), *infer(op.name, tuple(map(type_of, arrays)), attrs))
    got = np.empty(expected.shape, expected.dtype)
    for index in np.ndindex(expected.shape):
        got[index] = op.lower(PlainExpressions(), index, types, *map(reader, arrays), **attrs)
    np.testing.assert_array_equal(got, expected)


# ---- meanings that are easy to get wrong

I8_MIN, I64_MAX = -128, 2**63 - 1


@pytest.mark.parametrize(
    ("op", "dtype", "args", "expected"),
    [
        ("add", np.int8, ([127], [1]), [-128]),
        ("neg", np.int8, ([I8_MIN],), [I8_MIN]),
        ("abs", np.int8, ([I8_MIN],), [I8_MIN]),
        ("neg", np.uint8, ([1],), [255]),
        ("sign", np.uint8, ([0, 9],), [0, 1]),
        ("mul", np.int64, ([I64_MAX], [2]), [-2]),
        ("floor_div", np.int32, ([-7, 7, 5, 0], [2, -2, 0, 0]), [-4, -4, 0, 0]),
        ("floor_div", np.int8, ([I8_MIN], [-1]), [I8_MIN]),
        ("mod", np.int32, ([-7, 7, 5], [2, -2, 0]), [1, -1, 0]),
        ("fmod", np.int32, ([-7, 7, 5], [2, -2, 0]), [-1, 1, 0]),
        ("mod", np.float64, ([-7.0, 5.0, -0.5], [2.0, 0.0, np.inf]), [1.0, np.nan, np.inf]),
        ("floor_div", np.float64, ([7.0, -7.0], [0.0, 2.0]), [np.inf, -4.0]),
        (
            "pow",
            np.int32,
            ([3, 0, -2, 2, 1, -1, 0], [4, 0, 3, -1, -1, -3, -2]),
            [81, 1, -8, 0, 1, -1, 0],
        ),
        ("shift_left", np.int8, ([1, 1, 1, 1], [7, 8, 100, -1]), [-128, 0, 0, 0]),
        ("shift_right", np.int8, ([-128, -128, 64, 64], [7, 8, 6, -1]), [-1, -1, 1, 0]),
        ("shift_right", np.uint8, ([255, 255], [7, 8]), [1, 0]),
        ("maximum", np.float64, ([np.nan, 1.0], [1.0, np.nan]), [np.nan, np.nan]),
        ("maximum", np.bool_, ([True, False], [False, False]), [True, False]),
        ("round", np.float64, ([0.5, 1.5, -0.5, 2.5],), [0.0, 2.0, -0.0, 2.0]),
        ("sign", np.float64, ([-0.0, np.nan, -3.0],), [0.0, np.nan, -1.0]),
        ("rsqrt", np.float64, ([0.0, np.inf, -1.0],), [np.inf, 0.0, np.nan]),
    ],
)
def test_exact_values(op, dtype, args, expected):
    (got,) = run(op, *(np.array(a, dtype) for a in args))
    np.testing.assert_array_equal(got, np.array(expected, got.dtype))


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1.9, -1.9, np.nan, 1e9, -np.inf], i8, [1, -1, 0, 127, -128]),
        ([-5.0, 255.9, 256.0], u8, [0, 255, 255]),
        ([2.0**63, -(2.0**70), np.inf], i64, [I64_MAX, -(2**63), I64_MAX]),
        ([2.0**64, -1.0], u64, [2**64 - 1, 0]),
        ([0.0, -0.0, np.nan, 0.1], bool_, [False, False, True, True]),
        (np.array([300, -1]), u8, [44, 255]),
        (np.array([2, 0]), bool_, [True, False]),
        (np.array([True, False]), f32, [1.0, 0.0]),
    ],
)
def test_casts_truncate_saturate_and_wrap(values, dtype, expected):
    (got,) = run("cast", np.asarray(values), dtype=dtype)
    np.testing.assert_array_equal(got, np.array(expected, computed(dtype)))


def test_bitcast_reads_the_stored_bits():
    (bits,) = run("bitcast", np.array([1.0, -0.0]), dtype=u32)
    assert list(bits) == [0x3F800000, 0x80000000]
    (back,) = run("bitcast", bits, dtype=f32)
    np.testing.assert_array_equal(back, [1.0, -0.0])


@pytest.mark.parametrize(("name", "expected"), [("sum", 0), ("prod", 1), ("max", -np.inf), ("min", np.inf)])  # fmt: skip
def test_reductions_of_nothing(name, expected):
    (got,) = run(f"reduce_{name}", np.zeros((2, 0)), axes=(1,))
    np.testing.assert_array_equal(got, [expected] * 2)


def test_integer_reductions_wrap_in_their_own_dtype():
    (got,) = run("reduce_sum", np.array([100, 100], np.int8), axes=(0,))
    assert (got.dtype, got.item()) == (np.int8, -56)
    (least,) = run("reduce_max", np.zeros((0,), np.int8), axes=(0,))
    assert least == -128


def test_contract_of_nothing_is_zero_and_integers_wrap():
    attrs = {"batch_a": (), "batch_b": (), "over_a": (1,), "over_b": (0,)}
    (got,) = run("contract", np.ones((2, 0)), np.ones((0, 3)), **attrs)
    np.testing.assert_array_equal(got, np.zeros((2, 3)))
    (got,) = run("contract", np.full((1, 2), 100, np.int8), np.full((2, 1), 1, np.int8), **attrs)
    assert (got.dtype, got.item()) == (np.int8, -56)


def test_contract_is_einsum():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(5, 6, 2, 3))
    attrs = {"batch_a": (1, 0), "batch_b": (3, 2), "over_a": (3,), "over_b": (0,)}
    (got,) = run("contract", a, b, **attrs)
    np.testing.assert_allclose(got, np.einsum("cbmk,kncb->bcmn", a, b))


def test_gather_clamps_and_scatter_drops():
    x, indices = np.arange(3.0), np.array([[-1], [2], [9]])
    (got,) = run("gather", x, indices, batch=0)
    np.testing.assert_array_equal(got, [0.0, 2.0, 2.0])
    (got,) = run("scatter", x, indices, np.array([10.0, 20.0, 30.0]), batch=0, reduce="add")
    np.testing.assert_array_equal(got, [0.0, 1.0, 22.0])
    (got,) = run("scatter", x, np.array([[1], [1]]), np.array([1.0, 2.0]), batch=0, reduce="add")
    np.testing.assert_array_equal(got, [0.0, 4.0, 2.0])


def test_gather_from_nothing_is_zero():
    (got,) = run("gather", np.zeros((0, 2)), np.array([[0], [5]]), batch=0)
    np.testing.assert_array_equal(got, np.zeros((2, 2)))


def test_constants_are_stored_bytes():
    data = np.array([0x3F80, 0xC000], "<u2").tobytes()
    (got,) = run("constant", data=data, dtype=bf16, shape=(2,))
    np.testing.assert_array_equal(got, [1.0, -2.0])


PHILOX = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text):
    return tuple(int(w, 16) for w in text.split())


@pytest.mark.parametrize(("counter", "key", "expected"), PHILOX)
def test_philox_known_answers(counter, key, expected):
    """The vectors that the authors of Philox publish with Random123."""
    assert tuple(map(int, philox(words(counter), words(key)))) == words(expected)


def test_random_bits_place_seed_step_and_site_in_counter_and_key():
    seed, step = np.array(0x299F31D0_A4093822), np.array(0x13198A2E)
    (got,) = run("random_bits", seed, step, site=0x03707344, shape=(2, 3))
    expected = [
        int(philox((i, 0, 0x13198A2E, 0x03707344), words(PHILOX[2][1]))[0]) for i in range(6)
    ]
    assert list(got.ravel()) == expected


# ---- types

N, M = dim("n"), dim("m", min=1, max=64)


def t(dtype, *shape):
    return TensorType(dtype, shape)


@pytest.mark.parametrize(
    ("op", "types", "attrs", "expected"),
    [
        ("add", [t(f32, N, 4)] * 2, {}, "f32[n, 4]"),
        ("lt", [t(bf16, N)] * 2, {}, "bool[n]"),
        ("select", [t(bool_, N), t(i8, N), t(i8, N)], {}, "i8[n]"),
        ("cast", [t(f32, N)], {"dtype": f16}, "f16[n]"),
        ("broadcast", [t(f32, N)], {"shape": (M, N, 3), "axes": (1,)}, "f32[m, n, 3]"),
        ("reshape", [t(f32, N, 2, 3)], {"shape": (2 * N, 3)}, "f32[2*n, 3]"),
        ("reshape", [t(f32, N, M)], {"shape": (M * N,)}, "f32[m*n]"),
        ("transpose", [t(f32, N, 3, M)], {"axes": (2, 0, 1)}, "f32[m, n, 3]"),
        ("slice", [t(f32, M)], {"starts": (1,), "limits": (M,), "steps": (1,)}, "f32[m - 1]"),
        ("slice", [t(f32, N)], {"starts": (0,), "limits": (N,), "steps": (2,)}, "f32[(n + 1)//2]"),
        ("slice", [t(f32, 2 * N)], {"starts": (0,), "limits": (2 * N,), "steps": (2,)}, "f32[n]"),
        ("pad", [t(f32, N), t(f32)], {"low": (1,), "high": (M,), "interior": (0,)}, "f32[m + n + 1]"),
        ("pad", [t(f32, M), t(f32)], {"low": (0,), "high": (0,), "interior": (1,)}, "f32[2*m - 1]"),
        ("concatenate", [t(f32, N, 2), t(f32, 3, 2), t(f32, N, 2)], {"axis": 0}, "f32[2*n + 3, 2]"),
        ("reduce_max", [t(f32, N, 3, M)], {"axes": (0, 1)}, "f32[m]"),
        ("contract", [t(f32, M, N, 3), t(f32, M, 5, 3)], {"batch_a": (0,), "batch_b": (0,), "over_a": (2,), "over_b": (2,)}, "f32[m, n, 5]"),
        ("gather", [t(f32, N, M, 8), t(i32, N, 5, 1)], {"batch": 1}, "f32[n, 5, 8]"),
        ("scatter", [t(f32, M, 8), t(i64, N, 1), t(f32, N, 8)], {"batch": 0, "reduce": "add"}, "f32[m, 8]"),
        ("full", [], {"value": N, "dtype": f32, "shape": (N,)}, "f32[n]"),
        ("full", [], {"value": M, "dtype": i8, "shape": ()}, "i8[]"),
        ("iota", [], {"dtype": i32, "shape": (N, M), "axis": 1}, "i32[n, m]"),
        ("random_bits", [t(i64), t(i64)], {"site": 0, "shape": (N, 3)}, "u32[n, 3]"),
    ],
)  # fmt: skip
def test_symbolic_sizes(op, types, attrs, expected):
    (got,) = infer(op, tuple(types), attrs)
    assert str(got) == str(expected)


@pytest.mark.parametrize(
    ("op", "types", "attrs", "error", "summary"),
    [
        ("add", [t(f32, 2), t(f32, 3)], {}, ShapeError, "add: operand 1 does not match operand 0"),
        ("add", [t(f32, N), t(f32, M)], {}, ShapeError, "add: operand 1 does not match operand 0"),
        ("add", [t(f32, 2), t(f64, 2)], {}, DTypeError, "add: operand 1 does not match operand 0"),
        ("add", [t(bool_, 2)] * 2, {}, DTypeError, "add does not take bool"),
        ("add", [t(f32, 2)], {}, ShapeError, "add takes 2 operands"),
        ("exp", [t(i32, 2)], {}, DTypeError, "exp does not take i32"),
        ("exp", [t(f32, 2)], {"axis": 1}, ShapeError, "exp: these are not its operands and attributes"),
        ("cast", [t(f32, 2)], {}, ShapeError, "cast: these are not its operands and attributes"),
        ("cast", [t(f32, 2)], {"dtype": "f32"}, DTypeError, "cast: attribute dtype is not a dtype"),
        ("bitcast", [t(f32, 2)], {"dtype": i64}, DTypeError, "bitcast between different widths"),
        ("bitcast", [t(bf16, 2)], {"dtype": DTYPES["u16"]}, DTypeError, "bitcast does not take bf16"),
        ("select", [t(f32, 2)] * 3, {}, DTypeError, "select does not take f32"),
        ("select", [t(bool_, 3), t(f32, 2), t(f32, 2)], {}, ShapeError, "select: operand 1 does not match operand 0"),
        ("broadcast", [t(f32, 2)], {"shape": (3, 3), "axes": (0,)}, ShapeError, "broadcast: sizes differ where the input's axes go"),
        ("broadcast", [t(f32, 2, 2)], {"shape": (2, 2), "axes": (1, 0)}, ShapeError, "broadcast: axes must be distinct in increasing order"),
        ("broadcast", [t(f32, 2)], {"shape": (2, -1), "axes": (0,)}, ShapeError, "broadcast: size >= 0 does not hold"),
        ("reshape", [t(f32, N)], {"shape": (2, N // 2)}, ShapeError, "reshape changes the number of elements"),
        ("transpose", [t(f32, 2, 3)], {"axes": (0, 0)}, ShapeError, "transpose: axes must be distinct"),
        ("transpose", [t(f32, 2, 3)], {"axes": (0,)}, ShapeError, "transpose: axes needs one entry per axis"),
        ("reverse", [t(f32, 2)], {"axes": (1,)}, ShapeError, "reverse: axes is out of range"),
        ("slice", [t(f32, N)], {"starts": (0,), "limits": (4,), "steps": (1,)}, ShapeError, "slice: size of axis 0 of f32[n] >= 4 cannot be proven on the whole range"),
        ("slice", [t(f32, 3)], {"starts": (0,), "limits": (4,), "steps": (1,)}, ShapeError, "slice: size of axis 0 of f32[3] >= 4 does not hold"),
        ("slice", [t(f32, 3)], {"starts": (2,), "limits": (1,), "steps": (1,)}, ShapeError, "slice: limit of axis 0 >= 2 does not hold"),
        ("slice", [t(f32, 3)], {"starts": (0,), "limits": (1,), "steps": (0,)}, ShapeError, "slice: step of axis 0 >= 1 does not hold"),
        ("slice", [t(f32, 3)], {"starts": 0, "limits": (1,), "steps": (1,)}, ShapeError, "slice: starts needs one entry per axis"),
        ("pad", [t(f32, 3), t(f64)], {"low": (0,), "high": (0,), "interior": (0,)}, DTypeError, "pad: the value must be a scalar of the input's dtype"),
        ("pad", [t(f32, 3), t(f32)], {"low": (-1,), "high": (0,), "interior": (0,)}, ShapeError, "pad: low of axis 0 >= 0 does not hold"),
        ("concatenate", [], {"axis": 0}, ShapeError, "concatenate takes at least one operand"),
        ("concatenate", [t(f32, 2, 3), t(f32, 2, 4)], {"axis": 0}, ShapeError, "concatenate: operand 1 does not match operand 0 beside axis 0"),
        ("concatenate", [t(f32, 2), t(i32, 2)], {"axis": 0}, DTypeError, "concatenate: operand 1 does not match operand 0 beside axis 0"),
        ("reduce_sum", [t(bool_, 2)], {"axes": (0,)}, DTypeError, "reduce_sum does not take bool"),
        ("reduce_and", [t(f32, 2)], {"axes": (0,)}, DTypeError, "reduce_and does not take f32"),
        ("reduce_sum", [t(f32, 2)], {"axes": (0, 0)}, ShapeError, "reduce_sum: axes must be distinct in increasing order"),
        ("reduce_sum", [t(f32, 2)], {"axes": (-1,)}, ShapeError, "reduce_sum: axes is out of range"),
        ("contract", [t(f32, 2, 3), t(f32, 2, 4)], {"batch_a": (), "batch_b": (), "over_a": (1,), "over_b": (1,)}, ShapeError, "contract: over axes differ: f32[2, 3] by f32[2, 4]"),
        ("contract", [t(f32, 2), t(f64, 2)], {"batch_a": (), "batch_b": (), "over_a": (0,), "over_b": (0,)}, DTypeError, "contract: operands differ in dtype"),
        ("gather", [t(f32, 4), t(f32, 2, 1)], {"batch": 0}, DTypeError, "gather does not take f32"),
        ("gather", [t(f32, 4), t(u64, 2, 1)], {"batch": 0}, DTypeError, "gather does not take u64 indices"),
        ("gather", [t(f32, 4), t(i32, 2, 2)], {"batch": 0}, ShapeError, "gather: the last axis of the indices selects along the axes of f32[4]"),
        ("gather", [t(f32, 4, 5), t(i32, 3, 1)], {"batch": 1}, ShapeError, "gather: batch axes differ"),
        ("gather", [t(f32, 4), t(i32, 4)], {"batch": 1}, ShapeError, "gather: batch is out of range"),
        ("scatter", [t(f32, 4), t(i32, 2, 1), t(f32, 3)], {"batch": 0, "reduce": "add"}, ShapeError, "scatter: the updates do not fit"),
        ("full", [], {"value": 300, "dtype": u8, "shape": ()}, DTypeError, "full: not a number of u8"),
        ("full", [], {"value": N, "dtype": i32, "shape": ()}, DTypeError, "full: not a number of i32"),
        ("full", [], {"value": 1, "dtype": bool_, "shape": ()}, DTypeError, "full: not a number of bool"),
        ("full", [], {"value": 1.0, "dtype": f32, "shape": 3}, ShapeError, "full: shape must be a tuple of sizes"),
        ("constant", [], {"data": b"123", "dtype": f32, "shape": (1,)}, ShapeError, "constant: the data does not fill the shape"),
        ("iota", [], {"dtype": bool_, "shape": (2,), "axis": 0}, DTypeError, "iota does not take bool"),
        ("random_bits", [t(i64), t(i32)], {"site": 0, "shape": ()}, DTypeError, "random_bits: step must be a scalar"),
        ("random_bits", [t(i64), t(i64)], {"site": -1, "shape": ()}, ShapeError, "random_bits: site must be a number of 32 bits"),
        ("nonsense", [], {}, FluxcError, "unknown operation 'nonsense'"),
    ],
)  # fmt: skip
def test_type_errors_say_what_is_wrong(op, types, attrs, error, summary):
    with pytest.raises(error) as caught:
        infer(op, tuple(types), attrs)
    assert caught.value.summary == summary


def test_a_type_error_shows_both_sides_and_a_hint():
    with pytest.raises(ShapeError) as caught:
        infer("mul", (t(f32, N), t(f32, 3)), {})
    assert str(caught.value) == (
        "mul: operand 1 does not match operand 0\n"
        "  expected: f32[n]\n"
        "  got:      f32[3]\n"
        "  hint:     graph IR never broadcasts implicitly; insert broadcast(x) {shape, axes}"
    )


def test_the_scalar_protocol_has_every_method_that_bodies_call():
    """A back end that implements the protocol can run every body."""
    from fluxc.compiler.ops.scalar import Scalar

    called = set()

    class Spy(Plain):
        def __getattr__(self, name):
            called.add(name)
            return super().__getattr__(name)

        def _apply(self, op, *others, **attrs):
            return Spy(super()._apply(op, *others, **attrs).array)

        def like(self, number):
            return Spy(super().like(number).array)

    for op in OPS.values():
        if op.elementwise:
            arrays, attrs, _ = sample(op)
            op.scalar(*map(Spy, arrays), **attrs)
    assert len(called) > 40
    assert called <= set(dir(Scalar))
