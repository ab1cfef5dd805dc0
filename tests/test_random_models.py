"""Random models: what native code computes and how it trains, beside the interpreter."""

import numpy as np
import pytest
from random_models import ACTIVATIONS, LOSSES, OF_LABELS, random_model
from test_models import Compiled, calls_agree

import fluxc as fx
from dsl import trace
from fluxc import nn
from fluxc.export import _exports, trace_exports
from fluxc.module import modules

pytestmark = pytest.mark.cc

# Models that between them have every layer, loss and rule that the generator knows.
SEEDS = [
    [0, 20, 50, 55, 74, 85, 87, 96], [99, 134, 154, 169, 244, 253, 263, 276],
    [285, 316, 319, 334, 347, 354, 356, 368], [376, 377, 380, 397, 455, 462, 464, 475],
]  # fmt: skip
# Layers that no random model is made of: what keeps a cache, and what has its own way to be called.
NOT_DRAWN = {"KVCache", "MaxUnpool", "Module", "SamePad"}
BATCHES = (0, 1, 3, 17)
STEPS = 3
TOLERANCE = {"f32": 1e-4, "f64": 1e-10}  # of some ten layers and their gradients


def compiled_models(seeds, folder):
    """Models of these seeds, all in one artifact."""
    models = [random_model(seed) for seed in seeds]
    space = {}
    for model in models:
        space |= model.entries()
    spec = trace_exports(_exports(space), space)
    return models, Compiled(spec, folder, "m")


def check(model, compiled):
    """Predictions at every size of batch, and steps that train, are the interpreter's."""
    entries = compiled.entries
    rng = np.random.default_rng(model.seed)
    for batch in BATCHES:
        predict, step = (f"{kind}{model.seed}" for kind in ("predict", "step"))
        for entry, count in ((predict, 1), (step, STEPS if batch else 0)):
            calls = [compiled.arguments(entry, batch, rng) for _ in range(count)]
            threads, tolerance = 1 + batch % 2, TOLERANCE[model.dtype]
            [*calls_agree(compiled, entries[entry], calls, threads, tolerance)]


def test_the_models_have_every_layer_and_loss():
    models = [random_model(seed) for seeds in SEEDS for seed in seeds]
    names = {type(part).__name__ for model in models for part in modules(model.model)}
    kinds = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)} - {"sized"}
    assert kinds - names == NOT_DRAWN
    assert {model.loss for model in models} == {*LOSSES, *OF_LABELS}


@pytest.mark.parametrize("seeds", SEEDS, ids=str)
def test_random_models_are_the_interpreters(tmp_path, seeds):
    models, compiled = compiled_models(seeds, tmp_path)
    for model in models:
        try:
            check(model, compiled)
        except AssertionError as error:
            raise AssertionError(str(model)) from error


def wide(f, *specs):
    """Whether every float of a function, or a layer, of f64 is one."""
    entry, _ = trace(f, *specs, namespace={"f": f})
    made = [v.type.dtype for n in entry.graph.nodes for v in n.outputs]
    return {d.name for d in made if d.is_float} <= {"f64"}


@pytest.mark.parametrize("name", [*LOSSES, *OF_LABELS])
def test_losses_of_f64_are_computed_in_f64(name):
    """No constant among them, which f32 would have rounded."""
    y, t = fx.f64["n", 5], fx.f64["n", 5]
    if name in LOSSES:
        assert wide(LOSSES[name], y, t)
    else:
        assert wide(lambda y, t: OF_LABELS[name](y, t, axis=-1), y, fx.i32["n"])


def test_layers_of_f64_are_computed_in_f64():
    for model in (random_model(seed) for seeds in SEEDS for seed in seeds):
        drawn = any(isinstance(part, nn.FractionalMaxPool) for part in modules(model.model))
        if model.dtype == "f64" and not drawn:  # places of windows are drawn in f32
            assert wide(model.model, model.input), str(model)


@pytest.mark.parametrize("f", ACTIVATIONS)
def test_activations_of_f64_are_computed_in_f64(f):
    assert wide(f, fx.f64["n", 5])
