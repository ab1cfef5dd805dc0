"""Writes expressions of the loop IR as Triton: values of a program's points, loads and stores.

A program's points form a block of two axes, `rows x inner`.  What depends on neither is one number,
what depends on one of them has length 1 along the other, and Triton broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003  of the table below
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fluxc.compiler.backends.triton.scalar import (
    TritonScalar,
    bare,
    constant,
    register_type,
    triton_type,
)
from fluxc.compiler.errors import Unsupported
from fluxc.compiler.ir.dims import Dim, Symbol, size_bounds
from fluxc.compiler.ir.types import bool_, i64
from fluxc.compiler.kernels.kernel import (
    Apply,
    Axis,
    Const,
    Expressions,
    Extent,
    Index,
    Load,
    Local,
    kernel_roots,
    operands,
    walk,
)
from fluxc.compiler.ops import OPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluxc.compiler.backends.triton.scalar import Writer
    from fluxc.compiler.ir.dims import Atom, Size
    from fluxc.compiler.kernels.kernel import Buffer, Expr, Kernel, Store

__all__ = ["NONE", "Points", "Sides", "count_uses", "size_text"]

Sides = frozenset[int]
"""Along which axes of the block a value differs: 0 rows, 1 inner."""
NONE: Sides = frozenset()

_LONG = 60  # characters of an expression that gets a line of its own
_SHORT = 12  # and of one that does not even if it is used again
_ONCE = frozenset(
    (
        *("neg", "add", "sub", "mul", "div", "and", "or", "xor", "not", "cast", "select", "exp"),
        *("eq", "ne", "lt", "le", "gt", "ge", "identity", "stop_gradient", "abs", "sqrt", "log"),
        *("floor_div", "mod", "pow", "tanh", "is_inf", "is_finite", "bitcast"),
    )
)
"""Operations whose bodies write their operands once."""
_FOLD: dict[str, Callable[[TritonScalar, TritonScalar], TritonScalar]] = {
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "maximum": lambda x, y: x.maximum(y),
    "minimum": lambda x, y: x.minimum(y),
}


def size_text(size: Size) -> str:
    """A size as an expression of the kernel's arguments."""
    if not isinstance(size, Dim):
        return str(size)
    terms = []
    for monomial, factor in size.terms:
        parts = [_atom_text(a) for a in monomial]
        if factor != 1 or not parts:
            parts.insert(0, str(factor) if factor >= 0 else f"({factor})")
        terms.append(" * ".join(parts))
    return terms[0] if len(terms) == 1 and "*" not in terms[0] else f"({' + '.join(terms)})"


def _atom_text(atom: Atom) -> str:
    if isinstance(atom, Symbol):
        return symbol_text(atom)
    left, right = size_text(atom.left), size_text(atom.right)
    if atom.kind != "floordiv":
        return f"{atom.kind}({left}, {right})"
    if size_bounds(atom.left)[0] < 0 or size_bounds(atom.right)[0] <= 0:
        raise Unsupported(f"Triton kernels cannot divide sizes that may be negative: {atom}")
    return f"({left} // {right})"


def symbol_text(symbol: Symbol) -> str:
    return f"n_{symbol.name}"


def count_uses(kernel: Kernel) -> dict[Expr, int]:
    """How often each expression of a kernel is an operand, or written by itself."""
    roots = kernel_roots(kernel)
    order = walk(*roots)
    uses = dict.fromkeys(order, 0)
    for e in [*roots, *(x for y in order for x in operands(y))]:
        uses[e] += 1
    return uses


@dataclass(slots=True, eq=False)
class Points:
    """The points that a program computes together, and the values known there.

    axes:   the position along each axis, and the sides along which it differs.
    masks:  for each side, whether a point exists; none where all do.
    shape:  the text of the block's shape.
    locals: the results of reductions.
    flat:   the block has no second axis.
    uses:   how often each expression of the kernel is used.
    """

    out: Writer
    names: Mapping[Buffer, str]
    shape: tuple[str, str]
    axes: dict[Axis, tuple[str, Sides]] = field(default_factory=dict)
    masks: dict[int, str] = field(default_factory=dict)
    locals: dict[str, tuple[TritonScalar, Sides]] = field(default_factory=dict)
    flat: bool = False
    uses: dict[Expr, int] = field(default_factory=dict)
    k: Expressions = field(default_factory=Expressions)
    known: dict[Expr, TritonScalar] = field(default_factory=dict)
    _sides: dict[Expr, Sides] = field(default_factory=dict)

    def inside(self) -> Points:
        """The same points within a loop: what is computed there stays there."""
        made = Points(self.out, self.names, self.shape, flat=self.flat, uses=self.uses)
        made.axes, made.masks, made.locals = dict(self.axes), dict(self.masks), self.locals
        made.k, made.known = self.k, dict(self.known)
        return made

    def forget(self, axes: Sequence[Axis]) -> None:
        """The positions along some axes are others now."""
        moved = set(axes)
        gone = [e for e in self.known if any(getattr(x, "axis", None) in moved for x in walk(e))]
        for e in gone:
            del self.known[e]

    # What a value differs along.

    def sides(self, e: Expr) -> Sides:
        for x in walk(e):
            if x not in self._sides:
                own = NONE
                if isinstance(x, Index):
                    own = self.axes[x.axis][1]
                elif isinstance(x, Local):
                    own = self.locals[x.name][1]
                self._sides[x] = own.union(*(self._sides[y] for y in operands(x)))
        return self._sides[e]

    # Values.

    def value(self, root: Expr) -> TritonScalar:
        """`root` as it is computed with: 16-bit floats as f32 unless they were just loaded."""
        for e in walk(root):
            if e not in self.known:
                self.known[e] = self._write(e)
        return self.known[root]

    def register(self, root: Expr) -> TritonScalar:
        """`root` in the dtype that is computed with."""
        x = self.value(root)
        return x.cast(register_type(x.dtype))

    def _write(self, e: Expr) -> TritonScalar:
        match e:
            case Const():
                return constant(self.out, e.dtype, e.value)
            case Extent():
                return TritonScalar(size_text(e.size), i64, self.out)
            case Index():
                return TritonScalar(self.axes[e.axis][0], i64, self.out)
            case Local():
                return self.locals[e.name][0]
            case Load():
                return self._load(e).named()
            case Apply():
                return self._apply(e)
        raise Unsupported(f"Triton kernels do not compute {type(e).__name__} expressions")

    def _apply(self, e: Apply) -> TritonScalar:
        args = []
        for a in e.args:
            x = self.known[a]
            x = x.cast(a.dtype if e.op in ("cast", "bitcast") else register_type(x.dtype))
            args.append(x if e.op in _ONCE else x.named())
        if all(x.number is not None for x in args):
            args = [x.typed() for x in args]
        if e.dtype == i64 and e.op in ("floor_div", "mod") and self._plain(e):
            sign = "//" if e.op == "floor_div" else "%"
            result = args[0].truncating(sign, args[1])
        else:
            scalar = OPS[e.op].scalar
            assert scalar is not None, f"{e.op} has no scalar body"
            result = scalar(*args, **e.attrs)
        again = self.uses.get(e, 1) > 1 and len(result.text) > _SHORT
        return result.named() if again or len(result.text) > _LONG else result

    def _plain(self, e: Apply) -> bool:
        """Whether Triton's own division is Python's here."""
        low, by = self.k.bounds(e.args[0])[0], self.k.bounds(e.args[1])[0]
        if low is None or by is None:
            return False
        return size_bounds(low)[0] >= 0 and size_bounds(by)[0] > 0

    # Memory.

    def spread(self, x: TritonScalar, sides: Sides, wanted: Sides) -> str:
        """The text of a value with the full length of the block along `wanted`."""
        if sides == wanted:
            return bare(x.text) if wanted else bare(x.typed().text)
        parts = [self.shape[i] if i in wanted else "1" for i in (0, 1)]
        shape = f"({parts[0]},)" if self.flat else f"({', '.join(parts)})"
        if x.number is not None:
            return f"tl.full({shape}, {bare(x.text)}, {triton_type(x.dtype)})"
        return f"tl.broadcast_to({bare(x.text)}, {shape})"

    def mask(self, sides: Sides, guard: Expr | None) -> str:
        """The condition under which a point of these sides touches memory; empty: always."""
        parts = [text for side, text in sorted(self.masks.items()) if side in sides]
        if guard is not None:
            parts.append(self.value(guard).named().typed().text)
        return " & ".join(parts)

    def pointer(self, buffer: Buffer, index: Sequence[Expr], sides: Sides) -> str:
        position = self.k.flatten(index, buffer.shape)
        offset = self.value(position)
        own = self.sides(position)
        if own == sides:
            return (
                self.names[buffer]
                if offset.number == 0
                else f"{self.names[buffer]} + {offset.text}"
            )
        return f"{self.names[buffer]} + {self.spread(offset, own, sides)}"

    def _load(self, e: Load) -> TritonScalar:
        index_sides = NONE.union(*(self.sides(i) for i in e.index))
        sides = self.sides(e)
        if e.guard is None:
            sides = index_sides
        mask = self.mask(sides, e.guard)
        text = f"tl.load({self.pointer(e.buffer, e.index, sides)}"
        if mask:
            text += f", mask={mask}, other=0"
        loaded = TritonScalar(f"{text})", e.dtype, self.out)
        if e.dtype == bool_:
            return TritonScalar(f"({text}) != 0)", bool_, self.out)
        return loaded

    def store(self, s: Store, sides: Sides) -> None:
        """Store at every point of `sides`; where it accumulates, one point after the other."""
        pointer = self.pointer(s.buffer, s.index, sides)
        mask = self.mask(sides, s.guard)
        suffix = f", mask={mask}" if mask else ""
        x = self.value(s.value)
        text = self.spread(x.cast(s.buffer.dtype), self.sides(s.value), sides)
        if s.accumulate:
            pointer = self.out.let(pointer)
        if s.accumulate in _FOLD:
            kind = register_type(s.buffer.dtype)
            old = TritonScalar(f"tl.load({pointer}{suffix})", s.buffer.dtype, self.out)
            if s.buffer.dtype == bool_:
                old = old.raw(f"({old.text} != 0)")
            x = _FOLD[s.accumulate](old.cast(kind).named(), x.cast(kind)).named()
            text = x.cast(s.buffer.dtype).text
            self.out.line("tl.debug_barrier()")  # all threads have loaded before one stores
        if s.buffer.dtype == bool_:
            text = f"({text}).to(tl.int8)"
        self.out.line(f"tl.store({pointer}, {text}{suffix})")
        if s.accumulate:
            self.out.line("tl.debug_barrier()")
