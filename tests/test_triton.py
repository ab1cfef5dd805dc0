"""Emitted Triton kernels, run by Triton's interpreter, agree with the graph interpreter."""

import itertools
import zlib

import numpy as np
import pytest
from compiled import assert_agrees, entry_of, expected
from test_compiled_ops import ELEMENTWISE, sized_graphs, structured_graphs, values
from triton_harness import Interpreted, needs_triton, planned

from fluxc.compiler.errors import Unsupported
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.interp import round_to, widen
from fluxc.compiler.ir.types import DTYPES, TensorType, f32, i64
from fluxc.compiler.ops import infer

pytestmark = needs_triton

# Of an operation's own arithmetic, relative.  The interpreter's exp, sin and so on are NumPy's.
ULP = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}
ULPS = {"pow": {"f64": 4096}, "log10": {"f64": 64, "f32": 64}}
PARTS = 8
SIZES = (0, 1, 37, 1100)


def interpreted(graphs, folder):
    programs = {name: planned(entry_of(name, g)) for name, g in graphs.items()}
    return programs, Interpreted(list(programs.values()), folder)


@pytest.mark.parametrize("index", range(PARTS))
def test_elementwise_operations_agree(index, tmp_path):
    graphs = {n: g for n, g in ELEMENTWISE.items() if zlib.crc32(n.encode()) % PARTS == index}
    programs, triton = interpreted(graphs, tmp_path)
    for (name, graph), n in itertools.product(graphs.items(), SIZES):
        rng = np.random.default_rng([n, zlib.crc32(name.encode())])
        arrays = [values(rng, p.type.dtype, n) for p in graph.params]
        (got,), (want,) = triton.run(programs[name], arrays), expected(graph, arrays)
        dtype = graph.results[0].type.dtype
        if not dtype.is_float:
            np.testing.assert_array_equal(got, want, err_msg=name)
            continue
        op = graph.nodes[0].op
        bound = ULPS.get(op, {}).get(dtype.name, 16) * ULP[dtype.name]
        rounded = widen(round_to(want, dtype), dtype)
        stored = widen(got, dtype)
        np.testing.assert_allclose(stored, rounded, rtol=bound, atol=1e-37, err_msg=name)


REFUSED = {"argsort", "switch", "while", "scan"}
"""What Triton does not compute yet: kernels that sort, and control flow."""


def test_structured_operations_agree(tmp_path):
    cases = [c for c in structured_graphs(1) if c[1].nodes[0].op not in REFUSED]
    programs, triton = interpreted({name: graph for name, graph, _ in cases}, tmp_path)
    for name, graph, arrays in cases:
        stored = [round_to(a, p.type.dtype) for a, p in zip(arrays, graph.params, strict=True)]
        got = triton.run(programs[name], stored)
        for g, w, r in zip(got, expected(graph, stored), graph.results, strict=True):
            assert_agrees(g, w, r.type.dtype, context=name)


@pytest.mark.parametrize("op", sorted(REFUSED))
def test_what_triton_does_not_compute_is_refused_by_name(op, tmp_path):
    graph = next(g for _, g, _ in structured_graphs(1) if g.nodes[0].op == op)
    with pytest.raises(Unsupported, match=r"sort|control flow") as caught:
        Interpreted([planned(entry_of(op, graph))], tmp_path)
    assert "--target native" in caught.value.hint


def test_reductions_and_products_agree_at_awkward_sizes(tmp_path):
    graphs = dict(sized_graphs())
    programs, triton = interpreted(graphs, tmp_path)
    for i, (name, graph) in enumerate(graphs.items()):
        for m, n, k in ((0, 3, 2), (5, 35, 33), (9, 3, 17)):
            sizes = {"m": m, "n": n, "k": k}
            rng = np.random.default_rng([i, m])
            arrays = []
            for p in graph.params:
                shape = tuple(sizes[str(s)] for s in p.type.shape)
                small = (
                    rng.normal(size=shape) if p.type.dtype.is_float else rng.integers(0, 3, shape)
                )
                arrays.append(round_to(small, p.type.dtype))
            (got,) = triton.run(programs[name], arrays, sizes=sizes)
            (want,) = expected(graph, arrays)
            scale = max([1.0, *(float(np.prod(a.shape)) ** 0.5 for a in arrays)])
            dtype = graph.results[0].type.dtype
            assert_agrees(got, want, dtype, scale=scale, context=f"{name} at {sizes}")


def test_reductions_of_nan_and_infinity(tmp_path):
    """Triton's own max leaves NaN out; here a NaN is the result."""
    graphs = {}
    for op in ("reduce_max", "reduce_min", "reduce_sum"):
        for columns in (7, 20_000):  # held at once, and in a loop
            b = Builder(infer)
            x = b.param(TensorType(f32, (dim("n"), columns)))
            graphs[f"{op}_{columns}"] = b.graph(op, [b.emit(op, x, axes=(1,))])
    programs, triton = interpreted(graphs, tmp_path)
    for name, graph in graphs.items():
        columns = int(name.rpartition("_")[2])
        x = np.random.default_rng(0).normal(size=(4, columns)).astype(np.float32)
        x[0, 3], x[1, 2], x[2, 5] = np.nan, np.inf, -np.inf
        (got,), (want,) = triton.run(programs[name], [x]), expected(graph, [x])
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-2, err_msg=name)


def test_rows_too_long_to_be_held_at_once(tmp_path):
    """Every pass is a loop; what depends on the row alone is computed before it."""
    b = Builder(infer)
    x = b.param(TensorType(f32, (dim("n"), 9001)))
    graph = b.graph("long", [softmax(b, x, 1)])
    programs, triton = interpreted({"long": graph}, tmp_path)
    assert "for start in range(0, 9001, INNER)" in triton.module.source
    x = np.random.default_rng(0).normal(size=(3, 9001)).astype(np.float32)
    (got,), (want,) = triton.run(programs["long"], [x]), expected(graph, [x])
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-7)


def softmax(b, x, axis):
    n = len(x.type.shape)
    kept = tuple(i for i in range(n) if i != axis)
    back = lambda v: b.emit("broadcast", v, shape=x.type.shape, axes=kept)
    e = b.emit("exp", b.emit("sub", x, back(b.emit("reduce_max", x, axes=(axis,)))))
    return b.emit("div", e, back(b.emit("reduce_sum", e, axes=(axis,))))


def layer_norm(b, x):
    shape = x.type.shape
    full = lambda v: b.emit("full", value=v, dtype=f32, shape=shape[:1])
    back = lambda v: b.emit("broadcast", v, shape=shape, axes=(0,))
    count = full(float(shape[1]))
    mean = b.emit("div", b.emit("reduce_sum", x, axes=(1,)), count)
    d = b.emit("sub", x, back(mean))
    variance = b.emit("div", b.emit("reduce_sum", b.emit("mul", d, d), axes=(1,)), count)
    return b.emit("mul", d, back(b.emit("rsqrt", b.emit("add", variance, full(1e-5)))))


@pytest.mark.parametrize("columns", [1, 10, 64, 300])
def test_rows_of_several_passes(columns, tmp_path):
    """Softmax over either axis and layer norm: one kernel each, whatever the length of a row."""
    graphs = {}
    for name, make in {
        "softmax": lambda b, x: softmax(b, x, 1),
        "columns": lambda b, x: softmax(b, x, 0),
        "layer_norm": layer_norm,
    }.items():
        b = Builder(infer)
        x = b.param(TensorType(f32, (dim("n"), columns)))
        graphs[name] = b.graph(name, [make(b, x)])
    programs, triton = interpreted(graphs, tmp_path)
    for (name, graph), n in itertools.product(graphs.items(), (1, 5)):
        x = np.random.default_rng(n).normal(size=(n, columns)).astype(np.float32)
        (got,), (want,) = triton.run(programs[name], [x]), expected(graph, [x])
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5, err_msg=f"{name} of {n} rows")


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16"])
def test_products_with_epilogues_batches_and_any_strides(dtype, tmp_path):
    kind = DTYPES[dtype]
    n = dim("n")
    graphs = {}
    for ta, tb in itertools.product((0, 1), (0, 1)):
        b = Builder(infer)
        x = b.param(TensorType(kind, (3, 40, n) if ta else (3, n, 40)))
        y = b.param(TensorType(kind, (3, 50, 40) if tb else (3, 40, 50)))
        z = b.param(TensorType(kind, (50,)))
        over = {"over_a": (2 - ta,), "over_b": (1 + tb,)}
        product = b.emit("contract", x, y, batch_a=(0,), batch_b=(0,), **over)
        bias = b.emit("broadcast", z, shape=product.type.shape, axes=(2,))
        out = b.emit("tanh", b.emit("add", product, bias))
        graphs[f"p{ta}{tb}"] = b.graph("p", [out])
    programs, triton = interpreted(graphs, tmp_path)
    for (name, graph), size in itertools.product(graphs.items(), (1, 33, 70)):
        rng = np.random.default_rng(size)
        arrays = []
        for p in graph.params:
            shape = tuple(size if s == n else s for s in p.type.shape)
            arrays.append(round_to(rng.normal(size=shape) * 0.3, kind))
        (got,) = triton.run(programs[name], arrays, sizes={"n": size})
        assert_agrees(got, expected(graph, arrays)[0], kind, scale=3.0, context=f"{name} {size}")


def test_updates_of_one_element_from_many_points(tmp_path):
    """Each program adds to its own elements in order: the sum has one value, on any GPU."""
    b = Builder(infer)
    x = b.param(TensorType(f32, (4, 6)))
    at = b.param(TensorType(i64, (50, 1)))
    updates = b.param(TensorType(f32, (50, 6)))
    graph = b.graph("scatter", [_scatter_add(b, x, at, updates)])
    programs, triton = interpreted({"scatter": graph}, tmp_path)
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=(4, 6)).astype(np.float32),
        rng.integers(-2, 6, (50, 1)),
        rng.normal(size=(50, 6)).astype(np.float32),
    ]
    (got,), (want,) = triton.run(programs["scatter"], arrays), expected(graph, arrays)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def _scatter_add(b, x, at, updates):
    return b.emit("scatter", x, at, updates, batch=0, reduce="add")
