"""Operations that hold graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.types import TensorType, f64
from fluxc.compiler.ops.batching import batch_graph, with_axis
from fluxc.compiler.ops.op import GraphRule, Op, infer, register

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def infer_checkpoint(*xs: TensorType, body: Graph) -> tuple[TensorType, ...]:
    _check_types("checkpoint: body's parameters", xs, body.params)
    return tuple(v.type for v in body.results)


def checkpoint_vjp(
    b: Builder,
    dys: tuple[Value | None, ...],
    _ys: tuple[Value, ...],
    *xs: Value,
    wanted: tuple[bool, ...],
    pullback: Callable[..., list[Value | None]],
    body: Graph,
) -> tuple[Value | None, ...]:
    """The body once more, from inputs that are there only once the cotangents are."""
    arrived = [d for d in dys if d is not None]
    again = [b.emit("barrier", x, *arrived) for x in xs]
    before = len(b.nodes)
    results = b.inline(body, again)
    wrt = [x for x, has in zip(again, wanted, strict=True) if has]
    found = iter(pullback(b, tuple(b.nodes[before:]), results, dys, wrt))
    return tuple(next(found) if has else None for has in wanted)


def checkpoint_jvp(
    b: Builder,
    ys: tuple[Value, ...],
    *xs: Value,
    tangents: tuple[Value | None, ...],
    pushforward: Callable[..., list[Value | None]],
    body: Graph,
) -> tuple[Value | None, ...]:
    """The tangents are a checkpoint of their own, so that they can be pulled back as cheaply."""
    inner = Builder(infer)
    params = [inner.param(x.type) for x in xs]
    results = inner.inline(body, params)
    nodes = tuple(inner.nodes)
    moved = {p: inner.param(p.type) for p, t in zip(params, tangents, strict=True) if t is not None}
    found = pushforward(inner, nodes, moved, results)
    graph = inner.graph(f"{body.name}_jvp", [t for t in found if t is not None])
    if not graph.results:
        return (None,) * len(ys)
    given = [t for t in tangents if t is not None]
    made = iter(b.emit_all("checkpoint", *xs, *given, body=graph))
    return tuple(None if t is None else next(made) for t in found)


def checkpoint_batch(
    b: Builder, size: Size, *xs: Value, batched: tuple[bool, ...], body: Graph
) -> tuple[Value, ...]:
    return b.emit_all("checkpoint", *xs, body=batch_graph(body, size, batched)[0])


def sample_checkpoint(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """sin(x * z) and x."""
    b, type = Builder(infer), TensorType(f64, (3,))
    x, z = b.param(type, "x"), b.param(type, "z")
    body = b.graph("wave", [b.emit("sin", b.emit("mul", x, z)), x])
    return (rng.normal(size=3), rng.normal(size=3)), {"body": body}


def infer_barrier(x: TensorType, *_others: TensorType) -> TensorType:
    return x


def barrier_batch(
    b: Builder, size: Size, x: Value, *others: Value, batched: tuple[bool, ...]
) -> Value:
    held = b.emit("barrier", x, *others)
    return held if batched[0] else with_axis(b, size, held)


register(
    Op(
        name="checkpoint",
        infer=infer_checkpoint,
        reference=lambda *xs, body: tuple(body(*xs)),
        vjp=GraphRule(checkpoint_vjp),
        sample=sample_checkpoint,
        batch=checkpoint_batch,
        jvp=GraphRule(checkpoint_jvp),
        doc="body(*xs), whose way back computes the body again rather than keep what it computed",
    )
)
register(
    Op(
        name="barrier",
        infer=infer_barrier,
        reference=lambda x, *_others: x.copy(),
        vjp=lambda _b, dy, _y, _x, *others: (dy, *[None] * len(others)),
        sample=lambda rng: ((rng.normal(size=(2, 3)), rng.normal(size=4)), {}),
        lower=lambda _k, index, _types, x, *_others: x(index),
        batch=barrier_batch,
        doc="x, and whatever is computed from it is computed after the other operands",
    )
)
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
