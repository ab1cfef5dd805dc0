"""Artifacts at work: training over a data set, and how long a call takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fluxc.compiler.errors import FluxcError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Timing", "measure", "random_inputs", "read_data", "train"]

Progress: TypeAlias = Callable[[int, int, float], None]
"""Is told the epoch, the number of steps done in all, and the mean loss of the epoch so far."""
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
        with np.load(path, allow_pickle=False) as file:
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


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training ended: the mean loss of the last epoch, and the steps done in all."""

    loss: float
    steps: int


def train(
    step: Callable[..., Any],
    data: Mapping[str, np.ndarray],
    *,
    epochs: int,
    batchsize: int,
    seed: int,
    fixed: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Call `step` on shuffled batches of the data.

    fixed    the entry takes no other batch size: a last batch that is short is left out.
    Errors   FluxcError with the step's number where the loss is not a number.
    """
    count = len(next(iter(data.values())))
    rng = np.random.default_rng(seed)
    whole = count - count % batchsize if fixed else count
    if whole == 0:
        raise FluxcError(f"{count} examples make no batch of {batchsize}")
    steps, mean = 0, math.nan
    for epoch in range(epochs):
        order = rng.permutation(count)[:whole]
        total, seen = 0.0, 0
        for start in range(0, whole, batchsize):
            part = order[start : start + batchsize]
            loss = _loss(step(**{name: a[part] for name, a in data.items()}))
            steps += 1
            if not math.isfinite(loss):
                raise FluxcError(
                    f"the loss is {loss} at step {steps} (epoch {epoch + 1})",
                    hint="a smaller learning rate, or look for a log or a division of 0",
                )
            total, seen = total + loss * len(part), seen + len(part)
            mean = total / seen
            if progress is not None:
                progress(epoch, steps, mean)
    return Trained(mean, steps)


def _loss(result: Any) -> float:
    """A training step returns its loss, or (loss, more...)."""
    while isinstance(result, tuple | list):
        result = result[0]
    return float(result)


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
