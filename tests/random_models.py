"""Random models: stacks of layers from the whole of `fluxc.nn`, each with a loss and an optimiser.

A stack grows layer by layer.  What it has made so far has a kind, which says what its axes mean
and so what may follow, and sizes, which `fx.outputsize` finds; a layer that does not take them is
drawn again.
"""

# ruff: noqa: ARG005, PLW0108 (makers of layers take what every maker takes; an entry is a function)

from dataclasses import dataclass

import numpy as np

import fluxc as fx
from fluxc import losses, nn, optim, schedules
from fluxc.types import TensorSpec, as_dtype

ROWS, SEQUENCE, IMAGE = "rows", "sequence", "image"
MOST = 1500  # elements of one example, about
FLAT = {"eps": 0.1}  # of norms, which would else make much of the rounding of equal elements

ACTIVATIONS = (
    fx.relu, fx.tanh, fx.sigmoid, fx.gelu, fx.elu, fx.selu, fx.softplus, fx.swish, fx.mish,
    fx.leakyrelu, fx.hardsigmoid, fx.hardtanh, fx.hardswish, fx.celu, fx.logcosh, fx.softsign,
    fx.tanhshrink, fx.lisht, fx.relu6, fx.logsigmoid, fx.softshrink, fx.trelu, fx.identity,
)  # fmt: skip


class Draw:
    """Random choices."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def of(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def upto(self, high, low=1):
        return int(self.rng.integers(low, high + 1))

    def chance(self, p=0.5):
        return bool(self.rng.random() < p)

    def activation(self):
        return self.of(*ACTIVATIONS)

    def size(self):
        return self.of(1, 2, 3, 4, 5, 7, 8, 13)

    def divisor(self, n):
        return self.of(*(d for d in range(1, n + 1) if n % d == 0))

    def each(self, rank, high, low=1):
        """One number for all axes, or one for each."""
        return self.upto(high, low) if self.chance() else self.tuple(rank, high, low)

    def tuple(self, rank, high, low=1):
        return tuple(self.upto(high, low) for _ in range(rank))

    def pad(self, rank, high=2):
        return self.of(
            0,
            self.upto(high),
            self.tuple(rank, high, 0),
            self.tuple(2 * rank, high, 0),
            nn.SamePad(),
        )


# Layers of each kind: functions of a Draw and the sizes behind the batch.


def same(make):
    """A layer whose result has the kind of its input."""
    return lambda d, s, kind: (make(d, s), kind)


def to(kind, make):
    return lambda d, s, _: (make(d, s), kind)


def dense(d, s):
    return nn.Dense(s[-1], d.size(), d.activation(), bias=d.chance(0.8))


def by_feature(d, s):
    return d.of(
        nn.LayerNorm(s[-1], d.activation(), affine=d.chance(0.8), **FLAT),
        nn.RMSNorm(s[-1], **FLAT),
        nn.Scale(s[-1], d.activation(), bias=d.chance()),
    )


def by_channel(d, s):
    c, act = s[0], d.activation()
    choices = [
        nn.BatchNorm(c, act, affine=d.chance(0.8), momentum=d.of(0.1, 0.5), **FLAT),
        nn.BatchNorm(c, track_stats=False, **FLAT),
        nn.GroupNorm(c, d.divisor(c), act, affine=d.chance(0.8), **FLAT),
        nn.LocalResponseNorm(d.upto(4), alpha=0.1),
    ]
    if len(s) > 1 and set(s[1:]) != {1}:  # one value has no variance
        options = {"affine": d.chance(), "track_stats": d.chance(), **FLAT}
        choices.append(nn.InstanceNorm(c, act, **options))
    return d.of(*choices)


def dropout(d, s):
    dims = d.of(None, (0, d.upto(len(s))))
    return d.of(nn.Dropout(0.3, dims=dims), nn.AlphaDropout(0.2), nn.Dropout(0.5))


def activation(d, s):
    normalise = lambda x: fx.normalise(x, -1, **FLAT)
    choices = [d.activation(), fx.softmax, fx.logsoftmax, normalise, fx.rrelu]
    return d.of(*choices, fx.glu) if s[-1] % 2 == 0 else d.of(*choices)


def around(make):
    """Combinations of layers that keep the shape, which `make` gives."""

    def combined(d, s):
        f, g = make(d, s), make(d, s)
        return d.of(
            nn.SkipConnection(f, d.of(fx.add, lambda y, x: y * x, fx.maximum)),
            nn.SkipConnection(nn.Chain(f, g), lambda y, x: fx.concatenate([y, x], 1)),
            nn.Parallel(lambda *ys: fx.concatenate(ys, 1), f, g, d.activation()),
            nn.Parallel(fx.multiply, a=f, b=g),
            nn.Maxout(f, g),
            nn.Chain(nn.PairwiseFusion(fx.add, f, g), lambda ys: ys[0] - ys[1]),
            nn.Chain(first=f, second=g),
        )

    return same(combined)


def square_dense(d, s):
    return nn.Dense(s[-1], s[-1], d.activation())


def to_image(d, s):
    c = d.divisor(s[0])
    return lambda x: x.reshape((x.shape[0], c, s[0] // c))


def conv_options(d, s):
    rank = len(s) - 1
    groups = d.divisor(s[0])
    return {
        "stride": d.each(rank, 3),
        "dilation": d.of(1, d.each(rank, 2)),
        "groups": groups,
        "flip": d.chance(0.2),
        "bias": d.chance(0.7),
    }, groups * d.of(1, 2, 3)


def conv(d, s):
    options, out = conv_options(d, s)
    kernel = d.tuple(len(s) - 1, 4)
    kind = d.of(nn.Conv, nn.Conv, nn.CrossCor)
    return kind(kernel, s[0], out, d.activation(), pad=d.pad(len(s) - 1), **options)


def conv_transpose(d, s):
    options, out = conv_options(d, s)
    rank = len(s) - 1
    options["outpad"] = d.of(0, 0, 1)
    kernel, pad = d.tuple(rank, 4), d.of(0, d.each(rank, 1, 0))
    return nn.ConvTranspose(kernel, s[0], out, d.activation(), pad=pad, **options)


def depthwise(d, s):
    rank = len(s) - 1
    kernel, pad = d.tuple(rank, 3), d.pad(rank, 1)
    return nn.DepthwiseConv(kernel, s[0], s[0] * d.upto(2), d.activation(), pad=pad)


def square_conv(d, s):
    kernel = d.tuple(len(s) - 1, 3)
    return nn.Conv(kernel, s[0], s[0], d.activation(), pad=nn.SamePad())


def pool(d, s):
    rank = len(s) - 1
    k = d.tuple(rank, 3)
    around = d.of(0, tuple(d.upto(n // 2, 0) for n in k))
    options = {"stride": d.of(None, d.each(rank, 3)), "pad": around, "ceil_mode": d.chance(0.3)}
    return d.of(
        nn.MaxPool(k, **options),
        nn.MeanPool(k, count_include_pad=d.chance(), **options),
        nn.LPPool(2, k, **options),
        nn.MaxPool(k, dilation=d.each(rank, 2), stride=options["stride"]),
        nn.AdaptiveMaxPool(d.tuple(rank, 4)),
        nn.AdaptiveMeanPool(d.tuple(rank, 4)),
        nn.FractionalMaxPool(k, d.tuple(rank, 3)),
        Uses(unpooled, nn.MaxPool(k, return_indices=True)),
    )


def unpooled(pool, x):
    """The greatest elements of windows, alone, where they were."""
    y, indices = pool(x)
    return nn.MaxUnpool(pool.k)(y, indices, size=x.shape[2:])


def global_pool(d, s):
    del s
    return nn.Chain(d.of(nn.GlobalMaxPool(), nn.GlobalMeanPool(), nn.GlobalLPPool(2)), nn.flatten)


def padding(d, s):
    rank = len(s) - 1
    pad = d.of(1, d.tuple(rank, 2, 0), d.tuple(2 * rank, 2, 0))
    return d.of(
        nn.ZeroPad(pad),
        nn.ConstantPad(pad, 0.5),
        nn.ReflectionPad(pad),
        nn.ReplicationPad(pad),
        nn.CircularPad(pad),
    )


def resample(d, s):
    rank = len(s) - 1
    smooth = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}[rank]
    mode = d.of("nearest", *smooth)
    target = d.of({"scale": d.each(rank, 2)}, {"size": d.tuple(rank, 6)}, {"scale": 1.5})
    return d.of(
        nn.Upsample(mode=mode, align_corners=d.chance(), **target),
        nn.PixelShuffle(2),
        nn.PixelUnshuffle(2),
    )


def weight_normed(make):
    return lambda d, s: nn.WeightNorm(make(d, s), dims=d.of(-1, 0, None))


def recurrent_layer(d, n):
    kind = d.of(nn.RNN, nn.LSTM, nn.GRU, nn.GRUv3)
    options = {"reset_bias": d.chance()} if kind is nn.GRU else {}
    more = (d.of(fx.tanh, fx.relu),) if kind is nn.RNN else ()
    return kind(n, d.size(), *more, bias=d.chance(0.8), reverse=d.chance(0.3), **options)


def recurrent(d, s):
    layer = recurrent_layer(d, s[-1])
    out = layer.cell.out_size
    return d.of(
        layer,
        layer,
        nn.Bidirectional(layer, merge=d.of("concat", "sum", "mean", "mul")),
        nn.Stacked(layer, recurrent_layer(d, out), dropout=d.of(0.0, 0.3)),
        nn.Recurrence(layer.cell, reverse=d.chance()),
        Uses(last_state, layer),
        Uses(of_lengths, layer),
    )


class Uses(nn.Module):
    """A function of an input and a layer, which may take or return more than one tensor."""

    def __init__(self, f, layer):
        self.f, self.layer = f, layer

    def __call__(self, x):
        return self.f(self.layer, x)


def last_state(layer, x):
    """The first part of a last state, as a sequence of one step."""
    _, state = layer(x, return_state=True)
    while isinstance(state, tuple):
        state = state[0]
    return state[:, None]


def of_lengths(layer, x):
    """Sequences of all lengths, from none of the steps to all of them."""
    n, time = x.shape[:2]
    return layer(x, lengths=fx.arange(n) % (time + 1))


def masked(mha, x):
    """Attention to what is positive, which may be nothing."""
    seen = x[..., 0] > 0
    return mha(x, mask=seen[:, None, None, :])[0]


def attention(d, s):
    heads = d.divisor(s[-1])
    shared = d.divisor(heads)
    turned = nn.RotaryEmbedding() if s[-1] // heads % 2 == 0 and d.chance() else None
    mha = nn.MultiHeadAttention(
        s[-1], heads, nkvheads=shared, bias=d.chance(), rotary=turned,
        dropout_prob=d.of(0.0, 0.2), window=d.of(None, None, 2),
    )  # fmt: skip
    causal = mha.window is not None or d.chance()
    whole = lambda f, x: f(x, causal=causal)[0]
    return nn.SkipConnection(Uses(whole if causal else d.of(whole, masked), mha), fx.add)


def transformer(d, s):
    heads = d.divisor(s[-1])
    options = {
        "hidden": d.size(), "activation": d.of(fx.relu, fx.gelu), "dropout_prob": d.of(0.0, 0.1),
        "norm_first": d.chance(), **FLAT,
    }  # fmt: skip
    decoder = d.of(
        nn.TransformerDecoderLayer(s[-1], heads, **options),
        nn.TransformerDecoder(1, s[-1], heads, **options),
    )
    return d.of(
        nn.TransformerEncoderLayer(s[-1], heads, **options),
        nn.TransformerEncoder(2, s[-1], heads, **options),
        nn.SkipConnection(Uses(lambda f, x: f(x, fx.tanh(x)), decoder), fx.add),
    )


def positions(d, s):
    choices = [nn.PositionEmbedding(40, s[-1])]
    if s[-1] % 2 == 0:
        choices += [nn.SinusoidalEmbedding(s[-1]), nn.RotaryEmbedding()]
    return d.of(*choices)


LAYERS = {
    ROWS: (
        same(dense), same(dense), same(by_feature), same(by_channel), same(dropout),
        same(activation), around(square_dense), same(weight_normed(dense)), to(IMAGE, to_image),
        same(lambda d, s: nn.Bilinear(s[0], d.size(), d.activation())),
        to(SEQUENCE, lambda d, s: lambda x: fx.stack([x, fx.tanh(x), -x], 1)),
    ),
    SEQUENCE: (
        same(dense), same(by_feature), same(recurrent), same(recurrent), same(attention),
        same(transformer), same(positions), same(dropout), around(square_dense), same(activation),
        to(IMAGE, lambda d, s: lambda x: x.transpose((0, 2, 1))),
        to(ROWS, lambda d, s: lambda x: x[:, -1]), to(ROWS, lambda d, s: lambda x: x.mean(1)),
        to(ROWS, lambda d, s: nn.flatten),
    ),
    IMAGE: (
        same(conv), same(conv), same(conv), same(conv_transpose), same(depthwise), same(pool),
        same(pool), same(padding), same(resample), same(by_channel), same(by_channel),
        same(dropout), around(square_conv), same(weight_normed(conv)), same(activation),
        to(ROWS, global_pool), to(ROWS, lambda d, s: nn.flatten),
    ),
}  # fmt: skip


# Losses: a function of the prediction and a target of its sizes, or of integer labels.


def positive(y):
    return fx.softplus(y) + 0.1


def probability(y):
    return fx.sigmoid(y) * 0.9 + 0.05


def binary(t):
    return (t > 0).astype(t.dtype)


LOSSES = {
    "mse": losses.mse,
    "mae": losses.mae,
    "sum": lambda y, t: losses.mse(y, t, agg=lambda x: 0.01 * x.sum()),
    "huber_loss": losses.huber_loss,
    "smooth_l1_loss": losses.smooth_l1_loss,
    "msle": lambda y, t: losses.msle(positive(y), positive(t)),
    "poisson_loss": lambda y, t: losses.poisson_loss(positive(y), positive(t)),
    "quantile_loss": lambda y, t: losses.quantile_loss(y, t, q=0.3),
    "gaussian_nll_loss": lambda y, t: losses.gaussian_nll_loss(y, t, positive(y)),
    "binarycrossentropy": lambda y, t: losses.binarycrossentropy(probability(y), binary(t)),
    "logitbinarycrossentropy": lambda y, t: losses.logitbinarycrossentropy(y, binary(t)),
    "binary_focal_loss": lambda y, t: losses.binary_focal_loss(probability(y), binary(t)),
    "hinge_loss": lambda y, t: losses.hinge_loss(y, 2 * binary(t) - 1),
    "squared_hinge_loss": lambda y, t: losses.squared_hinge_loss(y, 2 * binary(t) - 1),
    "dice_coeff_loss": lambda y, t: losses.dice_coeff_loss(probability(y), binary(t)),
    "tversky_loss": lambda y, t: losses.tversky_loss(probability(y), binary(t)),
    "kldivergence": lambda y, t: losses.kldivergence(fx.softmax(y), fx.softmax(t)),
    "siamese": lambda y, t: losses.siamese_contrastive_loss(positive(y), binary(t)),
    "cosine": lambda y, t: losses.cosine_embedding_loss(y, t, 2 * binary(t[..., 0]) - 1),
    "info_nce": lambda y, t: losses.info_nce_loss(nn.flatten(y), nn.flatten(t)),
}

OF_LABELS = {
    "logitcrossentropy": losses.logitcrossentropy,
    "crossentropy": lambda y, t, axis: losses.crossentropy(fx.softmax(y, axis), t, axis=axis),
    "nll_loss": lambda y, t, axis: losses.nll_loss(fx.logsoftmax(y, axis), t, axis=axis),
    "focal_loss": lambda y, t, axis: losses.focal_loss(fx.softmax(y, axis), t, axis=axis),
    "smoothed": lambda y, t, axis: losses.logitcrossentropy(y, t, axis=axis, label_smoothing=0.1),
}


# Rules whose steps are proportional to gradients go with any precision; the others divide by
# sizes of gradients, which where nothing but rounding is left of them only f64 keeps small.
EPS = 1e-3
PROPORTIONAL = (
    lambda d: optim.Descent(0.1),
    lambda d: optim.Momentum(0.05, 0.8),
    lambda d: optim.Nesterov(0.05),
    lambda d: optim.Descent(schedules.Exp(0.1, 0.5)),
    lambda d: optim.Chain(
        optim.WeightDecay(0.01), optim.Momentum(schedules.Triangle(0.1, 0.01, 4))
    ),
    lambda d: optim.Chain(optim.ClipNorm(0.5, global_norm=d.chance()), optim.Descent(0.1)),
    lambda d: optim.Chain(optim.ClipGrad(0.05), optim.Descent(0.1)),
    lambda d: optim.Chain(optim.AccumGrad(2), optim.Momentum(0.1)),
)
DIVIDING = (
    lambda d: optim.Adam(0.01, eps=EPS),
    lambda d: optim.AdamW(0.01, lambda_=0.1, couple=d.chance(), eps=EPS),
    lambda d: optim.RAdam(0.01, eps=EPS),
    lambda d: optim.AdaMax(0.01, eps=EPS),
    lambda d: optim.OAdam(0.01, eps=EPS),
    lambda d: optim.AMSGrad(0.01, eps=EPS),
    lambda d: optim.NAdam(0.01, eps=EPS),
    lambda d: optim.AdaBelief(0.01, eps=EPS),
    lambda d: optim.RMSProp(0.01, centred=d.chance(), eps=EPS),
    lambda d: optim.AdaGrad(0.05, eps=EPS),
    lambda d: optim.AdaDelta(eps=EPS),
    lambda d: optim.Adam(schedules.Warmup(schedules.CosAnneal(0.02, 0.001, 5), 2), eps=EPS),
    lambda d: optim.Chain(optim.ClipNorm(1.0, global_norm=True), optim.AdamW(0.01, eps=EPS)),
)


@dataclass(frozen=True)
class RandomModel:
    """A model, its input without the batch, its output likewise, a loss and an optimiser."""

    seed: int
    model: object
    input: TensorSpec
    output: tuple
    loss: str
    labels: TensorSpec | None
    axis: int
    rule: object
    dtype: str

    def entries(self):
        """The names of a model file that declares it: the model, `predict` and `step`."""
        y, x = f"model{self.seed}", self.input
        target = self.labels or TensorSpec(as_dtype(self.dtype), ("n", *self.output))
        space = {y: self.model}
        space[f"predict{self.seed}"] = typed(f"predict{self.seed}", lambda x: self.model(x), x)
        space[f"step{self.seed}"] = typed(
            f"step{self.seed}", self.trained, x, target, optimizer=self.rule
        )
        return space

    def trained(self, x, t):
        y = self.model(x)
        value = (
            LOSSES[self.loss](y, t)
            if self.labels is None
            else OF_LABELS[self.loss](y, t, axis=self.axis)
        )
        return value, y

    def __str__(self):
        text = f"seed {self.seed}: {self.input}, {self.loss}, {self.rule}, {self.dtype}"
        return f"{text}\n{self.model!r}"


def typed(name, f, *specs, **options):
    """An entry of these inputs."""
    names = ("x", "t")[: len(specs)]
    entry = (lambda x: f(x)) if len(specs) == 1 else (lambda x, t: f(x, t))
    entry.__annotations__ = dict(zip(names, specs, strict=True))
    return fx.export(name=name, **options)(entry)


def random_model(seed):
    d = Draw(seed)
    dtype = d.of("f32", "f64")
    layers, kind, sizes, spec = first(d, dtype)
    for _ in range(d.upto(7, 2)):
        layers, kind, sizes = grown(d, layers, kind, sizes, spec)
    layers += [] if nn.trainables(layers) else [nn.Scale(1)]
    model = nn.cast(nn.Chain(*layers), dtype)
    for parameter in nn.trainables(model):
        if not callable(parameter.initial):
            parameter.init = near(parameter.initial)
    loss, labels, axis = drawn_loss(d, kind, sizes)
    rules = (*PROPORTIONAL, *DIVIDING) if dtype == "f64" else PROPORTIONAL
    return RandomModel(seed, model, spec, sizes, loss, labels, axis, d.of(*rules)(d), dtype)


def near(value):
    """An initialiser: where biases are zero, more elements lie at kinks than ever will again."""
    return lambda rng, shape: value + rng.uniform(-0.3, 0.3, shape)


def first(d, dtype):
    """Layers to begin with, the kind and sizes of what they make, and the type of the input."""
    kind = d.of(ROWS, SEQUENCE, IMAGE, IMAGE, "tokens")
    if kind == "tokens":
        t, n, dim = d.of("t", d.upto(6)), d.upto(9, 2), d.size()
        spec = fx.i32["n", t]
        if d.chance(0.3):
            return [nn.EmbeddingBag(n, dim, d.of("mean", "sum", "max"))], ROWS, (dim,), spec
        padding = d.of(None, 0, -1)
        return [nn.Embedding(n, dim, padding_idx=padding)], SEQUENCE, (t, dim), spec
    if kind == ROWS:
        sizes = (d.size(),)
    elif kind == SEQUENCE:
        sizes = (d.of("t", d.upto(7), fx.dim("t", min=2, max=40)), d.size())
    else:
        rank = d.upto(3)
        names = ("h", "w", "depth")
        sizes = (
            d.upto(4),
            *(d.of(names[i], *(d.upto(9 - rank) for _ in range(3))) for i in range(rank)),
        )
    return [], kind, sizes, TensorSpec(as_dtype(dtype), ("n", *sizes))


def grown(d, layers, kind, sizes, spec):
    """The layers and one more."""
    for _ in range(40):
        try:
            layer, after = d.of(*LAYERS[kind])(d, sizes, kind)
            shape = fx.outputsize([*layers, layer], spec)
        except (fx.FluxcError, TypeError):  # not for these sizes, a name among them
            continue
        known = [s for s in shape[1:] if isinstance(s, int)]
        if str(shape[0]) == "n" and 0 < np.prod(known, initial=1.0) <= MOST:
            return [*layers, layer], after, tuple(shape[1:])
    raise AssertionError(f"nothing fits {kind} {sizes} of {layers}")


def drawn_loss(d, kind, sizes):
    """A loss, the type of labels if it takes them, and the axis of classes."""
    axis = 1 if kind == IMAGE else -1
    classes = sizes[axis - 1 if axis == 1 else -1]
    if isinstance(classes, int) and d.chance(0.3):
        others = sizes[1:] if axis == 1 else sizes[:-1]
        return d.of(*OF_LABELS), TensorSpec(as_dtype("i32"), ("n", *others)), axis
    return d.of(*LOSSES), None, axis
