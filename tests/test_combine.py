"""Layers made of layers: what they call with what, names, printing, refusals."""

# ruff: noqa: E501, F821  (a row of a table is one line; names of sizes)

import copy

import numpy as np
import pytest

import fluxc as fx
from dsl import call, first_values, run, spec_of, trace
from fluxc import nn

RNG = np.random.default_rng(5)
X, Y, Z = (RNG.normal(size=(3, 2)).astype(np.float32) for _ in range(3))


def vcat(a, b):
    return fx.concatenate([a, b], -1)


def join(a, b):
    return np.concatenate([a, b], -1)


# name: a function of tensors, arrays, what NumPy makes of them.
CALLS = {
    "chain": (nn.Chain(lambda x: x + 1, lambda x: 2 * x), [X], 2 * (X + 1)),
    "empty chain": (nn.Chain(), [X], X),
    "chain of a list": (nn.Chain([fx.exp, fx.negative]), [X], -np.exp(X)),
    "chain of several inputs": (nn.Chain(lambda pair: pair[0] - pair[1]), [X, Y], X - Y),
    "skip": (nn.SkipConnection(fx.exp, fx.subtract), [X], np.exp(X) - X),
    "skip of several inputs": (nn.SkipConnection(lambda xs: xs[0], lambda y, xs: y + xs[1]), [X, Y], X + Y),
    "one input": (nn.Parallel(fx.subtract, fx.square, fx.exp), [X], X**2 - np.exp(X)),
    "an input for each": (nn.Parallel(fx.subtract, fx.square, fx.exp), [X, Y], X**2 - np.exp(Y)),
    "one layer": (nn.Parallel(lambda *a: fx.stack(a), fx.exp), [X, Y, Z], np.exp([X, Y, Z])),
    "one of each": (nn.Parallel(fx.negative, fx.exp), [X], -np.exp(X)),
    "a tuple": (lambda x, y: nn.Parallel(fx.subtract, fx.square, fx.exp)((x, y)), [X, Y], X**2 - np.exp(Y)),
    "a list": (lambda x, y: nn.Parallel(fx.subtract, fx.square, fx.exp)([x, y]), [X, Y], X**2 - np.exp(Y)),
    "after a layer of two outputs": (
        nn.Chain(nn.Parallel(tuple, fx.exp, fx.square), nn.Parallel(fx.subtract, fx.negative, fx.identity)),
        [X],
        -np.exp(X) - X**2,
    ),
    "fusion of one": (nn.PairwiseFusion(vcat, fx.exp, fx.negative), [X], (np.exp(X), -join(np.exp(X), X))),
    "fusion of many": (
        nn.PairwiseFusion(vcat, lambda x: x + 1, lambda x: x + 2, lambda x: x**3),
        [X, Y, Z],
        (X + 1, join(X + 1, Y) + 2, join(join(X + 1, Y) + 2, Z) ** 3),
    ),
    "fusion of a tuple": (lambda x, y: nn.PairwiseFusion(fx.add, fx.exp, fx.exp)((x, y)), [X, Y], (np.exp(X), np.exp(np.exp(X) + Y))),
    "maxout": (nn.Maxout(lambda x: x**2, lambda x: 3 * x, lambda x: -x), [X], np.max([X**2, 3 * X, -X], 0)),
    "maxout of one": (nn.Maxout(fx.exp), [X], np.exp(X)),
    "maxout of two inputs": (nn.Maxout(fx.add, fx.subtract), [X, Y], np.maximum(X + Y, X - Y)),
    "activations": (lambda x: nn.activations(nn.Chain(fx.exp, fx.negative), x), [X], (np.exp(X), -np.exp(X))),
    "activations of a list": (lambda x: fx.activations([fx.exp], x), [X], (np.exp(X),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_calls(name):
    f, arrays, want = CALLS[name]
    got = run(f, *arrays)
    if not isinstance(want, tuple):
        got, want = (got,), (want,)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, err_msg=name)


def test_outputs_that_are_kept_apart():
    """`tuple` and `list` as a connection give the outputs in one of those."""
    for kind in (tuple, list):
        entry, _ = trace(nn.Parallel(kind, fx.exp, fx.square), spec_of(X))
        assert entry.output_tree == (kind.__name__, ["leaf", "leaf"])


def test_a_connection_may_be_trained():
    """The connection's parameters are in the model, and have gradients."""
    model = nn.Parallel(nn.Bilinear((4, 3), 2), a=nn.Dense(2, 4), b=nn.Dense(2, 3))
    assert list(model.parameters()) == [
        "connection.weight", "connection.bias", "layers.a.weight", "layers.a.bias",
        "layers.b.weight", "layers.b.bias",
    ]  # fmt: skip
    f = lambda x: fx.grad(lambda m: (m(x) ** 2).sum())(model)["connection.weight"]
    assert np.abs(run(f, X, namespace={"m": model})).min() > 0


@pytest.mark.parametrize("kind", [nn.Chain, lambda **n: nn.Parallel(fx.add, **n)])
def test_names_indices_and_slices(kind):
    """Layers are found by place, name and slice; a slice is the same combination."""
    a, b = nn.Dense(2, 3), nn.Dense(3, 4)
    whole = kind(first=a, second=b)
    assert whole["second"] is whole[1] is whole[-1] is b
    assert len(whole) == 2
    assert list(whole) == [a, b]
    part = whole[1:]
    assert type(part) is type(whole)
    assert list(part.parameters()) == ["layers.second.weight", "layers.second.bias"]
    with pytest.raises(fx.TraceError, match=r"has no layer 'third'\n.*first second"):
        whole["third"]


def test_slices_keep_the_connection():
    assert nn.Parallel(fx.subtract, fx.exp, fx.square)[:1].connection is fx.subtract
    np.testing.assert_allclose(
        run(nn.Maxout(fx.exp, fx.square, fx.cos)[1:], X), np.maximum(X**2, np.cos(X)), rtol=1e-6
    )


def test_maxout_of_a_number_of_layers():
    """`Maxout(f, n)` calls f n times: the layers have parameters of their own."""
    model = nn.Maxout(lambda: nn.Dense(2, 3), 4)
    assert len(model) == 4
    assert len(model.parameters()) == 8


def test_intermediate_outputs_end_with_the_result():
    model = nn.Chain(nn.Dense(2, 3, fx.tanh), fx.exp, nn.Dense(3, 1))
    space = {"model": model}
    f = lambda x: (*nn.activations(model, x), model(x))
    first, second, third, result = run(f, X, namespace=space)
    assert (first.shape, second.shape, third.shape) == ((3, 3), (3, 3), (3, 1))
    np.testing.assert_array_equal(second, np.exp(first))
    np.testing.assert_array_equal(third, result)


def test_combinations_print_as_trees():
    model = nn.Chain(
        skip=nn.SkipConnection(nn.Dense(2, 2), fx.add),
        split=nn.Parallel(tuple, nn.Dense(2, 3), fx.tanh),
        fused=nn.PairwiseFusion(vcat, nn.Maxout(nn.Dense(3, 1), nn.Dense(3, 1)), nn.Dense(3, 1)),
        end=nn.WeightNorm(nn.Scale(2), "scale"),
    )
    assert repr(model) == REPR


REPR = """\
Chain(
  skip = SkipConnection(
    Dense(2, 2),                          # 6 parameters
    add,
  ),
  split = Parallel(
    tuple,
    Dense(2, 3),                          # 9 parameters
    tanh,
  ),
  fused = PairwiseFusion(
    vcat,
    Maxout(
      Dense(3, 1),                        # 4 parameters
      Dense(3, 1),                        # 4 parameters
    ),
    Dense(3, 1),                          # 4 parameters
  ),
  end = WeightNorm(
    Scale(2),                             # 4 parameters
    g = Param(f32[1]),                    # 1 parameter
  ),
)                                         # Total: 13 arrays, 32 parameters, 128 bytes."""


MISTAKES = {
    "not callable": (lambda: nn.Chain(nn.Dense(2, 2), 3), "Chain: 3 is not a layer"),
    "a kind of layer": (lambda: nn.Chain(nn.GlobalMeanPool), r"GlobalMeanPool is a kind of layer, not a layer\n.*nn\.GlobalMeanPool\(\.\.\.\)"),
    "both ways": (lambda: nn.Chain(fx.exp, a=fx.exp), "by position or by name, not both"),
    "reserved": (lambda: nn.Chain(layers=fx.exp), "'layers' is an attribute of it and names no layer"),
    "reserved too": (lambda: nn.Parallel(fx.add, connection=fx.exp), "'connection' is an attribute"),
    "no layers": (lambda: nn.Parallel(fx.add), "Parallel needs at least one layer"),
    "no layers to fuse": (lambda: nn.PairwiseFusion(fx.add), "PairwiseFusion needs at least one layer"),
    "nothing to max": (nn.Maxout, "Maxout needs at least one layer"),
    "no number": (lambda: nn.Maxout(lambda: fx.exp, 0), "the number of layers must be an integer >= 1"),
    "no connection": (lambda: nn.SkipConnection(fx.exp, 2), "SkipConnection: 2 is not a connection"),
    "no such parameter": (lambda: nn.WeightNorm(nn.Dense(2, 2), "scale"), "Dense has no parameter 'scale'\n.*weight bias"),
    "no parameter": (lambda: nn.WeightNorm(nn.Dense(2, 2, bias=False), "bias"), "Dense has no parameter 'bias'"),
    "another's parameter": (lambda: nn.WeightNorm(nn.WeightNorm(nn.Dense(2, 2)), "weight"), "WeightNorm has no parameter 'weight'\n.*g"),
    "a function's": (lambda: nn.WeightNorm(fx.exp), "exp has no parameter 'weight'\n.*a layer with parameters"),
    "zeros": (lambda: nn.WeightNorm(nn.Dense(2, 2), "bias"), "starts as zeros, which have no direction"),
    "no such axis": (lambda: nn.WeightNorm(nn.Dense(2, 2), dims=2), "axis 2 of a tensor with 2 axes"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_declarations(name):
    build, message = MISTAKES[name]
    with pytest.raises(fx.FluxcError, match=message):
        build()


CALLED_WRONGLY = {
    "three for two": (lambda: nn.Parallel(fx.add, fx.exp, fx.exp), 3, "expected: 2 inputs\n.*got:      3 inputs"),
    "two for three": (lambda: nn.PairwiseFusion(fx.add, fx.exp, fx.exp, fx.exp), 2, "3 inputs\n.*2 inputs"),
    "none": (lambda: nn.Parallel(fx.add, fx.exp), 0, "Parallel is called without an input"),
    "nothing": (lambda: nn.Chain(fx.exp), 0, "Chain is called without an input"),
    "no chain": (lambda: lambda x: nn.activations(nn.Dense(2, 2), x), 1, "activations of what is no Chain"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLED_WRONGLY)
def test_mistakes_in_calls(name):
    build, count, message = CALLED_WRONGLY[name]
    with pytest.raises(fx.FluxcError, match=message):
        run(build(), *[X] * count)


def test_errors_name_the_place_in_the_tree():
    model = nn.Chain(nn.SkipConnection(nn.Dense(2, 3), vcat), nn.Parallel(fx.add, a=nn.Dense(4, 1)))

    def predict(x):
        return model(x)

    with pytest.raises(fx.ShapeError) as caught:
        trace(predict, fx.f32["n", 2], namespace={"model": model})
    assert caught.value.loc.layer == "model.layers.1.layers.a"
    assert "Dense(4, 1): the input does not fit" in str(caught.value)


# WeightNorm.


def stored(model, *arrays):
    return first_values(trace(model, *map(spec_of, arrays), namespace={"m": model})[1])


@pytest.mark.parametrize(
    ("dims", "axes"), [(-1, (1, 2, 3)), (3, (3,)), ((0, 2), (0, 2)), (None, (0, 1, 2, 3))]
)
def test_weight_norm_starts_as_the_layer(dims, axes):
    """g is the length of v over `dims`, so that the weight is v at first, whatever the seed."""
    model = nn.WeightNorm(nn.Conv((2, 2), 2, 3), dims=dims)
    x = RNG.normal(size=(2, 2, 3, 4)).astype(np.float32)
    values = stored(model, x)
    assert list(values) == ["layer.weight", "layer.bias", "g"]
    v = values["layer.weight"]
    np.testing.assert_allclose(
        values["g"], np.sqrt((v.astype(float) ** 2).sum(axes, keepdims=True)), rtol=1e-6
    )
    plain = nn.remove_weight_norms(model)
    want = run(plain, x, namespace={"m": plain}, values={"weight": v, "bias": values["layer.bias"]})
    np.testing.assert_allclose(
        run(model, x, namespace={"m": model}, values=values), want, rtol=1e-5, atol=1e-6
    )


def test_weight_norm_of_a_vector():
    """Of a parameter with one axis the length is that of the whole."""
    model = nn.WeightNorm(nn.Scale(3, bias=False, init=np.array([3.0, 0, 4])), "scale")
    values = stored(model, np.ones((1, 3), np.float32))
    np.testing.assert_allclose(values["g"], [5.0])


def test_weight_norm_of_zeros_is_refused_when_values_are_drawn():
    model = nn.WeightNorm(nn.Dense(2, 2, init=fx.init.zeros))
    with pytest.raises(fx.ShapeError, match="zeros, which have no direction"):
        stored(model, X)


def test_removing_weight_norms_folds_trained_values():
    """The plain model with folded values computes what the trained model does; ties stay ties."""
    inner = nn.WeightNorm(nn.Dense(2, 2))
    model = (
        nn.Chain(inner, fx.tanh, head=None)
        if False
        else nn.Chain(inner, fx.tanh, inner, nn.Dense(2, 1))
    )
    values = stored(model, X)
    values = {n: v + RNG.normal(size=v.shape).astype(np.float32) for n, v in values.items()}
    plain, folded = nn.remove_weight_norms(model, values)
    assert plain[0] is plain[2]
    assert list(folded) == list(plain.parameters())
    assert isinstance(model[0], nn.WeightNorm), "the model itself stays"
    want = run(model, X, namespace={"m": model}, values=values)
    np.testing.assert_allclose(
        run(plain, X, namespace={"m": plain}, values=folded), want, rtol=1e-5
    )
    with pytest.raises(fx.TraceError, match=r"no value layers\.0\.g"):
        nn.remove_weight_norms(model, folded)
    bits = {n: v.astype(np.uint16) for n, v in values.items()}
    with pytest.raises(fx.DTypeError, match="values that are no floats"):
        nn.remove_weight_norms(model, bits)


class Gated(fx.Module):
    def __init__(self):
        self.inner, self.gate = nn.WeightNorm(nn.Dense(2, 3)), fx.Param(3, init=fx.init.randn)

    def __call__(self, x):
        return self.inner(x) * self.gate


def test_weight_norms_inside_of_one_another():
    model = nn.WeightNorm(Gated(), "gate")
    values = {n: v + 1 for n, v in stored(model, X).items()}
    plain, folded = nn.remove_weight_norms(model, values)
    assert set(folded) == {"inner.weight", "inner.bias", "gate"}
    want = run(model, X, namespace={"m": model}, values=values)
    np.testing.assert_allclose(
        run(plain, X, namespace={"m": plain}, values=folded), want, rtol=1e-5
    )


def test_weight_norm_of_a_cell():
    """What only the layer has is read through; the weight may be any parameter."""
    model = nn.Recurrence(nn.WeightNorm(nn.LSTMCell(2, 3), "Wh"))
    x = RNG.normal(size=(2, 4, 2)).astype(np.float32)
    values = stored(model, x)
    plain, folded = nn.remove_weight_norms(model, values)
    want = run(plain, x, namespace={"m": plain}, values=folded)
    np.testing.assert_allclose(
        run(model, x, namespace={"m": model}, values=values), want, rtol=1e-5
    )
    with pytest.raises(AttributeError, match="nothing"):
        model.cell.nothing  # noqa: B018
    assert copy.copy(model.cell).layer is model.cell.layer


def test_weight_norm_trains_both_parts():
    model = nn.WeightNorm(nn.Dense(2, 3))
    loss = lambda x: (model(x) ** 2).mean()
    entry, kept = trace(loss, spec_of(X), namespace={"m": model}, optimizer=fx.optim.Descent(0.1))
    values = first_values(kept)
    before = {n: v.copy() for n, v in values.items()}
    call(entry, values, X)
    for name in ("g", "layer.weight", "layer.bias"):
        assert np.abs(values[name] - before[name]).max() > 1e-4, name


@pytest.mark.cc
def test_compiled_weight_norm():
    """An artifact's first g is the length of v; trained values fold into the plain model."""
    model = nn.Chain(nn.WeightNorm(nn.Dense(2, 3, fx.tanh)), nn.Dense(3, 1))

    @fx.export
    def predict(x: fx.f32["n", 2]):
        return model(x)

    @fx.export(optimizer=fx.optim.Descent(0.1))
    def train(x: fx.f32["n", 2]):
        return ((model(x) - 1) ** 2).mean()

    m = fx.compile({"model": model, "predict": predict, "train": train}).Model()
    v, g = m.parameters["layers.0.layer.weight"], m.parameters["layers.0.g"]
    np.testing.assert_allclose(g[:, 0], np.sqrt((v**2).sum(1)), rtol=1e-6)
    losses = [float(m.train(X)) for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    plain, values = nn.remove_weight_norms(model, m.parameters)
    want = run(plain, X, namespace={"m": plain}, values=values)
    np.testing.assert_allclose(m.predict(X), want, rtol=1e-5, atol=1e-6)
