"""Rules of reductions and contractions.

Exact up to what the language leaves open: the order of a sum, and the sign of a sum that is zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from fluxc.compiler.ir.dims import is_at_least

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Node, Value
    from fluxc.compiler.passes.rewrite import Rewriter, Rules

__all__ = ["RULES"]

Axes: TypeAlias = tuple[int, ...]
EXACT = ("reduce_max", "reduce_min", "reduce_and", "reduce_or")  # no rounding: any order will do


def _others(rank: int, *used: Axes) -> Axes:
    return tuple(a for a in range(rank) if not any(a in axes for axes in used))


# ---- reductions


def reduce_nothing(_: Rewriter, n: Node) -> Value | None:  # over no axes: x
    return None if n.attrs["axes"] else n.inputs[0]


def reduce_units(r: Rewriter, n: Node) -> Value | None:  # over axes of size 1: a reshape
    x, axes = n.inputs[0], n.attrs["axes"]
    units = tuple(a for a in axes if x.type.shape[a] == 1)
    if not units:
        return None
    kept = _others(x.type.rank, units)
    core = r.emit("reshape", x, shape=tuple(x.type.shape[a] for a in kept))
    return r.emit(n.op, core, axes=tuple(i for i, a in enumerate(kept) if a in axes))


def reduce_reduce(r: Rewriter, n: Node) -> Value | None:  # max of max: one max over both axes
    inner = r.by(n.inputs[0], n.op)
    if inner is None or not (n.op in EXACT or n.output.type.dtype.is_integer):
        return None
    kept = _others(inner.inputs[0].type.rank, inner.attrs["axes"])
    axes = (*inner.attrs["axes"], *(kept[a] for a in n.attrs["axes"]))
    return r.emit(n.op, inner.inputs[0], axes=tuple(sorted(axes)))


def reduce_broadcast(r: Rewriter, n: Node) -> Value | None:  # max of repeated elements
    inner = r.by(n.inputs[0], "broadcast")
    if inner is None:
        return None
    shape, places, axes = inner.output.type.shape, inner.attrs["axes"], n.attrs["axes"]
    repeated = tuple(a for a in axes if a not in places and is_at_least(shape[a], 1))
    if not repeated:
        return None
    kept = _others(len(shape), repeated)
    x = r.emit(
        "broadcast",
        inner.inputs[0],
        shape=tuple(shape[a] for a in kept),
        axes=tuple(kept.index(a) for a in places),
    )
    return r.emit(n.op, x, axes=tuple(i for i, a in enumerate(kept) if a in axes))


def reduce_full(r: Rewriter, n: Node) -> Value | None:  # max of one number
    inner, axes = r.by(n.inputs[0], "full"), n.attrs["axes"]
    if inner is None or not all(is_at_least(inner.output.type.shape[a], 1) for a in axes):
        return None
    return r.full(inner.attrs["value"], n.output.type)


def reduce_transpose(r: Rewriter, n: Node) -> Value | None:  # reduce first, transpose less
    inner = r.by(n.inputs[0], "transpose")
    if inner is None:
        return None
    x, order = inner.inputs[0], inner.attrs["axes"]
    axes = tuple(sorted(order[a] for a in n.attrs["axes"]))
    kept = _others(x.type.rank, axes)
    places = tuple(kept.index(order[a]) for a in _others(len(order), n.attrs["axes"]))
    return r.emit("transpose", r.emit(n.op, x, axes=axes), axes=places)


# ---- contractions


def contract_transposed_left(r: Rewriter, n: Node) -> Value | None:  # (a^T) b: other axes of a
    return _contract_transposed(r, n, 0)


def contract_transposed_right(r: Rewriter, n: Node) -> Value | None:  # a (b^T): other axes of b
    return _contract_transposed(r, n, 1)


def _contract_transposed(r: Rewriter, n: Node, side: int) -> Value | None:
    """Read the operand as it lay before its transpose, where the free axes stay in order."""
    inner = r.by(n.inputs[side], "transpose")
    if inner is None:
        return None
    name, order = "ab"[side], inner.attrs["axes"]
    batch, over = n.attrs[f"batch_{name}"], n.attrs[f"over_{name}"]
    free = [order[a] for a in _others(len(order), batch, over)]
    if free != sorted(free):
        return None
    moved = {
        f"batch_{name}": tuple(order[a] for a in batch),
        f"over_{name}": tuple(order[a] for a in over),
    }
    inputs = list(n.inputs)
    inputs[side] = inner.inputs[0]
    return r.emit("contract", *inputs, **{**n.attrs, **moved})


def transpose_contract(r: Rewriter, n: Node) -> Value | None:  # (a b)^T = b^T a^T
    inner = r.by(n.inputs[0], "contract")
    if inner is None:
        return None
    a, b = inner.inputs
    batch = len(inner.attrs["batch_a"])
    rows = a.type.rank - batch - len(inner.attrs["over_a"])
    rank = inner.output.type.rank
    swapped = (*range(batch), *range(batch + rows, rank), *range(batch, batch + rows))
    if n.attrs["axes"] != swapped:
        return None
    names = (("batch_a", "batch_b"), ("over_a", "over_b"))
    attrs = {k: inner.attrs[other] for x, z in names for k, other in ((x, z), (z, x))}
    return r.emit("contract", b, a, **attrs)


def contract_shared_right(
    r: Rewriter, n: Node
) -> Value | None:  # one b for a batch: more rows of a
    """The last batch axis becomes a free axis of a, where b is repeated along it."""
    inner = r.by(n.inputs[1], "broadcast")
    if inner is None or not n.attrs["batch_a"]:
        return None
    a, b = n.inputs[0], inner.inputs[0]
    *batch_a, last_a = n.attrs["batch_a"]
    *batch_b, last_b = n.attrs["batch_b"]
    free = _others(a.type.rank, n.attrs["batch_a"], n.attrs["over_a"])
    places = inner.attrs["axes"]
    if last_b in places or any(last_a > f for f in free):
        return None
    # b loses its axis last_b; the other repeated axes stay.
    shape = inner.output.type.shape
    kept = _others(len(shape), (last_b,))
    core = r.emit(
        "broadcast",
        b,
        shape=tuple(shape[i] for i in kept),
        axes=tuple(kept.index(i) for i in places),
    )
    return r.emit(
        "contract",
        a,
        core,
        batch_a=tuple(batch_a),
        batch_b=tuple(kept.index(i) for i in batch_b),
        over_a=n.attrs["over_a"],
        over_b=tuple(kept.index(i) for i in n.attrs["over_b"]),
    )


ORDERLESS = (reduce_nothing, reduce_units, reduce_reduce, reduce_transpose)
RULES: Rules = {
    **dict.fromkeys(("reduce_sum", "reduce_prod"), ORDERLESS),
    **dict.fromkeys(EXACT, (*ORDERLESS, reduce_broadcast, reduce_full)),
    "contract": (contract_shared_right, contract_transposed_left, contract_transposed_right),
    "transpose": (transpose_contract,),
}
