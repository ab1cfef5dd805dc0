"""The expression of a value at an index, inlined down to what lies in memory.

16-bit floats are storage formats: they are cast to f32 where they are loaded and back where they
are stored; between, every operation computes in f32.  A cast to 16 bits rounds wherever it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fluxc.compiler.errors import Unsupported
from fluxc.compiler.ir.types import f32, i64
from fluxc.compiler.kernels.kernel import Apply, Const, Expr
from fluxc.compiler.ops import OPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fluxc.compiler.ir.graph import Node, Value
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.kernels.kernel import Expressions

__all__ = [
    "COMBINING",
    "Inliner",
    "Leaf",
    "Place",
    "computing",
    "is_pointwise_scatter",
    "pad_to_zero",
]

Place: TypeAlias = tuple[Expr, ...]
Leaf: TypeAlias = Callable[["Value", Place, Expr | None], Expr | None]


def computing(dtype: DType) -> DType:
    """The dtype in which values of `dtype` are computed."""
    return f32 if dtype.is_float and dtype.bits == 16 else dtype


def pad_to_zero(k: Expressions, guard: Expr | None, e: Expr) -> Expr:
    """`e` where `guard` holds, else 0."""
    if guard is None:
        return e
    zero = k.const(False if e.dtype.kind == "b" else 0.0 if e.dtype.is_float else 0, e.dtype)
    return k.select(guard, e, zero)


def is_pointwise_scatter(node: Node) -> bool:
    """Whether a scatter has one update for each element of its batch: then no two can meet."""
    return bool(node.inputs[1].type.rank - 1 == node.attrs["batch"])


# What scatter and cumulative do, as elementwise operations; "set" is none.
COMBINING = {
    "set": "set", "add": "add", "sum": "add", "mul": "mul", "prod": "mul", "max": "maximum",
    "min": "minimum",
}  # fmt: skip


_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}


class Inliner:
    """leaf(value, index, guard) gives the expression of what is not inlined, or None: inline it."""

    def __init__(self, k: Expressions, producers: Mapping[Value, Node], leaf: Leaf) -> None:
        self.k, self.producers, self.leaf = k, producers, leaf
        self.memo: dict[tuple[Value, Place, Expr | None], Expr] = {}

    def at(self, value: Value, index: Place, guard: Expr | None = None) -> Expr:
        """`value[index]` in the dtype that it is computed in; 0 where `guard` is false."""
        key = (value, index, guard)
        e = self.memo.get(key)
        if e is None:
            e = self.leaf(value, index, guard)
            if e is None:
                e = pad_to_zero(self.k, guard, self.expand(value, index, guard))
            self.memo[key] = e
        return e

    def expand(self, value: Value, index: Place, guard: Expr | None = None) -> Expr:
        """The definition of `value` at `index`; anything where `guard` is false."""
        node = self.producers[value]
        op = OPS[node.op]
        if node.op == "constant":
            return self._number(node)
        if node.op == "scatter":
            return self._scatter(node, index, guard)
        if op.scalar is not None:
            return self._scalar(node, index, guard)
        if op.lower is None:
            raise Unsupported(f"{node.op} cannot be computed element by element", loc=node.loc)

        def read(x: Value) -> Callable[..., Expr]:
            return lambda at, inside=None: self.at(x, tuple(at), self.k.both(guard, inside))

        types = (*(x.type for x in node.inputs), *(y.type for y in node.outputs))
        e: Expr = op.lower(self.k, index, types, *map(read, node.inputs), **node.attrs)
        return self.k.cast(e, computing(value.type.dtype))

    def _scalar(self, node: Node, index: Place, guard: Expr | None) -> Expr:
        k, dtype = self.k, node.output.type.dtype
        args = [self.at(x, index, guard) for x in node.inputs]
        if node.op in {"identity", "stop_gradient"}:
            return args[0]
        if node.op == "cast":
            e = k.cast(args[0], computing(dtype))
            return e if computing(dtype) == dtype else self._rounded(e, dtype)
        if node.op == "bitcast":
            bits = k.apply("bitcast", k.cast(args[0], node.inputs[0].type.dtype), dtype=dtype)
            return k.cast(bits, computing(dtype))
        if node.op in _COMPARISONS:
            args = [self._rounded(e, x.type.dtype) for e, x in zip(args, node.inputs, strict=True)]
        return k.apply(node.op, *args, **node.attrs)

    def _rounded(self, e: Expr, dtype: DType) -> Expr:
        """What is read back after `e` was stored: a value is equal to its copy in memory."""
        same = isinstance(e, Apply) and e.op == "cast" and e.args[0].dtype == dtype
        return e if same else self.k.cast(self.k.cast(e, dtype), computing(dtype))

    def _number(self, node: Node) -> Expr:
        dtype = node.output.type.dtype
        (value,) = np.asarray(OPS["constant"].reference(**node.attrs)).reshape(-1)
        return self.k.const(value.item(), computing(dtype))

    def _scatter(self, node: Node, index: Place, guard: Expr | None) -> Expr:
        """x, with the one update of this batch element where its indices point here."""
        k, (x, indices, updates), batch = self.k, node.inputs, node.attrs["batch"]
        depth = indices.type.shape[-1]
        assert isinstance(depth, int)
        here, rest = index[:batch], index[batch + depth :]
        hit: Expr | None = None
        for j, position in enumerate(index[batch : batch + depth]):
            chosen = k.cast(self.at(indices, (*here, k.size(j)), guard), i64)
            hit = k.both(hit, k.eq(position, chosen))
        base = self.at(x, index, guard)
        update = self.at(updates, (*here, *rest), guard)
        fold = COMBINING[node.attrs["reduce"]]
        if fold == "add":
            added = pad_to_zero(k, hit, update)
            empty = isinstance(base, Const) and base.value == 0
            return added if empty else k.apply("add", base, added)
        new = update if fold == "set" else k.apply(fold, base, update)
        return new if hit is None else k.select(hit, new, base)
