"""Sizes: integers, and polynomials over named sizes that are known when an entry is called.

A `Dim` is kept in one canonical form, so that equal polynomials are equal objects:
`2*(n + 1)` and `n*2 + 2` are one size.  A `Dim` that turns out to be constant is an `int`.
What a polynomial cannot say (`n // 2`, `max(n - 1, 0)`) is an opaque atom inside it.
"""

from __future__ import annotations

import ast
import functools
import keyword
import math
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Union, cast

from fluxc.compiler.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "Atom",
    "Dim",
    "Size",
    "Symbol",
    "ceildiv",
    "dim",
    "evaluate_size",
    "exact_quotient",
    "floordiv",
    "is_at_least",
    "is_multiple_of",
    "largest",
    "parse_size",
    "product",
    "size_bounds",
    "size_symbols",
    "smallest",
    "symbol_size",
]


@dataclass(frozen=True, slots=True, order=True)
class Symbol:
    """A named size and what it may be: min <= size <= max, a multiple of multiple_of."""

    name: str
    min: int = 0
    max: int = 2**62
    multiple_of: int = 1

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Opaque:
    """`kind(left, right)` where no polynomial says it.  kind: floordiv, max or min."""

    kind: str
    left: Size
    right: Size

    def __str__(self) -> str:
        if self.kind == "floordiv":
            return f"{_parens(self.left)}//{_parens(self.right)}"
        return f"{self.kind}({self.left}, {self.right})"


T = TypeVar("T")
Atom: TypeAlias = Symbol | Opaque
Monomial: TypeAlias = tuple[Atom, ...]  # sorted by text, repeated for powers; () is the constant 1
Size: TypeAlias = Union[int, "Dim"]


def _with_sizes(f: Callable[[Dim, Size], T]) -> Callable[[Dim, Size], T]:
    """Arithmetic with sizes alone: a tensor's own operators take the rest, or nobody does."""

    @functools.wraps(f)
    def operator(self: Dim, other: Any) -> T:
        if isinstance(other, int | Dim):
            return f(self, other)
        # NotImplemented is what Python asks of an operator, and of no declared type.
        return f(self, int(other)) if isinstance(other, Integral) else cast("T", NotImplemented)

    return operator


@dataclass(frozen=True, slots=True)
class Dim:
    """A non-constant polynomial with integer coefficients.  Build it with `dim` and arithmetic.

    `==` holds for sizes that are one for all values of their symbols.  The order of two sizes is
    known where their ranges decide it.  Errors  ShapeError elsewhere.
    """

    terms: tuple[tuple[Monomial, int], ...]  # sorted by text, no zero coefficient

    @_with_sizes
    def __add__(self, other: Size) -> Size:
        return _canonical(_terms(self) + _terms(other))

    @_with_sizes
    def __mul__(self, other: Size) -> Size:
        return _canonical(
            [(_monomial(a + b), x * y) for a, x in _terms(self) for b, y in _terms(other)]
        )

    def __neg__(self) -> Size:
        return _canonical([(m, -f) for m, f in self.terms])

    @_with_sizes
    def __sub__(self, other: Size) -> Size:
        return self + -other

    @_with_sizes
    def __rsub__(self, other: Size) -> Size:
        return -self + other

    @_with_sizes
    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other)

    @_with_sizes
    def __mod__(self, other: Size) -> Size:
        return self - floordiv(self, other) * other

    @_with_sizes
    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self)

    @_with_sizes
    def __rmod__(self, other: Size) -> Size:
        return other - floordiv(other, self) * self

    @_with_sizes
    def __lt__(self, other: Size) -> bool:
        return _decided(self, other, "<", is_at_least(other - 1, self), is_at_least(self, other))

    @_with_sizes
    def __le__(self, other: Size) -> bool:
        return _decided(self, other, "<=", is_at_least(other, self), is_at_least(self - 1, other))

    @_with_sizes
    def __gt__(self, other: Size) -> bool:
        return _decided(self, other, ">", is_at_least(self - 1, other), is_at_least(other, self))

    @_with_sizes
    def __ge__(self, other: Size) -> bool:
        return _decided(self, other, ">=", is_at_least(self, other), is_at_least(other - 1, self))

    def __bool__(self) -> bool:
        return _decided(self, 0, "!=", is_at_least(self, 1) or is_at_least(-1, self), False)

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        text = ""
        for monomial, factor in self.terms:
            sign = "-" if factor < 0 else "+" if text else ""
            spaced = f" {sign} " if text else sign
            text += spaced + _term_text(monomial, factor)
        return text

    def __repr__(self) -> str:
        return f"Dim({self})"


def _decided(left: Size, right: Size, relation: str, yes: bool, no: bool) -> bool:
    if not yes and not no:
        raise ShapeError(
            f"whether {left} {relation} {right} is known only when the program runs",
            hint="fx.where(fx.array(size) > 1, x, y), or a range: fx.dim('n', min=..., max=...)",
        )
    return yes


def _term_text(monomial: Monomial, factor: int) -> str:
    """`3*n*(m//2)`, without the sign.  Only a quotient that stands alone needs no parentheses."""
    alone = factor == 1 and len(monomial) == 1
    names = [
        f"({a})" if isinstance(a, Opaque) and a.kind == "floordiv" and not alone else str(a)
        for a in monomial
    ]
    if abs(factor) != 1 or not names:
        names.insert(0, str(abs(factor)))
    return "*".join(names)


def _parens(size: Size) -> str:
    text = str(size)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _terms(size: Size) -> list[tuple[Monomial, int]]:
    return list(size.terms) if isinstance(size, Dim) else [((), size)]


def _monomial(atoms: Monomial) -> Monomial:
    return tuple(sorted(atoms, key=str))


def _order(term: tuple[Monomial, int]) -> tuple[int, str]:
    monomial, _ = term
    return -len(monomial), "*".join(map(str, monomial))


def _canonical(terms: Iterable[tuple[Monomial, int]]) -> Size:
    total: dict[Monomial, int] = {}
    for monomial, factor in _without_exact_quotients(terms):
        total[monomial] = total.get(monomial, 0) + factor
    kept = sorted(((m, f) for m, f in total.items() if f), key=_order)
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    return Dim(tuple(kept))


def _without_exact_quotients(
    terms: Iterable[tuple[Monomial, int]],
) -> Iterator[tuple[Monomial, int]]:
    """The terms, where `8*(n//8)` is n if n is known to be a multiple of 8."""
    for monomial, factor in terms:
        for atom in monomial:
            divisor = _exact_divisor(atom)
            if divisor and isinstance(atom, Opaque) and factor % divisor == 0:
                rest, times = _without(monomial, atom), factor // divisor
                inner = [(_monomial(m + rest), f * times) for m, f in _terms(atom.left)]
                yield from _without_exact_quotients(inner)
                break
        else:
            yield monomial, factor


def _exact_divisor(atom: Atom) -> int:
    """d, where the atom is `x // d` of an x that d divides; else 0."""
    if not isinstance(atom, Opaque) or atom.kind != "floordiv" or not isinstance(atom.right, int):
        return 0
    return atom.right if is_multiple_of(atom.left, atom.right) else 0


def symbol_size(symbol: Symbol) -> Size:
    """The size that is one symbol; a symbol whose range is a single value is that value."""
    return symbol.min if symbol.min == symbol.max else Dim((((symbol,), 1),))


def dim(name: str, *, min: int = 0, max: int | None = None, multiple_of: int = 1) -> Size:
    """A named size with a range: `min <= size <= max` and divisible by `multiple_of`.

    Errors  ValueError if the range is empty or the name is not an ASCII identifier.
    """
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name):
        raise ValueError(f"a dimension's name must be an identifier, got {name!r}")
    upper = 2**62 if max is None else max
    if min < 0 or multiple_of < 1 or -(-min // multiple_of) * multiple_of > upper:
        raise ValueError(
            f"dimension {name!r} has no legal size: min={min}, max={max}, multiple_of={multiple_of}"
        )
    return symbol_size(Symbol(name, min, upper, multiple_of))


def _opaque(kind: str, left: Size, right: Size) -> Size:
    return Dim((((Opaque(kind, left, right),), 1),))


def floordiv(left: Size, right: Size) -> Size:
    """`left // right`, exact where the polynomial divides and opaque elsewhere."""
    if isinstance(right, int) and right == 0:
        raise ZeroDivisionError(f"{left} // 0 is not a size")
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    exact = exact_quotient(left, right)
    if exact is not None:
        return exact
    if isinstance(left, Dim) and isinstance(right, int) and right > 0:
        # (right*q + r) // right = q + r // right holds for every integer q.
        whole = _canonical([(m, f // right) for m, f in left.terms])
        rest = _canonical([(m, f % right) for m, f in left.terms])
        low, high = size_bounds(rest)
        if low >= 0 and high < right:
            return whole
        common = math.gcd(right, *(f for _, f in _terms(rest)))
        rest = _canonical([(m, f // common) for m, f in _terms(rest)])
        return whole + _opaque("floordiv", rest, right // common)
    return _opaque("floordiv", left, right)


def ceildiv(left: Size, right: Size) -> Size:
    return -floordiv(-left, right) if isinstance(left, int) else floordiv(left + right - 1, right)


def largest(left: Size, right: Size) -> Size:
    """`max(left, right)`, decided where the ranges decide it."""
    if is_at_least(left, right):
        return left
    if is_at_least(right, left):
        return right
    return _opaque("max", *sorted((left, right), key=str))


def smallest(left: Size, right: Size) -> Size:
    """`min(left, right)`, decided where the ranges decide it."""
    if is_at_least(left, right):
        return right
    if is_at_least(right, left):
        return left
    return _opaque("min", *sorted((left, right), key=str))


def exact_quotient(left: Size, right: Size) -> Size | None:
    """`left / right` where it is a polynomial, else None.  `right` must not be zero when used."""
    if isinstance(left, int) and isinstance(right, int):
        return left // right if right and left % right == 0 else None
    if left == 0:
        return 0
    if left == right:
        return 1
    divisor = _terms(right)
    if len(divisor) == 1:
        atoms, factor = divisor[0]
        quotient = [_divide_term(term, atoms, factor) for term in _terms(left)]
        return None if None in quotient else _canonical([q for q in quotient if q is not None])
    return _long_division(left, right)


def _divide_term(
    term: tuple[Monomial, int], atoms: Monomial, factor: int
) -> tuple[Monomial, int] | None:
    rest = list(term[0])
    for atom in atoms:
        if atom not in rest:
            return None
        rest.remove(atom)
    if factor == 0 or term[1] % factor:
        return None
    return tuple(rest), term[1] // factor


def _long_division(left: Size, right: Size) -> Size | None:
    """Divide by a polynomial of several terms, leading term by leading term."""
    quotient: Size = 0
    atoms, factor = _terms(right)[0]
    for _ in range(32):
        if left == 0:
            return quotient
        step = _divide_term(_terms(left)[0], atoms, factor)
        if step is None:
            return None
        part = _canonical([step])
        quotient, left = quotient + part, left - part * right
    return None


def product(sizes: Iterable[Size]) -> Size:
    return math.prod(sizes, start=1)


@lru_cache(maxsize=65536)
def size_bounds(size: Size) -> tuple[float, float]:
    """The least and the greatest value that `size` can take, by interval arithmetic."""
    if isinstance(size, int):
        return size, size
    # Integers stay integers: a float would round the bounds of large sizes.
    low: float = 0
    high: float = 0
    for monomial, factor in size.terms:
        least, most = _bounds_of_product((factor, factor), (1, 1))
        for atom in monomial:
            least, most = _bounds_of_product((least, most), _atom_bounds(atom))
        low, high = low + least, high + most
    return low, high


def _bounds_of_product(x: tuple[float, float], y: tuple[float, float]) -> tuple[float, float]:
    corners = [0 if a == 0 or b == 0 else a * b for a in x for b in y]  # 0 * inf is 0 here
    return min(corners), max(corners)


def _bounds_of_quotient(x: tuple[float, float], y: tuple[float, float]) -> tuple[float, float]:
    if y[0] <= 0:
        return -math.inf, math.inf
    corners = [
        a if math.isinf(a) else (0 if a >= 0 else -1) if math.isinf(b) else a // b
        for a in x
        for b in y
    ]
    return min(corners), max(corners)


def _atom_bounds(atom: Atom) -> tuple[float, float]:
    if isinstance(atom, Symbol):
        first = -(-atom.min // atom.multiple_of) * atom.multiple_of
        return first, atom.max // atom.multiple_of * atom.multiple_of
    x, y = size_bounds(atom.left), size_bounds(atom.right)
    if atom.kind == "floordiv":
        return _bounds_of_quotient(x, y)
    pick = max if atom.kind == "max" else min
    return pick(x[0], y[0]), pick(x[1], y[1])


def is_at_least(left: Size, right: Size) -> bool:
    """Whether `left >= right` for every value of the symbols, as far as the ranges prove it."""
    return _is_nonnegative(left - right, 6)


@lru_cache(maxsize=65536)
def _is_nonnegative(size: Size, tries: int) -> bool:
    """By interval arithmetic, else without a factor that all terms share, else by replacing one
    opaque atom by its polynomial bounds."""
    if size_bounds(size)[0] >= 0:
        return True
    if isinstance(size, int) or tries == 0:
        return False
    shared = set.intersection(*(set(monomial) for monomial, _ in size.terms))
    for atom in (a for a in shared if _atom_bounds(a)[0] >= 0):
        if _is_nonnegative(_canonical((_without(m, atom), f) for m, f in size.terms), tries):
            return True
    # A name alone is bounded well by its range; in a product its bounds lose the other factors.
    atoms = {
        a: None
        for monomial, _ in size.terms
        for a in monomial
        if isinstance(a, Opaque) or len(monomial) > 1
    }
    return any(_is_nonnegative_at(size, atom, tries - 1) for atom in atoms)


def _is_nonnegative_at(size: Dim, atom: Atom, tries: int) -> bool:
    """Whether `rest + factor * atom >= 0` where the sign of the factor is known."""
    rest = _canonical((m, f) for m, f in size.terms if atom not in m)
    factor = _canonical((_without(m, atom), f) for m, f in size.terms if atom in m)
    low, high = size_bounds(factor)
    if low < 0 < high:
        return False
    if isinstance(atom, Symbol):
        least, most = (int(bound) for bound in _atom_bounds(atom))
        return _is_nonnegative(rest + factor * (least if low >= 0 else most), tries)
    if atom.kind == "floordiv":
        if not isinstance(atom.right, int) or atom.right < 1:
            return False
        # left - right + 1 <= right * (left // right) <= left, and sizes are integers.
        bound = atom.left - atom.right + 1 if low >= 0 else atom.left
        return _is_nonnegative(rest * atom.right + factor * bound + atom.right - 1, tries)
    cases = (_is_nonnegative(rest + factor * side, tries) for side in (atom.left, atom.right))
    return any(cases) if (atom.kind == "max") == (low >= 0) else all(cases)


def _without(monomial: Monomial, atom: Atom) -> Monomial:
    at = monomial.index(atom)
    return monomial[:at] + monomial[at + 1 :]


def is_multiple_of(size: Size, factor: int) -> bool:
    """Whether `size` is divisible by `factor` for every value of the symbols."""
    return all(
        f * math.prod(a.multiple_of for a in m if isinstance(a, Symbol)) % factor == 0
        for m, f in _terms(size)
    )


def evaluate_size(size: Size, values: Mapping[str, int]) -> int:
    """The number that `size` is when the symbols have `values`."""
    if isinstance(size, int):
        return size
    return sum(f * math.prod(_evaluate_atom(a, values) for a in m) for m, f in size.terms)


def _evaluate_atom(atom: Atom, values: Mapping[str, int]) -> int:
    if isinstance(atom, Symbol):
        return values[atom.name]
    left, right = evaluate_size(atom.left, values), evaluate_size(atom.right, values)
    if atom.kind == "floordiv":
        return left // right
    return max(left, right) if atom.kind == "max" else min(left, right)


def size_symbols(size: Size) -> frozenset[Symbol]:
    """The symbols that `size` depends on."""
    if isinstance(size, int):
        return frozenset()
    found: set[Symbol] = set()
    for monomial, _ in size.terms:
        for atom in monomial:
            found |= {atom} if isinstance(atom, Symbol) else _opaque_symbols(atom)
    return frozenset(found)


def _opaque_symbols(atom: Opaque) -> frozenset[Symbol]:
    return size_symbols(atom.left) | size_symbols(atom.right)


def parse_size(text: str, symbols: Mapping[str, Symbol] | None = None) -> Size:
    """Read integer arithmetic on names: `n`, `2*n + 1`, `n//2`, `max(n - 1, 0)`.

    symbols  known ranges by name; other names become unbounded symbols.
    Errors   ValueError that quotes the text if it is anything else.
    """
    try:
        return _read_size(ast.parse(text.strip(), mode="eval").body, symbols or {})
    except (SyntaxError, ZeroDivisionError, _NotASizeError):
        raise ValueError(f"not a size: {text!r}") from None


class _NotASizeError(Exception):
    pass


_ARITHMETIC: dict[type[ast.operator], Callable[[Size, Size], Size]] = {
    ast.Add: lambda x, y: x + y,
    ast.Sub: lambda x, y: x - y,
    ast.Mult: lambda x, y: x * y,
    ast.FloorDiv: floordiv,
    ast.Mod: lambda x, y: x - floordiv(x, y) * y,
}


def _read_size(node: ast.expr, symbols: Mapping[str, Symbol]) -> Size:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return symbol_size(symbols.get(name, Symbol(name)))
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return -_read_size(x, symbols)
        case ast.BinOp(left=x, op=op, right=y) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_read_size(x, symbols), _read_size(y, symbols))
        case ast.Call(func=ast.Name(id="max" | "min" as name), args=[x, y], keywords=[]):
            function = largest if name == "max" else smallest
            return function(_read_size(x, symbols), _read_size(y, symbols))
    raise _NotASizeError
