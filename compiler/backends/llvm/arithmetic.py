"""Parts of the functions: polynomials, powers of two, sums and products without rounding error.

Operations round one by one, which pairs of floats rely on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING

from llvmlite import ir

from fluxc.compiler.backends.llvm.values import features, intrinsic
from fluxc.compiler.functions.floats import BIAS, MANTISSA, high_bits
from fluxc.compiler.ir.types import f32, f64

if TYPE_CHECKING:
    from fluxc.compiler.backends.llvm.scalar import LlvmScalar

__all__ = [
    "any_lane",
    "function",
    "internal_function",
    "outlined",
    "scale",
    "scale_by",
    "times",
]

Function = Callable[..., "LlvmScalar"]


def scale(x: LlvmScalar, n: LlvmScalar) -> LlvmScalar:
    """x * 2**n, rounded once, for integers |n| up to twice the largest exponent.

    In two factors, neither of which leaves the normal numbers.
    """
    mantissa = MANTISSA[x.dtype.bits]
    total = n + 2 * BIAS[x.dtype.bits]
    half = _logical_half(total)
    first = half.shl(mantissa).bitcast(x.dtype)
    return x * first * (total - half).shl(mantissa).bitcast(x.dtype)


def scale_by(x: LlvmScalar, k: LlvmScalar, n: LlvmScalar) -> LlvmScalar:
    """`scale` where k is n as a float: one instruction of machines that have it."""
    if not features(x.b.module).scalef or x.lanes * x.dtype.bits != 512:
        return scale(x, n)
    suffix = "ps" if x.dtype == f32 else "pd"
    name = f"llvm.x86.avx512.mask.scalef.{suffix}.512"
    module, mask, rounding = x.b.module, ir.IntType(x.lanes), ir.IntType(32)
    function = module.globals.get(name) or ir.Function(
        module, ir.FunctionType(x.v.type, [x.v.type] * 3 + [mask, rounding]), name
    )
    current = rounding(4)  # the rounding mode as it is
    return x.with_value(x.b.call(function, [x.v, k.v, x.v, mask(-1), current]))


def _logical_half(n: LlvmScalar) -> LlvmScalar:
    return n.with_value(n.b.lshr(n.v, n.like(1).v))


def any_lane(condition: LlvmScalar) -> ir.Value:
    """Whether a bool is true in any lane, an i1."""
    if condition.lanes == 1:
        return condition.v
    name = f"llvm.vector.reduce.or.v{condition.lanes}i1"
    module = condition.b.module
    reduce = module.globals.get(name) or ir.Function(
        module, ir.FunctionType(ir.IntType(1), [condition.v.type]), name
    )
    return condition.b.call(reduce, [condition.v])


# --- pairs (high, low) of floats whose exact sum is meant


def times(a: LlvmScalar, b: LlvmScalar) -> tuple[LlvmScalar, LlvmScalar]:
    """The rounded product and its rounding error (Dekker where there is no fused operation)."""
    product = a * b
    if features(a.b.module).fma:
        fused = intrinsic(a.b, "fma", product.v.type, a.splat(product.lanes).v,
                          b.splat(product.lanes).v, (-product).v)  # fmt: skip
        return product, product.with_value(fused)
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    error = a_high * b_high - product + a_high * b_low + a_low * b_high + a_low * b_low
    return product, error


def _halves(a: LlvmScalar) -> tuple[LlvmScalar, LlvmScalar]:
    high = high_bits(a)
    return high, a - high


# --- functions


def function(body: Function) -> Function:
    """Computes inline; the arguments are floats of one dtype."""

    @wraps(body)
    def call(*args: LlvmScalar) -> LlvmScalar:
        lanes = max(x.lanes for x in args)
        assert args[0].dtype in (f32, f64), f"{body.__name__} takes f32 and f64"
        return body(*(x.splat(lanes) for x in args))

    return call


def outlined(body: Function) -> Function:
    """As `function`, emitted once a module for each dtype and number of lanes, and called.

    For functions that are long or that branch.
    """

    @function
    @wraps(body)
    def call(*args: LlvmScalar) -> LlvmScalar:
        x = args[0]
        callee = internal_function(
            x.b.module,
            f"fx.{body.__name__}.{x.dtype}x{x.lanes}",
            x.v.type,
            [a.v.type for a in args],
            lambda b, values: body(*(replace(x, b=b, v=v) for v in values)).v,
        )
        return x.with_value(x.b.call(callee, [a.v for a in args]))

    return call


def internal_function(
    module: ir.Module,
    name: str,
    result: ir.Type,
    arguments: list[ir.Type],
    emit: Callable[[ir.IRBuilder, list[ir.Value]], ir.Value],
) -> ir.Function:
    """The module's function of this name, emitted by `emit(builder, arguments)` the first time."""
    known = module.globals.get(name)
    if known is not None:
        return known
    made = ir.Function(module, ir.FunctionType(result, arguments), name)
    made.linkage = "internal"
    made.attributes.add("nounwind")
    b = ir.IRBuilder(made.append_basic_block("entry"))
    b.ret(emit(b, list(made.args)))
    return made
