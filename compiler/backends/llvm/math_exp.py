"""exp and what is made of it: exp2, expm1, sinh, cosh, tanh, erf.

exp(x) = 2**k * exp(r) with k = round(x / ln 2), |r| <= ln(2)/2.  k*ln2 is subtracted in two parts,
of which the first has so few bits that its product is exact (Cody and Waite 1980).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from fluxc.compiler.backends.llvm import coefficients as poly
from fluxc.compiler.backends.llvm.arithmetic import (
    MANTISSA,
    bits_of,
    function,
    horner,
    power_of_two,
    scale,
    scale_by,
)

if TYPE_CHECKING:
    from fluxc.compiler.backends.llvm.scalar import LlvmScalar

__all__ = ["cosh", "erf", "exp", "exp2", "expm1", "sinh", "tanh"]

# Beyond these exp is 0, and half of it infinite.
EXP_RANGE = {32: (-104.0, 90.0), 64: (-746.0, 711.0)}
EXP2_RANGE = {32: (-151.0, 129.0), 64: (-1076.0, 1025.0)}


class Reduced(NamedTuple):
    """x = k * ln 2 + r, with k as a float and as an integer."""

    k: LlvmScalar
    n: LlvmScalar
    r: LlvmScalar


def clamp(x: LlvmScalar, low: float, high: float) -> LlvmScalar:
    """x in [low, high]; NaN stays NaN."""
    above = x.lt(low).select(x.like(low), x)
    return above.gt(high).select(x.like(high), above)


def nearest(x: LlvmScalar, factor: float) -> tuple[LlvmScalar, LlvmScalar]:
    """round(x * factor) as a float and as an integer.

    Adding 1.5 * 2**mantissa leaves the integer in the lowest bits.
    """
    magic = 1.5 * 2.0 ** MANTISSA[x.dtype.bits]
    shifted = x.fma(factor, magic)
    return shifted - magic, bits_of(shifted) - bits_of(x.like(magic))


def reduce(x: LlvmScalar) -> Reduced:
    high, low = poly.LN2[x.dtype.bits]
    k, n = nearest(x, 1 / math.log(2))
    return Reduced(k, n, k.fma(-low, k.fma(-high, x)))


def _exp_of(r: LlvmScalar) -> LlvmScalar:
    return (r * r).fma(horner(r, poly.EXP), r) + 1.0


def _expm1_of(r: LlvmScalar) -> LlvmScalar:
    return (r * r).fma(horner(r, poly.EXP), r)


@function
def exp(x: LlvmScalar) -> LlvmScalar:
    reduced = reduce(clamp(x, *EXP_RANGE[x.dtype.bits]))
    return scale_by(_exp_of(reduced.r), reduced.k, reduced.n)


@function
def exp2(x: LlvmScalar) -> LlvmScalar:
    x = clamp(x, *EXP2_RANGE[x.dtype.bits])
    k, n = nearest(x, 1.0)
    return scale_by(_exp_of((x - k) * math.log(2)), k, n)


def _expm1(x: LlvmScalar) -> LlvmScalar:
    """For x in a range where 2**k is a normal number."""
    reduced = reduce(x)
    power = power_of_two(reduced.n, x.dtype)
    return power.fma(_expm1_of(reduced.r), power - 1.0)


@function
def expm1(x: LlvmScalar) -> LlvmScalar:
    """2**k (expm1(r) + 1 - 2**-k); the difference is exact or irrelevant."""
    bits = x.dtype.bits
    low = -40.0 if bits == 64 else -18.0
    reduced = reduce(clamp(x, low, EXP_RANGE[bits][1]))
    most = reduced.n.like(100)
    inverse = power_of_two(-reduced.n.gt(most).select(most, reduced.n), x.dtype)
    result = scale(_expm1_of(reduced.r) + (1.0 - inverse), reduced.n)
    return x.eq(0.0).select(x, result)  # keeps -0.0


def half_exp(x: LlvmScalar) -> LlvmScalar:
    """exp(x) / 2, finite wherever that is."""
    reduced = reduce(clamp(x, *EXP_RANGE[x.dtype.bits]))
    return scale_by(_exp_of(reduced.r), reduced.k - 1.0, reduced.n - 1)


@function
def sinh(x: LlvmScalar) -> LlvmScalar:
    size = x.abs()
    half = half_exp(size)
    square = x * x
    small = (x * square).fma(horner(square, poly.SINH), x)
    return size.lt(1.0).select(small, (half - 0.25 / half).copysign(x))


@function
def cosh(x: LlvmScalar) -> LlvmScalar:
    half = half_exp(x.abs())
    return half + 0.25 / half


@function
def tanh(x: LlvmScalar) -> LlvmScalar:
    """-e / (e + 2) with e = expm1(-2|x|)."""
    e = _expm1(clamp(x.abs() * -2.0, -40.0, 0.0))
    return (-e / (e + 2.0)).copysign(x)


@function
def erf(x: LlvmScalar) -> LlvmScalar:
    """A polynomial up to 1; beyond, 1 - exp(-q) where q is a polynomial near -log(erfc(|x|))."""
    square = x * x
    small = x.fma(horner(square, poly.ERF), x)
    size = clamp(x.abs(), 1.0, 3.95 if x.dtype.bits == 32 else 5.95)
    large = (-_expm1(-horner(size - 1.0, poly.ERFC))).copysign(x)
    return x.abs().lt(1.0).select(small, large)
