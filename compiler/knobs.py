"""Every environment variable that the compiler reads: name, default, meaning.  Nothing else reads one."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["KNOBS", "Knob", "knob"]


@dataclass(frozen=True, slots=True)
class Knob:
    """One environment variable."""

    name: str
    default: str
    meaning: str


KNOBS = {
    k.name: k
    for k in (
        Knob("FLUXC_DUMP", "", "print the graph after this pass on standard error; `all`: every pass"),
        Knob("FLUXC_VERIFY", "1", "1: verify the graph after every pass; 0: never"),
        Knob("FLUXC_CC", "", "the C compiler that builds artifacts; empty: cc, gcc or clang on PATH"),
        Knob("FLUXC_CACHE", "", "folder of compiled runtimes; empty: the user's cache folder"),
    )
}


def knob(name: str) -> str:
    """The value of a declared knob."""
    return os.environ.get(name, KNOBS[name].default)
