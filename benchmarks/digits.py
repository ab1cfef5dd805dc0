"""The digits model's compile time, library size and latency; prints one JSON object."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fluxc.compiler import driver

MODEL = Path(__file__).resolve().parent.parent / "examples" / "digits.py"


def median_us(call, seconds=1.0):
    """Median microseconds of a call, timed in groups so that the clock's own cost vanishes."""
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        for _ in range(20):
            call()
        samples.append((time.perf_counter() - begun) / 20)
    return statistics.median(samples) * 1e6


def import_seconds():
    """What `import fluxc` adds to the start of a Python process, the least of several."""

    def start(code):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - begun

    pairs = [(start("import fluxc"), start("pass")) for _ in range(7)]
    return statistics.median(a for a, _ in pairs) - statistics.median(b for _, b in pairs)


def main():
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for i in range(4):
            begun = time.perf_counter()
            driver.compile_file(MODEL, Path(folder) / str(i) / "digits")
            times.append(time.perf_counter() - begun)
        artifact = Path(folder) / "0" / "digits"
        model = driver.load_package(artifact).Model(seed=0, threads=1)
        rng = np.random.default_rng(0)
        one, x = rng.random((1, 64), np.float32), rng.random((64, 64), np.float32)
        y = rng.integers(0, 10, 64).astype(np.int32)
        row = {
            "compile_s": statistics.median(times[1:]),
            "import_s": import_seconds(),
            "library_bytes": (artifact / "libdigits.so").stat().st_size,
            "predict_us": median_us(lambda: model.predict(one)),
            "train_us": median_us(lambda: model.train_step(x, y)),
        }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
