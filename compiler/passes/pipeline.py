"""The passes in their order, and what is checked and shown between them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from fluxc.compiler.ir.graph import map_subgraphs
from fluxc.compiler.ir.verify import verify
from fluxc.compiler.knobs import knob
from fluxc.compiler.ops import infer
from fluxc.compiler.passes.assign_layouts import assign_layouts
from fluxc.compiler.passes.delay_broadcasts import delay_broadcasts
from fluxc.compiler.passes.drop_dead_code import drop_dead_code
from fluxc.compiler.passes.fold_constants import fold_constants
from fluxc.compiler.passes.hoist import hoist
from fluxc.compiler.passes.inline_calls import inline_calls
from fluxc.compiler.passes.merge_control import merge_control
from fluxc.compiler.passes.share_subexpressions import share_subexpressions
from fluxc.compiler.passes.simplify import simplify
from fluxc.compiler.passes.simplify_control import simplify_control
from fluxc.compiler.passes.split_gaps import split_gaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fluxc.compiler.ir.graph import Graph

__all__ = ["ONCE", "PASSES", "REPEATED", "Pass", "Watch", "everywhere", "optimize", "run"]

Pass: TypeAlias = "Callable[[Graph], Graph]"  # noqa: S105, no password
Watch: TypeAlias = "Callable[[str, Graph], None]"

ONCE: tuple[Pass, ...] = (inline_calls, merge_control, drop_dead_code, split_gaps, assign_layouts)
REPEATED: tuple[Pass, ...] = (
    fold_constants,
    simplify,
    delay_broadcasts,
    share_subexpressions,
    simplify_control,
    hoist,
    drop_dead_code,
)
PASSES: dict[str, Pass] = {p.__name__: p for p in (*ONCE, *REPEATED)}
"""Every pass by its name, as dumps and tests call it."""
ROUNDS = 6  # a bound, not a tuning: two rounds settle almost every graph


def ignore(name: str, g: Graph) -> None:
    """The `watch` that looks away."""


def run(g: Graph, passes: Iterable[Pass], *, watch: Watch = ignore, check: bool = True) -> Graph:
    """Apply passes in order; a graph that one changed is verified and shown to `watch`.

    A pass is applied to sub-graphs too, whose parameters and results it keeps like all others'.
    """
    for p in passes:
        after = everywhere(p, g)
        if after is not g:
            g = verify(after, infer) if check else after
            watch(p.__name__, g)
    return g


def everywhere(p: Pass, g: Graph) -> Graph:
    """Apply a pass to a graph, then to the sub-graphs of what came of it."""
    g = p(g)
    nodes = tuple(map_subgraphs(n, lambda sub: everywhere(p, sub)) for n in g.nodes)
    if all(x is y for x, y in zip(nodes, g.nodes, strict=True)):
        return g
    return replace(g, nodes=nodes)


def optimize(graph: Graph, watch: Watch = ignore) -> Graph:
    """The graph after all passes, repeated until none changes it."""
    check = knob("FLUXC_VERIFY") != "0"
    g = verify(graph, infer) if check else graph
    g = run(g, ONCE, watch=watch, check=check)
    for _ in range(ROUNDS):
        before, g = g, run(g, REPEATED, watch=watch, check=check)
        if g is before:
            break
    return g
