"""Places in a loop nest, and the values that are known there.

A scope is the body of a loop, a branch, or a stretch of code in one.  Scopes form a chain from the
kernel's entry to the innermost body.  A value is emitted in the outermost scope that binds
everything that it depends on, once: that is all the loop-invariant motion that a kernel needs.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from fluxc.compiler.backends.llvm.values import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from llvmlite import ir

    from fluxc.compiler.backends.llvm.scalar import LlvmScalar
    from fluxc.compiler.kernels.kernel import Axis, Local

__all__ = ["Lanes", "Scope"]

Carried: TypeAlias = "list[ir.Value]"


@dataclass(frozen=True, slots=True)
class Lanes:
    """An axis spread over vectors: lane l of group g is the position `first + g * width + l`.

    masks: for each group the lanes that exist, a <width x i1>, or None where all do.
    """

    axis: Axis
    width: int
    masks: tuple[ir.Value | None, ...] = (None,)

    @property
    def groups(self) -> int:
        return len(self.masks)


class Scope:
    """One place.  `axes` and `locals` are what it binds; `memo` what was emitted for it.

    certain: it runs at least once whenever its parent does, so that a load which it makes may be
             moved there.
    lanes:   the vectors in which it computes; None: single numbers.
    """

    def __init__(
        self, b: ir.IRBuilder, parent: Scope | None = None, *, certain: bool = True
    ) -> None:
        self.b, self.parent, self.certain = b, parent, certain
        self.depth: int = parent.depth + 1 if parent else 0
        self.lanes: Lanes | None = parent.lanes if parent else None
        self.axes: dict[Axis, ir.Value] = {}
        self.locals: dict[Local, tuple[LlvmScalar, ...]] = {}
        self.memo: dict[Hashable, Any] = {}
        self.homes: dict[Hashable, Scope] = {}
        self.block: ir.Block | None = None  # where it goes on; None: at the builder

    def child(self, *, certain: bool = True) -> Scope:
        return Scope(self.b, self, certain=certain)

    def spread(self, lanes: Lanes, first: ir.Value) -> None:
        """Bind an axis to vectors that begin at the position `first`."""
        self.lanes = lanes
        self.axes[lanes.axis] = first

    @property
    def chain(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def binder(self, key: Axis | Local) -> Scope:
        """The scope that binds an axis or a local."""
        for scope in self.chain:
            if key in scope.axes or key in scope.locals:
                return scope
        raise AssertionError(f"{key} is not bound here")

    @contextmanager
    def here(self) -> Iterator[None]:
        """Emit at this scope's own place, wherever the builder is."""
        if self.block is None or self.block is self.b.block:
            yield
            return
        before = self.b.block
        _position(self.b, self.block)
        yield
        _position(self.b, before)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The builder leaves for an inner block: the scopes around it go on in the current one."""
        held = [s for s in self.chain if s.block is None]
        for s in held:
            s.block = self.b.block
        yield
        for s in held:
            s.block = None

    def when(
        self,
        condition: ir.Value | None,
        carried: Carried,
        body: Callable[[Scope, Carried], Sequence[ir.Value]],
        name: str = "when",
        *,
        certain: bool = False,
    ) -> Carried:
        """`if condition: carried = body(carried)`; the carried values.  None: always."""
        if condition is None:
            return list(body(self.child(), carried))
        b, before = self.b, self.b.block
        inside = b.append_basic_block(name)
        after = b.append_basic_block(f"{name}_end")
        b.cbranch(condition, inside, after)
        with self.opened():
            b.position_at_end(inside)
            new = body(self.child(certain=certain), carried)
            last = b.block
            b.branch(after)
        b.position_at_end(after)
        return merge(b, (before, carried), (last, new))

    def loop(
        self,
        first: ir.Value,
        stop: ir.Value,
        step: int,
        carried: Carried,
        body: Callable[[Scope, ir.Value, Carried], Sequence[ir.Value]],
        name: str,
    ) -> Carried:
        """`do carried = body(i, carried); while (i += step) < stop` from i = first."""

        def stepped(inner: Scope, i: ir.Value, values: Carried) -> Carried:
            new = body(inner, i, values)
            return [self.b.add(i, first.type(step), flags=("nuw", "nsw")), *new]

        return self.loop_by(first, stop, carried, stepped, name)

    def loop_by(
        self,
        first: ir.Value,
        stop: ir.Value,
        carried: Carried,
        body: Callable[[Scope, ir.Value, Carried], Sequence[ir.Value]],
        name: str,
    ) -> Carried:
        """`do i, carried = body(i, carried); while i < stop` from i = first."""
        b, before = self.b, self.b.block
        inside = b.append_basic_block(name)
        b.branch(inside)
        with self.opened():
            b.position_at_end(inside)
            i = b.phi(first.type, name)
            i.add_incoming(first, before)
            phis = [b.phi(v.type) for v in carried]
            following, *new = body(self.child(), i, list(phis))
            after = b.append_basic_block(f"{name}_end")
            b.cbranch(b.icmp_signed("<", following, stop), inside, after)
            i.add_incoming(following, b.block)
            for phi, old, value in zip(phis, carried, new, strict=True):
                phi.add_incoming(old, before)
                phi.add_incoming(value, b.block)
        b.position_at_end(after)
        return new


def _position(b: ir.IRBuilder, block: ir.Block) -> None:
    """At the end of a block, before the instruction that leaves it."""
    if block.is_terminated:
        b.position_before(block.terminator)
    else:
        b.position_at_end(block)
