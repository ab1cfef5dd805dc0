"""Every environment variable that the compiler reads; nothing else reads one."""

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
        Knob("FLUXC_DUMP", "", "graph printed to standard error after this pass; `all`: each"),
        Knob("FLUXC_VERIFY", "1", "1: verify the graph after every pass; 0: never"),
        Knob("FLUXC_CC", "", "C compiler that builds artifacts; empty: cc, gcc or clang on PATH"),
        Knob("FLUXC_CACHE", "", "folder of compiled runtimes; empty: the user's cache folder"),
    )
}


def knob(name: str) -> str:
    """The value of a declared knob."""
    return os.environ.get(name, KNOBS[name].default)
