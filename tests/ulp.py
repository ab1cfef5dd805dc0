"""Errors of the emitted functions in units in the last place, against wider arithmetic."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import llvm_harness
import numpy as np

from fluxc.compiler.ir.types import f32

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.types import DType

DIGITS = {"f32": 23, "f64": 52}
LEAST = {"f32": -126, "f64": -1022}


def _erf_wide(x: np.ndarray) -> np.ndarray:
    """erf in x's own precision: C's, since NumPy has none."""
    if x.dtype == np.float64:
        return np.array([math.erf(v) for v in x.tolist()])
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    # ctypes rounds a long double to a double: harmless for erfc, a small part of 1 - erfc.
    libm.erfcl.argtypes, libm.erfcl.restype = [ctypes.c_longdouble], ctypes.c_longdouble
    out = np.empty(len(x), np.longdouble)
    for i, v in enumerate(x.astype(np.float64).tolist()):
        if abs(v) > 0.5:
            out[i] = np.copysign(np.longdouble(1) - np.longdouble(libm.erfcl(abs(v))), v)
        else:
            out[i] = _erf_series(np.longdouble(v))
    return out


def _erf_series(x: np.longdouble) -> np.longdouble:
    """The Maclaurin series, for |x| <= 1/2."""
    if not np.isfinite(x) or x == 0:
        return x
    factor, total, term = 2 / np.sqrt(np.longdouble("3.14159265358979323846264338327950288")), x, x
    for n in range(1, 24):
        term = term * -x * x / n
        total = total + term / (2 * n + 1)
    return factor * total


@dataclass(frozen=True)
class Function:
    """reference: in the precision of its argument (long double for f64, double for f32).
    low, high: exponents of 2 between which the arguments of f64 are drawn; f32 takes all bits."""

    name: str
    reference: Callable[..., np.ndarray]
    arity: int = 1
    low: int = -60
    high: int = 12

    def body(self, *x: llvm_harness.LlvmScalar) -> llvm_harness.LlvmScalar:
        return getattr(x[0], self.name)(*x[1:])


# fmt: off
FUNCTIONS = {f.name: f for f in [
    Function("exp", np.exp), Function("exp2", np.exp2), Function("expm1", np.expm1),
    Function("log", np.log, high=1023, low=-1074), Function("log2", np.log2, high=1023, low=-1074),
    Function("log10", np.log10, high=1023, low=-1074), Function("log1p", np.log1p, high=1023),
    Function("sqrt", np.sqrt, low=-1074, high=1023),
    Function("rsqrt", lambda x: 1 / np.sqrt(x), low=-1074, high=1023),
    Function("cbrt", np.cbrt, low=-1074, high=1023),
    Function("sin", np.sin, high=1023), Function("cos", np.cos, high=1023),
    Function("tan", np.tan, high=1023),
    Function("asin", np.arcsin, high=1), Function("acos", np.arccos, high=1),
    Function("atan", np.arctan, high=100),
    Function("sinh", np.sinh), Function("cosh", np.cosh), Function("tanh", np.tanh),
    Function("asinh", np.arcsinh, high=1023), Function("acosh", np.arccosh, high=1023),
    Function("atanh", np.arctanh, high=1), Function("erf", _erf_wide, high=4),
    Function("pow", np.power, 2, -40, 40), Function("atan2", np.arctan2, 2, -600, 600),
    Function("fmod", np.fmod, 2, -1074, 1023), Function("mod", np.mod, 2, -1074, 1023),
    Function("floor_div", np.floor_divide, 2, -10, 30),
]}
# fmt: on

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, math.inf, -math.inf, math.nan]


def every(stride: int, start: int = 0) -> np.ndarray:
    """Every stride-th of all float32, all the exponents and both signs."""
    bits = np.arange(start, 1 << 32, stride, dtype=np.uint64).astype(np.uint32)
    return bits.view(np.float32)


def drawn(function: Function, dtype: DType, count: int, seed: int = 0) -> list[np.ndarray]:
    """Arguments: random exponents, near-integers, values about 1, and the special ones."""
    rng = np.random.default_rng(seed)
    low, high = function.low, function.high
    if dtype == f32:
        low, high = max(low, -149), min(high, 127)
    columns = []
    for _ in range(function.arity):
        sizes = np.ldexp(rng.uniform(1, 2, count), rng.integers(low, high + 1, count))
        sizes[: count // 8] = rng.uniform(0.4, 2.5, count // 8)
        sizes[count // 8 : count // 4] = rng.uniform(0, 40, count // 4 - count // 8)
        sizes[count // 4 : count // 3] = np.round(rng.uniform(0, 40, count // 3 - count // 4))
        columns.append(sizes * rng.choice([-1.0, 1.0], count))
    if function.arity == 2:
        columns[1] = np.roll(columns[1], count // 11)
    pairs = np.array(np.meshgrid(*[SPECIAL] * function.arity)).reshape(function.arity, -1)
    with np.errstate(all="ignore"):
        whole = [np.concatenate([c, p]) for c, p in zip(columns, pairs, strict=True)]
        return [column.astype(dtype.numpy) for column in whole]


def ulps(
    name: str,
    dtype: DType,
    lanes: int,
    arguments: list[np.ndarray],
    target: llvm_harness.Target = llvm_harness.HOST,
) -> tuple[float, list[float]]:
    """The largest error and the arguments where it is; infinite where inf, NaN or 0 is wrong."""
    function = FUNCTIONS[name]
    compiled = llvm_harness.build(function.body, (dtype,) * function.arity, dtype, lanes, target)
    got = compiled.call(*arguments)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wide = [a.astype(np.float64 if dtype == f32 else np.longdouble) for a in arguments]
        expected = function.reference(*wide)
        error = errors(got, expected, dtype)
    at = int(np.argmax(error))
    return float(error[at]), [float(a[at]) for a in arguments]


def errors(got: np.ndarray, expected: np.ndarray, dtype: DType) -> np.ndarray:
    """|got - expected| in units of the last place of `expected`, elementwise."""
    rounded = expected.astype(dtype.numpy)
    _, exponent = np.frexp(np.where(np.isfinite(expected), expected, 1))
    exponent = np.where(expected == 0, -2000, exponent - 1)
    last = np.maximum(exponent, LEAST[dtype.name]) - DIGITS[dtype.name]
    error = np.abs(got.astype(expected.dtype) - expected) / np.ldexp(np.ones_like(expected), last)
    error = np.where(np.isnan(error), np.inf, error)
    # An overflow may round to the largest number or to infinity, both within one unit.
    overflow = np.isinf(got) & (np.abs(expected) >= np.finfo(dtype.numpy).max)
    overflow &= np.sign(got) == np.sign(expected)
    both_nan = np.isnan(got) & np.isnan(rounded)
    error = np.where(both_nan | overflow | (got == expected), 0, error)
    wrong_zero = (got == 0) & (rounded == 0) & (np.signbit(got) != np.signbit(rounded))
    return np.where(wrong_zero, np.inf, error)
