"""Golden values of activations and losses, with gradients, from PyTorch.

`python tests/golden/functions.py` writes functions.npz beside this file and needs PyTorch; the
tests need the file alone.  A case has a function of fluxc, one of PyTorch, and its operands.  For
each the file holds the result and the gradients of `sum(result * seed)` by every float operand.
"""

# ruff: noqa: ARG005, E741  (a table of functions of one signature)

from pathlib import Path

import numpy as np
import record
from record import seed  # noqa: F401  (tests take it from here)

FILE = Path(__file__).with_suffix(".npz")
LABELS = np.array([2, 0, 4, 2, 1], np.int64)
SOME = np.array([2, -100, 4, 2, -100], np.int64)
WEIGHT = np.array([0.5, 2.0, 1.0, 0.25, 3.0])
BITS = np.array([0, 1, 1, 0, 1], np.float64)
SIGNS = 2 * BITS - 1

# Shapes of drawn operands; a letter says from where: n normal, p positive, s of the simplex.
X, WIDE = [("n", (4, 7))], [("wide", (4, 7))]
LOGITS, SIMPLEX, ROWS = ("n", (5, 5)), ("s", (5, 5)), ("n", (5, 6))


def _activation(name, torch_name=None, operands=WIDE, **options):
    def ours(fx, x):
        return getattr(fx, name)(x, **options)

    def theirs(torch, x):
        return getattr(torch.nn.functional, torch_name or name)(x)

    return operands, ours, theirs


CASES = {
    "relu": _activation("relu"),
    "leakyrelu": _activation("leakyrelu", "leaky_relu"),
    "relu6": _activation("relu6"),
    "elu": _activation("elu"),
    "celu": (
        WIDE,
        lambda fx, x: fx.celu(x, 1.7),
        lambda t, x: t.where(x >= 0, x, 1.7 * t.expm1(x.clamp(max=0) / 1.7)),
    ),
    "selu": _activation("selu"),
    "gelu": (
        WIDE,
        lambda fx, x: fx.gelu(x),
        lambda t, x: t.nn.functional.gelu(x, approximate="tanh"),
    ),
    "gelu_erf": _activation("gelu_erf", "gelu"),
    "gelu_sigmoid": (
        WIDE,
        lambda fx, x: fx.gelu_sigmoid(x),
        lambda t, x: t.nn.functional.gelu(x, approximate="tanh"),
    ),
    "swish": _activation("swish", "silu"),
    "hardswish": _activation("hardswish"),
    "hardsigmoid": (
        WIDE,
        lambda fx, x: fx.hardsigmoid(x),
        lambda t, x: (x + 3).clamp(0, 6) / 6,  # PyTorch's own has the derivative in f32
    ),
    "hardtanh": _activation("hardtanh"),
    "sigmoid": _activation("sigmoid"),
    "sigmoid_fast": _activation("sigmoid_fast", "sigmoid"),
    "tanh": _activation("tanh"),
    "tanh_fast": _activation("tanh_fast", "tanh"),
    "logsigmoid": _activation("logsigmoid"),
    "softplus": (
        WIDE,
        lambda fx, x: fx.softplus(x),
        lambda t, x: t.nn.functional.softplus(x, threshold=1e9),
    ),
    "softsign": _activation("softsign"),
    "softshrink": _activation("softshrink"),
    "tanhshrink": _activation("tanhshrink"),
    "mish": _activation("mish"),
    "lisht": (WIDE, lambda fx, x: fx.lisht(x), lambda t, x: x * t.tanh(x)),
    "logcosh": (WIDE, lambda fx, x: fx.logcosh(x), lambda t, x: t.log(t.cosh(x))),
    "trelu": (WIDE, lambda fx, x: fx.trelu(x), lambda t, x: t.nn.functional.threshold(x, 1.0, 0.0)),
    "glu": ([("n", (3, 8))], lambda fx, x: fx.glu(x), lambda t, x: t.nn.functional.glu(x)),
    "softmax": (X, lambda fx, x: fx.softmax(x, 0), lambda t, x: x.softmax(0)),
    "logsoftmax": (X, lambda fx, x: fx.logsoftmax(x), lambda t, x: x.log_softmax(-1)),
    "logsumexp": (X, lambda fx, x: fx.logsumexp(x, 0), lambda t, x: x.logsumexp(0)),
    "cosine_similarity": (
        [ROWS, ROWS],
        lambda fx, x, y: fx.cosine_similarity(x, y),
        lambda t, x, y: t.nn.functional.cosine_similarity(x, y, -1),
    ),
}


def _loss(operands, ours, theirs):
    """A loss of both sides; `ours` takes fluxc's losses, `theirs` PyTorch's functions."""
    return (
        operands,
        lambda fx, *xs: ours(fx.losses, *xs),
        lambda t, *xs: theirs(t.nn.functional, t.tensor, *xs),
    )


PAIR = [("n", (4, 5)), ("n", (4, 5))]
CASES |= {
    "mae": _loss(PAIR, lambda l, x, y: l.mae(x, y), lambda f, c, x, y: f.l1_loss(x, y)),
    "mse": _loss(PAIR, lambda l, x, y: l.mse(x, y), lambda f, c, x, y: f.mse_loss(x, y)),
    "huber": _loss(
        PAIR,
        lambda l, x, y: l.huber_loss(x, y, delta=0.7),
        lambda f, c, x, y: f.huber_loss(x, y, delta=0.7),
    ),
    "smooth_l1": _loss(
        PAIR,
        lambda l, x, y: l.smooth_l1_loss(x, y, beta=0.7),
        lambda f, c, x, y: f.smooth_l1_loss(x, y, beta=0.7),
    ),
    "gaussian_nll": _loss(
        [*PAIR, ("p", (4, 5))],
        lambda l, x, y, v: l.gaussian_nll_loss(x, y, v),
        lambda f, c, x, y, v: f.gaussian_nll_loss(x, y, v),
    ),
    "poisson": _loss(
        [("p", (4, 5)), ("p", (4, 5))],
        lambda l, x, y: l.poisson_loss(x, y),
        lambda f, c, x, y: f.poisson_nll_loss(x, y, log_input=False, eps=0),
    ),
    "logit_labels": _loss(
        [LOGITS],
        lambda l, x: l.logitcrossentropy(x, LABELS),
        lambda f, c, x: f.cross_entropy(x, c(LABELS)),
    ),
    "logit_weights": _loss(
        [LOGITS],
        lambda l, x: l.logitcrossentropy(x, LABELS, weight=WEIGHT),
        lambda f, c, x: f.cross_entropy(x, c(LABELS), c(WEIGHT)),
    ),
    "logit_ignored": _loss(
        [LOGITS],
        lambda l, x: l.logitcrossentropy(x, SOME, ignore_index=-100),
        lambda f, c, x: f.cross_entropy(x, c(SOME)),
    ),
    "logit_ignored_sum": _loss(
        [LOGITS],
        lambda l, x: l.logitcrossentropy(x, SOME, lambda y: y.sum(), ignore_index=-100),
        lambda f, c, x: f.cross_entropy(x, c(SOME), reduction="sum"),
    ),
    "logit_smooth": _loss(
        [LOGITS],
        lambda l, x: l.logitcrossentropy(x, LABELS, label_smoothing=0.2),
        lambda f, c, x: f.cross_entropy(x, c(LABELS), label_smoothing=0.2),
    ),
    "logit_everything": _loss(
        [LOGITS],
        lambda l, x: l.logitcrossentropy(
            x, SOME, weight=WEIGHT, ignore_index=-100, label_smoothing=0.2
        ),
        lambda f, c, x: f.cross_entropy(x, c(SOME), c(WEIGHT), label_smoothing=0.2),
    ),
    "logit_each": _loss(
        [LOGITS],
        lambda l, x: l.logitcrossentropy(x, LABELS, lambda y: y, weight=WEIGHT),
        lambda f, c, x: f.cross_entropy(x, c(LABELS), c(WEIGHT), reduction="none"),
    ),
    "logit_axis": _loss(
        [("n", (2, 5, 3))],
        lambda l, x: l.logitcrossentropy(x, LABELS[:3] * np.ones((2, 1), int), axis=1),
        lambda f, c, x: f.cross_entropy(x, c(LABELS[:3]).expand(2, 3)),
    ),
    "logit_shares": _loss(
        [LOGITS, SIMPLEX],
        lambda l, x, y: l.logitcrossentropy(x, y, weight=WEIGHT, label_smoothing=0.1),
        lambda f, c, x, y: f.cross_entropy(x, y, c(WEIGHT), label_smoothing=0.1),
    ),
    "nll": _loss(
        [LOGITS],
        lambda l, x: l.nll_loss(x, SOME, weight=WEIGHT, ignore_index=-100),
        lambda f, c, x: f.nll_loss(x, c(SOME), c(WEIGHT)),
    ),
    "cross_entropy": _loss(
        [SIMPLEX],
        lambda l, x: l.crossentropy(x, LABELS, eps=0.0, weight=WEIGHT),
        lambda f, c, x: f.nll_loss(x.log(), c(LABELS), c(WEIGHT)),
    ),
    "kl": _loss(
        [SIMPLEX, SIMPLEX],
        lambda l, x, y: l.kldivergence(x, y, eps=0.0),
        lambda f, c, x, y: f.kl_div(x.log(), y, reduction="batchmean"),
    ),
    "binary": _loss(
        [("unit", (5,))],
        lambda l, x: l.binarycrossentropy(x, BITS, eps=0.0),
        lambda f, c, x: f.binary_cross_entropy(x, c(BITS)),
    ),
    "logit_binary": _loss(
        [("n", (5,))],
        lambda l, x: l.logitbinarycrossentropy(x, BITS, weight=WEIGHT, pos_weight=2.5),
        lambda f, c, x: f.binary_cross_entropy_with_logits(
            x, c(BITS), c(WEIGHT), pos_weight=c(2.5)
        ),
    ),
    "cosine": _loss(
        [ROWS, ROWS],
        lambda l, x, y: l.cosine_embedding_loss(x, y, SIGNS, margin=-0.2),
        lambda f, c, x, y: f.cosine_embedding_loss(x, y, c(SIGNS), margin=-0.2),
    ),
    "ranking": _loss(
        [("n", (5,)), ("n", (5,))],
        lambda l, x, y: l.margin_ranking_loss(x, y, SIGNS, margin=0.3),
        lambda f, c, x, y: f.margin_ranking_loss(x, y, c(SIGNS), margin=0.3),
    ),
    "triplet": _loss(
        [ROWS, ROWS, ROWS],
        lambda l, a, x, y: l.triplet_margin_loss(a, x, y, margin=2.0),
        lambda f, c, a, x, y: f.triplet_margin_loss(a, x, y, margin=2.0),
    ),
    "triplet_one": _loss(
        [ROWS, ROWS, ROWS],
        lambda l, a, x, y: l.triplet_margin_loss(a, x, y, p=1),
        lambda f, c, a, x, y: f.triplet_margin_loss(a, x, y, p=1),
    ),
}


def _draw(kind, shape, rng):
    x = rng.normal(size=shape)
    if kind == "wide":
        x *= 4
    elif kind == "p":
        x = np.exp(x)
    elif kind == "unit":
        x = 1 / (1 + np.exp(-x))
    elif kind == "s":
        x = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    return x.astype(np.float32).astype(np.float64)


def inputs(name):
    """The operands of a case, f32 numbers as float64."""
    rng = record.generator(name)
    return [_draw(kind, shape, rng) for kind, shape in CASES[name][0]]


def main():
    record.record(FILE, CASES, inputs, lambda torch, name, xs: CASES[name][2](torch, *xs))


if __name__ == "__main__":
    main()
