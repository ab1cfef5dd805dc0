"""The remainder of a large number modulo pi/2, in integer arithmetic (Payne and Hanek 1983).

x = m * 2**e with a 53-bit integer m.  Of the digits of 2/pi those that contribute multiples of 4 to
x * 2/pi are skipped; 192 more give the quadrant and 126 bits of the fraction, which is enough for
the double nearest to a multiple of pi/2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llvmlite import ir

from fluxc.compiler.backends.llvm.arithmetic import times
from fluxc.compiler.functions import coefficients as poly
from fluxc.compiler.functions.floats import bits_of, sum_of_two

if TYPE_CHECKING:
    from fluxc.compiler.backends.llvm.scalar import LlvmScalar

__all__ = ["large_argument"]

WIDE = ir.IntType(128)
MANTISSA_MASK = (1 << 52) - 1


def large_argument(x: LlvmScalar) -> tuple[LlvmScalar, LlvmScalar, LlvmScalar]:
    """(high, low, quadrant) for one f64 |x| >= 2**20; NaN for infinities and NaN."""
    finite = x.abs().lt(math.inf)
    size = finite.select(x.abs(), x.like(2.0**20))
    bits = bits_of(size)
    m = (bits & MANTISSA_MASK) | (1 << 52)
    exponent = bits.shr(52) - 1075  # of m; the table starts 64 digits before the point
    quarter_turns = _product(m, _digits(x, exponent + 62))
    high, low, quadrant = _centred(x, quarter_turns)
    high, low = _times_half_pi(high, low)
    sign = x.like(1.0).copysign(x)
    quadrant = x.lt(0.0).select(-quadrant, quadrant)
    invalid = x - x  # NaN for both
    return finite.select(high * sign, invalid), finite.select(low * sign, invalid), quadrant


def _digits(x: LlvmScalar, offset: LlvmScalar) -> list[ir.Value]:
    """Three words of 2/pi from this digit on."""
    table = _table(x.b.module)
    word, shift = offset.shr(6), offset & 63
    return [_word(table, word + i, shift) for i in range(3)]


def _table(module: ir.Module) -> ir.GlobalVariable:
    name = "fx.two_over_pi"
    known = module.globals.get(name)
    if known is not None:
        return known
    words = [w - (1 << 64) if w >> 63 else w for w in poly.TWO_OVER_PI]
    kind = ir.ArrayType(ir.IntType(64), len(words))
    made = ir.GlobalVariable(module, kind, name)
    made.global_constant, made.linkage = True, "internal"
    made.initializer = ir.Constant(kind, words)
    return made


def _word(table: ir.GlobalVariable, at: LlvmScalar, shift: LlvmScalar) -> ir.Value:
    """64 digits that begin `shift` digits after the start of word `at`."""
    b, word = at.b, ir.IntType(64)
    load = lambda i: b.load(b.gep(table, [i], source_etype=word), typ=word)
    pair = b.or_(
        b.shl(b.zext(load(at.v), WIDE), ir.Constant(WIDE, 64)), b.zext(load((at + 1).v), WIDE)
    )
    return b.trunc(b.lshr(b.shl(pair, b.zext(shift.v, WIDE)), ir.Constant(WIDE, 64)), word)


def _product(m: LlvmScalar, words: list[ir.Value]) -> ir.Value:
    """The 128 bits of m * words below its multiples of 4, the first two of them the quadrant."""
    b = m.b
    m_wide, shift = b.zext(m.v, WIDE), ir.Constant(WIDE, 64)
    first, second, third = (b.mul(m_wide, b.zext(w, WIDE)) for w in words)
    return b.add(b.add(b.shl(first, shift), second), b.lshr(third, shift))


def _centred(x: LlvmScalar, turns: ir.Value) -> tuple[LlvmScalar, LlvmScalar, LlvmScalar]:
    """The nearest quadrant, and the fraction in [-1/2, 1/2] as a pair."""
    b, i64 = x.b, ir.IntType(64)
    wide = lambda value: ir.Constant(WIDE, value)
    quadrant = b.trunc(b.lshr(b.add(turns, wide(1 << 125)), wide(126)), i64)
    fraction = b.shl(turns, wide(2))  # signed, in units of 2**-128
    piece = lambda shift: b.and_(b.trunc(b.lshr(fraction, wide(shift)), i64), i64(0xFFFFFFFF))
    top = b.sitofp(b.trunc(b.ashr(fraction, wide(96)), i64), x.v.type)
    rest = [b.uitofp(piece(shift), x.v.type) for shift in (64, 32, 0)]
    a, c, d, e = (x.with_value(v) for v in (top, *rest))
    high, low = sum_of_two(a * 2.0**-32, c * 2.0**-64)
    high, low = sum_of_two(high, low + (d * 2.0**-96 + e * 2.0**-128))
    return high, low, bits_of(x).with_value(quadrant)


def _times_half_pi(high: LlvmScalar, low: LlvmScalar) -> tuple[LlvmScalar, LlvmScalar]:
    first, second = poly.HALF_PI[64]
    product, lost = times(high, high.like(first))
    return sum_of_two(product, lost + (high * second + low * first))
