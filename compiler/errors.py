"""Everything a user can be told: one exception family with one form of message.

`where: what is wrong`, then up to three aligned rows: expected, got, hint.
A `FluxcError` is the user's to mend; an `AssertionError` is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Loc

__all__ = [
    "BuildError",
    "DTypeError",
    "FluxcError",
    "IRSyntaxError",
    "InvalidGraph",
    "ModelFileError",
    "NotDifferentiable",
    "ShapeError",
    "TraceError",
    "Unsupported",
]


class FluxcError(Exception):
    """The base of all errors that a user can mend.

    summary:  one line that stands alone.
    loc:      the user's own file and line, and the layer's path where there is one.
    expected, got: both sides in the IR's spelling of types.
    hint:     code that the user can paste, or nothing.
    """

    def __init__(
        self,
        summary: str,
        *,
        loc: Loc | None = None,
        expected: str = "",
        got: str = "",
        hint: str = "",
    ) -> None:
        self.summary, self.loc = summary, loc
        self.expected, self.got, self.hint = expected, got, hint
        super().__init__(summary)

    def __str__(self) -> str:
        head = f"{self.loc}: {self.summary}" if self.loc else self.summary
        rows = [("expected", self.expected), ("got", self.got), ("hint", self.hint)]
        return "\n".join([head, *(f"  {name + ':':<10}{text}" for name, text in rows if text)])


class ShapeError(FluxcError, ValueError):
    """Shapes or axes that do not fit together."""


class DTypeError(FluxcError, TypeError):
    """A dtype that an operation does not take."""


class TraceError(FluxcError, TypeError):
    """Python code that cannot be traced, such as an `if` on a tensor's value."""


class InvalidGraph(FluxcError, ValueError):
    """A graph that breaks one of the verifier's numbered invariants."""


class IRSyntaxError(FluxcError, ValueError):
    """Text that is not a graph."""


class NotDifferentiable(FluxcError, ValueError):
    """A gradient was asked for through an operation that has none."""


class ModelFileError(FluxcError):
    """A model file that does not import, exports nothing, or exports one name twice."""


class Unsupported(FluxcError, NotImplementedError):
    """A case that the compiler refuses rather than compiles wrongly."""


class BuildError(FluxcError):
    """The C compiler or the linker is missing, failed, or produced what must not be shipped."""
