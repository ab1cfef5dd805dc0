"""Makes one of loops and choices that compute the same again.

A derivative runs the way forward a second time, saving what the way back reads.  Scans with equal
operands are one if their bodies agree on all that is carried; switches with equal operands always.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.graph import Graph, Node, map_subgraphs
from fluxc.compiler.ops import infer
from fluxc.compiler.passes.share_subexpressions import share_subexpressions

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Value

__all__ = ["merge_control"]


def merge_control(g: Graph) -> Graph:
    """Merge scans with scans and switches with switches, here and in sub-graphs."""
    if not any(n.op in MERGE for n in g.nodes):
        return g
    while (merged := _merge_once(g)) is not g:
        g = merged
    nodes = tuple(map_subgraphs(n, merge_control) for n in g.nodes)
    if all(x is y for x, y in zip(nodes, g.nodes, strict=True)):
        return g
    return replace(g, nodes=nodes)


def _merge_once(g: Graph) -> Graph:
    """Merge each node into an earlier one of its kind and operands."""
    before, g = g, share_subexpressions(g)
    env: dict[Value, Value] = {}
    changed = False
    known: dict[tuple[object, ...], int] = {}
    kept: list[Node] = []
    for old in g.nodes:
        inputs = tuple(env.get(v, v) for v in old.inputs)
        node = old if inputs == old.inputs else replace(old, inputs=inputs)
        if node.op in MERGE:
            at = known.setdefault(_key(node), len(kept))
            both = MERGE[node.op](kept[at], node) if at < len(kept) else None
            if both is not None:
                kept[at], same = both
                env.update(same)
                changed = True
                continue
        kept.append(node)
    if not changed:
        return before
    return replace(g, nodes=tuple(kept), results=tuple(env.get(v, v) for v in g.results))


def _key(node: Node) -> tuple[object, ...]:
    attrs = ((k, v) for k, v in sorted(node.attrs.items()) if k not in ("body", "branches"))
    return (node.op, tuple(map(id, node.inputs)), *attrs)


def _joined(first: Graph, second: Graph, shared: int) -> tuple[Graph, list[Value]] | None:
    """The results of `first` and those that `second` has beside them; where those of `second` are.

    None if the first `shared` results differ.
    """
    b = Builder(infer)
    params = [b.param(p.type, p.name) for p in first.params]
    ours, theirs = b.inline(first, params), b.inline(second, params)
    both = merge_control(share_subexpressions(b.graph(first.name, [*ours, *theirs])))
    mine, others = both.results[: len(ours)], both.results[len(ours) :]
    if mine[:shared] != others[:shared]:
        return None
    known = set(mine[shared:])
    new = dict.fromkeys(v for v in others[shared:] if v not in known)
    return replace(both, results=(*mine, *new)), list(others)


def _merge_scans(a: Node, b: Node) -> tuple[Node, dict[Value, Value]] | None:
    carried = a.attrs["carried"]
    joined = _joined(a.attrs["body"], b.attrs["body"], carried)
    if joined is None:
        return None
    body, theirs = joined
    outputs, env = _outputs(a, b, body, theirs, carried)
    attrs = MappingProxyType({**a.attrs, "body": body})
    return replace(a, outputs=outputs, attrs=attrs), env


def _outputs(
    a: Node, b: Node, body: Graph, theirs: list[Value], carried: int
) -> tuple[tuple[Value, ...], dict[Value, Value]]:
    """The outputs of both nodes in one, and what stands for those of the second."""
    outputs = list(a.outputs)
    env = dict(zip(b.outputs[:carried], outputs[:carried], strict=True))
    place = {v: i for i, v in enumerate(body.results) if i >= carried}
    for result, y in zip(theirs[carried:], b.outputs[carried:], strict=True):
        at = place[result]
        if at < len(outputs):
            env[y] = outputs[at]
        else:
            outputs.append(y)
    return tuple(outputs), env


def _merge_switches(a: Node, b: Node) -> tuple[Node, dict[Value, Value]]:
    """Branch by branch; an output that is the same in all of them is one."""
    branches = []
    for first, second in zip(a.attrs["branches"], b.attrs["branches"], strict=True):
        inner = Builder(infer)
        params = [inner.param(p.type, p.name) for p in first.params]
        results = [*inner.inline(first, params), *inner.inline(second, params)]
        branches.append(merge_control(share_subexpressions(inner.graph(first.name, results))))
    columns = list(zip(*(branch.results for branch in branches), strict=True))
    count = len(a.outputs)
    env: dict[Value, Value] = {}
    outputs, keep = list(a.outputs), list(range(count))
    for i, y in enumerate(b.outputs, count):
        same = columns.index(columns[i])
        if same < count:
            env[y] = a.outputs[same]
        else:
            outputs.append(y)
            keep.append(i)
    graphs = tuple(replace(g, results=tuple(g.results[i] for i in keep)) for g in branches)
    return replace(a, outputs=tuple(outputs), attrs=MappingProxyType({"branches": graphs})), env


MERGE = {"scan": _merge_scans, "switch": _merge_switches}
