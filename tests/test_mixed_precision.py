"""`precision=`: products in 16 bits, everything that is stored in f32."""

import numpy as np
import pytest
from compiled import TOLERANCE

import fluxc as fx
from dsl import call, first_values, run, trace
from fluxc import losses, nn, optim
from fluxc.compiler import driver
from fluxc.compiler.errors import FluxcError
from fluxc.compiler.ir.graph import subgraphs
from fluxc.compiler.ir.interp import round_to, widen
from fluxc.compiler.ir.types import bf16, f16, f32
from fluxc.compiler.ops import OPS
from fluxc.compiler.passes.mixed_precision import FAMILIES
from fluxc.export import ExportedFunction, trace_exports

RNG = np.random.default_rng(11)
DTYPES = {"bf16": bf16, "f16": f16}
BATCH = 6


def nodes(g):
    for n in g.nodes:
        yield n
        for sub in subgraphs(n):
            yield from nodes(sub)


def layers():
    return nn.Chain(
        nn.Conv((3, 3), 2, 4, fx.relu, pad=1),
        nn.BatchNorm(4),
        nn.MaxPool((2, 2)),
        lambda x: x.reshape(x.shape[0], 64),
        nn.Dense(64, 16, fx.gelu),
        nn.LayerNorm(16),
        nn.Dense(16, 3),
    )


def loops():
    cell, head = nn.Dense(12, 6, fx.tanh), nn.Dense(6, 3)

    def step(h, x):
        new = fx.cond(x.mean() > 0, lambda: cell(fx.concatenate([h, x], axis=1)), lambda: fx.sin(h))
        return new, new.sum()

    def model(x):
        x = x.reshape(x.shape[0], 2, 64)[:, :, :60].reshape(x.shape[0], 20, 6)
        last, _ = fx.scan(fx.checkpoint(step), x[:, 0], x.transpose(1, 0, 2))
        return head(last)

    return {"cell": cell, "head": head}, model


def entries(name, precision):
    if name == "layers":
        namespace = {"model": layers()}
        model = namespace["model"]
    else:
        namespace, model = loops()

    def step(x: fx.f32[BATCH, 2, 8, 8], y: fx.i32[BATCH]):
        return losses.logitcrossentropy(model(x), y)

    chosen = {"": None, "_narrow": precision}
    exports = [
        ExportedFunction(step, name=f"{name}{end}", optimizer=optim.Descent(0.1), precision=p)
        for end, p in chosen.items()
    ]
    return exports, namespace


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 2, 8, 8)).astype(np.float32)
    return x, rng.integers(0, 3, BATCH).astype(np.int32)


def test_every_operation_is_of_one_family():
    named = [op for _, ops in FAMILIES.values() for op in ops.split()]

    assert sorted(named) == sorted(OPS)
    assert {kind for kind, _ in FAMILIES.values()} == {"narrow", "follow", "wide"}


@pytest.mark.parametrize("name", ["layers", "loops"])
@pytest.mark.parametrize("precision", DTYPES)
def test_products_take_16_bits_and_sums_f32(name, precision):
    spec = trace_exports(*entries(name, precision))
    plain, entry = spec.entries
    graph = entry.graph
    products = [n for n in nodes(graph) if n.op in {"contract", "conv"}]
    sums = [n for n in nodes(graph) if n.op in {"reduce_sum", "exp", "log", "rsqrt"}]

    assert len(products) == len([n for n in nodes(plain.graph) if n.op in {"contract", "conv"}])
    assert {v.type.dtype for n in products for v in n.inputs} == {DTYPES[precision]}
    forward = [n for n in nodes(entry.forward) if n.op in {n.op for n in sums}]
    assert {v.type.dtype for n in forward for v in n.inputs} <= {f32}
    assert [p.type for p in graph.params] == [p.type for p in plain.graph.params]
    assert [r.type for r in graph.results] == [r.type for r in plain.graph.results]


@pytest.mark.parametrize("name", ["layers", "loops"])
@pytest.mark.parametrize("precision", DTYPES)
def test_compiled_steps_are_the_interpreter_s(name, precision, tmp_path):
    spec = trace_exports(*entries(name, precision))
    driver.compile_spec(spec, tmp_path / "model")
    package = driver.load_package(tmp_path / "model")
    plain, narrow = spec.entries
    x, y = data()
    found = {}
    for entry in (plain, narrow):
        model = package.Model(seed=1)
        values = {
            s.name: np.array(model.parameters[s.name])
            for s in spec.storages
            if s.name in model.parameters
        }
        values |= {
            k: v
            for k, v in first_values({s.name: s for s in spec.storages}).items()
            if k not in values
        }
        before = dict(values)
        (want,) = call(entry, values, x, y)
        got = getattr(model, entry.name)(x, y)
        tolerance = TOLERANCE[precision]
        np.testing.assert_allclose(got, want, rtol=tolerance)
        found[entry.name] = {}
        for key in model.parameters:
            moved = model.parameters[key] - before[key]
            size = np.abs(values[key] - before[key]).max() + 1e-3
            np.testing.assert_allclose(
                moved / size, (values[key] - before[key]) / size, atol=tolerance, err_msg=key
            )
            found[entry.name][key] = moved
    for key, moved in found[plain.name].items():
        size = np.abs(moved).max() + 1e-2
        other = found[narrow.name][key]
        assert moved.dtype == other.dtype == np.float32
        np.testing.assert_allclose(other / size, moved / size, atol=0.1, err_msg=key)


@pytest.mark.parametrize("precision", DTYPES)
def test_a_cast_rounds_whether_or_not_it_is_stored(precision):
    dtype = DTYPES[precision]
    x = (RNG.normal(size=500) * 10.0 ** RNG.integers(-9, 9, 500)).astype(np.float32)
    f = lambda t: t.astype(precision).astype("f32") * 1.5
    want = widen(round_to(x, dtype), dtype) * 1.5

    np.testing.assert_array_equal(run(f, x), want)
    np.testing.assert_array_equal(fx.jit(f)(x), want.astype(np.float32))


def test_a_bias_follows_and_a_residual_does_not():
    layer = nn.Dense(4, 4)
    entry, _ = trace(
        lambda x: fx.relu(layer(x)) + x, fx.f32[3, 4], precision="bf16", namespace={"layer": layer}
    )
    adds = [n for n in entry.graph.nodes if n.op == "add"]

    assert [n.output.type.dtype for n in adds] == [bf16, f32]


def test_other_precisions_are_an_error():
    with pytest.raises(FluxcError, match="precision= is that of products") as caught:
        ExportedFunction(lambda x: x, name="f", precision="f8")

    assert caught.value.got == "'f8'"
    assert ExportedFunction(lambda x: x, name="f", precision=fx.bf16).precision == bf16
    assert ExportedFunction(lambda x: x, name="f", precision="f32").precision is None
