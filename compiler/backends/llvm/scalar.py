"""An LLVM value that behaves like a number, so that `Op.scalar` bodies emit code by computing.

The same object is one number or a vector of them.  Nothing here traps, branches or calls a library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llvmlite import ir

from fluxc.compiler.backends.llvm import casts, integers, math, rounding
from fluxc.compiler.backends.llvm.values import (
    constant,
    first_lane,
    intrinsic,
    lanes_of,
    poison,
    splat_constant,
)
from fluxc.compiler.ir.types import bool_

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.types import DType

__all__ = ["LlvmScalar", "number"]


@dataclass(frozen=True, slots=True, eq=False)
class LlvmScalar:
    """`v` is a value or a <lanes x value> vector of `dtype`; operators emit at the builder `b`.

    Operands of one dtype; a scalar beside a vector is splatted; a Python number becomes a constant.
    f16 and bf16 are storage formats: they are only moved, selected and cast.

    Every operation rounds for itself, but `fma`: an expression has the same bits in every kernel
    that computes it, whatever stands around it, so that `x == max(x)` holds for some x.
    """

    b: ir.IRBuilder
    v: ir.Value
    dtype: DType

    # --- making values

    @property
    def lanes(self) -> int:
        return lanes_of(self.v)

    def like(self, number: float | bool) -> LlvmScalar:
        """The constant, of this dtype and this many lanes."""
        return self.with_value(constant(self.dtype, number, self.lanes))

    def splat(self, lanes: int) -> LlvmScalar:
        """This scalar in every lane of a vector."""
        if lanes == self.lanes:
            return self
        assert self.lanes == 1, f"a vector of {self.lanes} cannot become one of {lanes}"
        if isinstance(self.v, ir.Constant):
            return self.with_value(splat_constant(self.v, lanes))
        empty = poison(self.v.type, lanes)
        first = self.b.insert_element(empty, self.v, ir.Constant(ir.IntType(32), 0))
        return self.with_value(self.b.shuffle_vector(first, empty, first_lane(lanes)))

    def with_value(self, v: ir.Value, dtype: DType | None = None) -> LlvmScalar:
        return LlvmScalar(self.b, v, dtype or self.dtype)

    def operand(self, other: Operand) -> LlvmScalar:
        """`other` as a value of this dtype."""
        if not isinstance(other, LlvmScalar):
            return self.like(other)
        assert other.dtype == self.dtype, f"operands are {self.dtype} and {other.dtype}"
        return other

    def aligned(self, other: Operand) -> tuple[LlvmScalar, ir.Value, ir.Value]:
        """Both operands with the same number of lanes, and the first as a template."""
        x, y = self, self.operand(other)
        lanes = max(x.lanes, y.lanes)
        x, y = x.splat(lanes), y.splat(lanes)
        return x, x.v, y.v

    # --- arithmetic

    def _binary(self, other: Operand, floating: str, integer: str) -> LlvmScalar:
        x, left, right = self.aligned(other)
        if not self.dtype.is_float:
            return x.with_value(getattr(self.b, integer)(left, right))
        self._check_float()
        return x.with_value(getattr(self.b, floating)(left, right))

    def _check_float(self) -> None:
        assert self.dtype.bits > 16, f"{self.dtype} is a storage format: cast to f32 to compute"

    def __add__(self, other: Operand) -> LlvmScalar:
        return self._binary(other, "fadd", "add")

    def __sub__(self, other: Operand) -> LlvmScalar:
        return self._binary(other, "fsub", "sub")

    def __mul__(self, other: Operand) -> LlvmScalar:
        return self._binary(other, "fmul", "mul")

    def __truediv__(self, other: Operand) -> LlvmScalar:
        assert self.dtype.is_float, "/ is for floats; see floor_div"
        return self._binary(other, "fdiv", "sdiv")

    def __radd__(self, other: float) -> LlvmScalar:
        return self.like(other) + self

    def __rsub__(self, other: float) -> LlvmScalar:
        return self.like(other) - self

    def __rmul__(self, other: float) -> LlvmScalar:
        return self.like(other) * self

    def __rtruediv__(self, other: float) -> LlvmScalar:
        return self.like(other) / self

    def __neg__(self) -> LlvmScalar:
        if self.dtype.is_float:
            return self.with_value(self.b.fneg(self.v))
        return self.with_value(self.b.neg(self.v))

    def __and__(self, other: Operand) -> LlvmScalar:
        return self._bitwise(other, self.b.and_)

    def __or__(self, other: Operand) -> LlvmScalar:
        return self._bitwise(other, self.b.or_)

    def __xor__(self, other: Operand) -> LlvmScalar:
        return self._bitwise(other, self.b.xor)

    def _bitwise(
        self, other: Operand, emit: Callable[[ir.Value, ir.Value], ir.Value]
    ) -> LlvmScalar:
        assert not self.dtype.is_float, "bit operations are for integers and bools"
        x, left, right = self.aligned(other)
        return x.with_value(emit(left, right))

    def __invert__(self) -> LlvmScalar:
        assert not self.dtype.is_float, "bit operations are for integers and bools"
        return self.with_value(self.b.not_(self.v))

    def fma(self, y: Operand, z: Operand) -> LlvmScalar:
        """self * y + z: one rounding where the machine has the instruction, else two."""
        if not self.dtype.is_float:
            return self * y + z
        y, z = self.operand(y), self.operand(z)
        lanes = max(self.lanes, y.lanes, z.lanes)
        values = [s.splat(lanes).v for s in (self, y, z)]
        return self.with_value(intrinsic(self.b, "fmuladd", values[0].type, *values))

    # --- comparisons: -> bool; a NaN is unequal to everything and unordered

    def _compare(self, other: Operand, sign: str) -> LlvmScalar:
        x, left, right = self.aligned(other)
        if self.dtype.is_float:
            emit = self.b.fcmp_unordered if sign == "!=" else self.b.fcmp_ordered
        else:
            emit = self.b.icmp_signed if self.dtype.kind == "i" else self.b.icmp_unsigned
        return x.with_value(emit(sign, left, right), bool_)

    def eq(self, other: Operand) -> LlvmScalar:
        return self._compare(other, "==")

    def ne(self, other: Operand) -> LlvmScalar:
        return self._compare(other, "!=")

    def lt(self, other: Operand) -> LlvmScalar:
        return self._compare(other, "<")

    def le(self, other: Operand) -> LlvmScalar:
        return self._compare(other, "<=")

    def gt(self, other: Operand) -> LlvmScalar:
        return self._compare(other, ">")

    def ge(self, other: Operand) -> LlvmScalar:
        return self._compare(other, ">=")

    def is_nan(self) -> LlvmScalar:
        return self.with_value(self.b.fcmp_unordered("uno", self.v, self.v), bool_)

    def select(self, x: LlvmScalar, y: Operand) -> LlvmScalar:
        """x where this bool is true, else y."""
        y = x.operand(y)
        lanes = max(self.lanes, x.lanes, y.lanes)
        c, x, y = self.splat(lanes) if self.lanes > 1 else self, x.splat(lanes), y.splat(lanes)
        return x.with_value(self.b.select(c.v, x.v, y.v))

    def maximum(self, other: Operand) -> LlvmScalar:
        """The larger one; NaN if either is."""
        return self._extreme(other, LlvmScalar.gt)

    def minimum(self, other: Operand) -> LlvmScalar:
        """The smaller one; NaN if either is."""
        return self._extreme(other, LlvmScalar.lt)

    def _extreme(
        self, other: Operand, better: Callable[[LlvmScalar, LlvmScalar], LlvmScalar]
    ) -> LlvmScalar:
        y = self.operand(other)
        # A comparison with NaN is false and selects y: right already where y is the NaN.
        chosen = better(self, y).select(self, y)
        return self.is_nan().select(self, chosen) if self.dtype.is_float else chosen

    # --- shifts, division of integers and floats

    def shl(self, amount: Operand) -> LlvmScalar:
        return integers.shift_left(self, self.operand(amount))

    def shr(self, amount: Operand) -> LlvmScalar:
        return integers.shift_right(self, self.operand(amount))

    def floor_div(self, other: Operand) -> LlvmScalar:
        other = self.operand(other)
        if self.dtype.is_float:
            return math.floor_div(self, other)
        return integers.floor_div(self, other)

    def mod(self, other: Operand) -> LlvmScalar:
        other = self.operand(other)
        return math.mod(self, other) if self.dtype.is_float else integers.mod(self, other)

    def fmod(self, other: Operand) -> LlvmScalar:
        other = self.operand(other)
        return math.fmod(self, other) if self.dtype.is_float else integers.remainder(self, other)

    def pow(self, other: Operand) -> LlvmScalar:
        other = self.operand(other)
        return math.pow(self, other) if self.dtype.is_float else integers.power(self, other)

    # --- sign and rounding

    def abs(self) -> LlvmScalar:
        if self.dtype.is_float:
            return self._float_intrinsic("fabs")
        return self.lt(0).select(-self, self) if self.dtype.kind == "i" else self

    def sign(self) -> LlvmScalar:
        """-1, 0 or 1; NaN for NaN."""
        positive = self.gt(0).select(self.like(1), self)
        return positive if self.dtype.kind == "u" else self.lt(0).select(self.like(-1), positive)

    def copysign(self, other: Operand) -> LlvmScalar:
        x, left, right = self.aligned(other)
        return x.with_value(intrinsic(self.b, "copysign", left.type, left, right))

    def _float_intrinsic(self, name: str) -> LlvmScalar:
        assert self.dtype.is_float, f"{name} is for floats"
        return self.with_value(intrinsic(self.b, name, self.v.type, self.v))

    def sqrt(self) -> LlvmScalar:
        self._check_float()
        return self._float_intrinsic("sqrt")

    def rsqrt(self) -> LlvmScalar:
        return 1.0 / self.sqrt()

    def floor(self) -> LlvmScalar:
        return rounding.floor(self)

    def ceil(self) -> LlvmScalar:
        return rounding.ceil(self)

    def trunc(self) -> LlvmScalar:
        return rounding.trunc(self)

    def round(self) -> LlvmScalar:
        """To the nearest integer, ties to even."""
        return rounding.round_even(self)

    # --- conversions

    def cast(self, dtype: DType) -> LlvmScalar:
        """The same number: floats to integers truncate, saturate, NaN to 0; to bool is `!= 0`."""
        return casts.cast(self, dtype)

    def bitcast(self, dtype: DType) -> LlvmScalar:
        """The same bits."""
        return casts.bitcast(self, dtype)

    # --- functions

    def exp(self) -> LlvmScalar:
        return math.exp(self)

    def exp2(self) -> LlvmScalar:
        return math.exp2(self)

    def expm1(self) -> LlvmScalar:
        return math.expm1(self)

    def log(self) -> LlvmScalar:
        return math.log(self)

    def log2(self) -> LlvmScalar:
        return math.log2(self)

    def log10(self) -> LlvmScalar:
        return math.log10(self)

    def log1p(self) -> LlvmScalar:
        return math.log1p(self)

    def sin(self) -> LlvmScalar:
        return math.sin(self)

    def cos(self) -> LlvmScalar:
        return math.cos(self)

    def tan(self) -> LlvmScalar:
        return math.tan(self)

    def asin(self) -> LlvmScalar:
        return math.asin(self)

    def acos(self) -> LlvmScalar:
        return math.acos(self)

    def atan(self) -> LlvmScalar:
        return math.atan(self)

    def sinh(self) -> LlvmScalar:
        return math.sinh(self)

    def cosh(self) -> LlvmScalar:
        return math.cosh(self)

    def tanh(self) -> LlvmScalar:
        return math.tanh(self)

    def asinh(self) -> LlvmScalar:
        return math.asinh(self)

    def acosh(self) -> LlvmScalar:
        return math.acosh(self)

    def atanh(self) -> LlvmScalar:
        return math.atanh(self)

    def cbrt(self) -> LlvmScalar:
        return math.cbrt(self)

    def erf(self) -> LlvmScalar:
        return math.erf(self)

    def atan2(self, x: Operand) -> LlvmScalar:
        """The angle of the point (x, self)."""
        return math.atan2(self, self.operand(x))


Operand: TypeAlias = "LlvmScalar | float"


def number(b: ir.IRBuilder, dtype: DType, value: float | bool, lanes: int = 1) -> LlvmScalar:
    """A Python number as a value."""
    return LlvmScalar(b, constant(dtype, value, lanes), dtype)
