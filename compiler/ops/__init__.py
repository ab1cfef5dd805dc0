"""The operations of the graph IR: one record each, in files by family."""

from fluxc.compiler.ops import (
    calls,
    contract,
    create,
    elementwise,
    index,
    layout,
    random,
    reduce,
)
from fluxc.compiler.ops.op import OPS, NoGradient, Op, ZeroGradient, infer

__all__ = ["OPS", "NoGradient", "Op", "ZeroGradient", "infer"]

FAMILIES = (elementwise, reduce, layout, contract, index, create, random, calls)
