"""Names that an artifact may have in Python and in C, and the C spelling of the others."""

from __future__ import annotations

import builtins
import keyword
import re
from typing import TYPE_CHECKING

from fluxc.compiler.errors import FluxcError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluxc.compiler.ir.entry import ModelSpec
    from fluxc.compiler.kernels.program import Program

__all__ = ["c_argument_names", "check_names", "public_functions"]

# Of C99 and of C++17, and what <stdint.h> and <stdbool.h> define.
C_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t
    char32_t class compl const const_cast constexpr continue decltype default delete do double
    dynamic_cast else enum explicit export extern false float for friend goto if inline int
    long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected
    public register reinterpret_cast restrict return short signed sizeof static static_assert
    static_cast struct switch template this thread_local throw true try typedef typeid
    typename union unsigned using virtual void volatile wchar_t while xor xor_eq NULL errno
    main linux unix
    """.split()  # noqa: SIM905  a list to read, not to parse
)
C_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
C_FUNCTIONS = ("open", "close", "save", "load", "error", "get", "set")
# Attributes of a compiled Model, and what its module defines or uses.
TAKEN = frozenset(
    """
    t parameters states optimizer entries Model Entry Tensor ArtifactError FORMAT annotations
    ast ctypes hashlib json math operator os threading np
    Callable Iterator Mapping MutableMapping Path Any dataclass
    """.split()  # noqa: SIM905  a list to read, not to parse
) | frozenset((*C_FUNCTIONS, *dir(builtins)))


def public_functions(name: str, entries: Iterable[str]) -> list[str]:
    """The C functions of an artifact, in the order of its header."""
    return [f"{name}_{f}" for f in (*C_FUNCTIONS, *entries)]


def check_names(name: str, spec: ModelSpec, programs: Iterable[Program]) -> None:
    """Refuse names that would not work as a Python package or as C.

    Errors  FluxcError, at the entry's line where there is one.
    """
    if not C_NAME.fullmatch(name) or name in C_KEYWORDS or keyword.iskeyword(name):
        raise FluxcError(
            f"{name!r} cannot be an artifact's name",
            expected="a name that Python can import and C can link: letters, digits, _",
            hint="-o build/model, or --name model",
        )
    for entry, program in zip(spec.entries, programs, strict=True):
        if entry.name in TAKEN or entry.name.startswith("_") or not C_NAME.fullmatch(entry.name):
            raise FluxcError(
                f"{entry.name!r} cannot be an entry's name",
                loc=entry.loc,
                expected="an ASCII name that neither Python's builtins nor an artifact itself uses",
            )
        for other in entry.inputs:
            if other in ("self", "out") or not _is_python_name(other):
                raise FluxcError(
                    f"{entry.name}: {other!r} cannot be an input's name",
                    loc=entry.loc,
                    expected="a Python name other than self and out, without a leading underscore",
                )
        for symbol in program.symbols:
            if keyword.iskeyword(symbol.name):
                raise FluxcError(
                    f"{entry.name}: a size cannot be named {symbol.name!r}, a Python keyword",
                    loc=entry.loc,
                )


def _is_python_name(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")


def _c_name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return name if C_NAME.fullmatch(name) and name not in C_KEYWORDS else f"{name.strip('_')}_"


def c_argument_names(
    symbols: Iterable[str], inputs: Iterable[str], outputs: Iterable[str]
) -> tuple[list[str], list[str], list[str]]:
    """Distinct C names for the arguments of an entry; the model itself is `m`."""
    taken = {"m"}

    def distinct(text: str, prefix: str = "") -> str:
        base = _c_name(text)
        base = base if C_NAME.fullmatch(base) else f"arg{base}"
        name = base if base not in taken else f"{prefix}{base}"
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    def output(text: str) -> str:
        plain = not text or text[0].isdigit()
        return distinct(f"out{text}" if plain else text, "out_")

    return (
        [distinct(s, "n_") for s in symbols],
        list(map(distinct, inputs)),
        list(map(output, outputs)),
    )
