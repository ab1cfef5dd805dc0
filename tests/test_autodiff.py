"""Derivatives: every rule against finite differences, and the reverse program's promises."""

# ruff: noqa: E501  (a row of a table is one line)

from pathlib import Path

import numpy as np
import pytest
from op_graphs import carries_graphs, graph_of, type_of

from fluxc.compiler.autodiff import pullback, vjp
from fluxc.compiler.errors import NotDifferentiable
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.graph import Loc
from fluxc.compiler.ir.interp import evaluate
from fluxc.compiler.ir.types import TensorType, bf16, f32, f64, i8, i32, i64
from fluxc.compiler.ops import OPS, NoGradient, ZeroGradient, infer

DIFFERENTIABLE = [op for op in OPS.values() if callable(op.vjp)]


def run(graph, *arrays, sizes=None):
    return evaluate(graph, *arrays, ops=OPS, sizes=sizes)


def is_float(array):
    return np.asarray(array).dtype.kind == "f"


def check_gradient(graph, arrays, tolerance=1e-6, sizes=None):
    """Along one random direction: a wrong rule is wrong in almost every direction."""
    rng, eps = np.random.default_rng(7), 1e-6
    steps = [rng.normal(size=a.shape) if is_float(a) else None for a in arrays]

    def moved(by):
        xs = [a if d is None else a + by * d for a, d in zip(arrays, steps, strict=True)]
        ys = run(graph, *xs, sizes=sizes)
        return [y for y in ys if is_float(y)]

    cotangents = [rng.normal(size=y.shape) for y in moved(0)]
    differences = [(p - m) / (2 * eps) for p, m in zip(moved(eps), moved(-eps), strict=True)]
    gradients = run(vjp(graph), *arrays, *cotangents, sizes=sizes)[len(graph.results) :]
    directions = [d for d in steps if d is not None]
    got = sum(np.vdot(g, d) for g, d in zip(gradients, directions, strict=True))
    expected = sum(np.vdot(c, d) for c, d in zip(cotangents, differences, strict=True))
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=1e-8)
    return cotangents


@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.name)
def test_first_and_second_derivatives_agree_with_finite_differences(op):
    arrays, attrs = op.sample(np.random.default_rng(0))
    graph = graph_of(op.name, arrays, attrs)
    if not graph.results[0].type.dtype.is_float:
        assert not arrays
        return
    cotangents = check_gradient(graph, arrays)
    check_gradient(vjp(graph), (*arrays, *cotangents), tolerance=1e-5)


def test_a_wrong_rule_is_caught(monkeypatch):
    """The check above bites: with the factors of `mul` swapped it fails."""
    from dataclasses import replace

    swapped = lambda b, dy, _y, x, z: (b.emit("mul", dy, x), b.emit("mul", dy, z))
    monkeypatch.setitem(OPS, "mul", replace(OPS["mul"], vjp=swapped))
    arrays, attrs = OPS["mul"].sample(np.random.default_rng(0))
    with pytest.raises(AssertionError):
        check_gradient(graph_of("mul", arrays, attrs), arrays)


@pytest.mark.parametrize("op", [o for o in OPS.values() if isinstance(o.vjp, ZeroGradient)], ids=lambda op: op.name)  # fmt: skip
def test_step_functions_are_flat_where_they_are_smooth(op):
    if op.name == "stop_gradient":
        pytest.skip("its derivative is zero by decree")
    arrays, attrs = op.sample(np.random.default_rng(0))
    shifted = [a + 1e-6 if is_float(a) else a for a in arrays]
    np.testing.assert_array_equal(op.reference(*arrays, **attrs), op.reference(*shifted, **attrs))


# ---- kinks, ties and singular points: the table of docs/gradients.md

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize(
    ("op", "args", "expected"),
    [
        ("abs", [0.0], [0.0]),
        ("abs", [NAN], [NAN]),
        ("maximum", [2.0, 2.0], [0.5, 0.5]),
        ("minimum", [2.0, 2.0], [0.5, 0.5]),
        ("maximum", [INF, INF], [0.5, 0.5]),
        ("maximum", [1.0, 2.0], [0.0, 1.0]),
        ("minimum", [1.0, 2.0], [1.0, 0.0]),
        ("maximum", [NAN, 2.0], [1.0, 1.0]),
        ("sqrt", [0.0], [INF]),
        ("cbrt", [0.0], [INF]),
        ("log", [0.0], [INF]),
        ("pow", [0.0, 0.0], [0.0, 0.0]),
        ("pow", [0.0, 1.0], [1.0, 0.0]),
        ("pow", [0.0, 2.0], [0.0, 0.0]),
        ("pow", [3.0, 0.0], [0.0, np.log(3.0)]),
        ("pow", [-2.0, 3.0], [12.0, NAN]),
        ("pow", [0.0, 0.5], [INF, 0.0]),
        ("copysign", [0.0, -1.0], [0.0, 0.0]),
        ("copysign", [-3.0, -1.0], [1.0, 0.0]),
        ("mod", [-7.0, 2.0], [1.0, 4.0]),
        ("fmod", [-7.0, 2.0], [1.0, 3.0]),
        ("floor", [2.0], [0.0]),
        ("sign", [0.0], [0.0]),
        ("asin", [1.0], [INF]),
        ("acos", [1.0], [-INF]),
        ("ceil", [2.0], [0.0]),
        ("round", [2.5], [0.0]),
        ("trunc", [2.0], [0.0]),
        ("floor_div", [4.0, 2.0], [0.0, 0.0]),
        ("stop_gradient", [3.0], [0.0]),
    ],
)
def test_derivatives_at_kinks(op, args, expected):
    arrays = [np.array(a) for a in args]
    _, *got = run(vjp(graph_of(op, arrays, {})), *arrays, np.array(1.0))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_select_passes_to_the_side_taken():
    arrays = [np.array([True, False]), np.ones(2), np.full(2, INF)]
    _, dx, dz = run(vjp(graph_of("select", arrays, {})), *arrays, np.array([2.0, 3.0]))
    np.testing.assert_array_equal([dx, dz], [[2.0, 0.0], [0.0, 3.0]])


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
def test_second_derivative_of_powers_at_zero(exponent):
    graph = graph_of("pow", [np.zeros(()), np.zeros(())], {})
    twice = run(vjp(vjp(graph)), 0.0, exponent, 1.0, 0.0, 1.0, 0.0)
    np.testing.assert_allclose(twice[3], 2.0 if exponent == 2.0 else 0.0)


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("max", [1.0, 3.0, 3.0], [0.0, 0.5, 0.5]),
        ("min", [2.0, 2.0, 2.0], [1 / 3] * 3),
        ("max", [1.0, NAN, 3.0], [1 / 3] * 3),
        ("prod", [2.0, 0.0, 4.0], [0.0, 8.0, 0.0]),
        ("prod", [0.0, 0.0, 4.0], [0.0, 0.0, 0.0]),
    ],
)
def test_reductions_share_ties_and_bear_zeros(name, x, expected):
    array = np.array(x)
    _, got = run(vjp(graph_of(f"reduce_{name}", [array], {"axes": (0,)})), array, np.array(1.0))
    np.testing.assert_allclose(got, expected)


def test_second_derivative_of_a_product_with_two_zeros():
    """d2(abc)/da db = c, also at a = b = 0."""
    x = np.array([0.0, 0.0, 5.0])
    once = vjp(graph_of("reduce_prod", [x], {"axes": (0,)}))
    row = [run(vjp(once), x, 1.0, 0.0, np.eye(3)[i])[2] for i in range(3)]
    np.testing.assert_allclose(row, [[0, 5, 0], [5, 0, 0], [0, 0, 0]])


def test_a_reduction_over_several_axes_of_a_product():
    x = np.random.default_rng(0).normal(size=(3, 2, 5))
    x[1, 0, 2] = 0.0
    graph = graph_of("reduce_prod", [x], {"axes": (0, 2)})
    dy = check_gradient(graph, [x])
    check_gradient(vjp(graph), [x, *dy])


def test_indices_out_of_range_have_gradients_of_what_was_computed():
    """gather clamps, so the clamped element gets the cotangent; scatter drops, so the dropped
    update gets zero."""
    x, indices = np.arange(3.0), np.array([[-1], [9], [1]], np.int8)
    _, dx = run(
        vjp(graph_of("gather", [x, indices], {"batch": 0})), x, indices, np.array([1.0, 2.0, 4.0])
    )
    np.testing.assert_array_equal(dx, [1.0, 4.0, 2.0])
    graph = graph_of("scatter", [x, indices, x], {"batch": 0, "reduce": "add"})
    _, dx, updates = run(vjp(graph), x, indices, x, np.array([1.0, 2.0, 4.0]))
    np.testing.assert_array_equal(dx, [1.0, 2.0, 4.0])
    np.testing.assert_array_equal(updates, [0.0, 0.0, 2.0])


def test_small_index_dtypes_reach_no_further_than_they_can():
    """The clamp is done in i64: 1000 is no i8."""
    x, indices = np.arange(1000.0), np.array([[127], [-128]], np.int8)
    _, dx = run(vjp(graph_of("gather", [x, indices], {"batch": 0})), x, indices, np.ones(2))
    assert dx[127] == dx[0] == 1.0
    assert dx.sum() == 2.0


def test_the_operation_that_the_documentation_adds_is_right():
    text = (Path(__file__).parent.parent / "docs" / "add-an-op.md").read_text()
    before = set(OPS)
    exec(text.split("```python\n")[1].split("```")[0], {})  # noqa: S102
    (name,) = set(OPS) - before
    try:
        arrays, attrs = OPS[name].sample(np.random.default_rng(0))
        graph = graph_of(name, arrays, attrs)
        dy = check_gradient(graph, arrays)
        check_gradient(vjp(graph), (*arrays, *dy), tolerance=1e-5)
    finally:
        del OPS[name]


# ---- symbolic sizes


def symbolic(op, *shapes, dtypes=None, **attrs):
    b = Builder(infer)
    types = dtypes or [f64] * len(shapes)
    params = [b.param(TensorType(d, s)) for d, s in zip(types, shapes, strict=True)]
    return b.graph(op, b.emit_all(op, *params, **attrs))


N, M = dim("n"), dim("m", max=9)
SYMBOLIC = [
    symbolic("slice", (N,), starts=(0,), limits=(N,), steps=(2,)),
    symbolic("slice", (N, 4), starts=(0, 1), limits=(N, 4), steps=(3, 2)),
    symbolic("pad", (N, M), (), low=(1, 0), high=(0, 2), interior=(1, 2)),
    symbolic("pad", (N,), (), low=(0,), high=(0,), interior=(1,)),
    symbolic("concatenate", (N, 2), (3, 2), (N, 2), axis=0),
    symbolic("reshape", (N, 2, M), shape=(2 * N, M)),
    symbolic("broadcast", (N,), shape=(M, N), axes=(1,)),
    symbolic("reduce_sum", (N, M), axes=(0,)),
    symbolic("reduce_max", (N, M), axes=(1,)),
    symbolic("reduce_prod", (N, M), axes=(1,)),
    symbolic("reduce_prod", (N,), axes=(0,)),
    symbolic("contract", (N, 3, M), (M, 2), batch_a=(), batch_b=(), over_a=(2,), over_b=(0,)),
    symbolic("gather", (N, M), (3, 1), dtypes=[f64, i64], batch=0),
    symbolic("gather", (N, M), (3, 2), dtypes=[f64, i64], batch=0),
    *(
        symbolic("scatter", (N, M), (3, 1), (3, M), dtypes=[f64, i64, f64], batch=0, reduce=r)
        for r in ("set", "add", "mul", "max", "min")
    ),
    symbolic("scatter", (N, M), (3, 2), (3,), dtypes=[f64, i64, f64], batch=0, reduce="mul"),
    *(
        symbolic("cumulative", (N, M), axis=a, reduce=r, reverse=v)
        for r in ("sum", "prod", "max", "min")
        for a, v in ((0, False), (1, True))
    ),
    symbolic("recurrence", (N, M), (N, M), axis=0, reverse=True),
    symbolic("dynamic_update", (N, 5), (N, 2), (), (), dtypes=[f64, f64, i64, i64]),
    symbolic("dynamic_slice", (N, 5), (), (), dtypes=[f64, i64, i64], sizes=(N, 2)),
]


@pytest.mark.parametrize("sizes", [{"n": 0, "m": 0}, {"n": 1, "m": 1}, {"n": 1, "m": 5}, {"n": 5, "m": 3}, {"n": 6, "m": 1}], ids=str)  # fmt: skip
@pytest.mark.parametrize("graph", SYMBOLIC, ids=[f"{g.name}-{i}" for i, g in enumerate(SYMBOLIC)])
def test_gradients_hold_for_every_size(graph, sizes):
    from fluxc.compiler.ir.dims import evaluate_size

    rng = np.random.default_rng(0)
    arrays = []
    for p in graph.params:
        shape = [evaluate_size(s, sizes) for s in p.type.shape]
        floats = p.type.dtype.is_float
        arrays.append(rng.normal(size=shape) if floats else rng.integers(-1, 6, shape))
    dy = check_gradient(graph, arrays, sizes=sizes)
    check_gradient(vjp(graph), (*arrays, *dy), tolerance=1e-5, sizes=sizes)


# ---- the reverse program


def chain(b, x, *ops):
    for op in ops:
        x = b.emit(op, x)
    return x


def test_values_off_the_path_get_no_nodes():
    b = Builder(infer)
    x, w = b.param(TensorType(f32, (3,))), b.param(TensorType(f32, (3,)))
    aside = chain(b, x, "exp", "sin", "cos")  # leads nowhere
    y = b.emit("mul", chain(b, x, "tanh"), w)
    forward = tuple(b.nodes)
    (dw,) = pullback(b, forward, [y], [b.param(y.type)], [w])
    assert [n.op for n in b.nodes[len(forward) :]] == ["mul"]
    assert dw is b.nodes[-1].output
    assert aside


def test_a_full_chain_costs_what_its_rules_cost():
    b = Builder(infer)
    x = b.param(TensorType(f32, (3,)))
    y = chain(b, x, "exp", "neg")
    forward = tuple(b.nodes)
    pullback(b, forward, [y], [b.param(y.type)], [x])
    assert [n.op for n in b.nodes[len(forward) :]] == ["neg", "mul"]


def test_cotangents_of_several_uses_add_up():
    b = Builder(infer)
    x = b.param(TensorType(f64, ()))
    y = b.emit("add", b.emit("mul", x, x), b.emit("sin", x))
    _, dx = run(vjp(b.graph("f", [y])), 0.7, 1.0)
    np.testing.assert_allclose(dx, 1.4 + np.cos(0.7))


def test_no_path_is_none_and_vjp_makes_it_zero():
    b = Builder(infer)
    x, z = b.param(TensorType(f64, (2,))), b.param(TensorType(f64, (2,)))
    y = b.emit("mul", x, b.emit("stop_gradient", z))
    dy = b.param(y.type)
    dx, dz = pullback(b, tuple(b.nodes), [y], [dy], [x, z])
    assert dx is not None
    assert dz is None
    b = Builder(infer)
    x, z = b.param(TensorType(f64, (2,))), b.param(TensorType(f64, (2,)))
    graph = b.graph("f", [b.emit("add", x, b.emit("floor", z))])
    _, dx, dz = run(vjp(graph), np.ones(2), np.ones(2), np.ones(2))
    np.testing.assert_array_equal([dx, dz], [[1, 1], [0, 0]])


def test_absent_cotangents_count_as_zero():
    b = Builder(infer)
    x = b.param(TensorType(f64, ()))
    y, z = b.emit("exp", x), b.emit("sin", x)
    forward, dy = tuple(b.nodes), b.param(y.type)
    (dx,) = pullback(b, forward, [y, z], [dy, None], [x])
    assert [n.op for n in b.nodes[len(forward) :]] == ["mul"]
    (dx,) = pullback(b, forward, [y, z], [None, None], [x])
    assert dx is None


def test_the_output_itself_and_values_on_the_way_may_be_asked_for():
    b = Builder(infer)
    x = b.param(TensorType(f64, ()))
    h = b.emit("exp", x)
    y = b.emit("sin", h)
    dy = b.param(y.type)
    found = pullback(b, tuple(b.nodes), [y], [dy], [y, h, x])
    assert found[0] is dy
    _, dh, dx = run(b.graph("f", found), 0.3, 2.0)
    np.testing.assert_allclose(
        [dh, dx], [2 * np.cos(np.exp(0.3)), 2 * np.cos(np.exp(0.3)) * np.exp(0.3)]
    )


def test_an_output_that_is_a_parameter_passes_its_cotangent():
    b = Builder(infer)
    x = b.param(TensorType(f64, (2,)))
    _, _, dx = run(
        vjp(b.graph("f", [x, x])), np.zeros(2), np.array([1.0, 2.0]), np.array([3.0, 4.0])
    )
    np.testing.assert_array_equal(dx, [4.0, 6.0])


def test_integers_and_bools_are_never_active():
    b = Builder(infer)
    x, i = b.param(TensorType(f32, (3,))), b.param(TensorType(i32, (3,)))
    y = b.emit("mul", x, b.emit("cast", b.emit("cast", x, dtype=i32), dtype=f32))
    z = b.emit("mul", y, b.emit("cast", i, dtype=f32))
    forward, dz = tuple(b.nodes), b.param(z.type)
    dx, di = pullback(b, forward, [z], [dz], [x, i])
    assert di is None
    assert [n.op for n in b.nodes[len(forward) :]] == ["mul", "mul"]
    assert len(vjp(b.graph("g", [i])).params) == len(b.params)  # none for an integer result
    assert dx is not None


def test_backward_nodes_carry_the_forward_line():
    b = Builder(infer)
    x = b.param(TensorType(f32, (3,)))
    places = [Loc("model.py", 3, "layers.0"), Loc("model.py", 4)]
    with b.at(places[0]):
        h = b.emit("exp", x)
    with b.at(places[1]):
        y = b.emit("tanh", h)
    forward = tuple(b.nodes)
    pullback(b, forward, [y], [b.param(y.type)], [x])
    backward = b.nodes[len(forward) :]
    assert [n.loc for n in backward] == [places[1]] * (len(backward) - 1) + [places[0]]


def test_no_derivative_is_an_error_that_names_the_line():
    b = Builder(infer)
    x = b.param(TensorType(f32, (3,)))
    with b.at(Loc("model.py", 12, "layers.2")):
        y = b.emit("bitcast", x, dtype=f32)
    with pytest.raises(NotDifferentiable) as caught:
        pullback(b, tuple(b.nodes), [y], [b.param(y.type)], [x])
    reason = OPS["bitcast"].vjp
    assert isinstance(reason, NoGradient)
    assert str(caught.value) == (
        f"model.py:12 (in layers.2): cannot differentiate through bitcast: {reason.reason}"
    )


def test_no_derivative_off_the_path_is_no_error():
    b = Builder(infer)
    x, w = b.param(TensorType(f32, (3,))), b.param(TensorType(f32, (3,)))
    y = b.emit("mul", b.emit("bitcast", x, dtype=f32), w)
    (dw,) = pullback(b, tuple(b.nodes), [y], [b.param(y.type)], [w])
    assert dw is not None


def test_third_derivative():
    b = Builder(infer)
    x = b.param(TensorType(f64, ()))
    values = [b.emit("sin", x)]
    one = b.emit("full", value=1.0, dtype=f64, shape=())
    for _ in range(3):
        (dx,) = pullback(b, tuple(b.nodes), [values[-1]], [one], [x])
        values.append(dx)
    got = run(b.graph("f", values), 0.4)
    np.testing.assert_allclose(got, [np.sin(0.4), np.cos(0.4), -np.sin(0.4), -np.cos(0.4)])


def test_cotangents_have_the_dtype_of_their_value():
    b = Builder(infer)
    x = b.param(TensorType(bf16, (4,)))
    y = b.emit("reduce_sum", b.emit("cast", b.emit("exp", x), dtype=f32), axes=(0,))
    gradient = vjp(b.graph("f", [y])).results[-1]
    assert str(gradient.type) == "bf16[4]"


@pytest.mark.parametrize("op", [o for o in OPS.values() if callable(o.vjp)], ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", [f32, bf16], ids=str)
def test_rules_keep_every_float_dtype(op, dtype):
    """A rule that makes a number in the wrong dtype cannot be built."""
    if carries_graphs(op):
        pytest.skip("its graphs have dtypes of their own")
    arrays, attrs = op.sample(np.random.default_rng(0))
    b = Builder(infer)
    types = [type_of(a) for a in arrays]
    params = [b.param(t.with_dtype(dtype) if t.dtype.is_float else t) for t in types]
    graph = b.graph(op.name, b.emit_all(op.name, *params, **attrs))
    once = vjp(graph)
    floats = [p.type for p in once.params if p.type.dtype.is_float]
    assert [v.type for v in vjp(once).results[len(once.results) :]] == floats


# ---- custom_vjp


def clipped_body():
    """(x, k) -> (x*x, k): a float and an integer in, a float and an integer out."""
    type, whole = TensorType(f64, (2,)), TensorType(i8, ())
    body = Builder(infer)
    x, k = body.param(type, "x"), body.param(whole, "k")
    graph = body.graph("square", [body.emit("mul", x, x), k])
    back = Builder(infer)
    dy = [back.param(t) for t in (type, whole, type, whole, type)][-1]
    limit = back.emit("full", value=0.1, dtype=f64, shape=(2,))
    return graph, back.graph("square_back", [back.emit("minimum", dy, limit)])


def test_a_custom_rule_is_used_and_integers_have_no_cotangents():
    body, backward = clipped_body()
    b = Builder(infer)
    x, k = (b.param(p.type) for p in body.params)
    graph = b.graph("f", b.emit_all("custom_vjp", x, k, body=body, backward=backward))
    y, _, dx = run(vjp(graph), np.array([3.0, 4.0]), np.int8(1), np.array([0.05, 7.0]))
    np.testing.assert_array_equal(y, [9.0, 16.0])
    np.testing.assert_array_equal(dx, [0.05, 0.1])


def test_a_custom_rule_that_does_not_fit_is_refused():
    body, backward = clipped_body()
    b = Builder(infer)
    x, k = (b.param(p.type) for p in body.params)
    with pytest.raises(ValueError, match="custom_vjp: backward's parameters") as caught:
        b.emit_all("custom_vjp", x, k, body=body, backward=body)
    assert "f64[2], i8[], f64[2], i8[], f64[2]" in str(caught.value)
    with pytest.raises(ValueError, match="custom_vjp: body's parameters"):
        b.emit_all("custom_vjp", x, body=body, backward=backward)
