"""Which values of an entry's inputs are indices, so that the runtime can check them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Graph, Node, Value

__all__ = ["index_ranges"]

_THROUGH = {"cast", "reshape", "broadcast", "transpose", "slice", "identity", "reverse"}


def index_ranges(graph: Graph, inputs: int) -> tuple[tuple[int, int] | None, ...]:
    """(low, high) for each of the first `inputs` parameters that is used as indices; else None.

    Followed through operations that hand on the values themselves; limits must be numbers.
    """
    producers = {v: node for node in graph.nodes for v in node.outputs}
    found: dict[Value, tuple[int, int]] = {}
    for node in graph.nodes:
        if node.op in {"gather", "scatter"}:
            _note(node, producers, found)
    return tuple(found.get(p) for p in graph.params[:inputs])


def _note(node: Node, producers: dict[Value, Node], found: dict[Value, tuple[int, int]]) -> None:
    x, indices = node.inputs[:2]
    batch, depth = node.attrs["batch"], indices.type.shape[-1]
    assert isinstance(depth, int)
    limits = x.type.shape[batch : batch + depth]
    for source, size in _sources(indices, limits, producers):
        if isinstance(size, int) and source.type.dtype.is_integer:
            low, high = found.get(source, (0, size))
            found[source] = (low, min(high, size))


def _sources(
    indices: Value, limits: tuple[object, ...], producers: dict[Value, Node]
) -> list[tuple[Value, object]]:
    """The parameters that the indices come from, with the limit of their component."""
    maker = producers.get(indices)
    if maker is not None and maker.op == "concatenate" and len(limits) > 1:
        if maker.attrs["axis"] != indices.type.rank - 1:
            return []
        found: list[tuple[Value, object]] = []
        start = 0
        for part in maker.inputs:
            width = part.type.shape[-1]
            if not isinstance(width, int):
                return found
            found += _sources(part, limits[start : start + width], producers)
            start += width
        return found
    if any(size != limits[0] for size in limits):
        return []
    value = indices
    while (maker := producers.get(value)) is not None:
        if maker.op not in _THROUGH:
            return []
        (value,) = maker.inputs
    return [(value, limits[0])] if limits else []
