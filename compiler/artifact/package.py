"""Writing an artifact: every file into a new folder, which then takes the place of the old one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fluxc.compiler.artifact.header import header_text
from fluxc.compiler.artifact.manifest import manifest, manifest_text
from fluxc.compiler.artifact.module import module_text
from fluxc.compiler.artifact.names import check_names, public_functions
from fluxc.compiler.artifact.weights import initial_value, read_weights, write_weights
from fluxc.compiler.backends.llvm.link import (
    link_library,
    link_object,
    start_runtime_build,
)
from fluxc.compiler.errors import FluxcError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.backends.llvm.link import RuntimeBuild
    from fluxc.compiler.ir.entry import ModelSpec
    from fluxc.compiler.kernels.program import Program
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["write_package"]


def write_package(
    output: str | Path,
    name: str,
    spec: ModelSpec,
    programs: Sequence[Program],
    object_bytes: bytes,
    target: Target,
    *,
    weights: str | Path | None = None,
    version: str,
    threads: int = 0,
    seed: int = 0,
    runtime_build: RuntimeBuild | None = None,
    emit: str = "package",
) -> None:
    """Link emitted code and write the artifact into the folder `output`.

    weights  a safetensors file whose parameters are shipped; else the initial values from `seed`.
    threads  the default of `Model(threads=...)`.
    emit     package: a Python package around a shared library; lib: the library without Python;
             object: one object file, to be linked into a program.
    Errors   FluxcError; what was in `output` before is then still there.
    """
    folder = Path(output)
    check_names(name, spec, programs)
    _check_hyperparameters(spec)
    _check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        hashes = _write_weights(fresh, name, spec, weights, seed)
        runtime = runtime_build or start_runtime_build(target)
        code = fresh / (f"{name}.o" if emit == "object" else f"lib{name}.so")
        if emit == "object":
            link_object(object_bytes, runtime, code)
        else:
            exports = public_functions(name, [e.name for e in spec.entries])
            link_library(object_bytes, runtime, code, exports)
        about = (target.triple, target.cpu, version)
        texts = {f"{name}.h": header_text(name, spec, programs, *about)}
        if emit == "package":
            texts["__init__.py"] = module_text(name, spec, programs, *about)
        for file, text in texts.items():
            (fresh / file).write_text(text, "utf-8")
        for file in (code.name, *texts):
            hashes[file] = hashlib.sha256((fresh / file).read_bytes()).hexdigest()
        facts = manifest(name, spec, programs, target, version, threads, hashes)
        (fresh / "manifest.json").write_text(manifest_text(facts), "utf-8")
        _make_readable(fresh)
        _replace(folder, fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _check_hyperparameters(spec: ModelSpec) -> None:
    """Python sets them as numbers, and NumPy has no bf16 to make them of."""
    for s in spec.storages:
        if s.kind == "hyper" and s.type.dtype.name == "bf16":
            raise FluxcError(f"hyper-parameter {s.name} is bf16", expected="f32 or f64")


def _write_weights(
    fresh: Path, name: str, spec: ModelSpec, weights: str | Path | None, seed: int
) -> dict[str, str]:
    """Write NAME.safetensors; returns its hash by name."""
    given = None if weights is None else read_weights(Path(weights), spec)
    stored = [s for s in spec.storages if (s.in_file if given is None else s.name in given)]
    file = fresh / f"{name}.safetensors"
    with file.open("wb") as out:
        value = (lambda s: initial_value(s, seed)) if given is None else (lambda s: given[s.name])
        return {file.name: write_weights(out, name, stored, value)}


def _check_replaceable(folder: Path) -> None:
    """Only an artifact, or nothing, may be replaced: whatever else lies there is the user's."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise FluxcError(f"{folder} exists and is not a folder", hint="choose another -o")
    present = {p.name for p in folder.iterdir()} - {"__pycache__"}
    surplus = sorted(present - _own_files(folder)) if present else []
    if surplus:
        raise FluxcError(
            f"{folder} holds files that are not an artifact's: {', '.join(surplus[:8])}",
            hint="move them, or choose another -o",
        )


def _own_files(folder: Path) -> set[str]:
    """The files of the artifact in `folder`; none if there is no artifact."""
    try:
        facts = json.loads((folder / "manifest.json").read_text("utf-8"))
        return {"manifest.json", *facts["files"]} if "fluxc" in facts else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _make_readable(folder: Path) -> None:
    """A temporary folder is private; an artifact has the permissions that a plain mkdir gives."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)


def _replace(folder: Path, fresh: Path) -> None:
    """Put `fresh` in the place of `folder`, which keeps its content if that fails."""
    if not folder.exists():
        fresh.rename(folder)
        return
    # Beside the new one, and under a name that no artifact has.
    old = fresh.with_name(fresh.name + ".old")
    folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
