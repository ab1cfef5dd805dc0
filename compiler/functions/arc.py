"""asin, acos, atan, atan2: polynomials near 0, and identities that lead there."""

from __future__ import annotations

import math

from fluxc.compiler.functions import coefficients as poly
from fluxc.compiler.functions.floats import S, bits_of, horner

__all__ = ["acos", "asin", "atan", "atan2"]

# tan(pi/8) and tan(3 pi/8): between them the angle is pi/4 + atan((y-x)/(y+x)), beyond pi/2 - ...
LOW_EDGE, HIGH_EDGE = math.sqrt(2) - 1, math.sqrt(2) + 1


def _angle(y: S, x: S) -> S:
    """The angle of (x, y) for x, y >= 0, not both 0 or both infinite, and x + y finite."""
    high, low = poly.HALF_PI[y.dtype.bits]
    steep, middle = y.gt(x * HIGH_EDGE), y.gt(x * LOW_EDGE)
    numerator = steep.select(-x, middle.select(y - x, y))
    denominator = steep.select(y, middle.select(y + x, x))
    base = steep.select(y.like(high), middle.select(y.like(high / 2), 0.0))
    rest = steep.select(y.like(low), middle.select(y.like(low / 2), 0.0))
    t = numerator / denominator
    square = t * t
    return base + ((t * square).fma(horner(square, poly.ATAN), rest) + t)


def atan(x: S) -> S:
    return _angle(x.abs(), x.like(1.0)).copysign(x)


def atan2(y: S, x: S) -> S:
    a, b = y.abs(), x.abs()
    a, b = _without_limits(a, b)
    angle = _angle(a, b)
    high, low = poly.HALF_PI[y.dtype.bits]
    left = bits_of(x).lt(0)  # also for -0.0
    angle = left.select((2 * high - angle) + 2 * low, angle)
    return angle.copysign(y)


def _without_limits(a: S, b: S) -> tuple[S, S]:
    """Numbers of the same angle, their sum finite, not both tiny.

    (0, 0) has angle 0, (inf, inf) has pi/4.
    """
    both_infinite = a.eq(math.inf) & b.eq(math.inf)
    both_zero = a.eq(0.0) & b.eq(0.0)
    a = both_infinite.select(a.like(1.0), a)
    b = (both_infinite | both_zero).select(b.like(1.0), b)
    half = a.gt(2.0**120) | b.gt(2.0**120)
    tiny = a.lt(2.0**-60) & b.lt(2.0**-60)  # denormals do not compare with fractions of them
    factor = half.select(a.like(0.25), tiny.select(a.like(2.0**60), 1.0))
    return a * factor, b * factor


def _half_angle(a: S) -> tuple[S, S, S]:
    """(a <= 1/2, s, asin(s) - s) with s = a there, else s = sqrt((1-a)/2), acos(a) = 2 asin(s)."""
    small = a.le(0.5)
    folded = (1.0 - a) * 0.5
    z = small.select(a * a, folded)
    s = small.select(a, folded.sqrt())
    return small, s, s * z * horner(z, poly.ASIN)


def asin(x: S) -> S:
    high, low = poly.HALF_PI[x.dtype.bits]
    small, s, rest = _half_angle(x.abs())
    large = high - ((s + rest) * 2.0 - low)
    return small.select(s + rest, large).copysign(x)


def acos(x: S) -> S:
    high, low = poly.HALF_PI[x.dtype.bits]
    small, s, rest = _half_angle(x.abs())
    signed_s, signed_rest = s.copysign(x), rest.copysign(x)
    middle = high - (signed_s - (low - signed_rest))
    folded = (s + rest) * 2.0
    large = x.lt(0.0).select(2 * high - (folded - 2 * low), folded)
    return small.select(middle, large)
