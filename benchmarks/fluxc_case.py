"""One workload of the peer harness under fluxc, in one process: compile, check, time.

Prints a JSON object with the fields of the harness's own workers, so that rows stand side by side.
Usage: fluxc_case.py HARNESS WORKDIR WORKLOAD THREADS
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fluxc.compiler import driver

MLP = """
import fluxc as fx
from fluxc import losses, nn, optim

model = nn.Chain(nn.Dense(784, 512, fx.relu), nn.Dense(512, 512, fx.relu), nn.Dense(512, 10))

@fx.export
def predict(x: fx.f32["batch", 784]):
    return fx.softmax(model(x), axis=-1)

@fx.export(optimizer=optim.Adam({lr}, beta=({beta1}, {beta2}), eps={eps}))
def train_step(x: fx.f32["batch", 784], y: fx.i64["batch"]):
    return losses.logitcrossentropy(model(x), y)
"""
GEMM = """
import fluxc as fx
from fluxc import nn

model = nn.Dense({k}, {n}, bias=False)

@fx.export
def predict(x: fx.f32["rows", {k}]):
    return model(x)
"""
MLP_NAMES = {
    f"fc{i + 1}.{part}": f"layers.{i}.{part}" for i in range(3) for part in ("weight", "bias")
}


def model_of(workload, adam):
    """The model file's text, the entry to call, and the harness's parameter names in fluxc's."""
    name = workload.name
    if name.startswith("gemm_"):
        _, n, k = map(int, name.removeprefix("gemm_").split("x"))
        (key,) = workload.params()
        return GEMM.format(n=n, k=k), "predict", {key: "weight"}
    constants = {key: adam[key] for key in ("lr", "beta1", "beta2", "eps")}
    entry = "train_step" if workload.kind == "train" else "predict"
    return MLP.format(**constants), entry, MLP_NAMES


def main():
    harness, workdir, name, threads = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    sys.path.insert(0, harness)
    from bench import measure
    from bench.workloads import ADAM, CHECK_STEPS, REGISTRY

    measure.pin(threads)
    workload = REGISTRY[name]
    text, entry, names = model_of(workload, ADAM)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "workload.py"
        file.write_text(text)
        start = time.perf_counter()
        driver.compile_file(file, Path(folder) / "model", entries=(entry,))
        package = driver.load_package(Path(folder) / "model")
        model = package.Model(threads=threads)
        compile_s = time.perf_counter() - start
        for key, array in workload.params().items():
            weight = model.parameters[names[key]]
            model.parameters[names[key]] = array if array.shape == weight.shape else array.T.copy()
        function, inputs = getattr(model, entry), workload.inputs()
        with np.load(workdir / "reference" / f"{name}.npz") as reference:
            flops = int(reference["flops"])
            if workload.kind == "train":
                got, want = [function(*inputs) for _ in range(CHECK_STEPS)], reference["losses"]
            else:
                got, want = function(*inputs), reference["out0"]
            want = np.asarray(want, np.float64).reshape(np.shape(got))
            error = float(np.abs(np.asarray(got, np.float64) - want).max() / np.abs(want).max())
        row = {"workload": name, "peer": "fluxc", "threads": threads, "compile_s": compile_s}
        row |= {"rel_error": error, "correct": error <= 1e-3}
        row |= measure.measure(lambda: function(*inputs))
        row["gflops"] = flops / row["median_ms"] / 1e6
        print(json.dumps(row))


if __name__ == "__main__":
    main()
