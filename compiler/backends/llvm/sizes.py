"""Sizes as i64 values: polynomials over the symbols whose values a function was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from fluxc.compiler.ir.dims import Dim, Symbol, size_bounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluxc.compiler.ir.dims import Atom, Size

__all__ = ["I64", "Sizes"]

I64 = ir.IntType(64)


class Sizes:
    """Emits each size once, at the builder's place at its first use."""

    def __init__(self, b: ir.IRBuilder, symbols: Mapping[str, ir.Value]) -> None:
        self.b, self.symbols = b, symbols
        self.known: dict[Dim, ir.Value] = {}

    def value(self, size: Size) -> ir.Value:
        if not isinstance(size, Dim):
            return I64(size)
        if size not in self.known:
            self.known[size] = self._polynomial(size)
        return self.known[size]

    def _polynomial(self, size: Dim) -> ir.Value:
        total: ir.Value | None = None
        for monomial, factor in size.terms:
            term: ir.Value | None = None
            for atom in monomial:
                value = self._atom(atom)
                term = value if term is None else self.b.mul(term, value)
            if term is None:
                term = I64(factor)
            elif factor != 1:
                term = self.b.mul(term, I64(factor))
            total = term if total is None else self.b.add(total, term)
        assert total is not None, "a Dim has a term"
        return total

    def _atom(self, atom: Atom) -> ir.Value:
        if isinstance(atom, Symbol):
            return self.symbols[atom.name]
        left, right = self.value(atom.left), self.value(atom.right)
        if atom.kind == "floordiv":
            return self._floordiv(atom.left, left, atom.right, right)
        sign = ">" if atom.kind == "max" else "<"
        return self.b.select(self.b.icmp_signed(sign, left, right), left, right)

    def _floordiv(self, x: Size, left: ir.Value, y: Size, right: ir.Value) -> ir.Value:
        if size_bounds(x)[0] >= 0 and size_bounds(y)[0] > 0:
            return self.b.udiv(left, right)
        quotient = self.b.sdiv(left, right)
        rest = self.b.srem(left, right)
        opposite = self.b.icmp_signed("<", self.b.xor(rest, right), I64(0))
        inexact = self.b.icmp_signed("!=", rest, I64(0))
        return self.b.sub(quotient, self.b.zext(self.b.and_(opposite, inexact), I64))


def emit_bounded(b: ir.IRBuilder, symbols: Mapping[str, ir.Value], size: Size) -> ir.Value:
    """The size, or -1 where it may not fit in an i64."""
    exact = Sizes(b, symbols).value(size)
    if size_bounds(size)[1] < _TOO_LARGE:
        return exact
    fits = b.fcmp_ordered(
        "<", _estimate(b, symbols, size), ir.Constant(ir.DoubleType(), _TOO_LARGE)
    )
    return b.select(fits, exact, I64(-1))


_TOO_LARGE = 2.0**62  # leaves room for the rounding of the estimate


def _estimate(b: ir.IRBuilder, symbols: Mapping[str, ir.Value], size: Size) -> ir.Value:
    """At least the size, in f64, where nothing overflows."""
    number = lambda x: ir.Constant(ir.DoubleType(), float(x))
    if not isinstance(size, Dim):
        return number(size)
    total = number(0)
    for monomial, factor in size.terms:
        term = number(factor)
        for atom in monomial:
            term = b.fmul(term, _estimate_atom(b, symbols, atom))
        total = b.fadd(total, term)
    return total


def _estimate_atom(b: ir.IRBuilder, symbols: Mapping[str, ir.Value], atom: Atom) -> ir.Value:
    if isinstance(atom, Symbol):
        return b.sitofp(symbols[atom.name], ir.DoubleType())
    left, right = (_estimate(b, symbols, x) for x in (atom.left, atom.right))
    if atom.kind == "floordiv":
        return b.fdiv(left, right)
    sign = ">" if atom.kind == "max" else "<"
    return b.select(b.fcmp_ordered(sign, left, right), left, right)
