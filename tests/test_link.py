"""Artifacts are built without the system's C compiler, and for other machines, by ziglang."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from fluxc.compiler.backends.llvm.link import has_ziglang

pytestmark = pytest.mark.skipif(not has_ziglang(), reason="ziglang is not installed")

GRAPH = """\
graph @soft(%x: f32[n, 4]) {
  %e: f32[n, 4] = exp(%x)
  %s: f32[n] = reduce_sum(%e) {axes = (1,)}
  return %s
}
"""
MACHINES = {"x86_64-unknown-linux-gnu": 62, "aarch64-unknown-linux-gnu": 183}  # ELF's numbers


def compile_hidden(tmp_path, *options):
    """Compile in a process that finds no program on PATH, and no runtime in a cache."""
    (tmp_path / "g.fir").write_text(GRAPH)
    (tmp_path / "empty").mkdir()
    hidden = {"PATH": str(tmp_path / "empty"), "FLUXC_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "fluxc.compiler", "compile", "g.fir", "-o", "g", *options]
    clean = {k: v for k, v in os.environ.items() if k != "FLUXC_CC"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=clean | hidden
    )
    assert done.returncode == 0, done.stderr


def test_an_artifact_is_built_without_a_c_compiler(tmp_path):
    compile_hidden(tmp_path)
    code = "import g, numpy as np; print(g.soft(np.zeros((3, 4), 'f4')).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    np.testing.assert_allclose(json.loads(done.stdout), [4, 4, 4], rtol=1e-6)


@pytest.mark.parametrize("triple", MACHINES)
def test_an_artifact_is_built_for_a_machine(triple, tmp_path):
    compile_hidden(tmp_path, "--target", triple)
    header = (tmp_path / "g" / "libg.so").read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == MACHINES[triple]
    manifest = json.loads((tmp_path / "g" / "manifest.json").read_text())
    assert manifest["target"]["triple"] == triple
