"""Rules of layout operations: all of them only move elements, so all of them are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fluxc.compiler.ir.dims import is_at_least

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Node, Value
    from fluxc.compiler.passes.rewrite import Rewriter, Rules

__all__ = ["RULES", "axes_without_units"]

Axes: TypeAlias = tuple[int, ...]
Sizes: TypeAlias = "tuple[Size, ...]"


def axes_without_units(shape: Sizes) -> Axes:
    """The axes whose size is not the integer 1: those that matter to where elements lie."""
    return tuple(a for a, size in enumerate(shape) if size != 1)


def _moves_units_only(old: Sizes, new: Sizes) -> bool:
    """Whether the shapes differ in axes of size 1 alone."""
    return [s for s in old if s != 1] == [s for s in new if s != 1]


def move_full(r: Rewriter, n: Node) -> Value | None:  # moving one number around changes nothing
    inner = r.by(n.inputs[0], "full")
    return r.full(inner.attrs["value"], n.output.type) if inner else None


def same_shape(_: Rewriter, n: Node) -> Value | None:  # broadcast, reshape to x's own shape is x
    x = n.inputs[0]
    return x if x.type == n.output.type else None


def full_of_float(r: Rewriter, n: Node) -> Value | None:  # full(1) = full(1.0) of floats
    value = n.attrs["value"]
    is_whole = type(value) is int and n.output.type.dtype.is_float
    return r.full(float(value), n.output.type) if is_whole else None


# ---- broadcast


def broadcast_units(r: Rewriter, n: Node) -> Value | None:  # new axes of size 1: a reshape
    x, shape = n.inputs[0], n.output.type.shape
    units_only = _moves_units_only(x.type.shape, shape)
    return r.emit("reshape", x, shape=shape) if units_only else None


def broadcast_broadcast(r: Rewriter, n: Node) -> Value | None:  # axes compose
    inner = r.by(n.inputs[0], "broadcast")
    if inner is None:
        return None
    axes = tuple(n.attrs["axes"][a] for a in inner.attrs["axes"])
    return r.emit("broadcast", inner.inputs[0], shape=n.output.type.shape, axes=axes)


def broadcast_reshape(r: Rewriter, n: Node) -> Value | None:  # axes of size 1 come by broadcast too
    inner = r.by(n.inputs[0], "reshape")
    if inner is None:
        return None
    x, middle = inner.inputs[0], inner.output.type.shape
    kept = axes_without_units(x.type.shape)
    if not _moves_units_only(x.type.shape, middle) or len(kept) != x.type.rank:
        return None
    axes = tuple(n.attrs["axes"][a] for a in axes_without_units(middle))
    return r.emit("broadcast", x, shape=n.output.type.shape, axes=axes)


# ---- reshape


def reshape_reshape(r: Rewriter, n: Node) -> Value | None:  # the last shape counts
    inner = r.by(n.inputs[0], "reshape")
    return r.emit("reshape", inner.inputs[0], shape=n.output.type.shape) if inner else None


def reshape_broadcast(r: Rewriter, n: Node) -> Value | None:  # broadcast with other axes of size 1
    inner, shape = r.by(n.inputs[0], "broadcast"), n.output.type.shape
    if inner is None or not _moves_units_only(inner.output.type.shape, shape):
        return None
    place = dict(
        zip(axes_without_units(inner.output.type.shape), axes_without_units(shape), strict=True)
    )
    x = inner.inputs[0]
    kept = axes_without_units(x.type.shape)
    axes = tuple(place[inner.attrs["axes"][a]] for a in kept)
    core = r.emit("reshape", x, shape=tuple(x.type.shape[a] for a in kept))
    return r.emit("broadcast", core, shape=shape, axes=axes)


# ---- transpose


def transpose_units(r: Rewriter, n: Node) -> Value | None:  # moving axes of size 1: a reshape
    x, axes = n.inputs[0], n.attrs["axes"]
    order = [a for a in axes if x.type.shape[a] != 1]
    return r.emit("reshape", x, shape=n.output.type.shape) if order == sorted(order) else None


def transpose_transpose(r: Rewriter, n: Node) -> Value | None:  # axes compose
    inner = r.by(n.inputs[0], "transpose")
    if inner is None:
        return None
    axes = tuple(inner.attrs["axes"][a] for a in n.attrs["axes"])
    return r.emit("transpose", inner.inputs[0], axes=axes)


def transpose_broadcast(r: Rewriter, n: Node) -> Value | None:  # transpose before it grows
    inner = r.by(n.inputs[0], "broadcast")
    if inner is None:
        return None
    places = [n.attrs["axes"].index(a) for a in inner.attrs["axes"]]
    order = tuple(sorted(range(len(places)), key=places.__getitem__))
    x = r.emit("transpose", inner.inputs[0], axes=order)
    return r.emit("broadcast", x, shape=n.output.type.shape, axes=tuple(sorted(places)))


# ---- slice, reverse


def slice_all(_: Rewriter, n: Node) -> Value | None:  # x[:] = x
    x, steps = n.inputs[0], n.attrs["steps"]
    whole = x.type == n.output.type and all(s == 1 for s in steps)
    return x if whole else None


def slice_slice(r: Rewriter, n: Node) -> Value | None:  # x[a:b][c:d] = x[a+c:a+d]
    inner = r.by(n.inputs[0], "slice")
    if inner is None or any(s != 1 for s in inner.attrs["steps"]):
        return None
    x, offsets = inner.inputs[0], inner.attrs["starts"]
    return _sliced(
        r,
        x,
        [o + s for o, s in zip(offsets, n.attrs["starts"], strict=True)],
        [o + s for o, s in zip(offsets, n.attrs["limits"], strict=True)],
        n.attrs["steps"],
    )


def _sliced(
    r: Rewriter, x: Value, starts: Sequence[Size], limits: Sequence[Size], steps: Axes
) -> Value | None:
    """The slice, if it is provably inside."""
    inside = all(is_at_least(s, limit) for s, limit in zip(x.type.shape, limits, strict=True))
    if not inside:
        return None
    return r.emit("slice", x, starts=tuple(starts), limits=tuple(limits), steps=steps)


def slice_broadcast(r: Rewriter, n: Node) -> Value | None:  # slice before it grows
    inner = r.by(n.inputs[0], "broadcast")
    if inner is None:
        return None
    axes = inner.attrs["axes"]
    at = {k: tuple(n.attrs[k][a] for a in axes) for k in ("starts", "limits", "steps")}
    x = r.emit("slice", inner.inputs[0], **at)
    return r.emit("broadcast", x, shape=n.output.type.shape, axes=axes)


def slice_concatenate(r: Rewriter, n: Node) -> Value | None:  # of the one operand that it lies in
    inner = r.by(n.inputs[0], "concatenate")
    if inner is None:
        return None
    axis = inner.attrs["axis"]
    starts, limits = list(n.attrs["starts"]), list(n.attrs["limits"])
    start, limit = starts[axis], limits[axis]
    offset: Size = 0
    for x in inner.inputs:
        end = offset + x.type.shape[axis]
        if is_at_least(start, offset) and is_at_least(end, limit):
            starts[axis], limits[axis] = start - offset, limit - offset
            return _sliced(r, x, starts, limits, n.attrs["steps"])
        offset = end
    return None


def reverse_nothing(_: Rewriter, n: Node) -> Value | None:  # axes of size 1 have one order
    x = n.inputs[0]
    return x if all(x.type.shape[a] == 1 for a in n.attrs["axes"]) else None


def reverse_reverse(r: Rewriter, n: Node) -> Value | None:  # what is reversed twice is not
    inner = r.by(n.inputs[0], "reverse")
    if inner is None:
        return None
    axes = tuple(sorted(set(n.attrs["axes"]) ^ set(inner.attrs["axes"])))
    return r.emit("reverse", inner.inputs[0], axes=axes)


def reverse_broadcast(r: Rewriter, n: Node) -> Value | None:  # repeated elements have one order
    inner = r.by(n.inputs[0], "broadcast")
    if inner is None:
        return None
    axes = inner.attrs["axes"]
    own = tuple(i for i, a in enumerate(axes) if a in n.attrs["axes"])
    x = r.emit("reverse", inner.inputs[0], axes=own)
    return r.emit("broadcast", x, shape=n.output.type.shape, axes=axes)


# ---- pad, concatenate


def pad_nothing(_: Rewriter, n: Node) -> Value | None:  # nothing before, between, after
    around = (*n.attrs["low"], *n.attrs["high"], *n.attrs["interior"])
    return n.inputs[0] if all(a == 0 for a in around) else None


def pad_full(r: Rewriter, n: Node) -> Value | None:  # a number padded with itself
    x, value = n.inputs
    number = r.number(value)
    same = number is not None and r.is_number(x, number)
    return r.full(number, n.output.type) if same and number is not None else None


def pad_pad(r: Rewriter, n: Node) -> Value | None:  # one pad of both widths
    x, value = n.inputs
    inner = r.by(x, "pad")
    if inner is None or any(n.attrs["interior"]):
        return None
    number = r.number(value)
    same = inner.inputs[1] is value or (number is not None and r.is_number(inner.inputs[1], number))
    if not same:
        return None
    low, high = (
        tuple(a + b for a, b in zip(n.attrs[k], inner.attrs[k], strict=True))
        for k in ("low", "high")
    )
    interior = inner.attrs["interior"]
    return r.emit("pad", inner.inputs[0], value, low=low, high=high, interior=interior)


def concatenate_one(_: Rewriter, n: Node) -> Value | None:  # of a single operand
    return n.inputs[0] if len(n.inputs) == 1 else None


def concatenate_empty(r: Rewriter, n: Node) -> Value | None:  # operands of size 0 add nothing
    axis = n.attrs["axis"]
    kept = [x for x in n.inputs if x.type.shape[axis] != 0]
    if len(kept) == len(n.inputs):
        return None
    return r.emit("concatenate", *(kept or n.inputs[:1]), axis=axis)


def concatenate_concatenate(r: Rewriter, n: Node) -> Value | None:  # along one axis: one
    axis = n.attrs["axis"]
    parts: list[Value] = []
    for x in n.inputs:
        inner = r.by(x, "concatenate")
        parts += inner.inputs if inner and inner.attrs["axis"] == axis else (x,)
    return r.emit("concatenate", *parts, axis=axis) if len(parts) > len(n.inputs) else None


RULES: Rules = {
    "full": (full_of_float,),
    "broadcast": (move_full, same_shape, broadcast_units, broadcast_broadcast, broadcast_reshape),
    "reshape": (move_full, same_shape, reshape_reshape, reshape_broadcast),
    "transpose": (move_full, transpose_units, transpose_transpose, transpose_broadcast),
    "slice": (move_full, slice_all, slice_slice, slice_broadcast, slice_concatenate),
    "reverse": (move_full, reverse_nothing, reverse_reverse, reverse_broadcast),
    "pad": (pad_nothing, pad_full, pad_pad),
    "concatenate": (concatenate_one, concatenate_empty, concatenate_concatenate),
}
