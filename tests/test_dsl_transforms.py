"""Derivatives: activations, nested transforms, second order, custom rules."""

# ruff: noqa: ARG005, E501, PLW0108 (tables of functions of one signature, a row each)

import math

import numpy as np
import pytest

import fluxc as fx
from dsl import run, trace
from fluxc import losses, nn

RNG = np.random.default_rng(1)
X = np.array([-7.3, -3.5, -2.1, -0.7, -0.2, 0.3, 0.8, 1.4, 2.6, 3.4, 6.5, 9.0])

ACTIVATIONS = {
    "celu": lambda x: np.where(x >= 0, x, np.expm1(x)),
    "elu": lambda x: np.where(x >= 0, x, np.expm1(x)),
    "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "gelu_erf": lambda x: x / 2 * (1 + np.vectorize(math.erf)(x / np.sqrt(2))),
    "gelu_sigmoid": lambda x: x / (1 + np.exp(-np.sqrt(8 / np.pi) * x * (1 + 0.044715 * x * x))),
    "hardsigmoid": lambda x: np.clip((x + 3) / 6, 0, 1),
    "hardswish": lambda x: x * np.clip((x + 3) / 6, 0, 1),
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "leakyrelu": lambda x: np.where(x > 0, x, 0.01 * x),
    "lisht": lambda x: x * np.tanh(x),
    "logcosh": lambda x: np.log(np.cosh(x)),
    "logsigmoid": lambda x: -np.log1p(np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "softshrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "tanhshrink": lambda x: x - np.tanh(x),
    "thresholdrelu": lambda x: np.where(x > 1, x, 0),
    "trelu": lambda x: np.where(x > 1, x, 0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    """Values and first and second derivatives, against formulas and central differences."""
    f, plain = getattr(fx, name), ACTIVATIONS[name]
    np.testing.assert_allclose(run(f, X), plain(X), rtol=1e-12, atol=1e-15)
    first = fx.grad(lambda x: f(x).sum())
    second = fx.grad(lambda x: first(x).sum())
    h = 1e-5
    got = run(first, X)
    np.testing.assert_allclose(got, (plain(X + h) - plain(X - h)) / (2 * h), rtol=1e-6, atol=1e-8)
    want = (run(first, X + h) - run(first, X - h)) / (2 * h)
    np.testing.assert_allclose(run(second, X), want, rtol=1e-5, atol=1e-6)


AT_KINKS = {
    "relu": (0, 0), "relu6": ((0, 6), (0, 0)), "hardtanh": ((-1, 1), (0, 0)), "leakyrelu": (0, 0.01),
    "elu": (0, 1), "celu": (0, 1), "selu": (0, 1.7580993408473766), "hardsigmoid": ((-3, 3), (0, 0)),
    "trelu": (1, 0), "sigmoid": (0, 0.25), "softplus": (0, 0.5), "softsign": (0, 1), "swish": (0, 0.5),
    "softshrink": ((-0.5, 0.5), (0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_KINKS)
def test_derivatives_where_a_choice_is_made(name):
    """The derivative at each kink is the documented one."""
    x, want = map(np.atleast_1d, AT_KINKS[name])
    got = run(fx.grad(lambda t: getattr(fx, name)(t).sum()), x.astype(float))
    np.testing.assert_allclose(got, want)


@pytest.mark.parametrize(
    "name", ["sigmoid", "softplus", "elu", "selu", "logsigmoid", "mish", "swish"]
)
def test_activations_far_out(name):
    """Values and derivatives are finite for large arguments, and NaN goes through."""
    f = getattr(fx, name)
    far = np.array([-1000.0, 1000.0])
    value, slope = run(fx.value_and_grad(lambda x: f(x).sum()), far)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    assert np.isnan(run(f, np.array([np.nan]))).all()


def test_value_and_grad_of_containers():
    """Gradients have the structure of their arguments."""

    def f(p, x, k):
        return ((p["w"] @ x + p["b"][0]) ** 2).sum() * k

    def both(w, b, x):
        value, (gp, gx) = fx.value_and_grad(f, argnums=(0, 1))({"w": w, "b": [b]}, x, 3)
        return value, gp, gx

    w, b, x = RNG.normal(size=(2, 3)), RNG.normal(size=2), RNG.normal(size=3)
    value, gw, gb, gx = run(both, w, b, x)
    r = w @ x + b
    np.testing.assert_allclose(value, 3 * (r**2).sum())
    np.testing.assert_allclose(gw, 6 * np.outer(r, x))
    np.testing.assert_allclose(gb, 6 * r)
    np.testing.assert_allclose(gx, 6 * w.T @ r)


def test_unreached_arguments_have_zero_gradients():
    """An argument that the value does not depend on has a gradient of zeros."""
    got = run(fx.grad(lambda x, y: (x * 2).sum(), argnums=(0, 1)), np.ones(2), np.ones(3))
    np.testing.assert_array_equal(got[1], np.zeros(3))


def test_gradients_of_modules_have_names():
    """The gradient with respect to a module is a dict from parameter names."""
    model = nn.Chain(nn.Dense(3, 2, fx.tanh), nn.Dense(2, 1))
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    f = fx.grad(lambda m, x: (m(x) ** 2).mean())
    entry, _ = trace(lambda x: f(model, x), fx.f32[5, 3], namespace={"model": model})
    keys = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    assert list(entry.output_tree[1]) == keys
    grads = run(lambda x: f(model, x), x, namespace={"model": model})
    assert [g.shape for g in grads] == [(2, 3), (2,), (1, 2), (1,)]


def test_stop_gradient_and_aux():
    """stop_gradient holds constant; has_aux hands other values out."""
    f = fx.value_and_grad(lambda x: ((x * fx.stop_gradient(x)).sum(), x + 1), has_aux=True)

    def both(x):
        (value, aux), g = f(x)
        return value, aux, g

    value, aux, g = run(both, X)
    np.testing.assert_allclose(g, X)
    np.testing.assert_allclose(aux, X + 1)
    np.testing.assert_allclose(value, (X * X).sum())


def test_gradient_penalty():
    """A gradient inside a loss is differentiated again, as WGAN's penalty needs."""
    w = RNG.normal(size=(4, 3))

    def penalty(w, x):
        slope = fx.grad(lambda t: fx.tanh(t @ w).sum())(x)
        return ((fx.sqrt((slope**2).sum(-1)) - 1) ** 2).mean()

    x = RNG.normal(size=(6, 4))
    got = run(fx.grad(penalty), w, x)
    d = RNG.normal(size=w.shape)
    h = 1e-6
    want = (run(penalty, w + h * d, x) - run(penalty, w - h * d, x)) / (2 * h)
    np.testing.assert_allclose((got * d).sum(), want, rtol=1e-6)


def test_third_derivative():
    """Derivatives nest to any order."""
    f = lambda x: fx.sin(x) * x
    third = fx.grad(fx.grad(fx.grad(f)))
    np.testing.assert_allclose(run(third, np.array(0.7)), -3 * np.sin(0.7) - 0.7 * np.cos(0.7))


def test_vjp_of_several_results():
    """vjp returns the results and a function from cotangents."""

    def f(x, dy):
        (a, b), pull = fx.vjp(lambda x: (x * 2, fx.sin(x)), x)
        return a, b, pull((dy, 1.0))[0]

    a, b, g = run(f, X, X)
    np.testing.assert_allclose(a, 2 * X)
    np.testing.assert_allclose(b, np.sin(X))
    np.testing.assert_allclose(g, 2 * X + np.cos(X))


def test_vjp_inside_vjp():
    """The pullback itself is differentiable."""

    def f(x):
        return fx.vjp(lambda t: fx.exp(t) * t, x)[1](1.0)[0].sum()

    np.testing.assert_allclose(run(fx.grad(f), X / 5), np.exp(X / 5) * (X / 5 + 2))


def test_custom_vjp_in_two_parts():
    """defvjp's derivative replaces the real one, with residuals from the forward pass."""

    @fx.custom_vjp
    def f(x, k):
        return x * k

    f.defvjp(lambda x, k: (x * k, (x, fx.sin(x))), lambda r, dy: (dy * r[0] * 10 + r[1], None))
    got = run(fx.grad(lambda x, k: f(x, k).sum(), argnums=(0, 1)), X, X)
    np.testing.assert_allclose(got[0], X * 10 + np.sin(X))
    np.testing.assert_allclose(got[1], 0 * X)
    np.testing.assert_allclose(run(f, X, X), X * X)
    second = fx.grad(lambda x: fx.grad(lambda t: f(t, t).sum())(x).sum())
    np.testing.assert_allclose(run(second, X), 10 + np.cos(X))


def test_custom_vjp_with_integers_and_containers():
    """Integer arguments have no cotangent; containers come and go."""
    f = fx.custom_vjp(
        lambda p, i: {"y": p["a"][i] + p["b"]},
        lambda args, y, dy: ({"a": args[0]["a"] * 0 + 7, "b": dy["y"]}, None),
    )
    g = fx.grad(lambda a, b, i: f({"a": a, "b": b}, i)["y"].sum(), argnums=(0, 1))
    ga, gb = run(g, X, np.ones(2), np.array([1, 2], np.int32))
    np.testing.assert_allclose(ga, 7 + 0 * X)
    np.testing.assert_allclose(gb, [1, 1])


def test_custom_vjp_refuses_what_it_would_lose():
    """A captured float tensor, whose gradient would be lost, is an error; a stopped one is not."""

    def outer(x, stop):
        y = fx.stop_gradient(x * 2) if stop else x * 2
        return fx.custom_vjp(lambda t: t * y, lambda a, r, dy: (dy * 3,))(x)

    np.testing.assert_allclose(run(lambda x: outer(x, stop=True), X), 2 * X * X)
    with pytest.raises(fx.TraceError, match="uses a tensor that is not an argument"):
        run(lambda x: outer(x, stop=False), X)


WRONG = {
    "a gradient of a vector": (lambda x: fx.grad(lambda t: t * 2)(x), "not a float scalar"),
    "of an integer argument": (lambda x: fx.grad(lambda t: t.sum())(x.astype(fx.i32)), "not float"),
    "argnums beyond": (lambda x: fx.grad(lambda t: t.sum(), argnums=1)(x), "argnums 1 of 1"),
    "no derivative given": (lambda x: fx.custom_vjp(fx.sin)(x), "has no derivative yet"),
    "a bare cotangent": (
        lambda x: fx.grad(lambda t: fx.custom_vjp(lambda s: s, lambda a, y, d: d)(t).sum())(x),
        "must return a tuple",
    ),
    "a cotangent of another shape": (
        lambda x: fx.grad(lambda t: fx.custom_vjp(lambda s: s, lambda a, y, d: (d[:2],))(t).sum())(
            x
        ),
        "wrong shape",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_derivatives(case):
    """What cannot be differentiated says so at the user's line."""
    f, message = WRONG[case]
    with pytest.raises(fx.FluxcError, match=message) as caught:
        run(f, X)
    assert caught.value.loc.file == __file__


def numeric_gradient(f, x, h=1e-6):
    d = RNG.normal(size=x.shape)
    return d, (f(x + h * d) - f(x - h * d)) / (2 * h)


LABELS = np.array([2, 0, 1], np.int32)
ONE_HOT = np.eye(3)[LABELS]
PROBABILITIES = RNG.dirichlet([1, 1, 1], 3)
LOSSES = [
    ("mse", PROBABILITIES, ONE_HOT), ("mae", PROBABILITIES, ONE_HOT), ("msle", PROBABILITIES, ONE_HOT),
    ("huber_loss", 3 * PROBABILITIES, ONE_HOT), ("crossentropy", PROBABILITIES, ONE_HOT),
    ("crossentropy", PROBABILITIES, LABELS), ("logitcrossentropy", PROBABILITIES, ONE_HOT),
    ("logitcrossentropy", PROBABILITIES, LABELS), ("binarycrossentropy", PROBABILITIES, ONE_HOT),
    ("logitbinarycrossentropy", PROBABILITIES, ONE_HOT), ("kldivergence", PROBABILITIES, ONE_HOT),
    ("poisson_loss", PROBABILITIES, ONE_HOT), ("hinge_loss", PROBABILITIES, 2 * ONE_HOT - 1),
    ("squared_hinge_loss", PROBABILITIES, 2 * ONE_HOT - 1), ("dice_coeff_loss", PROBABILITIES, ONE_HOT),
    ("tversky_loss", PROBABILITIES, ONE_HOT), ("focal_loss", PROBABILITIES, LABELS),
    ("focal_loss", PROBABILITIES, ONE_HOT), ("binary_focal_loss", PROBABILITIES, ONE_HOT),
    ("siamese_contrastive_loss", PROBABILITIES, ONE_HOT),
]  # fmt: skip


@pytest.mark.parametrize(("name", "y", "target"), LOSSES)
def test_gradients_of_losses(name, y, target):
    """Each loss's gradient agrees with central differences."""
    f = getattr(losses, name)
    got = run(fx.grad(f), y, target)
    d, want = numeric_gradient(lambda t: run(f, t, target), y)
    np.testing.assert_allclose((got * d).sum(), want, rtol=1e-5, atol=1e-8)


def _softplus(x):
    return np.log1p(np.exp(x))


LOSS_FORMULAS = {
    "mse": lambda y, t: ((y - t) ** 2).mean(),
    "mae": lambda y, t: abs(y - t).mean(),
    "msle": lambda y, t: (np.log((y + EPS) / (t + EPS)) ** 2).mean(),
    "huber_loss": lambda y, t: np.where(abs(y - t) < 1, (y - t) ** 2 / 2, abs(y - t) - 0.5).mean(),
    "crossentropy": lambda y, t: -(t * np.log(y)).sum(-1).mean(),
    "logitcrossentropy": lambda y, t: (np.log(np.exp(y).sum(-1)) - (t * y).sum(-1)).mean(),
    "binarycrossentropy": lambda y, t: -(t * np.log(y) + (1 - t) * np.log(1 - y)).mean(),
    "logitbinarycrossentropy": lambda y, t: (_softplus(y) - t * y).mean(),
    "kldivergence": lambda y, t: -(t * np.log(y)).sum(-1).mean(),  # a one-hot t has no entropy
    "poisson_loss": lambda y, t: (y - t * np.log(y)).mean(),
    "hinge_loss": lambda y, t: np.maximum(1 - y * t, 0).mean(),
    "squared_hinge_loss": lambda y, t: (np.maximum(1 - y * t, 0) ** 2).mean(),
    "dice_coeff_loss": lambda y, t: 1 - (2 * (y * t).sum() + 1) / ((y**2).sum() + (t**2).sum() + 1),
    "tversky_loss": lambda y, t: 1 - ((y * t).sum() + 1) / (
        (y * t + 0.7 * (1 - t) * y + 0.3 * t * (1 - y)).sum() + 1
    ),
    "focal_loss": lambda y, t: -(t * (1 - y) ** 2 * np.log(y)).sum(-1).mean(),
    "binary_focal_loss": lambda y, t: -(
        (1 - np.where(t == 1, y, 1 - y)) ** 2 * np.log(np.where(t == 1, y, 1 - y))
    ).mean(),
    "siamese_contrastive_loss": lambda y, t: (
        (1 - t) * y**2 + t * np.maximum(1 - y, 0) ** 2
    ).mean(),
}  # fmt: skip
EPS = 2.0**-52


@pytest.mark.parametrize(("name", "y", "target"), LOSSES)
def test_losses_are_their_formulas(name, y, target):
    """Each loss's value, with its defaults, of integer labels as of the one-hot target."""
    t = ONE_HOT if target is LABELS else target
    np.testing.assert_allclose(run(getattr(losses, name), y, target), LOSS_FORMULAS[name](y, t))


def test_parts_of_losses():
    """x*log(x) and x*log(y) are 0 at 0; smoothed targets keep their sum."""
    x, y = np.array([0.0, 0.5, 2.0]), np.array([0.0, 3.0, 0.1])
    np.testing.assert_allclose(run(losses.xlogx, x), [0, 0.5 * np.log(0.5), 2 * np.log(2)])
    np.testing.assert_allclose(run(losses.xlogy, x, y), [0, 0.5 * np.log(3), 2 * np.log(0.1)])
    smooth = run(lambda t: losses.label_smoothing(t, 0.3), ONE_HOT)
    np.testing.assert_allclose(smooth, ONE_HOT * 0.7 + 0.1)
    binary = run(lambda t: losses.label_smoothing(t, 0.3, axis=None), np.array([0.0, 1.0]))
    np.testing.assert_allclose(binary, [0.15, 0.85])


def test_losses_of_labels_and_one_hot_targets_agree():
    """Integer labels mean the one-hot target with 1 at the label, along any axis."""
    for name in ("crossentropy", "logitcrossentropy", "focal_loss"):
        f = getattr(losses, name)
        by_label, by_target = run(f, PROBABILITIES, LABELS), run(f, PROBABILITIES, ONE_HOT)
        np.testing.assert_allclose(by_label, by_target)
        turned = run(lambda y, t, f=f: f(y.T, t, axis=0), PROBABILITIES, LABELS)
        np.testing.assert_allclose(turned, by_target)


def test_values_of_losses():
    """Values from the published examples of each loss."""
    y, t = np.array([1.1, 1.9, 3.1]), np.arange(1.0, 4)
    np.testing.assert_allclose(run(losses.mse, y, t), 0.01)
    np.testing.assert_allclose(run(losses.mae, y, t), 0.1)
    np.testing.assert_allclose(run(lambda a, b: losses.mse(a, b, agg=fx.sum), y, t), 0.03)
    each = run(lambda a, b: losses.mae(a, b, agg=fx.identity), y, t)
    np.testing.assert_allclose(each, [0.1, 0.1, 0.1])
    np.testing.assert_allclose(run(losses.dice_coeff_loss, t, t), 0, atol=1e-15)
    x = np.array([[1e4, 0.0, -1e4]])
    np.testing.assert_allclose(run(losses.logitcrossentropy, x, np.array([1])), 1e4)


def test_wrong_targets_are_refused():
    """A target that fits neither as labels nor as classes says what fits."""
    with pytest.raises(fx.ShapeError, match="labels, or f64"):
        run(losses.logitcrossentropy, PROBABILITIES, np.array([1, 2], np.int32))
    with pytest.raises(fx.DTypeError, match="labels must be integers"):
        run(losses.logitcrossentropy, PROBABILITIES, np.ones(3))
    with pytest.raises(fx.ShapeError, match="mse: prediction and target differ"):
        run(losses.mse, PROBABILITIES, np.ones(3))


def test_diaghessian_is_the_diagonal_of_the_hessian():
    """Of every argument, in its structure; a tensor without numbers has none."""
    x, y = np.arange(1.0, 7).reshape(2, 3), np.float64(0.5)

    def f(x, t):
        return (fx.sin(x) * x * t["y"] ** 3).sum() + (x[0] * x[1]).sum()

    dx, dy = run(lambda x, y: fx.diaghessian(f, (0, 1))(x, {"y": y}), x, y)
    full, last = (run(lambda x, y, n=n: fx.hessian(f, n)(x, {"y": y}), x, y) for n in (0, 1))
    np.testing.assert_allclose(dx, np.diagonal(full.reshape(6, 6)).reshape(2, 3))
    np.testing.assert_allclose(dy, last)
    assert run(fx.diaghessian(lambda x: (x**2).sum()), np.zeros((0, 2))).shape == (0, 2)


def test_diaghessian_of_a_module():
    layer, x = nn.Dense(3, 1, dtype="f64"), np.array([1.0, 2.0, 3.0])
    f = lambda layer, x: (layer(x) ** 2).sum()
    weight, bias = run(lambda x: fx.diaghessian(f)(layer, x), x, namespace={"layer": layer})
    np.testing.assert_allclose(weight, 2 * x[None] ** 2)
    np.testing.assert_allclose(bias, [2])


def test_a_hook_sees_the_cotangent():
    """The value passes; derivatives of any order see what the hook makes of the cotangent."""
    x = np.array([1.0, -2.0, 3.0])
    f = lambda x: (fx.hook(lambda dx: fx.clip(dx, -3, 3), x) ** 2).sum()
    value, gradient = run(fx.value_and_grad(f), x)
    assert value == 14
    np.testing.assert_array_equal(gradient, [2, -3, 3])
    np.testing.assert_array_equal(run(fx.jacobian(fx.grad(f)), x), np.diag([2, 0, 0]))
    cancelled = fx.grad(lambda x: (fx.hook(fx.negative, x) * x).sum())
    np.testing.assert_array_equal(run(cancelled, x), [0, 0, 0])
    with pytest.raises(fx.ShapeError, match="cotangent"):
        run(fx.grad(lambda x: fx.hook(lambda dx: dx[:2], x).sum()), x)
