"""`fluxc.train`: what it measures, where it stops, and that it can be killed."""

import csv
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import killed_training
import numpy as np
import pytest
from killed_training import classes, loader, without_seconds

from fluxc import FluxcError, data, train
from fluxc.compiler import driver
from fluxc.train import checkpoint as files

pytestmark = pytest.mark.cc
MODEL = """\
import fluxc as fx
from fluxc import losses, nn, optim

model = nn.Chain(nn.Dense(4, 8, fx.tanh), nn.Dropout(0.2), nn.Dense(8, 3))


@fx.export
def predict(x: fx.f32["batch", 4]):
    return fx.softmax(model(x), axis=-1)


@fx.export
def loss(x: fx.f32["batch", 4], y: fx.i32["batch"]):
    return losses.logitcrossentropy(model(x), y)


@fx.export(optimizer=optim.Adam(1e-2))
def train_step(x: fx.f32["batch", 4], y: fx.i32["batch"]):
    scores = model(x)
    return losses.logitcrossentropy(scores, y), scores


@fx.export(optimizer=optim.Descent(1e30))
def explode(x: fx.f32["batch", 4], y: fx.i32["batch"]):
    return (model(x) ** 2).sum() + 0.0 * y.sum()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    (folder / "model.py").write_text(MODEL)
    driver.compile_file(folder / "model.py", folder / "classes")
    return folder / "classes"


@pytest.fixture
def model(folder):
    return driver.load_package(folder).Model(seed=1)


def weights(model, tmp_path):
    model.save(tmp_path / "weights")
    return (tmp_path / "weights").read_bytes()


# ---- the loop ----


def test_fit_is_the_loop_that_one_would_write(folder, model, tmp_path):
    history = train.fit(model.train_step, loader(), epochs=3, metrics={"accuracy": train.accuracy})
    other, batches = driver.load_package(folder).Model(seed=1), loader()
    for epoch in range(3):
        total, hits = 0.0, 0
        for x, y in batches:
            loss, scores = other.train_step(x, y)
            total += float(loss) * len(x)
            hits += int((scores.argmax(-1) == y).sum())
        assert history["loss"][epoch] == total / 90
        assert history["accuracy"][epoch] == pytest.approx(hits / 90, abs=1e-15)
    assert weights(model, tmp_path) == weights(other, tmp_path)
    assert history["step"].tolist() == [6, 12, 18]
    assert history["epoch"].tolist() == [1, 2, 3]


def test_batches_are_tuples_dicts_or_single_arguments(folder):
    x, y = classes(8)
    losses = []
    for batches in ([(x, y)], [{"y": y, "x": x}], data.DataLoader({"x": x, "y": y}, 8)):
        model = driver.load_package(folder).Model(seed=1)
        losses.append(train.fit(model.train_step, batches, restore=False)["loss"][0])
    assert len(set(losses)) == 1
    seen = []
    train.fit(lambda a: seen.append(a) or 1.0, [1, 2], epochs=2)
    assert seen == [1, 2, 1, 2]


def test_evaluations_are_means_over_observations_of_what_an_entry_returns(model):
    x, y = classes(50)
    found = train.evaluate(model.loss, data.DataLoader((x, y), 16))
    np.testing.assert_allclose(found["loss"], model.loss(x, y), rtol=1e-6)
    metrics = {"accuracy": train.accuracy, "size": lambda p, y: len(p) + 0 * y[0]}
    found = train.evaluate(model.predict, data.DataLoader({"x": x, "y": y}, 16), metrics)
    assert found["accuracy"] == pytest.approx((model.predict(x).argmax(-1) == y).mean())
    assert found["size"] == pytest.approx((3 * 16 * 16 + 2 * 2) / 50)
    with pytest.raises(FluxcError, match="no single number"):
        train.evaluate(model.predict, [(x, y)])
    with pytest.raises(FluxcError, match="no batch"):
        train.evaluate(model.loss, [])


def test_evaluations_happen_when_they_are_due(model):
    held = data.DataLoader(classes(20), 20)
    each = train.Evaluation(model.loss, held)
    steps = train.Evaluation(model.predict, held, {"accuracy": train.accuracy}, "test", steps=4)
    late = train.Evaluation(model.loss, held, name="late", epochs=2)
    history = train.fit(model.train_step, loader(), epochs=3, evaluate=[each, steps, late])
    table = [(r["epoch"], r["step"], sorted(r.keys() - {"epoch", "step"})) for r in history.rows]
    epoch = ["loss", "seconds", "validation_loss"]
    late = sorted([*epoch, "late_loss"])
    assert table == [
        (1, 4, ["test_accuracy"]),
        (1, 6, epoch),
        (2, 8, ["test_accuracy"]),
        (2, 12, ["test_accuracy"]),
        (2, 12, late),
        (3, 16, ["test_accuracy"]),
        (3, 18, late),
    ]
    assert history["validation_loss"][-1] == history["late_loss"][-1]


METRICS = {
    "integers": (train.accuracy, [[0.1, 0.9], [0.8, 0.2]], [1, 1], 0.5),
    "one-hot": (train.accuracy, [[0.1, 0.9], [0.8, 0.2]], [[0.0, 1.0], [1.0, 0.0]], 1.0),
    "one of one": (train.accuracy, [0.1, 0.9], np.int32(1), 1.0),
    "binary": (train.binary_accuracy, [0.4, 0.6, 0.5], [0, 0, 0], 2 / 3),
    "mean": (train.mean, [1, 2, 6], None, 3.0),
    "mean of": (train.mean_of(1), (0, [1, 2]), None, 1.5),
}


@pytest.mark.parametrize("case", METRICS)
def test_metrics(case):
    metric, outputs, targets, want = METRICS[case]
    assert metric(outputs, targets) == pytest.approx(want)


NO_METRICS = {
    "ranks": (train.accuracy, np.zeros((2, 3)), np.zeros((2, 3, 1), int)),
    "floats": (train.accuracy, np.zeros((2, 3)), np.zeros(2)),
    "nothing": (train.accuracy, np.zeros((0, 3)), np.zeros(0, int)),
    "binary shapes": (train.binary_accuracy, np.zeros(2), np.zeros((2, 1))),
    "mean of nothing": (train.mean, [], None),
}


@pytest.mark.parametrize("case", NO_METRICS)
def test_what_cannot_be_measured_is_refused(case):
    metric, outputs, targets = NO_METRICS[case]
    with pytest.raises(FluxcError):
        metric(outputs, targets)


REFUSED = {
    "arrays": (lambda: classes(8), {}, "in batches"),
    "a dict": (lambda: {"x": 1}, {}, "in batches"),
    "no data": (list, {}, "no batch"),
    "too few": (lambda: loader(8, partial=False), {}, "no batch"),
    "an iterator": (lambda: iter(loader()), {"epochs": 2}, "once"),
    "no aux": (lambda: [1], {"metrics": {"a": train.mean}}, "loss alone"),
    "no model": (lambda: [1], {"checkpoint": "x"}, "needs the model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_on_is_refused(case):
    make, options, message = REFUSED[case]
    with pytest.raises(FluxcError, match=message):
        train.fit(lambda *_: 1.0, make(), **options)


def test_nothing_is_written_into_a_pipe(model, capfd):
    train.fit(model.train_step, loader(), epochs=1)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_a_bar(model, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    train.fit(model.train_step, loader(), epochs=1)
    assert "epoch 1/1, loss" in capsys.readouterr().err
    train.fit(model.train_step, loader(), epochs=1, progress=False)
    assert capsys.readouterr().err == ""


# ---- callbacks ----


def test_callbacks_are_told_where_the_training_stands():
    epochs, steps, third = [], [], []

    class Listener:
        closed = False

        def on_step(self, moment):
            steps.append((moment.step, moment.epoch, moment.loss))

        def on_epoch(self, moment):
            epochs.append((moment.step, moment.epoch, moment.loss, moment["loss"]))

        def close(self):
            self.closed = True

    listener = Listener()
    plain = []
    callbacks = [listener, plain.append, train.every(3, third.append)]
    train.fit(float, [1, 2, 3, 4], epochs=2, callbacks=callbacks)
    assert steps == [(i + 1, 1 + i // 4, float(1 + i % 4)) for i in range(8)]
    assert epochs == [(4, 1, 2.5, 2.5), (8, 2, 2.5, 2.5)]
    assert [m.epoch for m in plain] == [1, 2]
    assert [m.step for m in third] == [3, 6]
    assert listener.closed
    with pytest.raises(FluxcError, match="no 'accuracy'"):
        plain[0]["accuracy"]
    with pytest.raises(FluxcError, match="counted from 1"):
        train.every(0, print)


def test_true_stops_after_an_epoch_or_a_step():
    history = train.fit(float, [1, 2], epochs=9, callbacks=[lambda m: m.epoch == 3])
    assert history["epoch"].tolist() == [1, 2, 3]
    history = train.fit(float, [1, 2], epochs=9, callbacks=[train.every(3, lambda _: True)])
    assert history["step"].tolist() == [2, 3]
    assert history["loss"].tolist() == [1.5, 1.0]
    history = train.fit(float, [1, 2], epochs=2, callbacks=[lambda m: m.epoch])
    assert len(history) == 2, "a callback that returns a number has said nothing"


def test_patience_counts_in_a_row():
    always = train.patience(lambda: True, 3)
    assert [always() for _ in range(5)] == [False, False, True, True, True]
    values = iter([False, True, False, True, True, True])
    trigger = train.patience(lambda: next(values), 3)
    assert [trigger() for _ in range(6)] == [False] * 5 + [True]


def judged(trigger, scores):
    return [trigger(s) for s in scores]


def identity(score):
    return score


def test_early_stopping_as_flux_has_it():
    worse = train.early_stopping(identity, 3)
    assert judged(worse, [1, 2, 3, 4, 5]) == [False, False, False, True, True]
    assert judged(train.early_stopping(identity, 1), [2, 2, 2]) == [False] * 3, "a tie is no loss"
    near = train.early_stopping(identity, 1, min_dist=3)
    assert judged(near, [10, 7, 5, 3, 0]) == [False, False, True, True, False]
    rising = train.early_stopping(identity, 1, distance=lambda a, b: b - a, init_score=-np.inf)
    assert judged(rising, [1, 2, 1.5]) == [False, False, True]
    # Steps of 3 improve enough; steps of 1 do not, and ten of them are too many.
    slow = train.early_stopping(identity, 10, min_dist=3, init_score=0)
    assert not any(judged(slow, range(-3, -300, -3)))
    assert judged(slow, range(-298, -309, -1)).index(True) == 9


def test_plateau_as_flux_has_it():
    scores = [-9, 8, -7, 6, -5]
    flat = train.plateau(identity, 3, init_score=10, min_dist=18)
    assert judged(flat, scores) == [False, False, False, True, True]
    assert judged(train.plateau(identity, 2), [1, 1, 1 + 2e-6, 1, 1]) == [False] * 5
    assert judged(train.plateau(identity, 2), [1, 1, 1]) == [False, False, True]


def test_throttle_leads_and_trails():
    calls = []
    first = train.throttle(calls.append, 60)
    for i in range(3):
        first(i)
    assert calls == [0]
    quick = train.throttle(lambda i: calls.append(i) or i, 0)
    assert [quick(i) for i in (5, 6)] == [5, 6]
    calls.clear()
    both = train.throttle(calls.append, 0.05, trailing=True)
    for i in range(3):
        both(i)
    assert calls == [0]
    deadline = time.monotonic() + 5
    while len(calls) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert calls == [0, 2]
    calls.clear()
    last = train.throttle(calls.append, 60, leading=False, trailing=True)
    for i in range(3):
        last(i)
    assert calls == []
    last.flush()
    last.flush()
    assert calls == [2]


def test_the_rate_falls_on_a_plateau(model):
    rates = []
    scores = iter([3, 2, 2.5, 2.5, 2.5, 2.5, 1])
    trigger, name = train.early_stopping(lambda _: next(scores), 2), "train_step.lr"
    reduce = train.reduce_on_plateau(model, trigger, name=name, factor=0.1, least=5e-4)
    callbacks = [reduce, lambda _: rates.append(model.optimizer[name])]
    train.fit(model.train_step, loader(16), epochs=7, callbacks=callbacks)
    assert rates == pytest.approx([1e-2, 1e-2, 1e-2, 1e-3, 1e-3, 5e-4, 5e-4])
    with pytest.raises(FluxcError, match="what to wait for"):
        train.reduce_on_plateau(model, print, name=name)
    with pytest.raises(KeyError, match="several entries"):
        train.reduce_on_plateau(model, trigger)


# ---- history ----


def test_a_history_is_a_table(tmp_path):
    history = train.History([{"epoch": 1, "step": 3, "loss": 1 / 3, "seconds": 1.0}])
    history.rows.append({"epoch": 2, "step": 6, "loss": np.nan, "validation_loss": 2.0})
    lines = history.table().splitlines()
    assert lines[0].split() == ["epoch", "step", "loss", "validation_loss", "seconds"]
    assert lines[1].split() == ["1", "3", "0.333333", "1"]
    assert str(history) == history.table()
    assert history.csv(tmp_path / "h.csv") == (tmp_path / "h.csv").read_text()
    with (tmp_path / "h.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (float(rows[0]["loss"]), rows[0]["validation_loss"]) == (1 / 3, "")
    np.testing.assert_array_equal(history["validation_loss"], [np.nan, 2.0])
    with pytest.raises(FluxcError, match="no column 'accuracy'"):
        history["accuracy"]
    assert "2 rows" in repr(history)


def test_a_history_is_a_plot(tmp_path):
    pytest.importorskip("matplotlib", reason="needs fluxc[plot]")
    history = train.fit(float, [1, 2], epochs=3)
    history.plot(tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    history.plot(tmp_path / "some.svg", ["loss"])
    assert "</svg>" in (tmp_path / "some.svg").read_text()


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("matplotlib.figure", lambda: train.fit(float, [1]).plot("loss.png")),
        ("tensorboardX", lambda: train.tensorboard("logs")),
    ],
)
def test_what_an_extra_is_missing_for_is_said(package, use, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FluxcError, match="need") as error:
        use()
    assert "pip install 'fluxc[" in error.value.hint


def events(folder):
    """(tag, step, value) of the event files of a folder."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.iterdir()):
        raw = file.read_bytes()
        while raw:
            (length,) = struct.unpack("<Q", raw[:8])
            event = Event.FromString(raw[12 : 12 + length])
            raw = raw[16 + length :]
            yield from ((v.tag, event.step, v.simple_value) for v in event.summary.value)


def test_tensorboard_reads_the_events(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs fluxc[tensorboard]")
    callbacks = [train.tensorboard(tmp_path / "logs", steps=2)]
    train.fit(float, [1, 2, 3], epochs=2, callbacks=callbacks)
    found = [e for e in events(tmp_path / "logs") if "seconds" not in e[0]]
    steps = [("step/loss", 2, 2.0), ("step/loss", 4, 1.0), ("step/loss", 6, 3.0)]
    losses = [("epoch/loss", 3, 2.0), ("epoch/loss", 6, 2.0)]
    assert sorted(found) == sorted([*steps, *losses, ("epoch/epoch", 3, 1), ("epoch/epoch", 6, 2)])


# ---- losses that are no numbers ----


def test_a_loss_that_is_no_number_stops_with_the_last_good_weights(model, tmp_path):
    before = weights(model, tmp_path)
    with pytest.raises(train.NonFiniteLoss, match=r"at step \d+ \(epoch 1\)") as error:
        train.fit(model.explode, loader(), epochs=3)
    assert (error.value.step, error.value.epoch) == (2, 1)
    assert "weights of step 0 again" in str(error.value)
    assert weights(model, tmp_path) == before


class Hopeless:
    """A model whose loss, or whose parameter, is not finite at one step."""

    def __init__(self, step, *, loss=True):
        self.bad, self.loss, self.step, self.good = step, loss, 0, True

    def train_step(self, _):
        self.step += 1
        self.good = self.step < self.bad
        return np.float32(1.0 if self.good or not self.loss else np.inf)

    def save(self, path):
        if not self.good:
            raise ValueError("not finite")
        Path(path).write_text(str(self.step))

    def load(self, path):
        self.step, self.good = int(Path(path).read_text()), True


CHECKPOINTS = {
    "no checkpoints": (None, 4),
    "every epoch": ({}, 4),
    "every second epoch": ({"epochs": 2}, 0),
    "every three steps": ({"steps": 3}, 6),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_good_weights_are_those_of_the_last_time_they_were_saved(case, tmp_path):
    options, step = CHECKPOINTS[case]
    place = None if options is None else train.Checkpoint(tmp_path / "c", **options)
    model = Hopeless(7)
    with pytest.raises(train.NonFiniteLoss, match=r"the loss is inf at step 7 \(epoch 2\)"):
        train.fit(model.train_step, [0, 1, 2, 3], epochs=3, checkpoint=place)
    assert model.step == step


@pytest.mark.parametrize("bad", [3, 4])
def test_a_parameter_that_is_no_number_is_found_when_it_would_be_saved(bad, tmp_path):
    model = Hopeless(bad, loss=False)
    with pytest.raises(train.NonFiniteLoss, match=r"a parameter .* at step 4 \(epoch 1\)"):
        train.fit(model.train_step, [0, 1, 2, 3], epochs=3, checkpoint=tmp_path / "c")
    assert model.step == 0
    model = Hopeless(0)
    with pytest.raises(train.NonFiniteLoss, match="at step 1"):
        train.fit(model.train_step, [0], restore=False)
    assert model.step == 1


# ---- checkpoints ----


class Counter:
    """A model of one number that depends on every step and its order."""

    def __init__(self):
        self.value = 1

    def train_step(self, x):
        self.value = (self.value * 31 + int(x.sum())) % 1_000_003
        return float(self.value)

    def save(self, path):
        Path(path).write_text(str(self.value))

    def load(self, path):
        self.value = int(Path(path).read_text())


class Stop(Exception):
    pass


def stop_at(step):
    def stop(moment):
        if moment.step == step:
            raise Stop

    return train.every(1, stop)


def counted(model, place, *, stop=None, loader=None, **options):
    loader = data.DataLoader(np.arange(11), 3, shuffle=True) if loader is None else loader
    watch = train.early_stopping(lambda m: m.loss, 2)
    return train.fit(
        model.train_step,
        loader,
        epochs=9,
        callbacks=[watch, *([stop_at(stop)] if stop else [train.every(1, id)])],
        checkpoint=place,
        **options,
    )


@pytest.fixture
def quick_disk(monkeypatch):
    """For tests of many checkpoints that no power cut threatens."""
    monkeypatch.setattr(files.os, "fsync", lambda _: None)


@pytest.mark.parametrize("steps", [None, 1, 2, 4])
@pytest.mark.usefixtures("quick_disk")
def test_a_training_that_was_stopped_anywhere_ends_as_one_that_was_not(steps, tmp_path):
    straight = Counter()
    want = counted(straight, None)
    last = int(want["step"][-1])
    assert 12 <= last < 36, "the losses fall, and then rise often enough to stop it"
    for stop in range(1, last + 1):
        place = train.Checkpoint(tmp_path / f"{stop}", steps=steps)
        with pytest.raises(Stop):
            counted(Counter(), place, stop=stop)
        model = Counter()
        got = counted(model, place, resume=True)
        assert model.value == straight.value
        assert without_seconds(got) == without_seconds(want)


def test_other_batches_than_a_loader_s_are_passed_over(tmp_path):
    batches = [np.arange(i) for i in range(4)]
    straight, model = Counter(), Counter()
    counted(straight, None, loader=batches)
    with pytest.raises(Stop):
        counted(Counter(), train.Checkpoint(tmp_path, steps=1), stop=6, loader=batches)
    counted(model, train.Checkpoint(tmp_path, steps=1), loader=batches, resume=True)
    assert model.value == straight.value


def test_resuming_what_is_finished_does_nothing(tmp_path):
    model = Counter()
    want = counted(model, tmp_path)
    other = Counter()
    assert counted(other, tmp_path, resume=True).rows == want.rows
    assert other.value == model.value


def test_a_training_that_a_callback_stopped_stays_stopped(tmp_path):
    def stopped(**options):
        callbacks = [lambda moment: moment.epoch == 2]
        place = {"checkpoint": tmp_path, "callbacks": callbacks}
        return train.fit(Counter().train_step, [np.arange(2)] * 3, epochs=5, **place, **options)

    want = stopped()
    assert want["epoch"].tolist() == [1, 2]
    assert stopped(resume=True).rows == want.rows


def test_resuming_nothing_begins(tmp_path):
    model, other = Counter(), Counter()
    counted(model, tmp_path / "a", resume=True)
    counted(other, None)
    assert model.value == other.value


def test_checkpoints_of_another_run_are_not_written_over(tmp_path):
    counted(Counter(), tmp_path)
    with pytest.raises(FluxcError, match="another run"):
        counted(Counter(), tmp_path)
    with pytest.raises(FluxcError, match="other data loaders"):
        train.fit(Counter().train_step, [np.arange(2)], checkpoint=tmp_path, resume=True)


def test_the_previous_checkpoint_is_kept_and_older_ones_go(tmp_path):
    counted(Counter(), train.Checkpoint(tmp_path, keep=3))
    names = sorted(p.name for p in tmp_path.iterdir())
    assert len(names) == 3
    assert {p.name for p in (tmp_path / names[-1]).iterdir()} == {
        "model.safetensors",
        "fit.json",
        "SHA256SUMS",
    }
    with pytest.raises(FluxcError, match="keep >= 2"):
        train.Checkpoint(tmp_path, keep=1)


def tear(path, how):
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "altered":
        path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "altered", "empty", "missing"])
@pytest.mark.parametrize("file", ["model.safetensors", "fit.json", "SHA256SUMS"])
def test_a_torn_checkpoint_is_seen_and_the_one_before_is_used(file, how, tmp_path):
    straight, model = Counter(), Counter()
    want = counted(straight, None)
    place = train.Checkpoint(tmp_path, steps=2)
    with pytest.raises(Stop):
        counted(Counter(), place, stop=7)
    *_, before, last = sorted(tmp_path.iterdir())
    tear(last / file, how)
    assert files.newest(tmp_path).weights.parent == before
    got = counted(model, place, resume=True)
    assert (model.value, without_seconds(got)) == (straight.value, without_seconds(want))
    for path in tmp_path.iterdir():
        tear(path / file, how)
    with pytest.raises(FluxcError, match="no checkpoint is complete"):
        counted(Counter(), place, resume=True)


def test_what_a_failed_save_leaves_is_no_checkpoint(tmp_path):
    class Full(Counter):
        def save(self, path):
            super().save(path)
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        counted(Full(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".writing-00000000").mkdir()
    counted(Counter(), tmp_path)
    assert files.newest(tmp_path) is not None


def start(folder, place):
    script = Path(__file__).with_name("killed_training.py")
    return subprocess.Popen([sys.executable, script, folder, place])


def newest_name(place):
    return max((p.name for p in Path(place).glob("checkpoint-*")), default="")


def test_a_training_that_is_killed_at_any_moment_ends_with_the_same_bits(
    folder, tmp_path, monkeypatch
):
    place, rng, kills = str(tmp_path / "killed"), np.random.default_rng(0), 0
    with monkeypatch.context() as quick:
        quick.setattr(files.os, "fsync", lambda _: None)
        killed_training.run(folder, str(tmp_path / "whole"))
    while kills < 4:
        process, before = start(folder, place), newest_name(place)
        while process.poll() is None and newest_name(place) == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        assert process.wait() != 0, "it was still at work"
        kills += 1
    assert start(folder, place).wait() == 0
    for suffix in (".weights", ".json"):
        whole, killed = (tmp_path / f"{name}{suffix}" for name in ("whole", "killed"))
        assert whole.read_bytes() == killed.read_bytes()


def test_the_code_of_the_page_on_training_runs(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    model, *code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "model.py").write_text(model)
    (tmp_path / "page.py").write_text("\n".join(code))
    command = [sys.executable, "page.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "validation_accuracy" in result.stdout
