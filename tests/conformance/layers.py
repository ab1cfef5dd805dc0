"""Layers: what they compute, the sizes of what they return, how many parameters they have."""

# ruff: noqa: ARG001 (runners of one signature)

import numpy as np

import fluxc as fx
from conformance.cases import Stated, array, covers, julia_shape
from dsl import call, first_values, run, trace
from fluxc import init, nn

RNG = np.random.default_rng(0)


def given(layer, *arrays, **options):
    """What a layer of given weights, or without any, returns."""
    return run(layer, *arrays, namespace={"layer": layer}, **options)


# ---- dense


@covers("Dense(10=>2, init=ones)*")
def dense_of_ones(case):
    x = np.array([[1.0], [2.0]]).repeat(10, axis=1)
    return given(nn.Dense(10, 2, init=init.ones, dtype="f64"), x)


@covers("Dense(ones(2,5), false, tanh)*")
def dense_of_an_array(case):
    return given(nn.Dense(np.ones((2, 5)), False, fx.tanh), array(case.args["x"]))


@covers("Dense identity_init relu doc")
def dense_of_the_identity(case):
    layer = nn.Dense(5, 3, fx.relu, init=init.identity_init, bias=False, dtype="f64")
    return given(layer, array(case.args["x"]))


@covers("Scale(2) on*")
def scale(case):
    """Julia's row of three meets two features: three examples of one feature here."""
    return given(nn.Scale(2), array(case.args["x"], np.float32))


@covers("Scale([1 2 3 4]*")
def scale_of_a_row(case):
    """Julia's scale [1, 4] is [4, 1] here."""
    layer = nn.Scale(array(case.args["scale"]), False, fx.square)
    return given(layer, array(case.args["x"]))


@covers("Scale(2, abs2; bias=false)")
def scale_without_bias(case):
    return given(nn.Scale(2, fx.square, bias=False), array(case.args["x"], np.float32))


# ---- layers of layers


@covers("Maxout(x->x^2*")
def maxout(case):
    return run(nn.Maxout(lambda x: x**2, lambda x: 3 * x), array(case.args["x"]))


@covers("Maxout test")
def maxout_of_products(case):
    """Exact in f32, where 3 * 0.7 is 2.1; the interpreter computes in f64."""
    a, b = np.array([0.5, 0.1]), np.array([0.2, 0.7])
    layer = nn.Maxout(lambda x: x * a, lambda x: x * b)
    return np.float32(run(layer, array(case.args["x"])))


@covers("Parallel(+,abs2,sqrt) doc")
def parallel(case):
    layer = nn.Parallel(fx.add, fx.square, fx.sqrt)
    return [run(layer, *map(array, xs)) for xs in case.args["inputs"]]


@covers("Parallel(hcat, inv)*")
def parallel_of_one(case):
    """Julia's row of three numbers."""
    joined = nn.Parallel(lambda *xs: fx.stack(xs)[:, None], fx.reciprocal)
    return run(joined, *map(array, case.args["inputs"]))


@covers("Chain(show, Parallel(+,inv,abs2))*")
def chain_of_several(case):
    chain = nn.Chain(lambda xs: xs, nn.Parallel(fx.add, fx.reciprocal, fx.square))
    return run(chain, *map(array, case.args["inputs"]))


@covers("Parallel(/, abs)*")
def parallel_divides(case):
    return run(nn.Parallel(fx.divide, fx.abs), *map(array, case.args["inputs"]))


@covers("PairwiseFusion*")
def pairwise_fusion(case):
    both = lambda a, b: fx.concatenate([fx.atleast_1d(a), fx.atleast_1d(b)])
    layer = nn.PairwiseFusion(both, lambda x: x + 1, lambda x: x + 2, lambda x: x**3)
    x = case.args["x"]
    ys = run(layer, *map(array, x if isinstance(x, list) else [x]))
    return {f"y{i}": y for i, y in enumerate(ys, 1)}


@covers("activations(*")
def activations(case):
    chain = nn.Chain(lambda x: x + 1, lambda x: 2 * x, lambda x: x**3)
    return list(run(lambda x: fx.activations(chain, x), array(case.args["x"])))


# ---- tokens


@covers("Embedding(*", "Embedding doc vector")
def embedding(case):
    layer = nn.Embedding(26, 4, init=init.identity_init(gain=22.0))
    (tokens,) = (case.args[k] for k in ("index", "indices") if k in case.args)
    return given(layer, array(tokens, np.int32) - 1)


def bag(f, *arrays):
    layer = nn.EmbeddingBag(100 * np.eye(26, 3))
    return run(lambda *xs: f(layer, *xs), *arrays, namespace={"layer": layer})


@covers("EmbeddingBag mean doc: one bag", "EmbeddingBag mean doc: matrix of bags")
def embedding_bag(case):
    (tokens,) = (case.args[k] for k in ("bag", "bags_as_columns") if k in case.args)
    return bag(lambda layer, x: layer(x), array(tokens, np.int32) - 1)


@covers("EmbeddingBag mean doc: two bags")
def embedding_bags(case):
    bags = [array(b, np.int32) - 1 for b in case.args["bags"]]
    return bag(lambda layer, *xs: layer(list(xs)), *bags)


@covers("EmbeddingBag offsets doc")
def embedding_bag_offsets(case):
    tokens, at = (array(case.args[k], np.int32) - 1 for k in ("data", "at"))
    return bag(lambda layer, x, at: layer(x, at), tokens, at)


# ---- normalisation


def after_a_step(layer, x):
    """What a layer returns in training, and the values it has then, by name."""
    entry, kept = trace(layer, fx.f32[x.shape], namespace={"layer": layer}, training=True)
    values = first_values(kept)
    (y,) = call(entry, values, x)
    return y, values


def batch_norm():
    return nn.BatchNorm(2), np.array([[1, 2], [3, 4], [5, 6]], np.float32)


@covers("BatchNorm(2) train forward")
def batch_norm_forward(case):
    layer, x = batch_norm()
    np.testing.assert_array_equal(x, array(case.args["x"]))
    return after_a_step(layer, x)[0]


@covers("BatchNorm(2) running mean*", "BatchNorm(2) running var*")
def batch_norm_statistics(case):
    return after_a_step(*batch_norm())[1][case.what.split()[2]]


@covers("BatchNorm(2) eval first element*")
def batch_norm_in_test(case):
    layer, x = batch_norm()
    return given(layer, x, values=after_a_step(layer, x)[1])[0, 0]


@covers("InstanceNorm(2*")
def instance_norm(case):
    layer = nn.InstanceNorm(2, affine=True, track_stats=True)
    return after_a_step(layer, array(case.args["x"], np.float32))[1][case.what.split()[-1]]


@covers("GroupNorm(4,2*")
def group_norm(case):
    activation = [fx.sigmoid] if "act" in case.args else []
    return given(nn.GroupNorm(4, 2, *activation), array(case.args["x"], np.float32))


@covers("LayerNorm equivalence")
def layer_norm(case):
    x = RNG.normal(size=(4, 3, 2))
    layers = {(-1,): nn.LayerNorm(2), (-2, -1): nn.LayerNorm(3, 2)}
    actual = [given(nn.f64(layer), x) for layer in layers.values()]
    expected = [run(lambda x, axis=axis: fx.normalise(x, axis), x) for axis in layers]
    return Stated(actual, expected)


@covers("Dropout edge cases", "AlphaDropout edge cases")
def dropout(case):
    x, kind = array(case.args["x"]), getattr(nn, case.name)
    tested = [given(kind(p), x) for p in (0.0, 0.5, 1.0)]
    assert all((y == tested[0]).all() for y in tested)
    (eval_key,) = (k for k in case.expect if k.endswith("eval"))
    trained = {f"p={p} training": given(kind(float(p)), x, training=True) for p in (0, 1)}
    return {**trained, eval_key: tested[0]}


# ---- initial weights


@covers("identity_init*")
def identity(case):
    return init.identity_init(RNG, case.args["dims"][::-1], gain=case.args["gain"])


@covers("nfan")
def nfan(case):
    """Both have the matrix of a Dense as [out, in]; that of a convolution is turned around."""
    shapes = [d if len(d) < 3 else julia_shape(d) for d in case.args["dims"]]
    return [list(init.nfan(tuple(s))) for s in shapes]


@covers("sparse_init zeros per column doc")
def sparse(case):
    a = case.args
    w = init.sparse_init(RNG, (a["rows"], a["cols"]), sparsity=a["sparsity"])
    (zeros,) = set(np.sum(w == 0, axis=0))
    return {"zeros_per_column": zeros}


@covers("bf16 exact values")
def bf16(case):
    x = array(case.args["x"])
    return run(lambda x: x.astype("bf16").astype("f64"), x)


# ---- convolution


@covers("Conv((3,3),1=>1,relu; pad=(0,1,1,2)) ones")
def padded_conv(case):
    """Julia pads (0, 1) along the width and (1, 2) along the height, which comes first here."""
    layer = nn.Conv((3, 3), 1, 1, fx.relu, pad=(1, 2, 0, 1), init=init.ones)
    y = given(layer, np.ones((1, 1, 28, 28), np.float32))[0, 0].T
    picked = {"1,1": y[0, 0], "2,2": y[1, 1], "end,1": y[-1, 0], "1,end": y[0, -1]}
    picked |= {"1,end-1": y[0, -2], "end,end": y[-1, -1]}
    return {"size": list(y.shape), **{f"y[{k}]": v for k, v in picked.items()}}


@covers("CrossCor equals Conv with reversed kernel")
def cross_correlation(case):
    x, w = RNG.normal(size=(2, 3, 7, 6)), RNG.normal(size=(4, 3, 3, 2))
    flipped = given(nn.Conv(w, flip=True), x)
    return Stated(given(nn.CrossCor(w[:, :, ::-1, ::-1].copy()), x), flipped)


@covers("Conv impulse response*")
def impulse(case):
    x, w = np.zeros((1, 1, 7, 7)), RNG.normal(size=(1, 1, 3, 3))
    x[..., 3, 3] = 1
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = w[0, 0]
    return Stated(given(nn.Conv(w, flip=True), x)[0, 0], expected)


@covers("Conv identity_init gain 10, even kernel, SamePad")
def identity_conv(case):
    start = init.identity_init(gain=10.0)
    layer = nn.Conv((2, 2), 1, 1, init=start, pad=nn.SamePad())
    return given(layer, array(case.args["x"], np.float32)[None, None])[0, 0]
