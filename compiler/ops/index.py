"""Reading and adding at computed indices.

`indices` is [batch..., at..., k]: its last axis holds one position for each of the first k axes of
`x` after the batch axes.  The rest of x's axes are taken whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.dims import is_at_least
from fluxc.compiler.ir.types import i64, u64
from fluxc.compiler.ops.batching import batching, with_axis
from fluxc.compiler.ops.checks import check_axis, check_dtype, show
from fluxc.compiler.ops.op import Op, register
from fluxc.compiler.ops.reference import quiet
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from fluxc.compiler.ir.build import Builder
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Value
    from fluxc.compiler.ir.types import TensorType

__all__: list[str] = []


def _depth(op: str, x: TensorType, indices: TensorType, batch: int) -> int:
    """The number of axes that `indices` select along, checked."""
    check_dtype(op, indices, "iu")
    if indices.dtype == u64:
        raise DTypeError(
            f"{op} does not take u64 indices", got=str(indices), hint="cast them to i64"
        )
    check_axis(op, batch, min(x.rank, indices.rank), "batch")
    if x.shape[:batch] != indices.shape[:batch]:
        raise ShapeError(
            f"{op}: batch axes differ",
            expected=show(x.shape[:batch]),
            got=f"{show(indices.shape[:batch])} in {indices}",
        )
    depth = indices.shape[-1]
    if not isinstance(depth, int) or not 1 <= depth <= x.rank - batch:
        raise ShapeError(
            f"{op}: the last axis of the indices selects along the axes of {x}",
            expected=f"a size from 1 to {x.rank - batch}",
            got=f"{depth} in {indices}",
        )
    return depth


def infer_gather(x: TensorType, indices: TensorType, *, batch: int) -> TensorType:
    depth = _depth("gather", x, indices, batch)
    return x.with_shape(*indices.shape[:-1], *x.shape[batch + depth :])


def infer_scatter_add(
    x: TensorType, indices: TensorType, updates: TensorType, *, batch: int
) -> TensorType:
    check_dtype("scatter_add", x, "fiu")
    depth = _depth("scatter_add", x, indices, batch)
    expected = x.with_shape(*indices.shape[:-1], *x.shape[batch + depth :])
    if updates != expected:
        error = ShapeError if updates.dtype == x.dtype else DTypeError
        raise error("scatter_add: the updates do not fit", expected=str(expected), got=str(updates))
    return x


def _places(indices: np.ndarray, batch: int) -> tuple[np.ndarray, ...]:
    """Index arrays for x's leading axes: the batch position, then each selected one."""
    at = indices.shape[:-1]
    grid = np.indices(at)[:batch]
    return (*grid, *np.moveaxis(indices.astype(np.int64), -1, 0))


def gather_reference(x: np.ndarray, indices: np.ndarray, *, batch: int) -> np.ndarray:
    depth = indices.shape[-1]
    limits = np.array(x.shape[batch : batch + depth])
    if 0 in limits:
        return np.zeros(indices.shape[:-1] + x.shape[batch + depth :], x.dtype)
    clamped = np.clip(indices.astype(np.int64), 0, limits - 1)
    return np.asarray(x[_places(clamped, batch)])


def scatter_add_reference(
    x: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, batch: int
) -> np.ndarray:
    limits = np.array(x.shape[batch : batch + indices.shape[-1]])
    wide = indices.astype(np.int64)
    inside = ((wide >= 0) & (wide < limits)).all(-1)
    result = x.copy()
    np.add.at(result, tuple(p[inside] for p in _places(wide, batch)), updates[inside])
    return result


def _limits(x: Term, indices: Term, batch: int) -> Term:
    """The size of the axis that each index selects along, in the shape of the indices."""
    *at, depth = indices.shape
    assert isinstance(depth, int), "checked by the type rule"
    sizes = x.shape[batch : batch + depth]
    if len(set(sizes)) == 1:
        return indices.full(sizes[0], i64, indices.shape)
    first, *rest = (indices.full(size, i64, (*at, 1)) for size in sizes)
    return first.emit("concatenate", *rest, axis=len(at))


def gather_vjp(dy: Term, _y: Term, x: Term, indices: Term, *, batch: int) -> tuple[Term, None]:
    # Clamped as gather clamps; an empty axis gives -1, which scatter_add drops.
    wide = indices.cast(dtype=i64)
    clamped = wide.maximum(0).minimum(_limits(x, indices, batch) - 1)
    return x.like(0.0).scatter_add(clamped, dy, batch=batch), None


def scatter_add_vjp(
    dy: Term, _y: Term, x: Term, indices: Term, updates: Term, *, batch: int
) -> tuple[Term, None, Term]:
    wide = indices.cast(dtype=i64)
    fits = wide.ge(0) & wide.lt(_limits(x, indices, batch))
    added = fits.reduce_and(axes=(indices.type.rank - 1,))
    mask = added.broadcast(shape=updates.shape, axes=tuple(range(indices.type.rank - 1)))
    return dy, None, mask.select(dy.gather(wide, batch=batch), 0.0)


def gather_lower(k: Any, index: Any, types: Any, x: Any, indices: Any, *, batch: int) -> Any:
    *at, depth = types[1].shape
    sizes: tuple[Size, ...] = types[0].shape[batch : batch + depth]
    here, rest = index[: len(at)], index[len(at) :]
    chosen = [k.cast(indices((*here, k.size(j))), i64) for j in range(depth)]
    clamped = [
        k.clamp(i, k.size(0), k.size(size - 1)) for i, size in zip(chosen, sizes, strict=True)
    ]
    guard = None
    for size in sizes:
        if not is_at_least(size, 1):
            guard = k.both(guard, k.lt(k.size(0), k.size(size)))
    source = (*here[:batch], *clamped, *rest)
    return x(source) if guard is None else x(source, guard)


def gather_batch(
    b: Builder, size: Size, x: Value, indices: Value, *, batched: tuple[bool, ...], batch: int
) -> Value:
    if batched[0]:
        at = indices if batched[1] else with_axis(b, size, indices)
        return b.emit("gather", x, at, batch=batch + 1)
    # The new axis is one more that the positions have, behind those that both have.
    order = (*range(1, batch + 1), 0)
    at = b.emit("transpose", indices, axes=order + tuple(range(batch + 1, indices.type.rank)))
    y = b.emit("gather", x, at, batch=batch)
    back = (batch, *range(batch))
    return b.emit("transpose", y, axes=back + tuple(range(batch + 1, y.type.rank)))


def scatter_add_batch(_size: Size, x: Term, indices: Term, updates: Term, *, batch: int) -> Term:
    return x.scatter_add(indices, updates, batch=batch + 1)


INDICES = np.array([[[2, 1], [0, 3]], [[1, -9], [2, 1]], [[0, 9], [1, 1]]], np.int32)


def sample_gather(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """Batches of 3, two places in each, one of them out of range."""
    return (rng.normal(size=(3, 4, 5, 2)), INDICES), {"batch": 1}


def sample_scatter(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    x, updates = rng.normal(size=(3, 4, 5, 2)), rng.normal(size=(3, 2, 2))
    return (x, INDICES, updates), {"batch": 1}


register(
    Op(
        name="gather",
        infer=infer_gather,
        reference=gather_reference,
        vjp=derivative(gather_vjp),
        sample=sample_gather,
        lower=gather_lower,
        batch=gather_batch,
        doc="y[batch, at, ...] = x[batch, *indices[batch, at], ...]; indices are clamped, and an "
        "empty axis gives 0",
    )
)
register(
    Op(
        name="scatter_add",
        infer=infer_scatter_add,
        reference=quiet(scatter_add_reference),
        vjp=derivative(scatter_add_vjp),
        sample=sample_scatter,
        batch=batching(scatter_add_batch),
        doc="x with updates[batch, at, ...] added at [batch, *indices[batch, at], ...]; updates "
        "whose indices are out of range are dropped",
    )
)
