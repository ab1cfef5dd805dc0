"""Arrays and sequences: cut, padded, put in batches and brought to one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import FluxcError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "batch_sequence",
    "batchseq",
    "chunk",
    "normalise",
    "rescale",
    "rpad_constant",
    "unsqueeze",
]


def unsqueeze(x: Any, axis: int) -> np.ndarray:
    """`x` with a new axis of size 1.  NumPy: `np.expand_dims`."""
    return np.expand_dims(np.asarray(x), axis)


def chunk(
    x: Any,
    n: int | None = None,
    *,
    size: int | Sequence[int] | None = None,
    partition: Any = None,
    axis: int = 0,
) -> list[Any]:
    """Cut an array or a list into parts that follow one another; views of an array.

    n          parts of ceil(len / n), the last one shorter, and maybe fewer of them.
    size       parts of this size, the last one shorter; or the sizes, which sum to the whole.
    partition  for every element the number of its part, from 0, in rising order.
    Errors     FluxcError unless exactly one of the three is given and fits.

    >>> [c.tolist() for c in chunk(np.arange(10), 3)]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    """
    count = np.shape(x)[axis] if isinstance(x, np.ndarray) else len(x)
    if sum(given is not None for given in (n, size, partition)) != 1:
        raise FluxcError("parts are given by one of n, size and partition")
    ends = np.cumsum(_sizes(count, n, size, partition), dtype=np.int64).tolist()
    ranges = zip([0, *ends], ends, strict=False)
    if isinstance(x, np.ndarray):
        before = (slice(None),) * (axis % x.ndim)
        return [x[(*before, slice(a, b))] for a, b in ranges]
    return [x[a:b] for a, b in ranges]


def _sizes(count: int, n: int | None, size: Any, partition: Any) -> list[int]:
    if partition is not None:
        numbers = np.asarray(partition)
        rising = numbers.shape == (count,) and (np.diff(numbers) >= 0).all()
        if not rising or (count and numbers[0] < 0):
            raise FluxcError("the parts of elements are rising numbers from 0, one for each")
        return np.bincount(numbers).tolist() if count else []
    if n is not None:
        if n < 1:
            raise FluxcError("there is at least one part", got=f"n={n}")
        size = max(1, -(-count // n))
    if isinstance(size, int):
        if size < 1:
            raise FluxcError("a part has at least one element", got=f"size={size}")
        return [size] * (count // size) + [count % size] * (count % size > 0)
    sizes = [int(s) for s in size]
    if sum(sizes) != count or min(sizes, default=0) < 0:
        raise FluxcError("sizes do not sum to the whole", expected=str(count), got=str(sizes))
    return sizes


def rpad_constant(x: Any, n: int | Sequence[int], value: Any = 0, *, axis: Any = None) -> Any:
    """`x` with `value` after its end, up to size `n` along `axis`, or all axes; never shorter.

    n       one size for all these axes, or one for each.

    >>> rpad_constant([1, 2], 4, -1).tolist()
    [1, 2, -1, -1]
    """
    x = np.asarray(x)
    axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else list(axis)
    sizes = [n] * len(axes) if isinstance(n, int) else list(n)
    if len(sizes) != len(axes):
        raise FluxcError("one size for each axis", expected=str(len(axes)), got=str(len(sizes)))
    pads = [(0, 0)] * x.ndim
    for a, wanted in zip(axes, sizes, strict=True):
        pads[a] = (0, max(wanted - x.shape[a], 0))
    return np.pad(x, pads, constant_values=value)


def batch_sequence(sequences: Any, pad: Any = 0, n: int | None = None) -> np.ndarray:
    """Sequences of different lengths as one batch, each padded at its end.

    Shapes  a list of b arrays [t_i, ...]  ->  [b, max(t_i), ...], or [b, n, ...]
    n       the length to pad to; FluxcError if a sequence is longer.
    PyTorch's name: `pad_sequence(batch_first=True)`.
    """
    arrays = [np.asarray(s) for s in sequences]
    lengths = [len(a) for a in arrays]
    most = max(lengths, default=0)
    if n is not None and most > n:
        raise FluxcError("a sequence is longer than the batch", expected=f"<= {n}", got=str(most))
    length = most if n is None else n
    if not arrays:
        raise FluxcError("a batch of no sequences has no shape")
    return np.stack([rpad_constant(a, length, pad, axis=0) for a in arrays])


def batchseq(sequences: Any, pad: Any = 0, n: int | None = None) -> list[np.ndarray]:
    """`batch_sequence` cut along time: a list whose element t is the batch of the elements at t.

    >>> [b.tolist() for b in batchseq([[1, 2, 3], [4, 5]])]
    [[1, 4], [2, 5], [3, 0]]
    """
    return list(np.moveaxis(batch_sequence(sequences, pad, n), 1, 0))


def rescale(x: Any, *, axis: Any = 0, eps: float = 1e-5) -> np.ndarray:
    """`x` between 0 and 1 along `axis`.

    y = (x - min(x)) / (max(x) - min(x) + eps)
    """
    x = _floats(x)
    low = x.min(axis, keepdims=True)
    scaled: np.ndarray = (x - low) / (x.max(axis, keepdims=True) - low + x.dtype.type(eps))
    return scaled


def normalise(x: Any, *, axis: Any = 0, eps: float = 1e-5) -> np.ndarray:
    """`x` with mean 0 and standard deviation 1 along `axis`.

        y = (x - mean(x)) / (std(x) + eps)

    The standard deviation is of the population, and eps is added to it, not to its square.
    """
    x = _floats(x)
    scale = x.std(axis, keepdims=True) + x.dtype.type(eps)
    scaled: np.ndarray = (x - x.mean(axis, keepdims=True)) / scale
    return scaled


def _floats(x: Any) -> np.ndarray:
    array: np.ndarray = np.asarray(x)
    return array if array.dtype.kind == "f" else array.astype(np.float64)
