"""The graph IR: pure single-assignment programs over typed tensors.

Nothing here computes.  A `Value` is identified by what it is, not by what it looks like:
two equal-looking values are two values.  Graphs are equal when they are equal up to the
names of their values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fluxc.compiler.ir.dims import Dim, size_symbols
from fluxc.compiler.ir.locate import short_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fluxc.compiler.ir.dims import Symbol
    from fluxc.compiler.ir.types import TensorType

__all__ = [
    "Graph",
    "Loc",
    "Node",
    "Value",
    "graph_symbols",
    "map_subgraphs",
    "node_symbols",
    "subgraphs",
]

NO_ATTRS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Loc:
    """Where the user wrote it: file, line, and the path of the layer that was running."""

    file: str
    line: int
    layer: str = ""

    def __str__(self) -> str:
        where = f"{short_name(self.file)}:{self.line}"
        return f"{where} (in {self.layer})" if self.layer else where


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One tensor of a graph.  `name` is kept for parameters; it identifies nothing."""

    type: TensorType
    name: str = ""

    def __repr__(self) -> str:
        return f"%{self.name or hex(id(self))[-5:]}: {self.type}"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation.  Arrays are positional (`inputs`), everything else has a name (`attrs`).

    attrs values: bool, int, Dim, float, str, bytes, DType, Graph, and tuples of them.
    """

    op: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attrs: Mapping[str, Any] = field(default_factory=lambda: NO_ATTRS)
    loc: Loc | None = None

    @property
    def output(self) -> Value:
        """The one output of a node that has one."""
        (value,) = self.outputs
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """`params` in, `results` out, `nodes` between, each after what it uses."""

    name: str
    params: tuple[Value, ...]
    nodes: tuple[Node, ...]
    results: tuple[Value, ...]

    def __str__(self) -> str:
        from fluxc.compiler.ir.printer import print_graph

        return print_graph(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def subgraphs(node: Node) -> tuple[Graph, ...]:
    """The graphs that a node carries in its attributes, those in tuples included."""
    return tuple(g for attr in node.attrs.values() for g in _attr_graphs(attr))


def _attr_graphs(attr: Any) -> Iterable[Graph]:
    if isinstance(attr, tuple):
        return [g for item in attr for g in _attr_graphs(item)]
    return (attr,) if isinstance(attr, Graph) else ()


def map_subgraphs(node: Node, f: Callable[[Graph], Graph]) -> Node:
    """The node with f(g) for each graph g that it carries; the node itself if none changes."""
    attrs = {name: _map_attr(attr, f) for name, attr in node.attrs.items()}
    if all(attrs[name] is attr for name, attr in node.attrs.items()):
        return node
    return replace(node, attrs=MappingProxyType(attrs))


def _map_attr(attr: Any, f: Callable[[Graph], Graph]) -> Any:
    if isinstance(attr, Graph):
        return f(attr)
    if not isinstance(attr, tuple) or not _attr_graphs(attr):
        return attr
    items = tuple(_map_attr(item, f) for item in attr)
    return attr if all(x is y for x, y in zip(items, attr, strict=True)) else items


def graph_symbols(graph: Graph) -> tuple[Symbol, ...]:
    """Every named size of a graph, its attributes and its sub-graphs, sorted by name."""
    types: set[TensorType] = {v.type for v in graph.params}
    found: set[Symbol] = set()
    for node in graph.nodes:
        types.update(v.type for v in node.outputs)
        found.update(node_symbols(node))
    return tuple(sorted(found.union(*(t.symbols for t in types))))


def node_symbols(node: Node) -> frozenset[Symbol]:
    """Every named size of a node's attributes, sub-graphs included."""
    return frozenset(s for attr in node.attrs.values() for s in _attr_symbols(attr))


def _attr_symbols(attr: Any) -> Iterable[Symbol]:
    if isinstance(attr, tuple):
        return [s for item in attr for s in _attr_symbols(item)]
    if isinstance(attr, Dim):
        return size_symbols(attr)
    return graph_symbols(attr) if isinstance(attr, Graph) else ()
