"""What layers over images [batch, channels, spatial...] check, and how they print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.ops.spatial import numbers
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.module import Module
    from fluxc.tensor import Tensor

__all__ = ["check_image", "kernel_sizes", "options_text", "shortest", "sizes_text"]


def kernel_sizes(name: str, k: Any) -> tuple[int, ...]:
    """The kernel's sizes; one number is a kernel along one axis."""
    sizes = tuple(k) if isinstance(k, tuple | list) else (k,)
    return numbers(f"{name}: kernel", sizes, max(len(sizes), 1))


def check_image(layer: Module, x: Tensor, rank: int | None, channels: int | None) -> None:
    """[batch, channels, one size for each of `rank` spatial axes], or a ShapeError."""
    fitting = x.ndim > 2 if rank is None else x.ndim == rank + 2
    if fitting and channels in (None, x.shape[1]):
        return
    spatial = ["..."] if rank is None else ["height", "width"] if rank == 2 else ["size"] * rank
    fail(
        ShapeError,
        f"{layer.describe()}: the input does not fit",
        expected=f"{x.type.dtype}[batch, {channels or 'channels'}, {', '.join(spatial)}]",
        got=str(x.type),
        hint="" if fitting or rank is None else _rank_hint(x, rank),
    )


def _rank_hint(x: Tensor, rank: int) -> str:
    """What to do about another number of axes."""
    if x.ndim == rank + 1:
        return "x[None] is a batch of one"
    each = sizes_text((3,) * (x.ndim - 2))
    return f"sizes of windows are one for each spatial axis: {each}" if x.ndim > 2 else ""


def shortest(value: Any) -> Any:
    """One number for all axes where they have one."""
    if isinstance(value, tuple | list) and len(set(value)) == 1:
        return value[0]
    return value


def sizes_text(sizes: tuple[Any, ...]) -> str:
    """A tuple as Python writes it."""
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def options_text(given: dict[str, tuple[Any, Any]]) -> str:
    """`, name=value` for each keyword whose value is not the usual one of the pair."""
    changed = {name: value for name, (value, usual) in given.items() if value != usual}
    return "".join(f", {name}={shortest(value)!r}" for name, value in changed.items())
