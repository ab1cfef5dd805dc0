"""Arithmetic of `LlvmScalar`: integers exhaustively at 8 bits, casts of all pairs of dtypes."""

import itertools
import math

import numpy as np
import pytest
from llvm_harness import BASELINE, HOST, build

from fluxc.compiler.backends.llvm.scalar import LlvmScalar, number
from fluxc.compiler.ir.types import (
    DTYPES,
    bf16,
    bool_,
    f16,
    f32,
    f64,
    i8,
    i32,
    i64,
    u8,
    u16,
    u32,
)

MACHINES = [HOST, BASELINE] if HOST.triple.startswith("x86_64") else [HOST]
machines = pytest.mark.parametrize("machine", MACHINES, ids=["host", "bare"][: len(MACHINES)])
FLOATS = [d for d in DTYPES.values() if d.is_float]
INTEGERS = [d for d in DTYPES.values() if d.is_integer]


def run(body, inputs, output, *arrays, lanes=4, machine=HOST):
    """The body over the arrays; its object needs nothing from outside."""
    compiled = build(body, inputs, output, lanes, machine)
    assert compiled.undefined == set()
    return compiled.call(*arrays)


def wrap(value, dtype):
    value &= (1 << dtype.bits) - 1
    return value - (1 << dtype.bits) if dtype.kind == "i" and value >> dtype.bits - 1 else value


def power(x, y, bits):
    if y >= 0:
        return pow(x, y, 1 << bits)
    return x if x == 1 or (x == -1 and y % 2) else int(x == -1)


def shift_left(x, y, bits):
    return x << y if 0 <= y < bits else 0


def shift_right(x, y, bits):
    return x >> y if 0 <= y < bits else -(x < 0)


BYTES = {
    "add": (lambda x, y: x + y, lambda x, y: x + y),
    "sub": (lambda x, y: x - y, lambda x, y: x - y),
    "mul": (lambda x, y: x * y, lambda x, y: x * y),
    "floor_div": (LlvmScalar.floor_div, lambda x, y: x // y if y else 0),
    "mod": (LlvmScalar.mod, lambda x, y: x % y if y else 0),
    "fmod": (LlvmScalar.fmod, lambda x, y: int(math.fmod(x, y)) if y else 0),
    "pow": (LlvmScalar.pow, lambda x, y: power(x, y, 8)),
    "shl": (LlvmScalar.shl, lambda x, y: shift_left(x, y, 8)),
    "shr": (LlvmScalar.shr, lambda x, y: shift_right(x, y, 8)),
    "maximum": (LlvmScalar.maximum, max),
    "minimum": (LlvmScalar.minimum, min),
    "and": (lambda x, y: x & y, lambda x, y: x & y),
    "or": (lambda x, y: x | y, lambda x, y: x | y),
    "xor": (lambda x, y: x ^ y, lambda x, y: x ^ y),
}


@pytest.mark.parametrize("dtype", [i8, u8], ids=str)
@pytest.mark.parametrize("name", BYTES)
def test_all_pairs_of_bytes(name, dtype):
    """Each of the 65536 pairs gives what Python's integers give, wrapped."""
    body, reference = BYTES[name]
    info = np.iinfo(dtype.numpy)
    numbers = range(int(info.min), int(info.max) + 1)
    pairs = list(itertools.product(numbers, numbers))
    x, y = (np.array(column, dtype.numpy) for column in zip(*pairs, strict=True))

    got = run(body, (dtype, dtype), dtype, x, y, lanes=16)

    assert got.tolist() == [wrap(reference(a, b), dtype) for a, b in pairs]


EXTREMES = [0, 1, 2, 3, 7, 31, 32, 63, 64, -1, -2, -7]


@pytest.mark.parametrize(("machine", "lanes"), [(HOST, 8), (MACHINES[-1], 1)], ids=["host", "bare"])
@pytest.mark.parametrize("dtype", [d for d in INTEGERS if d.bits > 8], ids=str)
def test_wide_integers_at_their_extremes(dtype, machine, lanes):
    """Division, powers and shifts of the smallest, the largest and small numbers."""
    info = np.iinfo(dtype.numpy)
    numbers = sorted({wrap(v, dtype) for v in [*EXTREMES, info.min, info.max, info.max - 1]})
    pairs = list(itertools.product(numbers, numbers))
    x, y = (np.array(column, dtype.numpy) for column in zip(*pairs, strict=True))
    cases = {
        "floor_div": lambda a, b: a // b if b else 0,
        "mod": lambda a, b: a % b if b else 0,
        "pow": lambda a, b: power(a, b, dtype.bits),
        "shl": lambda a, b: shift_left(a, b, dtype.bits),
        "shr": lambda a, b: shift_right(a, b, dtype.bits),
    }
    for name, reference in cases.items():
        body = getattr(LlvmScalar, name)
        got = run(body, (dtype, dtype), dtype, x, y, lanes=lanes, machine=machine)

        assert got.tolist() == [wrap(reference(a, b), dtype) for a, b in pairs], name


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("dtype", [i8, u8, i64, f32, f64, bool_], ids=str)
def test_comparisons(name, dtype):
    """Signed, unsigned and float order; every comparison with NaN is false but `ne`."""
    values = np.array([0, 1, 2, 100, 200, -1, -100], np.int64).astype(dtype.numpy)
    if dtype.is_float:
        values = np.concatenate([values, [np.nan, np.inf, -np.inf, -0.0]]).astype(dtype.numpy)
    x, y = (a.ravel() for a in np.meshgrid(values, values))
    numpy = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal",
             "gt": "greater", "ge": "greater_equal"}[name]  # fmt: skip

    got = run(getattr(LlvmScalar, name), (dtype, dtype), bool_, x, y)

    assert np.array_equal(got, getattr(np, numpy)(x, y))


@machines
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", ["floor", "ceil", "trunc", "round", "abs", "sign", "sqrt"])
def test_float_unary(name, dtype, machine):
    """NumPy's results bit for bit, the sign of zero included."""
    rng = np.random.default_rng(0)
    large = [2.0**22 + 0.5, 2.0**23 + 1, 2.0**51 + 0.5, 2.0**52 + 1, 1e30]
    values = np.concatenate([np.arange(-40, 41) / 8, rng.normal(size=500) * 1e3, large,
                             [np.inf, np.nan, -0.0, 0.49999999999999994]])  # fmt: skip
    x = np.concatenate([values, -values]).astype(dtype.numpy)

    got = run(lambda v: getattr(v, name)(), (dtype,), dtype, x, machine=machine)

    with np.errstate(invalid="ignore"):
        expected = getattr(np, name)(x)
    assert np.array_equal(got, expected, equal_nan=True)
    if name != "sign":  # NumPy has no -0.0 there
        assert np.array_equal(np.signbit(got), np.signbit(expected)) or name == "sqrt"


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", ["maximum", "minimum", "copysign"])
def test_float_binary(name, dtype):
    """NaN on either side propagates."""
    values = np.array([0.0, -0.0, 1, -1, 2.5, np.inf, -np.inf, np.nan], dtype.numpy)
    x, y = (a.ravel() for a in np.meshgrid(values, values))

    got = run(getattr(LlvmScalar, name), (dtype, dtype), dtype, x, y)

    assert np.array_equal(got, getattr(np, name)(x, y), equal_nan=True)


def test_numbers_beside_values():
    """Python numbers on both sides, a scalar beside a vector, and select by a scalar condition."""
    x = np.arange(10, dtype=np.float32)

    def body(v):
        two = number(v.b, v.dtype, 2.0)
        return v.gt(100.0).select(v, 1.0 - two * v / 4.0 + v.fma(two, 1.0))

    assert np.array_equal(run(body, (f32,), f32, x), (1 - 2 * x / 4) + (2 * x + 1))


# --- casts


def to_float(array, dtype):
    """Stored values as float64 (or, for wide integers, long double)."""
    if dtype == bf16:
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.longdouble)
    return array.astype(np.longdouble)


def to_bf16(wide):
    """Rounded to 8 bits, ties to even, or to multiples of 2**-133."""
    _, exponent = np.frexp(wide)
    last = np.maximum(exponent - 8, -133)
    rounded = np.ldexp(np.rint(np.ldexp(wide, -last)), last)
    return (rounded.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def samples(dtype):
    """Extremes and ordinary values of a dtype."""
    rng = np.random.default_rng(1)
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        few = [info.min, info.max, 0, 1, 2, 100, info.max // 2 + 1]
        return np.concatenate([np.array(few, dtype.numpy),
                               rng.integers(info.min, info.max, 99, dtype.numpy)])  # fmt: skip
    if dtype.bits == 16:
        return np.arange(65536, dtype=np.uint16).view(dtype.numpy)
    edges = [s * 2.0**e + d for e in (7, 8, 15, 16, 31, 32, 63, 64)
             for d in (-1, -0.5, 0, 0.5, 1) for s in (1, -1)]  # fmt: skip
    halves = np.arange(0x3C00, 0x7BFF, 37, dtype=np.uint16).view(np.float16).astype(np.float64)
    between = (halves[:-1] + halves[1:]) / 2
    tiny = np.ldexp(np.arange(1, 200), -26)
    values = [edges, between, np.nextafter(between, 0), tiny, rng.normal(size=99),
              [np.inf, -np.inf, np.nan, 0.0, -0.0, 0.99, -0.99, 65519.0, 65520.0]]  # fmt: skip
    return np.concatenate(values).astype(dtype.numpy)


def cast_reference(x, source, target):
    wide = to_float(x, source)
    if target.kind == "b":
        return wide != 0
    if target == bf16:
        return to_bf16(wide)
    if target.is_float:
        narrow = wide.astype(np.float64) if target == f16 else wide  # NumPy goes through float32
        return narrow.astype(target.numpy)
    if not source.is_float:
        return x.astype(target.numpy)
    info = np.iinfo(target.numpy)
    whole = [0 if np.isnan(v) else info.max if v >= 2.0**64 else info.min if v <= -(2.0**64)
             else min(max(int(v), int(info.min)), int(info.max)) for v in wide]  # fmt: skip
    return np.array(whole, target.numpy)


@machines
@pytest.mark.parametrize("source", DTYPES.values(), ids=str)
def test_casts(source, machine):
    """Every pair of dtypes: truncate, saturate, NaN to 0; 16-bit floats round once, to even."""
    x = samples(source)
    for target in DTYPES.values():
        got = run(lambda v, t=target: v.cast(t), (source,), target, x, lanes=8, machine=machine)

        with np.errstate(all="ignore"):
            expected = cast_reference(x, source, target)
            if target.is_float:
                got, expected = to_float(got, target), to_float(expected, target)
        assert np.array_equal(got, expected, equal_nan=target.is_float), target


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("pair", [(f32, u32), (f64, i64), (f16, u16), (bf16, u16), (bool_, u8)])
def test_bitcasts(pair, lanes):
    """There and back gives the same bits."""
    dtype, bits = pair
    x = samples(dtype)

    there = run(lambda v: v.bitcast(bits), (dtype,), bits, x, lanes=lanes)
    back = run(lambda v: v.bitcast(dtype), (bits,), dtype, there, lanes=lanes)

    assert there.tobytes() == x.view(bits.numpy).tobytes()
    assert back.tobytes() == x.tobytes()


def test_bool_algebra():
    """and, or, xor, not, maximum and minimum of bools."""
    x, y = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    cases = {
        (lambda a, b: a & b): x & y,
        (lambda a, b: a | b): x | y,
        (lambda a, b: a ^ b): x ^ y,
        (lambda a, b: ~a & b): ~x & y,
        LlvmScalar.maximum: x | y,
        LlvmScalar.minimum: x & y,
    }
    for body, expected in cases.items():
        assert np.array_equal(run(body, (bool_, bool_), bool_, x, y), expected)


def test_sixteen_bit_floats_do_not_compute():
    """f16 is storage: arithmetic on it is our own mistake, caught when emitting."""
    with pytest.raises(AssertionError, match="storage format"):
        build(lambda x: x + x, (f16,), f16)


def test_division_is_for_floats():
    """`/` of integers is our own mistake, caught when emitting."""
    with pytest.raises(AssertionError, match="floor_div"):
        build(lambda x: x / x, (i32,), i32)
