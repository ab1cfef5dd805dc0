"""Drops what nobody reads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Graph

__all__ = ["drop_dead_code"]


def drop_dead_code(g: Graph) -> Graph:
    """Drop nodes none of whose values is used."""
    live, kept = set(g.results), []
    for node in reversed(g.nodes):
        if not live.isdisjoint(node.outputs):
            kept.append(node)
            live.update(node.inputs)
    return g if len(kept) == len(g.nodes) else replace(g, nodes=tuple(reversed(kept)))
