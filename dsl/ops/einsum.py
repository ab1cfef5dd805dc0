"""Sums of products by names of axes: `fx.einsum`, and diagonals.

An operand travels with a list of labels, one for each axis: a letter, or the number of an axis
that `...` stands for, counted from the right.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.dims import size_bounds
from fluxc.ops.layout import normal_axis, transpose
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast, common_dtype
from fluxc.trace import emit, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.dims import Size

__all__ = ["diagonal", "einsum", "trace"]

Label: TypeAlias = "str | int"
Labelled: TypeAlias = "tuple[Tensor, list[Label]]"
_UNBOUNDED = 64.0  # what an unbounded size is taken for when orders of products are compared


def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """The product of all operands, summed over every letter that the result lacks.

        fx.einsum("ij,jk->ik", a, b)       a @ b
        fx.einsum("bqhd,bkhd->bhqk", q, k) attention scores of all heads
        fx.einsum("...ii->...i", x)        diagonals
        fx.einsum("ij,ij", a, b)           without `->`: letters that come once, in their order

    A letter names an axis; `...` stands for any number of axes, which broadcast; a letter that
    comes twice in one operand takes the diagonal.  Axes of size 1 stretch.  More than two operands
    are multiplied in pairs, the pair with the smallest product first.

    Errors  ShapeError for subscripts that do not fit the operands, or sizes that differ.
    """
    dtype = common_dtype(*operands)
    if dtype.kind == "b":
        fail(DTypeError, "einsum of bool tensors", hint="x.astype(fx.f32) first")
    terms, result = _parse(subscripts, len(operands))
    tensors = [as_tensor(x, dtype) for x in operands]
    places = [_labels(term, x, subscripts) for term, x in zip(terms, tensors, strict=True)]
    dots = max((sum(isinstance(n, int) for n in labels) for labels in places), default=0)
    out = _output(result, places, dots, subscripts)
    sizes = _sizes(places, tensors, subscripts)
    work = [_narrowed(x, labels, sizes) for x, labels in zip(tensors, places, strict=True)]
    while len(work) > 1:
        i, j = _cheapest(work, out)
        others = [labels for n, (_, labels) in enumerate(work) if n not in (i, j)]
        kept = {*out, *(name for labels in others for name in labels)}
        left = _summed(work[i], {*kept, *work[j][1]})
        right = _summed(work[j], {*kept, *work[i][1]})
        met = _multiplied(left, right, kept)
        work = [w for n, w in enumerate(work) if n not in (i, j)] + [met]
    x, labels = _summed(work[0], set(out))
    return _arranged(x, labels, out, sizes)


def _refuse(subscripts: str, what: str, *, expected: str = "", got: str = "") -> NoReturn:
    fail(ShapeError, f"einsum {subscripts!r}: {what}", expected=expected, got=got)


def _parse(subscripts: str, count: int) -> tuple[list[str], str | None]:
    """The subscripts of each operand, and of the result where they are given."""
    inputs, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != count:
        _refuse(
            subscripts,
            "one group of letters for each operand",
            expected=f"{count} groups",
            got=f"{len(terms)} groups",
        )
    for term in (*terms, result):
        letters = term.replace("...", "", 1)
        if not letters.isascii() or not (letters.isalpha() or not letters):
            _refuse(subscripts, f"cannot read {term!r}", expected="letters, and ... once at most")
    return terms, result if arrow else None


def _labels(term: str, x: Tensor, subscripts: str) -> list[Label]:
    """A label for each axis of an operand."""
    letters = term.replace("...", "")
    rest = x.ndim - len(letters)
    if rest < 0 or (rest > 0 and "..." not in term):
        _refuse(subscripts, f"{term!r} names {len(letters)} axes of an operand", got=str(x.type))
    before, _, after = term.partition("...")
    numbers: list[Label] = list(range(-rest, 0))
    return [*before, *numbers, *after]


def _output(
    result: str | None, places: list[list[Label]], dots: int, subscripts: str
) -> list[Label]:
    numbers: list[Label] = list(range(-dots, 0))
    letters = [n for labels in places for n in labels if isinstance(n, str)]
    if result is None:
        return [*numbers, *sorted(n for n in set(letters) if letters.count(n) == 1)]
    before, found, after = result.partition("...")
    out: list[Label] = [*before, *(numbers if found else []), *after]
    if len(set(out)) != len(out):
        _refuse(subscripts, f"the result names an axis twice: {result!r}")
    unknown = sorted(n for n in {*before, *after} if n not in letters)
    if unknown:
        _refuse(subscripts, f"the result names {unknown[0]!r}, which no operand has")
    return out


def _sizes(places: list[list[Label]], tensors: list[Tensor], subscripts: str) -> dict[Label, Size]:
    """The size of each label; 1 stretches to any other."""
    sizes: dict[Label, Size] = {}
    for labels, x in zip(places, tensors, strict=True):
        for name, size in zip(labels, x.shape, strict=True):
            known = sizes.setdefault(name, size)
            if known == 1:
                sizes[name] = size
            elif size not in (1, known):
                what = f"axis {name!r}" if isinstance(name, str) else "an axis of ..."
                _refuse(subscripts, f"{what} has two sizes", expected=str(known), got=str(size))
    return sizes


def _narrowed(x: Tensor, labels: list[Label], sizes: dict[Label, Size]) -> Labelled:
    """Without axes that stretch, and with diagonals for labels that come twice."""
    kept = [a for a, name in enumerate(labels) if x.shape[a] == sizes[name]]
    if len(kept) < x.ndim:
        x, labels = x.reshape(tuple(x.shape[a] for a in kept)), [labels[a] for a in kept]
    for name in list(dict.fromkeys(labels)):
        while labels.count(name) > 1:
            first = labels.index(name)
            second = labels.index(name, first + 1)
            x = diagonal(x, 0, first, second)
            labels = [n for a, n in enumerate(labels) if a not in (first, second)] + [name]
    return x, labels


def _summed(work: Labelled, kept: set[Label]) -> Labelled:
    """Summed over the labels that nobody keeps."""
    x, labels = work
    axes = tuple(a for a, name in enumerate(labels) if name not in kept)
    if not axes:
        return work
    return Tensor(emit("reduce_sum", x.value, axes=axes)), [n for n in labels if n in kept]


def _cheapest(work: list[Labelled], out: Sequence[Label]) -> tuple[int, int]:
    """The two operands whose product is smallest."""
    if len(work) == 2:
        return 0, 1

    def cost(pair: tuple[int, int]) -> float:
        others = {n for i, (_, labels) in enumerate(work) if i not in pair for n in labels}
        found: dict[Label, Size] = {}
        for i in pair:
            found |= dict(zip(work[i][1], work[i][0].shape, strict=True))
        sizes = (size_bounds(s)[1] for n, s in found.items() if n in others or n in out)
        total = 1.0
        for size in sizes:
            total *= size if size < 2**40 else _UNBOUNDED
        return total

    return min(combinations(range(len(work)), 2), key=cost)


def _multiplied(left: Labelled, right: Labelled, kept: set[Label]) -> Labelled:
    """The product, summed over shared labels that nobody keeps."""
    (a, la), (b, lb) = left, right
    shared = [n for n in la if n in lb]
    over = [n for n in shared if n not in kept]
    batch = [n for n in shared if n in kept]
    labels = batch + [n for n in la if n not in shared] + [n for n in lb if n not in shared]
    if not over:
        sizes = dict(zip(la, a.shape, strict=True)) | dict(zip(lb, b.shape, strict=True))
        return _arranged(a, la, labels, sizes) * _arranged(b, lb, labels, sizes), labels
    attrs = {
        "batch_a": tuple(map(la.index, batch)),
        "batch_b": tuple(map(lb.index, batch)),
        "over_a": tuple(map(la.index, over)),
        "over_b": tuple(map(lb.index, over)),
    }
    return Tensor(emit("contract", a.value, b.value, **attrs)), labels


def _arranged(
    x: Tensor, labels: Sequence[Label], order: Sequence[Label], sizes: dict[Label, Size]
) -> Tensor:
    """Axes in `order`, those that x lacks stretched."""
    x = transpose(x, [labels.index(n) for n in order if n in labels])
    aligned = tuple(sizes[n] if n in labels else 1 for n in order)
    return broadcast(x.reshape(aligned), tuple(sizes[n] for n in order))


def diagonal(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The elements whose positions along two axes differ by `offset`, along a new last axis.

    Shapes  [n, m, ...] -> [..., length of the diagonal].
    Errors  ShapeError if the axes are one, or their sizes are symbolic and not equal.
    """
    x = as_tensor(x)
    a, b = normal_axis(axis1, x.ndim, "axis1"), normal_axis(axis2, x.ndim, "axis2")
    if a == b:
        fail(ShapeError, f"a diagonal of axis {axis1} with itself", got=str(x.type))
    rest = [i for i in range(x.ndim) if i not in (a, b)]
    x = transpose(x, [*rest, a, b])
    x = _square(x, offset)
    lead, n = x.shape[:-2], x.shape[-1]
    # Rows of n, read as rows of n + 1: each begins one element further to the right.
    line = x.reshape((*lead, n * n))
    none = (0,) * len(lead)
    zero = emit("full", value=_zero(x), dtype=x.type.dtype, shape=())
    pad = {"low": (*none, 0), "high": (*none, n), "interior": (*none, 0)}
    skewed = Tensor(emit("pad", line.value, zero, **pad)).reshape((*lead, n, n + 1))
    return skewed[..., 0]


def _square(x: Tensor, offset: int) -> Tensor:
    """The square whose main diagonal is diagonal `offset` of the last two axes."""
    rows, columns = x.shape[-2:]
    if rows == columns and offset == 0:
        return x
    if not isinstance(rows, int) or not isinstance(columns, int):
        fail(
            ShapeError,
            "a diagonal beside the main one, or of sizes that differ, needs fixed sizes",
            got=str(x.type),
        )
    top, left = max(-offset, 0), max(offset, 0)
    n = max(min(rows - top, columns - left), 0)
    top, left = min(top, rows), min(left, columns)
    return x[..., top : top + n, left : left + n]


def _zero(x: Tensor) -> float | bool:
    kind = x.type.dtype.kind
    return False if kind == "b" else 0.0 if kind == "f" else 0


def trace(x: TensorLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of a diagonal; see `diagonal`.  Integers are summed in i64."""
    return diagonal(x, offset, axis1, axis2).sum(-1)
