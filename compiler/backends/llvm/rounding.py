"""Floats to integral floats.

Where the machine has the instructions, they are used.  Elsewhere: adding and subtracting 2**(p-1),
p the precision, rounds a smaller number to the nearest integer, ties to even; the other directions
correct that by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.backends.llvm.values import features, intrinsic

if TYPE_CHECKING:
    from fluxc.compiler.backends.llvm.scalar import LlvmScalar

__all__ = ["ceil", "floor", "round_even", "trunc"]


def _native(x: LlvmScalar, name: str) -> LlvmScalar | None:
    assert x.dtype.is_float, f"{name} is for floats"
    if not features(x.b.module).rounding:
        return None
    return x.with_value(intrinsic(x.b, name, x.v.type, x.v))


def round_even(x: LlvmScalar) -> LlvmScalar:
    return _native(x, "roundeven") or _nearest(x.abs()).copysign(x)


def _nearest(size: LlvmScalar) -> LlvmScalar:
    """`size` >= 0 (or NaN) to the nearest integer."""
    limit = 2.0**23 if size.dtype.bits == 32 else 2.0**52
    return size.lt(limit).select((size + limit) - limit, size)


def trunc(x: LlvmScalar) -> LlvmScalar:
    native = _native(x, "trunc")
    if native is not None:
        return native
    size = x.abs()
    near = _nearest(size)
    return near.gt(size).select(near - 1.0, near).copysign(x)


def floor(x: LlvmScalar) -> LlvmScalar:
    native = _native(x, "floor")
    if native is not None:
        return native
    near = round_even(x)
    return near.gt(x).select(near - 1.0, near)


def ceil(x: LlvmScalar) -> LlvmScalar:
    native = _native(x, "ceil")
    return -floor(-x) if native is None else native
