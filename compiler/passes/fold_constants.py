"""Computes at compile time what depends on constants alone, with the operations' own references.

Each result is rounded as compiled code rounds it: to its dtype, and numbers of 16 bits, which
registers hold in f32, to f32.  Nothing folds to more than
`LARGEST` elements, nor to more than four times what it is made of, so folding never bloats a graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.ir.dims import Dim
from fluxc.compiler.ir.interp import round_to, widen
from fluxc.compiler.ir.types import f32
from fluxc.compiler.ops import OPS
from fluxc.compiler.ops.control import CONTROL
from fluxc.compiler.passes.rewrite import rewrite

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Graph, Node, Value
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.passes.rewrite import Rewriter, Rules

__all__ = ["fold_constants"]

LARGEST, GROWTH, MOST_READ = 4096, 4, 1 << 16
HOLD_GRAPHS = CONTROL | {"checkpoint", "custom_vjp"}
LEFT = frozenset({"full", "constant", "iota", "random_bits"})
"""Already constant, or cheaper to compute than to store."""


def fold_constants(g: Graph) -> Graph:
    """Replace operations on constants by their results."""
    return rewrite(g, RULES)


def elementwise_of_numbers(r: Rewriter, n: Node) -> Value | None:
    """f(full a, full b) = full f(a, b), whatever the shape."""
    numbers = [r.number(v) for v in n.inputs]
    if not numbers or any(c is None for c in numbers):
        return None
    arrays = [_array(c, v.type.dtype) for c, v in zip(numbers, n.inputs, strict=True)]
    result = np.asarray(OPS[n.op].reference(*arrays, **n.attrs))
    return r.full(_in_register(result, n.output.type.dtype).item(), n.output.type)


def _array(number: Any, dtype: DType) -> np.ndarray:
    """The number as compiled code holds it."""
    return _in_register(np.asarray(number, np.float64 if dtype.is_float else dtype.numpy), dtype)


def _in_register(array: np.ndarray, dtype: DType) -> np.ndarray:
    held = f32 if dtype.is_float and dtype.bits == 16 else dtype
    return widen(round_to(array, held), held)


def stored_or_number(r: Rewriter, n: Node) -> Value | None:
    """f(constants) = constant, where the result is small."""
    sources = [r.by(v, "constant", "full") for v in n.inputs]
    if not any(s is not None and s.op == "constant" for s in sources) or not _is_small(n):
        return None
    arrays = [_value(s) for s in sources]
    known = [a for a in arrays if a is not None]
    if len(known) < len(arrays):
        return None
    with np.errstate(all="ignore"):
        result = np.asarray(OPS[n.op].reference(*known, **n.attrs))
    return _emit(r, result, n.output)


def _is_small(n: Node) -> bool:
    count = n.output.type.size
    sizes = [v.type.size for v in n.inputs]
    whole = [s for s in sizes if isinstance(s, int)]
    if not isinstance(count, int) or len(whole) < len(sizes) or _has_sizes(n):
        return False
    read = sum(whole)
    return count <= LARGEST and count <= GROWTH * read and read <= MOST_READ


def _has_sizes(n: Node) -> bool:
    attrs = (a if isinstance(a, tuple) else (a,) for a in n.attrs.values())
    return any(isinstance(item, Dim) for attr in attrs for item in attr)


def _value(source: Node | None) -> np.ndarray | None:
    """The numbers of a constant, or of one number of static shape."""
    if source is None or isinstance(source.attrs.get("value"), Dim):
        return None
    dtype = source.output.type.dtype
    if source.op == "full":
        return np.broadcast_to(_array(source.attrs["value"], dtype), source.attrs["shape"])
    return np.asarray(OPS["constant"].reference(**source.attrs))


def _emit(r: Rewriter, result: np.ndarray, like: Value) -> Value:
    dtype = like.type.dtype
    stored = np.ascontiguousarray(round_to(result, dtype))
    data = stored.astype(stored.dtype.newbyteorder("<"), copy=False).tobytes()
    return r.emit("constant", data=data, dtype=dtype, shape=like.type.shape)


def uniform(r: Rewriter, n: Node) -> Value | None:
    """constant(c, c, ..., c) = full(c); NaN has many patterns and stays."""
    data, dtype = n.attrs["data"], n.attrs["dtype"]
    first = data[: dtype.itemsize]
    if not data or data != first * (len(data) // dtype.itemsize):
        return None
    value = OPS["constant"].reference(data=first, dtype=dtype, shape=(1,))[0].item()
    return None if value != value else r.full(value, n.output.type)  # noqa: PLR0124


RULES: Rules = {
    "constant": (uniform,),
    **{
        name: (elementwise_of_numbers, stored_or_number) if op.elementwise else (stored_or_number,)
        for name, op in OPS.items()
        if name not in LEFT | HOLD_GRAPHS
    },
}
