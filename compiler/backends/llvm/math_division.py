"""fmod, and Python's // and % of floats.

The remainder is exact: a long division, a digit of many bits at a time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fluxc.compiler.backends.llvm.arithmetic import any_lane, function, outlined, scale, times
from fluxc.compiler.functions.floats import bits_of
from fluxc.compiler.functions.logarithm import SMALLEST_NORMAL
from fluxc.compiler.ir.types import f32, f64

if TYPE_CHECKING:
    from fluxc.compiler.backends.llvm.scalar import LlvmScalar

__all__ = ["floor_div", "fmod", "mod"]

DIGIT = 40  # bits of a quotient digit; a rounded one is wrong by at most 1


@function
def fmod(x: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    """x - n * y with n = x / y rounded towards zero; NaN for infinite x and for y = 0."""
    if x.dtype == f32:
        return _fmod(x.cast(f64), y.cast(f64)).cast(f32)
    return _fmod(x, y)


@outlined
def _fmod(x: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    valid = x.abs().lt(math.inf) & y.abs().gt(0.0)
    size = valid.select(y.abs(), 1.0)
    rest = _long_division(valid.select(x.abs(), 0.0), size)
    invalid = (x.is_nan() | y.is_nan()).select(x + y, x.like(math.nan))
    return valid.select(rest.copysign(x), invalid)


def _long_division(x: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    """x modulo y for finite x >= 0 and y > 0."""
    b = x.b
    before = b.block
    test, loop, done = (b.append_basic_block(name) for name in ("test", "digit", "done"))
    b.branch(test)
    b.position_at_end(test)
    phi = b.phi(x.v.type)
    phi.add_incoming(x.v, before)
    rest = x.with_value(phi)
    b.cbranch(any_lane(rest.ge(y)), loop, done)
    b.position_at_end(loop)
    phi.add_incoming(_digit(rest, y).v, b.block)
    b.branch(test)
    b.position_at_end(done)
    return rest


def _digit(rest: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    """`rest` less the largest multiple of y * 2**j, where j keeps the digit to DIGIT bits."""
    tiny = y.lt(SMALLEST_NORMAL[64])
    normal = tiny.select(y * 2.0**52, y)
    gap = bits_of(rest).shr(52) - bits_of(normal).shr(52) - DIGIT
    least = tiny.select(gap.like(-52), 0)
    # The exponent of a denormal says little; with a denormal `rest`, y itself is close enough.
    usual = gap.gt(least) & rest.ge(SMALLEST_NORMAL[64])
    divisor = scale(normal, usual.select(gap, least))
    product, lost = times((rest / divisor).trunc(), divisor)
    left = (rest - product) - lost
    left = left.lt(0.0).select(left + divisor, left)
    left = left.ge(divisor).select(left - divisor, left)
    return rest.ge(y).select(left, rest)


@function
def mod(x: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    """The remainder with the sign of y, as in Python."""
    if x.dtype == f32:
        return mod(x.cast(f64), y.cast(f64)).cast(f32)
    rest = fmod(x, y)
    wrong = rest.ne(0.0) & rest.lt(0.0).ne(y.lt(0.0))
    return wrong.select(rest + y, rest.eq(0.0).select(rest.copysign(y), rest))


@function
def floor_div(x: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    """floor(x / y) of the exact quotient; x / y where y is 0."""
    if x.dtype == f32:  # in f32 x less the remainder is not exact
        return floor_div(x.cast(f64), y.cast(f64)).cast(f32)
    rest = fmod(x, y)
    quotient = (x - rest) / y
    wrong = rest.ne(0.0) & rest.lt(0.0).ne(y.lt(0.0))
    quotient = wrong.select(quotient - 1.0, quotient)
    floor = quotient.floor()
    floor = (quotient - floor).gt(0.5).select(floor + 1.0, floor)
    whole = quotient.eq(0.0).select(quotient.like(0.0).copysign(x / y), floor)
    return y.eq(0.0).select(x / y, whole)
