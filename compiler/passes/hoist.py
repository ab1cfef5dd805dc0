"""Moves work out of loops.

- What is the same at every step is computed once, before the loop.
- A product of what a scan is given step by step with what stays the same becomes one large product
  over all steps, with its bias: the input projection of a recurrent network.
- A sum of products over the steps becomes one product that sums over them too: the gradient of a
  recurrent network's weights.  So does a sum of what is stacked anyway: the gradient of its bias.
- A product with what stays the same that only stacked results need becomes one after the loop, with
  what follows from it: the gradient of a recurrent network's input, and what it puts out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.graph import Node, Value
from fluxc.compiler.ops import OPS, infer
from fluxc.compiler.ops.batching import batch_nodes, later
from fluxc.compiler.ops.control import CONTROL
from fluxc.compiler.passes.loops import Carried, Scan, substituted

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
    if any(found):
        return [*outside.b.nodes, s.build()]
    after = [*_move_sums(s, env), *_move_results(s, env)]
    left = [s.build()] if s.carried or s.stacks else []
    return [*left, *after] if after else None


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
    ends, moved = _extended(products, chain, _readers(s))
    needed, chosen = set(ends), []
    for node in reversed(chain):
        if not needed.isdisjoint(node.outputs):
            chosen.append(node)
            needed.update(node.inputs)
    batched = set(rows)
    batch_nodes(outside.b, s.node.attrs["length"], chosen[::-1], outside.at, batched)
    s.nodes = [n for n in s.nodes if moved.isdisjoint(n.outputs)]
    s.rows += [(v, outside.at[v]) for v in ends]
    return True


def _extended(
    products: Sequence[Node], chain: Sequence[Node], readers: Counter[Value]
) -> tuple[list[Value], set[Value]]:
    """What a loop is given in place of products, and all that is moved out: arithmetic on one that
    takes no more room, such as the addition of a bias, goes with it."""
    follows = {v: n for n in chain for v in n.inputs}
    ends: dict[Value, None] = {}
    moved = {n.output for n in products}
    for product in products:
        v = product.output
        while readers[v] == 1 and (n := follows.get(v)) is not None and _is_arithmetic(n, v):
            v = n.output
            moved.add(v)
        ends[v] = None
    return list(ends), moved


def _is_arithmetic(node: Node, v: Value) -> bool:
    return OPS[node.op].elementwise and node.output.type == v.type


class _Stacks:
    """What a loop's rows and results are as arrays over all steps."""

    def __init__(self, s: Scan) -> None:
        self.s = s
        self.at = {**dict(s.stacks), **dict(s.rows)}

    def of(self, v: Value) -> Value:
        """The array of v at every step; the loop stacks it if it has not so far."""
        if v not in self.at:
            self.at[v] = Value(v.type.with_shape(self.s.node.attrs["length"], *v.type.shape))
            self.s.stacks.append((v, self.at[v]))
        return self.at[v]


def _readers(s: Scan) -> Counter[Value]:
    return Counter([*(v for n in s.nodes for v in n.inputs), *s.results()])


def _move_sums(s: Scan, env: dict[Value, Value]) -> list[Node]:
    """`sum = sum + a * b` over all steps, where nothing else reads the sum, and `sum = sum + a`,
    or the sum of a's elements along axes, where a is stacked."""
    makers = {v: n for n in s.nodes for v in n.outputs}
    readers, stacks = _readers(s), _Stacks(s)
    fixed = {p for p, _ in s.consts}
    sums = [(c, term) for c in s.carried if (term := _term(c, makers, readers)) is not None]
    b = Builder(infer)

    def move(c: Carried, total: Value) -> None:
        env[c.out] = b.emit("add", c.start, total)
        s.carried.remove(c)
        s.nodes.remove(makers[c.after])

    for c, term in sums:
        moved = _moved(term, makers, readers)
        maker = makers.get(moved[-1].inputs[0] if moved else term)
        if maker is None or maker.op != "contract" or fixed.intersection(maker.inputs):
            continue
        if readers[maker.output] == 1:
            at = maker.attrs
            attrs = {name: later(at[name]) for name in ("batch_a", "batch_b", "over_a", "over_b")}
            attrs |= {name: (0, *attrs[name]) for name in ("over_a", "over_b")}
            with b.at(maker.loc):
                total = b.emit("contract", *map(stacks.of, maker.inputs), **attrs)
                for n in reversed(moved):
                    zeros = [b.emit("full", **makers[v].attrs) for v in n.inputs[1:]]
                    total = b.emit(n.op, total, *zeros, **n.attrs)
                move(c, total)
            s.nodes = [n for n in s.nodes if n is not maker and n not in moved]
    for c, term in sums:
        maker = makers.get(term)
        adds = maker is not None and maker.op == "reduce_sum"
        source = maker.inputs[0] if maker is not None and adds else term
        if c in s.carried and source in stacks.at:
            axes = later(maker.attrs["axes"]) if maker is not None and adds else ()
            with b.at(makers[c.after].loc):
                move(c, b.emit("reduce_sum", stacks.at[source], axes=(0, *axes)))
    return b.nodes


def _moved(term: Value, makers: dict[Value, Node], readers: Counter[Value]) -> list[Node]:
    """What only moves the elements of a sum's term, or puts zeros around them, last first."""
    found: list[Node] = []
    while (node := makers.get(term)) is not None and readers[term] == 1:
        fill = [makers.get(v) for v in node.inputs[1:]]
        if node.op not in ("transpose", "reshape", "pad") or not all(map(_is_zero, fill)):
            break
        found.append(node)
        term = node.inputs[0]
    return found


def _is_zero(node: Node | None) -> bool:
    return node is not None and node.op == "full" and node.attrs["value"] == 0


def _term(c: Carried, makers: dict[Value, Node], readers: Counter[Value]) -> Value | None:
    """What each step adds to a carried value that nothing reads but its sum."""
    total = makers.get(c.after)
    if total is None or total.op != "add" or readers[c.param] != 1 or readers[c.after] != 1:
        return None
    if c.param not in total.inputs:
        return None
    (term,) = [v for v in total.inputs if v is not c.param]
    return term


def _move_results(s: Scan, env: dict[Value, Value]) -> list[Node]:
    """Products with constants that stacked results alone depend on, and what follows from them."""
    same, _ = invariants(s.nodes, (p for p, _ in s.consts))
    fixed = {*(p for p, _ in s.consts), *(v for n in same for v in n.outputs)}
    stacks = _Stacks(s)
    late = _late(s, fixed, set(stacks.at))
    if not late:
        return []
    made = {v for n in late for v in n.outputs}
    read = dict.fromkeys(v for n in late for v in n.inputs if v not in made)
    batched = {v for v in read if v not in fixed}
    outside = _Outside([*s.consts, *((v, stacks.of(v)) for v in read if v in batched)])
    outside.copy(same, [v for v in read if v in fixed])
    batch_nodes(outside.b, s.node.attrs["length"], late, outside.at, batched)
    env.update((y, outside.at[r]) for r, y in s.stacks if r in made)
    s.stacks = [(r, y) for r, y in s.stacks if r not in made]
    s.nodes = [n for n in s.nodes if made.isdisjoint(n.outputs)]
    return outside.b.nodes


def _late(s: Scan, fixed: set[Value], stacked: set[Value]) -> list[Node]:
    """The nodes that can wait until all steps are over: products of a value that varies with a
    fixed one, and what is computed of these and of what is stacked or fixed."""
    kept = {c.after for c in s.carried}
    for node in reversed(s.nodes):
        if node.op in CONTROL or node.op == "random_bits" or not kept.isdisjoint(node.outputs):
            kept.update((*node.inputs, *node.outputs))
    made: set[Value] = set()
    late = []
    for node in s.nodes:
        if kept.isdisjoint(node.outputs) and (
            _is_root(node, fixed) or not made.isdisjoint(node.inputs)
        ):
            late.append(node)
            made.update(node.outputs)
    while True:
        made = {v for n in late for v in n.outputs}
        early = {v for n in s.nodes if made.isdisjoint(n.outputs) for v in n.inputs}
        wanted = {*(r for r, _ in s.stacks), *(v for n in late for v in n.inputs)} - early
        known = fixed | stacked | made
        left = [
            n
            for n in late
            if wanted.issuperset(n.outputs) and (_is_root(n, fixed) or known.issuperset(n.inputs))
        ]
        if len(left) == len(late):
            return late
        late = left


def _is_root(node: Node, fixed: set[Value]) -> bool:
    """Whether it is the product of a fixed value with one that varies."""
    return node.op in PRODUCTS and sum(v in fixed for v in node.inputs) == 1


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
