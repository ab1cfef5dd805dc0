"""Loop nests as machine code: every form of access, reduction and store, on awkward sizes."""

# ruff: noqa: ARG005  the functions that make expressions all take the same arguments

from __future__ import annotations

import itertools

import numpy as np
import pytest
from llvm_nests import check_nest

from fluxc.compiler.backends.llvm.target import native_target, target_for
from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.types import DTYPES, bool_, f16, f32, f64, i8, i32, i64
from fluxc.compiler.kernels.kernel import (
    Axis,
    Buffer,
    Expressions,
    Nest,
    Pass,
    Reduction,
    Store,
    kernel_roots,
    walk,
)
from fluxc.compiler.kernels.schedule import NestSchedule

SIZES = (0, 1, 3, 17, 64, 129)
N, M = dim("n"), dim("m")
FLOATS = [d for d in DTYPES.values() if d.is_float]
WIDE = [d for d in DTYPES.values() if not (d.is_float and d.bits == 16)]


def nest(name, rows, *passes):
    """A nest whose buffers are those that its passes mention."""
    made = Nest(name, (), tuple(rows), tuple(passes))
    found = {x.buffer: None for x in walk(*kernel_roots(made)) if hasattr(x, "buffer")}
    found |= {s.buffer: None for p in passes for s in p.stores}
    return Nest(name, tuple(found), tuple(rows), tuple(passes))


def schedules(*axes, widths=(16,), unrolls=(1, 2)):
    yield NestSchedule(None, 1, 1, 0)
    for axis, width, unroll in itertools.product(axes, widths, unrolls):
        yield NestSchedule(axis, width, unroll, 0)


def check_sizes(kernel, plan, names=("n",), *, sizes=SIZES, given=None, target=None):
    function = None
    for size in sizes:
        at = {name: size + (3 * i if size else 0) for i, name in enumerate(names)}
        function = check_nest(
            kernel, plan, at, given=given and given(at), target=target, function=function
        )


def unary(dtype, make, out=None):
    """y[i, j] = make(k, x[i, j], i, j) over rows m, n."""
    k = Expressions()
    i, j = Axis("i", M), Axis("j", N)
    x, y = Buffer("x", dtype, (M, N)), Buffer("y", out or dtype, (M, N))
    at = (k.index(i), k.index(j))
    value = make(k, k.load(x, at), *at)
    return nest("map", (i, j), Pass((), (), (Store(y, at, value),))), j


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_copies_every_dtype(dtype):
    """A copy is exact in every dtype, whatever the sizes."""
    kernel, j = unary(dtype, lambda k, x, i, j: x)
    for plan in schedules(j, widths=(64 // dtype.itemsize,)):
        check_sizes(kernel, plan, ("m", "n"))


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_computes_with_every_dtype(dtype):
    """x + x, or x & x; also when the vector is as wide as the narrowest dtype allows."""
    op = "and" if dtype.kind == "b" else "add"
    kernel, j = unary(dtype, lambda k, x, i, j: k.apply(op, x, x))
    check_sizes(kernel, NestSchedule(j, 16, 2, 0), ("n", "m"))


@pytest.mark.parametrize("dtype", [d for d in FLOATS if d.bits == 16], ids=str)
def test_sixteen_bit_floats_are_computed_in_f32(dtype):
    """Loads widen, stores round."""
    kernel, j = unary(dtype, lambda k, x, i, j: k.cast(k.apply("exp", k.cast(x, f32)), dtype))
    for plan in schedules(j):
        check_sizes(kernel, plan, ("n", "m"))


def test_indices_are_values_too():
    """y[i, j] = 10*i + j, from a vector of positions."""
    kernel, j = unary(
        i64, lambda k, x, i, j: k.apply("add", k.apply("mul", i, k.const(10, i64)), j)
    )
    for plan in schedules(j, widths=(8,)):
        check_sizes(kernel, plan, ("n", "m"))


def access(name, index, shape=(N,), guard=None):
    """y[j] = x[index(j)], guarded."""
    k = Expressions()
    j = Axis("j", N)
    x, y = Buffer("x", f32, shape), Buffer("y", f32, (N,))
    at = k.index(j)
    value = k.load(x, index(k, at), None if guard is None else guard(k, at))
    return nest(name, (j,), Pass((), (), (Store(y, (at,), value),))), j


def both(k, p, q):
    return k.apply("and", p, q)


ACCESSES = {
    "reversed": access("reversed", lambda k, j: (k.sub(k.sub(N, 1), j),)),
    "strided": access("strided", lambda k, j: (k.add(k.mul(j, 3), 1),), (3 * N,)),
    "column": access("column", lambda k, j: (j, k.const(1, i64)), (N, M)),
    "row_of_a_matrix": access("row_of_a_matrix", lambda k, j: (k.const(1, i64), j), (M, N)),
    "one_for_all": access("one_for_all", lambda k, j: (k.const(2, i64),), (3,)),
    "backwards_by_two": access(
        "backwards_by_two", lambda k, j: (k.sub(k.mul(N, 2), k.add(k.mul(j, 2), 1)),), (2 * N,)
    ),
    "padded": access(
        "padded",
        lambda k, j: (k.sub(j, 2),),
        guard=lambda k, j: both(k, k.ge(j, 2), k.lt(k.sub(j, 2), k.size(N))),
    ),
    "padded_and_reversed": access(
        "padded_and_reversed",
        lambda k, j: (k.sub(k.add(N, 1), j),),
        guard=lambda k, j: both(k, k.ge(j, 2), k.lt(j, k.add(N, 2))),
    ),
    "one_or_nothing": access(
        "one_or_nothing",
        lambda k, j: (k.const(5, i64),),
        (4,),
        guard=lambda k, j: k.apply("lt", k.size(M), k.const(0, i64)),
    ),
    "interleaved": access(
        "interleaved",
        lambda k, j: (k.apply("floor_div", j, k.const(2, i64)),),
        guard=lambda k, j: k.eq(k.apply("mod", j, k.const(2, i64)), 0),
    ),
    "clamped": access("clamped", lambda k, j: (k.apply("minimum", j, k.const(4, i64)),), (5,)),
    "empty_when_false": access(
        "empty_when_false",
        lambda k, j: (j,),
        (0,),
        guard=lambda k, j: k.apply("lt", j, k.const(0, i64)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCESSES)
def test_reads(name):
    """Vector loads, reversed ones, splats, gathers, masks: all give what the index says."""
    kernel, j = ACCESSES[name]
    for plan in schedules(j):
        check_sizes(kernel, plan, ("n", "m"))


@pytest.mark.parametrize("name", ["padded", "reversed", "interleaved", "strided"])
@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v3"])
def test_reads_on_older_machines(name, cpu):
    """The same where masked loads and gathers are not instructions."""
    host = native_target()
    if not host.triple.startswith("x86_64"):
        pytest.skip("machine code for x86-64")
    kernel, j = ACCESSES[name]
    target = target_for(host.triple, cpu)
    check_sizes(kernel, NestSchedule(j, target.vector_bytes // 4, 2, 0), ("n", "m"), target=target)


@pytest.mark.parametrize("dtype", [bool_, i8, f16, f32, f64, i64], ids=str)
def test_gathers_rows_and_elements(dtype):
    """y[i, j] = table[at[i], j] reads whole vectors; z[i, j] = table[at[j], i] gathers."""
    k = Expressions()
    i, j = Axis("i", M), Axis("j", N)
    table, at = Buffer("table", dtype, (200, 200)), Buffer("at", i32, (200,))
    y, z = Buffer("y", dtype, (M, N)), Buffer("z", dtype, (M, N))
    a, b = k.index(i), k.index(j)
    rows = k.load(table, (k.cast(k.load(at, (a,)), i64), b))
    single = k.load(table, (k.cast(k.load(at, (b,)), i64), a))
    kernel = nest(
        "lookup", (i, j), Pass((), (), (Store(y, (a, b), rows), Store(z, (a, b), single)))
    )
    values = {"at": np.random.default_rng(1).permutation(200)}
    for plan in schedules(j):
        check_sizes(kernel, plan, ("m", "n"), given=lambda at: values)


def softmax(dtype=f32, rows=M, size=N):
    k = Expressions()
    i, j = Axis("i", rows), Axis("j", size)
    x, y = Buffer("x", dtype, (rows, size)), Buffer("y", dtype, (rows, size))
    at = (k.index(i), k.index(j))
    high, total = k.local("high", dtype), k.local("total", dtype)
    load = k.load(x, at)
    power = k.apply("exp", k.apply("sub", load, high))
    kernel = nest(
        "softmax",
        (i,),
        Pass((j,), (Reduction(high, "maximum", load),)),
        Pass((j,), (Reduction(total, "add", power),), (Store(y, at, power),)),
        Pass((j,), (), (Store(y, at, k.apply("div", k.load(y, at), total)),)),
    )
    return kernel, i, j


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_softmax_of_rows(dtype):
    """Three passes; the last reads what the second wrote; rows or columns as vectors."""
    kernel, i, j = softmax(dtype)
    for plan in schedules(i, j, widths=(8,)):
        check_sizes(kernel, plan, ("m", "n"))


@pytest.mark.parametrize("size", [1, 10, 16, 33, 64, 100])
def test_softmax_of_a_known_size(size):
    """A known inner size needs no branches but those of whole blocks."""
    kernel, i, j = softmax(size=size)
    for plan in schedules(i, j):
        check_sizes(kernel, plan, ("m",), sizes=(0, 1, 17))


REDUCTIONS = [
    *itertools.product(["add", "maximum", "minimum"], [d for d in WIDE if d.kind != "b"]),
    ("mul", f32), ("mul", i32), ("and", bool_), ("or", bool_),
]  # fmt: skip


@pytest.mark.parametrize(("op", "dtype"), REDUCTIONS, ids=str)
def test_reduces_to_one_number(op, dtype):
    """Over no axis of rows; the empty reduction is the identity."""
    k = Expressions()
    j = Axis("j", N)
    x, y = Buffer("x", dtype, (N,)), Buffer("y", dtype, ())
    total = k.local("total", dtype)
    kernel = nest(
        "reduce",
        (),
        Pass((j,), (Reduction(total, op, k.load(x, (k.index(j),))),)),
        Pass((), (), (Store(y, (), total),)),
    )
    for plan in schedules(j, unrolls=(1, 4)):
        if op == "mul" and dtype.is_float:
            check_sizes(kernel, plan, given=lambda at: {"x": 1 + 0.01 * np.arange(at["n"])})
        else:
            check_sizes(kernel, plan)


def test_reduces_over_columns():
    """y[j] = sum over i of x[i, j] with j as the vector: sums stay in lanes."""
    k = Expressions()
    i, j = Axis("i", M), Axis("j", N)
    x, y, z = Buffer("x", f32, (M, N)), Buffer("y", f32, (N,)), Buffer("z", f32, (N,))
    total, high = k.local("total", f32), k.local("high", f32)
    load = k.load(x, (k.index(i), k.index(j)))
    kernel = nest(
        "columns",
        (j,),
        Pass((i,), (Reduction(total, "add", load), Reduction(high, "maximum", load))),
        Pass((), (), (Store(y, (k.index(j),), total), Store(z, (k.index(j),), high))),
    )
    for plan in schedules(j, unrolls=(1, 2, 4)):
        check_sizes(kernel, plan, ("n", "m"))
        check_sizes(kernel, plan, ("m", "n"), sizes=(0, 1))


def test_reduces_over_two_axes_with_nan():
    """Two inner axes; a NaN is the maximum of what holds one."""
    k = Expressions()
    i, a, b = Axis("i", M), Axis("a", 3), Axis("b", N)
    x, y, z = Buffer("x", f32, (M, 3, N)), Buffer("y", f32, (M,)), Buffer("z", f32, (M,))
    at = (k.index(i), k.index(a), k.index(b))
    total, high = k.local("total", f32), k.local("high", f32)
    load = k.load(x, at)
    kernel = nest(
        "two_axes",
        (i,),
        Pass((a, b), (Reduction(total, "add", load), Reduction(high, "maximum", load))),
        Pass((), (), (Store(y, at[:1], k.apply("abs", total)), Store(z, at[:1], high))),
    )

    def given(at):
        data = np.random.default_rng(0).normal(size=(at["m"], 3, at["n"]))
        data[: at["m"] // 2, 1, -1:] = np.nan
        return {"x": data}

    for plan in schedules(i, b, unrolls=(1, 3)):
        check_sizes(kernel, plan, ("m", "n"), given=given)


def test_bias_and_scale_of_three_rows():
    """y[a, b, c] = x[a, b, c] * s[] + t[b]: rows count on across the ends of lo..hi."""
    k = Expressions()
    a, b, c = Axis("a", 5), Axis("b", M), Axis("c", N)
    x, y = Buffer("x", f32, (5, M, N)), Buffer("y", f32, (5, M, N))
    s, t = Buffer("s", f32, ()), Buffer("t", f32, (M,))
    at = (k.index(a), k.index(b), k.index(c))
    scaled = k.apply("mul", k.load(x, at), k.load(s, ()))
    value = k.apply("add", scaled, k.load(t, at[1:2]))
    kernel = nest("affine", (a, b, c), Pass((), (), (Store(y, at, value),)))
    for plan in schedules(c):
        check_sizes(kernel, plan, ("m", "n"), sizes=(0, 1, 3, 17))


def test_transposes():
    """y[i, j] = x[j, i]: strided loads; the vector may also run along the other axis."""
    k = Expressions()
    i, j = Axis("i", M), Axis("j", N)
    x, y = Buffer("x", f32, (N, M)), Buffer("y", f32, (M, N))
    a, b = k.index(i), k.index(j)
    store = Pass((), (), (Store(y, (a, b), k.load(x, (b, a))),))
    for rows in ((i, j), (j, i)):
        for plan in schedules(rows[-1]):
            check_sizes(nest("transpose", rows, store), plan, ("m", "n"))


def test_updates_in_place():
    """m = 0.9 m + 0.1 g;  p = p - lr m: both buffers are read and written at one point."""
    k = Expressions()
    i = Axis("i", N)
    p, m, g, lr = (Buffer(x, f32, (N,) if x != "lr" else ()) for x in ("p", "m", "g", "lr"))
    at = (k.index(i),)
    number = lambda x: k.const(x, f32)
    kept = k.apply("mul", k.load(m, at), number(0.9))
    new = k.apply("add", kept, k.apply("mul", k.load(g, at), number(0.1)))
    stepped = k.apply("sub", k.load(p, at), k.apply("mul", k.load(lr, ()), new))
    kernel = nest("momentum", (i,), Pass((), (), (Store(m, at, new), Store(p, at, stepped))))
    for plan in schedules(i):
        check_sizes(kernel, plan)


@pytest.mark.parametrize("dtype", [f32, i32, f64], ids=str)
def test_adds_rows_at_indices(dtype):
    """table[at[i], j] += x[i, j] in order, with the rows or the columns in lanes."""
    k = Expressions()
    i, j = Axis("i", M), Axis("j", N)
    table, at, x = Buffer("t", dtype, (7, N)), Buffer("at", i32, (M,)), Buffer("x", dtype, (M, N))
    a, b = k.index(i), k.index(j)
    row = k.cast(k.load(at, (a,)), i64)
    guard = both(k, k.ge(row, 0), k.lt(row, 7))
    store = Store(table, (row, b), k.load(x, (a, b)), guard, accumulate="add")
    given = lambda at: {"at": np.random.default_rng(2).integers(-2, 9, at["m"])}
    by_lane = nest("scatter", (), Pass((i, j), (), (store,)))
    by_row = nest("scatter", (j,), Pass((i,), (), (store,)))
    for kernel in (by_lane, by_row):
        for plan in schedules(j):
            check_sizes(kernel, plan, ("m", "n"), given=given)


def test_adds_elements_that_meet():
    """hits[at[i]] += 1 where several lanes have one address; sum[] += x[i]."""
    k = Expressions()
    i = Axis("i", N)
    hits, at, x = Buffer("hits", f32, (5,)), Buffer("at", i32, (N,)), Buffer("x", f32, (N,))
    total = Buffer("total", f32, ())
    where = k.cast(k.load(at, (k.index(i),)), i64)
    value = k.load(x, (k.index(i),))
    stores = (
        Store(hits, (where,), value, k.lt(where, 4), accumulate="add"),
        Store(total, (), value, accumulate="add"),
    )
    kernel = nest("count", (), Pass((i,), (), stores))
    given = lambda at: {"at": np.random.default_rng(3).integers(0, 5, at["n"])}
    for plan in schedules(i):
        check_sizes(kernel, plan, given=given)


def test_stores_where_asked():
    """Guards of stores: for each lane, and for a whole row; strided and reversed places."""
    k = Expressions()
    i, j = Axis("i", M), Axis("j", N)
    a, b = k.index(i), k.index(j)
    x = Buffer("x", f32, (M, N))
    value = k.load(x, (a, b))
    outs = [Buffer(f"y{n}", f32, (M, N)) for n in range(3)] + [Buffer("y3", f32, (M, N, 2))]
    stores = (
        Store(outs[0], (a, b), value, k.apply("gt", value, k.const(0.0, f32))),
        Store(outs[1], (a, b), value, k.eq(k.apply("mod", a, k.const(2, i64)), 0)),
        Store(outs[2], (a, k.sub(k.sub(N, 1), b)), value, k.apply("gt", value, k.const(0.0, f32))),
        Store(outs[3], (a, b, k.const(1, i64)), value),
    )
    kernel = nest("guarded", (i, j), Pass((), (), stores))
    for plan in schedules(j):
        check_sizes(kernel, plan, ("m", "n"))


def test_loads_of_an_empty_inner_axis_are_not_made():
    """A load that only an empty loop asks for does not happen: w has no element then."""
    k = Expressions()
    i, j = Axis("i", M), Axis("j", N)
    w, y = Buffer("w", f32, (N,)), Buffer("y", f32, (M,))
    total = k.local("total", f32)
    last = k.load(w, (k.sub(N, 1),))
    kernel = nest(
        "sum_of_last",
        (i,),
        Pass((j,), (Reduction(total, "add", last),)),
        Pass((), (), (Store(y, (k.index(i),), total),)),
    )
    for plan in schedules(j, i):
        check_sizes(kernel, plan, ("m", "n"))
        check_nest(kernel, plan, {"m": 5, "n": 0})


def test_a_scalar_pass_between_vector_passes():
    """mean and variance of a row, then 1/sqrt of it once per row, then the row."""
    k = Expressions()
    i, j = Axis("i", M), Axis("j", 37)
    x, y, r = Buffer("x", f32, (M, 37)), Buffer("y", f32, (M, 37)), Buffer("r", f32, (M,))
    at = (k.index(i), k.index(j))
    total, squares, scale = (k.local(s, f32) for s in ("total", "squares", "scale"))
    load = k.load(x, at)
    sums = (Reduction(total, "add", load), Reduction(squares, "add", k.apply("mul", load, load)))
    root = k.apply("rsqrt", k.apply("add", squares, k.const(1e-5, f32)))
    kernel = nest(
        "normalise",
        (i,),
        Pass((j,), sums),
        Pass((), (Reduction(scale, "add", root),), (Store(r, at[:1], root),)),
        Pass((j,), (), (Store(y, at, k.apply("mul", k.apply("sub", load, total), scale)),)),
    )  # fmt: skip
    for plan in schedules(i, j):
        check_sizes(kernel, plan, ("m",), sizes=(0, 1, 3, 17))
