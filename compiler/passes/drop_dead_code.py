"""Drops what nobody reads: nodes, and of loops and choices what they carry or return in vain."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from fluxc.compiler.ir.graph import Graph
from fluxc.compiler.passes.loops import Scan, needed_params

if TYPE_CHECKING:
    from collections.abc import Container

    from fluxc.compiler.ir.graph import Node, Value

__all__ = ["drop_dead_code"]


def drop_dead_code(g: Graph) -> Graph:
    """Drop nodes none of whose values is used, and unused parts of control flow."""
    live, kept, same = set(g.results), [], True
    for node in reversed(g.nodes):
        if live.isdisjoint(node.outputs):
            continue
        trimmed = TRIM[node.op](node, live) if node.op in TRIM else node
        same = same and trimmed is node
        kept.append(trimmed)
        live.update(trimmed.inputs)
    if same and len(kept) == len(g.nodes):
        return g
    return replace(g, nodes=tuple(reversed(kept)))


def scan(node: Node, live: Container[Value]) -> Node:
    """Outputs that are not live, what is carried only for their sake, operands that nobody uses."""
    s = Scan.of(node)
    body = node.attrs["body"]
    stacked = [y in live for _, y in s.stacks]
    carry = [c.out in live for c in s.carried]
    while True:
        needed = needed_params(body, [*carry, *stacked])
        more = [has or c.param in needed for has, c in zip(carry, s.carried, strict=True)]
        if more == carry:
            break
        carry = more
    counts = len(s.consts), len(s.carried), len(s.rows), len(s.stacks)
    s.consts = [pair for pair in s.consts if pair[0] in needed]
    s.carried = [c for c, has in zip(s.carried, carry, strict=True) if has]
    s.rows = [pair for pair in s.rows if pair[0] in needed]
    s.stacks = [pair for pair, has in zip(s.stacks, stacked, strict=True) if has]
    if counts == (len(s.consts), len(s.carried), len(s.rows), len(s.stacks)):
        return node
    s.nodes = list(drop_dead_code(Graph("", (), tuple(s.nodes), tuple(s.results()))).nodes)
    return s.build()


def while_(node: Node, live: Container[Value]) -> Node:
    """What is carried and neither tested, nor live, nor used by what is."""
    test, body, carried = (node.attrs[k] for k in ("test", "body", "carried"))
    tested = needed_params(test, [True])
    carry = [
        y in live or p in tested for y, p in zip(node.outputs, test.params[:carried], strict=True)
    ]
    while True:
        needed = needed_params(body, carry)
        more = [has or p in needed for has, p in zip(carry, body.params[:carried], strict=True)]
        if more == carry:
            break
        carry = more
    pairs = zip(test.params[carried:], body.params[carried:], strict=True)
    keep = [*carry, *(t in tested or p in needed for t, p in pairs)]
    if all(keep):
        return node
    attrs = {
        "test": _with_params(test, keep, [True]),
        "body": _with_params(body, keep, carry),
        "carried": sum(carry),
    }
    inputs, outputs = _chosen(node.inputs, keep), _chosen(node.outputs, carry)
    return replace(node, inputs=inputs, outputs=outputs, attrs=MappingProxyType(attrs))


def switch(node: Node, live: Container[Value]) -> Node:
    """Outputs that are not live, and operands that no branch uses."""
    branches = node.attrs["branches"]
    wanted = [y in live for y in node.outputs]
    needed = [needed_params(branch, wanted) for branch in branches]
    keep = [
        any(branch.params[i] in used for branch, used in zip(branches, needed, strict=True))
        for i in range(len(node.inputs) - 1)
    ]
    if all(wanted) and all(keep):
        return node
    attrs = {"branches": tuple(_with_params(branch, keep, wanted) for branch in branches)}
    inputs = (node.inputs[0], *_chosen(node.inputs[1:], keep))
    outputs = _chosen(node.outputs, wanted)
    return replace(node, inputs=inputs, outputs=outputs, attrs=MappingProxyType(attrs))


def _chosen(values: tuple[Value, ...], keep: list[bool]) -> tuple[Value, ...]:
    return tuple(v for v, has in zip(values, keep, strict=True) if has)


def _with_params(g: Graph, params: list[bool], results: list[bool]) -> Graph:
    """The graph with fewer parameters and results, and the nodes that these need."""
    small = Graph(g.name, _chosen(g.params, params), g.nodes, _chosen(g.results, results))
    return drop_dead_code(small)


TRIM = {"scan": scan, "switch": switch, "while": while_}
