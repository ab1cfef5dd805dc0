"""What the reductions of the loop IR are: how two numbers become one, and what changes none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxc.compiler.functions.floats import S
    from fluxc.compiler.ir.types import DType

__all__ = ["combined", "identity_of"]


def combined(op: str, x: S, y: S) -> S:
    """One step of a reduction."""
    match op:
        case "add":
            return x + y
        case "mul":
            return x * y
        case "and":
            return x & y
        case "or":
            return x | y
        case "maximum":
            return x.maximum(y)
    assert op == "minimum", f"{op} is no reduction"
    return x.minimum(y)


def identity_of(op: str, dtype: DType) -> float | int | bool:
    """What leaves every number of a dtype as it is: 0 for add, 1 for mul, else the other end."""
    if op in ("add", "mul"):
        one = op == "mul"
        return float(one) if dtype.is_float else int(one)
    if dtype.kind == "b":
        return op in ("and", "minimum")
    if dtype.is_float:
        return -math.inf if op == "maximum" else math.inf
    bits = dtype.bits - (dtype.kind == "i")
    least = -(1 << bits) if dtype.kind == "i" else 0
    return least if op == "maximum" else (1 << bits) - 1
