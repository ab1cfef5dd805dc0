"""Compiling grows with the graph and no faster, and what is equal is compiled once."""

import sys

import numpy as np

import fluxc as fx
from fluxc import losses, nn, optim
from fluxc.compiler.backends.llvm.loops import KERNEL_TYPE
from fluxc.compiler.backends.llvm.program import emit_module
from fluxc.compiler.backends.llvm.target import native_target
from fluxc.compiler.driver import lower
from fluxc.compiler.kernels.order import Order
from fluxc.compiler.kernels.program import all_launches
from fluxc.export import ExportedFunction, trace_exports

# ruff: noqa: F821 (names of sizes)


def mlp(layers):
    model = nn.Chain(*[nn.Dense(8, 8, fx.relu) for _ in range(layers)])

    def predict(x: fx.f32["batch", 8]):
        return model(x)

    def step(x: fx.f32["batch", 8], y: fx.f32["batch", 8]):
        return losses.mse(model(x), y)

    entries = [
        ExportedFunction(predict, name="predict"),
        ExportedFunction(step, name="step", optimizer=optim.Adam(1e-3)),
    ]
    return trace_exports(entries, {"model": model})


def chain(length):
    """Operations that do not become one kernel, and no two of which are equal."""
    model = nn.Dense(8, 8)

    def step(x: fx.f32[8, 8]):
        x = model(x)
        for i in range(length):
            match i % 6:
                case 0:
                    x = fx.tanh(x * (1 + i / 1000))
                case 2:
                    x = x.cumsum(axis=1)
                case 3:
                    x = x - x.mean(axis=1, keepdims=True)
                case 4:
                    x = x[:, ::-1] + i / 1000
                case _:
                    x = fx.maximum(x.T, -1.0 - i)
        return x.mean()

    entry = ExportedFunction(step, name="step", optimizer=optim.Descent(0.1))
    return trace_exports([entry], {"model": model})


def emitted(spec):
    programs = lower(spec, native_target())
    module = emit_module("m", spec, programs, native_target(), "0")
    kernels = [f for f in module.functions if f.ftype == KERNEL_TYPE and f.blocks]
    return len(kernels), sum(1 for p in programs for _ in all_launches(p.run))


def calls(work):
    """How many Python functions `work` calls: a time that no machine changes."""
    count = 0

    def see(_frame, event, _argument):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_equal_layers_share_their_kernels():
    kernels, launches = emitted(mlp(12))
    more_kernels, more_launches = emitted(mlp(24))

    assert more_kernels == kernels < 15
    assert more_launches - launches == 12 * 6  # a product forward, two backward; an update of each


def test_twice_the_layers_are_twice_the_work():
    short, long = (calls(lambda n=n: emitted(mlp(n))) for n in (10, 20))

    assert 1 < long / short < 2.1


def test_twice_the_operations_are_twice_the_work():
    short, long = (calls(lambda n=n: emitted(chain(n))) for n in (80, 160))

    assert 1.5 < long / short < 2.1


def test_the_order_of_groups_is_that_of_a_plain_search():
    rng = np.random.default_rng(0)
    for _ in range(60):
        order, edges, groups = Order(), {}, []
        for _ in range(12):
            groups.append(order.new())
            edges[groups[-1]] = set()
            for _ in range(3):
                a, b = (int(g) for g in rng.choice(groups, 2))
                if a == b:
                    continue
                assert order.depends(a, b) == (b in reached(edges, a))
                if order.can_depend(a, [b]):
                    order.depend(a, b)
                    edges[a].add(b)
            if len(groups) > 1:
                a, b = (int(g) for g in rng.choice(groups, 2, replace=False))
                between = any(a in reached(edges, x) for x in reached(edges, b) - {a})
                between |= any(b in reached(edges, x) for x in reached(edges, a) - {b})
                assert order.can_merge(a, b) == (not between)
                if not between:
                    order.merge(a, b)
                    groups.remove(b)
                    edges[a] = (edges[a] | edges.pop(b)) - {a, b}
                    edges = {x: {a if y == b else y for y in ys} for x, ys in edges.items()}


def reached(edges, a):
    found, waiting = set(), [a]
    while waiting:
        new = edges[waiting.pop()] - found
        found |= new
        waiting += new
    return found
