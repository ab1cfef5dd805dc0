"""Evaluates expressions of the loop IR at a scope: numbers, vectors of them, loads and stores.

A flattened index is split into `scalar + factor * lane`, so that a vector of neighbours is one
load, a constant one load and a splat, and only what is truly scattered is gathered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from fluxc.compiler.backends.llvm import memory
from fluxc.compiler.backends.llvm.scalar import LlvmScalar, number
from fluxc.compiler.backends.llvm.sizes import I64, Sizes
from fluxc.compiler.functions.reduction import combined
from fluxc.compiler.ir.dims import size_bounds
from fluxc.compiler.ir.types import bool_, f32, i64
from fluxc.compiler.kernels.kernel import Apply, Axis, Const, Extent, Index, Load, Local
from fluxc.compiler.ops import OPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llvmlite import ir

    from fluxc.compiler.backends.llvm.scope import Lanes, Scope
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.kernel import Buffer, Expr, Store

__all__ = ["Evaluator", "Position"]

Key: TypeAlias = "Axis | Local | Load"
_PLAIN = ("", "set")  # stores that do not look at what is there
_HERE = Local("(memory that this kernel writes)", bool_)


@dataclass(frozen=True, slots=True)
class Position:
    """A flattened index: `constant + sum of terms[atom] * atom`.

    An atom is an axis, or an expression that is no sum.
    """

    terms: Mapping[Axis | Expr, Size]
    constant: Size

    def plus(self, other: Position, sign: int = 1) -> Position:
        terms = dict(self.terms)
        for atom, factor in other.terms.items():
            terms[atom] = terms.get(atom, 0) + factor * sign
        return Position(
            {a: f for a, f in terms.items() if f != 0}, self.constant + other.constant * sign
        )

    def times(self, factor: Size) -> Position:
        if factor == 0:
            return Position({}, 0)
        return Position({a: f * factor for a, f in self.terms.items()}, self.constant * factor)


class Evaluator:
    """The expressions of one kernel function.

    entry:      the outermost scope; sizes are computed there.
    pointers:   the first element of each buffer.
    written:    buffers that the kernel stores to: their loads stay where they are asked for.
    vector:     the axis that may be spread over lanes.
    lane_locals: whether locals differ from lane to lane (the vector axis is a row).
    """

    def __init__(
        self,
        entry: Scope,
        pointers: Mapping[Buffer, ir.Value],
        sizes: Sizes,
        written: frozenset[Buffer],
        vector: Axis | None,
        *,
        lane_locals: bool,
    ) -> None:
        self.entry, self.b, self.pointers, self.sizes = entry, entry.b, pointers, sizes
        self.written, self.vector, self.lane_locals = written, vector, lane_locals
        self._dependencies: dict[Expr, frozenset[Key]] = {}
        self._positions: dict[Expr, Position] = {}

    # What an expression depends on, and where it is computed.

    def dependencies(self, e: Expr) -> frozenset[Key]:
        """Axes and locals; loads that must not run where nobody asks for them; `_HERE`."""
        known = self._dependencies
        if e not in known:
            for x in _unseen(e, known):
                known[x] = self._own(x).union(*(known[y] for y in _operands(x)))
        return known[e]

    def _own(self, e: Expr) -> frozenset[Key]:
        if isinstance(e, Index):
            return frozenset((e.axis,))
        if isinstance(e, Local):
            spread = self.lane_locals and self.vector is not None
            return frozenset((e, self.vector) if spread and self.vector else (e,))
        if isinstance(e, Load):
            if e.buffer in self.written:
                return frozenset((_HERE,))
            return frozenset((e,)) if e.guard is None else frozenset()
        return frozenset()

    def varies(self, scope: Scope, e: Expr) -> bool:
        """Whether lanes of a vector may hold different values of `e`."""
        return scope.lanes is not None and scope.lanes.axis in self.dependencies(e)

    def home(self, scope: Scope, e: Expr) -> Scope:
        """The outermost scope in which `e` can be computed."""
        known = scope.homes.get(e)
        if known is not None:
            return known
        deepest = self.entry
        for key in self.dependencies(e):
            place = scope.homes.get(("key", key))
            if place is None:
                place = scope.homes["key", key] = self._home_of(scope, key)
            if place.depth > deepest.depth:
                deepest = place
        scope.homes[e] = deepest
        return deepest

    def _home_of(self, scope: Scope, key: Key) -> Scope:
        if key is _HERE:
            return scope
        if not isinstance(key, Load):
            return scope.binder(key)
        needed = max((self.home(scope, i).depth for i in key.index), default=0)
        place = scope
        while place.depth > needed and place.certain and place.parent is not None:
            place = place.parent
        return place

    # Values.

    def value(self, scope: Scope, e: Expr, group: int = 0) -> LlvmScalar:
        """`e` at this scope: a vector where its lanes may differ, else one number."""
        pending = [e]
        while pending:
            x = pending[-1]
            missing = [
                y for y in _applied(x) if self._key(scope, y, group) not in self.home(scope, y).memo
            ]
            if missing:
                pending.extend(missing)
                continue
            pending.pop()
            home, key = self.home(scope, x), self._key(scope, x, group)
            if key not in home.memo:
                with home.here():
                    home.memo[key] = self._emit(home, x, group)
        return self.home(scope, e).memo[self._key(scope, e, group)]

    def _key(self, scope: Scope, e: Expr, group: int) -> Any:
        return (e, group) if self.varies(scope, e) else e

    def spread(self, scope: Scope, e: Expr, group: int = 0) -> LlvmScalar:
        """`e` as a vector even where its lanes are equal; a number where `scope` has no lanes."""
        x = self.value(scope, e, group)
        width = scope.lanes.width if scope.lanes else 1
        if x.lanes == width or isinstance(e, Const):
            return x.splat(width)
        home = self.home(scope, e)
        key = ("spread", e, width)
        if key not in home.memo:
            with home.here():
                home.memo[key] = x.splat(width)
        return home.memo[key]

    def factors(self, scope: Scope, e: Expr, group: int) -> tuple[LlvmScalar, LlvmScalar] | None:
        """What `e` is the product of, as vectors, if it is a product of floats."""
        if not (isinstance(e, Apply) and e.op == "mul" and e.dtype.is_float):
            return None
        x, y = (_widened(self.spread(scope, a, group)) for a in e.args)
        return x, y

    def _emit(self, scope: Scope, e: Expr, group: int) -> LlvmScalar:
        match e:
            case Const():
                return number(self.b, e.dtype, e.value)
            case Extent():
                return LlvmScalar(self.b, self.sizes.value(e.size), i64)
            case Index():
                return self._index(scope, e.axis, group)
            case Local():
                bound = scope.binder(e).locals[e]
                return bound[group if len(bound) > 1 else 0]
            case Load():
                return self._load(scope, e, group)
            case Apply():
                return self._apply(scope, e, group)

    def _index(self, scope: Scope, axis: Axis, group: int) -> LlvmScalar:
        first = scope.binder(axis).axes[axis]
        lanes = scope.lanes
        if lanes is None or lanes.axis is not axis:
            return LlvmScalar(self.b, first, i64)
        base = self.b.add(first, I64(group * lanes.width)) if group else first
        steps = LlvmScalar(self.b, memory.iota(lanes.width), i64)
        return LlvmScalar(self.b, base, i64).splat(lanes.width) + steps

    def _apply(self, scope: Scope, e: Apply, group: int) -> LlvmScalar:
        spread = self.varies(scope, e)
        args = []
        for a in e.args:
            x = self.spread(scope, a, group) if spread else self.value(scope, a, group)
            args.append(_stored(x, a) if e.op in ("cast", "bitcast") else _widened(x))
        if e.dtype == i64 and e.op in ("floor_div", "mod") and _nonnegative(e.args[0]):
            divide = self.b.udiv if e.op == "floor_div" else self.b.urem
            if _positive(e.args[1]):
                x, left, right = args[0].aligned(args[1])
                return x.with_value(divide(left, right))
        scalar = OPS[e.op].scalar
        assert scalar is not None, f"{e.op} has no scalar body"
        result: LlvmScalar = scalar(*args, **e.attrs)
        return result

    # Positions in memory.

    def position(self, e: Expr) -> Position:
        """`e`, an index, as a sum."""
        if e not in self._positions:
            self._positions[e] = self._sum(e)
        return self._positions[e]

    def _sum(self, e: Expr) -> Position:
        match e:
            case Index():
                return Position({e.axis: 1}, 0)
            case Const():
                return Position({}, int(e.value))
            case Extent():
                return Position({}, e.size)
            case Apply(op="add" | "sub", args=(x, y)):
                return self.position(x).plus(self.position(y), 1 if e.op == "add" else -1)
            case Apply(op="mul", args=(x, y)):
                left, right = self.position(x), self.position(y)
                if not left.terms or not right.terms:
                    return (
                        left.times(right.constant)
                        if not right.terms
                        else right.times(left.constant)
                    )
        return Position({e: 1}, 0)

    def flat(self, buffer: Buffer, index: Sequence[Expr]) -> Position:
        """The row-major position of `index` in elements of `buffer`."""
        total = Position({}, 0)
        for i, extent in zip(index, buffer.shape, strict=True):
            total = total.times(extent).plus(self.position(i))
        return total

    def address(self, scope: Scope, buffer: Buffer, at: Position) -> ir.Value:
        """The pointer to a position; parts that outer scopes know are added there."""
        terms: dict[Axis | Expr, Size] = dict(at.terms)
        constant: Size = at.constant
        homes = [(self._atom_home(scope, atom), atom, factor) for atom, factor in terms.items()]
        homes.sort(key=lambda x: x[0].depth)
        total: ir.Value | None = None
        if not isinstance(constant, int):
            with self.entry.here():
                total, constant = self.sizes.value(constant), 0
        place: Scope = self.entry
        done: list[tuple[Axis | Expr | None, Size]] = [(None, at.constant - constant)]
        for home, atom, factor in homes:
            done.append((atom, factor))
            place, key = home, ("sum", frozenset(done))
            if key not in home.memo:
                with home.here():
                    home.memo[key] = self._add(total, self._atom(home, atom), factor)
            total = home.memo[key]
        pointer = self.pointers[buffer]
        if total is not None:
            pointed = ("pointer", buffer, frozenset(done))
            if pointed not in place.memo:
                with place.here():
                    place.memo[pointed] = memory.advance(self.b, pointer, total, buffer.dtype)
            pointer = place.memo[pointed]
        return memory.advance(self.b, pointer, I64(constant), buffer.dtype) if constant else pointer

    def _atom_home(self, scope: Scope, atom: Axis | Expr) -> Scope:
        return scope.binder(atom) if isinstance(atom, Axis) else self.home(scope, atom)

    def _atom(self, scope: Scope, atom: Axis | Expr) -> ir.Value:
        return (
            scope.binder(atom).axes[atom] if isinstance(atom, Axis) else self.value(scope, atom).v
        )

    def _add(self, total: ir.Value | None, atom: ir.Value, factor: Size) -> ir.Value:
        if factor != 1:
            if isinstance(factor, int):
                by = I64(factor)
            else:
                with self.entry.here():
                    by = self.sizes.value(factor)
            atom = self.b.mul(atom, by)
        return atom if total is None else self.b.add(total, atom)

    def _lane_form(
        self, scope: Scope, buffer: Buffer, index: Sequence[Expr], group: int
    ) -> tuple[Position, Size | None]:
        """The position of lane 0 of a group, and the distance of the lanes; None: no fixed one."""
        lanes, at = scope.lanes, self.flat(buffer, index)
        if lanes is None:
            return at, 0
        if any(not isinstance(a, Axis) and self.varies(scope, a) for a in at.terms):
            return at, None
        step = at.terms.get(lanes.axis, 0)
        return at.plus(Position({}, step * (group * lanes.width))), step

    def _pointers(
        self, scope: Scope, buffer: Buffer, index: Sequence[Expr], group: int
    ) -> ir.Value:
        """A pointer for each lane."""
        assert scope.lanes is not None
        width = scope.lanes.width
        at, step = self._lane_form(scope, buffer, index, group)
        if step is not None:
            base = self.address(scope, buffer, at)
            with self.entry.here():
                by = LlvmScalar(self.b, self.sizes.value(step), i64).splat(width)
                offsets = (LlvmScalar(self.b, memory.iota(width), i64) * by).v
            return memory.pointers(self.b, base, offsets, buffer.dtype)
        fixed = {a: f for a, f in at.terms.items() if not self._lane_atom(scope, a)}
        base = self.address(scope, buffer, Position(fixed, at.constant))
        offsets = None
        for atom, factor in at.terms.items():
            if atom in fixed:
                continue
            x = (
                self._index(scope, atom, group)
                if isinstance(atom, Axis)
                else self.value(scope, atom, group)
            )
            with self.entry.here():
                by = LlvmScalar(self.b, self.sizes.value(factor), i64)
            part = x if factor == 1 else x * by
            offsets = part if offsets is None else offsets + part
        assert offsets is not None, "some atom varies"
        return memory.pointers(self.b, base, offsets.v, buffer.dtype)

    def _lane_atom(self, scope: Scope, atom: Axis | Expr) -> bool:
        if isinstance(atom, Axis):
            return scope.lanes is not None and scope.lanes.axis is atom
        return self.varies(scope, atom)

    # Loads and stores.

    def _guard(
        self, scope: Scope, guard: Expr | None, group: int
    ) -> tuple[ir.Value | None, ir.Value | None]:
        """A condition for all lanes, and one for each."""
        if guard is None:
            return None, None
        value = self.value(scope, guard, group).v
        return (None, value) if self.varies(scope, guard) else (value, None)

    def mask(self, lanes: Lanes, group: int, wanted: ir.Value | None = None) -> ir.Value | None:
        """The lanes that exist and are wanted."""
        exist = lanes.masks[group]
        if exist is None or wanted is None:
            return wanted if exist is None else exist
        return self.b.and_(exist, wanted)

    def _load(self, scope: Scope, e: Load, group: int) -> LlvmScalar:
        b, buffer, lanes = self.b, e.buffer, scope.lanes
        whole, wanted = self._guard(scope, e.guard, group)
        varies = self.varies(scope, e)
        at = self.flat(buffer, e.index)
        step: Size | None = 0
        if varies:
            at, step = self._lane_form(scope, buffer, e.index, group)

        def guarded(pointer: ir.Value) -> ir.Value:
            return pointer if whole is None else b.select(whole, pointer, memory.nowhere(b))

        if lanes is None or not varies:
            return memory.load(b, guarded(self.address(scope, buffer, at)), buffer.dtype)
        if step == 0 and wanted is None:
            x = memory.load(b, guarded(self.address(scope, buffer, at)), buffer.dtype)
            return x.splat(lanes.width)
        mask = self.mask(lanes, group, wanted)
        if step == 1:
            return memory.load(
                b, guarded(self.address(scope, buffer, at)), buffer.dtype, lanes.width, mask
            )
        if step == -1:
            last = self.address(scope, buffer, at.plus(Position({}, 1 - lanes.width)))
            turned = None if mask is None else memory.reverse(b, mask)
            x = memory.load(b, guarded(last), buffer.dtype, lanes.width, turned)
            return x.with_value(memory.reverse(b, x.v))
        if whole is not None:
            every = LlvmScalar(b, whole, bool_).splat(lanes.width).v
            mask = every if mask is None else b.and_(mask, every)
        return memory.gather(b, self._pointers(scope, buffer, e.index, group), buffer.dtype, mask)

    def store_all(self, scope: Scope, stores: Sequence[Store], groups: int) -> None:
        """What the stores of a point read is read before any of them writes."""
        for s in stores:
            for g in range(groups):
                self.value(scope, s.value, g)
                if s.guard is not None:
                    self.value(scope, s.guard, g)
                for atom in self.flat(s.buffer, s.index).terms:
                    if not isinstance(atom, Axis):
                        self.value(scope, atom, g)
        for s in stores:
            for g in range(groups):
                self._store(scope, s, g)

    def _store(self, scope: Scope, s: Store, group: int) -> None:
        whole, wanted = self._guard(scope, s.guard, group)

        def body(_: Scope, carried: list[ir.Value]) -> list[ir.Value]:
            if scope.lanes is None:  # in `scope`: what was read before stays as it was read
                self._store_one(scope, s)
            else:
                self._store_lanes(scope, s, group, wanted)
            return carried

        if whole is None:
            body(scope, [])
        else:
            scope.when(whole, [], body, "stored")

    def _store_one(self, scope: Scope, s: Store) -> None:
        pointer = self.address(scope, s.buffer, self.flat(s.buffer, s.index))
        x = self.value(scope, s.value)
        if s.accumulate not in _PLAIN:
            x = _onto(s.accumulate, memory.load(self.b, pointer, s.buffer.dtype), x)
        memory.store(x.cast(s.buffer.dtype), pointer)

    def _store_lanes(self, scope: Scope, s: Store, group: int, wanted: ir.Value | None) -> None:
        b, buffer, lanes = self.b, s.buffer, scope.lanes
        assert lanes is not None
        mask = self.mask(lanes, group, wanted)
        at, step = self._lane_form(scope, buffer, s.index, group)
        x = self.spread(scope, s.value, group)
        if step in (1, -1):
            if step == -1:
                at = at.plus(Position({}, 1 - lanes.width))
                x = x.with_value(memory.reverse(b, x.v))
                mask = None if mask is None else memory.reverse(b, mask)
            pointer = self.address(scope, buffer, at)
            if s.accumulate not in _PLAIN:
                old = memory.load(b, pointer, buffer.dtype, lanes.width, mask)
                x = _onto(s.accumulate, old, x)
            memory.store(x.cast(buffer.dtype), pointer, mask)
            return
        pointers = self._pointers(scope, buffer, s.index, group)
        if s.accumulate not in _PLAIN:
            self._accumulate_lanes(scope, x, pointers, s, mask)
        else:
            memory.scatter(x.cast(buffer.dtype), pointers, mask)

    def _accumulate_lanes(
        self, scope: Scope, x: LlvmScalar, pointers: ir.Value, s: Store, mask: ir.Value | None
    ) -> None:
        """One lane after another: two of them may add to one element."""
        b, dtype = self.b, s.buffer.dtype
        for lane in range(x.lanes):
            at = b.extract_element(pointers, I64(lane))
            part = x.with_value(b.extract_element(x.v, I64(lane)))

            def add(
                _: Scope, none: list[ir.Value], at: ir.Value = at, part: LlvmScalar = part
            ) -> list[ir.Value]:
                total = _onto(s.accumulate, memory.load(b, at, dtype), part)
                memory.store(total.cast(dtype), at)
                return none

            wanted = None if mask is None else b.extract_element(mask, I64(lane))
            scope.when(wanted, [], add, "added")


def _operands(e: Expr) -> tuple[Expr, ...]:
    if isinstance(e, Apply):
        return e.args
    if isinstance(e, Load):
        return e.index if e.guard is None else (*e.index, e.guard)
    return ()


def _applied(e: Expr) -> tuple[Expr, ...]:
    return e.args if isinstance(e, Apply) else ()


def _unseen(e: Expr, known: Mapping[Expr, object]) -> list[Expr]:
    """What is below `e` and not known, each after its operands."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack = [(e, False)]
    while stack:
        x, ready = stack.pop()
        if ready:
            order.append(x)
        elif x not in seen and x not in known:
            seen.add(x)
            stack.append((x, True))
            stack.extend((y, False) for y in _operands(x))
    return order


def _widened(x: LlvmScalar) -> LlvmScalar:
    """16-bit floats are storage formats: they are computed with in f32."""
    return x.cast(f32) if x.dtype.is_float and x.dtype.bits == 16 else x


def _stored(x: LlvmScalar, e: Expr) -> LlvmScalar:
    """The value in the dtype that the expression names: what a conversion starts from."""
    return x if x.dtype == e.dtype else x.cast(e.dtype)


def _onto(op: str, old: LlvmScalar, x: LlvmScalar) -> LlvmScalar:
    """What is in memory combined with `x`: 16-bit floats in f32."""
    wide = f32 if old.dtype.is_float and old.dtype.bits == 16 else old.dtype
    left, right = old.cast(wide), x.cast(wide)
    if wide.kind == "b" and op == "add":
        return left | right
    return combined(op, left, right)


def _nonnegative(e: Expr) -> bool:
    match e:
        case Index():
            return True
        case Const():
            return e.value >= 0
        case Extent():
            return size_bounds(e.size)[0] >= 0
        case Apply(op="add" | "mul" | "floor_div" | "mod" | "minimum", args=(x, y)):
            return _nonnegative(x) and _nonnegative(y)
        case Apply(op="maximum", args=(x, y)):
            return _nonnegative(x) or _nonnegative(y)
    return False


def _positive(e: Expr) -> bool:
    return (isinstance(e, Const) and e.value > 0) or (
        isinstance(e, Extent) and size_bounds(e.size)[0] > 0
    )
