"""Reading at computed indices.

`indices` is [batch..., at..., k]: its last axis holds one position for each of the first k axes of
`x` after the batch axes.  The rest of x's axes are taken whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.dims import is_at_least
from fluxc.compiler.ir.types import i64, u64
from fluxc.compiler.ops.batching import with_axis
from fluxc.compiler.ops.checks import check_axis, check_dtype, show
from fluxc.compiler.ops.op import Op, register
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from fluxc.compiler.ir.build import Builder
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Value
    from fluxc.compiler.ir.types import TensorType

__all__ = ["INDICES", "limits_of", "places_of", "selected_axes"]


def selected_axes(op: str, x: TensorType, indices: TensorType, batch: int) -> int:
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
    depth = selected_axes("gather", x, indices, batch)
    return x.with_shape(*indices.shape[:-1], *x.shape[batch + depth :])


def places_of(indices: np.ndarray, batch: int) -> tuple[np.ndarray, ...]:
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
    return np.asarray(x[places_of(clamped, batch)])


def limits_of(x: Term, indices: Term, batch: int) -> Term:
    """The size of the axis that each index selects along, in the shape of the indices."""
    *at, depth = indices.shape
    assert isinstance(depth, int), "checked by the type rule"
    sizes = x.shape[batch : batch + depth]
    if len(set(sizes)) == 1:
        return indices.full(sizes[0], i64, indices.shape)
    first, *rest = (indices.full(size, i64, (*at, 1)) for size in sizes)
    return first.emit("concatenate", *rest, axis=len(at))


def gather_vjp(dy: Term, _y: Term, x: Term, indices: Term, *, batch: int) -> tuple[Term, None]:
    # Clamped as gather clamps; an empty axis gives -1, which scatter drops.
    wide = indices.cast(dtype=i64)
    clamped = wide.maximum(0).minimum(limits_of(x, indices, batch) - 1)
    return x.like(0.0).scatter(clamped, dy, batch=batch, reduce="add"), None


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


INDICES = np.array([[[2, 1], [0, 3]], [[1, -9], [2, 1]], [[0, 9], [1, 1]]], np.int32)


def sample_gather(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """Batches of 3, two places in each, one of them out of range."""
    return (rng.normal(size=(3, 4, 5, 2)), INDICES), {"batch": 1}


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
