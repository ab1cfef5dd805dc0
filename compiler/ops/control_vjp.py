"""Reverse mode through control flow.

The derivative of a graph is cut in two: what runs forward, and what runs back once cotangents are
known.  Values that cross the cut are saved, stacked over the steps of a scan; those that are cheap
to make again are made again.  The forward part is a second scan (or switch) on the same operands;
the pass `merge_control` makes it one with the original.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.graph import Graph, Value
from fluxc.compiler.ops.op import OPS, ZeroGradient, infer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Node
    from fluxc.compiler.ir.types import TensorType

__all__ = ["moving_results", "scan_vjp", "switch_vjp", "zeros"]

CHEAP = frozenset(
    {"broadcast", "constant", "full", "identity", "iota", "reshape", "reverse", "stop_gradient",
     "transpose"}
)  # fmt: skip
"""Made again on the way back rather than saved: they move numbers, or are numbers."""


@dataclass(frozen=True, slots=True)
class Split:
    """The reverse program of a graph, cut in two.

    forward:    the graph with values of its own.
    cotangents: of the results that have one, in order.
    crossing:   what the way back reads: parameters and values of `forward`.
    back:       the nodes of the way back.
    found:      the cotangent of each parameter; None: not asked for, or zero.
    """

    forward: Graph
    cotangents: tuple[Value, ...]
    crossing: tuple[Value, ...]
    back: tuple[Node, ...]
    found: tuple[Value | None, ...]

    def emit_back(self, b: Builder, env: dict[Value, Value]) -> list[Value | None]:
        """Emit the way back into `b`; `env` says what stands for what it reads."""
        inputs = (*self.crossing, *self.cotangents)
        ends = [v for v in self.found if v is not None]
        program = Graph("", inputs, self.back, tuple(ends))
        made = iter(b.inline(program, [env[v] for v in inputs]))
        return [None if v is None else next(made) for v in self.found]


def split(
    graph: Graph,
    wanted: Sequence[bool],
    given: Sequence[bool],
    pullback: Callable[..., list[Value | None]],
    *,
    remat: bool = False,
) -> Split:
    """Cut the derivative of `graph` by the `wanted` parameters, of its `given` results.

    remat  everything but parameters is made again on the way back
    """
    b = Builder(infer)
    params = [b.param(p.type, p.name) for p in graph.params]
    results = b.inline(graph, params)
    nodes = tuple(b.nodes)
    ends = [v for v, has in zip(results, given, strict=True) if has]
    cotangents = tuple(Value(v.type) for v in ends)
    wrt = [p for p, has in zip(params, wanted, strict=True) if has]
    pulled = iter(pullback(b, nodes, ends, cotangents, wrt))
    found = tuple(next(pulled) if has else None for has in wanted)
    back = tuple(b.nodes[len(nodes) :])
    crossing, again = _crossing(nodes, back, cotangents, found, remat=remat)
    forward = Graph(graph.name, tuple(params), nodes, results)
    return Split(forward, cotangents, crossing, (*again, *back), found)


def _crossing(
    nodes: Sequence[Node],
    back: Sequence[Node],
    cotangents: Sequence[Value],
    found: Sequence[Value | None],
    *,
    remat: bool,
) -> tuple[tuple[Value, ...], list[Node]]:
    """What the way back reads of the way forward, and which of its nodes are run again for it."""
    own = {*cotangents, *(v for n in back for v in n.outputs)}
    used = [*(v for n in back for v in n.inputs), *(v for v in found if v is not None)]
    needed = dict.fromkeys(v for v in used if v not in own)
    again: list[Node] = []
    for node in reversed(nodes):
        if (remat or node.op in CHEAP) and any(v in needed for v in node.outputs):
            again.append(node)
            for v in node.outputs:
                needed.pop(v, None)
            needed.update(dict.fromkeys(node.inputs))
    return tuple(needed), again[::-1]


def moving_results(graph: Graph, moving: Iterable[bool]) -> list[bool]:
    """Which float results of `graph` depend smoothly on the parameters that move."""
    active = {p for p, has in zip(graph.params, moving, strict=True) if has}
    for node in graph.nodes:
        if isinstance(OPS[node.op].vjp, ZeroGradient):
            continue
        if any(v in active for v in node.inputs):
            active.update(v for v in node.outputs if v.type.dtype.is_float)
    return [v in active for v in graph.results]


def _reaching(graph: Graph, results: Iterable[bool]) -> list[bool]:
    """Which parameters the chosen results depend on."""
    needed = {v for v, has in zip(graph.results, results, strict=True) if has}
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
    return [p in needed for p in graph.params]


def zeros(b: Builder, type: TensorType) -> Value:
    dtype = type.dtype
    number = 0.0 if dtype.is_float else False if dtype.kind == "b" else 0
    return b.emit("full", value=number, dtype=dtype, shape=type.shape)


# scan


def scan_vjp(
    b: Builder,
    dys: tuple[Value | None, ...],
    ys: tuple[Value, ...],
    *xs: Value,
    wanted: tuple[bool, ...],
    pullback: Callable[..., list[Value | None]],
    body: Graph,
    consts: int,
    carried: int,
    length: Size,
    reverse: bool,
    remat: bool = False,
) -> tuple[Value | None, ...]:
    """A scan the other way round: it carries the cotangents of the carried values and the sums of
    those of the constants, and stacks those of the stacked operands."""
    del ys
    moving = _carried_cotangents(body, dys, wanted, consts, carried)
    asked = (*wanted[:consts], *moving, *wanted[consts + carried :])
    given = (*moving, *(d is not None for d in dys[carried:]))
    cut = split(body, asked, given, pullback, remat=remat)
    attrs = {"consts": consts, "carried": carried, "length": length, "reverse": reverse}
    if remat:
        attrs["remat"] = True
    back = _ScanBack(b, cut, xs, attrs)
    return back.emit(dys, moving)


def _carried_cotangents(
    body: Graph, dys: Sequence[Value | None], wanted: Sequence[bool], consts: int, carried: int
) -> list[bool]:
    """Which carried values have cotangents: they depend on what is wanted and reach an output."""
    own = range(consts, consts + carried)
    active = list(wanted)
    for _ in range(carried + 1):
        ends = moving_results(body, active)
        for i in own:
            active[i] = active[i] or ends[i - consts]
    given = [d is not None for d in dys]
    for _ in range(carried + 1):
        starts = _reaching(body, given)
        for i in own:
            given[i - consts] = given[i - consts] or starts[i]
    return [active[i] and given[i - consts] and body.params[i].type.dtype.is_float for i in own]


class _ScanBack:
    """Assembles the scan that runs back."""

    def __init__(self, b: Builder, cut: Split, xs: Sequence[Value], attrs: dict[str, Any]) -> None:
        self.b, self.cut, self.xs, self.attrs = b, cut, xs, attrs
        consts, carried = attrs["consts"], attrs["carried"]
        self.params = cut.forward.params
        self.fixed = set(self.params[:consts])
        self.stacked = dict(
            zip(self.params[consts + carried :], xs[consts + carried :], strict=True)
        )
        self.outer = dict(zip(self.params[:consts], xs[:consts], strict=True))
        self.invariant = self._invariants()

    def _invariants(self) -> set[Value]:
        """The values that are the same at every step."""
        same = set(self.fixed)
        for node in self.cut.forward.nodes:
            if same.issuperset(node.inputs):
                same.update(node.outputs)
        return same

    def emit(
        self, dys: tuple[Value | None, ...], moving: Sequence[bool]
    ) -> tuple[Value | None, ...]:
        b, cut = self.b, self.cut
        consts, carried = self.attrs["consts"], self.attrs["carried"]
        same = [v for v in cut.crossing if v in self.invariant]
        saved = [v for v in cut.crossing if v not in self.invariant and v not in self.stacked]
        rows = [v for v in cut.crossing if v in self.stacked]
        self._emit_invariants([v for v in same if v not in self.fixed])
        kept = self._emit_forward(saved)
        sums = [i for i in range(consts) if cut.found[i] is not None]
        given = [d for d in dys[carried:] if d is not None]
        # The body: constants, cotangents of the carried, sums, then what is stacked.
        inner = Builder(infer)
        env = {v: inner.param(v.type) for v in same}
        carry = cut.cotangents[: sum(moving)]
        env.update((v, inner.param(v.type)) for v in carry)
        totals = [inner.param(self.params[i].type) for i in sums]
        env.update((v, inner.param(v.type)) for v in (*saved, *rows))
        env.update((v, inner.param(v.type)) for v in cut.cotangents[len(carry) :])
        found = cut.emit_back(inner, env)
        carry_found = [
            zeros(inner, self.params[consts + i].type) if d is None else d
            for i, d in enumerate(found[consts : consts + carried])
            if moving[i]
        ]
        added = []
        for i, total in zip(sums, totals, strict=True):
            d = found[i]
            assert d is not None
            added.append(inner.emit("add", total, d))
        each = [d for d in found[consts + carried :] if d is not None]
        if not (carry_found or added or each):
            return (None,) * len(self.xs)
        body = inner.graph(f"{cut.forward.name}_back", [*carry_found, *added, *each])
        starts = [
            zeros(b, self.params[consts + i].type) if d is None else d
            for i, d in enumerate(dys[:carried])
            if moving[i]
        ]
        starts += [zeros(b, self.params[i].type) for i in sums]
        operands = [
            *(self.outer[v] for v in same),
            *(*starts, *kept),
            *(self.stacked[v] for v in rows),
            *given,
        ]
        attrs = {
            **self.attrs,
            "consts": len(same),
            "carried": len(starts),
            "reverse": not self.attrs["reverse"],
        }
        outputs = iter(b.emit_all("scan", *operands, body=body, **attrs))
        carry_out = [next(outputs) if has else None for has in moving]
        of_sums = {i: next(outputs) for i in sums}
        of_rows = [None if d is None else next(outputs) for d in found[consts + carried :]]
        return (*(of_sums.get(i) for i in range(consts)), *carry_out, *of_rows)

    def _emit_invariants(self, values: Sequence[Value]) -> None:
        """Compute outside of the loop what is the same at every step."""
        needed, nodes = set(values), []
        for node in reversed(self.cut.forward.nodes):
            if not needed.isdisjoint(node.outputs):
                nodes.append(node)
                needed.update(node.inputs)
        fixed = tuple(self.outer)
        program = Graph("", fixed, tuple(reversed(nodes)), tuple(values))
        made = self.b.inline(program, [self.outer[v] for v in fixed])
        self.outer.update(zip(values, made, strict=True))

    def _emit_forward(self, saved: Sequence[Value]) -> tuple[Value, ...]:
        """The scan once more, stacking what the way back reads."""
        if not saved:
            return ()
        f = self.cut.forward
        body = Graph(f.name, f.params, f.nodes, (*f.results, *saved))
        outputs = self.b.emit_all("scan", *self.xs, body=body, **self.attrs)
        return outputs[len(f.results) :]


# switch


def switch_vjp(
    b: Builder,
    dys: tuple[Value | None, ...],
    ys: tuple[Value, ...],
    index: Value,
    *operands: Value,
    wanted: tuple[bool, ...],
    pullback: Callable[..., list[Value | None]],
    branches: tuple[Graph, ...],
) -> tuple[Value | None, ...]:
    """A switch over the branches' reverse programs; what the chosen branch saves, others fill with
    zeros."""
    del ys
    given = [d is not None for d in dys]
    cuts = [split(branch, wanted[1:], given, pullback) for branch in branches]
    asked = [any(cut.found[i] is not None for cut in cuts) for i in range(len(operands))]
    if not any(asked):
        return (None,) * (1 + len(operands))
    saved = [[v for v in cut.crossing if v not in cut.forward.params] for cut in cuts]
    slots = _slots(saved)
    kept = _emit_switch_forward(b, index, operands, cuts, saved, slots)
    used = [i for i in range(len(operands)) if any(c.forward.params[i] in c.crossing for c in cuts)]
    cotangents = [d for d in dys if d is not None]
    backs = []
    for cut, values in zip(cuts, saved, strict=True):
        inner = Builder(infer)
        env = {cut.forward.params[i]: inner.param(operands[i].type) for i in used}
        places = [inner.param(t) for t in slots]
        env.update((v, places[at]) for v, at in zip(values, _fill(values, slots), strict=True))
        env.update(
            (v, inner.param(d.type)) for v, d in zip(cut.cotangents, cotangents, strict=True)
        )
        found = cut.emit_back(inner, env)
        ends = [
            zeros(inner, operands[i].type) if found[i] is None else found[i]
            for i in range(len(operands))
            if asked[i]
        ]
        backs.append(inner.graph(f"{cut.forward.name}_back", [v for v in ends if v is not None]))
    operands_back = (*(operands[i] for i in used), *kept, *cotangents)
    outputs = iter(b.emit_all("switch", index, *operands_back, branches=tuple(backs)))
    return (None, *(next(outputs) if has else None for has in asked))


def _slots(saved: Sequence[Sequence[Value]]) -> list[TensorType]:
    """The types of the places that hold what any one branch saves."""
    most: Counter[TensorType] = Counter()
    for values in saved:
        most |= Counter(v.type for v in values)
    return list(most.elements())


def _fill(values: Sequence[Value], slots: Sequence[TensorType]) -> list[int]:
    """The place of each value: the first free one of its type."""
    free = list(range(len(slots)))
    found = []
    for v in values:
        at = next(i for i in free if slots[i] == v.type)
        free.remove(at)
        found.append(at)
    return found


def _emit_switch_forward(
    b: Builder,
    index: Value,
    operands: Sequence[Value],
    cuts: Sequence[Split],
    saved: Sequence[Sequence[Value]],
    slots: Sequence[TensorType],
) -> tuple[Value, ...]:
    """The switch once more, returning what the way back reads."""
    if not slots:
        return ()
    branches = []
    for cut, values in zip(cuts, saved, strict=True):
        f = cut.forward
        inner = Builder(infer)
        params = [inner.param(p.type, p.name) for p in f.params]
        program = Graph(f.name, f.params, f.nodes, (*f.results, *values))
        made = inner.inline(program, params)
        results, rest = made[: len(f.results)], made[len(f.results) :]
        places = dict(zip(_fill(values, slots), rest, strict=True))
        filled = [places[i] if i in places else zeros(inner, t) for i, t in enumerate(slots)]
        branches.append(inner.graph(f.name, [*results, *filled]))
    outputs = b.emit_all("switch", index, *operands, branches=tuple(branches))
    return outputs[len(cuts[0].forward.results) :]
