"""Updates in place that visit what they change, and leave the rest of the memory alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fluxc.compiler.kernels.kernel import Apply, Axis, Const, Extent, Index, Load, Nest, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.kernel import Buffer, Expr, Expressions, Kernel, Store

__all__ = ["narrowed"]


def narrowed(kernel: Kernel, old: Buffer, k: Expressions) -> Kernel:
    """A kernel that stores new values over `old`, without the points that keep theirs.

    `old[i] = select(0 <= i - s and i - s < n, x, old[i])` for i < many is `old[s + j] = x` for
    j < n.  A kernel that does anything else is returned as it is.
    """
    if not isinstance(kernel, Nest) or len(kernel.passes) != 1:
        return kernel
    (only,) = kernel.passes
    if only.axes or only.reductions or only.carries or len(only.stores) != 1:
        return kernel
    (store,) = only.stores
    rows = list(kernel.rows)
    for i, axis in enumerate(rows):
        span = _span(store, axis, old, k)
        if span is not None:
            first, count = span
            rows[i] = Axis(axis.name, count)
            moved = {axis: k.add(first, k.index(rows[i]))}
            value, *index = k.substitute((store.value, *store.index), moved)
            store = replace(store, value=value, index=tuple(index))
    loads = [e for e in walk(store.value, *store.index) if isinstance(e, Load)]
    if any(e.buffer is old for e in loads):
        return kernel
    buffers = dict.fromkeys([*(e.buffer for e in loads), store.buffer])
    return replace(
        kernel, buffers=tuple(buffers), rows=tuple(rows), passes=(replace(only, stores=(store,)),)
    )


def _span(store: Store, axis: Axis, old: Buffer, k: Expressions) -> tuple[Expr, Size] | None:
    """Where along `axis` a store changes `old`: the first place, and how many."""
    choice = _operands(store.value, "select")
    if store.guard is not None or store.accumulate or not choice:
        return None
    condition, _, kept = choice
    if not isinstance(kept, Load) or kept.buffer is not old or kept.index != store.index:
        return None
    tests = list(_conjuncts(condition))
    lows = [t[0] for t in (_operands(e, "ge") for e in tests) if t and t[1] is k.size(0)]
    highs = {t[0]: t[1] for t in (_operands(e, "lt") for e in tests) if t}
    for place in lows:
        first, count = k.sub(k.index(axis), place), _size(highs.get(place))
        moves = any(isinstance(e, Index) and e.axis is axis for e in walk(first))
        if count is not None and not moves:
            return first, count
    return None


def _operands(e: Expr, op: str) -> tuple[Expr, ...]:
    """Those of one operation; none of others."""
    return e.args if isinstance(e, Apply) and e.op == op else ()


def _conjuncts(e: Expr) -> Iterator[Expr]:
    if isinstance(e, Apply) and e.op == "and":
        for part in e.args:
            yield from _conjuncts(part)
    else:
        yield e


def _size(e: Expr | None) -> Size | None:
    if isinstance(e, Extent):
        return e.size
    return e.value if isinstance(e, Const) and isinstance(e.value, int) else None
