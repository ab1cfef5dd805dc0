"""Where windows lie along an axis: what convolutions and pooling have in common.

Along an axis of `size` elements with `interior` gaps between neighbours, `low` places before and
`high` after them (negative: so many are cut off), window p covers the places
`p * stride + k * dilation` for k < `window`, counted from the first place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir.dims import Dim, floordiv, is_at_least
from fluxc.compiler.ops.checks import prove_at_least

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.dims import Size

__all__ = ["Line", "check_numbers", "check_pads", "lines", "spread", "window_places"]

_HINT = "give the dimension a range: fx.dim(name, min=...)"


@dataclass(frozen=True, slots=True)
class Line:
    """The windows along one axis."""

    size: Size
    window: Size
    stride: int
    low: Size
    high: Size
    dilation: int
    interior: int = 0

    @property
    def span(self) -> Size:
        """The places that the elements and the gaps between them take."""
        return (self.size - 1) * (self.interior + 1) + 1

    @property
    def reach(self) -> Size:
        """The places from the first to the last element of a window."""
        return (self.window - 1) * self.dilation + 1

    @property
    def room(self) -> Size:
        return self.span + self.low + self.high

    @property
    def count(self) -> Size:
        """The number of windows."""
        return floordiv(self.room - self.reach, self.stride) + 1

    def checked(self, op: str, axis: int) -> Line:
        """The line, unless a window does not fit, or an axis may be empty."""
        prove_at_least(op, f"size of axis {axis}", self.size, 1, _HINT)
        prove_at_least(op, f"window along axis {axis}", self.window, 1, _HINT)
        if not is_at_least(self.room, self.reach):
            symbolic = any(isinstance(s, Dim) for s in (self.room, self.reach))
            raise ShapeError(
                f"{op}: the window does not fit along axis {axis}",
                expected=f"at least {self.reach} places, so many a window spans",
                got=f"{self.room}: size {self.size}, padding {self.low} and {self.high}",
                hint=_HINT if symbolic else "",
            )
        return self

    def transposed(self) -> Line:
        """The line whose windows over this one's windows give this one's elements.

        What a window here reads of an element, the element's window there reads of the window,
        with the positions in the window reversed.
        """
        low = self.reach - 1 - self.low
        span = (self.count - 1) * self.stride + 1
        high = self.span - 1 + self.reach - low - span
        step = self.interior + 1
        return Line(self.count, self.window, step, low, high, self.dilation, self.stride - 1)


def lines(
    sizes: Sequence[Size],
    windows: Sequence[Size],
    stride: Sequence[int],
    low: Sequence[Size],
    high: Sequence[Size],
    dilation: Sequence[int],
    interior: Sequence[int] | None = None,
) -> tuple[Line, ...]:
    gaps = (0,) * len(sizes) if interior is None else interior
    each = zip(sizes, windows, stride, low, high, dilation, gaps, strict=True)
    return tuple(Line(*line) for line in each)


def check_numbers(op: str, name: str, values: Any, count: int, least: int) -> None:
    """An attribute that is one integer >= `least` for each of `count` axes."""
    fine = isinstance(values, tuple) and all(type(v) is int and v >= least for v in values)
    if not fine or len(values) != count:
        raise ShapeError(
            f"{op}: {name} must be one integer for each axis",
            expected=f"{count} integers >= {least}",
            got=repr(values),
        )


def check_pads(op: str, name: str, values: Any, count: int) -> None:
    """An attribute that is one size, negative ones too, for each of `count` axes."""
    fine = isinstance(values, tuple) and all(type(v) is int or isinstance(v, Dim) for v in values)
    if not fine or len(values) != count:
        raise ShapeError(
            f"{op}: {name} must be one size for each axis",
            expected=f"{count} sizes",
            got=repr(values),
        )


def spread(x: np.ndarray, along: Sequence[Line], value: Any) -> np.ndarray:
    """`x` with its gaps and padding; `along` are the lines of the last axes."""
    lead = x.shape[: x.ndim - len(along)]
    spans = [line.span for line in along]
    wide: np.ndarray = np.full((*lead, *spans), value, x.dtype)
    inside: tuple[Any, ...] = (..., *(slice(None, None, line.interior + 1) for line in along))
    wide[inside] = x
    grown = [(max(line.low, 0), max(line.high, 0)) for line in along]
    wide = np.pad(wide, [(0, 0)] * len(lead) + grown, constant_values=value)
    sizes: tuple[int, ...] = wide.shape[len(lead) :]
    cuts = (slice(-min(z.low, 0), n + min(z.high, 0)) for z, n in zip(along, sizes, strict=True))
    kept: tuple[Any, ...] = (..., *cuts)
    return np.asarray(wide[kept])


def window_places(along: Sequence[Line], at: Sequence[int]) -> tuple[Any, ...]:
    """An index into the last axes of a spread array: element `at` of every window."""
    places = []
    for line, k in zip(along, at, strict=True):
        first = k * line.dilation
        places.append(slice(first, first + (line.count - 1) * line.stride + 1, line.stride))
    return (..., *places)
