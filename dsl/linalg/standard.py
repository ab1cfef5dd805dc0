"""Names of the array API's extension that act on the last two axes, where `fx` has any two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.ops.einsum import diagonal as diagonal_of
from fluxc.ops.einsum import trace as trace_of

if TYPE_CHECKING:
    from fluxc.tensor import Tensor, TensorLike

__all__ = ["diagonal", "trace"]


def diagonal(a: TensorLike, offset: int = 0) -> Tensor:
    """The elements beside or on the diagonal of the last two axes; see `fx.diagonal`."""
    return diagonal_of(a, offset, -2, -1)


def trace(a: TensorLike, offset: int = 0) -> Tensor:
    """The sum of a diagonal of the last two axes."""
    return trace_of(a, offset, -2, -1)
