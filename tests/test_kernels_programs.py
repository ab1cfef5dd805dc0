"""Whole programs, run by the loop IR's evaluator, against the graph interpreter."""

import numpy as np
import pytest
from kernels_oracle import check, planned
from random_graphs import random_arguments, random_graph

from fluxc.compiler.autodiff import vjp
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import dim, evaluate_size, product
from fluxc.compiler.ir.interp import round_to
from fluxc.compiler.ir.types import TensorType, bf16, bool_, f16, f32, f64, i32, i64, u8
from fluxc.compiler.kernels.kernel import Contract, Nest
from fluxc.compiler.ops import infer
from fluxc.compiler.passes.inline_calls import inline_calls
from fluxc.compiler.passes.pipeline import everywhere, optimize

n = dim("n")


class G:
    """A builder with short words for the tests' models."""

    def __init__(self):
        self.b = Builder(infer)

    def param(self, dtype, *shape, name=""):
        return self.b.param(TensorType(dtype, shape), name)

    def full(self, like, value):
        return self.b.emit("full", value=value, dtype=like.type.dtype, shape=like.type.shape)

    def __getattr__(self, op):
        return lambda *xs, **attrs: self.b.emit(op, *xs, **attrs)

    def full_scalar(self, value, dtype):
        return self.b.emit("full", value=value, dtype=dtype, shape=())

    def matmul(self, a, b):
        return self.contract(a, b, batch_a=(), batch_b=(), over_a=(a.type.rank - 1,), over_b=(0,))

    def spread(self, x, like, axis):
        kept = tuple(i for i in range(like.type.rank) if i != axis)
        return self.broadcast(x, shape=like.type.shape, axes=kept)

    def along(self, x, like, axes):
        return self.broadcast(x, shape=like.type.shape, axes=axes)

    def times(self, x, number):
        return self.mul(x, self.full(x, number))

    def relu(self, x):
        return self.maximum(x, self.full(x, 0.0))

    def softmax(self, x, axis):
        e = self.exp(self.sub(x, self.spread(self.reduce_max(x, axes=(axis,)), x, axis)))
        return self.div(e, self.spread(self.reduce_sum(e, axes=(axis,)), x, axis))

    def mean(self, x, axes):
        total = self.reduce_sum(x, axes=axes)
        count = 1
        for a in axes:
            count = count * x.type.shape[a]
        return self.div(
            total,
            self.full(total, count)
            if not isinstance(count, int)
            else self.full(total, float(count)),
        )

    def done(self, *results):
        return self.b.graph("f", results)


def arrays(graph, seed=0, **sizes):
    rng = np.random.default_rng(seed)
    made = []
    for p in graph.params:
        shape = tuple(evaluate_size(s, sizes) for s in p.type.shape)
        dtype = p.type.dtype
        if dtype.is_float:
            made.append(round_to(rng.uniform(-1, 1, shape), dtype))
        elif dtype == bool_:
            made.append(rng.random(shape) < 0.5)
        else:
            made.append(rng.integers(0, 4, shape).astype(dtype.numpy))
    return made


def kinds(program):
    return [type(x.scheduled.kernel) for x in program.run]


def kernels(program):
    return [x.scheduled.kernel for x in program.run]


def test_softmax_is_one_nest():
    g = G()
    graph = g.done(g.softmax(g.param(f32, n, 17), 1))
    for batch in (0, 1, 5):
        program = check(graph, arrays(graph, n=batch))
    assert kinds(program) == [Nest]
    assert program.arena == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_over_any_axis_is_one_nest(axis):
    g = G()
    graph = g.done(g.softmax(g.param(f32, 3, 5, 7), axis))
    assert kinds(check(graph, arrays(graph))) == [Nest]


def test_layer_norm_is_one_nest():
    g = G()
    x, scale, shift = g.param(f32, n, 24), g.param(f32, 24), g.param(f32, 24)
    centred = g.sub(x, g.spread(g.mean(x, (1,)), x, 1))
    variance = g.mean(g.mul(centred, centred), (1,))
    inverse = g.rsqrt(g.add(variance, g.full(variance, 1e-5)))
    y = g.mul(centred, g.spread(inverse, x, 1))
    y = g.add(g.mul(y, g.along(scale, x, (1,))), g.along(shift, x, (1,)))
    graph = g.done(y)
    assert kinds(check(graph, arrays(graph, n=4))) == [Nest]


def test_batch_norm_is_one_nest():
    g = G()
    x = g.param(f32, 9, 6)
    centred = g.sub(x, g.spread(g.mean(x, (0,)), x, 0))
    variance = g.mean(g.mul(centred, centred), (0,))
    graph = g.done(g.mul(centred, g.spread(g.rsqrt(variance), x, 0)), variance)
    (kernel,) = kernels(check(graph, arrays(graph)))
    assert len(kernel.rows) == 1
    assert kernel.rows[0].extent == 6


def test_dense_relu_is_one_contraction_and_its_weights_are_packed_once():
    g = G()
    x, w, c = g.param(f32, n, 64), g.param(f32, 64, 32), g.param(f32, 32)
    y = g.matmul(x, w)
    graph = g.done(g.relu(g.add(y, g.along(c, y, (1,)))))
    program = check(graph, arrays(graph, n=5), storages=("w", "c"))
    assert kinds(program) == [Contract]
    assert len(program.prepare) == 1
    assert len(program.prepared) == 1
    assert program.run[0].scheduled.kernel.packed is not None


def test_batch_norm_of_parameters_is_folded_in_prepare():
    g = G()
    x = g.param(f32, n, 8)
    mean, variance, scale = (g.param(f32, 8) for _ in range(3))
    factor = g.mul(scale, g.rsqrt(g.add(g.mul(variance, variance), g.full(variance, 1e-3))))
    y = g.mul(g.sub(x, g.along(mean, x, (1,))), g.along(factor, x, (1,)))
    program = check(g.done(y), arrays(g.done(y), n=3), storages=("mean", "variance", "scale"))
    assert len(program.prepare) == 1
    assert kinds(program) == [Nest]
    assert "rsqrt" not in kernels(program)[0].name


def adam(g, p, m, v, grad):
    """New m, v and p."""
    m2 = g.add(g.times(m, 0.9), g.times(grad, 0.1))
    v2 = g.add(g.times(v, 0.99), g.times(g.mul(grad, grad), 0.01))
    step = g.div(m2, g.add(g.sqrt(v2), g.full(v2, 1e-6)))
    return m2, v2, g.sub(p, g.times(step, 0.01))


def training_step(batch=n, width=32):
    """Two dense layers, softmax cross-entropy, Adam: storages p, m, v of four parameters."""
    g = G()
    shapes = [(16, width), (width,), (width, 10), (10,)]
    x, y = g.param(f32, batch, 16), g.param(i32, batch)
    params = [g.param(f32, *s) for s in shapes]
    ms = [g.param(f32, *s) for s in shapes]
    vs = [g.param(f32, *s) for s in shapes]
    f = G()
    fx, fy = f.param(f32, batch, 16), f.param(i32, batch)
    w1, b1, w2, b2 = (f.param(f32, *s) for s in shapes)
    h = f.matmul(fx, w1)
    h = f.relu(f.add(h, f.along(b1, h, (1,))))
    z = f.matmul(h, w2)
    z = f.add(z, f.along(b2, z, (1,)))
    centred = f.sub(z, f.spread(f.reduce_max(z, axes=(1,)), z, 1))
    logs = f.log(f.reduce_sum(f.exp(centred), axes=(1,)))
    picked = f.gather(centred, f.reshape(fy, shape=(batch, 1)), batch=1)
    loss = f.mean(f.sub(logs, picked), (0,))
    derived = vjp(f.done(loss))
    one = g.b.emit("full", value=1.0, dtype=f32, shape=())
    values = g.b.inline(derived, [x, y, *params, one])
    loss, grads = values[0], values[-4:]
    news = [adam(g, *q) for q in zip(params, ms, vs, grads, strict=True)]
    updates = [u[k] for k in (2, 0, 1) for u in news]
    names = tuple(f"{k}{i}" for k in "pmv" for i in range(4))
    return optimize(g.done(loss, *updates)), names


def test_a_training_step_computes_what_its_graph_means():
    graph, names = training_step()
    data = arrays(graph, n=6)
    for i, a in enumerate(data):
        if i >= 10:
            data[i] = np.abs(a)
    program = check(graph, data, storages=names, updates=names)
    assert not program.prepare
    assert sum(k is Contract for k in kinds(program)) >= 3


def test_a_training_step_is_few_kernels_and_updates_in_place():
    graph, names = training_step()
    program = planned(graph, storages=names, updates=names)
    # Two products forward, two sums of the loss, softmax with its gradient, three products and two
    # sums backward, all with the optimiser's update in them.
    assert len(program.run) <= 11
    assert not any(k.name.startswith("copy") for k in kernels(program))


def test_adam_of_one_parameter_is_one_nest():
    g = G()
    p, m, v, grad = (g.param(f32, 33) for _ in range(4))
    graph = g.done(*adam(g, p, m, v, grad))
    graph2 = g.b.graph("f", graph.results)
    program = check(
        graph2, [np.abs(a) for a in arrays(graph2)], storages=("p", "m", "v", "g"), updates=()
    )
    assert kinds(program) == [Nest]


def test_equal_updates_of_different_sizes_share_one_kernel_and_one_region():
    g = G()
    grads = [g.param(f32, 8 + 3 * i) for i in range(3)]
    params = [g.param(f32, 8 + 3 * i) for i in range(3)]
    news = [g.sub(p, g.times(d, 0.1)) for p, d in zip(params, grads, strict=True)]
    graph = g.done(*news)
    names = ("p0", "p1", "p2")
    program = check(graph, arrays(graph), storages=names, updates=names)
    assert [x.independent for x in program.run] == [False, True, True]
    assert all(x.sizes is not None for x in program.run)


def test_swapped_storages_are_copied():
    g = G()
    a, b = g.param(f32, 5), g.param(f32, 5)
    graph = g.done(g.identity(b), g.times(a, 2.0))
    check(graph, arrays(graph), storages=("a", "b"), updates=("a", "b"))
    graph = g.done(b, a)
    check(graph, arrays(graph), storages=("a", "b"), updates=("a", "b"))


def test_a_storage_is_not_overwritten_while_it_is_still_read():
    g = G()
    x, w = g.param(f32, 3, 4), g.param(f32, 4, 4)
    new = g.sub(w, g.transpose(w, axes=(1, 0)))
    y = g.reduce_sum(g.mul(g.softmax(w, 0), new), axes=(0,))
    graph = g.done(g.add(x, g.along(y, x, (1,))), new)
    check(graph, arrays(graph), storages=("w",), updates=("w",))


def test_results_that_are_inputs_storages_constants_or_twice_the_same():
    g = G()
    x, w = g.param(f32, 3), g.param(f32, 3)
    c = g.constant(data=np.arange(3, dtype="<f4").tobytes(), dtype=f32, shape=(3,))
    y = g.exp(x)
    graph = g.done(x, w, c, y, y, g.reshape(y, shape=(3, 1)))
    check(graph, arrays(graph), storages=("w",))


AXES = [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("op", ["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"])
def test_reductions_over_any_axes(op, axes):
    g = G()
    x = g.param(f32, 3, n, 5)
    y = g.b.emit(op, g.exp(x), axes=axes)
    graph = g.done(y, g.neg(y))
    for size in (0, 1, 4):
        check(graph, arrays(graph, n=size))


def test_long_sums_are_cut_in_chunks():
    g = G()
    x = g.param(f32, n, 3)
    total = g.mean(g.mul(x, x), (0, 1))
    graph = g.done(g.sqrt(total), g.times(x, 2.0))
    for size in (0, 3, 5461, 30000):
        program = check(graph, arrays(graph, n=size))
    assert any(k.name.endswith("partial") for k in kernels(program))


def test_views_pads_slices_and_concatenations():
    g = G()
    x, y = g.param(f32, 6, n), g.param(f32, 6, n)
    t = g.transpose(g.slice(x, starts=(1, 0), limits=(6, n), steps=(2, 1)), axes=(1, 0))
    zero = g.full(g.reduce_sum(x, axes=(0, 1)), 7.0)
    padded = g.pad(g.exp(t), zero, low=(1, 0), high=(0, 2), interior=(0, 1))
    both = g.concatenate(x, g.reverse(y, axes=(0,)), axis=0)
    graph = g.done(padded, g.neg(both), g.reshape(g.add(x, y), shape=(n * 6,)))
    for size in (1, 5):
        check(graph, arrays(graph, n=size))


def test_transposed_and_reshaped_operands_are_read_in_place():
    g = G()
    a, b = g.param(f32, 24, n), g.param(f32, 4, 6, 40)
    flat = g.reshape(b, shape=(24, 40))
    y = g.contract(a, flat, batch_a=(), batch_b=(), over_a=(0,), over_b=(0,))
    program = check(g.done(y), arrays(g.done(y), n=7))
    assert kinds(program) == [Contract]


@pytest.mark.parametrize("place", [0, 7, 299, -5])
def test_an_update_in_place_visits_what_it_changes(place):
    """Three rows of three hundred, at a place that run time knows; a reader of all is apart."""
    g = G()
    x, at, kept = g.param(f32, 4, 3, 16), g.param(i64), g.param(f32, 4, 300, 16)
    zero = g.full_scalar(0, i64)
    new = g.dynamic_update(kept, g.tanh(x), zero, at, zero)
    graph = g.done(g.reduce_sum(new, axes=(2,)), new)
    given = [arrays(graph)[0], np.array(place), arrays(graph)[2]]
    program = check(graph, given, storages=("kept",), updates=("kept",))
    writer = next(k for k in kernels(program) if k.name == "dynamic_update_f32")
    assert product(axis.extent for axis in writer.rows) == 4 * 3 * 16


def test_an_update_elsewhere_is_whole():
    """The new value is a result besides: it is stored in both places, all of it."""
    g = G()
    x, at, kept = g.param(f32, 2, 16), g.param(i64), g.param(f32, 30, 16)
    new = g.dynamic_update(kept, x, at, g.full_scalar(0, i64))
    graph = g.done(new, g.times(kept, 2.0), new)
    given = [arrays(graph)[0], np.array(5), arrays(graph)[2]]
    check(graph, given, storages=("kept",), updates=("kept",))


def test_a_reshape_by_named_sizes_does_not_join_what_it_cannot_follow():
    """[2, 2 * n, n] as [4, n, n]: which point of the product is read is not known to be its own."""
    g = G()
    q, k = g.param(f32, 2, 2 * n, 64), g.param(f32, 2, n, 64)
    y = g.contract(q, k, batch_a=(0,), batch_b=(0,), over_a=(2,), over_b=(2,))
    graph = g.done(g.times(g.reshape(y, shape=(4, n, n)), 0.5))
    check(graph, arrays(graph, n=5))


# Ways to see [3, 4, 6]: a shape, and the axes over which a row of it goes.
GROUPINGS = [((3, 4, 6), (2,)), ((3, 4, 6), (1, 2)), ((3, 2, 12), (2,)), ((6, 2, 6), (1, 2)),
             ((12, 3, 2), (1,)), ((12, 2, 3), (2,)), ((9, 8), (1,)), ((72,), (0,)),
             ((3, 4, 6), (0, 2))]  # fmt: skip


@pytest.mark.parametrize("second", GROUPINGS)
@pytest.mark.parametrize("first", GROUPINGS)
def test_rows_of_one_reduction_are_no_parts_of_rows_of_another(first, second):
    """A norm over one grouping of the elements, which another grouping of them sums."""
    g = G()
    (shape, axes), (other, over) = first, second
    x = g.reshape(g.param(f64, 3, 4, 6), shape=shape)
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    y = g.sub(x, g.along(g.mean(x, axes), x, kept))
    z = g.reshape(y, shape=other)
    graph = g.done(z, g.mean(z, over))
    check(graph, arrays(graph))


def channels(rows):
    """Shapes of the same elements: groups of channels, and the channels apart."""
    shapes = [(2, 2, 4), (4, 4), (2, 8), (16,)]
    return [*((rows, *s) for s in shapes), (2 * rows, 8), (4 * rows, 4), (2 * rows, 2, 4)]


@pytest.mark.parametrize("after", range(7))
@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("rows", [3, n], ids=str)
def test_sums_before_and_after_a_reshape_are_of_their_own_rows(rows, before, after):
    """Groups of channels are normalised, then channels summed: a row of the one is several of
    the other."""
    first, then = channels(rows)[before], channels(rows)[after]
    for axes in ((len(first) - 1,), tuple(range(1, len(first)))):
        g = G()
        x = g.param(f64, *first)
        kept = tuple(a for a in range(len(first)) if a not in axes)
        y = g.sub(x, g.along(g.reduce_sum(x, axes=axes), x, kept))
        y = g.reshape(y, shape=then)
        total = g.reduce_sum(g.exp(y), axes=(len(then) - 1,))
        for results in ((total,), (total, y)):
            graph = g.done(*results)
            check(graph, arrays(graph, n=2))


@pytest.mark.parametrize("rows", [1, 2])
def test_one_row_reads_a_weight_where_it_lies(rows):
    """A weight [columns, k] is neither packed nor copied, and the row is computed once."""
    g = G()
    x, w = g.param(f32, rows, 96), g.param(f32, 200, 96)
    y = g.contract(g.tanh(x), w, batch_a=(), batch_b=(), over_a=(1,), over_b=(1,))
    graph = g.done(y)
    program = check(graph, arrays(graph), storages=("w",))
    assert len(program.prepared) == rows - 1
    assert kinds(program) == [Nest, Nest if rows == 1 else Contract]


def test_operands_that_are_no_views_are_copied():
    g = G()
    a, b = g.param(f32, n, 5, 6, 7), g.param(f32, 6, 5, 32)
    y = g.contract(a, b, batch_a=(), batch_b=(), over_a=(1, 2), over_b=(1, 0))
    z = g.contract(
        g.concatenate(a, a, axis=0), b, batch_a=(), batch_b=(), over_a=(2, 1), over_b=(0, 1)
    )
    graph = g.done(y, z)
    assert Contract in kinds(check(graph, arrays(graph, n=3)))


def test_batched_products():
    g = G()
    q, k, v = (g.param(f32, n, 3, 9, 16) for _ in range(3))
    over = {"batch_a": (0, 1), "batch_b": (0, 1)}
    scores = g.softmax(g.contract(q, k, **over, over_a=(3,), over_b=(3,)), 3)
    out = g.contract(scores, v, **over, over_a=(3,), over_b=(2,))
    graph = g.done(g.reshape(g.transpose(out, axes=(0, 2, 1, 3)), shape=(n, 9, 48)))
    check(graph, arrays(graph, n=2))


def test_embeddings_and_their_gradient():
    g = G()
    table, ids, dy = g.param(f32, 11, 6), g.param(i32, n, 4, 1), g.param(f32, n, 4, 6)
    rows = g.gather(table, ids, batch=0)
    zeros = g.full(table, 0.0)
    grad = g.scatter(zeros, ids, dy, batch=0, reduce="add")
    graph = g.done(g.relu(rows), grad, g.sub(table, g.times(grad, 0.1)))
    for size in (0, 3):
        check(graph, arrays(graph, n=size))


@pytest.mark.parametrize("dtype", [f16, bf16, f64])
def test_other_floats(dtype):
    g = G()
    x, w = g.param(dtype, n, 32), g.param(dtype, 32, 32)
    y = g.relu(g.matmul(x, w))
    graph = g.done(g.softmax(y, 1), g.reduce_sum(y, axes=(0,)), g.transpose(y, axes=(1, 0)))
    check(graph, arrays(graph, n=4))
    check(graph, arrays(graph, n=4), storages=("w",))


def test_sums_of_16_bit_scatters_are_exact_in_f32():
    g = G()
    ids, updates = g.param(i32, 40, 1), g.param(bf16, 40, 3)
    zeros = g.b.emit("full", value=0.0, dtype=bf16, shape=(2, 3))
    graph = g.done(g.scatter(zeros, ids, updates, batch=0, reduce="add"))
    check(graph, arrays(graph))


def test_integers_and_bools():
    g = G()
    x, y, p = g.param(i64, n, 3), g.param(u8, n, 3), g.param(bool_, n, 3)
    wide = g.cast(y, dtype=i64)
    z = g.select(p, g.add(x, wide), g.mul(x, wide))
    sums = g.contract(z, z, batch_a=(), batch_b=(), over_a=(0,), over_b=(0,))
    graph = g.done(g.reduce_max(z, axes=(0,)), sums, g.reduce_or(g.ge(x, wide), axes=(1,)))
    for size in (0, 5):
        check(graph, arrays(graph, n=size))


def test_a_value_with_several_readers_is_computed_once():
    g = G()
    x = g.param(f32, n, 8)
    y = g.tanh(g.exp(x))
    graph = g.done(g.softmax(y, 0), g.softmax(y, 1))
    program = check(graph, arrays(graph, n=5))
    assert sum("tanh" in k.name for k in kernels(program)) == 1


def test_relu_masks_are_not_stored():
    g = G()
    x, w, dy = g.param(f32, n, 32), g.param(f32, 32, 32), g.param(f32, n, 32)
    y = g.relu(g.matmul(x, w))
    mask = g.gt(y, g.full(y, 0.0))
    dz = g.select(mask, g.matmul(dy, w), g.full(y, 0.0))
    dw = g.contract(y, dz, batch_a=(), batch_b=(), over_a=(0,), over_b=(0,))
    graph = g.done(y, dw)
    program = check(graph, arrays(graph, n=5))
    stored = {b.dtype for k in kernels(program) for b in k.buffers}
    assert stored == {f32}


def test_a_chain_of_two_thousand_operations_is_one_kernel():
    g = G()
    x = g.param(f32, n)
    y = x
    for i in range(2000):
        y = g.sin(y) if i % 2 else g.add(y, x)
    program = planned(g.done(y))
    assert len(program.run) == 1


def test_a_chain_of_slices_does_not_explode():
    g = G()
    x = y = g.param(f32, 64)
    for i in range(12):
        size = 63 - i
        left = g.slice(y, starts=(0,), limits=(size,), steps=(1,))
        y = g.add(left, g.slice(y, starts=(1,), limits=(size + 1,), steps=(1,)))
    graph = g.done(y, g.neg(x))
    check(graph, arrays(graph))


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, int(rng.integers(3, 25)), differentiable=bool(seed % 2))
    data = random_arguments(rng, graph)
    check(optimize(graph) if seed % 3 else everywhere(inline_calls, graph), data)


@pytest.mark.parametrize("seed", range(190, 220))
def test_gradients_of_random_graphs(seed):
    rng = np.random.default_rng(seed)
    graph = random_graph(rng, int(rng.integers(3, 25)), differentiable=True)
    derived = optimize(vjp(graph))
    check(derived, random_arguments(rng, derived))


def test_index_ranges_are_recorded():
    g = G()
    table, ids = g.param(f32, 11, 6), g.param(i32, n, 1)
    again = g.reshape(g.param(i32, n), shape=(n, 1))
    rows = g.add(g.gather(table, ids, batch=0), g.gather(table, again, batch=0))
    program = planned(g.done(rows))
    assert program.index_ranges == (None, (0, 11), (0, 11))


@pytest.mark.parametrize("low", [0, 2, 4])
def test_a_part_read_elsewhere_does_not_move_the_whole(low):
    """A value read at other points, under a guard, is not computed at the points that read it."""
    g = G()
    x, z, zero = g.param(f64, n, 6), g.param(f64, n, 6), g.full(g.param(f64), 0.0)
    h = g.exp(x)
    part = g.slice(h, starts=(0, 4), limits=(n, 6), steps=(1, 1))
    back = g.pad(part, zero, low=(0, low), high=(0, 4 - low), interior=(0, 0))
    graph = g.done(g.add(g.mul(z, z), back), h)
    for rows in (1, 3):
        check(graph, arrays(graph, n=rows))
