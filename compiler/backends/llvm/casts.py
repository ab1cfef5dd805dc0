"""Conversions between dtypes.

Floats to integers truncate, saturate, and send NaN to 0.  Everything to bool is `!= 0`.
f16 and bf16 round to nearest, ties to even, once, also from f64; NaN stays NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.backends.llvm.values import features, llvm_type
from fluxc.compiler.ir.types import bool_, f16, f32, f64, i32, i64, u8, u16, u32

if TYPE_CHECKING:
    from fluxc.compiler.backends.llvm.scalar import LlvmScalar
    from fluxc.compiler.ir.types import DType

__all__ = ["bitcast", "cast"]


def bitcast(x: LlvmScalar, dtype: DType) -> LlvmScalar:
    """The same bits; a bool is one byte, of which the lowest bit counts."""
    assert x.dtype.bits == dtype.bits, f"{x.dtype} and {dtype} differ in size"
    if x.dtype == dtype:
        return x
    if x.dtype.kind == "b":
        return x.with_value(x.b.zext(x.v, llvm_type(u8, x.lanes)), u8).bitcast(dtype)
    if dtype.kind == "b":
        return x.with_value(x.b.trunc(x.v, llvm_type(bool_, x.lanes)), bool_)
    return x.with_value(x.b.bitcast(x.v, llvm_type(dtype, x.lanes)), dtype)


def cast(x: LlvmScalar, dtype: DType) -> LlvmScalar:
    if x.dtype == dtype:
        return x
    if x.dtype.is_float and x.dtype.bits == 16:
        return cast(_widen(x), dtype)
    if dtype.is_float and dtype.bits == 16:
        return _narrow(x, dtype)
    if dtype.kind == "b":
        return x.ne(0)
    if x.dtype.is_float:
        return _float_to_float(x, dtype) if dtype.is_float else _float_to_integer(x, dtype)
    return _integer_to_float(x, dtype) if dtype.is_float else _integer_to_integer(x, dtype)


def _float_to_float(x: LlvmScalar, dtype: DType) -> LlvmScalar:
    convert = x.b.fpext if dtype.bits > x.dtype.bits else x.b.fptrunc
    return x.with_value(convert(x.v, llvm_type(dtype, x.lanes)), dtype)


def _integer_to_float(x: LlvmScalar, dtype: DType) -> LlvmScalar:
    convert = x.b.sitofp if x.dtype.kind == "i" else x.b.uitofp
    return x.with_value(convert(x.v, llvm_type(dtype, x.lanes)), dtype)


def _integer_to_integer(x: LlvmScalar, dtype: DType) -> LlvmScalar:
    target = llvm_type(dtype, x.lanes)
    bits = 1 if x.dtype.kind == "b" else x.dtype.bits
    if dtype.bits == bits:
        return x.with_value(x.v, dtype)
    widen = x.b.sext if x.dtype.kind == "i" else x.b.zext
    return x.with_value((widen if dtype.bits > bits else x.b.trunc)(x.v, target), dtype)


def _float_to_integer(x: LlvmScalar, dtype: DType) -> LlvmScalar:
    signed = dtype.kind == "i"
    low, high = (-(1 << dtype.bits - 1), 1 << dtype.bits - 1) if signed else (0, 1 << dtype.bits)
    convert = x.b.fptosi if signed else x.b.fptoui
    # Poison where x is out of range or NaN, and then not selected.
    inside = x.with_value(convert(x.v, llvm_type(dtype, x.lanes)), dtype)
    upper = x.ge(float(high)).select(inside.like(high - 1), inside)
    lower = x.le(float(low)).select(inside.like(low), upper)
    return x.is_nan().select(inside.like(0), lower)


# --- 16-bit floats, by their bits: a conversion instruction is not everywhere


def _widen(x: LlvmScalar) -> LlvmScalar:
    """To f32, exactly."""
    if x.dtype != f16:
        return x.bitcast(u16).cast(u32).shl(16).bitcast(f32)
    if features(x.b.module).half:
        return _float_to_float(x, f32)
    bits = x.bitcast(u16).cast(u32)
    size = (bits & 0x7FFF).shl(13)
    # Read as an f32 the exponent is 112 too small; the multiplication also normalises denormals.
    finite = (size.bitcast(f32) * 2.0**112).bitcast(u32)
    magnitude = size.ge(0x7C00 << 13).select(size | 0x7F800000, finite)
    return (magnitude | (bits & 0x8000).shl(16)).bitcast(f32)


def _narrow(x: LlvmScalar, dtype: DType) -> LlvmScalar:
    if x.dtype in (i32, u32, i64) or x.dtype.bits == 64:
        x = _rounded_to_odd(x.cast(f64))
    x = x.cast(f32)
    if dtype != f16:
        return _to_bf16(x, dtype)
    return _float_to_float(x, f16) if features(x.b.module).half else _to_f16(x)


def _rounded_to_odd(x: LlvmScalar) -> LlvmScalar:
    """f64 to f32 such that rounding again to a shorter format gives what one rounding would.

    An inexact result gets an odd last bit, which no halfway case of a shorter format has.
    """
    near = x.cast(f32)
    back = near.cast(f64)
    bits = near.bitcast(i32)
    step = back.abs().gt(x.abs()).select(bits - 1, bits + 1)
    even = (bits & 1).eq(0)
    return (back.ne(x) & even & ~x.is_nan()).select(step, bits).bitcast(f32)


def _to_bf16(x: LlvmScalar, dtype: DType) -> LlvmScalar:
    bits = x.bitcast(u32)
    upper = bits.shr(16)
    rounded = (bits + ((upper & 1) + 0x7FFF)).shr(16)
    return x.is_nan().select(upper | 0x40, rounded).cast(u16).bitcast(dtype)


def _to_f16(x: LlvmScalar) -> LlvmScalar:
    bits = x.bitcast(u32)
    size = bits & 0x7FFFFFFF
    # Normal results: subtract 112 from the exponent and round the 13 lowest bits to even.
    normal = (size - (112 << 23) + 0xFFF + (size.shr(13) & 1)).shr(13)
    # Denormal results: adding 0.5 lets the addition itself round at 2**-24.
    tiny = (size.bitcast(f32) + 0.5).bitcast(u32) - 0x3F000000
    finite = size.lt(113 << 23).select(tiny, normal)
    bounded = size.ge(0x47800000).select(finite.like(0x7C00), finite)
    magnitude = size.gt(0x7F800000).select(size.shr(13) & 0x3FF | 0x7E00, bounded)
    return (magnitude | bits.shr(16) & 0x8000).cast(u16).bitcast(f16)
