"""Positions along an axis: of its greatest and least element, and of its elements in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.types import i64
from fluxc.compiler.ops.batching import batching
from fluxc.compiler.ops.checks import check_axis, check_dtype, prove_at_least
from fluxc.compiler.ops.op import Op, ZeroGradient, register

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.types import TensorType

__all__: list[str] = []

POSITION = ZeroGradient("a position is an integer, which carries no derivative")


def infer_extremum(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, axis: int) -> TensorType:
        check_axis(name, axis, x.rank)
        prove_at_least(name, f"size of axis {axis} of {x}", x.shape[axis], 1)
        return x.with_shape(*x.shape[:axis], *x.shape[axis + 1 :]).with_dtype(i64)

    return infer


def infer_argsort(x: TensorType, *, axis: int, descending: bool) -> TensorType:
    check_dtype("argsort", x, "fiub")
    check_axis("argsort", axis, x.rank)
    if not isinstance(descending, bool):
        raise ShapeError("argsort: descending must be true or false", got=repr(descending))
    return x.with_dtype(i64)


def argsort_reference(x: np.ndarray, *, axis: int, descending: bool) -> np.ndarray:
    if not descending:
        return np.asarray(np.argsort(x, axis, kind="stable"), np.int64)
    # Backwards twice: stable in the other direction.
    turned = np.argsort(np.flip(x, axis), axis, kind="stable")
    return np.asarray(x.shape[axis] - 1 - np.flip(turned, axis), np.int64)


def sample_extremum(rng: np.random.Generator) -> tuple[tuple[np.ndarray], dict[str, Any]]:
    return (rng.normal(size=(2, 5, 3)),), {"axis": int(rng.integers(3))}


def sample_argsort(rng: np.random.Generator) -> tuple[tuple[np.ndarray], dict[str, Any]]:
    (x,), attrs = sample_extremum(rng)
    return (x,), {**attrs, "descending": bool(rng.integers(2))}


for name, function, word in (
    ("argmax", np.argmax, "greatest"),
    ("argmin", np.argmin, "least"),
):
    register(
        Op(
            name=name,
            infer=infer_extremum(name),
            reference=lambda x, *, axis, function=function: np.asarray(function(x, axis)),
            vjp=POSITION,
            sample=sample_extremum,
            batch=batching(lambda _size, x, *, axis, name=name: x.emit(name, axis=axis + 1)),
            doc=f"position along axis of the {word} element, the first of equals; of the first NaN "
            "if there is one",
        )
    )
register(
    Op(
        name="argsort",
        infer=infer_argsort,
        reference=argsort_reference,
        vjp=POSITION,
        sample=sample_argsort,
        batch=batching(
            lambda _size, x, *, axis, descending: x.argsort(axis=axis + 1, descending=descending)
        ),
        doc="positions along axis of the elements in order; equals keep theirs; NaN is greatest",
    )
)
