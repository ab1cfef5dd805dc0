"""Compiled code agrees with the interpreter: every operation, dtype, awkward size, any threads."""

import itertools
import zlib

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs, expected
from op_graphs import carries_graphs

from fluxc.compiler.errors import FluxcError
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.interp import round_to, widen
from fluxc.compiler.ir.types import DTYPES, TensorType, bool_
from fluxc.compiler.kernels.lower import STRUCTURED
from fluxc.compiler.ops import OPS, infer

pytestmark = pytest.mark.cc

SIZES = (0, 1, 3, 17, 64, 129)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, np.inf, -np.inf, np.nan, 1e-30, -7.25]
CONVERSIONS = ("cast", "bitcast")


def arity(op):
    return next(n for n in (1, 2, 3) if accepts(op, n))


def accepts(op, n):
    return any(_accepted(op, (d,) * n) or _accepted(op, (bool_, d, d)[:n]) for d in DTYPES.values())


def _accepted(op, dtypes, **attrs):
    try:
        infer(op, tuple(TensorType(d, (3,)) for d in dtypes), attrs)
    except (FluxcError, TypeError):
        return False
    return True


def signatures(op):
    """Every tuple of operand dtypes, with attributes, that an elementwise operation takes."""
    if op in CONVERSIONS:
        for source, to in itertools.product(DTYPES.values(), repeat=2):
            if _accepted(op, (source,), dtype=to):
                yield (source,), {"dtype": to}
        return
    for n in (1, 2):
        yield from (((d,) * n, {}) for d in DTYPES.values() if _accepted(op, (d,) * n))
    yield from (((bool_, d, d), {}) for d in DTYPES.values() if _accepted(op, (bool_, d, d)))


def elementwise_graphs():
    for op in sorted(name for name, record in OPS.items() if record.elementwise):
        for i, (dtypes, attrs) in enumerate(signatures(op)):
            b = Builder(infer)
            operands = [b.param(TensorType(d, (dim("n"),))) for d in dtypes]
            name = f"{op}_{i}_{'_'.join(map(str, dtypes))}"
            yield name, b.graph(name, [b.emit(op, *operands, **attrs)])


def values(rng, dtype, n):
    """Ordinary and special values in storage format."""
    if dtype.kind == "b":
        return rng.integers(0, 2, n).astype(bool)
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        edges = np.array([info.min, info.max, 0, 1, info.max - 1, 2, 3], dtype.numpy)
        ordinary = rng.integers(max(info.min, -9), 10, n).astype(dtype.numpy)
        return np.where(rng.random(n) < 0.3, rng.choice(edges, n), ordinary)
    ordinary = rng.normal(size=n) * 3
    return round_to(np.where(rng.random(n) < 0.3, rng.choice(SPECIAL, n), ordinary), dtype)


ELEMENTWISE = dict(elementwise_graphs())
PARTS = 6


def part(graphs, index):
    return {n: g for n, g in graphs.items() if zlib.crc32(n.encode()) % PARTS == index}


@pytest.mark.parametrize("index", range(PARTS))
def test_elementwise_operations_agree_with_the_interpreter(index, tmp_path):
    compiled = compile_graphs(part(ELEMENTWISE, index), tmp_path)
    for (name, graph), n in itertools.product(compiled.graphs.items(), SIZES):
        rng = np.random.default_rng([n, zlib.crc32(name.encode())])
        arrays = [values(rng, p.type.dtype, n) for p in graph.params]
        (got,) = compiled.on_every_number_of_threads(name, arrays)
        (want,) = expected(graph, arrays)
        dtype, context = graph.results[0].type.dtype, f"{name}, {n} elements"
        if dtype.is_float:
            assert_close_everywhere(got, want, dtype, context)
        else:
            np.testing.assert_array_equal(got, want, err_msg=context)


def assert_close_everywhere(got, want, dtype, context):
    """Relative agreement element by element: elementwise operations cancel nothing."""
    ulp = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}[dtype.name]
    rounded = widen(round_to(want, dtype), dtype)
    stored = widen(got, dtype)
    np.testing.assert_allclose(stored, rounded, rtol=8 * ulp, atol=1e-37, err_msg=context)


def structured_graphs(seed):
    """One graph for every sample of every operation that is not elementwise, in f32 and f64."""
    for name in sorted(n for n, record in OPS.items() if not record.elementwise):
        # The graphs inside an operation have dtypes of their own.
        widths = ("f64",) if carries_graphs(OPS[name]) else ("f32", "f64")
        for width, variant in itertools.product(widths, range(3)):
            rng = np.random.default_rng([seed, variant, zlib.crc32(name.encode())])
            arrays, attrs = OPS[name].sample(rng)
            b = Builder(infer)
            operands = [b.param(TensorType(_stored(a, width), a.shape)) for a in arrays]
            label = f"{name}_{width}_{variant}"
            outputs = b.emit_all(name, *operands, **_retyped(attrs, width))
            yield label, b.graph(label, outputs), arrays


def _stored(array, width):
    names = {"b": "bool", "f": width}
    kind = array.dtype.kind
    return DTYPES[names.get(kind, f"{kind}{array.dtype.itemsize * 8}")]


def _retyped(attrs, width):
    is_float = [k for k, v in attrs.items() if k == "dtype" and v.is_float]
    return attrs | dict.fromkeys(is_float, DTYPES[width])


def test_structured_operations_agree_with_the_interpreter(tmp_path):
    cases = list(structured_graphs(0))
    compiled = compile_graphs({name: graph for name, graph, _ in cases}, tmp_path)
    for name, graph, arrays in cases:
        stored = [round_to(a, p.type.dtype) for a, p in zip(arrays, graph.params, strict=True)]
        got = compiled.on_every_number_of_threads(name, stored)
        for g, w, r in zip(got, expected(graph, stored), graph.results, strict=True):
            assert_agrees(g, w, r.type.dtype, context=name)


REDUCTIONS = [n for n in STRUCTURED if n.startswith("reduce_")]
REDUCED = ("f64", "f32", "bf16", "i64", "i32", "i8", "u8", "bool")
MULTIPLIED = ("f64", "f32", "bf16", "i32")


def sized_graphs():
    """Reductions over every axis and contractions, of symbolic sizes."""
    m, n, k = dim("m"), dim("n"), dim("k")
    for op, dtype in itertools.product(REDUCTIONS, REDUCED):
        if not _accepted_with(op, DTYPES[dtype]):
            continue
        for axes in ((0,), (1,), (0, 1)):
            b = Builder(infer)
            x = b.param(TensorType(DTYPES[dtype], (m, n)))
            name = f"{op}_{dtype}_over_{''.join(map(str, axes))}"
            yield name, b.graph(name, [b.emit(op, x, axes=axes)])
    for dtype, ta, tb in itertools.product(MULTIPLIED, (0, 1), (0, 1)):
        b = Builder(infer)
        x = b.param(TensorType(DTYPES[dtype], (k, m) if ta else (m, k)))
        y = b.param(TensorType(DTYPES[dtype], (n, k) if tb else (k, n)))
        name = f"contract_{dtype}_{'nt'[ta]}{'nt'[tb]}"
        product = b.emit("contract", x, y, batch_a=(), batch_b=(), over_a=(1 - ta,), over_b=(tb,))
        yield name, b.graph(name, [product])


def _accepted_with(op, dtype):
    try:
        infer(op, (TensorType(dtype, (3, 4)),), {"axes": (0,)})
    except FluxcError:
        return False
    return True


def test_reductions_and_products_agree_at_awkward_sizes(tmp_path):
    compiled = compile_graphs(dict(sized_graphs()), tmp_path)
    for name, m, n in itertools.product(compiled.graphs, SIZES, SIZES):
        check_sizes(compiled, name, {"m": m, "n": n, "k": SIZES[(m + n) % 6]})


def check_sizes(compiled, name, sizes):
    graph = compiled.graphs[name]
    rng = np.random.default_rng(sizes["m"] * 1000 + sizes["n"])
    arrays = []
    for p in graph.params:
        shape = tuple(sizes[str(s)] for s in p.type.shape)
        small = rng.normal(size=shape) if p.type.dtype.is_float else rng.integers(0, 3, shape)
        arrays.append(round_to(small, p.type.dtype))
    (got,) = compiled.on_every_number_of_threads(name, arrays)
    (want,) = expected(graph, arrays)
    scale = max([1.0, *(float(np.prod(a.shape)) ** 0.5 for a in arrays)])
    if name.startswith("reduce_prod"):
        scale = 1.0
    context = f"{name} at {sizes}"
    assert_agrees(got, want, graph.results[0].type.dtype, scale=scale, context=context)
