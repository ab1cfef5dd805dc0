"""Layout by patterns of axes: `fx.rearrange`, `fx.reduce`, `fx.repeat`.

The notation is that of einops (Rogozhnikov, "Einops: clear and reliable tensor manipulations with
Einstein-like notation", 2022): the left side names the axes of the operand, the right side those of
the result, and parentheses join axes into one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from fluxc.compiler.errors import IRSyntaxError, ShapeError
from fluxc.compiler.ir.dims import exact_quotient, product
from fluxc.ops import layout
from fluxc.ops.layout import transpose
from fluxc.ops.reduce import all, any, logsumexp, max, mean, min, prod, sum
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast
from fluxc.trace import fail, user_loc

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.pattern import Side

__all__ = ["rearrange", "reduce", "repeat"]

Key: TypeAlias = "str | tuple[str, int]"
"""An axis: its name, or `...` or a size with a number that tells it from others like it."""
REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "sum": sum, "mean": mean, "max": max, "min": min, "prod": prod, "any": any, "all": all,
    "logsumexp": logsumexp,
}  # fmt: skip


def rearrange(x: TensorLike, /, pattern: str, **sizes: Size) -> Tensor:
    """The same elements with axes in another order, joined or split.

        fx.rearrange(x, "b h w c -> b c h w")
        fx.rearrange(x, "b (h p) (w q) c -> b (h w) (p q c)", p=4, q=4)   # patches

    x      a tensor, or a list of equal ones: the list is their first axis.
    sizes  of axes inside parentheses that their sizes do not tell.
    Errors ShapeError if the sides name different axes or the sizes do not fit.
    """
    return _Pattern("rearrange", pattern, x, sizes).result(None)


def reduce(
    x: TensorLike, /, pattern: str, reduction: str | Callable[..., Tensor], **sizes: Size
) -> Tensor:
    """Axes that the right side lacks are reduced.

        fx.reduce(x, "b c (h 2) (w 2) -> b c h w", "max")   # pooling

    reduction  sum, mean, max, min, prod, any, all, logsumexp, or a function of (x, axis).
    """
    if isinstance(reduction, str) and reduction not in REDUCTIONS:
        fail(ShapeError, f"reduce by {reduction!r}", expected=", ".join(REDUCTIONS))
    how = REDUCTIONS[reduction] if isinstance(reduction, str) else reduction
    return _Pattern("reduce", pattern, x, sizes).result(how)


def repeat(x: TensorLike, /, repeats: int | str, axis: int | None = None, **sizes: Size) -> Tensor:
    """Each element several times: along an axis as NumPy does, or by a pattern.

        fx.repeat(x, 3, axis=0)
        fx.repeat(x, "h w -> (h r) w", r=2)

    By a pattern, axes that the left side lacks are new, with their size in `sizes`.  With a number,
    each element comes `repeats` times in a row along `axis`, of the flat tensor by default.
    """
    if not isinstance(repeats, str):
        return layout.repeat(x, repeats, axis)
    return _Pattern("repeat", repeats, x, sizes).result(None)


class _Pattern:
    """A pattern applied to a tensor."""

    def __init__(self, name: str, text: str, x: TensorLike, sizes: dict[str, Size]) -> None:
        from fluxc.compiler.ir.pattern import parse_pattern  # lark is heavy

        self.name, self.text = name, text
        self.x = as_tensor(x)
        try:
            left, right = parse_pattern(text)
        except IRSyntaxError as error:
            error.loc = user_loc()
            raise
        self.given = dict(sizes)
        self.sizes: dict[Key, Size] = {}
        self.left = self._with_dots(left)
        self.right = self._with_dots(right)
        self.counter = 0
        self.source = self._read()

    def refuse(self, what: str, *, expected: str = "", got: str = "") -> NoReturn:
        fail(ShapeError, f"{self.name} {self.text!r}: {what}", expected=expected, got=got)

    def _with_dots(self, side: Side) -> list[list[Any]]:
        """A side with `...` as the axes that it stands for: in parentheses, together in one."""
        groups = [part if isinstance(part, tuple) else (part,) for part in side]
        names = [a for group in groups for a in group]
        twice = sorted({a for a in names if isinstance(a, str) and names.count(a) > 1})
        if twice:
            self.refuse(f"{twice[0]} comes twice on one side")
        if not hasattr(self, "dots"):
            self.has_dots = "..." in names
            self.dots = self.x.ndim - len(side) + 1 if self.has_dots else 0
            if self.dots < 0 or (not self.has_dots and len(side) != self.x.ndim):
                self.refuse(f"the left side has {len(side)} axes", got=str(self.x.type))
        elif "..." in names and not self.has_dots:
            self.refuse("the left side lacks ...")
        spread = [("...", i) for i in range(self.dots)]
        axes: list[list[Any]] = []
        for part, group in zip(side, groups, strict=True):
            if part == "...":
                axes += [[key] for key in spread]
            else:
                axes.append([k for a in group for k in (spread if a == "..." else [a])])
        return axes

    def _key(self, axis: Any) -> Key:
        """A size that is written out is an axis of its own."""
        if not isinstance(axis, int):
            key: Key = axis
            return key
        self.counter += 1
        own = (str(axis), self.counter)
        self.sizes[own] = axis
        return own

    def _read(self) -> list[Key]:
        """The axes of the operand, once its joined axes are split."""
        found: list[Key] = []
        for group, size in zip(self.left, self.x.shape, strict=True):
            keys = [self._key(a) for a in group]
            unknown: list[Key] = []
            for key in keys:
                if isinstance(key, str) and key in self.given:
                    self.sizes[key] = self.given.pop(key)
                elif key not in self.sizes:
                    unknown.append(key)
            self._infer(keys, unknown, size)
            found += keys
        return found

    def _infer(self, keys: list[Key], unknown: list[Key], size: Size) -> None:
        """The one size of a joined axis that nobody says."""
        known = product(self.sizes[k] for k in keys if k not in unknown)
        shown = " ".join(k if isinstance(k, str) else k[0] for k in keys)
        if len(unknown) > 1:
            self.refuse(f"the sizes in ({shown}) are not known", expected=f"{unknown[0]}=...")
        if unknown:
            rest = exact_quotient(size, known)
            if rest is None:
                self.refuse(f"an axis of size {size} does not split into ({shown})", got=str(known))
            self.sizes[unknown[0]] = rest
        elif known != size:
            self.refuse(f"({shown}) has another size", expected=str(size), got=str(known))

    def result(self, reduction: Callable[..., Tensor] | None) -> Tensor:
        target = [[self._target(a) for a in group] for group in self.right]
        if self.given:
            self.refuse(f"there is no axis {next(iter(self.given))!r}")
        wanted = [k for group in target for k in group]
        gone = tuple(i for i, k in enumerate(self.source) if k not in wanted)
        lost = [self.source[i] for i in gone if _show(self.source[i]) != "1"]
        if reduction is None and lost:
            self.refuse(f"the right side lacks {_show(lost[0])}")
        x = self.x.reshape(tuple(self.sizes[k] for k in self.source))
        if gone:
            kept = [k for k in self.source if k in wanted]
            if reduction is not None:
                x = reduction(x, axis=gone)
            else:
                x = x.reshape(tuple(self.sizes[k] for k in kept))
            self.source = kept
        return self._placed(x, wanted).reshape(
            tuple(product(self.sizes[k] for k in group) for group in target)
        )

    def _target(self, axis: Any) -> Key:
        """An axis of the result: of the operand, or new."""
        if isinstance(axis, int):
            if self.name != "repeat" and axis != 1:
                self.refuse(f"the right side has a new axis of size {axis}")
            return self._key(axis)
        if axis not in self.source:
            if self.name != "repeat":
                self.refuse(f"the left side lacks {axis}")
            if axis not in self.given:
                self.refuse(f"the size of {axis} is not known", expected=f"{axis}=...")
            self.sizes[axis] = self.given.pop(axis)
        key: Key = axis
        return key

    def _placed(self, x: Tensor, wanted: list[Key]) -> Tensor:
        """Axes in order, new ones stretched."""
        x = transpose(x, [self.source.index(k) for k in wanted if k in self.source])
        aligned = tuple(self.sizes[k] if k in self.source else 1 for k in wanted)
        return broadcast(x.reshape(aligned), tuple(self.sizes[k] for k in wanted))


def _show(key: Key) -> str:
    return key if isinstance(key, str) else key[0]
