"""Index arithmetic and the text of kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluxc.compiler.ir.dims import dim, evaluate_size
from fluxc.compiler.ir.types import bool_, f32, i64
from fluxc.compiler.kernels.evaluate import _Grid, run_kernel
from fluxc.compiler.kernels.kernel import (
    Apply,
    Axis,
    Buffer,
    Const,
    Expressions,
    Nest,
    Pass,
    Reduction,
    Store,
    kernel_symbols,
    walk,
)
from fluxc.compiler.kernels.lower import STRUCTURED
from fluxc.compiler.kernels.printer import print_kernel
from fluxc.compiler.ops import OPS

n = dim("n", min=1)


def axes(k, *extents):
    made = [Axis(f"i{j}", e) for j, e in enumerate(extents)]
    return made, [k.index(a) for a in made]


def test_a_split_is_undone():
    k = Expressions()
    _, (i, j) = axes(k, 32, 64)
    line = k.add(k.mul(i, 64), j)

    assert k.floordiv(line, 64) is i
    assert k.mod(line, 64) is j


def test_a_line_that_is_split_and_joined_is_the_line():
    k = Expressions()
    _, (p,) = axes(k, 24 * n)

    for shape in [(n, 24), (n, 4, 6), (2, 3, 4 * n)]:
        assert k.flatten(k.unflatten(p, shape), shape) is p


def test_symbolic_extents_prove_bounds():
    k = Expressions()
    _, (i, j) = axes(k, 7, n)
    line = k.flatten((i, j), (7, n))

    assert k.unflatten(line, (7, n)) == (i, j)
    assert k.lt(j, n) is k.true
    assert k.lt(line, 7 * n) is k.true
    assert k.clamp(j, 0, n - 1) is j


def test_comparisons_that_ranges_decide_are_constants():
    k = Expressions()
    _, (i,) = axes(k, 32)

    assert k.ge(i, 0) is k.true
    assert k.lt(i, 0).value is False
    assert isinstance(k.lt(i, 31), Apply)
    assert k.both(None, k.true) is None
    assert k.select(k.true, i, 5) is i


def test_equal_expressions_are_one_object():
    k = Expressions()
    _, (i, j) = axes(k, 8, 9)

    assert k.add(i, j) is k.add(j, i)
    assert k.sub(k.add(i, j), j) is i
    assert k.apply("sin", k.const(1.0, f32)) is k.apply("sin", k.const(1.0, f32))
    assert k.const(0.0, f32) is not k.const(-0.0, f32)


def test_dtypes_follow_from_type_rules():
    k = Expressions()
    x = k.const(2.0, f32)

    assert k.apply("lt", x, x).dtype == bool_
    assert k.cast(k.const(3, i64), f32) == k.const(3.0, f32)


index_terms = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24])), max_size=4
)


@settings(deadline=None, max_examples=200)
@given(index_terms, st.integers(0, 40), st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(1, 7))
def test_simplified_arithmetic_means_the_same(terms, offset, by, then):
    k = Expressions()
    own, at = axes(k, 3, 4, 5)
    e = k.size(offset)
    for axis, factor in terms:
        e = k.add(e, k.mul(at[axis], factor))
    grid = _Grid(own, {}, {}, {})
    value = grid(e)

    np.testing.assert_array_equal(
        grid.full(k.floordiv(e, by)), np.broadcast_to(value // by, (3, 4, 5))
    )
    np.testing.assert_array_equal(grid.full(k.mod(e, by)), np.broadcast_to(value % by, (3, 4, 5)))
    nested = k.floordiv(k.mod(k.floordiv(e, then), by), 2)
    np.testing.assert_array_equal(
        grid.full(nested), np.broadcast_to(value // then % by // 2, (3, 4, 5))
    )
    low, high = k.bounds(e)
    assert low <= value.min()
    assert high >= value.max()


def row_sums(suffix=""):
    """Sums of the rows of a matrix, scaled."""
    k = Expressions()
    x, y = Buffer(f"x{suffix}", f32, (n, 6)), Buffer(f"y{suffix}", f32, (n,))
    row, column = Axis(f"r{suffix}", n), Axis(f"c{suffix}", 6)
    total = k.local(f"s{suffix}", f32)
    load = k.load(x, (k.index(row), k.index(column)))
    value = k.apply("mul", load, load)
    passes = (
        Pass((column,), (Reduction(total, "add", value),)),
        Pass((), (), (Store(y, (k.index(row),), k.apply("sqrt", total)),)),
    )
    return Nest("norms", (x, y), (row,), passes)


def test_text_is_canonical():
    expected = """\
nest norms(b0: f32[n, 6], b1: f32[n])
  sizes 1 <= n
  rows i0 < n
  pass i1 < 6
    x0 = b0[i0, i1]
    r0: f32 = add x0 * x0
  pass one point
    b1[i0] = sqrt(r0)"""

    assert print_kernel(row_sums()) == expected
    assert print_kernel(row_sums("_other")) == expected


def test_the_evaluator_runs_kernels():
    nest = row_sums()
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    y = np.zeros(2, np.float32)

    run_kernel(nest, dict(zip(nest.buffers, (x.reshape(-1), y), strict=True)), {"n": 2})

    np.testing.assert_allclose(y, np.linalg.norm(x, axis=1), rtol=1e-6)
    assert [s.name for s in kernel_symbols(nest)] == ["n"]


def test_deep_expressions_need_no_recursion():
    k = Expressions()
    e = k.const(0.5, f32)
    for _ in range(5000):
        e = k.apply("sin", e)

    assert len(walk(e)) == 5001
    assert _Grid((), {}, {}, {})(e).shape == ()


def test_every_operation_has_one_way_down():
    for op in OPS.values():
        ways = [op.scalar is not None, op.lower is not None, op.name in STRUCTURED]
        assert sum(ways) == 1, op.name


@pytest.mark.parametrize("value", [0, 5])
def test_sizes_are_known_where_they_are_numbers(value):
    k = Expressions()

    assert isinstance(k.size(value), Const)
    assert evaluate_size(k.size(n).size, {"n": 3}) == 3
