"""Windows for pooling: sums, maxima and where they lie, along every axis.

The attributes have one entry per axis: `sizes` of the window, `strides`, `low` and `high` padding
(negative: cut off), `dilation`.  Padding contributes nothing.
"""

# ruff: noqa: E501  (a row of the table is one line)
from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.types import i32, i64
from fluxc.compiler.ops.batching import batching
from fluxc.compiler.ops.checks import check_dtype, check_shape
from fluxc.compiler.ops.geometry import (
    Line,
    check_numbers,
    check_pads,
    lines,
    spread,
    window_places,
)
from fluxc.compiler.ops.op import Op, ZeroGradient, register
from fluxc.compiler.ops.reduce import identity_of
from fluxc.compiler.ops.reference import quiet
from fluxc.compiler.ops.term import Term, derivative

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import TensorType

__all__ = ["window_lines"]

Sizes = tuple["Size", ...]
Numbers = tuple[int, ...]


def window_lines(
    shape: Sizes, *, sizes: Sizes, strides: Numbers, low: Sizes, high: Sizes, dilation: Numbers
) -> tuple[Line, ...]:
    """The windows along each axis of a tensor of this shape."""
    return lines(shape, sizes, strides, low, high, dilation)


def _counts(op: str, x: TensorType, **attrs: Any) -> Sizes:
    """How many windows there are along each axis, checked."""
    check_shape(op, attrs["sizes"])
    for name in ("sizes", "low", "high"):
        check_pads(op, name, attrs[name], x.rank)
    for name in ("strides", "dilation"):
        check_numbers(op, name, attrs[name], x.rank, 1)
    along = window_lines(x.shape, **attrs)
    # Axes that windows do not extend along may be empty.
    return tuple(
        z.size if _is_plain(z) else z.checked(op, axis).count for axis, z in enumerate(along)
    )


def _is_plain(z: Line) -> bool:
    """Whether every element is a window of its own."""
    return z.window == 1 and z.stride == 1 and z.low == 0 and z.high == 0


def infer_reduction(name: str, dtype: Any = None) -> Callable[..., TensorType]:
    def infer(
        x: TensorType, *, sizes: Sizes, strides: Numbers, low: Sizes, high: Sizes, dilation: Numbers
    ) -> TensorType:
        check_dtype(name, x, "fiu")
        counts = _counts(
            name, x, sizes=sizes, strides=strides, low=low, high=high, dilation=dilation
        )
        result = x.with_shape(*counts)
        return result if dtype is None else result.with_dtype(dtype)

    return infer


def infer_pick(
    x: TensorType,
    at: TensorType,
    *,
    sizes: Sizes,
    strides: Numbers,
    low: Sizes,
    high: Sizes,
    dilation: Numbers,
) -> TensorType:
    check_dtype("window_pick", x, "fiu")
    counts = _counts(
        "window_pick", x, sizes=sizes, strides=strides, low=low, high=high, dilation=dilation
    )
    _check_positions("window_pick", at, counts)
    return x.with_shape(*counts)


def infer_place(
    u: TensorType,
    at: TensorType,
    *,
    shape: Sizes,
    sizes: Sizes,
    strides: Numbers,
    low: Sizes,
    high: Sizes,
    dilation: Numbers,
) -> TensorType:
    check_dtype("window_place", u, "fiu")
    check_shape("window_place", shape)
    x = u.with_shape(*shape)
    counts = _counts(
        "window_place", x, sizes=sizes, strides=strides, low=low, high=high, dilation=dilation
    )
    _check_positions("window_place", u.with_dtype(i32), counts)
    _check_positions("window_place", at, counts)
    return x


def _check_positions(op: str, at: TensorType, counts: Sizes) -> None:
    if at.dtype != i32:
        raise DTypeError(f"{op}: positions are i32", got=str(at))
    if at.shape != counts:
        raise ShapeError(
            f"{op}: one element for each window is needed",
            expected=str(at.with_shape(*counts)),
            got=str(at),
        )


# ---- references


def _windows(x: np.ndarray, value: Any, attrs: dict[str, Any]) -> np.ndarray:
    """[window elements, windows...]: every element of every window, `value` where it is padding."""
    along = window_lines(x.shape, **attrs)
    counts = [z.size if _is_plain(z) else z.count for z in along]
    if 0 in counts:
        return np.full((prod(attrs["sizes"]), *counts), value, x.dtype)
    wide = spread(x, along, value)
    return np.stack([wide[window_places(along, at)] for at in np.ndindex(*attrs["sizes"])])


def sum_reference(x: np.ndarray, **attrs: Any) -> np.ndarray:
    return np.asarray(_windows(x, 0, attrs).sum(0, dtype=x.dtype))


def max_reference(x: np.ndarray, **attrs: Any) -> np.ndarray:
    return np.asarray(_windows(x, identity_of("reduce_max", x.dtype), attrs).max(0))


def argmax_reference(x: np.ndarray, **attrs: Any) -> np.ndarray:
    seen = _windows(x, identity_of("reduce_max", x.dtype), attrs)
    inside = _windows(np.ones(x.shape, np.bool_), False, attrs)
    best = (seen == seen.max(0)) | (seen != seen)  # noqa: PLR0124 (NaN)
    found = best & inside
    return np.where(found.any(0), found.argmax(0), len(seen)).astype(np.int32)


def pick_reference(x: np.ndarray, at: np.ndarray, **attrs: Any) -> np.ndarray:
    seen = _windows(x, 0, attrs)
    numbers = np.arange(len(seen)).reshape(-1, *[1] * x.ndim)
    return np.asarray(np.where(numbers == at, seen, 0).sum(0, dtype=x.dtype))


def place_reference(u: np.ndarray, at: np.ndarray, *, shape: Numbers, **attrs: Any) -> np.ndarray:
    places = np.arange(prod(shape)).reshape(shape)
    # The place in the result that each element of each window is; -1 for padding.
    seen = _windows(places + 1, 0, attrs) - 1
    result = np.zeros(prod(shape), u.dtype)
    for k, place in enumerate(seen):
        hit = (at == k) & (place >= 0)
        np.add.at(result, place[hit], u[hit])
    return result.reshape(shape)


# ---- derivatives


def sum_vjp(dy: Term, _y: Term, x: Term, **attrs: Any) -> tuple[Term]:
    """The sum over all windows that an element is in: dy with gaps, summed in windows."""
    along = window_lines(x.shape, **attrs)
    back = [z if _is_plain(z) else z.transposed() for z in along]
    none = (0,) * len(back)
    gaps = tuple(z.interior for z in back)
    if any(gaps):
        dy = dy.pad(dy.full(0.0, dy.dtype, ()), low=none, high=none, interior=gaps)
    return (dy.window_sum(**_attrs(back)),)


def _attrs(along: list[Line]) -> dict[str, Any]:
    return {
        "sizes": tuple(z.window for z in along),
        "strides": tuple(z.stride for z in along),
        "low": tuple(z.low for z in along),
        "high": tuple(z.high for z in along),
        "dilation": tuple(z.dilation for z in along),
    }


def max_vjp(dy: Term, _y: Term, x: Term, **attrs: Any) -> tuple[Term]:
    """To the first greatest element of each window."""
    return (dy.window_place(x.window_argmax(**attrs), shape=x.shape, **attrs),)


def pick_vjp(dy: Term, _y: Term, x: Term, at: Term, **attrs: Any) -> tuple[Term, None]:
    return dy.window_place(at, shape=x.shape, **attrs), None


def place_vjp(
    dy: Term, _y: Term, _u: Term, at: Term, *, shape: Sizes, **attrs: Any
) -> tuple[Term, None]:
    del shape
    return dy.window_pick(at, **attrs), None


# ---- batches: one more axis, along which every element is a window of its own


def _one_more(attrs: dict[str, Any]) -> dict[str, Any]:
    first = {"sizes": 1, "strides": 1, "low": 0, "high": 0, "dilation": 1}
    return {name: (first[name], *values) for name, values in attrs.items()}


def _batch(op: str) -> Callable[..., Any]:
    def rule(size: Size, *xs: Term, **attrs: Any) -> Term:
        more = {"shape": (size, *attrs.pop("shape"))} if "shape" in attrs else {}
        return xs[0].emit(op, *xs[1:], **more, **_one_more(attrs))

    return batching(rule)


# ---- lowering of the one that reads a single element


def pick_lower(k: Any, index: Any, types: Any, x: Any, at: Any, **attrs: Any) -> Any:
    sizes = attrs["sizes"]
    count, number = prod(sizes), k.cast(at(index), i64)
    inside = k.both(k.ge(number, k.size(0)), k.lt(number, k.size(count)))
    rest = k.clamp(number, k.size(0), k.size(count - 1))
    places = []
    along = window_lines(types[0].shape, **attrs)
    for axis, (i, z) in enumerate(zip(index, along, strict=True)):
        inner = prod(sizes[axis + 1 :])
        offset, rest = k.floordiv(rest, k.size(inner)), k.mod(rest, k.size(inner))
        first = k.sub(k.mul(i, k.size(z.stride)), k.size(z.low))
        place = k.add(first, k.mul(offset, k.size(z.dilation)))
        inside = k.both(inside, k.both(k.ge(place, k.size(0)), k.lt(place, k.size(z.size))))
        places.append(place)
    return x(tuple(places), inside)


# ---- samples: strides, padding, dilation, a plain axis, and one that is cut

SAMPLE = {
    "sizes": (1, 3, 2),
    "strides": (1, 2, 1),
    "low": (0, 2, -1),
    "high": (0, 1, 2),
    "dilation": (1, 1, 2),
}
EVERY = (2, 6, 5)
COUNTS = (2, 4, 4)


def sample_windows(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    return (rng.normal(size=EVERY),), dict(SAMPLE)


def sample_pick(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    at = rng.integers(0, 7, COUNTS).astype(np.int32)
    return (rng.normal(size=EVERY), at), dict(SAMPLE)


def sample_place(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    at = rng.integers(0, 7, COUNTS).astype(np.int32)
    return (rng.normal(size=COUNTS), at), {"shape": EVERY, **SAMPLE}


def _declare(
    name: str, infer: Any, reference: Any, vjp: Any, sample: Any, doc: str, lower: Any = None
) -> None:
    register(
        Op(
            name=name,
            infer=infer,
            reference=quiet(reference),
            vjp=derivative(vjp) if callable(vjp) else vjp,
            sample=sample,
            lower=lower,
            batch=_batch(name),
            doc=doc,
        )
    )


INDEX = ZeroGradient("a position is an integer")

# fmt: off
_declare("window_sum", infer_reduction("window_sum"), sum_reference, sum_vjp, sample_windows, "y[p] = sum over k of x[p*strides + k*dilation - low], 0 outside")
_declare("window_max", infer_reduction("window_max"), max_reference, max_vjp, sample_windows, "y[p] = greatest x[p*strides + k*dilation - low] over k, NaN if any is NaN; of padding alone -inf or the least integer")
_declare("window_argmax", infer_reduction("window_argmax", i32), argmax_reference, INDEX, sample_windows, "the row-major position k in its window of the first greatest element (the first NaN if there is one); of padding alone the size of the window")
_declare("window_pick", infer_pick, pick_reference, pick_vjp, sample_pick, "y[p] = x[p*strides + k*dilation - low] for the row-major position k = at[p] in the window; 0 where k lies outside of the window, or the element outside of x", pick_lower)
_declare("window_place", infer_place, place_reference, place_vjp, sample_place, "zeros of `shape`, with u[p] added at p*strides + k*dilation - low for k = at[p], the transpose of window_pick")
# fmt: on
