"""Windows and convolutions as works: sums and maxima over the elements of a window.

Every form has a nest that is right for all strides, paddings, dilations, gaps and groups: rows are
the output's axes, the window's are inner ones, and elements outside are guarded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.ir.dims import exact_quotient, product, size_bounds
from fluxc.compiler.ir.graph import Value
from fluxc.compiler.ir.types import TensorType, i32
from fluxc.compiler.kernels.inline import Inliner, computing
from fluxc.compiler.ops.convolution import conv_lines
from fluxc.compiler.ops.reduce import identity_of
from fluxc.compiler.ops.window import window_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Node
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.kernels.inline import Place
    from fluxc.compiler.kernels.kernel import Axis, Expr, Expressions
    from fluxc.compiler.kernels.work import Work, Works
    from fluxc.compiler.ops.geometry import Line

__all__ = ["convolution", "window_argmax", "window_max", "window_place", "window_sum"]

Places = dict["Axis", "Expr"]


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

    @property
    def plain(self) -> bool:
        """Whether each output point reads the input point at its own place, and no other."""
        return all(
            z.window == 1 and z.stride == 1 and z.interior == 0 and z.low == 0 and z.high == 0
            for z in self.along
        )


def convolution(works: Works, node: Node) -> None:
    x, w = node.inputs
    groups = node.attrs["groups"]
    outputs = 0 if groups == 0 else exact_quotient(w.type.shape[0], groups)
    assert outputs is not None, "checked by the type rule"
    along = conv_lines(x.type.shape, w.type.shape, **node.attrs)
    conv = _Conv(node, along, groups, w.type.shape[1], outputs)
    columns = _columns(works, conv)
    if columns is None:
        _nest(works, conv)
    else:
        _contraction(works, conv, merged=columns)


def _nest(works: Works, conv: _Conv) -> None:
    """Rows are output elements, channels and kernel are summed: right for every convolution."""
    k = works.k
    n, group, out = works.axes("n", (conv.x.type.shape[0], conv.groups, conv.outputs))
    points = works.axes("p", conv.points)
    channel, *kernel = works.axes("k", conv.w.type.shape[1:])

    def define(inliner: Inliner, place: Places) -> Expr:
        offset = [place[a] for a in kernel]
        at, inside = source(k, conv.along, [place[a] for a in points], offset)
        c, o = (
            k.add(k.mul(place[group], size), place[a])
            for size, a in ((conv.channels, channel), (conv.outputs, out))
        )
        x = inliner.at(conv.x, (place[n], c, *at), inside)
        return k.apply("mul", x, inliner.at(conv.w, (o, place[channel], *offset)))

    row = k.add(k.mul(k.index(group), conv.outputs), k.index(out))
    index = (k.index(n), row, *works.indices(points))
    own = (n, group, out, *points, channel, *kernel)
    works.reduction(conv.node, conv.node.output, own, index, define, "add")


def _columns(works: Works, conv: _Conv) -> bool | None:
    """None: a nest.  Else a contraction, and whether examples and points are one axis in it.

    A vector of the contraction holds neighbouring points.  Where an image's points fill their
    vectors badly, those of the next image follow at once; then the results are scattered.
    """
    dtype = conv.x.type.dtype
    width = max(1, works.target.vector_bytes * 8 // computing(dtype).bits)
    outputs, depth = (size_bounds(s)[1] for s in (conv.outputs, conv.depth))
    examples = size_bounds(conv.x.type.shape[0])[1]
    points = size_bounds(product(conv.points))[1]
    if not dtype.is_float or outputs < 4 or depth < 8 or points * examples * 2 < width:
        return None
    filled = -(-points // width) * width if points < 2**31 else points
    return bool(examples > 1 and (filled - points) * depth > 2 * width * points)


def _contraction(works: Works, conv: _Conv, *, merged: bool) -> None:
    """m are the outputs of a group, n the points, k the elements of a window."""
    k, node = works.k, conv.node
    examples, points = conv.x.type.shape[0], product(conv.points)
    example, group = works.axes("b", (1 if merged else examples, conv.groups))
    rows, columns, inner = works.axes(
        "c", (conv.outputs, examples * points if merged else points, conv.depth)
    )
    im, column, ik = works.indices((rows, columns, inner))
    if merged:
        n, *p = k.unflatten(column, (examples, *conv.points))
    else:
        n, p = k.index(example), list(k.unflatten(column, conv.points))
    c, *offset = k.unflatten(ik, (conv.channels, *conv.kernel))
    o = k.add(k.mul(k.index(group), conv.outputs), im)
    a = works.stored_view(node, conv.w, (o, c, *offset), (group, rows, inner))
    if conv.plain:
        channel = k.add(k.mul(k.index(group), conv.channels), c)
        b = works.stored_view(node, conv.x, (n, channel, *p), (example, group, inner, columns))
    else:
        of_example = () if merged else (n,)
        of_point = (n, *p) if merged else tuple(p)
        place = (*of_example, k.index(group), c, *offset, *of_point)
        b = _elements(works, conv, merged=merged), place
    works.multiply(node, (example, group), (rows, columns, inner), a, b, (n, o, *p))


def _elements(works: Works, conv: _Conv, *, merged: bool) -> Value:
    """The elements of all windows, side by side for one element of the window after another:
    [N, groups, channels, kernel..., points...], or with N before the points."""
    k = works.k
    (n,) = works.axes("n", conv.x.type.shape[:1])
    group, channel = works.axes("c", (conv.groups, conv.channels))
    kernel, points = works.axes("k", conv.kernel), works.axes("p", conv.points)
    at, inside = source(k, conv.along, works.indices(points), works.indices(kernel))
    of_group = k.add(k.mul(k.index(group), conv.channels), k.index(channel))
    lead, tail = ((), (n,)) if merged else ((n,), ())
    axes = (*lead, group, channel, *kernel, *tail, *points)
    value, _ = works.copied(conv.node, conv.x, (k.index(n), of_group, *at), axes, inside)
    return value
