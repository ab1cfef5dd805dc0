"""Files in messages: whose they are, and how the user would name them."""

from __future__ import annotations

import os
import sysconfig
from functools import lru_cache
from pathlib import Path

__all__ = ["is_library", "short_name"]

_LIBRARIES = tuple(
    os.path.realpath(sysconfig.get_path(kind)) + os.sep
    for kind in ("stdlib", "platstdlib", "purelib", "platlib")
)


# Packages also come from other environments, by PYTHONPATH or a .pth file.
_INSTALLED = frozenset({"site-packages", "dist-packages"})


@lru_cache(maxsize=4096)
def is_library(file: str) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    if file.startswith("<frozen"):
        return True
    path = os.path.realpath(file)
    return path.startswith(_LIBRARIES) or not _INSTALLED.isdisjoint(Path(path).parts)


def short_name(file: str) -> str:
    """A file's name from the working directory, where it lies below it."""
    if not file.startswith(os.sep):
        return file
    return file.removeprefix(os.getcwd() + os.sep)  # noqa: PTH109 (once a node of a printed graph)
