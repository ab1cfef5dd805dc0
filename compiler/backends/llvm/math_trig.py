"""sin, cos, tan: r = x - q * pi/2 with |r| <= pi/4, then polynomials.

Up to 2**20 q * pi/2 is subtracted in pieces whose products are exact (Cody and Waite 1980).  Larger
arguments are multiplied by as many digits of 2/pi as matter, in integers (Payne and Hanek 1983),
on a branch that is seldom taken.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from llvmlite import ir

from fluxc.compiler.backends.llvm.arithmetic import any_lane, internal_function, outlined
from fluxc.compiler.backends.llvm.math_pi import large_argument
from fluxc.compiler.backends.llvm.values import merge
from fluxc.compiler.functions import coefficients as poly
from fluxc.compiler.functions.floats import bits_of, horner, integer_of, nearest, sum_of_two
from fluxc.compiler.ir.types import f64

if TYPE_CHECKING:
    from fluxc.compiler.backends.llvm.scalar import LlvmScalar

__all__ = ["cos", "sin", "tan"]

LARGE = 2.0**20


class Turned(NamedTuple):
    """x = (quadrant) * pi/2 + r + low modulo whole turns; the quadrant is an integer, any lap."""

    r: LlvmScalar
    low: LlvmScalar
    quadrant: LlvmScalar


def _turned(x: LlvmScalar) -> Turned:
    wide = x.cast(f64)
    near = _reduced(wide)
    large = x.abs().ge(LARGE)
    r, low, quadrant = _where_large(large, wide, near)
    if x.dtype == f64:
        return Turned(r, low, quadrant)
    return Turned(r.cast(x.dtype), x.like(0.0), quadrant.cast(integer_of(x.dtype)))


def _reduced(x: LlvmScalar) -> Turned:
    """For |x| < 2**20, f64."""
    k, n = nearest(x, 2 / math.pi)
    first, second, third, fourth = poly.HALF_PI_SHORT[64]
    r, lost = sum_of_two(x - k * first, k * -second)
    r, more = sum_of_two(r, k * -third)
    return Turned(*sum_of_two(r, lost + more - k * fourth), n)


def _where_large(large: LlvmScalar, x: LlvmScalar, near: Turned) -> Turned:
    """`near`, but by the long way in the lanes where |x| is large."""
    b = x.b
    before = b.block
    slow = b.append_basic_block("large")
    done = b.append_basic_block("done")
    b.cbranch(any_lane(large), slow, done).set_weights([1, 1 << 20])
    b.position_at_end(slow)
    far = _lane_by_lane(large, x, near)
    last = b.block
    b.branch(done)
    b.position_at_end(done)
    merged = merge(b, (before, [part.v for part in near]), (last, far))
    return Turned(*(part.with_value(v) for part, v in zip(near, merged, strict=True)))


def _lane_by_lane(large: LlvmScalar, x: LlvmScalar, near: Turned) -> list[ir.Value]:
    values = [part.v for part in near]
    for lane in range(x.lanes):
        at = ir.Constant(ir.IntType(32), lane)
        one = lambda s: s.v if x.lanes == 1 else x.b.extract_element(s.v, at)  # noqa: B023
        results = x.b.call(_large_function(x), [one(x)])
        for i, part in enumerate(near):
            result = x.b.extract_value(results, i)
            chosen = x.b.select(one(large), result, one(part))
            values[i] = chosen if x.lanes == 1 else x.b.insert_element(values[i], chosen, at)
    return values


def _large_function(x: LlvmScalar) -> ir.Function:
    double, integer = ir.DoubleType(), ir.IntType(64)

    def emit(b: ir.IRBuilder, arguments: list[ir.Value]) -> ir.Value:
        parts = large_argument(replace(x, b=b, v=arguments[0], dtype=f64))
        result = ir.Constant(ir.LiteralStructType([double, double, integer]), ir.Undefined)
        for i, part in enumerate(parts):
            result = b.insert_value(result, part.v, i)
        return result

    result = ir.LiteralStructType([double, double, integer])
    made = internal_function(x.b.module, "fx.reduce_large_angle.f64", result, [double], emit)
    made.attributes.add("noinline")
    return made


def _sin_of(turned: Turned) -> LlvmScalar:
    r, low, _ = turned
    z = r * r
    cubic = (r * z) * horner(z, poly.SIN)
    if r.dtype.bits == 32:
        return r + cubic
    return r + (cubic + low * (1.0 - z * 0.5))


def _cos_of(turned: Turned) -> LlvmScalar:
    r, low, _ = turned
    z = r * r
    half = z * 0.5
    head = 1.0 - half
    return head + (((1.0 - head) - half) + ((z * z) * horner(z, poly.COS) - r * low))


def _by_quadrant(turned: Turned, quadrant: LlvmScalar, x: LlvmScalar) -> LlvmScalar:
    """sin of quadrant * pi/2 + r."""
    odd = (quadrant & 1).ne(0)
    value = odd.select(_cos_of(turned), _sin_of(turned))
    sign = (quadrant & 2).shl(x.dtype.bits - 2)
    return (bits_of(value) ^ sign).bitcast(x.dtype)


@outlined
def sin(x: LlvmScalar) -> LlvmScalar:
    turned = _turned(x)
    return x.eq(0.0).select(x, _by_quadrant(turned, turned.quadrant, x))  # keeps -0.0


@outlined
def cos(x: LlvmScalar) -> LlvmScalar:
    turned = _turned(x)
    return _by_quadrant(turned, turned.quadrant + 1, x)


@outlined
def tan(x: LlvmScalar) -> LlvmScalar:
    turned = _turned(x)
    sine, cosine = _sin_of(turned), _cos_of(turned)
    odd = (turned.quadrant & 1).ne(0)
    value = odd.select(-cosine, sine) / odd.select(sine, cosine)
    return x.eq(0.0).select(x, value)
