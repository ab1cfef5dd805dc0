"""Integer arithmetic that never traps and has no undefined case.

x // 0 = 0, x mod 0 = 0, the smallest integer // -1 wraps to itself; signs as in Python.
Shifts by the width or more (an unsigned reading of the amount) give 0, or the sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxc.compiler.backends.llvm.scalar import LlvmScalar

__all__ = ["floor_div", "mod", "power", "remainder", "shift_left", "shift_right"]


def shift_left(x: LlvmScalar, amount: LlvmScalar) -> LlvmScalar:
    x, value, count = x.aligned(amount)
    shifted = x.with_value(x.b.shl(value, count))  # poison beyond the width, and then not selected
    return _below_width(amount).select(shifted, 0)


def shift_right(x: LlvmScalar, amount: LlvmScalar) -> LlvmScalar:
    width = x.dtype.bits
    if x.dtype.kind == "u":
        x, value, count = x.aligned(amount)
        return _below_width(amount).select(x.with_value(x.b.lshr(value, count)), 0)
    safe = _below_width(amount).select(amount, width - 1)
    x, value, count = x.aligned(safe)
    return x.with_value(x.b.ashr(value, count))


def _below_width(amount: LlvmScalar) -> LlvmScalar:
    limit = amount.like(amount.dtype.bits)
    return amount.eq(0).with_value(amount.b.icmp_unsigned("<", amount.v, limit.v))


def _truncating(x: LlvmScalar, y: LlvmScalar) -> tuple[LlvmScalar, LlvmScalar, LlvmScalar]:
    """Quotient rounded towards zero, remainder, and the divisor with 0 and -1 replaced by 1."""
    unsafe = y.eq(0) | y.eq(-1) if x.dtype.kind == "i" else y.eq(0)
    safe = unsafe.select(y.like(1), y)
    x, left, right = x.aligned(safe)
    divide = x.b.sdiv if x.dtype.kind == "i" else x.b.udiv
    quotient = x.with_value(divide(left, right))
    return quotient, x - quotient * safe, safe


def floor_div(x: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    quotient, rest, safe = _truncating(x, y)
    if x.dtype.kind == "u":
        return y.eq(0).select(quotient.like(0), quotient)
    quotient = _wrong_sign(rest, safe).select(quotient - 1, quotient)
    return y.eq(0).select(quotient.like(0), y.eq(-1).select(-x, quotient))


def mod(x: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    _, rest, safe = _truncating(x, y)  # for 0 and -1 the divisor 1 leaves the right rest, 0
    return rest if x.dtype.kind == "u" else _wrong_sign(rest, safe).select(rest + safe, rest)


def remainder(x: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    """What the truncating division leaves, with the sign of x."""
    return _truncating(x, y)[1]


def _wrong_sign(rest: LlvmScalar, divisor: LlvmScalar) -> LlvmScalar:
    return rest.ne(0) & (rest ^ divisor).lt(0)


def power(x: LlvmScalar, exponent: LlvmScalar) -> LlvmScalar:
    """x ** exponent modulo 2**bits by repeated squaring; a negative exponent truncates to 0.

    Read as unsigned, a negative exponent is right for 1 and -1.
    """
    result, square = x.like(1), x
    for bit in range(x.dtype.bits):
        used = (exponent & (1 << bit)).ne(0)
        result = used.select(result * square, result)
        square = square * square
    if x.dtype.kind == "u":
        return result
    vanishes = exponent.lt(0) & x.ne(1) & x.ne(-1)
    return vanishes.select(x.like(0), result)
