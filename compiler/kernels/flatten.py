"""Kernels in their final form: flat buffers, as few axes as the accesses allow.

Neighbouring axes become one where every access walks them as one; the same sum over a matrix or
over a vector of as many elements then has the same text, and is emitted once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import product
from fluxc.compiler.kernels.kernel import (
    Apply,
    Axis,
    Buffer,
    Carry,
    Const,
    Contract,
    Expressions,
    Extent,
    Index,
    Load,
    Local,
    Nest,
    Pass,
    Reduction,
    Sort,
    Store,
    kernel_axes,
    kernel_roots,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.kernel import Expr, Kernel

__all__ = ["flatten", "replace_sizes"]


class _Rewriter:
    """Makes a kernel's expressions again, with other buffers and indices of axes."""

    def __init__(
        self,
        k: Expressions,
        buffers: Mapping[Buffer, Buffer],
        axes: Mapping[Axis, Expr],
        size: Callable[[Size], Size] = lambda s: s,
    ) -> None:
        self.k, self.buffers, self.axes, self.size = k, buffers, axes, size
        self.new: dict[Expr, Expr] = {}

    def __call__(self, root: Expr) -> Expr:
        if root not in self.new:
            for e in walk(root):
                if e not in self.new:
                    self.new[e] = self._one(e)
        return self.new[root]

    def _one(self, e: Expr) -> Expr:
        k = self.k
        match e:
            case Const(value=value, dtype=dtype):
                return k.const(value, dtype)
            case Extent(size=size):
                return k.size(self.size(size))
            case Index(axis=axis):
                return self.axes[axis] if axis in self.axes else k.index(axis)
            case Local(name=name, dtype=dtype):
                return k.local(name, dtype)
            case Load(buffer=buffer, index=index, guard=guard):
                new = self.buffers[buffer]
                inside = None if guard is None else self.new[guard]
                return k.load(new, self.index(buffer, index), inside)
        assert isinstance(e, Apply)
        return k.rebuild(e, tuple(self.new[a] for a in e.args))

    def index(self, buffer: Buffer, index: Sequence[Expr]) -> tuple[Expr, ...]:
        new = self.buffers[buffer]
        at = [self(i) for i in index]
        if len(new.shape) == len(buffer.shape) and len(new.shape) != 1:
            return tuple(at)
        return (self.k.flatten(at, [self.size(s) for s in buffer.shape]),)

    def local(self, local: Local) -> Local:
        return self.k.local(local.name, local.dtype)

    def store(self, s: Store) -> Store:
        guard = None if s.guard is None else self(s.guard)
        if isinstance(guard, Const) and guard.value:
            guard = None
        index = self.index(s.buffer, s.index)
        return Store(self.buffers[s.buffer], index, self(s.value), guard, s.accumulate)

    def run(self, p: Pass, axes: tuple[Axis, ...]) -> Pass:
        reductions = tuple(
            Reduction(self.local(r.target), r.op, self(r.value)) for r in p.reductions
        )
        carries = tuple(
            Carry(self.local(c.target), self(c.start), self(c.value)) for c in p.carries
        )
        return Pass(axes, reductions, tuple(self.store(s) for s in p.stores), carries)


def flatten(kernel: Kernel, buffers: Mapping[Buffer, Buffer]) -> tuple[Kernel, tuple[Buffer, ...]]:
    """The kernel in final form, and for each of its buffers the given one that it stands for.

    buffers: the memory of each buffer, by any one buffer of that memory; several may share one.
    """
    flat: dict[Buffer, Buffer] = {}
    memory: dict[Buffer, Buffer] = {}
    for b in kernel.buffers:
        m = buffers.get(b, b)
        if m not in memory:
            packed = isinstance(kernel, Contract) and kernel.packed and b is kernel.b.buffer
            shape = b.shape if packed else (product(b.shape),)
            memory[m] = Buffer(b.name, b.dtype, shape)
        flat[b] = memory[m]
    if isinstance(kernel, Contract):
        return _flat_contract(kernel, flat), tuple(memory)
    if isinstance(kernel, Sort):
        return replace(kernel, buffers=tuple(memory.values())), tuple(memory)
    rewriter = _Rewriter(_fresh(kernel), flat, {})
    rows = tuple(a for a in kernel.rows if a.extent != 1)
    passes = tuple(
        rewriter.run(p, tuple(a for a in p.axes if a.extent != 1)) for p in kernel.passes
    )
    nest = Nest(kernel.name, tuple(memory.values()), rows, passes)
    return _collapse(nest), tuple(memory)


def _fresh(kernel: Kernel) -> Expressions:
    """Expressions whose canonical order begins with the kernel's own axes."""
    k = Expressions()
    for axis in kernel_axes(kernel):
        k.index(axis)
    return k


def _flat_contract(c: Contract, flat: Mapping[Buffer, Buffer]) -> Contract:
    r = _Rewriter(_fresh(c), flat, {})
    a, b = r(c.a), r(c.b)
    assert isinstance(a, Load)
    assert isinstance(b, Load)
    buffers = tuple(dict.fromkeys(flat[x] for x in c.buffers))
    stores = tuple(map(r.store, c.stores))
    return Contract(c.name, buffers, c.batch, c.m, c.n, c.k, a, b, r.local(c.acc), stores, c.packed)


def _collapse(nest: Nest) -> Nest:
    """Join neighbouring axes until no pair can be joined."""
    changed = True
    while changed:
        changed = False
        for outer, inner in _pairs(nest):
            joined = _join(nest, outer, inner)
            if joined is not None:
                nest, changed = joined, True
                break
    return nest


def _pairs(nest: Nest) -> list[tuple[Axis, Axis]]:
    pairs = list(zip(nest.rows, nest.rows[1:], strict=False))
    for p in nest.passes:
        if not p.carries and not any(s.accumulate for s in p.stores):
            pairs += zip(p.axes, p.axes[1:], strict=False)
    return list(dict.fromkeys(pairs))


def _join(nest: Nest, outer: Axis, inner: Axis) -> Nest | None:
    """One axis for two, where no expression has to take its position apart again."""
    axis = Axis(outer.name, outer.extent * inner.extent)
    k = _fresh(Nest(nest.name, nest.buffers, (axis, *kernel_axes(nest)), ()))
    position = k.index(axis)
    place = {outer: k.floordiv(position, inner.extent), inner: k.mod(position, inner.extent)}
    same = {b: b for b in nest.buffers}
    rewriter = _Rewriter(k, same, place)

    def merged(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(axis if a is outer else a for a in axes if a is not inner)

    passes = tuple(rewriter.run(p, merged(p.axes)) for p in nest.passes)
    joined = Nest(nest.name, nest.buffers, merged(nest.rows), passes)
    split = any(
        isinstance(e, Apply) and e.op in {"floor_div", "mod"} and e.args[0] is position
        for e in walk(*kernel_roots(joined))
    )
    return None if split else joined


def replace_sizes(nest: Nest, axis: Axis, size: Size) -> Nest:
    """The nest of one row axis with another extent for it and its buffers."""
    new = Axis(axis.name, size)
    buffers = {
        b: Buffer(b.name, b.dtype, tuple(size if s == axis.extent else s for s in b.shape))
        for b in nest.buffers
    }
    rewriter = _Rewriter(_fresh(Nest(nest.name, (), (new,), ())), buffers, {}, lambda s: s)
    rewriter.axes = {axis: rewriter.k.index(new)}
    passes = tuple(rewriter.run(p, p.axes) for p in nest.passes)
    return Nest(nest.name, tuple(buffers.values()), (new,), passes)
