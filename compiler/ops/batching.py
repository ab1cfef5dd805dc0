"""Whole batches at once: every operation of a program, for examples along a leading axis.

Inputs that carry the axis are `batched`; a node none of whose inputs does is computed once, for
all examples.  Random bits are the exception: each example draws its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.graph import subgraphs
from fluxc.compiler.ops.op import OPS, infer
from fluxc.compiler.ops.term import Term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Graph, Node, Value

__all__ = ["batch_graph", "batch_nodes", "batching", "later", "with_axis"]


def with_axis(b: Builder, size: Size, x: Value) -> Value:
    """`x`, repeated for each of `size` examples along a leading axis."""
    shape = (size, *x.type.shape)
    return b.emit("broadcast", x, shape=shape, axes=tuple(range(1, len(shape))))


def later(axes: Iterable[int]) -> tuple[int, ...]:
    """The axes where they stand once a leading axis has come."""
    return tuple(a + 1 for a in axes)


def batching(
    rule: Callable[..., Term | tuple[Term, ...]],
) -> Callable[..., Value | tuple[Value, ...]]:
    """An `Op.batch` from a rule on terms all of which carry the axis, `(size, *xs, **attrs)`."""

    def batch(
        b: Builder, size: Size, *xs: Value, batched: tuple[bool, ...], **attrs: Any
    ) -> Value | tuple[Value, ...]:
        pairs = zip(xs, batched, strict=True)
        found = rule(
            size, *(Term(b, x if has else with_axis(b, size, x)) for x, has in pairs), **attrs
        )
        return tuple(t.value for t in found) if isinstance(found, tuple) else found.value

    return batch


def batch_nodes(
    b: Builder,
    size: Size,
    nodes: Iterable[Node],
    env: dict[Value, Value],
    batched: set[Value],
) -> None:
    """Emit `nodes` into `b` for a whole batch.

    env      what stands for each of their inputs, itself where nothing is said; outputs are added
    batched  the values (as `nodes` name them) whose stand-ins carry the axis; outputs are added
    """
    for node in nodes:
        inputs = [env.get(v, v) for v in node.inputs]
        flags = tuple(v in batched for v in node.inputs)
        with b.at(node.loc):
            if any(flags) or _draws(node):
                outputs = _batch_node(b, size, node, inputs, flags)
                batched.update(node.outputs)
            else:
                outputs = b.emit_all(node.op, *inputs, **node.attrs)
        env.update(zip(node.outputs, outputs, strict=True))


def _draws(node: Node) -> bool:
    """Whether random bits are drawn in it, which differ from example to example."""
    inner = (n for g in subgraphs(node) for n in g.nodes)
    return node.op == "random_bits" or any(map(_draws, inner))


def _batch_node(
    b: Builder, size: Size, node: Node, inputs: Sequence[Value], flags: tuple[bool, ...]
) -> tuple[Value, ...]:
    record = OPS[node.op]
    if record.elementwise:
        pairs = zip(inputs, flags, strict=True)
        xs = [x if has else with_axis(b, size, x) for x, has in pairs]
        return b.emit_all(node.op, *xs, **node.attrs)
    assert record.batch is not None, f"{node.op} has no rule for batches"
    found = record.batch(b, size, *inputs, batched=flags, **node.attrs)
    return found if isinstance(found, tuple) else (found,)


def batch_graph(
    g: Graph, size: Size, batched: Sequence[bool], results: Sequence[bool] | None = None
) -> tuple[Graph, tuple[bool, ...]]:
    """`g` for a whole batch, and which of its results carry the axis.

    batched  which parameters carry it
    results  which results must carry it whether or not they differ between examples; all of them
             by default
    """
    b = Builder(infer)
    pairs = list(zip(g.params, batched, strict=True))
    types = (p.type.with_shape(size, *p.type.shape) if has else p.type for p, has in pairs)
    env = {p: b.param(t, p.name) for p, t in zip(g.params, types, strict=True)}
    marked = {p for p, has in pairs if has}
    batch_nodes(b, size, g.nodes, env, marked)
    wanted = [True] * len(g.results) if results is None else results
    found = [
        with_axis(b, size, env[v]) if must and v not in marked else env[v]
        for v, must in zip(g.results, wanted, strict=True)
    ]
    carried = tuple(bool(must or v in marked) for v, must in zip(g.results, wanted, strict=True))
    return b.graph(g.name, found), carried
