"""The command line: `fluxc compile`, `run`, `train`, `bench`, `inspect`, `ir`, `targets`.

Exit status: 0 on success, 1 when the input is at fault (one message, no traceback), 2 for wrong
usage.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fluxc.compiler import driver
from fluxc.compiler.errors import FluxcError
from fluxc.compiler.knobs import KNOBS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

__all__ = ["app", "main"]

app = typer.Typer(
    name="fluxc",
    help="Ahead-of-time compiler for machine-learning models.",
    epilog="\n\n".join(f"{k.name}: {k.meaning}" for k in KNOBS.values()),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, err = Console(), Console(stderr=True)

ModelFile = Annotated[
    Path, typer.Argument(help="A Python file with functions under @fx.export, or a .fir graph.")
]
Artifact = Annotated[Path, typer.Argument(help="The folder of a compiled artifact.")]
Target = Annotated[str, typer.Option(help="`native`, an LLVM target triple, or a GPU: cuda:sm_90.")]
Cpu = Annotated[str | None, typer.Option(help="LLVM's name of a processor, e.g. x86-64-v3.")]
Entries = Annotated[
    list[str] | None, typer.Option("--entry", help="Only this entry; may be repeated.")
]
EMITS = ("package", "lib", "object")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fluxc {driver.VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def _steps(verbose: bool) -> Iterator[driver.Report]:
    """The running step on a terminal, every step with its time if verbose, nothing in a pipe."""
    begun = time.perf_counter()

    def report_line(step: str) -> None:
        err.print(f"{time.perf_counter() - begun:7.3f} s  {step}", highlight=False)

    if verbose:
        yield report_line
    elif err.is_terminal:
        with err.status("fluxc") as status:
            yield status.update
    else:
        yield driver.silent


@app.command("compile")
def compile_command(
    model: ModelFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="The artifact's folder.")],
    target: Target = "native",
    cpu: Cpu = None,
    weights: Annotated[
        Path | None, typer.Option(help="Parameters to ship, a safetensors file.")
    ] = None,
    entry: Entries = None,
    emit: Annotated[
        str, typer.Option(help="package; or lib or object: the same without Python.")
    ] = "package",
    threads: Annotated[int, typer.Option(min=0, help="Default threads; 0: all cores.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial parameters.")] = 0,
    name: Annotated[str | None, typer.Option(help="The artifact's name.")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Time every step.")] = False,
) -> None:
    """Compile a model file into an importable package, a shared library and a C header."""
    if emit not in EMITS:
        known = ", ".join(EMITS)
        raise typer.BadParameter(f"cannot emit {emit!r}, only: {known}", param_hint="--emit")
    with _steps(verbose) as report:
        report("trace the model")
        spec = driver.load_model_file(model)
        result = driver.compile_spec(
            spec,
            output,
            name=name,
            target=target,
            cpu=cpu,
            weights=weights,
            entries=tuple(entry or ()),
            threads=threads,
            seed=seed,
            emit=emit,
            report=report,
        )
    names = ", ".join(e.name for e in result.spec.entries)
    if err.is_terminal:
        err.print(f"{result.directory}: {names}", highlight=False)


@app.command("ir")
def ir_command(
    model: ModelFile,
    stage: Annotated[str, typer.Option(help=f"One of {', '.join(driver.STAGES)}.")] = "graph",
    entry: Entries = None,
    target: Target = "native",
    cpu: Cpu = None,
) -> None:
    """Print a model at one stage of its way through the compiler."""
    if stage not in driver.STAGES:
        raise typer.BadParameter(
            f"{stage!r} is not one of {', '.join(driver.STAGES)}", param_hint="--stage"
        )
    spec = driver.load_model_file(model)
    text = driver.print_stage(spec, stage, entries=tuple(entry or ()), target=target, cpu=cpu)
    typer.echo(text)


@app.command(
    "run",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def run_command(
    context: typer.Context,
    artifact: Artifact,
    entry: Annotated[str, typer.Argument(help="The entry to call.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help=".npy, or .npz for several outputs.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Parameters to use.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of random numbers.")] = 0,
    threads: Annotated[int | None, typer.Option(min=0, help="Threads; 0: all cores.")] = None,
    save: Annotated[Path | None, typer.Option(help="Save the model's weights after it.")] = None,
) -> None:
    """Call an entry of an artifact: `fluxc run build/model predict --x x.npy -o out.npy`."""
    import numpy as np

    package = _package(artifact)
    declared = _entry(package, artifact, entry)
    arrays = _arrays(context.args, [i.name for i in declared.inputs])
    with _artifact_errors(package):
        model = _model(package, seed, weights, threads)
        result = getattr(model, entry)(**arrays)
        if save is not None:
            model.save(str(save))
    leaves: dict[str, Any] = _leaves(result)
    if output is None:
        for name, leaf in leaves.items():
            out.print(f"{name} {leaf.dtype}{list(leaf.shape)}", highlight=False, markup=False)
            out.print(np.array2string(leaf), highlight=False, markup=False)
    elif output.suffix == ".npz":
        np.savez(output, **leaves)
    elif len(leaves) == 1:
        np.save(output, next(iter(leaves.values())))
    else:
        raise FluxcError(f"{entry} returns {len(leaves)} arrays", hint=f"-o {output.stem}.npz")


def _entry(package: Any, artifact: Path, name: str) -> Any:
    if name not in package.entries:
        known = ", ".join(package.entries)
        raise FluxcError(f"{artifact} has no entry {name!r}", expected=known)
    return package.entries[name]


def _model(package: Any, seed: int, weights: Path | None, threads: int | None) -> Any:
    options: dict[str, Any] = {"seed": seed}
    if weights is not None:
        options["weights"] = str(weights)
    if threads is not None:
        options["threads"] = threads
    return package.Model(**options)


@app.command("train")
def train_command(
    artifact: Artifact,
    entry: Annotated[str, typer.Argument(help="The training step to call.")],
    data: Annotated[Path, typer.Option(help="An .npz file: one array for each input, by name.")],
    epochs: Annotated[int, typer.Option(min=1, help="How often the data are passed over.")] = 1,
    batchsize: Annotated[int, typer.Option(min=1, help="Examples of one step.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the shuffling and the model.")] = 0,
    weights: Annotated[Path | None, typer.Option(help="Parameters to begin with.")] = None,
    threads: Annotated[int | None, typer.Option(min=0, help="Threads; 0: all cores.")] = None,
    save: Annotated[Path | None, typer.Option(help="Save the model's weights after it.")] = None,
    validate: Annotated[Path | None, typer.Option(help="An .npz file to evaluate on.")] = None,
    holdout: Annotated[
        float | None, typer.Option(help="Evaluate on this share of the data instead.")
    ] = None,
    evaluate: Annotated[str | None, typer.Option(help="The entry to evaluate by.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A folder to save every epoch in, safe from a kill.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    log: Annotated[Path | None, typer.Option(help="A folder for TensorBoard's files.")] = None,
) -> None:
    """Train an artifact on shuffled batches of arrays; prints the last epoch's mean loss."""
    from fluxc import train
    from fluxc.compiler.use import evaluation, evaluation_entry, read_data, training_batches
    from fluxc.data import splitobs

    _check_training_options(validate, holdout, evaluate, checkpoint, resume)
    package = _package(artifact)
    declared = _entry(package, artifact, entry)
    if not declared.training:
        steps = [e.name for e in package.entries.values() if e.training]
        raise FluxcError(f"{entry} is no training step", expected=", ".join(steps) or "(none)")
    arrays = read_data(data, declared.inputs)
    held: Any = validate
    if holdout is not None:
        arrays, held = splitobs(arrays, at=1 - holdout, shuffle=True, seed=seed)
    loader = training_batches(arrays, declared.inputs, batchsize=batchsize, shuffle=True, seed=seed)
    with _artifact_errors(package):
        model = _model(package, seed, weights, threads)
        evaluations = []
        if held is not None:
            by = evaluation_entry(package, declared, evaluate)
            evaluations = [evaluation(getattr(model, by.name), by, declared, held, batchsize)]
        history = train.fit(
            getattr(model, entry),
            loader,
            epochs=epochs,
            evaluate=evaluations,
            callbacks=[] if log is None else [train.tensorboard(log)],
            checkpoint=checkpoint,
            resume=resume,
        )
        if save is not None:
            model.save(str(save))
    last = history.rows[-1]
    for name in ["loss", *(n for n in last if n.startswith("validation_"))]:
        typer.echo(f"{name} {last[name]:.6g}")


def _check_training_options(
    validate: Path | None,
    holdout: float | None,
    evaluate: str | None,
    checkpoint: Path | None,
    resume: bool,
) -> None:
    if validate is not None and holdout is not None:
        raise typer.BadParameter("one of --validate and --holdout", param_hint="--holdout")
    if holdout is not None and not 0 < holdout < 1:
        raise typer.BadParameter("a share lies between 0 and 1", param_hint="--holdout")
    if evaluate is not None and validate is None and holdout is None:
        raise typer.BadParameter("needs --validate or --holdout", param_hint="--evaluate")
    if resume and checkpoint is None:
        raise typer.BadParameter("needs --checkpoint", param_hint="--resume")


@app.command(
    "bench",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench_command(
    context: typer.Context,
    artifact: Artifact,
    entry: Annotated[str, typer.Argument(help="The entry to time.")],
    seconds: Annotated[float, typer.Option(min=0.0, help="How long to go on.")] = 1.0,
    threads: Annotated[int | None, typer.Option(min=0, help="Threads; 0: all cores.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Numbers for a program.")] = False,
) -> None:
    """Time an entry on random arrays: `fluxc bench build/model predict --batch 1`.

    Every named size is an option, 1 where it is not given.  Latencies are of calls from Python.
    """
    from fluxc.compiler.use import measure, random_inputs, size_value

    package = _package(artifact)
    declared = _entry(package, artifact, entry)
    sizes = _sizes(context.args, declared.symbols)
    arrays = random_inputs(declared, sizes)
    with _artifact_errors(package):
        call = getattr(_model(package, 0, None, threads), entry)
        timing = measure(lambda: call(**arrays), seconds=seconds)
    manifest = json.loads((artifact / "manifest.json").read_text("utf-8"))
    (facts,) = [e for e in manifest["entries"] if e["name"] == entry]
    flops = facts.get("flops")
    count = None if flops is None else size_value(flops, sizes)
    found: dict[str, Any] = {"entry": entry, **sizes, "calls": timing.calls}
    micro = {"p50": timing.p50, "p90": timing.p90, "p99": timing.p99, "least": timing.least}
    found |= {f"{name}_us": round(value * 1e6, 3) for name, value in micro.items()}
    if count is not None:
        found |= {"flops": count, "gflop_per_s": round(count / timing.p50 * 1e-9, 3)}
    if as_json:
        typer.echo(json.dumps(found))
        return
    unit = {"p50_us": "us", "p90_us": "us", "p99_us": "us", "least_us": "us"}
    rows = [(k.removesuffix("_us"), f"{v} {unit.get(k, '')}".rstrip()) for k, v in found.items()]
    for name, value in rows:
        out.print(f"{name:<12}{value}", highlight=False, markup=False)


def _sizes(words: list[str], names: tuple[str, ...]) -> dict[str, int]:
    """Read `--batch 64 --time 10`; a size that is not given is 1."""
    sizes = dict.fromkeys(names, 1)
    pairs = iter(words)
    for word in pairs:
        flag, equals, value = word.partition("=")
        value = value if equals else next(pairs, "")
        if not flag.startswith("--") or flag[2:] not in sizes or not value.isdecimal():
            options = " ".join(f"--{n} NUMBER" for n in names) or "none"
            raise typer.BadParameter(f"cannot understand {word!r}; sizes are: {options}")
        sizes[flag[2:]] = int(value)
    return sizes


@app.command("targets")
def targets_command() -> None:
    """What this installation compiles for."""
    table = Table(show_edge=False, pad_edge=False)
    for column in ("target", "for", "state"):
        table.add_column(column, overflow="fold")
    for row in driver.targets():
        table.add_row(*map(Text, row))
    out.print(table)


def _package(artifact: Path) -> Any:
    try:
        return driver.load_package(artifact)
    except FluxcError:
        raise
    except Exception as error:
        # The artifact's own loader says what is wrong with it; it shares no exception type with us.
        if type(error).__name__ != "ArtifactError":
            raise
        raise FluxcError(f"{artifact}: {error}") from error


@contextmanager
def _artifact_errors(package: Any) -> Iterator[None]:
    """Turn what an artifact raises about its arguments into one message."""
    try:
        yield
    except (TypeError, ValueError, OSError, package.ArtifactError) as error:
        raise FluxcError(str(error)) from error


def _arrays(words: list[str], names: list[str]) -> dict[str, np.ndarray]:
    """Read `--x x.npy --y labels.npy`."""
    import numpy as np

    arrays: dict[str, np.ndarray] = {}
    pairs = iter(words)
    for word in pairs:
        flag, equals, value = word.partition("=")
        value = value if equals else next(pairs, "")
        if not flag.startswith("--") or flag[2:] not in names or not value:
            options = " ".join(f"--{n} FILE.npy" for n in names)
            raise typer.BadParameter(f"cannot understand {word!r}; inputs are: {options}")
        try:
            arrays[flag[2:]] = np.load(value, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise FluxcError(f"{flag} {value}: not a readable .npy file ({error})") from error
    return arrays


def _leaves(result: Any, name: str = "out") -> dict[str, np.ndarray]:
    import numpy as np

    if isinstance(result, dict):
        items = [(str(k), v) for k, v in result.items()]
    elif isinstance(result, (tuple, list)):
        items = [(f"{name}{i}", v) for i, v in enumerate(result)]
    else:
        return {name: np.asarray(result)}
    return {key: leaf for k, v in items for key, leaf in _leaves(v, k).items()}


@app.command("inspect")
def inspect_command(
    artifact: Artifact,
    as_json: Annotated[bool, typer.Option("--json", help="The manifest as it is.")] = False,
) -> None:
    """Show an artifact: entries, types, parameters, target, sizes, hashes, kernels."""
    file = artifact / "manifest.json"
    try:
        manifest = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise FluxcError(f"{artifact} is not a compiled artifact: {error}") from error
    if as_json:
        typer.echo(json.dumps(manifest, indent=2))
        return
    from fluxc.compiler.artifact.inspect import tables

    for number, table in enumerate(tables(artifact, manifest)):
        if number:
            out.print()
        out.print(_rich_table(*table))


def _rich_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as Text: `[batch, 64]` is not markup
    return table


def main() -> None:
    """Run the command line and exit."""
    try:
        app()
    except FluxcError as error:
        typer.echo(f"fluxc: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:  # a folder that cannot be written, a full disk
        typer.echo(f"fluxc: {error}", err=True)
        sys.exit(1)
