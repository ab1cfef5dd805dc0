"""`DataLoader`: batches of a container, in an order that a seed decides, fetched ahead."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import FluxcError
from fluxc.data.observations import Seed, getobs, numobs, parts_of
from fluxc.data.views import getbatch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

__all__ = ["DataLoader", "eachobs"]

AHEAD = 2  # batches in work for each thread


class DataLoader:
    """Iterates over the batches of a data container, once an epoch.

    data       an array, a list, a tuple or dict of them, or an object with `__len__` and
               `__getitem__`; observations lie along axis 0.
    batchsize  observations of a batch; -1: no batches, but one observation after another.
    shuffle    a new order each epoch, which seed and epoch alone decide.
    partial    whether the last batch may be smaller; else it is left out, and data that are fewer
               than a batch make none.
    collate    None: rows of arrays, and what is fetched one by one stacked by `batch`; False: a
               list of observations; True: `batch` of it; a function: what that makes of the list.
    prefetch   threads that fetch the next batches meanwhile.  Batches and their order are the same
               for every number.  What a thread raises is raised by the loop, traceback and all.
    buffer     write every batch over an earlier one: a batch is good until the next is asked for.
               For arrays alone.
    seed       an integer; a generator gives one when the loader is made.
    State      `state()` after any batch, given to `load_state` of a loader of the same data, makes
               its next loop go on with the batch that came next.
    Errors     FluxcError for what is no container, or options that do not fit.
    PyTorch's name: `DataLoader` (partial: `not drop_last`, prefetch: `num_workers`).
    """

    def __init__(
        self,
        data: Any,
        batchsize: int = 1,
        *,
        shuffle: bool = False,
        partial: bool = True,
        collate: Callable[[list[Any]], Any] | bool | None = None,
        prefetch: int = 0,
        buffer: bool = False,
        seed: Seed = 0,
    ) -> None:
        whole = hasattr(batchsize, "__index__") and not isinstance(batchsize, bool)
        if not whole or (batchsize < 1 and batchsize != -1):
            raise FluxcError(
                "a batch has at least one observation",
                expected="batchsize >= 1, or -1 for no batches",
                got=repr(batchsize),
            )
        if batchsize == -1 and (collate is not None or buffer):
            raise FluxcError("batchsize=-1 makes no batches to collate or to keep")
        if prefetch < 0:
            raise FluxcError("threads cannot be fewer than none", got=f"prefetch={prefetch}")
        if buffer and (collate is not None or not _is_arrays(data)):
            raise FluxcError("buffer=True is for arrays, and leaves nothing to collate")
        numobs(data)
        self.data, self.batchsize, self.shuffle, self.partial = data, batchsize, shuffle, partial
        self.collate, self.prefetch, self.buffer = collate, prefetch, buffer
        if isinstance(seed, np.random.Generator):
            seed = int(seed.integers(2**63))
        self.seed = int(seed)
        self._epoch, self._position, self._next, self._resumes = 0, 0, 0, False

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        count, size = numobs(self.data), abs(self.batchsize)
        return -(-count // size) if self.partial else count // size

    def __iter__(self) -> Iterator[Any]:
        """A new epoch, or what is left of one after `load_state`."""
        if not self._resumes:
            self._epoch, self._position = self._next, 0
        self._resumes = False
        self._next = self._epoch + 1
        return self._batches(self._epoch, self._position)

    def order(self, epoch: int) -> np.ndarray:
        """The indices of the observations in the order of an epoch."""
        count = numobs(self.data)
        if not self.shuffle:
            return np.arange(count)
        return np.random.default_rng([self.seed % 2**64, epoch]).permutation(count)

    def _batches(self, epoch: int, start: int) -> Iterator[Any]:
        order, length = self.order(epoch), len(self)
        fetch = self._fetcher(order)
        positions = range(start, length)
        ahead = (
            _in_threads(fetch, positions, self.prefetch)
            if self.prefetch
            else (fetch(i) for i in positions)
        )
        with contextlib.closing(ahead):
            for position, batch in zip(positions, ahead, strict=True):
                self._epoch, self._position = epoch, position + 1
                yield batch
        self._epoch, self._position = epoch + 1, 0

    def _fetcher(self, order: np.ndarray) -> Callable[[int], Any]:
        size, data, collate = self.batchsize, self.data, self.collate
        if size == -1:
            return lambda i: getobs(data, int(order[i]))

        def chosen(i: int) -> np.ndarray:
            return order[i * size : (i + 1) * size]

        if not self.buffer:
            return lambda i: getbatch(data, chosen(i), collate)
        # The loop holds one batch while threads fill all others.
        buffers = [_room(data, size) for _ in range(AHEAD * self.prefetch + 1)]
        return lambda i: _fill(data, chosen(i), buffers[i % len(buffers)])

    def state(self) -> dict[str, int]:
        """Where the loop stands: seed, epoch, and batches of the epoch that it was given."""
        return {"seed": self.seed, "epoch": self._epoch, "position": self._position}

    def load_state(self, state: dict[str, int]) -> None:
        """Make the next loop go on where `state` was taken.

        Errors  FluxcError where that is no place of this loader.
        """
        try:
            seed, epoch, position = (int(state[k]) for k in ("seed", "epoch", "position"))
        except (KeyError, TypeError, ValueError):
            raise FluxcError("this is no state of a DataLoader", got=str(state)[:80]) from None
        if epoch < 0 or not 0 <= position <= len(self):
            raise FluxcError(
                "the state is of other data, or of another batchsize",
                expected=f"position <= {len(self)}",
                got=str(state),
            )
        self.seed, self._epoch, self._position, self._resumes = seed, epoch, position, True

    def __repr__(self) -> str:
        options = "".join(
            f", {name}={value!r}"
            for name, value, usual in (
                ("shuffle", self.shuffle, False),
                ("partial", self.partial, True),
                ("prefetch", self.prefetch, 0),
            )
            if value != usual
        )
        count = numobs(self.data)
        return f"DataLoader({count} observations, batchsize={self.batchsize}{options})"


def _in_threads(
    fetch: Callable[[int], Any], positions: range, threads: int
) -> Generator[Any, None, None]:
    """`fetch` of each position, in order, computed ahead; no thread is left when the loop ends."""
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(threads, thread_name_prefix="fluxc-data")
    waiting: deque[Future[Any]] = deque()
    try:
        for position in positions:
            waiting.append(pool.submit(fetch, position))
            if len(waiting) == AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _is_arrays(data: Any) -> bool:
    found = parts_of(data)
    return isinstance(data, np.ndarray) if found is None else all(map(_is_arrays, found[0]))


def _room(data: Any, size: int) -> Any:
    found = parts_of(data)
    if found is None:
        return np.empty((min(size, len(data)), *data.shape[1:]), data.dtype)
    return found[1]([_room(part, size) for part in found[0]])


def _fill(data: Any, indices: np.ndarray, out: Any) -> Any:
    found = parts_of(data)
    if found is None:
        # "clip" alone writes straight into `out`; the indices are in range.
        return np.take(data, indices, axis=0, out=out[: len(indices)], mode="clip")
    parts = out.values() if isinstance(out, dict) else out
    return found[1]([_fill(d, indices, o) for d, o in zip(found[0], parts, strict=True)])


def eachobs(data: Any, batchsize: int = -1, **options: Any) -> DataLoader:
    """A `DataLoader` of single observations, or of batches where a batchsize is given."""
    return DataLoader(data, batchsize, **options)
