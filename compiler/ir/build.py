"""The one mutable thing of the graph IR: it collects nodes, infers their types, and freezes."""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from fluxc.compiler.errors import FluxcError
from fluxc.compiler.ir.graph import Graph, Loc, Node, Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fluxc.compiler.ir.types import TensorType

__all__ = ["Builder", "Infer"]


class Infer(Protocol):
    """The type rule of all operations: `(op, input types, attrs) -> output types`."""

    def __call__(
        self, op: str, types: tuple[TensorType, ...], attrs: Mapping[str, Any], /
    ) -> tuple[TensorType, ...]: ...


class Builder:
    """Collects nodes.  An ill-typed node cannot exist: `infer` raises before it is made.

    `infer` is handed in, which is why `ir` does not import `ops`.
    """

    def __init__(self, infer: Infer) -> None:
        self.infer = infer
        self.params: list[Value] = []
        self.nodes: list[Node] = []
        self.loc: Loc | None = None

    def param(self, type: TensorType, name: str = "") -> Value:
        value = Value(type, name)
        self.params.append(value)
        return value

    def emit_all(self, op: str, *inputs: Value, **attrs: Any) -> tuple[Value, ...]:
        """Add a node and return its outputs."""
        try:
            types = self.infer(op, tuple(v.type for v in inputs), attrs)
        except FluxcError as error:
            if error.loc is None:
                error.loc = self.loc
            raise
        outputs = tuple(Value(t) for t in types)
        self.nodes.append(Node(op, inputs, outputs, MappingProxyType(attrs), self.loc))
        return outputs

    def emit(self, op: str, *inputs: Value, **attrs: Any) -> Value:
        """Add a node that has one output and return it."""
        (output,) = self.emit_all(op, *inputs, **attrs)
        return output

    @contextmanager
    def at(self, loc: Loc | None) -> Iterator[None]:
        """Give `loc` to the nodes that are added inside."""
        before, self.loc = self.loc, loc
        try:
            yield
        finally:
            self.loc = before

    def inline(self, graph: Graph, arguments: Sequence[Value]) -> tuple[Value, ...]:
        """Add a copy of `graph`'s nodes applied to `arguments`, and return what it returns."""
        env = dict(zip(graph.params, arguments, strict=True))
        for node in graph.nodes:
            with self.at(node.loc):
                outputs = self.emit_all(node.op, *(env[v] for v in node.inputs), **node.attrs)
            env.update(zip(node.outputs, outputs, strict=True))
        return tuple(env[v] for v in graph.results)

    def graph(self, name: str, results: Sequence[Value]) -> Graph:
        return Graph(name, tuple(self.params), tuple(self.nodes), tuple(results))
