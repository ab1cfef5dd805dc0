"""The commands that put artifacts to use, and the other forms of an artifact."""

import json
import subprocess
from typing import NamedTuple

import numpy as np
import pytest
from command_line import fluxc
from native import hand

from fluxc.compiler import driver
from fluxc.compiler.backends.llvm import link
from fluxc.compiler.errors import FluxcError
from fluxc.compiler.use import measure, training_batches

pytestmark = pytest.mark.cc

MODEL = """\
import fluxc as fx
from fluxc import losses, nn, optim

model = nn.Chain(nn.Dense(6, 16, fx.relu), nn.Dense(16, 3))

@fx.export
def predict(x: fx.f32["batch", 6]):
    return fx.softmax(model(x), axis=-1)

@fx.export
def double(x: fx.f32["batch", 6]):
    return x + x, x

@fx.export
def loss(x: fx.f32["batch", 6], y: fx.i32["batch"]):
    return losses.logitcrossentropy(model(x), y)

@fx.export(optimizer=optim.Adam(1e-2))
def train_step(x: fx.f32["batch", 6], y: fx.i32["batch"]):
    return losses.logitcrossentropy(model(x), y)

@fx.export(optimizer=optim.Descent(1e-2))
def fixed_step(x: fx.f32[8, 6], y: fx.i32[8]):
    return losses.logitcrossentropy(model(x), y), x.sum()

@fx.export(optimizer=optim.Descent(1e30))
def diverging_step(x: fx.f32["batch", 6], y: fx.i32["batch"]):
    return losses.logitcrossentropy(model(x), y)
"""
TRAIN = ("train", "build/m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("use")
    (folder / "m.py").write_text(MODEL)
    driver.compile_file(folder / "m.py", folder / "build" / "m")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 100)
    x = rng.normal(size=(100, 6)).astype(np.float32)
    x[np.arange(100), y] += 3
    np.savez(folder / "data.npz", x=x, y=y, unused=np.zeros(3))
    np.savez(folder / "short.npz", x=x, y=y[:50])
    np.savez(folder / "half.npz", x=x)
    np.save(folder / "x.npy", x)
    np.savez(folder / "broken.npz", x=x, y=y + 0.5)
    return folder


def test_training_lowers_the_loss_and_saves_the_weights(folder):
    step = (*TRAIN, "train_step", "--data", "data.npz", "--batchsize", "16")
    one = fluxc(*step, "--epochs", "1", cwd=folder)
    many = fluxc(*step, "--epochs", "20", "--save", "w.safetensors", cwd=folder)
    assert (one.returncode, many.returncode) == (0, 0), one.stderr + many.stderr
    losses = [float(r.stdout.removeprefix("loss ")) for r in (one, many)]
    assert losses[1] < 0.5 * losses[0]
    assert many.stderr == "", "nothing but the result goes into a pipe"
    more = fluxc(*step, "--weights", "w.safetensors", cwd=folder)
    assert float(more.stdout.removeprefix("loss ")) < losses[0]


def test_training_is_decided_by_its_seed(folder):
    step = (*TRAIN, "train_step", "--data", "data.npz", "--epochs", "2")
    losses = [fluxc(*step, "--seed", s, cwd=folder).stdout for s in ("1", "1", "2")]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_an_entry_of_one_batch_size_gets_whole_batches(folder):
    step = (*TRAIN, "fixed_step", "--data", "data.npz", "--batchsize", "8")
    assert fluxc(*step, cwd=folder).returncode == 0
    wrong = fluxc(*TRAIN, "fixed_step", "--data", "data.npz", "--batchsize", "9", cwd=folder)
    assert wrong.returncode == 1
    assert "x" in wrong.stderr


def test_a_loss_that_is_no_number_stops_with_the_step(folder):
    step = (*TRAIN, "diverging_step", "--data", "data.npz", "--epochs", "50", "--save", "bad")
    result = fluxc(*step, cwd=folder)
    assert result.returncode == 1
    assert "at step" in result.stderr
    assert "smaller learning rate" in result.stderr
    assert not (folder / "bad").exists(), "weights without meaning are not saved"


WRONG = {
    "one array": (["train_step", "--data", "x.npy"], "np.savez(path, x=x, y=y)"),
    "no training step": (("predict", "--data", "data.npz"), "train_step"),
    "no such entry": (("learn", "--data", "data.npz"), "predict"),
    "no such file": (("train_step", "--data", "none.npz"), "none.npz"),
    "no archive": (("train_step", "--data", "m.py"), "m.py"),
    "a missing array": (("train_step", "--data", "half.npz"), "no array 'y'"),
    "lengths that differ": (("train_step", "--data", "short.npz"), "number of examples"),
    "labels that are no integers": (("train_step", "--data", "broken.npz"), "y does not fit"),
    "no such weights": (("train_step", "--data", "data.npz", "--weights", "none"), "none"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_training_gets_one_message(case, folder):
    arguments, word = WRONG[case]
    result = fluxc(*TRAIN, *arguments, cwd=folder)
    assert result.returncode == 1, result.stderr
    assert word in result.stderr


class Input(NamedTuple):
    name: str
    shape: tuple


def test_an_entry_of_one_batch_size_is_told_where_no_batch_is_whole():
    arrays, options = {"x": np.arange(10)}, {"batchsize": 4, "shuffle": True}
    batches = list(training_batches(arrays, (Input("x", ("batch",)),), **options))
    assert [len(b["x"]) for b in batches] == [4, 4, 2]
    assert len(list(training_batches(arrays, (Input("x", (4,)),), **options))) == 2
    with pytest.raises(FluxcError, match="10 examples make no batch of 64"):
        training_batches(arrays, (Input("x", (64,)),), batchsize=64)


VALIDATED = (*TRAIN, "train_step", "--data", "data.npz", "--epochs", "3", "--batchsize", "16")


def printed(result):
    assert result.returncode == 0, result.stderr
    pairs = (line.split() for line in result.stdout.splitlines())
    return {name: float(value) for name, value in pairs}


def test_training_reports_what_it_validates(folder):
    by = ("--evaluate", "predict")
    held = printed(fluxc(*VALIDATED, "--holdout", "0.2", *by, cwd=folder))
    assert set(held) == {"loss", "validation_accuracy"}
    assert held["validation_accuracy"] > 0.5
    same = printed(fluxc(*VALIDATED, "--validate", "data.npz", *by, cwd=folder))
    assert same["validation_accuracy"] > 0.5
    assert same["loss"] == printed(fluxc(*VALIDATED, cwd=folder))["loss"], "data are only looked at"


def test_training_goes_on_from_its_checkpoint(folder, tmp_path):
    straight = fluxc(*VALIDATED, "--save", tmp_path / "a", cwd=folder)
    saved = ("--checkpoint", tmp_path / "c")
    one = [*VALIDATED[:-3], "1", *VALIDATED[-2:]]
    assert fluxc(*one, *saved, cwd=folder).returncode == 0
    again = fluxc(*VALIDATED, *saved, cwd=folder)
    assert again.returncode == 1
    assert "another run" in again.stderr
    resumed = fluxc(*VALIDATED, *saved, "--resume", "--save", tmp_path / "b", cwd=folder)
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, straight.stdout, "")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_training_writes_a_log_for_tensorboard(folder, tmp_path):
    pytest.importorskip("tensorboardX", reason="needs fluxc[tensorboard]")
    assert fluxc(*VALIDATED, "--log", tmp_path / "logs", cwd=folder).returncode == 0
    (file,) = (tmp_path / "logs").iterdir()
    assert b"epoch/loss" in file.read_bytes()


def test_training_reports_the_number_that_an_entry_returns(folder):
    options = ("--holdout", "0.2", "--evaluate", "loss")
    found = printed(fluxc(*VALIDATED, *options, cwd=folder))
    assert set(found) == {"loss", "validation_loss"}


WRONG_USAGE = {
    "both": ("--validate", "data.npz", "--holdout", "0.1"),
    "all held out": ("--holdout", "1"),
    "nothing to evaluate": ("--evaluate", "predict"),
    "nothing to resume": ("--resume",),
}


@pytest.mark.parametrize("case", WRONG_USAGE)
def test_options_that_need_others_are_wrong_usage(case, folder):
    assert fluxc(*VALIDATED, *WRONG_USAGE[case], cwd=folder).returncode == 2


WRONG_EVALUATION = {
    "one of two": ((), "which entry to evaluate by is not said"),
    "no metric": (("--evaluate", "double"), "no metric is known for double"),
    "unknown": (("--evaluate", "learn"), "cannot evaluate by 'learn'"),
    "a training step": (("--evaluate", "fixed_step"), "cannot evaluate by 'fixed_step'"),
}


@pytest.mark.parametrize("case", WRONG_EVALUATION)
def test_an_entry_that_cannot_evaluate_is_refused(case, folder):
    options, message = WRONG_EVALUATION[case]
    result = fluxc(*VALIDATED, "--holdout", "0.2", *options, cwd=folder)
    assert result.returncode == 1
    assert message in result.stderr


def test_bench_reports_latencies_and_speed(folder):
    result = fluxc(
        "bench", "build/m", "predict", "--batch", "8", "--seconds", "0.05", "--json", cwd=folder
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert 0 < found["least_us"] <= found["p50_us"] <= found["p90_us"] <= found["p99_us"]
    products = 2 * 8 * (6 * 16 + 16 * 3)
    assert products < found["flops"] < 2 * products
    assert found["gflop_per_s"] > 0
    text = fluxc("bench", "build/m", "train_step", "--seconds", "0", cwd=folder).stdout
    assert "p99" in text
    wrong = fluxc("bench", "build/m", "predict", "--time", "8", cwd=folder)
    assert wrong.returncode == 2
    assert "--batch NUMBER" in wrong.stderr


def test_measurements_are_of_enough_calls():
    calls = []
    timing = measure(lambda: calls.append(1), seconds=0.0)
    assert (timing.calls, len(calls)) == (10, 13)


def test_targets_lists_what_can_be_compiled_for(monkeypatch):
    monkeypatch.setattr(link, "has_ziglang", lambda: False)
    rows = {name: state for name, _, state in driver.targets()}
    assert rows["native"] == "ready"
    assert {"x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "cuda:sm_90"} <= set(rows)
    assert any("fluxc[cross]" in state for state in rows.values())


GRAPHS = """\
graph @scale(%x "x": f32[n, 4], %factor "factor": f32[]) {
  %f: f32[n, 4] = broadcast(%factor) {shape = (n, 4), axes = ()}
  %y: f32[n, 4] = mul(%x, %f)
  %total: f32[n] = reduce_sum(%y) {axes = (1,)}
  return %y, %total
}
graph @twice(%0: f32[n]) {
  %1: f32[n] = add(%0, %0)
  return %1
}
"""


def test_a_textual_graph_is_a_model(tmp_path):
    (tmp_path / "g.fir").write_text(GRAPHS)
    result = fluxc("compile", "g.fir", "-o", "g", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    model = driver.load_package(tmp_path / "g").Model()
    x = np.ones((3, 4), np.float32)
    y, total = model.scale(x=x, factor=np.float32(2))
    np.testing.assert_array_equal(y, 2 * x)
    np.testing.assert_array_equal(total, [8, 8, 8])
    np.testing.assert_array_equal(model.twice(x[0]), 2 * x[0])
    assert "graph @twice" in fluxc("ir", "g.fir", "--stage", "opt", cwd=tmp_path).stdout


WRONG_GRAPHS = {
    "no graph": ("; nothing\n", "cannot read this graph"),
    "bad syntax": ("graph @g(%x f32[3]) {\n  return %x\n}\n", "line 1"),
    "an ill-typed node": (
        "graph @g(%x: f32[3]) {\n  %y: f32[4] = exp(%x)\n  return %y\n}\n",
        "f32[4]",
    ),
    "one name twice": (GRAPHS + GRAPHS, "two graphs named"),
}


@pytest.mark.parametrize("case", WRONG_GRAPHS)
def test_a_wrong_graph_gets_one_message(case, tmp_path):
    text, word = WRONG_GRAPHS[case]
    (tmp_path / "g.fir").write_text(text)
    result = fluxc("compile", "g.fir", "-o", "g", cwd=tmp_path)
    assert result.returncode == 1
    assert word in result.stderr
    assert not (tmp_path / "g").exists()


C_PROGRAM = """\
#include <stdio.h>
#include "{name}.h"

int main(void) {{
    {name}_t *m = {name}_open("{name}/{name}.safetensors", 0, 1);
    float x[6] = {{1, 2, 3, 4, 5, 6}}, p[3];
    if (!m || {name}_predict(m, 1, x, p)) {{ puts({name}_error()); return 1; }}
    printf("%.6f\\n", (double)(p[0] + p[1] + p[2]));
    {name}_close(m);
    return 0;
}}
"""
PARTS = {"lib": "lib{name}.so", "object": "{name}.o"}


@pytest.mark.parametrize("emit", PARTS)
def test_an_artifact_without_python_serves_a_c_program(emit, folder, tmp_path):
    arguments = ("--emit", emit, "--entry", "predict")
    result = fluxc("compile", folder / "m.py", "-o", f"{emit}_m", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    name = f"{emit}_m"
    code = PARTS[emit].format(name=name)
    names = {p.name for p in (tmp_path / name).iterdir()}
    assert names == {code, f"{name}.h", f"{name}.safetensors", "manifest.json"}
    (tmp_path / "main.c").write_text(C_PROGRAM.format(name=name))
    command = ["cc", "-std=c99", *hand.WARNINGS, f"-I{name}", "main.c", f"{name}/{code}"]
    command += ["-pthread", f"-Wl,-rpath,{tmp_path / name}", "-o", "main"]
    subprocess.run(command, check=True, cwd=tmp_path)
    done = subprocess.run(
        [tmp_path / "main"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == "1.000000\n"
    again = fluxc("compile", folder / "m.py", "-o", f"{emit}_m", *arguments, cwd=tmp_path)
    assert again.returncode == 0, "an artifact of any form may be replaced"


def test_objects_of_two_models_go_into_one_program(folder, tmp_path):
    for name in ("one", "two"):
        fluxc("compile", folder / "m.py", "-o", name, "--emit", "object", cwd=tmp_path)
    (tmp_path / "main.c").write_text(
        '#include "one.h"\n#include "two.h"\n'
        "int main(void) { return one_error() == 0 && two_error() == 0; }\n"
    )
    command = ["cc", "-Ione", "-Itwo", "main.c", "one/one.o", "two/two.o", "-pthread", "-o", "main"]
    subprocess.run(command, check=True, cwd=tmp_path)


def test_an_unknown_form_is_wrong_usage(folder, tmp_path):
    result = fluxc("compile", folder / "m.py", "-o", "m", "--emit", "wheel", cwd=tmp_path)
    assert result.returncode == 2
    assert "package, lib, object" in result.stderr
