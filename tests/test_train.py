"""`fluxc.train`: what it measures, whom it tells, and what it leaves behind."""

import csv
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from training_run import classes, compile_classes, loader

from fluxc import FluxcError, data, train
from fluxc.compiler import driver

pytestmark = pytest.mark.cc


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return compile_classes(tmp_path_factory.mktemp("train"))


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
    "negative epochs": (lambda: [1], {"epochs": -1}, "no number of epochs"),
    "half an epoch": (lambda: [1], {"epochs": 0.5}, "no number of epochs"),
    "no callback": (lambda: [1], {"callbacks": [3]}, "callbacks are functions"),
    "a metric's name": (lambda: [1], {"metrics": "accuracy"}, "functions by name"),
    "a folder to resume": (lambda: [1], {"resume": "folder"}, "True or False"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_on_is_refused(case):
    make, options, message = REFUSED[case]
    with pytest.raises(FluxcError, match=message):
        train.fit(lambda *_: 1.0, make(), **options)


def test_what_is_no_step_is_refused():
    with pytest.raises(FluxcError, match=r"model\.train_step"):
        train.fit("train_step", [1])
    with pytest.raises(FluxcError, match=r"an array \[3\]"):
        train.fit(lambda _: np.zeros(3), [1])


def test_one_callback_needs_no_list():
    seen = []
    train.fit(lambda _: 1.0, [1], epochs=2, callbacks=lambda moment: seen.append(moment.epoch))
    assert seen == [1, 2]


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
    history = train.fit(float, [1, 2], epochs=9, callbacks=[lambda m: np.equal(m.epoch, 3)])
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


def test_the_code_of_the_page_on_training_runs(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    model, *code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "model.py").write_text(model)
    (tmp_path / "page.py").write_text("\n".join(code))
    command = [sys.executable, "page.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "validation_accuracy" in result.stdout
