"""Whole model files: what native code computes and how it trains, beside the interpreter.

Each file in `models/` is an ordinary model file.  Every entry of every file runs on several sizes
and numbers of threads; its results and everything that it changes are compared with what the
float64 interpreter makes of the traced program.
"""

import functools
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from compiled import assert_agrees

from fluxc.compiler import driver
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import evaluate_size
from fluxc.compiler.ir.interp import evaluate, round_to, widen
from fluxc.compiler.ops import OPS

pytestmark = pytest.mark.cc

FOLDER = Path(__file__).parent / "models"
MODELS = sorted(f.stem for f in FOLDER.glob("*.py"))
SIZES = (0, 1, 3, 17)
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}


def read_file(path):
    """The arrays of a safetensors file by name, bf16 as its bits."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    arrays = {}
    for name, facts in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + at for at in facts["data_offsets"])
            flat = np.frombuffer(data[begin:end], NUMPY[facts["dtype"]])
            arrays[name] = flat.reshape(facts["shape"])
    return arrays


class Compiled:
    """A model as the interpreter and as native code have it."""

    def __init__(self, spec, folder, name):
        self.spec = spec
        made = driver.compile_spec(self.spec, folder / name)
        self.entries = {e.name: e for e in self.spec.entries}
        self.programs = {p.name: p for p in made.programs}
        self.package = driver.load_package(made.directory)
        self.file = folder / "state.safetensors"

    def state(self, model):
        """Every stored tensor of a model."""
        model.save(self.file)
        return read_file(self.file)

    def expected(self, name, state, arrays):
        """Results of an entry, and new values of what it changes, by the interpreter."""
        entry, graph = self.entries[name], self.entries[name].graph
        stored = [*arrays, *(state[s] for s in entry.storages)]
        wide = [widen(a, p.type.dtype) for a, p in zip(stored, graph.params, strict=True)]
        found = evaluate(graph, *wide, ops=OPS)
        count = len(entry.outputs)
        return found[:count], dict(zip(entry.updates, found[count:], strict=True))

    def arguments(self, name, base, rng):
        """Random inputs in the storage format of their dtypes, at sizes near `base`."""
        program = self.programs[name]
        sizes = legal_sizes(program.symbols, base)
        ranges = program.index_ranges or (None,) * len(program.inputs)
        made = []
        for t, held in zip(program.inputs, ranges, strict=True):
            shape = tuple(evaluate_size(s, sizes) for s in t.shape)
            if t.dtype.is_float:
                made.append(round_to(rng.normal(size=shape), t.dtype))
            else:
                low, high = (0, 2) if t.dtype.kind == "b" else held or (0, 6)
                made.append(rng.integers(low, high, shape).astype(t.dtype.numpy))
        return made


def legal_sizes(symbols, base):
    """A legal size for each symbol, near `base`, different from symbol to symbol."""
    sizes = {}
    for i, s in enumerate(symbols):
        wanted = max(base + i if base else 0, s.min)
        sizes[s.name] = min(-(-wanted // s.multiple_of), s.max // s.multiple_of) * s.multiple_of
    return sizes


def leaves(tree, value):
    """The arrays of what an entry returned, whose form must be `tree`."""
    if tree == "leaf":
        return [np.asarray(value)]
    kind, parts = tree
    assert type(value).__name__ == kind
    if kind == "dict":
        parts, value = parts.values(), [value[key] for key in parts]
    return [leaf for part, v in zip(parts, value, strict=True) for leaf in leaves(part, v)]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    def of_file(name):
        spec = driver.load_model_file(FOLDER / f"{name}.py")
        return Compiled(spec, tmp_path_factory.mktemp("models"), name)

    return functools.cache(of_file)


@pytest.mark.parametrize("name", MODELS)
def test_native_code_computes_what_the_program_means(compiled, name):
    """Results and updates of two calls of every entry; the same bits on 1 and 3 threads."""
    c = compiled(name)
    for entry in c.spec.entries:
        for base in SIZES[entry.training :]:  # the mean loss of no examples is NaN
            rng = np.random.default_rng(base)
            calls = [c.arguments(entry.name, base, rng) for _ in range(2)]
            one, three = ([*calls_agree(c, entry, calls, threads)] for threads in (1, 3))
            for got, want in zip(three, one, strict=True):
                np.testing.assert_array_equal(got, want)


def calls_agree(c, entry, calls, threads, tolerance=0.0):
    """Make calls one after the other and compare each with the interpreter; yields what came.

    tolerance  of the floats, if it is more than that of their dtype.
    """
    model = c.package.Model(seed=3, threads=threads)
    count, coarsest = len(entry.outputs), coarsest_float(entry.graph)
    dtypes = [v.type.dtype for v in entry.graph.results]
    for arrays in calls:
        before = c.state(model)
        results, updates = c.expected(entry.name, before, arrays)
        got = leaves(entry.output_tree, getattr(model, entry.name)(*arrays))
        after = c.state(model)
        got += [after[title] for title in entry.updates]
        want = [*results, *updates.values()]
        titles = [f"{entry.name}: {title}" for title in (*entry.outputs, *entry.updates)]
        assert len(got) == len(want) == len(dtypes) == count + len(updates)
        for title, a, w, dtype in zip(titles, got, want, dtypes, strict=True):
            if coarsest.bits == 16 and dtype.is_float:
                a, dtype = round_to(widen(a, dtype), coarsest), coarsest  # noqa: PLW2901
            assert_agrees(a, w, dtype, tolerance=tolerance, context=title)
        yield from got
        for title in before.keys() - updates.keys():
            np.testing.assert_array_equal(after[title], before[title], err_msg=title)


def coarsest_float(graph):
    """The float dtype with the fewest bits of precision that a program computes in."""
    types = {v.type.dtype for node in graph.nodes for v in node.outputs}
    order = ["bf16", "f16", "f32", "f64"]
    return min((t for t in types if t.is_float), key=lambda t: order.index(t.name), default=ir.f32)


# model: entry, number of steps, the part of the first loss that may be left.
TRAINED = {
    "tabular": ("train_step", 60, 0.6),
    "autoencoder": ("train_step", 100, 0.97),
    "two_heads": ("train_step", 100, 0.7),
    "gan": ("critic_step", 60, 0.9),
    "containers": ("train_step", 60, 0.7),
    "rules": ("train_field", 100, 0.6),
    "sizes": ("fit", 60, 0.9),
    "dtypes": ("train_half", 60, 0.6),
    "sequence": ("train_step", 60, 0.5),
    "smooth": ("descend", 5, 1.0),
    "states": ("fit", 60, 0.6),
}


@pytest.mark.parametrize("name", MODELS)
def test_training_lowers_the_loss(compiled, name):
    """Native training steps on one batch."""
    entry, steps, left = TRAINED[name]
    c = compiled(name)
    model = c.package.Model(seed=1, threads=2)
    batch = c.arguments(entry, 16, np.random.default_rng(0))
    first, *_, last = (loss_of(getattr(model, entry)(*batch)) for _ in range(steps))
    assert np.isfinite(last)
    assert last < left * first


def loss_of(returned):
    return float(returned[0] if isinstance(returned, tuple) else returned)


def test_native_gradients_are_slopes(compiled):
    """A step of Descent with rate 1 subtracts the gradient: beside differences of the loss."""
    c = compiled("smooth")
    batch = c.arguments("descend", 5, np.random.default_rng(4))
    model = c.package.Model(seed=0, threads=2)
    start = {name: a.copy() for name, a in model.parameters.items()}
    model.descend(*batch)
    gradient = {name: start[name] - a for name, a in model.parameters.items()}
    rng, step = np.random.default_rng(5), 1e-5
    for name, value in start.items():
        away = rng.normal(size=value.shape)
        sides = []
        for sign in (1, -1):
            for other, a in start.items():
                model.parameters[other] = a + sign * step * away if other == name else a
            sides.append(model.loss(*batch))
        slope = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose((gradient[name] * away).sum(), slope, rtol=1e-6, atol=1e-8)
