"""Losses, activations, softmax."""

import numpy as np

import fluxc as fx
from conformance.cases import Stated, array, covers, dtype_of
from dsl import run
from fluxc import losses

OPTIONS = ("delta", "margin", "gamma", "beta", "smooth")


def loss_of(case, target=lambda y: y):
    f, a = getattr(losses, case.name), case.args
    options = {k: a[k] for k in OPTIONS if k in a}
    y_hat, y = (array(a[k], dtype_of(a)) for k in ("y_hat", "y"))
    return run(lambda p, t: f(p, target(t), **options), y_hat, y)


@covers(
    "loss/huber_loss*", "loss/siamese_contrastive_loss*", "loss/hinge_loss*", "loss/mae*",
    "loss/squared_hinge_loss*", "loss/dice_coeff_loss*", "loss/poisson_loss*", "loss/msle*",
    "loss/binary_focal_loss*", "loss/binarycrossentropy*", "loss/tversky_loss*", "loss/mse",
    "loss/kldivergence*", "loss/logitcrossentropy", "loss/focal_loss",
    "loss/crossentropy one-hot*",
)  # fmt: skip
def loss(case):
    assert case.args.get("dims", 1) == 1
    return loss_of(case)


@covers("loss/crossentropy with label_smoothing*")
def smoothed(case):
    return loss_of(case, lambda y: losses.label_smoothing(y, case.args["alpha"]))


@covers("loss/focal_loss softmax input")
def focal_of_softmax(case):
    logits, y = np.arange(-7.0, 8).reshape(5, 3), array(case.args["y"])
    return run(lambda x, y: losses.focal_loss(fx.softmax(x), y, gamma=2), logits, y)


@covers("loss/xlogx", "loss/xlogy")
def terms(case):
    return run(getattr(losses, case.name), *map(array, case.args.values()))


def ctc_inputs(case):
    return array(case.args["y_hat_logits"]), array(case.args["y"], np.int32) - 1


@covers("loss/ctc_loss 3 classes*")
def ctc(case):
    return run(losses.ctc_loss, *ctc_inputs(case))


@covers("loss/ctc_loss gradient*")
def ctc_gradient(case):
    return run(fx.grad(losses.ctc_loss), *ctc_inputs(case))


# ---- activations


@covers(
    "activation/celu*", "activation/gelu_erf", "activation/gelu_tanh", "activation/hardsigmoid",
    "activation/hardswish", "activation/hardtanh", "activation/leakyrelu", "activation/logcosh",
    "activation/logsigmoid extremes", "activation/relu", "activation/selu doc",
    "activation/softplus", "activation/softplus extremes", "activation/softshrink*",
    "activation/softsign*", "activation/tanhshrink*", "activation/trelu*",
)  # fmt: skip
def activation(case):
    f = getattr(fx, case.name)
    x, *options = case.args.values()
    return run(lambda x: f(x, *options), array(x))


@covers("activation/elu doc")
def elu(case):
    return [run(lambda x, a=a: fx.elu(x, a), array(case.args["x"])) for a in case.args["alpha"]]


@covers("activation/softplus derivatives*")
def softplus_derivatives(case):
    first = fx.grad(fx.softplus)
    return [run(f, array(case.args["x"])) for f in (first, fx.grad(first))]


@covers("activation/rrelu range")
def rrelu(case):
    x = np.full(1000, case.args["x"])
    y = run(lambda x: fx.rrelu(x, 1 / 8, 1 / 3), x)
    outside = np.sum((y < -1 / 3) | (y > -1 / 8))
    return Stated([outside, len(np.unique(y)) > 1], [0, True])


@covers("activation/relu6 & hardtanh saturation")
def saturation(case):
    x = array(case.args["relu6_x"])
    return {"relu6": run(fx.relu6, x), "hardtanh": run(fx.hardtanh, x)}


# ---- softmax


@covers("softmax/*", "logsoftmax/matrix*")
def softmax(case):
    f, dims = getattr(fx, case.what.split("/")[0]), case.args.get("dims", 1)
    axis = None if isinstance(dims, str) else -dims
    return run(lambda x: f(x, axis=axis), array(case.args["x"]))


@covers("logsoftmax/gradient*")
def logsoftmax_gradient(case):
    x = array(case.args["x"])
    dy = np.ones(x.shape) if isinstance(case.args["dy"], str) else array(case.args["dy"])
    return run(lambda x, dy: fx.vjp(fx.logsoftmax, x)[1](dy)[0], x, dy)
