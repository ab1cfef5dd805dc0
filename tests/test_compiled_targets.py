"""Lesser processors: code for machines without fused operations, wide vectors, or either."""

import re

import numpy as np
import pytest
from compiled import assert_graph_agrees, compile_graphs, expected
from llvm_harness import undefined_symbols
from random_graphs import random_arguments, random_graph
from test_determinism import DIGITS

from fluxc.compiler import driver
from fluxc.compiler.autodiff import vjp
from fluxc.compiler.backends.llvm import compile_programs
from fluxc.compiler.backends.llvm.target import native_target, target_for

LEVELS = ("x86-64", "x86-64-v2", "x86-64-v3")
WIDTH = {"x86-64": 16, "x86-64-v2": 16, "x86-64-v3": 32}
# What code may ask of the C library and of the runtime beside it; no libm, nothing of a compiler's.
ALLOWED = re.compile(r"fx_\w+|memcpy|memset|memmove|")

pytestmark = [
    pytest.mark.cc,
    pytest.mark.skipif(
        native_target().vector_bytes < 32 or "x86_64" not in native_target().triple,
        reason="the machine must run all three levels",
    ),
]


def random_pairs(first, count):
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng, int(rng.integers(4, 12)), differentiable=True)
        yield f"forward_{seed}", graph
        yield f"gradient_{seed}", vjp(graph)


@pytest.mark.parametrize("cpu", LEVELS)
def test_random_graphs_on_lesser_processors(cpu, tmp_path):
    graphs = dict(random_pairs(7000 + 100 * LEVELS.index(cpu), 17))
    compiled = compile_graphs(graphs, tmp_path, cpu=cpu)
    for name, graph in graphs.items():
        rng = np.random.default_rng(1)
        arrays = compiled.within_index_ranges(name, random_arguments(rng, graph))
        got = compiled.on_every_number_of_threads(name, arrays)
        assert_graph_agrees(graph, got, expected(graph, arrays), f"{name} for {cpu}")


@pytest.fixture(scope="module")
def digits():
    return driver.load_model_file(DIGITS)


def trained(folder):
    """The losses of five steps, and predictions after them."""
    rng = np.random.default_rng(0)
    x, y = rng.random((96, 64), np.float32), rng.integers(0, 10, 96).astype(np.int32)
    model = driver.load_package(folder).Model(seed=1, threads=2)
    return [float(model.train_step(x, y)) for _ in range(5)], model.predict(x)


@pytest.fixture(scope="module")
def own_results(digits, tmp_path_factory):
    return trained(driver.compile_spec(digits, tmp_path_factory.mktemp("own") / "own").directory)


@pytest.mark.parametrize("cpu", LEVELS)
def test_the_digits_on_lesser_processors(cpu, digits, own_results, tmp_path):
    """Training agrees with the machine's own code, within what rounding makes of it."""
    own_losses, own_p = own_results
    losses, p = trained(driver.compile_spec(digits, tmp_path / "lesser", cpu=cpu).directory)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(losses, own_losses, rtol=1e-4)
    np.testing.assert_allclose(p, own_p, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cpu", LEVELS)
def test_code_for_lesser_processors_calls_the_c_library_alone(cpu, digits):
    target = target_for(native_target().triple, cpu)
    assert target.vector_bytes == WIDTH[cpu]
    code = compile_programs("m", digits, driver.lower(digits, target), target, "0")
    surplus = {s for s in undefined_symbols(code) if not ALLOWED.fullmatch(s)}
    assert surplus == set()
