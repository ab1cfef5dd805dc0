"""Checkpoints that survive a kill at any moment.

A checkpoint is a folder: `model.safetensors` (parameters, states, optimiser, random state),
`fit.json` (where the training stood), and `SHA256SUMS` of both, which `sha256sum -c` understands.
It is written beside its place, brought to the disk, and renamed; older ones go only after that.
What does not match its sums was torn, and the one before is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluxc.compiler.errors import FluxcError

__all__ = ["Checkpoint", "Saved", "newest", "save"]

MODEL, FACTS, SUMS = "model.safetensors", "fit.json", "SHA256SUMS"
_NAME = re.compile(r"checkpoint-(\d{8})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where and when `fit` saves a training that it can resume.

    folder  holds the checkpoints of one training; made if it does not exist.
    steps   save after every so many steps too; None: after epochs alone.
    epochs  save after every so many epochs; the last one is saved in any case.
    keep    how many complete checkpoints stay, at least 2.
    """

    folder: str | Path
    steps: int | None = None
    epochs: int = 1
    keep: int = 2

    def __post_init__(self) -> None:
        if self.keep < 2 or self.epochs < 1 or (self.steps is not None and self.steps < 1):
            raise FluxcError(
                "no such checkpoints",
                expected="steps >= 1 or None, epochs >= 1, keep >= 2",
                got=f"steps={self.steps}, epochs={self.epochs}, keep={self.keep}",
            )


@dataclass(frozen=True, slots=True)
class Saved:
    """A complete checkpoint: its weights file, and the facts beside it."""

    weights: Path
    facts: dict[str, Any]


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder, the newest first, whole or torn."""
    if not folder.is_dir():
        return []
    found = [(m, p) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))]
    return sorted(((int(m[1]), p) for m, p in found), reverse=True)


def save(model: Any, facts: dict[str, Any], place: Checkpoint) -> Path:
    """Write a checkpoint and drop old ones; returns the weights file.

    Errors  what `model.save` raises; nothing is changed then.
    """
    folder = Path(place.folder)
    folder.mkdir(parents=True, exist_ok=True)
    old = _numbered(folder)
    number = old[0][0] + 1 if old else 0
    fresh = folder / f".writing-{number:08}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        model.save(str(fresh / MODEL))
        _write(fresh / FACTS, json.dumps(facts, default=_number))
        _write(fresh / SUMS, "".join(f"{_sum(fresh / f)}  {f}\n" for f in (MODEL, FACTS)))
        _sync(fresh)
        made = fresh.rename(folder / f"checkpoint-{number:08}")
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _sync(folder)
    _prune([path for _, path in old], place.keep - 1)
    return made / MODEL


def _prune(old: list[Path], keep: int) -> None:
    """Drop what is older than the `keep` newest complete ones."""
    for path in old:
        if keep == 0:
            shutil.rmtree(path)
        elif _whole(path):
            keep -= 1


def newest(folder: str | Path) -> Saved | None:
    """The newest complete checkpoint of a folder; None if it holds none at all.

    Errors  FluxcError where there are checkpoints and every one is torn.
    """
    found = _numbered(Path(folder))
    for _, path in found:
        if _whole(path):
            return Saved(path / MODEL, json.loads((path / FACTS).read_text("utf-8")))
    if found:
        raise FluxcError(
            f"{folder}: no checkpoint is complete",
            got=", ".join(p.name for _, p in found),
            hint="delete the folder to begin anew",
        )
    return None


def _whole(path: Path) -> bool:
    """Whether a checkpoint's files are those that were written."""
    try:
        sums = (path / SUMS).read_text("utf-8")
        return sums == "".join(f"{_sum(path / f)}  {f}\n" for f in (MODEL, FACTS))
    except (OSError, UnicodeDecodeError):
        return False


def _sum(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _write(file: Path, text: str) -> None:
    with file.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def _sync(folder: Path) -> None:
    """Names survive a power cut once their folder is on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _number(value: Any) -> Any:
    """NumPy's numbers as JSON's."""
    if not isinstance(value, np.generic):
        raise FluxcError(
            "a callback's state is not JSON",
            expected="numbers, text, lists, dicts",
            got=repr(value),
        )
    return value.item()
