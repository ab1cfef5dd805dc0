"""Layout operations: the output at an index is an input at another index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.dims import ceildiv, is_at_least, largest, product
from fluxc.compiler.ir.types import bool_
from fluxc.compiler.ops.batching import batching, later, with_axis
from fluxc.compiler.ops.checks import (
    check_axes,
    check_axis,
    check_ints,
    check_one_per_axis,
    check_shape,
    prove_at_least,
    show,
)
from fluxc.compiler.ops.op import Op, register
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from fluxc.compiler.ir.build import Builder
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Value
    from fluxc.compiler.ir.types import DType, TensorType

__all__: list[str] = []

Axes = tuple[int, ...]
Sizes = tuple["Size", ...]


# ---- broadcast


def infer_broadcast(x: TensorType, *, shape: Sizes, axes: Axes) -> TensorType:
    check_shape("broadcast", shape)
    check_axes("broadcast", axes, len(shape), increasing=True)
    check_one_per_axis("broadcast", x.rank, axes=axes)
    placed = tuple(shape[a] for a in axes)
    if placed != x.shape:
        raise ShapeError(
            "broadcast: sizes differ where the input's axes go",
            expected=show(x.shape),
            got=f"{show(placed)} at axes {show(axes)} of {show(shape)}",
        )
    return x.with_shape(*shape)


def broadcast_reference(x: np.ndarray, *, shape: tuple[int, ...], axes: Axes) -> np.ndarray:
    aligned = x.reshape([shape[a] if a in axes else 1 for a in range(len(shape))])
    return np.broadcast_to(aligned, shape).copy()


def broadcast_vjp(dy: Term, _y: Term, _x: Term, *, shape: Sizes, axes: Axes) -> tuple[Term]:
    new = tuple(a for a in range(len(shape)) if a not in axes)
    return (dy.reduce_sum(axes=new) if new else dy,)


def broadcast_lower(_k: Any, index: Any, _types: Any, x: Any, *, shape: Sizes, axes: Axes) -> Any:
    assert len(shape) == len(index)
    return x(tuple(index[a] for a in axes))


def broadcast_batch(size: Size, x: Term, *, shape: Sizes, axes: Axes) -> Term:
    return x.broadcast(shape=(size, *shape), axes=(0, *later(axes)))


# ---- reshape


def infer_reshape(x: TensorType, *, shape: Sizes) -> TensorType:
    check_shape("reshape", shape)
    if product(shape) != x.size:
        raise ShapeError(
            "reshape changes the number of elements",
            expected=f"{x.size} elements, as in {x}",
            got=f"{product(shape)} elements in {show(shape)}",
        )
    return x.with_shape(*shape)


def reshape_lower(k: Any, index: Any, types: Any, x: Any, *, shape: Sizes) -> Any:
    """Runs of axes whose sizes have one product are linearised and split, each run by itself."""
    source: list[Any] = []
    for old, new in _equal_runs(types[0].shape, shape):
        line = _linearise(k, index[new.start : new.stop], shape[new.start : new.stop])
        source += _delinearise(k, line, types[0].shape[old.start : old.stop])
    return x(tuple(source))


def _equal_runs(old: Sizes, new: Sizes) -> list[tuple[range, range]]:
    """Cut both shapes where the products of all sizes so far are equal."""
    ends = {product(new[:j]): j for j in range(len(new), -1, -1)}
    runs, i, j = [], 0, 0
    for end in range(1, len(old) + 1):
        cut = ends.get(product(old[:end]), 0)
        if end == len(old):
            cut = len(new)
        if cut > j or end == len(old):
            runs.append((range(i, end), range(j, cut)))
            i, j = end, cut
    return runs


def _linearise(k: Any, index: Any, shape: Sizes) -> Any:
    line = k.size(0)
    for position, size in zip(index, shape, strict=True):
        line = k.add(k.mul(line, k.size(size)), position)
    return line


def _delinearise(k: Any, line: Any, shape: Sizes) -> list[Any]:
    """Split a linear position; the outermost axis needs no remainder."""
    result: list[Any] = []
    sizes = [1 if s == 0 else s for s in shape]  # nothing is read of an empty tensor
    for axis, size in enumerate(sizes):
        position = k.floordiv(line, k.size(product(sizes[axis + 1 :])))
        outermost = all(s == 1 for s in shape[:axis])
        whole = position if outermost else k.mod(position, k.size(size))
        result.append(k.size(0) if size == 1 else whole)
    return result


# ---- transpose, reverse


def infer_transpose(x: TensorType, *, axes: Axes) -> TensorType:
    check_axes("transpose", axes, x.rank, increasing=False)
    check_one_per_axis("transpose", x.rank, axes=axes)
    return x.with_shape(*(x.shape[a] for a in axes))


def inverse(axes: Axes) -> Axes:
    return tuple(axes.index(a) for a in range(len(axes)))


def transpose_lower(_k: Any, index: Any, _types: Any, x: Any, *, axes: Axes) -> Any:
    return x(tuple(index[a] for a in inverse(axes)))


def infer_reverse(x: TensorType, *, axes: Axes) -> TensorType:
    check_axes("reverse", axes, x.rank, increasing=True)
    return x


def reverse_lower(k: Any, index: Any, types: Any, x: Any, *, axes: Axes) -> Any:
    shape = types[0].shape
    flipped = [k.sub(k.size(s - 1), i) for i, s in zip(index, shape, strict=True)]
    return x(tuple(flipped[a] if a in axes else i for a, i in enumerate(index)))


# ---- slice


def infer_slice(x: TensorType, *, starts: Sizes, limits: Sizes, steps: Axes) -> TensorType:
    check_one_per_axis("slice", x.rank, starts=starts, limits=limits, steps=steps)
    check_ints("slice", "steps", steps)
    shape: list[Size] = []
    for axis, (start, limit, step) in enumerate(zip(starts, limits, steps, strict=True)):
        prove_at_least("slice", f"start of axis {axis}", start, 0)
        prove_at_least("slice", f"step of axis {axis}", step, 1)
        prove_at_least("slice", f"limit of axis {axis}", limit, start)
        hint = "give the dimension a range: fx.dim(name, min=..., max=...)"
        prove_at_least("slice", f"size of axis {axis} of {x}", x.shape[axis], limit, hint)
        shape.append(ceildiv(limit - start, step))
    return x.with_shape(*shape)


def slice_reference(x: np.ndarray, *, starts: Axes, limits: Axes, steps: Axes) -> np.ndarray:
    return x[tuple(map(slice, starts, limits, steps))].copy()


def slice_vjp(
    dy: Term, _y: Term, x: Term, *, starts: Sizes, limits: Sizes, steps: Axes
) -> tuple[Term]:
    del limits
    if dy.shape == x.shape:
        return (dy,)
    interior = tuple(s - 1 for s in steps)
    spans = tuple(span(n, gap) for n, gap in zip(dy.shape, interior, strict=True))
    high = tuple(s - a - n for s, a, n in zip(x.shape, starts, spans, strict=True))
    return (dy.pad(dy.full(0.0, dy.dtype, ()), low=starts, high=high, interior=interior),)


def slice_lower(
    k: Any, index: Any, _types: Any, x: Any, *, starts: Sizes, limits: Sizes, steps: Axes
) -> Any:
    assert len(limits) == len(index)
    places = zip(index, starts, steps, strict=True)
    return x(tuple(k.add(k.mul(i, k.size(step)), k.size(start)) for i, start, step in places))


def slice_batch(size: Size, x: Term, *, starts: Sizes, limits: Sizes, steps: Axes) -> Term:
    return x.slice(starts=(0, *starts), limits=(size, *limits), steps=(1, *steps))


# ---- pad


def span(size: Size, interior: int) -> Size:
    """The room that `size` elements take with `interior` gaps between neighbours."""
    return size + largest(size - 1, 0) * interior if interior else size


def infer_pad(
    x: TensorType, value: TensorType, *, low: Sizes, high: Sizes, interior: Axes
) -> TensorType:
    if value.dtype != x.dtype or value.rank != 0:
        raise DTypeError(
            "pad: the value must be a scalar of the input's dtype",
            expected=f"{x.dtype}[]",
            got=str(value),
        )
    check_one_per_axis("pad", x.rank, low=low, high=high, interior=interior)
    check_ints("pad", "interior", interior)
    for axis in range(x.rank):
        for name, amount in (("low", low), ("high", high), ("interior", interior)):
            prove_at_least("pad", f"{name} of axis {axis}", amount[axis], 0)
    sizes = zip(x.shape, low, high, interior, strict=True)
    return x.with_shape(*(a + span(n, gap) + z for n, a, z, gap in sizes))


def pad_reference(
    x: np.ndarray, value: np.ndarray, *, low: Axes, high: Axes, interior: Axes
) -> np.ndarray:
    sizes = list(zip(x.shape, low, high, interior, strict=True))
    full = [a + n + max(n - 1, 0) * gap + z for n, a, z, gap in sizes]
    result = np.full(full, value, x.dtype)
    result[tuple(slice(a, a + n * (gap + 1), gap + 1) for n, a, _, gap in sizes)] = x
    return result


def pad_vjp(
    dy: Term, _y: Term, x: Term, _value: Term, *, low: Sizes, high: Sizes, interior: Axes
) -> tuple[Term, Term]:
    dx = _taken_out(dy, x.shape, low, interior)
    inside = x.full(False, bool_, x.shape)
    outside = inside.pad(x.full(True, bool_, ()), low=low, high=high, interior=interior)
    every = tuple(range(x.type.rank))
    return dx, outside.select(dy, 0.0).reduce_sum(axes=every)


def _taken_out(dy: Term, shape: Sizes, low: Sizes, interior: Axes) -> Term:
    """The elements of `dy` that a pad took from its input."""
    rank = len(shape)
    # A symbolic size may be 0; room for one more gap makes the slice one formula for all sizes.
    room = tuple(
        g if g and not is_at_least(n, 1) else 0 for n, g in zip(shape, interior, strict=True)
    )
    if any(room):
        none = (0,) * rank
        dy = dy.pad(dy.full(0.0, dy.dtype, ()), low=none, high=room, interior=none)
    ends = zip(shape, low, interior, room, strict=True)
    limits = tuple(a + n * (gap + 1) - (gap - extra) for n, a, gap, extra in ends)
    steps = tuple(gap + 1 for gap in interior)
    return dy.slice(starts=low, limits=limits, steps=steps)


def pad_lower(
    k: Any, index: Any, types: Any, x: Any, value: Any, *, low: Sizes, high: Sizes, interior: Axes
) -> Any:
    inside, source = None, []
    for i, n, a, z, gap in zip(index, types[0].shape, low, high, interior, strict=True):
        position = k.sub(i, k.size(a))
        if a != 0:
            inside = k.both(inside, k.ge(position, k.size(0)))
        if z != 0:
            inside = k.both(inside, k.lt(position, k.size(span(n, gap))))
        if gap:
            inside = k.both(inside, k.eq(k.mod(position, k.size(gap + 1)), k.size(0)))
            position = k.floordiv(position, k.size(gap + 1))
        source.append(position)
    if inside is None:
        return x(tuple(source))
    return k.select(inside, x(tuple(source), inside), value(()))


def pad_batch(
    b: Builder, size: Size, x: Value, value: Value, *, batched: tuple[bool, ...], **attrs: Sizes
) -> Value:
    attrs = {name: (0, *amounts) for name, amounts in attrs.items()}
    whole = Term(b, x if batched[0] else with_axis(b, size, x))
    if not batched[1]:
        return whole.pad(Term(b, value), **attrs).value
    # A value for each example: it is put where padding with true shows what is outside.
    no, yes = whole.full(False, bool_, whole.shape), whole.full(True, bool_, ())
    outside = no.pad(yes, **attrs)
    inside = whole.pad(whole.full(*_zero(whole.dtype), ()), **attrs)
    around = Term(b, value).broadcast(shape=outside.shape, axes=(0,))
    return outside.select(around, inside).value


def _zero(dtype: DType) -> tuple[Any, DType]:
    return (False if dtype == bool_ else 0.0 if dtype.is_float else 0), dtype


# ---- concatenate


def infer_concatenate(*xs: TensorType, axis: int) -> TensorType:
    if not xs:
        raise ShapeError("concatenate takes at least one operand")
    check_axis("concatenate", axis, xs[0].rank)
    first = xs[0]
    for position, x in enumerate(xs):
        aligned = x.rank == first.rank and _replaced(x.shape, axis, 0) == _replaced(
            first.shape, axis, 0
        )
        if x.dtype != first.dtype or not aligned:
            error = ShapeError if x.dtype == first.dtype else DTypeError
            raise error(
                f"concatenate: operand {position} does not match operand 0 beside axis {axis}",
                expected=str(first),
                got=str(x),
            )
    total: Size = 0
    for x in xs:
        total = total + x.shape[axis]
    return first.with_shape(*_replaced(first.shape, axis, total))


def _replaced(shape: Sizes, axis: int, size: Size) -> Sizes:
    return (*shape[:axis], size, *shape[axis + 1 :])


def concatenate_vjp(dy: Term, _y: Term, *xs: Term, axis: int) -> tuple[Term, ...]:
    pieces: list[Term] = []
    start: Size = 0
    none, ones = (0,) * dy.type.rank, (1,) * dy.type.rank
    for x in xs:
        stop = start + x.shape[axis]
        limits = _replaced(x.shape, axis, stop)
        pieces.append(dy.slice(starts=_replaced(none, axis, start), limits=limits, steps=ones))
        start = stop
    return tuple(pieces)


def concatenate_lower(k: Any, index: Any, types: Any, *xs: Any, axis: int) -> Any:
    """A chain of selects, last part innermost; each part is read under its own guard."""
    start: Size = 0
    parts: list[tuple[Any, Any]] = []
    for position, (x, type) in enumerate(zip(xs, types[:-1], strict=True)):
        stop = start + type.shape[axis]
        here = index[axis]
        below = k.lt(here, k.size(stop)) if position < len(xs) - 1 else None
        inside = k.both(below, k.ge(here, k.size(start)) if position else None)
        source = (*index[:axis], k.sub(here, k.size(start)), *index[axis + 1 :])
        parts.append((below, x(source, inside) if inside is not None else x(source)))
        start = stop
    result = parts[-1][1]
    for below, part in reversed(parts[:-1]):
        result = k.select(below, part, result)
    return result


def _sample(attrs: dict[str, Any], *shapes: tuple[int, ...]) -> Any:
    return lambda rng: (tuple(rng.normal(size=s) for s in shapes), dict(attrs))


PADDING = {"low": (1, 0), "high": (0, 2), "interior": (0, 2)}

register(
    Op(
        name="broadcast",
        infer=infer_broadcast,
        reference=broadcast_reference,
        vjp=derivative(broadcast_vjp),
        sample=_sample({"shape": (2, 3, 4), "axes": (1,)}, (3,)),
        lower=broadcast_lower,
        batch=batching(broadcast_batch),
        doc="x repeated along new axes: input axis i is output axis axes[i], axes increasing",
    )
)
register(
    Op(
        name="reshape",
        infer=infer_reshape,
        reference=lambda x, *, shape: x.reshape(shape).copy(),
        vjp=derivative(lambda dy, _y, x, *, shape: (dy.reshape(shape=x.shape),)),  # noqa: ARG005
        sample=_sample({"shape": (3, 2, 4)}, (2, 3, 4)),
        lower=reshape_lower,
        batch=batching(lambda size, x, *, shape: x.reshape(shape=(size, *shape))),
        doc="the same elements in row-major order under another shape",
    )
)
register(
    Op(
        name="transpose",
        infer=infer_transpose,
        reference=lambda x, *, axes: x.transpose(axes).copy(),
        vjp=derivative(lambda dy, _y, _x, *, axes: (dy.transpose(axes=inverse(axes)),)),
        sample=_sample({"axes": (1, 2, 0)}, (2, 3, 4)),
        lower=transpose_lower,
        batch=batching(lambda _size, x, *, axes: x.transpose(axes=(0, *later(axes)))),
        doc="axes in another order: output axis i is input axis axes[i]",
    )
)
register(
    Op(
        name="reverse",
        infer=infer_reverse,
        reference=lambda x, *, axes: np.flip(x, axes).copy(),
        vjp=derivative(lambda dy, _y, _x, *, axes: (dy.reverse(axes=axes),)),
        sample=_sample({"axes": (0, 2)}, (2, 3, 4)),
        lower=reverse_lower,
        batch=batching(lambda _size, x, *, axes: x.reverse(axes=later(axes))),
        doc="the elements in opposite order along axes",
    )
)
register(
    Op(
        name="slice",
        infer=infer_slice,
        reference=slice_reference,
        vjp=derivative(slice_vjp),
        sample=_sample({"starts": (1, 0), "limits": (3, 7), "steps": (1, 3)}, (4, 8)),
        lower=slice_lower,
        batch=batching(slice_batch),
        doc="x[start:limit:step] along every axis, 0 <= start <= limit <= size, step >= 1",
    )
)
register(
    Op(
        name="pad",
        infer=infer_pad,
        reference=pad_reference,
        vjp=derivative(pad_vjp),
        sample=_sample(PADDING, (2, 3), ()),
        lower=pad_lower,
        batch=pad_batch,
        doc="x with `low` values before, `high` after and `interior` between neighbours, per axis",
    )
)
register(
    Op(
        name="concatenate",
        infer=infer_concatenate,
        reference=lambda *xs, axis: np.concatenate(xs, axis),
        vjp=derivative(concatenate_vjp),
        sample=_sample({"axis": 1}, (2, 3), (2, 1), (2, 4)),
        lower=concatenate_lower,
        batch=batching(lambda _size, x, *xs, axis: x.concatenate(*xs, axis=axis + 1)),
        doc="the operands one after another along axis",
    )
)
