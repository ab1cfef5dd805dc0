"""Element-wise functions under NumPy's names.  Operands broadcast and promote: `fluxc.tensor`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError
from fluxc.compiler.ir import types as ir
from fluxc.tensor import (
    Tensor,
    TensorLike,
    as_tensor,
    broadcast,
    broadcast_shapes,
    cast,
    common_dtype,
    is_number,
    operands,
    scalar,
)
from fluxc.trace import emit, fail
from fluxc.types import DTypeLike, as_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "abs",
    "acos",
    "acosh",
    "add",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "cbrt",
    "ceil",
    "clip",
    "copysign",
    "cos",
    "cosh",
    "deg2rad",
    "divide",
    "equal",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "float_power",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "greater",
    "greater_equal",
    "hypot",
    "identity",
    "invert",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "left_shift",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "mod",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "rad2deg",
    "reciprocal",
    "right_shift",
    "round",
    "rsqrt",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "true_divide",
    "trunc",
    "where",
]  # fmt: skip


def as_float(x: TensorLike) -> Tensor:
    """A float tensor: integers and bools become f32."""
    x = as_tensor(x)
    return x if x.type.dtype.is_float else cast(x, ir.f32)


def _named(function: Callable[..., Any], name: str, doc: str) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _float_unary(name: str, doc: str, op: str | None = None) -> Callable[[TensorLike], Tensor]:
    return _named(lambda x: Tensor(emit(op or name, as_float(x).value)), name, doc)


# fmt: off
exp   = _float_unary("exp",   "e to the power of each element.")
exp2  = _float_unary("exp2",  "2 to the power of each element.")
expm1 = _float_unary("expm1", "exp(x) - 1, accurate near 0.")
log   = _float_unary("log",   "Natural logarithm.")
log2  = _float_unary("log2",  "Logarithm to base 2.")
log10 = _float_unary("log10", "Logarithm to base 10.")
log1p = _float_unary("log1p", "log(1 + x), accurate near 0.")
sqrt  = _float_unary("sqrt",  "Square root; NaN below 0.")
rsqrt = _float_unary("rsqrt", "1 / sqrt(x).")
cbrt  = _float_unary("cbrt",  "Cube root.")
sin   = _float_unary("sin",   "Sine of radians.")
cos   = _float_unary("cos",   "Cosine of radians.")
tan   = _float_unary("tan",   "Tangent of radians.")
asin  = _float_unary("asin",  "Inverse sine, in radians.")
acos  = _float_unary("acos",  "Inverse cosine, in radians.")
atan  = _float_unary("atan",  "Inverse tangent, in radians.")
sinh  = _float_unary("sinh",  "Hyperbolic sine.")
cosh  = _float_unary("cosh",  "Hyperbolic cosine.")
tanh  = _float_unary("tanh",  "Hyperbolic tangent.")
asinh = _float_unary("asinh", "Inverse hyperbolic sine.")
acosh = _float_unary("acosh", "Inverse hyperbolic cosine.")
atanh = _float_unary("atanh", "Inverse hyperbolic tangent.")
erf   = _float_unary("erf",   "The error function.")
isnan    = _float_unary("isnan",    "Whether each element is NaN.", "is_nan")
isinf    = _float_unary("isinf",    "Whether each element is an infinity.", "is_inf")
isfinite = _float_unary("isfinite", "Whether each element is finite.", "is_finite")
# fmt: on


def _rounding(name: str, doc: str) -> Callable[[TensorLike], Tensor]:
    def function(x: TensorLike) -> Tensor:
        x = as_tensor(x)
        return Tensor(emit(name, x.value)) if x.type.dtype.is_float else x

    return _named(function, name, doc)


# fmt: off
floor = _rounding("floor", "The greatest integer that is not above each element.")
ceil  = _rounding("ceil",  "The least integer that is not below each element.")
trunc = _rounding("trunc", "Each element without its fraction.")
round = _rounding("round", "The nearest integer; halves go to the even one.")
# fmt: on


def _number_unary(name: str, op: str, doc: str) -> Callable[[TensorLike], Tensor]:
    def function(x: TensorLike) -> Tensor:
        x = as_tensor(x)
        if x.type.dtype.kind == "b":
            fail(DTypeError, f"{name} of a bool tensor", got=str(x.type), hint="x.astype(fx.i32)")
        if x.type.dtype.kind == "u" and op != "neg":
            return (x != 0).astype(x.dtype) if op == "sign" else x
        return Tensor(emit(op, x.value))

    return _named(function, name, doc)


negative = _number_unary("negative", "neg", "-x.")
sign = _number_unary("sign", "sign", "-1, 0 or 1; NaN of NaN.")
_abs = _number_unary("abs", "abs", "Absolute value.")


def abs(x: TensorLike) -> Tensor:
    """Absolute value; bools are left alone."""
    x = as_tensor(x)
    return x if x.type.dtype.kind == "b" else _abs(x)


def identity(x: TensorLike) -> Tensor:
    """x itself: the activation of a layer without one."""
    return as_tensor(x)


def astype(x: TensorLike, dtype: DTypeLike) -> Tensor:
    """Another dtype: floats truncate to integers and saturate, NaN becomes 0; bool is `!= 0`."""
    return as_tensor(x, dtype)


# Binary arithmetic.


def _binary(
    name: str, op: str, doc: str, bools: str | None = None
) -> Callable[[TensorLike, TensorLike], Tensor]:
    """bools  the operation that two bool operands mean; None: they are refused."""

    def function(x: TensorLike, y: TensorLike) -> Tensor:
        x, y = operands(x, y)
        chosen = op if x.type.dtype.kind != "b" else bools
        if chosen is None:
            fail(
                DTypeError,
                f"{name} of bool tensors",
                got=str(x.type),
                hint="x.astype(fx.i32) first",
            )
        return Tensor(emit(chosen, x.value, y.value))

    return _named(function, name, doc)


# fmt: off
add      = _binary("add",      "add", "x + y; logical or of bools.", "or")
subtract = _binary("subtract", "sub", "x - y.")
multiply = _binary("multiply", "mul", "x * y; logical and of bools.", "and")
maximum  = _binary("maximum",  "maximum", "The greater of both; NaN where either is.", "maximum")
minimum  = _binary("minimum",  "minimum", "The lesser of both; NaN where either is.", "minimum")
floor_divide = _binary("floor_divide", "floor_div", "floor(x / y); an integer divided by 0 is 0.")
mod      = _binary("mod",      "mod", "The remainder with the sign of y; an integer modulo 0 is 0.")
fmod     = _binary("fmod",     "fmod", "The remainder with the sign of x.")
# fmt: on


def _float_binary(name: str, op: str, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    def function(x: TensorLike, y: TensorLike) -> Tensor:
        met = common_dtype(x, y)
        x, y = operands(x, y, dtype=met if met.is_float else ir.f32)
        return Tensor(emit(op, x.value, y.value))

    return _named(function, name, doc)


divide = _float_binary("divide", "div", "x / y, a float.")
true_divide = divide
atan2 = _float_binary("atan2", "atan2", "The angle of the point (y, x), in radians.")
copysign = _float_binary("copysign", "copysign", "The magnitude of x with the sign of y.")
float_power = _float_binary("float_power", "pow", "x to the power y, a float.")


def power(x: TensorLike, y: TensorLike) -> Tensor:
    """x to the power y.  Small constant powers are products.

    Errors  DTypeError for an integer tensor to a negative power.
    """
    if isinstance(y, int | float) and not isinstance(y, bool):
        product = _constant_power(as_tensor(x), y)
        if product is not None:
            return product
    a, b = operands(x, y)
    if a.type.dtype.kind == "b":
        fail(DTypeError, "power of bool tensors", got=str(a.type), hint="x.astype(fx.i32) first")
    if isinstance(y, int) and y < 0 and not a.type.dtype.is_float:
        fail(DTypeError, f"an integer tensor to the power {y}", hint="x.astype(fx.f32) first")
    return Tensor(emit("pow", a.value, b.value))


def _constant_power(x: Tensor, y: float) -> Tensor | None:
    kind = x.type.dtype.kind
    if kind == "b" or (kind != "f" and not isinstance(y, int)):
        return None
    if y not in _PRODUCTS or (y < 0 and kind != "f"):
        return None
    return _PRODUCTS[y](x)


_PRODUCTS: dict[float, Callable[[Tensor], Tensor]] = {
    1: lambda x: x,
    2: lambda x: x * x,
    3: lambda x: x * x * x,
    -1: lambda x: 1.0 / x,
    0.5: sqrt,
}


# Bits, logic, comparison.


def _bitwise(name: str, op: str, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    def function(x: TensorLike, y: TensorLike) -> Tensor:
        x, y = operands(x, y)
        if x.type.dtype.is_float:
            fail(
                DTypeError, f"{name} of float tensors", got=str(x.type), expected="bool or integers"
            )
        return Tensor(emit(op, x.value, y.value))

    return _named(function, name, doc)


bitwise_and = _bitwise("bitwise_and", "and", "x & y, of bools or bit by bit of integers.")
bitwise_or = _bitwise("bitwise_or", "or", "x | y, of bools or bit by bit of integers.")
bitwise_xor = _bitwise("bitwise_xor", "xor", "x ^ y, of bools or bit by bit of integers.")
left_shift = _bitwise("left_shift", "shift_left", "x << y of integers; 0 beyond the width.")
right_shift = _bitwise(
    "right_shift", "shift_right", "x >> y of integers; beyond the width the sign, or 0."
)


def invert(x: TensorLike) -> Tensor:
    """~x: not of bools, all bits of integers."""
    x = as_tensor(x)
    if x.type.dtype.is_float:
        fail(DTypeError, "~ of a float tensor", got=str(x.type), expected="bool or integers")
    return Tensor(emit("not", x.value))


def _logical(name: str, op: str, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    def function(x: TensorLike, y: TensorLike) -> Tensor:
        x, y = operands(as_tensor(x, ir.bool_), as_tensor(y, ir.bool_))
        return Tensor(emit(op, x.value, y.value))

    return _named(function, name, doc)


logical_and = _logical("logical_and", "and", "Whether both are not 0.")
logical_or = _logical("logical_or", "or", "Whether either is not 0.")
logical_xor = _logical("logical_xor", "xor", "Whether exactly one is not 0.")


def logical_not(x: TensorLike) -> Tensor:
    """Whether each element is 0."""
    return Tensor(emit("not", as_tensor(x, ir.bool_).value))


def _comparison(name: str, op: str, doc: str) -> Callable[[TensorLike, TensorLike], Tensor]:
    def function(x: TensorLike, y: TensorLike) -> Tensor:
        x, y = operands(x, y)
        return Tensor(emit(op, x.value, y.value))

    return _named(function, name, doc)


# fmt: off
equal         = _comparison("equal",         "eq", "x == y, a bool tensor.")
not_equal     = _comparison("not_equal",     "ne", "x != y, a bool tensor.")
less          = _comparison("less",          "lt", "x < y, a bool tensor.")
less_equal    = _comparison("less_equal",    "le", "x <= y, a bool tensor.")
greater       = _comparison("greater",       "gt", "x > y, a bool tensor.")
greater_equal = _comparison("greater_equal", "ge", "x >= y, a bool tensor.")
# fmt: on


def where(condition: TensorLike, x: TensorLike, y: TensorLike) -> Tensor:
    """x where the condition holds and y elsewhere.  Both sides are computed.

    Shapes  all three broadcast.
    """
    dtype = common_dtype(x, y)
    chosen = as_tensor(condition, ir.bool_)
    x, y = (x if is_number(x) else as_tensor(x, dtype) for x in (x, y))
    shape = broadcast_shapes(chosen.shape, *(v.shape for v in (x, y) if isinstance(v, Tensor)))
    x, y = (
        broadcast(v, shape) if isinstance(v, Tensor) else scalar(v, dtype, shape) for v in (x, y)
    )
    return Tensor(emit("select", broadcast(chosen, shape).value, x.value, y.value))


# Composed.


def clip(x: TensorLike, min: TensorLike | None = None, max: TensorLike | None = None) -> Tensor:
    """x within [min, max]; a bound that is None does not bound."""
    x = as_tensor(x)
    if min is not None:
        x = maximum(x, min)
    return x if max is None else minimum(x, max)


def square(x: TensorLike) -> Tensor:
    """x * x."""
    x = as_tensor(x)
    return x * x


def reciprocal(x: TensorLike) -> Tensor:
    """1 / x."""
    return 1.0 / as_float(x)


def deg2rad(x: TensorLike) -> Tensor:
    """Degrees to radians."""
    return as_float(x) * (math.pi / 180)


def rad2deg(x: TensorLike) -> Tensor:
    """Radians to degrees."""
    return as_float(x) * (180 / math.pi)


def _float_pair(x: TensorLike, y: TensorLike) -> tuple[Tensor, Tensor]:
    met = common_dtype(x, y)
    a, b = operands(x, y, dtype=met if met.is_float else as_dtype("f32"))
    return a, b


def hypot(x: TensorLike, y: TensorLike) -> Tensor:
    """sqrt(x**2 + y**2) without overflow; infinite beside NaN too; the gradient at (0, 0) is 0."""
    a, b = _float_pair(x, y)
    a, b = abs(a), abs(b)
    big, small = maximum(a, b), minimum(a, b)
    plain = (big == 0) | isinf(big)
    ratio = where(plain, 0.0, small / where(plain, 1.0, big))
    return where(isinf(a) | isinf(b), math.inf, big * sqrt(1.0 + ratio * ratio))


def logaddexp(x: TensorLike, y: TensorLike) -> Tensor:
    """log(exp(x) + exp(y)) without overflow."""
    a, b = _float_pair(x, y)
    # Equal operands differ by 0, also infinite ones; the gradient is shared where they are equal.
    gap = abs(where(a == b, 0.0, a - b))
    return maximum(a, b) + log1p(exp(-gap))


def fmax(x: TensorLike, y: TensorLike) -> Tensor:
    """The greater, element by element; the other one where one is NaN."""
    a, b = operands(x, y)
    if not a.type.dtype.is_float:
        return maximum(a, b)
    return where(isnan(a), b, where(isnan(b), a, maximum(a, b)))


def fmin(x: TensorLike, y: TensorLike) -> Tensor:
    """The lesser, element by element; the other one where one is NaN."""
    a, b = operands(x, y)
    if not a.type.dtype.is_float:
        return minimum(a, b)
    return where(isnan(a), b, where(isnan(b), a, minimum(a, b)))


def isclose(
    x: TensorLike,
    y: TensorLike,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    *,
    equal_nan: bool = False,
) -> Tensor:
    """abs(x - y) <= atol + rtol * abs(y), with equal infinities close."""
    a, b = _float_pair(x, y)
    close = (a == b) | (isfinite(b) & (abs(a - b) <= atol + rtol * abs(b)))
    return close | (isnan(a) & isnan(b)) if equal_nan else close
