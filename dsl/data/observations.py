"""Data containers: what counts as one, and how observations are fetched from it.

An array holds its observations along axis 0, a list one in each element; a tuple or a dict holds
containers of the same length side by side; any other object with `__len__` and `__getitem__` holds
one at each index.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from fluxc.compiler.errors import FluxcError

__all__ = [
    "Container",
    "ObsView",
    "Seed",
    "batch",
    "generator",
    "getobs",
    "is_array",
    "numobs",
    "obsview",
    "parts_of",
    "together",
    "unbatch",
]

Seed: TypeAlias = int | np.random.Generator
"""What decides random choices: an integer, the same choices each time; or a generator, new ones."""


def generator(seed: Seed) -> np.random.Generator:
    """The generator that a seed stands for."""
    return seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)


def is_array(data: Any) -> bool:
    """Whether `data` is indexed as arrays are: NumPy's, in files, in other libraries."""
    return all(hasattr(data, name) for name in ("shape", "dtype", "__getitem__"))


def parts_of(data: Any) -> tuple[list[Any], Callable[[Iterable[Any]], Any]] | None:
    """The containers in a tuple or a dict, and what makes the same of others; else None."""
    if isinstance(data, Mapping):
        return list(data.values()), lambda parts: dict(zip(data, parts, strict=True))
    if isinstance(data, tuple):
        named = hasattr(data, "_fields")
        return list(data), lambda parts: type(data)(*parts) if named else tuple(parts)
    return None


def numobs(data: Any) -> int:
    """The number of observations in a data container.

    Errors  FluxcError for what is no container, or for parts whose numbers differ.
    """
    found = parts_of(data)
    if found is not None:
        counts = [numobs(part) for part in found[0]]
        if len(set(counts)) != 1:
            raise FluxcError(
                "the parts of a data container differ in their number of observations",
                expected="one number; observations lie along axis 0",
                got=", ".join(map(str, counts)) or "no parts",
            )
        return counts[0]
    if hasattr(data, "iloc"):
        raise FluxcError(
            f"a {type(data).__name__} is indexed by labels, not by observations",
            hint="{name: column.to_numpy() for name, column in frame.items()}",
        )
    if is_array(data):
        if len(data.shape) == 0:
            raise FluxcError("an array of rank 0 holds no observations", got=str(data))
        return int(data.shape[0])
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise FluxcError(
            f"a {type(data).__name__} is no data container",
            expected="an array, a list, a tuple or dict of them, or __len__ and __getitem__",
        )
    return len(data)


def getobs(data: Any, i: Any = None) -> Any:
    """Observation `i` of a container; several where `i` is a slice or a list; all without it.

    Several observations come as the container holds them: rows of an array, elements of a list,
    a tuple for a tuple.  From other objects they come as a list, by `__getitems__` where the
    object has it.
    """
    if i is None:
        i = slice(None)
    found = parts_of(data)
    if found is not None:
        parts, rebuild = found
        numobs(data)
        return rebuild([getobs(part, i) for part in parts])
    if is_array(data):
        return _rows(data, i)
    if isinstance(data, Container):
        return data[i]
    if _is_index(i):
        return data[place_of(i, numobs(data))]
    indices = indices_of(i, numobs(data)).tolist()
    if hasattr(data, "__getitems__"):
        return data.__getitems__(indices)
    return [data[j] for j in indices]


def _is_index(i: Any) -> bool:
    try:
        operator.index(i)
    except TypeError:
        return False
    return True


def place_of(i: Any, count: int) -> int:
    """An index as an integer between 0 and `count`."""
    index: int = operator.index(i)
    if not -count <= index < count:
        raise IndexError(f"observation {index} of {count}")
    return index % count


def indices_of(i: Any, count: int) -> np.ndarray:
    """A slice, a list of indices or a mask as an array of integers between 0 and `count`."""
    if isinstance(i, slice):
        return np.arange(*i.indices(count))
    indices = np.asarray(i)
    if indices.dtype.kind == "b" and indices.shape == (count,):
        return np.flatnonzero(indices)
    if indices.size == 0:
        return np.zeros(0, np.int64)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise FluxcError(
            "observations are chosen by integers",
            expected="an integer, a slice, a list of integers or a mask",
            got=f"{indices.dtype}{list(indices.shape)}",
        )
    if indices.min() < -count or indices.max() >= count:
        strange = indices.max() if indices.max() >= count else indices.min()
        raise IndexError(f"observation {strange} of {count}")
    return np.where(indices < 0, indices + count, indices)


def _rows(data: Any, i: Any) -> Any:
    if isinstance(i, slice) or _is_index(i):
        return data[i]
    indices = indices_of(i, int(data.shape[0]))
    if isinstance(data, np.ndarray):
        return np.asarray(data[indices])
    # Arrays in files take increasing indices alone, each once.
    once, back = np.unique(indices, return_inverse=True)
    return np.asarray(data[once] if once.size else data[0:0])[back]


def together(data: Any, indices: np.ndarray) -> Any:
    """A batch: rows of arrays, and observations that are fetched one by one stacked."""
    found = parts_of(data)
    if found is not None:
        parts, rebuild = found
        return rebuild([together(part, indices) for part in parts])
    if isinstance(data, np.ndarray):  # the way that is taken most, so nothing is checked twice
        return np.asarray(data.take(indices, axis=0))
    if is_array(data):
        return _rows(data, indices)
    if isinstance(data, Container):
        return data.together(indices)
    return batch(getobs(data, indices))


class Container:
    """The base of the containers of this package: `__len__`, and `one` observation at an index."""

    def __len__(self) -> int:
        raise NotImplementedError

    def one(self, i: int) -> Any:
        raise NotImplementedError

    def several(self, indices: np.ndarray) -> Any:
        return [self.one(i) for i in indices.tolist()]

    def together(self, indices: np.ndarray) -> Any:
        return batch(self.several(indices))

    def __getitem__(self, i: Any) -> Any:
        if _is_index(i):
            return self.one(place_of(i, len(self)))
        return self.several(indices_of(i, len(self)))

    def __iter__(self) -> Iterator[Any]:
        return (self.one(i) for i in range(len(self)))


class ObsView(Container):
    """Some observations of a container, by their indices; each is fetched when it is asked for.

    `view[i]` is observation `indices[i]`; a view of a view is a view of the container itself.
    """

    def __init__(self, data: Any, indices: Any = None) -> None:
        count = numobs(data)
        chosen = np.arange(count) if indices is None else indices_of(indices, count)
        inner = isinstance(data, ObsView)
        self.data: Any = data.data if inner else data
        self.indices: np.ndarray = data.indices[chosen] if inner else chosen

    def __len__(self) -> int:
        return len(self.indices)

    def one(self, i: int) -> Any:
        return getobs(self.data, int(self.indices[i]))

    def several(self, indices: np.ndarray) -> Any:
        return getobs(self.data, self.indices[indices])

    def together(self, indices: np.ndarray) -> Any:
        return together(self.data, self.indices[indices])

    def __repr__(self) -> str:
        return f"ObsView({len(self)} observations of a {type(self.data).__name__})"


def obsview(data: Any, indices: Any = None) -> Any:
    """Some observations of a container as a container, lazily wherever there is a way.

    Of an array in memory they are an array: a view for a slice or a range, else a copy.  Of tuples
    and dicts they are tuples and dicts, and of all else an `ObsView`.
    """
    found = parts_of(data)
    if found is not None:
        parts, rebuild = found
        numobs(data)
        return rebuild([obsview(part, indices) for part in parts])
    if not isinstance(data, np.ndarray) or isinstance(data, np.memmap):
        return ObsView(data, indices)
    if indices is None:
        return data[:]
    if isinstance(indices, range) and indices.step == 1 and indices.start >= 0:
        return data[indices.start : max(indices.start, indices.stop)]
    return _rows(data, indices)


def batch(items: Iterable[Any]) -> Any:
    """One array from arrays or numbers of one shape, stacked along a new axis 0.

    Of tuples and dicts, the tuple or dict of their parts' batches; of text and other objects, their
    list.  `unbatch` is its inverse.  PyTorch: `default_collate`.
    Errors   FluxcError for nothing, or where shapes or parts differ.

    >>> batch([[1, 2, 3], [4, 5, 6]]).shape
    (2, 3)
    """
    items = list(items)
    if not items:
        raise FluxcError("a batch of no observations has no shape")
    found = parts_of(items[0])
    if found is not None:
        keys = {_keys(item) for item in items}
        if len(keys) != 1:
            raise FluxcError(
                "observations of one batch differ in their parts", got=", ".join(map(str, keys))
            )
        columns = zip(*(_values(item) for item in items), strict=True)
        return found[1]([batch(column) for column in columns])
    if isinstance(items[0], str | bytes):
        return items
    arrays = [_as_array(item) for item in items]
    if any(a.dtype.kind not in "biufcV" for a in arrays):
        return items
    if len({a.shape for a in arrays}) != 1:
        raise FluxcError(
            "observations of one batch differ in their shapes",
            got=", ".join(dict.fromkeys(str(list(a.shape)) for a in arrays)),
            hint="collate=False for a list of them, or collate=data.batch_sequence to pad them",
        )
    return np.stack(arrays)


def _as_array(item: Any) -> np.ndarray:
    try:
        return np.asarray(item)
    except ValueError:  # a list of lists of different lengths
        raise FluxcError("an observation is no array", got=str(item)[:60]) from None


def _keys(item: Any) -> Any:
    return tuple(item) if isinstance(item, Mapping) else len(item)


def _values(item: Any) -> Any:
    return item.values() if isinstance(item, Mapping) else item


def unbatch(x: Any) -> list[Any]:
    """The observations of a container as a list: the inverse of `batch`."""
    return [getobs(x, i) for i in range(numobs(x))]
