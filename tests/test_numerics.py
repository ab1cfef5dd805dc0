"""Emitted functions against wider arithmetic, over the whole range of their arguments.

The complete sweep is benchmarks/numerics.py; a sample of it shows an error of a formula here.
"""

import numpy as np
import pytest
from llvm_harness import BASELINE, HOST, build
from ulp import FUNCTIONS, drawn, every, ulps

from fluxc.compiler.ir.types import f32, f64

LIMIT = 4.0
LANES = {f32: 16, f64: 8}
WIDE = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="no wider float than f64 here")
UNARY = [name for name, f in FUNCTIONS.items() if f.arity == 1]


@pytest.mark.parametrize("name", UNARY)
def test_f32_over_all_bit_patterns(name):
    """Any float32, denormals, infinities and NaN included, is within the stated error."""
    error, at = ulps(name, f32, 16, [every(40009, start=len(name))])

    assert error <= LIMIT, f"{name}{at}: {error} ulp"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_f32_near_special_values(name):
    """Infinities, NaN, signed zeros, whole numbers and values about 1 are within the error."""
    function = FUNCTIONS[name]

    error, at = ulps(name, f32, 16, drawn(function, f32, 10_000))

    assert error <= LIMIT, f"{name}{at}: {error} ulp"


@WIDE
@pytest.mark.parametrize("name", FUNCTIONS)
def test_f64(name):
    """The same for float64, against long double."""
    error, at = ulps(name, f64, 8, drawn(FUNCTIONS[name], f64, 10_000))

    assert error <= LIMIT, f"{name}{at}: {error} ulp"


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_bare_machine(name, dtype):
    """Without fused multiply-add and rounding instructions: as good, and no library calls."""
    if dtype == f64 and np.finfo(np.longdouble).nmant < 63:
        pytest.skip("no wider float than f64 here")
    if not HOST.triple.startswith("x86_64"):
        pytest.skip("the bare machine here is an x86-64 without extensions")

    error, at = ulps(name, dtype, 4, drawn(FUNCTIONS[name], dtype, 3000), BASELINE)

    assert error <= LIMIT, f"{name}{at}: {error} ulp"
    assert _undefined(name, dtype, 4, BASELINE) == set()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vectors_and_numbers_agree(name):
    """A number, a short vector and a long one give the same bits."""
    function = FUNCTIONS[name]
    arguments = drawn(function, f32, 500)
    results = [
        build(function.body, (f32,) * function.arity, f32, lanes).call(*arguments)
        for lanes in (1, 4, 16)
    ]

    assert all(np.array_equal(results[0], r, equal_nan=True) for r in results[1:])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_library(name):
    """The object needs nothing from outside."""
    for dtype, lanes in LANES.items():
        assert _undefined(name, dtype, lanes, HOST) == set()


def _undefined(name, dtype, lanes, target):
    function = FUNCTIONS[name]
    return build(function.body, (dtype,) * function.arity, dtype, lanes, target).undefined
