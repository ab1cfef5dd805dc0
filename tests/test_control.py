"""Control flow: beside NumPy's loops, interpreted and compiled, nested, differentiated, refused."""

# ruff: noqa: ARG005, E501, PLW0108  (tables of functions: what they take is part of the case)

import itertools

import numpy as np
import pytest

import fluxc as fx
from dsl import first_values, run, trace
from fluxc.compiler import driver
from fluxc.compiler.autodiff import vjp
from fluxc.compiler.errors import FluxcError, NotDifferentiable, ShapeError, TraceError
from fluxc.compiler.ir.parser import parse_graph
from fluxc.compiler.ir.verify import verify
from fluxc.compiler.kernels.program import Choice, Loop, While, all_launches
from fluxc.compiler.ops import infer
from fluxc.compiler.passes import optimize
from fluxc.export import trace_exports
from fluxc.jit import build

pytestmark = pytest.mark.cc

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype("f4")
W = (RNG.normal(size=(3, 3)) / 2).astype("f4")
H = RNG.normal(size=3).astype("f4")


def tanh_cell(w):
    def cell(h, x):
        h = fx.tanh(h @ w + x)
        return h, (h * x).sum()

    return cell


def numpy_scan(w, h, xs, reverse=False):
    ys = np.zeros(len(xs))
    for t in reversed(range(len(xs))) if reverse else range(len(xs)):
        h = np.tanh(h @ w + xs[t])
        ys[t] = (h * xs[t]).sum()
    return h, ys


def loop(n, x):
    for i in range(n):
        x = np.sin(x) + i
    return x


def collatz(n):
    steps = 0
    while n != 1:
        n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
    return steps


def both(k, x):
    return x * 2 if k > 0 else np.sin(x)


def fx_collatz(n):
    halve = lambda n: fx.cond(n % 2 == 0, lambda: n // 2, lambda: 3 * n + 1)
    end = fx.while_loop(lambda c: c[0] != 1, lambda c: (halve(c[0]), c[1] + 1), (n, 0))
    return end[1]


def triangle(x, n):
    """A loop in a loop whose length is that of the outer step."""
    total = x * 0
    for i in range(n):
        for _ in range(i):
            total = total + np.cos(x)
    return total


def fx_triangle(n):
    def outer(x):
        row = lambda i, t: fx.fori_loop(0, i, lambda j, s: s + fx.cos(x), t)
        return fx.fori_loop(0, n, row, x * 0)

    return outer


# name: (function of tensors, the same in NumPy, arguments)
CASES = {
    "scan": (lambda w, h, x: fx.scan(tanh_cell(w), h, x), numpy_scan, (W, H, X)),
    "scan backwards": (
        lambda w, h, x: fx.scan(tanh_cell(w), h, x, reverse=True),
        lambda w, h, x: numpy_scan(w, h, x, reverse=True),
        (W, H, X),
    ),
    "scan over no rows": (lambda w, h, x: fx.scan(tanh_cell(w), h, x), numpy_scan, (W, H, X[:0])),
    "scan over one row": (lambda w, h, x: fx.scan(tanh_cell(w), h, x), numpy_scan, (W, H, X[:1])),
    "scan without rows": (
        lambda h: fx.scan(lambda c, _: (c * 2, c), h, length=4),
        lambda h: (h * 16, np.stack([h * 2**i for i in range(4)])),
        (H,),
    ),
    "scan that carries nothing": (
        lambda x: fx.scan(lambda c, r: (c, r.sum()), None, x)[1],
        lambda x: x.sum(1),
        (X,),
    ),
    "scan that stacks nothing": (
        lambda x: fx.scan(lambda c, r: (c + r, None), x[0] * 0, x)[0],
        lambda x: x.sum(0),
        (X,),
    ),
    "scan of a tree": (
        lambda x: fx.scan(
            lambda c, r: ({"a": c["b"], "b": (c["a"][0] + r["u"],)}, [r["v"], c["b"][0]]),
            {"a": (x[0],), "b": (x[1],)},
            {"u": x, "v": x[:, 0]},
        ),
        lambda x: tree_loop(x),
        (X,),
    ),
    "scan that swaps": (
        lambda a, b: fx.scan(lambda c, _: ((c[1], c[0]), c[0]), (a, b), length=3),
        lambda a, b: (b, a, np.stack([a, b, a])),
        (H, H * 2),
    ),
    "a scan in a scan": (
        lambda w, x: fx.scan(
            lambda c, r: fx.scan(lambda d, s: (fx.tanh(d @ w + s), d.sum()), c, x * r.sum()), x[0], x
        ),
        lambda w, x: nested_loop(w, x),
        (W, X),
    ),
    "fori_loop": (lambda x: fx.fori_loop(0, 5, lambda i, c: fx.sin(c) + i, x), lambda x: loop(5, x), (X,)),
    "fori_loop from 2": (
        lambda x: fx.fori_loop(2, 5, lambda i, c: c * i, x), lambda x: x * 24, (X,),
    ),
    "fori_loop over nothing": (lambda x: fx.fori_loop(5, 2, lambda i, c: c * i, x), lambda x: x, (X,)),
    "fori_loop to a tensor": (
        lambda n, x: fx.fori_loop(0, n, lambda i, c: fx.sin(c) + i, x), loop, (np.int32(3), X),
    ),
    "while_loop": (fx_collatz, collatz, (np.int32(27),)),
    "while_loop that ends at once": (fx_collatz, collatz, (np.int32(1),)),
    "a while_loop in a scan": (
        lambda n: fx.scan(lambda c, k: (c + 1, fx_collatz(k)), 0, n),
        lambda n: (len(n), np.array([collatz(k) for k in n])),
        (np.array([1, 7, 27, 6], np.int32),),
    ),
    "a loop as long as the step": (fx_triangle(5), lambda x: triangle(x, 5), (X,)),
    "cond, true": (
        lambda k, x: fx.cond(k > 0, lambda: x * 2, lambda: fx.sin(x)), both, (np.int32(1), X),
    ),
    "cond, false": (
        lambda k, x: fx.cond(k > 0, lambda y: y * 2, fx.sin, x), both, (np.int32(0), X),
    ),
    "cond of numbers and tensors": (
        lambda x: fx.cond(x.sum() > 1e9, lambda: (1, x.sum()), lambda: (2, 0.5)),
        lambda x: (2, 0.5),
        (X,),
    ),
    **{
        f"switch {k}": (
            lambda k, x: fx.switch(k, [lambda: x, lambda: x + 1, lambda: x * 3]),
            lambda k, x: [x, x + 1, x * 3][min(max(k, 0), 2)],
            (np.int64(k), X),
        )
        for k in (-7, 0, 1, 2, 2**40)
    },
    "a cond in a scan": (
        lambda x: fx.scan(
            lambda c, r: fx.cond(r.sum() > 0, lambda: (c + r, c), lambda: (c - r, r)), x[0], x
        ),
        lambda x: cond_loop(x),
        (X,),
    ),
    "a scan in a cond": (
        lambda k, w, h, x: fx.cond(k > 0, lambda: fx.scan(tanh_cell(w), h, x), lambda: (h, x[:, 0])),
        lambda k, w, h, x: numpy_scan(w, h, x) if k > 0 else (h, x[:, 0]),
        (np.int32(1), W, H, X),
    ),
    "rows and outputs that are constants": (
        lambda h: fx.scan(lambda c, r: (c + r, (h, r)), h, fx.ones((4, 3))),
        lambda h: (h + 4, np.stack([h] * 4), np.ones((4, 3))),
        (H,),
    ),
}  # fmt: skip


def tree_loop(x):
    a, b, vs, bs = x[0], x[1], [], []
    for r in x:
        vs.append(r[0])
        bs.append(b)
        a, b = b, a + r
    return a, b, np.stack(vs), np.stack(bs)


def nested_loop(w, x):
    c, rows = x[0], []
    for r in x:
        ys = []
        for s in x * r.sum():
            ys.append(c.sum())
            c = np.tanh(c @ w + s)
        rows.append(ys)
    return c, np.array(rows)


def cond_loop(x):
    c, ys = x[0], []
    for r in x:
        c, y = (c + r, c) if r.sum() > 0 else (c - r, r)
        ys.append(y)
    return c, np.stack(ys)


def leaves(tree):
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    return [x for part in tree for x in leaves(part)] if isinstance(tree, tuple | list) else [tree]


def assert_trees_close(got, want, **tolerance):
    for g, w in zip(leaves(got), leaves(want), strict=True):
        np.testing.assert_allclose(g, w, **({"rtol": 1e-4, "atol": 1e-5} | tolerance))


@pytest.mark.parametrize("name", CASES)
def test_control_flow_does_what_python_does(name):
    f, numpy, arguments = CASES[name]
    want = numpy(*arguments)
    assert_trees_close(run(f, *arguments), want)
    assert_trees_close(fx.jit(f)(*arguments), want)


@pytest.mark.parametrize("name", CASES)
def test_the_text_of_control_flow_reads_back(name):
    f, _, arguments = CASES[name]
    entry, _ = trace(f, *(fx_spec(a) for a in arguments))
    for graph in (entry.graph, optimize(entry.graph)):
        again = parse_graph(str(graph))
        assert str(again) == str(graph)
        verify(again, infer)


def fx_spec(array):
    return fx.types.TensorSpec(fx.types.as_dtype(np.asarray(array).dtype), np.shape(array))


def test_loops_of_symbolic_length_and_several_threads():
    t = fx.f32
    f = lambda w, h, x: fx.scan(lambda c, r: (fx.tanh(c @ w + r), c), h, x)
    entry, _ = trace(f, t[64, 64], t["b", 64], t["n", "b", 64])
    program = planned(entry)
    assert [type(s) for s in program.run if not hasattr(s, "places")] == [Loop]
    package = build(trace_exports([typed(f, t[64, 64], t["b", 64], t["n", "b", 64])], {}), "native")
    for threads, (n, b) in itertools.product((1, 2), ((0, 3), (1, 1), (7, 40))):
        w, h, x = ((RNG.normal(size=s) / 8).astype("f4") for s in ((64, 64), (b, 64), (n, b, 64)))
        got = package.Model(threads=threads).f(w, h, x)
        ys, c = [], h
        for row in x:
            ys.append(c)
            c = np.tanh(c @ w + row)
        assert_trees_close(got, (c, np.stack(ys) if ys else np.zeros((0, b, 64))))


def typed(f, *specs, **options):
    from dsl import Typed

    return Typed(f, specs, **options)


def planned(entry):
    from dataclasses import replace

    from fluxc.compiler.backends.llvm.target import native_target
    from fluxc.compiler.kernels.plan import plan

    return plan(replace(entry, graph=optimize(entry.graph)), native_target())


# ---- derivatives


def unrolled(w, h, x):
    total = h.sum() * 0
    for t in range(5):
        h = fx.tanh(h @ w + x[t])
        total = total + (h * x[t]).sum() * h.sum()
    return total


def scanned(w, h, x, **options):
    def cell(h, r):
        h = fx.tanh(h @ w + r)
        return h, (h * r).sum() * h.sum()

    return fx.scan(cell, h, x, **options)[1].sum()


@pytest.mark.parametrize("options", [{}, {"remat": True}], ids=["saved", "recomputed"])
def test_the_gradient_of_a_scan_is_that_of_the_unrolled_loop(options):
    gradient = lambda f: lambda w, h, x: fx.grad(f, (0, 1, 2))(w, h, x)
    want = fx.jit(gradient(unrolled))(W, H, X)
    got = gradient(lambda w, h, x: scanned(w, h, x, **options))
    assert_trees_close(run(got, W, H, X), want)
    assert_trees_close(fx.jit(got)(W, H, X), want)


def test_second_derivatives_and_forward_mode_of_a_scan():
    def curvature(f):
        return lambda w, h, x: fx.grad(lambda w: (fx.grad(f)(w, h, x) ** 2).sum())(w)

    want = fx.jit(curvature(unrolled))(W, H, X)
    assert_trees_close(fx.jit(curvature(scanned))(W, H, X), want, rtol=1e-3)
    push = lambda f: lambda w, h, x: fx.jvp(f, (w, h, x), (w, h * 2, x * x))
    assert_trees_close(fx.jit(push(scanned))(W, H, X), fx.jit(push(unrolled))(W, H, X))


def test_the_gradient_of_a_choice_is_that_of_the_side_taken():
    def f(k, x):
        y = fx.switch(k, [lambda: fx.sin(x), lambda: x * x * x, lambda: fx.exp(x) + x])
        return (y * y).sum()

    sides = [lambda x: np.sin(x) ** 2, lambda x: x**6, lambda x: (np.exp(x) + x) ** 2]
    gradient = fx.jit(lambda k, x: fx.grad(f, 1)(k, x))
    for k, side in enumerate(sides):
        x = X.astype(float)
        want = (side(x + 1e-6) - side(x - 1e-6)) / 2e-6
        assert_trees_close(gradient(np.int32(k), X), want, rtol=1e-3)


def test_a_while_loop_has_derivatives_forward_alone():
    grow = lambda x: fx.while_loop(lambda c: c.sum() < 50, lambda c: c * x, x)
    x = np.array([1.5, 2.0], "f4")
    push = fx.jit(lambda x: fx.jvp(grow, (x,), (fx.ones(2),)))
    y, dy = push(x)
    n = round(np.log(y[1]) / np.log(2.0))
    np.testing.assert_allclose(dy, n * x ** (n - 1), rtol=1e-4)
    with pytest.raises(NotDifferentiable, match=r"fx\.scan"):
        fx.jit(lambda x: fx.grad(lambda x: grow(x).sum())(x))(x)


def test_a_loop_over_integers_in_a_differentiated_function_is_no_matter():
    def f(x):
        n = fx.while_loop(lambda n: n < 5, lambda n: n + 2, 0)
        return (x * n).sum()

    assert_trees_close(fx.jit(lambda x: fx.grad(f)(x))(X), np.full_like(X, 6))


def test_what_the_way_back_reads_is_saved_by_one_loop():
    entry, _ = trace(lambda w, h, x: fx.value_and_grad(scanned)(w, h, x), *map(fx_spec, (W, H, X)))
    graph = optimize(entry.graph)
    assert [n.op for n in graph.nodes].count("scan") == 2
    back = [n for n in graph.nodes if n.op == "scan"][1]
    assert back.attrs["reverse"]
    assert "contract" in [n.op for n in graph.nodes], "the gradient of w is one product"
    assert len(list(all_launches(planned(entry).run))) < 20


def test_vmap_of_every_kind_of_control_flow():
    f = lambda x: (
        fx.cond(x.sum() > 0, lambda: x * 2, lambda: fx.sin(x)),
        fx.while_loop(lambda c: c[0] < x.sum(), lambda c: (c[0] + 1.0, c[1] * x), (-1.0, x)),
        fx.scan(lambda c, r: (c * r, c), x.sum(), x),
    )
    want = [run(f, row) for row in X]
    got = fx.jit(lambda x: fx.vmap(f)(x))(X)
    assert_trees_close(got, [np.stack(column) for column in zip(*want, strict=True)])


# ---- modules, states, random numbers


class Cell(fx.Module):
    def __init__(self, n):
        self.u = fx.Param((n, n), init=lambda rng, shape: rng.normal(size=shape) / 4)
        self.b = fx.Param(n, init=0.1)
        self.steps = fx.State((), init=0.0)

    def __call__(self, h, x):
        self.steps.assign(self.steps + 1) if fx.training() else None
        h = fx.tanh(h @ self.u + x + self.b)
        return h, h


def python_loop(f, init, xs):
    carry, ys = init, []
    for t in range(xs.shape[0]):
        carry, y = f(carry, xs[t])
        ys.append(y)
    return carry, fx.stack(ys)


def train(scan):
    cell = Cell(4)

    def step(x, y):
        _, hs = scan(cell, fx.zeros(4), x)
        return ((hs - y) ** 2).mean()

    made = typed(step, fx.f32[6, 4], fx.f32[6, 4], optimizer=fx.optim.Adam(1e-2))
    package = build(trace_exports([made], {"cell": cell}), "native")
    model = package.Model(seed=1)
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 6, 4)).astype("f4")
    return [float(model.f(x, y)) for _ in range(5)], model


def test_a_scan_over_a_cell_trains_like_the_unrolled_cell_and_counts_its_steps():
    (looped, model), (want, other) = train(fx.scan), train(python_loop)
    np.testing.assert_allclose(looped, want, rtol=1e-4)
    assert looped[-1] < looped[0]
    assert float(model.states["steps"]) == float(other.states["steps"]) == 30


def test_states_in_both_sides_of_a_choice():
    count = fx.State((), init=0.0)

    def step(k):
        fx.cond(k > 0, lambda: count.assign(count + 1), lambda: None)
        return count + 0.0

    made = typed(step, fx.i32[()], training=True)
    model = build(trace_exports([made], {"count": count}), "native").Model()
    assert [float(model.f(np.int32(k))) for k in (1, 0, 5, -1)] == [1, 1, 2, 2]


def test_each_step_draws_its_own_numbers():
    draw = lambda _: fx.random.uniform((2,))
    inner = lambda: fx.scan(lambda c, r: (c, draw(r)), None, length=4)[1]
    f = lambda: (
        fx.scan(lambda c, _: (c, inner()), None, length=3)[1],
        fx.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + draw(0)), (0, fx.zeros(2)))[
            1
        ],
    )
    entry, storages = trace(f)
    from dsl import call

    grid, total = call(entry, first_values(storages))
    assert len(np.unique(grid)) == grid.size == 24
    assert (total > 0).all()
    again, _ = call(entry, first_values(storages))
    np.testing.assert_array_equal(grid, again)


def test_weights_are_packed_ahead_also_for_a_loop():
    w = fx.Param((256, 256))
    f = lambda h, x: fx.scan(lambda c, r: (fx.tanh(c @ w + r), None), h, x)[0]
    spec = trace_exports([typed(f, fx.f32[64, 256], fx.f32["n", 64, 256])], {"w": w})
    program = planned(spec.entries[0])
    assert program.prepare
    assert any(isinstance(s, Loop) for s in program.run)
    names = [x.scheduled.kernel.name for x in all_launches(program.run)]
    assert not any(name.startswith("pack") for name in names)


def test_programs_hold_loops_not_copies_of_their_bodies():
    def deep(h, x):
        for _ in range(200):
            h = fx.sin(h) * 1.01 + x
        return h, None

    f = lambda h, x: fx.scan(deep, h, x)[0]
    sizes = []
    for n in (10, 1000):
        entry, _ = trace(f, fx.f32[3], fx.f32[n, 3])
        sizes.append(len(list(all_launches(planned(entry).run))))
    assert sizes[0] == sizes[1] < 10


def test_a_program_shows_its_loops():
    from fluxc.compiler.kernels.printer import print_program

    entry, _ = trace(lambda n: fx.scan(lambda c, k: (c, fx_collatz(k)), None, n)[1], fx.i32[4])
    program = planned(entry)
    text = print_program(program)
    assert all(word in text for word in ("for step.0 < 4", "while arena", "switch arena", "case 1"))
    (outer,) = (s for s in program.run if isinstance(s, Loop))
    (inner,) = (s for s in outer.body if isinstance(s, While))
    assert any(isinstance(s, Choice) for s in inner.body)


# ---- refusals

X2 = np.zeros((2, 3), "f4")
REFUSED = {
    "a carry of another shape": (
        lambda x: fx.scan(lambda c, r: ((c[0], c[1].sum()), None), (x, x), length=2),
        ShapeError, ["carry[1]", "f32[2, 3]", "f32[]"],
    ),
    "a carry of another dtype": (
        lambda x: fx.scan(lambda c, r: ({"n": c["n"] * 1.5}, None), {"n": 0}, x),
        FluxcError, ["carry['n']", "i32[]", "f32[]"],
    ),
    "a carry of another structure": (
        lambda x: fx.scan(lambda c, r: ((c, c), None), x[0], x),
        TraceError, ["structure at carry", "(a tensor, a tensor)"],
    ),
    "no pair": (lambda x: fx.scan(lambda c, r: c, x[0], x), TraceError, ["(carry, y)"]),
    "two lengths": (
        lambda x: fx.scan(lambda c, r: (c, None), 0, (x, x.T)), ShapeError, ["xs[1]", "length"],
    ),
    "no length": (lambda x: fx.scan(lambda c, r: (c, c), x), TraceError, ["length="]),
    "a test that is no scalar": (
        lambda x: fx.while_loop(lambda c: c > 0, lambda c: c - 1, x), ShapeError, [".any()"],
    ),
    "a loop that changes a shape": (
        lambda x: fx.fori_loop(0, 3, lambda i, c: c.sum(), x), ShapeError, ["carry", "f32[2, 3]"],
    ),
    "a condition that is no bool": (
        lambda x: fx.cond(x.sum(), lambda: x, lambda: x), FluxcError, ["bool", "x > 0"],
    ),
    "sides of two shapes": (
        lambda x: fx.cond(x.sum() > 0, lambda: x, lambda: x[0]), ShapeError, ["f32[2, 3]", "f32[3]"],
    ),
    "sides of two structures": (
        lambda x: fx.cond(x.sum() > 0, lambda: (x, x), lambda: x), TraceError, ["structure"],
    ),
    "branches of two dtypes": (
        lambda x: fx.switch(x.sum().astype("i32"), [lambda: x, lambda: x.astype("i32")]),
        FluxcError, ["dtype", "f32[2, 3]", "i32[2, 3]"],
    ),
    "an index that is no integer": (
        lambda x: fx.switch(x.sum(), [lambda: x, lambda: x]), FluxcError, ["integer"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_at_the_users_line(case):
    f, kind, words = REFUSED[case]
    with pytest.raises(kind) as caught:
        trace(f, fx_spec(X2))
    text = str(caught.value)
    assert "test_control.py" in text
    for word in words:
        assert word in text, text


def test_gradients_of_every_case_agree_with_finite_differences():
    """In float64, by the interpreter, after the passes as before."""
    for name, (f, _, arguments) in CASES.items():
        wide = [a.astype("f8") if a.dtype.kind == "f" else a for a in map(np.asarray, arguments)]
        if "while" in name or "tensor" in name or "as the step" in name:
            continue
        entry, _ = trace(f, *map(fx_spec, wide))
        check_gradient(entry.graph, wide, name)


def check_gradient(graph, arrays, name):
    from fluxc.compiler.ir.interp import evaluate
    from fluxc.compiler.ops import OPS

    rng = np.random.default_rng(7)
    is_float = lambda a: np.asarray(a).dtype.kind == "f"
    steps = [rng.normal(size=a.shape) if is_float(a) else None for a in arrays]

    def moved(by):
        xs = [a if d is None else a + by * d for a, d in zip(arrays, steps, strict=True)]
        return [y for y in evaluate(graph, *xs, ops=OPS) if is_float(y)]

    cotangents = [rng.normal(size=y.shape) for y in moved(0)]
    pairs = zip(moved(1e-6), moved(-1e-6), cotangents, strict=True)
    want = sum(np.vdot(c, (p - m) / 2e-6) for p, m, c in pairs)
    for program in (vjp(graph), optimize(vjp(graph))):
        gradients = evaluate(program, *arrays, *cotangents, ops=OPS)[len(graph.results) :]
        directions = [d for d in steps if d is not None]
        got = sum(np.vdot(g, d) for g, d in zip(gradients, directions, strict=True))
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7, err_msg=name)


def test_a_model_file_with_a_loop_prints_at_every_stage(tmp_path):
    file = tmp_path / "model.py"
    file.write_text(
        "import fluxc as fx\n\n@fx.export\ndef f(x: fx.f32['n', 3]):\n"
        "    return fx.scan(lambda c, r: (c + r, c), fx.zeros(3), x)\n"
    )
    spec = driver.load_model_file(file)
    for stage in driver.STAGES:
        if stage not in ("triton", "ptx"):
            assert driver.print_stage(spec, stage)


def test_one_name_with_two_ranges_in_two_entries_is_two_kernels():
    """Code for sizes that are multiples of 64 has no tails."""
    more = lambda x: x + 1
    specs = [
        trace_exports(
            [named(name, more, fx.types.TensorSpec(fx.types.as_dtype("f32"), (size,)))], {}
        )
        for name, size in (("even", fx.dim("n", multiple_of=64)), ("every", fx.dim("n")))
    ]
    from fluxc.compiler.ir.entry import ModelSpec

    package = build(ModelSpec(tuple(s.entries[0] for s in specs), ()), "native")
    x = RNG.normal(size=67).astype("f4")
    np.testing.assert_array_equal(package.Model().every(x), x + 1)
    np.testing.assert_array_equal(package.Model().even(x[:64]), x[:64] + 1)


def named(name, f, *specs):
    made = typed(f, *specs)
    made.name = name
    return made
