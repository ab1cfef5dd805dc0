"""Groups: which works share one kernel.

Works join in the order of the graph.  A work joins the group of a value that it reads if it reads
that value at the very point where the group computes it, which the indices of both decide; and
groups that a work reads at its own point merge around it.  No join may make a cycle.

A group has a domain of axes.  Until a reduction joins, all of them are rows and every value is
computed at every point.  A reduction splits the axes into rows and inner ones; from then on values
live either at every point or once a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import is_at_least, product, size_bounds
from fluxc.compiler.kernels.kernel import Apply, Index, Load, walk
from fluxc.compiler.kernels.order import Order
from fluxc.compiler.kernels.work import Read
from fluxc.compiler.ops import OPS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Value
    from fluxc.compiler.kernels.inline import Place
    from fluxc.compiler.kernels.kernel import Axis, Expr, Expressions
    from fluxc.compiler.kernels.work import Work, Works

__all__ = ["Fuser", "Group", "axes_of"]

_SERIAL_LIMIT = 1 << 15  # points that one thread may visit again and again without loss
_TRANSCENDENTAL = {
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos",
    "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "cbrt", "erf", "pow", "atan2",
    "random_bits",
}  # fmt: skip
_SLOW = _TRANSCENDENTAL | {"div", "sqrt", "rsqrt", "floor_div", "mod", "fmod"}


@dataclass(slots=True, eq=False)
class Group:
    """id:     in the Order.
    kind:   nest, or contract, scatter, running, sort, pack, control: that of the work that it
            began with.
    axes:   its domain.
    rows:   the axes outside of its reductions; None while it has none.
    works:  what it computes.
    """

    id: int
    kind: str
    prepared: bool
    axes: tuple[Axis, ...]
    rows: frozenset[Axis] | None = None
    works: list[Work] = field(default_factory=list)

    @property
    def full(self) -> frozenset[Axis]:
        return frozenset(a for a in self.axes if a.extent != 1)

    def at_rows(self, work: Work) -> bool:
        """Whether a work's value exists once a row."""
        return self.rows is not None and axes_of(work.coords) <= self.rows


def axes_of(index: Iterable[Expr]) -> frozenset[Axis]:
    """The axes that some expressions depend on."""
    return frozenset(e.axis for e in walk(*index) if isinstance(e, Index))


def _points(axes: Iterable[Axis]) -> tuple[int, Size]:
    """How many axes have no point, and the points of the others: 2 axes of 0 are not 5 of 0."""
    extents = [a.extent for a in axes]
    return extents.count(0), product(e for e in extents if e != 0)


def _one_to_one(k: Expressions, place: dict[Axis, Expr], over: Iterable[Axis]) -> bool:
    """Whether `place` takes its axes through each of their points once over the axes `over`."""
    if _points(place) != _points(over):
        return False
    odd = {"minimum", "maximum", "select"}
    if any(
        isinstance(e, Load) or (isinstance(e, Apply) and e.op in odd) for e in walk(*place.values())
    ):
        return False
    return all(_lies_within(k, e, axis.extent) for axis, e in place.items())


def _lies_within(k: Expressions, e: Expr, extent: Size) -> bool:
    """Whether 0 <= e < extent: a read of a part, or beyond one under a guard, runs elsewhere."""
    low, high = k.bounds(e)
    if low is None or high is None:
        return False
    return is_at_least(low, 0) and is_at_least(extent - 1, high)


class Fuser:
    """Makes the groups of all works."""

    def __init__(self, works: Works) -> None:
        self.works, self.k = works, works.k
        self.order = Order()
        self.groups: list[Group] = []
        self.inlined: set[Value] = set()
        self.early: dict[Value, list[Work]] = {}
        for work in works.all():
            self._add(work)
        self._merge_scalars()
        self.readers = self._readers()
        self._sink()
        self.stored = {v for v in works.of if self.is_stored(v)}

    # Joining.

    def _add(self, work: Work) -> None:
        near = self._groups_read(work)
        awaited = self._groups_awaited(work)
        home = self._join(work, near, awaited) if work.kind in {"point", "reduce"} else None
        if home is None:
            home = self._found(work)
        work.group = home
        home.works.append(work)
        for r in work.reads:
            self.early.setdefault(r.value, []).append(work)
        for other in (*near, *awaited):
            if other is not home:
                self.order.depend(home.id, other.id)
        for other in near:
            if other is not home and home.kind != "scatter" and other.works:
                self._absorb(home, other, work)

    def _groups_read(self, work: Work) -> list[Group]:
        """The groups of what a work reads, the most binding and the latest first."""
        found: dict[Group, None] = {}
        for r in work.reads:
            maker = self.works.of.get(r.value)
            if maker is not None and maker.group is not None and self._may_share(work, maker):
                found[maker.group] = None
        rank = {"contract": 2, "nest": 0}
        return sorted(
            found,
            key=lambda g: (rank.get(g.kind, -1) + (g.rows is not None), g.id),
            reverse=True,
        )

    def _groups_awaited(self, work: Work) -> list[Group]:
        """The groups that a work must run after, though it may read nothing of them."""
        apart = (w for r in work.reads if (w := self.works.of.get(r.value)) is not None)
        makers = [self.works.of[v] for v in work.waits]
        makers += [w for w in apart if not self._may_share(work, w)]
        groups = (w.group for w in makers)
        return list(dict.fromkeys(g for g in groups if g is not None))

    def _may_share(self, work: Work, other: Work) -> bool:
        """Whether one kernel may compute both: what is computed again keeps apart."""
        copies = self.works.again.copies
        return (work.value in copies) == (other.value in copies)

    def _found(self, work: Work) -> Group:
        """A new group around a work."""
        kind = "nest" if work.kind in {"point", "reduce"} else work.kind
        axes = work.axes
        rows = None
        if work.kind == "contract":
            assert work.product is not None
            axes = (*work.product.batch, work.product.m, work.product.n)
        elif work.kind == "reduce":
            rows = axes_of(work.out)
        group = Group(self.order.new(), kind, work.prepared, axes, rows)
        self.groups.append(group)
        work.place = {a: self.k.index(a) for a in work.axes}
        work.coords = work.out
        return group

    def _join(self, work: Work, near: list[Group], awaited: list[Group]) -> Group | None:
        for group in near:
            if group.prepared != work.prepared or group.kind not in {"nest", "contract"}:
                continue
            earlier = [g.id for g in (*near, *awaited) if g is not group]
            if not self.order.can_depend(group.id, earlier):
                continue
            place = self._place(work, group)
            if place is not None and self._fits(work, group, place):
                work.place = place
                work.coords = self.k.substitute(work.out, place)
                return group
        return None

    def _place(self, work: Work, group: Group) -> dict[Axis, Expr] | None:
        """The work's own axes over the group's: it reads the group's values where they are."""
        place: dict[Axis, Expr] = {a: self.k.size(0) for a in work.axes if a.extent == 1}
        through = self.works.through.get(work, set())
        for r in work.reads:
            maker = self.works.of.get(r.value)
            if maker is None or maker.group is not group or r.value in through:
                continue
            if not self._solve(r, maker.coords, place) and not self._solve_flat(
                r, maker.coords, work, place
            ):
                return None
        return self._complete(work, group, place)

    def _solve(self, read: Read, coords: Place, place: dict[Axis, Expr]) -> bool:
        """Extend `place` so that the read's index becomes `coords`."""
        trial = dict(place)
        for pattern, target, size in zip(read.index, coords, read.value.type.shape, strict=True):
            if not self._solve_one(pattern, target, size, trial):
                return False
        if any(
            x is not y for x, y in zip(self.k.substitute(read.index, trial), coords, strict=True)
        ):
            return False
        place.update(trial)
        return True

    def _solve_one(self, pattern: Expr, target: Expr, size: Size, place: dict[Axis, Expr]) -> bool:
        """A pattern that counts through all of `size`: axes in mixed radix."""
        form = self.k.linear(pattern)
        if not form.affine or form.constant != 0:
            return False
        rest = {a.axis: f for a, f in form.terms.items() if isinstance(a, Index)}
        stride: Size = 1
        while rest:
            axis = next((a for a, f in rest.items() if f == stride), None)
            if axis is None:
                return False
            del rest[axis]
            here = self.k.floordiv(target, stride)
            if rest:
                here = self.k.mod(here, axis.extent)
            if place.setdefault(axis, here) is not here:
                return False
            stride = stride * axis.extent
        return stride == size

    def _solve_flat(self, read: Read, coords: Place, work: Work, place: dict[Axis, Expr]) -> bool:
        """A reshape: the same position in row-major order."""
        if work.kind != "point":
            return False
        k, shape, own = self.k, read.value.type.shape, work.value.type.shape
        if product(shape) != product(own):
            return False
        if k.flatten(read.index, shape) is not k.flatten(work.out, own):
            return False
        index = k.unflatten(k.flatten(coords, shape), own)
        trial = place | dict(zip(work.axes, index, strict=True))
        if any(trial[axis] is not e for axis, e in place.items()):
            return False
        # With named sizes the way there and back need not simplify.
        back = k.substitute(read.index, trial)
        if any(x is not y for x, y in zip(back, coords, strict=True)):
            return False
        place.update(trial)
        return True

    def _complete(
        self, work: Work, group: Group, place: dict[Axis, Expr]
    ) -> dict[Axis, Expr] | None:
        """Give axes that no read decides to the group's remaining ones of equal extent."""
        missing = [a for a in work.axes if a not in place]
        used = axes_of(place.values())
        left = [a for a in group.axes if a.extent != 1 and a not in used]
        for axis in missing:
            match = next((a for a in left if a.extent == axis.extent), None)
            if match is None:
                return None
            left.remove(match)
            place[axis] = self.k.index(match)
        return place

    def _fits(self, work: Work, group: Group, place: dict[Axis, Expr]) -> bool:
        out = self.k.substitute(work.out, place)
        covered = axes_of(out)
        if _points(work.axes) != _points(axes_of(place.values())):
            return False  # two of the work's axes would run as one
        if work.kind == "reduce":
            own = set(work.axes) - axes_of(work.out)
            inner = axes_of(place[a] for a in own)
            if group.kind != "nest" or covered & inner or covered | inner != group.full:
                return False
            if group.rows is None:
                group.rows = covered
            return group.rows == covered and (not self._waits(work) or self._parallel(group))
        if group.kind == "contract" or group.rows is None:
            return covered == group.full and not self._scatters(work, group, place)
        if covered == group.rows:
            return True
        return covered == group.full and (not self._waits(work) or self._parallel(group))

    def _scatters(self, work: Work, group: Group, place: dict[Axis, Expr]) -> bool:
        """Whether an epilogue would gather or scatter what lies side by side along another axis.

        So it is with a gradient whose columns are outputs and an optimiser's state beside it.
        """
        columns = next((w.product.n for w in group.works if w.product is not None), None)
        if columns is None:
            return False
        touched = [Read(work.value, work.out)]
        for r in work.reads:
            maker = self.works.of.get(r.value)
            if maker is None or maker.group not in {group, work.group}:
                touched.append(r)
        for r in touched:
            position = self.k.flatten(self.k.substitute(r.index, place), r.value.type.shape)
            if r.value.type.rank > 1 and self.k.linear(position).stride(columns) not in {0, 1}:
                return True
        return False

    def _waits(self, work: Work) -> bool:
        """Whether a work reads values that exist once a row: it needs another pass."""
        makers = (self.works.of.get(r.value) for r in work.reads)
        return any(w is not None and w.group is not None and w.group.at_rows(w) for w in makers)

    def _parallel(self, group: Group) -> bool:
        """Whether visiting every row several times is cheap, or rows are many."""
        assert group.rows is not None
        rows = product(a.extent for a in group.rows)
        return (
            size_bounds(rows)[1] >= 8
            or size_bounds(product(a.extent for a in group.axes))[1] <= _SERIAL_LIMIT
        )

    # Merging.

    def _absorb(self, home: Group, other: Group, work: Work) -> None:
        """Merge `other` into `home` where `work` reads it at the point where both compute."""
        if home.prepared != other.prepared or other.kind != "nest":
            return
        if home.kind not in {"nest", "contract"} or not self.order.can_merge(home.id, other.id):
            return
        through = self.works.through.get(work, set())
        place: dict[Axis, Expr] = {a: self.k.size(0) for a in other.axes if a.extent == 1}
        for r in work.reads:
            maker = self.works.of.get(r.value)
            if maker is None or maker.group is not other or r.value in through:
                continue
            if not self._solve(
                Read(r.value, maker.coords), self.k.substitute(r.index, work.place), place
            ):
                return
        fits = self._complete_group(home, other, place) and self._agrees(home, other, place)
        if fits and not self._scatter(home, other, place):
            merged = other.works
            self._merge(home, other, place)
            for w in merged:
                for further in self._groups_read(w):
                    if further is not home and further.works:
                        self._absorb(home, further, w)

    def _scatter(self, home: Group, other: Group, place: dict[Axis, Expr]) -> bool:
        """Whether works of `other` would gather or scatter in the epilogue of `home`."""
        moved = (
            (w, dict(zip(w.place, self.k.substitute(list(w.place.values()), place), strict=True)))
            for w in other.works
        )
        return any(self._scatters(w, home, at) for w, at in moved)

    def _agrees(self, home: Group, other: Group, place: dict[Axis, Expr]) -> bool:
        """Whether all that `home` reads of `other` is read where it would be computed."""
        for maker in other.works:
            coords = self.k.substitute(maker.coords, place)
            for w in self.early.get(maker.value, ()):
                if w.group is home and maker.value not in self.works.through.get(w, set()):
                    if w.kind == "contract":
                        return False  # an operand is read before the epilogue runs
                    for r in w.reads:
                        if r.value is not maker.value:
                            continue
                        index = self.k.substitute(r.index, w.place)
                        if any(x is not y for x, y in zip(index, coords, strict=True)):
                            return False
        return True

    def _complete_group(self, home: Group, other: Group, place: dict[Axis, Expr]) -> bool:
        missing = [a for a in other.axes if a not in place]
        used = axes_of(place.values())
        left = [a for a in home.axes if a.extent != 1 and a not in used]
        for axis in missing:
            match = next((a for a in left if a.extent == axis.extent), None)
            if match is None or other.rows is None:
                return False
            left.remove(match)
            place[axis] = self.k.index(match)
        covered = axes_of(place.values())
        if not _one_to_one(self.k, place, covered):
            return False
        if other.rows is None:
            return covered == home.full or (home.kind == "nest" and covered == home.rows)
        # Where a reshape makes several rows of one of `other`, its sums would be of parts.
        rows = axes_of(place[a] for a in other.rows)
        whole = _points(rows) == _points(other.rows)
        if home.kind != "nest" or covered != home.full or not whole:
            return False
        if home.rows is None:
            # The point that reads both is at every point: a pass after the reductions of `other`.
            if rows != home.full and not self._parallel(other):
                return False
            home.rows = rows
        return home.rows == rows

    def _merge(self, home: Group, other: Group, place: dict[Axis, Expr]) -> None:
        for w in other.works:
            w.coords = self.k.substitute(w.coords, place)
            values = self.k.substitute(list(w.place.values()), place)
            w.place = dict(zip(w.place, values, strict=True))
            w.group = home
        home.works = sorted([*home.works, *other.works], key=lambda w: w.order)
        other.works = []
        self.groups.remove(other)
        self.order.merge(home.id, other.id)

    def _merge_scalars(self) -> None:
        """Single numbers share kernels, whatever they are: a launch costs more than they do."""
        homes: list[Group] = []
        for group in [g for g in self.groups if g.kind == "nest" and not g.full]:
            for home in homes:
                if home.prepared == group.prepared and self.order.can_merge(home.id, group.id):
                    place = {a: self.k.size(0) for a in group.axes}
                    if home.rows is not None or group.rows is not None:
                        home.rows = frozenset()
                    self._merge(home, group, place)
                    break
            else:
                homes.append(group)

    # What is stored, and what is computed again instead.

    def _readers(self) -> dict[Value, list[Work]]:
        found: dict[Value, list[Work]] = {v: [] for v in self.works.of}
        for w in self.works.all():
            for v in {r.value for r in w.reads}:
                if v in found and v not in self.works.through.get(w, set()):
                    found[v].append(w)
        return found

    def is_stored(self, value: Value, but: Value | None = None) -> bool:
        """Whether a value must lie in memory; `but`: were it not for this one reader."""
        if value in self.works.results or value in self.works.again.stored:
            return True
        if self.works.of[value].kind == "control":
            return True
        group = self.works.of[value].group
        return any(
            w.group is not group or w.kind in {"contract", "scatter"}
            for w in self._live_readers(value)
            if w.value is not but
        )

    def _live_readers(self, value: Value) -> list[Work]:
        return self.readers.get(value, [])

    def _sink(self) -> None:
        """Move values that are computed here only to be read there, and repeat the trivial ones."""
        for work in sorted(self.works.of.values(), key=lambda w: -w.order):
            if work.kind == "point" and self._may_sink(work):
                self.inlined.add(work.value)
                self._hand_on(work)

    def _may_sink(self, work: Work) -> bool:
        value, group = work.value, work.group
        readers = self.readers[value]
        outside = [w for w in readers if w.group is not group]
        works, again = self.works, self.works.again
        fixed = (works.results, works.once, again.stored, again.copies)
        if not outside or any(value in values for values in fixed):
            return False
        if OPS[work.node.op].scalar is None:
            return False
        if any(w.kind in {"contract", "scatter", "pack", "control"} for w in readers):
            return False
        if any(w.prepared != work.prepared or self._repeats(value, w) for w in outside):
            return False
        homes = {w.group for w in outside}
        once = len(homes) == 1 and len(outside) == len(readers)
        sources = {r.value for r in work.reads if r.value.type.size != 1}
        if (not once and work.node.op in _SLOW) or len(sources) > (2 if len(homes) == 1 else 1):
            return False
        return all(self._lies_in_memory(r.value, value) for r in work.reads)

    def _repeats(self, value: Value, reader: Work) -> bool:
        """Whether a reader would compute the value more than once for an element."""
        indices = {r.index for r in reader.reads if r.value is value}
        several_passes = reader.group is not None and reader.group.rows is not None
        slow = self.works.producers[value].op in _TRANSCENDENTAL
        wider = size_bounds(reader.value.type.size - value.type.size * 2)[1] >= 0
        return (
            len(indices) > 1
            or (several_passes and slow)
            or (wider and reader.kind == "point" and reader.value.type.size != value.type.size)
        )

    def _lies_in_memory(self, value: Value, but: Value) -> bool:
        return value not in self.works.of or self.is_stored(value, but)

    def _hand_on(self, work: Work) -> None:
        """The readers outside read what `work` reads; inside it stays an inlined expression."""
        for w in self.readers[work.value]:
            w.reads = self._replaced(w, work)
            for v in {r.value for r in work.reads}:
                if v in self.readers and w not in self.readers[v]:
                    self.readers[v].append(w)
            self._run_after_sources(w, work)
        for r in work.reads:
            if r.value in self.readers and work in self.readers[r.value]:
                self.readers[r.value].remove(work)
        self.readers[work.value] = []

    def _replaced(self, reader: Work, work: Work) -> list[Read]:
        """What `reader` reads when it computes `work` for itself."""
        new: dict[Read, None] = {}
        for r in reader.reads:
            if r.value is not work.value:
                new[r] = None
                continue
            at = dict(zip(work.axes, r.index, strict=True))
            for source in work.reads:
                new[Read(source.value, self.k.substitute(source.index, at))] = None
        return list(new)

    def _run_after_sources(self, reader: Work, work: Work) -> None:
        for r in work.reads:
            maker = self.works.of.get(r.value)
            if maker is None or maker.group is None or reader.group is None:
                continue
            if maker.group is not reader.group:
                self.order.depend(reader.group.id, maker.group.id)
