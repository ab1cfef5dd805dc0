"""From a graph to steps: the launches and the control flow that compute it, in order.

A sub-graph is a scope of its own inside that of its operation.  Its parameters and results are no
memory of their own: they are that of the operands and outputs around it (`Memory.same`), or the
slice of it that belongs to the present step of a loop (`Memory.views`).  What a loop computes anew
at every step though it stays the same moves out in front of the loop.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from fluxc.compiler.ir.dims import Symbol, product, size_bounds, size_symbols, symbol_size
from fluxc.compiler.ir.graph import Graph, Node, Value
from fluxc.compiler.kernels.fuse import Fuser
from fluxc.compiler.kernels.kernel import (
    Buffer,
    Contract,
    Load,
    Nest,
    Pass,
    Sort,
    Store,
    kernel_roots,
    kernel_stores,
    kernel_symbols,
    walk,
)
from fluxc.compiler.kernels.lower import lower_group
from fluxc.compiler.kernels.narrow import narrowed
from fluxc.compiler.kernels.work import Works

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.fuse import Group
    from fluxc.compiler.kernels.kernel import Expr, Kernel
    from fluxc.compiler.kernels.order import Order
    from fluxc.compiler.kernels.schedule import Target
    from fluxc.compiler.kernels.work import Again, Work

__all__ = ["Control", "Memory", "Run", "Scope", "Step", "distinct_results", "walk_steps"]


@dataclass(frozen=True, slots=True)
class View:
    """A part of a buffer that begins `bytes` behind its begin."""

    buffer: Buffer
    bytes: Size


class Memory:
    """Which buffers are one memory, across all scopes of a program.

    same:  a buffer -> another one whose memory it is.
    views: a buffer -> the part of another one that it is.
    """

    def __init__(self) -> None:
        self.same: dict[Buffer, Buffer] = {}
        self.views: dict[Buffer, View] = {}

    def root(self, b: Buffer) -> Buffer:
        """The buffer that stands for the memory of `b`."""
        while b in self.same:
            b = self.same[b]
        return b

    def whole(self, b: Buffer) -> Buffer:
        """The buffer that the memory of `b` is all or a part of."""
        b = self.root(b)
        while b in self.views:
            b = self.root(self.views[b].buffer)
        return b


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One launch to be: a kernel before flattening.

    prepared:      whether it belongs to what is made ahead.
    order, group:  its place among the scope's steps.
    reads, writes: buffers of the scope.
    """

    kernel: Kernel
    prepared: bool
    order: int
    group: int
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """A loop or a choice.

    kind:    scan (bodies: body), while (test, body) or switch (branches).
    depth:   how many loops and choices it stands in.
    trips:   of a scan; counter: the symbol that counts its steps.
    decides: what says whether a while goes on, or which branch a switch takes.
    """

    kind: str
    bodies: tuple[tuple[Step, ...], ...]
    prepared: bool
    order: int
    group: int
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    depth: int
    counter: Symbol | None = None
    trips: Size = 0
    decides: Buffer | None = None


Step: TypeAlias = Run | Control


def walk_steps(steps: Iterable[Step]) -> Iterator[Run]:
    """Every launch of some steps, in the order of the program's text."""
    for step in steps:
        if isinstance(step, Run):
            yield step
        else:
            for body in step.bodies:
                yield from walk_steps(body)


def _run(kernel: Kernel, *, prepared: bool, order: int, group: int) -> Run:
    reads = _each(e.buffer for e in walk(*kernel_roots(kernel)) if isinstance(e, Load))
    writes = _each(s.buffer for s in kernel_stores(kernel))
    return Run(kernel, prepared, order, group, reads, writes)


def _each(buffers: Iterable[Buffer]) -> tuple[Buffer, ...]:
    """Each buffer once, in an order that no address decides: places in memory follow from it."""
    return tuple(dict.fromkeys(buffers))


def _by_buffer(pairs: Iterable[tuple[Step, Iterable[Buffer]]]) -> dict[Buffer, list[Step]]:
    """The steps of each buffer, in their order."""
    found: dict[Buffer, list[Step]] = {}
    for step, buffers in pairs:
        for b in dict.fromkeys(buffers):
            found.setdefault(b, []).append(step)
    return found


class Scope:
    """One graph, the entry's or a sub-graph, as steps.

    updates:  parameter -> its new value at the end, where the parameter's memory is updated.
    ready:    the parameters on which steps depend that are made ahead of the others.
    static:   whether only what has fixed sizes is made ahead.
    depth:    how many loops and choices it stands in.
    counter:  the symbol that counts the steps, where it is the body of a scan.
    again:    what is computed a second time.
    """

    def __init__(
        self,
        graph: Graph,
        updates: Mapping[Value, Value],
        ready: Sequence[Value],
        memory: Memory,
        target: Target,
        *,
        prepares: bool,
        static: bool,
        depth: int = 0,
        counter: str = "",
        again: Again | None = None,
    ) -> None:
        self.graph, self.memory, self.target, self.depth = graph, memory, target, depth
        self.static, self.prepares, self.counter = static, prepares, counter
        self.works = Works(
            graph,
            ready,
            prepares=prepares,
            target=target,
            static=static,
            counter=counter,
            again=again,
        )
        self.fuser = Fuser(self.works)
        self.inner: list[Scope] = []
        self.moved: set[Buffer] = set()  # of inner scopes, made here
        steps = [s for g in self.fuser.groups for s in self._steps(g)]
        copies = self._updates(updates, steps)
        self.ahead = _sorted([s for s in steps if s.prepared], self.fuser)
        self.steps = [*_sorted([s for s in steps if not s.prepared], self.fuser), *copies]

    def scopes(self) -> Iterator[Scope]:
        """This scope and all inside."""
        yield self
        for inner in self.inner:
            yield from inner.scopes()

    def _steps(self, group: Group) -> list[Step]:
        if group.kind == "control":
            (work,) = group.works
            return _Nesting(self, work, group.id).steps()
        works = [w for w in group.works if w.value in self.fuser.stored]
        if not any(w.value not in self.fuser.inlined for w in works):
            return []
        order = group.works[0].order
        return [
            _run(kernel, prepared=group.prepared, order=order, group=group.id)
            for kernel in lower_group(self.fuser, group)
        ]

    # Updates of parameters.

    def _updates(self, updates: Mapping[Value, Value], steps: list[Step]) -> list[Step]:
        """Let memory be updated in place; where that is wrong, copies at the end."""
        copies: list[Step] = []
        reading, writing = (
            _by_buffer((s, s.reads) for s in steps),
            _by_buffer((s, s.writes) for s in steps),
        )
        for param, new in updates.items():
            old, made = self.works.buffer(param), self.works.buffer(new)
            writers, readers = writing[made], reading.get(old, [])
            if self._in_place(writers, readers, old, made):
                self.memory.same[made] = old
                for r in readers:
                    if r.group != writers[0].group:
                        self.fuser.order.depend(writers[0].group, r.group)
                self._narrow(writers[0], old, steps)
            else:
                copies.append(self._copy(new, old))
        return copies

    def _narrow(self, writer: Step, old: Buffer, steps: list[Step]) -> None:
        """Let an update in place visit only what it changes."""
        assert isinstance(writer, Run)
        kernel = narrowed(writer.kernel, old, self.works.k)
        if kernel is not writer.kernel:
            steps[steps.index(writer)] = _run(
                kernel, prepared=writer.prepared, order=writer.order, group=writer.group
            )

    def _in_place(self, writers: list[Step], readers: list[Step], old: Buffer, new: Buffer) -> bool:
        writer = writers[0]
        if len(writers) != 1 or not isinstance(writer, Run):
            return False
        others = [r for r in readers if r is not writer]
        if any(r.group == writer.group for r in others):
            return False
        order = self.fuser.order
        if not order.can_depend(writer.group, [r.group for r in others]):
            return False
        return writer not in readers or _same_points(writer.kernel, old, new, self.works)

    def _copy(self, source: Value, target: Buffer) -> Run:
        axes = self.works.axes("i", source.type.shape)
        index = self.works.indices(axes)
        value = self.works.load(source, index, None)
        store = Store(target, index, self.works.k.cast(value, target.dtype))
        buffers = (self.works.buffer(source), target)
        nest = Nest(f"copy_{target.dtype}", buffers, axes, (Pass((), (), (store,)),))
        return _run(nest, prepared=False, order=0, group=-1)

    def may_prepare(self, step: Step) -> bool:
        symbols = _symbols(step)
        return not symbols if self.static else self.counter not in symbols

    def is_ready(self, buffers: Iterable[Buffer], made: set[Buffer]) -> bool:
        """Whether all of these are made ahead, or given: `made` are some that are."""
        values = {*self.works.ready, *self.works.constants()}
        known = {self.works.buffers[v] for v in values if v in self.works.buffers}
        return self.prepares and known.union(made).issuperset(buffers)


class _Nesting:
    """The steps of one control-flow operation."""

    def __init__(self, outer: Scope, work: Work, group: int) -> None:
        self.outer, self.work, self.group = outer, work, group
        self.node, self.memory = work.node, outer.memory
        self.bound: dict[Buffer, Buffer] = {}  # of an inner scope -> of the outer
        self.ahead: list[Step] = []
        self.made: set[Buffer] = set()

    def steps(self) -> list[Step]:
        build = {"scan": self.scan, "while": self.loop, "switch": self.choice}
        control = build[self.node.op]()
        return [*self.ahead, control]

    def scan(self) -> Control:
        attrs, depth = self.node.attrs, self.outer.depth
        consts, carried, length = attrs["consts"], attrs["carried"], attrs["length"]
        counter = _counter(depth, length)
        now: Size = symbol_size(counter)
        at = length - 1 - now if attrs["reverse"] else now
        graph = _counted(attrs["body"], self.work.operands, at)
        graph, results = distinct_results(graph, graph.params[consts : consts + carried])
        params = graph.params
        updates = dict(zip(params[consts:], results[:carried], strict=False))
        given = {p: v for p, v in updates.items() if v is not None}
        scope = self._scope(graph, given, params[:consts], counter.name)
        operands = [v for v in self.work.operands if v is not None]
        self._share(scope, params[:consts], operands[:consts])
        outs = self.node.outputs
        self._carry(scope, params[consts : consts + carried], operands[consts:], outs)
        for p, x in zip(params[consts + carried :], operands[consts + carried :], strict=True):
            self._slice(scope, p, x, at)
        for v, out in zip(results[carried:], outs[carried:], strict=True):
            assert v is not None
            self._slice(scope, v, out, at)
        return self._control("scan", (self._enter(scope),), counter=counter, trips=length)

    def loop(self) -> Control:
        carried, operands = self.node.attrs["carried"], self._given()
        bodies, decides = [], None
        outs = self.node.outputs
        for name in ("test", "body"):
            graph: Graph = self.node.attrs[name]
            own = graph.params[:carried] if name == "body" else ()
            graph, results = distinct_results(graph, own)
            updates = {p: v for p, v in zip(own, results, strict=False) if v is not None}
            scope = self._scope(graph, updates, graph.params[carried:])
            self._share(scope, graph.params[carried:], operands[carried:])
            self._carry(scope, graph.params[:carried], operands, outs)
            if name == "test":
                (verdict,) = results
                assert verdict is not None
                decides = scope.works.buffer(verdict)
            bodies.append(self._enter(scope))
        return self._control("while", tuple(bodies), decides=decides)

    def choice(self) -> Control:
        index, *operands = self._given()
        ready = self.outer.works.ready
        bodies = []
        for branch in self.node.attrs["branches"]:
            graph, results = distinct_results(branch, ())
            pairs = list(zip(graph.params, operands, strict=True))
            scope = self._scope(graph, {}, [p for p, x in pairs if x in ready])
            self._share(scope, graph.params, operands)
            for v, out in zip(results, self.node.outputs, strict=True):
                assert v is not None
                self._bind(scope, v, out)
            bodies.append(self._enter(scope))
        decides = self.outer.works.buffer(index)
        return self._control("switch", tuple(bodies), decides=decides)

    def _given(self) -> list[Value]:
        found = [v for v in self.work.operands if v is not None]
        assert len(found) == len(self.node.inputs)
        return found

    def _scope(
        self, graph: Graph, updates: dict[Value, Value], ready: Sequence[Value], counter: str = ""
    ) -> Scope:
        # A choice makes ahead only what its surroundings do: it may never be taken.
        prepares = self.outer.prepares if self.node.op == "switch" else True
        static = self.outer.static if self.node.op == "switch" else False
        return Scope(
            graph, updates, ready, self.memory, self.outer.target,
            prepares=prepares, static=static, depth=self.outer.depth + 1, counter=counter,
        )  # fmt: skip

    # What the values of a scope are outside of it.

    def _bind(self, scope: Scope, inner: Value, outer: Value) -> None:
        b, o = scope.works.buffer(inner), self.outer.works.buffer(outer)
        self.bound[b] = o
        self.memory.same[b] = o

    def _share(self, scope: Scope, params: Sequence[Value], operands: Sequence[Value]) -> None:
        for p, x in zip(params, operands, strict=False):
            self._bind(scope, p, x)

    def _carry(
        self, scope: Scope, params: Sequence[Value], starts: Sequence[Value], outs: Sequence[Value]
    ) -> None:
        """A carried value lies where the operation's output is, from its start on."""
        for p, start, out in zip(params, starts, outs, strict=False):
            self._bind(scope, p, out)
            self.memory.same[self.outer.works.buffer(start)] = self.outer.works.buffer(out)

    def _slice(self, scope: Scope, inner: Value, outer: Value, at: Size) -> None:
        b, o = scope.works.buffer(inner), self.outer.works.buffer(outer)
        self.bound[b] = o
        stride = product(b.shape) * b.dtype.itemsize
        self.memory.views[b] = View(o, at * stride)

    # Leaving a scope.

    def _enter(self, scope: Scope) -> tuple[Step, ...]:
        """The steps of a scope; what is made ahead of them joins the steps around."""
        outer = self.outer
        outer.inner.append(scope)
        for step in scope.ahead:
            reads, writes = (self._outside(b) for b in (step.reads, step.writes))
            prepared = self.work.prepared or (
                outer.is_ready(reads, self.made) and outer.may_prepare(step)
            )
            own = {self.memory.root(b) for b in step.writes}
            outer.moved |= own
            if prepared:
                self.made.update(writes)
            moved = replace(
                step, prepared=prepared, order=self.work.order, group=self.group,
                reads=reads, writes=writes,
            )  # fmt: skip
            self.ahead.append(moved)
        return tuple(scope.steps)

    def _outside(self, buffers: Iterable[Buffer]) -> tuple[Buffer, ...]:
        return _each(self.bound.get(b, b) for b in buffers)

    def _control(
        self,
        kind: str,
        bodies: tuple[tuple[Step, ...], ...],
        *,
        counter: Symbol | None = None,
        trips: Size = 0,
        decides: Buffer | None = None,
    ) -> Control:
        ahead = {b for s in self.ahead for b in s.writes}
        inside = [s for body in bodies for s in body]
        visible = {*self.bound.values(), *ahead}
        given = [self.outer.works.buffer(v) for v in self.work.operands if v is not None]
        reads = [b for s in inside for b in self._outside(s.reads) if b in visible]
        outs = _each(self.outer.works.buffer(v) for v in self.node.outputs)
        return Control(
            kind, bodies, self.work.prepared, self.work.order, self.group,
            _each([*reads, *given]), outs, self.outer.depth, counter, trips, decides,
        )  # fmt: skip


def _counter(depth: int, length: Size) -> Symbol:
    """The symbol that counts a loop's steps; no user's size has a dot in its name."""
    most = size_bounds(length)[1]
    return Symbol(f"step.{depth}", 0, max(int(min(most, 2**62)) - 1, 0))


def _counted(body: Graph, operands: Sequence[Value | None], at: Size) -> Graph:
    """The body without the stacked operands that only count: they are the number of the step."""
    params, nodes = [], []
    for p, x in zip(body.params, operands, strict=True):
        if x is not None:
            params.append(p)
            continue
        attrs: dict[str, Any] = {"value": at, "dtype": p.type.dtype, "shape": ()}
        nodes.append(Node("full", (), (p,), MappingProxyType(attrs)))
    return Graph(body.name, tuple(params), (*nodes, *body.nodes), body.results)


def _symbols(step: Step) -> set[str]:
    """The named sizes that a step depends on, those that it counts itself apart."""
    if isinstance(step, Run):
        return {s.name for s in kernel_symbols(step.kernel)}
    inside = {name for body in step.bodies for s in body for name in _symbols(s)}
    inside |= {s.name for s in size_symbols(step.trips)}
    return inside - {step.counter.name} if step.counter is not None else inside


def distinct_results(
    graph: Graph, updated: Sequence[Value], at: int = 0
) -> tuple[Graph, list[Value | None]]:
    """The graph with every result a value of its own, and the value of each result.

    updated  the parameters that the results from `at` on are the new values of; the value of one
             that is the parameter itself is None.
    """
    nodes = list(graph.nodes)
    arrays = {n.output for n in nodes if n.op == "constant" and n.output.type.size != 1}
    seen = {*graph.params, *arrays}
    values: list[Value | None] = []
    for i, result in enumerate(graph.results):
        if 0 <= i - at < len(updated) and updated[i - at] is result:
            values.append(None)
            continue
        value = result
        if value in seen:
            value = Value(result.type, result.name)
            nodes.append(Node("identity", (result,), (value,), MappingProxyType({})))
        seen.add(value)
        values.append(value)
    kept = tuple(v for v in values if v is not None)
    return Graph(graph.name, graph.params, tuple(nodes), kept), values


def _sorted(steps: list[Step], fuser: Fuser) -> list[Step]:
    """Groups after all that they depend on, else in the order of the graph."""
    order = fuser.order
    groups: dict[int, list[Step]] = {}
    for s in steps:
        groups.setdefault(order.find(s.group), []).append(s)
    waits = {g: _sources(g, groups, order) for g in groups}
    users: dict[int, list[int]] = {g: [] for g in groups}
    for g, before in waits.items():
        for h in before:
            users[h].append(g)
    due = _due({g: steps[0].order for g, steps in groups.items()}, waits)
    ready = [(due[g], groups[g][0].order, g) for g in groups if not waits[g]]
    heapq.heapify(ready)
    result: list[Step] = []
    while ready:
        *_, g = heapq.heappop(ready)
        result += groups[g]
        for user in users[g]:
            waits[user].discard(g)
            if not waits[user]:
                heapq.heappush(ready, (due[user], groups[user][0].order, user))
    assert len(result) == len(steps), "groups depend on one another in a cycle"
    return result


def _due(order: dict[int, int], sources: Mapping[int, Iterable[int]]) -> dict[int, int]:
    """When each group is needed: at its own place, or before that by a group which stands there.

    What an optimiser computes from its counter comes last in the graph; the gradients that would
    wait for it are taken in by the updates, and die with them.
    """
    due: dict[int, int] = {}
    for first in sorted(order, key=lambda g: (order[g], g)):
        waiting = [first]
        while waiting:
            g = waiting.pop()
            if g not in due:  # else something needs it earlier
                due[g] = order[first]
                waiting += sources[g]
    return due


def _sources(group: int, steps: Container[int], order: Order) -> set[int]:
    """The groups with steps that `group` runs right after, through such as have none."""
    found: set[int] = set()
    seen = {group}
    waiting = [group]
    while waiting:
        for h in order.sources(waiting.pop()) - seen:
            seen.add(h)
            (found.add if h in steps else waiting.append)(h)
    return found


def _same_points(kernel: Kernel, old: Buffer, new: Buffer, works: Works) -> bool:
    """Whether `kernel` loads `old` only where it stores `new`, and not after it has."""
    if isinstance(kernel, Sort):
        return False
    k = works.k
    stores = [s for s in kernel_stores(kernel) if s.buffer is new]
    targets = {k.flatten(s.index, new.shape) for s in stores}
    if len(stores) != 1 or stores[0].accumulate or stores[0].guard is not None:
        return False
    if isinstance(kernel, Contract):
        if old in {kernel.a.buffer, kernel.b.buffer}:
            return False
        passes: list[list[Expr]] = [[e for s in kernel.stores for e in (s.value, *s.index)]]
    else:
        passes = [
            [*(r.value for r in p.reductions), *(e for s in p.stores for e in (s.value, *s.index))]
            for p in kernel.passes
        ]
    stored = False
    for p, roots in enumerate(passes):
        loads = [e for e in walk(*roots) if isinstance(e, Load) and e.buffer is old]
        if any(k.flatten(e.index, old.shape) not in targets for e in loads) or (stored and loads):
            return False
        stored = stored or isinstance(kernel, Contract) or stores[0] in kernel.passes[p].stores
    return True
