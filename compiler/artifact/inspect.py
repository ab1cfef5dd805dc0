"""An artifact as tables for a reader: entries, stored tensors, files."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Table", "tables"]

Table: TypeAlias = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, names of the columns, rows."""


def tables(artifact: Path, manifest: Mapping[str, Any]) -> Iterator[Table]:
    """What `fluxc inspect` shows of the artifact in a folder, from its manifest."""
    target = manifest["target"]
    about = f"{manifest['name']}, fluxc {manifest['fluxc']}, {target['triple']} {target['cpu']}"
    yield (
        about,
        ("entry", "inputs", "outputs", "sizes", "changes"),
        list(map(_entry, manifest["entries"])),
    )
    if manifest["storages"]:
        storages = manifest["storages"]
        yield f"stored tensors, {_sums(storages)}", ("name", "type", "kind"), [*_stored(storages)]
    yield "memory", ("entry", "scratch bytes", "computed again"), [*_memory(manifest["entries"])]
    kernels = [row for e in manifest["entries"] for row in _kernels(e)]
    yield "kernels", ("entry", "phase", "kernel", "launches"), kernels
    files = manifest["files"].items()
    rows = [(str(f), _bytes(artifact / f), str(h)) for f, h in files]
    yield "files", ("name", "size", "sha256"), [*rows]


def _type(tensor: Mapping[str, Any]) -> str:
    return f"{tensor['dtype']}[{', '.join(map(str, tensor['shape']))}]"


def _entry(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        entry["name"],
        ", ".join(f"{t['name']}: {_type(t)}" for t in entry["inputs"]),
        ", ".join(map(_type, entry["outputs"])),
        ", ".join(map(_range, entry["symbols"])),
        f"{len(entry['updates'])} tensors" if entry["updates"] else "nothing",
    )


def _range(symbol: Mapping[str, Any]) -> str:
    most = "" if symbol["max"] is None else symbol["max"]
    step = f" by {symbol['multiple_of']}" if symbol["multiple_of"] > 1 else ""
    return f"{symbol['name']}: {symbol['min']}..{most}{step}"


def _sums(storages: Sequence[Mapping[str, Any]]) -> str:
    """The number of parameters."""
    counts = [math.prod(s["shape"]) for s in storages if s["kind"] == "parameter"]
    return f"{sum(counts):,} parameters in {len(counts)} arrays"


def _stored(storages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """One row each; what an optimiser keeps beside every parameter is one row a kind."""
    slots = Counter(_slot(s) for s in storages if s["kind"] == "optimizer")
    for s in storages:
        slot = _slot(s)
        if s["kind"] != "optimizer" or slots[slot] == 1:
            yield _storage(s)
        elif slots[slot]:
            yield f"{slot}.*", f"{slots[slot]} tensors", "optimizer"
            slots[slot] = 0


def _slot(storage: Mapping[str, Any]) -> str:
    """`optimizer.train_step.m` of `optimizer.train_step.m.layers.0.weight`."""
    return ".".join(storage["name"].split(".")[:3])


def _storage(storage: Mapping[str, Any]) -> tuple[str, ...]:
    frozen = storage["kind"] == "parameter" and not storage["trainable"]
    return storage["name"], _type(storage), storage["kind"] + (", frozen" if frozen else "")


def _memory(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The bytes that a call needs beside the stored tensors, as a function of the sizes."""
    for entry in entries:
        first, *rest = entry["recomputed"] or ["nothing"]
        yield entry["name"], str(entry["memory"]), first
        yield from (("", "", what) for what in rest)


def _kernels(entry: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for phase in ("prepare", "run"):
        launches = entry["kernels" if phase == "run" else "prepare"]
        for name, count in Counter(launches).items():
            yield entry["name"], phase, name, str(count)


def _bytes(path: Path) -> str:
    return f"{path.stat().st_size:,}" if path.exists() else "missing"
