"""Measures the largest error of every emitted function and rewrites the table of docs/numerics.md.

Run: python benchmarks/numerics.py [--stride 4099] [--count 200000]
A stride of 1 visits all 2**32 float32 values (hours); 4099 visits a million.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from ulp import FUNCTIONS, drawn, every, ulps  # noqa: E402

from fluxc.compiler.ir.types import f32, f64  # noqa: E402

PAGE = ROOT / "docs" / "numerics.md"
CHUNK = 1 << 24  # float32 values at once, to bound memory


def f32_error(name: str, stride: int, count: int) -> tuple[float, list[float]]:
    function = FUNCTIONS[name]
    found = [ulps(name, f32, 16, drawn(function, f32, count))]
    if function.arity == 1:
        # Interleaved passes of a longer stride visit the same values in bounded memory.
        parts = max(1, (1 << 32) // stride // CHUNK)
        found += [ulps(name, f32, 16, [every(stride * parts, stride * i)]) for i in range(parts)]
    return max(found)


def row(name: str, stride: int, count: int) -> str:
    single, single_at = f32_error(name, stride, count)
    double, double_at = ulps(name, f64, 8, drawn(FUNCTIONS[name], f64, count))
    at = lambda values: ", ".join(f"{v:.6g}" for v in values)
    return f"| {name} | {single:.2f} | {at(single_at)} | {double:.2f} | {at(double_at)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=4099)
    parser.add_argument("--count", type=int, default=200_000)
    options = parser.parse_args()
    rows = []
    for name in FUNCTIONS:
        rows.append(row(name, options.stride, options.count))
        print(rows[-1], flush=True)
    head = "| function | f32 | at | f64 | at |\n|---|---|---|---|---|\n"
    made = f"<!-- errors -->\n{head}" + "\n".join(rows) + "\n<!-- end of errors -->"
    page = PAGE.read_text()
    PAGE.write_text(
        re.sub(r"<!-- errors -->.*<!-- end of errors -->", lambda _: made, page, flags=re.DOTALL)
    )


if __name__ == "__main__":
    main()
