"""Convolutions of an input with gaps mean the same whichever way they are computed."""

import numpy as np
import pytest
from compiled import assert_agrees, compile_graphs, expected

import fluxc as fx
from dsl import trace
from fluxc.compiler.autodiff import vjp
from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import evaluate_size
from fluxc.compiler.ir.types import TensorType, bf16, f16, f32, f64
from fluxc.compiler.ops import infer
from fluxc.compiler.passes.patches import by_input, by_patches
from fluxc.compiler.passes.rewrite import rewrite
from fluxc.compiler.passes.split_gaps import split_gaps

CHOICES = {
    "stride": (1, 1, 2),
    "low": (-1, 0, 1, 2, 5),
    "high": (-1, 0, 1, 3, 9),
    "dilation": (1, 1, 2, 3),
    "interior": (0, 1, 2, 4),
}


def convolution(rng):
    """A convolution of random sizes with gaps, or None where no window fits."""
    rank, groups = int(rng.integers(1, 4)), int(rng.choice((1, 2, 3)))

    def pick(*choices):
        return tuple(int(v) for v in rng.choice(choices, rank))

    attrs = {name: pick(*choices) for name, choices in CHOICES.items()}
    if rng.random() < 0.5:
        attrs |= {"stride": (1,) * rank, "dilation": (1,) * rank}
    images, channels, outputs = (int(rng.choice(c)) for c in ((0, 1, 3), (0, 1, 4), (1, 2, 16)))
    b = Builder(infer)
    x = b.param(TensorType(f64, (images, groups * channels, *pick(1, 2, 3, 5))))
    w = b.param(TensorType(f64, (groups * outputs, channels, *pick(1, 2, 3, 4, 7))))
    try:
        return b.graph("g", [b.emit("conv", x, w, groups=groups, **attrs)])
    except ShapeError:
        return None


def replaced(graph, rule):
    """The graph with its one convolution replaced, whichever way the pass would choose."""
    done = []

    def once(r, n):
        return None if done else done.append(n) or rule(r, n)

    return rewrite(graph, {"conv": (once,)})


def agree(graph, changed, rng):
    arrays = [rng.normal(size=p.type.shape) for p in graph.params]
    for got, want in zip(expected(changed, arrays), expected(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12, err_msg=str(graph))


def with_gaps(graph):
    return [n for n in graph.nodes if n.op in {"conv", "conv_last"} and any(n.attrs["interior"])]


def test_every_way_of_a_convolution_with_gaps_means_the_same():
    """At random strides, gaps, paddings that cut, dilations, groups, sizes of 0 and 1."""
    rng, patches, changed = np.random.default_rng(0), 0, 0
    for _ in range(250):
        graph = convolution(rng)
        if graph is None:
            continue
        agree(graph, replaced(graph, by_input), rng)
        attrs = graph.nodes[-1].attrs
        plain = all(v == 1 for v in (*attrs["stride"], *attrs["dilation"]))
        if plain:
            agree(graph, replaced(graph, by_patches), rng)
            patches += 1
        chosen = split_gaps(graph)
        agree(graph, chosen, rng)
        changed += chosen is not graph
        assert not plain or not with_gaps(chosen)
    assert patches > 40
    assert changed > 60


# x, w, options; a transposed one where w has as many outputs as x has channels.
CASES = {
    "strides 3 and 5": ((2, 3, 13, 17), (4, 3, 4, 4), {"stride": (3, 5)}),
    "kernel below stride": ((2, 2, 26), (3, 2, 5), {"stride": 8, "pad": (1, 4)}),
    "kernel equal to stride": ((1, 3, 32, 33), (17, 3, 16, 16), {"stride": 16}),
    "kernel above stride": ((2, 1, 120), (9, 1, 40), {"stride": 16, "pad": (7, 3)}),
    "groups": ((2, 6, 12, 11), (6, 2, 5, 4), {"stride": (5, 1), "pad": 2, "groups": 3}),
    "each channel": ((3, 4, 9, 8), (4, 1, 3, 3), {"stride": 2, "pad": 1, "groups": 4}),
    "one place": ((2, 8, 5, 5), (33, 8, 1, 1), {"stride": 2}),
    "many outputs": ((2, 32, 9, 9), (16, 32, 3, 3), {"stride": 2, "pad": 1}),
    "volumes": ((2, 2, 5, 6, 7), (3, 2, 4, 2, 3), {"stride": (3, 2, 1), "pad": 1}),
    "dilated": ((2, 4, 15), (2, 4, 3), {"stride": 3, "dilation": 2}),
    "transposed": ((2, 8, 4, 5), (8, 1, 4, 4), {"stride": 2, "pad": (1, 1, 0, 2)}),
    "transposed beyond": ((2, 3, 4), (3, 5, 3), {"stride": 5, "outpad": 4}),
    "transposed groups": ((2, 4, 3, 3), (4, 3, 5, 3), {"stride": (3, 2), "groups": 2}),
}


def differentiated(name, dtype, batch):
    shape, weight, options = CASES[name]
    function = fx.conv_transpose if name.startswith("transposed") else fx.conv
    specs = (dtype[(batch, *shape[1:])], dtype[weight])
    return vjp(trace(lambda x, w: function(x, w, **options), *specs)[0].graph)


def arrays_of(graph, rng, dtype, **sizes):
    shapes = ([evaluate_size(s, sizes) for s in p.type.shape] for p in graph.params)
    return [rng.uniform(-1, 1, s).astype(dtype.numpy) for s in shapes]


@pytest.mark.cc
def test_compiled_strides_and_their_gradients_agree_with_the_interpreter(tmp_path):
    rng = np.random.default_rng(0)
    graphs = {f"c{i}": differentiated(name, fx.f32, "n") for i, name in enumerate(CASES)}
    compiled = compile_graphs(graphs, tmp_path)
    for name, (case, graph) in zip(CASES, graphs.items(), strict=True):
        for n in (0, 1, 3):
            arrays = arrays_of(graph, rng, f32, n=n)
            got = compiled.on_every_number_of_threads(case, arrays)
            for g, want in zip(got, expected(graph, arrays), strict=True):
                scale = float(np.abs(want).max(initial=1.0))
                assert_agrees(g, want, f32, scale=scale, context=f"{name}, {n} images")


@pytest.mark.cc
@pytest.mark.parametrize("dtype", [f64, f16, bf16], ids=str)
def test_compiled_gaps_of_other_floats_agree_with_the_interpreter(dtype, tmp_path):
    rng = np.random.default_rng(0)
    names = ("strides 3 and 5", "transposed", "many outputs")
    graphs = {
        f"c{i}": differentiated(name, getattr(fx, dtype.name), CASES[name][0][0])
        for i, name in enumerate(names)
    }
    compiled = compile_graphs(graphs, tmp_path)
    for case, graph in graphs.items():
        arrays = arrays_of(graph, rng, dtype)
        got = getattr(compiled.model(1), case)(*arrays)
        for g, want in zip(got, expected(graph, arrays), strict=True):
            scale = float(np.abs(want).max(initial=1.0))
            assert_agrees(g, want, dtype, scale=scale, context=f"{case} {dtype}")
