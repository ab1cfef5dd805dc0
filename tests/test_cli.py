"""The command line does what its help says, on a real model."""

import json

import numpy as np
import pytest
from command_line import fluxc, fluxc_process

pytestmark = pytest.mark.cc

MODEL = """\
import fluxc as fx
from fluxc import losses, nn, optim

model = nn.Chain(nn.Dense(6, 5, fx.relu), nn.Dropout(0.2), nn.Dense(5, 3))

@fx.export
def predict(x: fx.f32["batch", 6]):
    return fx.softmax(model(x), axis=-1)

@fx.export
def both(x: fx.f32["batch", 6]):
    return {"double": x * 2, "total": x.sum()}

@fx.export(optimizer=optim.Adam(1e-2))
def train_step(x: fx.f32["batch", 6], y: fx.i32["batch"]):
    return losses.logitcrossentropy(model(x), y)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "m.py").write_text(MODEL)
    result = fluxc_process("compile", "m.py", "-o", "build/m", cwd=folder)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), result.stderr
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(7, 6)).astype(np.float32))
    np.save(folder / "y.npy", rng.integers(0, 3, 7).astype(np.int32))
    return folder


def test_compile_writes_what_the_contract_lists(folder):
    names = {p.name for p in (folder / "build" / "m").iterdir()}
    assert {"__init__.py", "libm.so", "m.h", "m.safetensors", "manifest.json"} <= names


def test_compiling_twice_gives_the_same_bytes(folder):
    assert fluxc("compile", "m.py", "-o", "again/m", cwd=folder).returncode == 0
    for file in sorted((folder / "build" / "m").iterdir()):
        if file.is_file():
            assert file.read_bytes() == (folder / "again" / "m" / file.name).read_bytes(), file.name


def test_a_seed_gives_other_initial_parameters_and_nothing_else(folder):
    assert fluxc("compile", "m.py", "-o", "seeded/m", "--seed", 5, cwd=folder).returncode == 0
    names = {p.name for p in (folder / "build" / "m").iterdir() if p.is_file()}
    pairs = {n: [(folder / d / "m" / n).read_bytes() for d in ("build", "seeded")] for n in names}
    changed = {n for n, (one, other) in pairs.items() if one != other}
    assert changed == {"m.safetensors", "manifest.json"}


def test_run_writes_the_result(folder):
    result = fluxc_process("run", "build/m", "predict", "--x", "x.npy", "-o", "p.npy", cwd=folder)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    p = np.load(folder / "p.npy")
    assert p.shape == (7, 3)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-6)


def test_run_writes_several_results_into_one_npz(folder):
    result = fluxc("run", "build/m", "both", "--x=x.npy", "-o", "b.npz", cwd=folder)
    assert result.returncode == 0, result.stderr
    x = np.load(folder / "x.npy")
    with np.load(folder / "b.npz") as both:
        np.testing.assert_array_equal(both["double"], x * 2)
        np.testing.assert_allclose(both["total"], x.sum(), rtol=1e-5)


def test_run_trains_and_saves(folder):
    step = ["run", "build/m", "train_step", "--x", "x.npy", "--y", "y.npy"]
    first = fluxc(*step, "-o", "loss1.npy", "--save", "w.safetensors", cwd=folder)
    second = fluxc(*step, "-o", "loss2.npy", "--weights", "w.safetensors", cwd=folder)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert np.load(folder / "loss2.npy") != np.load(folder / "loss1.npy")


WRONG_RUNS = {
    "an unknown entry": (["build/m", "guess"], 1, "predict"),
    "a missing input": (["build/m", "predict"], 1, "x"),
    "an unknown input": (["build/m", "predict", "--z", "x.npy"], 2, "--x FILE.npy"),
    "a file that is not there": (["build/m", "predict", "--x", "none.npy"], 1, "none.npy"),
    "a file of another kind": (["build/m", "predict", "--x", "m.py"], 1, "m.py"),
    "the wrong dtype": (["build/m", "predict", "--x", "y.npy"], 1, "f32"),
    "no artifact": (["build", "predict"], 1, "build"),
}


@pytest.mark.parametrize("case", WRONG_RUNS)
def test_a_wrong_run_gets_one_message(case, folder):
    arguments, status, word = WRONG_RUNS[case]
    result = fluxc("run", *arguments, cwd=folder)
    assert result.returncode == status, result.stderr
    assert word in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_that_cannot_be_written_gets_one_message(folder):
    result = fluxc("compile", "m.py", "-o", "m.py/inside", cwd=folder)
    assert result.returncode == 1
    assert "m.py" in result.stderr
    assert "Traceback" not in result.stderr


def test_inspect_shows_entries_parameters_and_kernels(folder):
    result = fluxc("inspect", "build/m", cwd=folder)
    assert result.returncode == 0, result.stderr
    for word in ("predict", "train_step", "layers.0.weight", "f32[5, 6]", "libm.so", "contract"):
        assert word in result.stdout
    manifest = json.loads(fluxc("inspect", "build/m", "--json", cwd=folder).stdout)
    assert manifest == json.loads((folder / "build" / "m" / "manifest.json").read_text())


STAGES = {
    "graph": "contract",
    "grad": "scatter",
    "opt": "graph @train_step",
    "loops": "contract",
    "llvm": "define",
    "asm": ".text",
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_prints(stage, folder):
    result = fluxc("ir", "m.py", "--stage", stage, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert STAGES[stage] in result.stdout


def test_entries_may_be_chosen(folder):
    assert fluxc("compile", "m.py", "-o", "one/m", "--entry", "predict", cwd=folder).returncode == 0
    manifest = json.loads((folder / "one" / "m" / "manifest.json").read_text())
    assert "train_step" not in json.dumps(manifest["entries"])
    unknown = fluxc("compile", "m.py", "-o", "two/m", "--entry", "guess", cwd=folder)
    assert unknown.returncode == 1
    assert "predict" in unknown.stderr
