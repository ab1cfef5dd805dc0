"""Makes the scratch memory of an entry fit a limit: values are computed again instead of kept.

Each round takes the moment at which most memory is used, and what is kept across it for later.
Some of that is computed again when it is due.  What, is a choice between few candidates: those that
are cheapest to compute, a part of them or all, and with products among them, every so often one
that is kept (a cut), so that what is computed again at a time stays small.  The candidates are
tried in the order of what they cost, by planning the program with each.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fluxc.compiler.errors import FluxcError
from fluxc.compiler.ir.dims import evaluate_size, product, size_symbols
from fluxc.compiler.ir.graph import graph_symbols, subgraphs
from fluxc.compiler.kernels.plan import survey
from fluxc.compiler.kernels.work import Again
from fluxc.compiler.ops import OPS
from fluxc.compiler.passes.recompute import later_than, recompute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.entry import Entry, Limit
    from fluxc.compiler.ir.graph import Graph, Node, Value
    from fluxc.compiler.kernels.plan import Survey
    from fluxc.compiler.kernels.program import Program
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["fit", "readable_bytes"]

_ROUNDS = 12
_UNBOUNDED = 2**62
_SHARES = (1.1, 1.5, 2.5, math.inf)  # of what a round must free, how much a choice frees
_TURN = 3  # moments
_PRODUCTS = frozenset({"contract", "conv", "conv_last"})
_PRICES = 4  # element-wise, sums and moves, products, loops


def fit(entry: Entry, target: Target) -> Program:
    """The program of an optimised entry, within its limit of memory if it has one.

    Errors  FluxcError if it cannot be made to fit, or if the limit has no meaning for a size that
            has no largest value.
    """
    made = survey(entry, target)
    if entry.memory is None:
        return made.program
    sizes = _sizes(entry, entry.memory)
    state = _State(entry, made, sizes, entry.memory.bytes)
    for _ in range(_ROUNDS):
        if state.arena <= state.limit:
            break
        better = _round(state, target)
        if better is None or better.rank >= state.rank:
            break
        state = better
    if state.arena > state.limit:
        _fail(entry, state, evaluate_size(made.program.arena, sizes))
    return replace(state.made.program, recomputed=_in_words(state.nodes))


def readable_bytes(count: int) -> str:
    """`1.5 MiB`."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}"
    return f"{count} bytes"


def _sizes(entry: Entry, limit: Limit) -> dict[str, int]:
    """The value of every named size at which the limit holds."""
    given = dict(limit.sizes)
    symbols = {s.name: s for s in graph_symbols(entry.graph)}
    for name in given:
        if name not in symbols:
            raise FluxcError(
                f"{entry.name}: memory= names a size that the entry does not have",
                loc=entry.loc,
                expected=", ".join(symbols) or "no sizes: all of the entry's are numbers",
                got=name,
            )
    for name, s in symbols.items():
        if name not in given and s.max >= _UNBOUNDED:
            raise FluxcError(
                f"{entry.name}: no memory is enough for every {name}: it has no largest value",
                loc=entry.loc,
                hint=f'memory={{"limit": "{readable_bytes(limit.bytes).replace(" ", "")}", '
                f'"{name}": 64}}, or fx.dim("{name}", max=64) as the size',
            )
        value = given.setdefault(name, s.max // s.multiple_of * s.multiple_of)
        if not s.min <= value <= s.max or value % s.multiple_of:
            raise FluxcError(
                f"{entry.name}: memory= gives {name} a value that it cannot have",
                loc=entry.loc,
                expected=f"{s.min} <= {name} <= {s.max}, a multiple of {s.multiple_of}",
                got=str(value),
            )
    return given


def _fail(entry: Entry, least: _State, before: int) -> None:
    at = ", ".join(f"{name} = {value}" for name, value in sorted(least.sizes.items()))
    raise FluxcError(
        f"{entry.name} does not fit in {readable_bytes(least.limit)} of memory"
        + (f" at {at}" if at else ""),
        loc=entry.loc,
        expected=f"{least.limit} bytes",
        got=f"{least.arena} bytes, {readable_bytes(least.arena - least.limit)} more, after "
        f"recomputing what can be; {before} without",
        hint="smaller sizes, or fx.checkpoint around parts whose insides are larger than what "
        "goes in",
    )


@dataclass(frozen=True)
class _State:
    """An entry on its way: its program, and what is computed again so far."""

    entry: Entry
    made: Survey
    sizes: Mapping[str, int]
    limit: int
    again: Again = field(default_factory=Again)
    nodes: tuple[Node, ...] = ()

    @property
    def arena(self) -> int:
        return self.bytes(self.made.program.arena)

    def bytes(self, size: Size) -> int:
        return evaluate_size(size, self.sizes)

    def usage(self) -> list[int]:
        """The bytes that are used at every moment."""
        end = max((life.last for life in self.made.lives), default=0) + 2
        steps = [0] * end
        for life in self.made.lives:
            steps[life.first] += self.bytes(life.bytes)
            steps[life.last + 1] -= self.bytes(life.bytes)
        total, found = 0, []
        for step in steps:
            total += step
            found.append(total)
        return found

    @property
    def rank(self) -> tuple[int, int]:
        """Less is nearer to the limit: where several moments need much, each counts."""
        over = sum(max(0, used - self.limit) for used in self.usage())
        return self.arena, over


# One round.


@dataclass(frozen=True)
class _Choice:
    """Values to compute again, what that costs, and about how many bytes it leaves."""

    values: frozenset[Value]
    cost: float
    bytes: int


def _round(state: _State, target: Target) -> _State | None:
    """The cheapest choice that fits, or the one that comes nearest; None if nothing can be chosen.

    It supposes that what costs more needs less memory.
    """
    usage = state.usage()
    peak = max(range(len(usage)), key=usage.__getitem__)
    # A little before the peak: it may be a product that leads nowhere, beside the way back.
    turn = [v for m in state.made.moments if m.first <= peak <= m.last + _TURN for v in m.makes]
    kept = _Kept(state, peak, turn)
    choices = _worthwhile(kept.choices(usage[peak]))
    best: _State | None = None
    low, high = 0, len(choices)
    while low < high:
        middle = (low + high) // 2
        tried = _apply(state, choices[middle], turn, target)
        fits = tried.arena <= state.limit
        if (
            best is None
            or (fits, *(-x for x in tried.rank))
            > (
                best.arena <= state.limit,
                *(-x for x in best.rank),
            )
            or fits
        ):
            best = tried
        low, high = (low, middle) if fits else (middle + 1, high)
    return best


def _worthwhile(choices: Iterable[_Choice]) -> list[_Choice]:
    """By rising cost; none that needs as much memory as a cheaper one."""
    found: list[_Choice] = []
    for choice in sorted(choices, key=lambda c: (c.cost, c.bytes)):
        if not found or choice.bytes < found[-1].bytes:
            found.append(choice)
    return found


def _apply(state: _State, choice: _Choice, turn: Sequence[Value], target: Target) -> _State:
    graph = state.entry.graph
    changed, copies = recompute(graph, choice.values, state.made.stored, turn)
    entry = replace(state.entry, graph=changed)
    nodes = tuple(n for n in graph.nodes if not choice.values.isdisjoint(n.outputs))
    known = state.again
    again = Again(known.stored | choice.values, known.copies | copies)
    made = survey(entry, target, again)
    return replace(state, entry=entry, made=made, again=again, nodes=(*state.nodes, *nodes))


class _Kept:
    """What is kept across a moment for later, and what it is computed from."""

    def __init__(self, state: _State, peak: int, turn: Sequence[Value]) -> None:
        self.state, graph = state, state.entry.graph
        self.stored = state.made.stored
        self.producers = {v: n for n in graph.nodes for v in n.outputs}
        self.late = later_than(graph, turn) | set(turn)
        across = [
            (life.values[0], state.bytes(life.bytes))
            for life in state.made.lives
            if life.first < peak < life.last and len(life.values) == 1
        ]
        needed = self._needed_late(graph)
        self.saved = {v: size for v, size in across if v in needed}
        self.sources: dict[Value, tuple[Value, ...]] = {}
        self.costs: dict[Value, tuple[int, float]] = {}
        pending = list(self.saved)
        while pending:
            v = pending.pop()
            if v not in self.sources:
                self._describe(v)
                pending += self.sources[v]
        self.order = [v for n in graph.nodes for v in n.outputs if v in self.sources]

    def _needed_late(self, graph: Graph) -> set[Value]:
        """The stored values that later ones read, through such as are not stored."""
        needed: set[Value] = set()
        for node in reversed(graph.nodes):
            if any(v in self.late or v in needed for v in node.outputs):
                kept = self.stored.isdisjoint(node.outputs) or not self.late.isdisjoint(
                    node.outputs
                )
                needed.update(v for v in node.inputs if kept and v not in self.late)
        return {v for v in needed if v in self.stored and v in self.producers and v.type.size != 1}

    def _describe(self, value: Value) -> None:
        """The stored values that one is computed from, and the price of that."""
        found: dict[Value, None] = {}
        seen = {value}
        pending = [self.producers[value]]
        price, cost = 0, 0.0
        while pending:
            node = pending.pop()
            price, cost = max(price, _price(node)), cost + _cost(node, self.state.sizes)
            for x in node.inputs:
                maker = self.producers.get(x)
                if x in seen or maker is None or x.type.size == 1:
                    continue
                seen.add(x)
                if x not in self.stored:
                    pending.append(maker)
                elif maker.inputs:
                    found[x] = None
        self.sources[value], self.costs[value] = tuple(found), (price, cost)

    def _size(self, v: Value) -> int:
        return self.state.bytes(v.type.size) * v.type.dtype.itemsize

    def choices(self, used: int) -> Iterator[_Choice]:
        """`used`: the bytes that are used at the moment."""
        for price in range(_PRICES):
            able = [v for v in self.order if self.costs[v][0] <= price]
            if not any(self.costs[v][0] == price for v in able):
                continue
            total = sum(map(self._size, able))
            for part in range(16):
                yield from self._cut(able, int(total / 2 ** (part / 2)), used)

    def _cut(self, able: Sequence[Value], most: int, used: int) -> Iterator[_Choice]:
        """Choices that compute again what is `able`, at most so many bytes between two cuts."""
        segments, cuts = self._segments(able, most)
        extra = sum(self._size(v) for v in cuts if v not in self.saved)
        largest = max((sum(map(self._size, s)) for s in segments), default=0)
        priced = sorted(
            (cost / gain, i, gain, cost, segment)
            for i, segment in enumerate(segments)
            if (gain := sum(self.saved.get(v, 0) for v in segment)) > 0
            for cost in (sum(self.costs[v][1] for v in segment),)
        )
        must = used - self.state.limit + largest + extra
        for share in _SHARES:
            freed, cost = 0, 0.0
            values: set[Value] = set()
            for _, _, gain, price, segment in priced:
                if freed < must * share:
                    freed, cost = freed + gain, cost + price
                    values.update(segment)
            if freed * 8 >= used - self.state.limit:  # else it is not worth a round
                yield _Choice(frozenset(values), cost, used - freed + largest + extra)

    def _segments(self, able: Sequence[Value], most: int) -> tuple[list[list[Value]], set[Value]]:
        """`able` in its order, cut where least has to be kept; and what is kept at the cuts."""
        place = {v: i for i, v in enumerate(able)}
        last = list(range(len(able)))  # the last of `able` that each is read by
        for i, v in enumerate(able):
            for x in self.sources[v]:
                if x in place:
                    last[place[x]] = max(last[place[x]], i)
        segments: list[list[Value]] = []
        cuts: set[Value] = set()
        begin = 0
        while begin < len(able):
            end, size = begin, 0
            while end < len(able) and (end == begin or size + self._size(able[end]) <= most):
                size += self._size(able[end])
                end += 1
            if end < len(able):
                end, crossing = self._best_cut(able, last, begin, end)
                cuts |= crossing
            segments.append([v for v in able[begin:end] if v not in cuts])
            begin = end
        return segments, cuts

    def _best_cut(
        self, able: Sequence[Value], last: Sequence[int], begin: int, end: int
    ) -> tuple[int, set[Value]]:
        """Where between `begin` and `end` the fewest bytes are read from behind: the latest."""
        best = (math.inf, end)
        crossing: set[Value] = set()
        open_: dict[Value, int] = {}
        for i in range(begin, end):
            open_[able[i]] = last[i]
            open_ = {v: until for v, until in open_.items() if until > i}
            size = sum(map(self._size, open_))
            if size <= best[0]:
                best, crossing = (size, i + 1), set(open_)
        return best[1], crossing


def _price(node: Node) -> int:
    """How dear an operation is: element-wise and moves, sums, products, loops."""
    if subgraphs(node):
        return 3
    if node.op in _PRODUCTS:
        return 2
    op = OPS[node.op]
    return 0 if op.scalar is not None or op.lower is not None else 1


def _cost(node: Node, sizes: Mapping[str, int]) -> float:
    """About how many operations a node takes."""
    out = sum(_count(v.type.size, sizes) for v in node.outputs)
    graphs = subgraphs(node)
    if graphs:
        inside = sum(_cost(n, sizes) for g in graphs for n in g.nodes)
        length = node.attrs.get("length", 1)
        return float(out + inside * _count(length, sizes))
    if node.op == "contract":
        length = product(node.inputs[0].type.shape[i] for i in node.attrs["over_a"])
        return 2.0 * out * _count(length, sizes)
    if node.op in {"conv", "conv_last"}:
        window = product(node.inputs[1].type.shape[1:])
        return 2.0 * out * _count(window, sizes)
    return float(max(out, *(_count(v.type.size, sizes) for v in node.inputs), 0))


def _count(size: Size, sizes: Mapping[str, int]) -> int:
    # The number of a loop's step, inside of it, is in no size that matters.
    known = {s.name: sizes.get(s.name, 1) for s in size_symbols(size)}
    return evaluate_size(size, known)


def _in_words(nodes: Iterable[Node]) -> tuple[str, ...]:
    """`contract f32[batch, 64], model.py:12 (in layers.0)`, the same ones counted."""
    texts = Counter(
        f"{n.op} {', '.join(str(v.type) for v in n.outputs)}" + (f", {n.loc}" if n.loc else "")
        for n in nodes
    )
    return tuple(f"{count} x {text}" if count > 1 else text for text, count in texts.items())
