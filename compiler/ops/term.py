"""Derivative rules written as arithmetic.

A rule such as `lambda dy, y, x: (dy * x.cos(),)` runs on `Term`s: values of the graph that is being
built, which behave like numbers and have every operation of the table as a method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from fluxc.compiler.ops.op import OPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Value
    from fluxc.compiler.ir.types import DType, TensorType

__all__ = ["Term", "derivative"]

Operand: TypeAlias = "Term | bool | int | float"


class Emitter(Protocol):
    """What adds nodes of one output to a graph: a builder, or a pass that rebuilds one."""

    def emit(self, op: str, *inputs: Value, **attrs: Any) -> Value: ...


class Term:
    """A value of a graph under construction.  Python numbers beside it become full tensors."""

    __slots__ = ("b", "value")

    def __init__(self, b: Emitter, value: Value) -> None:
        self.b, self.value = b, value

    @property
    def type(self) -> TensorType:
        return self.value.type

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.value.type.shape

    @property
    def dtype(self) -> DType:
        return self.value.type.dtype

    def like(self, number: float | Size) -> Term:
        """The tensor of this type that holds `number` everywhere."""
        return self.full(number, self.dtype, self.shape)

    def full(self, number: float | Size, dtype: DType, shape: tuple[Size, ...]) -> Term:
        return Term(self.b, self.b.emit("full", value=number, dtype=dtype, shape=shape))

    def emit(self, op: str, *others: Operand, **attrs: Any) -> Term:
        """`op(self, *others, **attrs)`; numbers are made like the last term among the operands."""
        pattern = [t for t in (self, *others) if isinstance(t, Term)][-1]
        terms = [t if isinstance(t, Term) else pattern.like(t) for t in others]
        return Term(self.b, self.b.emit(op, self.value, *(t.value for t in terms), **attrs))

    def __getattr__(self, op: str) -> Callable[..., Term]:
        if op not in OPS:
            raise AttributeError(op)
        return lambda *others, **attrs: self.emit(op, *others, **attrs)

    def __add__(self, other: Operand) -> Term:
        return self.emit("add", other)

    def __sub__(self, other: Operand) -> Term:
        return self.emit("sub", other)

    def __rsub__(self, other: float) -> Term:
        return self.like(other) - self

    def __mul__(self, other: Operand) -> Term:
        return self.emit("mul", other)

    def __truediv__(self, other: Operand) -> Term:
        return self.emit("div", other)

    def __neg__(self) -> Term:
        return self.emit("neg")

    def __invert__(self) -> Term:
        return self.emit("not")

    def __and__(self, other: Operand) -> Term:
        return self.emit("and", other)


def derivative(
    rule: Callable[..., tuple[Term | None, ...]],
) -> Callable[..., tuple[Value | None, ...]]:
    """An `Op.vjp` from a rule on terms, `(dy, y, *xs, **attrs) -> cotangents`."""

    def vjp(b: Emitter, *values: Value, **attrs: Any) -> tuple[Value | None, ...]:
        cotangents = rule(*(Term(b, v) for v in values), **attrs)
        return tuple(None if t is None else t.value for t in cotangents)

    return vjp
