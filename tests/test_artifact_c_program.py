"""The digits model from C: the program in examples/ trains the artifact and predicts with it."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from native import hand

from fluxc.compiler import driver

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.cc


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c") / "digits"
    driver.compile_file(EXAMPLES / "digits.py", folder)
    return folder


def test_a_c_program_trains_and_predicts(digits, tmp_path):
    with np.load(EXAMPLES / "data" / "digits.npz") as data:
        x, y = data["x"].astype("<f4") / 16, data["y"].astype("<i4")
    x.tofile(tmp_path / "x.f32")
    y.tofile(tmp_path / "y.i32")
    link = [f"-I{digits}", f"-L{digits}", "-ldigits", f"-Wl,-rpath,{digits}"]
    source, program = EXAMPLES / "train_and_predict.c", tmp_path / "program"
    subprocess.run(["cc", "-std=c99", *hand.WARNINGS, source, *link, "-o", program], check=True)
    files = [
        digits / "digits.safetensors",
        tmp_path / "x.f32",
        tmp_path / "y.i32",
        tmp_path / "trained",
    ]
    done = subprocess.run([program, *files], capture_output=True, text=True, check=True)
    assert "held-out accuracy: 9" in done.stdout
    # What C trained and saved, Python opens.
    model = driver.load_package(digits).Model(weights=tmp_path / "trained")
    assert np.mean(model.predict(x).argmax(1) == y) > 0.96


def test_training_does_not_depend_on_the_number_of_threads(digits, tmp_path):
    package = driver.load_package(digits)
    rng = np.random.default_rng(0)
    x, y = rng.random((257, 64), np.float32), rng.integers(0, 10, 257, np.int32)
    for threads in (1, 2, 5):
        model = package.Model(seed=7, threads=threads)
        for _ in range(5):
            model.train_step(x, y)
        model.save(tmp_path / f"{threads}")
    assert len({(tmp_path / f"{t}").read_bytes() for t in (1, 2, 5)}) == 1


def test_a_label_that_is_no_class_is_refused(digits):
    model = driver.load_package(digits).Model()
    x = np.zeros((3, 64), np.float32)
    for label in (10, -1):
        with pytest.raises(ValueError, match=rf"argument y: element 1 is {label}"):
            model.train_step(x, np.array([0, label, 9], np.int32))
