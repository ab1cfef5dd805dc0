"""Derivatives of derivatives: of whole networks, beside PyTorch's, and of every kind of layer."""

# ruff: noqa: E501, PLW0108 (tables, a row each)

import numpy as np
import pytest
from compiled import assert_graph_agrees, compile_graphs, expected
from golden import second_order as golden

import fluxc as fx
from dsl import run, spec_of, trace
from fluxc import losses, nn

with np.load(golden.FILE) as stored:
    GOLDEN = dict(stored)


# ---- networks beside PyTorch


def penalty(network, x, ws):
    """WGAN-GP: how far the slope of the network at each example is from 1."""
    slope = fx.grad(lambda x: network(fx, x, *ws).sum())(x)
    length = fx.sqrt((slope * slope).reshape((x.shape[0], -1)).sum(1))
    return ((length - 1) ** 2).mean()


def derivatives(name):
    """(x, weights, directions) -> the penalty, and every gradient that the file holds."""
    _, shapes, network, _ = golden.CASES[name]

    def f(x, *rest):
        ws, ds = rest[: len(shapes)], rest[len(shapes) :]
        by_weights = lambda loss: fx.grad(lambda ws: loss(ws))
        loss = lambda ws: (fx.tanh(network(fx, x, *ws)) ** 2).mean()
        square = lambda ws, one: network(fx, one[None], *ws)[0] ** 2
        value, slopes = fx.value_and_grad(lambda ws: penalty(network, x, ws))(ws)
        forward = fx.jvp(by_weights(loss), (ws,), (ds,))[1]
        backward = by_weights(lambda ws: fx.jvp(loss, (ws,), (ds,))[1])(ws)
        each = fx.vmap(fx.grad(square), (None, 0))(ws, x)
        jacobian = fx.jacobian(lambda ws: network(fx, x, *ws))(ws)
        hessian = fx.hessian(lambda one: network(fx, one[None], *ws)[0])(x[0])
        return value, slopes, forward, backward, each, jacobian, hessian

    return f


def arguments(name, dtype=np.float64):
    given = [golden.examples(name), *golden.weights(name), *golden.direction(name)]
    return [a.astype(dtype) for a in given]


def assert_pytorch(name, got, **tolerance):
    counts = range(len(golden.CASES[name][1]))
    kinds = ("penalty.d", "curvature", "curvature", "each", "jacobian")
    labels = ["penalty", *(f"{kind}{i}" for kind in kinds for i in counts), "hessian"]
    for label, one in zip(labels, got, strict=True):
        want = GOLDEN[f"{name}.{label}"]
        np.testing.assert_allclose(one, want, **tolerance, err_msg=f"{name}, {label}")


@pytest.mark.parametrize("name", golden.CASES)
def test_the_interpreter_agrees_with_pytorch(name):
    """A gradient penalty's gradient, Hessian times vector both ways, per-example gradients, and
    the matrices of first and second derivatives."""
    assert_pytorch(name, run(derivatives(name), *arguments(name)), rtol=1e-9, atol=1e-12)


def residual_of_burgers(ws):
    """u_t + u u_x - VISCOSITY u_xx at a place and time: [2] -> []."""
    u = lambda at: golden.dense(fx, at[None], *ws)[0]

    def excess(at):
        along_x = fx.array([1.0, 0.0]).astype(at.dtype)
        slope, bend = fx.jvp(fx.grad(u), (at,), (along_x,))
        return slope[1] + u(at) * slope[0] - golden.VISCOSITY * bend[0]

    return excess


def burgers(x, *ws):
    return (fx.vmap(residual_of_burgers(ws))(x) ** 2).mean()


def burgers_by_hessians(x, *ws):
    """The same, with all second derivatives."""
    u = lambda at: golden.dense(fx, at[None], *ws)[0]
    slope, bend = (fx.vmap(d(u))(x) for d in (fx.grad, fx.hessian))
    excess = slope[:, 1] + fx.vmap(u)(x) * slope[:, 0] - golden.VISCOSITY * bend[:, 0, 0]
    return (excess**2).mean()


WAYS = {"jvp": burgers, "hessian": burgers_by_hessians}


def differentiated(loss):
    return lambda x, *ws: fx.value_and_grad(lambda ws: loss(x, *ws))(ws)


@pytest.mark.parametrize("way", WAYS)
def test_a_loss_of_a_differential_equation(way):
    """Third derivatives in all, against PyTorch and against differences."""
    x, ws = golden.places()
    value, *slopes = run(differentiated(WAYS[way]), x, *ws)
    np.testing.assert_allclose(value, GOLDEN["burgers"], rtol=1e-12)
    for i, slope in enumerate(slopes):
        np.testing.assert_allclose(slope, GOLDEN[f"burgers.d{i}"], rtol=1e-9, atol=1e-12)
        h = 1e-5 * golden.numbers("h", slope.shape)
        plus, minus = (run(WAYS[way], x, *ws[:i], ws[i] + s * h, *ws[i + 1 :]) for s in (1, -1))
        np.testing.assert_allclose((slope * h).sum(), (plus - minus) / 2, rtol=1e-6)


@pytest.mark.cc
def test_compiled_code_agrees_with_pytorch(tmp_path):
    graphs = {}
    x, ws = golden.places()
    cases = {name: (derivatives(name), arguments(name)) for name in golden.CASES}
    cases |= {f"burgers_{way}": (differentiated(loss), [x, *ws]) for way, loss in WAYS.items()}
    for name, (f, arrays) in cases.items():
        specs = [fx.f64["batch", *arrays[0].shape[1:]], *map(spec_of, arrays[1:])]
        graphs[name] = trace(f, *specs)[0].graph
    compiled = compile_graphs(graphs, tmp_path)
    for name, (_, arrays) in cases.items():
        got = compiled.on_every_number_of_threads(name, arrays)
        if name in golden.CASES:
            assert_pytorch(name, got, rtol=1e-9, atol=1e-11)
        else:
            want = [GOLDEN["burgers"], *(GOLDEN[f"burgers.d{i}"] for i in range(len(ws)))]
            for one, value in zip(got, want, strict=True):
                np.testing.assert_allclose(one, value, rtol=1e-9, atol=1e-11)


# ---- every kind of layer

# name: the layer, the shape of its input
LAYERS = {
    "Dense": (lambda: nn.Chain(nn.Dense(3, 4, fx.gelu), nn.Dense(4, 2, fx.swish)), (4, 3)),
    "Scale": (lambda: nn.Scale(3, activation=fx.mish), (4, 3)),
    "Bilinear": (lambda: nn.Bilinear((3, 3), 2, fx.tanh), (4, 3)),
    "Maxout": (lambda: nn.Maxout(nn.Dense(3, 2, fx.tanh), nn.Dense(3, 2)), (4, 3)),
    "SkipConnection": (lambda: nn.SkipConnection(nn.Dense(3, 3, fx.elu), fx.multiply), (4, 3)),
    "Parallel": (lambda: nn.Parallel(fx.multiply, nn.Dense(3, 2), nn.Dense(3, 2, fx.sin)), (4, 3)),
    "WeightNorm": (lambda: nn.WeightNorm(nn.Dense(3, 2, fx.sigmoid)), (4, 3)),
    "Conv": (lambda: nn.Conv((3, 3), 2, 3, fx.softplus, stride=2, pad=1), (3, 2, 5, 4)),
    "Conv flipped": (lambda: nn.Conv((3,), 4, 4, fx.tanh, groups=2, dilation=2, flip=True), (3, 4, 6)),
    "ConvTranspose": (lambda: nn.ConvTranspose((3,), 2, 3, fx.tanh, stride=2, pad=1), (3, 2, 4)),
    "DepthwiseConv": (lambda: nn.DepthwiseConv((2, 2), 2, 4, fx.tanh), (3, 2, 3, 3)),
    "MaxPool": (lambda: nn.Chain(nn.Conv((2,), 2, 3, fx.tanh), nn.MaxPool((2,))), (3, 2, 7)),
    "MeanPool": (lambda: nn.Chain(nn.Conv((2,), 2, 3, fx.tanh), nn.MeanPool((3,), pad=1)), (3, 2, 7)),
    "LPPool": (lambda: nn.Chain(nn.Dense(6, 6, fx.exp), nn.LPPool(3.0, (2,))), (3, 2, 6)),
    "AdaptiveMeanPool": (lambda: nn.Chain(nn.Conv((2,), 2, 3, fx.tanh), nn.AdaptiveMeanPool((3,))), (3, 2, 8)),
    "AdaptiveMaxPool": (lambda: nn.Chain(nn.Conv((2,), 2, 3, fx.tanh), nn.AdaptiveMaxPool((3,))), (3, 2, 8)),
    "Upsample": (lambda: nn.Chain(nn.Upsample(2, "bilinear"), nn.Conv((3, 3), 2, 2, fx.tanh)), (3, 2, 2, 3)),
    "bicubic": (lambda: nn.Chain(nn.Conv((2, 2), 2, 2, fx.tanh), nn.Upsample(2, "bicubic")), (2, 2, 4, 4)),
    "PixelShuffle": (lambda: nn.Chain(nn.Conv((2, 2), 2, 4, fx.tanh), nn.PixelShuffle(2)), (3, 2, 3, 3)),
    "pads": (lambda: nn.Chain(nn.ReflectionPad(1), nn.CircularPad(1), nn.Conv((3,), 2, 2, fx.tanh)), (3, 2, 4)),
    "LayerNorm": (lambda: nn.Chain(nn.Dense(3, 5), nn.LayerNorm(5, fx.tanh)), (4, 3)),
    "RMSNorm": (lambda: nn.Chain(nn.Dense(3, 5), nn.RMSNorm(5)), (4, 3)),
    "GroupNorm": (lambda: nn.Chain(nn.Conv((2,), 2, 4), nn.GroupNorm(4, 2, fx.tanh)), (3, 2, 5)),
    "InstanceNorm": (lambda: nn.Chain(nn.Conv((2,), 2, 4), nn.InstanceNorm(4, fx.tanh, affine=True)), (3, 2, 5)),
    "BatchNorm": (lambda: nn.Chain(nn.Conv((2,), 2, 4), nn.BatchNorm(4, fx.tanh)), (3, 2, 5)),
    "LocalResponseNorm": (lambda: nn.Chain(nn.Conv((2,), 2, 4), nn.LocalResponseNorm(3)), (3, 2, 5)),
    "RNN": (lambda: nn.RNN(3, 4), (3, 3, 3)),
    "LSTM": (lambda: nn.Stacked(nn.LSTM(3, 3), nn.LSTM(3, 2)), (3, 3, 3)),
    "GRU": (lambda: nn.Bidirectional(nn.GRU(3, 2)), (3, 3, 3)),
    "GRUv3": (lambda: nn.GRUv3(3, 3), (3, 3, 3)),
    "MultiHeadAttention": (lambda: First(nn.MultiHeadAttention(4, nheads=2)), (3, 3, 4)),
    "TransformerEncoder": (lambda: nn.TransformerEncoder(1, 4, 2, 6, dropout_prob=0.0), (3, 3, 4)),
    "attention by heads": (lambda: nn.Chain(lambda x: fx.attention(x, fx.sin(x), x, causal=True, by_head=True)), (3, 2, 3, 2)),
    "ctc_loss": (lambda: nn.Chain(each_loss(losses.ctc_loss, 2)), (3, 4, 3)),
    "logitcrossentropy": (lambda: nn.Chain(each_loss(losses.logitcrossentropy)), (3, 4)),
}  # fmt: skip


def each_loss(loss, *labels):
    """The losses of examples one by one; every label is 0."""
    return lambda x: loss(x, fx.zeros((x.shape[0], *labels), fx.i32), fx.identity)


class First(nn.Module):
    """The first result of a layer, its input being all of its arguments."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, x):
        return self.layer(x)[0]


def moved(name):
    """The layer with weights that are nowhere 0 or 1, as a function of them and its input."""
    layer = nn.f64(LAYERS[name][0]())
    flat, re = fx.destructure(layer)
    rng = np.random.default_rng([*name.encode()])
    v, dv = 0.5 * rng.normal(size=(2, *flat.shape))
    x, dx = rng.normal(size=(2, *LAYERS[name][1]))

    def loss(v, x):
        y = re(v)(x)
        return (fx.sin(y + 0.3) * (fx.arange(y.shape[-1]) + 1)).sum()

    return layer, loss, (v, x), (dv, dx)


def evaluated(layer, f, *arrays, **options):
    return run(f, *arrays, namespace={"layer": layer}, **options)


@pytest.mark.parametrize("name", LAYERS)
def test_hessian_times_vector(name):
    """Forward over reverse, reverse over forward, and differences of gradients, all by weights
    and inputs at once."""
    layer, loss, at, along = moved(name)
    training = {"training": name == "BatchNorm"}
    gradient = fx.grad(loss, (0, 1))

    def both(v, x, dv, dx):
        forward = fx.jvp(gradient, (v, x), (dv, dx))[1]
        backward = fx.grad(lambda v, x: fx.jvp(loss, (v, x), (dv, dx))[1], (0, 1))(v, x)
        return forward, backward

    *forward, v, x = evaluated(layer, both, *at, *along, **training)
    h = 1e-5
    ends = [[a + s * d for a, d in zip(at, along, strict=True)] for s in (h, -h)]
    plus, minus = (evaluated(layer, gradient, *end, **training) for end in ends)
    for f, b, p, m in zip(forward, (v, x), plus, minus, strict=True):
        want, scale = (p - m) / (2 * h), np.abs(p).max(initial=1.0)
        np.testing.assert_allclose(f, want, rtol=1e-5, atol=1e-7 * scale)
        np.testing.assert_allclose(b, f, rtol=1e-8, atol=1e-10 * scale)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_each_example_are_those_of_a_loop(name):
    layer, loss, (v, x), _ = moved(name)
    one = fx.grad(lambda v, x: loss(v, x[None]))
    got = evaluated(layer, lambda v, x: fx.vmap(one, (None, 0))(v, x), v, x)
    want = [evaluated(layer, one, v, row) for row in x]
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)


@pytest.mark.cc
def test_compiled_layers_agree_with_the_interpreter(tmp_path):
    """Hessian times vector and per-example gradients, as native code."""
    cases = {}
    for name in LAYERS:
        layer, loss, at, along = moved(name)
        if layer.states():
            continue
        one = fx.grad(lambda v, x, loss=loss: loss(v, x[None]))

        def f(v, x, dv, dx, loss=loss, one=one):
            forward = fx.jvp(fx.grad(loss, (0, 1)), (v, x), (dv, dx))[1]
            return forward, fx.vmap(one, (None, 0))(v, x)

        arrays = [*at, *along]
        entry, _ = trace(f, *map(spec_of, arrays), namespace={"layer": layer})
        cases[name.replace(" ", "_")] = entry.graph, arrays
    compiled = compile_graphs({name: graph for name, (graph, _) in cases.items()}, tmp_path)
    for name, (graph, arrays) in cases.items():
        got = compiled.on_every_number_of_threads(name, arrays)
        assert_graph_agrees(graph, got, expected(graph, arrays), name)
