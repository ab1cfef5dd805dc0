"""The way of a model through the compiler: file -> entries -> programs -> native code -> artifact.

Each step is a plain function from one immutable value to the next; this file puts them in a row.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from fluxc.compiler.advice import describe, hint_for
from fluxc.compiler.errors import FluxcError, ModelFileError, Unsupported
from fluxc.compiler.ir.entry import Entry, Export, ModelSpec
from fluxc.compiler.ir.graph import Graph, Loc
from fluxc.compiler.knobs import knob
from fluxc.compiler.passes.pipeline import optimize

if TYPE_CHECKING:
    from types import ModuleType

    from fluxc.compiler.kernels.program import Program
    from fluxc.compiler.kernels.schedule import Target

__all__ = [
    "STAGES",
    "Compiled",
    "compile_file",
    "compile_spec",
    "load_model_file",
    "load_package",
    "lower",
    "print_stage",
    "silent",
]

VERSION = "0.1.0"
Report: TypeAlias = Callable[[str], None]
"""Is told the name of each step as it begins."""


def silent(step: str) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compile produced."""

    directory: Path
    name: str
    spec: ModelSpec
    programs: tuple[Program, ...]


def load_model_file(path: str | Path) -> ModelSpec:
    """Import a model file and trace everything that it exports; a `.fir` file is read as text.

    Errors  ModelFileError, with the user's file and line, if it is missing, does not import, or
            exports nothing; whatever tracing raises.
    """
    file = Path(path)
    if file.suffix == ".fir":
        return _load_graphs(file)
    namespace = _namespace(file)
    exports = [value for value in namespace.values() if isinstance(value, Export)]
    if not exports:
        _fail_without_exports(file, namespace.get("__fluxc_exports__", ()))
    return exports[0].trace_model(namespace)


def _load_graphs(file: Path) -> ModelSpec:
    """The graphs of a text file as entries; their parameters are inputs.

    A parameter's label is the input's name: `%0 "x": f32[4]`; without one it is x0, x1, ...
    Errors  ModelFileError if it cannot be read; IRSyntaxError, InvalidGraph.
    """
    from fluxc.compiler.ir.parser import parse_graphs
    from fluxc.compiler.ir.verify import verify
    from fluxc.compiler.ops import infer

    try:
        text = file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ModelFileError(f"cannot read the graphs of {file}: {error}") from error
    graphs = [verify(g, infer) for g in parse_graphs(text)]
    names = [g.name for g in graphs]
    for name in names:
        if names.count(name) > 1:
            raise ModelFileError(f"{file} holds two graphs named {name}")
    return ModelSpec(tuple(_graph_entry(g) for g in graphs), ())


def _graph_entry(graph: Graph) -> Entry:
    inputs: list[str] = []
    for i, p in enumerate(graph.params):
        named = p.name.isidentifier() and p.name not in inputs
        inputs.append(p.name if named else f"x{i}")
    if len(graph.results) == 1:
        return Entry(graph.name, graph, tuple(inputs), (), ("out",))
    outputs = tuple(f"out{i}" for i in range(len(graph.results)))
    tree = ("tuple", ["leaf"] * len(outputs))
    return Entry(graph.name, graph, tuple(inputs), (), outputs, output_tree=tree)


def _fail_without_exports(file: Path, lost: Sequence[Export]) -> NoReturn:
    if lost:
        raise ModelFileError(
            f"{lost[0].name} is exported, but no variable at the top of {file.name} holds it",
            loc=lost[0].loc,
            hint="put @fx.export above every other decorator, and its def at the top of the file",
        )
    raise ModelFileError(
        f"{file} exports nothing",
        expected="at least one function under @fx.export, outside of `if __name__ == ...`",
        hint="@fx.export\n            def predict(x: fx.f32['batch', 64]): return model(x)",
    )


def _namespace(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ModelFileError(f"{file}: no such model file")
    spec = importlib.util.spec_from_file_location(f"fluxc_model_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ModelFileError(f"{file} is not a Python file", hint="a model file ends in .py")
    module = importlib.util.module_from_spec(spec)
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except FluxcError as error:
        error.loc = error.loc or _user_line(error, file)
        raise
    except SyntaxError as error:
        where = Loc(error.filename or str(file), error.lineno or 1)
        raise ModelFileError(f"cannot read the model file: {error.msg}", loc=where) from error
    except (Exception, SystemExit) as error:
        # Whatever the user's own code raises is reported as theirs, with their line.
        raise ModelFileError(
            f"the model file does not import: {describe(error)}",
            loc=_user_line(error, file),
            hint=hint_for(error),
        ) from error
    finally:
        sys.path.remove(folder)
        sys.modules.pop(spec.name, None)
    return vars(module)


def _user_line(error: BaseException, file: Path) -> Loc | None:
    """The last line of the model file itself on the way to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).resolve() == file.resolve()]
    return Loc(str(file), own[-1].lineno or 1) if own else None


def _dump(name: str, graph: Graph) -> None:
    if knob("FLUXC_DUMP") in (name, "all"):
        print(f"; after {name}\n{graph}", file=sys.stderr)  # noqa: T201


def lower(spec: ModelSpec, target: Target, report: Report = silent) -> list[Program]:
    """Optimise and plan every entry, within its limit of memory."""
    from fluxc.compiler.kernels.fit import fit

    programs = []
    for entry in spec.entries:
        report(f"optimise {entry.name}")
        programs.append(fit(_optimized(entry), target))
    return programs


def _optimized(entry: Entry) -> Entry:
    return replace(entry, graph=optimize(entry.graph, watch=_dump))


def _target(target: str, cpu: str | None) -> Target:
    from fluxc.compiler.backends.llvm.target import native_target, target_for
    from fluxc.compiler.backends.triton.target import gpu_target, is_gpu

    if is_gpu(target):
        return gpu_target(target)
    if target == "native":
        return native_target() if cpu is None else target_for(native_target().triple, cpu)
    return target_for(target, cpu)


def targets() -> list[tuple[str, str, str]]:
    """What this installation compiles for: the target's name, what it is, and what is missing."""
    from fluxc.compiler.backends.llvm.link import can_link
    from fluxc.compiler.backends.llvm.target import native_target, target_for
    from fluxc.compiler.backends.triton.build import has_triton
    from fluxc.compiler.backends.triton.target import CHIPS

    native = native_target()
    rows = [("native", f"{native.triple}, {native.cpu}", can_link(native))]
    for name in ("x86_64", "aarch64"):
        machine = target_for(f"{name}-unknown-linux-gnu")
        rows.append((machine.triple, f"any {name}", can_link(machine)))
    gpu = "kernels alone: fluxc ir --stage ptx"
    state = gpu if has_triton() else "pip install 'fluxc[gpu]'"
    return [*rows, *((f"cuda:{chip}", "NVIDIA GPUs, through Triton", state) for chip in CHIPS)]


def _select(spec: ModelSpec, entries: tuple[str, ...]) -> ModelSpec:
    known = {entry.name: entry for entry in spec.entries}
    unknown = [name for name in entries if name not in known]
    if unknown:
        raise ModelFileError(
            f"no entry named {unknown[0]!r} in the model file", expected=", ".join(known)
        )
    if not entries:
        return spec
    kept = tuple(known[name] for name in dict.fromkeys(entries))
    used = {name for entry in kept for name in (*entry.storages, *entry.updates)}
    return ModelSpec(kept, tuple(s for s in spec.storages if s.name in used))


def compile_spec(
    spec: ModelSpec,
    output: str | Path,
    *,
    name: str | None = None,
    target: str = "native",
    cpu: str | None = None,
    weights: str | Path | None = None,
    entries: tuple[str, ...] = (),
    threads: int = 0,
    seed: int = 0,
    emit: str = "package",
    report: Report = silent,
) -> Compiled:
    """Compile traced entries into the artifact folder `output`.

    name     of the Python package and prefix of the C names; the folder's name by default.
    target   `native` or an LLVM triple; cpu, LLVM's name of a processor.
    weights  a safetensors file with the parameters to ship instead of the initial ones.
    entries  names of the entries to compile; all by default.
    threads  the artifact's default number of threads; 0: the cores of the machine that it runs on.
    seed     of the initial parameters, where no weights are given.
    emit     package, or lib or object: the same without Python.
    Errors   FluxcError and its kin; nothing is left half-written in `output`.
    """
    from fluxc.compiler.artifact import write_package
    from fluxc.compiler.backends.llvm import compile_programs
    from fluxc.compiler.backends.llvm.link import start_runtime_build

    directory = Path(output)
    artifact = directory.name if name is None else name
    if not artifact.isidentifier():
        raise ModelFileError(
            f"{artifact!r} cannot be an artifact's name",
            expected="a name that Python can import and C can link: letters, digits, _",
            hint="-o build/model, or --name model",
        )
    chosen = _select(spec, entries)
    machine = _target(target, cpu)
    if machine.gpu:
        raise Unsupported(
            f"artifacts for {target} cannot be made yet",
            hint=f"fluxc ir MODEL --stage ptx --target {target} shows the kernels",
        )
    runtime = start_runtime_build(machine)
    programs = lower(chosen, machine, report)
    report("emit native code")
    code = compile_programs(artifact, chosen, programs, machine, VERSION)
    report("link and write")
    write_package(
        directory,
        artifact,
        chosen,
        programs,
        code,
        machine,
        weights=weights,
        version=VERSION,
        threads=threads,
        seed=seed,
        runtime_build=runtime,
        emit=emit,
    )
    return Compiled(directory, artifact, chosen, tuple(programs))


def compile_file(path: str | Path, output: str | Path, **options: Any) -> Compiled:
    """Compile a model file; options as in `compile_spec`."""
    return compile_spec(load_model_file(path), output, **options)


def load_package(directory: str | Path) -> ModuleType:
    """Import a compiled artifact from its folder, whatever `sys.path` says."""
    folder = Path(directory).resolve()
    name = f"fluxc_artifact_{folder.name}_{abs(hash(folder)):x}"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
        raise ModelFileError(f"{directory} is not a compiled artifact")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


STAGES = ("graph", "grad", "opt", "loops", "llvm", "asm", "triton", "ptx")
"""The forms of a model on its way, in order; the last two are of GPUs."""
_GPU_STAGES = ("triton", "ptx")
_GPU = "cuda:sm_80"  # what a stage of GPUs is for, unless a target is given


def print_stage(
    spec: ModelSpec,
    stage: str,
    *,
    entries: tuple[str, ...] = (),
    target: str = "native",
    cpu: str | None = None,
) -> str:
    """The text of the chosen entries at one of `STAGES`."""
    chosen = _select(spec, entries)
    if stage in ("graph", "grad"):
        graphs = [e.forward or e.graph if stage == "graph" else e.graph for e in chosen.entries]
        return "\n\n".join(map(str, graphs))
    if stage == "opt":
        return "\n\n".join(str(_optimized(e).graph) for e in chosen.entries)
    machine = _target(_GPU if stage in _GPU_STAGES and target == "native" else target, cpu)
    if machine.gpu != (stage in _GPU_STAGES) and stage != "loops":
        raise Unsupported(
            f"{target} has no stage {stage!r}",
            hint="--stage triton or ptx" if machine.gpu else f"--target {_GPU}",
        )
    programs = lower(chosen, machine)
    if stage == "loops":
        from fluxc.compiler.kernels.printer import print_program

        return "\n\n".join(map(print_program, programs))
    if stage in _GPU_STAGES:
        from fluxc.compiler.backends.triton import print_ptx, print_triton

        return (print_triton if stage == "triton" else print_ptx)(programs, machine)
    from fluxc.compiler.backends.llvm import print_asm, print_llvm

    printer = print_llvm if stage == "llvm" else print_asm
    return printer("model", chosen, programs, machine, VERSION)
