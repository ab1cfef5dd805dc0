"""Forward mode, source to source: the program that computes tangents, appended to a graph.

An operation's reverse rule maps a cotangent linearly to cotangents of its inputs.  Transposed once
more it maps tangents of the inputs to a tangent of the output, which is the forward derivative: so
one rule for each operation serves both modes, and both agree by construction.  The program
consists of ordinary operations, so it can be differentiated again, in either mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.autodiff.reverse import drop_unneeded, input_cotangents, pullback
from fluxc.compiler.errors import NotDifferentiable
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.graph import Value
from fluxc.compiler.ops import OPS, GraphRule, ZeroGradient, infer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluxc.compiler.ir.graph import Graph, Node

__all__ = ["jvp", "pushforward"]


def pushforward(
    b: Builder,
    nodes: Sequence[Node],
    tangents: Mapping[Value, Value],
    outputs: Sequence[Value],
) -> list[Value | None]:
    """Append to `b` the program that carries `tangents` through `nodes`; the tangents of `outputs`.

    nodes     nodes that are already in `b`, each after what it uses
    tangents  of parameters or any other float values; values not named have none
    outputs   None is returned where no path leads to one
    Errors    NotDifferentiable, with the node's line, if a path leads through an operation that
              has no derivative, or whose own rule is not linear in the cotangent
    """
    found = dict(tangents)
    before = len(b.nodes)
    for node in _towards(nodes, outputs):
        if any(v in found for v in node.inputs):
            with b.at(node.loc):
                pairs = zip(node.outputs, _output_tangents(b, node, found), strict=True)
                found.update((v, t) for v, t in pairs if t is not None)
    results = [found.get(v) for v in outputs]
    drop_unneeded(b, before, [v for v in results if v is not None])
    return results


def jvp(graph: Graph) -> Graph:
    """`graph`'s parameters and one tangent per float parameter, to its results and one tangent per
    float result; zeros where no path leads to it."""
    b = Builder(infer)
    params = [b.param(p.type, p.name) for p in graph.params]
    results = b.inline(graph, params)
    nodes = tuple(b.nodes)
    floats = [p for p in params if p.type.dtype.is_float]
    tangents = {p: b.param(p.type, f"d{p.name}" if p.name else "") for p in floats}
    ends = [v for v in results if v.type.dtype.is_float]
    found = pushforward(b, nodes, tangents, ends)
    moved = [
        b.emit("full", value=0.0, dtype=v.type.dtype, shape=v.type.shape) if t is None else t
        for v, t in zip(ends, found, strict=True)
    ]
    return b.graph(f"{graph.name}_jvp", (*results, *moved))


def _towards(nodes: Sequence[Node], outputs: Sequence[Value]) -> list[Node]:
    """The nodes on differentiable paths to `outputs`."""
    needed = {v for v in outputs if v.type.dtype.is_float}
    kept = []
    for node in reversed(nodes):
        carries = any(v in needed for v in node.outputs)
        if carries and not isinstance(OPS[node.op].vjp, ZeroGradient):
            kept.append(node)
            needed.update(v for v in node.inputs if v.type.dtype.is_float)
    return kept[::-1]


def _output_tangents(
    b: Builder, node: Node, found: Mapping[Value, Value]
) -> Sequence[Value | None]:
    """The tangents of one node's outputs."""
    rule = OPS[node.op].jvp
    if rule is None:
        return _transposed_twice(b, node, found)
    tangents = tuple(found.get(v) for v in node.inputs)
    if isinstance(rule, GraphRule):
        own = {"tangents": tangents, "pushforward": pushforward}
        return rule(b, node.outputs, *node.inputs, **own, **node.attrs)
    many = len(node.outputs) > 1
    ys = node.outputs if many else node.output
    result = rule(b, ys, *node.inputs, tangents=tangents, **node.attrs)
    return result if many else (result,)


def _transposed_twice(
    b: Builder, node: Node, found: Mapping[Value, Value]
) -> Sequence[Value | None]:
    """Run the reverse rule on values that nothing defines, then pull back to those."""
    before = len(b.nodes)
    floats = [v for v in node.outputs if v.type.dtype.is_float]
    unknown = {v: Value(v.type) for v in floats}
    cotangents = [(v, d) for v, d in input_cotangents(b, node, unknown, found) if v in found]
    linear = tuple(b.nodes[before:])
    ends = [d for _, d in cotangents]
    results = pullback(b, linear, ends, [found[v] for v, _ in cotangents], list(unknown.values()))
    drop_unneeded(b, before, [v for v in results if v is not None])
    used = {v for n in b.nodes[before:] for v in n.inputs} | set(results)
    if not used.isdisjoint(unknown.values()):
        raise NotDifferentiable(
            f"cannot differentiate {node.op} in forward mode: its derivative is not linear in the "
            "cotangent",
            loc=node.loc,
        )
    tangents = dict(zip(floats, results, strict=True))
    return [tangents.get(v) for v in node.outputs]
