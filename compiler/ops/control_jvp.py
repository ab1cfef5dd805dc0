"""Forward mode through control flow: tangents are carried, stacked and returned beside values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ops.control_vjp import moving_results, zeros
from fluxc.compiler.ops.op import infer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Graph, Value

__all__ = ["scan_jvp", "switch_jvp", "while_jvp"]


def _settled(body: Graph, moving: Sequence[bool], own: range) -> list[bool]:
    """Which operands have tangents, once carried ones that come to depend on others do too."""
    flags = list(moving)
    for _ in own:
        ends = moving_results(body, flags)
        for at, i in enumerate(own):
            flags[i] = flags[i] or ends[at]
    return flags


class _Pushed:
    """A graph inside a new one, and the tangents of its results."""

    def __init__(
        self,
        graph: Graph,
        flags: Sequence[bool],
        pushforward: Callable[..., list[Value | None]],
        parts: Sequence[range],
    ) -> None:
        """The parameters of each part are followed by the tangents of those that have one."""
        self.b = Builder(infer)
        params: dict[int, Value] = {}
        moved: dict[int, Value] = {}
        for part in parts:
            params.update((i, self.b.param(graph.params[i].type)) for i in part)
            moved.update((i, self.b.param(graph.params[i].type)) for i in part if flags[i])
        self.results = self.b.inline(graph, [params[i] for i in range(len(graph.params))])
        tangents = {params[i]: t for i, t in moved.items()}
        self.tangents = pushforward(self.b, tuple(self.b.nodes), tangents, self.results)

    def or_zeros(self, i: int) -> Value:
        tangent = self.tangents[i]
        return zeros(self.b, self.results[i].type) if tangent is None else tangent


def _operands(
    b: Builder,
    xs: Sequence[Value],
    tangents: Sequence[Value | None],
    flags: Sequence[bool],
    parts: Sequence[range],
) -> list[Value]:
    """Values and tangents in the order of `_Pushed`'s parameters."""
    found = []
    for part in parts:
        found += [xs[i] for i in part]
        found += [
            zeros(b, xs[i].type) if t is None else t
            for i, t in ((i, tangents[i]) for i in part)
            if flags[i]
        ]
    return found


def scan_jvp(
    b: Builder,
    ys: tuple[Value, ...],
    *xs: Value,
    tangents: tuple[Value | None, ...],
    pushforward: Callable[..., list[Value | None]],
    body: Graph,
    consts: int,
    carried: int,
    length: Size,
    reverse: bool,
    remat: bool = False,
) -> tuple[Value | None, ...]:
    own = range(consts, consts + carried)
    parts = (range(consts), own, range(consts + carried, len(xs)))
    flags = _settled(body, [t is not None for t in tangents], own)
    p = _Pushed(body, flags, pushforward, parts)
    moving = [i - consts for i in own if flags[i]]
    stacked = [i for i in range(carried, len(ys)) if p.tangents[i] is not None]
    if not moving and not stacked:
        return (None,) * len(ys)
    results = [*p.results[:carried], *map(p.or_zeros, moving), *map(p.or_zeros, stacked)]
    attrs = {"length": length, "reverse": reverse, **({"remat": True} if remat else {})}
    made = b.emit_all(
        "scan", *_operands(b, xs, tangents, flags, parts),
        body=p.b.graph(f"{body.name}_jvp", results), consts=consts + sum(flags[:consts]),
        carried=carried + len(moving), **attrs,
    )  # fmt: skip
    found = dict(zip([*moving, *stacked], made[carried:], strict=True))
    return tuple(found.get(i) for i in range(len(ys)))


def while_jvp(
    b: Builder,
    ys: tuple[Value, ...],
    *xs: Value,
    tangents: tuple[Value | None, ...],
    pushforward: Callable[..., list[Value | None]],
    test: Graph,
    body: Graph,
    carried: int,
) -> tuple[Value | None, ...]:
    own = range(carried)
    parts = (own, range(carried, len(xs)))
    flags = _settled(body, [t is not None for t in tangents], own)
    moving = [i for i in own if flags[i]]
    if not moving:
        return (None,) * len(ys)
    p = _Pushed(body, flags, pushforward, parts)
    tested = _Pushed(test, flags, lambda *_: [None], parts)
    results = [*p.results, *map(p.or_zeros, moving)]
    made = b.emit_all(
        "while", *_operands(b, xs, tangents, flags, parts),
        test=tested.b.graph(test.name, tested.results),
        body=p.b.graph(f"{body.name}_jvp", results), carried=carried + len(moving),
    )  # fmt: skip
    found = dict(zip(moving, made[carried:], strict=True))
    return tuple(found.get(i) for i in range(len(ys)))


def switch_jvp(
    b: Builder,
    ys: tuple[Value, ...],
    index: Value,
    *operands: Value,
    tangents: tuple[Value | None, ...],
    pushforward: Callable[..., list[Value | None]],
    branches: tuple[Graph, ...],
) -> tuple[Value | None, ...]:
    flags = [t is not None for t in tangents[1:]]
    parts = (range(len(operands)),)
    pushed = [_Pushed(branch, flags, pushforward, parts) for branch in branches]
    moving = [i for i in range(len(ys)) if any(p.tangents[i] is not None for p in pushed)]
    if not moving:
        return (None,) * len(ys)
    graphs = tuple(
        p.b.graph(f"{branch.name}_jvp", [*map(p.or_zeros, moving)])
        for p, branch in zip(pushed, branches, strict=True)
    )
    given = _operands(b, operands, tangents[1:], flags, parts)
    made = b.emit_all("switch", index, *given, branches=graphs)
    found = dict(zip(moving, made, strict=True))
    return tuple(found.get(i) for i in range(len(ys)))
