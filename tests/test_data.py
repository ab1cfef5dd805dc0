"""`fluxc.data`: containers, and loaders of every size, order and number of threads."""

import doctest
import importlib
import itertools
import json
import threading
import traceback
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxc import FluxcError, data

SIZES = st.integers(0, 23)


class Squares:
    """A container of one's own: observation i is i squared."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if not 0 <= i < self.count:
            raise IndexError(i)
        return np.array([i * i, i])


def same(a, b):
    """Equal values, parts and types."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b)


def columns(n, rng=None):
    rng = np.random.default_rng(n) if rng is None else rng
    return rng.normal(size=(n, 3)), np.arange(n)


# ---- containers ----


class Point(NamedTuple):
    x: np.ndarray
    y: np.ndarray


CONTAINERS = {
    "array": lambda n: np.arange(2 * n).reshape(n, 2),
    "list": lambda n: [np.array([i, -i]) for i in range(n)],
    "numbers": lambda n: list(range(n)),
    "text": lambda n: [f"word {i}" for i in range(n)],
    "tuple": columns,
    "dict": lambda n: dict(zip("xy", columns(n), strict=True)),
    "named": lambda n: Point(*columns(n)),
    "object": Squares,
    "nested": lambda n: (Squares(n), {"y": np.arange(n)}),
    "view": lambda n: data.ObsView(Squares(2 * n), range(0, 2 * n, 2)),
    "mapped": lambda n: data.mapobs(lambda x: -x, np.arange(n)),
    "joined": lambda n: data.joinobs(np.arange(n // 2), Squares(0), np.arange(n - n // 2)),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_has_its_observations_in_views_and_batches(kind):
    made = CONTAINERS[kind](7)
    assert data.numobs(made) == 7
    singles = [data.getobs(made, i) for i in range(7)]
    order = np.array([5, 0, 3])
    view = data.obsview(made, order)
    assert data.numobs(view) == 3
    assert same([data.getobs(view, i) for i in range(3)], [singles[i] for i in order])
    assert same(data.unbatch(data.obsview(view, [2, 2])), [singles[3]] * 2)
    (batch,) = data.DataLoader(view, batchsize=3)
    assert same(batch, data.batch([singles[i] for i in order]))
    assert same(list(data.eachobs(made)), singles)
    assert same(data.getobs(made, slice(1, 3)), data.getobs(made, [1, 2]))
    assert same(data.getobs(made, -1), singles[-1])


def test_named_tuples_stay_named():
    assert isinstance(data.obsview(Point(*columns(4)), [1]), Point)
    assert isinstance(next(iter(data.DataLoader(Point(*columns(4)), 2))), Point)


def test_a_part_of_an_array_that_lies_in_one_piece_is_no_copy():
    x = np.arange(10)
    first, second = data.splitobs(x, at=0.3)
    assert np.shares_memory(x, first)
    assert np.shares_memory(x, second)


def test_an_array_in_a_file_stays_there(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12).reshape(6, 2))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    view = data.shuffleobs(x)
    assert isinstance(view, data.ObsView)
    (batch,) = data.DataLoader(view, 6)
    np.testing.assert_array_equal(np.sort(batch, axis=0), x)


def test_an_array_that_takes_rising_indices_alone_is_read_in_any_order():
    class Stored:
        """As arrays in HDF5 files are."""

        dtype, shape = np.dtype(int), (6,)

        def __getitem__(self, i):
            assert isinstance(i, slice | int) or (np.diff(i) > 0).all()
            return np.arange(6)[i] * 10

    assert data.getobs(Stored(), [4, 1, 4]).tolist() == [40, 10, 40]
    assert data.getobs(Stored(), []).tolist() == []


NO_CONTAINERS = {
    "a number": (3, "no data container"),
    "a generator": ((i for i in range(3)), "no data container"),
    "rank 0": (np.array(1.0), "rank 0"),
    "lengths that differ": ((np.zeros(3), np.zeros(4)), "differ in their number"),
    "no parts": ((), "no parts"),
    "a frame": (type("Table", (), {"iloc": None})(), "indexed by labels"),
}


@pytest.mark.parametrize("case", NO_CONTAINERS)
def test_what_is_no_container_is_refused(case):
    made, message = NO_CONTAINERS[case]
    with pytest.raises(FluxcError, match=message):
        data.DataLoader(made)


def test_observations_that_are_not_there_are_an_error():
    for made in (np.arange(3), data.ObsView(Squares(3)), data.slidingwindow(np.arange(4), 2)):
        for i in (3, -4, [0, 3], [-4]):
            with pytest.raises(IndexError):
                data.getobs(made, i)
    with pytest.raises(FluxcError, match="chosen by integers"):
        data.getobs(np.arange(3), [0.5])
    assert data.getobs(np.arange(3), [True, False, True]).tolist() == [0, 2]


# ---- the loader ----


@given(
    n=SIZES,
    batchsize=st.integers(1, 30),
    shuffle=st.booleans(),
    partial=st.booleans(),
    prefetch=st.integers(0, 2),
    buffer=st.booleans(),
)
def test_batches_are_what_numpy_cuts_from_the_order(
    n, batchsize, shuffle, partial, prefetch, buffer
):
    x, y = columns(n)
    options = {"shuffle": shuffle, "partial": partial, "prefetch": prefetch, "buffer": buffer}
    loader = data.DataLoader((x, y), batchsize, seed=5, **options)
    for epoch in range(2):
        order = loader.order(epoch)
        assert np.array_equal(np.sort(order), np.arange(n))
        assert shuffle or np.array_equal(order, np.arange(n))
        cuts = [order[i : i + batchsize] for i in range(0, n, batchsize)]
        cuts = [c for c in cuts if partial or len(c) == batchsize]
        assert len(loader) == len(cuts)
        got = [(a.copy(), b.copy()) for a, b in loader]
        assert same(got, [(x[c], y[c]) for c in cuts])


@given(n=SIZES, batchsize=st.integers(1, 9), stop=st.integers(0, 60), prefetch=st.integers(0, 1))
def test_a_stopped_loop_goes_on_with_the_batch_that_came_next(n, batchsize, stop, prefetch):
    def batches(loader, epochs):
        for _ in range(epochs):
            yield from loader

    def make():
        return data.DataLoader(np.arange(n), batchsize, shuffle=True, seed=1, prefetch=prefetch)

    whole = [b.tolist() for b in batches(make(), 3)]
    first, second = make(), make()
    seen = [b.tolist() for b in itertools.islice(batches(first, 3), stop)]
    state = json.loads(json.dumps(first.state()))
    second.load_state(state)
    rest = [b.tolist() for b in batches(second, 3 - state["epoch"])]
    assert seen + rest == whole


def test_state_within_and_between_epochs():
    loader = data.DataLoader(np.arange(4), 2, seed=3)
    assert loader.state() == {"seed": 3, "epoch": 0, "position": 0}
    places = [loader.state() for _ in loader]
    assert [(s["epoch"], s["position"]) for s in places] == [(0, 1), (0, 2)]
    assert loader.state() == {"seed": 3, "epoch": 1, "position": 0}
    loader.load_state(places[1])
    assert list(loader) == [], "the last batch of epoch 0 was seen"
    assert [b.tolist() for b in loader] == [[0, 1], [2, 3]]
    for wrong in (
        {},
        {"seed": 0, "epoch": 0, "position": 9},
        {"seed": 0, "epoch": -1, "position": 0},
    ):
        with pytest.raises(FluxcError, match="state"):
            loader.load_state(wrong)


def test_every_epoch_has_its_own_order_and_the_seed_decides_it():
    def epochs(seed):
        loader = data.DataLoader(np.arange(50), 50, shuffle=True, seed=seed)
        return [next(iter(loader)).tolist() for _ in range(3)]

    first = epochs(0)
    assert epochs(0) == first
    assert len({str(e) for e in first + epochs(1)}) == 6
    rng = np.random.default_rng(0)
    assert epochs(rng) != epochs(rng), "a generator gives another seed each time"
    assert epochs(-1) == epochs(2**64 - 1)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_collate_decides_what_a_batch_is(prefetch):
    def batches(made, collate):
        return list(data.DataLoader(made, 2, collate=collate, prefetch=prefetch))

    pairs = (np.arange(3), [[1], [2], [3]])
    assert same(batches(pairs, False), [[(0, [1]), (1, [2])], [(2, [3])]])
    assert same(batches(pairs, True)[0], (np.array([0, 1]), np.array([[1], [2]])))
    assert batches(Squares(3), len) == [2, 1]
    ragged = [[1, 2, 3], [4, 5]]
    with pytest.raises(FluxcError, match="differ in their shapes") as error:
        batches(ragged, None)
    assert "batch_sequence" in error.value.hint
    assert batches(ragged, data.batch_sequence)[0].tolist() == [[1, 2, 3], [4, 5, 0]]


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("fluxc-data")]


def test_what_a_thread_raises_reaches_the_loop_with_its_traceback():
    class Broken(Squares):
        def __getitem__(self, i):
            return self.read(i)

        def read(self, i):
            return 1 // (5 - i) if i < 7 else np.zeros(2)

    seen = []
    with pytest.raises(ZeroDivisionError) as error:
        seen.extend(data.DataLoader(Broken(9), prefetch=2))
    assert len(seen) == 5, "every batch before it arrives"
    assert "read" in [f.name for f in traceback.extract_tb(error.value.__traceback__)]
    del error
    assert workers() == []


def test_a_loop_that_is_left_early_leaves_no_thread():
    loader = data.DataLoader(np.arange(100), prefetch=3)
    for batch in loader:
        if batch[0] == 5:
            assert workers()
            break
    assert workers() == []
    assert loader.state()["position"] == 6
    assert next(iter(loader)).tolist() == [0]
    assert workers() == []


def test_threads_fetch_ahead_but_not_without_bound():
    asked = []

    class Watched(Squares):
        def __getitem__(self, i):
            asked.append(i)
            return super().__getitem__(i)

    loop = iter(data.DataLoader(Watched(50), prefetch=1))
    next(loop)
    assert max(asked) <= 3
    loop.close()
    assert workers() == []


def test_a_buffer_is_written_over():
    loader = data.DataLoader({"x": np.arange(6)}, 2, buffer=True)
    first, second, third = loader
    assert first["x"].tolist() == third["x"].tolist() == [4, 5]
    assert np.shares_memory(first["x"], second["x"])


WRONG_OPTIONS = {
    "batchsize 0": ({"batchsize": 0}, "at least one"),
    "batchsize 2.5": ({"batchsize": 2.5}, "at least one"),
    "batchsize -2": ({"batchsize": -2}, "at least one"),
    "prefetch": ({"prefetch": -1}, "fewer than none"),
    "collate single": ({"batchsize": -1, "collate": True}, "no batches"),
    "buffer and collate": ({"buffer": True, "collate": list}, "buffer=True is for arrays"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_options_that_do_not_fit_are_refused(case):
    options, message = WRONG_OPTIONS[case]
    with pytest.raises(FluxcError, match=message):
        data.DataLoader(np.arange(3), **options)


def test_a_buffer_is_for_arrays():
    with pytest.raises(FluxcError, match="buffer=True is for arrays"):
        data.DataLoader(Squares(3), buffer=True)


def test_a_loader_says_what_it_is():
    loader = data.DataLoader(np.arange(7), 2, shuffle=True, prefetch=2)
    assert repr(loader) == "DataLoader(7 observations, batchsize=2, shuffle=True, prefetch=2)"


MODULES = [
    "data.arrays",
    "data.observations",
    "data.onehot",
    "data.splits",
    "data.views",
    "train.watch",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name):
    result = doctest.testmod(importlib.import_module(f"fluxc.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
