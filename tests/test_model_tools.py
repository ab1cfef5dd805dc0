"""What is done with whole models: shapes, vectors of parameters, precision, modes, parts."""

# ruff: noqa: PLW0108  (tensors exist inside of traced functions alone)

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs

import fluxc as fx
from dsl import call, first_values, run, spec_of, trace
from fluxc import nn
from fluxc.compiler.ir.types import f32

RNG = np.random.default_rng(8)
X = RNG.normal(size=(5, 3)).astype(np.float32)


def pair(x, y):
    return {"sum": x + y, "parts": [x, (y, y.sum())]}


LENET = (
    nn.Conv((5, 5), 1, 6, fx.relu),
    nn.MaxPool((2, 2)),
    nn.Conv((5, 5), 6, 16, fx.relu),
    nn.MaxPool((2, 2)),
    nn.flatten,
    nn.Dense(256, 120, fx.relu),
    nn.Dense(120, 84, fx.relu),
    nn.Dense(84, 10),
)
# model, shapes, options, the shape of the result.
SIZES = {
    "fixed": (nn.Dense(3, 4), [(5, 3)], {}, (5, 4)),
    "a name": (nn.Chain(*LENET), [("batch", 1, 28, 28)], {}, ("batch", 10)),
    "arithmetic": (nn.Conv((3,), 2, 4), [("n", 2, "2*t + 1")], {}, ("n", 4, "2*t - 1")),
    "a dim": (nn.Dense(3, 4), [(fx.dim("n", max=9), 3)], {}, (fx.dim("n", max=9), 4)),
    "a batch of one": (nn.Chain(*LENET), [(1, 28, 28)], {"padbatch": True}, (1, 10)),
    "layers in a list": (list(LENET), [(2, 1, 28, 28)], {}, (2, 10)),
    "layers in a tuple": (LENET[:2], [(2, 1, 28, 28)], {}, (2, 6, 12, 12)),
    "several inputs": (
        nn.Parallel(lambda a, b: fx.concatenate([a, b], -1), nn.Dense(2, 4), nn.Dense(3, 6)),
        [(7, 2), (7, 3)],
        {},
        (7, 10),
    ),
    "several to a list": ([nn.Parallel(fx.add, fx.exp, fx.exp)], [(7, 2), (7, 2)], {}, (7, 2)),
    "another dtype": (nn.Embedding(9, 4), [(2, "t")], {"dtype": "i32"}, (2, "t", 4)),
    "types": (lambda i, x: fx.one_hot(i, 3) + x, [fx.i32["n"], fx.f32[3]], {}, ("n", 3)),
    "nested": (pair, [(2, 3), (3,)], {}, {"sum": (2, 3), "parts": [(2, 3), ((3,), ())]}),
    "no axes": (lambda x: x.sum(), [()], {}, ()),
    "in test mode": (nn.Chain(nn.BatchNorm(3), nn.Dropout(0.5)), [(1, 3)], {}, (1, 3)),
}


@pytest.mark.parametrize("name", SIZES)
def test_outputsize(name):
    model, sizes, options, want = SIZES[name]
    assert fx.outputsize(model, *sizes, **options) == want


def test_outputsize_computes_and_allocates_nothing():
    wide = nn.Chain(nn.Dense(10**6, 10**6), nn.Dense(10**6, 10))
    assert fx.outputsize(wide, ("n", 10**6)) == ("n", 10)


def test_outputsize_inside_of_a_program():
    """While one program is traced, another may be."""
    head = nn.Dense(3, 4)
    f = lambda x: head(x) * fx.outputsize(head, x.shape)[-1]
    space = {"head": head}
    np.testing.assert_allclose(run(f, X, namespace=space), 4 * run(head, X, namespace=space))


def test_outputsize_says_where_sizes_do_not_fit():
    model = nn.Chain(nn.Dense(3, 4), nn.Chain(nn.Dense(5, 2)))
    with pytest.raises(fx.ShapeError) as caught:
        fx.outputsize(model, ("n", 3))
    assert caught.value.loc.file == __file__
    assert caught.value.loc.layer == "model.layers.1.layers.0"
    assert (caught.value.expected, caught.value.got) == ("f32[..., 5]", "f32[n, 4]")
    with pytest.raises(fx.ShapeError, match="3 is no shape"):
        fx.outputsize(model, 3)
    with pytest.raises(fx.TraceError, match="needs the shape of an input"):
        fx.outputsize(model)


def test_autosize():
    """Layers get the sizes that come out of the layers before them."""
    model = nn.autosize(
        ("batch", 1, 28, 28),
        nn.sized(lambda n: nn.Conv((5, 5), n, 6, fx.relu)),
        nn.MaxPool((2, 2)),
        nn.sized(nn.BatchNorm),
        nn.flatten,
        nn.sized(lambda n: nn.Dense(n, 10)),
    )
    assert repr(model[2]) == repr(nn.BatchNorm(6))
    assert model[-1].in_size == 6 * 12 * 12
    tokens = nn.autosize(
        fx.i32["batch", "time"], nn.Embedding(9, 8), nn.sized(lambda n: nn.Dense(n, 2), axis=-1)
    )
    assert tokens[1].in_size == 8
    with pytest.raises(fx.ShapeError, match=r"the size of axis 1.* is not fixed\n.*got: +t"):
        nn.autosize(("n", "t"), nn.sized(lambda n: nn.Dense(n, 2)))
    with pytest.raises(fx.ShapeError, match="has no axis 1"):
        nn.autosize((3,), nn.sized(lambda n: nn.Dense(n, 2)))


class Net(fx.Module):
    """Ties, states, a parameter that is not trained, modules in every container."""

    def __init__(self):
        self.first = nn.Dense(3, 3)
        self.more = {"a": [nn.Dense(3, 3, bias=False)], "b": (self.first, nn.BatchNorm(3))}
        self.fixed = fx.Param(3, init=2.0, trainable=False)
        self.tied = self.first.bias

    def __call__(self, x):
        for layer in (self.first, self.more["a"][0], *self.more["b"]):
            x = fx.tanh(layer(x))
        return x * self.fixed + self.tied


def test_modules_and_trainables():
    """Each module and each trained parameter once, in order of definition."""
    net = Net()
    a, batch_norm = net.more["a"][0], net.more["b"][1]
    assert nn.modules(net) == [net, net.first, a, batch_norm]
    assert nn.modules([net.first, net]) == [net.first, net, a, batch_norm]
    assert nn.trainables(net, path=True) == [
        ("first.weight", net.first.weight),
        ("first.bias", net.first.bias),
        ("more.a.0.weight", a.weight),
        ("more.b.1.scale", batch_norm.scale),
        ("more.b.1.bias", batch_norm.bias),
    ]
    nn.freeze(net.first)
    assert nn.trainables(net) == [a.weight, batch_norm.scale, batch_norm.bias]


def test_destructure():
    """The vector holds each parameter once; the rebuilt model computes with what is in it."""
    net = Net()
    flat, rebuild = fx.destructure(net)
    assert str(flat.type) == "f32[27]"
    values = first_values(trace(net, fx.f32["n", 3], namespace={"net": net}, training=True)[1])
    space = {"net": net}
    vector = run(lambda: flat, namespace=space, values=values)
    want = [values[path].ravel() for path, _ in nn.trainables(net, path=True)]
    np.testing.assert_array_equal(vector, np.concatenate(want))
    again = run(lambda x: rebuild(flat)(x), X, namespace=space, values=values)
    np.testing.assert_array_equal(again, run(net, X, namespace=space, values=values))
    other = RNG.normal(size=27).astype(np.float32)
    got = run(lambda v, x: rebuild(v)(x), other, X, namespace=space, values=values)
    changed, start = dict(values), 0
    for path, p in nn.trainables(net, path=True):
        changed[path] = other[start : start + p.size].reshape(p.shape)
        start += p.size
    np.testing.assert_allclose(got, run(net, X, namespace=space, values=changed), rtol=1e-6)


def flat_gradient(net):
    flat, rebuild = fx.destructure(net)
    return lambda x: fx.grad(lambda v: (rebuild(v)(x) ** 2).sum())(flat)


def model_gradient(net):
    def f(x):
        found = fx.grad(lambda m: (m(x) ** 2).sum())(net)
        return fx.concatenate([g.ravel() for g in found.values()])

    return f


def test_the_gradient_by_the_vector_is_that_of_the_model():
    net = Net()
    space = {"net": net}
    values = first_values(trace(net, fx.f32["n", 3], namespace=space, training=True)[1])
    got = run(flat_gradient(net), X, namespace=space, values=values)
    want = run(model_gradient(net), X, namespace=space, values=values)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_second_derivatives_through_a_vector():
    """The gradient of the squared norm of the gradient of sum(v**2)."""
    holder = nn.Scale(3, bias=False, init=np.array([1.0, 2, 3]))
    flat, rebuild = fx.destructure(holder)
    square = lambda v: (rebuild(v)(np.ones(3, np.float32)) ** 2).sum()
    f = lambda: fx.grad(lambda v: (fx.grad(square)(v) ** 2).sum())(flat)
    np.testing.assert_allclose(run(f, namespace={"m": holder}), [8, 16, 24])


def test_a_copy_is_destructured_into_its_tensors():
    """Its vector is the one it was made of, differentiated too; so are trees of tensors."""
    net = Net()
    _, rebuild = fx.destructure(net)
    vector = RNG.normal(size=27).astype(np.float32)
    again = lambda v: fx.destructure(rebuild(v))[0].read()
    np.testing.assert_array_equal(run(again, vector, namespace={"net": net}), vector)
    slope = fx.grad(lambda v: (again(v) ** 2).sum())
    np.testing.assert_allclose(run(slope, vector, namespace={"net": net}), 2 * vector)

    def moved(v, x):
        return fx.destructure(rebuild(v))[1](v * 2)(x)

    got, want = (
        run(f, vector, X, namespace={"net": net}) for f in (moved, lambda v, x: rebuild(v * 2)(x))
    )
    np.testing.assert_array_equal(got, want)
    joined = lambda a, b, n: fx.destructure({"a": a, "b": [b, a, n]})[0].read()
    a, b = np.ones((2, 2)), np.full(3, 2.0)
    np.testing.assert_array_equal(run(joined, a, b, np.arange(2)), [1, 1, 1, 1, 2, 2, 2])


def test_the_hessian_by_the_vector():
    """Forward over reverse is reverse over reverse."""
    model = nn.Chain(nn.Dense(3, 2, fx.tanh), nn.Dense(2, 1))
    flat, rebuild = fx.destructure(model)
    loss = lambda v: (rebuild(v)(X) ** 2).mean()
    space = {"m": model}
    got = run(lambda: fx.hessian(loss)(flat), namespace=space)
    want = run(lambda: fx.jacobian(fx.grad(loss))(flat), namespace=space)
    assert got.shape == (11, 11)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_rebuilt_models_are_models():
    """Their layers are indexed, vectors are vectorised over, states stay the model's own."""
    model = nn.Chain(nn.WeightNorm(nn.Dense(3, 2)), nn.BatchNorm(2))
    flat, rebuild = fx.destructure(model)
    f = lambda x, vs: fx.vmap(lambda v: rebuild(v)[0](x))(vs)
    vs = RNG.normal(size=(4, flat.size)).astype(np.float32)
    got = run(f, X, vs, namespace={"m": model})
    one = run(lambda x, v: nn.activations(rebuild(v), x)[0], X, vs[2], namespace={"m": model})
    np.testing.assert_allclose(got[2], one, rtol=1e-6)
    entry, _ = trace(lambda x: rebuild(flat)(x), spec_of(X), namespace={"m": model}, training=True)
    assert entry.updates == ("layers.1.mean", "layers.1.var")


def test_vectors_that_do_not_fit():
    _, rebuild = fx.destructure(nn.Dense(3, 2))
    for wrong in (np.ones(7, np.float32), np.ones((8, 1), np.float32), np.ones(8, np.int32)):
        with pytest.raises(fx.ShapeError, match=r"does not hold the parameters.*\n.*f32\[8\]"):
            run(lambda v: rebuild(v)(X), wrong)
    with pytest.raises(fx.TraceError, match="a int has no parameters"):
        fx.destructure(3)


def test_a_model_without_parameters_is_an_empty_vector():
    flat, rebuild = fx.destructure(nn.Chain(fx.exp))
    assert run(lambda: flat).shape == (0,)
    np.testing.assert_allclose(run(lambda x: rebuild(flat)(x), X), np.exp(X), rtol=1e-6)


def test_destructured_parameters_may_differ_in_dtype():
    """The vector has the dtype in which all meet; parts return to their own."""
    model = nn.Chain(nn.Dense(3, 2, dtype="f16"), nn.Dense(2, 1, dtype="f64"))
    flat, rebuild = fx.destructure(model)
    assert str(flat.type) == "f64[11]"
    f = lambda x: (rebuild(flat)[0].weight, rebuild(flat)(x))
    entry, _ = trace(f, fx.f16["n", 3], namespace={"m": model})
    assert [str(v.type) for v in entry.graph.results] == ["f16[2, 3]", "f64[n, 1]"]


@pytest.mark.cc
def test_compiled_gradients_by_a_vector(tmp_path):
    net = Net()
    entry, kept = trace(flat_gradient(net), fx.f32["n", 3], namespace={"net": net})
    values = first_values(kept)
    compiled = compile_graphs({"gradient": entry.graph}, tmp_path)
    (got,) = compiled.model(2).gradient(X, *(values[s] for s in entry.storages))
    (want,) = call(entry, values, X)
    assert_agrees(got, want, f32, scale=float(np.abs(want).max()))


# Precision.


@pytest.mark.parametrize("name", ["f16", "bf16", "f32", "f64"])
def test_models_in_another_precision(name):
    """A copy whose floats have the dtype; in 16 bits norms by channel stay in f32."""
    model = nn.Chain(
        Net(), nn.LayerNorm(3), nn.GroupNorm(3, 1), nn.WeightNorm(nn.Dense(3, 2)), fx.exp
    )
    model[0].step = fx.State((), dtype="i32")
    model[0].first.weight.frozen = True
    before = {p: str(d.type) for p, d in {**model.parameters(), **model.states()}.items()}
    made = getattr(nn, name)(model)
    after = {**made.parameters(), **made.states()}
    assert list(after) == list(before)
    for path, declared in after.items():
        stays = path.startswith(("layers.0.more.b.1", "layers.2")) and name in {"f16", "bf16"}
        dtype = "i32" if path.endswith("step") else "f32" if stays else name
        assert str(declared.type.dtype) == dtype, path
        assert declared.shape == fx.Param(declared.shape).shape
    assert {p: str(d.type) for p, d in {**model.parameters(), **model.states()}.items()} == before
    assert made[0].tied is made[0].first.bias, "what is tied stays tied"
    assert not made[0].first.weight.trainable
    assert made[4] is fx.exp
    entry, kept = trace(made, getattr(fx, name)["n", 3], namespace={"m": made})
    assert str(entry.graph.results[0].type) == f"{name}[n, 2]"
    if name != "bf16":
        v, g = (first_values(kept)[f"layers.3.{p}"] for p in ("layer.weight", "g"))
        np.testing.assert_allclose(
            g, np.sqrt((v.astype(float) ** 2).sum(1, keepdims=True)), rtol=2e-3
        )


def test_precisions_that_are_none():
    with pytest.raises(fx.DTypeError, match="a model in i32"):
        nn.cast(nn.Dense(2, 2), fx.i32)
    with pytest.raises(fx.TraceError, match="a function has no parameters"):
        nn.f16(lambda x: x)
    with pytest.raises(fx.DTypeError, match=r"nn\.f16\(model\)"):
        fx.f16(nn.Dense(2, 2))


# Modes.


def test_modes_are_fixed_layer_by_layer():
    drop, norm = nn.Dropout(1.0), nn.BatchNorm(3)
    model = nn.Chain(drop, nn.SkipConnection(norm, fx.add))
    assert nn.testmode(model) is model
    assert (drop.active, norm.active) == (False, False)
    nn.trainmode(model)
    assert (drop.active, norm.active) == (True, True)
    nn.trainmode(drop, False)
    nn.testmode(norm, False)
    assert (drop.active, norm.active) == (False, True)
    nn.testmode(model, "auto")
    assert (drop.active, norm.active) == (None, None)
    for wrong in (1, 0, "train", 2.0):
        with pytest.raises(fx.TraceError, match="a mode cannot be"):
            nn.trainmode(model, wrong)
        with pytest.raises(fx.TraceError, match="a mode cannot be"):
            nn.Dropout(0.5, active=wrong)
    with pytest.raises(fx.TraceError, match="a float has no mode"):
        nn.testmode(2.0)


@pytest.mark.parametrize("layer", [nn.Dropout(1.0), nn.AlphaDropout(1.0)])
def test_noise_in_a_fixed_mode(layer):
    """An active layer drops in test, an inactive one does not in training."""
    for active, training, kept in (
        (None, False, True), (None, True, False), (True, False, False), (False, True, True),
    ):  # fmt: skip
        nn.trainmode(layer, active)
        np.testing.assert_array_equal(run(layer, X, training=training), X if kept else 0 * X)


def test_statistics_in_a_fixed_mode():
    """In test mode a norm in a training step takes its record and leaves it; in training mode
    another entry measures the batch, and records it if it may."""
    norm = nn.BatchNorm(3, affine=False)
    space = {"m": norm}
    measured = (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-5)
    record = {"mean": np.array([1.0, 2, 3], np.float32), "var": np.array([4, 1, 0.25], np.float32)}
    stored = (X - record["mean"]) / np.sqrt(record["var"] + 1e-5)
    for active, options, want, records in (
        (False, {"training": True}, stored, False),
        (True, {}, measured, False),
        (True, {"stateful": True}, measured, True),
        (None, {"training": True}, measured, True),
        (None, {"stateful": True}, stored, False),
    ):
        nn.trainmode(norm, active)
        entry, _ = trace(norm, spec_of(X), namespace=space, **options)
        assert bool(entry.updates) == records
        values = dict(record)
        np.testing.assert_allclose(call(entry, values, X)[0], want, rtol=1e-5, atol=1e-5)
        assert records == (values["mean"] != record["mean"]).all()


def test_which_norms_have_parameters():
    assert nn.hasaffine(nn.BatchNorm(3))
    assert not nn.hasaffine(nn.InstanceNorm(3))
    assert nn.hasaffine(nn.LayerNorm(3))
    assert not nn.hasaffine(nn.GroupNorm(4, 2, affine=False))
    assert not nn.hasaffine(nn.Dense(2, 2))
