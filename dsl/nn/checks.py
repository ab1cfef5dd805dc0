"""What layers check about their inputs.  Messages name the layer, its path, expected and got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import ShapeError, TraceError
from fluxc.module import Param
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.module import Module
    from fluxc.types import DTypeLike

__all__ = [
    "bias_parameter", "checked_size", "count", "float_input", "function_name", "given_shape",
    "is_given", "sizes_and_activation", "weight_parameter", "with_activation",
]  # fmt: skip


def float_input(x: TensorLike, weight: Any = None) -> Tensor:
    """The input as a float tensor, in the weight's dtype where it is not a float.

    Errors  TraceError for a tuple of tensors: what a layer that returns several hands on.
    """
    if isinstance(x, tuple) and any(isinstance(part, Tensor) for part in x):
        fail(
            TraceError,
            f"a layer of one input is given {len(x)} tensors",
            expected="one tensor",
            got=", ".join(str(as_tensor(part).type) for part in x if isinstance(part, Tensor)),
            hint="lambda xs: xs[0] between the layers takes the first",
        )
    t = as_tensor(x)
    return t if t.type.dtype.is_float else as_tensor(t, "f32" if weight is None else weight.dtype)


def checked_size(layer: Module, x: Tensor, axis: int, size: int, expected: str) -> None:
    """Axis `axis` of x has this size, or a ShapeError."""
    if x.ndim < (axis + 1 if axis >= 0 else -axis) or x.shape[axis] != size:
        turned = axis == -1 and x.ndim == 2 and x.shape[0] == size
        fail(
            ShapeError,
            f"{layer.describe()}: the input does not fit",
            expected=f"{x.type.dtype}{expected}",
            got=str(x.type),
            hint="x.T: the batch is the first axis, features are the last" if turned else "",
        )


def count(what: str, value: Any, least: int = 1) -> int:
    """A size given to a constructor."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        fail(ShapeError, f"{what} must be an integer >= {least}", got=repr(value))
    return int(value)


def is_given(x: Any) -> bool:
    """Whether a constructor's argument is a parameter's first value, or a parameter to share."""
    return isinstance(x, np.ndarray | Param)


def given_shape(kind: str, weight: Any, axes: str) -> tuple[int, ...]:
    """The sizes of a given weight, one for each of the axes that are named in `axes`."""
    if weight.ndim != axes.count(",") + 1:
        fail(
            ShapeError,
            f"{kind} of a weight with {weight.ndim} axes",
            expected=f"[{axes}]",
            got=str(list(weight.shape)),
        )
    return tuple(weight.shape)


def weight_parameter(given: Any, shape: Any, init: Any, dtype: DTypeLike) -> Param:
    """The given parameter, or a new one whose first value is the given array or from `init`."""
    if isinstance(given, Param):
        return given
    return Param(shape, init=init if given is None else given, dtype=dtype)


def bias_parameter(bias: Any, shape: Any, dtype: DTypeLike) -> Param | None:
    """What `bias=` asks for: True zeros, False none, anything else is its first value."""
    if bias is None or bias is False:
        return None
    return Param(shape, init=0.0 if bias is True else bias, dtype=dtype)


def sizes_and_activation(
    kind: str, size: tuple[Any, ...], activation: Any
) -> tuple[tuple[int, ...], Any]:
    """The sizes, and the activation that may follow them: (4, 5, fx.relu), ((4, 5),)."""
    *sizes, last = size or (None,)
    if callable(last):
        activation = last
    elif last is not None:
        sizes.append(last)
    if len(sizes) == 1 and isinstance(sizes[0], tuple | list):
        sizes = list(sizes[0])
    if not sizes:
        fail(ShapeError, f"{kind} needs at least one size")
    return tuple(count(f"{kind}: size", s) for s in sizes), activation


def function_name(f: Any) -> str:
    return getattr(f, "__name__", type(f).__name__)


def with_activation(text: str, f: Any) -> str:
    """A constructor call with its activation, unless that is the identity."""
    name = function_name(f)
    return f"{text})" if name == "identity" else f"{text}, {name})"
