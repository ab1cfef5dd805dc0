"""How an operand of a contraction is walked: how far in memory a step along each axis goes.

An axis may be several loops in one, as the points of an image are rows of pixels.  Where an index
takes its position apart by quotients and remainders, each of these digits has a step of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import exact_quotient, product
from fluxc.compiler.kernels.kernel import Apply, Axis, Const, Extent, Index

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.kernel import Expr, Load

__all__ = ["Affine", "Digit", "Level", "affine_index", "flat_index", "levels", "walked_index"]


@dataclass(frozen=True, slots=True)
class Digit:
    """`axis // below % extent`; extent None: all that lies above."""

    axis: Axis
    below: Size
    extent: Size | None


@dataclass(frozen=True, slots=True)
class Affine:
    """`constant + sum of steps[key] * key` over axes and digits of axes, all of them sizes."""

    constant: Size
    steps: dict[Axis | Digit, Size]

    def step(self, axis: Axis) -> Size:
        return self.steps.get(axis, 0)


@dataclass(frozen=True, slots=True)
class Level:
    """One of the loops that an axis stands for: how often, and how far in memory each time."""

    extent: Size
    step: Size


def flat_index(load: Load) -> Affine | None:
    """Where in its buffer, counted in elements, a load reads; None where that is not affine."""
    where = walked_index(load)
    return where if where is None or all(isinstance(x, Axis) for x in where.steps) else None


def walked_index(load: Load) -> Affine | None:
    """As `flat_index`, but affine in the digits of axes."""
    parts = [_walked(e) for e in load.index]
    strides = [product(load.buffer.shape[i + 1 :]) for i in range(len(parts))]
    total = Affine(0, {})
    for part, stride in zip(parts, strides, strict=True):
        if part is None:
            return None
        total = _add(total, _scale(part, stride))
    return total


def affine_index(e: Expr) -> Affine | None:
    """An index expression as constant + steps * axes, or None."""
    where = _walked(e)
    return where if where is None or all(isinstance(x, Axis) for x in where.steps) else None


def _walked(e: Expr) -> Affine | None:
    match e:
        case Const(value=int(value)):
            return Affine(value, {})
        case Extent(size=size):
            return Affine(size, {})
        case Index(axis=axis):
            return Affine(0, {axis: 1})
        case Apply(op="add" | "sub" | "mul" as op, args=(left, right)):
            return _combined(op, _walked(left), _walked(right))
    digit = _digit(e)
    return None if digit is None else Affine(0, {digit: 1})


def _combined(op: str, x: Affine | None, y: Affine | None) -> Affine | None:
    if x is None or y is None:
        return None
    if op != "mul":
        return _add(x, y if op == "add" else _scale(y, -1))
    if x.steps and y.steps:
        return None
    return _scale(x, y.constant) if x.steps else _scale(y, x.constant)


def _add(x: Affine, y: Affine) -> Affine:
    steps = dict(x.steps)
    for key, step in y.steps.items():
        steps[key] = steps.get(key, 0) + step
    return Affine(x.constant + y.constant, {a: s for a, s in steps.items() if s != 0})


def _scale(x: Affine, factor: Size) -> Affine:
    if factor == 0:
        return Affine(0, {})
    return Affine(x.constant * factor, {a: s * factor for a, s in x.steps.items()})


def _digit(e: Expr) -> Digit | None:
    if isinstance(e, Index):
        return Digit(e.axis, 1, None)
    if not isinstance(e, Apply) or e.op not in {"floor_div", "mod"}:
        return None
    whole, by = _digit(e.args[0]), _walked(e.args[1])
    if whole is None or by is None or by.steps:
        return None
    rest = None if whole.extent is None else exact_quotient(whole.extent, by.constant)
    if whole.extent is not None and rest is None:
        return None
    if e.op == "mod":
        return Digit(whole.axis, whole.below, by.constant)
    return Digit(whole.axis, whole.below * by.constant, rest)


def levels(where: Affine, axis: Axis) -> tuple[Level, ...] | None:
    """The loops that an axis stands for, outermost first, as few as there can be.

    None: what the index takes of the axis are not the digits of one number.
    """
    if axis.extent in {0, 1}:
        return (Level(axis.extent, where.step(axis)),)
    steps = {d: s for d, s in where.steps.items() if isinstance(d, Digit) and d.axis is axis}
    if axis in where.steps:
        steps[Digit(axis, 1, None)] = where.step(axis)
    found: list[Level] = []  # innermost first
    below: Size = 1
    while below != axis.extent:
        level = _next_level(steps, axis.extent, below)
        if level is None:
            return None
        found.append(level)
        below = below * level.extent
    return None if steps else tuple(reversed(_joined(found)))


def _next_level(steps: dict[Digit, Size], extent: Size, below: Size) -> Level | None:
    """The loop whose steps are `below` apart; its digit leaves `steps`."""
    here = [d for d in steps if d.below == below]
    if len(here) > 1:
        return None
    if here:
        (digit,) = here
        size = exact_quotient(extent, below) if digit.extent is None else digit.extent
        return None if size is None else Level(size, steps.pop(digit))
    size, *others = [exact_quotient(d.below, below) for d in steps] or [
        exact_quotient(extent, below)
    ]
    if size is None or others:
        return None
    return Level(1 if isinstance(size, int) and size == 0 else size, 0)


def _joined(found: list[Level]) -> list[Level]:
    """Neighbours that are walked as one are one."""
    kept: list[Level] = []
    for level in found:
        if level.extent == 1:
            continue
        if kept and level.step == kept[-1].extent * kept[-1].step:
            kept[-1] = Level(kept[-1].extent * level.extent, kept[-1].step)
        else:
            kept.append(level)
    return kept or [Level(1, 0)]
