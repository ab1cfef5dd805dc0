"""Reverse mode, source to source: the program that computes cotangents, appended to a graph.

Values on a path from `wrt` to the outputs are active.  Only they get cotangents, and only nodes
that a requested cotangent needs remain: a gradient that nobody needs costs nothing.  The program
consists of ordinary operations, so it can be differentiated again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.errors import NotDifferentiable
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ops import OPS, GraphRule, NoGradient, ZeroGradient, infer

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from fluxc.compiler.ir.graph import Graph, Node, Value

__all__ = ["drop_unneeded", "input_cotangents", "pullback", "vjp"]


def pullback(
    b: Builder,
    nodes: Sequence[Node],
    outputs: Sequence[Value],
    cotangents: Sequence[Value | None],
    wrt: Sequence[Value],
) -> list[Value | None]:
    """Append to `b` the reverse program of `nodes`, and return the cotangent of each of `wrt`.

    nodes       nodes that are already in `b`, each after what it uses
    cotangents  one for each of `outputs`; None counts as zero
    wrt         parameters or any other values; None is returned where no path leads to an output
    Errors      NotDifferentiable, with the forward node's line, if a path leads through an
                operation that has no derivative
    """
    active = _active(nodes, wrt)
    before = len(b.nodes)
    total: dict[Value, Value] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None and output in active:
            _accumulate(b, total, output, cotangent)
    for node in reversed(nodes):
        if any(v in total for v in node.outputs) and any(v in active for v in node.inputs):
            with b.at(node.loc):
                for value, cotangent in input_cotangents(b, node, total, active):
                    if value in active:
                        _accumulate(b, total, value, cotangent)
    results = [total.get(v) for v in wrt]
    drop_unneeded(b, before, [v for v in results if v is not None])
    return results


def vjp(graph: Graph) -> Graph:
    """`graph`'s parameters and one cotangent per float result, to its results and one gradient per
    float parameter; zeros where no path leads from it to a result."""
    b = Builder(infer)
    params = [b.param(p.type, p.name) for p in graph.params]
    results = b.inline(graph, params)
    floats = [v for v in results if v.type.dtype.is_float]
    cotangents = [b.param(v.type, f"d{v.name}" if v.name else "") for v in floats]
    wrt = [p for p in params if p.type.dtype.is_float]
    found = pullback(b, tuple(b.nodes), floats, cotangents, wrt)
    gradients = [
        b.emit("full", value=0.0, dtype=p.type.dtype, shape=p.type.shape) if d is None else d
        for p, d in zip(wrt, found, strict=True)
    ]
    return b.graph(f"{graph.name}_vjp", (*results, *gradients))


def _active(nodes: Iterable[Node], wrt: Iterable[Value]) -> set[Value]:
    """The float values that depend on `wrt`, step functions and barriers apart."""
    active = {v for v in wrt if v.type.dtype.is_float}
    for node in nodes:
        if isinstance(OPS[node.op].vjp, ZeroGradient):
            continue
        if any(v in active for v in node.inputs):
            active.update(v for v in node.outputs if v.type.dtype.is_float)
    return active


def _accumulate(b: Builder, total: dict[Value, Value], value: Value, cotangent: Value) -> None:
    total[value] = b.emit("add", total[value], cotangent) if value in total else cotangent


def input_cotangents(
    b: Builder, node: Node, total: Mapping[Value, Value], active: Container[Value]
) -> list[tuple[Value, Value]]:
    """What one node passes back to those of its inputs that are `active`, and perhaps to others."""
    rule = OPS[node.op].vjp
    assert not isinstance(rule, ZeroGradient), "outputs of such a node are not active"
    if isinstance(rule, NoGradient):
        raise NotDifferentiable(
            f"cannot differentiate through {node.op}: {rule.reason}", loc=node.loc
        )
    if isinstance(rule, GraphRule):
        dys = tuple(map(total.get, node.outputs))
        wanted = tuple(v in active for v in node.inputs)
        own = {"wanted": wanted, "pullback": pullback}
        found = rule(b, dys, node.outputs, *node.inputs, **own, **node.attrs)
    elif len(node.outputs) == 1:
        found = rule(b, total[node.output], node.output, *node.inputs, **node.attrs)
    else:
        filled = tuple(total[v] if v in total else _zero(b, v) for v in node.outputs)
        found = rule(b, filled, node.outputs, *node.inputs, **node.attrs)
    pairs = zip(node.inputs, found, strict=True)
    return [(value, cotangent) for value, cotangent in pairs if cotangent is not None]


def _zero(b: Builder, value: Value) -> Value:
    """The cotangent of an output that nobody uses.  An integer's or bool's is never read."""
    dtype = value.type.dtype
    number = 0.0 if dtype.is_float else False if dtype.kind == "b" else 0
    return b.emit("full", value=number, dtype=dtype, shape=value.type.shape)


def drop_unneeded(b: Builder, before: int, results: Iterable[Value]) -> None:
    """Of the nodes added since `before`, keep those that `results` need."""
    needed = set(results)
    kept: list[Node] = []
    for node in reversed(b.nodes[before:]):
        if any(v in needed for v in node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    b.nodes[before:] = reversed(kept)
