"""Graphs compiled into one artifact, and their results beside the interpreter's."""

import hashlib
import shlex
from dataclasses import dataclass
from functools import cache

import numpy as np
from llvm_nests import Fenced

from fluxc.compiler import driver
from fluxc.compiler.backends.llvm.link import find_compiler
from fluxc.compiler.ir.dims import evaluate_size
from fluxc.compiler.ir.entry import Entry, ModelSpec
from fluxc.compiler.ir.interp import bind_sizes, evaluate, round_to, widen
from fluxc.compiler.ops import OPS

# Largest error of a result, relative to the largest value that went into it; see docs/numerics.md.
TOLERANCE = {"f64": 1e-12, "f32": 2e-5, "f16": 4e-3, "bf16": 3e-2}
THREADS = (1, 2, 3)


def entry_of(name, graph):
    """A graph as an entry without storages."""
    inputs = tuple(f"a{i}" for i in range(len(graph.params)))
    outputs = tuple(f"r{i}" for i in range(len(graph.results)))
    tree = ("tuple", ["leaf"] * len(outputs))
    return Entry(name, graph, inputs, (), outputs, output_tree=tree)


@dataclass(frozen=True, eq=False)
class CompiledGraphs:
    """Graphs by name, and the package that computes them."""

    graphs: dict
    package: object
    programs: dict

    @cache  # noqa: B019  tests end soon
    def model(self, threads=1):
        return self.package.Model(threads=threads)

    def on_every_number_of_threads(self, name, arrays):
        """The results of an entry, which have the same bits however many threads compute them."""
        first, *others = (getattr(self.model(threads), name)(*arrays) for threads in THREADS)
        for threads, other in zip(THREADS[1:], others, strict=True):
            for i, (one, more) in enumerate(zip(first, other, strict=True)):
                same = one.tobytes() == more.tobytes()
                assert same, f"{name}: result {i} depends on threads, {THREADS[0]} or {threads}"
        return first

    def within_index_ranges(self, name, arrays):
        """The arrays, indices among them brought into the range that a call is checked for."""
        ranges = self.programs[name].index_ranges or (None,) * len(arrays)
        pairs = zip(arrays, ranges, strict=True)
        return [a if r is None else np.clip(a, r[0], max(r[1] - 1, r[0])) for a, r in pairs]


def compile_graphs(graphs, folder, **options):
    """Compile graphs, given by name, into one artifact; options as in `compile_spec`."""
    name = "g" + hashlib.sha256(" ".join(graphs).encode()).hexdigest()[:8]
    spec = ModelSpec(tuple(entry_of(n, g) for n, g in graphs.items()), ())
    made = driver.compile_spec(spec, folder / name, **options)
    programs = {p.name: p for p in made.programs}
    return CompiledGraphs(graphs, driver.load_package(folder / name), programs)


def poison(monkeypatch):
    """From now on artifacts are built to find out what they read and write that is not theirs.

    Memory without contents is NaN, and ends at pages that nobody may touch.
    """
    command = [*find_compiler(), "-DFX_POISON"]
    monkeypatch.setenv("FLUXC_CC", shlex.join(command))


def call_fenced(model, name, graph, arrays, *, at_end=True):
    """The results of an entry whose arguments end, or begin, at pages that nobody may touch.

    Outputs are full of NaN before the call.  Asserts that nothing but them is written.
    """
    sizes = bind_sizes([p.type for p in graph.params], [a.shape for a in arrays])
    shapes = [tuple(evaluate_size(s, sizes) for s in r.type.shape) for r in graph.results]
    dtypes = [r.type.dtype.numpy for r in graph.results]
    outputs = [np.zeros(s, d) for s, d in zip(shapes, dtypes, strict=True)]
    for a, d in zip(outputs, dtypes, strict=True):
        a.reshape(-1).view(np.uint8)[...] = 1 if d == np.bool_ else 0xFF
    given = [Fenced(np.asarray(a), at_end=at_end) for a in arrays]
    taken = [Fenced(a, at_end=at_end) for a in outputs]
    getattr(model, name)(*(f.array for f in given), out=tuple(f.array for f in taken))
    for f, a in zip(given, arrays, strict=True):
        assert f.untouched(), f"{name}: memory around an input was written"
        assert f.array.tobytes() == np.asarray(a).tobytes(), f"{name}: an input was written"
    for f in taken:
        assert f.untouched(), f"{name}: memory around an output was written"
    return [f.array.copy() for f in taken]


def expected(graph, arrays):
    """What the float64 interpreter computes from the same stored inputs."""
    wide = [widen(a, p.type.dtype) for a, p in zip(arrays, graph.params, strict=True)]
    return evaluate(graph, *wide, ops=OPS)


def assert_graph_agrees(graph, got, want, context=""):
    """Every result is the interpreter's, within what the least exact of the graph's dtypes allows.

    The largest value among the results is what errors are measured by.
    """
    values = [*graph.params, *(v for n in graph.nodes for v in n.outputs)]
    tolerance = max((TOLERANCE.get(v.type.dtype.name, 0.0) for v in values), default=0.0)
    finite = [np.abs(w[np.isfinite(w)]).max(initial=1.0) for w in want if w.dtype.kind == "f"]
    scale = max([1.0, *finite])
    for i, (g, w, r) in enumerate(zip(got, want, graph.results, strict=True)):
        where = f"result {i} of {context}\n{graph}"
        assert_agrees(g, w, r.type.dtype, scale=scale, tolerance=tolerance, context=where)


def assert_agrees(got, want, dtype, *, scale=1.0, tolerance=0.0, context=""):
    """`got`, stored as `dtype`, is `want`: floats within the dtype's tolerance, others exactly."""
    assert got.shape == want.shape, f"{context}: shape {got.shape} instead of {want.shape}"
    if not dtype.is_float:
        np.testing.assert_array_equal(got, want, err_msg=context)
        return
    # Values beyond the dtype's range become infinite in storage; so must the oracle's.
    rounded = widen(round_to(want, dtype), dtype)
    tolerance = max(tolerance, TOLERANCE[dtype.name])
    bound = tolerance * max(scale, 1.0)
    stored = widen(got, dtype)
    np.testing.assert_allclose(stored, rounded, rtol=tolerance, atol=bound, err_msg=context)
