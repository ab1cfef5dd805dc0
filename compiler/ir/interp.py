"""The reference interpreter: what a graph means, in NumPy, with every float in float64.

Constant folding calls the same references; compiled code is tested against this.  Numbers in
storage (f32, f16, bf16 as the upper half of an f32 in uint16) come in through `widen` and go out
through `round_to`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.dims import Dim, Opaque, Symbol, evaluate_size, size_symbols
from fluxc.compiler.ir.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Node, Value
    from fluxc.compiler.ir.types import DType, TensorType

__all__ = ["Function", "Meaning", "bind_sizes", "evaluate", "round_to", "widen"]


class Meaning(Protocol):
    """The column of an operation's record that the interpreter reads."""

    @property
    def reference(self) -> Callable[..., Any]: ...


def evaluate(
    g: Graph,
    *arrays: Any,
    ops: Mapping[str, Meaning],
    sizes: Mapping[str, int] | None = None,
) -> tuple[np.ndarray, ...]:
    """The results of `g` on `arrays`, one per parameter; floats come back in float64.

    Named sizes are read off the arguments' shapes; `sizes` gives those that no shape tells.
    A sub-graph among the attributes is handed to the reference as a function of arrays.

    Errors  ShapeError for a wrong number of arguments, a wrong shape, one symbol with two sizes.
    """
    if len(arrays) != len(g.params):
        raise ShapeError(
            f"@{g.name}: wrong number of arguments",
            expected=str(len(g.params)),
            got=str(len(arrays)),
        )
    args = [_argument(a, p.type.dtype) for a, p in zip(arrays, g.params, strict=True)]
    known = bind_sizes([p.type for p in g.params], [a.shape for a in args], sizes)
    env: dict[Value, np.ndarray] = dict(zip(g.params, args, strict=True))
    with np.errstate(all="ignore"):
        for node in g.nodes:
            env.update(zip(node.outputs, _run(node, env, ops, known), strict=True))
    return tuple(env[v] for v in g.results)


def _argument(array: Any, dtype: DType) -> np.ndarray:
    if dtype.is_float:
        return np.asarray(array, np.float64)
    return np.asarray(array).astype(dtype.numpy, copy=False)


def _run(
    node: Node,
    env: Mapping[Value, np.ndarray],
    ops: Mapping[str, Meaning],
    sizes: Mapping[str, int],
) -> list[np.ndarray]:
    attrs = {name: _concrete(attr, ops, sizes) for name, attr in node.attrs.items()}
    result = ops[node.op].reference(*(env[v] for v in node.inputs), **attrs)
    results = [np.asarray(r) for r in (result if isinstance(result, tuple) else (result,))]
    for got, v in zip(results, node.outputs, strict=True):
        shape = tuple(evaluate_size(s, sizes) for s in v.type.shape)
        assert got.shape == shape, f"{node.op}: reference gives {got.shape}, type says {shape}"
    return results


def _concrete(attr: Any, ops: Mapping[str, Meaning], sizes: Mapping[str, int]) -> Any:
    """An attribute with its sizes as integers and its sub-graphs as functions."""
    if isinstance(attr, Dim):
        return evaluate_size(attr, sizes)
    if isinstance(attr, tuple):
        return tuple(_concrete(item, ops, sizes) for item in attr)
    if isinstance(attr, Graph):
        return Function(attr, ops, sizes)
    return attr


@dataclass(frozen=True, slots=True)
class Function:
    """A sub-graph as references see it: a function of arrays."""

    graph: Graph
    ops: Mapping[str, Meaning]
    sizes: Mapping[str, int]

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        return evaluate(self.graph, *arrays, ops=self.ops, sizes=self.sizes)

    def empty(self, i: int) -> np.ndarray:
        """No results at all, stacked: an array of shape [0, ...]."""
        type = self.graph.results[i].type
        shape = (evaluate_size(s, self.sizes) for s in type.shape)
        return np.empty((0, *shape), np.float64 if type.dtype.is_float else type.dtype.numpy)


def bind_sizes(
    types: Sequence[TensorType],
    shapes: Sequence[tuple[int, ...]],
    sizes: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """The value of every named size, such that each type has its shape.

    Errors  ShapeError if there is none, if a value leaves its symbol's range, or if the shapes do
            not determine it.
    """
    known = dict(sizes or {})
    pairs: list[tuple[Size, int]] = []
    for position, (type, shape) in enumerate(zip(types, shapes, strict=True)):
        if len(shape) != type.rank:
            raise ShapeError(
                f"argument {position} has the wrong rank", expected=str(type), got=str(list(shape))
            )
        pairs += zip(type.shape, shape, strict=True)
    # Each round determines at least one more symbol, or no later round will.
    while any(_solve(size, actual, known) for size, actual in pairs):
        pass
    for size, actual in pairs:
        _check(size, actual, known)
    return known


def _solve(size: Size, actual: int, known: dict[str, int]) -> bool:
    """Find the one unknown symbol of a size in which it is linear."""
    unknown = [s for s in size_symbols(size) if s.name not in known]
    if len(unknown) != 1 or not isinstance(size, Dim):
        return False
    (symbol,) = unknown
    if any(_is_nonlinear(atoms, symbol) for atoms, _ in size.terms):
        return False
    at = [evaluate_size(size, known | {symbol.name: i}) for i in (0, 1)]
    slope = at[1] - at[0]
    if slope == 0 or (actual - at[0]) % slope:
        return False
    known[symbol.name] = (actual - at[0]) // slope
    return True


def _is_nonlinear(atoms: tuple[Symbol | Opaque, ...], symbol: Symbol) -> bool:
    inside = [a for a in atoms if isinstance(a, Opaque)]
    hidden = any(symbol in size_symbols(side) for a in inside for side in (a.left, a.right))
    return hidden or atoms.count(symbol) > 1


def _check(size: Size, actual: int, known: Mapping[str, int]) -> None:
    for s in sorted(size_symbols(size)):
        if s.name not in known:
            raise ShapeError(
                f"the arguments' shapes do not determine {s}", got=f"{size} = {actual}"
            )
        value = known[s.name]
        if not s.min <= value <= s.max or value % s.multiple_of:
            raise ShapeError(
                f"{s} is out of its range",
                expected=f"{s.min} <= {s} <= {s.max}, a multiple of {s.multiple_of}",
                got=str(value),
            )
    if evaluate_size(size, known) != actual:
        values = "".join(f", where {s} is {known[s.name]}" for s in sorted(size_symbols(size)))
        raise ShapeError(
            "an argument has the wrong size", expected=f"{size}{values}", got=str(actual)
        )


def round_to(array: Any, dtype: DType) -> np.ndarray:
    """Numbers in the storage format of `dtype`: rounded to nearest, ties to even."""
    with np.errstate(all="ignore"):
        if dtype.name == "bf16":
            return _round_to_bf16(np.asarray(array, np.float64))
        return np.asarray(array).astype(dtype.numpy)


def _round_to_bf16(x: np.ndarray) -> np.ndarray:
    # Rounded once, from float64: by way of f32 a tie could be made where there was none.
    bits = x.view(np.uint64) if x.ndim else x.reshape(1).view(np.uint64).reshape(())
    drop = np.uint64(52 - 7)
    half = (np.uint64(1) << (drop - np.uint64(1))) - np.uint64(1)
    rounded = (bits + half + ((bits >> drop) & np.uint64(1))) >> drop << drop
    normal = rounded.view(np.float64) if x.ndim else rounded.reshape(1).view(np.float64).reshape(())
    tiny = np.rint(x * 2.0**133) * 2.0**-133  # below 2**-126 the numbers are 2**-133 apart
    exact = np.where(np.isfinite(x), np.where(np.abs(x) < 2.0**-126, tiny, normal), x)
    upper = (np.asarray(exact, np.float32).reshape(-1).view(np.uint32) >> 16).astype(np.uint16)
    upper = np.where(np.isnan(x).reshape(-1), upper | 0x7FC0, upper)
    return upper.astype(np.uint16).reshape(x.shape)


def widen(array: Any, dtype: DType) -> np.ndarray:
    """The numbers that `dtype` stores: floats in float64, the rest as they are."""
    stored = np.asarray(array)
    if dtype.name == "bf16":
        stored = (stored.reshape(-1).astype(np.uint32) << 16).view(np.float32).reshape(stored.shape)
    with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
        return stored.astype(np.float64) if dtype.is_float else stored
