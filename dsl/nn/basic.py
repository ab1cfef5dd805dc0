"""Fully connected layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc import init as inits
from fluxc import ops
from fluxc.compiler.errors import ShapeError, TraceError
from fluxc.module import Module
from fluxc.nn.checks import (
    bias_parameter,
    checked_size,
    count,
    float_input,
    given_shape,
    is_given,
    sizes_and_activation,
    weight_parameter,
    with_activation,
)
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.types import DTypeLike

__all__ = ["Bilinear", "Dense", "Scale"]


class Dense(Module):
    """A matrix and a bias, over the last axis.  PyTorch's Linear, with an activation.

        y = activation(x @ weight.T + bias)

    `Dense(in, out, activation)` makes its weight; `Dense(weight, bias, activation)` takes an array
    as its first value, or the parameter of another layer, which then is one in both.
    Shapes  x [..., in], weight [out, in], bias [out] -> [..., out].
    init    of the weight.
    bias    True: starts at 0; False: none; an array or a number: its first value.
    Errors  ShapeError if the last axis of x is not `in`.
    """

    def __init__(
        self,
        in_size: Any,
        out_size: Any = None,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        bias: Any = True,
        init: Any = inits.glorot_uniform,
        dtype: DTypeLike = "f32",
    ) -> None:
        weight = in_size if is_given(in_size) else None
        if weight is not None:  # (weight, bias, activation)
            bias = bias if out_size is None else out_size
            out_size, in_size = given_shape("Dense", weight, "out, in")
        self.in_size = count("Dense: in", in_size)
        self.out_size = count("Dense: out", out_size)
        self.activation = activation
        self.weight = weight_parameter(weight, (out_size, in_size), init, dtype)
        self.bias = bias_parameter(bias, (out_size,), dtype)

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x, self.weight)
        checked_size(self, t, -1, self.in_size, f"[..., {self.in_size}]")
        return self.activation(ops.linear(t, self.weight, self.bias))

    def describe(self) -> str:
        text = with_activation(f"Dense({self.in_size}, {self.out_size}", self.activation)
        return text if self.bias is not None else f"{text[:-1]}, bias=False)"


class Scale(Module):
    """A factor and a bias for each element of the last axes.

        y = activation(scale * x + bias)

    `Scale(3)`, `Scale(4, 5)`, `Scale(3, fx.relu)`; `Scale(scale, bias, activation)` takes an array
    or a parameter, as Dense does.
    Shapes  scale and bias [*size]; x broadcasts with them, as [..., *size] does -> [..., *size].
    init    of the scale, 1 by default.
    bias    True: starts at 0; False: none; an array or a number: its first value.
    Errors  ShapeError if x does not broadcast.
    """

    def __init__(
        self,
        *size: Any,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        bias: Any = True,
        init: Any = 1.0,
        dtype: DTypeLike = "f32",
    ) -> None:
        scale = size[0] if size and is_given(size[0]) else None
        if scale is not None:  # (scale, bias, activation)
            bias = size[1] if len(size) > 1 else bias
            activation = size[2] if len(size) > 2 else activation
            size = tuple(scale.shape)
        self.activation: Callable[[Tensor], Tensor]
        self.size, self.activation = sizes_and_activation("Scale", size, activation)
        self.scale = weight_parameter(scale, self.size, init, dtype)
        self.bias = bias_parameter(bias, self.size, dtype)

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x, self.scale)
        for own, s in zip(reversed(self.size), reversed(t.shape), strict=False):
            if own != s and 1 not in (own, s):
                fail(
                    ShapeError,
                    f"{self.describe()}: the input does not fit",
                    expected=f"{t.type.dtype}[..., {', '.join(map(str, self.size))}]",
                    got=str(t.type),
                )
        y = t * self.scale
        return self.activation(y if self.bias is None else y + self.bias)

    def describe(self) -> str:
        text = with_activation(f"Scale({', '.join(map(str, self.size))}", self.activation)
        return text if self.bias is not None else f"{text[:-1]}, bias=False)"


class Bilinear(Module):
    """A product of two inputs.  PyTorch's Bilinear, with an activation.

        z[i] = activation(x @ weight[i] @ y + bias[i])

    `Bilinear((in1, in2), out)`; `Bilinear(in, out)` for two inputs of one size;
    `Bilinear(weight, bias, activation)` takes an array or a parameter, as Dense does.
    Called with x and y, with a tuple of them, or with x alone, which then stands for y too.
    Shapes  x [..., in1], y [..., in2], weight [out, in1, in2], bias [out] -> [..., out].
    init    of the weight; bias as Dense has it.
    Errors  ShapeError if sizes do not fit or the leading axes of x and y differ.
    """

    def __init__(
        self,
        in_size: Any,
        out_size: Any = None,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        bias: Any = True,
        init: Any = inits.glorot_uniform,
        dtype: DTypeLike = "f32",
    ) -> None:
        weight = in_size if is_given(in_size) else None
        if weight is not None:  # (weight, bias, activation)
            bias = bias if out_size is None else out_size
            out_size, *in_size = given_shape("Bilinear", weight, "out, in1, in2")
        both = in_size if isinstance(in_size, tuple | list) else (in_size, in_size)
        if len(both) != 2:
            fail(ShapeError, "Bilinear takes two sizes of inputs", got=repr(in_size))
        first, second = (count("Bilinear: in", s) for s in both)
        self.in_size, self.out_size = (first, second), count("Bilinear: out", out_size)
        self.activation = activation
        self.weight = weight_parameter(weight, (self.out_size, first, second), init, dtype)
        self.bias = bias_parameter(bias, (self.out_size,), dtype)

    def __call__(self, x: Any, y: TensorLike | None = None) -> Tensor:
        if y is None:
            x, y = self._pair(x)
        (first, second), out = self.in_size, self.out_size
        a, b = float_input(x, self.weight), float_input(y, self.weight)
        checked_size(self, a, -1, first, f"[..., {first}] for x")
        checked_size(self, b, -1, second, f"[..., {second}] for y")
        if a.shape[:-1] != b.shape[:-1]:
            expected = f"{b.type.dtype}[{', '.join(map(str, (*a.shape[:-1], second)))}] for y"
            fail(
                ShapeError,
                f"{self.describe()}: the inputs do not fit",
                expected=expected,
                got=str(b.type),
            )
        weight = as_tensor(self.weight)
        by_first = weight.transpose(1, 0, 2).reshape(first, out * second)
        half = ops.matmul(a, by_first).reshape((*a.shape[:-1], out, second))
        z = ops.sum(half * ops.expand_dims(b, -2), -1)
        return self.activation(z if self.bias is None else z + self.bias)

    def _pair(self, x: Any) -> tuple[Any, Any]:
        if not isinstance(x, tuple | list):
            return x, x
        if len(x) != 2:
            fail(TraceError, f"{self.describe()} takes two inputs", got=f"{len(x)} inputs")
        return x[0], x[1]

    def describe(self) -> str:
        first, second = self.in_size
        sizes = first if first == second else f"({first}, {second})"
        text = with_activation(f"Bilinear({sizes}, {self.out_size}", self.activation)
        return text if self.bias is not None else f"{text[:-1]}, bias=False)"
