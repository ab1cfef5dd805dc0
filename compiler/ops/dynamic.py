"""Parts of a tensor at positions that are known when the program runs.

Starts are scalars, one per axis.  They are clamped, so that the part always lies inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.types import i64, u64
from fluxc.compiler.ops.batching import with_axis
from fluxc.compiler.ops.checks import check_dtype, check_one_per_axis, check_shape, prove_at_least
from fluxc.compiler.ops.op import Op, register
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from fluxc.compiler.ir.build import Builder
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Value
    from fluxc.compiler.ir.types import TensorType

__all__: list[str] = []

Sizes = tuple["Size", ...]


def _check(op: str, x: TensorType, starts: tuple[TensorType, ...], sizes: Sizes) -> None:
    """One integer scalar per axis, and a part that fits."""
    check_one_per_axis(op, x.rank, starts=starts, sizes=sizes)
    for start in starts:
        check_dtype(op, start, "iu")
        if start.rank or start.dtype == u64:
            raise ShapeError(
                f"{op}: a start must be a scalar of a signed or small dtype",
                expected="i64[]",
                got=str(start),
            )
    for axis, (whole, part) in enumerate(zip(x.shape, sizes, strict=True)):
        prove_at_least(op, f"size of axis {axis} of {x}", whole, part)


def infer_dynamic_slice(x: TensorType, *starts: TensorType, sizes: Sizes) -> TensorType:
    check_shape("dynamic_slice", sizes)
    _check("dynamic_slice", x, starts, sizes)
    return x.with_shape(*sizes)


def infer_dynamic_update(x: TensorType, update: TensorType, *starts: TensorType) -> TensorType:
    if update.dtype != x.dtype:
        raise DTypeError(
            "dynamic_update: the update has another dtype", expected=str(x), got=str(update)
        )
    _check("dynamic_update", x, starts, update.shape)
    return x


def _spans(
    x: np.ndarray, starts: tuple[np.ndarray, ...], sizes: tuple[int, ...]
) -> tuple[slice, ...]:
    spans = []
    for start, whole, part in zip(starts, x.shape, sizes, strict=True):
        first = min(max(int(start), 0), whole - part)
        spans.append(slice(first, first + part))
    return tuple(spans)


def dynamic_slice_reference(
    x: np.ndarray, *starts: np.ndarray, sizes: tuple[int, ...]
) -> np.ndarray:
    return x[_spans(x, starts, sizes)].copy()


def dynamic_update_reference(x: np.ndarray, update: np.ndarray, *starts: np.ndarray) -> np.ndarray:
    result = x.copy()
    result[_spans(x, starts, update.shape)] = update
    return result


def dynamic_slice_vjp(
    dy: Term, _y: Term, x: Term, *starts: Term, sizes: Sizes
) -> tuple[Term | None, ...]:
    assert dy.shape == sizes
    return x.like(0.0).dynamic_update(dy, *starts), *(None for _ in starts)


def dynamic_update_vjp(
    dy: Term, _y: Term, _x: Term, update: Term, *starts: Term
) -> tuple[Term | None, ...]:
    nothing = update.like(0.0)
    kept = dy.dynamic_update(nothing, *starts)
    return kept, dy.dynamic_slice(*starts, sizes=update.shape), *(None for _ in starts)


def _clamped(k: Any, starts: Any, whole: Sizes, sizes: Sizes) -> list[Any]:
    return [
        k.clamp(k.cast(start(()), i64), k.size(0), k.size(w - s))
        for start, w, s in zip(starts, whole, sizes, strict=True)
    ]


def dynamic_slice_lower(k: Any, index: Any, types: Any, x: Any, *starts: Any, sizes: Sizes) -> Any:
    firsts = _clamped(k, starts, types[0].shape, sizes)
    return x(tuple(k.add(i, first) for i, first in zip(index, firsts, strict=True)))


def dynamic_update_lower(k: Any, index: Any, types: Any, x: Any, update: Any, *starts: Any) -> Any:
    sizes = types[1].shape
    firsts = _clamped(k, starts, types[0].shape, sizes)
    at = [k.sub(i, first) for i, first in zip(index, firsts, strict=True)]
    inside = None
    for i, whole, part in zip(at, types[0].shape, sizes, strict=True):
        if whole != part:
            inside = k.both(inside, k.both(k.ge(i, k.size(0)), k.lt(i, k.size(part))))
    if inside is None:
        return update(tuple(at))
    return k.select(inside, update(tuple(at), inside), x(index))


def _positions(x: Term, starts: tuple[Term, ...], sizes: Sizes) -> Term:
    """Where each element of each example's part lies in x: [size, part..., rank]."""
    shape = (x.shape[0], *sizes)
    columns = []
    for axis, (start, whole, part) in enumerate(zip(starts, x.shape[1:], sizes, strict=True)):
        first = start.cast(dtype=i64)
        first = first.maximum(0).minimum(first.like(whole - part))
        step = Term(x.b, x.b.emit("iota", dtype=i64, shape=shape, axis=axis + 1))
        at = first.broadcast(shape=shape, axes=(0,)) + step
        columns.append(at.reshape(shape=(*shape, 1)))
    head, *rest = columns
    return head.emit("concatenate", *rest, axis=len(shape))


def dynamic_slice_batch(
    b: Builder, size: Size, x: Value, *starts: Value, batched: tuple[bool, ...], sizes: Sizes
) -> Value:
    whole = x if batched[0] else with_axis(b, size, x)
    if not any(batched[1:]):
        zero = b.emit("full", value=0, dtype=i64, shape=())
        return b.emit("dynamic_slice", whole, zero, *starts, sizes=(size, *sizes))
    firsts = _carrying(b, size, starts, batched[1:])
    return Term(b, whole).gather(_positions(Term(b, whole), firsts, sizes), batch=1).value


def dynamic_update_batch(
    b: Builder, size: Size, x: Value, update: Value, *starts: Value, batched: tuple[bool, ...]
) -> Value:
    whole, part = (t.value for t in _carrying(b, size, (x, update), batched[:2]))
    if not any(batched[2:]):
        zero = b.emit("full", value=0, dtype=i64, shape=())
        return b.emit("dynamic_update", whole, part, zero, *starts)
    firsts = _carrying(b, size, starts, batched[2:])
    at = _positions(Term(b, whole), firsts, part.type.shape[1:])
    return b.emit("scatter", whole, at.value, part, batch=1, reduce="set")


def _carrying(
    b: Builder, size: Size, values: tuple[Value, ...], batched: tuple[bool, ...]
) -> tuple[Term, ...]:
    pairs = zip(values, batched, strict=True)
    return tuple(Term(b, v if has else with_axis(b, size, v)) for v, has in pairs)


def sample_starts(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """One of them may be out of range."""
    return tuple(np.array(rng.integers(-1, 4), np.int32) for _ in range(3))


def sample_slice(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    return (rng.normal(size=(2, 5, 3)), *sample_starts(rng)), {"sizes": (2, 3, 1)}


def sample_update(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    x, update = rng.normal(size=(2, 5, 3)), rng.normal(size=(1, 3, 3))
    return (x, update, *sample_starts(rng)), {}


register(
    Op(
        name="dynamic_slice",
        infer=infer_dynamic_slice,
        reference=dynamic_slice_reference,
        vjp=derivative(dynamic_slice_vjp),
        sample=sample_slice,
        batch=dynamic_slice_batch,
        lower=dynamic_slice_lower,
        doc="the part of x of the given sizes that begins at starts, clamped to lie inside",
    )
)
register(
    Op(
        name="dynamic_update",
        infer=infer_dynamic_update,
        reference=dynamic_update_reference,
        vjp=derivative(dynamic_update_vjp),
        sample=sample_update,
        batch=dynamic_update_batch,
        lower=dynamic_update_lower,
        doc="x with a part replaced by update, which begins at starts, clamped to lie inside",
    )
)
