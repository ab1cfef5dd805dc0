"""Elementwise operations: one row each.

A row gives the name, the number of operands, the kinds of dtype that it takes (f floats, i signed,
u unsigned, b bool), the NumPy reference, the scalar body that back ends lower from, the derivative
rule, inputs on which it is smooth, and its meaning.  `reference` and `scalar` are two independent
statements; a test holds them together.  Derivatives at kinks and ties: docs/gradients.md.
"""

# ruff: noqa: E501, ARG005  (a row of the table is one line; a rule takes all that it is given)
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.types import DType, TensorType, bool_, f64, i32, u32
from fluxc.compiler.ops.checks import check_dtype, check_dtype_attr, check_same
from fluxc.compiler.ops.op import NoGradient, Op, ZeroGradient, register
from fluxc.compiler.ops.reference import (
    cast_to,
    quiet,
    reinterpret,
    shift_left,
    shift_right,
    whole_power,
)
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["elementwise"]

Draw: TypeAlias = "Callable[[np.random.Generator], np.ndarray]"
Rule: TypeAlias = "Callable[..., tuple[Term | None, ...]] | NoGradient | ZeroGradient"


def elementwise(
    name: str,
    arity: int,
    kinds: str,
    reference: Callable[..., np.ndarray],
    scalar: Callable[..., Any],
    vjp: Rule,
    sample: tuple[Draw, ...],
    doc: str,
    *,
    result: DType | None = None,
    infer: Callable[..., TensorType] | None = None,
    attrs: dict[str, Any] | None = None,
) -> Op:
    """Declare an operation on `arity` operands of one type; `result` is its dtype if another."""

    def infer_same(*types: TensorType) -> TensorType:
        if len(types) != arity:
            raise ShapeError(f"{name} takes {arity} operands", got=f"{len(types)} operands")
        check_same(name, types)
        check_dtype(name, types[0], kinds)
        return types[0] if result is None else types[0].with_dtype(result)

    def draw(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
        return tuple(one(rng) for one in sample), dict(attrs or {})

    return register(
        Op(
            name=name,
            infer=infer or infer_same,
            reference=quiet(reference),
            vjp=derivative(vjp) if callable(vjp) else vjp,
            sample=draw,
            doc=doc,
            scalar=scalar,
        )
    )


def within(low: float, high: float) -> Draw:
    return lambda rng: rng.uniform(low, high, (2, 3))


def either(low: float, high: float) -> Draw:
    """Both signs, magnitudes between low and high."""
    return lambda rng: rng.uniform(low, high, (2, 3)) * rng.choice([-1.0, 1.0], (2, 3))


def whole(low: int, high: int, dtype: DType = i32) -> Draw:
    return lambda rng: rng.integers(low, high, (2, 3)).astype(dtype.numpy)


def coin(rng: np.random.Generator) -> np.ndarray:
    return rng.random((2, 3)) < 0.5


def infer_cast(*types: TensorType, dtype: DType) -> TensorType:
    (x,) = _operands("cast", types, 1)
    check_dtype_attr("cast", dtype)
    return x.with_dtype(dtype)


def infer_bitcast(*types: TensorType, dtype: DType) -> TensorType:
    (x,) = _operands("bitcast", types, 1)
    check_dtype_attr("bitcast", dtype)
    for one in (x.dtype, dtype):
        if one == bool_ or (one.is_float and one.bits == 16):
            # In registers a bool is one bit and a 16-bit float is an f32.
            raise DTypeError(
                f"bitcast does not take {one}", expected="integers, or floats of 32 or 64 bits"
            )
    if x.dtype.bits != dtype.bits:
        raise DTypeError(
            "bitcast between different widths", expected=f"{x.dtype.bits} bits", got=str(dtype)
        )
    return x.with_dtype(dtype)


def infer_select(*types: TensorType) -> TensorType:
    c, x, y = _operands("select", types, 3)
    check_dtype("select", c, "b")
    check_same("select", (x, y))
    check_same("select", (x.with_dtype(bool_), c))
    return x


def _operands(op: str, types: tuple[TensorType, ...], count: int) -> tuple[TensorType, ...]:
    if len(types) != count:
        raise ShapeError(f"{op} takes {count} operands", got=f"{len(types)} operands")
    return types


def _signum(x: Any) -> Any:
    step = x.gt(0).cast(x.dtype) - x.lt(0).cast(x.dtype)
    return x.is_nan().select(x, step) if x.dtype.is_float else step


def _cast_back(dy: Term, _y: Term, x: Term, **_: Any) -> tuple[Term | None]:
    return (dy.cast(dtype=x.dtype) if x.dtype.is_float else None,)


def _pow(dy: Term, y: Term, x: Term, p: Term) -> tuple[Term, Term]:
    # Both are guarded before, not after, the singular function: also their derivatives are finite.
    exponent = p.eq(0.0).select(1.0, p)
    base = x.eq(0.0).select(1.0, x)
    return dy * p * x.pow(exponent - 1.0), dy * y * base.log()


def _share(dy: Term, x: Term, z: Term) -> Term:
    return x.eq(z).select(dy * 0.5, dy)


def _maximum(dy: Term, _y: Term, x: Term, z: Term) -> tuple[Term, Term]:
    share = _share(dy, x, z)
    return x.lt(z).select(0.0, share), x.gt(z).select(0.0, share)


def _minimum(dy: Term, _y: Term, x: Term, z: Term) -> tuple[Term, Term]:
    share = _share(dy, x, z)
    return x.gt(z).select(0.0, share), x.lt(z).select(0.0, share)


FLOATS, NUMBERS, DISCRETE, ALL = "f", "fiu", "biu", "fiub"
LN2, LN10, SQRT_PI = math.log(2.0), math.log(10.0), math.sqrt(math.pi)
STEP = ZeroGradient("a step function: constant between its jumps")
WHOLE = ZeroGradient("integers and bools carry no derivative")
TEST = ZeroGradient("its result is a bool, which carries no derivative")
ONE, TWO = (within(0.5, 2.0),), (within(0.5, 2.0), within(0.6, 1.9))
REAL, PAIR = (either(0.2, 2.0),), (either(0.2, 2.0), either(0.3, 1.9))
UNIT = (either(0.1, 0.8),)
PARTS = (either(2.2, 2.8), within(1.0, 1.05))  # the quotient is far from an integer
BITS, SHIFT = (whole(-99, 99), whole(-99, 99)), (whole(-99, 99), whole(0, 40))
erf = np.vectorize(math.erf, otypes=[np.float64])

# fmt: off
# ---- one operand
elementwise("identity", 1, ALL, np.copy, lambda x: x, lambda dy, y, x: (dy,), REAL, "x")
elementwise("stop_gradient", 1, ALL, np.copy, lambda x: x, ZeroGradient("it stops gradients: that is what it is for"), REAL, "x, which counts as a constant in derivatives")
elementwise("neg", 1, NUMBERS, np.negative, lambda x: -x, lambda dy, y, x: (-dy,), REAL, "-x")
elementwise("abs", 1, NUMBERS, np.abs, lambda x: x.abs(), lambda dy, y, x: (dy * x.sign(),), REAL, "|x|")
elementwise("sign", 1, NUMBERS, np.sign, _signum, STEP, REAL, "-1, 0 or 1 by the sign of x; NaN of NaN")
elementwise("exp", 1, FLOATS, np.exp, lambda x: x.exp(), lambda dy, y, x: (dy * y,), REAL, "e**x")
elementwise("exp2", 1, FLOATS, np.exp2, lambda x: x.exp2(), lambda dy, y, x: (dy * y * LN2,), REAL, "2**x")
elementwise("expm1", 1, FLOATS, np.expm1, lambda x: x.expm1(), lambda dy, y, x: (dy * (y + 1.0),), REAL, "e**x - 1")
elementwise("log", 1, FLOATS, np.log, lambda x: x.log(), lambda dy, y, x: (dy / x,), ONE, "natural logarithm")
elementwise("log2", 1, FLOATS, np.log2, lambda x: x.log2(), lambda dy, y, x: (dy / (x * LN2),), ONE, "logarithm to base 2")
elementwise("log10", 1, FLOATS, np.log10, lambda x: x.log10(), lambda dy, y, x: (dy / (x * LN10),), ONE, "logarithm to base 10")
elementwise("log1p", 1, FLOATS, np.log1p, lambda x: x.log1p(), lambda dy, y, x: (dy / (x + 1.0),), ONE, "log(1 + x)")
elementwise("sqrt", 1, FLOATS, np.sqrt, lambda x: x.sqrt(), lambda dy, y, x: (dy * 0.5 / y,), ONE, "square root")
elementwise("rsqrt", 1, FLOATS, lambda x: 1.0 / np.sqrt(x), lambda x: x.rsqrt(), lambda dy, y, x: (dy * y * -0.5 / x,), ONE, "1 / sqrt(x)")
elementwise("cbrt", 1, FLOATS, np.cbrt, lambda x: x.cbrt(), lambda dy, y, x: (dy / (y * y * 3.0),), REAL, "cube root")
elementwise("sin", 1, FLOATS, np.sin, lambda x: x.sin(), lambda dy, y, x: (dy * x.cos(),), REAL, "sine of x radians")
elementwise("cos", 1, FLOATS, np.cos, lambda x: x.cos(), lambda dy, y, x: (-(dy * x.sin()),), REAL, "cosine of x radians")
elementwise("tan", 1, FLOATS, np.tan, lambda x: x.tan(), lambda dy, y, x: (dy * (y * y + 1.0),), UNIT, "tangent of x radians")
elementwise("asin", 1, FLOATS, np.arcsin, lambda x: x.asin(), lambda dy, y, x: (dy * ((1.0 - x) * (x + 1.0)).rsqrt(),), UNIT, "arc sine, in radians")
elementwise("acos", 1, FLOATS, np.arccos, lambda x: x.acos(), lambda dy, y, x: (-(dy * ((1.0 - x) * (x + 1.0)).rsqrt()),), UNIT, "arc cosine, in radians")
elementwise("atan", 1, FLOATS, np.arctan, lambda x: x.atan(), lambda dy, y, x: (dy / (x * x + 1.0),), REAL, "arc tangent, in radians")
elementwise("sinh", 1, FLOATS, np.sinh, lambda x: x.sinh(), lambda dy, y, x: (dy * x.cosh(),), REAL, "(e**x - e**-x) / 2")
elementwise("cosh", 1, FLOATS, np.cosh, lambda x: x.cosh(), lambda dy, y, x: (dy * x.sinh(),), REAL, "(e**x + e**-x) / 2")
elementwise("tanh", 1, FLOATS, np.tanh, lambda x: x.tanh(), lambda dy, y, x: (dy * (1.0 - y * y),), REAL, "sinh(x) / cosh(x)")
elementwise("asinh", 1, FLOATS, np.arcsinh, lambda x: x.asinh(), lambda dy, y, x: (dy * (x * x + 1.0).rsqrt(),), REAL, "inverse of sinh")
elementwise("acosh", 1, FLOATS, np.arccosh, lambda x: x.acosh(), lambda dy, y, x: (dy * ((x - 1.0) * (x + 1.0)).rsqrt(),), (within(1.2, 3.0),), "inverse of cosh")
elementwise("atanh", 1, FLOATS, np.arctanh, lambda x: x.atanh(), lambda dy, y, x: (dy / ((1.0 - x) * (x + 1.0)),), UNIT, "inverse of tanh")
elementwise("erf", 1, FLOATS, erf, lambda x: x.erf(), lambda dy, y, x: (dy * (-(x * x)).exp() * (2.0 / SQRT_PI),), REAL, "2/sqrt(pi) * integral of exp(-t*t) from 0 to x")
elementwise("floor", 1, FLOATS, np.floor, lambda x: x.floor(), STEP, UNIT, "greatest integer <= x")
elementwise("ceil", 1, FLOATS, np.ceil, lambda x: x.ceil(), STEP, UNIT, "least integer >= x")
elementwise("round", 1, FLOATS, np.rint, lambda x: x.round(), STEP, (either(0.6, 1.4),), "nearest integer, halves to even")
elementwise("trunc", 1, FLOATS, np.trunc, lambda x: x.trunc(), STEP, UNIT, "x without its fraction")
elementwise("not", 1, DISCRETE, np.invert, lambda x: ~x, WHOLE, BITS[:1], "logical not of bools, bitwise not of integers")
elementwise("is_nan", 1, FLOATS, np.isnan, lambda x: x.is_nan(), TEST, REAL, "whether x is not a number", result=bool_)
elementwise("is_inf", 1, FLOATS, np.isinf, lambda x: x.abs().eq(math.inf), TEST, REAL, "whether x is +inf or -inf", result=bool_)
elementwise("is_finite", 1, FLOATS, np.isfinite, lambda x: x.abs().lt(math.inf), TEST, REAL, "whether x is neither infinite nor NaN", result=bool_)
elementwise("cast", 1, ALL, cast_to, lambda x, *, dtype: x.cast(dtype), _cast_back, REAL, "the same number in dtype; floats to integers truncate and saturate, NaN is 0; to bool is x != 0", infer=infer_cast, attrs={"dtype": f64})
elementwise("bitcast", 1, NUMBERS, reinterpret, lambda x, *, dtype: x.bitcast(dtype), NoGradient("the bits of a number are not a smooth function of it"), BITS[:1], "the same bits read as dtype", infer=infer_bitcast, attrs={"dtype": u32})

# ---- two operands of one type
elementwise("add", 2, NUMBERS, np.add, lambda x, z: x + z, lambda dy, y, x, z: (dy, dy), PAIR, "x + z")
elementwise("sub", 2, NUMBERS, np.subtract, lambda x, z: x - z, lambda dy, y, x, z: (dy, -dy), PAIR, "x - z")
elementwise("mul", 2, NUMBERS, np.multiply, lambda x, z: x * z, lambda dy, y, x, z: (dy * z, dy * x), PAIR, "x * z")
elementwise("div", 2, FLOATS, np.divide, lambda x, z: x / z, lambda dy, y, x, z: (dy / z, -(dy / z * y)), PAIR, "x / z")
elementwise("floor_div", 2, NUMBERS, np.floor_divide, lambda x, z: x.floor_div(z), STEP, PARTS, "floor(x / z); an integer divided by 0 is 0")
elementwise("mod", 2, NUMBERS, np.mod, lambda x, z: x.mod(z), lambda dy, y, x, z: (dy, -(dy * x.floor_div(z))), PARTS, "x - z*floor(x / z), with z's sign; of integers by 0: 0")
elementwise("fmod", 2, NUMBERS, np.fmod, lambda x, z: x.fmod(z), lambda dy, y, x, z: (dy, -(dy * (x / z).trunc())), PARTS, "x - z*trunc(x / z), with x's sign; of integers by 0: 0")
elementwise("pow", 2, NUMBERS, whole_power, lambda x, z: x.pow(z), _pow, TWO, "x**z; integers: a negative exponent truncates 1 / x**-z, 0 of x = 0")
elementwise("atan2", 2, FLOATS, np.arctan2, lambda x, z: x.atan2(z), lambda dy, y, x, z: (dy * z / (x * x + z * z), -(dy * x / (x * x + z * z))), PAIR, "angle of the point (z, x), in radians")
elementwise("copysign", 2, FLOATS, np.copysign, lambda x, z: x.copysign(z), lambda dy, y, x, z: (dy * x.sign() * x.like(1.0).copysign(z), None), PAIR, "|x| with the sign of z")
elementwise("maximum", 2, ALL, np.maximum, lambda x, z: x.maximum(z), _maximum, PAIR, "the greater; NaN if either is NaN")
elementwise("minimum", 2, ALL, np.minimum, lambda x, z: x.minimum(z), _minimum, PAIR, "the smaller; NaN if either is NaN")
elementwise("and", 2, DISCRETE, np.bitwise_and, lambda x, z: x & z, WHOLE, BITS, "logical and of bools, bitwise and of integers")
elementwise("or", 2, DISCRETE, np.bitwise_or, lambda x, z: x | z, WHOLE, BITS, "logical or of bools, bitwise or of integers")
elementwise("xor", 2, DISCRETE, np.bitwise_xor, lambda x, z: x ^ z, WHOLE, BITS, "logical or bitwise exclusive or")
elementwise("shift_left", 2, "iu", shift_left, lambda x, z: x.shl(z), WHOLE, SHIFT, "x * 2**z; 0 where z is not in 0..bits-1")
elementwise("shift_right", 2, "iu", shift_right, lambda x, z: x.shr(z), WHOLE, SHIFT, "floor(x / 2**z); 0, or -1 of negative x, where z is not in 0..bits-1")
elementwise("eq", 2, ALL, np.equal, lambda x, z: x.eq(z), TEST, PAIR, "x == z", result=bool_)
elementwise("ne", 2, ALL, np.not_equal, lambda x, z: x.ne(z), TEST, PAIR, "x != z", result=bool_)
elementwise("lt", 2, ALL, np.less, lambda x, z: x.lt(z), TEST, PAIR, "x < z", result=bool_)
elementwise("le", 2, ALL, np.less_equal, lambda x, z: x.le(z), TEST, PAIR, "x <= z", result=bool_)
elementwise("gt", 2, ALL, np.greater, lambda x, z: x.gt(z), TEST, PAIR, "x > z", result=bool_)
elementwise("ge", 2, ALL, np.greater_equal, lambda x, z: x.ge(z), TEST, PAIR, "x >= z", result=bool_)

# ---- three operands
elementwise("select", 3, ALL, np.where, lambda c, x, z: c.select(x, z), lambda dy, y, c, x, z: (None, c.select(dy, 0.0), c.select(0.0, dy)), (coin, *PAIR), "x where c is true, else z", infer=infer_select)
# fmt: on
