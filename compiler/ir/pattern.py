"""Reads patterns of axes, `b (h w) c -> b c h w`.  Like `parser` it imports lark, and lazily so."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from lark import Lark, Transformer, UnexpectedInput

from fluxc.compiler.errors import IRSyntaxError

__all__ = ["Axis", "Side", "parse_pattern"]

Axis: TypeAlias = "str | int"
"""A name, a size, or `...`."""
Side: TypeAlias = "tuple[Axis | tuple[Axis, ...], ...]"
"""The axes of a tensor; those written in parentheses, a tuple, lie together in one axis."""


@lru_cache(maxsize=1024)
def parse_pattern(text: str) -> tuple[Side, Side]:
    """The two sides of a pattern.

    Errors  IRSyntaxError with a caret under what cannot be read.
    """
    try:
        tree = _lark().parse(text)
    except UnexpectedInput as error:
        place = error.pos_in_stream if error.pos_in_stream is not None else len(text)
        place = len(text) if place < 0 else place
        raise IRSyntaxError(
            f"cannot read the pattern {text!r}",
            expected="axes -> axes, such as 'b (h w) c -> b c h w'",
            got=f"\n  {text}\n  {' ' * place}^",
        ) from None
    left, right = _Sides().transform(tree)
    return left, right


@lru_cache(maxsize=1)
def _lark() -> Lark:
    grammar = Path(__file__).with_name("pattern.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr")


class _Sides(Transformer):  # type: ignore[type-arg]
    """One small method per rule."""

    def atom(self, children: list[str]) -> Axis:
        (word,) = map(str, children)
        if word.isdigit():
            return int(word)
        return "..." if word == "…" else word

    def group(self, children: list[Axis]) -> tuple[Axis, ...]:
        return tuple(children)

    def side(self, children: list[Axis | tuple[Axis, ...]]) -> Side:
        return tuple(children)

    def start(self, children: list[Side]) -> list[Side]:
        return children
