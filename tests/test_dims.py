"""Sizes: one canonical form, arithmetic that agrees with integers, bounds, text that reads back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.dims import (
    Dim,
    Symbol,
    ceildiv,
    dim,
    evaluate_size,
    exact_quotient,
    floordiv,
    is_at_least,
    is_multiple_of,
    largest,
    parse_size,
    size_bounds,
    size_symbols,
    smallest,
    symbol_size,
)

SYMBOLS = {
    s.name: s
    for s in (
        Symbol("n"),
        Symbol("batch", 1, 64),
        Symbol("k", 8, 96, 8),
        Symbol("m", 0, 5),
    )
}
values = st.fixed_dictionaries(
    {
        "n": st.integers(0, 1000),
        "batch": st.integers(1, 64),
        "k": st.integers(1, 12).map(lambda i: 8 * i),
        "m": st.integers(0, 5),
    }
)


class Both:
    """A size and, beside it, what it must evaluate to: a function of the symbols' values."""

    def __init__(self, size, number):
        self.size, self.number = size, number


def combine(symbolic, numeric):
    return lambda xy: Both(
        symbolic(xy[0].size, xy[1].size), lambda v: numeric(xy[0].number(v), xy[1].number(v))
    )


leaves = st.one_of(
    st.integers(-4, 9).map(lambda i: Both(i, lambda _: i)),
    st.sampled_from(sorted(SYMBOLS)).map(
        lambda name: Both(symbol_size(SYMBOLS[name]), lambda v: v[name])
    ),
)
divisors = st.one_of(
    st.integers(1, 9).map(lambda i: Both(i, lambda _: i)),
    st.sampled_from(["batch", "k"]).map(
        lambda name: Both(symbol_size(SYMBOLS[name]), lambda v: v[name])
    ),
)


def grown(sizes):
    pairs, quotients = st.tuples(sizes, sizes), st.tuples(sizes, divisors)
    return st.one_of(
        pairs.map(combine(lambda x, y: x + y, lambda x, y: x + y)),
        pairs.map(combine(lambda x, y: x - y, lambda x, y: x - y)),
        pairs.map(combine(lambda x, y: x * y, lambda x, y: x * y)),
        pairs.map(combine(largest, max)),
        pairs.map(combine(smallest, min)),
        quotients.map(combine(floordiv, lambda x, y: x // y)),
        quotients.map(combine(ceildiv, lambda x, y: -(-x // y))),
        quotients.map(combine(lambda x, y: x % y, lambda x, y: x % y)),
    )


sizes = st.recursive(leaves, grown, max_leaves=6)
property_test = settings(max_examples=200, deadline=None)


@property_test
@given(sizes, values)
def test_a_size_evaluates_to_what_its_arithmetic_says(pair, v):
    assert evaluate_size(pair.size, v) == pair.number(v)


@property_test
@given(sizes)
def test_the_text_of_a_size_reads_back_as_the_size(pair):
    assert parse_size(str(pair.size), SYMBOLS) == pair.size


@property_test
@given(sizes, values)
def test_a_size_lies_within_its_bounds(pair, v):
    low, high = size_bounds(pair.size)
    assert not math.isnan(low)
    assert not math.isnan(high)
    assert low <= evaluate_size(pair.size, v) <= high


@property_test
@given(sizes, sizes, values)
def test_what_is_proven_holds(x, y, v):
    number = evaluate_size(x.size, v)
    assert not is_at_least(x.size, y.size) or number >= evaluate_size(y.size, v)
    for factor in (2, 3, 8):
        assert not is_multiple_of(x.size, factor) or number % factor == 0


@property_test
@given(sizes, sizes, sizes)
def test_equal_polynomials_are_equal_objects(x, y, z):
    x, y, z = x.size, y.size, z.size
    assert x * (y + z) == z * x + x * y
    assert hash(x + y) == hash(y + x)
    assert x - x == 0


@property_test
@given(sizes, sizes)
def test_a_product_divides_exactly(x, y):
    if y.size != 0:
        quotient = exact_quotient(x.size * y.size, y.size)
        assert quotient is None or quotient * y.size == x.size * y.size
    for factor in (3, symbol_size(SYMBOLS["k"])):
        assert exact_quotient(x.size * factor, factor) == x.size


def test_arithmetic_is_readable():
    n, m = dim("n"), dim("m")
    assert str(2 * (n + 1)) == "2*n + 2"
    assert str(n * m - n) == "m*n - n"
    assert str(n // 2) == "n//2"
    assert str(3 * (n // 2) * m) == "3*m*(n//2)"
    assert str(-(n // 2)) == "-(n//2)"
    assert str(largest(n - 1, 0) + 1) == "max(0, n - 1) + 1"
    assert str(ceildiv(n, 4)) == "(n + 3)//4"
    assert str((n // 2) // 3) == "(n//2)//3"
    assert str(7 // n) == "7//n"
    assert str(7 % n) == "-(7//n)*n + 7"


def test_constants_are_integers():
    n = dim("n")
    assert n - n == 0
    assert isinstance((n + 3) - n, int)
    assert dim("one", min=4, max=4) == 4


def test_division_uses_what_the_ranges_say():
    n, k = dim("n"), dim("k", max=7)
    assert floordiv(8 * n + 3, 8) == n
    assert floordiv(8 * n + k, 8) == n
    assert floordiv(6 * n * n, 2 * n) == 3 * n
    assert floordiv(n * n + 2 * n + 1, n + 1) == n + 1
    assert isinstance(floordiv(n + 1, 2), Dim)


def test_bounds_of_large_sizes_are_exact():
    n = dim("n", min=2**60 + 1)
    assert size_bounds(n)[0] == 2**60 + 1
    assert is_at_least(n, 2**60 + 1)
    assert not is_at_least(n, 2**60 + 2)


def test_bounds_of_a_quotient_that_may_be_of_zero_are_open_and_not_nan():
    n, m = dim("n"), dim("m")
    assert size_bounds((5 // n) // 3) == (-math.inf, math.inf)
    assert size_bounds((5 // n) * m) == (-math.inf, math.inf)


def test_a_range_may_be_decided_at_its_multiple():
    assert size_bounds(dim("b", min=1, max=30, multiple_of=8)) == (8, 24)
    assert is_multiple_of(dim("b", multiple_of=8) * dim("n") + 16, 8)
    assert not is_multiple_of(dim("b", multiple_of=8) + 4, 8)


def test_symbols_are_found_inside_opaque_sizes():
    n, m = dim("n"), dim("m", max=3)
    assert {s.name for s in size_symbols(largest(n // 3, m) * 2)} == {"n", "m"}


@pytest.mark.parametrize(
    "text", ["", "n +", "n / 2", "n ** 2", "2.5", "True", "f(n)", "n.m", "n//0", "max(n)"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("name", ["", "2n", "a b", "lambda", "größe"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="identifier"):
        dim(name)


@pytest.mark.parametrize(
    "range",
    [{"min": -1}, {"min": 5, "max": 4}, {"min": 1, "max": 7, "multiple_of": 8}, {"multiple_of": 0}],
)
def test_an_empty_range_is_refused(range):
    with pytest.raises(ValueError, match="no legal size"):
        dim("n", **range)


def test_division_by_zero_is_refused():
    with pytest.raises(ZeroDivisionError):
        floordiv(dim("n"), 0)


def test_proofs_look_inside_quotients_maxima_and_minima():
    n, m = dim("n"), dim("m", min=1)
    half = floordiv(n + 1, 2)
    assert is_at_least(n, half)
    assert is_at_least(2 * half, n)
    assert is_at_least(n + 1, 2 * half)
    assert is_at_least(n - half, largest(half - 1, 0))  # the room behind every second element
    assert is_at_least(m - floordiv(m, 2), 1)
    assert is_at_least(half * m, half)  # as many again for each of a batch
    assert not is_at_least(n - half, half)
    assert not is_at_least(half, 1)


def test_exact_quotients_cancel():
    """What a multiple says about a quotient is used in both directions."""
    rows, n = dim("rows", min=8, max=64, multiple_of=8), dim("n")
    assert 8 * (rows // 8) == rows
    assert 24 * floordiv(3 * rows, 24) == 3 * rows
    assert str(floordiv(3 * rows, 24)) == "rows//8"
    assert 8 * (n // 8) != n
    assert (rows // 8) * 16 + 3 == 2 * rows + 3
    assert parse_size(str(rows // 8), {"rows": Symbol("rows", 8, 64, 8)}) == rows // 8


def test_order_is_known_where_ranges_decide_it():
    """`<` and truth of a size answer for every value of its range, or not at all."""
    rows, n = dim("rows", min=8, max=64), dim("n")
    assert rows > 7
    assert rows < 65
    assert rows <= 64
    assert not rows < 8
    assert n >= 0
    assert n + 1 > n
    assert bool(rows)
    for question in (lambda: n > 3, lambda: rows < 9, lambda: bool(n), lambda: n >= rows):
        with pytest.raises(ShapeError, match="known only when the program runs"):
            question()


def test_sizes_meet_integers_alone():
    """Other operands are left to their own operators."""
    n = dim("n")
    assert n * np.int64(2) == 2 * n
    for wrong in (lambda: n * 0.5, lambda: 1 / n, lambda: n + "m"):
        with pytest.raises(TypeError, match="unsupported operand"):
            wrong()


def test_products_of_sizes_are_compared():
    """A factor that is never negative keeps the order of what it multiplies."""
    n, batch = dim("n"), dim("batch", min=1)
    rows = floordiv(n + 1, 2)
    assert is_at_least(n * batch, n)
    assert is_at_least(rows * batch - rows, 0)
    assert not is_at_least(n * batch, n + 1)
