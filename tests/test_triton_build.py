"""Every kernel of a real model compiles to machine code for GPUs, on a machine without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from triton_harness import needs_triton

from fluxc.compiler import driver
from fluxc.compiler.backends.triton import build
from fluxc.compiler.backends.triton.target import CHIPS, gpu_target
from fluxc.compiler.errors import BuildError, Unsupported

DIGITS = Path(__file__).parent.parent / "examples" / "digits.py"

# In a process of its own: one that interprets kernels cannot compile any.
COMPILE = """
import json, sys
from fluxc.compiler import driver
from fluxc.compiler.backends.triton.build import compile_module
from fluxc.compiler.backends.triton.module import emit_module
from fluxc.compiler.backends.triton.target import gpu_target

model, *chips = sys.argv[1:]
spec = driver.load_model_file(model)
found = []
for chip in chips:
    target = gpu_target(f"cuda:{chip}")
    module = emit_module(driver.lower(spec, target), target)
    for made in compile_module(module, target):
        found.append({
            "chip": chip, "name": made.kernel.name, "entry": made.entry, "hidden": made.hidden,
            "magic": made.cubin[:4].hex(), "machine": made.cubin[18] + 256 * made.cubin[19],
            "target": made.ptx.split(".target ")[1].split()[0].rstrip(","),
            "threads": made.threads, "shared": made.shared, "torch": "torch" in sys.modules,
        })
print(json.dumps(found))
"""


@needs_triton
def test_every_kernel_of_the_digits_model_compiles_without_a_gpu():
    command = [sys.executable, "-c", COMPILE, str(DIGITS), "sm_80", "sm_90"]
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    names = {chip: {k["name"] for k in kernels if k["chip"] == chip} for chip in ("sm_80", "sm_90")}
    assert names["sm_80"] == names["sm_90"]
    assert any(n.startswith("contract") for n in names["sm_80"])
    for k in kernels:
        assert k["magic"] == "7f454c46", f"{k['name']} is no ELF file"
        assert k["machine"] == 190, f"{k['name']} is not CUDA code"
        assert k["target"].startswith(k["chip"])
        assert k["entry"] == k["name"]
        assert k["hidden"] == 2, "scratch pointers, which stay null"
        assert k["shared"] <= 48 << 10
        assert k["threads"] % 32 == 0
        assert not k["torch"]


def test_the_source_of_a_model_names_its_kernels_and_their_loop_ir():
    text = driver.print_stage(driver.load_model_file(DIGITS), "triton", target="cuda:sm_90")
    assert text.startswith("# Kernels for sm_90")
    assert text.count("@triton.jit") >= 10
    assert "#   rows i0 < batch" in text
    compile(text, "kernels.py", "exec")


def test_the_same_model_gives_the_same_source():
    spec = driver.load_model_file(DIGITS)
    assert driver.print_stage(spec, "triton") == driver.print_stage(spec, "triton")


def test_without_triton_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BuildError, match="not installed") as caught:
        driver.print_stage(driver.load_model_file(DIGITS), "ptx", entries=("predict",))
    assert caught.value.hint == "pip install 'fluxc[gpu]'"


@pytest.mark.parametrize("name", ["cuda", "cuda:sm_70", "cuda:90", "hip:gfx942"])
def test_unknown_gpus_are_refused(name):
    with pytest.raises(Unsupported, match="cannot compile for") as caught:
        gpu_target(name)
    assert f"cuda:{CHIPS[0]}" in caught.value.expected


def test_stages_belong_to_kinds_of_targets(tmp_path):
    spec = driver.load_model_file(DIGITS)
    with pytest.raises(Unsupported, match="no stage 'llvm'"):
        driver.print_stage(spec, "llvm", target="cuda:sm_80")
    with pytest.raises(Unsupported, match="no stage 'ptx'"):
        driver.print_stage(spec, "ptx", target="x86_64-unknown-linux-gnu")
    with pytest.raises(Unsupported, match="cannot be made yet"):
        driver.compile_spec(spec, tmp_path / "d", target="cuda:sm_80")
