"""Operations that hold graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.types import TensorType, f64
from fluxc.compiler.ops.batching import batch_graph
from fluxc.compiler.ops.op import Op, infer, register

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Graph, Value

__all__: list[str] = []


def infer_custom_vjp(*xs: TensorType, body: Graph, backward: Graph) -> tuple[TensorType, ...]:
    """Cotangents come in for the float outputs and go out for the float inputs only."""
    outputs = tuple(v.type for v in body.results)
    floats = tuple(t for t in outputs if t.dtype.is_float)
    _check_types("custom_vjp: body's parameters", xs, body.params)
    _check_types(
        "custom_vjp: backward's parameters (inputs, outputs, cotangents of float outputs)",
        (*xs, *outputs, *floats),
        backward.params,
    )
    _check_types(
        "custom_vjp: backward's results (one cotangent for each float input)",
        tuple(t for t in xs if t.dtype.is_float),
        backward.results,
    )
    return outputs


def _check_types(what: str, expected: tuple[TensorType, ...], got: Sequence[Value]) -> None:
    types = tuple(v.type for v in got)
    if types != expected:
        raise ShapeError(
            f"{what} do not fit",
            expected=", ".join(map(str, expected)),
            got=", ".join(map(str, types)),
        )


def custom_vjp_reference(*xs: np.ndarray, body: Any, backward: Any) -> tuple[np.ndarray, ...]:
    """Graphs come as functions of arrays."""
    del backward
    return tuple(body(*xs))


def custom_vjp_vjp(
    b: Builder, dy: Any, y: Any, *xs: Value, body: Graph, backward: Graph
) -> tuple[Value | None, ...]:
    del body
    outputs, cotangents = (y, dy) if isinstance(y, tuple) else ((y,), (dy,))
    floats = [d for d, v in zip(cotangents, outputs, strict=True) if v.type.dtype.is_float]
    found = iter(b.inline(backward, (*xs, *outputs, *floats)))
    return tuple(next(found) if x.type.dtype.is_float else None for x in xs)


def custom_vjp_batch(
    b: Builder, size: Size, *xs: Value, batched: tuple[bool, ...], body: Graph, backward: Graph
) -> tuple[Value, ...]:
    """Both graphs for the whole batch; an input that all examples share gets their sum."""
    many, _ = batch_graph(body, size, batched)
    rest = len(backward.params) - len(xs)
    each, _ = batch_graph(backward, size, (*batched, *[True] * rest))
    floats = [has for x, has in zip(xs, batched, strict=True) if x.type.dtype.is_float]
    inner = Builder(infer)
    found = inner.inline(each, [inner.param(p.type, p.name) for p in each.params])
    pairs = zip(found, floats, strict=True)
    summed = [d if has else inner.emit("reduce_sum", d, axes=(0,)) for d, has in pairs]
    backward = inner.graph(backward.name, summed)
    return b.emit_all("custom_vjp", *xs, body=many, backward=backward)


def sample_custom_vjp(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """x*x*x with its own rule."""
    body, backward = Builder(infer), Builder(infer)
    type = TensorType(f64, (3,))
    x = body.param(type, "x")
    cube = body.emit("mul", body.emit("mul", x, x), x)
    x, _, dy = (backward.param(type, name) for name in ("x", "y", "dy"))
    three = backward.emit("full", value=3.0, dtype=f64, shape=(3,))
    dx = backward.emit("mul", backward.emit("mul", three, dy), backward.emit("mul", x, x))
    graphs = {"body": body.graph("cube", [cube]), "backward": backward.graph("cube_vjp", [dx])}
    return (rng.normal(size=3),), graphs


register(
    Op(
        name="custom_vjp",
        infer=infer_custom_vjp,
        reference=custom_vjp_reference,
        vjp=custom_vjp_vjp,
        sample=sample_custom_vjp,
        batch=custom_vjp_batch,
        doc="body(*xs), whose cotangents are backward(*xs, *outputs, *cotangents)",
    )
)
