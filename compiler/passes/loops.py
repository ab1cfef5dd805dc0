"""Scans and other loops taken apart, so that passes can change them piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fluxc.compiler.ir.graph import Graph, Node, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Carried", "Scan", "needed_params", "substituted"]


@dataclass(slots=True, eq=False)
class Carried:
    """One value that a scan carries: inside, at the start, after a step, and at the end."""

    param: Value
    start: Value
    after: Value
    out: Value


@dataclass(slots=True, eq=False)
class Scan:
    """A scan as lists; consts, rows: (parameter of the body, operand), stacks: (result, output)."""

    consts: list[tuple[Value, Value]]
    carried: list[Carried]
    rows: list[tuple[Value, Value]]
    nodes: list[Node]
    stacks: list[tuple[Value, Value]]
    node: Node

    @staticmethod
    def of(node: Node) -> Scan:
        body: Graph = node.attrs["body"]
        first = node.attrs["consts"]
        last = first + node.attrs["carried"]
        pairs = list(zip(body.params, node.inputs, strict=True))
        ends = list(zip(body.results, node.outputs, strict=True))
        carried = [
            Carried(p, x, r, y)
            for (p, x), (r, y) in zip(pairs[first:last], ends[: last - first], strict=True)
        ]
        return Scan(
            pairs[:first], carried, pairs[last:], list(body.nodes), ends[last - first :], node
        )

    def results(self) -> list[Value]:
        return [*(c.after for c in self.carried), *(r for r, _ in self.stacks)]

    def substitute(self, env: Mapping[Value, Value]) -> None:
        """Let other values stand for some in the body."""
        if not env:
            return
        self.nodes = substituted(self.nodes, env)
        for c in self.carried:
            c.after = env.get(c.after, c.after)
        self.stacks = [(env.get(r, r), y) for r, y in self.stacks]

    def build(self, **changed: Any) -> Node:
        """The node again; `changed` attributes replace the old ones."""
        body = self.node.attrs["body"]
        pairs = [*self.consts, *((c.param, c.start) for c in self.carried), *self.rows]
        graph = Graph(
            body.name, tuple(p for p, _ in pairs), tuple(self.nodes), tuple(self.results())
        )
        attrs = {
            **self.node.attrs,
            "body": graph,
            "consts": len(self.consts),
            "carried": len(self.carried),
            **changed,
        }
        outputs = (*(c.out for c in self.carried), *(y for _, y in self.stacks))
        return replace(
            self.node,
            inputs=tuple(x for _, x in pairs),
            outputs=outputs,
            attrs=MappingProxyType(attrs),
        )


def substituted(nodes: Iterable[Node], env: Mapping[Value, Value]) -> list[Node]:
    """The nodes with other operands."""
    found = []
    for node in nodes:
        inputs = tuple(env.get(v, v) for v in node.inputs)
        found.append(node if inputs == node.inputs else replace(node, inputs=inputs))
    return found


def needed_params(graph: Graph, results: Sequence[bool]) -> set[Value]:
    """The values on which the chosen results depend, the parameters among them."""
    needed = {v for v, has in zip(graph.results, results, strict=True) if has}
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
    return needed
