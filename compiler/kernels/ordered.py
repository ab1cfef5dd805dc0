"""Works of operations that go along an axis in its order: running results, positions, sorting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.functions.reduction import identity_of
from fluxc.compiler.ir.dims import product
from fluxc.compiler.ir.graph import Value
from fluxc.compiler.ir.types import bool_, i32, i64
from fluxc.compiler.kernels.inline import COMBINING, computing
from fluxc.compiler.kernels.kernel import Axis, Carry, Pass, Sort

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.graph import Node
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.kernels.inline import Inliner, Place
    from fluxc.compiler.kernels.kernel import Buffer, Expr, Expressions, Store
    from fluxc.compiler.kernels.work import Work, Works

__all__ = ["argsort", "extremum_position", "running", "running_pass", "sort_kernel"]


# Positions of extremes.


def extremum_position(works: Works, node: Node) -> None:
    """The greatest element of a row first; then the least position where it stands, or a NaN."""
    (x,) = node.inputs
    works.compute_once(x)
    axis, k = node.attrs["axis"], works.k
    fold = "maximum" if node.op == "argmax" else "minimum"
    best = Value(node.output.type.with_dtype(x.type.dtype), "best")

    def axes() -> tuple[tuple[Axis, ...], tuple[Axis, ...], Place]:
        """All axes in x's order; those that stay and the one that goes; the output's index."""
        whole = works.axes("i", x.type.shape)
        kept = tuple(a for i, a in enumerate(whole) if i != axis)
        return whole, (*kept, whole[axis]), works.indices(kept)

    whole, own, out = axes()

    def element(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
        return works.as_stored(inliner.at(x, tuple(place[a] for a in whole)), x.type.dtype)

    if x.type.dtype == bool_:
        fold = {"maximum": "or", "minimum": "and"}[fold]
    works.reduction(node, best, own, out, element, fold)
    second, own_second, out_second = axes()

    def position(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
        e = works.as_stored(inliner.at(x, tuple(place[a] for a in second)), x.type.dtype)
        row = tuple(place[a] for i, a in enumerate(second) if i != axis)
        hit = k.apply("eq", e, inliner.at(best, row))
        if e.dtype.is_float:
            hit = k.apply("or", hit, k.apply("is_nan", e))
        return k.select(hit, place[second[axis]], k.const(2**63 - 1, i64))

    works.reduction(node, node.output, own_second, out_second, position, "minimum")


# Running results.


def running(works: Works, node: Node) -> None:
    """One element after another along an axis, rows side by side."""
    axes = works.axes("i", node.output.type.shape)

    def define(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
        at = tuple(place[a] for a in axes)
        first, *_ = [inliner.at(x, at) for x in node.inputs]
        return first

    works.made(node, node.output, "running", axes, define)


def running_pass(
    work: Work, inliner: Inliner, store: Callable[[Value, Place, Expr], Store]
) -> tuple[tuple[Axis, ...], Pass]:
    """The rows and the pass of a running result."""
    node, k = work.node, inliner.k
    axis = node.attrs["axis"]
    along = work.axes[axis]
    at = [k.index(a) for a in work.axes]
    if node.attrs["reverse"]:
        at[axis] = k.sub(k.size(along.extent - 1), at[axis])
    dtype = computing(work.value.type.dtype)
    held = k.local("held", dtype)
    values = [inliner.at(x, tuple(at)) for x in node.inputs]
    if node.op == "recurrence":
        factor, term = values
        start = identity_of("add", dtype)
        value = k.apply("add", k.apply("mul", factor, held), term)
    else:
        fold = COMBINING[node.attrs["reduce"]]
        start, value = identity_of(fold, dtype), k.apply(fold, held, *values)
    carry = Carry(held, k.const(start, dtype), value)
    rows = tuple(a for a in work.axes if a is not along)
    return rows, Pass((along,), (), (store(work.value, tuple(at), value),), (carry,))


# Sorting.


def argsort(works: Works, node: Node) -> None:
    """Keys in rows, as integers whose order is that of the elements; then rows are sorted."""
    (x,) = node.inputs
    axis, k = node.attrs["axis"], works.k
    shape = x.type.shape
    rows = tuple(i for i in range(len(shape)) if i != axis)
    dtype = _key_dtype(computing(x.type.dtype))
    kind = x.type.with_shape(*(shape[i] for i in rows), shape[axis]).with_dtype(dtype)
    keys, order = Value(kind, "keys"), Value(kind.with_dtype(i64), "order")
    own = works.axes("i", kind.shape)

    def key(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
        at = dict(zip((*rows, axis), own, strict=True))
        e = inliner.at(x, tuple(place[at[i]] for i in range(len(shape))))
        return _key(k, e, dtype, descending=node.attrs["descending"])

    works.made(node, keys, "pack", own, key)
    line = works.axes("i", kind.shape)

    def define(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
        return inliner.at(keys, tuple(place[a] for a in line))

    works.made(node, order, "sort", line, define)
    back = works.axes("i", shape)

    def placed(inliner: Inliner, place: dict[Axis, Expr]) -> Expr:
        return inliner.at(order, (*(place[back[i]] for i in rows), place[back[axis]]))

    works.made(node, node.output, "pack", back, placed)


def sort_kernel(work: Work, buffer: Callable[[Value], Buffer]) -> Sort:
    """The kernel that sorts a row of keys after another."""
    (read,) = work.reads
    *rows, length = work.value.type.shape
    keys, order = read.value, work.value
    spare_keys, spare_order = Value(keys.type, "spare_keys"), Value(order.type, "spare_order")
    buffers = tuple(map(buffer, (keys, order, spare_keys, spare_order)))
    name = f"sort_{keys.type.dtype}"
    return Sort(name, buffers, Axis("row", product(rows)), Axis("i", length))


def _key_dtype(dtype: DType) -> DType:
    wide = dtype.bits == 64 or (dtype.kind == "u" and dtype.bits == 32)
    return i64 if wide else i32


def _key(k: Expressions, e: Expr, dtype: DType, *, descending: bool) -> Expr:
    """A signed integer that is less where `e` comes earlier; equal where neither does."""
    most = k.const(2 ** (dtype.bits - 1) - 1, dtype)
    if e.dtype.is_float:
        # Magnitudes of negative numbers count down; -0.0 becomes 0.0; NaN is the greatest.
        zeroed = k.apply("add", e, k.const(0.0, e.dtype))
        bits = k.apply("bitcast", zeroed, dtype=dtype)
        sign = k.apply("shift_right", bits, k.const(dtype.bits - 1, dtype))
        key = k.apply("xor", bits, k.apply("and", sign, most))
        key = k.select(k.apply("is_nan", e), most, key)
    elif e.dtype.kind == "u" and e.dtype.bits == 64:
        bits = k.apply("bitcast", e, dtype=i64)
        key = k.apply("xor", bits, k.const(-(2**63), i64))
    else:
        key = k.cast(e, dtype)
    return k.apply("not", key) if descending else key
