"""One operation as a graph, for arrays such as its samples."""

import numpy as np

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.graph import Graph
from fluxc.compiler.ir.types import DTYPES, TensorType, bool_
from fluxc.compiler.ops import infer


def type_of(array):
    """The type of an array; its dtype must be one of NumPy's own."""
    kind, bits = array.dtype.kind, 8 * array.itemsize
    return TensorType(bool_ if kind == "b" else DTYPES[f"{kind}{bits}"], array.shape)


def carries_graphs(op):
    """Whether an operation has graphs among its attributes, with dtypes and sizes of their own."""
    _, attrs = op.sample(np.random.default_rng(0))
    return any(isinstance(a, Graph | tuple) and _holds_graph(a) for a in attrs.values())


def _holds_graph(attr):
    if isinstance(attr, tuple):
        return any(map(_holds_graph, attr))
    return isinstance(attr, Graph)


def graph_of(op, arrays, attrs):
    """The graph that applies `op` to parameters of the arrays' types."""
    b = Builder(infer)
    params = [b.param(type_of(a)) for a in arrays]
    return b.graph(op, b.emit_all(op, *params, **attrs))
