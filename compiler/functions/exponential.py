"""Parts of exp, and what is made of them: tanh, erf.

exp(x) = 2**k * exp(r) with k = round(x / ln 2), |r| <= ln(2)/2.  k*ln2 is subtracted in two
parts, of which the first has so few bits that its product is exact (Cody and Waite 1980).
"""

from __future__ import annotations

import math
from typing import Generic, NamedTuple

from fluxc.compiler.functions import coefficients as poly
from fluxc.compiler.functions.floats import S, clamp, horner, nearest, power_of_two

__all__ = ["Reduced", "erf", "exp_of", "expm1_near", "expm1_of", "reduce", "tanh"]


class Reduced(NamedTuple, Generic[S]):
    """x = k * ln 2 + r, with k as a float and as an integer."""

    k: S
    n: S
    r: S


def reduce(x: S) -> Reduced[S]:
    high, low = poly.LN2[x.dtype.bits]
    k, n = nearest(x, 1 / math.log(2))
    return Reduced(k, n, k.fma(-low, k.fma(-high, x)))


def exp_of(r: S) -> S:
    return (r * r).fma(horner(r, poly.EXP), r) + 1.0


def expm1_of(r: S) -> S:
    return (r * r).fma(horner(r, poly.EXP), r)


def expm1_near(x: S) -> S:
    """For x in a range where 2**k is a normal number."""
    reduced = reduce(x)
    power = power_of_two(reduced.n, x.dtype)
    return power.fma(expm1_of(reduced.r), power - 1.0)


def tanh(x: S) -> S:
    """-e / (e + 2) with e = expm1(-2|x|)."""
    e = expm1_near(clamp(x.abs() * -2.0, -40.0, 0.0))
    return (-e / (e + 2.0)).copysign(x)


def erf(x: S) -> S:
    """A polynomial up to 1; beyond, 1 - exp(-q) where q is a polynomial near -log(erfc(|x|))."""
    square = x * x
    small = x.fma(horner(square, poly.ERF), x)
    size = clamp(x.abs(), 1.0, 3.95 if x.dtype.bits == 32 else 5.95)
    large = (-expm1_near(-horner(size - 1.0, poly.ERFC))).copysign(x)
    return x.abs().lt(1.0).select(small, large)
