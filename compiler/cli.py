"""The command line: `fluxc compile`, `run`, `inspect`, `ir`.

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

ModelFile = Annotated[Path, typer.Argument(help="A Python file with functions under @fx.export.")]
Artifact = Annotated[Path, typer.Argument(help="The folder of a compiled artifact.")]
Target = Annotated[str, typer.Option(help="`native` or an LLVM target triple.")]
Cpu = Annotated[str | None, typer.Option(help="LLVM's name of a processor, e.g. x86-64-v3.")]
Entries = Annotated[
    list[str] | None, typer.Option("--entry", help="Only this entry; may be repeated.")
]


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
    emit: Annotated[str, typer.Option(help="What to produce: package.")] = "package",
    threads: Annotated[int, typer.Option(min=0, help="Default threads; 0: all cores.")] = 0,
    name: Annotated[str | None, typer.Option(help="The artifact's name.")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Time every step.")] = False,
) -> None:
    """Compile a model file into an importable package, a shared library and a C header."""
    if emit != "package":
        raise typer.BadParameter(f"cannot emit {emit!r}, only: package", param_hint="--emit")
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
    if entry not in package.entries:
        known = ", ".join(package.entries)
        raise FluxcError(f"{artifact} has no entry {entry!r}", expected=known)
    arrays = _arrays(context.args, [i.name for i in package.entries[entry].inputs])
    with _artifact_errors(package):
        options: dict[str, Any] = {"seed": seed}
        if weights is not None:
            options["weights"] = str(weights)
        if threads is not None:
            options["threads"] = threads
        model = package.Model(**options)
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
