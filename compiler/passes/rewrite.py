"""Rebuilds a graph under rewrite rules: one forward sweep, each node offered to its rules once.

A rule is a function `(r, n) -> Value | None`: the value that node `n` equals, written with
`r.emit`, or None where the rule does not apply.  What a rule emits is offered to the rules in turn,
so a sweep leaves little for the next one.  Rules are directed: the right side is never more work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from fluxc.compiler.ir.dims import Dim
from fluxc.compiler.ir.graph import Node, Value
from fluxc.compiler.ops import infer

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Graph, Loc
    from fluxc.compiler.ir.types import TensorType

__all__ = ["Rewriter", "Rule", "Rules", "rewrite"]


class Rewriter:
    """The graph as rebuilt so far."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.nodes: list[Node] = []
        self.definitions: dict[Value, Node] = {}
        self.loc: Loc | None = None
        self.changed = False

    def emit(self, op: str, *inputs: Value, **attrs: Any) -> Value:
        """The value of an operation with one output, simplified."""
        (type,) = infer(op, tuple(v.type for v in inputs), attrs)
        (value,) = self.add(Node(op, inputs, (Value(type),), MappingProxyType(attrs), self.loc))
        return value

    def add(self, node: Node) -> tuple[Value, ...]:
        """Append the node, or find the value that it equals."""
        if len(node.outputs) == 1:
            for rule in self.rules.get(node.op, ()):
                value = rule(self, node)
                if value is not None:
                    assert value.type == node.output.type, f"{rule.__name__} changed a type"
                    self.changed = True
                    return (value,)
        self.nodes.append(node)
        self.definitions.update((v, node) for v in node.outputs)
        return node.outputs

    def by(self, v: Value, *ops: str) -> Node | None:
        """The node that defines `v`, if it is one of these operations."""
        node = self.definitions.get(v)
        return node if node is not None and node.op in ops else None

    def number(self, v: Value) -> float | None:
        """The number that fills `v`, if one does."""
        node = self.by(v, "full")
        value = None if node is None else node.attrs["value"]
        return None if isinstance(value, Dim) else value

    def is_number(self, v: Value, number: float) -> bool:
        """Whether `v` is filled with this very number: 0.0 is not -0.0."""
        value = self.number(v)
        if value is None or value != number:
            return False
        return not v.type.dtype.is_float or math.copysign(1, value) == math.copysign(1, number)

    def full(self, value: float, type: TensorType) -> Value:
        return self.emit("full", value=value, dtype=type.dtype, shape=type.shape)


Rule: TypeAlias = Callable[[Rewriter, Node], "Value | None"]
Rules: TypeAlias = Mapping[str, tuple[Rule, ...]]


def rewrite(g: Graph, rules: Rules) -> Graph:
    """`g` with every node replaced that a rule replaces; `g` itself if there is none."""
    r = Rewriter(rules)
    env: dict[Value, Value] = {}
    for old in g.nodes:
        r.loc = old.loc
        inputs = tuple(env.get(v, v) for v in old.inputs)
        node = old if inputs == old.inputs else replace(old, inputs=inputs)
        outputs = r.add(node)
        if outputs != node.outputs:
            env.update(zip(node.outputs, outputs, strict=True))
    if not r.changed:
        return g
    results = tuple(env.get(v, v) for v in g.results)
    return replace(g, nodes=tuple(r.nodes), results=results)
