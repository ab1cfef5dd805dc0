"""Initialisers: their distributions, their structure, and what they refuse."""

import math

import numpy as np
import pytest

import fluxc as fx
from dsl import run
from fluxc import init, nn

SHAPES = [(40, 30), (16, 12, 3), (12, 10, 3, 3)]


def drawn(f, shape, seed=0):
    x = f(np.random.default_rng(seed), shape)
    assert x.dtype == np.float32
    assert x.shape == shape
    return x


def fans(shape):
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


UNIFORM = {
    "glorot_uniform": lambda i, o, g: g * math.sqrt(6 / (i + o)),
    "kaiming_uniform": lambda i, o, g: g * math.sqrt(3 / i) + 0 * o,
}
NORMAL = {
    "glorot_normal": lambda i, o, g: g * math.sqrt(2 / (i + o)),
    "kaiming_normal": lambda i, o, g: g / math.sqrt(i) + 0 * o,
    "lecun_normal": lambda i, o, g: g / math.sqrt(i) + 0 * o,
}
GAINS = {"kaiming_uniform": math.sqrt(2), "kaiming_normal": math.sqrt(2)}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", UNIFORM)
def test_bounds_of_uniform_ones(name, shape):
    f = getattr(init, name)
    for options in ({}, {"gain": 0.5}):
        bound = UNIFORM[name](*fans(shape), options.get("gain", GAINS.get(name, 1)))
        x = drawn(f(**options) if options else f, shape)
        assert 0.97 * bound < np.abs(x).max() <= bound * (1 + 1e-6)
        assert abs(x.std() - bound / math.sqrt(3)) < 0.05 * bound


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NORMAL)
def test_deviations_of_normal_ones(name, shape):
    f = getattr(init, name)
    for options in ({}, {"gain": 0.5}):
        std = NORMAL[name](*fans(shape), options.get("gain", GAINS.get(name, 1)))
        x = drawn(f(**options) if options else f, shape)
        assert abs(x.std() / std - 1) < 0.1
        assert abs(x.mean()) < 0.15 * std


def test_fans():
    """Of [out, in, *kernel]; a vector of n has one input."""
    assert init.nfan(()) == (1, 1)
    assert init.nfan((100,)) == (1, 100)
    assert init.nfan((100, 200)) == (200, 100)
    assert init.nfan((60, 50, 2, 3, 4)) == (50 * 24, 60 * 24)


def test_truncated_normal_is_confined():
    f = init.truncated_normal(mean=1.0, std=3.0, lo=-0.5, hi=2.0)
    x = drawn(f, (5000,))
    assert x.min() >= -0.5
    assert x.max() <= 2.0
    assert abs(x.mean() - 0.7675) < 0.05  # nearly uniform, heavier towards 1


@pytest.mark.parametrize(
    "shape", [(5, 8), (8, 5), (4, 4), (6, 2, 3), (3, 5, 2, 2), (1, 1)], ids=str
)
def test_orthogonal_rows_or_columns(shape):
    x = drawn(init.orthogonal(gain=2.0), shape).astype(np.float64).reshape(shape[0], -1)
    inner = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    np.testing.assert_allclose(inner, 4 * np.eye(len(inner)), atol=1e-5)
    with pytest.raises(ValueError, match="at least two axes"):
        init.orthogonal(np.random.default_rng(0), (3,))


@pytest.mark.parametrize(("sparsity", "zeros"), [(0.9, 9), (0.0, 0), (0.01, 1), (2.0, 10)])
def test_sparse_columns(sparsity, zeros):
    x = drawn(init.sparse_init(sparsity=sparsity), (10, 11))
    np.testing.assert_array_equal((x == 0).sum(axis=0), zeros)
    with pytest.raises(ValueError, match="two axes"):
        init.sparse_init(sparsity=0.5)(np.random.default_rng(0), (3,))


def test_identity():
    """gain on the diagonal, in the middle of a kernel, rolled by shift; vectors are 0."""
    np.testing.assert_array_equal(drawn(init.identity_init(gain=3), (3, 5)), 3 * np.eye(3, 5))
    np.testing.assert_array_equal(drawn(init.identity_init, (4,)), 0)
    line = drawn(init.identity_init(gain=100), (2, 3, 3))
    want = np.zeros((2, 3, 3))
    want[[0, 1], [0, 1], 1] = 100
    np.testing.assert_array_equal(line, want)
    rolled = drawn(init.identity_init(shift=(0, 1)), (3, 3))
    np.testing.assert_array_equal(rolled, np.roll(np.eye(3), 1, axis=1))


@pytest.mark.parametrize("kind", [nn.Conv, nn.ConvTranspose])
@pytest.mark.parametrize("kernel", [(1, 2), (3, 4)])
def test_an_identity_convolution_is_one_for_even_kernels_too(kind, kernel):
    layer = kind(kernel, 2, 2, init=init.identity_init, pad=nn.SamePad())
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(layer, x, namespace={"layer": layer}), x)


def test_flux_s_names_of_constants():
    np.testing.assert_array_equal(drawn(init.ones32, (2, 3)), 1)
    np.testing.assert_array_equal(drawn(init.zeros32, (0, 3)), 0)
    x = drawn(init.rand32, (2000,))
    assert 0 <= x.min() < 0.01
    assert 0.99 < x.max() < 1
    assert abs(drawn(init.randn32, (5000,)).std() - 1) < 0.05


def test_one_seed_gives_one_value_and_each_parameter_its_own():
    a, b = (drawn(init.glorot_uniform, (4, 4), seed) for seed in (1, 2))
    assert (a != b).any()
    np.testing.assert_array_equal(a, drawn(init.glorot_uniform, (4, 4), 1))


@pytest.mark.parametrize("name", sorted({*init.__all__} - {"nfan"}))
def test_a_wrong_keyword_is_refused_where_it_stands(name):
    with pytest.raises(TypeError, match="sdt"):
        getattr(init, name)(sdt=0.02)


def test_an_initialiser_of_another_shape_is_refused():
    p = fx.Param((2, 3), init=lambda _, shape: np.zeros(shape[::-1]))
    with pytest.raises(fx.ShapeError, match="another shape"):
        p.initial(np.random.default_rng(0))


def test_an_option_that_an_initialiser_does_not_have_is_refused_where_it_is_given():
    with pytest.raises(fx.TraceError, match="randn has no option 'std'") as caught:
        init.randn(std=2.0)
    assert caught.value.loc.file == __file__
    with pytest.raises(fx.TraceError, match="glorot_uniform has no option 'scale'"):
        nn.Dense(2, 3, init=init.glorot_uniform(scale=2.0))
