"""The CTC loss against PyTorch, against Flux's own tests, and against all alignments in turn."""

# ruff: noqa: PLW0108 (tables of functions of one signature)

import itertools

import numpy as np
import pytest
from compiled import compile_graphs
from golden import ctc as golden

import fluxc as fx
from dsl import run, trace
from fluxc import losses

RNG = np.random.default_rng(7)

with np.load(golden.FILE) as stored:
    GOLDEN = dict(stored)


def differentiated(name, *, zero=False):
    """(scores, targets, lengths) -> losses one by one, and the gradient by the scores."""
    blank = golden.CASES[name][2]

    def f(x, target, steps, count):
        def loss(x):
            found = losses.ctc_loss(
                x, target, fx.identity, input_lengths=steps, target_lengths=count, blank=blank,
                zero_infinity=zero,
            )  # fmt: skip
            return (found * golden.SEED).sum(), found

        gradient, found = fx.grad(loss, has_aux=True)(x)
        return found, gradient

    return f


def arguments(name, dtype=np.float64):
    target, count, steps = (np.array(a, np.int32) for a in golden.CASES[name][3:])
    return [golden.scores(name).astype(dtype), target, steps, count]


def assert_pytorch(name, got, **tolerance):
    found, gradient = got
    np.testing.assert_allclose(found, GOLDEN[f"{name}.loss"], **tolerance)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name}.gradient"], **tolerance)


@pytest.mark.parametrize("name", golden.CASES)
def test_the_interpreter_agrees_with_pytorch(name):
    """Repeated labels, empty targets, padding, too few steps, extreme scores."""
    assert_pytorch(name, run(differentiated(name), *arguments(name)), rtol=1e-10, atol=1e-12)
    zeroed, _ = run(differentiated(name, zero=True), *arguments(name))
    np.testing.assert_array_equal(zeroed == 0, np.isinf(GOLDEN[f"{name}.loss"]))


@pytest.mark.cc
def test_compiled_code_agrees_with_pytorch(tmp_path):
    """For any number of steps, labels and classes; f32 within what 60 steps of it lose."""
    graphs = {}
    for name in ("lengths", "long"):
        for dtype in (fx.f64, fx.f32):
            specs = [dtype[5, "time", "classes"], fx.i32[5, "labels"], fx.i32[5], fx.i32[5]]
            graphs[f"{name}_{dtype}"] = trace(differentiated(name), *specs)[0].graph
    compiled = compile_graphs(graphs, tmp_path)
    for name in ("lengths", "long"):
        got = compiled.on_every_number_of_threads(f"{name}_f64", arguments(name))
        assert_pytorch(name, got, rtol=1e-10, atol=1e-12)
        got = getattr(compiled.model(), f"{name}_f32")(*arguments(name, np.float32))
        assert_pytorch(name, got, rtol=2e-5, atol=2e-5)


FLUX = [
    ([[1.0, 2, 3], [2, 1, 1], [3, 3, 2]], 3.6990738275138035),
    ([[-3.0, 12, 8, 15], [4, 20, -2, 20], [8, -33, 6, 5]], 8.02519869363453),
]


@pytest.mark.parametrize(("columns", "want"), FLUX)
def test_flux_values(columns, want):
    """One sequence, the last class blank."""
    x, target = np.array(columns).T, np.array([0, 1], np.int32)
    np.testing.assert_allclose(run(lambda x, t: losses.ctc_loss(x, t), x, target), want, rtol=1e-12)


def says(path, blank):
    kept = [c for c, _ in itertools.groupby(path)]
    return [c for c in kept if c != blank]


@pytest.mark.parametrize("target", [[], [1], [0, 0], [0, 1, 0], [1, 1, 1]])
def test_it_is_the_sum_over_all_alignments(target):
    x = RNG.normal(size=(4, 3))
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    paths = [s for s in itertools.product(range(3), repeat=4) if says(s, 2) == target]
    want = -np.log(sum(np.prod(p[range(4), s]) for s in paths) or np.finfo(float).tiny)
    got = run(lambda x, t: losses.ctc_loss(x, t), x, np.array(target, np.int32))
    np.testing.assert_allclose(got, np.inf if not paths else want, rtol=1e-12)


def test_no_steps():
    """Nothing says the empty target, and nothing else."""
    x = np.zeros((2, 0, 3))
    f = lambda x, t, n: losses.ctc_loss(x, t, fx.identity, target_lengths=n)
    got = run(f, x, np.array([[0], [0]], np.int32), np.array([0, 1], np.int32))
    np.testing.assert_array_equal(got, [0, np.inf])
    assert run(lambda x, t: losses.ctc_loss(x, t), x[0], np.zeros(0, np.int32)) == 0


def test_wrong_labels_are_nan():
    """A label that counts must be a class other than the blank."""
    x = RNG.normal(size=(4, 3, 3))
    target = np.array([[0], [3], [-1], [2]], np.int32)
    got = run(lambda x, t: losses.ctc_loss(x, t, fx.identity), x, target)
    np.testing.assert_array_equal(np.isnan(got), [False, True, True, True])


def test_impossible_classes():
    """Scores of -inf, and their gradients, are no NaN."""
    x = np.array([[0.0, 1, -np.inf], [-np.inf, 1, 2], [0, -np.inf, 1]])
    f = lambda x, t: fx.value_and_grad(lambda x: losses.ctc_loss(x, t))(x)
    loss, gradient = run(f, x, np.array([0, 1], np.int32))
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    share = p[0, 0] * p[1, 1] * p[2, 2]  # the only way, since class 1 is impossible at the end
    np.testing.assert_allclose(loss, -np.log(share), rtol=1e-12)
    np.testing.assert_allclose(gradient, p - [[1, 0, 0], [0, 1, 0], [0, 0, 1]], atol=1e-12)


def test_sixteen_bits():
    """It is computed in f32."""
    x, target = np.full((2, 5, 4), 0.5, np.float16), np.zeros((2, 2), np.int32)
    entry, _ = trace(lambda x, t: losses.ctc_loss(x, t), fx.f16["b", "t", 4], fx.i32["b", "n"])
    assert str(entry.graph.results[0].type) == "f16[]"
    wide = run(lambda x, t: losses.ctc_loss(x, t), x.astype(float), target)
    got = run(lambda x, t: losses.ctc_loss(x, t), x, target)
    np.testing.assert_allclose(got, wide, rtol=1e-3)


LABELS = np.zeros((2, 2), np.int32)


@pytest.mark.parametrize(
    ("f", "match"),
    [
        (lambda x: losses.ctc_loss(x, LABELS[0]), "prediction and target do not fit"),
        (lambda x: losses.ctc_loss(x, LABELS[:1]), "prediction and target do not fit"),
        (lambda x: losses.ctc_loss(x, LABELS * 1.0), "labels must be integers"),
        (lambda x: losses.ctc_loss(x, LABELS, blank=3), "blank=3 is none of 3 classes"),
        (lambda x: losses.ctc_loss(x, LABELS, input_lengths=[1.0, 1.0]), "input_lengths must be"),
        (lambda x: losses.ctc_loss(x, LABELS, target_lengths=[1]), "target_lengths must be"),
    ],
)
def test_what_is_refused(f, match):
    with pytest.raises(fx.FluxcError, match=match):
        run(f, np.ones((2, 4, 3)))
