"""Parts of data: for training and validation, in folds, and with classes of equal size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import FluxcError
from fluxc.data.observations import Seed, generator, numobs, obsview
from fluxc.data.views import group_indices

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["kfolds", "leavepout", "oversample", "splitobs", "timeseries_kfolds", "undersample"]


def splitobs(
    data: Any, at: Any, *, shuffle: bool = False, stratified: Any = None, seed: Seed = 0
) -> tuple[Any, ...]:
    """Split a container into parts that follow one another: two for one `at`, n + 1 for n.

    data        a container; or a number of observations, and the parts are arrays of indices.
    at          a fraction of the observations, a count of them, or a tuple of either.
    shuffle     whether observations are put in random order first.
    stratified  labels, one for each observation: every part has their proportions, rounded.
    Sizes       round(fraction * n), half to even, as far as observations are left.
    Errors      FluxcError if `at` asks for more than there is.

    >>> [part.tolist() for part in splitobs(10, at=(0.5, 0.3))]
    [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9]]
    """
    count = data if isinstance(data, int) else numobs(data)
    cuts = at if isinstance(at, tuple | list) else (at,)
    _check_cuts(cuts, count)
    order = generator(seed).permutation(count) if shuffle else np.arange(count)
    if stratified is None:
        parts = _split(order, cuts, count)
    else:
        groups = [order[g] for g in _strata(stratified, order)]
        fractions = [c if isinstance(c, float) else c / max(count, 1) for c in cuts]
        split = [_split(g, fractions, len(g)) for g in groups]
        place = np.empty(count, np.int64)
        place[order] = np.arange(count)
        empty = [np.zeros(0, np.int64)] * (len(cuts) + 1)
        parts = [
            order[np.sort(place[np.concatenate(p)])] for p in zip(*split or [empty], strict=True)
        ]
    return tuple(_parts(data, parts))


def _check_cuts(cuts: Sequence[Any], count: int) -> None:
    def good(c: Any) -> bool:
        return not isinstance(c, bool) and (
            isinstance(c, int | np.integer) or (isinstance(c, float) and c <= 1)
        )

    asked = sum(c * count if isinstance(c, float) else c for c in cuts if good(c))
    if not all(good(c) and c >= 0 for c in cuts) or asked > count * (1 + 1e-9):
        raise FluxcError(
            f"{count} observations cannot be split so",
            expected="fractions between 0 and 1 or counts, no more than everything in all",
            got=f"at={tuple(cuts)}",
        )


def _split(order: np.ndarray, cuts: Sequence[Any], count: int) -> list[np.ndarray]:
    sizes = [round(c * count) if isinstance(c, float) else int(c) for c in cuts]
    return np.split(order, np.minimum(np.cumsum(sizes), len(order)).astype(int))


def _strata(labels: Any, order: np.ndarray) -> list[np.ndarray]:
    """Where in `order` the observations of each label stand."""
    if numobs(labels) != len(order):
        raise FluxcError(
            "labels are one for each observation",
            expected=str(len(order)),
            got=str(numobs(labels)),
        )
    return list(group_indices([labels[i] for i in order.tolist()]).values())


def _parts(data: Any, indices: Sequence[np.ndarray]) -> Iterator[Any]:
    for part in indices:
        if isinstance(data, int):
            yield part
        elif part.size and np.array_equal(part, np.arange(part[0], part[0] + part.size)):
            yield obsview(data, range(int(part[0]), int(part[0]) + part.size))
        else:
            yield obsview(data, part)


def kfolds(
    data: Any, k: int = 5, *, shuffle: bool = False, stratified: Any = None, seed: Seed = 0
) -> Any:
    """The k ways to validate on one k-th of the data and train on the rest.

    Of a number of observations: (training indices, validation indices), two lists of k arrays.
    Of a container: an iterator of k pairs (training, validation) of containers.
    Every observation is in one validation part; their sizes differ by at most one, the first
    n % k being the larger.
    stratified  labels: every part has each label's share, within one observation.
    Errors      FluxcError unless 2 <= k <= n.
    """
    count = data if isinstance(data, int) else numobs(data)
    if not 2 <= k <= count:
        raise FluxcError(f"no {k} folds of {count} observations", expected=f"2 <= k <= {count}")
    order = generator(seed).permutation(count) if shuffle else np.arange(count)
    if stratified is None:
        held = np.array_split(order, k)
    else:
        # Label after label, observations go round the folds: shares differ by at most one.
        dealt = np.concatenate(_strata(stratified, order))
        held = [order[np.sort(dealt[i::k])] for i in range(k)]
    rest = [order[~np.isin(order, h)] for h in held]
    return _folds(data, rest, held)


def _folds(data: Any, rest: list[np.ndarray], held: list[np.ndarray]) -> Any:
    if isinstance(data, int):
        return rest, held
    return (tuple(_parts(data, pair)) for pair in zip(rest, held, strict=True))


def leavepout(data: Any, p: int = 1) -> Any:
    """`kfolds` with validation parts of `p` observations, or p + 1 where n is no multiple of p.

    Errors  FluxcError unless 1 <= p <= n / 2.
    """
    count = data if isinstance(data, int) else numobs(data)
    if not 1 <= p <= count // 2:
        raise FluxcError(f"cannot leave {p} of {count} out", expected=f"1 <= p <= {count // 2}")
    return kfolds(data, count // p)


def timeseries_kfolds(
    data: Any, k: int = 5, *, gap: int = 0, max_train_size: int | None = None
) -> Any:
    """Folds of a sequence in time: each validates on what follows the observations it trains on.

    The last k * (n // (k + 1)) observations are validated on, n // (k + 1) in a fold.  The forms of
    the result are those of `kfolds`.  scikit-learn: `TimeSeriesSplit`.
    gap             observations left out between training and validation.
    max_train_size  the most observations to train on, the latest ones.
    Errors          FluxcError where the first fold has nothing to train on.

    >>> [part.tolist() for part in timeseries_kfolds(10, k=3)[1]]
    [[4, 5], [6, 7], [8, 9]]
    """
    count = data if isinstance(data, int) else numobs(data)
    size = count // (k + 1) if k >= 1 else 0
    starts = [count - (k - i) * size for i in range(k)]
    least = 1 if max_train_size is None else max_train_size
    if size < 1 or gap < 0 or least < 1 or starts[0] - gap < 1:
        raise FluxcError(
            f"no such {k} folds of {count} observations in time",
            expected="1 <= k < n, and an observation before the gap of the first fold",
            got=f"k={k}, gap={gap}, max_train_size={max_train_size}",
        )
    held = [np.arange(s, s + size) for s in starts]
    begins = [0 if max_train_size is None else max(0, s - gap - max_train_size) for s in starts]
    rest = [np.arange(b, s - gap) for b, s in zip(begins, starts, strict=True)]
    return _folds(data, rest, held)


def _classes(data: Any, classes: Any) -> list[np.ndarray]:
    if classes is None:
        if not isinstance(data, tuple):
            raise FluxcError("which classes to balance is not said", hint="data, classes")
        classes = data[-1]
    return list(group_indices(classes).values())


def oversample(
    data: Any,
    classes: Any = None,
    *,
    fraction: float = 1,
    shuffle: bool = True,
    seed: Seed = 0,
) -> Any:
    """Repeat observations until every class has `fraction` of the number of the largest one.

    Every observation is kept; a class that lacks more than itself is repeated whole before a random
    part of it is.
    classes  labels, one for each observation; by default the last part of a tuple.
    shuffle  else the repeated observations stand at the end, class after class.
    """
    rng, groups = generator(seed), _classes(data, classes)
    wanted = round(fraction * max(map(len, groups), default=0))
    chosen = [np.arange(numobs(data))]
    for group in groups:
        whole, part = divmod(max(wanted - len(group), 0), len(group))
        chosen += [group] * whole + [rng.choice(group, part, replace=False)]
    indices = np.concatenate(chosen)
    return obsview(data, rng.permutation(indices) if shuffle else indices)


def undersample(data: Any, classes: Any = None, *, shuffle: bool = True, seed: Seed = 0) -> Any:
    """Leave out random observations until every class has the number of the smallest one.

    classes  labels, one for each observation; by default the last part of a tuple.
    shuffle  else the observations keep their order.
    """
    rng, groups = generator(seed), _classes(data, classes)
    least = min(map(len, groups), default=0)
    chosen = [rng.choice(group, least, replace=False) for group in groups]
    indices = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    return obsview(data, rng.permutation(indices) if shuffle else np.sort(indices))
