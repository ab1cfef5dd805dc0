"""What `fx.export(..., precision=)` does: products in 16 bits, and all that is stored in f32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.ir.types import bf16, f16
from fluxc.compiler.passes.mixed_precision import mixed_precision
from fluxc.module import Param

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from fluxc.compiler.ir.graph import Value
    from fluxc.compiler.ir.types import DType
    from fluxc.trace import Trace

__all__ = ["compute_dtype", "narrow_products"]

_NAMES = {"bf16": bf16, "f16": f16, "f32": None}


def compute_dtype(precision: Any, fail: Callable[..., NoReturn]) -> DType | None:
    """The 16-bit dtype of products; None where they are as declared."""
    name = getattr(precision, "name", precision)
    if name is None:
        return None
    if not isinstance(name, str) or name not in _NAMES:
        fail("precision= is that of products", expected='"bf16", "f16" or "f32"', got=repr(name))
    return _NAMES[name]


def narrow_products(trace: Trace, values: list[Value], dtype: DType) -> list[Value]:
    """Let what was traced so far compute its products in `dtype`; what `values` are then."""
    parameters = [v for key, v in trace.reads.items() if isinstance(key, Param)]
    graph = trace.builder.graph("narrowed", [*values, *trace.updates.values()])
    changed = mixed_precision(graph, dtype, parameters)
    trace.builder.nodes[:] = changed.nodes
    count = len(values)
    trace.updates.update(zip(trace.updates, changed.results[count:], strict=True))
    return list(changed.results[:count])
