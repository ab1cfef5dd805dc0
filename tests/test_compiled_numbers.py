"""Numbers that go wrong easily, through whole entries: NaN, infinities, ties, long sums."""

import numpy as np
import pytest
from compiled import compile_graphs, expected

from fluxc.compiler.autodiff import vjp
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.interp import round_to
from fluxc.compiler.ir.types import TensorType, f32, i8, i32, u8
from fluxc.compiler.ops import OPS, infer

pytestmark = pytest.mark.cc

SPECIAL = [
    [1.0, -2.0, 0.5, 3.0],
    [1.0, np.nan, 0.5, 3.0],
    [np.inf, 1.0, -np.inf, 0.0],
    [-np.inf, -np.inf, -np.inf, -np.inf],
    [np.inf, np.inf, 0.0, 1.0],
    [0.0, -0.0, 0.0, -0.0],
    [2.0, 2.0, 2.0, -1.0],
    [3e38, 3e38, -3e38, 1.0],
    [1e-45, -1e-45, 1e-40, 1e-38],
]


class G:
    """A builder over rows of special numbers, repeated so that vectors have a middle and a tail."""

    def __init__(self, dtype=f32):
        self.b = Builder(infer)
        self.x = self.b.param(TensorType(dtype, (dim("n"), 37)), "x")

    def __getattr__(self, op):
        return lambda *xs, **attrs: self.b.emit(op, *xs, **attrs)

    def number(self, value):
        type = self.x.type
        return self.full(value=value, dtype=type.dtype, shape=type.shape)

    def spread(self, y):
        return self.broadcast(y, shape=self.x.type.shape, axes=(0,))

    def softmax(self):
        e = self.exp(self.sub(self.x, self.spread(self.reduce_max(self.x, axes=(1,)))))
        return self.div(e, self.spread(self.reduce_sum(e, axes=(1,))))

    def relu(self):
        return self.maximum(self.x, self.number(0.0))

    def clipped(self):
        return self.minimum(self.maximum(self.x, self.number(-1.0)), self.number(1.0))

    def safe_log(self):
        """A select whose other branch is not finite."""
        positive = self.gt(self.x, self.number(0.0))
        inside = self.select(positive, self.x, self.number(1.0))
        return self.select(positive, self.log(inside), self.number(0.0))

    def doubled(self):
        return self.add(self.x, self.x)

    def greatest(self):
        return self.reduce_max(self.x, axes=(1,))

    def least(self):
        return self.reduce_min(self.x, axes=(1,))

    def total(self):
        return self.reduce_sum(self.x, axes=(1,))

    def product(self):
        return self.reduce_prod(self.x, axes=(1,))


NAMES = ("softmax", "relu", "clipped", "safe_log", "doubled")
NAMES += ("greatest", "least", "total", "product")


def graphs():
    for name in NAMES:
        g = G()
        forward = g.b.graph(name, [getattr(g, name)()])
        yield name, forward
        yield f"{name}_gradient", vjp(forward)


def rows():
    """Each special row at different places of a longer row of ordinary numbers."""
    rng = np.random.default_rng(0)
    made = np.clip(rng.normal(size=(len(SPECIAL) * 3, 37)), -1.5, 1.5).astype(np.float32)
    for i, row in enumerate(SPECIAL):
        for k, start in enumerate((0, 15, 33)):
            made[3 * i + k, start : start + 4] = row
    return made


def test_special_numbers_spread_as_the_interpreter_says(tmp_path):
    compiled = compile_graphs(dict(graphs()), tmp_path)
    x = rows()
    for name, graph in compiled.graphs.items():
        rng = np.random.default_rng(1)
        shapes = [(len(x), *p.type.shape[1:]) for p in graph.params[1:]]
        arrays = [x, *(rng.normal(size=s).astype(np.float32) for s in shapes)]
        got = compiled.on_every_number_of_threads(name, arrays)
        for g, exact in zip(got, expected(graph, arrays), strict=True):
            w = round_to(exact, f32)
            overflow = ~np.isfinite(g) & (np.abs(w) > 1e38)  # on the way, in another order
            agree = np.isclose(g, w, rtol=2e-5, atol=1e-5, equal_nan=True) | overflow
            if name in ("relu", "clipped", "doubled", "greatest", "least"):
                agree = (g == w) | (np.isnan(g) & np.isnan(w))
            assert agree.all(), f"{name}: row {np.argwhere(~agree)[0]}\n{g[~agree]}\n{w[~agree]}"


def test_sums_of_nothing_are_identities(tmp_path):
    b = Builder(infer)
    x = b.param(TensorType(f32, (dim("n"), dim("m"))))
    names = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min")
    graph = b.graph("empty", [b.emit(op, x, axes=axes) for op in names for axes in ((0,), (0, 1))])
    compiled = compile_graphs({"empty": graph}, tmp_path)
    for shape in ((0, 3), (0, 0), (3, 0)):
        arrays = [np.zeros(shape, np.float32)]
        got = compiled.on_every_number_of_threads("empty", arrays)
        for g, w in zip(got, expected(graph, arrays), strict=True):
            np.testing.assert_array_equal(g, w)


def test_integers_wrap(tmp_path):
    made = {}
    for dtype in (i8, u8, i32):
        b = Builder(infer)
        x, y = (b.param(TensorType(dtype, (dim("n"),))) for _ in range(2))
        ops = ("add", "sub", "mul", "floor_div", "mod", "maximum", "shift_left", "shift_right")
        results = [b.emit(op, x, y) for op in ops]
        results += [b.emit(op, x) for op in ("neg", "abs", "not", "sign")]
        results += [b.emit(op, x, axes=(0,)) for op in ("reduce_sum", "reduce_prod")]
        made[str(dtype)] = b.graph(str(dtype), results)
    compiled = compile_graphs({f"of_{n}": g for n, g in made.items()}, tmp_path)
    for name, graph in compiled.graphs.items():
        dtype = graph.params[0].type.dtype.numpy
        rng, info = np.random.default_rng(0), np.iinfo(dtype)
        for n in (1, 17, 300):
            x = rng.integers(info.min, info.max, n, dtype, endpoint=True)
            y = rng.integers(info.min, info.max, n, dtype, endpoint=True)
            x[0] = info.min
            got = compiled.on_every_number_of_threads(name, [x, y])
            for g, w in zip(got, expected(graph, [x, y]), strict=True):
                np.testing.assert_array_equal(g, w, err_msg=name)


def test_a_sum_of_ten_million_numbers_is_accurate(tmp_path):
    """Vectors of sums and chunks of 16384 err about as much as sums of pairs do."""
    b = Builder(infer)
    x = b.param(TensorType(f32, (dim("n"),)))
    graph = b.graph("total", [b.emit("reduce_sum", x, axes=(0,))])
    compiled = compile_graphs({"total": graph}, tmp_path)
    rng = np.random.default_rng(0)
    for n, values in ((10_000_000, rng.random), (9_999_999, rng.standard_normal)):
        data = values(n, np.float32)
        (got,) = compiled.on_every_number_of_threads("total", [data])
        error = abs(float(got) - data.sum(dtype=np.float64)) / np.abs(data).sum(dtype=np.float64)
        assert error < 2e-7, f"relative to the sum of magnitudes: {error:.2g}"


def test_an_element_does_not_depend_on_its_neighbours(tmp_path):
    """Functions with a short way for small arguments give each lane the same bits on either way."""
    unary = [n for n, op in sorted(OPS.items()) if op.elementwise and _takes_one_float(n)]
    made = {}
    for name in unary:
        b = Builder(infer)
        made[f"of_{name}"] = b.graph(name, [b.emit(name, b.param(TensorType(f32, (dim("n"),))))])
    compiled = compile_graphs(made, tmp_path)
    rng = np.random.default_rng(0)
    small = rng.uniform(-1, 1, 40).astype(np.float32)
    odd = [np.inf, np.nan, 1e30, -1e30, 1e-40, 700.0, -700.0, 1e6, -0.0, -np.inf]
    for name in compiled.graphs:
        call = getattr(compiled.model(1), name)
        (alone,) = call(small)
        for value in odd:
            mixed = small.copy()
            mixed[::7] = value
            (beside,) = call(mixed)
            kept = mixed == small
            assert beside[kept].tobytes() == alone[kept].tobytes(), f"{name} beside {value}"
        one = np.concatenate([call(small[i : i + 1])[0] for i in range(len(small))])
        assert one.tobytes() == alone.tobytes(), f"{name} of one element"


def _takes_one_float(name):
    try:
        (type,) = infer(name, (TensorType(f32, (2,)),), {})
    except Exception:  # noqa: BLE001  whatever it is that it takes
        return False
    return type.dtype == f32
