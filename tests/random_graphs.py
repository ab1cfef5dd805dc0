"""Random graphs over the whole table of operations, reproducible by their generator's seed.

Every float value carries an interval that it is known to lie in.  Operands are brought into an
operation's smooth domain (as its samples show it), so that results stay tame, kinks and jumps are
far away, and the float64 interpreter can be compared with code that computes in f32.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from op_graphs import carries_graphs

from fluxc.compiler.errors import FluxcError
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import Dim, dim, evaluate_size, is_at_least, symbol_size
from fluxc.compiler.ir.graph import Graph, Value, graph_symbols
from fluxc.compiler.ir.interp import round_to
from fluxc.compiler.ir.types import DTYPES, TensorType, bool_, f32, f64, i32, i64, u32
from fluxc.compiler.ops import OPS, infer

SIZES = (1, 2, 3, 5, 17)
WIDEST = 20.0  # values beyond it are squashed before their next use
# Operations that are smooth and tame on moderate values of either sign: no need to shift operands.
FREE = {
    "neg", "sin", "cos", "tanh", "erf", "atan", "asinh", "add", "sub", "mul", "maximum", "minimum",
    "identity", "stop_gradient", "sign", "floor", "ceil", "round", "trunc", "is_nan", "is_inf",
    "is_finite", "eq", "ne", "lt", "le", "gt", "ge", "floor_div",
}  # fmt: skip
SQUASH = ("sin", "tanh", "erf", "cos")


@dataclass(frozen=True)
class Known:
    """A value and the interval that its elements lie in."""

    value: Value
    low: float
    high: float

    @property
    def type(self):
        return self.value.type

    @property
    def shape(self):
        return self.value.type.shape

    @property
    def is_wild(self):
        return not -WIDEST <= self.low <= self.high <= WIDEST


def random_graph(rng, size, *, differentiable):
    """A graph of at least `size` operations, each of which its results depend on where possible.

    differentiable  only operations with derivatives, floats, away from kinks; no size is 0.
    """
    return _Maker(rng, differentiable).make(size)


def random_sizes(rng, graph):
    """A value for every named size of the graph, within its range."""
    return {
        s.name: int(rng.choice([v for v in (0, *SIZES) if v >= s.min]))
        for s in graph_symbols(graph)
    }


def random_arguments(rng, graph):
    """Arguments in storage format: floats within -1..1, small integers, bools."""
    sizes = random_sizes(rng, graph)
    return [_argument(rng, p.type, sizes) for p in graph.params]


def _argument(rng, type, sizes):
    shape = tuple(evaluate_size(s, sizes) for s in type.shape)
    if type.dtype.is_float:
        return round_to(rng.uniform(-1, 1, shape), type.dtype)
    if type.dtype == bool_:
        return rng.random(shape) < 0.5
    return rng.integers(-2 if type.dtype.kind == "i" else 0, 7, shape).astype(type.dtype.numpy)


def is_trivial(graph):
    """Whether it computes next to nothing."""
    return len({n.op for n in graph.nodes}) < 3


@cache
def _kind(name):
    """How an operation is made: the dtypes that it takes, or the name of its recipe."""
    if name == "while":
        return "while_"
    if not OPS[name].elementwise or name in ("select", "cast", "bitcast"):
        return name
    return "elementwise"


@cache
def _arity(name):
    for n in (1, 2):
        for dtype in (f64, i32):
            if _accepted(name, dtype, n):
                return n
    raise AssertionError(f"{name} takes neither one nor two numbers")


@cache
def _accepted(name, dtype, n):
    try:
        infer(name, (TensorType(dtype, (2,)),) * n, {})
    except (FluxcError, TypeError):
        return False
    return True


@cache
def _domain(name):
    """For each operand the magnitudes on which it is smooth, and whether signs are free."""
    rng = np.random.default_rng(0)
    draws = [
        np.array([OPS[name].sample(rng)[0][i] for _ in range(40)]) for i in range(_arity(name))
    ]
    return [(np.abs(d).min(), np.abs(d).max(), bool(d.min() < 0)) for d in draws]


def _has_dtype(known, dtype):
    """dtype None: any float."""
    return known.type.dtype.is_float if dtype is None else known.type.dtype == dtype


def _grid(known):
    """Points of a value's interval: its ends and some between; 0, 1, 2 where it is no float."""
    dtype = known.type.dtype
    return (
        np.linspace(known.low, known.high, 9)
        if dtype.is_float
        else np.arange(3).astype(dtype.numpy)
    )


class _Maker:
    def __init__(self, rng, differentiable, depth=0):
        self.rng, self.differentiable, self.depth = rng, differentiable, depth
        self.b = Builder(infer)
        self.pool: list[Known] = []
        self.used: set[Value] = set()
        self.base = self.choice([f32, f32, f32, f64])
        least = 1 if differentiable else 0
        self.symbols = [dim("n", min=least, max=20), dim("batch", min=1, max=24)]
        self.names = [
            n for n in OPS if self.has_recipe(n) and (not differentiable or self.has_rule(n))
        ]
        if depth > 1:
            self.names = [n for n in self.names if not carries_graphs(OPS[n])]

    @staticmethod
    def has_recipe(name):
        return not carries_graphs(OPS[name]) or hasattr(_Maker, _kind(name))

    @staticmethod
    def has_rule(name):
        return callable(OPS[name].vjp) or name in ("stop_gradient", "lt")

    # ---- choices

    def choice(self, items):
        return items[int(self.rng.integers(len(items)))]

    def chance(self, p):
        return bool(self.rng.random() < p)

    def size(self):
        if self.chance(0.3):
            return self.choice(self.symbols)
        return 0 if not self.differentiable and self.chance(0.05) else self.choice(SIZES)

    def shape(self, least=0, most=3):
        return tuple(self.size() for _ in range(int(self.rng.integers(least, most + 1))))

    # ---- making values

    def keep(self, value, low, high):
        known = Known(value, float(low), float(high))
        self.pool.append(known)
        return known

    def emit(self, op, *operands, low, high, **attrs):
        """The output of an operation with one output, which may become an operand."""
        self.used |= {k.value for k in operands}
        return self.keep(self.b.emit(op, *(k.value for k in operands), **attrs), low, high)

    def param(self, dtype, shape):
        stored = self.base if dtype.is_float else dtype
        value = self.b.param(TensorType(stored, shape), f"p{len(self.b.params)}")
        known = self.keep(value, -1 if dtype.is_float else -2, 1 if dtype.is_float else 7)
        return known if stored == dtype else self.emit("cast", known, low=-1, high=1, dtype=dtype)

    def number(self, value, type):
        return self.emit(
            "full", low=value, high=value, value=value, dtype=type.dtype, shape=type.shape
        )

    def pick(self, wanted=lambda _: True, dtype=None):
        """A value that fits, unused ones first, or a new parameter."""
        fits = [k for k in self.pool if _has_dtype(k, dtype) and wanted(k)]
        fresh = [k for k in fits if k.value not in self.used]
        if fresh and self.chance(0.7):
            return self.choice(fresh)
        if fits and self.chance(0.8):
            return self.choice(fits)
        for _ in range(20):
            shape = self.shape(1)
            known = Known(Value(TensorType(dtype or self.base, shape)), -1, 1)
            if wanted(known):
                return self.param(dtype or self.base, shape)
        return self.param(dtype or self.base, (2, 3))

    def like(self, x):
        """Another value of the type of `x`."""
        same = [k for k in self.pool if k.type == x.type and k.value is not x.value]
        if same and self.chance(0.6):
            return self.choice(same)
        shape = x.shape
        if shape and self.chance(0.5):
            axes = tuple(a for a in range(len(shape)) if self.chance(0.5))
            small = self.param(x.type.dtype, tuple(shape[a] for a in axes))
            return self.emit("broadcast", small, low=-1, high=1, shape=shape, axes=axes)
        return self.param(x.type.dtype, shape)

    def tame(self, x):
        """`x`, squashed if it may be large."""
        if not x.type.dtype.is_float or not x.is_wild:
            return x
        return self.emit(self.choice(("tanh", "erf")), x, low=-1, high=1)

    def bring(self, x, low, high):
        """An affine image of `x` within low..high."""
        if x.low >= low and x.high <= high:
            return x
        if x.high - x.low > 8 or not np.isfinite(x.high - x.low):
            x = self.emit(self.choice(SQUASH), self.tame(x), low=-1, high=1)
        span = max(x.high - x.low, (high - low) / 4)  # a steeper map would magnify rounding
        scale = float(np.float32((high - low) / span * 0.999))
        shift = float(np.float32((low + high) / 2 - scale * (x.low + x.high) / 2))
        scaled = self.emit(
            "mul", x, self.number(scale, x.type), low=scale * x.low, high=scale * x.high
        )
        return self.emit("add", scaled, self.number(shift, x.type), low=low, high=high)

    # ---- recipes: one for each operation that is not plainly elementwise

    def elementwise(self, name):
        n = _arity(name)
        dtypes = [d for d in self.dtypes() if _accepted(name, d, n)]
        if not dtypes:
            return
        dtype = self.choice(dtypes)
        first = self.pick(dtype=dtype)
        operands = [first, *(self.like(first) for _ in range(n - 1))]
        if dtype.is_float:
            operands = self.in_domain(name, operands)
        self.emit_measured(name, *operands)

    def dtypes(self):
        floats = [k.type.dtype for k in self.pool if k.type.dtype.is_float] or [self.base]
        return floats if self.differentiable else [*floats, *DTYPES.values()]

    def in_domain(self, name, operands):
        if name in FREE:
            return [self.tame(x) for x in operands]
        brought = []
        for x, (low, high, signed) in zip(operands, _domain(name), strict=True):
            flip = signed and self.chance(0.5)
            brought.append(self.bring(x, *((-high, -low) if flip else (low, high))))
        return brought

    def emit_measured(self, name, *operands, **attrs):
        """Emit an elementwise operation; its interval comes from a grid over the operands' ones."""
        points = [g.reshape(-1) for g in np.meshgrid(*map(_grid, operands))]
        with np.errstate(all="ignore"):
            seen = np.asarray(OPS[name].reference(*points, **attrs), np.float64)
        self.emit(name, *operands, low=np.min(seen), high=np.max(seen), **attrs)

    def select(self, name):
        x = self.pick()
        z = self.like(x)
        if self.chance(0.5):
            c = self.param(bool_, x.shape)
        else:
            fresh = self.param(x.type.dtype, x.shape), self.param(x.type.dtype, x.shape)
            c = self.emit(self.choice(("lt", "ge")), *fresh, low=0, high=1)
        self.emit(name, c, x, z, low=min(x.low, z.low), high=max(x.high, z.high))

    def cast(self, name):
        x = self.tame(self.pick())
        to = f64 if self.differentiable else self.choice(list(DTYPES.values()))
        self.emit(name, x, low=x.low - 1, high=x.high + 1, dtype=to)

    def bitcast(self, name):
        x = self.pick(dtype=self.choice([i32, u32, i64]))
        to = next(d for d in DTYPES.values() if d.bits == x.type.dtype.bits and d.kind == "i")
        self.emit(name, x, low=-2, high=7, dtype=to)

    def broadcast(self, name):
        x = self.pick(lambda k: k.type.rank <= 2)
        at = int(self.rng.integers(x.type.rank + 1))
        shape = (*x.shape[:at], self.size(), *x.shape[at:])
        axes = tuple(a for a in range(len(shape)) if a != at)
        self.emit(name, x, low=x.low, high=x.high, shape=shape, axes=axes)

    def reshape(self, name):
        x = self.pick()
        shape = list(x.shape)
        if len(shape) >= 2 and self.chance(0.7):
            at = int(self.rng.integers(len(shape) - 1))
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        else:
            shape.insert(int(self.rng.integers(len(shape) + 1)), 1)
        self.emit(name, x, low=x.low, high=x.high, shape=tuple(shape))

    def transpose(self, name):
        x = self.pick(lambda k: k.type.rank >= 2)
        axes = tuple(map(int, self.rng.permutation(x.type.rank)))
        self.emit(name, x, low=x.low, high=x.high, axes=axes)

    def some_axes(self, x):
        axes = tuple(a for a in range(x.type.rank) if self.chance(0.5))
        return axes or (int(self.rng.integers(x.type.rank)),)

    def reverse(self, name):
        x = self.pick(lambda k: k.type.rank >= 1)
        self.emit(name, x, low=x.low, high=x.high, axes=self.some_axes(x))

    def slice(self, name):
        x = self.pick(lambda k: k.type.rank >= 1)
        starts, limits, steps = [], [], []
        for size in x.shape:
            known = isinstance(size, int)
            start = int(self.rng.integers(size)) if known and size else 0
            if not known and is_at_least(size, 1) and self.chance(0.5):
                start = 1
            cut = self.chance(0.3) and is_at_least(size, start + 2)
            starts.append(start)
            limits.append(size - 1 if cut else size)
            steps.append(self.choice((1, 1, 2, 3)))
        attrs = {"starts": tuple(starts), "limits": tuple(limits), "steps": tuple(steps)}
        if self.differentiable and any(s == 0 for s in infer(name, (x.type,), attrs)[0].shape):
            return
        self.emit(name, x, low=x.low, high=x.high, **attrs)

    def pad(self, name):
        x = self.pick(lambda k: k.type.rank >= 1)
        zero = self.number(0.0, TensorType(x.type.dtype))
        value = self.param(x.type.dtype, ()) if self.chance(0.4) else zero
        low, high, interior = (
            tuple(int(self.choice(widths)) for _ in x.shape)
            for widths in ((0, 1, 2), (0, 0, 3), (0, 0, 1, 2))
        )
        # The attributes low and high are in the way of the interval's.
        self.used |= {x.value, value.value}
        out = self.b.emit(name, x.value, value.value, low=low, high=high, interior=interior)
        self.keep(out, min(x.low, -1.0), max(x.high, 1.0))

    def concatenate(self, name):
        x = self.pick(lambda k: k.type.rank >= 1)
        axis = int(self.rng.integers(x.type.rank))
        shape = (*x.shape[:axis], self.size(), *x.shape[axis + 1 :])
        parts = [x, self.param(x.type.dtype, shape), self.like(x)][: int(self.rng.integers(1, 4))]
        parts = [parts[i] for i in self.rng.permutation(len(parts))]
        low, high = min(p.low for p in parts), max(p.high for p in parts)
        self.emit(name, *parts, low=low, high=high, axis=axis)

    def reduce(self, name):
        if name in ("reduce_and", "reduce_or"):
            x = self.pick(lambda k: k.type.rank >= 1, dtype=bool_)
            self.emit(name, x, low=0, high=1, axes=self.some_axes(x))
            return
        x = self.tame(self.pick(lambda k: k.type.rank >= 1))
        axes = self.some_axes(x)
        count = float(np.prod([20.0 if isinstance(x.shape[a], Dim) else x.shape[a] for a in axes]))
        if name == "reduce_prod":
            reach = min(0.2, 2 / max(count, 1.0))
            x = self.bring(x, 1 - reach, 1 + reach)
        low, high = x.low, x.high
        if name == "reduce_sum":
            low, high = min(0.0, low * count), max(0.0, high * count)
        elif name == "reduce_prod":
            low, high = x.low**count, x.high**count
        self.emit(name, x, low=low, high=high, axes=axes)

    def contract(self, name):
        x = self.tame(self.pick(lambda k: k.type.rank >= 1))
        axes = [int(a) for a in self.rng.permutation(x.type.rank)]
        over, batch = axes[:1], axes[1:2] if self.chance(0.3) else []
        labels = [("over", over[0]), *(("batch", a) for a in batch)]
        labels += [("free", 0)] * int(self.rng.integers(0, 3))
        labels = [labels[i] for i in self.rng.permutation(len(labels))]
        shape = tuple(self.size() if kind == "free" else x.shape[a] for kind, a in labels)
        z = self.param(x.type.dtype, shape)
        attrs = {"batch_a": tuple(batch), "over_a": tuple(over)}
        for kind in ("batch", "over"):
            attrs[f"{kind}_b"] = tuple(i for i, (k, _) in enumerate(labels) if k == kind)
        count = 20.0 if isinstance(x.shape[over[0]], Dim) else x.shape[over[0]]
        bound = count * max(abs(x.low), abs(x.high))
        pair = (x, z)
        if self.chance(0.4):
            pair = (z, x)
            attrs = {k[:-1] + ("b" if k[-1] == "a" else "a"): v for k, v in attrs.items()}
        self.emit(name, *pair, low=-bound, high=bound, **attrs)

    def line(self, size, *, gaps=False, covered=False):
        """size, stride, low, high, dilation and interior of windows along an axis, that fit.

        covered  no window lies in the padding alone
        """
        plain = (1, 1, 0, 0, 1, 0)
        if not is_at_least(size, 1) or self.chance(0.3):
            return plain
        window, stride = self.choice((1, 2, 3)), self.choice((1, 1, 2, 3))
        dilation = 1 if covered else self.choice((1, 1, 2))
        interior = self.choice((0, 1, 2)) if gaps else 0
        reach = (window - 1) * dilation + 1
        low, high = (self.choice(range(min(reach, 3))) for _ in "lh")
        for least in range(1, 20):
            if is_at_least((size - 1) * (interior + 1) + 1 + low + high, reach):
                return window, stride, low, high, dilation, interior
            low, high = (low, high + 1) if least % 2 else (low + 1, high)
        return plain

    def windows(self, x, **options):
        lines = [self.line(s, **options) for s in x.shape]
        names = ("sizes", "strides", "low", "high", "dilation")
        return {name: tuple(line[i] for line in lines) for i, name in enumerate(names)}

    def conv(self, name):
        x = self.tame(self.pick(lambda k: k.type.rank >= 3))
        if x.type.rank < 3:
            x = self.param(self.base, self.shape(3))
        channels, *spatial = x.shape[1:] if name == "conv" else (x.shape[-1], *x.shape[1:-1])
        wide = isinstance(channels, int) and channels > 0
        groups = self.choice([g for g in (1, 2, 3, 5, 17) if channels % g == 0]) if wide else 1
        lines = [self.line(s, gaps=True) for s in spatial]
        if not all(is_at_least(s, 1) for s in spatial):
            return
        each = channels // groups if groups > 1 else channels
        w = self.param(
            x.type.dtype, (groups * self.choice((1, 2, 5, 17)), each, *(z[0] for z in lines))
        )
        names = ("stride", "low", "high", "dilation", "interior")
        attrs = {name: tuple(z[i] for z in lines) for i, name in enumerate(names, 1)}
        self.used |= {x.value, w.value}
        bound = 20.0 if isinstance(each, Dim) else each
        bound *= np.prod(w.shape[2:]) * max(abs(x.low), abs(x.high))
        self.keep(self.b.emit(name, x.value, w.value, groups=groups, **attrs), -bound, bound)

    conv_last = conv

    def window_sum(self, name):
        x = self.tame(self.pick(lambda k: k.type.rank >= 1))
        attrs = self.windows(x)
        count = float(np.prod(attrs["sizes"]))
        self.used.add(x.value)
        out = self.b.emit(name, x.value, **attrs)
        self.keep(out, min(0.0, x.low * count), max(0.0, x.high * count))

    def window_max(self, name):
        x = self.tame(self.pick(lambda k: k.type.rank >= 1))
        self.used.add(x.value)
        out = self.b.emit(name, x.value, **self.windows(x, covered=True))
        self.keep(out, x.low, x.high)

    def window_argmax(self, name):
        x = self.tame(self.pick(lambda k: k.type.rank >= 1))
        self.used.add(x.value)
        self.keep(self.b.emit(name, x.value, **self.windows(x)), 0, 27)

    def window_pick(self, name):
        x = self.tame(self.pick(lambda k: k.type.rank >= 1))
        attrs = self.windows(x)
        at = self.positions(x, attrs)
        self.used |= {x.value, at.value}
        out = self.b.emit(name, x.value, at.value, **attrs)
        self.keep(out, min(x.low, 0.0), max(x.high, 0.0))

    def window_place(self, name):
        x = self.tame(self.pick(lambda k: k.type.rank >= 1))
        attrs = self.windows(x)
        at = self.positions(x, attrs)
        u = self.param(x.type.dtype, at.shape)
        self.used.add(at.value)
        out = self.b.emit(name, u.value, at.value, shape=x.shape, **attrs)
        self.keep(out, -27.0, 27.0)

    def positions(self, x, attrs):
        """Positions in the windows over `x`, some of them out of range."""
        (counts,) = infer("window_sum", (x.type,), attrs)
        given = self.param(i32, counts.shape)
        return self.emit("sub", given, self.number(2, given.type), low=-4, high=5)

    def places(self, x):
        """Indices into `x`, some of them out of range, and how many leading axes are batches."""
        batch = int(x.type.rank >= 2 and self.chance(0.4))
        depth = int(self.rng.integers(1, min(2, x.type.rank - batch) + 1))
        at = self.shape(0, 1)
        given = self.param(i32, (*x.shape[:batch], *at, depth))
        # Arguments that are indices themselves must be in range; computed ones may leave it.
        two = self.number(2, given.type)
        return self.emit("sub", given, two, low=-4, high=5), batch, depth

    def gather(self, name):
        x = self.pick(lambda k: k.type.rank >= 1 and all(is_at_least(s, 1) for s in k.shape))
        indices, batch, _ = self.places(x)
        self.emit(name, x, indices, low=x.low, high=x.high, batch=batch)

    def scatter(self, name):
        x = self.tame(self.pick(lambda k: k.type.rank >= 1))
        indices, batch, depth = self.places(x)
        updates = self.param(x.type.dtype, (*indices.shape[:-1], *x.shape[batch + depth :]))
        reduce = self.choice(("set", "add", "mul", "max", "min"))
        attrs = {"batch": batch, "reduce": reduce}
        self.emit(name, x, indices, updates, low=x.low - 9, high=x.high + 9, **attrs)

    def ranked(self, least=0):
        """A value and one of its axes, whose size is `least` or more."""
        x = self.tame(self.pick(lambda k: any(is_at_least(s, least) for s in k.shape)))
        axes = [a for a, s in enumerate(x.shape) if is_at_least(s, least)]
        return x, self.choice(axes) if axes else None

    def argmax(self, name):
        x, axis = self.ranked(1)
        if axis is not None:
            self.emit(name, x, low=0, high=24, axis=axis)

    argmin = argmax

    def argsort(self, name):
        x, axis = self.ranked()
        self.emit(name, x, low=0, high=24, axis=axis, descending=self.chance(0.5))

    def cumulative(self, name):
        x, axis = self.ranked()
        reduce = self.choice(("sum", "prod", "max", "min"))
        count = 20.0 if isinstance(x.shape[axis], Dim) else max(x.shape[axis], 1)
        low, high = x.low, x.high
        if reduce == "sum":
            low, high = min(low, low * count), max(high, high * count)
        elif reduce == "prod":
            reach = 2 / count
            x = self.bring(x, 1 - reach, 1 + reach) if reach < 1 else self.bring(x, 0.5, 1.5)
            low, high = 0.0, max(1.0, x.high) ** count
        attrs = {"axis": axis, "reduce": reduce, "reverse": self.chance(0.5)}
        self.emit(name, x, low=low, high=high, **attrs)

    def recurrence(self, name):
        x, axis = self.ranked()
        a = self.bring(self.like(x), -0.5, 0.5)
        reach = 2 * max(abs(x.low), abs(x.high))
        self.emit(name, a, x, low=-reach, high=reach, axis=axis, reverse=self.chance(0.5))

    def starts(self, x):
        """Out of range where they are not clamped."""
        one = self.number(1, TensorType(i32))
        return [self.emit("sub", self.param(i32, ()), one, low=-3, high=6) for _ in x.shape]

    def dynamic_slice(self, name):
        x = self.pick(lambda k: k.type.rank >= 1)
        sizes = tuple(2 if is_at_least(s, 2) and self.chance(0.6) else s for s in x.shape)
        self.emit(name, x, *self.starts(x), low=x.low, high=x.high, sizes=sizes)

    def dynamic_update(self, name):
        x = self.pick(lambda k: k.type.rank >= 1)
        sizes = tuple(2 if is_at_least(s, 2) and self.chance(0.6) else s for s in x.shape)
        update = self.param(x.type.dtype, sizes)
        low, high = min(x.low, -1.0), max(x.high, 1.0)
        self.emit(name, x, update, *self.starts(x), low=low, high=high)

    def checkpoint(self, name):
        """The tangent of half of a value, computed again on the way back."""
        if not self.differentiable:
            return  # graphs without derivatives are also planned as they are, calls and all
        x = self.bring(self.pick(), -1.5, 1.5)
        b = Builder(infer)
        p = b.param(x.type)
        half = b.emit("full", value=0.5, dtype=x.type.dtype, shape=x.shape)
        body = b.graph("half", [b.emit("tan", b.emit("mul", p, half))])
        self.emit(name, x, low=-1, high=1, body=body)

    # ---- control flow: its graphs are made by makers of their own

    def inside(self, *types):
        """A maker of a sub-graph whose first parameters have these types; others may follow."""
        sub = _Maker(self.rng, self.differentiable, self.depth + 1)
        sub.base, sub.symbols = self.base, self.symbols
        low_high = {True: (-1, 1), False: (-2, 7)}
        return sub, [sub.keep(sub.b.param(t), *low_high[t.dtype.is_float]) for t in types]

    def fill(self, size):
        for _ in range(size):
            name = self.choice(self.names)
            kind = _kind(name)
            recipe = self.reduce if kind.startswith("reduce_") else getattr(self, kind)
            recipe(name)

    def damped(self, carry):
        """What a body sees of a carried value: little of it, so that no loop turns chaotic."""
        few = self.number(0.0625, carry.type)
        return self.emit("mul", carry, few, low=-0.0625, high=0.0625)

    def step(self, carry):
        """The next carried value, within -1..1 again."""
        same = [k for k in self.pool if k.type == carry.type and k.value is not carry.value]
        half = self.number(0.5, carry.type)
        pushed = self.emit(
            "mul", self.emit("tanh", self.tame(same[-1]), low=-1, high=1), half, low=-0.5, high=0.5
        )
        kept = self.emit("mul", carry, half, low=-0.5, high=0.5)
        return self.emit("add", kept, pushed, low=-1, high=1).value

    def outcome(self):
        """Some float value of a sub-graph."""
        floats = [k for k in self.pool if k.type.dtype.is_float]
        return self.tame(self.choice(floats[-3:]))

    def further(self, sub, count):
        """Operands for the parameters that a sub-graph came to need beyond the first ones."""
        return [self.param(p.type.dtype, p.type.shape) for p in sub.b.params[count:]]

    def emit_control(self, name, operands, ends, **attrs):
        self.used |= {k.value for k in operands}
        outputs = self.b.emit_all(name, *(k.value for k in operands), **attrs)
        for value, (low, high) in zip(outputs, ends, strict=True):
            self.keep(value, low, high)

    def scan(self, name):
        x = self.bring(self.pick(lambda k: k.type.rank >= 1), -1, 1)
        start = self.bring(self.pick(), -1, 1)
        length, row = x.shape[0], x.type.with_shape(*x.shape[1:])
        sub, (carry, _) = self.inside(start.type, row)
        sub.damped(carry)
        sub.fill(int(self.rng.integers(1, 4)))
        after, y = sub.step(carry), sub.outcome()
        body = sub.b.graph("step", [after, y.value])
        consts = self.further(sub, 2)
        body = Graph(body.name, (*body.params[2:], *body.params[:2]), body.nodes, body.results)
        attrs = {"consts": len(consts), "carried": 1, "length": length}
        attrs["reverse"] = self.chance(0.5)
        if self.differentiable and self.chance(0.3):
            attrs["remat"] = True
        ends = [(-1, 1), (y.low, y.high)]
        self.emit_control(name, [*consts, start, x], ends, body=body, **attrs)

    def switch(self, name):
        given = [self.bring(self.pick(), -1, 1) for _ in range(2)]
        operands, graphs, ends = list(given), [], None
        for i in range(int(self.rng.integers(1, 4))):
            sub, _ = self.inside(*(k.type for k in operands))
            sub.fill(int(self.rng.integers(1, 4)))
            y = sub.outcome() if ends is None else sub.tame(sub.like(Known(ends[0], -1, 1)))
            low, high = (
                (y.low, y.high) if ends is None else (min(ends[1], y.low), max(ends[2], y.high))
            )
            ends = (y.value, low, high)
            operands += self.further(sub, len(operands))
            graphs.append(sub.b.graph(f"branch{i}", [y.value]))
        # What later branches need, earlier ones take and leave.
        types = [k.type for k in operands]
        graphs = tuple(
            Graph(g.name, (*g.params, *map(Value, types[len(g.params) :])), g.nodes, g.results)
            for g in graphs
        )
        index = self.param(i32, ())
        self.emit_control(name, [index, *operands], [ends[1:]], branches=graphs)

    def while_(self, name):
        start = self.bring(self.pick(), -1, 1)
        count = self.param(i32, ())
        types = [count.type, start.type]
        sub, (k, carry) = self.inside(*types)
        sub.damped(carry)
        sub.fill(int(self.rng.integers(1, 4)))
        one = sub.number(1, k.type)
        body = sub.b.graph("step", [sub.emit("add", k, one, low=0, high=9).value, sub.step(carry)])
        consts = self.further(sub, 2)
        b = Builder(infer)
        counted, *_ = (b.param(p.type) for p in body.params)
        five = b.emit("full", value=5, dtype=i32, shape=())
        test = b.graph("below", [b.emit("lt", counted, five)])
        ends = [(5, 7), (-1, 1)]
        self.emit_control(name, [count, start, *consts], ends, test=test, body=body, carried=2)

    def barrier(self, name):
        x = self.pick()
        self.emit(name, x, self.pick(), low=x.low, high=x.high)

    def full(self, name):
        value = float(self.rng.choice([0.0, -0.0, 1.0, 0.5, -1.25, 2.0]))
        self.emit(name, low=value, high=value, value=value, dtype=self.base, shape=self.shape(1))

    def constant(self, name):
        shape = tuple(int(self.choice(SIZES)) for _ in range(int(self.rng.integers(1, 3))))
        stored = round_to(self.rng.uniform(-1, 1, shape), self.base)
        data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        self.emit(name, low=-1, high=1, data=data, dtype=self.base, shape=shape)

    def iota(self, name):
        shape = self.shape(1)
        axis = int(self.rng.integers(len(shape)))
        self.emit(name, low=0, high=24, dtype=self.base, shape=shape, axis=axis)

    def random_bits(self, name):
        seed, step = self.param(i64, ()), self.param(i64, ())
        site = int(self.rng.integers(0, 100))
        self.emit(name, seed, step, low=0, high=2.0**32, site=site, shape=self.shape(1))

    # ---- the whole

    def make(self, size):
        self.param(self.base, self.shape(1))
        self.fill(size)
        loose = [k for k in self.pool if k.value not in self.used and k.value not in self.b.params]
        results = loose[-4:] or self.pool[-1:]
        if not any(k.type.dtype.is_float for k in results):
            results = [*results, self.pick()]
        values = [self.result(k) for k in results]
        self.tell_sizes()
        return self.b.graph("random", values)

    def tell_sizes(self):
        """Every named size is an axis of a parameter, so that a call determines it."""
        told = {size for p in self.b.params for size in p.type.shape}
        for s in graph_symbols(self.b.graph("", ())):
            if symbol_size(s) not in told:
                self.param(self.base, (symbol_size(s),))

    def result(self, x):
        """In the dtype of the parameters: casts to f64 do not make f32 results exact."""
        if self.differentiable and x.type.dtype.is_float and x.type.dtype != self.base:
            x = self.emit("cast", x, low=x.low, high=x.high, dtype=self.base)
        return x.value
