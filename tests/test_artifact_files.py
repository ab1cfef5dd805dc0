"""The files of an artifact: what is written, what is refused, and what it needs."""
# ruff: noqa: E501  the table of hostile files is read in rows

import ast
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from native import hand

from fluxc.compiler.artifact.manifest import solve
from fluxc.compiler.artifact.names import TAKEN
from fluxc.compiler.artifact.weights import initial_value, read_weights
from fluxc.compiler.backends.llvm import link
from fluxc.compiler.backends.llvm.elf import read_dynamic
from fluxc.compiler.backends.llvm.link import check_library, link_library, start_runtime_build
from fluxc.compiler.driver import load_package
from fluxc.compiler.errors import BuildError, FluxcError, Unsupported
from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.entry import Storage
from fluxc.compiler.ir.types import TensorType, bf16, f32

FILES = ["__init__.py", "hand.h", "hand.safetensors", "libhand.so", "manifest.json"]


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return hand.hand_object(tmp_path_factory.mktemp("object"))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory, code):
    folder = tmp_path_factory.mktemp("artifact") / "hand"
    hand.write_hand(folder, code)
    return folder


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def copy(artifact, tmp_path):
    folder = tmp_path / "hand"
    folder.mkdir()
    for name, data in contents(artifact).items():
        (folder / name).write_bytes(data)
    return folder


# ---- writing ----


@pytest.mark.cc
def test_an_artifact_has_the_files_of_the_contract(artifact):
    assert sorted(contents(artifact)) == FILES
    facts = json.loads((artifact / "manifest.json").read_text())
    assert sorted(facts["files"]) == FILES[:-1]
    assert [e["name"] for e in facts["entries"]] == ["predict", "train_step", "mix", "half"]


@pytest.mark.cc
def test_two_writes_are_byte_identical(artifact, code, tmp_path):
    hand.write_hand(tmp_path / "elsewhere", code)
    assert contents(artifact) == contents(tmp_path / "elsewhere")


@pytest.mark.cc
def test_an_artifact_replaces_an_artifact(copy, code):
    (copy / "__pycache__").mkdir()
    (copy / "libhand.so").write_bytes(b"old")
    hand.write_hand(copy, code)
    assert (copy / "libhand.so").read_bytes()[:4] == b"\x7fELF"
    assert names(copy.parent) == ["hand"]


@pytest.mark.cc
@pytest.mark.parametrize("what", ["a user's file", "no artifact", "a file", "a broken manifest"])
def test_what_is_not_an_artifact_is_not_replaced(copy, code, what):
    match what:
        case "a user's file":
            (copy / "notes.txt").write_text("mine")
        case "no artifact":
            (copy / "manifest.json").unlink()
        case "a broken manifest":
            (copy / "manifest.json").write_text("{")
        case "a file":
            for p in copy.iterdir():
                p.unlink()
            copy.rmdir()
            copy.write_text("mine")
    with pytest.raises(FluxcError, match="choose another -o"):
        hand.write_hand(copy, code)
    assert names(copy.parent) == ["hand"]


@pytest.mark.cc
def test_a_failed_write_leaves_the_old_artifact(copy, code):
    before = contents(copy)
    with pytest.raises(FluxcError, match="no_such_file"):
        hand.write_hand(copy, code, weights=copy.parent / "no_such_file")
    with pytest.raises(BuildError):
        hand.write_hand(copy, b"not an object file")
    assert contents(copy) == before
    assert names(copy.parent) == ["hand"]


@pytest.mark.parametrize(
    "name", ["load", "get", "max", "np", "parameters", "Model", "naïve", "_hidden", "t"]
)
def test_entry_names_that_c_or_python_has_taken_are_refused(tmp_path, name):
    entry, program = hand.described(name, {}, {"y": TensorType(f32)})
    spec = hand.ModelSpec((entry,), ())
    with pytest.raises(FluxcError, match="cannot be an entry's name"):
        hand.write_package(tmp_path / "m", "m", spec, [program], b"", hand.TARGET, version="")


def test_entry_names_cannot_hide_what_the_binding_uses():
    tree = ast.parse((hand.NATIVE.parent / "binding.py").read_text())
    used = set()
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            used |= {a.asname or a.name for a in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            used.add(node.name)
        elif isinstance(node, ast.Assign):
            used |= {
                t.id for target in node.targets for t in ast.walk(target) if isinstance(t, ast.Name)
            }
    assert {n for n in used if not n.startswith("_")} <= TAKEN


@pytest.mark.cc
def test_arguments_may_have_any_other_name(code, tmp_path):
    """Names that the emitted Python and C use themselves, or that mean something in C."""
    names = ["call", "plan", "status", "type", "result0"]
    spec, programs = hand.model()
    mix = replace(spec.entries[2], inputs=(*names[:3], "m"), outputs=("register", "m", "n"))
    spec = replace(spec, entries=(*spec.entries[:2], mix, spec.entries[3]))
    hand.write_package(tmp_path / "hand", "hand", spec, programs, code, hand.TARGET, version="")
    model = load_package(tmp_path / "hand").Model()
    for _ in range(2):
        arguments = (
            np.ones(1, np.float32),
            np.ones(2, np.float32),
            np.array(True),
            np.zeros(2, np.int64),
        )
        assert model.mix(*arguments)["sum"] == 2
    subprocess.run(
        ["cc", "-std=c99", *hand.WARNINGS, "-fsyntax-only", tmp_path / "hand" / "hand.h"],
        check=True,
    )


@pytest.mark.parametrize("name", ["class", "int", "9lives", "a-b", "template"])
def test_artifact_names_that_c_or_python_has_taken_are_refused(tmp_path, name):
    with pytest.raises(FluxcError, match="cannot be an artifact's name"):
        hand.write_package(
            tmp_path / "m", name, hand.ModelSpec((), ()), [], b"", hand.TARGET, version=""
        )


def test_hyperparameters_of_bf16_are_refused(tmp_path):
    spec = hand.ModelSpec((), (Storage("optimizer.f.lr", TensorType(bf16), "hyper", 0.1),))
    with pytest.raises(FluxcError, match=r"optimizer\.f\.lr is bf16"):
        hand.write_package(tmp_path / "m", "m", spec, [], b"", hand.TARGET, version="")


def test_sizes_are_solved_from_the_simplest_axis():
    n, m = dim("n"), dim("m")
    entry, program = hand.described(
        "f",
        {"a": TensorType(f32, (2 * n + 3, n * m, 2 * m + n)), "b": TensorType(f32, (n, 4))},
        {"y": TensorType(f32)},
    )
    assert solve(entry, program) == [["n", 1, 0, 1, 0], ["m", 0, 2, 2, "n"]]


@pytest.mark.parametrize(
    "shape", [lambda n, m: (n * m,), lambda n, m: (n + m,), lambda n, m: (n * n, m)]
)
def test_a_size_that_no_shape_tells_is_refused(shape):
    entry, program = hand.described(
        "f", {"a": TensorType(f32, shape(dim("n"), dim("m")))}, {"y": TensorType(f32)}
    )
    with pytest.raises(FluxcError, match="cannot be told from the inputs' shapes"):
        solve(entry, program)


def test_initial_values_depend_on_name_and_seed_alone():
    def storage(name):
        return Storage(name, TensorType(f32, (2, 3)), "parameter", lambda g: g.normal(size=(2, 3)))

    a = initial_value(storage("a"), 0)
    np.testing.assert_array_equal(a, initial_value(storage("a"), 0))
    assert not np.array_equal(a, initial_value(storage("b"), 0))
    assert not np.array_equal(a, initial_value(storage("a"), 1))


def test_bf16_initial_values_round_to_nearest_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-12, -2.5e38])
    storage = Storage(
        "a",
        TensorType(bf16, (5,)),
        "parameter",
        lambda _: values,
    )
    np.testing.assert_array_equal(
        initial_value(storage, 0), [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xFF3C]
    )


# ---- C ----


@pytest.mark.cc
@pytest.mark.parametrize(
    "command", [["gcc", "-std=c99"], ["g++", "-std=c++17"]], ids=["c99", "c++17"]
)
def test_the_header_compiles_without_warnings(artifact, tmp_path, command):
    source = tmp_path / ("use.c" if command[0] == "gcc" else "use.cc")
    source.write_text(
        '#include "hand.h"\nint use(hand_t *m);\nint use(hand_t *m) { return hand_save(m, "w"); }\n'
    )
    flags = [*hand.WARNINGS, "-Wstrict-prototypes"] if command[0] == "gcc" else hand.WARNINGS
    subprocess.run(
        [*command, *flags, f"-I{artifact}", "-c", source, "-o", tmp_path / "o"], check=True
    )


@pytest.mark.cc
def test_a_c_program_links_and_runs(artifact, tmp_path):
    (tmp_path / "main.c").write_text("""
#include "hand.h"
#include <stdio.h>
int main(int argc, char **argv) {
    float x[8] = {1, 0, 0, 0, 0, 1, 0, 0}, y[6];
    hand_t *m = hand_open(argc > 1 ? argv[1] : NULL, 0, 2);
    if (m == NULL || hand_predict(m, 2, x, y) != 0) return printf("%s\\n", hand_error()), 1;
    printf("%.9g %.9g\\n", y[0], y[3]);
    hand_close(m);
    return 0;
}""")
    flags = ["-std=c99", *hand.WARNINGS, f"-I{artifact}", f"-L{artifact}", f"-Wl,-rpath,{artifact}"]
    subprocess.run(
        ["cc", *flags, tmp_path / "main.c", "-lhand", "-o", tmp_path / "main"], check=True
    )
    done = subprocess.run(
        [tmp_path / "main", artifact / "hand.safetensors"],
        capture_output=True,
        text=True,
        check=True,
    )
    weight = load_package(artifact).Model().parameters["layer.weight"]
    wanted = weight[0, :2] + np.float32(0.5)
    np.testing.assert_allclose(np.array(done.stdout.split(), np.float32), wanted, rtol=1e-6)


@pytest.mark.cc
def test_the_library_needs_the_c_library_alone(artifact):
    dynamic = read_dynamic((artifact / "libhand.so").read_bytes())
    assert dynamic.needed == ("libc.so.6",)
    assert set(dynamic.defined) == {
        f"hand_{n}"
        for n in "open close save load error get set predict train_step mix half".split()  # noqa: SIM905
    }


def compile_c(folder, text, *flags):
    (folder / "code.c").write_text(text)
    subprocess.run(["cc", "-fPIC", *flags, "-c", "code.c", "-o", "code.o"], cwd=folder, check=True)
    return (folder / "code.o").read_bytes()


@pytest.mark.cc
@pytest.mark.parametrize("symbol", ["expf", "_ZSt4cout", "PyErr_SetString"])
def test_symbols_beyond_the_c_library_are_refused_by_name(tmp_path, symbol):
    code = compile_c(
        tmp_path,
        f"extern float {symbol}(float); float m_open(float x) {{ return {symbol}(x); }}",
        "-fno-builtin",
    )
    with pytest.raises(BuildError, match=symbol):
        link_library(code, start_runtime_build(), tmp_path / "libm_.so", ["m_open"])


@pytest.mark.cc
def test_a_library_that_needs_another_library_is_refused(tmp_path):
    compile_c(
        tmp_path,
        "extern double sin(double); double m_open(double x) { return sin(x); }",
        "-fno-builtin",
    )
    subprocess.run(["cc", "-shared", "code.o", "-lm", "-o", "libx.so"], cwd=tmp_path, check=True)
    with pytest.raises(BuildError, match=r"needs libm\.so"):
        check_library(tmp_path / "libx.so", ["m_open"])


@pytest.mark.cc
def test_a_library_without_a_declared_function_is_refused(tmp_path):
    code = compile_c(tmp_path, "int m_open(void) { return 1; }")
    with pytest.raises(BuildError, match="does not offer"):
        link_library(code, start_runtime_build(), tmp_path / "libm_.so", ["m_open", "m_close"])


def test_a_missing_compiler_says_what_to_install(monkeypatch):
    monkeypatch.setattr(link, "has_ziglang", lambda: False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("FLUXC_CC", raising=False)
    with pytest.raises(BuildError, match="no C compiler was found") as caught:
        start_runtime_build()
    assert "apt install gcc" in str(caught.value)


@pytest.mark.cc
def test_the_runtime_builds_without_a_cache_and_is_kept_in_one(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLUXC_CACHE", str(tmp_path / "file" / "below"))
    fresh = start_runtime_build().object_bytes()
    monkeypatch.setenv("FLUXC_CACHE", str(tmp_path / "cache"))
    assert start_runtime_build().object_bytes() == fresh
    (kept,) = (tmp_path / "cache").iterdir()
    assert start_runtime_build().process is None
    kept.write_bytes(kept.read_bytes()[:-1])
    assert start_runtime_build().object_bytes() == fresh


@pytest.mark.cc
def test_a_build_that_nobody_waits_for_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("FLUXC_CACHE", str(tmp_path / "cache"))
    build = start_runtime_build()
    folder, process = build.folder, build.process
    assert folder.exists()
    del build
    assert not folder.exists()
    assert process.returncode is not None


@pytest.mark.cc
def test_code_for_another_machine_is_refused_before_it_is_made():
    with pytest.raises(Unsupported, match="cannot link for riscv64-unknown-linux-gnu"):
        start_runtime_build(replace(hand.TARGET, triple="riscv64-unknown-linux-gnu"))


# ---- importing ----


@pytest.mark.cc
def test_an_artifact_imports_without_fluxc(artifact, tmp_path):
    packages = Path(np.__file__).parent.parent
    for part in ("numpy", "numpy.libs"):
        if (packages / part).exists():
            (tmp_path / part).symlink_to(packages / part)
    code = f"""
import importlib.util, sys
sys.path[:0] = [{str(tmp_path)!r}, {str(artifact.parent)!r}]
assert importlib.util.find_spec("fluxc") is None
before = set(sys.modules)
import numpy
import hand
y = hand.predict(numpy.ones((2, 4), numpy.float32))
assert y.shape == (2, 3)
assert not {{m.split(".")[0] for m in sys.modules}} & {{"fluxc", "llvmlite", "lark", "typer"}}
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


@pytest.mark.cc
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("libhand.so", lambda d: d[:-1] + b"\1"),
        ("libhand.so", lambda d: d[: len(d) // 2]),
        ("libhand.so", None),
        ("manifest.json", lambda d: d[:-20]),
        ("manifest.json", lambda _: b"[]"),
        ("manifest.json", lambda d: d.replace(b'"format": 1', b'"format": 2')),
        ("manifest.json", None),
    ],
)
def test_an_altered_artifact_does_not_import(copy, file, change):
    if change is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(change((copy / file).read_bytes()))
    with pytest.raises(Exception, match=file) as caught:
        load_package(copy)
    assert type(caught.value).__name__ == "ArtifactError"


@pytest.mark.cc
def test_altered_parameters_of_an_artifact_are_refused(copy):
    data = bytearray((copy / "hand.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "hand.safetensors").write_bytes(data)
    package = load_package(copy)
    with pytest.raises(package.ArtifactError, match="sha256"):
        package.Model()


# ---- hostile weights files, for both readers ----


def safetensors(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


WEIGHT = {"dtype": "F32", "shape": [3, 4], "data_offsets": [24, 72]}
BIAS = {"dtype": "F32", "shape": [3], "data_offsets": [72, 84]}
MEAN = {"dtype": "F64", "shape": [3], "data_offsets": [0, 24]}
HEADER = {"norm.mean": MEAN, "layer.weight": WEIGHT, "layer.bias": BIAS}
DATA = np.zeros(3).tobytes() + np.arange(15, dtype=np.float32).tobytes()


def having(**tensors):
    return safetensors({**HEADER, **{k.replace("__", "."): v for k, v in tensors.items()}}, DATA)


def spoiled(offset, value):
    return safetensors(HEADER, DATA[:offset] + np.float32(value).tobytes() + DATA[offset + 4 :])


TEXT = json.dumps(HEADER)
HOSTILE = {
    "empty": (b"", "too short"),
    "seven bytes": (b"1234567", "too short"),
    "a header beyond the file": (struct.pack("<Q", 10**6) + b"{}", "truncated"),
    "a header of 2^64-1 bytes": (struct.pack("<Q", 2**64 - 1) + b"{}", "truncated"),
    "no header": (struct.pack("<Q", 0) + DATA, "not the JSON"),
    "no JSON": (safetensors(b"hello", DATA), "not the JSON"),
    "a list": (safetensors(b"[]", b""), "not the JSON"),
    "unfinished JSON": (safetensors(TEXT[:-5].encode(), DATA), ""),
    "text after the header": (safetensors((TEXT + "x").encode(), DATA), ""),
    "deep nesting": (safetensors(b'{"a":' + b"[" * 100000, b""), ""),
    "a trailing comma": (safetensors((TEXT[:-1] + ",}").encode(), DATA), ""),
    "invalid UTF-8 and escape": (safetensors(b'{"\\x": {}}', b""), ""),
    "truncated data": (safetensors(HEADER, DATA[:-1]), "truncated"),
    "trailing bytes": (safetensors(HEADER, DATA + b"\0"), "bytes follow the last tensor"),
    "a tensor beyond the file": (having(layer__bias={**BIAS, "data_offsets": [72, 85]}), "outside"),
    "backward offsets": (having(layer__bias={**BIAS, "data_offsets": [84, 72]}), "outside"),
    "overlapping tensors": (having(layer__bias={**BIAS, "data_offsets": [60, 72]}), "overlap"),
    "one range twice": (having(layer__weight={**WEIGHT, "data_offsets": [0, 24]}), "overlap"),
    "negative offsets": (having(layer__bias={**BIAS, "data_offsets": [-12, 0]}), "not a whole number"),
    "fractions": (having(layer__bias={**BIAS, "shape": [3.0]}), ""),
    "huge numbers": (having(layer__bias={**BIAS, "shape": [10**30]}), ""),
    "overflowing shape": (having(layer__bias={**BIAS, "shape": [2**62, 2**62]}), "layer.bias should be f32[3]"),
    "a rank of 1000": (having(layer__bias={**BIAS, "shape": [1] * 1000}), ""),
    "another dtype": (having(layer__bias={**BIAS, "dtype": "I32"}), "layer.bias should be f32[3], got i32[3]"),
    "an unknown dtype": (having(layer__bias={**BIAS, "dtype": "F4"}), "layer.bias should be f32[3]"),
    "another shape": (having(layer__bias={**BIAS, "shape": [1, 3]}), "layer.bias should be f32[3], got f32[1, 3]"),
    "a missing field": (having(layer__bias={"dtype": "F32", "shape": [3]}), "lacks"),
    "a surplus field": (having(layer__bias={**BIAS, "more": 1}), ""),
    "a tensor that is a number": (having(layer__bias=3), ""),
    "a missing tensor": (safetensors({"norm.mean": MEAN, "layer.weight": WEIGHT}, DATA[:72]), "it lacks layer.bias"),
    "a surplus tensor": (having(other={**BIAS, "shape": [0], "data_offsets": [84, 84]}), "unexpectedly, other"),
    "one name twice": (safetensors((TEXT[:-1] + ',"layer.bias":' + json.dumps({**BIAS, "shape": [0], "data_offsets": [84, 84]}) + "}").encode(), DATA), "one name"),
    "a field twice": (safetensors(TEXT.replace('"dtype": "F64"', '"dtype": "F64", "dtype": "F64"').encode(), DATA), ""),
    "metadata that is not text": (safetensors({"__metadata__": {"a": 1}, **HEADER}, DATA), ""),
    "a NaN": (spoiled(72, np.nan), "layer.bias"),
    "an infinity": (spoiled(24, -np.inf), "layer.weight"),
}  # fmt: skip


@pytest.mark.cc
@pytest.mark.parametrize("kind", HOSTILE)
def test_the_runtime_refuses_hostile_weights(artifact, tmp_path, kind):
    data, words = HOSTILE[kind]
    file = tmp_path / "w.safetensors"
    file.write_bytes(data)
    package = load_package(artifact)
    with pytest.raises(package.ArtifactError) as caught:
        package.Model(weights=file)
    assert str(file) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", [k for k in HOSTILE if k != "metadata that is not text"])
def test_the_compiler_refuses_hostile_weights(tmp_path, kind):
    data, words = HOSTILE[kind]
    file = tmp_path / "w.safetensors"
    file.write_bytes(data)
    with pytest.raises(FluxcError) as caught:
        read_weights(file, hand.model()[0])
    assert str(file) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.cc
def test_good_weights_are_read_by_both(artifact, code, tmp_path):
    header = {
        "__metadata__": {"a": "b\u00e9\\"},
        **HEADER,
        "optimizer.other.m.x": {"dtype": "F8", "shape": [0], "data_offsets": [84, 84]},
    }
    file = tmp_path / "w.safetensors"
    file.write_bytes(safetensors(header, DATA))
    package = load_package(artifact)
    np.testing.assert_array_equal(
        package.Model(weights=file).parameters["layer.bias"], [12, 13, 14]
    )
    hand.write_hand(tmp_path / "hand", code, weights=file)
    other = load_package(tmp_path / "hand")
    np.testing.assert_array_equal(other.Model().parameters["layer.bias"], [12, 13, 14])


@pytest.mark.cc
def test_loading_parameters_alone_resets_the_optimiser_and_keeps_the_rest(artifact, tmp_path):
    package = load_package(artifact)
    model = package.Model(seed=5)
    fresh = tmp_path / "fresh"
    model.save(fresh)
    model.optimizer["lr"] = 0.75
    model.train_step(np.ones((2, 4), np.float32), np.array([0, 1], np.int32))
    model.load(artifact / "hand.safetensors")
    assert model.optimizer["lr"] == 0.75
    model.optimizer["lr"] = 0.125
    model.save(tmp_path / "after")
    # All is as at first but the count of steps.
    a, b = fresh.read_bytes(), (tmp_path / "after").read_bytes()
    assert sum(x != y for x, y in zip(a, b, strict=True)) == 1


@pytest.mark.cc
def test_diverged_parameters_are_not_saved(artifact, tmp_path):
    package = load_package(artifact)
    model = package.Model()
    model.optimizer["lr"] = 3e38
    for _ in range(3):
        model.train_step(np.ones((2, 4), np.float32), np.array([0, 0], np.int32))
    with pytest.raises(ValueError, match=r"layer\.bias: element 0 is not a finite number"):
        model.save(tmp_path / "w")
    assert names(tmp_path) == []
