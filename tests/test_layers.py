"""Layers beside PyTorch: results, gradients by inputs and parameters, recorded statistics."""

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs
from golden import layers as golden

import fluxc as fx
from dsl import call, spec_of, trace
from fluxc.compiler.ir.types import f32

with np.load(golden.FILE) as stored:
    GOLDEN = dict(stored)


def program(name):
    """The entry that computes result and gradients, and the labels of its results."""
    case, xs = golden.CASES[name], golden.inputs(name)
    layer = case.ours(fx)
    floats = [i for i, x in enumerate(xs) if x.dtype.kind == "f"]
    seed = golden.seed(name, GOLDEN[f"{name}/y"].shape)

    def differentiated(*given):
        def forward(layer, *inputs):
            whole = list(given)
            for i, x in zip(floats, inputs, strict=True):
                whole[i] = x
            return layer(*whole)

        y, pull = fx.vjp(forward, layer, *(given[i] for i in floats))
        by_layer, *by_inputs = pull(fx.array(seed, "f32"))
        assert by_layer.keys() == case.parameters.keys()
        return {
            "y": y,
            **{f"g{i}": g for i, g in zip(floats, by_inputs, strict=True)},
            **{f"g.{path}": g for path, g in by_layer.items()},
        }

    specs = [spec_of(x) for x in xs]
    entry, _ = trace(differentiated, *specs, namespace={"m": layer}, training=case.training)
    labels = ["y", *(f"g{i}" for i in floats), *(f"g.{p}" for p in layer.parameters())]
    values = {
        p: golden.value(name, p, d.shape)
        for p, d in {**layer.parameters(), **layer.states()}.items()
    }
    return entry, labels, values


@pytest.mark.parametrize("name", golden.CASES)
def test_the_interpreter_agrees_with_pytorch(name):
    entry, labels, values = program(name)
    before = dict(values)
    results = call(entry, values, *golden.inputs(name))
    for label, got in zip(labels, results, strict=True):
        want = GOLDEN[f"{name}/{label}"]
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5, err_msg=label)
    for path in golden.CASES[name].states:
        want = GOLDEN.get(f"{name}/s.{path}", before[path])
        np.testing.assert_allclose(values[path], want, rtol=1e-6, err_msg=path)


@pytest.mark.cc
def test_compiled_code_agrees_with_pytorch(tmp_path):
    programs = {name: program(name) for name in golden.CASES}
    graphs = {name: entry.graph for name, (entry, _, _) in programs.items()}
    compiled = compile_graphs(graphs, tmp_path)
    for name, (entry, labels, values) in programs.items():
        stored = [values[s].astype(np.float32) for s in entry.storages]
        got = getattr(compiled.model(2), name)(*golden.inputs(name), *stored)
        wanted = [*labels, *(f"s.{path}" for path in entry.updates)]
        for label, g in zip(wanted, got, strict=True):
            want = GOLDEN[f"{name}/{label}"]
            scale = float(np.abs(want).max(initial=1.0))
            assert_agrees(g, want, f32, scale=scale, context=f"{name}, {label}")
