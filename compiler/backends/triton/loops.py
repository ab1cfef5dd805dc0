"""Nests as Triton kernels: a program takes `ROWS` points of the rows, and runs the passes for them.

The inner axes of a pass are visited `INNER` points at a time: all at once where that is enough, so
that a later pass finds in registers what an earlier one has loaded, else in a loop.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fluxc.compiler.backends.triton.expression import (
    NONE,
    Points,
    count_uses,
    size_text,
    symbol_text,
)
from fluxc.compiler.backends.triton.scalar import (
    TritonScalar,
    Writer,
    bare,
    constant,
    register_type,
    triton_type,
)
from fluxc.compiler.errors import Unsupported
from fluxc.compiler.functions.reduction import combined, identity_of
from fluxc.compiler.ir.dims import product, size_bounds
from fluxc.compiler.ir.types import bool_
from fluxc.compiler.kernels.kernel import Load, kernel_symbols, operands, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.backends.triton.expression import Sides
    from fluxc.compiler.backends.triton.scalar import Library
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.kernels.kernel import Axis, Buffer, Expr, Kernel, Nest, Pass, Reduction
    from fluxc.compiler.kernels.schedule import BlockSchedule

__all__ = ["arguments_text", "emit_nest", "names_of", "unflatten"]

ROW: Sides = frozenset((0,))
BOTH: Sides = frozenset((0, 1))
INNER: Sides = frozenset((1,))
_KINDS = ("add", "mul", "maximum", "minimum", "and", "or")


def names_of(kernel: Kernel) -> dict[Buffer, str]:
    """The kernel's pointers, named as its text in loop IR names its buffers."""
    return {b: f"b{i}" for i, b in enumerate(kernel.buffers)}


def arguments_text(kernel: Kernel, blocks: Sequence[str]) -> str:
    """Pointers, then sizes, then the sizes of blocks."""
    sizes = [symbol_text(s) for s in kernel_symbols(kernel)]
    return ", ".join([*names_of(kernel).values(), *sizes, *(f"{b}: tl.constexpr" for b in blocks)])


def unflatten(
    out: Writer, position: str, axes: Sequence[Axis], names: Sequence[str]
) -> dict[Axis, str]:
    """Write the position along each axis of a row-major `position`."""
    found: dict[Axis, str] = {}
    rest = position
    for i, (axis, name) in enumerate(zip(axes, names, strict=True)):
        inner = product(a.extent for a in axes[i + 1 :])
        if axis.extent == 1:
            found[axis] = "0"
        elif i == len(axes) - 1 or inner == 1:
            found[axis] = out.let(rest, name)
        else:
            found[axis] = out.let(f"{rest} // {size_text(inner)}", name)
            rest = f"({rest} % {size_text(inner)})"
    return found


def emit_nest(name: str, nest: Nest, schedule: BlockSchedule, library: Library) -> str:
    """The text of a kernel.

    Errors  Unsupported for what has no exact Triton form.
    """
    return _NestEmitter(name, nest, schedule, library).text()


class _NestEmitter:
    def __init__(self, name: str, nest: Nest, s: BlockSchedule, library: Library) -> None:
        self.name, self.nest, self.schedule, self.library = name, nest, s, library
        self.out = Writer(library)
        self.flat = not any(p.axes for p in nest.passes)
        shape = ("ROWS", "INNER")
        uses = count_uses(nest)
        self.points = Points(self.out, names_of(nest), shape, flat=self.flat, uses=uses)
        axes = [*nest.rows, *(a for p in nest.passes for a in p.axes)]
        self.numbers = {a: f"i{i}" for i, a in enumerate(dict.fromkeys(axes))}
        self.placed: tuple[Axis, ...] = ()
        self.stored: set[Buffer] = set()

    def text(self) -> str:
        self._rows()
        for p in self.nest.passes:
            self._pass(p)
        blocks = ["ROWS"] if self.flat else ["ROWS", "INNER"]
        head = f"@triton.jit\ndef {self.name}({arguments_text(self.nest, blocks)}):"
        return "\n".join([head, *self.out.lines])

    # Rows.

    def _rows(self) -> None:
        rows = self.nest.rows
        total = product(a.extent for a in rows)
        lanes = "tl.arange(0, ROWS)" if self.flat else "tl.arange(0, ROWS)[:, None]"
        self.out.line(f"row = tl.program_id(0).to(tl.int64) * ROWS + {lanes}")
        if not _divides(self.schedule.rows, total):
            self.points.masks[0] = self.out.let(f"row < {size_text(total)}", "in_row")
        found = unflatten(self.out, "row", rows, [self.numbers[a] for a in rows])
        self.points.axes |= {a: (text, NONE if text == "0" else ROW) for a, text in found.items()}

    # Passes.

    def _pass(self, p: Pass) -> None:
        if any(r.op not in _KINDS for r in p.reductions):
            kinds = ", ".join(r.op for r in p.reductions)
            raise Unsupported(f"kernel {self.nest.name}: Triton does not reduce by {kinds}")
        total = product(a.extent for a in p.axes)
        self._refresh(p)
        if p.carries or any(s.accumulate for s in p.stores):
            self._in_order(p, total)
        elif not p.axes:
            self._row_stores(p)
        elif isinstance(total, int) and total <= self.schedule.inner:
            self._at_once(p, total)
        else:
            self._in_turns(p, total)
        self.stored |= {s.buffer for s in p.stores}

    def _refresh(self, p: Pass) -> None:
        """Forget what was loaded from memory that has been written since; wait for the writes."""
        known = self.points.known
        stale: set[Expr] = set()
        for e in known:
            if isinstance(e, Load) and e.buffer in self.stored:
                stale.add(e)
        if stale:
            for e in [x for x in known if not stale.isdisjoint(walk(x))]:
                del known[e]
        roots: list[Expr] = [r.value for r in p.reductions]
        for s in p.stores:
            roots += [s.value, *s.index, *([] if s.guard is None else [s.guard])]
        if any(isinstance(e, Load) and e.buffer in self.stored for e in walk(*roots)):
            self.out.line("tl.debug_barrier()  # what the program has stored so far can be loaded")

    def _row_stores(self, p: Pass) -> None:
        for r in p.reductions:  # over no axes: of the one point
            value = self.points.register(r.value).cast(register_type(r.target.dtype))
            self._bind(r, value.typed().text, self.points.sides(r.value))
        self._values(self.points, p)
        for s in p.stores:
            self.points.store(s, ROW)

    def _at_once(self, p: Pass, total: int) -> None:
        if total == 0:
            for r in p.reductions:
                self._bind(r, _identity(r, self.out).typed().text, NONE)
            return
        if self.placed != p.axes:
            self.out.line("inner = tl.arange(0, INNER)[None, :].to(tl.int64)")
            self._place(self.points, p.axes, total)
        values = {r: self._masked(self.points, r) for r in p.reductions}
        self._values(self.points, p)
        for r, text in values.items():
            self._reduce(r, text)
        for s in p.stores:
            self.points.store(s, BOTH)

    def _in_turns(self, p: Pass, total: Size) -> None:
        self.placed = ()
        names = {}
        for i, r in enumerate(p.reductions):
            kind = triton_type(register_type(r.target.dtype))
            names[r] = f"sum{i}" if r.op == "add" else f"part{i}"
            first = bare(_identity(r, self.out).text)
            self.out.line(f"{names[r]} = tl.full((ROWS, INNER), {first}, {kind})")
        if size_bounds(total)[0] >= 1:
            self._ahead(p)
        self.out.line(f"for start in range(0, {size_text(total)}, INNER):")
        self.out.indent += 1
        self.out.line("inner = (start + tl.arange(0, INNER)[None, :]).to(tl.int64)")
        points = self.points.inside()
        self._place(points, p.axes, total)
        values = {r: self._masked(points, r) for r in p.reductions}
        self._values(points, p)
        for r, text in values.items():
            old, new = (_raw(t, r, self.out) for t in (names[r], text))
            self.out.let(combined(r.op, old, new).text, names[r])
        for s in p.stores:
            points.store(s, BOTH)
        self.out.indent -= 1
        for r in p.reductions:
            self._reduce(r, names[r])

    def _in_order(self, p: Pass, total: Size) -> None:
        """What one point hands on to the next: a row's points one after the other.

        Every program has its rows to itself, so nothing depends on the order of programs.
        """
        if p.reductions:
            raise Unsupported(f"kernel {self.nest.name}: it reduces while it goes in order")
        self.placed = ()
        for c in p.carries:
            start, kind = self.points.register(c.start), register_type(c.target.dtype)
            text = self.points.spread(start.cast(kind), self.points.sides(c.start), ROW)
            name = self.out.let(text, f"c{len(self.points.locals)}")
            self.points.locals[c.target.name] = (start.raw(name, kind), ROW)
        points = self.points.inside()
        if p.axes:
            self.out.line(f"for turn in range(0, {size_text(total)}):")
            self.out.indent += 1
            self.out.line("inner = tl.full((), 0, tl.int64) + turn")
            names = [self.numbers[a] for a in p.axes]
            found = unflatten(self.out, "inner", p.axes, names)
            points.axes |= {a: (text, NONE) for a, text in found.items()}
            points.forget(p.axes)
        values = []
        for c in p.carries:
            target, sides = self.points.locals[c.target.name][0], points.sides(c.value)
            value = points.register(c.value).cast(target.dtype)
            values.append((target.text, points.spread(value, sides, ROW)))
        for s in p.stores:
            points.store(s, ROW)
        for old, new in values:
            self.out.let(new, old)
        if p.axes:
            self.out.indent -= 1

    def _place(self, points: Points, axes: tuple[Axis, ...], total: Size) -> None:
        """Write the positions along the inner axes, and which points exist."""
        points.masks.pop(1, None)
        if not _divides(self.schedule.inner, total):
            points.masks[1] = self.out.let(f"inner < {size_text(total)}", "in_inner")
        found = unflatten(self.out, "inner", axes, [self.numbers[a] for a in axes])
        points.axes |= {a: (text, NONE if text == "0" else INNER) for a, text in found.items()}
        points.forget(axes)
        self.placed = axes if points is self.points else ()

    def _ahead(self, p: Pass) -> None:
        """Compute before a loop what depends on the row alone."""
        inner = set(p.axes)
        varies: dict[Expr, bool] = {}
        roots = [r.value for r in p.reductions] + [s.value for s in p.stores]
        for e in walk(*roots):
            own = getattr(e, "axis", None) in inner
            guarded = isinstance(e, Load) and (e.guard is not None or e.buffer in self._writes(p))
            varies[e] = own or guarded or any(varies[x] for x in operands(e))
        for e in walk(*roots):
            if varies[e]:
                for x in operands(e):
                    if not varies[x]:
                        self.points.value(x)

    def _writes(self, p: Pass) -> set[Buffer]:
        return {s.buffer for s in p.stores}

    def _values(self, points: Points, p: Pass) -> None:
        """All values of a point are computed before its stores."""
        for s in p.stores:
            points.value(s.value)

    # Reductions.

    def _masked(self, points: Points, r: Reduction) -> str:
        """The values of a block, with the identity where there is no point."""
        value = points.register(r.value).cast(register_type(r.target.dtype))
        sides = points.sides(r.value)
        if 1 in points.masks:
            inside = TritonScalar(points.masks[1], bool_, self.out)
            chosen = inside.select(value.typed(), _identity(r, self.out))
            return self.out.let(points.spread(chosen, sides | INNER, BOTH))
        return self.out.let(points.spread(value, sides, BOTH))

    def _reduce(self, r: Reduction, text: str) -> None:
        dtype = register_type(r.target.dtype)
        if r.op in ("and", "or") or dtype == bool_:
            kind = "min" if r.op in ("and", "minimum") else "max"
            whole = f"(tl.{kind}({text}.to(tl.int32), axis=1, keep_dims=True) != 0)"
        elif r.op == "add":
            whole = f"tl.sum({text}, axis=1, keep_dims=True).to({triton_type(dtype)})"
        elif r.op == "mul":
            self.library.texts.setdefault("fx_multiply", _MULTIPLY)
            whole = f"tl.reduce({text}, 1, fx_multiply, keep_dims=True)"
        else:
            whole = self._extreme(r, text, dtype)
        self._bind(r, whole, ROW)

    def _extreme(self, r: Reduction, text: str, dtype: DType) -> str:
        """The greatest or least; Triton's leaves out NaN, which here is the result."""
        kind = "max" if r.op == "maximum" else "min"
        if not dtype.is_float:
            return f"tl.{kind}({text}, axis=1, keep_dims=True).to({triton_type(dtype)})"
        x = self.out.let(text)
        nan = f"tl.max(({x} != {x}).to(tl.int32), axis=1, keep_dims=True) != 0"
        first = bare(_identity(r, self.out).typed().text)
        number = f"tl.{kind}(tl.where({x} != {x}, {first}, {x}), axis=1, keep_dims=True)"
        return f"tl.where({nan}, {_typed(math.nan, dtype)}, {number})"

    def _bind(self, r: Reduction, text: str, sides: Sides) -> None:
        dtype = register_type(r.target.dtype)
        name = self.out.let(text, f"r{len(self.points.locals)}")
        self.points.locals[r.target.name] = (TritonScalar(name, dtype, self.out), sides)


_MULTIPLY = "@triton.jit\ndef fx_multiply(x, y):\n    return x * y"


def _typed(number: float, dtype: DType) -> str:
    text = repr(number) if math.isfinite(number) else f'float("{number}")'
    return f"tl.full((), {text}, {triton_type(dtype)})"


def _identity(r: Reduction, out: Writer) -> TritonScalar:
    """What leaves every number of the accumulator's dtype as it is."""
    dtype = register_type(r.target.dtype)
    return constant(out, dtype, identity_of(r.op, dtype))


def _raw(text: str, r: Reduction, out: Writer) -> TritonScalar:
    return TritonScalar(text, register_type(r.target.dtype), out)


def _divides(block: int, total: Size) -> bool:
    return isinstance(total, int) and total % block == 0
