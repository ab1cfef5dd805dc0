"""One workload of the peer harness under fluxc, in one process: compile, check, time.

The workload's own forward function is traced with `fluxc_ops` as its vocabulary: the same weights
and inputs as the peers have, as parameters and arguments of a compiled entry.  Sizes of the first
axis are symbolic wherever the workload does not write them out.
Prints a JSON object with the fields of the harness's own workers, so that rows stand side by side.
Usage: fluxc_case.py HARNESS WORKDIR WORKLOAD THREADS
"""

import inspect
import json
import sys
import tempfile
import time
from pathlib import Path

import fluxc_ops
import numpy as np

import fluxc as fx
from fluxc import optim
from fluxc.types import TensorSpec, as_dtype

# Workloads whose forward function holds the sizes of its inputs as numbers.
FIXED = (
    "bert_base_s128_b1", "gpt2_small_decode", "train_charlstm_b32_t64", "train_gpt_mini_b8_t128",
    "train_vae_b128",
)  # fmt: skip


def spec_of(array, symbolic):
    batch = ("batch",) if symbolic else array.shape[:1]
    return TensorSpec(as_dtype(array.dtype), (*batch, *array.shape[1:]))


def declare(parameters, is_state):
    """The workload's parameters by their names, statistics as states."""
    return {
        name: (fx.State if is_state(name) else fx.Param)(a.shape, init=a)
        for name, a in parameters.items()
    }


def model_of(workload, adam, is_state):
    """A model file's namespace with the one entry `run`, its inputs x0, x1, ..."""
    inputs, weights = workload.inputs(), declare(workload.params(), is_state)
    symbolic = workload.name not in FIXED

    def run(*xs):
        return workload.forward(fluxc_ops, weights, *xs)

    run.__signature__ = inspect.Signature(
        [
            inspect.Parameter(
                f"x{i}", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=spec_of(a, symbolic)
            )
            for i, a in enumerate(inputs)
        ]
    )
    rule = optim.Adam(adam["lr"], (adam["beta1"], adam["beta2"]), adam["eps"])
    entry = fx.export(run, optimizer=rule if workload.kind == "train" else None)
    return {"run": entry, "weights": weights}, inputs


def error_of(function, workload, reference, inputs, steps):
    """The largest difference from the reference over the largest value, of the worst output."""
    if workload.kind == "train":
        results = [np.array([function(*inputs) for _ in range(steps)])]
        wanted = [reference["losses"]]
    else:
        results = list(function(*inputs))
        wanted = [reference[f"out{i}"] for i in range(len(results))]
    return max(
        float(np.abs(got.astype(np.float64) - want).max() / np.abs(want).max())
        for got, want in zip(results, wanted, strict=True)
    )


def main():
    harness, workdir, name, threads = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    sys.path.insert(0, harness)
    from bench import measure
    from bench.workloads import ADAM, CHECK_STEPS, REGISTRY, is_state

    measure.pin(threads)
    workload = REGISTRY[name]
    namespace, inputs = model_of(workload, ADAM, is_state)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        package = fx.compile(namespace, output=Path(folder) / "model")
        model = package.Model(threads=threads)
        model.run(*inputs)
        compile_s = time.perf_counter() - start
        model = package.Model(threads=threads)
        with np.load(workdir / "reference" / f"{name}.npz") as reference:
            flops = int(reference["flops"])
            error = error_of(model.run, workload, reference, inputs, CHECK_STEPS)
        row = {"workload": name, "peer": "fluxc", "threads": threads, "compile_s": compile_s}
        row |= {"rel_error": error, "correct": error <= 1e-3}
        row |= measure.measure(lambda: model.run(*inputs))
        row["gflops"] = flops / row["median_ms"] / 1e6
        row["gbytes_per_s"] = workload.min_bytes / row["median_ms"] / 1e6
        print(json.dumps(row))


if __name__ == "__main__":
    main()
