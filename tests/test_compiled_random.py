"""Random graphs, forward and gradient: compiled code against the interpreter."""

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs, expected
from conftest import COUNTS
from op_graphs import carries_graphs
from random_graphs import is_trivial, random_arguments, random_graph

from fluxc.compiler.autodiff import vjp
from fluxc.compiler.ops import OPS

pytestmark = pytest.mark.cc

GRAPHS, BATCH = 500, 25


def shows_nothing(results):
    """Zeros, infinities and NaN hide most mistakes."""
    return not any(np.any(np.isfinite(x) & (x != 0)) for x in results)


@pytest.mark.parametrize("batch", range(GRAPHS // BATCH))
def test_random_graphs_agree_with_the_interpreter(batch, tmp_path, record_property):
    graphs = {}
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng, int(rng.integers(4, 14)), differentiable=True)
        graphs |= {f"forward_{seed}": graph, f"gradient_{seed}": vjp(graph)}
    compiled = compile_graphs(graphs, tmp_path)
    trivial = 0
    for name, graph in graphs.items():
        arrays = random_arguments(np.random.default_rng(batch), graph)
        arrays = compiled.within_index_ranges(name, arrays)
        got, want = compiled.on_every_number_of_threads(name, arrays), expected(graph, arrays)
        trivial += is_trivial(graph) or shows_nothing(want)
        scale = max([1.0, *(float(np.nanmax(np.abs(w), initial=0)) for w in want)])
        for g, w, r in zip(got, want, graph.results, strict=True):
            assert_agrees(g, w, r.type.dtype, scale=scale, context=f"{name}\n{graph}")
    assert trivial < len(graphs) / 4, "the generator makes too many graphs that test nothing"
    record_property(COUNTS, (len(graphs), trivial))


def test_the_generator_reaches_every_differentiable_operation():
    seen = set()
    for seed in range(GRAPHS):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng, int(rng.integers(4, 14)), differentiable=True)
        seen |= {n.op for n in graph.nodes}
    wanted = {n for n, op in OPS.items() if callable(op.vjp)}
    wanted -= {n for n in wanted if carries_graphs(OPS[n])} - {"checkpoint"}
    assert wanted - seen == set()
