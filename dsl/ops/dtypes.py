"""What is known of dtypes: limits, kinds, promotion; and the constants of the array API."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluxc.compiler.errors import DTypeError
from fluxc.compiler.ir import types as ir
from fluxc.tensor import Operators, common_dtype
from fluxc.trace import fail
from fluxc.types import DTypeLike, ElementType, as_dtype, element_type

__all__ = [
    "can_cast", "e", "finfo", "iinfo", "inf", "isdtype", "nan", "newaxis", "pi", "result_type",
]  # fmt: skip

e, inf, nan, pi, newaxis = math.e, math.inf, math.nan, math.pi, None
# Bits of the significand, the implicit one included, and the least normal exponent.
_FLOATS = {"f64": (53, -1022), "f32": (24, -126), "f16": (11, -14), "bf16": (8, -126)}
_KINDS = {
    "bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu",
    "real floating": "f", "numeric": "iuf", "complex floating": "",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FloatLimits:
    """Limits of a float dtype.  eps is the distance from 1 to the next number."""

    dtype: ElementType
    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float


@dataclass(frozen=True, slots=True)
class IntegerLimits:
    """Limits of an integer dtype."""

    dtype: ElementType
    bits: int
    max: int
    min: int


def _dtype_of(x: Any) -> ir.DType:
    return x.type.dtype if isinstance(x, Operators) else as_dtype(x)


def finfo(x: Any) -> FloatLimits:
    """Limits of a float dtype, or of a tensor's."""
    dtype = _dtype_of(x)
    if not dtype.is_float:
        fail(
            DTypeError, f"finfo of {dtype}", expected="a float dtype", hint=f"fx.iinfo(fx.{dtype})"
        )
    digits, least = _FLOATS[dtype.name]
    top = (2 - 2.0 ** (1 - digits)) * 2.0 ** (1 - least)
    eps = 2.0 ** (1 - digits)
    return FloatLimits(element_type(dtype), dtype.bits, eps, top, -top, 2.0**least)


def iinfo(x: Any) -> IntegerLimits:
    """Limits of an integer dtype, or of a tensor's."""
    dtype = _dtype_of(x)
    if not dtype.is_integer:
        fail(DTypeError, f"iinfo of {dtype}", expected="an integer dtype")
    info = np.iinfo(dtype.numpy)
    return IntegerLimits(element_type(dtype), dtype.bits, int(info.max), int(info.min))


def isdtype(dtype: DTypeLike, kind: Any) -> bool:
    """Whether a dtype is of a kind: a dtype, the array API's name of a kind, or any of several."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, one) for one in kind)
    if isinstance(kind, str) and kind in _KINDS:
        return as_dtype(dtype).kind in _KINDS[kind]
    return as_dtype(dtype) == as_dtype(kind)


def result_type(*xs: Any) -> ElementType:
    """The dtype in which tensors, dtypes and Python's numbers meet."""
    return element_type(common_dtype(*(_stand_in(x) for x in xs)))


class _Typed(Operators):
    """A dtype where an operand is expected."""

    __slots__ = ("_type",)

    def __init__(self, dtype: ir.DType) -> None:
        self._type = ir.TensorType(dtype)

    @property
    def type(self) -> ir.TensorType:
        return self._type


def _stand_in(x: Any) -> Any:
    if isinstance(x, Operators | bool | int | float | np.ndarray):
        return x
    return _Typed(as_dtype(x))


def can_cast(source: Any, target: DTypeLike) -> bool:
    """Whether `target` is the dtype in which both meet: nothing is lost."""
    return result_type(_Typed(_dtype_of(source)), _Typed(as_dtype(target))).dtype == as_dtype(
        target
    )
