"""Passes: pure functions from graph to graph, one a file, and the pipeline that runs them."""

from fluxc.compiler.passes.pipeline import ONCE, PASSES, REPEATED, optimize, run

__all__ = ["ONCE", "PASSES", "REPEATED", "optimize", "run"]
