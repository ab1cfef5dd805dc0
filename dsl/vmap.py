"""Functions of one example applied to a whole batch: `fx.vmap`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError, TraceError
from fluxc.compiler.ir.graph import Value
from fluxc.compiler.ops.batching import batch_nodes, with_axis
from fluxc.module import Module
from fluxc.tensor import Tensor, as_tensor
from fluxc.trace import Trace, current, fail, user_loc
from fluxc.tree import leaves, map_leaves, refill

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.dims import Size

__all__ = ["vmap"]


def vmap(f: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """f, written for one example, as a function of whole batches.

        fx.vmap(fx.grad(loss), in_axes=(None, 0, 0))(weights, x, y)   # a gradient per example

    in_axes   which axis of each argument counts the examples: an integer for all of them, or one
              entry for each positional argument: an integer, None for an argument that all
              examples share, or a tuple, list or dict of them for a container.
    out_axes  where the axis stands in each result; None for a result that is the same for all.

    Keyword arguments are batched along axis 0.  Modules, their parameters, and whatever f uses
    from outside are shared by all examples.  Random numbers are drawn for each example anew.  The
    batch is computed by the operations of one example with one more axis, not by a loop.

    Errors    ShapeError if mapped axes differ in size or do not exist; TraceError if nothing is
              mapped, or `in_axes` has another structure than the arguments.
    """

    @functools.wraps(f)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        trace = current("a batch")
        tree = [*args, kwargs]
        axes = _axes_of_arguments(in_axes, args) + [0] * len(leaves(kwargs))
        return _Batch(trace, tree, axes).run(f, out_axes)

    return mapped


def _axes_of_arguments(in_axes: Any, args: tuple[Any, ...]) -> list[int | None]:
    return _axes(list(in_axes) if isinstance(in_axes, tuple) else in_axes, list(args), "in_axes")


def _axes(axes: Any, tree: Any, name: str) -> list[int | None]:
    """The axis of each leaf of `tree`; one entry may stand for a whole branch."""
    if axes is None or (isinstance(axes, int) and not isinstance(axes, bool)):
        return [axes] * len(leaves(tree))
    if isinstance(axes, dict) and isinstance(tree, dict) and axes.keys() == tree.keys():
        return [a for key, part in tree.items() for a in _axes(axes[key], part, name)]
    both = isinstance(axes, tuple | list) and isinstance(tree, tuple | list)
    if both and len(axes) == len(tree):
        return [a for one, part in zip(axes, tree, strict=True) for a in _axes(one, part, name)]
    raise TraceError(
        f"vmap: {name} does not fit",
        loc=user_loc(),
        expected=f"an integer, None, or one of them for each part of {_outline(tree)}",
        got=repr(axes)[:80],
    )


def _outline(tree: Any) -> str:
    """A nesting with a dot for each leaf."""
    if isinstance(tree, tuple | list):
        inside = ", ".join(map(_outline, tree))
        return f"[{inside}]" if isinstance(tree, list) else f"({inside})"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {_outline(part)}" for key, part in tree.items()) + "}"
    return "."


class _Batch:
    """One application of a function to a batch."""

    def __init__(self, trace: Trace, tree: list[Any], axes: list[int | None]) -> None:
        self.trace = trace
        self.env: dict[Value, Value] = {}
        self.batched: set[Value] = set()
        self.size: Size | None = None
        self.arguments = refill(tree, iter(list(map(self._one, leaves(tree), axes))))
        if self.size is None:
            fail(TraceError, "vmap: no argument is mapped", hint="in_axes=0 for one of them")

    def _one(self, x: Any, axis: int | None) -> Any:
        """What stands for an argument of one example."""
        if axis is None or isinstance(x, Module):
            return x
        t = as_tensor(x)
        if not -t.ndim <= axis < t.ndim:
            fail(ShapeError, f"vmap: in_axes has axis {axis} of an argument", got=str(t.type))
        place = axis % t.ndim
        size = t.shape[place]
        if self.size is not None and size != self.size:
            fail(
                ShapeError,
                "vmap: the mapped axes differ in size",
                expected=str(self.size),
                got=f"{size}, axis {axis} of {t.type}",
            )
        self.size = size
        first = self._moved(t.value, place, 0)
        one = Value(t.type.with_shape(*first.type.shape[1:]))
        self.env[one] = first
        self.batched.add(one)
        return Tensor(one)

    def _moved(self, x: Value, source: int, target: int) -> Value:
        """`x` with one of its axes at another place."""
        if source == target:
            return x
        order = [a for a in range(x.type.rank) if a != source]
        order.insert(target, source)
        with self.trace.builder.at(user_loc()):
            return self.trace.builder.emit("transpose", x, axes=tuple(order))

    def run(self, f: Callable[..., Any], out_axes: Any) -> Any:
        tree: Any = None

        def one() -> list[Value]:
            nonlocal tree
            *args, kwargs = self.arguments
            tree = map_leaves(as_tensor, f(*args, **kwargs))
            return [t.value for t in leaves(tree)]

        nodes, results = self.trace.region(one, "a function under fx.vmap")
        assert self.size is not None
        batch_nodes(self.trace.builder, self.size, nodes, self.env, self.batched)
        pairs = zip(results, _axes(out_axes, tree, "out_axes"), strict=True)
        return refill(tree, iter([Tensor(self._result(v, axis)) for v, axis in pairs]))

    def _result(self, value: Value, axis: int | None) -> Value:
        made = self.env.get(value, value)
        if axis is None:
            if value in self.batched:
                fail(
                    ShapeError,
                    "vmap: out_axes is None for a result that differs between examples",
                    got=str(value.type),
                )
            return made
        rank = value.type.rank + 1
        if not -rank <= axis < rank:
            fail(ShapeError, f"vmap: out_axes has axis {axis} of a result", got=str(value.type))
        if value not in self.batched:
            assert self.size is not None
            with self.trace.builder.at(user_loc()):
                made = with_axis(self.trace.builder, self.size, made)
        return self._moved(made, 0, axis % rank)
