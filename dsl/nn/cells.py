"""Recurrent cells: one step of a recurrence, `out, state = cell(x_t, state)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc import init as inits
from fluxc import ops
from fluxc.module import Module, Param
from fluxc.nn.checks import bias_parameter, checked_size, count, float_input, function_name
from fluxc.tensor import Tensor, TensorLike, as_tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.types import DTypeLike

__all__ = ["Cell", "GRUCell", "GRUv3Cell", "LSTMCell", "RNNCell", "initialstates"]


def initialstates(cell: Any) -> Any:
    """The state that a cell begins with: zeros without a batch, `cell.initialstates()`."""
    return cell.initialstates()


class Cell(Module):
    """What cells have in common: weights of `gates` chunks of rows, and one bias."""

    gates = 1

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        init_kernel: Any = inits.glorot_uniform,
        init_recurrent_kernel: Any = inits.glorot_uniform,
        bias: Any = True,
        dtype: DTypeLike = "f32",
    ) -> None:
        name = type(self).__name__
        self.in_size = count(f"{name}: in", in_size)
        self.out_size = count(f"{name}: out", out_size)
        rows = self.gates * self.out_size
        self.Wi = Param((rows, self.in_size), init=init_kernel, dtype=dtype)
        self.Wh = Param((rows, self.out_size), init=init_recurrent_kernel, dtype=dtype)
        self.bias = bias_parameter(bias, (rows,), dtype)

    def initialstates(self) -> Any:
        """Zeros [out]."""
        return ops.zeros(self.out_size, self.Wh.dtype)

    def _input(self, x: TensorLike) -> Tensor:
        """Wi @ x + bias: what does not depend on the state."""
        t = float_input(x, self.Wi)
        checked_size(self, t, -1, self.in_size, f"[..., {self.in_size}]")
        return ops.linear(t, self.Wi, self.bias)

    def _state(self, state: Any) -> Any:
        return self.initialstates() if state is None else state

    def describe(self) -> str:
        return f"{type(self).__name__}({', '.join(self.arguments())})"

    def arguments(self) -> list[str]:
        """What the constructor was given, as it would be written."""
        sizes = [str(self.in_size), str(self.out_size)]
        return sizes if self.bias is not None else [*sizes, "bias=False"]


def _chunks(x: Tensor, number: int) -> list[Tensor]:
    return ops.split(x, number, axis=-1)


class RNNCell(Cell):
    """h' = activation(Wi @ x + Wh @ h + bias); gives (h', h').  PyTorch's RNNCell, one bias.

    `cell(x, h)`; without h it begins with zeros.
    Shapes  x [in] or [..., in], h [out] or [..., out]; Wi [out, in], Wh [out, out], bias [out].
    init_kernel, init_recurrent_kernel  of Wi and Wh.
    bias    True: starts at 0; False: none; an array or a number: its first value.
    Errors  ShapeError if the last axis of x is not `in`.
    """

    def __init__(
        self,
        in_size: int,
        out_size: int,
        activation: Callable[[Tensor], Tensor] = ops.tanh,
        **options: Any,
    ) -> None:
        super().__init__(in_size, out_size, **options)
        self.activation = activation

    def __call__(self, x: TensorLike, state: Any = None) -> tuple[Tensor, Tensor]:
        h = self._state(state)
        h = self.activation(self._input(x) + ops.linear(h, self.Wh))
        return h, h

    def arguments(self) -> list[str]:
        sizes, rest = super().arguments()[:2], super().arguments()[2:]
        name = function_name(self.activation)
        return [*sizes, *([] if name == "tanh" else [name]), *rest]


class LSTMCell(Cell):
    """Long short-term memory; gives (h', (h', c')).  PyTorch's LSTMCell, one bias.

        i, f, g, o = the four chunks of Wi @ x + Wh @ h + bias
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    `cell(x, (h, c))`; without a state it begins with zeros.
    Shapes  x [in] or [..., in], h and c [out] or [..., out];
            Wi [4*out, in], Wh [4*out, out], bias [4*out], rows in the order of the gates.
    init_kernel, init_recurrent_kernel  of Wi and Wh.
    bias    True: starts at 0, that of the forget gate too; False: none; an array or a number: its
            first value.
    Errors  ShapeError if the last axis of x is not `in`.
    """

    gates = 4

    def initialstates(self) -> Any:
        """Zeros [out] twice: (h, c)."""
        return super().initialstates(), super().initialstates()

    def __call__(self, x: TensorLike, state: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = self._state(state)
        i, f, g, o = _chunks(self._input(x) + ops.linear(h, self.Wh), 4)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        return h, (h, c)


class GRUCell(Cell):
    """Gated recurrent unit, its paper's first version; gives (h', h').

        r = sigmoid(Wi_r @ x + Wh_r @ h + b_r)
        z = sigmoid(Wi_z @ x + Wh_z @ h + b_z)
        n = tanh(Wi_n @ x + r * (Wh_n @ h + reset_bias) + b_n)
        h' = (1 - z) * n + z * h

    `cell(x, h)`; without h it begins with zeros.
    Shapes  x [in] or [..., in], h [out] or [..., out];
            Wi [3*out, in], Wh [3*out, out], bias [3*out], rows in the order r, z, n.
    init_kernel, init_recurrent_kernel  of Wi and Wh.
    bias    True: starts at 0; False: none; an array or a number: its first value.
    reset_bias  True: a second bias [out] that the reset gate scales, as PyTorch's GRUCell and
            Keras's GRU(reset_after=True) have it.  Flux has none, the default.
    Errors  ShapeError if the last axis of x is not `in`.
    """

    gates = 3

    def __init__(
        self, in_size: int, out_size: int, *, reset_bias: bool = False, **options: Any
    ) -> None:
        super().__init__(in_size, out_size, **options)
        dtype = self.Wh.dtype
        self.reset_bias = Param((self.out_size,), init=0.0, dtype=dtype) if reset_bias else None

    def __call__(self, x: TensorLike, state: Any = None) -> tuple[Tensor, Tensor]:
        h = self._state(state)
        given_r, given_z, given_n = _chunks(self._input(x), 3)
        r, z, n = _chunks(ops.linear(h, self.Wh), 3)
        r, z = ops.sigmoid(given_r + r), ops.sigmoid(given_z + z)
        n = n if self.reset_bias is None else n + self.reset_bias
        h = _blend(z, ops.tanh(given_n + r * n), h)
        return h, h

    def arguments(self) -> list[str]:
        extra = [] if self.reset_bias is None else ["reset_bias=True"]
        return [*super().arguments(), *extra]


class GRUv3Cell(Cell):
    """Gated recurrent unit, its paper's third version; gives (h', h').

        r = sigmoid(Wi_r @ x + Wh_r @ h + b_r)
        z = sigmoid(Wi_z @ x + Wh_z @ h + b_z)
        n = tanh(Wi_n @ x + Wh_h @ (r * h) + b_n)
        h' = (1 - z) * n + z * h

    The reset gate acts before the product, as in Keras's GRU(reset_after=False); PyTorch has none.
    `cell(x, h)`; without h it begins with zeros.
    Shapes  x [in] or [..., in], h [out] or [..., out]; Wi [3*out, in], bias [3*out],
            Wh [3*out, out], rows in the order r, z, n, the last chunk unused as in Flux;
            Wh_h [out, out].
    init_kernel, init_recurrent_kernel  of Wi, and of Wh and Wh_h.
    bias    True: starts at 0; False: none; an array or a number: its first value.
    Errors  ShapeError if the last axis of x is not `in`.
    """

    gates = 3

    def __init__(
        self,
        in_size: int,
        out_size: int,
        *,
        init_recurrent_kernel: Any = inits.glorot_uniform,
        **options: Any,
    ) -> None:
        super().__init__(in_size, out_size, init_recurrent_kernel=init_recurrent_kernel, **options)
        square = (self.out_size, self.out_size)
        self.Wh_h = Param(square, init=init_recurrent_kernel, dtype=self.Wh.dtype)

    def __call__(self, x: TensorLike, state: Any = None) -> tuple[Tensor, Tensor]:
        h = self._state(state)
        given_r, given_z, given_n = _chunks(self._input(x), 3)
        r, z = _chunks(ops.linear(h, as_tensor(self.Wh)[: 2 * self.out_size]), 2)
        r, z = ops.sigmoid(given_r + r), ops.sigmoid(given_z + z)
        h = _blend(z, ops.tanh(given_n + ops.linear(r * h, self.Wh_h)), h)
        return h, h


def _blend(z: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return (1 - z) * new + z * old
