"""Attention, its layers and transformer blocks, beside PyTorch's values and transcriptions."""

import sys
from pathlib import Path

import numpy as np
import pytest

import fluxc as fx
from dsl import call, first_values, run, spec_of, trace, type_of
from fluxc import nn
from fluxc.compiler import driver
from fluxc.export import trace_exports

sys.path.insert(0, str(Path(__file__).parent / "golden"))
import attention as golden

GOLDEN = np.load(golden.FILE)
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape)


def weighted(name, y):
    return (y * golden.seed(name, GOLDEN[name].shape)).sum()


def function(name):
    """A case as a function of its operands."""
    _, options, _ = golden.FUNCTIONS[name]
    return lambda *xs: fx.attention(*xs, **options)


@pytest.mark.parametrize("name", golden.FUNCTIONS)
def test_attention_is_pytorch_s(name):
    xs, f = golden.inputs(name), function(name)
    np.testing.assert_allclose(run(f, *xs), GOLDEN[name], rtol=1e-12, atol=1e-12)
    loss = lambda *xs: weighted(name, f(*xs))
    found = run(lambda *xs: fx.grad(loss, argnums=tuple(range(len(xs))))(*xs), *xs)
    for i, g in enumerate(found):
        np.testing.assert_allclose(g, GOLDEN[f"{name}/d{i}"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", golden.FUNCTIONS)
def test_head_by_head_is_the_same(name):
    """One head after another, in the gradient too."""
    xs, (_, options, _) = golden.inputs(name), golden.FUNCTIONS[name]
    f = lambda *xs: fx.attention(*xs, **options, by_head=True)
    np.testing.assert_allclose(run(f, *xs), GOLDEN[name], rtol=1e-12, atol=1e-12)
    loss = lambda *xs: weighted(name, f(*xs))
    found = run(lambda *xs: fx.grad(loss, argnums=tuple(range(len(xs))))(*xs), *xs)
    for i, g in enumerate(found):
        np.testing.assert_allclose(g, GOLDEN[f"{name}/d{i}"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", golden.LAYERS)
def test_layers_are_pytorch_s(name):
    case = golden.LAYERS[name]
    layer = case.make(fx)
    own = layer.parameters()
    values = golden.parameters(name, {path: p.shape for path, p in own.items()})
    f = lambda m, xs: case.result(m(*xs, **case.call))
    xs, space = golden.inputs(name), {"layer": layer}
    got = run(lambda *xs: f(layer, xs), *xs, namespace=space, values=dict(values))
    np.testing.assert_allclose(got, GOLDEN[name], rtol=1e-10, atol=1e-10)

    loss = lambda xs, m: weighted(name, f(m, xs))
    derived = lambda *xs: fx.grad(loss, argnums=(0, 1))(list(xs), layer)
    found = run(derived, *xs, namespace=space, values=dict(values))
    wanted = [*(f"{name}/d{i}" for i in range(len(xs))), *(f"{name}/{path}" for path in own)]
    for key, g in zip(wanted, found, strict=True):
        np.testing.assert_allclose(g, GOLDEN[key], rtol=1e-8, atol=1e-9, err_msg=key)


# What PyTorch's values do not say.


def plain(q, k, v, seen=True, bias=0.0):
    """Attention, transcribed: heads of queries share those of keys, unseen keys have no weight."""
    k, v = (np.repeat(x, q.shape[-3] // x.shape[-3], -3) for x in (k, v))
    logits = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]) + bias
    seen = np.broadcast_to(seen, logits.shape)
    e = np.where(seen, np.exp(logits), 0)
    total = e.sum(-1, keepdims=True)
    alpha = e / np.where(total == 0, 1, total)
    return alpha @ v, alpha


def test_a_query_that_sees_nothing_is_zero_with_zero_gradients():
    """By a mask, by a bias of -inf, by a window, and where there are no keys at all."""
    q, k, v = normal(2, 4, 3), normal(2, 5, 3), normal(2, 5, 6)
    mask = np.arange(4)[:, None] > np.arange(5)
    bias = np.where(mask, 0.0, -np.inf)
    want, _ = plain(q, k, v, mask)
    for options in ({"mask": mask}, {"bias": bias}):
        f = lambda q, k, v, o=options: fx.attention(q, k, v, **o)
        np.testing.assert_allclose(run(f, q, k, v), want, atol=1e-12)
        loss = lambda *xs, f=f: (f(*xs) ** 2).sum()
        found = run(lambda *xs, f=loss: fx.grad(f, (0, 1, 2))(*xs), q, k, v)
        assert all(np.isfinite(g).all() for g in found)
        assert not found[0][:, 0].any()
        assert not found[1][:, 3:].any()
    by_bias = run(fx.grad(lambda b: (fx.attention(q, k, v, b) ** 2).sum()), bias)
    assert np.isfinite(by_bias).all()
    behind = run(lambda q: fx.attention(q, k, v, window=2, position=3, causal=True), q)
    assert not behind[:, 3:].any()
    none = run(lambda q: fx.attention(q, np.zeros((2, 0, 3)), np.zeros((2, 0, 6))), q)
    np.testing.assert_array_equal(none, np.zeros((2, 4, 6)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_positions_and_windows(causal, window):
    """Query i stands where key position + i does; a window looks back, and on if not causal."""
    if not causal and window is None:
        return
    q, k, v = normal(2, 1, 3, 4), normal(2, 1, 8, 4), normal(2, 1, 8, 4)
    for position in (0, 2, np.array([4, 1], np.int32)):
        at = np.asarray(position).reshape(-1, 1, 1, 1) + np.arange(3)[:, None]
        behind = at - np.arange(8)
        seen = (behind >= 0) if causal else np.full(behind.shape, True)
        seen &= np.abs(behind) < (window or 99)
        f = lambda q, k, v, p=position: fx.attention(
            q, k, v, causal=causal, window=window, position=p
        )
        np.testing.assert_allclose(run(f, q, k, v), plain(q, k, v, seen)[0], atol=1e-12)
        by_head = lambda q, k, v, p=position: fx.attention(
            q, k, v, causal=causal, window=window, position=p, by_head=True
        )
        np.testing.assert_array_equal(run(by_head, q, k, v), run(f, q, k, v))


@pytest.mark.parametrize("by_head", [False, True])
def test_attention_under_transformations(by_head):
    """Mapped over a batch of its own, and its directional derivative beside differences."""
    q, k, v = normal(3, 2, 4, 3), normal(3, 2, 5, 3), normal(3, 2, 5, 3)
    f = lambda *x: fx.attention(*x, causal=True, by_head=by_head)
    np.testing.assert_allclose(run(fx.vmap(f), q, k, v), run(f, q, k, v), atol=1e-12)
    along = normal(*q.shape)
    slope = run(lambda q, t: fx.jvp(lambda q: f(q, k, v), (q,), (t,))[1], q, along)
    eps = 1e-6
    differences = [run(lambda q: f(q, k, v), q + s * eps * along) for s in (1, -1)]
    np.testing.assert_allclose(slope, (differences[0] - differences[1]) / (2 * eps), atol=1e-7)
    square = lambda q: (f(q, k, v) ** 2).sum()
    twice = run(lambda q, t: fx.grad(lambda q: (fx.grad(square)(q) * t).sum())(q), q, along)
    differences = [run(fx.grad(square), q + s * eps * along) for s in (1, -1)]
    np.testing.assert_allclose(twice, (differences[0] - differences[1]) / (2 * eps), atol=1e-6)


def test_flux_s_form():
    """Heads are chunks of features; y and alpha, masks and dropout of the weights."""
    q, k, v = normal(2, 5, 8), normal(2, 7, 4), normal(2, 7, 6)
    apart = lambda x, n: np.swapaxes(x.reshape(2, -1, n, x.shape[-1] // n), 1, 2)
    mask = RNG.random((5, 7)) < 0.5
    y, alpha = plain(apart(q, 4), apart(k, 2), apart(v, 2), mask)
    want = np.swapaxes(y, 1, 2).reshape(2, 5, 12)
    options = {"nheads": 4, "nkvheads": 2, "mask": mask}
    got, weights = run(lambda *x: fx.dot_product_attention(*x, **options), q, k, v)
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(weights, alpha, atol=1e-12)
    scores = run(lambda q, k: fx.dot_product_attention_scores(q, k, **options), q, k)
    np.testing.assert_allclose(scores, alpha, atol=1e-12)
    dropped = run(
        lambda *x: fx.dot_product_attention(*x, **options, dropout=lambda a: a * 2.0), q, k, v
    )
    np.testing.assert_allclose(dropped[0], 2 * want, atol=1e-12)
    np.testing.assert_allclose(dropped[1], 2 * alpha, atol=1e-12)
    causal = run(fx.make_causal_mask, q)
    np.testing.assert_array_equal(causal, np.tril(np.ones((5, 5), bool)))


def test_dropout_of_weights_keeps_their_mean():
    """In training some weights are 0, the others larger; in test mode none."""
    mha = nn.MultiHeadAttention(8, nheads=2, dropout_prob=0.5)
    x = normal(1, 64, 8).astype(np.float32)
    _, alpha = run(mha, x, namespace={"m": mha}, training=True)
    assert 0.4 < (alpha == 0).mean() < 0.6
    np.testing.assert_allclose(alpha.sum(-1).mean(), 1, atol=0.05)
    assert (run(mha, x, namespace={"m": mha})[1] > 0).all()


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
def test_narrow_floats_are_summed_in_f32(dtype):
    """Logits of any size, and results of the operands' dtype."""
    assert type_of(fx.attention, *[getattr(fx, dtype)["h", "n", 4]] * 3) == f"{dtype}[h, n, 4]"
    if dtype == "f16":
        big = np.full((1, 2, 4), 200.0, np.float16)
        np.testing.assert_array_equal(run(fx.attention, big, big, big), big)


def rotated(x, places, size, *, interleaved, base=10000.0):
    """RoPE as complex numbers."""
    half = size // 2
    turn = np.exp(1j * places[..., None] * base ** (-np.arange(half) / half))
    pick = (
        (slice(0, size, 2), slice(1, size, 2)) if interleaved else (slice(half), slice(half, size))
    )
    z = (x[..., pick[0]] + 1j * x[..., pick[1]]) * turn
    y = x.copy()
    y[..., pick[0]], y[..., pick[1]] = z.real, z.imag
    return y


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(interleaved):
    """Pairs turn by their place times their rate; products depend on distances alone."""
    x = normal(2, 3, 5, 8)
    for position, size in ((0, 8), (7, 4), (np.array([2, 9], np.int32), 6)):
        places = np.asarray(position).reshape(-1, 1, 1) + np.arange(5)
        f = lambda x, p=position, s=size: fx.rotary(x, p, size=s, interleaved=interleaved)
        want = rotated(x, places, size, interleaved=interleaved)
        np.testing.assert_allclose(run(f, x), want, atol=1e-12)
    layer = nn.RotaryEmbedding(interleaved=interleaved, base=100.0)
    product = lambda q, k: layer(q, 3) @ layer(k, 1).mT
    shifted = lambda q, k: layer(q, 13) @ layer(k, 11).mT
    np.testing.assert_allclose(run(product, x, x), run(shifted, x, x), atol=1e-10)


def test_embeddings_of_positions():
    """Fixed ones are sines and cosines, learned ones rows; both begin at a position."""
    x = normal(2, 4, 6).astype(np.float32)
    angle = (3 + np.arange(4))[:, None] * 10000.0 ** (-np.arange(3) / 3)
    want = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(4, 6)
    fixed = nn.SinusoidalEmbedding(6, scale=2.0)
    np.testing.assert_allclose(run(lambda x: fixed(x, 3), x), 2 * x + want, rtol=1e-5, atol=1e-6)
    learned = nn.PositionEmbedding(9, 6)
    values = {"weight": normal(9, 6).astype(np.float32)}
    for at in (0, 5):
        want = x + values["weight"][at : at + 4]
        space = {"m": learned}
        got = run(lambda x, at=at: learned(x, at), x, namespace=space, values=dict(values))
        np.testing.assert_allclose(got, want, rtol=1e-6)
        got = run(learned, x, np.int32(at), namespace=space, values=dict(values))
        np.testing.assert_allclose(got, want, rtol=1e-6)
    for length, message in ((10, "longer than there are positions"), (fx.dim("n"), "outside")):
        with pytest.raises(fx.ShapeError, match=message):
            trace(learned, fx.f32[length, 6], namespace={"m": learned})


def test_sizes_of_multi_head_attention():
    """Flux's forms of sizes, their parameters, and calls with one, two or three operands."""
    for dims, shapes in (
        ((8,), [(8, 8)] * 4),
        ((6, 8, 4), [(8, 6), (8, 6), (8, 6), (4, 8)]),
        ((6, (8, 12), 4), [(8, 6), (8, 6), (12, 6), (4, 12)]),
        (((6, 7, 5), (8, 12), 4), [(8, 6), (8, 7), (12, 5), (4, 12)]),
    ):
        mha = nn.MultiHeadAttention(*dims, nheads=4)
        assert {p: s.shape for p, s in mha.parameters().items()} == dict(
            zip([f"{n}_proj.weight" for n in ("q", "k", "v", "out")], shapes, strict=True)
        )
    assert nn.MultiHeadAttention(8, 2).nheads == 2
    assert nn.MultiHeadAttention(8).nheads == 8
    shared = nn.MultiHeadAttention(8, nheads=4, nkvheads=1, bias=True)
    assert shared.parameters()["k_proj.weight"].shape == (2, 8)
    assert shared.parameters()["out_proj.bias"].shape == (8,)
    x, kv = fx.f32["b", "n", 8], fx.f32["b", "m", 8]
    space = {"m": shared}
    for specs in ((x,), (x, kv), (x, kv, kv)):
        entry, _ = trace(shared, *specs, namespace=space)
        y, alpha = (str(r.type) for r in entry.graph.results)
        assert y == "f32[b, n, 8]"
        assert alpha == ("f32[b, 4, n, n]" if len(specs) == 1 else "f32[b, 4, n, m]")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.MultiHeadAttention(8, 4, nheads=2), "not of a known form"),
        (lambda: nn.MultiHeadAttention((8, 4), (8, 8), 8), "not of a known form"),
        (lambda: nn.MultiHeadAttention(8, nheads=3), "nheads does not divide"),
        (lambda: nn.MultiHeadAttention(8, nheads=4, nkvheads=3), "nkvheads does not divide"),
        (lambda: nn.SinusoidalEmbedding(7), "must be even"),
    ],
)
def test_layers_that_cannot_be(make, message):
    with pytest.raises(fx.ShapeError, match=message):
        make()


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda q, k: fx.attention(q, k[..., :3], k), "queries and keys do not fit"),
        (lambda q, k: fx.attention(q, k, k[:, :, 1:]), "values do not fit the keys"),
        (lambda q, k: fx.attention(q, k[:, :2], k), "heads of the keys do not divide"),
        (lambda q, k: fx.attention(q, k, k, mask=fx.ones((5, 7))), "which keys are seen"),
        (lambda q, k: fx.attention(q, k, k, mask=fx.ones((4, 7), fx.bool_)), "the mask does not"),
        (lambda q, k: fx.attention(q, k, k, fx.ones((2, 2, 3, 5, 7))), "the bias does not"),
        (lambda q, k: fx.attention(q, k, k, window=0), "window=0"),
        (lambda q, k: fx.attention(q, k, k, causal=True, position=fx.ones(3, fx.i32)), "position"),
        (lambda q, k: fx.attention(q, k, k, dropout=0.1), "dropout=0.1"),
        (lambda q, k: fx.dot_product_attention(q, k, k, nheads=5), "5 heads do not divide"),
        (lambda q, _: fx.rotary(q[..., :3]), "3 features cannot be turned"),
    ],
)
def test_calls_that_do_not_fit(f, message):
    with pytest.raises(fx.FluxcError, match=message):
        trace(f, fx.f32[2, 3, 5, 6], fx.f32[2, 3, 7, 6])


# Caches.


class Decoder(fx.Module):
    """A small language model with grouped heads, turned by their positions, that see 4 tokens."""

    def __init__(self):
        self.embed = nn.Embedding(11, 8)
        options = {"nkvheads": 2, "norm_first": True, "rotary": nn.RotaryEmbedding(), "window": 4}
        self.blocks = nn.TransformerEncoder(2, 8, 4, 16, **options)
        self.readout = nn.Dense(8, 11)

    def __call__(self, tokens):
        return self.readout(self.blocks(self.embed(tokens), causal=True))

    def step(self, tokens, caches, position):
        y, caches = self.blocks.step(self.embed(tokens), caches, position)
        return self.readout(y), caches


model = Decoder()
kept = model.blocks.cache(batch=2, length=9)


@fx.export
def whole(tokens: fx.i32["b", "n"]):  # noqa: F821
    return model(tokens)


@fx.export(stateful=True)
def one(tokens: fx.i32[2, 1], position: fx.i32):
    return model.step(tokens, kept, position)[0]


@fx.export(stateful=True)
def three(tokens: fx.i32[2, 3], position: fx.i32):
    return model.step(tokens, kept, position)[0]


@fx.export
def handed(tokens: fx.i32[2, 1], position: fx.i32, caches: fx.f32[2, 2, 2, 2, 9, 2]):
    pairs = [(caches[i, 0], caches[i, 1]) for i in range(2)]
    y, new = model.step(tokens, pairs, position)
    return y, fx.stack([fx.stack(pair) for pair in new])


CASES = ("causal", "mask", "bias", "grouped", "matrices")
BY_HEAD = fx.f32[3, 256, 8], fx.f32[1, 260, 8], fx.f32[1, 260, 8], fx.f32[1, 260]


@fx.export
def long(q: BY_HEAD[0], k: BY_HEAD[1], v: BY_HEAD[2], bias: BY_HEAD[3]):
    """Enough weights for one head after another, and the gradients."""
    loss = lambda q, k, v, b: (fx.attention(q, k, v, b, causal=True, position=4) ** 2).sum()
    return fx.value_and_grad(loss, (0, 1, 2, 3))(q, k, v, bias)


def compiled_case(name):
    """A case of the golden file with its gradients, in f32."""
    f, xs = function(name), golden.inputs(name)
    shape = GOLDEN[name].shape

    def both(*xs):
        loss = lambda *xs: (f(*xs) * golden.seed(name, shape).astype(np.float32)).sum()
        return f(*xs), *fx.grad(loss, argnums=tuple(range(len(xs))))(*xs)

    from dsl import Typed

    made = Typed(both, [spec_of(x.astype(np.float32)) for x in xs])
    made.name = name
    return made


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """The decoder's entries and a sample of the golden cases, as native code."""
    entries = [whole, one, three, handed, long, *map(compiled_case, CASES)]
    space = {"model": model, "kept": kept}
    folder = tmp_path_factory.mktemp("attention") / "decoder"
    driver.compile_spec(trace_exports(entries, space), folder)
    return driver.load_package(folder)


@pytest.mark.cc
def test_decoding_with_a_cache_gives_what_the_whole_sequence_does(artifact):
    """Token by token, after a prompt of several, and with a cache that the caller keeps."""
    m = artifact.Model(seed=0)
    tokens = RNG.integers(0, 11, (2, 9)).astype(np.int32)
    want = m.whole(tokens)
    got = [m.three(tokens[:, :3], 0)] + [m.one(tokens[:, i : i + 1], i) for i in range(3, 9)]
    np.testing.assert_allclose(np.concatenate(got, 1), want, rtol=1e-4, atol=1e-5)
    caches, rows = np.zeros((2, 2, 2, 2, 9, 2), np.float32), []
    for i in range(9):
        row, caches = m.handed(tokens[:, i : i + 1], i, caches)
        rows.append(row)
    np.testing.assert_allclose(np.concatenate(rows, 1), want, rtol=1e-4, atol=1e-5)


@pytest.mark.cc
@pytest.mark.parametrize("name", CASES)
def test_compiled_attention_is_pytorch_s(name, artifact):
    xs = [x.astype(np.float32) for x in golden.inputs(name)]
    y, *gradients = getattr(artifact.Model(), name)(*xs)
    np.testing.assert_allclose(y, GOLDEN[name], rtol=1e-4, atol=1e-5)
    for i, g in enumerate(gradients):
        np.testing.assert_allclose(g, GOLDEN[f"{name}/d{i}"], rtol=1e-3, atol=1e-4)


@pytest.mark.cc
def test_many_weights_are_computed_head_by_head(artifact):
    """A loop in the program, and the values and gradients of all heads at once."""
    xs = [normal(*s.dims).astype(np.float32) for s in BY_HEAD]
    together = lambda q, k, v, b: (
        fx.attention(q, k, v, b, causal=True, position=4, by_head=False) ** 2
    ).sum()
    want = run(fx.value_and_grad(together, (0, 1, 2, 3)), *xs)
    got = artifact.Model().long(*xs)
    for g, w in zip([got[0], *got[1]], want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-3, atol=1e-4)
    entry, _ = trace(long.f, *BY_HEAD)
    assert "scan" in {n.op for n in entry.graph.nodes}


def test_a_decoder_decodes_step_by_step():
    """Cross attention stays what it is at each step."""
    stack = nn.TransformerDecoder(2, 8, 2, norm_first=True)
    x, memory = normal(2, 4, 8).astype(np.float32), normal(2, 3, 8).astype(np.float32)
    space = {"stack": stack}
    entry, storages = trace(stack, spec_of(x), spec_of(memory), namespace=space)
    values = first_values(storages)
    (want,) = call(entry, values, x, memory)
    empty = [(np.zeros((2, 2, 4, 4), np.float32),) * 2 for _ in stack.layers]

    def steps(x, memory):
        caches, rows = empty, []
        for i in range(4):
            y, caches = stack.step(x[:, i : i + 1], memory, caches, i)
            rows.append(y)
        return fx.concatenate(rows, 1)

    got = run(steps, x, memory, namespace=space, values=values)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_state_is_assigned_in_entries_that_say_so():
    cache = nn.KVCache(1, 2, 3, 4)
    f = lambda k, at: cache.append(k, k, at)[0]
    specs = fx.f32[1, 2, 1, 4], fx.i32[()]
    with pytest.raises(fx.TraceError, match="a state is assigned in test mode"):
        trace(f, *specs, namespace={"cache": cache})
    entry, _ = trace(f, *specs, namespace={"cache": cache}, stateful=True)
    assert entry.updates == ("k", "v")
    with pytest.raises(fx.ShapeError, match="cache is one for other keys"):
        trace(f, fx.f32[2, 2, 1, 4], fx.i32[()], namespace={"cache": cache}, stateful=True)
