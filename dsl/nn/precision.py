"""Models in another precision."""

from __future__ import annotations

from typing import Any, TypeVar

from fluxc.compiler.errors import DTypeError, TraceError
from fluxc.module import Declared, is_container, modules, walk
from fluxc.nn.normalise import BatchNorm, GroupNorm, InstanceNorm
from fluxc.rebuild import rebuilt
from fluxc.trace import fail
from fluxc.types import DTypeLike, as_dtype

__all__ = ["bf16", "cast", "f16", "f32", "f64"]

T = TypeVar("T")

_WIDE = (BatchNorm, InstanceNorm, GroupNorm)


def cast(model: T, dtype: DTypeLike) -> T:
    """A copy of the model whose float parameters and states are declared in another dtype.

    To 16 bits, parameters and statistics of BatchNorm, InstanceNorm and GroupNorm stay as they are:
    these layers take 16-bit inputs and compute in f32.  What is reached on several ways is one in
    the copy too.  First values are those of the model, rounded.

    Errors  DTypeError if `dtype` is no float; TraceError for what is no model.
    """
    chosen = as_dtype(dtype)
    if not chosen.is_float:
        fail(DTypeError, f"a model in {chosen}", expected="f64 f32 f16 bf16")
    if not is_container(model):
        fail(TraceError, f"a {type(model).__name__} has no parameters", expected="a module")
    kept: set[int] = set()
    if chosen.bits == 16:
        wide = [m for m in modules(model) if isinstance(m, _WIDE)]
        kept = {id(leaf) for layer in wide for _, leaf in walk(layer)}
    made: dict[int, Declared] = {}

    def swap(x: Any) -> Any:
        if not isinstance(x, Declared) or id(x) in kept or not x.type.dtype.is_float:
            return x
        made[id(x)] = x.with_dtype(chosen)
        return made[id(x)]

    copy: T = rebuilt(model, swap)
    for new in made.values():
        if new.source is not None:
            new.source = made.get(id(new.source), new.source)
    return copy


def f16(model: T) -> T:
    """`cast(model, fx.f16)`.  PyTorch's `model.half()`."""
    return cast(model, "f16")


def bf16(model: T) -> T:
    """`cast(model, fx.bf16)`.  PyTorch's `model.bfloat16()`."""
    return cast(model, "bf16")


def f32(model: T) -> T:
    """`cast(model, fx.f32)`.  PyTorch's `model.float()`."""
    return cast(model, "f32")


def f64(model: T) -> T:
    """`cast(model, fx.f64)`.  PyTorch's `model.double()`."""
    return cast(model, "f64")
