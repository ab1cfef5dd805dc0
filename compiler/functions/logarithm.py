"""log and what is made of it: log2, log10, log1p, asinh, acosh, atanh.

x = 2**k * (1 + f) with 1 + f between sqrt(1/2) and sqrt(2); log(x) = k * ln 2 + log(1 + f).
"""

from __future__ import annotations

import math
from typing import Generic, NamedTuple

from fluxc.compiler.functions import coefficients as poly
from fluxc.compiler.functions.floats import MANTISSA, S, bits_of, horner

__all__ = [
    "SMALLEST_NORMAL",
    "Split",
    "acosh",
    "asinh",
    "atanh",
    "log",
    "log1p",
    "log2",
    "log10",
    "split",
]

SQRT_HALF_BITS = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}
SMALLEST_NORMAL = {32: 2.0**-126, 64: 2.0**-1022}


class Split(NamedTuple, Generic[S]):
    """x = 2**k * (1 + f); k is integral, in x's dtype."""

    k: S
    f: S


def split(x: S) -> Split[S]:
    """For finite x > 0, denormals included."""
    bits, mantissa = x.dtype.bits, MANTISSA[x.dtype.bits]
    tiny = x.lt(SMALLEST_NORMAL[bits])
    normal = tiny.select(x * 2.0**mantissa, x)
    offset = bits_of(normal) - SQRT_HALF_BITS[bits]
    k = offset.shr(mantissa).cast(x.dtype)
    fraction = (offset & ((1 << mantissa) - 1)) + SQRT_HALF_BITS[bits]
    k = tiny.select(k - float(mantissa), k)
    return Split(k, fraction.bitcast(x.dtype) - 1.0)


def _tail(f: S) -> S:
    """log(1 + f) - f."""
    half_square = f * f * 0.5
    if f.dtype.bits == 32:
        return (f * f * f).fma(horner(f, poly.LOG), -half_square)
    # log(1+f) = 2s + s**3 P(s**2) with s = f / (2+f), and 2s = f - s*f = f - f**2/2 + s*f**2/2.
    s = f / (f + 2.0)
    z = s * s
    return s * (half_square + z * horner(z, poly.LOG_S)) - half_square


def _finish(x: S, inside: S) -> S:
    """The logarithm is `inside` for finite x > 0."""
    outside = x.lt(0.0).select(x.like(math.nan), x)
    outside = x.eq(0.0).select(x.like(-math.inf), outside)
    return (x.gt(0.0) & x.lt(math.inf)).select(inside, outside)


def log(x: S) -> S:
    high, low = poly.LN2[x.dtype.bits]
    k, f = split(x)
    return _finish(x, k.fma(high, f + k.fma(low, _tail(f))))


def log2(x: S) -> S:
    k, f = split(x)
    return _finish(x, (f + _tail(f)).fma(1 / math.log(2), k))


def log10(x: S) -> S:
    high, low = poly.LOG10_2[x.dtype.bits]
    k, f = split(x)
    return _finish(x, k.fma(high, k.fma(low, (f + _tail(f)) * (1 / math.log(10)))))


def log1p(x: S) -> S:
    return _log1p(x, x.like(0.0))


def _log1p(x: S, plus: S) -> S:
    """log(1 + x) + plus.  What the sum u = 1 + x loses, c, comes back as c / u."""
    high, low = poly.LN2[x.dtype.bits]
    u = x + 1.0
    lost = x.gt(1.0).select(1.0 - (u - x), x - (u - 1.0))
    k, f = split(u)
    result = k.fma(high, f + (k.fma(low, _tail(f) + lost / u) + plus))
    outside = u.eq(0.0).select(x.like(-math.inf), u.lt(0.0).select(x.like(math.nan), x))
    usual = u.gt(0.0) & u.lt(math.inf) & x.ne(0.0)
    return usual.select(result, outside)


def _large(x: S) -> S:
    """Where 1 + x*x is x*x."""
    return x.gt(2.0 ** (MANTISSA[x.dtype.bits] // 2 + 2))


def asinh(x: S) -> S:
    a = x.abs()
    square = a * a
    inner = a + square / (1.0 + (square + 1.0).sqrt())
    return _log_of_root(a, inner).copysign(x)


def acosh(x: S) -> S:
    t = x - 1.0
    inner = t + (t * 2.0 + t * t).sqrt()
    return x.lt(1.0).select(x.like(math.nan), _log_of_root(x, inner))


def _log_of_root(a: S, inner: S) -> S:
    """log(1 + inner), or log(2a) where a is so large that its square need not be exact."""
    large = _large(a)
    plus = large.select(a.like(math.log(2)), 0.0)
    return _log1p(large.select(a - 1.0, inner), plus)


def atanh(x: S) -> S:
    a = x.abs()
    return (_log1p(a * 2.0 / (1.0 - a), a.like(0.0)) * 0.5).copysign(x)
