"""The graph IR: types, graphs, their text form, their invariants and their meaning.

`parser.parse_graph` is imported by those who parse: it alone needs lark.
"""

from fluxc.compiler.ir.build import Builder, Infer
from fluxc.compiler.ir.dims import Dim, Size, Symbol, dim, parse_size
from fluxc.compiler.ir.graph import (
    Graph,
    Loc,
    Node,
    Value,
    graph_symbols,
    map_subgraphs,
    subgraphs,
)
from fluxc.compiler.ir.interp import bind_sizes, evaluate, round_to, widen
from fluxc.compiler.ir.printer import print_graph
from fluxc.compiler.ir.types import DTYPES, DType, TensorType
from fluxc.compiler.ir.verify import verify

__all__ = [
    "DTYPES",
    "Builder",
    "DType",
    "Dim",
    "Graph",
    "Infer",
    "Loc",
    "Node",
    "Size",
    "Symbol",
    "TensorType",
    "Value",
    "bind_sizes",
    "dim",
    "evaluate",
    "graph_symbols",
    "map_subgraphs",
    "parse_size",
    "print_graph",
    "round_to",
    "subgraphs",
    "verify",
    "widen",
]
