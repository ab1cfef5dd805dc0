"""A progress bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TypeAlias

__all__ = ["Show", "progress_bar"]

Show: TypeAlias = Callable[[int, str], None]
"""Is told how many steps are done, and what to say."""


@contextlib.contextmanager
def progress_bar(total: int | None, *, wanted: bool = True) -> Iterator[Show]:
    """What shows the progress of `total` steps, or of an unknown number, on standard error."""
    if not wanted or not sys.stderr.isatty():
        yield lambda _done, _text: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=total)
        yield lambda done, text: bar.update(task, completed=done, description=text)
