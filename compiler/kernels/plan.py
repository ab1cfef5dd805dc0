"""From an optimised entry to a program: groups, kernels, their order, and where everything lies."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import Symbol, product, size_symbols, symbol_size
from fluxc.compiler.ir.graph import Graph, Node, Value
from fluxc.compiler.kernels.contraction import choose_contract_schedule
from fluxc.compiler.kernels.cost import schedule_nest, schedule_sort
from fluxc.compiler.kernels.flatten import flatten, replace_sizes
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
    walk,
)
from fluxc.compiler.kernels.lower import lower_group
from fluxc.compiler.kernels.memory import Tenant, arrange
from fluxc.compiler.kernels.printer import print_kernel
from fluxc.compiler.kernels.program import (
    ArenaAt,
    Constant,
    ConstantAt,
    InputAt,
    Launch,
    OutputAt,
    Prepared,
    PreparedAt,
    Program,
    Scheduled,
    StorageAt,
)
from fluxc.compiler.kernels.ranges import index_ranges
from fluxc.compiler.kernels.work import Works

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.entry import Entry
    from fluxc.compiler.kernels.fuse import Group
    from fluxc.compiler.kernels.kernel import Expr, Kernel
    from fluxc.compiler.kernels.program import Place
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["plan"]

_REGION = 64  # launches in one parallel region, at most


def plan(entry: Entry, target: Target) -> Program:
    """The program of an entry for a target.

    Errors  Unsupported where the graph holds what no kernel computes.
    """
    return _Plan(entry, target).program()


@dataclass(slots=True, eq=False)
class _Step:
    """One launch to be: a kernel before flattening, and the phase that it belongs to."""

    kernel: Kernel
    prepared: bool
    order: int
    group: int

    @property
    def reads(self) -> set[Buffer]:
        return {e.buffer for e in walk(*kernel_roots(self.kernel)) if isinstance(e, Load)}

    @property
    def writes(self) -> set[Buffer]:
        return {s.buffer for s in kernel_stores(self.kernel)}


class _Plan:
    def __init__(self, entry: Entry, target: Target) -> None:
        self.entry, self.target = entry, target
        n_inputs = len(entry.inputs)
        self.graph, self.updates = _distinct_results(entry)
        self.outputs = self.graph.results[: len(entry.outputs)]
        params = self.graph.params
        self.inputs = params[:n_inputs]
        self.storages = dict(zip(entry.storages, params[n_inputs:], strict=True))
        self.works = Works(
            self.graph, tuple(self.storages.values()), prepares=not entry.updates, target=target
        )
        self.fuser = Fuser(self.works)
        self.memory: dict[Buffer, Buffer] = {}  # a buffer -> the one whose memory it is
        self.places: dict[Buffer, Place] = {}

    def program(self) -> Program:
        steps = [s for g in self.fuser.groups for s in self._steps(g)]
        copies = self._updates(steps)
        prepare = _sorted([s for s in steps if s.prepared], self.fuser)
        run = [*_sorted([s for s in steps if not s.prepared], self.fuser), *copies]
        self._caller_places()
        prepared = self._prepared_places(prepare, run)
        constants = self._constant_places([*prepare, *run])
        before, now = self._regions(prepare), self._regions(run)
        prepare_arena = self._arena(before)
        arena = self._arena(now)
        launches = self._launches([*before, *now])
        count = len(prepare)
        assert isinstance(prepare_arena, int)
        return Program(
            name=self.entry.name,
            symbols=_symbols(self.inputs),
            inputs=tuple(v.type for v in self.inputs),
            outputs=tuple(v.type for v in self.outputs),
            reads=tuple(self.entry.storages),
            updates=tuple(self.entry.updates),
            prepared=prepared,
            constants=constants,
            prepare=tuple(launches[:count]),
            prepare_arena=prepare_arena,
            run=tuple(launches[count:]),
            arena=arena,
            index_ranges=index_ranges(self.graph, len(self.inputs)),
        )

    def _steps(self, group: Group) -> list[_Step]:
        works = [w for w in group.works if w.value in self.fuser.stored]
        if not any(w.value not in self.fuser.inlined for w in works):
            return []
        order = group.works[0].order
        return [
            _Step(kernel, group.prepared, order, group.id)
            for kernel in lower_group(self.fuser, group)
        ]

    # Updates of storages.

    def _updates(self, steps: list[_Step]) -> list[_Step]:
        """Let storages be updated in place; where that is wrong, copies at the end."""
        copies = []
        for name, new in self.updates.items():
            old, made = self.works.buffer(self.storages[name]), self.works.buffer(new)
            writers = [s for s in steps if made in s.writes]
            readers = [s for s in steps if old in s.reads]
            if self._in_place(writers, readers, old, made):
                self.memory[made] = old
                for r in readers:
                    if r.group != writers[0].group:
                        self.fuser.order.depend(writers[0].group, r.group)
            else:
                copies.append(self._copy(new, old))
        return copies

    def _in_place(
        self, writers: list[_Step], readers: list[_Step], old: Buffer, new: Buffer
    ) -> bool:
        if len(writers) != 1:
            return False
        (writer,) = writers
        others = [r for r in readers if r is not writer]
        if any(r.group == writer.group for r in others):
            return False
        order = self.fuser.order
        if not order.can_depend(writer.group, [r.group for r in others]):
            return False
        return writer not in readers or _same_points(writer.kernel, old, new, self.works)

    def _copy(self, source: Value, target: Buffer) -> _Step:
        axes = self.works.axes("i", source.type.shape)
        index = self.works.indices(axes)
        value = self.works.load(source, index, None)
        store = Store(target, index, self.works.k.cast(value, target.dtype))
        buffers = (self.works.buffer(source), target)
        nest = Nest(f"copy_{target.dtype}", buffers, axes, (Pass((), (), (store,)),))
        return _Step(nest, prepared=False, order=0, group=-1)

    # Places.

    def _buffer(self, value: Value) -> Buffer:
        b = self.works.buffer(value)
        return self.memory.get(b, b)

    def _caller_places(self) -> None:
        for name, value in self.storages.items():
            self.places[self._buffer(value)] = StorageAt(name)
        for i, value in enumerate(self.inputs):
            self.places[self._buffer(value)] = InputAt(i)
        for i, value in enumerate(self.outputs):
            self.places[self._buffer(value)] = OutputAt(i)

    def _prepared_places(
        self, prepare: Sequence[_Step], run: Sequence[_Step]
    ) -> tuple[Prepared, ...]:
        made = list(dict.fromkeys(b for s in prepare for b in s.kernel.buffers if b in s.writes))
        used = {b for s in run for b in s.reads}
        prepared: list[Prepared] = []
        for b in made:
            if b in used:
                self.places[b] = PreparedAt(len(prepared))
                shape = tuple(s for s in b.shape if isinstance(s, int))
                prepared.append(Prepared(b.dtype, shape))
        return tuple(prepared)

    def _constant_places(self, steps: Sequence[_Step]) -> tuple[Constant, ...]:
        used = {b for s in steps for b in s.reads}
        constants: list[Constant] = []
        for node in self.graph.nodes:
            if node.op == "constant" and self.works.buffers.get(node.output) in used:
                self.places[self._buffer(node.output)] = ConstantAt(len(constants))
                constants.append(Constant(node.output.type, node.attrs["data"]))
        return tuple(constants)

    def _of(self, buffers: Iterable[Buffer]) -> dict[Buffer, None]:
        """The memory that some buffers are."""
        return dict.fromkeys(self.memory.get(b, b) for b in buffers)

    def _regions(self, steps: Sequence[_Step]) -> list[list[_Step]]:
        """Runs of steps of which none uses what another writes."""
        regions: list[list[_Step]] = []
        reads: set[Buffer] = set()
        writes: set[Buffer] = set()
        for s in steps:
            r, w = set(self._of(s.reads)), set(self._of(s.writes))
            free = not (r & writes or w & writes or w & reads)
            if regions and free and len(regions[-1]) < _REGION:
                regions[-1].append(s)
                reads, writes = reads | r, writes | w
            else:
                regions.append([s])
                reads, writes = r, w
        return regions

    def _arena(self, regions: Sequence[Sequence[_Step]]) -> Size:
        """Give every buffer without a place one in the arena; the bytes of the arena."""
        first: dict[Buffer, int] = {}
        last: dict[Buffer, int] = {}
        for i, region in enumerate(regions):
            for s in region:
                for b in self._of(s.kernel.buffers):
                    if b not in self.places:
                        first.setdefault(b, i)
                        last[b] = i
        tenants = [Tenant(b, product(b.shape) * b.dtype.itemsize, first[b], last[b]) for b in first]
        offsets, total = arrange(tenants)
        for b, offset in offsets.items():
            self.places[b] = ArenaAt(offset)
        return total

    # Launches.

    def _launches(self, regions: Sequence[Sequence[_Step]]) -> list[Launch]:
        finals = [flatten(s.kernel, self.memory) for region in regions for s in region]
        shared = _generic([kernel for kernel, _ in finals])
        independent = [i > 0 for region in regions for i in range(len(region))]
        launches = []
        for (kernel, buffers), generic, free in zip(finals, shared, independent, strict=True):
            sizes = None
            if generic is not None:
                (axis,) = kernel.rows if isinstance(kernel, Nest) else ()
                sizes = (axis.extent,)
            places = tuple(self.places[b] for b in buffers)
            launches.append(Launch(self._schedule(generic or kernel), places, free, sizes))
        return launches

    def _schedule(self, kernel: Kernel) -> Scheduled:
        if isinstance(kernel, Sort):
            return Scheduled(kernel, schedule_sort(kernel))
        if isinstance(kernel, Nest):
            return Scheduled(*schedule_nest(kernel, self.target))
        s = choose_contract_schedule(
            kernel.m.extent,
            kernel.n.extent,
            kernel.k.extent,
            kernel.a.dtype,
            self.target,
            batch=product(a.extent for a in kernel.batch),
            packed=kernel.packed,
        )
        return Scheduled(kernel, s)


def _distinct_results(entry: Entry) -> tuple[Graph, dict[str, Value]]:
    """The graph with every result a value of its own, and the new values of updated storages."""
    graph = entry.graph
    nodes = list(graph.nodes)
    arrays = {n.output for n in nodes if n.op == "constant" and n.output.type.size != 1}
    seen = {*graph.params, *arrays}
    old = dict(zip(entry.storages, graph.params[len(entry.inputs) :], strict=True))
    results, updates = [], {}
    names = [*(None for _ in entry.outputs), *entry.updates]
    for name, result in zip(names, graph.results, strict=True):
        if name is not None and old.get(name) is result:
            continue
        value = result
        if value in seen:
            value = Value(result.type, result.name)
            nodes.append(Node("identity", (result,), (value,), MappingProxyType({})))
        seen.add(value)
        results.append(value)
        if name is not None:
            updates[name] = value
    return Graph(graph.name, graph.params, tuple(nodes), tuple(results)), updates


def _sorted(steps: list[_Step], fuser: Fuser) -> list[_Step]:
    """Groups after all that they depend on, else in the order of the graph."""
    groups: dict[int, list[_Step]] = {}
    for s in steps:
        groups.setdefault(fuser.order.find(s.group), []).append(s)
    waits = {g: {h for h in groups if h != g and fuser.order.depends(g, h)} for g in groups}
    users: dict[int, list[int]] = {g: [] for g in groups}
    for g, before in waits.items():
        for h in before:
            users[h].append(g)
    ready = [(groups[g][0].order, g) for g in groups if not waits[g]]
    heapq.heapify(ready)
    result = []
    while ready:
        _, g = heapq.heappop(ready)
        result += groups[g]
        for user in users[g]:
            waits[user].discard(g)
            if not waits[user]:
                heapq.heappush(ready, (groups[user][0].order, user))
    assert len(result) == len(steps), "groups depend on one another in a cycle"
    return result


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


def _symbols(inputs: Sequence[Value]) -> tuple[Symbol, ...]:
    """The named sizes in the order in which the inputs' types name them."""
    found: dict[Symbol, None] = {}
    for value in inputs:
        for size in value.type.shape:
            found |= dict.fromkeys(sorted(size_symbols(size)))
    return tuple(found)


def _generic(kernels: Sequence[Kernel]) -> list[Nest | None]:
    """For each kernel that runs along one axis: one for any size, where several sizes occur."""
    made: list[Nest | None] = []
    sizes: dict[str, set[Size]] = {}
    texts: list[str] = []
    for kernel in kernels:
        generic = _any_size(kernel)
        made.append(generic)
        text = ""
        if generic is not None and isinstance(kernel, Nest):
            text = print_kernel(generic)
            sizes.setdefault(text, set()).add(kernel.rows[0].extent)
        texts.append(text)
    return [
        g if g is not None and len(sizes[text]) > 1 else None
        for g, text in zip(made, texts, strict=True)
    ]


def _any_size(kernel: Kernel) -> Nest | None:
    if not isinstance(kernel, Nest) or len(kernel.rows) != 1 or len(kernel.passes) != 1:
        return None
    (axis,), (only,) = kernel.rows, kernel.passes
    extent = axis.extent
    if only.axes or extent == 1 or not isinstance(extent, int):
        return None
    if any(b.shape not in ((extent,), (1,)) for b in kernel.buffers):
        return None
    return replace_sizes(kernel, axis, symbol_size(Symbol("count", 1)))
