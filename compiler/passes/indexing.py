"""Rules of gather and scatter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.ir.types import i64

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Node, Value
    from fluxc.compiler.passes.rewrite import Rewriter, Rules

__all__ = ["RULES"]


def scatter_one(r: Rewriter, n: Node) -> Value | None:  # one update a row: select(here, c + u, c)
    """One-hot rows: where x is a number, all of y is written anyway, and selection fuses."""
    x, indices, updates = n.inputs
    batch, shape = n.attrs["batch"], x.type.shape
    if n.attrs["reduce"] not in ("add", "set"):
        return None
    if r.by(x, "full") is None or indices.type.rank != batch + 1 or indices.type.shape[-1] != 1:
        return None
    rows, columns = tuple(range(batch)), (*range(batch), *range(batch + 1, len(shape)))
    at = _narrow(r, indices, shape[batch])
    at = r.emit("reshape", at, shape=at.type.shape[:-1])
    here = r.emit(
        "eq",
        r.emit("iota", dtype=at.type.dtype, shape=shape, axis=batch),
        r.emit("broadcast", at, shape=shape, axes=rows),
    )
    spread = r.emit("broadcast", updates, shape=shape, axes=columns)
    new = r.emit("add", spread, x) if n.attrs["reduce"] == "add" else spread
    return r.emit("select", here, new, x)


def _narrow(r: Rewriter, at: Value, size: object) -> Value:
    """The index in a dtype that counts up to `size`: what it was cast from, if that does."""
    inner = r.by(at, "cast")
    if inner is not None and at.type.dtype == i64 and isinstance(size, int):
        source = inner.inputs[0]
        dtype = source.type.dtype
        if dtype.kind == "i" and size < 1 << (dtype.bits - 1):
            return source
    return at if at.type.dtype.bits >= 32 else r.emit("cast", at, dtype=i64)


RULES: Rules = {"scatter": (scatter_one,)}
