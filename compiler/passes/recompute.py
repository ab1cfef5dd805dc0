"""Time for memory: what is needed long after it was made is computed a second time, not kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ops import infer
from fluxc.compiler.passes.drop_dead_code import drop_dead_code

if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from collections.abc import Set as AbstractSet

    from fluxc.compiler.ir.graph import Graph, Node, Value

__all__ = ["later_than", "recompute"]


def later_than(g: Graph, turn: Iterable[Value]) -> set[Value]:
    """The values that are computed from those of `turn`."""
    after = set(turn)
    found: set[Value] = set()
    for node in g.nodes:
        if any(v in after for v in node.inputs):
            after.update(node.outputs)
            found.update(node.outputs)
    return found


def recompute(
    g: Graph, chosen: Container[Value], stored: Container[Value], turn: Iterable[Value]
) -> tuple[Graph, frozenset[Value]]:
    """`g` in which what comes after `turn` reads copies of `chosen`, computed when they are due;
    and what these copies consist of.

    chosen  values that none of `turn` leads to
    stored  the values that lie in memory: a copy is made from these.  What lies between two of them
            is copied with the one that it leads to.
    A copy starts from barriers that hold it back until the operand has arrived beside which it is
    used; they also keep it from being shared with what it is a copy of.
    """
    turn = set(turn)
    late = later_than(g, turn)
    copier = _Copier(g, chosen, stored, late | turn)
    nodes: list[Node] = []
    for node in g.nodes:
        if late.isdisjoint(node.outputs):
            nodes.append(node)
            continue
        inputs = copier.inputs(node)
        nodes += copier.made()
        nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
    copies = frozenset(copier.copies.values())
    return drop_dead_code(replace(g, nodes=tuple(nodes))), copies


class _Copier:
    def __init__(
        self, g: Graph, chosen: Container[Value], stored: Container[Value], late: AbstractSet[Value]
    ) -> None:
        self.chosen, self.stored, self.late = chosen, stored, late
        self.producers = {v: n for n in g.nodes for v in n.outputs}
        self.place = {v: i for i, n in enumerate(g.nodes) for v in n.outputs}
        self.b = Builder(infer)
        self.copies: dict[Value, Value] = {}
        self.held: dict[tuple[Value, Value], Value] = {}
        self.changed: dict[Value, bool] = dict.fromkeys(g.params, False)

    def made(self) -> list[Node]:
        """What was added since the last time."""
        nodes, self.b.nodes = self.b.nodes, []
        return nodes

    def inputs(self, node: Node) -> tuple[Value, ...]:
        """The operands of a late node, of which some are copies."""
        arrived = self._arrived(node)
        for v in node.inputs:
            if self._changes(v):
                self._copy(v, arrived)
        return tuple(self.copies[v] if self._changes(v) else v for v in node.inputs)

    def _arrived(self, node: Node) -> Value:
        """The last late value in memory that the node's kernel starts from.

        Not what is only on its way through that kernel: it may take in what is copied here.
        """
        while True:
            last = max((v for v in node.inputs if v in self.late), key=self.place.__getitem__)
            if last in self.stored or self.late.isdisjoint(self.producers[last].inputs):
                return last
            node = self.producers[last]

    def _changes(self, value: Value) -> bool:
        """Whether a late use of the value is one of a copy."""
        pending = [value]
        while pending:
            v = pending[-1]
            if v in self.changed:
                pending.pop()
            elif v in self.late or v in self.chosen or v in self.stored:
                self.changed[v] = v not in self.late and v in self.chosen
            else:
                inputs = self.producers[v].inputs
                open_ = [x for x in inputs if x not in self.changed]
                pending += open_
                if not open_:
                    self.changed[v] = any(self.changed[x] for x in inputs)
        return self.changed[value]

    def _copy(self, value: Value, arrived: Value) -> None:
        """Compute the value again, and before it what it is computed from."""
        pending = [value]
        while pending:
            v = pending[-1]
            node = self.producers[v]
            missing = [x for x in node.inputs if self._is_copied(x) and x not in self.copies]
            if missing and v not in self.copies:
                pending += missing
                continue
            pending.pop()
            if v in self.copies:
                continue
            inputs = [self._operand(x, arrived) for x in node.inputs]
            with self.b.at(node.loc):
                outputs = self.b.emit_all(node.op, *inputs, **node.attrs)
            self.copies.update(zip(node.outputs, outputs, strict=True))

    def _is_copied(self, value: Value) -> bool:
        """Whether a copy is computed from a copy of `value`: it is chosen, or not there to read."""
        if value.type.size == 1 or (value in self.stored and value not in self.chosen):
            return False
        return bool(self.producers[value].inputs)  # numbers and constants are made anywhere

    def _operand(self, value: Value, arrived: Value) -> Value:
        if value in self.copies and self._is_copied(value):
            return self.copies[value]
        maker = self.producers.get(value)
        if maker is not None and not maker.inputs:
            return value
        if (value, arrived) not in self.held:
            self.held[value, arrived] = self.b.emit("barrier", value, arrived)
        return self.held[value, arrived]
