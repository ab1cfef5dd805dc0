"""The loop IR: one kernel language for every back end.

A kernel is a nest of axes over typed buffers, with scalar expressions at each point.

`Nest` is the general form.  Its `rows` are independent (or `sequential`) axes.  For each row the
`passes` run one after another; a pass visits its own inner `axes` and at each point updates
reductions and stores values.  Softmax is one Nest: rows are the leading axes, three passes over
the last one.

`Contract` is the tile notation: `acc[batch, m, n] = sum over k of a[batch, m, k] * b[batch, k, n]`,
then an epilogue of stores that reads the accumulator.  Matrix products of every kind are Contracts.

Expressions are directed acyclic graphs: an `Expr` used twice is computed once.  They are compared
by identity; the printer's text is the structural form, and equal text means an equal kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from fluxc.compiler.ir.dims import Dim, exact_quotient, floordiv, is_at_least, product, size_symbols
from fluxc.compiler.ir.graph import NO_ATTRS
from fluxc.compiler.ir.types import TensorType, bool_, i64
from fluxc.compiler.ops.op import infer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fluxc.compiler.ir.dims import Size, Symbol
    from fluxc.compiler.ir.types import DType

__all__ = [
    "Apply",
    "Axis",
    "Buffer",
    "Carry",
    "Const",
    "Contract",
    "Expr",
    "Expressions",
    "Extent",
    "Index",
    "Kernel",
    "Linear",
    "Load",
    "Local",
    "Nest",
    "Pass",
    "Reduction",
    "Sort",
    "Store",
    "kernel_axes",
    "kernel_roots",
    "kernel_stores",
    "kernel_symbols",
    "operands",
    "walk",
]


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Memory that a kernel reads or writes: row-major and contiguous.  Rank 0 is one element.

    Two buffers of a kernel never overlap unless they are the same Buffer; a kernel that updates
    in place loads and stores one Buffer at the same index.
    """

    name: str
    dtype: DType
    shape: tuple[Size, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """A loop `for name in 0 .. extent - 1`."""

    name: str
    extent: Size


@dataclass(frozen=True, slots=True, eq=False)
class Const:
    """A number.  `value` is a Python bool, int or float (inf, nan and -0.0 included)."""

    value: float | int | bool
    dtype: DType


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The position along an axis, an i64."""

    axis: Axis

    @property
    def dtype(self) -> DType:
        return i64


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """The value of a size at run time, an i64."""

    size: Size

    @property
    def dtype(self) -> DType:
        return i64


@dataclass(frozen=True, slots=True, eq=False)
class Apply:
    """An elementwise operation of the graph IR (`ops.OPS[op].scalar`) on scalars."""

    op: str
    args: tuple[Expr, ...]
    dtype: DType
    attrs: Mapping[str, Any] = field(default_factory=lambda: NO_ATTRS)


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """`buffer[index]`; where `guard` is false, 0 and no memory is touched."""

    buffer: Buffer
    index: tuple[Expr, ...]
    guard: Expr | None = None

    @property
    def dtype(self) -> DType:
        return self.buffer.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Local:
    """The result of a reduction in an earlier pass of the same row, a Contract's accumulator, or,
    in its own pass, what a Carry holds."""

    name: str
    dtype: DType


Expr: TypeAlias = Const | Index | Extent | Apply | Load | Local


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """`target = op over the pass's axes of value`.  op: add, mul, maximum, minimum, and, or.

    The empty reduction is the identity of op.  `target.dtype` is the accumulator's dtype.
    """

    target: Local
    op: str
    value: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Carry:
    """What one point of a pass hands on to the next: `target` is `start` at the first point, and
    at every other the `value` that the point before computed.  Running sums store `value`."""

    target: Local
    start: Expr
    value: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """`buffer[index] = value`; nothing where `guard` is false.

    accumulate: with what the element is combined: add, mul, maximum, minimum; "set" replaces it,
                and of several points that store one element the last one stays.  "": no other
                point of the kernel stores this element.
    """

    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr
    guard: Expr | None = None
    accumulate: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """One visit of the inner `axes` (outermost first; none: one point per row)."""

    axes: tuple[Axis, ...]
    reductions: tuple[Reduction, ...] = ()
    stores: tuple[Store, ...] = ()
    carries: tuple[Carry, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Nest:
    """`for rows: passes`.  Rows are independent of one another; passes of a row run in order.

    A pass that carries, or whose stores accumulate, visits its axes in order, outermost first.

    name:     says what it computes; part of the emitted symbol.
    buffers:  every buffer that is loaded or stored, in the order of the kernel's arguments.
    """

    name: str
    buffers: tuple[Buffer, ...]
    rows: tuple[Axis, ...]
    passes: tuple[Pass, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Contract:
    """`acc = sum over k of a * b` at every (batch, m, n), then `stores`.

    a, b:    expressions at the axes (batch..., m, k) and (batch..., k, n); usually one Load each
             whose index is affine in the axes.  `b` packed in panels is a Load of the packed
             buffer, see `packed`.
    packed:  None, or the panel width nr: `b.buffer` then has the shape
             [batch..., ceildiv(n, nr), k, nr], zero beyond n, and b reads
             [batch..., n//nr, k, n%nr].
    acc:     the accumulator, read by the stores' values.
    stores:  the epilogue, at the axes (batch..., m, n).
    """

    name: str
    buffers: tuple[Buffer, ...]
    batch: tuple[Axis, ...]
    m: Axis
    n: Axis
    k: Axis
    a: Load
    b: Load
    acc: Local
    stores: tuple[Store, ...]
    packed: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sort:
    """Each row of keys into ascending order; equal keys stay in theirs.

    order[row, i] is the position along `length` that the i-th least key had.

    buffers:  keys (signed integers; their contents are lost), order (i64), and room for as many
              again of each; all [row, length].
    """

    name: str
    buffers: tuple[Buffer, ...]
    row: Axis
    length: Axis

    @property
    def touched(self) -> tuple[Load, ...]:
        """Every buffer at every point."""
        at = (Index(self.row), Index(self.length))
        return tuple(Load(b, at) for b in self.buffers)


Kernel: TypeAlias = Nest | Contract | Sort


def operands(e: Expr) -> tuple[Expr, ...]:
    """The expressions that `e` is made of."""
    if isinstance(e, Apply):
        return e.args
    if isinstance(e, Load):
        return e.index if e.guard is None else (*e.index, e.guard)
    return ()


def walk(*roots: Expr) -> list[Expr]:
    """Every expression below `roots` once, each after its operands.  Any depth."""
    done: dict[Expr, None] = {}
    stack = [(r, False) for r in reversed(roots)]
    while stack:
        e, ready = stack.pop()
        if ready:
            done[e] = None
        elif e not in done:
            stack.append((e, True))
            stack.extend((x, False) for x in reversed(operands(e)) if x not in done)
    return list(done)


def kernel_stores(kernel: Kernel) -> tuple[Store, ...]:
    if isinstance(kernel, Contract):
        return kernel.stores
    if isinstance(kernel, Sort):
        return tuple(Store(e.buffer, e.index, e) for e in kernel.touched)
    return tuple(s for p in kernel.passes for s in p.stores)


def kernel_roots(kernel: Kernel) -> list[Expr]:
    """The expressions of a kernel in order, from which `walk` finds all others."""
    roots: list[Expr] = []
    if isinstance(kernel, Sort):
        return list(kernel.touched)
    if isinstance(kernel, Contract):
        roots += [kernel.a, kernel.b]
        passes = [Pass((), (), kernel.stores)]
    else:
        passes = list(kernel.passes)
    for p in passes:
        roots += [r.value for r in p.reductions]
        roots += [e for c in p.carries for e in (c.start, c.value)]
        for s in p.stores:
            roots += [*s.index, s.value, *([] if s.guard is None else [s.guard])]
    return roots


def kernel_axes(kernel: Kernel) -> tuple[Axis, ...]:
    """The axes of a kernel, outermost first, each once."""
    if isinstance(kernel, Contract):
        return (*kernel.batch, kernel.m, kernel.n, kernel.k)
    if isinstance(kernel, Sort):
        return (kernel.row, kernel.length)
    return tuple(dict.fromkeys([*kernel.rows, *(a for p in kernel.passes for a in p.axes)]))


def kernel_symbols(kernel: Kernel) -> tuple[Symbol, ...]:
    """The named sizes whose values a kernel needs at run time, sorted by name."""
    sizes = [a.extent for a in kernel_axes(kernel)]
    sizes += [s for b in kernel.buffers for s in b.shape]
    sizes += [e.size for e in walk(*kernel_roots(kernel)) if isinstance(e, Extent)]
    return tuple(sorted(frozenset().union(*map(size_symbols, sizes))))


Operand: TypeAlias = "Expr | Size"


class Expressions:
    """Makes expressions and simplifies index arithmetic while doing so.

    Handed to `Op.lower`, so that `ops` does not import `kernels`.  Equal expressions made by one
    Expressions are one object, so they can be compared with `is`.
    """

    true = Const(True, bool_)

    def __init__(self) -> None:
        self._interned: dict[Any, Expr] = {("const", "True", bool_): self.true}
        self._serial: dict[Expr, int] = {self.true: 0}
        self._linear: dict[Expr, Linear] = {}

    def _intern(self, key: Any, make: Callable[[], Expr]) -> Expr:
        e = self._interned.get(key)
        if e is None:
            e = self._interned[key] = make()
            self._serial[e] = len(self._serial)
        return e

    # Leaves.

    def const(self, value: float | bool, dtype: DType) -> Expr:
        return self._intern(("const", repr(value), dtype), lambda: Const(value, dtype))

    def size(self, size: Size) -> Expr:
        if isinstance(size, int):
            return self.const(size, i64)
        return self._intern(("size", size), lambda: Extent(size))

    def index(self, axis: Axis) -> Expr:
        """The position along an axis; the axis of one point is 0."""
        if axis.extent == 1:
            return self.const(0, i64)
        return self._intern(("index", axis), lambda: Index(axis))

    def local(self, name: str, dtype: DType) -> Local:
        e = self._intern(("local", name, dtype), lambda: Local(name, dtype))
        assert isinstance(e, Local)
        return e

    def load(self, buffer: Buffer, index: tuple[Expr, ...], guard: Expr | None = None) -> Expr:
        """`buffer[index]`, 0 where `guard` is false."""
        if isinstance(guard, Const):
            if not guard.value:
                return self.const(0.0 if buffer.dtype.is_float else 0, buffer.dtype)
            guard = None
        return self._intern(("load", buffer, index, guard), lambda: Load(buffer, index, guard))

    def _expr(self, x: Operand) -> Expr:
        if isinstance(x, int | Dim):
            return self.size(x)
        return self.index(x.axis) if isinstance(x, Index) else x

    def _apply(self, op: str, args: tuple[Expr, ...], dtype: DType, attrs: Any = NO_ATTRS) -> Expr:
        key = ("apply", op, args, dtype, tuple(attrs.items()))
        return self._intern(key, lambda: Apply(op, args, dtype, attrs))

    # Values.

    def apply(self, op: str, *args: Operand, **attrs: Any) -> Expr:
        """An elementwise operation; the dtype follows from its type rule."""
        exprs = tuple(self._expr(x) for x in args)
        (type,) = infer(op, tuple(TensorType(e.dtype) for e in exprs), attrs)
        return self._apply(op, exprs, type.dtype, MappingProxyType(attrs) if attrs else NO_ATTRS)

    def cast(self, x: Operand, dtype: DType) -> Expr:
        e = self._expr(x)
        if e.dtype == dtype:
            return e
        narrow = e.dtype.is_float and e.dtype.bits < dtype.bits
        if isinstance(e, Const) and dtype.is_float and (e.dtype.kind in "iub" or narrow):
            return self.const(float(e.value), dtype)
        wide = dtype.is_float and e.dtype.is_float and e.dtype.bits > dtype.bits
        if wide and isinstance(e, Apply) and e.op == "cast" and e.args[0].dtype == dtype:
            return e.args[0]  # by way of a wider float
        return self._apply("cast", (e,), dtype, MappingProxyType({"dtype": dtype}))

    def select(self, c: Expr, x: Operand, y: Operand) -> Expr:
        then, other = self._expr(x), self._expr(y)
        if isinstance(c, Const):
            return then if c.value else other
        return then if then is other else self._apply("select", (c, then, other), then.dtype)

    def both(self, p: Expr | None, q: Expr | None) -> Expr | None:
        """`p and q` of two guards; None is true."""
        p, q = (None if isinstance(x, Const) and x.value else x for x in (p, q))
        if p is None or p is q:
            return q
        if q is None or isinstance(p, Const):
            return p
        return q if isinstance(q, Const) else self._apply("and", (p, q), bool_)

    # Index arithmetic: linear forms over atoms, with sizes as coefficients.

    def linear(self, x: Operand) -> Linear:
        """`x` as a sum of sizes times atoms: indices of axes and what is not linear in them."""
        e = self._expr(x)
        form = self._linear.get(e)
        if form is None:
            form = self._linear[e] = self._to_linear(e)
        return form

    def _to_linear(self, e: Expr) -> Linear:
        for x in walk(e)[:-1]:  # operands first, so that depth costs no stack
            if x not in self._linear:
                self._linear[x] = self._linear_of(x)
        return self._linear_of(e)

    def _linear_of(self, e: Expr) -> Linear:
        match e:
            case Const(value=int(value)) if e.dtype == i64:
                return Linear({}, int(value))
            case Extent(size=size):
                return Linear({}, size)
            case Apply(op="add" | "sub" | "mul", args=(a, b)) if e.dtype == i64:
                left, right = self.linear(a), self.linear(b)
                if e.op != "mul":
                    return left.plus(right, 1 if e.op == "add" else -1)
                if not right.terms:
                    return left.times(right.constant)
                if not left.terms:
                    return right.times(left.constant)
        return Linear({self._expr(e): 1}, 0)

    def from_linear(self, form: Linear) -> Expr:
        """The expression of a linear form, in a canonical order."""
        form = self._recombine(form)
        total: Expr | None = None
        for atom in sorted(form.terms, key=self._order):
            factor = form.terms[atom]
            term = atom if factor == 1 else self._apply("mul", (atom, self.size(factor)), i64)
            total = term if total is None else self._apply("add", (total, term), i64)
        if total is None:
            return self.size(form.constant)
        if form.constant != 0:
            total = self._apply("add", (total, self.size(form.constant)), i64)
        self._linear.setdefault(total, form)
        return total

    def _order(self, atom: Expr) -> int:
        if atom not in self._serial:
            self._serial[atom] = len(self._serial)
        return self._serial[atom]

    def _recombine(self, form: Linear) -> Linear:
        """Undo a split: `c*(x // c) + x % c` is x."""
        for atom, factor in form.terms.items():
            if not (isinstance(atom, Apply) and atom.op == "mod"):
                continue
            whole = self.floordiv(*atom.args)
            if len(self.linear(whole).terms) == 1 and whole in form.terms:
                scaled = factor * self._constant(atom.args[1])
                if form.terms[whole] == scaled:
                    rest = {a: f for a, f in form.terms.items() if a is not atom and a is not whole}
                    smaller = Linear(rest, form.constant)
                    return self._recombine(smaller.plus(self.linear(atom.args[0]), factor))
        return form

    def _constant(self, e: Expr) -> Size:
        return self.linear(e).constant

    def add(self, a: Operand, b: Operand) -> Expr:
        return self.from_linear(self.linear(a).plus(self.linear(b), 1))

    def sub(self, a: Operand, b: Operand) -> Expr:
        return self.from_linear(self.linear(a).plus(self.linear(b), -1))

    def mul(self, a: Operand, b: Operand) -> Expr:
        left, right = self.linear(a), self.linear(b)
        if right.terms and left.terms:
            return self._apply("mul", (self._expr(a), self._expr(b)), i64)
        scaled = left.times(right.constant) if not right.terms else right.times(left.constant)
        return self.from_linear(scaled)

    def floordiv(self, a: Operand, b: Operand) -> Expr:
        """`a // b` for b > 0."""
        form, divisor = self.linear(a), self.linear(b)
        if divisor.terms:
            return self._apply("floor_div", (self._expr(a), self._expr(b)), i64)
        by = divisor.constant
        if by == 1:
            return self.from_linear(form)
        if by == 0:  # an empty axis: nobody is ever there
            return self.size(0)
        whole, rest = self._split(form, by)
        if self._within(rest, by):
            return self.from_linear(whole)
        if not rest.terms:
            return self.from_linear(Linear(whole.terms, whole.constant + rest.constant // by))
        rest, by = self._reduce(rest, by)
        match self.from_linear(rest):
            case Apply(op="floor_div", args=(x, inner)) if not self.linear(inner).terms:
                part = self.floordiv(x, self._constant(inner) * by)
            case e:
                part = self._apply("floor_div", (e, self.size(by)), i64)
        return self.from_linear(whole.plus(self.linear(part), 1))

    def mod(self, a: Operand, b: Operand) -> Expr:
        """`a % b` for b > 0."""
        form, divisor = self.linear(a), self.linear(b)
        if divisor.terms:
            return self._apply("mod", (self._expr(a), self._expr(b)), i64)
        by = divisor.constant
        if by in {0, 1}:
            return self.size(0)
        _, rest = self._split(form, by)
        if self._within(rest, by):
            return self.from_linear(rest)
        if not rest.terms:
            return self.size(rest.constant % by)
        return self._apply("mod", (self.from_linear(rest), self.size(by)), i64)

    def _split(self, form: Linear, by: Size) -> tuple[Linear, Linear]:
        """The form as `by * whole + rest`, with as much as divides in the whole."""
        whole: dict[Expr, Size] = {}
        rest: dict[Expr, Size] = {}
        for atom, factor in form.terms.items():
            q = exact_quotient(factor, by)
            if q is None:
                rest[atom] = factor
            else:
                whole[atom] = q
        q = exact_quotient(form.constant, by)
        if q is None and isinstance(by, int) and isinstance(form.constant, int):
            q = form.constant // by
        if q is None:
            return Linear(whole, 0), Linear(rest, form.constant)
        return Linear(whole, q), Linear(rest, form.constant - q * by)

    def _reduce(self, form: Linear, by: Size) -> tuple[Linear, Size]:
        """Divide form and divisor by what they share: (6*i + 1) // 12 = i // 2."""
        factors = [f for f in (*form.terms.values(), by) if isinstance(f, int)]
        if len(factors) <= len(form.terms) or not isinstance(form.constant, int):
            return form, by
        g = math.gcd(*factors)
        terms = {a: exact_quotient(f, g) or 0 for a, f in form.terms.items()}
        return Linear(terms, form.constant // g), exact_quotient(by, g) or 1

    def _within(self, form: Linear, by: Size) -> bool:
        low, high = self._bounds(form)
        if low is None or high is None:
            return False
        return is_at_least(low, 0) and is_at_least(by - 1, high)

    def bounds(self, x: Operand) -> tuple[Size | None, Size | None]:
        """Sizes between which `x` lies wherever its axes are not empty; None: unknown."""
        return self._bounds(self.linear(x))

    def _bounds(self, form: Linear) -> tuple[Size | None, Size | None]:
        low: Size | None = form.constant
        high: Size | None = form.constant
        for atom, factor in form.terms.items():
            ends = self._atom_bounds(atom)
            if is_at_least(0, factor):
                ends = (ends[1], ends[0])
            elif not is_at_least(factor, 0):
                return None, None
            low = None if low is None or ends[0] is None else low + ends[0] * factor
            high = None if high is None or ends[1] is None else high + ends[1] * factor
        return low, high

    def _atom_bounds(self, atom: Expr) -> tuple[Size | None, Size | None]:
        match atom:
            case Index(axis=axis):
                return 0, axis.extent - 1
            case Apply(op="mod", args=(_, by)) if not self.linear(by).terms:
                return 0, self._constant(by) - 1
            case Apply(op="floor_div", args=(x, by)) if not self.linear(by).terms:
                low, high = self.bounds(x)
                step = self._constant(by)
                return (None if low is None else floordiv(low, step)), (
                    None if high is None else floordiv(high, step)
                )
            case Apply(op="minimum", args=(x, y)) if atom.dtype == i64:
                return self.bounds(x)[0], self.bounds(y)[1]
            case Apply(op="maximum", args=(x, y)) if atom.dtype == i64:
                return self.bounds(y)[0], self.bounds(x)[1]
        return None, None

    def clamp(self, i: Operand, low: Operand, high: Operand) -> Expr:
        """`min(max(i, low), high)`, without what the range of i makes needless."""
        if self.sub(high, low) is self.size(0):
            return self._expr(low)
        x = self._expr(i)
        if not self._proved(self.sub(x, low)):
            x = self._apply("maximum", (x, self._expr(low)), i64)
        if not self._proved(self.sub(high, x)):
            x = self._apply("minimum", (x, self._expr(high)), i64)
        return x

    def _proved(self, difference: Expr) -> bool:
        low, _ = self.bounds(difference)
        return low is not None and is_at_least(low, 0)

    def le(self, a: Operand, b: Operand) -> Expr:
        return self._compare("le", a, b, self.sub(b, a), self.sub(self.sub(a, b), 1))

    def lt(self, a: Operand, b: Operand) -> Expr:
        return self._compare("lt", a, b, self.sub(self.sub(b, a), 1), self.sub(a, b))

    def ge(self, a: Operand, b: Operand) -> Expr:
        return self._compare("ge", a, b, self.sub(a, b), self.sub(self.sub(b, a), 1))

    def eq(self, a: Operand, b: Operand) -> Expr:
        difference = self.linear(self.sub(a, b))
        if not difference.terms and isinstance(difference.constant, int):
            return self.const(difference.constant == 0, bool_)
        return self._apply("eq", (self._expr(a), self._expr(b)), bool_)

    def _compare(self, op: str, a: Operand, b: Operand, yes: Expr, no: Expr) -> Expr:
        if self._proved(yes):
            return self.true
        if self._proved(no):
            return self.const(False, bool_)
        return self._apply(op, (self._expr(a), self._expr(b)), bool_)

    # Shapes.

    def flatten(self, index: Sequence[Operand], shape: Sequence[Size]) -> Expr:
        """The row-major position of `index` in an array of `shape`."""
        total = Linear({}, 0)
        for i, extent in zip(index, shape, strict=True):
            total = total.times(extent).plus(self.linear(i), 1)
        return self.from_linear(total)

    def unflatten(self, position: Operand, shape: Sequence[Size]) -> tuple[Expr, ...]:
        """The index of a row-major position; `flatten` undoes it."""
        index: list[Expr] = []
        rest = self._expr(position)
        for axis in range(len(shape)):
            inner = product(shape[axis + 1 :])
            if shape[axis] == 1:
                index.append(self.size(0))
            elif axis == len(shape) - 1:
                index.append(rest)
            else:
                index.append(self.floordiv(rest, inner))
                rest = self.mod(rest, inner)
        return tuple(index)

    def substitute(self, roots: Sequence[Expr], axes: Mapping[Axis, Expr]) -> tuple[Expr, ...]:
        """`roots` with other expressions for the indices of some axes, simplified again."""
        new: dict[Expr, Expr] = {}
        for e in walk(*roots):
            new[e] = self._rebuild(e, new, axes)
        return tuple(new[r] for r in roots)

    def _rebuild(self, e: Expr, new: Mapping[Expr, Expr], axes: Mapping[Axis, Expr]) -> Expr:
        match e:
            case Index(axis=axis):
                return axes[axis] if axis in axes else self.index(axis)
            case Load(buffer=buffer):
                guard = None if e.guard is None else new[e.guard]
                guard = None if guard is self.true else guard
                return self.load(buffer, tuple(new[i] for i in e.index), guard)
            case Apply(args=args):
                return self.rebuild(e, tuple(new[a] for a in args))
        return e

    def rebuild(self, e: Apply, args: tuple[Expr, ...]) -> Expr:
        """`e` with other operands, simplified where it is index arithmetic."""
        if all(x is y for x, y in zip(args, e.args, strict=True)):
            return e
        if e.op == "select":
            return self.select(*args)
        if e.op == "and" and e.dtype == bool_:
            return self.both(*args) or self.true
        if args[0].dtype == i64 and len(args) == 2:
            simplify = {
                "add": self.add,
                "sub": self.sub,
                "mul": self.mul,
                "floor_div": self.floordiv if self._positive(args[1]) else None,
                "mod": self.mod if self._positive(args[1]) else None,
                "lt": self.lt,
                "le": self.le,
                "ge": self.ge,
            }.get(e.op)
            if simplify is not None:
                return simplify(*args)
        return self._apply(e.op, args, e.dtype, e.attrs)

    def _positive(self, e: Expr) -> bool:
        form = self.linear(e)
        return not form.terms and (not isinstance(form.constant, int) or form.constant > 0)


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """`constant + sum of terms[atom] * atom`; no factor is 0."""

    terms: Mapping[Expr, Size]
    constant: Size

    def plus(self, other: Linear, factor: Size) -> Linear:
        terms = dict(self.terms)
        for atom, f in other.terms.items():
            terms[atom] = terms.get(atom, 0) + f * factor
        kept = {a: f for a, f in terms.items() if f != 0}
        return Linear(kept, self.constant + other.constant * factor)

    def times(self, factor: Size) -> Linear:
        terms = {a: f * factor for a, f in self.terms.items() if factor != 0}
        return Linear(terms, self.constant * factor)

    @property
    def affine(self) -> bool:
        """Whether it depends on the axes through their indices alone."""
        return all(isinstance(a, Index) for a in self.terms)

    def stride(self, axis: Axis) -> Size | None:
        """The change for a step along `axis`; None: not the same everywhere."""
        total: Size = 0
        for atom, factor in self.terms.items():
            if isinstance(atom, Index):
                total = total + factor if atom.axis is axis else total
            elif any(isinstance(e, Index) and e.axis is axis for e in walk(atom)):
                return None
        return total
