"""Random numbers inside a program: `fx.random.uniform`, `normal`, `bernoulli`.

Each call in a program is a site of its own; what it draws depends on the model's seed, the number
of calls so far of entries that draw, the site, and the element's position, and on nothing else.
An entry that draws changes the model by that count, in test mode too: its next call draws others.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import DTypeError
from fluxc.compiler.ir import types as ir
from fluxc.ops.elementwise import cos, log, sqrt
from fluxc.ops.layout import as_shape
from fluxc.tensor import Tensor, TensorLike, cast
from fluxc.trace import current, emit, fail
from fluxc.types import DTypeLike, as_dtype

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Value

__all__ = ["SEED", "STEP", "bernoulli", "bits", "normal", "uniform"]

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
