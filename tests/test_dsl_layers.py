"""Modules, layers, their names, their printing, and training steps."""

# ruff: noqa: E501, PLW0108 (tables of functions of one signature, a row each)

import numpy as np
import pytest

import fluxc as fx
from dsl import call, first_values, run, trace
from fluxc import losses, nn, optim

RNG = np.random.default_rng(2)


def storages(f, *specs, namespace, **options):
    return trace(f, *specs, namespace=namespace, **options)[1]


def test_dense_and_chain():
    """Dense is activation(x @ weight.T + bias); a Chain composes."""
    model = nn.Chain(nn.Dense(3, 4, fx.tanh), lambda x: x * 2, nn.Dense(4, 2, bias=False))
    _, kept = trace(model, fx.f32["n", 3], namespace={"model": model})
    values = first_values(kept)
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    hidden = np.tanh(x @ values["layers.0.weight"].T + values["layers.0.bias"])
    got = run(model, x, namespace={"model": model}, values=values)
    np.testing.assert_allclose(got, 2 * hidden @ values["layers.2.weight"].T, rtol=1e-5)
    assert list(kept) == ["layers.0.weight", "layers.0.bias", "layers.2.weight"]
    assert np.abs(values["layers.0.weight"]).max() <= np.sqrt(6 / 7)
    assert run(model, x[0], namespace={"model": model}, values=values).shape == (2,)


def test_chain_is_a_sequence():
    """Indexing, slicing, length and iteration of a Chain."""
    a, b = nn.Dense(2, 3), nn.Dense(3, 4)
    chain = nn.Chain(a, fx.relu, b)
    assert chain[0] is a
    assert list(chain[1:]) == [fx.relu, b]
    assert len(chain) == 3
    assert nn.Chain(first=a, second=b)["second"] is b
    assert next(iter(nn.Chain(first=a, second=b).parameters())) == "layers.first.weight"


class Net(fx.Module):
    def __init__(self):
        self.blocks = [nn.Dense(2, 2), nn.Dense(2, 2)]
        self.heads = {"a": nn.Dense(2, 1), "b": nn.Dense(2, 3, bias=False)}
        self.tied = self.blocks[0]
        self.gain = fx.Param(2, init=1.5)
        self.calls = fx.State((), init=0.0)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        if fx.training():
            self.calls.assign(self.calls + 1)
        return self.heads["a"](self.tied(x) * self.gain)


def test_names_are_paths():
    """Lists, dicts and attributes make names; a shared parameter has one name."""
    net = Net()
    assert list(net.parameters()) == [
        "blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias",
        "heads.a.weight", "heads.a.bias", "heads.b.weight", "gain",
    ]  # fmt: skip
    assert list(net.states()) == ["calls"]
    kept = storages(net, fx.f32["n", 2], namespace={"net": net})
    assert "heads.b.weight" not in kept, "a parameter that is not used is not in the model"
    assert "calls" not in kept


def test_several_roots_prefix_names():
    """Where entries use several modules of the file, paths start with their variables."""
    generator, discriminator = nn.Chain(nn.Dense(2, 2)), nn.Dense(2, 1)
    space = {"generator": generator, "discriminator": discriminator, "w": fx.Param(3)}
    f = lambda x: discriminator(generator(x)) + space["w"].sum()
    assert list(storages(f, fx.f32["n", 2], namespace=space)) == [
        "generator.layers.0.weight", "generator.layers.0.bias", "discriminator.weight",
        "discriminator.bias", "w",
    ]  # fmt: skip
    only = storages(generator, fx.f32["n", 2], namespace=space)
    assert list(only) == ["layers.0.weight", "layers.0.bias"]


def test_inner_modules_are_no_roots():
    """A part of the model that has a variable of its own keeps its place in the model."""
    encoder = nn.Dense(2, 2)
    model = nn.Chain(encoder, nn.Dense(2, 1))
    space = {"encoder": encoder, "model": model}
    names = list(storages(lambda x: model(x) + encoder(x).sum(), fx.f32["n", 2], namespace=space))
    assert names[0] == "layers.0.weight"


def test_parameters_that_nothing_leads_to():
    """A model that no variable holds has no names; the message says what to do."""
    with pytest.raises(fx.TraceError, match="no variable of the model file leads to it"):
        run(lambda x: nn.Dense(2, 1)(x), np.ones((1, 2), np.float32))


def test_repr_of_a_tree():
    """Models print as trees with counts and totals."""
    model = nn.Chain(nn.Dense(64, 32, fx.relu), nn.Dropout(0.1), nn.BatchNorm(32), fx.tanh, Net())
    nn.freeze(model[4].heads)
    assert repr(model) == REPR
    assert repr(nn.Dense(2, 1)) == "Dense(2, 1)  # 3 parameters"
    assert repr(nn.LayerNorm(4, fx.relu)) == "LayerNorm(4, relu)  # 8 parameters"


REPR = """\
Chain(
  Dense(64, 32, relu),                    # 2_080 parameters
  Dropout(0.1),
  BatchNorm(32),                          # 64 parameters, plus 64 non-trainable
  tanh,
  Net(
    blocks = [
      Dense(2, 2),                        # 6 parameters
      Dense(2, 2),                        # 6 parameters
    ],
    heads = {
      a = Dense(2, 1),                    # 3 non-trainable
      b = Dense(2, 3, bias=False),        # 6 non-trainable
    },
    tied = Dense(2, 2),
    gain = Param(f32[2]),                 # 2 parameters
    calls = State(f32[]),                 # 1 non-trainable
  ),
)                                         # Total: 9 arrays, 2_158 parameters, plus 6 arrays, 74 non-trainable, 8.719 KiB."""


def test_declaring_allocates_nothing():
    """A model of a hundred billion parameters is declared at once."""
    model = nn.Chain(*(nn.Dense(100_000, 100_000) for _ in range(10)))
    assert "100_001_000_000 parameters" in repr(model)


def test_embedding():
    """Integers select rows, one-hot rows are multiplied, gradients add up."""
    table = nn.Embedding(5, 3)
    space = {"table": table}
    tokens = np.array([[4, 0], [4, 2]], np.int32)
    _, kept = trace(table, fx.i32["n", 2], namespace=space)
    values = first_values(kept)
    want = values["weight"][tokens]
    np.testing.assert_array_equal(run(table, tokens, namespace=space, values=values), want)
    one_hot = np.eye(5, dtype=np.float32)[tokens]
    np.testing.assert_allclose(run(table, one_hot, namespace=space, values=values), want, rtol=1e-6)
    (g,) = run(lambda t: fx.grad(lambda m: m(t).sum())(table), tokens, namespace=space)
    np.testing.assert_array_equal(g, np.array([1, 0, 1, 0, 2])[:, None] * np.ones(3))


def test_layer_norm():
    """LayerNorm normalises the last axes with the biased variance."""
    x = RNG.normal(2, 3, size=(2, 3, 4)).astype(np.float32)
    for layer, axes in ((nn.LayerNorm(4), (-1,)), (nn.LayerNorm(3, 4), (-2, -1))):
        want = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)
        np.testing.assert_allclose(
            run(layer, x, namespace={"m": layer}), want, rtol=1e-4, atol=1e-5
        )
    plain = nn.LayerNorm(4, affine=False)
    assert not plain.parameters()
    assert plain.describe() == "LayerNorm(4, affine=False)"


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_batch_norm(shape):
    """Training takes the batch's statistics and records them, testing takes the record."""
    layer = nn.BatchNorm(3, fx.relu, momentum=0.2)
    space = {"m": layer}
    x = RNG.normal(1, 2, size=shape).astype(np.float32)
    step, kept = trace(layer, fx.f32[("n", *shape[1:])], namespace=space, training=True)
    values = first_values(kept)
    axes = (0, *range(2, x.ndim))
    mean, var, n = x.mean(axes), x.var(axes), x.size // 3
    lined = (slice(None), *(None,) * (x.ndim - 2))
    (got,) = call(step, values, x)
    want = (x - mean[lined]) / np.sqrt(var[lined] + 1e-5)
    np.testing.assert_allclose(got, np.maximum(want, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values["mean"], 0.2 * mean, rtol=1e-5)
    np.testing.assert_allclose(values["var"], 0.8 + 0.2 * var * n / (n - 1), rtol=1e-5)
    test, _ = trace(layer, fx.f32[("n", *shape[1:])], namespace=space)
    assert not test.updates
    (got,) = call(test, values, x)
    want = (x - values["mean"][lined]) / np.sqrt(values["var"][lined] + 1e-5)
    np.testing.assert_allclose(got, np.maximum(want, 0), rtol=1e-4, atol=1e-5)


def test_batch_norm_of_one_row():
    """A batch of one leaves the recorded variance finite; a fixed one is refused."""
    layer = nn.BatchNorm(3)
    step, kept = trace(layer, fx.f32["n", 3], namespace={"m": layer}, training=True)
    values = first_values(kept)
    call(step, values, np.ones((1, 3), np.float32))
    np.testing.assert_allclose(values["var"], 0.9)
    with pytest.raises(fx.ShapeError, match="one value a channel has no variance"):
        trace(layer, fx.f32[1, 3], namespace={"m": layer}, training=True)


def test_dropout():
    """Dropout drops in training alone, by the asked share, and keeps the mean."""
    layer = nn.Dropout(0.25)
    x = np.ones((100, 40), np.float32)
    np.testing.assert_array_equal(run(layer, x), x)
    step, kept = trace(layer, fx.f32["n", 40], training=True)
    assert step.updates == ("random.step",)
    values = first_values(kept)
    (first,), (second,) = call(step, values, x), call(step, values, x)
    assert values["random.step"] == 2
    np.testing.assert_allclose(np.unique(first), [0, 1 / 0.75], rtol=1e-6)
    assert abs((first == 0).mean() - 0.25) < 0.03
    assert (first != second).any()
    whole_rows = run(nn.Dropout(0.5, dims=0), x, training=True)
    assert (whole_rows == whole_rows[:, :1]).all()
    np.testing.assert_array_equal(run(nn.Dropout(1), x, training=True), 0 * x)


def test_layers_keep_the_dtype():
    """16-bit inputs stay 16 bits wide with weights of their dtype."""
    for layer in (nn.Dense(4, 4, dtype=fx.bf16), nn.LayerNorm(4), nn.BatchNorm(4), nn.Dropout(0.5)):
        entry, _ = trace(layer, fx.bf16["n", 4], namespace={"m": layer}, training=True)
        assert str(entry.graph.results[0].type) == "bf16[n, 4]"


# Training.


def test_training_updates_what_it_should():
    """Frozen, unreached and excluded parameters stay; aux values are returned."""
    a, b, c = nn.Dense(2, 2), nn.Dense(2, 1), nn.Dense(2, 1)
    space = {"a": a, "b": b, "c": c}

    def f(x):
        hidden = a(x)
        return (b(hidden) ** 2).mean(), {"hidden": hidden}

    options = {"namespace": space, "optimizer": optim.Descent(0.1)}
    entry, _ = trace(f, fx.f32["n", 2], **options)
    assert entry.outputs == ("loss", "out1_hidden")
    assert entry.output_tree == ("tuple", ["leaf", ("dict", {"hidden": "leaf"})])
    assert set(entry.updates) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    assert len(entry.forward.nodes) < len(entry.graph.nodes)
    assert set(trace(f, fx.f32["n", 2], **options, wrt=[b])[0].updates) == {"b.weight", "b.bias"}
    nn.freeze(a)
    assert set(trace(f, fx.f32["n", 2], **options)[0].updates) == {"b.weight", "b.bias"}
    nn.thaw(a)
    assert "a.bias" in trace(f, fx.f32["n", 2], **options)[0].updates
    with pytest.raises(fx.ModelFileError, match="wrt= names a Dense that the loss does not reach"):
        trace(f, fx.f32["n", 2], **options, wrt=[b, c])


def test_training_learns():
    """A line is fitted: y = 4x + 2."""
    model = nn.Dense(1, 1)
    f = lambda x, y: losses.mse(model(x), y)
    specs = fx.f32["n", 1], fx.f32["n", 1]
    step, kept = trace(f, *specs, namespace={"model": model}, optimizer=optim.Descent())
    values = first_values(kept)
    x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    for _ in range(120):
        call(step, values, x, 4 * x + 2)
    np.testing.assert_allclose([values["weight"].item(), values["bias"].item()], [4, 2], atol=1e-2)
