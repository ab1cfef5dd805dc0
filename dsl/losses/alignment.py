"""Losses of sequences whose alignment with their targets is not known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.control import scan
from fluxc.ops.elementwise import as_float
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.losses.terms import Aggregate

__all__ = ["ctc_loss"]

# The logarithm of 0, finite so that differences of two are numbers; no sum of real ones reaches it.
NEVER = -1e30


def ctc_loss(
    prediction: TensorLike,
    target: TensorLike,
    agg: Aggregate = ops.mean,
    *,
    input_lengths: TensorLike | None = None,
    target_lengths: TensorLike | None = None,
    blank: int = -1,
    zero_infinity: bool = False,
) -> Tensor:
    """agg(-log p(target)), p summed over all alignments of the labels with the steps.

    Each step says one class; blanks and repetitions are dropped from what is said, so that equal
    neighbours in the target need a blank in between.  Computed in the log domain, for all examples
    in one loop, in f32 at least.  PyTorch's CTCLoss, but that this takes the logsoftmax of raw
    scores itself, has the batch first, and leaves the division by lengths to `agg`.

    Shapes   prediction [batch, time, classes], target i32[batch, labels]; or [time, classes] and
             [labels].  agg has the losses [batch], or the one.
    input_lengths, target_lengths  i32[batch]: how many steps and labels of each count; the rest is
             padding, whatever it holds.  All, by default.  A target may be empty.
    blank    its class; the last by default, as in Flux.
    zero_infinity  a target that the steps are too few for has loss 0, rather than infinity.
    Gradient softmax(prediction) minus the shares of the classes in all alignments; 0 for steps that
             do not count, and where no alignment exists.
    Errors   ShapeError or DTypeError for what does not fit.  A label that counts and is no class,
             or the blank, gives NaN.
    """
    y, t = _checked(prediction, target)
    batch, (time, classes), labels = y.shape[:-2], y.shape[-2:], t.shape[-1]
    wide = as_tensor(y, "f32") if y.type.dtype.bits == 16 else y
    empty = _class(blank, classes, t)
    steps = _lengths("input_lengths", input_lengths, batch)
    count = _lengths("target_lengths", target_lengths, batch)
    count = ops.full(batch, labels, "i32") if count is None else ops.clip(count, 0, labels)

    counts = ops.arange(labels) < count[..., None]
    wrong = (counts & ((t < 0) | (t >= classes) | (t == empty))).any(-1)
    path = _path(ops.where(counts, ops.clip(t, 0, classes - 1), empty), empty)
    said = ops.broadcast_to(path[..., None, :], (*batch, time, path.shape[-1]))
    scores = ops.take_along_axis(ops.logsoftmax(wide), said)
    ends = _ends(ops.maximum(scores, NEVER), path, empty, steps)

    places = ops.arange(path.shape[-1])
    last = (places == 2 * count[..., None]) | (places == 2 * count[..., None] - 1)
    total = ops.logsumexp(ops.where(last, ends, NEVER), -1)
    found = ops.where(total < NEVER / 2, 0.0 if zero_infinity else math.inf, -total)
    return agg(as_tensor(ops.where(wrong, math.nan, found), y.dtype))


def _checked(prediction: TensorLike, target: TensorLike) -> tuple[Tensor, Tensor]:
    y, t = as_float(prediction), as_tensor(target)
    if y.ndim < 2 or t.ndim != y.ndim - 1 or t.shape[:-1] != y.shape[:-2]:
        fail(
            ShapeError,
            "ctc_loss: prediction and target do not fit",
            expected="[batch, time, classes] and i32[batch, labels], or both without a batch",
            got=f"{y.type} and {t.type}",
        )
    if not t.type.dtype.is_integer:
        fail(DTypeError, "ctc_loss: labels must be integers", got=str(t.type))
    return y, as_tensor(t, "i32")


def _class(blank: int, classes: Size, like: Tensor) -> Tensor:
    """The number of the blank; negative ones count from the end."""
    if isinstance(classes, int) and not -classes <= blank < classes:
        fail(ShapeError, f"ctc_loss: blank={blank} is none of {classes} classes")
    return as_tensor(blank if blank >= 0 else classes + blank, like.dtype)


def _lengths(name: str, lengths: TensorLike | None, batch: tuple[Size, ...]) -> Tensor | None:
    if lengths is None:
        return None
    n = as_tensor(lengths)
    if n.shape != batch or not n.type.dtype.is_integer:
        fail(
            ShapeError,
            f"ctc_loss: {name} must be one integer an example",
            expected=f"i32[{', '.join(map(str, batch))}]",
            got=str(n.type),
        )
    return as_tensor(n, "i32")


def _path(labels: Tensor, blank: Tensor) -> Tensor:
    """blank, label, blank, label, ..., blank: [..., 2*labels + 1]."""
    pairs = ops.stack([ops.full_like(labels, blank), labels], axis=-1)
    flat = pairs.reshape((*labels.shape[:-1], 2 * labels.shape[-1]))
    return ops.concatenate([flat, ops.full((*labels.shape[:-1], 1), blank, "i32")], axis=-1)


def _behind(x: Tensor, by: int, fill: Any) -> Tensor:
    """x moved by some places along the last axis, what comes in filled."""
    widths = [(0, 0)] * (x.ndim - 1) + [(by, 0)]
    return ops.pad(x, widths, constant_values=fill)[..., : x.shape[-1]]


def _ends(scores: Tensor, path: Tensor, blank: Tensor, steps: Tensor | None) -> Tensor:
    """log p of having come to each place of the path when the last step is over.

    From one step to the next a place is kept, the next one taken, or, from a label to another
    one, the blank between them left out.
    """
    may_skip = (path != blank) & (path != _behind(path, 2, -1))

    def step(before: Tensor, row: tuple[Tensor, Any]) -> tuple[Tensor, None]:
        skipped = ops.where(may_skip, _behind(before, 2, NEVER), NEVER)
        after = _log_sum(before, _behind(before, 1, NEVER), skipped) + row[0]
        over = None if steps is None else (row[1] >= steps)[..., None]
        return (after if over is None else ops.where(over, before, after)), None

    first = ops.where(ops.arange(path.shape[-1]) == 0, as_tensor(0.0, scores.dtype), NEVER)
    start = ops.broadcast_to(first, path.shape)
    numbers = None if steps is None else ops.arange(scores.shape[-2])
    ends: Tensor = scan(step, start, (ops.moveaxis(scores, -2, 0), numbers))[0]
    return ends


def _log_sum(*xs: Tensor) -> Tensor:
    """log(sum(exp(x))) of tensors that are nowhere infinite."""
    top = ops.stop_gradient(ops.maximum(ops.maximum(xs[0], xs[1]), xs[2]))
    a, b, c = (ops.exp(x - top) for x in xs)
    return top + ops.log(a + b + c)
