"""The C runtime by itself, under the sanitizers, behind a descriptor written by hand."""

import subprocess

import numpy as np
import pytest
from native import hand

pytestmark = pytest.mark.cc
SOURCES = [hand.NATIVE / f"{n}.c" for n in ("error", "model", "call", "threads", "weights")]
WITH_ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
WITH_THREAD = ("-fsanitize=thread",)
WITHOUT_ADDRESS = ("-fsanitize=undefined", "-fno-sanitize-recover=all")


def build(folder, program, sanitizer):
    out = folder / f"{program}{sanitizer[0].split('=')[1][:4]}"
    flags = ["-std=c99", "-O1", "-g", "-pthread", *hand.WARNINGS, *sanitizer]
    files = [hand.HERE / f"{program}.c", hand.HERE / "hand.c", *SOURCES]
    subprocess.run(["cc", *flags, f"-I{hand.NATIVE}", *files, "-o", out], check=True)
    return out


def run(*command):
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("native")
    hand.write_hand(folder / "hand", hand.hand_object(folder))
    return folder / "hand" / "hand.safetensors"


@pytest.mark.parametrize("sanitizer", [WITH_ADDRESS, WITH_THREAD], ids=["address", "thread"])
def test_the_pool_visits_every_point_once(tmp_path, sanitizer):
    run(build(tmp_path, "pool", sanitizer))


def test_concurrent_calls_and_models_are_clean_under_the_address_sanitizer(tmp_path, weights):
    run(build(tmp_path, "stress", WITH_ADDRESS), weights)


def test_models_work_in_the_children_of_forks_amid_calls(tmp_path, weights):
    # The allocator of the address sanitizer is not safe after a fork among threads.
    program = build(tmp_path, "stress", WITHOUT_ADDRESS)
    for _ in range(10):
        run(program, weights, "fork")


def test_concurrent_calls_and_models_are_free_of_races(tmp_path, weights):
    # Nor does the thread sanitizer follow threads that are made after a fork.
    run(build(tmp_path, "stress", WITH_THREAD), weights)


def test_altered_weights_files_are_refused_and_leave_the_model_alone(tmp_path, weights):
    program = build(tmp_path, "hostile", WITH_ADDRESS)
    print(run(program, weights, tmp_path / "altered", 4000))


def test_wrong_calls_from_c_are_refused(tmp_path, weights):
    program = build(tmp_path, "wrong_calls", WITH_ADDRESS)
    print(run(program, weights, tmp_path / "saved"))


def test_half_precision_fills_round_to_nearest_even(tmp_path):
    """fx_fill makes what NumPy makes, over every f16 and the values between them."""
    program = tmp_path / "fill"
    code = """
    #include "runtime.h"
    #include <stdio.h>
    int main(void) {
        double value;
        while (scanf("%lf", &value) == 1) {
            uint16_t out[1];
            fx_storage_desc s = {"s", FX_F16, FX_STATE, 0, 0, NULL, 1, 0, 0, 0};
            s.fill = value;
            fx_fill(&s, 0, out);
            printf("%u\\n", (unsigned)out[0]);
        }
        return 0;
    }
    """
    flags = ["-std=c99", "-pthread", *hand.WARNINGS, f"-I{hand.NATIVE}"]
    command = ["cc", *flags, "-x", "c", "-", *SOURCES, "-o", program]
    subprocess.run([str(c) for c in command], input=code, text=True, check=True)
    halves = np.arange(0, 0x7C00, 7, dtype=np.uint16).view(np.float16).astype(np.float64)
    values = np.concatenate(
        [halves, (halves[1:] + halves[:-1]) / 2, halves * 1.0001, [1e9, 65519.9, 65520]]
    )
    values = np.concatenate([values, -values])
    done = subprocess.run(
        [program],
        input="\n".join(map(repr, values.tolist())),
        capture_output=True,
        text=True,
        check=True,
    )
    got = np.array(done.stdout.split(), dtype=np.uint16)
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float32).astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(got, wanted)
