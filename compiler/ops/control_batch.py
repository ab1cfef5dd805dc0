"""Control flow for whole batches.

A loop runs for all examples at once.  Where the number of its steps or the choice of a branch
differs from example to example, it runs for as long as any example needs it, or runs every branch,
and each example keeps what is its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.types import i32
from fluxc.compiler.ops.batching import batch_graph, with_axis
from fluxc.compiler.ops.op import infer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Graph, Value

__all__ = ["scan_batch", "switch_batch", "while_batch"]


def _carried(body: Graph, size: Size, batched: Sequence[bool], own: range) -> list[bool]:
    """The flags of all operands, once carried ones that come to differ between examples are set."""
    flags = list(batched)
    while True:
        wanted = [flags[i] for i in own] + [True] * (len(body.results) - len(own))
        _, found = batch_graph(body, size, flags, wanted)
        differ = [i for i, has in zip(own, found, strict=False) if has and not flags[i]]
        if not differ:
            return flags
        for i in differ:
            flags[i] = True


def _with_axes(
    b: Builder, size: Size, xs: Sequence[Value], batched: Sequence[bool], flags: Sequence[bool]
) -> list[Value]:
    rows = zip(xs, batched, flags, strict=True)
    return [with_axis(b, size, x) if must and not has else x for x, has, must in rows]


def _select(b: Builder, chosen: Value, x: Value, y: Value) -> Value:
    """x where `chosen`, one bool an example, else y; both carry the batch axis."""
    c = b.emit("broadcast", chosen, shape=x.type.shape, axes=(0,))
    return b.emit("select", c, x, y)


def scan_batch(
    b: Builder,
    size: Size,
    *xs: Value,
    batched: tuple[bool, ...],
    body: Graph,
    consts: int,
    carried: int,
    length: Size,
    reverse: bool,
    remat: bool = False,
) -> tuple[Value, ...]:
    """One scan whose rows are batches: the batch axis of what is stacked comes second."""
    flags = _carried(body, size, batched, range(consts, consts + carried))
    own = flags[consts : consts + carried]
    wanted = [*own, *[True] * (len(body.results) - carried)]
    inner, _ = batch_graph(body, size, flags, wanted)
    operands = _with_axes(b, size, xs, batched, flags)
    for i in range(consts + carried, len(xs)):
        if flags[i]:
            operands[i] = _swapped(b, operands[i])
    attrs = {"remat": True} if remat else {}
    outputs = b.emit_all(
        "scan", *operands, body=inner, consts=consts, carried=carried, length=length,
        reverse=reverse, **attrs,
    )  # fmt: skip
    finals = _with_axes(b, size, outputs[:carried], own, [True] * carried)
    return (*finals, *(_swapped(b, y) for y in outputs[carried:]))


def _swapped(b: Builder, x: Value) -> Value:
    """The first two axes exchanged."""
    return b.emit("transpose", x, axes=(1, 0, *range(2, x.type.rank)))


def switch_batch(
    b: Builder,
    size: Size,
    index: Value,
    *operands: Value,
    batched: tuple[bool, ...],
    branches: tuple[Graph, ...],
) -> tuple[Value, ...]:
    """One choice for all examples stays a switch; else all branches run and each example picks."""
    graphs = [batch_graph(branch, size, batched[1:])[0] for branch in branches]
    if not batched[0]:
        return b.emit_all("switch", index, *operands, branches=tuple(graphs))
    outputs = b.inline(graphs[0], operands)
    for i, graph in enumerate(graphs[1:], 1):
        others = b.inline(graph, operands)
        bound = b.emit("full", value=i, dtype=i32, shape=index.type.shape)
        reached = b.emit("ge", index, bound)
        pairs = zip(others, outputs, strict=True)
        outputs = tuple(_select(b, reached, new, old) for new, old in pairs)
    return outputs


def while_batch(
    b: Builder,
    size: Size,
    *xs: Value,
    batched: tuple[bool, ...],
    test: Graph,
    body: Graph,
    carried: int,
) -> tuple[Value, ...]:
    """Runs while any example wants to; those that do not keep what they carry."""
    flags = _carried(body, size, batched, range(carried))
    _, (varies,) = batch_graph(test, size, flags, [False])
    if varies:
        flags = _carried(body, size, [True] * carried + flags[carried:], range(carried))
    many_test, _ = batch_graph(test, size, flags, [varies])
    many_body, _ = batch_graph(body, size, flags, flags[:carried])
    if varies:
        many_test, many_body = _while_any(many_test), _where_wanted(many_test, many_body, carried)
    operands = _with_axes(b, size, xs, batched, flags)
    outputs = b.emit_all("while", *operands, test=many_test, body=many_body, carried=carried)
    return tuple(_with_axes(b, size, outputs, flags[:carried], [True] * carried))


def _while_any(test: Graph) -> Graph:
    b = Builder(infer)
    (each,) = b.inline(test, [b.param(p.type, p.name) for p in test.params])
    return b.graph(test.name, [b.emit("reduce_or", each, axes=(0,))])


def _where_wanted(test: Graph, body: Graph, carried: int) -> Graph:
    b = Builder(infer)
    params = [b.param(p.type, p.name) for p in body.params]
    (each,) = b.inline(test, params)
    new = b.inline(body, params)
    pairs = zip(new, params[:carried], strict=True)
    return b.graph(body.name, [_select(b, each, x, y) for x, y in pairs])
