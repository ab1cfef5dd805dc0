"""Programs run by the evaluator of the loop IR, beside graphs run by the interpreter."""

import numpy as np

from fluxc.compiler.ir.entry import Entry
from fluxc.compiler.ir.interp import bind_sizes, evaluate, round_to, widen
from fluxc.compiler.kernels.evaluate import run_program
from fluxc.compiler.kernels.plan import plan
from fluxc.compiler.kernels.schedule import Target
from fluxc.compiler.ops import OPS

TARGET = Target("x86_64-unknown-linux-gnu", "znver4", "", vector_bytes=64, vector_registers=32)
TOLERANCE = {"f64": 1e-11, "f32": 1e-4, "f16": 8e-3, "bf16": 6e-2}


def entry_of(graph, *, storages=(), updates=()):
    """A graph as an entry: its last parameters are `storages`, its last results their `updates`."""
    n_in, n_out = len(graph.params) - len(storages), len(graph.results) - len(updates)
    inputs = tuple(f"x{i}" for i in range(n_in))
    outputs = tuple(f"y{i}" for i in range(n_out))
    return Entry(graph.name, graph, inputs, tuple(storages), outputs, tuple(updates))


def planned(graph, *, storages=(), updates=()):
    return plan(entry_of(graph, storages=storages, updates=updates), TARGET)


def check(graph, arrays, *, storages=(), updates=(), sizes=None, program=None):
    """The program of a graph computes what the graph means; returns the program.

    arrays are in storage format, one for each parameter.
    """
    program = program or planned(graph, storages=storages, updates=updates)
    types = [p.type for p in graph.params]
    known = bind_sizes(types, [a.shape for a in arrays], sizes)
    wide = [widen(a, t.dtype) for a, t in zip(arrays, types, strict=True)]
    want = evaluate(graph, *wide, ops=OPS, sizes=sizes)
    n_in = len(graph.params) - len(storages)
    memory = {name: a.copy() for name, a in zip(storages, arrays[n_in:], strict=True)}
    outputs = run_program(program, [a.copy() for a in arrays[:n_in]], memory, known)
    got = [*outputs, *(memory[name] for name in updates)]
    values = [*graph.params, *(v for node in graph.nodes for v in node.outputs)]
    bound = max((TOLERANCE.get(v.type.dtype.name, 0.0) for v in values), default=0.0)
    for i, (g, w, v) in enumerate(zip(got, want, graph.results, strict=True)):
        dtype = v.type.dtype
        assert g.shape == w.shape, f"result {i}"
        if not dtype.is_float:
            np.testing.assert_array_equal(g, w, err_msg=f"result {i}")
            continue
        rounded = widen(round_to(w, dtype), dtype)
        finite = np.abs(rounded[np.isfinite(rounded)])
        scale = max(1.0, finite.max(initial=0.0))
        np.testing.assert_allclose(
            widen(g, dtype), rounded, rtol=bound, atol=bound * scale, err_msg=f"result {i}"
        )
    unread = set(storages) - set(updates)
    for name, a in zip(storages, arrays[n_in:], strict=True):
        if name in unread:
            np.testing.assert_array_equal(memory[name], a, err_msg=f"{name} is not updated")
    return program
