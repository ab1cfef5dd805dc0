"""Whole batches: every operation's rule against one example at a time."""

from itertools import product

import numpy as np
import pytest
from op_graphs import graph_of

from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.interp import evaluate
from fluxc.compiler.ir.types import TensorType, f32, f64, i64, u32
from fluxc.compiler.ir.verify import verify
from fluxc.compiler.ops import OPS, infer
from fluxc.compiler.ops.batching import batch_graph
from fluxc.compiler.ops.random import random_bits_reference

SIZE = 3


def run(graph, *arrays):
    return evaluate(graph, *arrays, ops=OPS)


def takes_arrays(op):
    return bool(op.sample(np.random.default_rng(0))[0])


WITH_INPUTS = [op for op in OPS.values() if takes_arrays(op)]


@pytest.mark.parametrize("op", WITH_INPUTS, ids=lambda op: op.name)
def test_every_operation_has_a_rule(op):
    assert op.elementwise or callable(op.batch)
    assert not (op.elementwise and op.batch), "the general rule is enough"


@pytest.mark.parametrize("op", WITH_INPUTS, ids=lambda op: op.name)
def test_a_batch_is_its_examples_one_by_one(op):
    """For every way to share operands between examples."""
    samples = [op.sample(np.random.default_rng(i))[0] for i in range(SIZE)]
    attrs = op.sample(np.random.default_rng(0))[1]
    graph = graph_of(op.name, samples[0], attrs)
    for flags in product([False, True], repeat=len(samples[0])):
        if not any(flags):
            continue
        many, carried = batch_graph(graph, SIZE, flags)
        verify(many, infer)
        assert all(carried)
        columns = list(zip(*samples, strict=True))
        given = [np.stack(c) if has else c[0] for c, has in zip(columns, flags, strict=True)]
        got = run(many, *given)
        for i in range(SIZE):
            one = [c[i] if has else c[0] for c, has in zip(columns, flags, strict=True)]
            for whole, alone in zip(got, run(graph, *one), strict=True):
                np.testing.assert_allclose(whole[i], alone, rtol=1e-13, atol=1e-13)


def test_what_no_example_changes_is_computed_once():
    b = Builder(infer)
    x, w = b.param(TensorType(f32, (4,)), "x"), b.param(TensorType(f32, (4,)), "w")
    shared = b.emit("exp", w)
    graph = b.graph("f", [b.emit("mul", x, shared), shared])
    many, carried = batch_graph(graph, dim("n"), (True, False), (False, False))
    assert carried == (True, False)
    assert [n.output.type.rank for n in many.nodes if n.op == "exp"] == [1]
    verify(many, infer)


def test_examples_draw_bits_of_their_own():
    """Shared seed: the bits of one tensor whose first axis is the batch, whatever is batched."""
    b = Builder(infer)
    x, seed, step = b.param(TensorType(f64)), b.param(TensorType(i64)), b.param(TensorType(i64))
    bits = b.emit("random_bits", seed, step, site=5, shape=(2, 3))
    many, carried = batch_graph(b.graph("f", [x, bits]), 4, (True, False, False))
    assert carried == (True, True)
    _, got = run(many, np.ones(4), 7, 3)
    want = random_bits_reference(np.array(7), np.array(3), site=5, shape=(4, 2, 3))
    np.testing.assert_array_equal(got, want)
    assert many.results[1].type == TensorType(u32, (4, 2, 3))


def test_products_need_no_transpose_where_an_order_of_operands_saves_it():
    """W @ x for a batch of x is one matrix product, x @ W.T."""
    b = Builder(infer)
    w, x = b.param(TensorType(f32, (5, 4))), b.param(TensorType(f32, (4,)))
    attrs = {"batch_a": (), "batch_b": (), "over_a": (1,), "over_b": (0,)}
    many, _ = batch_graph(b.graph("f", [b.emit("contract", w, x, **attrs)]), 8, (False, True))
    assert [n.op for n in many.nodes] == ["contract"]
    assert many.results[0].type.shape == (8, 5)
