"""Running results along an axis: each element depends on those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError
from fluxc.compiler.ops.batching import batching
from fluxc.compiler.ops.checks import check_axis, check_dtype, check_same
from fluxc.compiler.ops.op import Op, register
from fluxc.compiler.ops.reference import quiet
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from fluxc.compiler.ir.types import TensorType

__all__ = ["RUNNING"]

RUNNING = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def infer_cumulative(x: TensorType, *, axis: int, reduce: str, reverse: bool) -> TensorType:
    check_dtype("cumulative", x, "fiu")
    check_axis("cumulative", axis, x.rank)
    if reduce not in RUNNING:
        raise DTypeError(
            f"cumulative: no reduction is {reduce!r}", expected=", ".join(RUNNING), got=repr(reduce)
        )
    check_flag("cumulative", "reverse", reverse)
    return x


def check_flag(op: str, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise DTypeError(f"{op}: {name} must be true or false", got=repr(value))


def cumulative_reference(x: np.ndarray, *, axis: int, reduce: str, reverse: bool) -> np.ndarray:
    line = np.flip(x, axis) if reverse else x
    run = RUNNING[reduce].accumulate(line, axis, dtype=x.dtype)
    return np.asarray(np.flip(run, axis) if reverse else run)


def cumulative_vjp(
    dy: Term, y: Term, x: Term, *, axis: int, reduce: str, reverse: bool
) -> tuple[Term]:
    """By y[t] = f(y[t-1], x[t]): what y[t] gets from all that follows is a recurrence backwards."""
    if reduce == "sum":
        return (dy.cumulative(axis=axis, reduce="sum", reverse=not reverse),)
    neutral = {"prod": 1.0, "max": -np.inf, "min": np.inf}[reduce]
    before = shifted(y, axis, neutral, reverse=reverse)
    if reduce == "prod":
        handed, taken = x, before
    else:
        beaten, beats = ("gt", "lt") if reduce == "max" else ("lt", "gt")
        share = x.eq(before).select(x.like(0.5), 1.0)
        handed = x.emit(beaten, before).select(0.0, share)
        taken = x.emit(beats, before).select(0.0, share)
    following = shifted(handed, axis, 0.0, reverse=not reverse)
    total = following.recurrence(dy, axis=axis, reverse=not reverse)
    return (total * taken,)


def shifted(x: Term, axis: int, first: float, *, reverse: bool) -> Term:
    """Each element's predecessor along `axis`, `first` where there is none."""
    edge = [0] * x.type.rank
    edge[axis] = 1
    low, high = (tuple(0 for _ in edge), tuple(edge))
    if not reverse:
        low, high = high, low
    grown = x.pad(x.full(first, x.dtype, ()), low=low, high=high, interior=(0,) * x.type.rank)
    starts = tuple(high)
    limits = tuple(s + e for s, e in zip(x.shape, starts, strict=True))
    return grown.slice(starts=starts, limits=limits, steps=(1,) * x.type.rank)


def infer_recurrence(a: TensorType, b: TensorType, *, axis: int, reverse: bool) -> TensorType:
    check_same("recurrence", (a, b))
    check_dtype("recurrence", a, "fiu")
    check_axis("recurrence", axis, a.rank)
    check_flag("recurrence", "reverse", reverse)
    return a


def recurrence_reference(a: np.ndarray, b: np.ndarray, *, axis: int, reverse: bool) -> np.ndarray:
    y = np.empty_like(b)
    factors, terms, out = (np.moveaxis(v, axis, 0) for v in (a, b, y))
    held = np.zeros(out.shape[1:], b.dtype)
    steps = range(len(out))
    for t in reversed(steps) if reverse else steps:
        held = terms[t] + factors[t] * held
        out[t] = held
    return y


def recurrence_vjp(
    dy: Term, y: Term, a: Term, _b: Term, *, axis: int, reverse: bool
) -> tuple[Term, Term]:
    following = shifted(a, axis, 0.0, reverse=not reverse)
    db = following.recurrence(dy, axis=axis, reverse=not reverse)
    return db * shifted(y, axis, 0.0, reverse=reverse), db


def sample_cumulative(rng: np.random.Generator) -> tuple[tuple[np.ndarray], dict[str, Any]]:
    attrs = {
        "axis": int(rng.integers(3)),
        "reduce": str(rng.choice(list(RUNNING))),
        "reverse": bool(rng.integers(2)),
    }
    return (rng.normal(size=(2, 5, 3)),), attrs


def sample_recurrence(
    rng: np.random.Generator,
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, Any]]:
    attrs = {"axis": int(rng.integers(3)), "reverse": bool(rng.integers(2))}
    return (rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 3))), attrs


register(
    Op(
        name="cumulative",
        infer=infer_cumulative,
        reference=quiet(cumulative_reference),
        vjp=derivative(cumulative_vjp),
        sample=sample_cumulative,
        batch=batching(lambda _size, x, *, axis, **attrs: x.cumulative(axis=axis + 1, **attrs)),
        doc="y[t] = sum, prod, max or min of x[0], ..., x[t] along axis; reverse: of x[t] and all "
        "after it",
    )
)
register(
    Op(
        name="recurrence",
        infer=infer_recurrence,
        reference=quiet(recurrence_reference),
        vjp=derivative(recurrence_vjp),
        sample=sample_recurrence,
        batch=batching(
            lambda _size, a, b, *, axis, reverse: a.recurrence(b, axis=axis + 1, reverse=reverse)
        ),
        doc="y[t] = a[t]*y[t-1] + b[t] along axis, with 0 before the first; reverse: y[t+1]",
    )
)
