"""From an optimised entry to a program: where everything lies, and how each kernel runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import Symbol, product, size_symbols, symbol_size
from fluxc.compiler.kernels.blocks import choose_block_schedule
from fluxc.compiler.kernels.contraction import choose_contract_schedule, row_segment
from fluxc.compiler.kernels.cost import schedule_nest, schedule_sort
from fluxc.compiler.kernels.flatten import flatten, replace_sizes
from fluxc.compiler.kernels.kernel import Nest, Sort, kernel_symbols
from fluxc.compiler.kernels.memory import Tenant, arrange
from fluxc.compiler.kernels.printer import print_kernel
from fluxc.compiler.kernels.program import (
    ArenaAt,
    Choice,
    Constant,
    ConstantAt,
    InputAt,
    Launch,
    Loop,
    OutputAt,
    PartAt,
    Prepared,
    PreparedAt,
    Program,
    Scheduled,
    StorageAt,
    While,
)
from fluxc.compiler.kernels.ranges import index_ranges
from fluxc.compiler.kernels.scope import Control, Memory, Run, Scope, distinct_results, walk_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.entry import Entry
    from fluxc.compiler.ir.graph import Value
    from fluxc.compiler.kernels.kernel import Buffer, Kernel
    from fluxc.compiler.kernels.program import Place
    from fluxc.compiler.kernels.program import Step as FinalStep
    from fluxc.compiler.kernels.schedule import Target
    from fluxc.compiler.kernels.scope import Step
    from fluxc.compiler.kernels.work import Again

__all__ = ["Life", "Moment", "Survey", "plan", "survey"]

_REGION = 64  # launches in one parallel region, at most


def plan(entry: Entry, target: Target) -> Program:
    """The program of an entry for a target.

    Errors  Unsupported where the graph holds what no kernel computes.
    """
    return _Plan(entry, target).program()


@dataclass(frozen=True, slots=True)
class Life:
    """Scratch memory of a program: the values of the entry's graph that lie in it, its bytes, and
    the first and the last moment at which its contents matter."""

    values: tuple[Value, ...]
    bytes: Size
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Moment:
    """A launch or control flow of the entry's own graph: when it runs, and what it makes."""

    first: int
    last: int
    makes: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """A program and what its memory is used for.

    stored: the values that lie in memory, each whole; all others are computed where they are read.
    """

    program: Program
    stored: frozenset[Value]
    lives: tuple[Life, ...]
    moments: tuple[Moment, ...]


def survey(entry: Entry, target: Target, again: Again | None = None) -> Survey:
    """The program of an entry, and what its memory is used for.

    again  what of the entry's graph is computed a second time
    """
    made = _Plan(entry, target, again)
    return made.survey(made.program())


class _Plan:
    """Gives every buffer of a program its place."""

    def __init__(self, entry: Entry, target: Target, again: Again | None = None) -> None:
        self.entry, self.target = entry, target
        count, n_inputs = len(entry.outputs), len(entry.inputs)
        params = entry.graph.params
        self.inputs = params[:n_inputs]
        self.storages = dict(zip(entry.storages, params[n_inputs:], strict=True))
        updated = [self.storages[name] for name in entry.updates]
        self.graph, values = distinct_results(entry.graph, updated, count)
        self.outputs = [v for v in values[:count] if v is not None]
        pairs = zip(updated, values[count:], strict=True)
        self.memory = Memory()
        self.scope = Scope(
            self.graph,
            {old: new for old, new in pairs if new is not None},
            tuple(self.storages.values()),
            self.memory,
            target,
            prepares=not entry.updates,
            static=True,
            again=again,
        )
        self.places: dict[Buffer, Place] = {}

    def program(self) -> Program:
        prepare, run = self.scope.ahead, self.scope.steps
        self._caller_places()
        prepared = self._prepared_places(prepare, run)
        constants = self._constant_places([*prepare, *run])
        depths = self._depths()
        before, now = (_Order(self.memory, depths, steps) for steps in (prepare, run))
        prepare_arena, arena = self._arena(before), self._arena(now)
        self.order = now
        assert isinstance(prepare_arena, int)
        self.launches = self._launches([*walk_steps(prepare), *walk_steps(run)])
        return Program(
            name=self.entry.name,
            symbols=_symbols(self.inputs),
            inputs=tuple(v.type for v in self.inputs),
            outputs=tuple(v.type for v in self.outputs),
            reads=tuple(self.entry.storages),
            updates=tuple(self.entry.updates),
            prepared=prepared,
            constants=constants,
            prepare=self._final(before.regions),
            prepare_arena=prepare_arena,
            run=self._final(now.regions),
            arena=arena,
            index_ranges=index_ranges(self.graph, len(self.inputs)),
        )

    def _depths(self) -> dict[Buffer, int]:
        """How many loops and choices stand around the place where each buffer is made."""
        scopes = list(self.scope.scopes())
        depths = {b: s.depth for s in scopes for b in s.works.buffers.values()}
        for s in scopes:
            depths.update((b, min(depths[b], s.depth)) for b in s.moved)
        return depths

    # Places.

    def _buffer(self, value: Value) -> Buffer:
        return self.memory.root(self.scope.works.buffer(value))

    def _caller_places(self) -> None:
        for name, value in self.storages.items():
            self.places[self._buffer(value)] = StorageAt(name)
        for i, value in enumerate(self.inputs):
            self.places[self._buffer(value)] = InputAt(i)
        for i, value in enumerate(self.outputs):
            self.places[self._buffer(value)] = OutputAt(i)

    def _prepared_places(
        self, prepare: Sequence[Step], run: Sequence[Step]
    ) -> tuple[Prepared, ...]:
        whole = self.memory.whole
        made = dict.fromkeys(whole(b) for s in walk_steps(prepare) for b in s.kernel.buffers)
        written = {whole(b) for s in walk_steps(prepare) for b in s.writes}
        used = {whole(b) for s in walk_steps(run) for b in s.reads}
        used |= {whole(s.decides) for s in _controls(run) if s.decides is not None}
        prepared: list[Prepared] = []
        for b in made:
            if b in used and b in written:
                self.places[b] = PreparedAt(len(prepared))
                shape = tuple(s for s in b.shape if isinstance(s, int))
                prepared.append(Prepared(b.dtype, shape))
        return tuple(prepared)

    def _constant_places(self, steps: Sequence[Step]) -> tuple[Constant, ...]:
        used = {self.memory.whole(b) for s in walk_steps(steps) for b in s.reads}
        constants: list[Constant] = []
        for scope in self.scope.scopes():
            for value in scope.works.constants():
                b = self.memory.root(scope.works.buffer(value))
                if b in used:
                    self.places[b] = ConstantAt(len(constants))
                    data = scope.works.producers[value].attrs["data"]
                    constants.append(Constant(value.type, data))
        return tuple(constants)

    def _arena(self, order: _Order) -> Size:
        """Give every buffer without a place one in the arena; the bytes of the arena."""
        tenants = [
            Tenant(b, product(b.shape) * b.dtype.itemsize, first, last)
            for b, (first, last) in order.lives().items()
            if b not in self.places
        ]
        offsets, total = arrange(tenants)
        for b, offset in offsets.items():
            self.places[b] = ArenaAt(offset)
        return total

    def survey(self, program: Program) -> Survey:
        named: dict[Buffer, list[Value]] = {}
        for value, b in self.scope.works.buffers.items():
            named.setdefault(self.memory.whole(b), []).append(value)
        lives = [
            Life(tuple(named.get(b, ())), product(b.shape) * b.dtype.itemsize, first, last)
            for b, (first, last) in self.order.lives().items()
            if isinstance(self.places.get(b), ArenaAt)
        ]
        values = {b: v for v, b in self.scope.works.buffers.items()}
        moments = [
            Moment(first, last, tuple(values[b] for b in made if b in values))
            for first, last, made in self.order.moments
        ]
        stored = frozenset((*self.scope.works.memory, *self.scope.fuser.stored))
        return Survey(program, stored, tuple(lives), tuple(moments))

    def _place(self, b: Buffer) -> Place:
        b = self.memory.root(b)
        view = self.memory.views.get(b)
        if view is None:
            return self.places[b]
        base = self._place(view.buffer)
        if isinstance(base, ArenaAt):
            return ArenaAt(base.offset + view.bytes)
        if isinstance(base, PartAt):
            return PartAt(base.whole, base.bytes + view.bytes)
        return PartAt(base, view.bytes)

    # Steps.

    def _final(self, regions: Sequence[Sequence[Step]]) -> tuple[FinalStep, ...]:
        """Steps of a program, regions told apart."""
        found: list[FinalStep] = []
        for region in regions:
            for i, step in enumerate(region):
                if isinstance(step, Run):
                    found.append(replace(self.launches[step], independent=i > 0))
                else:
                    found.append(self._final_control(step))
        return tuple(found)

    def _final_control(self, c: Control) -> Loop | While | Choice:
        bodies = [self._final(regions(self.memory, body)) for body in c.bodies]
        if c.kind == "scan":
            assert c.counter is not None
            return Loop(c.counter, c.trips, bodies[0])
        assert c.decides is not None
        place = self._place(c.decides)
        return (
            While(bodies[0], place, bodies[1])
            if c.kind == "while"
            else Choice(place, tuple(bodies))
        )

    # Launches.

    def _launches(self, runs: Sequence[Run]) -> dict[Run, Launch]:
        finals = []
        for run in runs:
            roots = {b: self.memory.root(b) for b in run.kernel.buffers}
            finals.append(flatten(run.kernel, roots))
        shared = _generic([kernel for kernel, _ in finals])
        launches = {}
        for run, (kernel, buffers), generic in zip(runs, finals, shared, strict=True):
            sizes = None
            if generic is not None:
                (axis,) = kernel.rows if isinstance(kernel, Nest) else ()
                sizes = (axis.extent,)
            places = tuple(map(self._place, buffers))
            launches[run] = Launch(self._schedule(generic or kernel), places, sizes=sizes)
        return launches

    def _schedule(self, kernel: Kernel) -> Scheduled:
        if self.target.gpu:
            return Scheduled(kernel, choose_block_schedule(kernel))
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
            segment=row_segment(kernel),
        )
        return Scheduled(kernel, s)


def _controls(steps: Iterable[Step]) -> Iterator[Control]:
    """Every loop and choice among some steps and inside."""
    for step in steps:
        if isinstance(step, Control):
            yield step
            for body in step.bodies:
                yield from _controls(body)


def regions(memory: Memory, steps: Iterable[Step]) -> list[list[Step]]:
    """Runs of launches of which none uses what another writes; a loop or choice stands alone."""
    found: list[list[Step]] = []
    reads: set[Buffer] = set()
    writes: set[Buffer] = set()
    is_open = False
    for s in steps:
        if isinstance(s, Control):
            found.append([s])
            is_open = False
            continue
        r, w = ({memory.whole(b) for b in buffers} for buffers in (s.reads, s.writes))
        free = not (r & writes or w & writes or w & reads)
        if is_open and free and len(found[-1]) < _REGION:
            found[-1].append(s)
            reads, writes = reads | r, writes | w
        else:
            found.append([s])
            reads, writes, is_open = r, w, True
    return found


class _Order:
    """Steps in the order in which they run, to tell from when until when a buffer matters.

    A buffer that is made outside of a loop or choice lives through all of it once it is used
    inside.
    """

    def __init__(self, memory: Memory, depths: dict[Buffer, int], steps: Sequence[Step]) -> None:
        self.memory, self.depths = memory, depths
        self.uses: dict[Buffer, list[int | Control]] = {}
        self.spans: dict[Control, tuple[int, int]] = {}
        self.moments: list[tuple[int, int, tuple[Buffer, ...]]] = []  # of steps outside of loops
        self.now = 0
        self.regions = regions(memory, steps)
        self._visit(self.regions, ())

    def _visit(self, found: Sequence[Sequence[Step]], around: tuple[Control, ...]) -> None:
        for region in found:
            self.now += 1
            begin = self.now
            for step in region:
                if isinstance(step, Run):
                    for b in step.kernel.buffers:
                        self._use(b, around)
                else:
                    self._visit_control(step, around)
                if not around:
                    self.moments.append((begin, self.now, step.writes))

    def _visit_control(self, c: Control, around: tuple[Control, ...]) -> None:
        begin = self.now
        if c.kind == "switch" and c.decides is not None:
            self._use(c.decides, around)
        for b in (*c.reads, *c.writes):
            self._use(b, around)
        for body in c.bodies:
            self._visit(regions(self.memory, body), (*around, c))
            if c.kind == "while" and body is c.bodies[0] and c.decides is not None:
                self._use(c.decides, (*around, c))
        self.now += 1
        self.spans[c] = (begin, self.now)

    def _use(self, b: Buffer, around: tuple[Control, ...]) -> None:
        whole = self.memory.whole(b)
        depth = self.depths[whole]
        self.uses.setdefault(whole, []).append(around[depth] if depth < len(around) else self.now)

    def lives(self) -> dict[Buffer, tuple[int, int]]:
        """The first and the last moment of every buffer."""
        found = {}
        for b, uses in self.uses.items():
            spans = [(u, u) if isinstance(u, int) else self.spans[u] for u in uses]
            found[b] = (min(s[0] for s in spans), max(s[1] for s in spans))
        return found


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
    if any(b.shape not in ((extent,), (1,)) for b in kernel.buffers) or kernel_symbols(kernel):
        return None
    return replace_sizes(kernel, axis, symbol_size(Symbol("count", 1)))
