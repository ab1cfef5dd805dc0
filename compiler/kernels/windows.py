"""Windows and convolutions as works: sums and maxima over the elements of a window.

Every form has a nest that is right for all strides, paddings, dilations, gaps and groups: rows are
the output's axes, the window's are inner ones, and elements outside are guarded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.ir.dims import evaluate_size, exact_quotient, product, size_bounds, size_symbols
from fluxc.compiler.ir.graph import Value
from fluxc.compiler.ir.types import TensorType, i32
from fluxc.compiler.kernels.inline import Inliner, computing
from fluxc.compiler.ops.convolution import channels_first, conv_lines
from fluxc.compiler.ops.reduce import identity_of
from fluxc.compiler.ops.window import window_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Node
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.kernels.inline import Place
    from fluxc.compiler.kernels.kernel import Axis, Expr, Expressions
    from fluxc.compiler.kernels.work import Work, Works
    from fluxc.compiler.ops.geometry import Line

__all__ = ["convolution", "window_argmax", "window_max", "window_place", "window_sum"]

Places = dict["Axis", "Expr"]
_DEPTH = 8  # products in a sum below which loading and storing costs more than they do
_LINE = 6  # points of a line below which rows of a tile are taken from several images


def source(
    k: Expressions, along: Sequence[Line], at: Sequence[Expr], offset: Sequence[Expr]
) -> tuple[Place, Expr | None]:
    """Where element `offset` of window `at` lies in the input, and whether it lies there."""
    places, inside = [], None
    for line, p, o in zip(along, at, offset, strict=True):
        place = k.sub(k.add(k.mul(p, line.stride), k.mul(o, line.dilation)), line.low)
        inside = k.both(inside, k.both(k.ge(place, 0), k.lt(place, line.span)))
        gap = line.interior + 1
        if gap > 1:
            inside = k.both(inside, k.eq(k.mod(place, gap), 0))
            place = k.floordiv(place, gap)
        places.append(place)
    return tuple(places), inside


def window(
    k: Expressions, along: Sequence[Line], at: Sequence[Expr], offset: Sequence[Expr]
) -> tuple[Place, Expr | None]:
    """Which window has the element `at` as its element `offset`, and whether there is one."""
    places, inside = [], None
    for line, i, o in zip(along, at, offset, strict=True):
        place = k.sub(k.add(i, line.low), k.mul(o, line.dilation))
        inside = k.both(
            inside, k.both(k.ge(place, 0), k.lt(place, (line.count - 1) * line.stride + 1))
        )
        if line.stride > 1:
            inside = k.both(inside, k.eq(k.mod(place, line.stride), 0))
            place = k.floordiv(place, line.stride)
        places.append(place)
    return tuple(places), inside


def _least(k: Expressions, dtype: DType) -> Expr:
    """What no element is less than."""
    wide = computing(dtype)
    least = identity_of("reduce_max", np.dtype(float) if wide.is_float else wide.numpy)
    return k.const(least, wide)


# ---- pooling


def _windows(works: Works, node: Node, value: Value, op: str, pad: Any) -> Work:
    """A reduction over every window of the first operand."""
    k, x = works.k, node.inputs[0]
    along = window_lines(x.type.shape, **node.attrs)
    rows = works.axes("i", node.output.type.shape)
    inner = works.axes("k", node.attrs["sizes"])

    def define(inliner: Inliner, place: Places) -> Expr:
        at, inside = source(k, along, [place[a] for a in rows], [place[a] for a in inner])
        e = works.as_stored(inliner.at(x, at, inside), x.type.dtype)
        return e if pad is None or inside is None else k.select(inside, e, pad)

    return works.reduction(node, value, (*rows, *inner), works.indices(rows), define, op)


def window_sum(works: Works, node: Node) -> None:
    _windows(works, node, node.output, "add", None)


def window_max(works: Works, node: Node) -> None:
    least = _least(works.k, node.inputs[0].type.dtype)
    _windows(works, node, node.output, "maximum", least)


def window_argmax(works: Works, node: Node) -> None:
    """The greatest of each window, in the precision it is computed in; then who is it first."""
    k, x = works.k, node.inputs[0]
    works.compute_once(x)
    dtype = computing(x.type.dtype)
    greatest = Value(TensorType(dtype, node.output.type.shape), "greatest")
    _windows(works, node, greatest, "maximum", _least(k, x.type.dtype))
    along = window_lines(x.type.shape, **node.attrs)
    rows = works.axes("i", node.output.type.shape)
    inner = works.axes("k", node.attrs["sizes"])
    nowhere = k.cast(k.size(product(node.attrs["sizes"])), i32)

    def define(inliner: Inliner, place: Places) -> Expr:
        at = tuple(place[a] for a in rows)
        offset = [place[a] for a in inner]
        where, inside = source(k, along, at, offset)
        e = works.as_stored(inliner.at(x, where, inside), x.type.dtype)
        best = k.apply("eq", e, inliner.at(greatest, at))
        if dtype.is_float:
            best = k.apply("or", best, k.apply("is_nan", e))
        number = k.cast(k.flatten(offset, node.attrs["sizes"]), i32)
        here = k.both(inside, best)
        return number if here is None else k.select(here, number, nowhere)

    own = (*rows, *inner)
    works.reduction(node, node.output, own, works.indices(rows), define, "minimum")


def window_place(works: Works, node: Node) -> None:
    """Each element sums what the windows that chose it have; no window writes anywhere."""
    k, (u, at) = works.k, node.inputs
    attrs = {name: value for name, value in node.attrs.items() if name != "shape"}
    along = window_lines(node.output.type.shape, **attrs)
    rows = works.axes("i", node.output.type.shape)
    inner = works.axes("k", attrs["sizes"])

    def define(inliner: Inliner, place: Places) -> Expr:
        offset = [place[a] for a in inner]
        where, inside = window(k, along, [place[a] for a in rows], offset)
        number = k.cast(k.flatten(offset, attrs["sizes"]), i32)
        chosen = k.apply("eq", inliner.at(at, where, inside), number)
        e = inliner.at(u, where, inside)
        zero = k.const(0.0 if e.dtype.is_float else 0, e.dtype)
        return k.select(chosen, e, zero)

    works.reduction(node, node.output, (*rows, *inner), works.indices(rows), define, "add")


# ---- convolution


@dataclass(frozen=True, slots=True)
class _Conv:
    """A convolution's operands, sizes and windows; channels and outputs are those of a group."""

    node: Node
    last: bool
    along: tuple[Line, ...]
    groups: Size
    channels: Size
    outputs: Size

    @property
    def x(self) -> Value:
        return self.node.inputs[0]

    @property
    def w(self) -> Value:
        return self.node.inputs[1]

    @property
    def kernel(self) -> tuple[Size, ...]:
        return tuple(z.window for z in self.along)

    @property
    def points(self) -> tuple[Size, ...]:
        return tuple(z.count for z in self.along)

    @property
    def depth(self) -> Size:
        """The products in a sum."""
        return self.channels * product(self.kernel)

    def index(self, n: Expr, channel: Expr, at: Sequence[Expr]) -> Place:
        """Where an image has an element."""
        return (n, *at, channel) if self.last else (n, channel, *at)


def convolution(works: Works, node: Node) -> None:
    x, w = node.inputs
    groups = node.attrs["groups"]
    outputs = 0 if groups == 0 else exact_quotient(w.type.shape[0], groups)
    assert outputs is not None, "checked by the type rule"
    last = node.op == "conv_last"
    order = channels_first(x.type.rank) if last else range(x.type.rank)
    along = conv_lines([x.type.shape[a] for a in order], w.type.shape, **node.attrs)
    conv = _Conv(node, last, along, groups, w.type.shape[1], outputs)
    if _is_product(conv):
        _contraction(works, conv)
    else:
        _nest(works, conv)


def _is_product(conv: _Conv) -> bool:
    """Whether there are outputs enough to fill vectors, and products enough to sum."""
    outputs, depth = (size_bounds(s)[1] for s in (conv.outputs, conv.depth))
    least = 2 if conv.groups == 1 else 4  # the nest of several groups has them side by side
    return conv.x.type.dtype.is_float and outputs >= least and depth >= _DEPTH


def _nest(works: Works, conv: _Conv) -> None:
    """Rows are output elements, channels and kernel are summed: right for every convolution."""
    k = works.k
    n, group, out = works.axes("n", (conv.x.type.shape[0], conv.groups, conv.outputs))
    points = works.axes("p", conv.points)
    channel, *kernel = works.axes("k", conv.w.type.shape[1:])
    w, w_index = _kernel_by_output(works, conv)

    def define(inliner: Inliner, place: Places) -> Expr:
        offset = [place[a] for a in kernel]
        at, inside = source(k, conv.along, [place[a] for a in points], offset)
        c, o = (
            k.add(k.mul(place[group], size), place[a])
            for size, a in ((conv.channels, channel), (conv.outputs, out))
        )
        x = inliner.at(conv.x, conv.index(place[n], c, at), inside)
        return k.apply("mul", x, inliner.at(w, w_index(o, place[channel], offset)))

    row = k.add(k.mul(k.index(group), conv.outputs), k.index(out))
    index = conv.index(k.index(n), row, works.indices(points))
    rows = (n, *points, group, out) if conv.last else (n, group, out, *points)
    own = (*rows, *kernel, channel)
    works.reduction(conv.node, conv.node.output, own, index, define, "add")


def _kernel_by_output(
    works: Works, conv: _Conv
) -> tuple[Value, Callable[[Expr, Expr, Sequence[Expr]], Place]]:
    """The kernel with its outputs side by side where those of the result are."""
    w = conv.w
    o, c, *kernel = works.axes("w", w.type.shape)
    index = works.indices((o, c, *kernel))
    if not conv.last or works.stride(w, index, o) in {0, 1}:
        return w, lambda o, c, at: (o, c, *at)
    copy, _ = works.copied(conv.node, w, index, (*kernel, c, o))
    return copy, lambda o, c, at: (*at, c, o)


def _contraction(works: Works, conv: _Conv) -> None:
    """m are the points of all images, n the outputs of a group, k the elements of a window.

    The loops that m and k stand for are ordered as the input lies in memory: for channels last, k
    runs along lines of the kernel that lie in one piece.
    """
    k, node, x = works.k, conv.node, conv.x
    example, group = works.axes("b", (x.type.shape[0], conv.groups))
    points, kernel = works.axes("p", conv.points), works.axes("k", conv.kernel)
    (channel,) = works.axes("c", (conv.channels,))
    c = k.add(k.mul(k.index(group), conv.channels), k.index(channel))
    value, index = _source_view(works, conv, (example, points, kernel), c)
    step = _steps(works, value, index)
    rows = sorted((example, *points), key=step, reverse=True)
    lines = [a for a in rows if a.extent != 1]
    if lines and _short(lines[-1].extent) and not _short(example.extent):
        rows = [a for a in rows if a is not example] + [example]
    depth = sorted((*kernel, channel), key=step, reverse=True)
    m, n, inner = works.axes(
        "c", (product(a.extent for a in rows), conv.outputs, product(a.extent for a in depth))
    )
    place: Places = {}
    for axis, digits in ((m, rows), (inner, depth)):
        at = k.unflatten(k.index(axis), [a.extent for a in digits])
        place.update(zip(digits, at, strict=True))
    a = value, k.substitute(index, place)
    o = k.add(k.mul(k.index(group), conv.outputs), k.index(n))
    b, packed = works.right_operand(
        node, conv.w, (o, place[channel], *(place[x] for x in kernel)), (group,), (m, n, inner)
    )
    out = conv.index(place[example], o, [place[p] for p in points])
    works.multiply(node, (group,), (m, n, inner), a, b, out, packed)


def _source_view(
    works: Works, conv: _Conv, axes: tuple[Axis, tuple[Axis, ...], tuple[Axis, ...]], c: Expr
) -> tuple[Value, Place]:
    """The input where every window lies within: itself, or a padded copy."""
    k, (example, points, kernel) = works.k, axes
    at, inside = source(k, conv.along, works.indices(points), works.indices(kernel))
    own = conv.index(k.index(example), c, at)
    if inside in {None, k.true} and works.view(conv.x, own) is not None:
        return conv.x, own
    n, channel = works.axes("n", (conv.x.type.shape[0], conv.groups * conv.channels))
    spans = works.axes("s", [(z.count - 1) * z.stride + z.reach for z in conv.along])
    whole = [replace(z, stride=1) for z in conv.along]
    at, inside = source(k, whole, works.indices(spans), [k.size(0)] * len(spans))
    index = conv.index(k.index(n), k.index(channel), at)
    step = _steps(works, conv.x, index)
    images_last = step(n) < step(channel)
    order = (channel, *spans, n) if images_last else (n, *spans, channel)
    value, _ = works.copied(conv.node, conv.x, index, order, inside)
    place = [
        k.add(k.mul(k.index(p), z.stride), k.mul(k.index(o), z.dilation))
        for z, p, o in zip(conv.along, points, kernel, strict=True)
    ]
    i = k.index(example)
    return value, (c, *place, i) if images_last else (i, *place, c)


def _steps(works: Works, value: Value, index: Place) -> Callable[[Axis], int]:
    """How far in memory a step along an axis goes, about."""
    view = works.view(value, index)
    if view is None:
        shape = value.type.shape
        form = works.k.linear(works.k.flatten(index, shape))
    else:
        form = works.k.linear(works.k.flatten(view.index, view.buffer.shape))
    return lambda axis: abs(_about(form.stride(axis)))


def _about(size: Size | None) -> int:
    """A number for a size; 0 for what is unknown."""
    if size is None:
        return 0
    return evaluate_size(size, {s.name: min(max(64, s.min), s.max) for s in size_symbols(size)})


def _short(size: Size) -> bool:
    return bool(size_bounds(size)[1] < _LINE)
