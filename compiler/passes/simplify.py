"""Replaces operations by cheaper ones that compute the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.passes import algebra, indexing, movement, reductions
from fluxc.compiler.passes.rewrite import rewrite

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Graph
    from fluxc.compiler.passes.rewrite import Rules

__all__ = ["RULES", "simplify"]

TABLES: tuple[Rules, ...] = (algebra.RULES, movement.RULES, reductions.RULES, indexing.RULES)
RULES: Rules = {
    op: tuple(rule for table in TABLES for rule in table.get(op, ()))
    for op in sorted({op for table in TABLES for op in table})
}
"""All rules by the operation at their root, in the order in which they are tried."""


def simplify(g: Graph) -> Graph:
    """Apply the rules of algebra, movement, reductions and indexing."""
    return rewrite(g, RULES)
