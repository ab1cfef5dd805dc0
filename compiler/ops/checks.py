"""Checks that type rules share.  Each raises a ShapeError or DTypeError that shows both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.dims import Dim, is_at_least
from fluxc.compiler.ir.types import DTYPES, DType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import TensorType

__all__ = [
    "check_axes",
    "check_axis",
    "check_dtype",
    "check_dtype_attr",
    "check_ints",
    "check_one_per_axis",
    "check_same",
    "check_shape",
    "prove_at_least",
    "show",
]


def show(sizes: Sequence[Any]) -> str:
    """A tuple in the IR's spelling: `[n, 3]`."""
    return f"[{', '.join(map(str, sizes))}]"


def check_dtype(op: str, type: TensorType, kinds: str) -> None:
    """The dtype's kind is one of `kinds`: f floats, i signed, u unsigned, b bool."""
    if type.dtype.kind not in kinds:
        allowed = ", ".join(d.name for d in DTYPES.values() if d.kind in kinds)
        raise DTypeError(f"{op} does not take {type.dtype}", expected=allowed, got=str(type))


def check_dtype_attr(op: str, dtype: DType) -> None:
    if not isinstance(dtype, DType):
        raise DTypeError(f"{op}: attribute dtype is not a dtype", got=repr(dtype))


def check_same(op: str, types: Sequence[TensorType]) -> None:
    """All operands have one type."""
    for position, type in enumerate(types[1:], 1):
        if type.dtype != types[0].dtype:
            raise DTypeError(
                f"{op}: operand {position} does not match operand 0",
                expected=str(types[0]),
                got=str(type),
                hint=f"graph IR never promotes; insert cast(x) {{dtype = {types[0].dtype}}}",
            )
        if type.shape != types[0].shape:
            raise ShapeError(
                f"{op}: operand {position} does not match operand 0",
                expected=str(types[0]),
                got=str(type),
                hint="graph IR never broadcasts implicitly; insert broadcast(x) {shape, axes}",
            )


def check_ints(op: str, name: str, values: Any) -> None:
    """The attribute is a tuple of integers."""
    fine = isinstance(values, tuple) and all(type(v) is int for v in values)
    if not fine:
        raise ShapeError(f"{op}: {name} must be a tuple of integers", got=repr(values))


def check_axis(op: str, axis: Any, rank: int, name: str = "axis") -> None:
    if type(axis) is not int or not 0 <= axis < rank:
        raise ShapeError(
            f"{op}: {name} is out of range", expected=f"0 <= {name} < {rank}", got=str(axis)
        )


def check_axes(op: str, axes: Any, rank: int, name: str = "axes", *, increasing: bool) -> None:
    """The axes exist and no axis comes twice; `increasing`: they are in order."""
    check_ints(op, name, axes)
    for axis in axes:
        check_axis(op, axis, rank, name)
    ordered = sorted(set(axes))
    if len(ordered) != len(axes) or (increasing and list(axes) != ordered):
        order = " in increasing order" if increasing else ""
        raise ShapeError(f"{op}: {name} must be distinct{order}", got=show(axes))


def check_shape(op: str, shape: Any) -> None:
    """A tuple of sizes none of which can be negative."""
    if not isinstance(shape, tuple) or not all(type(s) is int or isinstance(s, Dim) for s in shape):
        raise ShapeError(f"{op}: shape must be a tuple of sizes", got=repr(shape))
    for size in shape:
        prove_at_least(op, "size", size, 0)


def check_one_per_axis(op: str, rank: int, **attrs: tuple[Any, ...]) -> None:
    """Each attribute, or group of operands, has one entry per axis."""
    for name, values in attrs.items():
        if not isinstance(values, tuple) or len(values) != rank:
            raise ShapeError(
                f"{op}: {name} needs one entry per axis",
                expected=f"{rank} entries",
                got=str(values),
            )


def prove_at_least(op: str, what: str, size: Size, least: Size, hint: str = "") -> None:
    """`size >= least` for every value of the symbols, or an error: nothing is assumed."""
    if not is_at_least(size, least):
        symbolic = isinstance(size, Dim) or isinstance(least, Dim)
        problem = "cannot be proven on the whole range" if symbolic else "does not hold"
        raise ShapeError(
            f"{op}: {what} >= {least} {problem}", expected=f">= {least}", got=str(size), hint=hint
        )
