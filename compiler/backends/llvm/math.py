"""The functions of `LlvmScalar`: one name each, whatever file it is written in.

They take f32 and f64, one number or a vector.  Errors are measured in docs/numerics.md.
"""

from __future__ import annotations

from fluxc.compiler.backends.llvm.arithmetic import function
from fluxc.compiler.backends.llvm.math_division import floor_div, fmod, mod
from fluxc.compiler.backends.llvm.math_exp import cosh, exp, exp2, expm1, sinh
from fluxc.compiler.backends.llvm.math_power import cbrt, pow
from fluxc.compiler.backends.llvm.math_trig import cos, sin, tan
from fluxc.compiler.functions import arc, exponential, logarithm

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

acos = function(arc.acos)
acosh = function(logarithm.acosh)
asin = function(arc.asin)
asinh = function(logarithm.asinh)
atan = function(arc.atan)
atan2 = function(arc.atan2)
atanh = function(logarithm.atanh)
erf = function(exponential.erf)
log = function(logarithm.log)
log1p = function(logarithm.log1p)
log2 = function(logarithm.log2)
log10 = function(logarithm.log10)
tanh = function(exponential.tanh)
