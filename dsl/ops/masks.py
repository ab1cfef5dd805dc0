"""Which keys a query of attention sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Dim
from fluxc.ops.create import arange
from fluxc.ops.layout import expand_dims
from fluxc.ops.positions import places
from fluxc.tensor import Tensor, TensorLike, as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size

__all__ = ["make_causal_mask"]


def make_causal_mask(x: TensorLike, axis: int = -2) -> Tensor:
    """Bools [len, len], true where key j <= query i: a query sees what is not after it.

    x     a tensor [..., len, features] whose `axis` is the sequence, or the length itself.
    `attention(..., causal=True)` needs no mask.
    """
    length = x if isinstance(x, int | Dim) else as_tensor(x).shape[axis]
    places = arange(length)
    return places <= expand_dims(places, 1)


def check_broadcasts(x: Tensor, logits: Tensor, groups: int, what: str) -> None:
    *lead, m, n = logits.shape
    wanted = (*lead, m, n) if groups == 1 else (*lead[:-2], lead[-2] * groups, m, n)
    paired = zip(reversed(x.shape), reversed(wanted), strict=False)
    if x.ndim > len(wanted) or any(s not in (1, t) for s, t in paired):
        fail(
            ShapeError,
            f"attention: the {what} does not broadcast to the logits",
            expected=f"[..., heads, q_len, kv_len] = {logits.type.with_shape(*wanted)}",
            got=str(x.type),
        )


def check_mask(mask: Tensor, logits: Tensor, groups: int) -> None:
    if mask.type.dtype != ir.bool_:
        fail(
            DTypeError,
            "attention: a mask says which keys are seen",
            expected="bool",
            got=str(mask.type),
            hint="mask != 0; floats that are added are a bias",
        )
    check_broadcasts(mask, logits, groups, "mask")


def near(
    size: tuple[Size, ...],
    batch: tuple[Size, ...],
    causal: bool,
    window: int | None,
    position: TensorLike,
) -> Tensor | None:
    """Which keys causal and window let a query see, or None where they let all."""
    if window is not None and (isinstance(window, bool) or window < 1):
        fail(ShapeError, f"attention: window={window!r}", expected="an integer >= 1")
    if not causal and window is None:
        return None
    rows, columns = size
    query = expand_dims(places(position, rows, batch), -1)
    key = arange(columns)
    seen = key <= query if causal else None
    if window is not None:
        after = key > query - window
        seen = after & (key < query + window if seen is None else seen)
    return seen
