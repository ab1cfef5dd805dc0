"""Gradients of random graphs beside differences of their values, in float64."""

import numpy as np
import pytest
from random_graphs import random_arguments, random_graph

from fluxc.compiler.autodiff import vjp
from fluxc.compiler.ir.interp import evaluate, widen
from fluxc.compiler.ops import OPS

STEP = 1e-6
# Jumps, kinks and ties that values may come near, and what is constant to a gradient alone.
JUMPS = {
    "floor", "ceil", "round", "trunc", "sign", "floor_div", "mod", "fmod", "cast", "eq", "ne",
    "lt", "le", "gt", "ge", "maximum", "minimum", "reduce_max", "reduce_min", "abs", "copysign",
    "stop_gradient", "window_max", "window_argmax", "argmax", "argmin", "argsort", "cumulative",
    "scatter",
}  # fmt: skip


@pytest.mark.parametrize("batch", range(4))
def test_gradients_are_differences_of_values(batch):
    compared = 0
    for seed in range(11000 + 60 * batch, 11060 + 60 * batch):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng, int(rng.integers(4, 12)), differentiable=True)
        if JUMPS.isdisjoint(n.op for n in graph.nodes):
            compared += check(graph, rng)
    assert compared > 5, "the generator makes too few smooth graphs"


def check(graph, rng):
    """One random direction; whether there was anything to compare."""
    at = [
        widen(a, p.type.dtype)
        for a, p in zip(random_arguments(rng, graph), graph.params, strict=True)
    ]
    floats = [i for i, p in enumerate(graph.params) if p.type.dtype.is_float]
    values = evaluate(graph, *at, ops=OPS)
    weights = [rng.normal(size=v.shape) for v in values if v.dtype.kind == "f"]
    way = {i: rng.normal(size=at[i].shape) for i in floats}

    def loss(step):
        moved = [a + step * way[i] if i in way else a for i, a in enumerate(at)]
        out = [v for v in evaluate(graph, *moved, ops=OPS) if v.dtype.kind == "f"]
        return sum(float(np.sum(v * w)) for v, w in zip(out, weights, strict=True))

    slope = (loss(STEP) - loss(-STEP)) / (2 * STEP)
    gradients = evaluate(vjp(graph), *at, *weights, ops=OPS)[len(values) :]
    along = [float(np.sum(g * way[i])) for i, g in zip(floats, gradients, strict=True)]
    size = max(1.0, sum(map(abs, along)), abs(loss(0)))
    assert abs(sum(along) - slope) < 1e-5 * size, f"{sum(along)} is not {slope}\n{graph}"
    return any(along)
