"""The interpreter: sizes from shapes, sizes in attributes, sub-graphs, storage formats."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.interp import bind_sizes, evaluate, round_to, widen
from fluxc.compiler.ir.parser import parse_graph
from fluxc.compiler.ir.types import DTYPES, TensorType, bf16, f16, f32, f64, i8
from fluxc.compiler.ops import OPS

MEAN = parse_graph("""
graph @mean(%x: f32[batch, n]) where batch in 1..8 {
  %sum: f32[n] = reduce_sum(%x) {axes = (0,)}
  %count: f32[n] = full() {dtype = f32, shape = (n,), value = batch}
  %mean: f32[n] = div(%sum, %count)
  return %mean, %sum
}""")


def test_sizes_come_from_the_shapes_of_the_arguments():
    x = np.arange(6.0).reshape(3, 2)
    mean, total = evaluate(MEAN, x, ops=OPS)
    np.testing.assert_array_equal(mean, [2, 3])
    np.testing.assert_array_equal(total, [6, 9])


def test_floats_are_computed_in_float64():
    (result, _) = evaluate(MEAN, np.ones((3, 1), np.float32), ops=OPS)
    assert result.dtype == np.float64


def test_a_sub_graph_is_a_function():
    rng = np.random.default_rng(0)
    g = parse_graph("""
    graph @g(%x: f32[n]) {
      %y: f32[n] = custom_vjp(%x) {
        body = graph @b(%x: f32[n]) {
          %c: f32[n] = full() {dtype = f32, shape = (n,), value = n}
          %y: f32[n] = mul(%x, %c) return %y },
        backward = graph @d(%x: f32[n], %y: f32[n], %dy: f32[n]) { return %dy }}
      return %y }""")
    x = rng.normal(size=5)
    np.testing.assert_array_equal(evaluate(g, x, ops=OPS)[0], 5 * x)


def test_sizes_that_no_shape_tells_are_given():
    g = parse_graph(
        "graph @g() { %x: i32[n] = iota() {dtype = i32, shape = (n,), axis = 0} return %x }"
    )
    np.testing.assert_array_equal(evaluate(g, ops=OPS, sizes={"n": 3})[0], [0, 1, 2])


WRONG_CALLS = [
    ("wrong number of arguments", ()),
    ("wrong rank", (np.ones(3),)),
    ("batch is out of its range", (np.ones((9, 2)),)),
]


@pytest.mark.parametrize(("message", "args"), WRONG_CALLS, ids=[w[0] for w in WRONG_CALLS])
def test_wrong_arguments_are_refused(message, args):
    with pytest.raises(ShapeError, match=message):
        evaluate(MEAN, *args, ops=OPS)


# parameter types, shapes, the sizes that follow or the refusal
BINDINGS = [
    ("%x: f32[n], %y: f32[n, 2]", [(3,), (3, 2)], {"n": 3}),
    ("%x: f32[2*n + 1]", [(7,)], {"n": 3}),
    ("%x: f32[n*m], %y: f32[m]", [(6,), (2,)], {"n": 3, "m": 2}),
    ("%x: f32[n//2], %y: f32[n]", [(3,), (7,)], {"n": 7}),
    ("%x: f32[n], %y: f32[n]", [(3,), (4,)], "wrong size"),
    ("%x: f32[2*n]", [(7,)], "do not determine n"),
    ("%x: f32[n//2]", [(3,)], "do not determine n"),
    ("%x: f32[n + 5]", [(3,)], "out of its range"),
    ("%x: f32[4]", [(3,)], "wrong size"),
]


@pytest.mark.parametrize(("params", "shapes", "expected"), BINDINGS, ids=[b[0] for b in BINDINGS])
def test_sizes_are_solved_for(params, shapes, expected):
    types = [p.type for p in parse_graph(f"graph @g({params}) {{ return }}").params]
    if isinstance(expected, dict):
        assert bind_sizes(types, shapes) == expected
    else:
        with pytest.raises(ShapeError, match=expected):
            bind_sizes(types, shapes)


# ---- storage


def nearest_bf16(x):
    """By search over the two neighbours: the obvious definition."""
    upper = struct.unpack("<I", struct.pack("<f", np.float32(x)))[0] >> 16
    around = [u for u in (upper - 1, upper, upper + 1) if 0 <= u < 2**16 and (u & 0x7FFF) < 0x7F80]
    return min(around, key=lambda u: (abs(float(widen(np.uint16(u), bf16)) - x), u & 1))


@settings(max_examples=300, deadline=None)
@given(st.floats(-1e38, 1e38))
def test_bf16_rounds_to_nearest_and_ties_to_even(x):
    got = int(round_to(np.float64(x), bf16))
    if x != 0:
        assert got == nearest_bf16(x)


def test_bf16_at_its_edges():
    edges = [0.0, -0.0, math.inf, -math.inf, 2.0**-133, 2.0**-134, 1.5 * 2.0**-133, 3.4e38]
    want = [0.0, -0.0, math.inf, -math.inf, 2.0**-133, 0.0, 2.0**-132, math.inf]
    got = widen(round_to(np.array(edges), bf16), bf16)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want))
    assert np.isnan(widen(round_to(np.array([math.nan, -math.nan]), bf16), bf16)).all()


def test_bf16_is_rounded_once():
    """1 + 2**-8 + 2**-40 lies above a tie; by way of f32 it would become one."""
    assert widen(round_to(np.float64(1 + 2**-8 + 2**-40), bf16), bf16) == 1 + 2**-7


@pytest.mark.parametrize("name", DTYPES)
def test_what_is_stored_reads_back(name):
    dtype = DTYPES[name]
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2 if name == "bool" else 256, 512, dtype=np.uint8)
    stored = bits.astype(bool) if name == "bool" else bits.view(dtype.numpy)
    wide = widen(stored, dtype)
    assert wide.dtype == (np.float64 if dtype.is_float else dtype.numpy)
    again = round_to(wide, dtype)
    assert again.dtype == dtype.numpy
    numbers = ~np.isnan(wide) if dtype.is_float else slice(None)
    assert again[numbers].tobytes() == stored[numbers].tobytes()


ROUNDED = [(f32, 0.1, np.float32(0.1)), (f16, 1e6, np.inf), (f64, 0.1, 0.1), (i8, 3, 3)]


@pytest.mark.parametrize(("dtype", "number", "stored"), ROUNDED)
def test_numbers_are_rounded_to_the_dtype(dtype, number, stored):
    assert round_to(number, dtype) == stored
    assert round_to(np.full((2, 3), number), dtype).shape == TensorType(dtype, (2, 3)).shape
