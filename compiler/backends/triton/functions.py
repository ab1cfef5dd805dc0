"""Functions that Triton has only by way of a vendor's library, from what it has itself.

Those that stand in `compiler.functions` serve here as they are.
Every operation of a body gets a line of its own, so values may be used more than once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fluxc.compiler.functions.arc import acos, asin, atan, atan2
from fluxc.compiler.functions.exponential import expm1_near, tanh
from fluxc.compiler.functions.floats import MANTISSA, bits_of, clamp, integer_of
from fluxc.compiler.functions.logarithm import acosh, asinh, atanh, log1p
from fluxc.compiler.ir.types import f32, f64

if TYPE_CHECKING:
    from fluxc.compiler.backends.triton.scalar import TritonScalar
    from fluxc.compiler.ir.types import DType

__all__ = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "copysign",
    "cosh",
    "expm1",
    "floor_div",
    "log1p",
    "mod",
    "pow",
    "round_even",
    "sinh",
    "tanh",
    "to_integer",
    "trunc",
]


_EXPM1_RANGE = {32: (-18.0, 88.0), 64: (-40.0, 709.0)}


def copysign(x: TritonScalar, y: TritonScalar) -> TritonScalar:
    sign = -1 << (x.dtype.bits - 1)
    return (bits_of(x) & ~sign | bits_of(y) & sign).bitcast(x.dtype)


def round_even(x: TritonScalar) -> TritonScalar:
    """To the nearest integer, ties to even: adding 2**mantissa leaves no room for a fraction."""
    size, limit = x.abs(), 2.0 ** MANTISSA[x.dtype.bits]
    return size.lt(limit).select((size + limit) - limit, size).copysign(x)


def trunc(x: TritonScalar) -> TritonScalar:
    return x.abs().floor().copysign(x)


def to_integer(x: TritonScalar, dtype: DType) -> TritonScalar:
    """Truncates, saturates, and sends NaN to 0."""
    signed = dtype.kind == "i"
    low, high = (-(1 << dtype.bits - 1), 1 << dtype.bits - 1) if signed else (0, 1 << dtype.bits)
    inside = x.convert(dtype)
    upper = x.ge(float(high)).select(inside.like(high - 1), inside)
    lower = x.le(float(low)).select(inside.like(low), upper)
    return x.is_nan().select(inside.like(0), lower)


def expm1(x: TritonScalar) -> TritonScalar:
    low, high = _EXPM1_RANGE[x.dtype.bits]
    usual = expm1_near(clamp(x, low, high))
    return x.eq(0.0).select(x, x.gt(high).select(x.exp(), usual))  # keeps -0.0


def sinh(x: TritonScalar) -> TritonScalar:
    """e = expm1(|x|): (e + e / (e + 1)) / 2, and exp(|x| / 2)**2 / 2 beyond 20."""
    size = x.abs()
    e = size.minimum(40.0).expm1()
    half = (size * 0.5).exp()
    large = half * 0.5 * half
    return size.gt(20.0).select(large, (e + e / (e + 1.0)) * 0.5).copysign(x)


def cosh(x: TritonScalar) -> TritonScalar:
    """exp(|x| / 2)**2 / 2 and its inverse's quarter."""
    half = (x.abs() * 0.5).exp()
    large = half * 0.5 * half
    return large + 0.25 / large


def cbrt(x: TritonScalar) -> TritonScalar:
    """exp2(log2(|x|) / 3), then a step of Halley's iteration."""
    size = x.abs()
    usual = size.gt(0.0) & size.lt(math.inf)
    a = usual.select(size, 1.0)
    y = (a.log2() * (1 / 3)).exp2()
    square = y * y
    # y - y (y**3 - a) / (2 y**3 + a), divided through by y**2 so that no cube overflows.
    near = a / square
    y = y - y * ((y - near) / (y + y + near))
    return usual.select(y.copysign(x), x)


def mod(x: TritonScalar, y: TritonScalar) -> TritonScalar:
    """The remainder with the sign of y, as in Python."""
    rest = x.fmod(y)
    wrong = rest.ne(0.0) & rest.lt(0.0).ne(y.lt(0.0))
    return wrong.select(rest + y, rest.eq(0.0).select(rest.copysign(y), rest))


def floor_div(x: TritonScalar, y: TritonScalar) -> TritonScalar:
    """floor(x / y) of the exact quotient; x / y where y is 0."""
    if x.dtype == f32:  # in f32 x less the remainder is not exact
        return x.cast(f64).floor_div(y.cast(f64)).cast(f32)
    rest = x.fmod(y)
    quotient = (x - rest) / y
    wrong = rest.ne(0.0) & rest.lt(0.0).ne(y.lt(0.0))
    quotient = wrong.select(quotient - 1.0, quotient)
    floor = quotient.floor()
    floor = (quotient - floor).gt(0.5).select(floor + 1.0, floor)
    whole = quotient.eq(0.0).select(quotient.like(0.0).copysign(x / y), floor)
    return y.eq(0.0).select(x / y, whole)


def pow(x: TritonScalar, y: TritonScalar) -> TritonScalar:
    """exp2(y log2 |x|), in f64 for f32; then signs and the cases that are not of that form."""
    size = x.abs()
    ordinary = size.gt(0.0) & size.lt(math.inf)
    base = ordinary.select(size, 2.0)
    power = (base.cast(f64).log2() * y.cast(f64)).exp2().cast(x.dtype)
    grows = size.gt(1.0).select(y, -y).gt(0.0)
    result = ordinary.select(power, grows.select(x.like(math.inf), 0.0))
    half = y * 0.5
    whole = y.trunc().eq(y)
    odd = whole & half.trunc().ne(half)
    negative = x.bitcast(integer_of(x.dtype)).lt(0)
    result = (negative & odd).select(-result, result)
    result = (x.lt(0.0) & x.gt(-math.inf) & ~whole).select(x.like(math.nan), result)
    result = (x.is_nan() | y.is_nan()).select(x + y, result)
    one = x.eq(1.0) | y.eq(0.0) | (x.eq(-1.0) & y.abs().eq(math.inf))
    return one.select(x.like(1.0), result)
