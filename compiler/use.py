"""Artifacts at work: what they are trained and evaluated on, and how long a call takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import FluxcError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = [
    "Timing",
    "evaluation",
    "evaluation_entry",
    "measure",
    "random_inputs",
    "read_data",
    "training_batches",
]

_DTYPES = {"bool": np.dtype(bool), "bf16": np.dtype(np.uint16)} | {
    f"{kind}{8 * n}": np.dtype(f"{kind}{n}")
    for kind in "fiu"
    for n in (1, 2, 4, 8)
    if kind + str(n) != "f1"
}


def read_data(path: Path, inputs: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file that an entry takes, by name, in the entry's dtypes.

    Errors  FluxcError for a file that cannot be read, a missing array, numbers that do not fit.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise FluxcError(
                f"{path} holds one array without a name",
                expected=", ".join(f"{i.name}: {i}" for i in inputs),
                hint=f"np.savez(path, {', '.join(f'{i.name}={i.name}' for i in inputs)})",
            )
        with file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise FluxcError(f"{path}: not a readable .npz file ({error})") from error
    missing = [i.name for i in inputs if i.name not in arrays]
    if missing:
        raise FluxcError(
            f"{path} has no array {missing[0]!r}",
            expected=", ".join(f"{i.name}: {i}" for i in inputs),
            got=", ".join(arrays),
        )
    data = {i.name: _converted(i, arrays[i.name], path) for i in inputs}
    lengths = {len(a) if a.ndim else 0 for a in data.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise FluxcError(
            f"{path}: the arrays differ in their number of examples",
            got=", ".join(f"{n} {list(a.shape)}" for n, a in data.items()),
        )
    return data


def _converted(wanted: Any, array: np.ndarray, path: Path) -> np.ndarray:
    """The array in the dtype of an input; numbers that would become others are an error."""
    dtype = _DTYPES[wanted.dtype]
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        made = array.astype(dtype)
    floats = array.dtype.kind == "f" and dtype.kind == "f"
    if wanted.dtype == "bf16" or not (floats or np.array_equal(made.astype(array.dtype), array)):
        raise FluxcError(
            f"{path}: {wanted.name} does not fit", expected=str(wanted), got=str(array.dtype)
        )
    return made


def training_batches(
    arrays: Mapping[str, np.ndarray], inputs: tuple[Any, ...], **options: Any
) -> Any:
    """The batches of arrays by name; whole ones alone where an input has one size of batch."""
    from fluxc.data import DataLoader

    fixed = any(isinstance(i.shape[0], int) for i in inputs if i.shape)
    loader = DataLoader(dict(arrays), **options, partial=not fixed)
    if len(loader) == 0:
        raise FluxcError(f"{len(loader.order(0))} examples make no batch of {loader.batchsize}")
    return loader


def evaluation_entry(package: Any, step: Any, name: str | None) -> Any:
    """The entry that a step is evaluated by: the one of this name, or the only one that can be."""
    known = {i.name for i in step.inputs}
    able = [
        e.name
        for e in package.entries.values()
        if not e.training and {i.name for i in e.inputs} <= known
    ]
    if name is None and len(able) == 1:
        name = able[0]
    if name not in able:
        raise FluxcError(
            f"cannot evaluate by {name!r}" if name else "which entry to evaluate by is not said",
            expected=f"--evaluate with one of: {', '.join(able)}"
            if able
            else f"an entry without training that takes of {', '.join(sorted(known))}",
        )
    return package.entries[name]


def evaluation(call: Any, entry: Any, step: Any, held: Any, batchsize: int) -> Any:
    """What `fit` evaluates: an entry on a file, or on arrays, beside the step's last input."""
    from fluxc.train import Evaluation

    target = step.inputs[-1]
    inputs = (*(i for i in entry.inputs if i.name != target.name), target)
    arrays = held if isinstance(held, dict) else read_data(held, inputs)
    named = {i.name: arrays[i.name] for i in inputs}
    batches = training_batches(named, entry.inputs, batchsize=batchsize)
    return Evaluation(call, batches, _metrics(entry, target))


def _metrics(entry: Any, target: Any) -> dict[str, Any]:
    """What is measured of an entry: one number is reported as it is; of scores, the accuracy."""
    from fluxc.train import accuracy

    (first, *more) = entry.outputs
    if not more and not first.shape:
        return {}
    scores = not more and first.dtype[0] in "fb" and target.dtype[0] in "iu"
    if scores and len(first.shape) == len(target.shape) + 1:
        return {"accuracy": accuracy}
    raise FluxcError(
        f"no metric is known for {entry.name}",
        expected="an entry that returns one number, or scores of classes beside integer labels",
        got=f"{', '.join(map(str, entry.outputs))} beside {target.name}: {target}",
    )


# Timing.


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of calls: how many were timed, and what half, 90 % and 99 % of them stay below."""

    calls: int
    p50: float
    p90: float
    p99: float
    least: float


def random_inputs(entry: Any, sizes: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays that an entry takes: normal floats, and 0 for integers, which may be indices."""
    rng = np.random.default_rng(seed)
    made = {}
    for i in entry.inputs:
        shape = tuple(size_value(s, sizes) for s in i.shape)
        dtype = _DTYPES[i.dtype]
        if i.dtype == "bf16":
            made[i.name] = (rng.normal(size=shape).astype(np.float32).view(np.uint32) >> 16).astype(
                dtype
            )
        else:
            made[i.name] = (
                rng.normal(size=shape).astype(dtype)
                if dtype.kind == "f"
                else np.zeros(shape, dtype)
            )
    return made


def size_value(size: int | str, sizes: Mapping[str, int]) -> int:
    """The number that a size of a manifest is."""
    from fluxc.compiler.ir.dims import evaluate_size, parse_size

    if isinstance(size, int):
        return size
    return evaluate_size(parse_size(size), sizes)


def measure(call: Callable[[], Any], *, seconds: float) -> Timing:
    """Time a call again and again, after a few calls that do not count."""
    for _ in range(3):
        call()
    times: list[int] = []
    end = time.perf_counter() + seconds
    while len(times) < 10 or (time.perf_counter() < end and len(times) < 1_000_000):
        begun = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - begun)
    p50, p90, p99 = (float(q) * 1e-9 for q in np.percentile(times, (50, 90, 99)))
    return Timing(len(times), p50, p90, p99, min(times) * 1e-9)
