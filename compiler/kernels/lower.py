"""Groups of works as kernels of the loop IR, before buffers get places and axes a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import floordiv, product, size_bounds
from fluxc.compiler.ir.graph import Value
from fluxc.compiler.ir.types import TensorType, i64
from fluxc.compiler.kernels.inline import COMBINING, Inliner, computing
from fluxc.compiler.kernels.kernel import (
    Apply,
    Axis,
    Contract,
    Load,
    Local,
    Nest,
    Pass,
    Reduction,
    Store,
    kernel_roots,
    kernel_stores,
    operands,
    walk,
)
from fluxc.compiler.kernels.ordered import running_pass, sort_kernel
from fluxc.compiler.kernels.work import STRUCTURED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.fuse import Fuser, Group
    from fluxc.compiler.kernels.inline import Place
    from fluxc.compiler.kernels.kernel import Buffer, Expr, Kernel
    from fluxc.compiler.kernels.work import Work, Works

__all__ = ["STRUCTURED", "kernel_buffers", "lower_group"]

_CHUNK = 1 << 14  # points of a partial sum; fixed, so that results do not depend on threads
_SPLIT_ABOVE = 1 << 16


def lower_group(fuser: Fuser, group: Group) -> list[Kernel]:
    """The kernels of a group, in order; their buffers are `works.buffer` of the values."""
    lowering = _Lowering(fuser, group)
    if group.kind == "contract":
        return [lowering.contract()]
    if group.kind == "scatter":
        return lowering.scatter()
    if group.kind == "running":
        return [lowering.running()]
    if group.kind == "sort":
        (work,) = group.works
        return [sort_kernel(work, lowering.works.buffer)]
    if group.rows is None:
        return lowering.points()
    return lowering.rows_and_passes()


def kernel_buffers(kernel_passes: Sequence[Expr], stores: Sequence[Store]) -> tuple[Buffer, ...]:
    """Buffers in the order of their first use: loaded ones, then stored ones."""
    found = {e.buffer: None for e in walk(*kernel_passes) if isinstance(e, Load)}
    found |= {s.buffer: None for s in stores}
    return tuple(found)


@dataclass(slots=True)
class _Body:
    """What a pass does, before its level is known."""

    reductions: list[Reduction]
    full: list[Store]
    row: list[Store]


class _Lowering:
    def __init__(self, fuser: Fuser, group: Group) -> None:
        self.fuser, self.group = fuser, group
        self.works: Works = fuser.works
        self.k = fuser.k
        self.locals: dict[Value, Expr] = {}
        self.levels: dict[Expr, int] = {}
        self.local_levels: dict[str, int] = {}
        self.through = set[Value]().union(*(self.works.through.get(w, set()) for w in group.works))
        self.inliner = Inliner(self.k, self.works.producers, self._leaf)

    def _leaf(self, value: Value, index: Place, guard: Expr | None) -> Expr | None:
        if value in self.works.memory:
            return self.works.load(value, index, guard)
        work = self.works.of.get(value)
        if work is None or value in self.fuser.inlined:
            return None
        if work.group is not self.group:
            return None if value in self.through else self.works.load(value, index, guard)
        if work.kind == "point":
            return None
        at_home = all(x is y for x, y in zip(index, work.coords, strict=True))
        assert at_home, f"{work.node.op} is read at another point of its own kernel"
        return self.locals[value]

    # Names.

    def _name(self, works: Sequence[Work]) -> str:
        """What the group computes, as part of a symbol."""
        here = [w for w in works if w.value not in self.fuser.inlined]
        ops: dict[str, None] = {}
        for w in here:
            op = {"identity": "copy", "select": "where"}.get(w.node.op, w.node.op)
            ops[op.removeprefix("reduce_")] = None
        names = list(ops)
        if len(names) > 4:
            names = [*names[:3], names[-1]]
        return "_".join([*names, str((here or works)[-1].value.type.dtype)])

    # Pieces.

    def _value(self, work: Work) -> Expr:
        """A point work's value at its coordinates."""
        return self.inliner.at(work.value, work.coords)

    def _store(self, value: Value, index: Place, e: Expr) -> Store:
        buffer = self.works.buffer(value)
        return Store(buffer, index, self.k.cast(e, buffer.dtype))

    def _stored(self) -> list[Work]:
        return [
            w
            for w in self.group.works
            if w.value in self.fuser.stored and w.value not in self.fuser.inlined
        ]

    def _prime(self) -> None:
        """Compute values in order, so that long chains cost no recursion."""
        for w in self.group.works:
            if w.kind == "point" and w.value not in self.fuser.inlined:
                self._value(w)

    # Kinds.

    def points(self) -> list[Kernel]:
        """One point after another; every axis is a row."""
        works = self.group.works
        if self.group.kind == "pack":
            (work,) = works
            e = work.define(self.inliner, work.place)
            stores = [self._store(work.value, work.coords, e)]
            what = work.node.op if work.node.op == "dynamic_update" else "pack"
            name = f"{what}_{work.value.type.dtype}"
        else:
            self._prime()
            stores = [self._store(w.value, w.coords, self._value(w)) for w in self._stored()]
            name = self._name(works)
        return [self._nest(name, self.group.axes, [Pass((), (), tuple(stores))])]

    def _nest(self, name: str, rows: Sequence[Axis], passes: Sequence[Pass]) -> Nest:
        nest = Nest(name, (), tuple(rows), tuple(p for p in passes if p.reductions or p.stores))
        buffers = kernel_buffers(kernel_roots(nest), kernel_stores(nest))
        return Nest(nest.name, buffers, nest.rows, nest.passes)

    def contract(self) -> Kernel:
        first = next(w for w in self.group.works if w.kind == "contract")
        p = first.product
        assert p is not None
        a, b = self.works.view(*p.a, p.m, p.k), self._b_load(*p.b, packed=p.packed)
        assert a is not None
        dtype = first.value.type.dtype
        acc = self.k.local("acc", computing(dtype))
        self.locals[first.value] = acc
        self._prime()
        stores = [
            self._store(w.value, w.coords, acc if w is first else self._value(w))
            for w in self._stored()
        ]
        kernel = Contract(
            self._name(self.group.works), (), p.batch, p.m, p.n, p.k, a, b, acc, tuple(stores),
            p.packed,
        )  # fmt: skip
        buffers = kernel_buffers(kernel_roots(kernel), stores)
        return Contract(
            kernel.name, buffers, p.batch, p.m, p.n, p.k, a, b, acc, kernel.stores, p.packed
        )

    def _b_load(self, value: Value, index: Place, *, packed: int | None) -> Load:
        if packed is None:
            view = self.works.view(value, index)
            assert view is not None
            return view
        load = self.k.load(self.works.buffer(value), index)
        assert isinstance(load, Load)
        return load

    def scatter(self) -> list[Kernel]:
        """Copy x, then put the updates one after another, rows of them side by side."""
        (work,) = self.group.works
        k, (x, indices, updates) = self.k, work.node.inputs
        batch, at_rank = work.node.attrs["batch"], indices.type.rank - 1
        rank = updates.type.rank
        axes, base = work.axes[:rank], work.axes[rank:]
        dtype = work.value.type.dtype
        fold = COMBINING[work.node.attrs["reduce"]]
        narrow = computing(dtype) != dtype and fold in {"add", "mul"}
        total = Value(work.value.type.with_dtype(computing(dtype)), "sums")
        target = total if narrow else work.value
        at = k.substitute([k.index(a) for a in axes], {})
        here, rest = at[:at_rank], at[at_rank:]
        depth = indices.type.shape[-1]
        assert isinstance(depth, int)
        index, guard = list(here[:batch]), None
        for j, size in enumerate(x.type.shape[batch : batch + depth]):
            i = k.cast(self.inliner.at(indices, (*here, k.size(j))), i64)
            guard = k.both(guard, k.both(k.ge(i, 0), k.lt(i, size)))
            index.append(i)
        value = self.inliner.at(updates, at)
        place = (*index, *rest)
        update = Store(self.works.buffer(target), place, value, guard, accumulate=fold)
        start = self._store(target, self.works.indices(base), self._at_base(x, base))
        kernels: list[Kernel] = [self._nest(f"copy_{dtype}", base, [Pass((), (), (start,))])]
        rows = (*axes[:batch], *axes[at_rank:])
        add = Pass(axes[batch:at_rank], (), (update,))
        kernels.append(self._nest(f"scatter_{fold}_{dtype}", rows, [add]))
        if narrow:
            source = self.works.load(total, self.works.indices(base), None)
            end = self._store(work.value, self.works.indices(base), source)
            kernels.append(self._nest(f"copy_{dtype}", base, [Pass((), (), (end,))]))
        return kernels

    def running(self) -> Kernel:
        (work,) = self.group.works
        rows, along = running_pass(work, self.inliner, self._store)
        return self._nest(self._name([work]), rows, [along])

    def _at_base(self, x: Value, base: Sequence[Axis]) -> Expr:
        return self.inliner.at(x, self.works.indices(base))

    # Reductions.

    def rows_and_passes(self) -> list[Kernel]:
        group = self.group
        assert group.rows is not None
        rows = [a for a in group.axes if a in group.rows]
        inner = [a for a in group.axes if a not in group.rows and a.extent != 1]
        passes = self._passes()
        if self._splits(rows, inner, passes):
            return self._split(rows, inner, passes)
        made: list[Pass] = []
        for body in passes:
            made.append(Pass((), (), tuple(body.row)))
            made.append(Pass(tuple(inner), tuple(body.reductions), tuple(body.full)))
        return [self._nest(self._name(group.works), rows, made)]

    def _passes(self) -> list[_Body]:
        """Reductions and stores by level: each needs the reductions of lower levels."""
        bodies: list[_Body] = []

        def body(level: int) -> _Body:
            while len(bodies) <= level:
                bodies.append(_Body([], [], []))
            return bodies[level]

        stored = set(self._stored())
        for w in self.group.works:
            if w.value in self.fuser.inlined:
                continue
            if w.kind == "reduce":
                e = w.define(self.inliner, w.place)
                level = self._level(e)
                target = self.k.local(f"r{len(self.locals)}", e.dtype)
                self.locals[w.value] = target
                self.local_levels[target.name] = level + 1
                body(level).reductions.append(Reduction(target, w.reduction, e))
                e = target
            else:
                e = self._value(w)
            if w in stored:
                store = self._store(w.value, w.coords, e)
                row = self.group.at_rows(w)
                (body(self._level(e)).row if row else body(self._level(e)).full).append(store)
        return bodies

    def _level(self, root: Expr) -> int:
        """How many passes must have ended before `root` can be computed."""
        stack = [root]
        while stack:
            e = stack[-1]
            below = [x for x in operands(e) if x not in self.levels]
            if below:
                stack.extend(below)
                continue
            stack.pop()
            own = self.local_levels.get(e.name, 0) if isinstance(e, Local) else 0
            self.levels[e] = max([own, *(self.levels[x] for x in operands(e))])
        return self.levels[root]

    def _splits(self, rows: list[Axis], inner: list[Axis], passes: list[_Body]) -> bool:
        """Whether a few long sums are cut in chunks, so that threads can share them."""
        few = size_bounds(product(a.extent for a in rows))[1] <= 8
        long = size_bounds(product(a.extent for a in inner))[1] > _SPLIT_ABOVE
        return few and long and not any(b.reductions or b.full for b in passes[1:])

    def _split(self, rows: list[Axis], inner: list[Axis], passes: list[_Body]) -> list[Kernel]:
        """Partial results of whole chunks; then their sum, the rest, and what uses it."""
        k, name = self.k, self._name(self.group.works)
        shape = [a.extent for a in inner]
        count = product(shape)
        chunks = floordiv(count, _CHUNK)
        chunk, offset = Axis("c", chunks), Axis("j", _CHUNK)
        tail = Axis("t", count - chunks * _CHUNK)
        position = k.add(k.mul(self._index(chunk), _CHUNK), self._index(offset))
        in_chunk = self._moved(passes[0], inner, shape, position)
        in_tail = self._moved(
            passes[0], inner, shape, k.add(k.mul(k.size(chunks), _CHUNK), self._index(tail))
        )
        partials = [
            Value(TensorType(r.target.dtype, (*(a.extent for a in rows), chunks)), "partial")
            for r in passes[0].reductions
        ]
        at = (*self.works.indices(rows), self._index(chunk))
        first = [
            Pass((offset,), tuple(in_chunk.reductions), tuple(in_chunk.full)),
            Pass(
                (),
                (),
                tuple(
                    self._store(v, at, r.target)
                    for v, r in zip(partials, in_chunk.reductions, strict=True)
                ),
            ),
        ]
        whole, rest, joined = [], [], {}
        for v, r in zip(partials, in_tail.reductions, strict=True):
            one = k.local(f"{r.target.name}_whole", r.target.dtype)
            two = k.local(f"{r.target.name}_rest", r.target.dtype)
            whole.append(Reduction(one, r.op, self.works.load(v, at, None)))
            rest.append(Reduction(two, r.op, r.value))
            joined[r.target] = k.apply(r.op, one, two)
        last = [
            Pass((chunk,), tuple(whole)),
            Pass((tail,), tuple(rest), tuple(in_tail.full)),
            *(Pass((), (), tuple(self._joined(s, joined) for s in b.row)) for b in passes),
        ]
        return [
            self._nest(f"{name}_partial", [*rows, chunk], first),
            self._nest(name, rows, last),
        ]

    def _index(self, axis: Axis) -> Expr:
        return self.k.index(axis)

    def _moved(self, body: _Body, inner: list[Axis], shape: list[Size], position: Expr) -> _Body:
        """A body with its inner axes counted by one position."""
        place = dict(zip(inner, self.k.unflatten(position, shape), strict=True))
        reductions = [
            Reduction(r.target, r.op, self.k.substitute([r.value], place)[0])
            for r in body.reductions
        ]
        full = []
        for s in body.full:
            value, *index = self.k.substitute([s.value, *s.index], place)
            full.append(Store(s.buffer, tuple(index), value))
        return _Body(reductions, full, [])

    def _joined(self, store: Store, joined: dict[Local, Expr]) -> Store:
        """A store whose sums are put together from their two parts."""
        new: dict[Expr, Expr] = {}
        for e in walk(store.value):
            if isinstance(e, Local) and e in joined:
                new[e] = joined[e]
            elif isinstance(e, Apply):
                new[e] = self.k.rebuild(e, tuple(new[x] for x in e.args))
            else:
                new[e] = e
        return Store(store.buffer, store.index, new[store.value])
