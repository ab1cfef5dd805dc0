"""The nodes of a graph as work: what is computed at which points, and what each point reads.

A Work is a value that is worth a place in memory; layout operations and creations in between are
inlined where they are read and have no Work of their own, unless something needs them stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluxc.compiler.errors import Unsupported
from fluxc.compiler.ir.dims import ceildiv, product, size_bounds, size_symbols
from fluxc.compiler.ir.graph import Node, Value, node_symbols
from fluxc.compiler.kernels import ordered, windows
from fluxc.compiler.kernels.affine import levels, walked_index
from fluxc.compiler.kernels.contraction import (
    choose_contract_schedule,
    worth_contract,
    worth_packing,
)
from fluxc.compiler.kernels.inline import Inliner, Place, computing, is_pointwise_scatter
from fluxc.compiler.kernels.kernel import (
    Apply,
    Axis,
    Buffer,
    Expressions,
    Extent,
    Load,
    walk,
)
from fluxc.compiler.ops import OPS
from fluxc.compiler.ops.control import CONTROL, carried_operands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Graph
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.kernels.fuse import Group
    from fluxc.compiler.kernels.kernel import Expr
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["STRUCTURED", "Again", "Product", "Read", "Work", "Works"]

REDUCTIONS = {
    "reduce_sum": "add",
    "reduce_prod": "mul",
    "reduce_max": "maximum",
    "reduce_min": "minimum",
    "reduce_and": "and",
    "reduce_or": "or",
}
# Layout by form, but too much arithmetic to do twice, or a memory of its own.
_EXPENSIVE_LAYOUT = {"dynamic_update", "random_bits"}


@dataclass(frozen=True, slots=True)
class Read:
    """`value[index]`, the index over the axes of the work that reads."""

    value: Value
    index: Place


@dataclass(frozen=True, slots=True)
class Again:
    """What is computed a second time, so that it changes no kernel but its own.

    Sums of a kernel that changes may be added in another order.

    stored: values that lie in memory as if nothing were computed again.
    copies: values whose works share no kernel with others.
    """

    stored: frozenset[Value] = frozenset()
    copies: frozenset[Value] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """The axes of a contraction, and where its operands are read."""

    batch: tuple[Axis, ...]
    m: Axis
    n: Axis
    k: Axis
    a: tuple[Value, Place]
    b: tuple[Value, Place]
    packed: int | None


@dataclass(slots=True, eq=False)
class Work:
    """value:   what it makes.
    kind:      point, reduce, contract, scatter, running, sort, pack or control.
    axes:      its own axes: of the output, then those that it sums over.
    out:       the index of the output over `axes`.
    define:    (inliner, {own axis: expression}) -> the value at a point, or what is summed there.
    reduction: the operation of a reduction.
    prepared:  whether it depends on storages and constants alone.
    operands:  of control flow: the values that its graphs are given; None: the number of the step.
    place:     its axes over the axes of its group.
    waits:     values that must be made before it, though it reads nothing of them.
    """

    order: int
    node: Node
    value: Value
    kind: str
    axes: tuple[Axis, ...]
    out: Place
    define: Callable[[Inliner, dict[Axis, Expr]], Expr]
    reduction: str = ""
    product: Product | None = None
    reads: list[Read] = field(default_factory=list)
    prepared: bool = False
    operands: tuple[Value | None, ...] = ()
    place: dict[Axis, Expr] = field(default_factory=dict)
    coords: Place = ()
    group: Group | None = None
    waits: dict[Value, None] = field(default_factory=dict)


class Works:
    """All works of a graph, in order; `k` makes the expressions of every one of them."""

    def __init__(
        self,
        graph: Graph,
        storages: Sequence[Value],
        *,
        prepares: bool,
        target: Target,
        static: bool = True,
        counter: str = "",
        again: Again | None = None,
    ) -> None:
        self.target, self.static, self.counter = target, static, counter
        self.again = again or Again()
        self.prepares = prepares
        self.producers = {v: node for node in graph.nodes for v in node.outputs}
        self.results = set(graph.results)
        self.forced: set[Value] = set()  # inlined values that are needed in memory
        self.once: set[Value] = set()  # values that nobody computes again
        known = -1
        while known != len(self.forced):
            known = len(self.forced)
            self._start(graph, storages)
            for node in graph.nodes:
                self._node(node)

    def _start(self, graph: Graph, storages: Sequence[Value]) -> None:
        self.k = Expressions()
        self.buffers: dict[Value, Buffer] = {}
        self.of: dict[Value, Work] = {}
        self.memory: set[Value] = set(graph.params)  # values that lie in memory without any work
        self.ready: set[Value] = set(storages) if self.prepares else set()
        self.through: dict[Work, set[Value]] = {}
        self.held: dict[Value, dict[Value, None]] = {}  # a barrier -> what must be made before
        self.of_sums: set[Value] = set()  # made from a reduction, element by element

    def _node(self, node: Node) -> None:
        if len(node.outputs) != 1 and node.op not in CONTROL:
            raise Unsupported(f"{node.op} has several outputs", loc=node.loc)
        pointwise = node.op not in STRUCTURED and not self.of_sums.isdisjoint(node.inputs)
        if node.op in REDUCTIONS or pointwise:
            self.of_sums.add(node.output)
        if node.op == "barrier":
            self.held[node.output] = self._makers(node.inputs[1:])
        if node.op in STRUCTURED:
            STRUCTURED[node.op](self, node)
        elif not self._virtual(node) or self._needed(node.output) or self._picked(node):
            self.point(node.output)

    def _makers(self, values: Iterable[Value]) -> dict[Value, None]:
        """What must be computed for some values to be known."""
        found: dict[Value, None] = {}
        pending = list(values)
        while pending:
            v = pending.pop()
            if v in self.of:
                found[v] = None
            elif v not in self.memory:
                pending.extend(self.producers[v].inputs)
        return found

    def _needed(self, value: Value) -> bool:
        return value in self.results or value in self.forced

    def _virtual(self, node: Node) -> bool:
        layout = OPS[node.op].lower is not None and node.op not in _EXPENSIVE_LAYOUT
        return layout or node.op in {"identity", "stop_gradient"}

    def buffer(self, value: Value) -> Buffer:
        if value not in self.buffers:
            name = value.name or f"t{len(self.buffers)}"
            self.buffers[value] = Buffer(name, value.type.dtype, value.type.shape)
        return self.buffers[value]

    def load(self, value: Value, index: Place, guard: Expr | None) -> Expr:
        e = self.k.load(self.buffer(value), index, guard)
        return self.k.cast(e, computing(value.type.dtype))

    def axes(self, prefix: str, shape: Sequence[Size]) -> tuple[Axis, ...]:
        axes = tuple(Axis(f"{prefix}{i}", size) for i, size in enumerate(shape))
        for axis in axes:
            self.k.index(axis)
        return axes

    def indices(self, axes: Iterable[Axis]) -> Place:
        return tuple(map(self.k.index, axes))

    def inliner(
        self, reads: list[Read], through: set[Value], waits: dict[Value, None] | None = None
    ) -> Inliner:
        """An inliner that stops at what has work or lies in memory, and notes it.

        waits  is given what the barriers on the way hold the reads back for
        """

        def leaf(value: Value, index: Place, guard: Expr | None) -> Expr | None:
            if waits is not None and value in self.held:
                waits.update(self.held[value])
            if value in through or (value not in self.of and value not in self.memory):
                return None
            reads.append(Read(value, index))
            return self.load(value, index, guard)

        return Inliner(self.k, self.producers, leaf)

    def add(self, work: Work, through: set[Value] | None = None) -> Work:
        """Register a work: find what it reads, and whether it can be prepared."""
        if through:
            self.through[work] = through
        inliner = self.inliner(work.reads, through or set(), work.waits)
        work.waits.update(self.held.get(work.value, {}))
        made = work.define(inliner, {a: self.k.index(a) for a in work.axes})
        values = work.node.outputs if work.kind == "control" else (work.value,)
        known = all(r.value in self.ready or self._constant(r.value) for r in work.reads)
        known = known and bool(work.reads) and self.prepares and not self._counts(made)
        if known and self._may_prepare(work, values):
            work.prepared = True
            self.ready.update(values)
        self.of.update((v, work) for v in values)
        return work

    def _counts(self, made: Expr) -> bool:
        """Whether an expression depends on the number of the step of the loop around."""
        if not self.counter:
            return False
        sizes = (e.size for e in walk(made) if isinstance(e, Extent))
        return any(self.counter == s.name for size in sizes for s in size_symbols(size))

    def _may_prepare(self, work: Work, values: Sequence[Value]) -> bool:
        if not self.results.isdisjoint(values):
            return False
        if not self.static:
            return True
        fixed = all(isinstance(a.extent, int) for a in work.axes)
        inner = work.kind != "control" or not node_symbols(work.node)
        return fixed and inner and not any(v.type.symbols for v in values)

    def all(self) -> list[Work]:
        """Every work once, in order."""
        return sorted(dict.fromkeys(self.of.values()), key=lambda w: w.order)

    def constants(self) -> list[Value]:
        """The arrays among the library's data that the graph names."""
        return [v for v in self.producers if v in self.memory and self._constant(v)]

    def made(
        self,
        node: Node,
        value: Value,
        kind: str,
        axes: tuple[Axis, ...],
        define: Callable[[Inliner, dict[Axis, Expr]], Expr],
    ) -> Work:
        """A work whose axes are those of its value."""
        out = self.indices(axes)
        return self.add(Work(len(self.of), node, value, kind, axes, out, define))

    def _constant(self, value: Value) -> bool:
        return value in self.producers and self.producers[value].op == "constant"

    def point(self, value: Value) -> Work:
        """A work that computes one element of `value` a point."""
        node = self.producers[value]
        axes = self.axes("i", value.type.shape)

        def define(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
            return inliner.expand(value, tuple(place[a] for a in axes))

        kind = "pack" if self._replaces_a_part(node) else "point"
        work = Work(len(self.of), node, value, kind, axes, self.indices(axes), define)
        return self.add(work, self._picked(node))

    def _replaces_a_part(self, node: Node) -> bool:
        """Whether a node writes into what the graph was given: in place that is a small kernel of
        its own, while a reader that it is fused with visits all of it."""
        given = node.op == "dynamic_update" and node.inputs[0] in self.memory
        return given and node.output in self.results

    def _picked(self, node: Node) -> set[Value]:
        """Values that a gather of few elements computes for itself rather than has stored."""
        found: set[Value] = set()
        if node.op != "gather":
            return found
        source, budget = node.inputs[0], 8
        if size_bounds(source.type.size - node.output.type.size * 4)[0] < 0:
            return found
        pending = [source]
        while pending:
            v = pending.pop()
            maker = self.producers.get(v)
            if maker is None or v in self.memory:
                continue
            if v in self.of:
                cheap = OPS[maker.op].scalar is not None and v in self.of_sums
                if not cheap or budget == 0 or v in self.results:
                    continue
                budget -= 1
                found.add(v)
            pending.extend(maker.inputs)
        return found

    def reduce(self, node: Node) -> None:
        (x,) = node.inputs
        summed = node.attrs["axes"]
        axes = self.axes("i", x.type.shape)
        kept = tuple(a for i, a in enumerate(axes) if i not in summed)
        own = (*kept, *(axes[i] for i in summed))

        def define(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
            return inliner.at(x, tuple(place[a] for a in axes))

        out = self.indices(kept)
        self.reduction(node, node.output, own, out, define, REDUCTIONS[node.op])

    def reduction(
        self,
        node: Node,
        value: Value,
        axes: tuple[Axis, ...],
        out: Place,
        define: Callable[[Inliner, dict[Axis, Expr]], Expr],
        op: str,
    ) -> Work:
        """A work that reduces over those of its axes that `out` lacks."""
        return self.add(Work(len(self.of), node, value, "reduce", axes, out, define, op))

    def constant(self, node: Node) -> None:
        """Data of the library; one number is part of the code that uses it."""
        if node.output.type.size != 1:
            self.memory.add(node.output)
        elif self._needed(node.output):
            self.point(node.output)

    def control(self, node: Node) -> None:
        """Loops and choices: their operands lie in memory, where carried ones begin as copies."""
        first, last = carried_operands(node)
        operands: list[Value | None] = []
        for i, v in enumerate(node.inputs):
            if first <= i < last:
                start = Value(v.type, v.name)
                self.producers[start] = Node("identity", (v,), (start,), loc=node.loc)
                self.point(start)
                operands.append(start)
            elif node.op == "scan" and i >= last and self._is_count(v):
                operands.append(None)
            else:
                if v not in self.of and v not in self.memory:
                    self.forced.add(v)
                    self.point(v)
                operands.append(v)

        def define(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
            del place
            for v in operands:
                if v is not None:
                    inliner.at(v, self.indices(self.axes("o", v.type.shape)))
            return self.k.size(0)

        work = Work(len(self.of), node, node.outputs[0], "control", (), (), define)
        work.operands = tuple(operands)
        self.add(work)

    def _is_count(self, v: Value) -> bool:
        """0, 1, 2 and so on: inside of a loop, the number of the step."""
        maker = self.producers.get(v)
        return maker is not None and maker.op == "iota" and v.type.rank == 1

    def scatter(self, node: Node) -> None:
        """One update a batch element: a select.  Else updates are added one after another."""
        if is_pointwise_scatter(node):
            self.point(node.output)
            return
        x, indices, updates = node.inputs
        batch, depth = node.attrs["batch"], indices.type.shape[-1]
        assert isinstance(depth, int)
        axes = self.axes("i", updates.type.shape)
        base = self.axes("j", x.type.shape)

        def define(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
            at = tuple(place[a] for a in axes)
            here = at[: indices.type.rank - 1]
            for j in range(depth):
                inliner.at(indices, (*here, self.k.size(j)))
            inliner.at(x, self.indices(base))
            return inliner.at(updates, at)

        del batch
        out = self.indices(base)
        work = Work(len(self.of), node, node.output, "scatter", (*axes, *base), out, define)
        self.add(work)

    def contract(self, node: Node) -> None:
        a, b = node.inputs
        at = node.attrs
        free_a = _others(a, at["batch_a"], at["over_a"])
        free_b = _others(b, at["batch_b"], at["over_b"])
        m = product(a.type.shape[i] for i in free_a)
        n = product(b.type.shape[i] for i in free_b)
        k = product(a.type.shape[i] for i in at["over_a"])
        dtype = a.type.dtype
        most = size_bounds(m * n * k)[1]
        batch = self.axes("b", [a.type.shape[i] for i in at["batch_a"]])
        (am, an, ak) = (Axis("m", m), Axis("n", n), Axis("k", k))
        im, in_, ik = self.indices((am, an, ak))
        index_a = self._operand(a, batch, at["batch_a"], free_a, im, at["over_a"], ik)
        index_b = self._operand(b, batch, at["batch_b"], free_b, in_, at["over_b"], ik)
        along_k = self.stride(b, index_b, ak) == 1 and self.stride(b, index_b, an) != 1
        if (
            not dtype.is_float
            or most < 512
            or not worth_contract(m, n, k, dtype, self.target, unit_stride=not along_k)
        ):
            if most >= 512:
                self._settle(a, index_a)  # it is read once for each column
            self._sum_of_products(node, free_a, free_b)
            return
        left = self.stored_view(node, a, index_a, (*batch, am, ak))
        right, panel = self.right_operand(node, b, index_b, batch, (am, an, ak))
        shape_a = [node.inputs[0].type.shape[i] for i in free_a]
        shape_b = [node.inputs[1].type.shape[i] for i in free_b]
        out = (
            *self.indices(batch),
            *self.k.unflatten(im, shape_a),
            *self.k.unflatten(in_, shape_b),
        )
        self.multiply(node, batch, (am, an, ak), left, right, out, panel)

    def right_operand(
        self,
        node: Node,
        b: Value,
        index: Place,
        batch: tuple[Axis, ...],
        axes: tuple[Axis, Axis, Axis],
    ) -> tuple[tuple[Value, Place], int | None]:
        """`b[index]` as a contraction over (m, n, k) reads it, and the width of its panels."""
        _, n, k = axes
        panel = self._panel(b, index, batch, axes)
        if panel is None:
            return self.stored_view(node, b, index, (*batch, k, n)), None
        return self._pack(node, b, index, batch, n, k, panel), panel

    def multiply(
        self,
        node: Node,
        batch: tuple[Axis, ...],
        axes: tuple[Axis, Axis, Axis],
        a: tuple[Value, Place],
        b: tuple[Value, Place],
        out: Place,
        packed: int | None = None,
    ) -> Work:
        """A contraction over the last of `axes`, (m, n, k); its operands are views of memory."""
        made = Product(batch, *axes, a, b, packed)

        def define(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
            del place
            inliner.at(*made.a)
            return inliner.at(*made.b)

        own = (*batch, *axes)
        work = Work(len(self.of), node, node.output, "contract", own, out, define, "", made)
        return self.add(work)

    def _operand(
        self,
        x: Value,
        batch: tuple[Axis, ...],
        batch_dims: tuple[int, ...],
        free: tuple[int, ...],
        position: Expr,
        over: tuple[int, ...],
        inner: Expr,
    ) -> Place:
        """The index of an operand whose free and summed dimensions are one axis each."""
        index = dict(zip(batch_dims, self.indices(batch), strict=True))
        shape = x.type.shape
        index |= dict(zip(free, self.k.unflatten(position, [shape[i] for i in free]), strict=True))
        index |= dict(zip(over, self.k.unflatten(inner, [shape[i] for i in over]), strict=True))
        return tuple(index[i] for i in range(x.type.rank))

    def compute_once(self, value: Value) -> None:
        """Let `value` be computed once: those who compare its elements must see one number."""
        if value not in self.of and value not in self.memory:
            self.forced.add(value)
            self.point(value)
        self.once.add(value)

    def as_stored(self, e: Expr, dtype: DType) -> Expr:
        """`e`, a value of a tensor of `dtype`, as it is read from memory."""
        return self.k.cast(self.k.cast(e, dtype), e.dtype)

    def view(self, value: Value, index: Place, *walked: Axis) -> Load | None:
        """`value[index]` as a load whose position is affine in the axes, if it is one.

        walked  axes in whose digits it may be affine
        """
        e = self.inliner([], set()).at(value, index)
        if isinstance(e, Apply) and e.op == "cast":
            (e,) = e.args
        if not isinstance(e, Load) or e.guard is not None or e.dtype != value.type.dtype:
            return None
        if walked:
            where = walked_index(e)
            return None if where is None or None in [levels(where, a) for a in walked] else e
        position = self.k.flatten(e.index, e.buffer.shape)
        return e if self.k.linear(position).affine else None

    def stored_view(
        self, node: Node, value: Value, index: Place, axes: tuple[Axis, ...]
    ) -> tuple[Value, Place]:
        """A value that lies in memory and an index that a contraction can walk; else a copy."""
        self._settle(value, index)
        if self.view(value, index) is not None:
            return value, index
        return self.copied(node, value, index, axes)

    def _settle(self, value: Value, index: Place) -> None:
        """Give a value that is no view of memory a place there."""
        if self.view(value, index) is None and value not in self.of and value not in self.memory:
            self.forced.add(value)
            self.point(value)

    def stride(self, value: Value, index: Place, axis: Axis) -> Size | None:
        """How far apart neighbours along an axis lie in memory; None where `value` is no view."""
        view = self.view(value, index)
        if view is None:
            return None
        position = self.k.flatten(view.index, view.buffer.shape)
        return self.k.linear(position).stride(axis)

    def copied(
        self,
        node: Node,
        value: Value,
        index: Place,
        axes: tuple[Axis, ...],
        guard: Expr | None = None,
    ) -> tuple[Value, Place]:
        """A copy of `value[index]`, which runs over `axes`, in memory; 0 where `guard` is false."""
        copy = Value(value.type.with_shape(*(a.extent for a in axes)), f"{value.name}_copy")
        own = self.axes("i", copy.type.shape)

        def define(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
            at = {old: place[new] for old, new in zip(axes, own, strict=True)}
            if guard is None:
                return inliner.at(value, self.k.substitute(index, at))
            *moved, inside = self.k.substitute((*index, guard), at)
            return inliner.at(value, tuple(moved), inside)

        self.add(Work(len(self.of), node, copy, "pack", own, self.indices(own), define))
        return copy, self.indices(axes)

    def _panel(
        self,
        b: Value,
        index: Place,
        batch: tuple[Axis, ...],
        axes: tuple[Axis, Axis, Axis],
    ) -> int | None:
        """The width of the panels in which `b` is packed, or None: it is read where it is."""
        n = axes[1]
        m, columns, k = (a.extent for a in axes)
        step = self.stride(b, index, n)
        reads: list[Read] = []
        self.inliner(reads, set()).at(b, index)
        known = all(r.value in self.ready or self._constant(r.value) for r in reads)
        constant = step is None or (self.prepares and known and not b.type.symbols)
        dtype = b.type.dtype
        worth = worth_packing(
            m, columns, k, dtype, self.target, unit_stride=step == 1, constant=constant
        )
        if not worth:
            return None
        each = product(a.extent for a in batch)
        s = choose_contract_schedule(m, columns, k, dtype, self.target, batch=each)
        return s.nv * s.width

    def _pack(
        self,
        node: Node,
        b: Value,
        index: Place,
        batch: tuple[Axis, ...],
        n: Axis,
        k: Axis,
        width: int,
    ) -> tuple[Value, Place]:
        """A work that copies `b` into panels; the packed value, and where the product reads it."""
        e = self.k
        sizes = tuple(a.extent for a in batch)
        shape = (*sizes, ceildiv(n.extent, width), k.extent, width)
        packed = Value(b.type.with_shape(*shape), f"{b.name or 'b'}_packed")
        rows = self.axes("b", sizes)
        panel, depth, lane = self.axes("p", shape[len(batch) :])

        def define(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
            column = e.add(e.mul(place[panel], width), place[lane])
            own = {old: place[new] for old, new in zip(batch, rows, strict=True)}
            source = e.substitute(index, own | {n: column, k: place[depth]})
            inside = e.lt(column, n.extent)
            return inliner.at(b, source, None if inside is e.true else inside)

        own = (*rows, panel, depth, lane)
        self.add(Work(len(self.of), node, packed, "pack", own, self.indices(own), define))
        at, depth_at = e.index(n), e.index(k)
        read = (*self.indices(batch), e.floordiv(at, width), depth_at, e.mod(at, width))
        return packed, read

    def _sum_of_products(
        self, node: Node, free_a: tuple[int, ...], free_b: tuple[int, ...]
    ) -> None:
        a, b = node.inputs
        at = node.attrs
        batch = self.axes("b", [a.type.shape[i] for i in at["batch_a"]])
        rows = self.axes("m", [a.type.shape[i] for i in free_a])
        columns = self.axes("n", [b.type.shape[i] for i in free_b])
        summed = self.axes("k", [a.type.shape[i] for i in at["over_a"]])
        of_a = _by_dimension((at["batch_a"], batch), (free_a, rows), (at["over_a"], summed))
        of_b = _by_dimension((at["batch_b"], batch), (free_b, columns), (at["over_b"], summed))

        def define(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
            x = inliner.at(a, tuple(place[axis] for axis in of_a))
            return self.k.apply("mul", x, inliner.at(b, tuple(place[axis] for axis in of_b)))

        own = (*batch, *rows, *columns)
        work = Work(
            len(self.of), node, node.output, "reduce", (*own, *summed), self.indices(own), define
        )
        work.reduction = "add"
        self.add(work)


def _by_dimension(*pairs: tuple[tuple[int, ...], tuple[Axis, ...]]) -> tuple[Axis, ...]:
    of = {d: axis for dims, axes in pairs for d, axis in zip(dims, axes, strict=True)}
    return tuple(of[d] for d in range(len(of)))


def _others(x: Value, *taken: tuple[int, ...]) -> tuple[int, ...]:
    used = {i for dims in taken for i in dims}
    return tuple(i for i in range(x.type.rank) if i not in used)


def _inlined_earlier(_works: Works, node: Node) -> None:
    raise Unsupported(f"{node.op} must be inlined before kernels are made", loc=node.loc)


STRUCTURED: dict[str, Callable[[Works, Node], None]] = {
    **dict.fromkeys(REDUCTIONS, Works.reduce),
    "contract": Works.contract,
    "conv": windows.convolution,
    "conv_last": windows.convolution,
    "window_argmax": windows.window_argmax,
    "window_max": windows.window_max,
    "window_place": windows.window_place,
    "window_sum": windows.window_sum,
    "argmax": ordered.extremum_position,
    "argmin": ordered.extremum_position,
    "argsort": ordered.argsort,
    "cumulative": ordered.running,
    "recurrence": ordered.running,
    "scatter": Works.scatter,
    "constant": Works.constant,
    "checkpoint": _inlined_earlier,
    "custom_vjp": _inlined_earlier,
    **dict.fromkeys(CONTROL, Works.control),
}
