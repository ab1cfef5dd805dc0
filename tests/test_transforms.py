"""Forward mode, batches and matrices of derivatives, in each other and through compiled code."""

# ruff: noqa: PLW0108 (small functions with names)

import numpy as np
import pytest

import fluxc as fx
from dsl import run, trace
from fluxc import nn

RNG = np.random.default_rng(4)
A = RNG.normal(size=(4, 3))
X = RNG.normal(size=3)
DX = RNG.normal(size=3)
H = 1e-5


def field(x):
    """[3] -> [3], with mixed second derivatives."""
    return fx.sin(x) * x[::-1] + fx.exp(x[0] * x / 4)


def potential(x):
    """[3] -> []."""
    return (fx.tanh(x) * (x * x)[::-1]).sum() + fx.logsumexp(x)


def difference(f, x, d):
    return (f(x + H * d) - f(x - H * d)) / (2 * H)


def rows(f, *arrays):
    """f of one example after another: what vmap must give."""
    return np.stack([f(*one) for one in zip(*arrays, strict=True)])


# ---- forward mode


def test_jvp_is_the_directional_derivative():
    value, moved = run(lambda x, d: fx.jvp(field, (x,), (d,)), X, DX)
    np.testing.assert_allclose(value, run(field, X))
    np.testing.assert_allclose(moved, difference(lambda x: run(field, x), X, DX), rtol=1e-8)


def test_jvp_of_containers_modules_and_aux():
    """Tangents have the structure of the primals; those of a module are a dict by name."""
    model = nn.Chain(nn.Dense(3, 2, fx.tanh))

    def f(x):
        def g(m, p):
            return {"y": m(p["a"]).sum(), "n": (p["a"] * p["b"],)}, p["a"] + 1

        ones = {"layers.0.weight": fx.ones((2, 3)), "layers.0.bias": None}
        primals = (model, {"a": x, "b": x * 2})
        return fx.jvp(g, primals, (ones, {"a": None, "b": 1.0}), has_aux=True)

    x = X.astype(np.float32)
    entry, _ = trace(f, fx.f32[3], namespace={"model": model})
    value, moved, aux = entry.output_tree[1]
    assert value == moved == ("dict", {"y": "leaf", "n": ("tuple", ["leaf"])})
    assert aux == "leaf"
    _, _, moved_y, moved_n, _ = run(f, x, namespace={"model": model})
    np.testing.assert_allclose(moved_n, x, rtol=1e-6)

    def total(x):
        return fx.grad(lambda m: m(x).sum())(model)["layers.0.weight"].sum()

    want = run(total, x, namespace={"model": model})
    np.testing.assert_allclose(moved_y, want, rtol=1e-6)


def test_linearize_may_be_used_several_times():
    def f(x, d):
        value, push = fx.linearize(field, x)
        return value, push(d), push(2 * d), push(None)

    value, once, twice, zero = run(f, X, DX)
    np.testing.assert_allclose(value, run(field, X))
    np.testing.assert_allclose(twice, 2 * once)
    np.testing.assert_array_equal(zero, np.zeros(3))


def test_integers_move_with_nothing():
    def f(x):
        return fx.jvp(lambda t: (t * 2, fx.floor(t).astype(fx.i32)), (x,), (fx.ones(3),))[1]

    moved, none = run(f, X)
    np.testing.assert_array_equal(moved, [2, 2, 2])
    np.testing.assert_array_equal(none, [0, 0, 0])


# ---- batches


def test_vmap_is_a_loop():
    xs = RNG.normal(size=(5, 3))
    np.testing.assert_allclose(run(fx.vmap(field), xs), rows(lambda x: run(field, x), xs))


AXES = [
    ((0, 0), 0), ((1, 0), 1), ((-1, 1), -1), ((2, -2), 2), ((None, 1), 0), ((0, None), -2),
]  # fmt: skip


@pytest.mark.parametrize(("in_axes", "out_axes"), AXES)
def test_axes_of_batches(in_axes, out_axes):
    """Each operand's axis, and the result's, may stand anywhere."""
    one = RNG.normal(size=(5, 3, 4)), RNG.normal(size=(5, 4, 2))
    shared = [a is None for a in in_axes]
    examples = [x[0] if alone else x for x, alone in zip(one, shared, strict=True)]
    given = [
        x if axis is None else np.moveaxis(x, 0, axis)
        for x, axis in zip(examples, in_axes, strict=True)
    ]
    got = run(fx.vmap(lambda a, b: fx.sin(a @ b), in_axes, out_axes), *given)
    want = np.sin(np.matmul(*examples))
    np.testing.assert_allclose(np.moveaxis(got, out_axes, 0), want)


def test_containers_of_axes():
    """One entry stands for a whole branch; results may have axes of their own, or none."""

    def f(p, k, *, scale):
        return {"a": p["w"] * k * scale, "b": (p["v"][0] + k, fx.ones(2))}

    def g(w, v, k, scale):
        mapped = fx.vmap(f, ({"w": 1, "v": None}, 0), {"a": 1, "b": (0, None)})
        return mapped({"w": w, "v": [v]}, k, scale=scale)

    w, v, k, scale = RNG.normal(size=(3, 5)), RNG.normal(size=2), RNG.normal(size=5), np.ones(5) * 2
    a, b, ones = run(g, w, v, k, scale)
    np.testing.assert_allclose(a, w * k * 2)
    np.testing.assert_allclose(b, v + k[:, None])
    np.testing.assert_array_equal(ones, [1, 1])


def test_modules_are_shared_by_the_examples():
    model = nn.Chain(nn.Dense(3, 2, fx.tanh), nn.Dense(2, 1))
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    names = {"model": model}
    whole = run(lambda x: model(x), x, namespace=names)
    np.testing.assert_allclose(run(lambda x: fx.vmap(model)(x), x, namespace=names), whole)
    as_argument = run(lambda x: fx.vmap(lambda m, x: m(x))(model, x), x, namespace=names)
    np.testing.assert_allclose(as_argument, whole)
    entry, _ = trace(lambda x: fx.vmap(model)(x), fx.f32[5, 3], namespace=names)
    products = [n for n in entry.graph.nodes if n.op == "contract"]
    assert all(not n.attrs["batch_a"] for n in products), "weights are not repeated"


def test_examples_draw_random_numbers_of_their_own():
    got = run(fx.vmap(lambda x: x * 0 + fx.random.uniform((2,))), np.zeros((3, 2)))
    assert len(np.unique(got)) == 6
    again = run(lambda x: x * 0 + fx.random.uniform((3, 2)), np.zeros((3, 2)))
    np.testing.assert_array_equal(got, again)


def test_batches_of_symbolic_size():
    f = lambda x: fx.vmap(fx.vmap(lambda a, b: a * b.sum(), (0, None)), (0, 0))(x, x)
    x = RNG.normal(size=(2, 5))
    got = run(f, x, specs=[fx.f64["n", "m"]])
    np.testing.assert_allclose(got, x * x.sum(1, keepdims=True))


WRONG_BATCHES = {
    "sizes": (lambda x: fx.vmap(fx.add)(x, x[0]), fx.ShapeError, "mapped axes differ in size"),
    "nothing": (lambda x: fx.vmap(fx.sin, None)(x), fx.TraceError, "no argument is mapped"),
    "axis": (lambda x: fx.vmap(fx.sin, 2)(x), fx.ShapeError, "in_axes has axis 2"),
    "out": (lambda x: fx.vmap(fx.sin, 0, 3)(x), fx.ShapeError, "out_axes has axis 3"),
    "none": (lambda x: fx.vmap(fx.sin, 0, None)(x), fx.ShapeError, "differs between examples"),
    "tree": (lambda x: fx.vmap(fx.sin, (0, 0))(x), fx.TraceError, "in_axes does not fit"),
}


@pytest.mark.parametrize("case", WRONG_BATCHES)
def test_wrong_batches(case):
    f, kind, message = WRONG_BATCHES[case]
    with pytest.raises(kind, match=message) as caught:
        run(f, A)
    assert caught.value.loc.file == __file__


def test_state_is_not_assigned_in_a_batch():
    model = nn.BatchNorm(3)
    with pytest.raises(fx.TraceError, match="state cannot be assigned inside a function under"):
        run(lambda x: fx.vmap(model)(x), A[None].astype(np.float32), training=True)


# ---- matrices of derivatives


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_jacobian(mode):
    got = run(fx.jacobian(field, mode=mode), X)
    columns = [difference(lambda x: run(field, x), X, e) for e in np.eye(3)]
    np.testing.assert_allclose(got, np.stack(columns, -1), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_jacobian_of_containers(mode):
    """The result's structure outside, the arguments' inside; shapes S + T."""

    def f(p, k, z):
        return {"m": p["a"][:, None] * k, "s": (p["b"] ** 2 * k.sum() + z).sum()}, z

    def g(a, b, k, z):
        derive = fx.jacobian(f, argnums=(0, 1), has_aux=True, mode=mode)
        return derive({"a": a, "b": b}, k, z)

    a, b, k, z = RNG.normal(size=2), RNG.normal(size=(2, 2)), RNG.normal(size=3), np.ones(1)
    entry, _ = trace(g, fx.f64[2], fx.f64[2, 2], fx.f64[3], fx.f64[1])
    inner = ("tuple", [("dict", {"a": "leaf", "b": "leaf"}), "leaf"])
    assert entry.output_tree == ("tuple", [("dict", {"m": inner, "s": inner}), "leaf"])
    m_a, m_b, m_k, s_a, s_b, s_k, aux = run(g, a, b, k, z)
    np.testing.assert_allclose(m_a, np.einsum("ip,j->ijp", np.eye(2), k))
    np.testing.assert_array_equal(m_b, np.zeros((2, 3, 2, 2)))
    np.testing.assert_allclose(m_k, np.einsum("i,jq->ijq", a, np.eye(3)))
    np.testing.assert_array_equal(s_a, np.zeros(2))
    np.testing.assert_allclose(s_b, 2 * b * k.sum())
    np.testing.assert_allclose(s_k, np.full(3, (b**2).sum()))
    np.testing.assert_array_equal(aux, z)


def test_jacobian_of_a_module():
    model = nn.Dense(3, 2)
    x = X.astype(np.float32)
    names = {"model": model}
    bias, weight = (
        run(lambda x, n=n: fx.jacobian(lambda m: m(x))(model)[n], x, namespace=names)
        for n in ("bias", "weight")
    )
    np.testing.assert_array_equal(bias, np.eye(2))
    np.testing.assert_allclose(weight, np.einsum("op,i->opi", np.eye(2), x), rtol=1e-6)


def test_hessian():
    got = run(fx.hessian(potential), X)
    gradient = lambda x: run(fx.grad(potential), x)
    want = np.stack([difference(gradient, X, e) for e in np.eye(3)])
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(got, got.T)


def test_hessian_of_several_arguments():
    def f(x, y):
        return ((x @ y) ** 3).sum()

    def both(x, y):
        return fx.hessian(f, argnums=(0, 1))(x, y)

    x, y = RNG.normal(size=2), RNG.normal(size=(2, 2))
    (xx, xy, yx, yy) = run(both, x, y)
    assert [h.shape for h in (xx, xy, yx, yy)] == [(2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2, 2)]
    np.testing.assert_allclose(xy, np.moveaxis(yx, -1, 0))


def test_wrong_jacobians():
    with pytest.raises(fx.TraceError, match="mode='sideways'"):
        fx.jacobian(field, mode="sideways")
    for mode in ("forward", "reverse"):
        with pytest.raises(fx.DTypeError, match="result that is not float"):
            run(fx.jacobian(lambda x: fx.floor(x).astype(fx.i32), mode=mode), X)
    with pytest.raises(fx.ShapeError, match="another structure"):
        run(lambda x: fx.jvp(field, (x,), ((x, x),)), X)
    with pytest.raises(fx.TraceError, match="primals must be a tuple"):
        run(lambda x: fx.jvp(field, x, (x,)), X)
    with pytest.raises(fx.TraceError, match="a tangent for each primal"):
        run(lambda x: fx.jvp(field, (x,), (x, x)), X)


# ---- one inside another


def test_gradients_of_each_example():
    """vmap(grad) against the gradient of one example after another."""
    xs, ys = RNG.normal(size=(6, 3)), RNG.normal(size=6)
    loss = lambda w, x, y: (fx.tanh(x @ w) - y) ** 2
    got = run(fx.vmap(fx.grad(loss), (None, 0, 0)), X, xs, ys)
    want = rows(lambda x, y: run(fx.grad(loss), X, x, y), xs, ys)
    np.testing.assert_allclose(got, want)


def test_gradient_of_a_batch():
    """grad(vmap): the sum of the examples' gradients, and each argument's own."""
    xs = RNG.normal(size=(6, 3))
    total = lambda w, x: fx.vmap(lambda t: fx.tanh(t @ w) * t.sum())(x).sum()
    dw, dx = run(fx.grad(total, (0, 1)), X, xs)
    plain = lambda w, x: (fx.tanh(x @ w) * x.sum(1)).sum()
    np.testing.assert_allclose(dw, run(fx.grad(plain), X, xs))
    np.testing.assert_allclose(dx, run(fx.grad(plain, 1), X, xs))


def test_forward_over_reverse_and_reverse_over_forward():
    """Hessian times vector in four ways."""
    full = run(fx.hessian(potential), X) @ DX
    ways = {
        "jvp(grad)": lambda x, d: fx.jvp(fx.grad(potential), (x,), (d,))[1],
        "grad(jvp)": lambda x, d: fx.grad(lambda t: fx.jvp(potential, (t,), (d,))[1])(x),
        "grad(grad . d)": lambda x, d: fx.grad(lambda t: fx.grad(potential)(t) @ d)(x),
        "vjp(grad)": lambda x, d: fx.vjp(fx.grad(potential), x)[1](d)[0],
    }
    for name, f in ways.items():
        np.testing.assert_allclose(run(f, X, DX), full, rtol=1e-10, err_msg=name)


def test_forward_over_forward():
    twice = lambda x, d: fx.jvp(lambda t: fx.jvp(potential, (t,), (d,))[1], (x,), (d,))[1]
    np.testing.assert_allclose(run(twice, X, DX), DX @ run(fx.hessian(potential), X) @ DX)


def test_jvp_of_a_pullback():
    f = lambda x, d: fx.jvp(lambda t: fx.vjp(field, t)[1](d)[0], (x,), (d,))[1]
    pulled = lambda x: run(lambda t, d: fx.vjp(field, t)[1](d)[0], x, DX)
    np.testing.assert_allclose(run(f, X, DX), difference(pulled, X, DX), rtol=1e-7)


def test_batches_of_batches():
    xs, ys = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 3))
    table = fx.vmap(fx.vmap(lambda x, y: (x * y).sum(), (None, 0)), (0, None))
    np.testing.assert_allclose(run(table, xs, ys), xs @ ys.T)
    three = fx.vmap(fx.vmap(fx.vmap(fx.sin), 1, 1), 1, 1)
    cube = RNG.normal(size=(2, 3, 4))
    np.testing.assert_allclose(run(three, cube), np.sin(cube))


def test_second_derivatives_of_each_example():
    xs = RNG.normal(size=(4, 3))
    got = run(fx.vmap(fx.hessian(potential)), xs)
    np.testing.assert_allclose(got, rows(lambda x: run(fx.hessian(potential), x), xs))
    through = lambda x: fx.vmap(lambda t: fx.grad(potential)(t) @ t)(x).sum()
    d = RNG.normal(size=xs.shape)
    want = difference(lambda x: run(through, x), xs, d)
    np.testing.assert_allclose((run(fx.grad(through), xs) * d).sum(), want, rtol=1e-6)


def test_jvp_of_a_batch_and_a_batch_of_jvps():
    xs, ds = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
    inside = run(fx.vmap(lambda x, d: fx.jvp(field, (x,), (d,))[1]), xs, ds)
    outside = run(lambda x, d: fx.jvp(fx.vmap(field), (x,), (d,))[1], xs, ds)
    np.testing.assert_allclose(inside, outside)


@fx.custom_vjp
def tripled(x, k):
    return x * k


tripled.defvjp(lambda x, k: (x * k, k), lambda k, dy: (3 * dy * k, dy * 7))


def test_custom_rules_hold_in_every_mode():
    """The rule, not the body's derivative; a shared argument gets the sum over the examples."""
    xs, k = RNG.normal(size=(4, 3)), RNG.normal(size=3)
    np.testing.assert_allclose(
        run(lambda x, k: fx.jvp(tripled, (x, k), (x, None))[1], X, k), 3 * X * k
    )
    each = run(fx.vmap(fx.grad(lambda x, k: tripled(x, k).sum()), (0, None)), xs, k)
    np.testing.assert_allclose(each, np.tile(3 * k, (4, 1)))
    total = lambda x, k: fx.vmap(tripled, (0, None))(x, k).sum()
    dx, dk = run(fx.grad(total, (0, 1)), xs, k)
    np.testing.assert_allclose(dx, np.tile(3 * k, (4, 1)))
    np.testing.assert_allclose(dk, np.full(3, 28.0))
    scaled = lambda x, c: fx.vmap(lambda t: tripled(t, fx.array([1.0, 2.0, 3.0], fx.f64)) + c)(x)
    np.testing.assert_allclose(run(scaled, xs, k), xs * [1, 2, 3] + k)


def test_custom_rules_see_constants_from_around_every_region():
    def f(x):
        k = fx.array([1.0, 2.0, 3.0], fx.f64)
        own = fx.custom_vjp(lambda t: t * k, lambda _args, _y, dy: (dy * 5,))
        return fx.vmap(fx.vmap(own))(x[None]), fx.vmap(fx.grad(lambda t: own(t).sum()))(x)

    xs = RNG.normal(size=(2, 3))
    value, slope = run(f, xs)
    np.testing.assert_allclose(value, (xs * [1, 2, 3])[None])
    np.testing.assert_allclose(slope, np.full((2, 3), 5.0))


# ---- compiled


@pytest.mark.cc
def test_compiled_transformations():
    """A handful of nestings, as native code."""
    x = X.astype(np.float32)
    xs = RNG.normal(size=(4, 3)).astype(np.float32)

    def f(x, xs):
        return (
            fx.hessian(potential)(x),
            fx.diaghessian(potential)(x),
            fx.grad(lambda x: potential(fx.hook(fx.negative, x)))(x),
            fx.jacobian(field, mode="forward")(x),
            fx.vmap(fx.grad(potential))(xs),
            fx.jvp(fx.grad(potential), (x,), (xs[0],))[1],
            fx.vmap(fx.hessian(potential))(xs),
        )

    got = fx.jit(f)(x, xs)
    for one, want in zip(got, run(f, x, xs), strict=True):
        np.testing.assert_allclose(one, want, rtol=2e-4, atol=2e-5)
