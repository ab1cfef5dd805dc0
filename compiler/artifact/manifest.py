"""The manifest: what an artifact is, as data that people and its own binding read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import FluxcError
from fluxc.compiler.ir.dims import Dim, Symbol, size_symbols
from fluxc.compiler.kernels.count import count_flops
from fluxc.compiler.kernels.program import all_launches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.entry import Entry, ModelSpec
    from fluxc.compiler.ir.types import TensorType
    from fluxc.compiler.kernels.program import Program
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["FORMAT", "manifest", "manifest_text", "solve"]

FORMAT = 1
UNBOUNDED = 2**62


def manifest(
    name: str,
    spec: ModelSpec,
    programs: Iterable[Program],
    target: Target,
    version: str,
    threads: int,
    files: Mapping[str, str],
) -> dict[str, Any]:
    """All facts of an artifact.  files: sha256 by file name."""
    pairs = zip(spec.entries, programs, strict=True)
    return {
        "format": FORMAT,
        "name": name,
        "fluxc": version,
        "target": {"triple": target.triple, "cpu": target.cpu, "features": target.features},
        "threads": threads,
        "entries": [_entry(entry, program) for entry, program in pairs],
        "storages": [
            {**_tensor(s.name, s.type), "kind": s.kind, "trainable": s.trainable}
            for s in spec.storages
        ],
        "files": dict(sorted(files.items())),
    }


def manifest_text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"


def _size(size: Size) -> int | str:
    return size if isinstance(size, int) else str(size)


def _flops(program: Program) -> int | str | None:
    flops = count_flops(program)
    return None if flops is None else _size(flops)


def _tensor(name: str, type: TensorType) -> dict[str, Any]:
    return {"name": name, "dtype": type.dtype.name, "shape": [_size(s) for s in type.shape]}


def _symbol(s: Symbol) -> dict[str, Any]:
    return {
        "name": s.name,
        "min": s.min,
        "max": None if s.max >= UNBOUNDED else s.max,
        "multiple_of": s.multiple_of,
    }


def _tree(tree: Any) -> Any:
    """JSON has no tuples: `["tuple", [...]]`."""
    if isinstance(tree, str):
        return tree
    kind, parts = tree
    if kind == "dict":
        return [kind, {key: _tree(part) for key, part in parts.items()}]
    return [kind, [_tree(part) for part in parts]]


def _entry(entry: Entry, program: Program) -> dict[str, Any]:
    inputs = zip(entry.inputs, program.inputs, strict=True)
    outputs = zip(entry.outputs, program.outputs, strict=True)
    return {
        "name": entry.name,
        "training": bool(program.updates),
        "symbols": [_symbol(s) for s in program.symbols],
        "inputs": [_tensor(name, type) for name, type in inputs],
        "outputs": [_tensor(name, type) for name, type in outputs],
        "output_tree": _tree(entry.output_tree),
        "solve": solve(entry, program),
        "reads": list(program.reads),
        "updates": list(program.updates),
        "flops": _flops(program),
        "memory": _size(program.arena),
        "recomputed": list(program.recomputed),
        "kernels": [launch.scheduled.kernel.name for launch in all_launches(program.run)],
        "prepare": [launch.scheduled.kernel.name for launch in all_launches(program.prepare)],
    }


def solve(entry: Entry, program: Program) -> list[list[Any]]:
    """How the named sizes follow from the inputs' shapes.

    Each step, `[symbol, input, axis, factor, rest]`, says
    symbol = (size of the axis - rest) / factor, with rest in symbols known before.
    Errors  FluxcError if a size cannot be found so.
    """
    axes = [
        (size, i, axis)
        for i, type in enumerate(program.inputs)
        for axis, size in enumerate(type.shape)
        if isinstance(size, Dim)
    ]
    steps: list[list[Any]] = []
    known: set[Symbol] = set()
    wanted = set(program.symbols)
    while not wanted <= known:
        found = [step for at in axes for step in _steps(*at, known)]
        if not found:
            unknown = ", ".join(sorted(s.name for s in wanted - known))
            raise FluxcError(
                f"{entry.name}: the value of size {unknown} cannot be told from the inputs' shapes",
                loc=entry.loc,
                expected="an axis of that size, or of a multiple of it plus a constant",
            )
        # An axis that is the size alone gives the clearest messages; else the first one.
        symbol, *step = min(found, key=lambda s: s[3:] != (1, 0))
        known.add(symbol)
        steps.append([symbol.name, *step])
    return steps


def _steps(
    size: Dim, i: int, axis: int, known: set[Symbol]
) -> Iterator[tuple[Symbol, int, int, int, int | str]]:
    """The step that solves `size` for its only unknown symbol, if it is linear in it."""
    unknown = size_symbols(size) - known
    if len(unknown) != 1:
        return
    (symbol,) = unknown
    factor = dict(size.terms).get((symbol,), 0)
    rest = size - Dim((((symbol,), 1),)) * factor
    if factor > 0 and symbol not in size_symbols(rest):
        yield symbol, i, axis, factor, _size(rest)
