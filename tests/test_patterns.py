"""Layout by patterns of axes, and sums of products by names: against NumPy."""

import itertools

import numpy as np
import pytest

import fluxc as fx
from dsl import run, trace
from fluxc.compiler.ir.types import f64

RNG = np.random.default_rng(8)
X = RNG.normal(size=(2, 6, 4, 3))

REARRANGED = {
    "b h w c -> b c h w": ({}, X.transpose(0, 3, 1, 2)),
    "b h w c -> b (c h w)": ({}, X.transpose(0, 3, 1, 2).reshape(2, -1)),
    "b (h p) (w q) c -> b h w (p q c)": (
        {"p": 3, "q": 2},
        X.reshape(2, 2, 3, 2, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 2, 2, 18),
    ),
    "(p b) ... -> ... p b": ({"p": 2}, X.reshape(2, 1, 6, 4, 3).transpose(2, 3, 4, 0, 1)),
    "b ... c -> (b c) (...)": ({}, X.transpose(0, 3, 1, 2).reshape(6, 24)),
    "b h w c -> 1 b h (w c) 1": ({}, X.reshape(1, 2, 6, 12, 1)),
    "... -> (...)": ({}, X.ravel()),
    "b h w (c 1) -> c b h w": ({}, X.transpose(3, 0, 1, 2)),
}


@pytest.mark.parametrize("pattern", REARRANGED)
def test_rearrange(pattern):
    sizes, want = REARRANGED[pattern]
    np.testing.assert_array_equal(run(lambda x: fx.rearrange(x, pattern, **sizes), X), want)


def test_rearrange_there_and_back():
    def both(x):
        y = fx.rearrange(x, "b (h p) w c -> (b p) c w h", p=3)
        return fx.rearrange(y, "(b p) c w h -> b (h p) w c", p=3)

    np.testing.assert_array_equal(run(both, X), X)


def test_rearrange_a_list_and_symbolic_sizes():
    f = lambda x: fx.rearrange([x, x * 2], "k b (h p) -> b h (k p)", p=3)
    x = RNG.normal(size=(5, 6))
    want = np.stack([x, 2 * x]).reshape(2, 5, 2, 3).transpose(1, 2, 0, 3).reshape(5, 2, 6)
    np.testing.assert_array_equal(run(f, x, specs=[fx.f64["n", 6]]), want)
    entry, _ = trace(lambda x: fx.rearrange(x, "n (m k) -> m (n k)", k=2), fx.f32["n", "2*m"])
    assert str(entry.graph.results[0].type) == "f32[m, 2*n]"


REDUCED = {
    ("b c h w -> b c", "mean"): ({}, X.mean((2, 3))),
    ("b (h 2) (w 2) c -> b h w c", "max"): ({}, X.reshape(2, 3, 2, 2, 2, 3).max((2, 4))),
    ("b (h p) ... -> h ...", "sum"): ({"p": 2}, X.reshape(2, 3, 2, 4, 3).sum((0, 2))),
    ("... c -> c ()", "min"): ({}, X.min((0, 1, 2))[:, None]),
    ("b h w c -> ", "prod"): ({}, X.prod()),
    ("b h w c -> b 1 1 c", "logsumexp"): ({}, np.log(np.exp(X).sum((1, 2), keepdims=True))),
}


@pytest.mark.parametrize(("pattern", "how"), REDUCED)
def test_reduce(pattern, how):
    sizes, want = REDUCED[pattern, how]
    got = run(lambda x: fx.reduce(x, pattern, how, **sizes), X)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_reduce_by_a_function():
    got = run(lambda x: fx.reduce(x, "b h w c -> b c", fx.var), X)
    np.testing.assert_allclose(got, X.var((1, 2)))


def test_repeat():
    x = X[0, 0]
    by = {
        "h w -> h w c": ({"c": 2}, np.repeat(x[..., None], 2, 2)),
        "h w -> (h r) w": ({"r": 3}, np.repeat(x, 3, 0)),
        "h w -> (r h) w": ({"r": 3}, np.tile(x, (3, 1))),
        "h w -> 2 h w 2": ({}, np.broadcast_to(x[None, ..., None], (2, 4, 3, 2))),
    }
    for pattern, (sizes, want) in by.items():
        got = run(lambda x, p=pattern, s=sizes: fx.repeat(x, p, **s), x)
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(run(lambda x: fx.repeat(x, 2, axis=1), x), np.repeat(x, 2, 1))


WRONG = {
    "lost": (lambda x: fx.rearrange(x, "b h w c -> b h w"), "the right side lacks c"),
    "new": (lambda x: fx.rearrange(x, "b h w c -> b h w c d"), "the left side lacks d"),
    "rank": (lambda x: fx.rearrange(x, "b h w -> b h w"), "the left side has 3 axes"),
    "split": (lambda x: fx.rearrange(x, "b (h p) w c -> b h p w c", p=4), "does not split"),
    "sizes": (lambda x: fx.rearrange(x, "b (h p) w c -> b h p w c"), "are not known"),
    "size": (lambda x: fx.rearrange(x, "b h w c -> c w h b", c=4), "has another size"),
    "twice": (lambda x: fx.rearrange(x, "b h h c -> b c h h"), "h comes twice"),
    "unknown": (lambda x: fx.rearrange(x, "b h w c -> c w h b", z=4), "no axis 'z'"),
    "dots": (lambda x: fx.rearrange(x, "b h w c -> ... b h w c"), "the left side lacks ..."),
    "how": (lambda x: fx.reduce(x, "b h w c -> b", "median"), "reduce by 'median'"),
    "r": (lambda x: fx.repeat(x, "b h w c -> b h w c r"), "the size of r is not known"),
    "text": (lambda x: fx.rearrange(x, "b h w c => c"), "cannot read the pattern"),
    "open": (lambda x: fx.rearrange(x, "b (h w c -> c"), "cannot read the pattern"),
    "nest": (lambda x: fx.rearrange(x, "b ((h w) c) -> c"), "cannot read the pattern"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_patterns(case):
    f, message = WRONG[case]
    with pytest.raises(fx.FluxcError, match=message) as caught:
        run(f, X)
    assert caught.value.loc.file == __file__


def test_a_caret_shows_where_a_pattern_cannot_be_read():
    with pytest.raises(fx.FluxcError) as caught:
        run(lambda x: fx.rearrange(x, "a b @ -> c"), X)
    _, text, caret = str(caught.value).split("got:")[1].splitlines()[:3]
    assert text[caret.index("^")] == "@"


# ---- einsum

SUMS = [
    "ij,jk->ik", "ij,jk", "ij->ji", "ij->", "ii", "ii->i", "iij->j", "iji->ij", "i,i", "i,j->ij",
    "i,j->ji", "ij,ij->ij", "ij,ij->i", "bij,bjk->bik", "bij,jk->bik", "bqhd,bkhd->bhqk",
    "bhqk,bkhd->bqhd", "...ij,...jk->...ik", "...i,i...->...", "...ii->...i", "...->...",
    "i...->...",
    "ij,jk,kl->il", "ij,jk,kl,l->i", "a,b,c->cab", "i->", ",i->i", "ij,i,j", "iijj->ij", "iii->i",
    "ab,abc,ac->bc", "...,...", "...a,...b->...ab", "bj,cj->bc", "ijk,kji->", "zA,Az->",
]  # fmt: skip


def operands_of(subscripts, rng):
    sizes = {n: 2 + i for i, n in enumerate(sorted(set(subscripts) - set(" ->,.")))}
    for term in subscripts.split("->")[0].split(","):
        before, _, after = term.partition("...")
        dots = (3, 2) if "..." in term else ()
        shape = (*(sizes[n] for n in before), *dots, *(sizes[n] for n in after))
        yield rng.normal(size=shape)


@pytest.mark.parametrize("subscripts", SUMS)
def test_einsum(subscripts):
    given = list(operands_of(subscripts, RNG))
    got = run(lambda *xs: fx.einsum(subscripts, *xs), *given)
    want = np.einsum(subscripts, *given)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_random_einsums():
    """Letters, diagonals and outputs at random."""
    rng = np.random.default_rng(0)
    for _ in range(150):
        count = int(rng.integers(1, 4))
        terms = ["".join(rng.choice(list("abcd"), int(rng.integers(0, 5)))) for _ in range(count)]
        letters = sorted(set("".join(terms)))
        chosen = "".join(rng.permutation([n for n in letters if rng.random() < 0.5]))
        subscripts = ",".join(terms) + ("->" + chosen if rng.random() < 0.8 else "")
        given = list(operands_of(subscripts, rng))
        got = run(lambda *xs, s=subscripts: fx.einsum(s, *xs), *given)
        want = np.einsum(subscripts, *given)
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11, err_msg=subscripts)


def test_axes_of_size_one_stretch():
    a, b = RNG.normal(size=(1, 3)), RNG.normal(size=(4, 3))
    np.testing.assert_allclose(run(lambda x, y: fx.einsum("ij,ij->i", x, y), a, b), (a * b).sum(1))
    c = RNG.normal(size=(2, 1, 3))
    got = run(lambda x, y: fx.einsum("...j,...j->...", x, y), c, b)
    np.testing.assert_allclose(got, (c * b).sum(-1))


def test_einsum_of_symbolic_sizes_is_one_product():
    f = lambda q, k: fx.einsum("bqhd,bkhd->bhqk", q, k)
    entry, _ = trace(f, fx.f32["b", "q", 4, 8], fx.f32["b", "k", 4, 8])
    assert [n.op for n in entry.graph.nodes] == ["contract"]
    assert str(entry.graph.results[0].type) == "f32[b, 4, q, k]"
    entry, _ = trace(lambda x: fx.einsum("ii", x), fx.f32["n", "n"])
    assert str(entry.graph.results[0].type) == "f32[]"


def test_the_order_of_products_is_the_cheap_one():
    entry, _ = trace(
        lambda a, b, c: fx.einsum("ij,jk,k->i", a, b, c), fx.f32[50, 40], fx.f32[40, 30], fx.f32[30]
    )
    shapes = [n.output.type.shape for n in entry.graph.nodes if n.op == "contract"]
    assert shapes == [(40,), (50,)]


def test_einsum_of_integers_keeps_their_dtype_and_mixed_dtypes_meet():
    i = np.arange(6, dtype=np.int32).reshape(2, 3)
    got = run(lambda x: fx.einsum("ij,kj", x, x), i)
    np.testing.assert_array_equal(got, i @ i.T)
    entry, _ = trace(lambda x, y: fx.einsum("ij,kj", x, y), fx.i32[2, 3], fx.f64[4, 3])
    assert entry.graph.results[0].type.dtype == f64


def test_gradients_and_batches_of_einsum():
    a, b = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4))
    f = lambda x, y: (fx.einsum("ij,jk,jj->ik", x, y, y) ** 2).sum()
    d = RNG.normal(size=b.shape)
    want = (run(f, a, b + 1e-6 * d) - run(f, a, b - 1e-6 * d)) / 2e-6
    np.testing.assert_allclose((run(fx.grad(f, 1), a, b) * d).sum(), want, rtol=1e-6)
    each = run(fx.vmap(lambda x, y: fx.einsum("i,ij->j", x, y), (0, None)), a, b)
    np.testing.assert_allclose(each, a @ b)


WRONG_SUMS = {
    "groups": ("ij", (2, 3), (3, 4), "one group of letters"),
    "rank": ("ijk,jk", (2, 3), (3, 4), "'ijk' names 3 axes"),
    "few": ("i,jk", (2, 3), (3, 4), "'i' names 1 axes"),
    "sizes": ("ij,jk", (2, 3), (4, 4), "axis 'j' has two sizes"),
    "unknown": ("ij,jk->iz", (2, 3), (3, 4), "'z', which no operand has"),
    "twice": ("ij,jk->ii", (2, 3), (3, 4), "names an axis twice"),
    "text": ("i1,jk->ii", (2, 3), (3, 4), "cannot read 'i1'"),
    "dots": ("..ij,jk->ik", (2, 3), (3, 4), "cannot read '..ij'"),
}


@pytest.mark.parametrize("case", WRONG_SUMS)
def test_wrong_einsums(case):
    subscripts, left, right, message = WRONG_SUMS[case]
    with pytest.raises(fx.ShapeError, match=message):
        run(lambda x, y: fx.einsum(subscripts, x, y), np.ones(left), np.ones(right))


def test_diagonals():
    for shape, offset, axes in itertools.product(
        [(3, 3), (2, 5), (5, 2)], range(-6, 6), [(0, 1), (1, 0)]
    ):
        x = RNG.normal(size=shape)
        got = run(lambda x, o=offset, a=axes: fx.diagonal(x, o, *a), x)
        np.testing.assert_array_equal(got, np.diagonal(x, offset, *axes))
        got = run(lambda x, o=offset, a=axes: fx.trace(x, o, *a), x)
        np.testing.assert_allclose(got, np.trace(x, offset, *axes), atol=1e-15)
    cube = RNG.normal(size=(3, 4, 3))
    got = run(lambda x: fx.diagonal(x, 0, -1, 0), cube)
    np.testing.assert_array_equal(got, np.diagonal(cube, 0, -1, 0))
    with pytest.raises(fx.ShapeError, match="needs fixed sizes"):
        trace(lambda x: fx.diagonal(x, 1), fx.f32["n", "n"])


@pytest.mark.cc
def test_compiled_layouts():
    """As native code, with what the other families of names move and count."""
    x = RNG.normal(size=(4, 6, 6, 3)).astype(np.float32)
    far, near = ((0, 0), (0, 0), (9, 0), (0, 0)), ((0, 0), (2, 1), (1, 3), (0, 0))

    def f(x):
        return (
            fx.rearrange(x, "b (h p) (w q) c -> b h w (p q c)", p=2, q=3),
            fx.reduce(x, "b h w c -> b c", "max"),
            fx.einsum("bhwc,bhwd->bcd", x, x),
            fx.diagonal(x, 0, 1, 2),
            fx.pad(x, near, "reflect"),
            fx.pad(x, far, "symmetric"),
            fx.roll(x, (1, -2), (1, 2)),
            fx.median(x, 1),
            fx.nextafter(x, 0.0),
            fx.bitwise_count((x * 100).astype(fx.i32)),
        )

    want = (
        x.reshape(4, 3, 2, 2, 3, 3).transpose(0, 1, 3, 2, 4, 5).reshape(4, 3, 2, 18),
        x.max((1, 2)),
        np.einsum("bhwc,bhwd->bcd", x, x),
        np.diagonal(x, 0, 1, 2),
        np.pad(x, near, "reflect"),
        np.pad(x, far, "symmetric"),
        np.roll(x, (1, -2), (1, 2)),
        np.median(x, 1),
        np.nextafter(x, np.float32(0)),
        np.bitwise_count((x * 100).astype(np.int32)),
    )
    for one, other in zip(fx.jit(f)(x), want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 if other.ndim == 3 else 0)
