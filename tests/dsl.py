"""Traced functions and their results in the interpreter, for the tests of the language."""

import numpy as np

from fluxc.compiler.ir.interp import evaluate
from fluxc.compiler.ops import OPS
from fluxc.export import ExportedFunction, trace_exports
from fluxc.types import TensorSpec, as_dtype


class Typed(ExportedFunction):
    """A function with the given input types."""

    def __init__(self, f, specs, **options):
        super().__init__(f, name="f", **options)
        self.specs = specs

    def inputs(self):
        return [f"x{i}" for i in range(len(self.specs))], list(self.specs)


def spec_of(array):
    return TensorSpec(as_dtype(np.asarray(array).dtype), np.asarray(array).shape)


def trace(f, *specs, namespace=None, **options):
    """The only entry of a model, and its storages by name."""
    spec = trace_exports([Typed(f, specs, **options)], namespace or {})
    return spec.entries[0], {s.name: s for s in spec.storages}


def first_values(storages, seed=0):
    values = {}
    for name, s in storages.items():
        rng = np.random.default_rng([seed, *(s.source or name).encode()])
        init = s.init(rng) if callable(s.init) else np.full(s.type.shape, s.init)
        values[name] = np.asarray(init, s.type.dtype.numpy)
    return values


def call(entry, values, *arrays):
    """The leaves that an entry returns; `values`, by name, are updated."""
    stored = [np.asarray(values[name]) for name in entry.storages]
    results = evaluate(entry.graph, *map(np.asarray, arrays), *stored, ops=OPS)
    count = len(entry.outputs)
    values.update(zip(entry.updates, results[count:], strict=True))
    return results[:count]


def run(f, *arrays, namespace=None, values=None, specs=None, **options):
    """What f gives for arrays: one result, or a tuple of the leaves."""
    specs = specs or [spec_of(a) for a in arrays]
    entry, storages = trace(f, *specs, namespace=namespace, **options)
    out = call(entry, first_values(storages) if values is None else values, *arrays)
    return out[0] if entry.output_tree == "leaf" else out


def type_of(f, *specs):
    """The type of what f returns, as text."""
    return str(trace(f, *specs)[0].graph.results[0].type)
