"""Rows of keys put in order by merging runs of doubling length, from one room into the other.

A merge takes the lesser of two heads without a branch: which one it is cannot be predicted.  Of
equal keys the one of the left run goes first, so the order is stable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir

from fluxc.compiler.backends.llvm.loops import KERNEL_TYPE, open_kernel
from fluxc.compiler.backends.llvm.sizes import I64
from fluxc.compiler.backends.llvm.values import llvm_type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluxc.compiler.kernels.kernel import Sort

__all__ = ["emit_sort"]

Values: TypeAlias = "list[ir.Value]"


def emit_sort(module: ir.Module, name: str, sort: Sort) -> ir.Function:
    """Defines `void name(ptr* buffers, i64* sizes, i64 lo, i64 hi)`: rows lo <= row < hi."""
    function = ir.Function(module, KERNEL_TYPE, name)
    function.attributes.add("nounwind")
    scope, evaluator = open_kernel(function, sort, None)
    kinds = [llvm_type(b.dtype) for b in sort.buffers]
    pointers = [evaluator.pointers[b] for b in sort.buffers]
    n = evaluator.sizes.value(sort.length.extent)
    _Emitter(scope.b, kinds[0], n).rows(pointers, function.args[2], function.args[3])
    scope.b.ret_void()
    return function


class _Emitter:
    """key: the keys' type; n: the length of a row."""

    def __init__(self, b: ir.IRBuilder, key: ir.Type, n: ir.Value) -> None:
        self.b, self.key, self.n = b, key, n

    def loop(
        self,
        start: Sequence[ir.Value],
        test: Callable[[Values], ir.Value],
        body: Callable[[Values], Sequence[ir.Value]],
    ) -> Values:
        """`while test(values): values = body(values)`."""
        b, before = self.b, self.b.block
        head = b.append_basic_block("head")
        inside, after = b.append_basic_block("body"), b.append_basic_block("after")
        b.branch(head)
        b.position_at_end(head)
        phis = [b.phi(v.type) for v in start]
        for phi, v in zip(phis, start, strict=True):
            phi.add_incoming(v, before)
        b.cbranch(test(list(phis)), inside, after)
        b.position_at_end(inside)
        new = body(list(phis))
        for phi, v in zip(phis, new, strict=True):
            phi.add_incoming(v, b.block)
        b.branch(head)
        b.position_at_end(after)
        return list(phis)

    def less(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.icmp_signed("<", x, y)

    def least(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.select(self.less(x, y), x, y)

    def at(self, array: ir.Value, i: ir.Value, kind: ir.Type) -> ir.Value:
        return self.b.gep(array, [i], source_etype=kind)

    def read(self, array: ir.Value, i: ir.Value, kind: ir.Type) -> ir.Value:
        return self.b.load(self.at(array, i, kind), typ=kind)

    def rows(self, pointers: Values, lo: ir.Value, hi: ir.Value) -> None:
        def row(values: Values) -> Values:
            first = self.b.mul(values[0], self.n)
            kinds = (self.key, I64, self.key, I64)
            self.row([self.at(p, first, t) for p, t in zip(pointers, kinds, strict=True)])
            return [self.b.add(values[0], I64(1))]

        self.loop([lo], lambda v: self.less(v[0], hi), row)

    def row(self, arrays: Values) -> None:
        b, (keys, order, spare_keys, spare_order) = self.b, arrays

        def number(v: Values) -> Values:
            b.store(v[0], self.at(order, v[0], I64))
            return [b.add(v[0], I64(1))]

        self.loop([I64(0)], lambda v: self.less(v[0], self.n), number)

        def double(v: Values) -> Values:
            width, *rooms = v
            self.merge_all(width, rooms)
            return [b.shl(width, I64(1)), *rooms[2:], *rooms[:2]]

        start = [I64(1), keys, order, spare_keys, spare_order]
        _, _, last, *_ = self.loop(start, lambda v: self.less(v[0], self.n), double)
        moved = b.icmp_unsigned("!=", last, order)

        def back(v: Values) -> Values:
            b.store(self.read(last, v[0], I64), self.at(order, v[0], I64))
            return [b.add(v[0], I64(1))]

        # Where the last merge ended in the spare room.
        stop = b.select(moved, self.n, I64(0))
        self.loop([I64(0)], lambda v: self.less(v[0], stop), back)

    def merge_all(self, width: ir.Value, rooms: Values) -> None:
        """Every pair of neighbouring runs of `width`."""
        b = self.b

        def pair(v: Values) -> Values:
            middle = self.least(b.add(v[0], width), self.n)
            end = self.least(b.add(middle, width), self.n)
            self.merge(v[0], middle, end, rooms)
            return [end]

        self.loop([I64(0)], lambda v: self.less(v[0], self.n), pair)

    def merge(self, start: ir.Value, middle: ir.Value, end: ir.Value, rooms: Values) -> None:
        b, (keys, order, out_keys, out_order) = self.b, rooms

        def both(v: Values) -> ir.Value:
            return b.and_(self.less(v[0], middle), self.less(v[1], end))

        def step(v: Values) -> Values:
            i, j, out = v
            left, right = self.read(keys, i, self.key), self.read(keys, j, self.key)
            later = self.less(right, left)
            b.store(b.select(later, right, left), self.at(out_keys, out, self.key))
            chosen = b.select(later, j, i)
            b.store(self.read(order, chosen, I64), self.at(out_order, out, I64))
            took = b.zext(later, I64)
            return [b.add(i, b.sub(I64(1), took)), b.add(j, took), b.add(out, I64(1))]

        i, j, out = self.loop([start, middle, start], both, step)
        # One of the runs is at its end; what is left of the other one follows.
        rest = b.select(self.less(i, middle), i, j)

        def copy(v: Values) -> Values:
            source, target = v
            b.store(self.read(keys, source, self.key), self.at(out_keys, target, self.key))
            b.store(self.read(order, source, I64), self.at(out_order, target, I64))
            return [b.add(source, I64(1)), b.add(target, I64(1))]

        self.loop([rest, out], lambda v: self.less(v[1], end), copy)
