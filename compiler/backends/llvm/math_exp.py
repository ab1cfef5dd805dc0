"""exp, exp2, expm1, sinh, cosh: they scale by powers of two, which one instruction may do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fluxc.compiler.backends.llvm.arithmetic import function, scale, scale_by
from fluxc.compiler.functions import coefficients as poly
from fluxc.compiler.functions.exponential import exp_of, expm1_of, reduce
from fluxc.compiler.functions.floats import clamp, horner, nearest, power_of_two

if TYPE_CHECKING:
    from fluxc.compiler.backends.llvm.scalar import LlvmScalar

__all__ = ["cosh", "exp", "exp2", "expm1", "sinh"]

# Beyond these exp is 0, and half of it infinite.
EXP_RANGE = {32: (-104.0, 90.0), 64: (-746.0, 711.0)}
EXP2_RANGE = {32: (-151.0, 129.0), 64: (-1076.0, 1025.0)}


@function
def exp(x: LlvmScalar) -> LlvmScalar:
    reduced = reduce(clamp(x, *EXP_RANGE[x.dtype.bits]))
    return scale_by(exp_of(reduced.r), reduced.k, reduced.n)


@function
def exp2(x: LlvmScalar) -> LlvmScalar:
    x = clamp(x, *EXP2_RANGE[x.dtype.bits])
    k, n = nearest(x, 1.0)
    return scale_by(exp_of((x - k) * math.log(2)), k, n)


@function
def expm1(x: LlvmScalar) -> LlvmScalar:
    """2**k (expm1(r) + 1 - 2**-k); the difference is exact or irrelevant."""
    bits = x.dtype.bits
    low = -40.0 if bits == 64 else -18.0
    reduced = reduce(clamp(x, low, EXP_RANGE[bits][1]))
    most = reduced.n.like(100)
    inverse = power_of_two(-reduced.n.gt(most).select(most, reduced.n), x.dtype)
    result = scale(expm1_of(reduced.r) + (1.0 - inverse), reduced.n)
    return x.eq(0.0).select(x, result)  # keeps -0.0


def half_exp(x: LlvmScalar) -> LlvmScalar:
    """exp(x) / 2, finite wherever that is."""
    reduced = reduce(clamp(x, *EXP_RANGE[x.dtype.bits]))
    return scale_by(exp_of(reduced.r), reduced.k - 1.0, reduced.n - 1)


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
