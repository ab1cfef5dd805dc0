"""Chain and the fully connected layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc import init as inits
from fluxc import ops
from fluxc.compiler.errors import TraceError
from fluxc.module import Module, Param
from fluxc.nn.checks import checked_size, count, float_input, with_activation
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluxc.types import DTypeLike

__all__ = ["Chain", "Dense", "Embedding"]


class Chain(Module):
    """layers[n](... layers[1](layers[0](x))): any callable is a layer; none is the identity.

    `Chain(a, b)` names its layers 0, 1; `Chain(encoder=a, decoder=b)` by keyword.
    `chain[0]` and `chain["encoder"]` are layers, `chain[:2]` is a Chain of the same layers;
    `len(chain)` and iteration work.  PyTorch's Sequential.
    """

    def __init__(self, *layers: Callable[..., Any], **named: Callable[..., Any]) -> None:
        if layers and named:
            fail(TraceError, "Chain takes layers by position or by name, not both")
        for layer in (*layers, *named.values()):
            if not callable(layer):
                fail(TraceError, f"{layer!r} is not a layer", expected="something callable")
        self.layers: Any = named or layers

    def _all(self) -> tuple[Callable[..., Any], ...]:
        return tuple(self.layers.values()) if isinstance(self.layers, dict) else self.layers

    def __call__(self, x: Any) -> Any:
        for layer in self._all():
            x = layer(x)
        return x

    def __getitem__(self, index: int | str | slice) -> Any:
        if isinstance(index, str):
            return self.layers[index]
        if not isinstance(index, slice):
            return self._all()[index]
        if isinstance(self.layers, dict):
            names = list(self.layers)[index]
            return Chain(**{name: self.layers[name] for name in names})
        return Chain(*self.layers[index])

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter(self._all())


class Dense(Module):
    """y = activation(x @ weight.T + bias).  PyTorch's Linear, with an activation.

    Shapes  x [..., in], weight [out, in], bias [out] -> [..., out].
    init    of the weight; biases start at 0.  bias=False: none.
    Errors  ShapeError if the last axis of x is not `in`.
    """

    def __init__(
        self,
        in_size: int,
        out_size: int,
        activation: Callable[[Tensor], Tensor] = ops.identity,
        *,
        bias: bool = True,
        init: Any = inits.glorot_uniform,
        dtype: DTypeLike = "f32",
    ) -> None:
        self.in_size = count("Dense: in", in_size)
        self.out_size = count("Dense: out", out_size)
        self.activation = activation
        self.weight = Param((out_size, in_size), init=init, dtype=dtype)
        self.bias = Param((out_size,), init=0.0, dtype=dtype) if bias else None

    def __call__(self, x: TensorLike) -> Tensor:
        t = float_input(x, self.weight)
        checked_size(self, t, -1, self.in_size, f"[..., {self.in_size}]")
        return self.activation(ops.linear(t, self.weight, self.bias))

    def describe(self) -> str:
        text = with_activation(f"Dense({self.in_size}, {self.out_size}", self.activation)
        return text if self.bias is not None else f"{text[:-1]}, bias=False)"


class Embedding(Module):
    """Row i of the weight for each token i; one-hot rows are multiplied by it.

    Shapes  integers [...] -> [..., d]; floats [..., n] -> [..., d]; weight [n, d].
    Tokens must be in 0 .. n - 1: a compiled entry checks those that are its inputs.
    """

    def __init__(
        self, n: int, d: int, *, init: Any = inits.randn, dtype: DTypeLike = "f32"
    ) -> None:
        self.n, self.d = count("Embedding: n", n), count("Embedding: d", d)
        self.weight = Param((n, d), init=init, dtype=dtype)

    def __call__(self, x: TensorLike) -> Tensor:
        t = as_tensor(x)
        if t.type.dtype.is_integer:
            return ops.gather_rows(self.weight, t)
        t = float_input(t, self.weight)
        checked_size(self, t, -1, self.n, f"[..., {self.n}]")
        return ops.matmul(t, self.weight)

    def describe(self) -> str:
        return f"Embedding({self.n}, {self.d})"
