"""Moves work out of loops.

- What is the same at every step is computed once, before the loop.
- A product of what a scan is given step by step with what stays the same becomes one large product
  over all steps: the input projection of a recurrent network.
- A sum of products over the steps becomes one product that sums over them too: the gradient of a
  recurrent network's weights.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.graph import Node, Value
from fluxc.compiler.ops import OPS, infer
from fluxc.compiler.ops.batching import batch_nodes, later
from fluxc.compiler.ops.control import CONTROL
from fluxc.compiler.passes.loops import Scan, substituted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fluxc.compiler.ir.graph import Graph

__all__ = ["hoist"]

MOVED = frozenset({"random_bits"})  # layouts by form that are worth a place in memory
PRODUCTS = frozenset({"contract", "conv"})


def hoist(g: Graph) -> Graph:
    """Move out of scans and whiles what does not depend on what they carry."""
    if not any(n.op in HOIST for n in g.nodes):
        return g
    nodes: list[Node] = []
    env: dict[Value, Value] = {}
    changed = False
    for old in g.nodes:
        (node,) = substituted([old], env)
        made = HOIST[node.op](node, env) if node.op in HOIST else None
        changed = changed or made is not None
        nodes += [node] if made is None else made
    if not changed:
        return g
    return replace(g, nodes=tuple(nodes), results=tuple(env.get(v, v) for v in g.results))


def is_free(node: Node) -> bool:
    """Whether it only moves numbers, or makes them from nothing."""
    if node.op in MOVED:
        return False
    return OPS[node.op].lower is not None or not node.inputs


def invariants(nodes: Iterable[Node], fixed: Iterable[Value]) -> tuple[list[Node], list[Node]]:
    """The nodes that are the same at every step, and those of them that are worth moving."""
    given = set(fixed)
    same, dependent = set(given), set(given)
    found, worth = [], []
    for node in nodes:
        if not same.issuperset(node.inputs):
            continue
        same.update(node.outputs)
        found.append(node)
        if not dependent.isdisjoint(node.inputs):
            dependent.update(node.outputs)
            if not is_free(node):
                worth.append(node)
    return found, worth


class _Outside:
    """Copies of a body's nodes in front of the loop."""

    def __init__(self, pairs: Iterable[tuple[Value, Value]]) -> None:
        self.b = Builder(infer)
        self.at = dict(pairs)

    def copy(self, nodes: Sequence[Node], wanted: Iterable[Value]) -> None:
        """Compute `wanted`, which some of the nodes make, from what is there."""
        needed, chosen = set(wanted), []
        for node in reversed(nodes):
            if not needed.isdisjoint(node.outputs) and not all(v in self.at for v in node.outputs):
                chosen.append(node)
                needed.update(node.inputs)
        for node in reversed(chosen):
            with self.b.at(node.loc):
                outputs = self.b.emit_all(node.op, *(self.at[v] for v in node.inputs), **node.attrs)
            self.at.update(zip(node.outputs, outputs, strict=True))


def _used(nodes: Iterable[Node], results: Iterable[Value]) -> set[Value]:
    return {*(v for n in nodes for v in n.inputs), *results}


# scan


def hoist_scan(node: Node, env: dict[Value, Value]) -> list[Node] | None:
    s = Scan.of(node)
    outside = _Outside([*s.consts, *s.rows])
    found = [_move_invariants(s, outside), _move_products(s, outside)]
    if not any(found):
        after = _move_sums(s, env)
        return None if after is None else [s.build(), *after]
    return [*outside.b.nodes, s.build()]


def _move_invariants(s: Scan, outside: _Outside) -> bool:
    same, worth = invariants(s.nodes, (p for p, _ in s.consts))
    if not worth:
        return False
    moved = {id(n) for n in worth}
    s.nodes = [n for n in s.nodes if id(n) not in moved]
    used = _used(s.nodes, s.results())
    crossing = [v for n in worth for v in n.outputs if v in used]
    outside.copy(same, crossing)
    s.consts += [(v, outside.at[v]) for v in crossing]
    return True


def _move_products(s: Scan, outside: _Outside) -> bool:
    """Products of rows with constants, and what leads from the rows to them, for all steps."""
    rows, same = {p for p, _ in s.rows}, {p for p, _ in s.consts}
    known = rows | same
    chain, products = [], []
    varies = set(rows)
    for node in s.nodes:
        if not known.issuperset(node.inputs) or node.op in CONTROL or node.op == "random_bits":
            continue
        known.update(node.outputs)
        chain.append(node)
        moving = [v in varies for v in node.inputs]
        if any(moving):
            varies.update(node.outputs)
            if node.op in PRODUCTS and not all(moving):
                products.append(node)
    if not products:
        return False
    wanted = {v for n in products for v in n.outputs}
    needed, chosen = set(wanted), []
    for node in reversed(chain):
        if not needed.isdisjoint(node.outputs):
            chosen.append(node)
            needed.update(node.inputs)
    batched = set(rows)
    batch_nodes(outside.b, s.node.attrs["length"], chosen[::-1], outside.at, batched)
    moved = {id(n) for n in products}
    s.nodes = [n for n in s.nodes if id(n) not in moved]
    s.rows += [(n.output, outside.at[n.output]) for n in products]
    return True


def _move_sums(s: Scan, env: dict[Value, Value]) -> list[Node] | None:
    """`sum = sum + a * b` over all steps, where nothing else reads the sum."""
    makers = {v: n for n in s.nodes for v in n.outputs}
    readers: dict[Value, int] = {}
    for v in [*(v for n in s.nodes for v in n.inputs), *s.results()]:
        readers[v] = readers.get(v, 0) + 1
    rows, fixed = dict(s.rows), {p for p, _ in s.consts}
    b = Builder(infer)
    stacked: dict[Value, Value] = dict(s.stacks)
    found = False
    for c in list(s.carried):
        total = makers.get(c.after)
        if total is None or total.op != "add" or readers[c.param] != 1 or readers[c.after] != 1:
            continue
        if c.param not in total.inputs:
            continue
        (product,) = [v for v in total.inputs if v is not c.param]
        maker = makers.get(product)
        if maker is None or maker.op != "contract" or any(v in fixed for v in maker.inputs):
            continue
        if readers[product] != 1:
            continue
        operands = []
        for v in maker.inputs:
            if v not in rows and v not in stacked:
                stacked[v] = Value(v.type.with_shape(s.node.attrs["length"], *v.type.shape))
                s.stacks.append((v, stacked[v]))
            operands.append(rows[v] if v in rows else stacked[v])
        at = maker.attrs
        attrs = {name: later(at[name]) for name in ("batch_a", "batch_b", "over_a", "over_b")}
        attrs |= {name: (0, *attrs[name]) for name in ("over_a", "over_b")}
        with b.at(maker.loc):
            env[c.out] = b.emit("add", c.start, b.emit("contract", *operands, **attrs))
        s.carried.remove(c)
        s.nodes.remove(total)
        found = True
    return b.nodes if found else None


# while


def hoist_while(node: Node, env: dict[Value, Value]) -> list[Node] | None:
    del env
    carried, count = node.attrs["carried"], len(node.inputs)
    graphs = {name: node.attrs[name] for name in ("test", "body")}
    before: list[Node] = []
    extra: list[tuple[str, Value, Value]] = []
    for name, g in graphs.items():
        same, worth = invariants(g.nodes, g.params[carried:])
        outside = _Outside(zip(g.params[carried:], node.inputs[carried:], strict=True))
        moved = {id(n) for n in worth}
        left = tuple(n for n in g.nodes if id(n) not in moved)
        used = _used(left, g.results)
        crossing = [v for n in worth for v in n.outputs if v in used]
        outside.copy(same, crossing)
        before += outside.b.nodes
        extra += [(name, v, outside.at[v]) for v in crossing]
        graphs[name] = replace(g, nodes=left)
    if not extra:
        return None
    for name, g in graphs.items():
        own = tuple(v if name == where else Value(v.type) for where, v, _ in extra)
        graphs[name] = replace(g, params=(*g.params[:count], *own))
    inputs = (*node.inputs, *(x for _, _, x in extra))
    attrs = MappingProxyType({**node.attrs, **graphs})
    return [*before, replace(node, inputs=inputs, attrs=attrs)]


HOIST = {"scan": hoist_scan, "while": hoist_while}
