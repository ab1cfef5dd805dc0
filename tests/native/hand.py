"""The hand-written model of hand.c as the compiler's records, and artifacts made of it."""

import subprocess
from pathlib import Path

import numpy as np

from fluxc.compiler.artifact import write_package
from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.entry import Entry, ModelSpec, Storage
from fluxc.compiler.ir.graph import Graph
from fluxc.compiler.ir.types import TensorType, bf16, bool_, f16, f32, f64, i32, i64
from fluxc.compiler.kernels.program import Program
from fluxc.compiler.kernels.schedule import Target

HERE = Path(__file__).parent
NATIVE = HERE.parent.parent / "runtime" / "native"
TARGET = Target("x86_64-unknown-linux-gnu", "test", "", 32, 16)
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic"]

BATCH, N, K = dim("batch"), dim("n"), dim("k", min=2, max=64, multiple_of=2)


def storages():
    optimizer = "optimizer.train_step"
    return (
        Storage(
            "layer.weight",
            TensorType(f32, (3, 4)),
            "parameter",
            lambda g: g.normal(size=(3, 4)),
            True,
        ),
        Storage("layer.bias", TensorType(f32, (3,)), "parameter", 0.5, True),
        Storage(f"{optimizer}.momentum.layer.bias", TensorType(f32, (3,)), "optimizer", 0.25),
        Storage("norm.mean", TensorType(f64, (3,)), "state", 1.0),
        Storage(f"{optimizer}.lr", TensorType(f32), "hyper", 0.125),
        Storage("random.seed", TensorType(i64), "seed", 0.0),
        Storage("random.step", TensorType(i64), "step", 0.0),
    )


def described(name, inputs, outputs, tree="leaf", updates=()):
    """An entry and its program, as far as an artifact is concerned."""
    symbols = {s for t in inputs.values() for s in t.symbols}
    entry = Entry(
        name,
        Graph(name, (), (), ()),
        tuple(inputs),
        (),
        tuple(outputs),
        updates,
        tree,
        bool(updates),
    )
    program = Program(
        name, tuple(symbols), tuple(inputs.values()), tuple(outputs.values()), (), updates,
        (), (), (), 0, (), 0,
    )  # fmt: skip
    return entry, program


def model():
    x, y = TensorType(f32, (BATCH, 4)), TensorType(i32, (BATCH,))
    pairs = [
        described("predict", {"x": x}, {"y": TensorType(f32, (BATCH, 3))}),
        described(
            "train_step", {"x": x, "y": y}, {"loss": TensorType(f32)}, "leaf", ("layer.bias",)
        ),
        described(
            "mix",
            {
                "a": TensorType(f32, (N,)),
                "b": TensorType(f32, (N + 1,)),
                "flag": TensorType(bool_),
                "ids": TensorType(i64, (2 * N,)),
            },
            {
                "sum": TensorType(f32, (N,)),
                "doubled": TensorType(i64, (2 * N,)),
                "total": TensorType(f32),
            },
            ("dict", {"sum": "leaf", "all": ("tuple", ["leaf", "leaf"])}),
        ),
        described(
            "half",
            {"h": TensorType(f16, (K,)), "g": TensorType(bf16, (K,))},
            {"out": TensorType(bf16, (K,))},
        ),
    ]
    return ModelSpec(tuple(e for e, _ in pairs), storages()), [p for _, p in pairs]


def hand_object(folder):
    """hand.c as the object file that the back end would emit."""
    out = Path(folder) / "hand.o"
    flags = ["-std=c99", "-O1", "-fPIC", "-fvisibility=hidden", *WARNINGS, f"-I{NATIVE}"]
    subprocess.run(["cc", *flags, "-c", HERE / "hand.c", "-o", out], check=True)
    return out.read_bytes()


def write_hand(folder, code, **options):
    spec, programs = model()
    write_package(
        folder, "hand", spec, programs, code, TARGET, version="test", threads=2, **options
    )


def expected_predict(m, x):
    return (x @ m.parameters["layer.weight"].T + m.parameters["layer.bias"]).astype(np.float32)
