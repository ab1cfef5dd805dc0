"""Activations and losses against PyTorch, with gradients; what they do at the edges."""

# ruff: noqa: E501  (rows of a table)

import numpy as np
import pytest
from compiled import compile_graphs, expected
from golden import functions
from golden_cases import Golden

import fluxc as fx
from dsl import run
from fluxc import losses
from fluxc.compiler.ir.types import f32, f64

GOLDEN = Golden(functions)
LOGITS = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)


@pytest.mark.parametrize("name", functions.CASES)
def test_the_interpreter_agrees_with_pytorch(name):
    got = expected(GOLDEN.differentiated(name), GOLDEN.arguments(name))
    GOLDEN.assert_all(got, name, f64, "interpreted")


@pytest.mark.cc
def test_compiled_functions_agree_with_pytorch(tmp_path):
    graphs = {name: GOLDEN.differentiated(name, "f32") for name in functions.CASES}
    compiled = compile_graphs(graphs, tmp_path)
    for name in functions.CASES:
        got = getattr(compiled.model(), name)(*GOLDEN.arguments(name, np.float32))
        GOLDEN.assert_all(got, name, f32, "compiled")


# ---- extreme values


EXTREME = np.array([-np.inf, -1e30, -200.0, -0.0, 0.0, 200.0, 1e30, np.inf, np.nan])
KEEPS_INF = [
    "relu", "leakyrelu", "elu", "celu", "selu", "softplus", "trelu", "softshrink", "lisht",
    "logcosh", "tanhshrink", "rrelu",
]  # fmt: skip
BOUNDED = ["sigmoid", "hardsigmoid", "tanh", "hardtanh", "relu6", "softsign"]


@pytest.mark.parametrize("name", [*KEEPS_INF, *BOUNDED, "logsigmoid"])
def test_activations_of_extreme_numbers(name):
    """Huge numbers give no NaN, NaN stays NaN, and derivatives of finite numbers are finite."""
    f = getattr(fx, name)
    x = EXTREME[1:] if name == "softsign" else EXTREME[:-1]
    x = x[np.isfinite(x)] if name in ("softsign", "tanhshrink", "logcosh", "rrelu") else x
    y = run(f, x)
    assert not np.isnan(y).any(), y
    if name in KEEPS_INF:
        assert y[-1] > 1e29
    assert np.isnan(run(f, EXTREME[-1:])).all()
    finite = EXTREME[1:-2]
    (slope,) = run(lambda t: (fx.grad(lambda u: f(u).sum())(t),), finite)
    assert np.isfinite(slope).all(), slope


def test_random_slopes():
    """rrelu draws a slope for each element, in test mode too."""
    x = -np.ones((50, 40), np.float32)
    y = run(lambda t: fx.rrelu(t, 0.25, 0.5), x)
    assert y.min() >= -0.5
    assert y.max() <= -0.25
    assert abs(y.mean() + 0.375) < 0.01
    assert len(np.unique(y)) > 1000
    with pytest.raises(fx.ShapeError, match="lo must not be above hi"):
        run(lambda t: fx.rrelu(t, 0.5, 0.25), x)


@pytest.mark.parametrize("huge", [50.0, 1e4, 1e37])
def test_losses_of_extreme_logits(huge):
    """Losses of logits stay finite with their gradients, and are right to the last digit."""
    x = np.array([[huge, -huge, 0.0], [-huge, huge, 0.0]], np.float32)
    y = np.array([1, 1], np.int32)

    def both(loss):
        value, slope = run(fx.value_and_grad(loss), x)
        assert np.isfinite(slope).all()
        return value

    each = run(lambda t: losses.logitcrossentropy(t, y, fx.identity), x)
    np.testing.assert_allclose(each, [2 * huge, 0], rtol=1e-6)
    assert both(lambda t: losses.logitcrossentropy(t, y)) == np.float32(huge)
    bits = np.zeros_like(x)
    bits[:, 0] = 1
    want = (np.maximum(x, 0) - x * bits + np.log1p(np.exp(-np.abs(x)))).mean()
    got = both(lambda t: losses.logitbinarycrossentropy(t, bits))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_probabilities_of_zero():
    """Losses of probabilities are finite at 0 and 1, by their eps."""
    sure = np.array([[1.0, 0.0, 0.0]], np.float32)
    for loss in (losses.crossentropy, losses.kldivergence, losses.focal_loss):
        for target in (sure, sure[:, ::-1].copy()):
            value, slope = run(
                lambda t, y=target, f=loss: fx.value_and_grad(lambda u: f(u, y))(t), sure
            )
            assert np.isfinite(value)
            assert np.isfinite(slope).all()


# ---- labels


def test_ignored_and_unknown_labels():
    """Ignored labels count for nothing; nothing counting is 0; other strangers make it NaN."""

    def loss(labels, **options):
        y = np.array(labels, np.int32)
        return run(
            lambda t, u: fx.value_and_grad(
                lambda v: losses.logitcrossentropy(v, u, ignore_index=9, **options)
            )(t),
            LOGITS,
            y,
        )

    value, slope = loss([9, 9, 9, 9])
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    value, slope = loss([9, 1, 2, 9])
    assert np.isfinite(value)
    np.testing.assert_array_equal(slope[[0, 3]], 0)
    assert np.isnan(loss([0, 1, 2, 3])[0])
    assert np.isnan(loss([0, 1, 2, -1])[0])


def test_shares_of_zero_ignore_impossible_classes():
    """0 * log(0) is 0: a masked logit of -inf costs nothing where its share is 0."""
    x = np.array([[0.0, 0.0, -np.inf]], np.float32)
    y = np.array([[1.0, 0.0, 0.0]], np.float32)
    value, slope = run(fx.value_and_grad(lambda u: losses.logitcrossentropy(u, y)), x)
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(slope, [[-0.5, 0.5, 0.0]], rtol=1e-6)


def test_quantile_loss_has_the_quantile_at_its_least():
    y = np.arange(1, 101, dtype=np.float64)
    values = [
        float(run(lambda t, c=c: losses.quantile_loss(t * 0 + c, t, q=0.9), y))
        for c in (80.0, 90.0, 97.0)
    ]
    assert values[1] < min(values[0], values[2])
    np.testing.assert_allclose(values[1], np.maximum(0.9 * (y - 90), -0.1 * (y - 90)).mean())


def test_info_nce_wants_each_query_near_its_own_key():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 6, 4))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    z = unit(q) @ unit(k).T / 0.2
    want = (np.log(np.exp(z).sum(1)) - np.diag(z)).mean()
    got = run(lambda a, b: losses.info_nce_loss(a, b, temperature=0.2), q, k)
    np.testing.assert_allclose(got, want)
    assert run(lambda a: losses.info_nce_loss(a, a), q) < got
    zero = np.zeros((3, 4))
    (slope,) = run(lambda a: (fx.grad(lambda u: losses.info_nce_loss(u, u))(a),), zero)
    assert np.isfinite(slope).all()


REFUSED = [
    (lambda x: losses.logitcrossentropy(x, np.zeros(4, int), weight=[1.0, 2.0]), "weight does not fit"),
    (lambda x: losses.logitcrossentropy(x, np.zeros(4, int), label_smoothing=1.5), "must be in 0"),
    (lambda x: losses.logitcrossentropy(x, x, ignore_index=0), "ignore_index= is for integer labels"),
    (lambda x: losses.logitcrossentropy(x, np.zeros(4)), "labels must be integers"),
    (lambda x: losses.logitcrossentropy(x, np.zeros(5, int)), "does not fit the prediction"),
    (lambda x: losses.cosine_embedding_loss(x, x[:, :2], np.ones(4)), "of one shape"),
    (lambda x: losses.quantile_loss(x, x, q=2), "q must be in 0"),
    (lambda x: losses.smooth_l1_loss(x, x, beta=0), "beta must be positive"),
    (lambda x: losses.info_nce_loss(x, x, temperature=0), "temperature must be positive"),
    (lambda x: losses.mse(x, x[:2]), "differ in shape"),
]  # fmt: skip


@pytest.mark.parametrize(("f", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_does_not_fit_is_refused(f, message):
    with pytest.raises((fx.ShapeError, fx.DTypeError), match=message):
        run(f, LOGITS)
