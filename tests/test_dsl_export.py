"""Exports: types, names, outputs, and what is said when something is wrong."""

# ruff: noqa: ARG005, E501, PLW0108, PLE0643 (tables of functions of one signature, a row each)

import importlib.util
import itertools
import sys
import textwrap

import numpy as np
import pytest

import fluxc as fx
from dsl import run, trace, type_of
from fluxc import losses, nn, optim
from fluxc.compiler.ir.entry import Export
from fluxc.compiler.ir.locate import short_name

COUNTER = itertools.count()


def spec_of_file(folder, text):
    """The model that a file declares."""
    head = "import fluxc as fx\nfrom fluxc import nn, losses, optim\n"
    path = folder / f"model{next(COUNTER)}.py"
    path.write_text(head + textwrap.dedent(text))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    exports = [v for v in vars(module).values() if isinstance(v, Export)]
    return exports[0].trace_model(vars(module))


MODEL = """
from __future__ import annotations
batch = fx.dim("batch", min=1, max=64)
model = nn.Chain(nn.Dense(4, 3, fx.relu), nn.Dropout(0.5), nn.Dense(3, 2))

@fx.export
def predict(x: fx.f32[batch, 4]):
    return fx.softmax(model(x))

@fx.export(optimizer=optim.Adam(1e-3))
def train_step(x: fx.f32[batch, 4], y: fx.i32["batch"], weight: fx.f32):
    return losses.logitcrossentropy(model(x), y) * weight, {"p": predict(x)}

@fx.export(training=True, name="sample")
def _sample(x: fx.f32["n", 4]):
    return [model(x), x]
"""


def test_a_model_file(tmp_path):
    """Entries, names, types, output trees and storages of a whole file."""
    text = MODEL.replace("from __future__ import annotations\n", "")
    spec = spec_of_file(tmp_path, text)
    predict, train, sample = spec.entries
    assert [e.name for e in spec.entries] == ["predict", "train_step", "sample"]
    assert train.inputs == ("x", "y", "weight")
    assert [str(v.type) for v in train.graph.params[:3]] == ["f32[batch, 4]", "i32[batch]", "f32[]"]
    assert train.output_tree == ("tuple", ["leaf", ("dict", {"p": "leaf"})])
    assert train.outputs == ("loss", "out1_p")
    assert sample.outputs == ("out0", "out1")
    assert predict.outputs == ("out",)
    assert (predict.training, train.training, sample.training) == (False, True, True)
    assert predict.storages == (
        "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias",
    )  # fmt: skip
    assert sample.updates == ("random.step",)
    assert train.forward is not None
    assert predict.forward is None
    assert {s.kind for s in spec.storages} == {"parameter", "optimizer", "hyper", "seed", "step"}
    (symbol,) = predict.graph.params[0].type.symbols
    assert (symbol.min, symbol.max) == (1, 64)


def test_annotations_as_text(tmp_path):
    """Postponed annotations are read in the file's own names."""
    path = tmp_path / "postponed.py"
    path.write_text(
        "from __future__ import annotations\nimport fluxc as fx\n"
        "@fx.export\ndef f(x: fx.f32['2*n + 1']):\n    return x[1:].reshape(2, -1)\n"
    )
    spec = importlib.util.spec_from_file_location("postponed", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (entry,) = module.f.trace_model(vars(module)).entries
    assert str(entry.graph.results[0].type) == "f32[2, n]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@fx.export\ndef f(x): return x", "parameter x has no type.*"),
        ("@fx.export\ndef f(x: int): return x", "a type that is not a tensor's"),
        ("@fx.export\ndef f(x: 'nonsense'): return x", "annotations cannot be read"),
        ("@fx.export\ndef f(x: fx.f32[2] = 3): return x", "default value"),
        ("@fx.export\ndef f(*x: fx.f32[2]): return x", "not positional"),
        ("@fx.export\ndef f(x: fx.f32[2]): return None", "returns a NoneType"),
        ("@fx.export\ndef f(x: fx.f32[2]): return (x, 3.0)", "returns a float at out1"),
        ("@fx.export\ndef f(x: fx.f32[2]): return ()", "returns nothing"),
        ("@fx.export\ndef f(x: fx.f32[2]): return x\n@fx.export\ndef f(x: fx.f32[2]): return -x", "two exports are named 'f'"),
        ("@fx.export\ndef f(x: fx.f32[2]): return x\n@fx.export(name='f')\ndef g(x: fx.f32[2]): return -x", "two exports are named 'f'"),
        ("@fx.export(name='a b')\ndef f(x: fx.f32[2]): return x", "cannot be an entry's name"),
        ("@fx.export(optimizer=3)\ndef f(x: fx.f32[2]): return x", "not an optimiser"),
        ("@fx.export(wrt=[])\ndef f(x: fx.f32[2]): return x", "wrt= says what an optimizer updates"),
        ("@fx.export(optimizer=optim.Adam(), wrt=3)\ndef f(x: fx.f32[2]): return x", "wrt= takes a module"),
        ("@fx.export(optimizer=optim.Adam())\ndef f(x: fx.f32[2]): return x", "loss must be a float scalar"),
        ("@fx.export(optimizer=optim.Adam())\ndef f(x: fx.f32[2]): return [x.sum()]", "must return its loss"),
        ("@fx.export(optimizer=optim.Adam())\ndef f(x: fx.f32[2]): return x.sum()", "reaches no trainable parameter"),
        ("f = fx.export(nn.Dense(2, 2))", "fx.export takes a function"),
        ("@fx.export\ndef f(x: fx.f32[fx.dim('n', min=1)], y: fx.f32[fx.dim('n', min=2)]): return x", "two different ranges"),
        ("@fx.export\ndef f(x: fx.f32['n m']): return x", "'n m' is not a dimension"),
        ("@fx.export\ndef f(x: fx.f32[-1]): return x", "-1 is not a dimension"),
        ("@fx.export\ndef f(x: fx.f32[2.5]): return x", "2.5 is not a dimension"),
    ],
)  # fmt: skip
def test_wrong_model_files(tmp_path, text, message):
    """Each wrong declaration has its own message."""
    with pytest.raises(fx.FluxcError, match=message):
        spec_of_file(tmp_path, text)


def test_exports_call_each_other_but_not_from_outside():
    """An export used on NumPy arrays says how to run it."""

    @fx.export
    def f(x: fx.f32[2]):
        return fx.exp(x)

    with pytest.raises(fx.TraceError, match="exists only while a function is traced") as caught:
        f(np.ones(2))
    assert "fx.jit(f)" in str(caught.value)
    np.testing.assert_allclose(run(lambda x: f(x), np.ones(2)), np.full(2, np.e))


def test_names_of_dimensions_get_the_range_that_the_code_needs():
    """Reading x[2] of "n" makes n >= 3, so that a smaller call is refused instead of misread."""
    entry, _ = trace(lambda x: x[2] + x[-1], fx.f32["n"])
    (symbol,) = entry.graph.params[0].type.symbols
    assert symbol.min == 3
    entry, _ = trace(lambda x: x[:-1], fx.f32["n + 1"])
    (symbol,) = entry.graph.params[0].type.symbols
    assert symbol.min == 0


REFUSED = {
    "if": (lambda x: 1 if x > 0 else 2, "fx.where.*fx.cond"),
    "and": (lambda x: x and x, "fx.where"),
    "chained comparison": (lambda x: 0 < x < 1, "fx.where"),
    "in": (lambda x: 3 in fx.stack([x]), "fx.where"),
    "float()": (lambda x: float(x), "tensor arithmetic"),
    "int()": (lambda x: int(x), "tensor arithmetic"),
    "range()": (lambda x: range(x), "tensor arithmetic"),
    "item()": (lambda x: x.item(), "tensor arithmetic"),
    "NumPy": (lambda x: np.exp(x), "fx.exp"),
    "other errors": (lambda x: [x][3], "export f: IndexError"),
    "np.asarray": (lambda x: np.asarray(x), "functions of fx"),
    "assignment": (lambda x: fx.stack([x]).__setitem__(0, 1), "fx.where"),
    "len of a scalar": (lambda x: len(x), None),
    "iteration": (lambda x: list(x), "fx.scan"),
    "a string": (lambda x: x + "a", None),
    "None": (lambda x: x * None, None),
    "a mask": (lambda x: fx.stack([x, x])[fx.stack([x, x]) > 0], "fx.where"),
    "a float index": (lambda x: fx.stack([x, x])[1.5], None),
    "a ragged list": (lambda x: fx.array([[1], [1, 2]]), None),
    "an unknown dtype": (lambda x: x.astype("q7"), None),
    "a call of a dtype": (lambda x: fx.f32(x), "astype"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_tensor_cannot_do(case):
    """Each wrong use of a tensor's value names the line and the remedy."""
    f, hint = REFUSED[case]
    with pytest.raises(fx.FluxcError, match=hint) as caught:
        trace(lambda x: f(x) and x, fx.f32[()])
    assert caught.value.loc is None or caught.value.loc.file == __file__


SHAPES = {
    "broadcast": (lambda x: x + fx.zeros(3), "do not broadcast"),
    "symbols": (lambda x: x[:, 0] + fx.zeros(4), "do not broadcast"),
    "matmul": (lambda x: x @ fx.zeros((3, 2)), "last axis of the left operand has size 4"),
    "matmul scalar": (lambda x: x @ 2.0, "matmul of a scalar"),
    "reshape": (lambda x: x.reshape(3, 5), "changes the number of elements"),
    "reshape -1": (lambda x: x.reshape(3, -1), "not whole"),
    "axis": (lambda x: x.sum(axis=2), "axis 2 of a tensor with 2 axes"),
    "axis twice": (lambda x: x.sum(axis=(1, -1)), "twice"),
    "index": (lambda x: x[:, 4], "index 4 is out of range"),
    "indices": (lambda x: x[0, 0, 0], "3 indices of a tensor with 2 axes"),
    "step": (lambda x: x[:, ::0], "step"),
    "concatenate": (lambda x: fx.concatenate([x, x[0]]), "shapes differ"),
    "stack": (lambda x: fx.stack([x, x[0]]), "different shapes"),
    "split": (lambda x: fx.split(x, 3, 1), "3 equal parts"),
    "squeeze": (lambda x: fx.squeeze(x, 1), "size is 4"),
    "transpose": (lambda x: x.transpose(0, 0), "not an order"),
    "pad": (lambda x: fx.pad(x, ((1, 1),) * 3), "pad_width"),
    "pad mode": (lambda x: fx.pad(x, 1, mode="mirror"), "'mirror'"),
    "broadcast_to": (lambda x: fx.broadcast_to(x, (2, 3)), "broadcast_to"),
    "where": (lambda x: fx.where(x > 0, x, fx.zeros(3)), "do not broadcast"),
    "glu": (lambda x: fx.glu(x[:, :3]), "odd size"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shape_errors(case):
    """Shapes that do not fit name the user's line."""
    f, message = SHAPES[case]
    with pytest.raises(fx.ShapeError, match=message) as caught:
        type_of(f, fx.f32["n", 4])
    assert caught.value.loc.file == __file__


def test_errors_name_the_layer():
    """A layer's error tells its path in the model, its declaration, expected and got."""
    model = nn.Chain(nn.Dense(4, 3), nn.Chain(nn.Dense(3, 3), nn.Dense(5, 2, fx.relu)))
    with pytest.raises(fx.ShapeError) as caught:
        trace(lambda x: model(x), fx.f32["n", 4], namespace={"model": model})
    line = test_errors_name_the_layer.__code__.co_firstlineno + 4
    assert str(caught.value) == (
        f"{short_name(__file__)}:{line} (in model.layers.1.layers.1): Dense(5, 2, relu): the input does not fit\n"
        "  expected: f32[..., 5]\n"
        "  got:      f32[n, 3]"
    )
    bad_norms = nn.LayerNorm(3), nn.BatchNorm(3), nn.Embedding(3, 2)
    for layer in bad_norms:
        with pytest.raises(fx.ShapeError, match="the input does not fit"):
            trace(layer, fx.f32["n", 4], namespace={"m": layer})


def test_wrong_declarations():
    """Constructors refuse what cannot be."""
    for make, message in (
        (lambda: nn.Dense(0, 3), "in must be an integer >= 1"),
        (lambda: nn.Dense(2.5, 3), "got: .*2.5"),
        (lambda: nn.Dropout(2), "p must be a number in 0 .. 1"),
        (lambda: nn.Chain(nn.Dense(1, 1), 3), "3 is not a layer"),
        (lambda: nn.Chain(fx.relu, name=fx.relu), "not both"),
        (lambda: fx.Param("n"), "'n' is not a size"),
        (lambda: fx.Param(2, init="zeros"), "init='zeros'"),
        (lambda: fx.Param(2, init=np.ones(3)), "another shape"),
        (lambda: optim.Chain(3), "3 is not an optimiser"),
        (lambda: optim.Adam(1e-3, 0.9), "beta must be two numbers"),
        (lambda: nn.freeze(3), "has no parameters"),
    ):
        with pytest.raises(fx.FluxcError, match=message):
            make()


def test_state_in_test_mode_is_not_assigned():
    """Entries that do not train change nothing."""
    s = fx.State(2)

    def f(x):
        s.assign(x)
        return x

    with pytest.raises(fx.TraceError, match="test mode") as caught:
        trace(f, fx.f32[2], namespace={"s": s})
    assert "fx.training()" in str(caught.value)
    entry, _ = trace(f, fx.f32[2], namespace={"s": s}, training=True)
    assert entry.updates == ("s",)


def test_an_output_may_be_an_input_a_parameter_or_a_constant():
    """Whatever is a tensor can be returned."""
    p = fx.Param(2, init=3.0)
    x = np.ones(2, np.float32)
    got = run(lambda x: (x, p, fx.ones(2), x), x, namespace={"p": p})
    np.testing.assert_array_equal(got, [x, 3 * x, x, x])


def test_losses_use_labels_directly():
    """Labels reach the gather untouched, so that a compiled entry can check their range."""
    f = lambda x, y: losses.logitcrossentropy(x, y)
    entry, _ = trace(f, fx.f32["n", 5], fx.i32["n"])
    (gather,) = [n for n in entry.graph.nodes if n.op == "gather"]
    (reshape,) = [n for n in entry.graph.nodes if gather.inputs[1] in n.outputs]
    assert reshape.inputs == (entry.graph.params[1],)


@pytest.mark.cc
def test_jit_compiles_once_for_each_type():
    """fx.jit runs functions and modules natively, with their derivatives, and keeps what it made."""
    model = nn.Chain(nn.Dense(4, 8, fx.gelu), nn.Dense(8, 2))

    @fx.jit
    def f(x, k):
        return model(x) * k, {"slope": fx.grad(lambda t: fx.tanh(t).sum())(x)}

    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    y, aux = f(x, 2.0)
    np.testing.assert_allclose(aux["slope"], 1 - np.tanh(x) ** 2, atol=1e-6)
    np.testing.assert_allclose(y, 2 * fx.jit(model)(x), rtol=1e-6)
    f(x + 1, 3.0)
    assert len(f.compiled) == 1
    f(x[:2], 3.0)
    assert len(f.compiled) == 2


@pytest.mark.cc
def test_jit_takes_what_a_function_takes():
    """Keywords, methods, numbers, names that an artifact uses; tensors inside another function."""
    model = nn.Dense(3, 2)
    x = np.ones((4, 3), np.float32)

    @fx.jit
    def load(x, scale=2.0):
        return model(x) * scale

    want = 2 * fx.jit(model)(x)
    np.testing.assert_allclose(load(x=x), want, rtol=1e-6)
    np.testing.assert_allclose(fx.jit(model.__call__)(x) * 2, want, rtol=1e-6)
    np.testing.assert_allclose(fx.jit(lambda x: load(x) + 1)(x), want + 1, rtol=1e-6)
    assert fx.jit(lambda a, b: a + b)(2, 3) == 5
    with pytest.raises(fx.DTypeError, match="argument 1 is not an array of numbers"):
        load(x, "two")


def test_every_operation_stands_on_a_line_of_the_user():
    """The gradient has the forward's lines, the optimiser's step that of the export."""
    model = nn.Chain(nn.Dense(3, 4, fx.gelu), nn.BatchNorm(4), nn.Dropout(0.5))
    rule = optim.Chain(optim.ClipNorm(1.0), optim.AdamW())

    def loss(x):
        return fx.square(model(x)).mean()

    entry, _ = trace(loss, fx.f32["n", 3], namespace={"model": model}, optimizer=rule)
    first = loss.__code__.co_firstlineno
    assert {(n.loc.file, n.loc.line) for n in entry.graph.nodes} == {
        (__file__, first),
        (__file__, first + 1),
    }


def test_lines_of_installed_packages_are_passed_over(tmp_path, monkeypatch):
    """A helper that is installed beside fluxc is no place for the user to look."""
    helper = tmp_path / "helper.py"
    helper.write_text("def halve(x):\n    return x / 2 + x[:, :1]\n")
    monkeypatch.syspath_prepend(tmp_path)
    import helper as module

    tracing = sys.modules["fluxc.trace"]  # fx.trace is a function of matrices
    monkeypatch.setattr(tracing, "is_library", lambda file: file == module.__file__)
    entry, _ = trace(lambda x: module.halve(x), fx.f32["n", 3])
    assert {n.loc.file for n in entry.graph.nodes} == {__file__}
