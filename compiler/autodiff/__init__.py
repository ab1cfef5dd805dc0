"""Derivatives as programs: a graph goes in, a graph comes out, nothing is recorded at run time."""

from fluxc.compiler.autodiff.forward import jvp, pushforward
from fluxc.compiler.autodiff.reverse import pullback, vjp

__all__ = ["jvp", "pullback", "pushforward", "vjp"]
