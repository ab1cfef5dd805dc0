"""Floats taken apart and put together: what the functions are written with.

A body takes any scalar with the methods of `ops.scalar.Scalar`; where pairs of floats are meant,
operations round one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fluxc.compiler.ir.types import f32, i32, i64
from fluxc.compiler.ops.scalar import Scalar

if TYPE_CHECKING:
    from fluxc.compiler.functions.coefficients import Table
    from fluxc.compiler.ir.types import DType

__all__ = [
    "BIAS",
    "MANTISSA",
    "S",
    "bits_of",
    "clamp",
    "high_bits",
    "horner",
    "integer_of",
    "nearest",
    "power_of_two",
    "sum_of_two",
]

S = TypeVar("S", bound=Scalar)

MANTISSA = {32: 23, 64: 52}
BIAS = {32: 127, 64: 1023}


def integer_of(dtype: DType) -> DType:
    """The signed integer as wide as a float."""
    return i32 if dtype == f32 else i64


def bits_of(x: S) -> S:
    return x.bitcast(integer_of(x.dtype))


def horner(x: S, table: Table) -> S:
    """The polynomial with these coefficients, lowest power first."""
    *rest, result = (x.like(c) for c in table[x.dtype.bits])
    for c in reversed(rest):
        result = result.fma(x, c)
    return result


def power_of_two(n: S, dtype: DType) -> S:
    """2**n for an integer n such that the result is a normal number."""
    return (n + BIAS[dtype.bits]).shl(MANTISSA[dtype.bits]).bitcast(dtype)


def clamp(x: S, low: float, high: float) -> S:
    """x in [low, high]; NaN stays NaN."""
    above = x.lt(low).select(x.like(low), x)
    return above.gt(high).select(x.like(high), above)


def nearest(x: S, factor: float) -> tuple[S, S]:
    """round(x * factor) as a float and as an integer.

    Adding 1.5 * 2**mantissa leaves the integer in the lowest bits.
    """
    magic = 1.5 * 2.0 ** MANTISSA[x.dtype.bits]
    shifted = x.fma(factor, magic)
    return shifted - magic, bits_of(shifted) - bits_of(x.like(magic))


def sum_of_two(a: S, b: S) -> tuple[S, S]:
    """The rounded sum and its rounding error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def high_bits(a: S) -> S:
    """`a` without the lower half of its mantissa."""
    return (bits_of(a) & -(1 << (MANTISSA[a.dtype.bits] + 2) // 2)).bitcast(a.dtype)
