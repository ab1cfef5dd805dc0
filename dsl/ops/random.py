"""Random numbers inside a program: `fx.random.uniform`, `normal`, `categorical`, ...

Each call in a program is a site of its own; what it draws depends on the model's seed, the number
of calls so far of entries that draw, the site, and the element's position, and on nothing else.
An entry that draws changes the model by that count, in test mode too: its next call draws others.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Dim
from fluxc.ops.elementwise import abs, cos, erf, exp, log, log1p, sign, sqrt, tan, where
from fluxc.ops.index import take
from fluxc.ops.layout import as_shape, normal_axis
from fluxc.ops.order import argmax, argsort
from fluxc.ops.reduce import stop_gradient
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast_shapes, cast
from fluxc.trace import current, emit, fail
from fluxc.types import DTypeLike, as_dtype

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Value

__all__ = [
    "SEED", "STEP", "bernoulli", "bits", "categorical", "cauchy", "exponential", "gumbel",
    "laplace", "logistic", "normal", "permutation", "rademacher", "randint", "truncated_normal",
    "uniform",
]  # fmt: skip

SEED, STEP = "random.seed", "random.step"
# As many leading bits as the format's significand holds: every result is below 1, exactly.
_SIGNIFICAND = {"f64": 32, "f32": 24, "f16": 11, "bf16": 8}


def bits(shape: Any) -> Tensor:
    """Uniform random bits, u32."""
    trace = current("a random number")
    seed, step = trace.read(SEED, ir.TensorType(ir.i64)), trace.read(STEP, ir.TensorType(ir.i64))
    step = _in_loops(step, trace.steps)
    return Tensor(emit("random_bits", seed, step, site=trace.next_site(), shape=as_shape(shape)))


def _in_loops(step: Value, steps: tuple[Value, ...]) -> Value:
    """A step for each step of the loops around: they are counted in its upper 32 bits.

    Loops inside of loops: multiples of the golden section keep clear of one another modulo 2**32.
    """
    if not steps:
        return step
    count = Tensor(steps[0]) + 1
    for inner in steps[1:]:
        count = count * 0x9E3779B1 + Tensor(inner) + 1
    return (Tensor(step) + ((count & 0xFFFFFFFF) << 32)).value


def uniform(
    shape: Any, low: TensorLike = 0.0, high: TensorLike = 1.0, dtype: DTypeLike = "f32"
) -> Tensor:
    """Uniform on [low, high)."""
    chosen = as_dtype(dtype)
    if not chosen.is_float:
        fail(DTypeError, f"uniform numbers of dtype {chosen}", expected="a float dtype")
    significand = _SIGNIFICAND[chosen.name]
    whole = bits(shape)
    whole = whole >> (32 - significand) if significand < 32 else whole
    wide = ir.f64 if chosen == ir.f64 else ir.f32
    unit = cast(cast(whole, wide) * 2.0**-significand, chosen)
    if isinstance(low, int | float) and isinstance(high, int | float):
        if (low, high) == (0, 1):
            return unit
        return unit * (high - low) + low
    return unit * (high - low) + low  # type: ignore[operator]


def normal(
    shape: Any, mean: TensorLike = 0.0, std: TensorLike = 1.0, dtype: DTypeLike = "f32"
) -> Tensor:
    """Normal with the given mean and standard deviation (Box and Muller's transform)."""
    chosen = as_dtype(dtype)
    wide = ir.f64 if chosen == ir.f64 else ir.f32
    radius = sqrt(-2.0 * log(1.0 - uniform(shape, dtype=wide)))
    unit = radius * cos(2 * math.pi * uniform(shape, dtype=wide))
    return cast(unit, chosen) * std + mean


def bernoulli(p: TensorLike, shape: Any) -> Tensor:
    """True with probability p, a bool tensor."""
    return uniform(shape) < p


def _open_unit(shape: Any, dtype: Any) -> Tensor:
    """Uniform on (0, 1), never 0 or 1: centres of equal intervals.  f64, or f32 for the others."""
    if dtype == ir.f64:
        return (cast(bits(shape), ir.f64) + 0.5) * 2.0**-32
    return (cast(bits(shape) >> 9, ir.f32) + 0.5) * 2.0**-23


def _float(dtype: DTypeLike, what: str) -> ir.DType:
    chosen = as_dtype(dtype)
    if not chosen.is_float:
        fail(DTypeError, f"{what} numbers of dtype {chosen}", expected="a float dtype")
    return chosen


def exponential(shape: Any, scale: TensorLike = 1.0, dtype: DTypeLike = "f32") -> Tensor:
    """Exponential with mean `scale`."""
    chosen = _float(dtype, "exponential")
    return cast(-log(_open_unit(shape, chosen)), chosen) * scale


def gumbel(shape: Any, dtype: DTypeLike = "f32") -> Tensor:
    """Gumbel's distribution: -log(-log(u))."""
    chosen = _float(dtype, "Gumbel")
    return cast(-log(-log(_open_unit(shape, chosen))), chosen)


def laplace(shape: Any, dtype: DTypeLike = "f32") -> Tensor:
    """Laplace's distribution with location 0 and scale 1."""
    chosen = _float(dtype, "Laplace")
    side = _open_unit(shape, chosen) - 0.5
    return cast(-sign(side) * log1p(-2.0 * abs(side)), chosen)


def logistic(shape: Any, dtype: DTypeLike = "f32") -> Tensor:
    """The logistic distribution with location 0 and scale 1."""
    chosen = _float(dtype, "logistic")
    u = _open_unit(shape, chosen)
    return cast(log(u) - log1p(-u), chosen)


def cauchy(shape: Any, dtype: DTypeLike = "f32") -> Tensor:
    """Cauchy's distribution with location 0 and scale 1."""
    chosen = _float(dtype, "Cauchy")
    return cast(tan(math.pi * (_open_unit(shape, chosen) - 0.5)), chosen)


def truncated_normal(
    shape: Any, lower: TensorLike = -2.0, upper: TensorLike = 2.0, dtype: DTypeLike = "f32"
) -> Tensor:
    """Standard normal, of which only what lies between `lower` and `upper` is drawn."""
    chosen = _float(dtype, "normal")
    wide = ir.f64 if chosen == ir.f64 else ir.f32
    low, high = as_tensor(lower, wide), as_tensor(upper, wide)
    first, last = erf(low * 0.5**0.5), erf(high * 0.5**0.5)
    # Rounding may have left the interval by a little.
    unit = first + (last - first) * _open_unit(shape, chosen)
    drawn = 2.0**0.5 * _inverse_erf(unit)
    return cast(where(drawn < low, low, where(drawn > high, high, drawn)), chosen)


def _inverse_erf(x: Tensor) -> Tensor:
    """y with erf(y) = x, by M. Giles's polynomials (Approximating the erfinv function, 2010) and
    a step of Newton's method, which also carries the derivative."""
    w = -log((1.0 - x) * (1.0 + x))
    middle, tail = _polynomial(_MIDDLE, w - 2.5), _polynomial(_TAIL, sqrt(w) - 3.0)
    guess = stop_gradient(where(w < 5.0, middle, tail) * x)
    steps = 2 if x.type.dtype == ir.f64 else 1
    for _ in range(steps):
        slope = exp(guess * guess) * (math.pi**0.5 / 2)
        guess = guess - (erf(guess) - x) * slope
    return guess


def _polynomial(coefficients: tuple[float, ...], w: Tensor) -> Tensor:
    total = w * 0.0 + coefficients[0]
    for c in coefficients[1:]:
        total = total * w + c
    return total


_MIDDLE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
    -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
    0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def rademacher(shape: Any, dtype: DTypeLike = "f32") -> Tensor:
    """-1 or 1, each with probability 1/2."""
    return cast(cast(bits(shape) >> 31, ir.i32) * 2 - 1, as_dtype(dtype))


def randint(shape: Any, low: TensorLike, high: TensorLike, dtype: DTypeLike = "i32") -> Tensor:
    """Integers from low to high - 1, each as likely (to one part in 2**32 / (high - low))."""
    chosen = as_dtype(dtype)
    if not chosen.is_integer:
        fail(DTypeError, f"integers of dtype {chosen}", expected="an integer dtype")
    first, last = as_tensor(low, ir.i64), as_tensor(high, ir.i64)
    # The upper half of a product of 32 bits by the number of choices.
    scaled = (cast(bits(shape), ir.i64) * (last - first)) >> 32
    return cast(scaled + first, chosen)


def categorical(logits: TensorLike, axis: int = -1, shape: Any = None) -> Tensor:
    """A position, i64, along `axis` with probability softmax(logits) (by Gumbel's maximum).

    shape  of the result; it broadcasts with the shape of logits without `axis`, the default.
    """
    x = as_tensor(logits)
    if not x.type.dtype.is_float:
        fail(DTypeError, "categorical: the logits are floats", got=str(x.type))
    a = normal_axis(axis, x.ndim)
    rest = (*x.shape[:a], *x.shape[a + 1 :])
    drawn = rest if shape is None else as_shape(shape)
    if broadcast_shapes(rest, drawn) != drawn:
        fail(ShapeError, "categorical: the shape does not take in the logits", got=str(x.type))
    place = len(drawn) - (len(rest) - a)
    noise = gumbel((*drawn[:place], x.shape[a], *drawn[place:]), x.type.dtype)
    return argmax(x + noise, place)


def permutation(x: TensorLike, axis: int = 0) -> Tensor:
    """The numbers 0 .. x - 1 in random order (i64), or a tensor's parts along `axis`."""
    whole = not isinstance(x, int | Dim)
    size = as_tensor(x).shape[axis] if whole else x
    # Keys of 64 bits: that two are equal, and keep their order, does not happen.
    keys = (cast(bits((size,)), ir.i64) << 31) ^ cast(bits((size,)), ir.i64)
    order = argsort(keys)
    return take(x, order, axis) if whole else order
