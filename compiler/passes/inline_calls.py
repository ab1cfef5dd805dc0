"""Removes what only autodiff reads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluxc.compiler.ir.graph import Graph, Node, Value

__all__ = ["inline_calls"]

BARRIERS = frozenset({"identity", "stop_gradient"})
CALLS = frozenset({"checkpoint", "custom_vjp"})


def inline_calls(g: Graph) -> Graph:
    """Put the bodies of custom_vjp and checkpoint in place of them; drop identity and
    stop_gradient."""
    if not any(n.op in CALLS or n.op in BARRIERS for n in g.nodes):
        return g
    env: dict[Value, Value] = {}
    nodes = tuple(_inlined(g.nodes, env))
    return replace(g, nodes=nodes, results=tuple(env.get(v, v) for v in g.results))


def _inlined(nodes: tuple[Node, ...], env: dict[Value, Value]) -> Iterator[Node]:
    """The nodes that remain; `env` says what stands for a value that is gone."""
    for node in nodes:
        inputs = tuple(env.get(v, v) for v in node.inputs)
        if node.op in BARRIERS:
            env[node.output] = inputs[0]
        elif node.op in CALLS:
            body = _copy(node.attrs["body"])
            env.update(zip(body.params, inputs, strict=True))
            yield from _inlined(body.nodes, env)
            results = (env.get(v, v) for v in body.results)
            env.update(zip(node.outputs, tuple(results), strict=True))
        else:
            yield node if inputs == node.inputs else replace(node, inputs=inputs)


def _copy(g: Graph) -> Graph:
    """The graph with values of its own: one body may be inlined at two places."""
    fresh: dict[Value, Value] = {v: replace(v) for v in g.params}
    nodes = []
    for node in g.nodes:
        fresh.update((v, replace(v)) for v in node.outputs)
        inputs, outputs = (tuple(fresh[v] for v in vs) for vs in (node.inputs, node.outputs))
        nodes.append(replace(node, inputs=inputs, outputs=outputs))
    params, results = (tuple(fresh[v] for v in vs) for vs in (g.params, g.results))
    return replace(g, params=params, nodes=tuple(nodes), results=results)
