"""PyTorch's and Keras's weights in layers of fluxc: the same results.  Recurrent layers of PyTorch
are in test_recurrent.py."""

import numpy as np
import pytest
from golden import converted as golden

import fluxc as fx
from dsl import run
from fluxc import convert, nn

RNG = np.random.default_rng(5)

with np.load(golden.FILE) as stored:
    GOLDEN = dict(stored)

LAYERS = {
    "linear": nn.Dense(3, 4),
    "conv": nn.Conv((3, 3), 4, 6, groups=2),
    "conv_transpose": nn.ConvTranspose((3, 3), 4, 6, stride=2, groups=2),
    "batch_norm": nn.BatchNorm(3),
    "layer_norm": nn.LayerNorm(5),
    "attention": nn.MultiHeadAttention(6, nheads=2, bias=True),
    "attention_sizes": nn.MultiHeadAttention((6, 4, 5), 6, 6, nheads=2),
    "model": nn.Chain(nn.Conv(2, 2, 3), nn.BatchNorm(3, fx.relu), nn.flatten, nn.Dense(12, 2)),
}


def weights(name):
    start = f"{name}.weights."
    return {k.removeprefix(start): v for k, v in GOLDEN.items() if k.startswith(start)}


def result(layer, x, values):
    f = layer
    if isinstance(layer, nn.MultiHeadAttention):
        f = lambda x: layer(x, x[..., : layer.k_proj.in_size], x[..., : layer.v_proj.in_size])[0]
    return run(f, x, namespace={"layer": layer}, values=dict(values))


@pytest.mark.parametrize("name", golden.CASES)
def test_layers_of_pytorch(name):
    layer, arrays = LAYERS[name], weights(name)
    if name == "model":  # there the activation and its place are layers of their own
        arrays = {k.replace("4.", "3."): v for k, v in arrays.items()}
    values = convert.from_torch(layer, arrays)
    assert all(v.dtype == np.float32 for v in values.values())
    got = result(layer, GOLDEN[f"{name}.x"], values)
    np.testing.assert_allclose(got, GOLDEN[f"{name}.y"], rtol=2e-5, atol=2e-5)


def test_cells_of_pytorch():
    """Both biases are one; a GRU keeps the part that its reset gate scales."""
    arrays = {"weight_ih": (12, 2), "weight_hh": (12, 4), "bias_ih": (12,), "bias_hh": (12,)}
    arrays = {k: RNG.normal(size=shape) for k, shape in arrays.items()}
    got = convert.from_torch(nn.GRUCell(2, 4, reset_bias=True, dtype=fx.f64), arrays)
    np.testing.assert_array_equal(got["bias"][:8], (arrays["bias_ih"] + arrays["bias_hh"])[:8])
    np.testing.assert_array_equal(got["bias"][8:], arrays["bias_ih"][8:])
    np.testing.assert_array_equal(got["reset_bias"], arrays["bias_hh"][8:])
    with pytest.raises(fx.TraceError, match="the reset gate scales a bias that"):
        convert.from_torch(nn.GRUCell(2, 4), arrays)
    arrays["bias_hh"][8:] = 0
    assert "reset_bias" not in convert.from_torch(nn.GRUCell(2, 4), arrays)


def test_modules_of_ones_own():
    """Attributes, lists and stacks correspond by their names."""

    class Tagger(fx.Module):
        def __init__(self):
            self.embed = nn.Embedding(5, 3)
            self.blocks = [nn.Stacked(nn.RNN(3, 2), nn.RNN(2, 2)), nn.LSTM(2, 2, bias=False)]
            self.gain = fx.Param(2)

    model = Tagger()
    arrays = {"embed.weight": np.ones((5, 3)), "gain": np.arange(2), "steps.num_batches_tracked": 1}
    for layer, wide in enumerate((3, 2)):
        for name, shape in (("weight_ih", (2, wide)), ("weight_hh", (2, 2)), ("bias_ih", 2)):
            arrays[f"blocks.0.{name}_l{layer}"] = RNG.normal(size=shape)
        arrays[f"blocks.0.bias_hh_l{layer}"] = np.zeros(2)
    arrays |= {f"blocks.1.weight_{e}h_l0": RNG.normal(size=(8, 2)) for e in "ih"}
    got = convert.from_torch(model, arrays)
    assert list(got) == list(model.parameters())
    np.testing.assert_array_equal(got["gain"], [0, 1])
    np.testing.assert_allclose(
        got["blocks.0.layers.1.cell.Wi"], arrays["blocks.0.weight_ih_l1"], rtol=1e-6
    )


# ---- Keras, by the formulas of its documentation


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def keras_lstm(w, x):
    h = c = np.zeros((len(x), len(w["recurrent_kernel"])))
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def keras_gru(w, x):
    """z, r, h; the reset gate after the product where the bias has two rows, else before."""
    after = w["bias"].ndim == 2
    b = w["bias"] if after else np.stack([w["bias"], 0 * w["bias"]])
    h = np.zeros((len(x), len(w["recurrent_kernel"])))
    u_z, u_r, u_h = np.split(w["recurrent_kernel"], 3, -1)
    b_z, b_r, b_h = np.split(b[1], 3)
    for t in range(x.shape[1]):
        x_z, x_r, x_h = np.split(x[:, t] @ w["kernel"] + b[0], 3, -1)
        z, r = sigmoid(x_z + h @ u_z + b_z), sigmoid(x_r + h @ u_r + b_r)
        new = np.tanh(x_h + (r * (h @ u_h + b_h) if after else (r * h) @ u_h))
        h = z * h + (1 - z) * new
    return h


def keras_rnn(w, x):
    h = np.zeros((len(x), len(w["recurrent_kernel"])))
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"])
    return h


def keras_attention(w, x):
    q, k, v = (np.einsum("btd,dhk->bthk", x, w[f"{n}/kernel"]) + w[f"{n}/bias"] for n in QKV)
    scores = np.exp(np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1]))
    y = np.einsum("bhts,bshk->bthk", scores / scores.sum(-1, keepdims=True), v)
    return np.einsum("bthk,hkd->btd", y, w["attention_output/kernel"]) + w["attention_output/bias"]


QKV = ("query", "key", "value")


def keras_conv(w, x):
    """Channels last, as [batch, time, in] -> [batch, time - 1, out]."""
    pairs = np.stack([x[:, :-1], x[:, 1:]], 2)
    return np.einsum("btki,kio->bto", pairs, w["kernel"]) + w["bias"]


def keras_depthwise(w, x):
    pairs = np.stack([x[:, :-1], x[:, 1:]], 2)
    y = np.einsum("btki,kim->btim", pairs, w["depthwise_kernel"])
    return y.reshape(*y.shape[:2], -1) + w["bias"]


def channels_last(layer):
    return nn.Chain(lambda x: fx.swapaxes(x, 1, 2), layer, lambda x: fx.swapaxes(x, 1, 2))


def last_state(layer):
    return nn.Chain(layer, lambda y: y[:, -1])


def keras_norm(w, x):
    y = (x - w["moving_mean"]) / np.sqrt(w["moving_variance"] + 1e-5)
    return y * w["gamma"] + w["beta"]


W64 = {"dtype": fx.f64}
# name: the layer, Keras's result, the shapes of the weights
KERAS = {
    "dense": (
        nn.Chain(nn.Dense(3, 4, **W64)),
        lambda w, x: x @ w["kernel"] + w["bias"],
        {"kernel": (3, 4), "bias": 4},
    ),
    "embedding": (
        nn.Chain(lambda x: fx.abs(x * 3).astype(fx.i32) % 5, nn.Embedding(5, 2, **W64)),
        lambda w, x: w["embeddings"][np.abs(x * 3).astype(int) % 5],
        {"embeddings": (5, 2)},
    ),
    "norm": (
        nn.Chain(lambda x: x[:, 0], nn.BatchNorm(3)),
        lambda w, x: keras_norm(w, x[:, 0]),
        {"gamma": 3, "beta": 3, "moving_mean": 3, "moving_variance": 3},
    ),
    "conv": (
        channels_last(nn.Conv(2, 3, 4, **W64)),
        keras_conv,
        {"kernel": (2, 3, 4), "bias": 4},
    ),
    "flipped": (
        channels_last(nn.Conv(2, 3, 4, flip=True, **W64)),
        keras_conv,
        {"kernel": (2, 3, 4), "bias": 4},
    ),
    "depthwise": (
        channels_last(nn.DepthwiseConv(2, 3, 6, **W64)),
        keras_depthwise,
        {"depthwise_kernel": (2, 3, 2), "bias": 6},
    ),
    "attention": (
        nn.Chain(
            nn.MultiHeadAttention(3, 4, 3, nheads=2, bias=True, **W64), lambda found: found[0]
        ),
        keras_attention,
        {f"{n}/kernel": (3, 2, 2) for n in QKV}
        | {f"{n}/bias": (2, 2) for n in QKV}
        | {"attention_output/kernel": (2, 2, 3), "attention_output/bias": 3},
    ),
    "simple_rnn": (
        last_state(nn.RNN(3, 2, **W64)),
        keras_rnn,
        {"kernel": (3, 2), "recurrent_kernel": (2, 2), "bias": 2},
    ),
    "lstm": (
        last_state(nn.LSTM(3, 2, **W64)),
        keras_lstm,
        {"kernel": (3, 8), "recurrent_kernel": (2, 8), "bias": 8},
    ),
    "gru": (
        last_state(nn.GRU(3, 2, reset_bias=True, **W64)),
        keras_gru,
        {"kernel": (3, 6), "recurrent_kernel": (2, 6), "bias": (2, 6)},
    ),
    "gru_reset_before": (
        last_state(nn.GRUv3(3, 2, **W64)),
        keras_gru,
        {"kernel": (3, 6), "recurrent_kernel": (2, 6), "bias": 6},
    ),
}


@pytest.mark.parametrize("name", KERAS)
def test_layers_of_keras(name):
    model, formula, shapes = KERAS[name]
    arrays = {k: RNG.normal(size=s) for k, s in shapes.items()}
    if "moving_variance" in arrays:
        arrays["moving_variance"] = np.abs(arrays["moving_variance"]) + 0.5
    place = next(i for i, layer in enumerate(model) if isinstance(layer, fx.Module))
    named = {f"{place}/layer_1/{k}:0": v for k, v in arrays.items()}
    x = RNG.normal(size=(2, 4, 3))
    tight = {"rtol": 1e-12, "atol": 1e-12} if name != "norm" else {"rtol": 1e-5, "atol": 1e-5}
    got = result(model, x, convert.from_keras(model, named))
    np.testing.assert_allclose(got, formula(arrays, x), **tight)


def test_both_ways_of_keras():
    layer = nn.Bidirectional(nn.LSTM(3, 2, dtype=fx.f64), return_state=True)
    shapes = {"kernel": (3, 8), "recurrent_kernel": (2, 8), "bias": 8}
    ways = [{k: RNG.normal(size=s) for k, s in shapes.items()} for _ in range(2)]
    arrays = {f"bidirectional/forward_lstm/lstm_cell/{k}": v for k, v in ways[0].items()}
    arrays |= {f"bidirectional/backward_lstm/lstm_cell/{k}": v for k, v in ways[1].items()}
    x = RNG.normal(size=(2, 4, 3))
    chain = nn.Chain(feedforward=layer)
    below = {f"feedforward/{name}": a for name, a in arrays.items()}
    assert len(convert.from_keras(chain, below)) == 6
    _, h, _, back, _ = result(layer, x, convert.from_keras(layer, arrays))
    np.testing.assert_allclose(h, keras_lstm(ways[0], x), rtol=1e-12)
    np.testing.assert_allclose(back, keras_lstm(ways[1], x[:, ::-1]), rtol=1e-12)


DENSE = {"weight": np.zeros((4, 3)), "bias": np.zeros(4)}


@pytest.mark.parametrize(
    ("convert", "layer", "arrays", "match"),
    [
        (convert.from_torch, nn.Dense(3, 4), {"weight": DENSE["weight"]}, "no arrays are bias"),
        (convert.from_torch, nn.Dense(3, 4, bias=False), DENSE, "no place for\n  got: *bias"),
        (convert.from_torch, nn.Dense(4, 3), DENSE, "weight has another shape"),
        (convert.from_torch, nn.GRUv3(3, 4), {}, "PyTorch has no GRUv3Cell"),
        (convert.from_keras, nn.Dense(3, 4), {}, "no arrays are kernel"),
        (
            convert.from_keras,
            nn.Dense(3, 4, bias=False),
            {"a/kernel": np.zeros((3, 4)), "b/kernel": np.zeros((3, 4))},
            "2 arrays are kernel",
        ),
        (
            convert.from_keras,
            nn.GRU(3, 2),
            {
                "kernel": np.zeros((3, 6)),
                "recurrent_kernel": np.zeros((2, 6)),
                "bias": np.zeros(6),
            },
            "another shape",
        ),
    ],
)
def test_what_does_not_fit(convert, layer, arrays, match):
    with pytest.raises(fx.FluxcError, match=match):
        convert(layer, arrays)


def test_bf16_is_bits():
    """Numbers are in the parameters' dtype."""
    arrays = {"weight": np.ones((1, 1)), "bias": np.full(1, -2.0)}
    got = convert.from_torch(nn.Dense(1, 1, dtype=fx.bf16), arrays)
    assert [hex(v.item()) for v in got.values()] == ["0x3f80", "0xc000"]
