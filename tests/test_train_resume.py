"""`fluxc.train` when it breaks: losses that are no numbers, checkpoints that are torn, kills."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import training_run
from training_run import compile_classes, loader, without_seconds

from fluxc import FluxcError, data, train
from fluxc.compiler import driver
from fluxc.train import checkpoint as files

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


# ---- losses that are no numbers ----


def test_a_loss_that_is_no_number_stops_with_the_last_good_weights(model, tmp_path):
    before = weights(model, tmp_path)
    with pytest.raises(train.NonFiniteLoss, match=r"at step \d+ \(epoch 1\)") as error:
        train.fit(model.explode, loader(prefetch=1), epochs=3)
    assert not [t for t in threading.enumerate() if t.name.startswith("fluxc-data")]
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
    script = Path(__file__).with_name("training_run.py")
    return subprocess.Popen([sys.executable, script, folder, place])


def newest_name(place):
    return max((p.name for p in Path(place).glob("checkpoint-*")), default="")


def test_a_training_that_is_killed_at_any_moment_ends_with_the_same_bits(
    folder, tmp_path, monkeypatch
):
    place, rng, kills = str(tmp_path / "killed"), np.random.default_rng(0), 0
    with monkeypatch.context() as quick:
        quick.setattr(files.os, "fsync", lambda _: None)
        training_run.run(folder, str(tmp_path / "whole"))
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
