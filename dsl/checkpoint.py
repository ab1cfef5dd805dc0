"""Time for memory: functions whose way back computes them once more, `fx.checkpoint`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.ir.graph import Value
from fluxc.tensor import Operators, Tensor, as_tensor
from fluxc.trace import close, current, emit_all
from fluxc.tree import leaves, map_leaves, refill

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["checkpoint"]


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, of which a gradient keeps the arguments alone and computes the rest again when it is due.

        for block in blocks:
            x = fx.checkpoint(block)(x)   # memory for one block's inside at a time

    Values and derivatives are those of f; random numbers are the same both times.  Without a
    derivative it costs nothing.
    """

    @functools.wraps(f)
    def held(*args: Any, **kwargs: Any) -> Any:
        return _call(f, args, kwargs)

    return held


def _call(f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    trace = current("the result of a checkpoint")
    given = [as_tensor(x) if _is_tensor(x) else x for x in leaves((args, kwargs))]
    outer = [x.value for x in given if isinstance(x, Tensor)]
    params = [Value(v.type) for v in outer]
    fresh = iter(params)
    inner = [Tensor(next(fresh)) if isinstance(x, Tensor) else x for x in given]
    before = dict(trace.updates)
    tree: Any = None
    changed: dict[Any, Value] = {}

    def body() -> list[Value]:
        nonlocal tree, changed
        own, named = refill((args, kwargs), iter(inner))
        tree = map_leaves(as_tensor, f(*own, **named))
        changed = {k: v for k, v in trace.updates.items() if before.get(k) is not v}
        trace.updates = dict(before)  # new states are results like others
        return [*(t.value for t in leaves(tree)), *changed.values()]

    nodes, results = trace.region(body, "a function under fx.checkpoint")
    name = getattr(f, "__name__", "").strip("<>_") or "f"
    graph, captured = close(name, params, nodes, results)
    made = emit_all("checkpoint", *outer, *captured, body=graph)
    count = len(made) - len(changed)
    trace.updates.update(zip(changed, made[count:], strict=True))
    return refill(tree, iter([Tensor(v) for v in made[:count]]))


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Operators | np.ndarray)
