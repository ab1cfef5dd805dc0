"""NNlib's batched products, gather and scatter; windows, spectra, decibels and mel filters."""

# ruff: noqa: E501  (a row of a table is one line)

import re

import numpy as np
import pytest
from compiled import assert_graph_agrees, compile_graphs, expected

import fluxc as fx
from dsl import run, spec_of, trace
from fluxc.compiler.autodiff import vjp
from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.dims import evaluate_size
from fluxc.compiler.ir.interp import bind_sizes

RNG = np.random.default_rng(3)


# ---- products of batches


@pytest.mark.parametrize(
    ("left", "right"),
    [((4, 2, 3), (4, 3, 5)), ((1, 2, 3), (4, 3, 5)), ((2, 3), (4, 3, 5)), ((4, 2, 3), (3, 1)), ((2, 4, 1, 3), (2, 4, 3, 2))],
)  # fmt: skip
def test_batched_mul_multiplies_matrix_by_matrix(left, right):
    a, b = RNG.normal(size=left), RNG.normal(size=right)
    np.testing.assert_allclose(run(fx.batched_mul, a, b), a @ b)


def test_batched_vec_and_transpose():
    a, x = RNG.normal(size=(4, 2, 3)), RNG.normal(size=(4, 3))
    np.testing.assert_allclose(run(fx.batched_vec, a, x), np.einsum("bmk,bk->bm", a, x))
    np.testing.assert_allclose(run(fx.batched_vec, a, x[0]), a @ x[0])
    np.testing.assert_array_equal(run(fx.batched_transpose, a), a.swapaxes(1, 2))
    np.testing.assert_array_equal(run(fx.batched_adjoint, a), a.swapaxes(1, 2))


# ---- gather and scatter: NNlib's own examples, positions from 0

I = np.array([[0, 1, 2, 3], [3, 1, 0, 2], [2, 4, 4, 2]])  # noqa: E741
SRC = np.tile(np.arange(1.0, 5), (3, 1))
ALLOCATED = {
    "add": [4, 4, 12, 5, 5],
    "sub": [-4, -4, -12, -5, -5],
    "max": [3, 2, 4, 4, 3],
    "min": [1, 2, 1, 1, 2],
    "mul": [3, 4, 48, 4, 6],
    "div": [1 / 3, 1 / 4, 1 / 48, 1 / 4, 1 / 6],
    "mean": [2, 2, 3, 2.5, 2.5],
}
INTO = {
    "add": [5, 6, 9, 8, 9],
    "sub": [1, 2, 1, 4, 5],
    "max": [3, 4, 5, 6, 7],
    "min": [1, 1, 1, 1, 1],
    "mul": [3, 4, 5, 6, 7],
    "div": [3, 4, 5, 6, 7],
    "mean": [4, 5, 6, 7, 8],
}


@pytest.mark.parametrize("reduce", ALLOCATED)
def test_scatter_is_nnlib_s(reduce):
    want = ALLOCATED[reduce]
    np.testing.assert_allclose(run(lambda u: fx.scatter(reduce, u, I), SRC), want)
    got = run(lambda u, i: fx.scatter(reduce, u, i, dstsize=5), SRC, I)
    np.testing.assert_allclose(got, want)
    into = run(lambda x, u: fx.scatter(x, I, u, reduce), np.arange(3.0, 8), np.ones((3, 4)))
    np.testing.assert_allclose(into, INTO[reduce])


def test_what_scatter_puts_where_nothing_comes():
    at = np.array([0, 2])
    empty = {
        r: run(lambda u, r=r: fx.scatter(r, u, at, dstsize=4), np.ones(2))[3] for r in ALLOCATED
    }
    assert empty == {
        "add": 0,
        "sub": 0,
        "max": -np.inf,
        "min": np.inf,
        "mul": 1,
        "div": 1,
        "mean": 0,
    }
    whole = run(lambda u: fx.scatter("max", u, at, dstsize=4), np.ones(2, np.int32))
    np.testing.assert_array_equal(whole, [1, np.iinfo(np.int32).min, 1, np.iinfo(np.int32).min])
    np.testing.assert_array_equal(
        run(lambda u: fx.scatter("add", u, at, dstsize=(4, 2), init=7), np.ones((2, 2))),
        np.array([8, 7, 8, 7])[:, None] * np.ones(2),
    )


def test_gather_reads_what_scatter_writes():
    x = RNG.normal(size=(4, 5, 3))
    i, j = np.array([[3, 0], [-1, 2]]), np.array([1, 4])
    np.testing.assert_array_equal(run(fx.gather, x, i), x[i])
    np.testing.assert_array_equal(run(lambda x, i, j: fx.gather(x, (i, j)), x, i, j), x[i, j])
    np.testing.assert_array_equal(run(lambda x: fx.gather(x, np.array([9])), x), x[[3]])
    g = run(lambda x, i: fx.grad(lambda x: fx.gather(x, i).sum())(x), x, np.array([1, 1, 2]))
    np.testing.assert_array_equal(g, np.array([0, 2, 1, 0])[:, None, None] * np.ones((5, 3)))


@pytest.mark.parametrize("reduce", ["sub", "div", "mean"])
def test_the_gradient_of_scatter_is_that_of_its_formula(reduce):
    x, u, at = RNG.uniform(1, 2, 4), RNG.uniform(1, 2, 6), np.array([0, 3, 0, 1, 0, 3])
    w = RNG.normal(size=4)
    f = lambda x, u: (fx.scatter(x, at, u, reduce) * w).sum()
    gradients = run(fx.grad(f, (0, 1)), x, u)
    for n, given in enumerate((x, u)):
        for k in range(given.size):
            plus, minus = ([v.copy() for v in (x, u)] for _ in range(2))
            plus[n][k] += 1e-6
            minus[n][k] -= 1e-6
            slope = (run(f, *plus) - run(f, *minus)) / 2e-6
            np.testing.assert_allclose(gradients[n][k], slope, rtol=1e-6, atol=1e-8)


# ---- sound: PyTorch's spectra are in test_spatial


def test_windows_are_those_of_their_formula():
    for n in (2, 5, 256):
        k = np.arange(n)
        np.testing.assert_allclose(
            fx.hann_window(n, dtype="f64"), 0.5 - 0.5 * np.cos(2 * np.pi * k / n), atol=1e-15
        )
        np.testing.assert_allclose(
            fx.hamming_window(n, False, dtype="f64"), np.hamming(n), atol=1e-15
        )
        np.testing.assert_array_equal(fx.hann_window(n), fx.hann_window(n + 1, False)[:-1])
    assert fx.hann_window(1).tolist() == [1.0]
    assert fx.hamming_window(3).dtype == np.float32


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_spectra_are_numpy_s(size):
    x = RNG.normal(size=(2, 3, 40))
    w = RNG.uniform(0.5, 1, size)
    hop = max(size // 3, 1)
    frames = np.lib.stride_tricks.sliding_window_view(x, size, -1)[..., ::hop, :] * w
    want = np.fft.rfft(frames).swapaxes(-1, -2)
    got = run(lambda x, w: fx.stft(x, size, hop, w, center=False), x, w)
    np.testing.assert_allclose(got[..., 0] + 1j * got[..., 1], want, atol=1e-12)
    energy = run(
        lambda x, w: fx.spectrogram(x, size, hop, w, center=False, window_normalized=True), x, w
    )
    np.testing.assert_allclose(energy, np.abs(want) ** 2 / (w @ w), atol=1e-6)
    root = run(lambda x: fx.spectrogram(x, size, hop, pad=3, power=1.0, center=False), x)
    wide = np.pad(x, [(0, 0), (0, 0), (3, 3)])
    frames = np.lib.stride_tricks.sliding_window_view(wide, size, -1)[..., ::hop, :]
    np.testing.assert_allclose(root, np.abs(np.fft.rfft(frames)).swapaxes(-1, -2), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"center": False}, {"normalized": True}])
@pytest.mark.parametrize("size", [8, 9])
def test_a_signal_comes_back_from_its_spectrum(size, options):
    x = RNG.normal(size=(2, 45))
    w = RNG.uniform(0.5, 1, size)  # nowhere 0, so that the border is known too

    def f(x, w):
        y = fx.stft(x, size, 3, w, **options)
        return fx.istft(y, size, 3, w, **options), fx.istft(
            y, size, 3, w, original_length=50, **options
        )

    short, long = run(f, x, w)
    np.testing.assert_allclose(short, x[:, : short.shape[1]], atol=1e-12)
    assert 45 - 3 < short.shape[1] <= 45
    assert long.shape == (2, 50)
    np.testing.assert_allclose(long[:, : short.shape[1]], short, atol=1e-12)


def test_decibels():
    s = np.array([[1e-12, 1e-3], [1.0, 100.0]])
    np.testing.assert_allclose(run(fx.power_to_db, s), [[-60, -30], [0, 20]])
    np.testing.assert_allclose(
        run(lambda s: fx.power_to_db(s, 10, top_db=None), s), [[-110, -40], [-10, 10]]
    )
    np.testing.assert_allclose(run(lambda s: fx.db_to_power(fx.power_to_db(s, 2), 2), s[1:]), s[1:])


def test_mel_filters_are_triangles():
    """Each rises from its corner to 1 at the next, and falls to 0 at the one after."""
    filters = fx.melscale_filterbanks(201, 8, 16000, 100, 7000, dtype="f64")
    assert filters.shape == (201, 8)
    mel = lambda f: 2595 * np.log10(1 + f / 700)
    corners = np.interp(
        np.linspace(mel(100), mel(7000), 10), mel(np.arange(8001.0)), np.arange(8001.0)
    )
    frequencies = np.linspace(0, 8000, 201)
    for m in range(8):
        want = np.interp(frequencies, corners[m : m + 3], [0, 1, 0])
        np.testing.assert_allclose(filters[:, m], want, atol=1e-4)
    assert fx.melscale_filterbanks(5, 2, 8000).dtype == np.float32


def test_sixteen_bit_sound_is_transformed_in_f32():
    def f(x):
        x = x.astype(fx.f16)
        y = fx.stft(x, 16, 4, np.hanning(16))
        return y, fx.istft(y, 16, 4, np.hanning(16), original_length=33), fx.spectrogram(x, 16)

    x = RNG.normal(size=(2, 33)).astype(np.float32)
    assert {str(r.type.dtype) for r in trace(f, spec_of(x))[0].graph.results} == {"f16"}
    np.testing.assert_allclose(run(f, x)[1], x, atol=1e-2)


def test_the_gradient_in_silence_is_finite():
    g = run(fx.grad(lambda x: fx.spectrogram(x, 8, power=1.0).sum()), np.zeros(32))
    assert np.isfinite(g).all()


def _loudness(x):
    s = fx.spectrogram(x, 16, 4, fx.hann_window(16))
    return fx.power_to_db(fx.einsum("bft,fm->bmt", s, fx.melscale_filterbanks(9, 4, 8000)) + 0.01)


def _again(x):
    w = fx.hann_window(16)
    return fx.istft(fx.stft(x, 16, 4, w), 16, 4, w, original_length=x.shape[1])


def _counted(x):
    places = np.array([2, 0, 2])
    y = fx.scatter("mean", x[:, :3].T, places, dstsize=4) + fx.scatter(
        "div", x[:, :3].T + 9, places, dstsize=4
    )
    return fx.batched_vec(y[:, None], fx.gather(x.T, fx.array([3, 1, 0, 0])))


@pytest.mark.cc
def test_compiled_code_computes_the_same(tmp_path):
    spec = fx.f32["b", fx.dim("t", min=9)]
    functions = {"loudness": _loudness, "again": _again, "counted": _counted}
    graphs = {name: vjp(trace(f, spec)[0].graph) for name, f in functions.items()}
    model = compile_graphs(graphs, tmp_path).model(2)
    for shape in ((1, 9), (2, 33), (3, 50)):
        x = RNG.normal(size=shape).astype(np.float32)
        for name, graph in graphs.items():
            sizes = bind_sizes([graph.params[0].type], [shape])
            result = tuple(evaluate_size(s, sizes) for s in graph.results[0].type.shape)
            arrays = [x, RNG.normal(size=result).astype(np.float32)]
            want = expected(graph, arrays)
            assert_graph_agrees(graph, getattr(model, name)(*arrays), want, f"{name} at {shape}")


X = fx.f32["n", 4]
REFUSED = [
    (lambda x: fx.batched_mul(x, x[0]), "batched_mul takes matrices"),
    (lambda x: fx.batched_vec(x[0], x), "batched_vec takes matrices and vectors"),
    (lambda x: fx.scatter("pow", x, 0), "scatter: no reduction is 'pow'"),
    (lambda x: fx.scatter(x, 0, x[0], dstsize=3), "scatter: dstsize and init are for"),
    (lambda x: fx.scatter("add", x, fx.zeros(x.shape[0], "i32")), "scatter: the positions are known when the program runs"),
    (lambda x: fx.scatter("add", x, np.zeros(1, int), dstsize=(1, 2, 3)), "scatter: dstsize"),
    (lambda x: fx.gather(x, (0, 0, 0)), "gather: 3 positions in a tensor with 2 axes"),
    (lambda x: fx.stft(x, 0), "stft: n_fft must be an integer >= 1"),
    (lambda x: fx.stft(x, 8, 0), "stft: hop_length must be an integer >= 1"),
    (lambda x: fx.stft(x, 8, center=False), "stft: a window that spans 8 does not fit"),
    (lambda x: fx.stft(x, 4, window=np.ones(5)), "stft: the window"),
    (lambda x: fx.istft(x, 8), "istft: the spectrum does not fit"),
    (lambda x: fx.spectrogram(x, 4, power=-1), "spectrogram: power must not be negative"),
    (lambda x: x + fx.melscale_filterbanks(4, 4, 8000, 5000), "melscale_filterbanks: 0 <= fmin < fmax"),
    (lambda x: x + fx.hann_window(0), "the length of a window must be an integer >= 1"),
]  # fmt: skip


@pytest.mark.parametrize(("f", "summary"), REFUSED, ids=[summary for _, summary in REFUSED])
def test_what_makes_no_sense_is_refused(f, summary):
    with pytest.raises(ShapeError, match=re.escape(summary)):
        trace(f, X)
