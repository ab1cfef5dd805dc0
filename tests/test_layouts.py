"""Channels last: random networks mean the same, in the interpreter and compiled."""

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs, expected
from random_graphs import random_arguments

from fluxc.compiler.autodiff import vjp
from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import Symbol, evaluate_size, symbol_size
from fluxc.compiler.ir.types import TensorType, bf16, f32, f64
from fluxc.compiler.ops import infer
from fluxc.compiler.passes import optimize
from fluxc.compiler.passes.assign_layouts import assign_layouts

CHANNELS = (1, 3, 4, 17)
BATCH = symbol_size(Symbol("n", 0))


class Network:
    """A network of convolutions and of what stands between them, drawn at random."""

    def __init__(self, rng, batch, rank):
        self.rng, self.b = rng, Builder(infer)
        sizes = [self.pick(1, 2, 5, 9) for _ in range(rank)]
        x = self.b.param(TensorType(f32, (batch, self.pick(*CHANNELS), *sizes)))
        for _ in range(int(rng.integers(2, 5))):
            x = self.step(x)
        self.x = x

    def pick(self, *choices):
        return choices[int(self.rng.integers(len(choices)))]

    def graph(self):
        pooled = self.b.emit("reduce_sum", self.x, axes=(0, *range(2, self.x.type.rank)))
        return self.b.graph("g", [self.x, pooled])

    def step(self, x):
        rules = (self.conv, self.conv, self.conv, self.pool, self.move, self.scale)
        try:
            y = self.pick(*rules)(x)
        except ShapeError:
            return x
        bent = self.b.emit("tanh", y)
        return self.b.emit("add", bent, x) if bent.type == x.type else bent

    def conv(self, x):
        _, channels, *spatial = x.type.shape
        groups = self.pick(1, 1, channels)
        kernel = [self.pick(1, 2, 3) for _ in spatial]
        names = {"stride": (1, 1, 2), "low": (-1, 0, 1, 2), "high": (0, 1, 3), "dilation": (1, 2)}
        attrs = {name: tuple(self.pick(*v) for _ in spatial) for name, v in names.items()}
        outputs = groups * self.pick(1, 4, 5) if groups > 1 else self.pick(*CHANNELS, 33)
        shape = (outputs, channels // groups, *kernel)
        interior = tuple(self.pick(0, 0, 1) for _ in spatial)
        infer(
            "conv",
            (x.type, x.type.with_shape(*shape)),
            {**attrs, "interior": interior, "groups": groups},
        )
        w = self.b.param(x.type.with_shape(*shape))
        return self.b.emit("conv", x, w, groups=groups, interior=interior, **attrs)

    def pool(self, x):
        spatial = x.type.shape[2:]
        names = {
            "sizes": (1, 2, 3),
            "strides": (1, 2),
            "low": (0, 1),
            "high": (0, 1),
            "dilation": (1, 1, 2),
        }
        plain = {"sizes": 1, "strides": 1, "low": 0, "high": 0, "dilation": 1}
        attrs = {
            name: (plain[name], plain[name], *(self.pick(*v) for _ in spatial))
            for name, v in names.items()
        }
        if self.pick(True, False):
            return self.b.emit("window_sum", x, **attrs)
        at = self.b.emit("window_argmax", x, **attrs)
        return self.b.emit("window_pick", x, at, **attrs)

    def move(self, x):
        rank = x.type.rank
        if self.pick(True, False):
            joined = self.b.emit("concatenate", x, self.b.emit("reverse", x, axes=(1,)), axis=1)
            limits = (joined.type.shape[0], joined.type.shape[1] - 1, *joined.type.shape[2:])
            starts = (0, *(0 for _ in limits[1:]))
            return self.b.emit("slice", joined, starts=starts, limits=limits, steps=(1,) * rank)
        zero = self.b.emit("full", value=0.0, dtype=x.type.dtype, shape=())
        low = tuple(self.pick(0, 1) for _ in range(rank - 1))
        return self.b.emit("pad", x, zero, low=(0, *low), high=(0,) * rank, interior=(0,) * rank)

    def scale(self, x):
        w = self.b.param(x.type.with_shape(x.type.shape[1]))
        return self.b.emit("mul", x, self.b.emit("broadcast", w, shape=x.type.shape, axes=(1,)))


def network(seed, batch=2):
    rng = np.random.default_rng(seed)
    return Network(rng, batch, 1 + seed % 3).graph()


def arguments(rng, graph, **sizes):
    shapes = ([evaluate_size(s, sizes) for s in p.type.shape] for p in graph.params)
    return [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]


def test_random_networks_mean_the_same_with_channels_last():
    moved = 0
    for seed in range(60):
        for graph in (network(seed), vjp(network(seed))):
            after = assign_layouts(graph)
            moved += after is not graph
            assert all(n.op != "conv" for n in after.nodes)
            arrays = arguments(np.random.default_rng(seed), graph)
            for got, want in zip(expected(after, arrays), expected(graph, arrays), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9, err_msg=f"seed {seed}")
    assert moved > 60


def test_between_convolutions_nothing_is_transposed():
    b = Builder(infer)
    x = b.param(TensorType(f32, (2, 3, 8, 8)))
    attrs = {
        "stride": (1, 1),
        "low": (1, 1),
        "high": (1, 1),
        "dilation": (1, 1),
        "interior": (0, 0),
    }
    for channels in (4, 5, 6):
        w = b.param(TensorType(f32, (channels, x.type.shape[1], 3, 3)))
        x = b.emit("tanh", b.emit("conv", x, w, groups=1, **attrs))
        mean = b.emit("reduce_sum", x, axes=(0, 2, 3))
        x = b.emit("sub", x, b.emit("broadcast", mean, shape=x.type.shape, axes=(1,)))
    graph = optimize(b.graph("g", [x]))
    assert [n.op for n in graph.nodes].count("transpose") == 2
    assert [n.op for n in graph.nodes].count("conv_last") == 3


@pytest.mark.cc
def test_compiled_networks_agree_with_the_interpreter(tmp_path):
    graphs = {f"g{seed}": vjp(network(seed, BATCH)) for seed in range(12)}
    compiled = compile_graphs(graphs, tmp_path)
    for seed, (name, graph) in enumerate(graphs.items()):
        rng = np.random.default_rng(seed)
        for n in (0, 1, 7):
            arrays = arguments(rng, graph, n=n)
            got = compiled.on_every_number_of_threads(name, arrays)
            for g, want in zip(got, expected(graph, arrays), strict=True):
                scale = float(np.abs(want).max(initial=1.0))
                assert_agrees(g, want, f32, scale=scale, context=f"{name}, {n} images")


@pytest.mark.cc
def test_transpositions_are_cut_in_squares(tmp_path):
    """Whole squares or none: the result is the same, and no more than one read of each line."""
    sizes = {
        "whole": (3, 256, 512),
        "one": (1, 16, 8192),
        "cut": (2, 255, 512),
        "small": (2, 16, 64),
    }
    graphs = {}
    for name, shape in sizes.items():
        for dtype in (f32, f64, bf16):
            b = Builder(infer)
            x = b.param(TensorType(dtype, shape))
            y = b.param(TensorType(dtype, (shape[0], shape[2], shape[1])))
            moved = b.emit("transpose", x, axes=(0, 2, 1))
            graphs[f"{name}_{dtype}"] = b.graph("g", [b.emit("add", moved, y)])
    compiled = compile_graphs(graphs, tmp_path)
    for name, graph in graphs.items():
        arrays = random_arguments(np.random.default_rng(0), graph)
        (got,) = compiled.on_every_number_of_threads(name, arrays)
        (want,) = expected(graph, arrays)
        assert_agrees(got, want, graph.results[0].type.dtype, context=name)
    rows = {name: len(compiled.programs[name].run[0].scheduled.kernel.rows) for name in graphs}
    assert rows["whole_f32"] == 5
    assert rows["small_f32"] == 3
