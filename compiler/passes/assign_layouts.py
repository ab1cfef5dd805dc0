"""Lets images travel with their channels last between convolutions.

A convolution multiplies and stores neighbouring channels side by side, so it is computed on
[N, S..., C]; what is made of its result element by element, by windows, padding or sums is computed
in that order too.  What another order meets, or leaves the graph, is transposed there.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fluxc.compiler.ir.graph import Node, Value
from fluxc.compiler.ops import OPS, infer
from fluxc.compiler.ops.convolution import channels_first, channels_last

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.graph import Graph, Loc

__all__ = ["assign_layouts"]

_PER_AXIS = ("sizes", "strides", "low", "high", "dilation", "interior", "starts", "limits", "steps")
"""Attributes with an entry for each axis of the first operand."""


def assign_layouts(g: Graph) -> Graph:
    """Put channels last in convolutions and pooling, and in what is computed of them."""
    if not any(map(_has_images, g.nodes)):
        return g
    return _Assignment(g).graph()


class _Assignment:
    """The graph as rebuilt so far; `last` has what lies with its channels last."""

    def __init__(self, g: Graph) -> None:
        self.g = g
        self.nodes: list[Node] = []
        self.last: dict[Value, Value] = {}
        self.first: dict[Value, Value] = {}  # what stands for a value in its own order
        self.transposed: dict[Value, Value] = {}
        self.loc: Loc | None = None

    def graph(self) -> Graph:
        for node in self.g.nodes:
            self.loc = node.loc
            if not self.moved(node):
                inputs = tuple(map(self.in_order, node.inputs))
                self.nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
        results = tuple(map(self.in_order, self.g.results))
        return replace(self.g, nodes=tuple(self.nodes), results=results)

    def emit(self, op: str, *inputs: Value, **attrs: Any) -> Value:
        (type,) = infer(op, tuple(v.type for v in inputs), attrs)
        value = Value(type)
        self.nodes.append(Node(op, inputs, (value,), MappingProxyType(attrs), self.loc))
        return value

    def in_order(self, v: Value) -> Value:
        """A value of the old graph with its axes in its own order."""
        if v not in self.last:
            return v
        if v not in self.first:
            axes = channels_first(v.type.rank)
            self.first[v] = self.emit("transpose", self.last[v], axes=axes)
        return self.first[v]

    def with_last(self, v: Value) -> Value:
        """A value of the old graph with its channels last."""
        if v in self.last:
            return self.last[v]
        if v not in self.transposed:
            self.transposed[v] = self.emit("transpose", v, axes=channels_last(v.type.rank))
        return self.transposed[v]

    def moved(self, node: Node) -> bool:
        """Whether the node has become one with channels last."""
        rule = _RULES.get(node.op)
        if rule is None and OPS[node.op].elementwise:
            rule = _elementwise
        follows = node.op != "transpose" and any(v in self.last for v in node.inputs)
        if rule is None or not (follows or _begins(node)):
            return False
        if node.op in _POSITIONS and not _counts_alike(node):
            return False
        rule(self, node)
        return True

    def ends(self, node: Node, value: Value) -> None:
        """`value`, in the node's own order, is what the node gives."""
        # No later node names it but through the old output.
        self.nodes[-1] = replace(self.nodes[-1], outputs=node.outputs)
        assert value.type == node.output.type


def _conv(s: _Assignment, node: Node) -> None:
    x, w = node.inputs
    s.last[node.output] = s.emit("conv_last", s.with_last(x), s.in_order(w), **node.attrs)


def _elementwise(s: _Assignment, node: Node) -> None:
    s.last[node.output] = s.emit(node.op, *map(s.with_last, node.inputs), **node.attrs)


def _along_axes(s: _Assignment, node: Node) -> None:
    """Windows, slices, padding: operands of the same rank, an entry for each axis."""
    order = channels_last(node.output.type.rank)
    attrs = {
        name: tuple(value[a] for a in order) if name in (*_PER_AXIS, "shape") else value
        for name, value in node.attrs.items()
    }
    ranks = (v.type.rank == node.output.type.rank for v in node.inputs)
    inputs = [
        s.with_last(v) if same else s.in_order(v)
        for v, same in zip(node.inputs, ranks, strict=True)
    ]
    s.last[node.output] = s.emit(node.op, *inputs, **attrs)


def _reverse(s: _Assignment, node: Node) -> None:
    axes = _places(node, node.attrs["axes"])
    s.last[node.output] = s.emit("reverse", s.with_last(node.inputs[0]), axes=axes)


def _concatenate(s: _Assignment, node: Node) -> None:
    (axis,) = _places(node, (node.attrs["axis"],))
    inputs = map(s.with_last, node.inputs)
    s.last[node.output] = s.emit("concatenate", *inputs, axis=axis)


def _reduce(s: _Assignment, node: Node) -> None:
    """A sum over some axes; the others are put in order where there are several."""
    x = node.inputs[0]
    order = channels_last(x.type.rank)
    axes = _places(node, node.attrs["axes"])
    kept = [a for i, a in enumerate(order) if i not in axes]
    y = s.emit(node.op, s.with_last(x), axes=axes)
    if kept != sorted(kept):
        y = s.emit("transpose", y, axes=tuple(kept.index(a) for a in sorted(kept)))
    s.ends(node, y)


def _places(node: Node, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Where axes of the first operand stand once its channels are last."""
    order = channels_last(node.inputs[0].type.rank)
    return tuple(sorted(order.index(a) for a in axes))


def _transpose(s: _Assignment, node: Node) -> None:
    """What puts channels first is what it was with its channels last."""
    s.last[node.output] = s.in_order(node.inputs[0])


def _has_images(node: Node) -> bool:
    """Whether a graph with this node has images, which a transpose alone does not tell."""
    return node.op == "conv_last" or (node.op != "transpose" and _begins(node))


def _begins(node: Node) -> bool:
    """Whether a node is worth another order of its operands: windows over many channels are.

    A transpose that puts channels first has its result in that order for nothing.
    """
    if node.op == "transpose":
        rank = node.output.type.rank
        return rank > 2 and node.attrs["axes"] == channels_first(rank)
    if node.op not in _WINDOWS:
        return node.op == "conv"
    if node.output.type.rank < 3:
        return False
    image, channel, *spatial = node.attrs["sizes"]
    if image != 1 or channel != 1 or all(size == 1 for size in spatial):
        return False
    return node.output.type.shape[1] not in range(_FEW)


def _counts_alike(node: Node) -> bool:
    """Whether elements of a window are counted in the same order with the channels last."""
    _, channels, *spatial = node.attrs["sizes"]
    return channels == 1 or all(size == 1 for size in spatial)


_FEW = 4  # channels that do not fill a vector
_POSITIONS = {"window_argmax", "window_pick", "window_place"}
_WINDOWS = {*_POSITIONS, "window_max", "window_sum"}
_RULES: dict[str, Callable[[_Assignment, Node], None]] = {
    "conv": _conv,
    "reverse": _reverse,
    "concatenate": _concatenate,
    "transpose": _transpose,
    **dict.fromkeys(("pad", "slice"), _along_axes),
    **dict.fromkeys(_WINDOWS, _along_axes),
    **dict.fromkeys(
        ("reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum"),
        _reduce,
    ),
}
