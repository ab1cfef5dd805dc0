"""Compiled code touches its own memory alone, and never reads what nobody wrote.

The artifacts here are built with FX_POISON: scratch memory is NaN before every call and ends at a
page that nobody may touch, as do the arguments.
"""

from pathlib import Path

import numpy as np
import pytest
from compiled import assert_graph_agrees, call_fenced, compile_graphs, expected, poison
from random_graphs import random_arguments, random_graph

from fluxc.compiler.autodiff import vjp
from fluxc.compiler.ir.parser import parse_graph
from fluxc.compiler.ir.verify import verify
from fluxc.compiler.ops import infer

pytestmark = pytest.mark.cc

GRAPHS = sorted((Path(__file__).parent / "graphs").glob("*.fir"))
CALLS = 3


def check(compiled, name, seed, threads=2):
    graph, model = compiled.graphs[name], compiled.model(threads)
    rng = np.random.default_rng(seed)
    for _ in range(CALLS):
        arrays = compiled.within_index_ranges(name, random_arguments(rng, graph))
        got = [call_fenced(model, name, graph, arrays, at_end=end) for end in (True, False)]
        assert_graph_agrees(graph, got[0], expected(graph, arrays), name)
        for x, y in zip(*got, strict=True):
            assert x.tobytes() == y.tobytes(), f"{name}: results depend on where arrays lie"


def test_graphs_that_were_once_compiled_wrongly(tmp_path, monkeypatch):
    poison(monkeypatch)
    graphs = {p.stem: verify(parse_graph(p.read_text()), infer) for p in GRAPHS}
    compiled = compile_graphs(graphs, tmp_path)
    for seed, name in enumerate(graphs):
        check(compiled, name, seed)


@pytest.mark.parametrize("batch", range(4))
def test_random_graphs_stay_within_their_memory(batch, tmp_path, monkeypatch):
    poison(monkeypatch)
    graphs = {}
    for seed in range(9000 + 10 * batch, 9010 + 10 * batch):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng, int(rng.integers(4, 14)), differentiable=True)
        graphs |= {f"forward_{seed}": graph, f"gradient_{seed}": vjp(graph)}
    compiled = compile_graphs(graphs, tmp_path)
    for name in graphs:
        check(compiled, name, batch)
