"""The general contraction: matrix products of every kind."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ops.checks import check_axes, check_dtype, show
from fluxc.compiler.ops.op import Op, register
from fluxc.compiler.ops.reference import quiet
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.build import Builder
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Value
    from fluxc.compiler.ir.types import TensorType

__all__ = ["free_axes"]

Axes = tuple[int, ...]
Label = tuple[str, int]


def free_axes(rank: int, *used: Axes) -> Axes:
    """The axes that are neither shared nor summed, in order."""
    taken = {a for axes in used for a in axes}
    return tuple(a for a in range(rank) if a not in taken)


def infer_contract(
    a: TensorType, b: TensorType, *, batch_a: Axes, batch_b: Axes, over_a: Axes, over_b: Axes
) -> TensorType:
    check_dtype("contract", a, "fiu")
    if a.dtype != b.dtype:
        raise DTypeError("contract: operands differ in dtype", expected=str(a.dtype), got=str(b))
    check_axes("contract", batch_a + over_a, a.rank, "batch_a + over_a", increasing=False)
    check_axes("contract", batch_b + over_b, b.rank, "batch_b + over_b", increasing=False)
    for name, left, right in (("batch", batch_a, batch_b), ("over", over_a, over_b)):
        sizes_a, sizes_b = [a.shape[i] for i in left], [b.shape[i] for i in right]
        if sizes_a != sizes_b:
            raise ShapeError(
                f"contract: {name} axes differ: {a} by {b}",
                expected=f"{show(sizes_a)} at axes {show(left)} of the first",
                got=f"{show(sizes_b)} at axes {show(right)} of the second",
            )
    batch = [a.shape[i] for i in batch_a]
    free = [a.shape[i] for i in free_axes(a.rank, batch_a, over_a)]
    return a.with_shape(*batch, *free, *(b.shape[i] for i in free_axes(b.rank, batch_b, over_b)))


def contract_reference(
    a: np.ndarray, b: np.ndarray, *, batch_a: Axes, batch_b: Axes, over_a: Axes, over_b: Axes
) -> np.ndarray:
    free_a, free_b = free_axes(a.ndim, batch_a, over_a), free_axes(b.ndim, batch_b, over_b)
    batch, m, n, k = (
        [x.shape[i] for i in axes]
        for x, axes in ((a, batch_a), (a, free_a), (b, free_b), (a, over_a))
    )
    left = a.transpose(batch_a + free_a + over_a).reshape(*batch, prod(m), prod(k))
    right = b.transpose(batch_b + over_b + free_b).reshape(*batch, prod(k), prod(n))
    return np.asarray(np.matmul(left, right).reshape([*batch, *m, *n]))


def contract_vjp(
    dy: Term,
    _y: Term,
    a: Term,
    b: Term,
    *,
    batch_a: Axes,
    batch_b: Axes,
    over_a: Axes,
    over_b: Axes,
) -> tuple[Term, Term]:
    labels_a = _labels("a", a.type.rank, batch_a, over_a)
    labels_b = _labels("b", b.type.rank, batch_b, over_b)
    labels_y = [("batch", i) for i in range(len(batch_a))]
    labels_y += [x for x in labels_a if x[0] == "a"] + [x for x in labels_b if x[0] == "b"]
    return (
        _product(dy, labels_y, b, labels_b, labels_a),
        _product(dy, labels_y, a, labels_a, labels_b),
    )


def contract_batch(
    b: Builder, _size: Size, x: Value, z: Value, *, batched: tuple[bool, ...], **attrs: Axes
) -> Value:
    """The new axis is one more batch axis, or a free one where one operand lacks it."""
    own = [x.type.rank - batched[0], z.type.rank - batched[1]]
    labels_x = _labels("a", own[0], attrs["batch_a"], attrs["over_a"])
    labels_z = _labels("b", own[1], attrs["batch_b"], attrs["over_b"])
    out = [("size", 0)] + [("batch", i) for i in range(len(attrs["batch_a"]))]
    out += [n for n in labels_x if n[0] == "a"] + [n for n in labels_z if n[0] == "b"]
    first = [("size", 0)]
    labels = (first * batched[0] + labels_x, first * batched[1] + labels_z)
    return _product(Term(b, x), labels[0], Term(b, z), labels[1], out).value


def _labels(name: str, rank: int, batch: Axes, over: Axes) -> list[Label]:
    """A name for each axis; axes that meet in the product have one name."""
    labels = [(name, axis) for axis in range(rank)]
    for kind, axes in (("batch", batch), ("over", over)):
        for i, axis in enumerate(axes):
            labels[axis] = (kind, i)
    return labels


def _product(x: Term, lx: list[Label], z: Term, lz: list[Label], out: list[Label]) -> Term:
    """Contract `x` with `z` over the names that `out` lacks; transpose only where it must."""
    results = [_contracted(x, lx, z, lz, out), _contracted(z, lz, x, lx, out)]
    _, pair, attrs, labels = min(results, key=lambda r: r[0])
    result = pair[0].emit("contract", pair[1], **attrs)
    if labels == out:
        return result
    return result.transpose(axes=tuple(labels.index(name) for name in out))


def _contracted(
    x: Term, lx: Sequence[Label], z: Term, lz: Sequence[Label], out: Sequence[Label]
) -> tuple[bool, tuple[Term, Term], dict[str, Axes], list[Label]]:
    """Whether a transpose is needed after it, and what to emit."""
    batch = [name for name in out if name in lx and name in lz]
    over = [name for name in lx if name in lz and name not in out]
    attrs = {
        "batch_a": tuple(lx.index(n) for n in batch),
        "batch_b": tuple(lz.index(n) for n in batch),
        "over_a": tuple(lx.index(n) for n in over),
        "over_b": tuple(lz.index(n) for n in over),
    }
    shared = {*batch, *over}
    labels = batch + [n for n in (*lx, *lz) if n not in shared]
    return labels != out, (x, z), attrs, labels


def sample_contract(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    attrs = {"batch_a": (0,), "batch_b": (2,), "over_a": (2,), "over_b": (0,)}
    return (rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 5, 2))), attrs


register(
    Op(
        name="contract",
        infer=infer_contract,
        reference=quiet(contract_reference),
        vjp=derivative(contract_vjp),
        sample=sample_contract,
        batch=contract_batch,
        doc="y[batch, free a, free b] = sum over `over` of a * b, axes paired by position",
    )
)
