"""Pooling, padding, resampling, sampling, patches: PyTorch's values, every size, what is refused."""

# ruff: noqa: ARG005, E501, PLW0108 (tables of functions of one signature, a row each)

import re
from fractions import Fraction

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs, expected
from golden import spatial as golden

import fluxc as fx
from dsl import run, spec_of, trace, type_of
from fluxc import nn
from fluxc.compiler.autodiff import vjp
from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.types import f32

with np.load(golden.FILE) as stored:
    GOLDEN = dict(stored)
RNG = np.random.default_rng(0)


def differentiated(name, dtype=np.float64):
    """The graph of a case: operands and a cotangent give the result and every gradient."""
    _, function, _ = golden.CASES[name]
    specs = [spec_of(x.astype(dtype)) for x in golden.inputs(name)]
    return vjp(trace(lambda *xs: function(fx, *xs), *specs)[0].graph)


def arguments(name, dtype=np.float64):
    given = [*golden.inputs(name), golden.seed(name, GOLDEN[f"{name}.y"].shape)]
    return [x.astype(dtype) for x in given]


def wanted(name):
    count = len(golden.CASES[name][0])
    return [GOLDEN[f"{name}.y"], *(GOLDEN[f"{name}.g{i}"] for i in range(count))]


@pytest.mark.parametrize("name", golden.CASES)
def test_the_interpreter_agrees_with_pytorch(name):
    got = expected(differentiated(name), arguments(name))
    for g, w in zip(got, wanted(name), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.cc
def test_compiled_code_agrees_with_pytorch(tmp_path):
    compiled = compile_graphs({n: differentiated(n, np.float32) for n in golden.CASES}, tmp_path)
    model = compiled.model(2)
    for name in golden.CASES:
        got = getattr(model, name)(*arguments(name, np.float32))
        for g, w in zip(got, wanted(name), strict=True):
            scale = float(np.abs(w).max(initial=1.0))
            assert_agrees(g, w, f32, scale=scale, context=name)


# Sizes that run time knows.


def _resized(x):
    y = fx.upsample_bilinear(x, 1.5) - fx.upsample_bilinear(x, 1.5, align_corners=False)
    return y * fx.upsample_nearest(x, 1.5) + fx.upsample_bicubic(x, 1.5)


def _to_fixed(x):
    return fx.upsample_bilinear(x, size=(4, 3), align_corners=False) + fx.upsample_nearest(
        x, size=(4, 3)
    )


def _pooled(x):
    y = fx.maxpool(x, 2, stride=3, pad=(0, 1), ceil_mode=True)
    return y * fx.meanpool(x, 2, stride=3, pad=(0, 1), ceil_mode=True) + fx.lpnormpool(
        x * x + 0.5, 3, 2, stride=3, pad=(0, 1), ceil_mode=True
    )


def _unpooled(x):
    y, at = fx.maxpool(x, 2, return_indices=True)
    return fx.maxunpool(y, at, 2, size=x.shape[2:])


def _patches(x):
    return fx.unfold(x, (3, 2), stride=(1, 2), pad=(1, 0, 1, 1))


def _there_and_back(x):
    return fx.fold(_patches(x), x.shape[2:], (3, 2), stride=(1, 2), pad=(1, 0, 1, 1))


def _turned(x):
    turns = fx.array([[[0.8, -0.6, 0.1], [0.6, 0.8, -0.2]]])
    grid = fx.affine_grid(fx.repeat(turns, 1, 0) + fx.zeros((x.shape[0], 1, 1)), x.shape)
    return fx.grid_sample(x, grid) + fx.imrotate(x, 0.3) + fx.imrotate(x, x[:, 0, 0, 0])


def _mirrored(x):
    return fx.pad_reflect(x, (1, 1, 0, 1)) * fx.pad_repeat(x, (1, 1, 0, 1))


SYMBOLIC = {
    f.__name__.strip("_"): f
    for f in (
        _resized,
        _to_fixed,
        _pooled,
        _unpooled,
        _patches,
        _there_and_back,
        _turned,
        _mirrored,
    )
}


@pytest.mark.cc
def test_symbolic_sizes_give_what_fixed_sizes_give(tmp_path):
    spec = fx.f32["n", 2, fx.dim("h", min=2), fx.dim("w", min=2)]
    graphs = {name: vjp(trace(f, spec)[0].graph) for name, f in SYMBOLIC.items()}
    model = compile_graphs(graphs, tmp_path).model(2)
    for shape in ((1, 2, 3, 2), (2, 2, 7, 5), (3, 2, 2, 9), (0, 2, 4, 4)):
        x = RNG.normal(size=shape)
        for name, f in SYMBOLIC.items():
            fixed = vjp(trace(f, spec_of(x))[0].graph)
            arrays = [x, RNG.normal(size=fixed.results[0].type.shape)]
            small = [a.astype(np.float32) for a in arrays]
            got = getattr(model, name)(*small)
            for g, want in zip(
                got, expected(fixed, [s.astype(np.float64) for s in small]), strict=True
            ):
                scale = float(np.abs(want).max(initial=1.0)) * 4
                assert_agrees(g, want, f32, scale=scale, context=f"{name} at {shape}")


# Meanings.


def test_unpooling_drops_what_lies_outside():
    """Windows of padding alone have no place; a size may be given."""
    x = np.arange(6.0).reshape(1, 1, 6)

    def f(x):
        y, at = fx.maxpool(x, 2, stride=3, pad=2, return_indices=True)
        return at, fx.maxunpool(fx.where(fx.isfinite(y), y, 9), at, 2, 3, 2, size=6)

    at, y = run(f, x)
    np.testing.assert_array_equal(at[0, 0, 1:], [2, 5])
    np.testing.assert_array_equal(y, [[[0, 0, 2, 0, 0, 5]]])


def test_the_gradient_of_a_norm_is_finite_where_it_is_zero():
    x = np.array([[[0.0, 0.0, 3.0, 4.0]]])
    g = run(fx.grad(lambda x: fx.lpnormpool(x, 2, 2).sum()), x)
    np.testing.assert_allclose(g, [[[0, 0, 0.6, 0.8]]])
    g = run(fx.grad(lambda x: fx.lpnormpool(x, 1, 2).sum()), x)
    np.testing.assert_allclose(g, np.ones((1, 1, 4)))


def rotated(x, theta, center, method):
    """NNlib's formula, pixel by pixel, for one image."""
    y = np.zeros_like(x)
    sine, cosine = np.sin(theta), np.cos(theta)
    for h, w in np.ndindex(*x.shape):
        v, u = h - center[0], w - center[1]
        at = np.array([sine * u + cosine * v + center[0], cosine * u - sine * v + center[1]])
        if method == "nearest":
            at = np.rint(at + 1).astype(int) - 1
            if (at >= 0).all() and (at < x.shape).all():
                y[h, w] = x[tuple(at)]
            continue
        low = np.floor(at).astype(int)
        if (low >= 0).all() and (low + 1 < x.shape).all():
            a, b = at - low
            y[h, w] = (1 - a) * (1 - b) * x[tuple(low)] + a * (1 - b) * x[low[0] + 1, low[1]]
            y[h, w] += (1 - a) * b * x[low[0], low[1] + 1] + a * b * x[tuple(low + 1)]
    return y


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_rotation_is_nnlib_s(method):
    x = RNG.normal(size=(2, 1, 7, 6))
    for theta, center in ((0.3, (3, 3)), (-2.1, (2, 4))):
        want = np.stack([rotated(image, theta, center, method) for image in x[:, 0]])[:, None]
        options = {} if center == (3, 3) else {"rotation_center": center}
        got = run(lambda x, t=theta, o=options: fx.imrotate(x, t, method, **o), x)
        np.testing.assert_allclose(got, want, atol=1e-12)
        each = run(lambda x, t, o=options: fx.imrotate(x, t, method, **o), x, np.full(2, theta))
        np.testing.assert_allclose(each, want, atol=1e-12)


def test_quarter_turns_are_exact():
    x = np.arange(9, dtype=np.int32).reshape(1, 1, 3, 3)
    got = run(lambda x: fx.imrotate(x, np.pi / 2, "nearest"), x)
    np.testing.assert_array_equal(got[0, 0], np.rot90(x[0, 0]))
    y = RNG.normal(size=(1, 2, 4, 4)).astype(np.float32)
    got = run(lambda x: fx.imrotate(x, np.pi, rotation_center=(1.5, 1.5)), y)
    np.testing.assert_array_equal(got, y[..., ::-1, ::-1])


def test_a_grid_of_corners_has_flux_s_gradient():
    x = np.ones((1, 1, 2, 2))
    grid = np.array([[[[-1.0, -1], [1, -1]], [[-1, 1], [1, 1]]]])
    f = lambda mode: fx.grad(lambda x, g: fx.grid_sample(x, g, padding_mode=mode).sum(), (0, 1))
    dx, dg = run(f("zeros"), x, grid)
    np.testing.assert_allclose(dx, np.ones((1, 1, 2, 2)))
    np.testing.assert_allclose(dg[0], [[[0, 0], [-0.5, 0]], [[0, -0.5], [-0.5, -0.5]]])
    assert not run(f("border"), x, grid)[1].any()


@pytest.mark.parametrize("dtype", [fx.f16, fx.bf16])
def test_sixteen_bit_images_are_resampled_in_f32(dtype):
    def f(x):
        x = x.astype(dtype)
        y = fx.upsample_bilinear(x, size=(5, 6)), fx.upsample_bicubic(x, 2), fx.meanpool(x, 2)
        grid = fx.affine_grid(fx.ones((1, 2, 3), dtype) * 0.3, (3, 4))
        return *y, fx.grid_sample(x, grid), fx.unfold(x, 2), fx.imrotate(x, 0.2)

    x = RNG.normal(size=(1, 2, 4, 4)).astype(np.float32)
    entry, _ = trace(f, spec_of(x))
    assert {str(r.type.dtype) for r in entry.graph.results} == {str(dtype)}
    exact = lambda x: (fx.upsample_bilinear(x, size=(5, 6)), fx.upsample_bicubic(x, 2))
    for got, want in zip(run(f, x)[:2], run(exact, x.astype(np.float64)), strict=True):
        np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=0.05, atol=0.05)


def test_integers_are_read_or_become_floats():
    x = np.arange(12, dtype=np.int32).reshape(1, 1, 3, 4)
    functions = {
        "i32[1, 1, 6, 8]": lambda x: fx.upsample_nearest(x, 2),
        "i32[1, 1, 4, 3]": lambda x: fx.upsample_nearest(x, size=(4, 3)),
        "f32[1, 1, 6, 8]": lambda x: fx.upsample_bilinear(x, 2),
        "i64[1, 1, 3, 4]": lambda x: fx.fold(fx.unfold(x, 2), (3, 4), 2),
    }
    for text, f in functions.items():
        assert type_of(f, spec_of(x)) == text
        run(f, x)
    np.testing.assert_array_equal(
        run(lambda x: fx.grid_sample(x, fx.zeros((1, 1, 1, 2)), "nearest"), x), [[[[6]]]]
    )


@pytest.mark.parametrize("scale", [1.1, np.float32(1.1), Fraction(11, 10)])
def test_scales_are_fractions(scale):
    """1.1 is 11/10, however it is rounded, and for symbolic sizes too."""
    f = lambda x: fx.upsample_nearest(x, scale)
    assert type_of(f, fx.f32[1, 1, 10, 29]) == "f32[1, 1, 11, 31]"
    assert type_of(f, fx.f32["n", 1, "10*h"]) == "f32[n, 1, 11*h]"


def test_second_derivatives_of_resampling():
    """The square of a resampled signal: the Hessian is twice the product of the table."""
    table = run(lambda x: fx.upsample_linear(x, size=5), np.eye(3)[:, None])[:, 0]
    h = run(
        fx.hessian(lambda v: (fx.upsample_linear(v, size=5) ** 2).sum()),
        np.ones((1, 1, 3)),
    )
    np.testing.assert_allclose(h.reshape(3, 3), 2 * table @ table.T, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pixels_are_shuffled_along_any_number_of_axes(rank):
    x = RNG.normal(size=(2, 3 * 2**rank, *range(2, 2 + rank)))
    y = run(lambda x: fx.pixel_shuffle(x, 2), x)
    assert y.shape == (2, 3, *(2 * s for s in x.shape[2:]))
    for place in np.ndindex(*y.shape):
        n, c, *at = place
        for a in at:
            c = 2 * c + a % 2
        assert y[place] == x[(n, c, *(a // 2 for a in at))]
    np.testing.assert_array_equal(run(lambda x: fx.pixel_unshuffle(x, 2), y), x)


def test_ties_of_random_windows_go_to_the_first():
    samples = np.zeros((1, 1, 1))
    f = lambda x: fx.fractional_maxpool(x, 3, 2, samples).sum()
    np.testing.assert_array_equal(run(fx.grad(f), np.ones((1, 1, 6))), [[[1, 0, 0, 1, 0, 0]]])


MAPPED = {
    "resized": lambda x: fx.upsample_bilinear(x, size=(5, 2)) + fx.upsample_nearest(x, size=(5, 2)),
    "patches": lambda x: fx.unfold(x, 2, stride=2, pad=1),
    "folded": lambda x: fx.fold(x.reshape((1, 4, 6)), (4, 3), 2),
    "sampled": lambda x: fx.grid_sample(x, fx.tanh(x[:, 0].reshape((1, 2, 3, 2)))),
    "unpooled": lambda x: fx.maxunpool(*fx.maxpool(x, 2, return_indices=True), 2, size=(4, 3)),
    "mean": lambda x: (
        fx.meanpool(x, 2, ceil_mode=True) * fx.lpnormpool(x * x, 3, 2, ceil_mode=True)
    ),
    "spectrum": lambda x: fx.spectrogram(x.ravel(), 4, 3),
}


@pytest.mark.parametrize("name", MAPPED)
def test_batches_and_forward_mode(name):
    """vmap is a loop, and forward mode the transpose of reverse mode."""
    f = MAPPED[name]
    x = RNG.normal(size=(3, 1, 2, 4, 3)) if name != "folded" else RNG.normal(size=(3, 1, 4, 6))
    each = np.stack([run(f, one) for one in x])
    np.testing.assert_allclose(run(fx.vmap(f), x), each, atol=1e-12)
    t, dy = RNG.normal(size=x[0].shape), RNG.normal(size=each[0].shape)
    _, tangent = run(lambda x, t: fx.jvp(f, (x,), (t,)), x[0], t)
    g = run(lambda x, dy: fx.grad(lambda x: (f(x) * dy).sum())(x), x[0], dy)
    np.testing.assert_allclose((tangent * dy).sum(), (g * t).sum(), rtol=1e-9)


# Padding as NNlib's tests have it, its axes in their order.

NINE = np.arange(1.0, 10).reshape(3, 3).T
PADDED = [
    (lambda x: fx.pad_repeat(x, (1, 2), dims=0), [[1, 4, 7], [1, 4, 7], [2, 5, 8], [3, 6, 9], [3, 6, 9], [3, 6, 9]]),
    (lambda x: fx.pad_reflect(x, (2, 2), dims=1), [[7, 4, 1, 4, 7, 4, 1], [8, 5, 2, 5, 8, 5, 2], [9, 6, 3, 6, 9, 6, 3]]),
    (lambda x: fx.pad_reflect(x, (1, 0, 1, 0)), [[5, 2, 5, 8], [4, 1, 4, 7], [5, 2, 5, 8], [6, 3, 6, 9]]),
    (lambda x: fx.pad_symmetric(x, (2, 2), dims=1), [[4, 1, 1, 4, 7, 7, 4], [5, 2, 2, 5, 8, 8, 5], [6, 3, 3, 6, 9, 9, 6]]),
    (lambda x: fx.pad_circular(x, (2, 2), dims=1), [[4, 7, 1, 4, 7, 1, 4], [5, 8, 2, 5, 8, 2, 5], [6, 9, 3, 6, 9, 3, 6]]),
    (lambda x: fx.pad_constant(x[:2, :2], (1, 2, 0, 1), 8), [[8, 8, 8], [1, 4, 8], [2, 5, 8], [8, 8, 8], [8, 8, 8]]),
    (lambda x: fx.pad_zeros(x[:2, :2], (0, 1)), [[0, 1, 4, 0], [0, 2, 5, 0]]),
    (lambda x: fx.pad_zeros(x[:1, :1], 1), [[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    (lambda x: fx.pad_circular(x[None, None, 0], 1)[0], [[7, 1, 4, 7, 1]]),
]  # fmt: skip


@pytest.mark.parametrize(("f", "want"), PADDED)
def test_padding_is_nnlib_s(f, want):
    np.testing.assert_array_equal(run(f, NINE), want)


# Layers.

LAYERS = {
    "MaxPool((3, 3), stride=2, ceil_mode=True, dilation=2)": (lambda: nn.MaxPool((3, 3), stride=2, dilation=2, ceil_mode=True), (2, 4, 2, 3)),
    "MeanPool((3, 3), pad=1, count_include_pad=False)": (lambda: nn.MeanPool((3, 3), pad=1, count_include_pad=False), (2, 4, 3, 3)),
    "LPPool(2, (2, 2))": (lambda: nn.LPPool(2, (2, 2)), (2, 4, 3, 4)),
    "GlobalLPPool(3)": (lambda: nn.GlobalLPPool(3), (2, 4, 1, 1)),
    "FractionalMaxPool((2, 2), (3, 4))": (lambda: nn.FractionalMaxPool(2, (3, 4)), (2, 4, 3, 4)),
    "Upsample(2, mode='nearest')": (lambda: nn.Upsample(2), (2, 4, 14, 18)),
    "Upsample((2, 1), mode='bilinear')": (lambda: nn.Upsample("bilinear", scale=(2, 1)), (2, 4, 14, 9)),
    "Upsample(size=(3, 20), mode='bicubic', align_corners=False)": (lambda: nn.Upsample(size=(3, 20), mode="bicubic", align_corners=False), (2, 4, 3, 20)),
    "PixelShuffle(2)": (lambda: nn.PixelShuffle(2), (2, 1, 14, 18)),
    "ZeroPad((1, 2, 3, 0))": (lambda: nn.ZeroPad((1, 2, 3, 0)), (2, 4, 10, 12)),
    "ConstantPad(1, 5.0)": (lambda: nn.ConstantPad(1, 5.0), (2, 4, 9, 11)),
    "ReflectionPad((2, 1))": (lambda: nn.ReflectionPad((2, 1)), (2, 4, 11, 11)),
    "ReplicationPad(2)": (lambda: nn.ReplicationPad((2, 2)), (2, 4, 11, 13)),
    "CircularPad((0, 3))": (lambda: nn.CircularPad((0, 3)), (2, 4, 7, 15)),
}  # fmt: skip


@pytest.mark.parametrize("text", LAYERS)
def test_layers_print_as_they_are_made_and_give_these_shapes(text):
    make, shape = LAYERS[text]
    layer = make()
    assert layer.describe() == text
    assert run(layer, np.zeros((2, 4, 7, 9), np.float32), namespace={"m": layer}).shape == shape


def test_layers_compute_what_the_functions_do():
    x = RNG.normal(size=(2, 4, 6, 8)).astype(np.float32)
    pool = nn.MaxPool((2, 2), return_indices=True)
    unpool = nn.MaxUnpool((2, 2))
    pairs = [
        (lambda x: unpool(*pool(x)), lambda x: fx.where(fx.upsample_nearest(fx.maxpool(x, 2), 2) == x, x, 0)),
        (nn.PixelUnshuffle(2), lambda x: fx.pixel_unshuffle(x, 2)),
        (nn.ZeroPad((1, 0, 2, 1)), lambda x: fx.pad(x, ((0, 0), (0, 0), (1, 0), (2, 1)))),
        (nn.Upsample(3, "bilinear"), lambda x: fx.upsample_bilinear(x, 3)),
        (nn.GlobalLPPool(2), lambda x: fx.sqrt((x * x).sum((2, 3), keepdims=True))),
        (nn.LPPool(4, (3, 2)), lambda x: fx.lpnormpool(x, 4, (3, 2))),
    ]  # fmt: skip
    for layer, function in pairs:
        np.testing.assert_array_equal(run(lambda x, f=layer: f(x), x), run(function, x))


def test_random_windows_are_of_the_image():
    """Every result is an element, at places that grow, and another each time."""
    layer = nn.FractionalMaxPool((2,), (4,))
    x = np.arange(10.0, dtype=np.float32).reshape(1, 1, 10)
    firsts = {
        tuple(
            run(layer, x, namespace={"m": layer}, values={"random.seed": s, "random.step": 0})[0, 0]
        )
        for s in range(8)
    }
    assert len(firsts) > 1
    for places in firsts:
        assert sorted(places) == list(places)
        assert places[-1] == 9


def test_convolutions_take_their_weights():
    w, b = RNG.normal(size=(6, 2, 3)).astype(np.float32), RNG.normal(size=6).astype(np.float32)
    x = RNG.normal(size=(2, 4, 9)).astype(np.float32)
    layer = nn.Conv(w, b, fx.relu, groups=2, pad=1)
    assert layer.describe() == "Conv((3,), 4, 6, relu, pad=1, groups=2)"
    got = run(layer, x, namespace={"m": layer})
    want = run(lambda x: fx.conv_bias_act(x, w, b, fx.relu, pad=1, groups=2), x)
    np.testing.assert_array_equal(got, want)
    by_hand = run(lambda x: fx.relu(fx.conv(x, w, pad=1, groups=2) + b[:, None]), x)
    np.testing.assert_array_equal(got, by_hand)
    back = nn.ConvTranspose(w, False, groups=2)
    assert (back.in_size, back.out_size, back.bias) == (6, 4, None)
    deep = nn.DepthwiseConv(RNG.normal(size=(4, 3, 5)))
    assert (deep.in_size, deep.out_size, deep.weight.type.shape) == (4, 12, (12, 1, 5))
    tied = nn.Conv(layer.weight, bias=False, groups=2)
    assert tied.weight is layer.weight


X = fx.f32["n", 4, 7, 10]
REFUSED = [
    (fx.upsample_nearest, "upsample_nearest takes scale or size"),
    (lambda x: fx.upsample_nearest(x, -1), "upsample_nearest: scale of 2 spatial axes"),
    (lambda x: fx.upsample_bilinear(x, size=(1, 2, 3)), "upsample_bilinear: size of 2 spatial axes"),
    (lambda x: fx.upsample_linear(x, 2), "upsample_linear takes 1 spatial axes"),
    (lambda x: fx.pixel_shuffle(x, 3), "pixel_shuffle: 3**2 must divide the channels"),
    (lambda x: fx.pixel_unshuffle(x, 2), "pixel_unshuffle: 2 must divide the sizes"),
    (lambda x: fx.grid_sample(x, fx.zeros((1, 2, 2))), "grid_sample: the grid does not fit"),
    (lambda x: fx.grid_sample(x[:1], fx.zeros((1, 2, 2)), "trilinear"), "grid_sample: mode 'trilinear' of 2 spatial axes"),
    (lambda x: fx.grid_sample(x[:1], fx.zeros((1, 2, 2)), padding_mode="same"), "grid_sample: padding_mode 'same'"),
    (lambda x: fx.affine_grid(fx.zeros((1, 2, 2)), (3, 3)), "affine_grid: theta and the size do not match"),
    (lambda x: fx.imrotate(x[0], 1.0), "imrotate takes images"),
    (lambda x: fx.imrotate(x, fx.zeros((3,))), "imrotate: one angle, or one for each image"),
    (lambda x: fx.imrotate(x, 1.0, "cubic"), "imrotate: method 'cubic'"),
    (lambda x: fx.fold(x[0], (3, 3), 2), "fold: the patches do not fit"),
    (lambda x: fx.unfold(x, 8), "unfold: a window that spans 8 does not fit along axis 2"),
    (lambda x: fx.maxunpool(x, x[:, :1].astype(fx.i32), 2), "maxunpool: one index for each element"),
    (lambda x: fx.lpnormpool(x, 0, 2), "lpnormpool: p must be positive and finite"),
    (lambda x: fx.fractional_maxpool(x, 4, 5), "fractional_maxpool: a window that spans 8 does not fit along axis 2"),
    (lambda x: fx.pad_constant(x, (1, 2, 3)), "pad_constant: pad of 4 axes"),
    (lambda x: fx.pad_reflect(x[0, 0], 1), "pad_reflect of no axis but batch and channels"),
    (lambda x: fx.bias_act(fx.relu, x, np.zeros(3)), "bias_act: one number for each channel"),
    (lambda x: nn.Upsample("cubic", scale=2)(x), "Upsample: mode 'cubic'"),
    (lambda x: nn.Upsample()(x), "Upsample takes scale or size"),
    (lambda x: nn.ZeroPad(nn.SamePad())(x), "ZeroPad has no kernel"),
    (lambda x: nn.ZeroPad((1, 2, 3))(x), "ZeroPad: pad of 2 spatial axes"),
    (lambda x: nn.Conv(np.zeros((4, 3)))(x), "Conv of a weight with 2 axes"),
    (lambda x: nn.Conv(np.zeros((4, 4, 3, 3)), np.zeros(3))(x), "Param: the initial value has another shape"),
]  # fmt: skip


@pytest.mark.parametrize(("f", "summary"), REFUSED, ids=[summary for _, summary in REFUSED])
def test_what_makes_no_sense_is_refused(f, summary):
    with pytest.raises(ShapeError, match=re.escape(summary)):
        trace(f, X)
