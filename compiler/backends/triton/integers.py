"""Integer arithmetic without an undefined case, as docs/numerics.md has it.

x // 0 = 0, x mod 0 = 0, the smallest integer // -1 wraps to itself; signs as in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxc.compiler.backends.triton.scalar import TritonScalar

__all__ = ["floor_div", "mod", "power", "remainder", "shift_left", "shift_right"]


def _width(amount: TritonScalar) -> TritonScalar | bool:
    """Whether a shift is by less than the width: an answer, or the question in Triton's words."""
    bits = amount.dtype.bits
    if amount.number is not None:
        return 0 <= amount.number < bits
    below = amount.lt(bits)
    return below if amount.dtype.kind == "u" else amount.ge(0) & below


def shift_left(x: TritonScalar, amount: TritonScalar) -> TritonScalar:
    amount = amount.named()
    inside = _width(amount)
    if isinstance(inside, bool):
        return x.truncating("<<", amount) if inside else x.like(0)
    return inside.select(x.truncating("<<", amount), 0)


def shift_right(x: TritonScalar, amount: TritonScalar) -> TritonScalar:
    amount = amount.named()
    inside = _width(amount)
    if isinstance(inside, bool):
        most = x.like(x.dtype.bits - 1)
        if inside or x.dtype.kind == "i":
            return x.truncating(">>", amount if inside else most)
        return x.like(0)
    if x.dtype.kind == "u":
        return inside.select(x.truncating(">>", amount), 0)
    return x.truncating(">>", inside.select(amount, x.dtype.bits - 1))


def _safe(x: TritonScalar, y: TritonScalar) -> TritonScalar:
    """The divisor with 0 and -1 replaced by 1."""
    unsafe = y.eq(0) | y.eq(-1) if x.dtype.kind == "i" else y.eq(0)
    return unsafe.select(y.like(1), y).named()


def floor_div(x: TritonScalar, y: TritonScalar) -> TritonScalar:
    safe = _safe(x, y)
    quotient = x.truncating("//", safe).named()
    if x.dtype.kind == "u":
        return y.eq(0).select(quotient.like(0), quotient)
    rest = (x - quotient * safe).named()
    quotient = _wrong_sign(rest, safe).select(quotient - 1, quotient)
    return y.eq(0).select(quotient.like(0), y.eq(-1).select(-x, quotient))


def mod(x: TritonScalar, y: TritonScalar) -> TritonScalar:
    safe = _safe(x, y)
    rest = x.truncating("%", safe).named()
    return rest if x.dtype.kind == "u" else _wrong_sign(rest, safe).select(rest + safe, rest)


def remainder(x: TritonScalar, y: TritonScalar) -> TritonScalar:
    """What the truncating division leaves, with the sign of x."""
    return x.truncating("%", _safe(x, y))


def _wrong_sign(rest: TritonScalar, divisor: TritonScalar) -> TritonScalar:
    return rest.ne(0) & (rest ^ divisor).lt(0)


def power(x: TritonScalar, exponent: TritonScalar) -> TritonScalar:
    """x ** exponent by repeated squaring; a negative exponent truncates to 0.

    Read as unsigned, a negative exponent is right for 1 and -1.
    """
    out = x.out
    result = x.raw(out.let(f"{x.text} * 0 + 1", "result"))  # of x's shape, as in every turn
    square = x.raw(out.let(x.text, "square"))
    bit = x.raw("bit")
    out.line(f"for bit in tl.static_range({x.dtype.bits}):")
    out.indent += 1
    used = (exponent.truncating(">>", bit) & 1).ne(0)
    out.let(used.select(result * square, result).text, "result")
    out.let((square * square).text, "square")
    out.indent -= 1
    if x.dtype.kind == "u":
        return result
    vanishes = exponent.lt(0) & x.ne(1) & x.ne(-1)
    return vanishes.select(x.like(0), result)
