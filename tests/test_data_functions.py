"""`fluxc.data`: splits, views, classes and arrays against NumPy's definitions, at every size."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_data import SIZES, columns, same

from fluxc import FluxcError, data

# ---- splits ----


@given(n=SIZES, at=st.lists(st.floats(0, 0.33), min_size=1, max_size=3), shuffle=st.booleans())
def test_parts_of_a_split_have_their_sizes_and_are_disjoint(n, at, shuffle):
    parts = data.splitobs(n, at=tuple(at), shuffle=shuffle)
    sizes, left = [], n
    for fraction in at:
        sizes.append(min(round(fraction * n), left))
        left -= sizes[-1]
    assert [len(p) for p in parts] == [*sizes, left]
    joined = np.concatenate(parts)
    assert np.array_equal(np.sort(joined), np.arange(n))
    assert shuffle or np.array_equal(joined, np.arange(n))


@given(n=st.integers(0, 60), at=st.floats(0, 1), shuffle=st.booleans())
def test_a_stratified_split_keeps_the_shares(n, at, shuffle):
    labels = np.random.default_rng(n).integers(0, 3, n)
    first, second = data.splitobs(n, at=at, stratified=labels, shuffle=shuffle)
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(n))
    for label in range(3):
        assert (labels[first] == label).sum() == round(at * (labels == label).sum())
    if not shuffle:
        assert (np.diff(first) > 0).all()
        assert (np.diff(second) > 0).all()


def test_splits_of_the_documentation():
    assert [p.tolist() for p in data.splitobs(10, at=7)] == [list(range(7)), [7, 8, 9]]
    labels = [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    first, second = data.splitobs(10, at=0.5, stratified=labels)
    assert (first.tolist(), second.tolist()) == ([0, 1, 4, 5, 6], [2, 3, 7, 8, 9])
    (x, y), (u, v) = data.splitobs(columns(10), at=0.7, shuffle=True, seed=4)
    assert (len(x), len(y), len(u), len(v)) == (7, 7, 3, 3)
    assert same(x, columns(10)[0][y])


@pytest.mark.parametrize("at", [-0.1, 1.5, 11, -1, (0.7, 0.7), True, "half", (5, 6)])
def test_a_split_that_asks_for_more_than_there_is(at):
    with pytest.raises(FluxcError, match="cannot be split so"):
        data.splitobs(10, at=at)


@given(n=st.integers(2, 23), k=st.integers(2, 23), shuffle=st.booleans())
def test_folds_cover_everything_once(n, k, shuffle):
    if k > n:
        with pytest.raises(FluxcError, match="folds"):
            data.kfolds(n, k)
        return
    train, held = data.kfolds(n, k, shuffle=shuffle)
    assert [len(h) for h in held] == [n // k + (i < n % k) for i in range(k)]
    assert np.array_equal(np.sort(np.concatenate(held)), np.arange(n))
    for t, h in zip(train, held, strict=True):
        assert np.array_equal(np.sort(np.concatenate([t, h])), np.arange(n))
    if not shuffle:
        assert np.array_equal(np.concatenate(held), np.arange(n))


@given(n=st.integers(4, 40), k=st.integers(2, 4))
def test_stratified_folds_share_every_label(n, k):
    labels = np.random.default_rng(n).integers(0, 3, n)
    _, held = data.kfolds(n, k, stratified=labels)
    for label in range(3):
        counts = [(labels[h] == label).sum() for h in held]
        assert max(counts) - min(counts) <= 1
    sizes = [len(h) for h in held]
    assert max(sizes) - min(sizes) <= 1


def test_folds_of_containers_are_containers():
    x, y = columns(6)
    pairs = list(data.kfolds((x, y), 3))
    assert same(pairs[1], ((x[[0, 1, 4, 5]], y[[0, 1, 4, 5]]), (x[2:4], y[2:4])))
    assert [len(v) for _, v in data.leavepout(np.arange(7), 2)] == [3, 2, 2]
    assert len(data.leavepout(5)[0]) == 5
    for wrong in (0, 4):
        with pytest.raises(FluxcError, match="cannot leave"):
            data.leavepout(7, wrong)


@given(
    n=st.integers(0, 30),
    k=st.integers(0, 8),
    gap=st.integers(0, 4),
    most=st.none() | st.integers(1, 9),
)
def test_folds_in_time_never_see_the_future(n, k, gap, most):
    size = n // (k + 1)
    if k < 1 or size < 1 or n - k * size - gap < 1:
        with pytest.raises(FluxcError, match="in time"):
            data.timeseries_kfolds(n, k, gap=gap, max_train_size=most)
        return
    train, held = data.timeseries_kfolds(n, k, gap=gap, max_train_size=most)
    assert np.array_equal(np.concatenate(held), np.arange(n - k * size, n))
    for t, h in zip(train, held, strict=True):
        assert len(h) == size
        assert t[-1] + gap + 1 == h[0]
        assert len(t) == min(h[0] - gap, most or n)
        assert (np.diff(t) == 1).all()


LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=30)


@given(LABELS, st.floats(0, 1), st.booleans())
def test_oversampling_keeps_all_and_fills_up(labels, fraction, shuffle):
    x = np.arange(len(labels))
    got, names = data.oversample((x, labels), fraction=fraction, shuffle=shuffle)
    names = data.getobs(names)
    counts, before = collections.Counter(names), collections.Counter(labels)
    wanted = round(fraction * max(before.values()))
    assert counts == {k: max(v, wanted) for k, v in before.items()}
    assert set(got.tolist()) == set(x.tolist())
    assert names == [labels[i] for i in got]
    times = collections.Counter(got.tolist())
    for label in before:
        each = [times[i] for i in x if labels[i] == label]
        assert max(each) - min(each) <= 1
    assert shuffle or np.array_equal(got[: len(x)], x)


@given(LABELS, st.booleans())
def test_undersampling_keeps_as_many_of_each(labels, shuffle):
    got = data.undersample(np.arange(len(labels)), labels, shuffle=shuffle)
    counts, before = collections.Counter(labels[i] for i in got), collections.Counter(labels)
    assert counts == dict.fromkeys(before, min(before.values()))
    assert len(set(got.tolist())) == len(got)
    assert shuffle or (np.diff(got) > 0).all()


def test_which_classes_to_balance_must_be_said():
    with pytest.raises(FluxcError, match="not said"):
        data.oversample(np.arange(3))
    with pytest.raises(FluxcError, match="one for each") as error:
        data.undersample(np.arange(3), np.eye(3))
    assert "onecold" in error.value.hint


# ---- views ----


def test_mapobs_calls_its_function_as_it_is_asked_to():
    shapes = []

    def f(x):
        shapes.append(np.shape(x))
        return x * 2

    x = np.arange(4)
    for batched, single, several in (
        ("auto", [()], [(3,)]),
        ("never", [()], [(), (), ()]),
        ("always", [(1,)], [(3,)]),
    ):
        made = data.mapobs(f, x, batched=batched)
        shapes.clear()
        assert made[2] == 4
        assert shapes == single
        shapes.clear()
        assert next(iter(data.DataLoader(made, 3))).tolist() == [0, 2, 4]
        assert shapes == several
    with pytest.raises(FluxcError, match="unknown"):
        data.mapobs(f, x, batched="sometimes")
    both = data.mapobs({"a": lambda x: x, "b": lambda x: -x}, x)
    assert same(data.getobs(both, 3), {"a": np.int64(3), "b": np.int64(-3)})


def test_observations_are_filtered_grouped_joined_and_shuffled():
    assert data.filterobs(lambda x: x % 3 == 0, np.arange(7)).tolist() == [0, 3, 6]
    assert data.filterobs(lambda _: False, np.arange(7)).tolist() == []
    groups = data.groupobs(lambda x: x % 3, np.arange(7))
    assert {k: v.tolist() for k, v in groups.items()} == {0: [0, 3, 6], 1: [1, 4], 2: [2, 5]}
    joined = data.joinobs(np.arange(2), [7, 8], np.arange(0), np.arange(1))
    assert list(joined) == [0, 1, 7, 8, 0]
    assert len(data.joinobs()) == 0
    mixed = data.shuffleobs(np.arange(30), seed=1)
    assert sorted(mixed) == list(range(30)) != mixed.tolist()
    assert np.array_equal(mixed, data.shuffleobs(np.arange(30), seed=1))
    assert data.group_counts(np.array([3, 1, 3])) == {3: 2, 1: 1}


def test_random_observations_come_from_the_data():
    drawn = data.randobs(np.arange(3), 50)
    assert set(drawn.tolist()) == {0, 1, 2}
    assert data.randobs(np.arange(3)) in {0, 1, 2}
    assert data.randobs(np.arange(3), 0).tolist() == []
    with pytest.raises(FluxcError, match="no observation"):
        data.randobs([])


@given(n=SIZES, size=st.integers(0, 8), stride=st.integers(0, 5))
def test_windows_are_the_whole_ones(n, size, stride):
    if not 1 <= size <= n or stride < 1:
        with pytest.raises(FluxcError, match="no such windows"):
            data.slidingwindow(np.arange(n), size, stride)
        return
    windows = data.slidingwindow(np.arange(n), size, stride)
    want = np.lib.stride_tricks.sliding_window_view(np.arange(n), size)[::stride]
    assert same(data.batch(windows), want)
    (batch,) = data.DataLoader(windows, len(windows))
    assert same(batch, want)


def test_windows_of_the_documentation():
    windows = data.slidingwindow(np.arange(11, 31), size=6, stride=3)
    assert [(w[0], w[-1]) for w in windows] == [(11, 16), (14, 19), (17, 22), (20, 25), (23, 28)]


@given(n=SIZES, batchsize=st.integers(1, 30), partial=st.booleans())
def test_a_batch_view_is_a_loader_by_index(n, batchsize, partial):
    view = data.BatchView(columns(n), batchsize, partial=partial)
    loader = data.DataLoader(columns(n), batchsize, partial=partial)
    assert len(view) == len(loader)
    assert same(list(view), list(loader))


# ---- classes ----


def test_onehot_marks_the_label():
    assert data.onehot(20, [10, 20, 30]).tolist() == [0, 1, 0]
    assert data.onehot(40, [10, 20, 30], 20).tolist() == [0, 1, 0]
    assert data.onehot("b", "abc", dtype=bool).tolist() == [False, True, False]
    with pytest.raises(FluxcError, match="50 is no label"):
        data.onehot(40, [10, 20, 30], 50)
    with pytest.raises(FluxcError, match="40 is no label"):
        data.onehot(40, [10, 20, 30])
    with pytest.raises(FluxcError, match="each once"):
        data.onehot(1, [1, 1])


@given(
    st.lists(st.integers(-2, 5), max_size=12),
    st.sampled_from([range(-2, 6), [5, 4, 3, 2, 1, 0, -1, -2]]),
)
def test_onecold_undoes_onehotbatch(x, labels):
    rows = data.onehotbatch(np.array(x, int), labels)
    want = np.array(x, int)[:, None] == np.array(labels)
    np.testing.assert_array_equal(rows, want)
    assert rows.dtype == np.float32
    assert data.onecold(rows, labels).tolist() == x


def test_onehotbatch_of_more_axes_and_of_strangers():
    assert data.onehotbatch(np.array([[0, 1], [2, 0]]), range(3)).shape == (2, 2, 3)
    assert data.onehotbatch([10, 20], [30, 40, 50], 30).tolist() == [[1, 0, 0]] * 2
    with pytest.raises(FluxcError, match="7 is no label"):
        data.onehotbatch([1, 7], range(3))
    with pytest.raises(FluxcError, match="labels are values, not 3") as error:
        data.onehotbatch([1, 2], 3)
    assert "range(3)" in error.value.hint


def test_onecold_takes_the_first_of_equals_and_no_nan():
    scores = np.array([[1, 20, 5], [2, 7, 6], [3, 9, 10], [2, 1, 14]])
    assert data.onecold(scores, axis=0).tolist() == [2, 0, 3]
    assert data.onecold([3.0, 3.0]) == 0
    assert data.onecold([1, 2, 5, 3.0], "abcd") == "c"
    assert data.onecold(np.eye(2), [(0, 1), (2, 3)])[1] == (2, 3)
    with pytest.raises(FluxcError, match="NaN"):
        data.onecold([1.0, np.nan])
    with pytest.raises(FluxcError, match="one for each class"):
        data.onecold(np.eye(3), ["a", "b"])
    with pytest.raises(FluxcError, match="no class"):
        data.onecold(np.zeros((3, 0)))


# ---- arrays ----


def test_batch_and_unbatch_are_inverse():
    items = [({"a": np.arange(2) + i}, i, f"text {i}") for i in range(3)]
    made = data.batch(items)
    assert same(made[0]["a"], np.array([[0, 1], [1, 2], [2, 3]]))
    assert same(made[1], np.arange(3))
    assert made[2] == ["text 0", "text 1", "text 2"]
    assert same(data.unbatch(made), items)
    for wrong, message in (
        ([], "no observations"),
        ([(1,), (1, 2)], "parts"),
        ([{"a": 1}, {"b": 1}], "parts"),
    ):
        with pytest.raises(FluxcError, match=message):
            data.batch(wrong)


@given(n=SIZES, parts=st.integers(1, 30), as_list=st.booleans())
def test_chunks_by_number_and_by_size(n, parts, as_list):
    x = np.arange(n)
    size = max(1, -(-n // parts))
    want = [x[i : i + size].tolist() for i in range(0, n, size)]
    made = x.tolist() if as_list else x
    assert [list(c) for c in data.chunk(made, parts)] == want
    assert [list(c) for c in data.chunk(made, size=size)] == want
    assert [list(c) for c in data.chunk(made, size=[len(c) for c in want])] == want
    numbers = [i for i, c in enumerate(want) for _ in c]
    assert [list(c) for c in data.chunk(made, partition=numbers)] == want


def test_chunks_along_an_axis_and_refusals():
    x = np.arange(12).reshape(3, 4)
    assert same(data.chunk(x, size=[1, 3], axis=-1), [x[:, :1], x[:, 1:]])
    assert [c.size for c in data.chunk(np.arange(3), partition=[0, 2, 2])] == [1, 0, 2]
    for options in (
        {},
        {"n": 2, "size": 1},
        {"n": 0},
        {"size": 0},
        {"size": [1, 1]},
        {"partition": [1, 0, 0]},
        {"partition": [0]},
    ):
        with pytest.raises(FluxcError):
            data.chunk(x, **options)


def test_sequences_are_padded():
    assert data.rpad_constant([1, 2], 4, -1).tolist() == [1, 2, -1, -1]
    assert data.rpad_constant([1, 2, 3], 2).tolist() == [1, 2, 3]
    x = np.array([[1, 2], [3, 4]])
    assert data.rpad_constant(x, 4, axis=0).shape == (4, 2)
    assert data.rpad_constant(x, 4).shape == (4, 4)
    assert data.rpad_constant(x, (3, 5), axis=(1, 0)).shape == (5, 3)
    with pytest.raises(FluxcError, match="one size"):
        data.rpad_constant(x, (1, 2, 3))
    assert [b.tolist() for b in data.batchseq([[1, 2, 3], [4, 5]])] == [[1, 4], [2, 5], [3, 0]]
    steps = data.batch_sequence([np.ones((2, 3)), np.ones((0, 3))], pad=-1, n=4)
    assert steps.shape == (2, 4, 3)
    assert steps.sum(axis=(1, 2)).tolist() == [0, -12]
    with pytest.raises(FluxcError, match="longer"):
        data.batch_sequence([[1, 2, 3]], n=2)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32])
def test_scales_are_formulas(dtype):
    x = (np.random.default_rng(0).normal(size=(7, 3)) * 5).astype(dtype)
    wide = x.astype(np.float64)
    kept = np.float64 if dtype is np.int32 else dtype
    tolerance = 20 * np.finfo(kept).eps
    for axis in (0, 1, (0, 1)):
        low, high = wide.min(axis, keepdims=True), wide.max(axis, keepdims=True)
        want = (wide - low) / (high - low + 1e-5)
        got = data.rescale(x, axis=axis)
        assert got.dtype == kept
        np.testing.assert_allclose(got, want, atol=tolerance)
        want = (wide - wide.mean(axis, keepdims=True)) / (wide.std(axis, keepdims=True) + 1e-5)
        np.testing.assert_allclose(data.normalise(x, axis=axis), want, atol=10 * tolerance)
    assert np.array_equal(data.normalise(np.full((3, 2), 7.0)), np.zeros((3, 2)))
    assert data.unsqueeze(x, 1).shape == (7, 1, 3)


def test_generated_data_are_what_they_are_called():
    x, y = data.make_sin(9, noise=0)
    np.testing.assert_array_equal(y, np.sin(np.linspace(0, 2 * np.pi, 9)))
    x, y = data.make_poly([2, 0, 1], [0, 1, 3], noise=0)
    assert y.tolist() == [1, 3, 19]
    x, y = data.make_spiral(5, noise=0)
    assert (x.shape, y.tolist()) == ((10, 2), [1] * 5 + [0] * 5)
    np.testing.assert_array_equal(x[:5], -x[5:])
    np.testing.assert_allclose(np.hypot(*x[:5].T), 6.5 * (104 - np.arange(5)) / 104)
    x, y = data.make_moons((3, 4), shuffle=False)
    assert y.tolist() == [0] * 3 + [1] * 4
    np.testing.assert_allclose(np.hypot(*x[:3].T), 1)
    np.testing.assert_allclose(np.hypot(*(x[3:] - [1, 0.5]).T), 1)
    mixed, labels = data.make_moons(7, noise=0.1, seed=1)
    assert (mixed.shape, np.bincount(labels).tolist()) == ((7, 2), [3, 4])
    assert same(data.make_moons(7, noise=0.1, seed=1), (mixed, labels))
    assert not np.array_equal(data.make_sin(seed=1)[1], data.make_sin(seed=2)[1])
