"""Computes equal expressions once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from fluxc.compiler.ir.printer import print_literal

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Graph, Node, Value

__all__ = ["share_subexpressions"]

COMMUTATIVE = frozenset({"add", "mul", "and", "or", "xor", "eq", "ne"})
Key: TypeAlias = "tuple[str, tuple[int, ...], tuple[tuple[str, str], ...]]"


def share_subexpressions(g: Graph) -> Graph:
    """Replace a node by an earlier one with the same operation, operands and attributes."""
    env: dict[Value, Value] = {}
    known: dict[Key, Node] = {}
    kept: list[Node] = []
    for old in g.nodes:
        inputs = tuple(env.get(v, v) for v in old.inputs)
        node = old if inputs == old.inputs else replace(old, inputs=inputs)
        first = known.setdefault(_key(node), node)
        if first is node:
            kept.append(node)
        else:
            env.update(zip(node.outputs, first.outputs, strict=True))
    if not env:
        return g
    return replace(g, nodes=tuple(kept), results=tuple(env.get(v, v) for v in g.results))


def _key(node: Node) -> Key:
    inputs = tuple(map(id, node.inputs))
    if node.op in COMMUTATIVE:
        inputs = tuple(sorted(inputs))
    # By the printed literal, because 0.0 == -0.0 and 1 == 1.0 == True.
    return node.op, inputs, tuple((k, print_literal(v)) for k, v in sorted(node.attrs.items()))
