"""Reductions over axes, which disappear from the shape."""

# ruff: noqa: E501  (a row of the table is one line)
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.ir.dims import product, size_bounds
from fluxc.compiler.ir.types import i64
from fluxc.compiler.ops.batching import batching, later
from fluxc.compiler.ops.checks import check_axes, check_dtype
from fluxc.compiler.ops.op import Op, ZeroGradient, register
from fluxc.compiler.ops.reference import quiet
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import TensorType

__all__ = ["identity_of"]

Axes = tuple[int, ...]
DOUBLED = 2**20  # the greatest size that running products reach, in 20 steps


def kept_axes(rank: int, axes: Axes) -> Axes:
    return tuple(a for a in range(rank) if a not in axes)


def infer_reduce(name: str, kinds: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, axes: Axes) -> TensorType:
        check_dtype(name, x, kinds)
        check_axes(name, axes, x.rank, increasing=True)
        return x.with_shape(*(x.shape[a] for a in kept_axes(x.rank, axes)))

    return infer


def identity_of(name: str, dtype: np.dtype) -> Any:
    """What the reduction of nothing is, in a NumPy dtype."""
    if name in ("reduce_max", "reduce_min"):
        sign = -1.0 if name == "reduce_max" else 1.0
        if dtype.kind == "f":
            return sign * np.inf
        return np.iinfo(dtype).min if sign < 0 else np.iinfo(dtype).max
    return {"reduce_sum": 0, "reduce_prod": 1, "reduce_and": True, "reduce_or": False}[name]


def reduction(name: str, kinds: str, ufunc: np.ufunc, vjp: Any, sample: Any, doc: str) -> Op:
    def reference(x: np.ndarray, *, axes: Axes) -> np.ndarray:
        start = identity_of(name, x.dtype)
        return np.asarray(ufunc.reduce(x, axis=axes, dtype=x.dtype, initial=start))

    return register(
        Op(
            name=name,
            infer=infer_reduce(name, kinds),
            reference=quiet(reference),
            vjp=derivative(vjp) if callable(vjp) else vjp,
            sample=sample,
            doc=doc,
            batch=batching(lambda _size, x, *, axes: x.emit(name, axes=later(axes))),
        )
    )


def spread(dy: Term, like: Term, axes: Axes) -> Term:
    """`dy`, repeated along the reduced axes."""
    return dy.broadcast(shape=like.shape, axes=kept_axes(like.type.rank, axes))


def sum_vjp(dy: Term, _y: Term, x: Term, *, axes: Axes) -> tuple[Term]:
    return (spread(dy, x, axes),)


def extremum_vjp(beaten: str) -> Callable[..., tuple[Term]]:
    """Elements that `beaten` does not say to be beaten by the result share its cotangent equally.

    Stated by the losers, so that a NaN result, which beats nobody, reaches every element.
    """

    def vjp(dy: Term, y: Term, x: Term, *, axes: Axes) -> tuple[Term]:
        loses = x.emit(beaten, spread(y, x, axes))
        winners = loses.select(x.like(0.0), 1.0).reduce_sum(axes=axes)
        return (loses.select(0.0, spread(dy / winners, x, axes)),)

    return vjp


def prod_vjp(dy: Term, _y: Term, x: Term, *, axes: Axes) -> tuple[Term]:
    """Each element gets the product of all the others.

    Nothing is divided by, so zeros are as good as other numbers, in every order of derivative.
    """
    kept = kept_axes(x.type.rank, axes)
    moved = x.transpose(axes=kept + axes)
    rows = tuple(x.shape[a] for a in kept)
    count = product(x.shape[a] for a in axes)
    line = moved.reshape(shape=(*rows, count))
    others = _products_of_others(line).reshape(shape=moved.shape)
    back = tuple((kept + axes).index(a) for a in range(x.type.rank))
    return (spread(dy, x, axes) * others.transpose(axes=back),)


def _products_of_others(x: Term) -> Term:
    """Along the last axis: those before times those after, or where the axis has no small bound,
    all but the diagonal of a square."""
    last = x.type.rank - 1
    if size_bounds(x.shape[last])[1] <= DOUBLED:
        after = _products_before(x.reverse(axes=(last,))).reverse(axes=(last,))
        return _products_before(x) * after
    square = x.broadcast(shape=(*x.shape, x.shape[last]), axes=(*range(last), last + 1))
    row, column = (
        Term(x.b, x.b.emit("iota", dtype=i64, shape=square.shape, axis=axis))
        for axis in (last, last + 1)
    )
    return row.eq(column).select(1.0, square).reduce_prod(axes=(last + 1,))


def _products_before(x: Term) -> Term:
    """The product of the elements before each one on the last axis, by doubling the reach."""
    size = x.shape[-1]
    reach, result = 1, _shifted(x, 1)
    while size_bounds(size)[1] > reach + 1:
        result = result * _shifted(result, reach)
        reach *= 2
    return result


def _shifted(x: Term, by: Size) -> Term:
    """`x` moved towards the end of its last axis, with ones moving in."""
    zeros = (0,) * (x.type.rank - 1)
    one = x.full(1.0, x.dtype, ())
    grown = x.pad(one, low=(*zeros, by), high=(*zeros, 0), interior=(*zeros, 0))
    return grown.slice(starts=(*zeros, 0), limits=x.shape, steps=(1,) * x.type.rank)


def sample_numbers(rng: np.random.Generator) -> tuple[tuple[np.ndarray], dict[str, Any]]:
    return (rng.normal(size=(2, 3, 4)),), {"axes": (0, 2)}


def sample_bools(rng: np.random.Generator) -> tuple[tuple[np.ndarray], dict[str, Any]]:
    return (rng.random((2, 3, 4)) < 0.8,), {"axes": (0, 2)}


LOGIC = ZeroGradient("bools carry no derivative")

NUMBERS = "fiu"

# fmt: off
reduction("reduce_sum", NUMBERS, np.add, sum_vjp, sample_numbers, "sum; 0 of nothing")
reduction("reduce_prod", NUMBERS, np.multiply, prod_vjp, sample_numbers, "product; 1 of nothing")
reduction("reduce_max", NUMBERS, np.maximum, extremum_vjp("lt"), sample_numbers, "greatest, NaN if any is NaN; of nothing -inf or the least integer")
reduction("reduce_min", NUMBERS, np.minimum, extremum_vjp("gt"), sample_numbers, "least, NaN if any is NaN; of nothing inf or the greatest integer")
reduction("reduce_and", "b", np.logical_and, LOGIC, sample_bools, "whether all are true; true of nothing")
reduction("reduce_or", "b", np.logical_or, LOGIC, sample_bools, "whether any is true; false of nothing")
# fmt: on
