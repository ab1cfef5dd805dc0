"""Triton source text that behaves like a number: `Op.scalar` bodies write code by computing.

A value that is needed twice gets a name on a line of its own; a function that Triton lacks becomes
a `@triton.jit` function beside the kernels, written once for each dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from fluxc.compiler.backends.triton import functions, integers
from fluxc.compiler.ir.types import bool_, f32

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.types import DType

__all__ = ["Library", "TritonScalar", "Writer", "register_type", "triton_type"]

_NAMES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i64": "int64",
    "i32": "int32", "i16": "int16", "i8": "int8", "u64": "uint64", "u32": "uint32",
    "u16": "uint16", "u8": "uint8", "bool": "int1",
}  # fmt: skip


def triton_type(dtype: DType) -> str:
    """The dtype of a value in a program: `tl.float32`; bool is `tl.int1`."""
    return f"tl.{_NAMES[dtype.name]}"


def register_type(dtype: DType) -> DType:
    """What a program computes in: f32 for the 16-bit floats, which are formats of storage."""
    return f32 if dtype.is_float and dtype.bits == 16 else dtype


@dataclass(slots=True, eq=False)
class Library:
    """The functions that the kernels of a file call, by name, each after those that it calls."""

    texts: dict[str, str] = field(default_factory=dict)

    def define(self, name: str, body: Callable[..., TritonScalar], dtypes: list[DType]) -> None:
        if name in self.texts:
            return
        writer = Writer(self, single=True)
        arguments = [
            TritonScalar(letter, d, writer) for letter, d in zip("xyz", dtypes, strict=False)
        ]
        result = body(*arguments)
        writer.line(f"return {bare(result.typed().text)}")
        head = f"@triton.jit\ndef {name}({', '.join(a.text for a in arguments)}):"
        self.texts[name] = "\n".join([head, *writer.lines])


@dataclass(slots=True, eq=False)
class Writer:
    """The lines of one function, and fresh names.

    single: every operation gets a line, for bodies that use what they compute more than once.
    """

    library: Library
    indent: int = 1
    single: bool = False
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def let(self, text: str, name: str | None = None) -> str:
        """Give a value a name; one that has a name keeps it."""
        if name is None and text.isidentifier():
            return text
        if name is None:
            name, self.count = f"x{self.count}", self.count + 1
        self.line(f"{name} = {bare(text)}")
        return name


@dataclass(frozen=True, slots=True, eq=False)
class TritonScalar:
    """`text` is an expression for a number, or a block of them, of `dtype`.

    number: the Python number that `text` spells.  Beside another value it takes its dtype.
    """

    text: str
    dtype: DType
    out: Writer
    number: float | None = None

    # --- making values

    def like(self, number: float | bool) -> TritonScalar:
        """The constant in this dtype."""
        return constant(self.out, self.dtype, number)

    def raw(self, text: str, dtype: DType | None = None) -> TritonScalar:
        """A value that is written so."""
        return TritonScalar(text, dtype or self.dtype, self.out)

    def _new(self, text: str, dtype: DType | None = None) -> TritonScalar:
        return self.raw(self.out.let(text) if self.out.single else text, dtype)

    def named(self) -> TritonScalar:
        """This value under a name, so that it may be written twice."""
        if self.number is not None or self.text.isidentifier():
            return self
        return self.raw(self.out.let(self.text))

    def typed(self) -> TritonScalar:
        """This value with its dtype, whatever stands beside it."""
        if self.number is None:
            return self
        return self.raw(f"tl.full((), {bare(self.text)}, {triton_type(self.dtype)})")

    def operand(self, other: Operand) -> TritonScalar:
        if not isinstance(other, TritonScalar):
            return self.like(other)
        assert other.dtype == self.dtype, f"operands are {self.dtype} and {other.dtype}"
        return other

    def call(self, name: str, *args: TritonScalar) -> TritonScalar:
        """A function of Triton's on values of this dtype."""
        return self._new(f"tl.{name}({', '.join(bare(a.typed().text) for a in (self, *args))})")

    def helper(
        self, name: str, body: Callable[..., TritonScalar], *args: TritonScalar
    ) -> TritonScalar:
        """A function of ours, defined once for the dtype."""
        full = f"fx_{name}_{self.dtype}"
        given = (self, *args)
        self.out.library.define(full, body, [a.dtype for a in given])
        return self._new(f"{full}({', '.join(bare(a.typed().text) for a in given)})")

    # --- arithmetic

    def _infix(self, sign: str, other: Operand, dtype: DType | None = None) -> TritonScalar:
        y = self.operand(other)
        x = self.typed() if y.number is not None else self
        return x._new(f"({x.text} {sign} {y.text})", dtype)  # noqa: SLF001

    def __add__(self, other: Operand) -> TritonScalar:
        return self._infix("+", other)

    def __sub__(self, other: Operand) -> TritonScalar:
        return self._infix("-", other)

    def __mul__(self, other: Operand) -> TritonScalar:
        return self._infix("*", other)

    def __truediv__(self, other: Operand) -> TritonScalar:
        """IEEE's quotient: Triton's `/` of f32 is good to 2 ulp only."""
        assert self.dtype.is_float, "/ is for floats; see floor_div"
        if self.dtype != f32:
            return self._infix("/", other)
        return self.call("div_rn", self.operand(other))

    def __radd__(self, other: float) -> TritonScalar:
        return self.like(other) + self

    def __rsub__(self, other: float) -> TritonScalar:
        return self.like(other) - self

    def __rmul__(self, other: float) -> TritonScalar:
        return self.like(other) * self

    def __rtruediv__(self, other: float) -> TritonScalar:
        return self.like(other) / self

    def __neg__(self) -> TritonScalar:
        return self._new(f"(-{self.typed().text})")

    def __and__(self, other: Operand) -> TritonScalar:
        return self._infix("&", other)

    def __or__(self, other: Operand) -> TritonScalar:
        return self._infix("|", other)

    def __xor__(self, other: Operand) -> TritonScalar:
        return self._infix("^", other)

    def __invert__(self) -> TritonScalar:
        return self._new(f"(~{self.typed().text})")

    def fma(self, y: Operand, z: Operand) -> TritonScalar:
        if not self.dtype.is_float:
            return self * y + z
        return self.call("fma", self.operand(y), self.operand(z))

    # --- comparisons

    def eq(self, other: Operand) -> TritonScalar:
        return self._infix("==", other, bool_)

    def ne(self, other: Operand) -> TritonScalar:
        return self._infix("!=", other, bool_)

    def lt(self, other: Operand) -> TritonScalar:
        return self._infix("<", other, bool_)

    def le(self, other: Operand) -> TritonScalar:
        return self._infix("<=", other, bool_)

    def gt(self, other: Operand) -> TritonScalar:
        return self._infix(">", other, bool_)

    def ge(self, other: Operand) -> TritonScalar:
        return self._infix(">=", other, bool_)

    def is_nan(self) -> TritonScalar:
        x = self.named()
        return x.ne(x)

    def select(self, x: TritonScalar, y: Operand) -> TritonScalar:
        y = x.operand(y)
        x = x.typed() if y.number is not None else x
        parts = ", ".join(bare(p.text) for p in (self.typed(), x, y))
        return self._new(f"tl.where({parts})", x.dtype)

    def maximum(self, other: Operand) -> TritonScalar:
        if self.dtype == bool_:
            return self | other
        return self._extreme(other, TritonScalar.gt)

    def minimum(self, other: Operand) -> TritonScalar:
        if self.dtype == bool_:
            return self & other
        return self._extreme(other, TritonScalar.lt)

    def _extreme(
        self, other: Operand, better: Callable[[TritonScalar, TritonScalar], TritonScalar]
    ) -> TritonScalar:
        x, y = self.named(), self.operand(other).named()
        chosen = better(x, y).select(x, y)  # y where it is the NaN
        return x.is_nan().select(x, chosen) if self.dtype.is_float else chosen

    # --- integers; also the remainders of floats

    def shl(self, amount: Operand) -> TritonScalar:
        return integers.shift_left(self, self.operand(amount))

    def shr(self, amount: Operand) -> TritonScalar:
        return integers.shift_right(self, self.operand(amount))

    def truncating(self, sign: str, other: TritonScalar) -> TritonScalar:
        """Triton's `//` or `%`, which round towards zero."""
        return self._infix(sign, other)

    def floor_div(self, other: Operand) -> TritonScalar:
        body = functions.floor_div if self.dtype.is_float else integers.floor_div
        return self.helper("floor_div", body, self.operand(other))

    def mod(self, other: Operand) -> TritonScalar:
        body = functions.mod if self.dtype.is_float else integers.mod
        return self.helper("mod", body, self.operand(other))

    def fmod(self, other: Operand) -> TritonScalar:
        if self.dtype.is_float:
            return self.typed().truncating("%", self.operand(other).typed())
        return self.helper("remainder", integers.remainder, self.operand(other))

    def pow(self, other: Operand) -> TritonScalar:
        body = functions.pow if self.dtype.is_float else integers.power
        return self.helper("power", body, self.operand(other))

    # --- sign and rounding

    def abs(self) -> TritonScalar:
        return self if self.dtype.kind == "u" else self.call("abs")

    def copysign(self, other: Operand) -> TritonScalar:
        return self.helper("copysign", functions.copysign, self.operand(other))

    def sqrt(self) -> TritonScalar:
        return self.call("sqrt_rn" if self.dtype == f32 else "sqrt")

    def rsqrt(self) -> TritonScalar:
        return 1.0 / self.sqrt()

    def floor(self) -> TritonScalar:
        return self.call("floor")

    def ceil(self) -> TritonScalar:
        return self.call("ceil")

    def trunc(self) -> TritonScalar:
        return self.helper("trunc", functions.trunc)

    def round(self) -> TritonScalar:
        return self.helper("round_even", functions.round_even)

    # --- conversions

    def cast(self, dtype: DType) -> TritonScalar:
        """Floats to integers truncate, saturate, NaN to 0; to bool is `!= 0`."""
        if dtype == self.dtype:
            return self
        if dtype == bool_:
            return self.cast(register_type(self.dtype)).ne(0)
        if self.dtype.is_float and not dtype.is_float:
            x = self.cast(register_type(self.dtype))
            name = f"to_{dtype}"
            return x.helper(name, lambda v: functions.to_integer(v, dtype)).as_type(dtype)
        return self.convert(dtype)

    def as_type(self, dtype: DType) -> TritonScalar:
        """The same text, which has this dtype."""
        return self.raw(self.text, dtype)

    def convert(self, dtype: DType) -> TritonScalar:
        """Triton's own conversion."""
        return self._new(f"{self.typed().text}.to({triton_type(dtype)})", dtype)

    def bitcast(self, dtype: DType) -> TritonScalar:
        if dtype == self.dtype:
            return self
        return self._new(f"{self.typed().text}.to({triton_type(dtype)}, bitcast=True)", dtype)

    # --- functions: Triton's own, and ours where it has none

    def exp(self) -> TritonScalar:
        return self.call("exp")

    def exp2(self) -> TritonScalar:
        return self.call("exp2")

    def log(self) -> TritonScalar:
        return self.call("log")

    def log2(self) -> TritonScalar:
        return self.call("log2")

    def log10(self) -> TritonScalar:
        return self.call("log2") * math.log10(2)

    def sin(self) -> TritonScalar:
        return self.call("sin")

    def cos(self) -> TritonScalar:
        return self.call("cos")

    def erf(self) -> TritonScalar:
        return self.call("erf")

    def tan(self) -> TritonScalar:
        x = self.named()
        return x.sin() / x.cos()

    def expm1(self) -> TritonScalar:
        return self.helper("expm1", functions.expm1)

    def log1p(self) -> TritonScalar:
        return self.helper("log1p", functions.log1p)

    def asin(self) -> TritonScalar:
        return self.helper("asin", functions.asin)

    def acos(self) -> TritonScalar:
        return self.helper("acos", functions.acos)

    def atan(self) -> TritonScalar:
        return self.helper("atan", functions.atan)

    def atan2(self, other: Operand) -> TritonScalar:
        return self.helper("atan2", functions.atan2, self.operand(other))

    def sinh(self) -> TritonScalar:
        return self.helper("sinh", functions.sinh)

    def cosh(self) -> TritonScalar:
        return self.helper("cosh", functions.cosh)

    def tanh(self) -> TritonScalar:
        return self.helper("tanh", functions.tanh)

    def asinh(self) -> TritonScalar:
        return self.helper("asinh", functions.asinh)

    def acosh(self) -> TritonScalar:
        return self.helper("acosh", functions.acosh)

    def atanh(self) -> TritonScalar:
        return self.helper("atanh", functions.atanh)

    def cbrt(self) -> TritonScalar:
        return self.helper("cbrt", functions.cbrt)


Operand: TypeAlias = "TritonScalar | float"


def constant(out: Writer, dtype: DType, number: float | bool) -> TritonScalar:
    """A Python number in a dtype; integers wrap around."""
    value: float | int = number
    if dtype == bool_:
        return TritonScalar(str(bool(number)), dtype, out, number=bool(number))
    if dtype.is_integer:
        value = int(number) & ((1 << dtype.bits) - 1)
        if dtype.kind == "i" and value >> (dtype.bits - 1):
            value -= 1 << dtype.bits
        text = str(value)
    else:
        value = float(number)
        text = repr(value) if math.isfinite(value) else f'float("{value}")'
    return TritonScalar(f"({text})" if text.startswith("-") else text, dtype, out, number=value)


def bare(text: str) -> str:
    """Without the outer parentheses, where they are one pair."""
    if not text.startswith("("):
        return text
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return text[1:-1] if i == len(text) - 1 else text
    return text
