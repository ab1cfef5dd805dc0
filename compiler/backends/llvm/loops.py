"""Loop nests as LLVM functions.

The parallel space of a nest is the product of its rows, or of its rows with the last one cut into
blocks of `width * unroll` where that is the vector axis.  A function visits the points lo..hi - 1:
it divides once to find the first of them and counts from there.

The vector axis, a row or the last axis of passes, is visited by a main loop over whole blocks and a
tail whose vectors are masked.  Sums keep `unroll` vectors and meet at the end of the pass, in an
order that depends on the schedule alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir

from fluxc.compiler.backends.llvm import memory
from fluxc.compiler.backends.llvm.expression import Evaluator
from fluxc.compiler.backends.llvm.scalar import LlvmScalar, number
from fluxc.compiler.backends.llvm.scope import Lanes, Scope
from fluxc.compiler.backends.llvm.sizes import I64, Sizes
from fluxc.compiler.backends.llvm.values import poison
from fluxc.compiler.functions.reduction import combined, identity_of
from fluxc.compiler.ir.dims import ceildiv, is_at_least, is_multiple_of, product
from fluxc.compiler.ir.types import f32
from fluxc.compiler.kernels.kernel import kernel_stores, kernel_symbols

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.kernels.kernel import Axis, Kernel, Nest, Pass, Reduction
    from fluxc.compiler.kernels.schedule import NestSchedule, Target

__all__ = ["KERNEL_TYPE", "emit_nest", "open_kernel", "parallel_count"]

_POINTER = ir.PointerType()
KERNEL_TYPE = ir.FunctionType(ir.VoidType(), [_POINTER, _POINTER, I64, I64])
Carried: TypeAlias = "list[ir.Value]"


def parallel_count(nest: Nest, schedule: NestSchedule) -> Size:
    """The number of points of the parallel space."""
    if nest.rows and schedule.vector is nest.rows[-1]:
        blocks = ceildiv(nest.rows[-1].extent, schedule.width * schedule.unroll)
        return product([a.extent for a in nest.rows[:-1]]) * blocks
    return product(a.extent for a in nest.rows)


def emit_nest(
    module: ir.Module, name: str, nest: Nest, schedule: NestSchedule, target: Target
) -> ir.Function:
    """Defines `void name(ptr* buffers, i64* sizes, i64 lo, i64 hi)`: points lo <= p < hi."""
    del target  # the masked intrinsics that it lacks become branches in code generation
    function = ir.Function(module, KERNEL_TYPE, name)
    function.attributes.add("nounwind")
    scope, evaluator = open_kernel(function, nest, schedule.vector, rows=nest.rows)
    _Emitter(nest, schedule, evaluator).space(scope, function.args[2], function.args[3])
    scope.b.ret_void()
    return function


def open_kernel(
    function: ir.Function, kernel: Kernel, vector: Axis | None, *, rows: tuple[Axis, ...] = ()
) -> tuple[Scope, Evaluator]:
    """The entry block of a kernel's function: its arrays and sizes, and what evaluates there."""
    b = ir.IRBuilder(function.append_basic_block("entry"))
    buffers, sizes = function.args[:2]
    buffers.name, sizes.name = "buffers", "sizes"
    function.args[2].name, function.args[3].name = "lo", "hi"
    slots = [
        (x, b.gep(buffers, [I64(i)], source_etype=_POINTER)) for i, x in enumerate(kernel.buffers)
    ]
    pointers = {x: b.load(slot, name=f"p_{x.name}", typ=_POINTER) for x, slot in slots}
    symbols = {
        s.name: b.load(b.gep(sizes, [I64(i)], source_etype=I64), name=s.name, typ=I64)
        for i, s in enumerate(kernel_symbols(kernel))
    }
    entry = Scope(b)
    written = frozenset(s.buffer for s in kernel_stores(kernel))
    evaluator = Evaluator(
        entry, pointers, Sizes(b, symbols), written, vector, lane_locals=vector in rows
    )
    return entry, evaluator


@dataclass(frozen=True, slots=True)
class _Emitter:
    nest: Nest
    schedule: NestSchedule
    evaluator: Evaluator

    @property
    def b(self) -> ir.IRBuilder:
        return self.evaluator.b

    @property
    def block(self) -> int:
        return self.schedule.width * self.schedule.unroll

    def size(self, size: Size) -> ir.Value:
        with self.evaluator.entry.here():
            return self.evaluator.sizes.value(size)

    # The parallel space.

    def space(self, entry: Scope, lo: ir.Value, hi: ir.Value) -> None:
        rows = self.nest.rows
        if not rows:
            self.row(entry)
            return

        def points(scope: Scope, none: Carried) -> Carried:
            if len(rows) == 1:
                self.last_row(scope, lo, hi)
            else:
                self.runs(scope, lo, hi)
            return none

        entry.when(self.b.icmp_signed("<", lo, hi), [], points, "points")

    def last_extent(self) -> Size:
        last = self.nest.rows[-1]
        return ceildiv(last.extent, self.block) if self.schedule.vector is last else last.extent

    def runs(self, scope: Scope, lo: ir.Value, hi: ir.Value) -> None:
        """Points lo..hi as runs along the last row, the other rows counting like an odometer."""
        b, outer = self.b, self.nest.rows[:-1]
        extents = [self.size(a.extent) for a in outer]
        inner = self.size(self.last_extent())
        rest, first = b.udiv(lo, inner), b.urem(lo, inner)
        digits: Carried = []
        for extent in reversed(extents[1:]):
            digits.insert(0, b.urem(rest, extent))
            rest = b.udiv(rest, extent)
        digits.insert(0, rest)

        def run(scope: Scope, point: ir.Value, carried: Carried) -> Carried:
            begin, *at = carried
            for axis, position in zip(outer, at, strict=True):
                scope.axes[axis] = position
            left, room = b.sub(hi, point), b.sub(inner, begin)
            count = b.select(b.icmp_signed("<", left, room), left, room)
            self.last_row(scope, begin, b.add(begin, count))
            return [b.add(point, count), I64(0), *self.next_digits(at, extents)]

        scope.loop_by(lo, hi, [first, *digits], run, "run")

    def next_digits(self, at: Carried, extents: Carried) -> Carried:
        b, carry = self.b, I64(1)
        new: Carried = []
        for position, extent in zip(reversed(at), reversed(extents), strict=True):
            step = b.add(position, carry)
            full = b.icmp_signed("==", step, extent)
            new.insert(0, b.select(full, I64(0), step))
            carry = b.zext(full, I64)
        return new

    def last_row(self, scope: Scope, first: ir.Value, stop: ir.Value) -> None:
        """The points first..stop - 1 of the last row, at least one."""
        axis = self.nest.rows[-1]
        if self.schedule.vector is not axis:

            def point(inner: Scope, i: ir.Value, none: Carried) -> Carried:
                inner.axes[axis] = i
                self.row(inner)
                return none

            scope.loop(first, stop, 1, [], point, axis.name)
            return
        b, extent = self.b, self.size(axis.extent)
        start, stop = b.mul(first, I64(self.block)), b.mul(stop, I64(self.block))
        if not is_multiple_of(axis.extent, self.block):
            stop = b.select(b.icmp_signed("<", stop, extent), stop, extent)

        def lanes(inner: Scope, none: Carried) -> Carried:
            self.row(inner)
            return none

        self.vectors(scope, axis, start, stop, [], lanes)

    # One row, or the rows of one block of vectors.

    def row(self, scope: Scope) -> None:
        for p in self.nest.passes:
            results = self.visit(scope, p)
            for reduction, values in zip(p.reductions, results, strict=True):
                scope.locals[reduction.target] = values

    def visit(self, scope: Scope, p: Pass) -> list[tuple[LlvmScalar, ...]]:
        """One pass; the results of its reductions, a value per group of lanes."""
        spread = bool(p.axes) and self.schedule.vector is p.axes[-1]
        width = self.schedule.width if spread else scope.lanes.width if scope.lanes else 1
        groups = self.schedule.unroll if spread else scope.lanes.groups if scope.lanes else 1
        start: Carried = []
        for r in p.reductions:
            identity = number(
                self.b, compute_dtype(r.target.dtype), identity_of(r.op, r.target.dtype), width
            )
            start += [identity.v] * groups
        for c in p.carries:
            assert not spread, "points that hand on cannot be lanes of one vector"
            dtype = compute_dtype(c.target.dtype)
            start += [self.evaluator.spread(scope, c.start, g).cast(dtype).v for g in range(groups)]
        end = self.axes(scope, p, p.axes, start)
        results = []
        for i, r in enumerate(p.reductions):
            dtype = compute_dtype(r.target.dtype)
            values = [LlvmScalar(self.b, v, dtype) for v in end[i * groups : (i + 1) * groups]]
            if spread and isinstance(p.axes[-1].extent, int):  # the others hold the identity still
                values = values[: max(1, -(-p.axes[-1].extent // width))]
            results.append((_together(r.op, values),) if spread else tuple(values))
        return results

    def axes(self, scope: Scope, p: Pass, axes: Sequence[Axis], carried: Carried) -> Carried:
        if not axes:
            inner = scope.child()
            return self.point(inner, p, carried)
        axis, deeper = axes[0], axes[1:]
        extent = self.size(axis.extent)

        def nonempty(scope: Scope, carried: Carried) -> Carried:
            if not deeper and self.schedule.vector is axis:
                return self.vectors(
                    scope, axis, I64(0), extent, carried, lambda s, c: self.point(s, p, c)
                )

            def body(inner: Scope, i: ir.Value, carried: Carried) -> Carried:
                inner.axes[axis] = i
                return self.axes(inner, p, deeper, carried)

            return scope.loop(I64(0), extent, 1, carried, body, axis.name)

        if axis.extent == 0:
            return carried
        sure = is_at_least(axis.extent, 1)
        condition = None if sure else self.b.icmp_signed("<", I64(0), extent)
        return scope.when(condition, carried, nonempty, f"some_{axis.name}")

    def point(self, scope: Scope, p: Pass, carried: Carried) -> Carried:
        """Every lane group of one point: reductions, then stores."""
        evaluator, groups = self.evaluator, scope.lanes.groups if scope.lanes else 1
        new = list(carried)
        per = len(carried) // (len(p.reductions) + len(p.carries)) if carried else 0
        first = per * len(p.reductions)
        for i, c in enumerate(p.carries):
            dtype, at = compute_dtype(c.target.dtype), first + i * per
            held = carried[at : at + per]
            scope.locals[c.target] = tuple(LlvmScalar(self.b, v, dtype) for v in held)
        for i, c in enumerate(p.carries):
            for g in range(groups):
                x = evaluator.spread(scope, c.value, g).cast(compute_dtype(c.target.dtype))
                new[first + i * per + g] = x.v
        for i, r in enumerate(p.reductions):
            dtype = compute_dtype(r.target.dtype)
            for g in range(groups):
                old = LlvmScalar(self.b, carried[i * per + g], dtype)
                total = self.taken(scope, r, old, g)
                mask = scope.lanes.masks[g] if scope.lanes and scope.lanes.axis in p.axes else None
                if mask is not None:
                    total = total.with_value(self.b.select(mask, total.v, old.v))
                new[i * per + g] = total.v
        evaluator.store_all(scope, p.stores, groups)
        return new

    def taken(self, scope: Scope, r: Reduction, old: LlvmScalar, group: int) -> LlvmScalar:
        """`old` with one more value; a sum takes in products that are not rounded first."""
        factors = self.evaluator.factors(scope, r.value, group) if r.op == "add" else None
        if factors is not None and r.value.dtype == old.dtype:
            return factors[0].fma(factors[1], old)
        x = self.evaluator.spread(scope, r.value, group)
        return combined(r.op, old, x.cast(old.dtype))

    # The vector axis.

    def vectors(
        self,
        scope: Scope,
        axis: Axis,
        start: ir.Value,
        stop: ir.Value,
        carried: Carried,
        body: Callable[[Scope, Carried], Carried],
    ) -> Carried:
        """start..stop - 1, not empty, in whole blocks and then in vectors, the last one masked."""
        if (
            isinstance(start, ir.Constant)
            and isinstance(axis.extent, int)
            and self.schedule.vector not in self.nest.rows
        ):
            return self.known_vectors(scope, axis, axis.extent, carried, body)
        b, width, whole = self.b, self.schedule.width, self.block
        length = b.sub(stop, start) if start != I64(0) else stop
        if whole & (whole - 1) == 0:
            covered = b.and_(length, I64(-whole))
        else:
            covered = b.mul(b.udiv(length, I64(whole)), I64(whole))
        middle = b.add(start, covered)

        def main(scope: Scope, carried: Carried) -> Carried:
            return scope.loop(start, middle, whole, carried, blocks, axis.name)

        def blocks(inner: Scope, i: ir.Value, carried: Carried) -> Carried:
            inner.spread(Lanes(axis, width, (None,) * self.schedule.unroll), i)
            return body(inner, carried)

        always = None if is_multiple_of(axis.extent, whole) else b.icmp_signed("<", start, middle)
        carried = scope.when(always, carried, main, f"whole_{axis.name}", certain=True)
        if always is None:
            return carried
        masked = not is_multiple_of(axis.extent, width)

        def tail(inner: Scope, i: ir.Value, carried: Carried) -> Carried:
            mask = memory.tail_mask(b, i, stop, width) if masked and width > 1 else None
            inner.spread(Lanes(axis, width, (mask,)), i)
            return body(inner, carried)

        def rest(scope: Scope, carried: Carried) -> Carried:
            if self.schedule.unroll == 1:
                return tail(scope.child(), middle, carried)
            return scope.loop(middle, stop, width, carried, tail, f"{axis.name}_tail")

        more = b.icmp_signed("<", middle, stop)
        return scope.when(more, carried, rest, f"rest_{axis.name}", certain=True)

    def known_vectors(
        self,
        scope: Scope,
        axis: Axis,
        extent: int,
        carried: Carried,
        body: Callable[[Scope, Carried], Carried],
    ) -> Carried:
        """A vector axis of a known number of points from 0: no branch but the main loop's."""
        width, whole = self.schedule.width, self.block
        middle = extent // whole * whole

        def blocks(inner: Scope, i: ir.Value, carried: Carried) -> Carried:
            inner.spread(Lanes(axis, width, (None,) * self.schedule.unroll), i)
            return body(inner, carried)

        if middle == whole:
            carried = blocks(scope.child(), I64(0), carried)
        elif middle:
            carried = scope.loop(I64(0), I64(middle), whole, carried, blocks, axis.name)
        rest = extent - middle
        if rest:
            masks: list[ir.Value | None] = [None] * (rest // width)
            if rest % width:
                kind = ir.VectorType(ir.IntType(1), width)
                masks.append(ir.Constant(kind, [int(x < rest % width) for x in range(width)]))
            inner = scope.child()
            inner.spread(Lanes(axis, width, tuple(masks)), I64(middle))
            carried = body(inner, carried)
        return carried


# Reductions.


def compute_dtype(dtype: DType) -> DType:
    """In what a dtype is summed: 16-bit floats in f32."""
    return f32 if dtype.is_float and dtype.bits == 16 else dtype


def _together(op: str, values: list[LlvmScalar]) -> LlvmScalar:
    """All lanes of all groups in one number, halving again and again."""
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=False)
        odd = values[-1:] if len(values) % 2 else []
        values = [combined(op, x, y) for x, y in pairs] + odd
    x = values[0]
    while x.lanes > 1:
        half = x.lanes // 2
        assert half * 2 == x.lanes, "vectors have a power of two of lanes"
        kind, i32 = x.v.type, ir.IntType(32)
        parts = [
            x.with_value(
                x.b.shuffle_vector(
                    x.v,
                    poison(kind.element, kind.count),
                    ir.Constant(ir.VectorType(i32, half), list(order)),
                )
            )
            for order in (range(half), range(half, 2 * half))
        ]
        if half == 1:
            parts = [p.with_value(p.b.extract_element(p.v, i32(0))) for p in parts]
        x = combined(op, *parts)
    return x
