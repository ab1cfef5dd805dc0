"""Containers made from containers: mapped, filtered, grouped, joined, shuffled, in windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import FluxcError
from fluxc.data.observations import (
    Container,
    Seed,
    batch,
    generator,
    getobs,
    numobs,
    obsview,
    together,
    unbatch,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BatchView",
    "SlidingWindow",
    "filterobs",
    "getbatch",
    "group_counts",
    "group_indices",
    "groupobs",
    "joinobs",
    "mapobs",
    "randobs",
    "shuffleobs",
    "slidingwindow",
]

BATCHED = ("auto", "never", "always")


class MappedObs(Container):
    """See `mapobs`."""

    def __init__(self, f: Callable[[Any], Any], data: Any, batched: str) -> None:
        self.f, self.data, self.batched = f, data, batched

    def __len__(self) -> int:
        return numobs(self.data)

    def one(self, i: int) -> Any:
        if self.batched == "always":
            return getobs(self.f(together(self.data, np.array([i]))), 0)
        return self.f(getobs(self.data, i))

    def several(self, indices: np.ndarray) -> Any:
        return unbatch(self.together(indices)) if self.batched != "never" else self._each(indices)

    def together(self, indices: np.ndarray) -> Any:
        if self.batched == "never":
            return batch(self._each(indices))
        return self.f(together(self.data, indices))

    def _each(self, indices: np.ndarray) -> list[Any]:
        return [self.one(i) for i in indices.tolist()]


def mapobs(f: Any, data: Any, batched: str = "auto") -> Any:
    """A container whose observations are `f` of those of `data`, computed when they are fetched.

    f        a function; a tuple or a dict of functions makes a tuple or a dict of containers.
    batched  what f is called with: "auto", one observation or a batch, as they are asked for;
             "never", one observation; "always", a batch, which may be of one.
    """
    if batched not in BATCHED:
        raise FluxcError(f"batched={batched!r} is unknown", expected=", ".join(BATCHED))
    numobs(data)
    if isinstance(f, tuple):
        return tuple(mapobs(g, data, batched) for g in f)
    if isinstance(f, dict):
        return {name: mapobs(g, data, batched) for name, g in f.items()}
    return MappedObs(f, data, batched)


def filterobs(f: Callable[[Any], Any], data: Any) -> Any:
    """The observations of which `f` is true, in their order; f sees every one now."""
    return obsview(data, [i for i in range(numobs(data)) if f(getobs(data, i))])


def groupobs(f: Callable[[Any], Any], data: Any) -> dict[Any, Any]:
    """The observations by what `f` says of them: a dict from each answer to a container."""
    groups = group_indices([f(getobs(data, i)) for i in range(numobs(data))])
    return {key: obsview(data, indices) for key, indices in groups.items()}


def group_indices(labels: Any) -> dict[Any, np.ndarray]:
    """For every distinct label, in the order of first appearance, where it stands.

    >>> {k: v.tolist() for k, v in group_indices(["yes", "no", "yes"]).items()}
    {'yes': [0, 2], 'no': [1]}
    """
    groups: dict[Any, list[int]] = {}
    for i, label in enumerate(_labels(labels)):
        groups.setdefault(label, []).append(i)
    return {label: np.array(indices) for label, indices in groups.items()}


def group_counts(labels: Any) -> dict[Any, int]:
    """For every distinct label, in the order of first appearance, how often it stands there."""
    return {label: len(indices) for label, indices in group_indices(labels).items()}


def _labels(labels: Any) -> list[Any]:
    if isinstance(labels, np.ndarray):
        if labels.ndim != 1:
            raise FluxcError(
                "labels are one for each observation",
                expected="rank 1",
                got=f"{labels.dtype}{list(labels.shape)}",
                hint="data.onecold(labels)" if labels.ndim == 2 else "",
            )
        return list(labels.tolist())
    return list(labels)


class JoinedObs(Container):
    """See `joinobs`."""

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts
        self.ends = np.cumsum([numobs(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.parts else 0

    def one(self, i: int) -> Any:
        part = int(np.searchsorted(self.ends, i, side="right"))
        return getobs(self.parts[part], i - (int(self.ends[part - 1]) if part else 0))


def joinobs(*data: Any) -> Container:
    """The observations of several containers, one after another.  PyTorch: `ConcatDataset`."""
    return JoinedObs(data)


def shuffleobs(data: Any, *, seed: Seed = 0) -> Any:
    """The observations in random order."""
    return obsview(data, generator(seed).permutation(numobs(data)))


def randobs(data: Any, n: int | None = None, *, seed: Seed = 0) -> Any:
    """A random observation, or a container's worth of `n` drawn independently, with repetition."""
    count = numobs(data)
    if count == 0:
        raise FluxcError("there is no observation to draw from")
    chosen = generator(seed).integers(0, count, n)
    return getobs(data, int(chosen) if n is None else chosen)


class SlidingWindow(Container):
    """See `slidingwindow`."""

    def __init__(self, data: Any, size: int, stride: int) -> None:
        self.data, self.size, self.stride = data, size, stride

    def __len__(self) -> int:
        return (numobs(self.data) - self.size) // self.stride + 1

    def one(self, i: int) -> Any:
        return getobs(self.data, slice(i * self.stride, i * self.stride + self.size))


def slidingwindow(data: Any, size: int, stride: int = 1) -> SlidingWindow:
    """The windows of `size` neighbouring observations, one every `stride`; whole ones alone.

    Errors  FluxcError unless 1 <= size <= the number of observations, and 1 <= stride.

    >>> [w.tolist() for w in slidingwindow(np.arange(5), size=3, stride=2)]
    [[0, 1, 2], [2, 3, 4]]
    """
    if not 1 <= size <= numobs(data) or stride < 1:
        raise FluxcError(
            "no such windows",
            expected=f"1 <= size <= {numobs(data)}, 1 <= stride",
            got=f"size={size}, stride={stride}",
        )
    return SlidingWindow(data, size, stride)


def getbatch(data: Any, indices: np.ndarray, collate: Any = None) -> Any:
    """The observations at `indices` as one batch; see `DataLoader` for collate."""
    if collate is None:
        return together(data, indices)
    items = [getobs(data, i) for i in indices.tolist()]
    return items if collate is False else batch(items) if collate is True else collate(items)


class BatchView(Container):
    """A container whose observations are the batches of another, in its order.

    batchsize  observations of a batch.
    partial    whether the last batch may be smaller; else it is left out.
    collate    as `DataLoader` has it.
    """

    def __init__(
        self, data: Any, batchsize: int = 1, *, partial: bool = True, collate: Any = None
    ) -> None:
        if batchsize < 1:
            raise FluxcError("a batch has at least one observation", got=f"batchsize={batchsize}")
        self.data, self.batchsize, self.partial, self.collate = data, batchsize, partial, collate
        numobs(data)

    def __len__(self) -> int:
        count = numobs(self.data)
        return -(-count // self.batchsize) if self.partial else count // self.batchsize

    def one(self, i: int) -> Any:
        start = i * self.batchsize
        end = min(start + self.batchsize, numobs(self.data))
        return getbatch(self.data, np.arange(start, end), self.collate)
