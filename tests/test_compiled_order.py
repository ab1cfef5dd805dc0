"""Positions, running results, sorting, writes at computed indices: compiled, at awkward sizes."""

import itertools

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs, expected

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.interp import round_to
from fluxc.compiler.ir.types import DTYPES, TensorType, i32, i64
from fluxc.compiler.ops import infer

SIZES = (0, 1, 3, 17, 129)
THREADS = (1, 2)
M, N = dim("m"), dim("n")
REDUCE = ("set", "add", "mul", "max", "min")


def graph(name, op, *types, **attrs):
    b = Builder(infer)
    return b.graph(name, b.emit_all(op, *(b.param(t) for t in types), **attrs))


def t(dtype, *shape):
    return TensorType(DTYPES[dtype], shape)


def along_an_axis():
    for dtype, axis in itertools.product(
        ("f32", "f64", "bf16", "i32", "u8", "i64", "bool"), (0, 1)
    ):
        x = t(dtype, M, N)
        for descending in (False, True):
            name = f"argsort_{dtype}_{axis}_{descending}"
            yield graph(name, "argsort", x, axis=axis, descending=descending)
        least = [dim(str(s), min=1) if a == axis else s for a, s in enumerate((M, N))]
        for op in ("argmax", "argmin"):
            yield graph(f"{op}_{dtype}_{axis}", op, t(dtype, *least), axis=axis)
        if dtype == "bool":
            continue
        for reduce, reverse in zip(
            ("sum", "prod", "max", "min"), (True, False, True, False), strict=True
        ):
            name = f"cumulative_{reduce}_{dtype}_{axis}"
            yield graph(
                name, "cumulative", x, axis=axis, reduce=reduce, reverse=reverse ^ bool(axis)
            )
        yield graph(f"recurrence_{dtype}_{axis}", "recurrence", x, x, axis=axis, reverse=bool(axis))


def at_indices():
    for dtype, reduce in itertools.product(("f32", "bf16", "i32", "bool"), REDUCE):
        if dtype == "bool" and reduce in ("add", "mul"):
            continue
        attrs = {"reduce": reduce}
        for batch, shapes in {
            "rows": (0, ((M, N), (9, 1), (9, N))),
            "places": (0, ((M, N), (2, 9, 2), (2, 9))),
            "batches": (1, ((M, N), (M, 7, 1), (M, 7))),
            "one": (1, ((M, N), (M, 1), (M,))),
        }.items():
            count, (x, indices, updates) = shapes
            name = f"scatter_{reduce}_{dtype}_{batch}"
            # Out of range on purpose, so computed: indices that are inputs are checked.
            b = Builder(infer)
            given = [
                b.param(t(dtype, *x)),
                b.param(TensorType(i32, indices)),
                b.param(t(dtype, *updates)),
            ]
            shift = b.emit("full", value=1, dtype=i32, shape=indices)
            given[1] = b.emit("sub", given[1], shift)
            yield b.graph(name, b.emit_all("scatter", *given, batch=count, **attrs))
    n = dim("n", min=2)
    yield graph("dynamic_slice", "dynamic_slice", t("f32", M, n), t("i64"), t("i32"), sizes=(M, 2))
    yield graph(
        "dynamic_update", "dynamic_update", t("f32", M, n), t("f32", M, 2), t("i64"), t("i32")
    )


def argument(rng, type, sizes):
    shape = tuple(sizes[str(s)] if not isinstance(s, int) else s for s in type.shape)
    if type.dtype.kind == "b":
        return rng.random(shape) < 0.5
    if type.dtype in (i32, i64) and (type.rank == 0 or shape[-1:] in ((1,), (2,))):
        return rng.integers(0, 9, shape).astype(type.dtype.numpy)
    x = rng.integers(-3 if type.dtype.kind in "if" else 0, 4, shape).astype(np.float64)
    if not type.dtype.is_float:
        return x.astype(type.dtype.numpy)
    x += rng.choice([0.0, 0.25], shape)
    x = np.where(rng.random(shape) < 0.1, rng.choice([np.inf, -np.inf, -0.0], shape), x)
    return round_to(x, type.dtype)


def with_nan(rng, x):
    x = np.asarray(x)
    return np.where(rng.random(x.shape) < 0.05, np.nan, x).astype(x.dtype)


def check_all(compiled):
    for threads in THREADS:
        model = compiled.model(threads)
        for (name, g), (m, n) in itertools.product(
            compiled.graphs.items(), itertools.product(SIZES, repeat=2)
        ):
            sizes = {"m": m, "n": n}
            symbols = {s for p in g.params for s in p.type.symbols}
            if any(sizes[s.name] < s.min for s in symbols):
                continue
            rng = np.random.default_rng([m, n])
            arrays = [argument(rng, p.type, sizes) for p in g.params]
            ordering = name.startswith(("arg", "cumulative_max", "cumulative_min"))
            if g.params[0].type.dtype.kind == "f" and ordering and "bf16" not in name:
                arrays = [with_nan(rng, a) for a in arrays]
            if name.startswith(("cumulative_sum", "cumulative_prod", "recurrence")):
                arrays = [tame(a, p.type.dtype) for a, p in zip(arrays, g.params, strict=True)]
            (got,), (want,) = getattr(model, name)(*arrays), expected(g, arrays)
            dtype = g.results[0].type.dtype
            assert_agrees(
                got, want, dtype, scale=m + n, context=f"{name} at {sizes}, {threads} threads"
            )


def tame(x, dtype):
    """Finite, and near enough to 1 that products neither vanish nor overflow."""
    if not dtype.is_float:
        return x
    rng = np.random.default_rng(x.size)
    return round_to(rng.uniform(0.9, 1.1, x.shape) * rng.choice([-1, 1], x.shape), dtype)


@pytest.mark.parametrize("part", range(4))
def test_along_an_axis(part, tmp_path):
    graphs = {g.name: g for g in itertools.islice(along_an_axis(), part, None, 4)}
    check_all(compile_graphs(graphs, tmp_path))


def test_at_indices(tmp_path):
    check_all(compile_graphs({g.name: g for g in at_indices()}, tmp_path))
