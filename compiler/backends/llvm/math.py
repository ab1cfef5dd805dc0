"""The functions of `LlvmScalar`: one name each, whatever file it is written in.

They take f32 and f64, one number or a vector.  Errors are measured in docs/numerics.md.
"""

from __future__ import annotations

from fluxc.compiler.backends.llvm.math_arc import acos, asin, atan, atan2
from fluxc.compiler.backends.llvm.math_division import floor_div, fmod, mod
from fluxc.compiler.backends.llvm.math_exp import cosh, erf, exp, exp2, expm1, sinh, tanh
from fluxc.compiler.backends.llvm.math_log import acosh, asinh, atanh, log, log1p, log2, log10
from fluxc.compiler.backends.llvm.math_power import cbrt, pow
from fluxc.compiler.backends.llvm.math_trig import cos, sin, tan

__all__ = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "cos",
    "cosh",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "floor_div",
    "fmod",
    "log",
    "log1p",
    "log2",
    "log10",
    "mod",
    "pow",
    "sin",
    "sinh",
    "tan",
    "tanh",
]
