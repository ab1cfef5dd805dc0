"""cbrt and pow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fluxc.compiler.backends.llvm.arithmetic import function, outlined, scale, times
from fluxc.compiler.backends.llvm.math_exp import exp2
from fluxc.compiler.functions import coefficients as poly
from fluxc.compiler.functions.floats import bits_of, clamp, horner, integer_of, nearest, sum_of_two
from fluxc.compiler.functions.logarithm import SMALLEST_NORMAL, log2, split
from fluxc.compiler.ir.types import f32, f64, i32

if TYPE_CHECKING:
    from fluxc.compiler.backends.llvm.scalar import LlvmScalar

__all__ = ["cbrt", "pow"]


@function
def cbrt(x: LlvmScalar) -> LlvmScalar:
    """A third of the exponent, then Halley's iteration, which triples the correct digits."""
    bits = x.dtype.bits
    a = x.abs()
    tiny = a.lt(SMALLEST_NORMAL[bits])
    huge = a.gt(2.0**100)  # twice the cube would overflow
    a = a * tiny.select(a.like(2.0**54), huge.select(a.like(2.0**-54), 1.0))
    y = _third_of_exponent(a)
    for _ in range(2 if bits == 32 else 3):
        cube = y * y * y
        y = y - y * ((cube - a) / (cube * 2.0 + a))
    y = y * tiny.select(a.like(2.0**-18), huge.select(a.like(2.0**18), 1.0))
    usual = x.ne(0.0) & x.abs().lt(math.inf)
    return usual.select(y.copysign(x), x)


def _third_of_exponent(a: LlvmScalar) -> LlvmScalar:
    """Within 4 % of the cube root: the bits of a float are nearly its logarithm."""
    drop = a.dtype.bits - 32
    upper = bits_of(a).shr(drop).cast(i32)
    bias = 0x2A5119F2 if drop == 0 else 0x2A9F7893
    third = upper.with_value(a.b.udiv(upper.v, upper.like(3).v)) + bias
    return third.cast(integer_of(a.dtype)).shl(drop).bitcast(a.dtype)


@outlined
def pow(x: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    size = x.abs()
    # Where |x| is 0 or infinite use 2, and clamp y where it does not matter how large it is.
    ordinary = size.gt(0.0) & size.lt(math.inf)
    base = ordinary.select(size, x.like(2.0))
    limit = 2.0**72
    exponent = clamp(y, -limit, limit)
    result = _positive_power(base, exponent)
    grows = size.gt(1.0).select(y, -y).gt(0.0)
    result = ordinary.select(result, grows.select(x.like(math.inf), 0.0))
    return _special_powers(x, y, result)


def _special_powers(x: LlvmScalar, y: LlvmScalar, power: LlvmScalar) -> LlvmScalar:
    """|x| ** y with the sign of x ** y, and the cases that are not of that form."""
    half = y * 0.5
    whole = y.trunc().eq(y)
    odd = whole & half.trunc().ne(half)
    negative = bits_of(x).lt(0)
    result = (negative & odd).select(-power, power)
    result = (x.lt(0.0) & x.gt(-math.inf) & ~whole).select(x.like(math.nan), result)
    result = (x.is_nan() | y.is_nan()).select(x + y, result)
    one = x.eq(1.0) | y.eq(0.0) | (x.eq(-1.0) & y.abs().eq(math.inf))
    return one.select(x.like(1.0), result)


def _positive_power(x: LlvmScalar, y: LlvmScalar) -> LlvmScalar:
    if x.dtype == f32:  # f64 has digits to spare
        return exp2(log2(x.cast(f64)) * y.cast(f64)).cast(f32)
    high, low = _log(x)
    head, lost = times(high, y)
    rest = low.fma(y, lost)
    # Now the exponential of head + rest.
    k, n = nearest(clamp(head, -800.0, 800.0), 1 / math.log(2))
    ln2 = poly.LN2_THREE[64]
    r = k.fma(-ln2[0], clamp(head, -800.0, 800.0))
    r, more = sum_of_two(r, k * -ln2[1])
    tail = more - k * ln2[2] + rest
    r, tail = sum_of_two(r, head.abs().lt(800.0).select(tail, 0.0))
    curve = (r * r).fma(horner(r, poly.EXP), tail.fma(r, tail))
    return scale((curve + r) + 1.0, n)


def _log(x: LlvmScalar) -> tuple[LlvmScalar, LlvmScalar]:
    """log(x) for finite x > 0 as a pair, to about 2**-66 of its value.

    log(1+f) = 2s + 2/3 s**3 + s**5 P(s**2) with s = f / (2+f); the first two terms are pairs.
    """
    k, f = split(x)
    den, den_low = sum_of_two(f, f.like(2.0))
    s = f / den
    back, back_low = times(s, den)
    s_low = (((f - back) - back_low) - s * den_low) / den
    z, z_low = times(s, s)
    z_low = z_low + s * s_low * 2.0
    cube, cube_low = times(s, z)
    cube_low = cube_low + (s * z_low + s_low * z)
    third, third_low = poly.TWO_THIRDS[64]
    term, term_low = times(cube, cube.like(third))
    term_low = term_low + (cube * third_low + cube_low * third)
    small = (cube * z) * horner(z, poly.LOG_S5)
    high, low = sum_of_two(s * 2.0, term)
    low = low + (s_low * 2.0 + term_low + small)
    ln2 = poly.LN2_THREE[64]
    total, lost = sum_of_two(k * ln2[0], high)
    second, more = sum_of_two(k * ln2[1], lost)
    total, over = sum_of_two(total, second)
    return sum_of_two(total, over + (more + k * ln2[2] + low))
