"""Forward mode against reverse mode, for every operation and for programs."""

from dataclasses import replace

import numpy as np
import pytest
from op_graphs import graph_of

from fluxc.compiler.autodiff import jvp, pushforward, vjp
from fluxc.compiler.errors import NotDifferentiable
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.interp import evaluate
from fluxc.compiler.ir.types import TensorType, f64, u64
from fluxc.compiler.ir.verify import verify
from fluxc.compiler.ops import OPS, NoGradient, infer

DIFFERENTIABLE = [op for op in OPS.values() if callable(op.vjp)]


def run(graph, *arrays):
    return evaluate(verify(graph, infer), *arrays, ops=OPS)


def is_float(array):
    return np.asarray(array).dtype.kind == "f"


def check_modes(graph, arrays):
    """<u, J v> == <J^T u, v> for one random pair of directions."""
    rng = np.random.default_rng(3)
    directions = [rng.normal(size=a.shape) for a in arrays if is_float(a)]
    count = len(graph.results)
    (*_,) = moved = run(jvp(graph), *arrays, *directions)[count:]
    weights = [rng.normal(size=t.shape) for t in moved]
    gradients = run(vjp(graph), *arrays, *weights)[count:]
    forward = sum(np.vdot(u, t) for u, t in zip(weights, moved, strict=True))
    backward = sum(np.vdot(g, v) for g, v in zip(gradients, directions, strict=True))
    np.testing.assert_allclose(forward, backward, rtol=1e-10, atol=1e-12)
    return directions


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_forward_and_reverse_agree(op):
    """Also one derivative further, in both nestings."""
    arrays, attrs = op.sample(np.random.default_rng(0))
    graph = graph_of(op.name, arrays, attrs)
    if not arrays or not graph.results[0].type.dtype.is_float:
        return
    directions = check_modes(graph, arrays)
    check_modes(jvp(graph), (*arrays, *directions))
    weights = [np.ones(r.type.shape) for r in graph.results if r.type.dtype.is_float]
    check_modes(vjp(graph), (*arrays, *weights))


def test_the_tangent_of_a_product_is_two_products():
    """Nothing of the reverse rule remains but what the tangent needs."""
    b = Builder(infer)
    x, z = (b.param(TensorType(f64, (3,))) for _ in range(2))
    y = b.emit("mul", x, z)
    nodes = tuple(b.nodes)
    dx, dz = (b.param(TensorType(f64, (3,))) for _ in range(2))
    (dy,) = pushforward(b, nodes, {x: dx, z: dz}, [y])
    assert sorted(n.op for n in b.nodes[1:]) == ["add", "mul", "mul"]
    assert dy.type == y.type
    before = len(b.nodes)
    assert pushforward(b, nodes, {}, [y]) == [None]
    (partial,) = pushforward(b, nodes, {x: dx}, [y])
    assert [n.op for n in b.nodes[before:]] == ["mul"]
    assert partial is b.nodes[-1].output


def test_the_tangent_of_a_program_of_a_thousand_nodes_is_as_long():
    """The size of the forward program grows with the program's, not its square."""
    b = Builder(infer)
    v = x = b.param(TensorType(f64))
    for _ in range(1000):
        v = b.emit("sin", v)
    dx = b.param(TensorType(f64))
    pushforward(b, tuple(b.nodes), {x: dx}, [v])
    assert len(b.nodes) == 3000  # sin, cos and the product


def test_a_rule_that_is_not_linear_has_no_forward_mode():
    """A clipped cotangent cannot be transposed; it says so."""

    def unary(name, build, count):
        g = Builder(infer)
        params = [g.param(TensorType(f64, (2,))) for _ in range(count)]
        return g.graph(name, [build(g, params)])

    body = unary("f", lambda g, ps: g.emit("sin", ps[0]), 1)
    backward = unary("f_vjp", lambda g, ps: g.emit("tanh", ps[2]), 3)
    b = Builder(infer)
    x, dx = b.param(TensorType(f64, (2,))), b.param(TensorType(f64, (2,)))
    y = b.emit("custom_vjp", x, body=body, backward=backward)
    with pytest.raises(NotDifferentiable, match="not linear in the cotangent"):
        pushforward(b, tuple(b.nodes), {x: dx}, [y])


def test_operations_without_a_derivative_are_refused_on_the_path_only(monkeypatch):
    monkeypatch.setitem(OPS, "sin", replace(OPS["sin"], vjp=NoGradient("for this test")))
    b = Builder(infer)
    x, z, d = (b.param(TensorType(f64)) for _ in range(3))
    y = b.emit("sin", x)
    w = b.emit("mul", y, z)
    nodes = tuple(b.nodes)
    with pytest.raises(NotDifferentiable, match="cannot differentiate through sin: for this test"):
        pushforward(b, nodes, {x: d}, [w])
    assert pushforward(b, nodes, {z: d}, [w]) != [None]
    assert pushforward(b, nodes, {x: d}, [z]) == [None]


def test_bits_and_steps_carry_no_tangent():
    b = Builder(infer)
    x, d = b.param(TensorType(f64)), b.param(TensorType(f64))
    bits = b.emit("bitcast", x, dtype=u64)
    y = b.emit("add", b.emit("floor", x), b.emit("cast", bits, dtype=f64))
    assert pushforward(b, tuple(b.nodes), {x: d}, [y]) == [None]
