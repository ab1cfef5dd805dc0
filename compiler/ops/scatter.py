"""Writing at computed indices, which are those of `ops.index`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.dims import product
from fluxc.compiler.ir.types import i64
from fluxc.compiler.ops.batching import batching
from fluxc.compiler.ops.checks import check_dtype
from fluxc.compiler.ops.cumulative import shifted
from fluxc.compiler.ops.index import INDICES, limits_of, places_of, selected_axes
from fluxc.compiler.ops.op import Op, register
from fluxc.compiler.ops.reference import quiet
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import TensorType

__all__: list[str] = []

COMBINING = ("set", "add", "mul", "max", "min")


def infer_scatter(
    x: TensorType, indices: TensorType, updates: TensorType, *, batch: int, reduce: str
) -> TensorType:
    if reduce not in COMBINING:
        raise DTypeError(
            f"scatter: no reduction is {reduce!r}", expected=", ".join(COMBINING), got=repr(reduce)
        )
    check_dtype("scatter", x, "fiu" if reduce in ("add", "mul") else "fiub")
    depth = selected_axes("scatter", x, indices, batch)
    expected = x.with_shape(*indices.shape[:-1], *x.shape[batch + depth :])
    if updates != expected:
        error = ShapeError if updates.dtype == x.dtype else DTypeError
        raise error("scatter: the updates do not fit", expected=str(expected), got=str(updates))
    return x


def scatter_reference(
    x: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, batch: int, reduce: str
) -> np.ndarray:
    limits = np.array(x.shape[batch : batch + indices.shape[-1]])
    wide = indices.astype(np.int64)
    inside = ((wide >= 0) & (wide < limits)).all(-1)
    result = x.copy()
    places, chosen = tuple(p[inside] for p in places_of(wide, batch)), updates[inside]
    if reduce == "set":
        # One after another: which of two assignments to one place stays is not left to NumPy.
        for *place, update in zip(*places, chosen, strict=True):
            result[tuple(place)] = update
    else:
        folds = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}
        folds[reduce].at(result, places, chosen)
    return result


def scatter_vjp(
    dy: Term, y: Term, x: Term, indices: Term, updates: Term, *, batch: int, reduce: str
) -> tuple[Term, None, Term]:
    at = _Places(indices.cast(dtype=i64), x, updates, batch)
    dx, du = {
        "add": lambda: (dy, at.of(dy)),
        "set": lambda: _set_vjp(dy, at),
        "mul": lambda: _mul_vjp(dy, at),
        "max": lambda: _extremum_vjp(dy, y, at, "lt"),
        "min": lambda: _extremum_vjp(dy, y, at, "gt"),
    }[reduce]()
    return dx, None, at.used.select(du, 0.0)


class _Places:
    """Where the updates of a scatter go; `used`: whether each of them goes anywhere."""

    def __init__(self, indices: Term, x: Term, updates: Term, batch: int) -> None:
        self.indices, self.x, self.updates, self.batch = indices, x, updates, batch
        self.rank = indices.type.rank - 1
        depth = indices.shape[-1]
        assert isinstance(depth, int), "checked by the type rule"
        self.depth = depth
        inside = indices.ge(0) & indices.lt(limits_of(x, indices, batch))
        self.inside = inside.reduce_and(axes=(self.rank,))
        self.used = self.spread(self.inside)

    def spread(self, one_per_index: Term) -> Term:
        """What belongs to an index, at every element of its update."""
        axes = tuple(range(self.rank))
        return one_per_index.broadcast(shape=self.updates.shape, axes=axes)

    def of(self, x: Term) -> Term:
        """The element that each update meets; any where it meets none."""
        return x.gather(self.indices, batch=self.batch)

    def put(self, x: Term, updates: Term, reduce: str) -> Term:
        return x.scatter(self.indices, updates, batch=self.batch, reduce=reduce)

    def numbers(self) -> Term:
        """The place that each index names, as one number; -2 where it is out of range."""
        *at, _ = self.indices.shape
        line: Term | None = None
        for j in range(self.depth):
            starts, limits = (*(0 for _ in at), j), (*at, j + 1)
            one = self.indices.slice(starts=starts, limits=limits, steps=(1,) * len(starts))
            one = one.reshape(shape=tuple(at))
            line = one if line is None else line * one.like(self.x.shape[self.batch + j]) + one
        assert line is not None, "indices select along one axis at least"
        return self.inside.select(line, -2)


def _set_vjp(dy: Term, at: _Places) -> tuple[Term, Term]:
    """The update that stayed gets the cotangent; what was replaced gets nothing."""
    number = _row_major(at.indices, at.indices.shape[:-1])
    owner = at.x.full(-1, i64, at.x.shape[: at.batch + at.depth])
    last = at.put(owner, number, "set").gather(at.indices, batch=at.batch)
    du = at.spread(last.eq(number)).select(at.of(dy), 0.0)
    return at.put(dy, at.updates.like(0.0), "set"), du


def _row_major(like: Term, shape: tuple[Size, ...]) -> Term:
    """0, 1, 2, ... in a shape."""
    total = like.full(0, i64, shape)
    for axis, size in enumerate(shape):
        position = Term(total.b, total.b.emit("iota", dtype=i64, shape=shape, axis=axis))
        total = total * total.like(size) + position
    return total


def _extremum_vjp(dy: Term, y: Term, at: _Places, beaten: str) -> tuple[Term, Term]:
    """All that the result does not beat share its cotangent equally, as in reduce_max."""
    kept = at.x.emit(beaten, y).select(at.x.like(0.0), 1.0)
    taken = at.updates.emit(beaten, at.of(y)).select(at.updates.like(0.0), 1.0)
    share = dy / at.put(kept, taken, "add")
    return kept * share, taken * at.of(share)


def _mul_vjp(dy: Term, at: _Places) -> tuple[Term, Term]:
    """An update gets the product of x and of the other updates of its place.

    Without a division, so zeros are as good as other numbers: the updates are put in the order of
    their places, and those of one place multiplied up from both sides.
    """
    product = at.put(at.x.like(1.0), at.updates, "mul")
    return dy * product, at.of(dy) * at.of(at.x) * _others(at)


def _others(at: _Places) -> Term:
    batch, shape = at.batch, at.updates.shape
    rows, rest = shape[:batch], shape[at.rank :]
    count = product(shape[batch : at.rank])
    column = (*rows, count, 1)
    updates = at.updates.reshape(shape=(*rows, count, *rest))
    places = at.numbers().reshape(shape=(*rows, count))
    order = places.argsort(axis=batch, descending=False)
    line, ordered = (v.gather(order.reshape(shape=column), batch=batch) for v in (updates, places))
    others: Term | None = None
    for reverse in (False, True):
        same = ordered.eq(shifted(ordered, batch, -1, reverse=reverse))
        spread = same.broadcast(shape=line.shape, axes=tuple(range(batch + 1)))
        factors = spread.select(shifted(line, batch, 0.0, reverse=reverse), 0.0)
        first = spread.select(line.like(0.0), 1.0)
        run = factors.recurrence(first, axis=batch, reverse=reverse)
        others = run if others is None else others * run
    assert others is not None
    back = order.argsort(axis=batch, descending=False).reshape(shape=column)
    return others.gather(back, batch=batch).reshape(shape=shape)


def scatter_batch(
    _size: Size, x: Term, indices: Term, updates: Term, *, batch: int, reduce: str
) -> Term:
    return x.scatter(indices, updates, batch=batch + 1, reduce=reduce)


def sample_scatter(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    x, updates = rng.normal(size=(3, 4, 5, 2)), rng.normal(size=(3, 2, 2))
    return (x, INDICES, updates), {"batch": 1, "reduce": str(rng.choice(COMBINING))}


register(
    Op(
        name="scatter",
        infer=infer_scatter,
        reference=quiet(scatter_reference),
        vjp=derivative(scatter_vjp),
        sample=sample_scatter,
        batch=batching(scatter_batch),
        doc="x with updates[batch, at, ...] put at [batch, *indices[batch, at], ...] by set, add, "
        "mul, max or min; of several set at one place the last one in row-major order stays; "
        "updates whose indices are out of range are dropped",
    )
)
