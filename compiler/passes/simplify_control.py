"""Takes out of loops and choices what needs none.

Each rule is exact for any number of steps, none included.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import Dim
from fluxc.compiler.ir.graph import Graph, Node, Value
from fluxc.compiler.ops import infer
from fluxc.compiler.ops.control import CONTROL
from fluxc.compiler.passes.loops import Scan

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["simplify_control"]


def simplify_control(g: Graph) -> Graph:
    """Inline what runs once, and tell constants and copies from what a loop computes."""
    if not any(n.op in CONTROL for n in g.nodes):
        return g
    sweep = _Sweep()
    for old in g.nodes:
        sweep.node(old)
    if not sweep.changed:
        return g
    results = tuple(sweep.env.get(v, v) for v in g.results)
    return replace(g, nodes=tuple(sweep.b.nodes), results=results)


class _Sweep:
    def __init__(self) -> None:
        self.b = Builder(infer)
        self.env: dict[Value, Value] = {}
        self.makers: dict[Value, Node] = {}
        self.changed = False

    def node(self, old: Node) -> None:
        inputs = tuple(self.env.get(v, v) for v in old.inputs)
        node = old if inputs == old.inputs else replace(old, inputs=inputs)
        first = len(self.b.nodes)
        with self.b.at(node.loc):
            simple = {"scan": self.scan, "while": self.while_, "switch": self.switch}
            left = simple[node.op](node) if node.op in simple else node
        if left is not None:
            self.b.nodes.append(left)
        self.changed = self.changed or left is not node
        for made in self.b.nodes[first:]:
            self.makers.update((v, made) for v in made.outputs)

    def same(self, outputs: Sequence[Value], values: Sequence[Value]) -> None:
        self.env.update(zip(outputs, values, strict=True))

    # scan

    def scan(self, node: Node) -> Node | None:
        length = node.attrs["length"]
        if length in (0, 1):
            self.same(node.outputs, self._none(node) if length == 0 else self._once(node))
            return None
        s = Scan.of(node)
        rules = (
            self._kept, self._repeated_rows, self._numbers, self._shared, self._stacked_copies,
            self._equal_stacks,
        )  # fmt: skip
        found = [rule(s) for rule in rules]  # all of them: each sees what those before it left
        if not any(found):
            return node
        if not s.carried and not s.stacks:
            return None
        return s.build()

    def _none(self, node: Node) -> list[Value]:
        """No step: what is carried ends as it began."""
        s = Scan.of(node)
        empty = [self._zeros(y) for _, y in s.stacks]
        return [*(c.start for c in s.carried), *empty]

    def _zeros(self, y: Value) -> Value:
        dtype = y.type.dtype
        number: Any = 0.0 if dtype.is_float else False if dtype.kind == "b" else 0
        return self.b.emit("full", value=number, dtype=dtype, shape=y.type.shape)

    def _once(self, node: Node) -> list[Value]:
        """One step: the body itself."""
        s = Scan.of(node)
        rows = [self.b.emit("reshape", x, shape=p.type.shape) for p, x in s.rows]
        operands = [*(x for _, x in s.consts), *(c.start for c in s.carried), *rows]
        made = self.b.inline(node.attrs["body"], operands)
        stacks = [
            self.b.emit("reshape", v, shape=(1, *v.type.shape)) for v in made[len(s.carried) :]
        ]
        return [*made[: len(s.carried)], *stacks]

    def _kept(self, s: Scan) -> bool:
        """What is carried unchanged is a constant."""
        kept = [c for c in s.carried if c.after is c.param]
        for c in kept:
            s.carried.remove(c)
            s.consts.append((c.param, c.start))
            self.env[c.out] = c.start
        return bool(kept)

    def _repeated_rows(self, s: Scan) -> bool:
        """Rows that are all alike are a constant."""
        found = False
        for pair in list(s.rows):
            param, x = pair
            maker = self.makers.get(x)
            if maker is None or maker.op not in ("broadcast", "full"):
                continue
            if 0 in maker.attrs.get("axes", ()):
                continue
            s.rows.remove(pair)
            found = True
            shape = param.type.shape
            if maker.op == "full":
                attrs = {**maker.attrs, "shape": shape}
                s.nodes.insert(0, Node("full", (), (param,), MappingProxyType(attrs), maker.loc))
                continue
            source = maker.inputs[0]
            if source.type.shape == shape:
                s.consts.append((param, source))
                continue
            inside = Value(source.type)
            axes = tuple(a - 1 for a in maker.attrs["axes"])
            attrs = {"shape": shape, "axes": axes}
            spread = Node("broadcast", (inside,), (param,), MappingProxyType(attrs), maker.loc)
            s.nodes.insert(0, spread)
            s.consts.append((inside, source))
        return found

    def _numbers(self, s: Scan) -> bool:
        """A constant that is one number is written in the body."""
        numbers = [pair for pair in s.consts if self._number(pair[1]) is not None]
        for pair in numbers:
            s.consts.remove(pair)
            s.nodes.insert(0, self._copy(pair))
        return bool(numbers)

    def _number(self, v: Value) -> Node | None:
        maker = self.makers.get(v)
        return maker if maker is not None and maker.op == "full" else None

    def _copy(self, pair: tuple[Value, Value]) -> Node:
        param, x = pair
        maker = self._number(x)
        assert maker is not None
        return replace(maker, outputs=(param,))

    def _shared(self, s: Scan) -> bool:
        """One operand given twice is one parameter."""
        env: dict[Value, Value] = {}
        s.consts = _once_each(s.consts, env)
        s.rows = _once_each(s.rows, env)
        s.substitute(env)
        return bool(env)

    def _stacked_copies(self, s: Scan) -> bool:
        """Stacked rows are their operand; a stacked constant is a repetition."""
        rows, consts = dict(s.rows), dict(s.consts)
        found = False
        for pair in list(s.stacks):
            result, y = pair
            if result in rows:
                self.env[y] = rows[result]
            elif result in consts:
                axes = tuple(range(1, y.type.rank))
                spread = self.b.emit("broadcast", consts[result], shape=y.type.shape, axes=axes)
                self.env[y] = spread
            else:
                continue
            s.stacks.remove(pair)
            found = True
        return found

    def _equal_stacks(self, s: Scan) -> bool:
        """One result stacked twice is one output."""
        first: dict[Value, Value] = {}
        for result, y in s.stacks:
            if first.setdefault(result, y) is not y:
                self.env[y] = first[result]
        found = len(first) < len(s.stacks)
        s.stacks = list(first.items())
        return found

    # while

    def while_(self, node: Node) -> Node | None:
        """What is carried unchanged is a constant; constant numbers are written in both graphs."""
        test, body, carried = (node.attrs[k] for k in ("test", "body", "carried"))
        kept = [i for i in range(carried) if body.results[i] is body.params[i]]
        if len(kept) == carried:  # it ends at once or never
            kept = kept[1:]
        numbers = [i for i in range(carried, len(node.inputs)) if self._number(node.inputs[i])]
        if not kept and not numbers:
            return node
        for i in kept:
            self.env[node.outputs[i]] = node.inputs[i]
        own = [i for i in range(carried) if i not in kept]
        rest = [*kept, *(i for i in range(carried, len(node.inputs)) if i not in numbers)]
        order = [*own, *rest]
        graphs = [self._reordered(g, order, numbers, node) for g in (test, body)]
        graphs[1] = replace(graphs[1], results=tuple(body.results[i] for i in own))
        attrs = {"test": graphs[0], "body": graphs[1], "carried": len(own)}
        return replace(
            node,
            inputs=tuple(node.inputs[i] for i in order),
            outputs=tuple(node.outputs[i] for i in own),
            attrs=MappingProxyType(attrs),
        )

    def _reordered(self, g: Graph, order: list[int], numbers: list[int], node: Node) -> Graph:
        """The graph with its parameters in another order and some as numbers of its own."""
        made = [self._copy((g.params[i], node.inputs[i])) for i in numbers]
        return replace(g, params=tuple(g.params[i] for i in order), nodes=(*made, *g.nodes))

    # switch

    def switch(self, node: Node) -> Node | None:
        branches: tuple[Graph, ...] = node.attrs["branches"]
        chosen = self._number(node.inputs[0])
        index = chosen.attrs["value"] if chosen is not None else None
        if len(branches) == 1 or (index is not None and not isinstance(index, Dim)):
            at = min(max(int(index or 0), 0), len(branches) - 1)
            self.same(node.outputs, self.b.inline(branches[at], node.inputs[1:]))
            return None
        node = self._numbers_in_branches(node)
        return self._same_in_all(node)

    def _numbers_in_branches(self, node: Node) -> Node:
        operands = node.inputs[1:]
        numbers = [i for i, x in enumerate(operands) if self._number(x) is not None]
        if not numbers:
            return node
        order = [i for i in range(len(operands)) if i not in numbers]
        inner = replace(node, inputs=operands)
        branches = tuple(self._reordered(g, order, numbers, inner) for g in node.attrs["branches"])
        inputs = (node.inputs[0], *(operands[i] for i in order))
        return replace(node, inputs=inputs, attrs=MappingProxyType({"branches": branches}))

    def _same_in_all(self, node: Node) -> Node | None:
        """An output that every branch hands on from one operand is that operand."""
        branches: tuple[Graph, ...] = node.attrs["branches"]
        keep: list[int] = []
        columns: dict[tuple[Value, ...], Value] = {}
        for i, y in enumerate(node.outputs):
            places = {_position(g, g.results[i]) for g in branches}
            column = tuple(g.results[i] for g in branches)
            if len(places) == 1 and None not in places:
                (at,) = places
                assert at is not None
                self.env[y] = node.inputs[1 + at]
            elif column in columns:
                self.env[y] = columns[column]
            else:
                columns[column] = y
                keep.append(i)
        if len(keep) == len(node.outputs):
            return node
        if not keep:
            return None
        graphs = tuple(replace(g, results=tuple(g.results[i] for i in keep)) for g in branches)
        outputs = tuple(node.outputs[i] for i in keep)
        return replace(node, outputs=outputs, attrs=MappingProxyType({"branches": graphs}))


def _position(g: Graph, v: Value) -> int | None:
    return g.params.index(v) if v in g.params else None


def _once_each(
    pairs: list[tuple[Value, Value]], env: dict[Value, Value]
) -> list[tuple[Value, Value]]:
    first: dict[Value, Value] = {}
    for param, x in pairs:
        known = first.setdefault(x, param)
        if known is not param:
            env[param] = known
    return [pair for pair in pairs if pair[0] not in env]
