"""Convolution and pooling: PyTorch's values, every size, layers, and what is refused."""

# ruff: noqa: E501  (a row of a table is one line)

import re

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs, expected
from golden import convolution as golden

import fluxc as fx
from dsl import run, spec_of, trace
from fluxc import nn
from fluxc.compiler.autodiff import vjp
from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.dims import product, size_symbols
from fluxc.compiler.ir.parser import parse_graph
from fluxc.compiler.ir.types import f32

with np.load(golden.FILE) as stored:
    GOLDEN = dict(stored)


def differentiated(name):
    """The graph of a case: operands and a cotangent give the result and every gradient."""
    case, xs = golden.CASES[name], golden.inputs(name)
    entry, _ = trace(
        lambda *a: getattr(fx, case["function"])(*a, **case["options"]), *map(spec_of, xs)
    )
    return vjp(entry.graph)


def arguments(name):
    return [*golden.inputs(name), golden.seed(name, GOLDEN[f"{name}.y"].shape)]


def wanted(name):
    gradients = [GOLDEN[f"{name}.g{i}"] for i in range(len(golden.CASES[name]["shapes"]))]
    return [GOLDEN[f"{name}.y"], *gradients]


@pytest.mark.parametrize("name", golden.CASES)
def test_the_interpreter_agrees_with_pytorch(name):
    got = expected(differentiated(name), arguments(name))
    for g, w in zip(got, wanted(name), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.cc
def test_compiled_code_agrees_with_pytorch(tmp_path):
    compiled = compile_graphs({name: differentiated(name) for name in golden.CASES}, tmp_path)
    for threads in (1, 2):
        model = compiled.model(threads)
        for name in golden.CASES:
            got = getattr(model, name)(*arguments(name))
            for g, w in zip(got, wanted(name), strict=True):
                scale = float(np.abs(w).max(initial=1.0))
                assert_agrees(g, w, f32, scale=scale, context=f"{name}, {threads} threads")


# Sizes that run time knows.


def convolved(x, w):
    return fx.conv(x, w, stride=(2, 1), pad=(0, 2, 1, 1))


def pooled(x, w):
    y = fx.maxpool(x, 2, pad=(0, 1), stride=1) + fx.meanpool(x, 2, pad=(0, 1), stride=1)
    return fx.conv_transpose(fx.conv(y, w), w, stride=2, outpad=1)


def pointwise(x, w):
    return fx.conv(x, w[:, :, :1, :1])


SYMBOLIC = {"convolved": convolved, "pooled": pooled, "pointwise": pointwise}
CHANNELS = 5


@pytest.mark.cc
def test_symbolic_sizes_agree_with_the_interpreter(tmp_path):
    h, w = fx.dim("h", min=3), fx.dim("w", min=1)
    specs = [fx.f32["n", CHANNELS, h, w], fx.f32[CHANNELS, CHANNELS, 2, 2]]
    graphs = {name: vjp(trace(f, *specs)[0].graph) for name, f in SYMBOLIC.items()}
    compiled = compile_graphs(graphs, tmp_path)
    rng = np.random.default_rng(0)
    for sizes in ((1, 3, 1), (3, 5, 7), (2, 17, 4), (0, 3, 3), (1, 4, 33)):
        weight = rng.normal(size=(CHANNELS, CHANNELS, 2, 2)).astype(np.float32)
        n, *size = sizes
        x = rng.normal(size=(n, CHANNELS, *size)).astype(np.float32)
        for name, f in SYMBOLIC.items():
            shape = run(f, x, weight).shape
            arrays = [x, weight, rng.normal(size=shape).astype(np.float32)]
            got = getattr(compiled.model(2), name)(*arrays)
            for g, want in zip(got, expected(graphs[name], arrays), strict=True):
                scale = float(np.abs(want).max(initial=1.0))
                assert_agrees(g, want, f32, scale=scale, context=f"{name} at {sizes}")


def test_a_name_without_a_range_gets_the_least_size_that_fits():
    layer = nn.Conv((5, 3), 2, 4)
    entry, _ = trace(layer, fx.f32["n", 2, "h", "w"], namespace={"layer": layer})
    symbols = size_symbols(product(entry.graph.params[0].type.shape))
    assert {s.name: s.min for s in symbols} == {"n": 0, "h": 5, "w": 3}


# Meanings.


def test_flipped_kernels_are_reversed():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 6, 5)), rng.normal(size=(4, 3, 3, 2))
    np.testing.assert_allclose(
        run(lambda x, w: fx.conv(x, w, flip=True), x, w),
        run(fx.conv, x, np.flip(w, (2, 3)).copy()),
    )
    v = rng.normal(size=(3, 4, 3, 2))
    np.testing.assert_allclose(
        run(lambda x, w: fx.conv_transpose(x, w, flip=True), x, v),
        run(fx.conv_transpose, x, np.flip(v, (2, 3)).copy()),
    )


def test_the_greatest_of_padding_alone_is_minus_infinity():
    x = np.ones((1, 1, 2), np.float32)
    y = run(lambda x: fx.maxpool(x, 2, stride=4, pad=3), x)
    np.testing.assert_array_equal(y, [[[-np.inf, 1.0]]])


def test_nan_is_the_greatest_and_gets_the_gradient():
    x = np.array([[[1.0, np.nan, 3.0, 4.0]]])
    np.testing.assert_array_equal(run(lambda x: fx.maxpool(x, 2), x), [[[np.nan, 4.0]]])
    g = run(fx.grad(lambda x: fx.sum(fx.maxpool(x, 2))), x)
    np.testing.assert_array_equal(g, [[[0.0, 1.0, 0.0, 1.0]]])


@pytest.mark.cc
def test_a_position_is_found_whatever_precision_its_element_has(tmp_path):
    """16-bit values are computed in f32: the greatest and who is compared with it are rounded."""
    text = """graph @g(%0 "x": f64[40]) {
  %1: f16[40] = cast(%0) {dtype = f16}
  %2: f16[40] = rsqrt(%1)
  %3: f16[40] = reverse(%2) {axes = (0,)}
  %4: i32[40] = window_argmax(%3) {dilation = (1,), high = (0,), low = (0,), sizes = (1,), strides = (1,)}
  %5: i32[19] = window_argmax(%3) {dilation = (1,), high = (0,), low = (0,), sizes = (4,), strides = (2,)}
  %6: i64[] = argmax(%2) {axis = 0}
  return %4, %5, %6
}"""
    x = np.random.default_rng(0).uniform(1, 2, 40)
    got = compile_graphs({"g": parse_graph(text)}, tmp_path).model().g(x)
    assert got[0].max() == 0
    assert got[1].max() < 4
    assert 0 <= got[2] < 40


@pytest.mark.parametrize("size", [5, 6, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 4])
def test_same_padding_keeps_or_divides_sizes(size, stride, kernel):
    x = np.zeros((1, 2, size), np.float32)
    conv = nn.Conv((kernel,), 2, 2, stride=stride, pad=nn.SamePad())
    back = nn.ConvTranspose((kernel,), 2, 2, stride=stride, pad=nn.SamePad())
    assert run(conv, x, namespace={"conv": conv}).shape == (1, 2, -(-size // stride))
    if kernel >= stride:
        assert run(back, x, namespace={"back": back}).shape == (1, 2, size * stride)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(5, 1, 3), (4, 2, 5), (1, 1, 2)])
def test_same_padding_of_kernels_below_the_stride(size, kernel, stride):
    """A transposed convolution then leaves gaps, and still gives size * stride."""
    x, w = np.ones((1, 1, size)), np.ones((1, 1, kernel))
    y = run(lambda x, w: fx.conv_transpose(x, w, stride, pad=nn.SamePad()), x, w)
    assert y.shape == (1, 1, size * stride)
    assert y.sum() == size * kernel


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_padding_cuts_the_sides_it_names(rank):
    rng = np.random.default_rng(rank)
    x, w = rng.normal(size=(2, 4, *range(3, 3 + rank))), rng.normal(size=(4, 3, *[3] * rank))
    sides = [int(p) for p in rng.integers(0, 3, 2 * rank)]
    pad, outpad = tuple(sides), tuple(range(rank))
    whole = run(lambda x, w: fx.conv_transpose(x, w, 3, groups=2, dilation=2), x, w)
    cut = run(lambda x, w: fx.conv_transpose(x, w, 3, pad, 2, 2, outpad=outpad), x, w)
    for a, (low, high) in enumerate(zip(sides[::2], sides[1::2], strict=True)):
        lead = (slice(None),) * (a + 2)
        more = np.zeros_like(whole[(*lead, slice(0, 1))])
        whole = np.concatenate([whole] + [more] * outpad[a], a + 2)
        whole = whole[(*lead, slice(low, whole.shape[a + 2] - high))]
    np.testing.assert_allclose(cut, whole)


def test_lpnormpool_is_the_root_of_the_sum_of_powers():
    x = np.arange(1.0, 9.0).reshape(1, 1, 8)
    y = run(lambda x: fx.lpnormpool(x, 3, 2), x)
    np.testing.assert_allclose(y[0, 0], (x.reshape(4, 2) ** 3).sum(1) ** (1 / 3))


# Layers.

LAYERS = {
    "Conv((3, 3), 4, 6, relu, stride=2, pad=1)": lambda: nn.Conv((3, 3), 4, 6, fx.relu, stride=2, pad=1),
    "Conv((3,), 4, 6, groups=2, bias=False)": lambda: nn.Conv(3, 4, 6, groups=2, bias=False),
    "Conv((2, 3), 4, 6, pad=(1, 0), dilation=(1, 2), flip=True)": lambda: nn.Conv(
        (2, 3), 4, 6, pad=(1, 0), dilation=(1, 2), flip=True
    ),
    "CrossCor((3, 3), 4, 6, pad=SamePad())": lambda: nn.CrossCor((3, 3), 4, 6, pad=nn.SamePad()),
    "DepthwiseConv((3, 3), 4, 8)": lambda: nn.DepthwiseConv((3, 3), 4, 8),
    "ConvTranspose((4, 4), 4, 6, tanh, stride=2, pad=1, outpad=1)": lambda: nn.ConvTranspose(
        (4, 4), 4, 6, fx.tanh, stride=2, pad=1, outpad=1
    ),
    "MaxPool((2, 2))": lambda: nn.MaxPool((2, 2)),
    "MeanPool((3, 2), stride=1, pad=1)": lambda: nn.MeanPool((3, 2), stride=1, pad=1),
    "AdaptiveMeanPool((2, 2))": lambda: nn.AdaptiveMeanPool((2, 2)),
    "AdaptiveMaxPool((2,))": lambda: nn.AdaptiveMaxPool(2),
    "GlobalMaxPool()": nn.GlobalMaxPool,
    "GlobalMeanPool()": nn.GlobalMeanPool,
}  # fmt: skip


@pytest.mark.parametrize("text", LAYERS)
def test_layers_print_as_they_are_made(text):
    assert LAYERS[text]().describe() == text


SHAPES = {
    "Conv((3, 3), 4, 6, relu, stride=2, pad=1)": (2, 6, 4, 5),
    "DepthwiseConv((3, 3), 4, 8)": (2, 8, 5, 8),
    "ConvTranspose((4, 4), 4, 6, tanh, stride=2, pad=1, outpad=1)": (2, 6, 15, 21),
    "MaxPool((2, 2))": (2, 4, 3, 5),
    "MeanPool((3, 2), stride=1, pad=1)": (2, 4, 7, 11),
    "AdaptiveMeanPool((2, 2))": (2, 4, 2, 2),
    "GlobalMaxPool()": (2, 4, 1, 1),
    "GlobalMeanPool()": (2, 4, 1, 1),
}


@pytest.mark.parametrize("text", SHAPES)
def test_layers_give_these_shapes(text):
    layer = LAYERS[text]()
    x = np.zeros((2, 4, 7, 10), np.float32)
    assert run(layer, x, namespace={"layer": layer}).shape == SHAPES[text]


def test_a_convolution_s_parameters_have_these_names_and_shapes():
    def parameters(layer):
        _, storages = trace(layer, fx.f32["n", 4, 9, 9], namespace={"layer": layer})
        return {name: s.type.shape for name, s in storages.items()}

    assert parameters(nn.Conv((3, 2), 4, 6, groups=2)) == {"weight": (6, 2, 3, 2), "bias": (6,)}
    assert parameters(nn.ConvTranspose((3, 2), 4, 6, bias=False)) == {"weight": (4, 6, 3, 2)}


X = fx.f32["n", 4, 7, 10]
REFUSED = [
    (lambda: nn.Conv((3, 3), 3, 6), X, "Conv((3, 3), 3, 6): the input does not fit"),
    (lambda: nn.Conv((3,), 4, 6), X, "Conv((3,), 4, 6): the input does not fit"),
    (lambda: nn.Conv((8, 3), 4, 6), X, "conv: a window that spans 8 does not fit along axis 2"),
    (lambda: nn.ConvTranspose((2, 2), 4, 6, pad=9), X, "conv_transpose: a window that spans 2 does not fit along axis 2"),
    (lambda: nn.MaxPool((2, 11)), X, "maxpool: a window that spans 11 does not fit along axis 3"),
    (lambda: nn.MeanPool((2,)), X, "MeanPool((2,)): the input does not fit"),
    (nn.GlobalMeanPool, fx.f32["n", 4], "GlobalMeanPool(): the input does not fit"),
    (lambda: fx.flatten, fx.f32[()], "flatten of a scalar"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "spec", "summary"), REFUSED, ids=[r[2] for r in REFUSED])
def test_inputs_that_do_not_fit_are_refused(make, spec, summary):
    layer = make()
    namespace = {"layer": layer} if isinstance(layer, nn.Module) else {}
    with pytest.raises(ShapeError, match=re.escape(summary)):
        trace(layer, spec, namespace=namespace)


@pytest.mark.parametrize(
    ("make", "summary"),
    [
        (lambda: nn.Conv((3, 0), 3, 6), "Conv: kernel of 2 spatial axes"),
        (lambda: nn.Conv((3, 3), 3, 6, stride=0), "Conv: stride of 2 spatial axes"),
        (lambda: nn.Conv((3, 3), 3, 6, pad=(1, 2, 3)), "Conv: pad of 2 spatial axes"),
        (lambda: nn.Conv((3, 3), 3, 6, groups=2), "Conv: groups must divide in"),
        (lambda: nn.Conv((3, 3), 0, 6), "Conv: in must be an integer >= 1"),
        (lambda: nn.DepthwiseConv((3, 3), 4, 6), "DepthwiseConv: groups must divide out"),
        (lambda: nn.MaxPool((2, 2), stride=(1, 2, 3)), "MaxPool: stride of 2 spatial axes"),
    ],
)
def test_layers_that_make_no_sense_are_refused(make, summary):
    with pytest.raises(ShapeError, match=re.escape(summary)):
        make()
