"""The operations of the graph IR: one record each, in files by family."""

from fluxc.compiler.ops import (
    calls,
    contract,
    control,
    convolution,
    create,
    cumulative,
    dynamic,
    elementwise,
    index,
    layout,
    random,
    reduce,
    scatter,
    search,
    window,
)
from fluxc.compiler.ops.op import OPS, GraphRule, NoGradient, Op, ZeroGradient, infer

__all__ = ["OPS", "GraphRule", "NoGradient", "Op", "ZeroGradient", "infer"]

FAMILIES = (
    elementwise,
    reduce,
    window,
    cumulative,
    search,
    layout,
    contract,
    convolution,
    index,
    scatter,
    dynamic,
    create,
    random,
    calls,
    control,
)
