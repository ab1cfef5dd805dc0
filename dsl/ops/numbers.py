"""Functions of single elements beyond arithmetic: signs, neighbours, repairs, other names."""

from __future__ import annotations

import math

import numpy as np

from fluxc.compiler.errors import DTypeError
from fluxc.compiler.ir import types as ir
from fluxc.ops.create import array
from fluxc.ops.elementwise import (
    abs,
    as_float,
    copysign,
    deg2rad,
    exp2,
    floor_divide,
    invert,
    isinf,
    isnan,
    left_shift,
    log1p,
    maximum,
    mod,
    power,
    rad2deg,
    right_shift,
    sin,
    where,
)
from fluxc.tensor import Tensor, TensorLike, as_tensor, cast, common_dtype, operands, scalar
from fluxc.trace import emit, fail

__all__ = [
    "absolute", "allclose", "array_equal", "asarray", "bitwise_count", "bitwise_invert",
    "bitwise_left_shift", "bitwise_not", "bitwise_right_shift", "degrees", "divmod", "fabs",
    "heaviside", "ldexp", "logaddexp2", "nan_to_num", "nextafter", "positive", "pow", "radians",
    "remainder", "signbit", "sinc",
]  # fmt: skip

absolute = abs
asarray = array
bitwise_invert = bitwise_not = invert
bitwise_left_shift, bitwise_right_shift = left_shift, right_shift
degrees, radians = rad2deg, deg2rad
pow, remainder = power, mod


def positive(x: TensorLike) -> Tensor:
    """+x, which is x."""
    return as_tensor(x)


def fabs(x: TensorLike) -> Tensor:
    """Absolute value, a float."""
    return abs(as_float(x))


def signbit(x: TensorLike) -> Tensor:
    """Whether the sign is negative; of -0.0 and NaN by their sign bit."""
    x = as_tensor(x)
    if x.type.dtype.is_float:
        return copysign(scalar(1.0, x.type.dtype), x) < 0
    return x < 0 if x.type.dtype.kind == "i" else scalar(False, ir.bool_, x.shape)


def heaviside(x: TensorLike, h0: TensorLike) -> Tensor:
    """0 below 0, h0 at 0, 1 above; NaN of NaN."""
    a, b = _floats(x, h0)
    step = where(a == 0, b, where(a > 0, scalar(1.0, a.type.dtype), scalar(0.0, a.type.dtype)))
    return where(isnan(a), a, step)


def _floats(x: TensorLike, y: TensorLike) -> tuple[Tensor, ...]:
    met = common_dtype(x, y)
    return operands(x, y, dtype=met if met.is_float else ir.f32)


def sinc(x: TensorLike) -> Tensor:
    """sin(pi*x) / (pi*x), 1 at 0."""
    x = as_float(x)
    turn = math.pi * where(x == 0, scalar(1.0, x.type.dtype), x)
    return where(x == 0, scalar(1.0, x.type.dtype), sin(turn) / turn)


def logaddexp2(x: TensorLike, y: TensorLike) -> Tensor:
    """log2(2**x + 2**y) without overflow."""
    a, b = _floats(x, y)
    gap = abs(where(a == b, scalar(0.0, a.type.dtype), a - b))
    return maximum(a, b) + log1p(exp2(-gap)) * (1 / math.log(2))


def ldexp(x: TensorLike, exponent: TensorLike) -> Tensor:
    """x * 2**exponent."""
    x = as_float(x)
    return x * exp2(cast(as_tensor(exponent), x.type.dtype))


def divmod(x: TensorLike, y: TensorLike) -> tuple[Tensor, Tensor]:
    """floor(x / y) and the remainder."""
    return floor_divide(x, y), mod(x, y)


def nan_to_num(
    x: TensorLike,
    nan: float = 0.0,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    """NaN and infinities replaced, by default by 0 and the greatest finite numbers."""
    x = as_tensor(x)
    if not x.type.dtype.is_float:
        return x
    greatest = _greatest(x.type.dtype)
    high = greatest if posinf is None else posinf
    low = -greatest if neginf is None else neginf
    finite = where(isinf(x), where(x > 0, high, scalar(low, x.type.dtype)), x)
    return where(isnan(x), nan, finite)


def _greatest(dtype: ir.DType) -> float:
    return (2 - 2**-7) * 2.0**127 if dtype == ir.bf16 else float(np.finfo(dtype.numpy).max)


def nextafter(x: TensorLike, y: TensorLike) -> Tensor:
    """The neighbour of x towards y, among the numbers of its dtype (f32 or f64)."""
    a, b = _floats(x, y)
    if a.type.dtype.bits == 16:
        fail(DTypeError, "nextafter of 16-bit floats", got=str(a.type), expected="f32 or f64")
    whole = ir.i64 if a.type.dtype == ir.f64 else ir.i32
    bits = Tensor(emit("bitcast", a.value, dtype=whole))
    away = (b > a) == (a > 0)  # towards y is away from 0
    tiny = Tensor(emit("bitcast", scalar(1, whole, a.shape).value, dtype=a.type.dtype))
    moved = Tensor(emit("bitcast", where(away, bits + 1, bits - 1).value, dtype=a.type.dtype))
    moved = where(a == 0, where(b > 0, tiny, -tiny), moved)
    return where(isnan(a) | isnan(b), a + b, where(a == b, b, moved))


def bitwise_count(x: TensorLike) -> Tensor:
    """The number of bits that are 1 in the absolute value, u8."""
    x = as_tensor(x)
    if not x.type.dtype.is_integer:
        fail(DTypeError, "bitwise_count takes integers", got=str(x.type))
    wide = cast(cast(abs(x), ir.i64), ir.u64)
    if x.type.dtype.bits < 64:
        wide = wide & (2**x.type.dtype.bits - 1)
    total = scalar(0, ir.u64, x.shape)
    for place in range(x.type.dtype.bits):
        total = total + ((wide >> place) & 1)
    return cast(total, ir.u8)


def allclose(
    x: TensorLike, y: TensorLike, rtol: float = 1e-5, atol: float = 1e-8, *, equal_nan: bool = False
) -> Tensor:
    """Whether all elements are close, a bool scalar; see `isclose`."""
    from fluxc.ops.elementwise import isclose

    return isclose(x, y, rtol, atol, equal_nan=equal_nan).all()


def array_equal(x: TensorLike, y: TensorLike) -> Tensor:
    """Whether shapes and all elements are equal, a bool scalar."""
    a, b = as_tensor(x), as_tensor(y)
    return scalar(False, ir.bool_) if a.shape != b.shape else (a == b).all()
