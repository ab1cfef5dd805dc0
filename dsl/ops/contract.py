"""Products that sum over axes: matmul and its kin.  Operands promote as in `fluxc.tensor`."""

from __future__ import annotations

from typing import Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.ops.layout import normal_axis, swapaxes, transpose
from fluxc.tensor import (
    Tensor,
    TensorLike,
    as_tensor,
    broadcast,
    broadcast_shapes,
    common_dtype,
)
from fluxc.trace import emit, fail

__all__ = [
    "batched_adjoint", "batched_mul", "batched_transpose", "batched_vec", "dot", "inner", "linear",
    "matmul", "outer", "tensordot", "vdot",
]  # fmt: skip


def _pair(x: TensorLike, y: TensorLike, name: str) -> tuple[Tensor, Tensor]:
    dtype = common_dtype(x, y)
    if dtype.kind == "b":
        fail(DTypeError, f"{name} of bool tensors", hint="x.astype(fx.f32) first")
    return as_tensor(x, dtype), as_tensor(y, dtype)


def _contract(
    a: Tensor,
    b: Tensor,
    over_a: tuple[int, ...],
    over_b: tuple[int, ...],
    batch_a: tuple[int, ...] = (),
    batch_b: tuple[int, ...] = (),
) -> Tensor:
    attrs = {"batch_a": batch_a, "batch_b": batch_b, "over_a": over_a, "over_b": over_b}
    return Tensor(emit("contract", a.value, b.value, **attrs))


def matmul(x: TensorLike, y: TensorLike) -> Tensor:
    """x @ y: the sum over the last axis of x and the second last of y (the last of a vector).

    Shapes  [..., m, k] @ [..., k, n] -> [..., m, n], leading axes broadcast; vectors drop theirs.
    Errors  ShapeError if the sizes k differ, or an operand is a scalar.
    """
    a, b = _pair(x, y, "matmul")
    if a.ndim == 0 or b.ndim == 0:
        fail(ShapeError, "matmul of a scalar", got=f"{a.type} @ {b.type}", hint="x * y")
    k = b.shape[max(b.ndim - 2, 0)]
    if a.shape[-1] != k:
        fail(
            ShapeError,
            f"matmul: the last axis of the left operand has size {a.shape[-1]}, "
            f"the {'only' if b.ndim == 1 else 'second last'} axis of the right one {k}",
            got=f"{a.type} @ {b.type}",
            expected="[..., m, k] @ [..., k, n]",
        )
    over_a, over_b = (a.ndim - 1,), (max(b.ndim - 2, 0),)
    if b.ndim <= 2:
        return _contract(a, b, over_a, over_b)
    if a.ndim <= 2:
        product = _contract(a, b, over_a, over_b)  # [m?, batch..., n]
        return product if a.ndim == 1 else _move_first(product, b.ndim - 2)
    return _batched(a, b)


def _move_first(x: Tensor, to: int) -> Tensor:
    order = (*range(1, to + 1), 0, *range(to + 1, x.ndim))
    return transpose(x, order)


def _batched(a: Tensor, b: Tensor) -> Tensor:
    lead = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = broadcast(a, lead + a.shape[-2:])
    b = broadcast(b, lead + b.shape[-2:])
    batch = tuple(range(len(lead)))
    return _contract(a, b, (a.ndim - 1,), (b.ndim - 2,), batch, batch)


def batched_mul(x: TensorLike, y: TensorLike) -> Tensor:
    """The product of each matrix of x with that of y: `matmul` of two or more axes.

    Shapes  [B..., m, k], [B..., k, n] -> [B..., m, n]; a batch of 1, or one matrix, meets all.
    Errors  ShapeError for a vector, or sizes that differ.
    NNlib's batched_mul, whose batch is last; PyTorch's bmm.
    """
    a, b = as_tensor(x), as_tensor(y)
    if a.ndim < 2 or b.ndim < 2:
        fail(
            ShapeError,
            "batched_mul takes matrices",
            expected="[..., m, k] and [..., k, n]",
            got=f"{a.type} and {b.type}",
        )
    return matmul(a, b)


def batched_vec(x: TensorLike, y: TensorLike) -> Tensor:
    """The product of each matrix of x with the vector of y.

    Shapes  [B..., m, k], [B..., k] -> [B..., m]; one matrix, or one vector [k], meets all.
    Errors  ShapeError for a matrix without two axes, or sizes that differ.
    """
    a, b = as_tensor(x), as_tensor(y)
    if a.ndim < 2 or b.ndim < 1:
        fail(
            ShapeError,
            "batched_vec takes matrices and vectors",
            expected="[..., m, k] and [..., k]",
            got=f"{a.type} and {b.type}",
        )
    column = matmul(a, b.reshape((*b.shape, 1)))
    return column.reshape(column.shape[:-1])


def batched_transpose(x: TensorLike) -> Tensor:
    """The last two axes change places: every matrix is transposed."""
    return swapaxes(x, -1, -2)


batched_adjoint = batched_transpose


def linear(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """x @ weight.T + bias.

    Shapes  [..., in], [out, in], [out] -> [..., out].
    """
    a, w = _pair(x, weight, "linear")
    if a.ndim == 0 or w.ndim != 2 or a.shape[-1] != w.shape[1]:
        fail(
            ShapeError,
            "linear: sizes do not match",
            expected=f"[..., {w.shape[-1] if w.ndim else '?'}]",
            got=str(a.type),
        )
    y = _contract(a, w, (a.ndim - 1,), (1,))
    return y if bias is None else y + bias


def tensordot(x: TensorLike, y: TensorLike, axes: Any = 2) -> Tensor:
    """The sum over pairs of axes: the last n of x with the first n of y, or two lists of axes."""
    a, b = _pair(x, y, "tensordot")
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            fail(ShapeError, f"tensordot over {axes} axes", got=f"{a.type} and {b.type}")
        over_a, over_b = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    else:
        left, right = ((s,) if isinstance(s, int) else tuple(s) for s in axes)
        over_a = tuple(normal_axis(s, a.ndim) for s in left)
        over_b = tuple(normal_axis(s, b.ndim) for s in right)
    sizes_a, sizes_b = [a.shape[i] for i in over_a], [b.shape[i] for i in over_b]
    if sizes_a != sizes_b:
        fail(ShapeError, f"tensordot over axes {axes}: sizes differ", got=f"{a.type} and {b.type}")
    return _contract(a, b, over_a, over_b)


def dot(x: TensorLike, y: TensorLike) -> Tensor:
    """The sum over the last axis of x and the second last of y (the last of a vector)."""
    a, b = as_tensor(x), as_tensor(y)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return tensordot(a, b, ((a.ndim - 1,), (max(b.ndim - 2, 0),)))


def inner(x: TensorLike, y: TensorLike) -> Tensor:
    """The sum over the last axes of both."""
    a, b = as_tensor(x), as_tensor(y)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return tensordot(a, b, ((a.ndim - 1,), (b.ndim - 1,)))


def vdot(x: TensorLike, y: TensorLike) -> Tensor:
    """The sum of the products of all elements."""
    return dot(as_tensor(x).ravel(), as_tensor(y).ravel())


def outer(x: TensorLike, y: TensorLike) -> Tensor:
    """Every element of x times every element of y: [m] and [n] give [m, n]."""
    a, b = as_tensor(x).ravel(), as_tensor(y).ravel()
    return a.reshape((a.size, 1)) * b
