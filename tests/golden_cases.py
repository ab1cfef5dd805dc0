"""Cases of `tests/golden/`: PyTorch's results and gradients beside fluxc's.

A golden module has CASES, whose rows begin with the operands and fluxc's function, `inputs(name)`,
`seed(name, shape)`, and FILE with the results `name.y` and the gradients `name.g0`, `name.g1`, ...
"""

from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import numpy as np
from compiled import assert_agrees

import fluxc as fx
from dsl import spec_of, trace
from fluxc.compiler.autodiff import vjp
from fluxc.compiler.ir import types as ir


@dataclass(frozen=True)
class Golden:
    """The cases of one golden module."""

    module: ModuleType

    @cached_property
    def values(self):
        with np.load(self.module.FILE) as stored:
            return dict(stored)

    def differentiated(self, name, dtype="f64"):
        """The graph of a case: operands and a cotangent give the result and every gradient."""
        _, function, _ = self.module.CASES[name]
        wanted = getattr(ir, dtype).numpy
        arrays = [x.astype(wanted) for x in self.module.inputs(name)]
        entry, _ = trace(lambda *xs: function(fx, *xs), *map(spec_of, arrays))
        return vjp(entry.graph)

    def arguments(self, name, dtype=np.float64):
        seed = self.module.seed(name, self.values[f"{name}.y"].shape)
        return [np.asarray(x, dtype) for x in (*self.module.inputs(name), seed)]

    def wanted(self, name):
        count = len(self.module.CASES[name][0])
        return [self.values[f"{name}.{part}"] for part in ("y", *(f"g{i}" for i in range(count)))]

    def assert_all(self, got, name, dtype, context):
        """The result and every gradient are PyTorch's, within 30 times the dtype's tolerance."""
        for g, w in zip(got, self.wanted(name), strict=True):
            scale = 30 * max(1.0, np.abs(w).max(initial=0.0))
            assert_agrees(np.asarray(g), w, dtype, scale=scale, context=f"{name}, {context}")
