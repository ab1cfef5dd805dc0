"""Recurrent cells and layers, against PyTorch by way of conversion, and against their formulas."""

# ruff: noqa: F821, PLW0108 (names of sizes; tables of functions of one signature)

from functools import cache, partial

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs
from golden import recurrent as golden

import fluxc as fx
from dsl import call, first_values, run, trace
from fluxc import convert, losses, nn, optim
from fluxc.compiler.ir.types import f64
from fluxc.compiler.passes import optimize
from fluxc.tree import leaves

RNG = np.random.default_rng(3)

with np.load(golden.FILE) as stored:
    GOLDEN = dict(stored)


# ---- PyTorch's values


def layer_of(name):
    """The layer of a case, that gives its last state."""
    module, layers, both, options, _, _ = golden.CASES[name]
    more = {"dtype": fx.f64, "bias": options.get("bias", True)}
    if module == "GRU":
        more["reset_bias"] = True
    if "nonlinearity" in options:
        more["activation"] = fx.relu
    made = []
    for i in range(layers):
        wide = golden.IN if i == 0 else golden.OUT * (1 + both)
        one = getattr(nn, module)(wide, golden.OUT, return_state=True, **more)
        made.append(nn.Bidirectional(one, return_state=True) if both else one)
    return made[0] if layers == 1 else nn.Stacked(*made, return_state=True)


def nested(name, arrays):
    """PyTorch's states [layers * ways, ...] as the layer has them."""
    _, layers, both, _, _, _ = golden.CASES[name]
    parts = [tuple(a[i] for a in arrays) for i in range(layers * (1 + both))]
    parts = [p if len(p) > 1 else p[0] for p in parts]
    if both:
        parts = [tuple(parts[2 * i : 2 * i + 2]) for i in range(layers)]
    return parts[0] if layers == 1 else tuple(parts)


def labels_of(name):
    return ("h", "c") if golden.CASES[name][0] == "LSTM" else ("h",)


def seeds_of(name):
    """Cotangents of the output and of the last states, as PyTorch has them."""
    return [golden.seed(name, k, GOLDEN[f"{name}.{k}"].shape) for k in ("y", *labels_of(name))]


@cache
def differentiated(name):
    """The entry of a case: y, last states, and the gradients by x, initial states and weights."""
    layer = layer_of(name)
    *_, has_state, has_lengths = golden.CASES[name]
    kinds = len(labels_of(name))

    def loss(layer, x, state, lengths, seeds):
        results = leaves(layer(x, state, lengths=lengths))
        return sum((r * s).sum() for r, s in zip(results, seeds, strict=True)), results

    def f(x, seed, *rest):
        seeds = [seed, *leaves(nested(name, rest[:kinds]))]
        state = nested(name, rest[kinds : 2 * kinds]) if has_state else None
        lengths = rest[-1] if has_lengths else None
        wrt = (1, 2, 0) if has_state else (1, 0)
        gradients, results = fx.grad(loss, wrt, has_aux=True)(layer, x, state, lengths, seeds)
        return [results, gradients]

    seed, *states = (s.shape for s in [*seeds_of(name), *golden.states(name)])
    specs = [fx.f64["batch", "time", golden.IN], fx.f64["batch", "time", seed[-1]]]
    specs += [fx.f64[s[0], "batch", golden.OUT] for s in states]
    specs += [fx.i32["batch"]] if has_lengths else []
    entry, storages = trace(f, *specs, namespace={"layer": layer})
    assert list(storages) == list(layer.parameters())
    return layer, entry


def arguments(name):
    """The inputs of a case and its weights by way of conversion."""
    layer, _ = differentiated(name)
    lengths = [golden.LENGTHS] if golden.CASES[name][-1] else []
    weights = convert.from_torch(layer, golden.weights(name))
    given = [golden.inputs(name), *seeds_of(name), *golden.states(name), *lengths]
    return [*given, *weights.values()]


def wanted(name):
    layer, _ = differentiated(name)
    value = lambda label: GOLDEN[f"{name}.{label}"]
    found = [value("y"), *leaves(nested(name, [value(k) for k in labels_of(name)])), value("dx")]
    if golden.states(name):
        found += leaves(nested(name, [value(f"d{k}0") for k in labels_of(name)]))
    gradients = {k: value(f"d.{k}").copy() for k in golden.weights(name)}
    for k, g in gradients.items():
        if k.startswith("bias_hh"):  # both biases of PyTorch have the gradient of our one
            g[: 2 * golden.OUT if "gru" in name else None] = 0
    return [*found, *convert.from_torch(layer, gradients).values()]


def assert_all(name, got):
    for i, (g, w) in enumerate(zip(got, wanted(name), strict=True)):
        assert_agrees(np.asarray(g), w, f64, scale=10.0, context=f"{name}, result {i}")


@pytest.mark.parametrize("name", golden.CASES)
def test_the_interpreter_agrees_with_pytorch(name):
    _, entry = differentiated(name)
    values = dict(zip(entry.storages, arguments(name)[len(entry.inputs) :], strict=True))
    assert_all(name, call(entry, values, *arguments(name)[: len(entry.inputs)]))


@pytest.mark.cc
def test_compiled_code_agrees_with_pytorch(tmp_path):
    """Forward and gradients, for any batch and length."""
    names = ["rnn_relu", "lstm_lengths", "gru_both_ways", "lstm_all"]
    compiled = compile_graphs({name: differentiated(name)[1].graph for name in names}, tmp_path)
    for name in names:
        assert_all(name, compiled.on_every_number_of_threads(name, arguments(name)))


# ---- Flux's formulas


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn_step(p, x, h):
    h = np.tanh(x @ p["Wi"].T + h @ p["Wh"].T + p["bias"])
    return h, h


def lstm_step(p, x, state):
    h, c = state
    i, f, g, o = np.split(x @ p["Wi"].T + h @ p["Wh"].T + p["bias"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return h, (h, c)


def gru_step(p, x, h):
    xr, xz, xn = np.split(x @ p["Wi"].T + p["bias"], 3, -1)
    hr, hz, hn = np.split(h @ p["Wh"].T, 3, -1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    h = (1 - z) * np.tanh(xn + r * (hn + p.get("reset_bias", 0))) + z * h
    return h, h


def gruv3_step(p, x, h):
    xr, xz, xn = np.split(x @ p["Wi"].T + p["bias"], 3, -1)
    hr, hz, _ = np.split(h @ p["Wh"].T, 3, -1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    h = (1 - z) * np.tanh(xn + (r * h) @ p["Wh_h"].T) + z * h
    return h, h


STEPS = {"RNN": rnn_step, "LSTM": lstm_step, "GRU": gru_step, "GRUv3": gruv3_step}


def unrolled(step, p, x, state, lengths=None, *, reverse=False):
    """Outputs and last state of a batch, each sequence on its own."""
    outs, ends = [], []
    for b in range(len(x)):
        steps = list(range(x.shape[1] if lengths is None else lengths[b]))
        s = tuple(a[b] for a in state) if isinstance(state, tuple) else state[b]
        y = np.zeros((x.shape[1], leaves(s)[0].shape[-1]))
        for t in steps[::-1] if reverse else steps:
            y[t], s = step(p, x[b, t], s)
        outs.append(y)
        ends.append(leaves(s))
    return np.stack(outs), [np.stack(column) for column in zip(*ends, strict=True)]


def random_values(layer):
    return {k: RNG.normal(size=p.type.shape) for k, p in layer.parameters().items()}


def close(got, want, **tolerance):
    for g, w in zip(leaves(got), leaves(want), strict=True):
        np.testing.assert_allclose(g, w, **{"rtol": 1e-12, "atol": 1e-12} | tolerance)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_layers_are_flux_formulas(name, reverse):
    """Whole batches, one sequence, sequences with lengths (0 too), and no steps at all."""
    layer = getattr(nn, name)(3, 2, return_state=True, reverse=reverse, dtype=fx.f64)
    values = random_values(layer)
    p = {k.removeprefix("cell."): v for k, v in values.items()}
    x, lengths = RNG.normal(size=(4, 6, 3)), np.array([6, 0, 3, 1], np.int32)
    state = RNG.normal(size=(4, 2))
    state = (state, RNG.normal(size=(4, 2))) if name == "LSTM" else state
    zeros = tuple(np.zeros((4, 2)) for _ in range(2)) if name == "LSTM" else np.zeros((4, 2))
    settings = {"namespace": {"layer": layer}, "values": values}
    plain = partial(unrolled, STEPS[name], p, reverse=reverse)

    close(run(layer, x, **settings), plain(x, zeros))
    close(run(lambda x, n: layer(x, lengths=n), x, lengths, **settings), plain(x, zeros, lengths))
    begun = lambda x, n, *s: layer(x, s if len(s) > 1 else s[0], lengths=n)
    got = run(begun, x, lengths, *leaves(state), **settings)
    close(got, plain(x, state, lengths))
    y, ends = plain(x[:1], zeros)
    close(run(layer, x[0], **settings), [y[0], *(e[0] for e in ends)])
    empty = run(begun, x[:, :0], 0 * lengths, *leaves(state), **settings)
    close(empty, [np.zeros((4, 0, 2)), *leaves(state)])


@pytest.mark.parametrize("name", STEPS)
def test_gradients_agree_with_differences(name):
    """Along one random direction of all weights and the input, lengths in between."""
    layer = getattr(nn, name)(3, 2, dtype=fx.f64)
    values = random_values(layer)
    x, lengths = RNG.normal(size=(3, 4, 3)), np.array([4, 0, 2], np.int32)
    loss = lambda layer, x, n: fx.sin(layer(x, lengths=n) * 2).sum()
    settings = {"namespace": {"layer": layer}}
    f = lambda x, values: run(lambda x, n: loss(layer, x, n), x, lengths, values=values, **settings)
    g = lambda x, n: fx.grad(loss, (0, 1))(layer, x, n)
    *gradients, dx = run(g, x, lengths, values=dict(values), **settings)
    along = {k: RNG.normal(size=v.shape) for k, v in values.items()}
    ahead, eps = RNG.normal(size=x.shape), 1e-6
    moved = [
        f(x + e * ahead, {k: v + e * along[k] for k, v in values.items()}) for e in (eps, -eps)
    ]
    want = (moved[0] - moved[1]) / (2 * eps)
    got = np.vdot(dx, ahead) + sum(map(np.vdot, gradients, along.values()))
    np.testing.assert_allclose(got, want, rtol=1e-7)
    if name == "GRUv3":
        np.testing.assert_array_equal(gradients[1][4:], 0)  # the chunk of Wh that is not used


@pytest.mark.parametrize("name", STEPS)
def test_a_cell_is_one_step(name):
    """`out, state = cell(x, state)`, for one example and for a batch; zeros to begin with."""
    cell = getattr(nn, f"{name}Cell")(3, 2, dtype=fx.f64)
    values = random_values(cell)
    x = RNG.normal(size=(4, 3))
    zeros = tuple(np.zeros((4, 2)) for _ in range(2)) if name == "LSTM" else np.zeros((4, 2))
    settings = {"namespace": {"cell": cell}, "values": values}
    out, state = STEPS[name](values, x, zeros)
    close(run(cell, x, **settings), [out, *leaves(state)])
    close(run(cell, x[1], **settings), [out[1], *(s[1] for s in leaves(state))])
    twice = lambda x: cell(x, cell(x, nn.initialstates(cell))[1])
    out, state = STEPS[name](values, x, state)
    close(run(twice, x, **settings), [out, *leaves(state)])
    layer = getattr(nn, name)(cell)
    assert layer.cell is cell


def test_sizes_of_parameters():
    """Flux's counts, and what prints."""
    assert repr(nn.RNNCell(3, 5)) == "RNNCell(3, 5)  # 45 parameters"
    assert repr(nn.LSTMCell(3, 5)) == "LSTMCell(3, 5)  # 180 parameters"
    assert repr(nn.GRUCell(3, 5)) == "GRUCell(3, 5)  # 135 parameters"
    assert repr(nn.RNN(4, 6, fx.relu)) == "RNN(4, 6, relu)  # 66 parameters"
    assert repr(nn.GRUv3(3, 5, return_state=True)) == (
        "GRUv3(3, 5, return_state=True)  # 160 parameters"
    )
    assert nn.GRU(3, 5, bias=False, reset_bias=True).describe() == (
        "GRU(3, 5, bias=False, reset_bias=True)"
    )
    assert (
        nn.RNN(3, 5, bias=False, reverse=True).describe() == "RNN(3, 5, bias=False, reverse=True)"
    )
    assert list(nn.GRUv3(3, 5).parameters()) == ["cell.Wi", "cell.Wh", "cell.bias", "cell.Wh_h"]


# ---- beyond Flux


@pytest.mark.parametrize("merge", ["concat", "sum", "mean", "mul", lambda a, b: a - b])
def test_bidirectional(merge):
    """One way and the other, with weights of their own, merged; states at their own ends."""
    layer = nn.Bidirectional(nn.GRU(3, 2, dtype=fx.f64), merge=merge, return_state=True)
    values = random_values(layer)
    x, lengths = RNG.normal(size=(3, 5, 3)), np.array([5, 0, 2], np.int32)
    found = []
    for way in ("forward", "backward"):
        p = {k.removeprefix(f"{way}.cell."): v for k, v in values.items()}
        zeros = np.zeros((3, 2))
        found.append(unrolled(gru_step, p, x, zeros, lengths, reverse=way == "backward"))
    (y, (last,)), (z, (first,)) = found
    merges = {
        "concat": np.concatenate([y, z], -1), "sum": y + z, "mean": (y + z) / 2, "mul": y * z,
    }  # fmt: skip
    want = y - z if callable(merge) else merges[merge]
    both = lambda x, n: layer(x, lengths=n)
    got = run(both, x, lengths, namespace={"layer": layer}, values=values)
    close(got, [want, last, first])


def test_bidirectional_of_two_layers():
    """The way back may be another layer; a copy has names and first values of its own."""
    other = nn.Bidirectional(nn.LSTM(3, 2), nn.GRUCell(3, 4))
    assert out_type(other, fx.f32["b", "t", 3]) == "f32[b, t, 6]"
    one = nn.Bidirectional(nn.RNN(3, 2))
    _, storages = trace(one, fx.f32["b", "t", 3], namespace={"one": one})
    values = first_values(storages)
    assert next(iter(values)) == "forward.cell.Wi"
    assert (values["forward.cell.Wi"] != values["backward.cell.Wi"]).any()


def test_stacked():
    """Layers in turn, with dropout between them in training alone."""
    layer = nn.Stacked(nn.RNN(3, 50), nn.RNN(50, 2), dropout=0.5)
    x = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    entry, storages = trace(layer, fx.f32["b", "t", 3], namespace={"m": layer})
    values = first_values(storages)
    assert not entry.updates
    (plain,) = call(entry, values, x)
    one, two = layer.layers
    chain = run(lambda x: two(one(x)), x, namespace={"m": layer}, values=values)
    np.testing.assert_array_equal(plain, chain)
    dropped = run(layer, x, namespace={"m": layer}, training=True)
    assert not np.allclose(plain, dropped)
    states = lambda x, h: layer(x, (None, h), return_state=True)[1]
    h = RNG.normal(size=(2, 2)).astype(np.float32)
    assert [s.shape for s in run(states, x, h, namespace={"m": layer})] == [(2, 50), (2, 2)]


class Counter(fx.Module):
    """A cell without floats in a part of its state, and with several outputs."""

    def initialstates(self):
        return {"sum": fx.zeros(2), "steps": fx.zeros((), "i32")}

    def __call__(self, x, state):
        state = {"sum": state["sum"] + x, "steps": state["steps"] + 1}
        return {"mean": state["sum"] / state["steps"][..., None], "at": state["steps"]}, state


def test_a_cell_of_ones_own():
    """Any nested state and output; what has ended stays, and puts out zeros."""
    layer = nn.Recurrence(Counter(), return_state=True)
    x, lengths = RNG.normal(size=(2, 3, 2)).astype(np.float32), np.array([1, 3], np.int32)
    mean, at, total, steps = run(lambda x, n: layer(x, lengths=n), x, lengths)
    np.testing.assert_array_equal(steps, lengths)
    np.testing.assert_array_equal(at, [[1, 0, 0], [1, 2, 3]])
    np.testing.assert_allclose(total, [x[0, 0], x[1].sum(0)], rtol=1e-6)
    np.testing.assert_allclose(mean[1, -1], x[1].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(mean[0, 1:], 0)


def out_type(layer, *specs, f=None):
    entry, _ = trace(f or layer, *specs, namespace={"layer": layer})
    return str(entry.graph.results[0].type)


def test_dtypes():
    """A layer computes in what its input, weights and state promote to; integers are floats."""
    for dtype in (fx.f16, fx.bf16, fx.f32, fx.f64):
        got = out_type(nn.LSTM(3, 2, dtype=dtype), dtype["b", "t", 3])
        assert got == f"{dtype}[b, t, 2]"
    layer = nn.LSTM(3, 2, return_state=True)
    for dtype, want in ((fx.bf16, "f32"), (fx.i32, "f32"), (fx.f64, "f64")):
        assert out_type(layer, dtype["b", "t", 3]) == f"{want}[b, t, 2]"
    begun = lambda x, h: layer(x, (h, h))
    assert out_type(layer, fx.f32["b", "t", 3], fx.f64["b", 2], f=begun) == "f64[b, t, 2]"


def test_a_bias_may_be_given():
    """Its first values: a forget gate that is open to begin with."""
    bias = np.repeat([0.0, 1.0, 0.0, 0.0], 2)
    layer = nn.LSTM(3, 2, bias=bias)
    _, storages = trace(layer, fx.f32["b", "t", 3], namespace={"layer": layer})
    np.testing.assert_array_equal(first_values(storages)["cell.bias"], bias)


def test_transformations():
    """A batch is vmap of sequences; jvp agrees with differences; a checkpoint changes nothing."""
    layer = nn.Bidirectional(nn.GRU(3, 2, dtype=fx.f64))
    settings = {"namespace": {"layer": layer}, "values": random_values(layer)}
    x, along = RNG.normal(size=(2, 4, 5, 3))
    lengths = np.array([5, 0, 3, 2], np.int32)
    one = lambda x, n: layer(x, lengths=n)
    each = run(lambda x, n: fx.vmap(one)(x, n), x, lengths, **settings)
    close(each, run(one, x, lengths, **settings))
    _, dy = run(lambda x, t: fx.jvp(layer, (x,), (t,)), x, along, **settings)
    ahead, behind = (run(layer, x + e * along, **settings) for e in (1e-6, -1e-6))
    np.testing.assert_allclose(dy, (ahead - behind) / 2e-6, atol=1e-8)
    gradient = lambda f: run(fx.grad(lambda x: fx.sin(f(x)).sum()), x, **settings)
    close(gradient(layer), gradient(fx.checkpoint(layer)))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda x: nn.LSTM(4, 2)(x), r"LSTMCell\(4, 2\): the input does not fit"),
        (lambda x: nn.LSTM(3, 2)(x[0, 0]), r"LSTM\(3, 2\): the input has no time axis"),
        (lambda x: nn.LSTM(3, 2)(x, x[:, 0, :2]), "the initial state has another structure"),
        (lambda x: nn.GRU(3, 2)(x, x[:, 0]), "the initial state does not fit"),
        (lambda x: nn.RNN(3, 2)(x, lengths=x[:, 0, 0]), "lengths must be one integer a sequence"),
        (lambda x: nn.RNN(3, 2)(x, lengths=np.arange(3)), "lengths must be one integer a sequence"),
        (lambda x: nn.GRU(nn.LSTMCell(3, 2))(x), "GRU takes sizes and options of a cell"),
        (lambda x: nn.Recurrence(nn.Dense(3, 2))(x), "Dense is no cell"),
        (lambda x: nn.Bidirectional(nn.GRU(3, 2), merge="max")(x), "merge='max'"),
        (lambda x: nn.Bidirectional(nn.GRU(3, 2))(x, x), "a tuple of 2 states"),
        (lambda x: nn.Stacked(nn.GRU(3, 2), nn.Dense(2, 2))(x), "Stacked of GRU, Dense"),
        (lambda x: nn.GRUCell(0, 2)(x), "GRUCell: in must be an integer >= 1"),
    ],
)  # fmt: skip
def test_what_is_refused(make, match):
    with pytest.raises(fx.FluxcError, match=match):
        run(make, np.ones((2, 4, 3), np.float32))


# ---- compiled


@pytest.mark.parametrize("name", STEPS)
def test_loops_keep_the_products_of_the_state_alone(name):
    """In training, what concerns the input, all weights' gradients and the bias is outside."""
    model = nn.Chain(nn.Embedding(5, 6), getattr(nn, name)(6, 8), nn.Dense(8, 5))
    loss = lambda x, y: losses.logitcrossentropy(model(x), y)
    specs = [fx.i32["batch", "time"]] * 2
    entry, _ = trace(loss, *specs, namespace={"m": model}, optimizer=optim.Descent(0.1))
    loops = [n for n in optimize(entry.graph).nodes if n.op == "scan"]
    assert len(loops) == 2
    within = 2 if name == "GRUv3" else 1
    for loop in loops:
        ops = [n.op for n in loop.attrs["body"].nodes]
        assert ops.count("contract") == within
        assert "reduce_sum" not in ops
    outside = [n for n in optimize(entry.graph).nodes if n.op == "contract"]
    assert len(outside) == 1 + 1 + 2 + (1 + 1 + within)  # forward, Dense back, recurrence back


@pytest.mark.cc
def test_a_character_lstm_learns(tmp_path):
    """One artifact for every length: it trains, predicts, and takes sequences of no steps."""
    model = nn.Chain(nn.Embedding(5, 6), nn.Stacked(nn.LSTM(6, 8), nn.GRUv3(8, 8)), nn.Dense(8, 5))
    tagger = nn.Bidirectional(nn.LSTM(3, 2, dtype=fx.bf16), return_state=True)

    @fx.export
    def tag(x: fx.bf16["batch", "time", 3], lengths: fx.i32["batch"]):
        return tagger(x, lengths=lengths)[0].astype(fx.f32)

    @fx.export
    def predict(x: fx.i32["batch", "time"]):
        return model(x)

    @fx.export(optimizer=optim.Adam(0.03))
    def train_step(x: fx.i32["batch", "time"], y: fx.i32["batch", "time"]):
        return losses.logitcrossentropy(model(x), y)

    m = fx.compile(locals(), output=tmp_path / "m").Model(seed=0)
    text = np.arange(40, dtype=np.int32).reshape(2, 20) * 3 % 5
    before = m.train_step(text[:, :-1], text[:, 1:])
    for _ in range(40):
        after = m.train_step(text[:, :-1], text[:, 1:])
    assert after < 0.1 < before
    assert (m.predict(text[:, :-1]).argmax(-1) == text[:, 1:])[:, 2:].all()
    assert m.predict(text[:, :0]).shape == (2, 0, 5)
    assert m.predict(text[:0]).shape == (0, 20, 5)
    x = np.zeros((3, 4, 3), np.uint16) + 0x3F80  # ones in bf16
    y = m.tag(x, np.array([4, 0, 2], np.int32))
    assert (y[1] == 0).all()
    assert (y[2, 2:] == 0).all()
    assert (y[2, :2] != 0).all()
