"""What single layers take: ranks, sizes, dtypes, every way of calling, and what they refuse."""

# ruff: noqa: ARG005, E501  (tables of functions of one signature, a row each)

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs

import fluxc as fx
from dsl import call, first_values, run, spec_of, trace
from fluxc import nn
from fluxc.compiler.ir.types import f32

RNG = np.random.default_rng(11)


def draw(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def valued(layer, *specs, **options):
    """The values of a layer's parameters, all of them random."""
    kept = trace(layer, *specs, namespace={"m": layer}, **options)[1]
    return {n: v + draw(*v.shape) for n, v in first_values(kept).items()}


def result(layer, values, *arrays, **options):
    return run(layer, *arrays, namespace={"m": layer}, values=dict(values), **options)


# Fully connected layers.


@pytest.mark.parametrize("shape", [(3,), (1, 3), (0, 3), (5, 1), (2, 5, 3), (5, 2, 1, 3)])
def test_scale(shape):
    """scale * x + bias, broadcast in both directions."""
    layer = nn.Scale(3, fx.tanh)
    values = valued(layer, fx.f32[3])
    x = draw(*shape)
    want = np.tanh(x * values["scale"] + values["bias"])
    np.testing.assert_allclose(result(layer, values, x), want, rtol=1e-5, atol=1e-6)


def test_scale_of_several_axes():
    layer = nn.Scale(4, 1, bias=False, init=np.array([[1.0], [2], [3], [4]]))
    assert layer.describe() == "Scale(4, 1, bias=False)"
    got = run(layer, np.array([1, 10], np.float32), namespace={"m": layer})
    np.testing.assert_array_equal(got, [[1, 10], [2, 20], [3, 30], [4, 40]])


def test_biases_are_given():
    """A bias may be an array, a number or an initialiser instead of a bool."""
    for bias, want in ((np.array([1.0, 2]), [1, 2]), (3.0, [3, 3]), (fx.init.ones, [1, 1])):
        layer = nn.Dense(3, 2, bias=bias)
        np.testing.assert_array_equal(
            run(layer, np.zeros(3, np.float32), namespace={"m": layer}), want
        )
    with pytest.raises(fx.ShapeError, match="the initial value has another shape"):
        nn.Dense(3, 2, bias=np.ones(3))


def test_layers_of_given_weights():
    """(weight, bias, activation) with an array, or the parameter of another layer."""
    w, x = draw(2, 3), draw(4, 3)
    space = lambda m: {"namespace": {"m": m}}
    layer = nn.Dense(w, False, fx.tanh)
    np.testing.assert_allclose(run(layer, x, **space(layer)), np.tanh(x @ w.T), rtol=1e-5)
    layer = nn.Dense(w, np.array([1.0, 2.0]))
    np.testing.assert_allclose(run(layer, x, **space(layer)), x @ w.T + [1, 2], rtol=1e-5)
    layer = nn.Scale(w[0], 2.0, fx.exp)
    np.testing.assert_allclose(run(layer, x, **space(layer)), np.exp(x * w[0] + 2), rtol=1e-5)
    layer = nn.Scale(w)
    np.testing.assert_allclose(run(layer, x[:, None], **space(layer)), x[:, None] * w, rtol=1e-5)
    layer = nn.Bilinear(draw(2, 3, 3), bias=False)
    assert layer.describe() == "Bilinear(3, 2, bias=False)"
    assert run(layer, x, **space(layer)).shape == (4, 2)
    tokens = np.array([1, 0, 1], np.int32)
    for layer, want in (
        (nn.Embedding(w), w[tokens]),
        (nn.EmbeddingBag(w, "sum"), w[tokens].sum(0)),
    ):
        np.testing.assert_allclose(run(layer, tokens, **space(layer)), want, rtol=1e-6)
    with pytest.raises(fx.ShapeError, match=r"Dense of a weight with 3 axes\n.*\[out, in\]"):
        nn.Dense(draw(2, 3, 4))


def test_parameters_are_shared():
    """A layer of another layer's parameter has no own: the gradient is the sum of both uses."""
    table = nn.Embedding(5, 3)
    model = nn.Chain(
        table, nn.Dense(table.weight, False), nn.Embedding(table.weight, padding_idx=1)
    )
    assert list(model.parameters()) == ["layers.0.weight"]
    assert model[1].describe() == "Dense(3, 5, bias=False)"
    tokens = np.array([1, 4], np.int32)
    f = lambda t: fx.grad(lambda m: model[1](model[0](t)).sum())(model)["layers.0.weight"]
    values = valued(model[0], fx.i32["n"])
    values = {"layers.0.weight": values["weight"]}
    rows = values["layers.0.weight"]
    want = np.tile(rows[tokens].sum(0), (5, 1))
    np.add.at(want, tokens, np.tile(rows.sum(0), (2, 1)))
    got = run(f, tokens, namespace={"m": model}, values=values)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_bilinear_takes_one_input_a_pair_or_two():
    layer = nn.Bilinear(3, 2, fx.sigmoid)
    values = valued(layer, fx.f32[4, 3])
    x, y = draw(4, 3), draw(4, 3)

    def want(x, y):
        z = np.einsum("bi,oij,bj->bo", x, values["weight"], y) + values["bias"]
        return 1 / (1 + np.exp(-z))

    np.testing.assert_allclose(result(layer, values, x, y), want(x, y), rtol=1e-5)
    np.testing.assert_allclose(result(layer, values, x), want(x, x), rtol=1e-5)
    pair = run(lambda x, y: layer((x, y)), x, y, namespace={"m": layer}, values=values)
    np.testing.assert_allclose(pair, want(x, y), rtol=1e-5)
    np.testing.assert_allclose(result(layer, values, x[0], y[0]), want(x[:1], y[:1])[0], rtol=1e-5)
    assert layer.describe() == "Bilinear(3, 2, sigmoid)"
    assert nn.Bilinear((3, 4), 2, bias=False).describe() == "Bilinear((3, 4), 2, bias=False)"


# Embeddings.


@pytest.mark.parametrize("index", [2, -1])
def test_the_padding_row(index):
    """It starts at zero, whatever the initialiser, and gets no gradient, by token or one-hot row."""
    for init in (fx.init.randn, 3.0, np.ones((4, 2))):
        layer = nn.Embedding(4, 2, padding_idx=index, init=init)
        table = first_values(trace(layer, fx.i32["n"], namespace={"m": layer})[1])["weight"]
        assert (table[index] == 0).all()
        assert np.abs(np.delete(table, index % 4, 0)).min() > 0
    tokens = np.array([0, index % 4, index % 4, 1], np.int32)
    rows = np.eye(4, dtype=np.float32)[tokens]
    f = lambda x: fx.grad(lambda m: (m(x) + 1).sum())(layer)["weight"]
    for x in (tokens, rows):
        gradient = run(f, x, namespace={"m": layer})
        np.testing.assert_array_equal(gradient[index], 0)
        np.testing.assert_array_equal(gradient[:2], 1)
    by_input = run(fx.grad(lambda x: layer(x).sum()), rows, namespace={"m": layer})
    np.testing.assert_allclose(by_input, np.tile(table.sum(1), (4, 1)), rtol=1e-6)
    assert layer.describe() == f"Embedding(4, 2, padding_idx={index % 4})"


REDUCE = {"mean": np.mean, "sum": np.sum, "max": np.max}


@pytest.mark.parametrize("name", REDUCE)
def test_bags(name):
    """Every way to give bags: one, equal ones, a list, offsets, lengths, one-hot rows."""
    layer = nn.EmbeddingBag(5, 3, {"mean": "mean", "sum": fx.sum, "max": fx.max}[name])
    values = valued(layer, fx.i32["n"])
    table, reduce = values["weight"], REDUCE[name]
    tokens = np.array([4, 0, 2, 2, 1, 3, 4], np.int32)
    parts = (tokens[:3], tokens[3:3], tokens[3:6])
    ragged = [reduce(table[p], 0) if p.size else np.zeros(3) for p in parts]
    matrix = tokens[:6].reshape(1, 2, 3)
    offsets, lengths = np.array([0, 3, 3], np.int32), np.array([3, 0, 3], np.int64)
    space = {"m": layer}
    last = reduce(table[tokens[3:]], 0)
    for f, arrays, want in (
        (layer, [tokens], reduce(table[tokens], 0)),
        (layer, [matrix], reduce(table[matrix], -2)),
        (layer, [matrix[:, :, :0]], np.zeros((1, 2, 3))),
        (lambda *bags: layer(bags), [tokens[:3], tokens[3:5]], [reduce(table[tokens[:3]], 0), reduce(table[tokens[3:5]], 0)]),
        (lambda: layer([4, 0, 2]), [], reduce(table[[4, 0, 2]], 0)),
        (lambda: layer([[4, 0, 2], (2, 1)]), [], [reduce(table[[4, 0, 2]], 0), reduce(table[[2, 1]], 0)]),
        (layer, [tokens, offsets], [*ragged[:2], last]),
        (lambda t: layer(t, [0, 3, 3]), [tokens], [*ragged[:2], last]),
        (lambda t, n: layer(t, lengths=n), [tokens, lengths], ragged),
        (layer, [np.eye(5, dtype=np.float32)[matrix]], reduce(table[matrix], -2)),
        (layer, [np.eye(5, dtype=bool)[matrix]], reduce(table[matrix], -2)),
        (layer, [tokens[:0], offsets[:0]], np.zeros((0, 3))),
    ):  # fmt: skip
        got = run(f, *arrays, namespace=space, values=values)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_bags_of_symbolic_sizes():
    """Empty bags give zeros where the size is known at run time alone."""
    for name, reduce in REDUCE.items():
        layer = nn.EmbeddingBag(5, 3, name)
        entry, kept = trace(layer, fx.i32["n", "size"], namespace={"m": layer})
        values = first_values(kept)
        for size in (0, 1, 4):
            tokens = RNG.integers(0, 5, (2, size)).astype(np.int32)
            want = reduce(values["weight"][tokens], 1) if size else np.zeros((2, 3))
            np.testing.assert_allclose(call(entry, values, tokens)[0], want, rtol=1e-5, atol=1e-6)


# Normalisation.


def test_normalise():
    """Over the batch by default; any axes, or all."""
    x = RNG.normal(3, 2, (4, 5, 6)).astype(np.float32)
    for axis, axes in ((0, (0,)), ((1, -1), (1, 2)), (None, (0, 1, 2))):
        want = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 0.1)
        np.testing.assert_allclose(
            run(lambda x, a=axis: fx.normalise(x, a, 0.1), x), want, rtol=1e-4, atol=1e-5
        )
    np.testing.assert_array_equal(run(fx.normalise, x), run(lambda x: fx.normalise(x, 0, 1e-5), x))


def test_first_values_of_norms():
    """init_scale and init_bias are numbers, arrays or initialisers."""
    x = np.zeros((2, 2, 3), np.float32)
    given = {"init_scale": 2.0, "init_bias": np.array([5.0, 6.0])}
    for layer in (
        nn.BatchNorm(2, **given),
        nn.InstanceNorm(2, affine=True, **given),
        nn.GroupNorm(2, 1, **given),
    ):
        values = first_values(trace(layer, spec_of(x), namespace={"m": layer})[1])
        np.testing.assert_array_equal(values["scale"], [2, 2])
        np.testing.assert_array_equal(result(layer, values, x)[..., 0], [[5, 6]] * 2)


def test_instance_norm_records_means_over_the_batch():
    layer = nn.InstanceNorm(2, track_stats=True, momentum=0.5)
    x = draw(4, 2, 3, 5)
    entry, kept = trace(layer, fx.f32["n", 2, "h", "w"], namespace={"m": layer}, training=True)
    values = first_values(kept)
    call(entry, values, x)
    np.testing.assert_allclose(values["mean"], 0.5 * x.mean((2, 3)).mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(values["var"], 0.5 + 0.5 * x.var((2, 3), ddof=1).mean(0), rtol=1e-5)


def test_rms_and_group_norm_of_symbolic_sizes():
    """Sizes known at run time alone, empty batches among them."""
    for layer, spec, shape in (
        (nn.RMSNorm(3, fx.relu), fx.f32["n", "t", 3], (2, 4, 3)),
        (nn.GroupNorm(4, 2), fx.f32["n", 4, "h", "w"], (3, 4, 2, 5)),
        (nn.LocalResponseNorm(3), fx.f32["n", 4, "h"], (3, 4, 2)),
        (nn.InstanceNorm(4), fx.f32["n", 4, "t"], (3, 4, 2)),
    ):
        entry, kept = trace(layer, spec, namespace={"m": layer})
        values = first_values(kept)
        for n in (0, 1, shape[0]):
            x = draw(n, *shape[1:])
            fixed = run(layer, x, namespace={"m": layer})
            np.testing.assert_allclose(call(entry, values, x)[0], fixed, rtol=1e-6)


# Noise.


def test_dropout_as_a_function():
    """It drops in test mode too; along axes that are not in `dims` elements drop together."""
    x = np.ones((200, 5, 6), np.float32)
    y = run(lambda x: fx.dropout(x, 0.25), x)
    np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
    assert abs((y == 0).mean() - 0.25) < 0.03
    channels = run(lambda x: fx.dropout(x, 0.5, dims=(0, 1)), x)
    assert (channels == channels[:, :, :1]).all()
    assert abs((channels[..., 0] == 0).mean() - 0.5) < 0.1
    layer = run(nn.Dropout(0.5, dims=(0, 1)), x, training=True)
    assert (layer == layer[:, :, :1]).all()


def test_alpha_dropout():
    """Two values of what was one, and the mean and the variance of normal numbers stay."""
    x = RNG.normal(size=(300, 200)).astype(np.float32)
    y = run(nn.AlphaDropout(0.3), x, training=True)
    assert abs(y.mean()) < 0.02
    assert abs(y.var() - 1) < 0.03
    alpha = -1.7580993408473766
    a = 1 / np.sqrt(0.7 * (1 + 0.3 * alpha**2))
    dropped = np.isclose(y, a * alpha * 0.7, atol=1e-5)
    assert abs(dropped.mean() - 0.3) < 0.02
    np.testing.assert_allclose(y[~dropped], a * x[~dropped] - a * alpha * 0.3, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(run(lambda x: fx.alpha_dropout(x, 0), x), x)


# Dtypes.

LAYERS = {
    "Dense": lambda d: (nn.Dense(4, 4, dtype=d), (3, 4)),
    "Scale": lambda d: (nn.Scale(4, dtype=d), (3, 4)),
    "Bilinear": lambda d: (nn.Bilinear(4, 4, dtype=d), (3, 4)),
    "Embedding": lambda d: (nn.Embedding(4, 4, padding_idx=1, dtype=d), (3, 4)),
    "EmbeddingBag": lambda d: (nn.EmbeddingBag(4, 4, dtype=d), (3, 4)),
    "WeightNorm": lambda d: (nn.WeightNorm(nn.Dense(4, 4, dtype=d)), (3, 4)),
    "LayerNorm": lambda d: (nn.LayerNorm(4), (3, 4)),
    "RMSNorm": lambda d: (nn.RMSNorm(4), (3, 4)),
    "BatchNorm": lambda d: (nn.BatchNorm(4), (3, 4)),
    "GroupNorm": lambda d: (nn.GroupNorm(4, 2), (3, 4)),
    "InstanceNorm": lambda d: (nn.InstanceNorm(4, affine=True, track_stats=True), (3, 4, 5)),
    "LocalResponseNorm": lambda d: (nn.LocalResponseNorm(3), (3, 4)),
    "Dropout": lambda d: (nn.Dropout(0.5), (3, 4)),
    "AlphaDropout": lambda d: (nn.AlphaDropout(0.5), (3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["f64", "f16", "bf16"])
@pytest.mark.parametrize("name", LAYERS)
def test_dtypes_are_kept(name, dtype):
    """The result has the dtype of input and weights, in training and in test."""
    layer, shape = LAYERS[name](dtype)
    for training in (False, True):
        entry, _ = trace(
            layer, getattr(fx, dtype)[shape], namespace={"m": layer}, training=training
        )
        assert str(entry.graph.results[0].type.dtype) == dtype


def test_integers_become_floats():
    for layer in (nn.Dense(4, 2), nn.LayerNorm(4), nn.BatchNorm(4), nn.Dropout(0.5), nn.Scale(4)):
        got = run(layer, np.ones((3, 4), np.int32), namespace={"m": layer})
        assert got.dtype.kind == "f"


@pytest.mark.cc
def test_compiled_in_half_precision(tmp_path):
    """16-bit norms and embeddings, compiled, are what f32 gives, rounded."""
    graphs, arrays, wanted = {}, {}, {}
    for name in (
        "LayerNorm",
        "RMSNorm",
        "BatchNorm",
        "GroupNorm",
        "InstanceNorm",
        "WeightNorm",
        "Bilinear",
    ):
        layer, shape = LAYERS[name]("f16")
        entry, kept = trace(layer, fx.f16[shape], namespace={"m": layer}, training=True)
        values = first_values(kept)
        arrays[name] = [draw(*shape).astype(np.float16), *(values[s] for s in entry.storages)]
        graphs[name] = entry.graph
        wanted[name] = call(entry, values, arrays[name][0])[0]
    model = compile_graphs(graphs, tmp_path).model(1)
    for name, given in arrays.items():
        got = getattr(model, name)(*given)
        y = got[0] if isinstance(got, tuple) else got
        assert y.dtype == np.float16
        np.testing.assert_allclose(y, wanted[name], rtol=4e-3, atol=4e-3, err_msg=name)


@pytest.mark.cc
def test_compiled_layers_of_symbolic_sizes(tmp_path):
    """One artifact for sizes 0, 1 and others, against the interpreter."""
    cases = {
        "dense": (nn.Dense(3, 2, fx.tanh), ["n", "t", 3]),
        "scale": (nn.Scale(3, fx.relu), ["n", 3]),
        "bilinear": (nn.Bilinear(3, 2), ["n", 3]),
        "skip": (nn.SkipConnection(nn.Chain(nn.Dense(3, 3), nn.LayerNorm(3)), fx.add), ["n", "t", 3]),
        "fused": (nn.PairwiseFusion(fx.add, nn.Dense(3, 3), nn.Maxout(nn.Dense(3, 2), nn.Dense(3, 2))), ["n", 3]),
        "groups": (nn.GroupNorm(4, 2), ["n", 4, "t"]),
        "instance": (nn.InstanceNorm(3), ["n", 3, "t"]),
        "rms": (nn.RMSNorm(3), ["n", "t", 3]),
        "response": (nn.LocalResponseNorm(2), ["n", 3, "t"]),
    }  # fmt: skip
    traced = {
        n: trace(m, fx.f32[tuple(dims)], namespace={"m": m}) for n, (m, dims) in cases.items()
    }
    model = compile_graphs({n: e.graph for n, (e, _) in traced.items()}, tmp_path).model(2)
    for name, (entry, kept) in traced.items():
        values = first_values(kept)
        for n, t in ((0, 3), (1, 1), (5, 7)):
            x = draw(*({"n": n, "t": t}.get(d, d) for d in cases[name][1]))
            got = getattr(model, name)(x, *(values[s] for s in entry.storages))
            wants = call(entry, values, x)
            gots = got if isinstance(got, tuple) else (got,)
            for g, w in zip(gots, wants, strict=True):
                assert_agrees(
                    g, w, f32, scale=float(np.abs(w).max(initial=1.0)), context=f"{name} {x.shape}"
                )


# Mistakes.

MISTAKES = {
    "dense": (nn.Dense(3, 2), [draw(2, 4)], r"Dense\(3, 2\): the input does not fit\n.*f32\[\.\.\., 3\]\n.*f32\[2, 4\]"),
    "scalar": (nn.Dense(3, 2), [np.float32(1)], r"expected: f32\[\.\.\., 3\]\n.*f32\[\]"),
    "scale": (nn.Scale(3, 2), [draw(2, 4)], r"Scale\(3, 2\): the input does not fit\n.*\[\.\.\., 3, 2\]"),
    "bilinear x": (nn.Bilinear((3, 4), 2), [draw(2, 4), draw(2, 4)], r"\[\.\.\., 3\] for x"),
    "bilinear y": (nn.Bilinear((3, 4), 2), [draw(2, 3)], r"\[\.\.\., 4\] for y"),
    "bilinear batches": (nn.Bilinear((3, 4), 2), [draw(2, 3), draw(1, 4)], r"f32\[2, 4\] for y\n.*f32\[1, 4\]"),
    "bilinear triple": (lambda *xs: nn.Bilinear(3, 2)(xs), [draw(3)] * 3, "takes two inputs\n.*3 inputs"),
    "one-hot": (nn.Embedding(5, 2), [draw(3, 4)], r"Embedding\(5, 2\): the input does not fit\n.*\[\.\.\., 5\]"),
    "one token": (nn.EmbeddingBag(5, 2), [np.int32(3)], "takes bags, not a single token"),
    "one row": (nn.EmbeddingBag(5, 2), [draw(5)], "takes bags, not a single token"),
    "offsets from 1": (lambda t: nn.EmbeddingBag(5, 2)(t, [1, 2]), [np.zeros(4, np.int32)], r"offsets do not divide.*\n.*0 first.*none beyond 4\n.*\[1, 2\]"),
    "offsets that fall": (lambda t: nn.EmbeddingBag(5, 2)(t, [0, 3, 2]), [np.zeros(4, np.int32)], "offsets do not divide"),
    "offsets beyond": (lambda t: nn.EmbeddingBag(5, 2)(t, [0, 5]), [np.zeros(4, np.int32)], "offsets do not divide"),
    "float offsets": (nn.EmbeddingBag(5, 2), [np.zeros(4, np.int32), draw(2)], "offsets are no integers"),
    "offsets and lengths": (lambda t: nn.EmbeddingBag(5, 2)(t, [0], lengths=[4]), [np.zeros(4, np.int32)], "offsets or lengths, not both"),
    "rows of tokens": (nn.EmbeddingBag(5, 2), [np.zeros((2, 2), np.int32), np.zeros(1, np.int32)], "are one row of tokens"),
    "batch norm": (nn.BatchNorm(3), [draw(2, 4)], r"BatchNorm\(3\): the input does not fit\n.*\[batch, 3, \.\.\.\]"),
    "instance norm": (nn.InstanceNorm(3, affine=True), [draw(2, 3)], r"InstanceNorm\(3, affine=True\).*\n.*\[batch, 3, size, \.\.\.\]"),
    "channels last": (nn.BatchNorm(3), [draw(2, 5, 5, 3)], r"hint: +fx.moveaxis\(x, -1, 1\): channels are axis 1"),
    "features first": (nn.Dense(3, 2), [draw(3, 5)], r"hint: +x.T: the batch is the first axis"),
    "group norm": (nn.GroupNorm(4, 2), [draw(4)], r"GroupNorm\(4, 2\): the input does not fit"),
    "layer norm": (nn.LayerNorm(3, 4), [draw(2, 4, 3)], r"LayerNorm\(3, 4\).*\n.*\[\.\.\., 3, 4\]"),
    "rms norm": (nn.RMSNorm(3), [draw(2)], r"RMSNorm\(3\): the input does not fit"),
    "response": (nn.LocalResponseNorm(3), [draw(2)], r"takes \[batch, channels, \.\.\.\]"),
    "dropout axis": (lambda x: fx.dropout(x, 0.5, dims=2), [draw(2, 2)], "axis 2 of a tensor with 2 axes"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_inputs_that_do_not_fit(name):
    layer, arrays, message = MISTAKES[name]
    with pytest.raises(fx.FluxcError, match=message):
        run(layer, *arrays, namespace={"m": layer})


DECLARED_WRONGLY = {
    "dense": (lambda: nn.Dense(0, 2), "Dense: in must be an integer >= 1"),
    "no size": (nn.Scale, "Scale needs at least one size"),
    "size": (lambda: nn.LayerNorm(3, -1), "LayerNorm: size must be an integer >= 1"),
    "bilinear": (lambda: nn.Bilinear((1, 2, 3), 2), "Bilinear takes two sizes of inputs"),
    "padding": (lambda: nn.Embedding(4, 2, padding_idx=4), r"there is no row padding_idx\n.*-4 \.\. 3"),
    "padding kind": (lambda: nn.Embedding(4, 2, padding_idx=1.0), "padding_idx is no integer"),
    "reduction": (lambda: nn.EmbeddingBag(4, 2, "min"), "no reduction is 'min'\n.*mean, sum or max"),
    "groups": (lambda: nn.GroupNorm(4, 3), "groups must divide channels\n.*4 by 3"),
    "p": (lambda: nn.Dropout(1.5), "Dropout: p must be a number in 0 .. 1"),
    "alpha": (lambda: nn.AlphaDropout("half"), "AlphaDropout: p must be a number in 0 .. 1"),
    "neighbours": (lambda: nn.LocalResponseNorm(0), "LocalResponseNorm: size must be an integer >= 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED_WRONGLY)
def test_mistakes_in_declarations(name):
    build, message = DECLARED_WRONGLY[name]
    with pytest.raises(fx.FluxcError, match=message):
        build()


def test_one_value_a_channel():
    """It has no variance: training refuses it, test mode does not."""
    for layer, shape in ((nn.BatchNorm(3), (1, 3)), (nn.InstanceNorm(3), (2, 3, 1))):
        with pytest.raises(fx.ShapeError, match="one value a channel has no variance"):
            run(layer, draw(*shape), namespace={"m": layer}, training=True)
        assert run(layer, draw(*shape), namespace={"m": layer}).shape == shape
