"""Computes on small tensors what would be computed on their repetitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.ops import OPS
from fluxc.compiler.passes.rewrite import rewrite

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Graph, Node, Value
    from fluxc.compiler.passes.rewrite import Rewriter

__all__ = ["delay_broadcasts"]


def delay_broadcasts(g: Graph) -> Graph:
    """Repeat the result of an elementwise operation where all its operands are repetitions."""
    return rewrite(
        g, {name: (elementwise_of_broadcasts,) for name, op in OPS.items() if op.elementwise}
    )


def elementwise_of_broadcasts(r: Rewriter, n: Node) -> Value | None:
    """It pays where some axis is new in every operand; numbers are new in all of them."""
    sources = [r.by(v, "broadcast", "full") for v in n.inputs]
    if any(s is None for s in sources):
        return None
    nodes = [s for s in sources if s is not None]
    used = {a for s in nodes if s.op == "broadcast" for a in s.attrs["axes"]}
    shape = n.output.type.shape
    spared = [s for a, s in enumerate(shape) if a not in used and s != 1]
    if not spared or all(s.op == "full" for s in nodes):
        return None
    axes = tuple(sorted(used))
    small = tuple(shape[a] for a in axes)
    inputs = [_shrunk(r, s, small, axes) for s in nodes]
    return r.emit("broadcast", r.emit(n.op, *inputs, **n.attrs), shape=shape, axes=axes)


def _shrunk(r: Rewriter, source: Node, small: tuple[object, ...], axes: tuple[int, ...]) -> Value:
    """The operand on the axes that any operand has."""
    if source.op == "full":
        return r.emit("full", value=source.attrs["value"], dtype=source.attrs["dtype"], shape=small)
    places = tuple(axes.index(a) for a in source.attrs["axes"])
    if places == tuple(range(len(axes))):
        return source.inputs[0]
    return r.emit("broadcast", source.inputs[0], shape=small, axes=places)
