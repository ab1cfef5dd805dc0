"""Measures fluxc beside its peers and beside the machine, and writes docs/benchmarks.md.

    python benchmarks/run.py --harness HARNESS --peer-python PEERS_VENV/bin/python

`--harness` is the folder of the peer harness and `--peer-python` a Python that has the peers
installed; without them only fluxc and the machine are measured.  Everything is taken in one run on
one machine; every case runs alone in a fresh process; times are medians.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CASE = Path(__file__).with_name("fluxc_case.py")
TRAINING_PEERS = ("torch_eager", "torch_compile", "jax_jit")
PEERS = ("torch_eager", "torch_compile", "aot_inductor", "jax_jit", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Setting:
    """Where the harness and its peers are, and where it keeps its files."""

    harness: Path
    python: str
    workdir: Path
    workloads: tuple[str, ...]
    peers: tuple[str, ...]


def table(head, rows):
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def run_json(command, **environment):
    # Some machines pin old OpenBLAS builds to a slow kernel; a peer runs as it would by itself.
    hidden = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    env = {k: v for k, v in os.environ.items() if k not in hidden} | environment
    command = [*map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["failed"]
        return {"error": lines[-1][:200]}
    text = done.stdout
    return json.loads(text[text.index("{") :])


# ------------------------------------------------------------------ beside the peers


def prepare(setting, workload):
    script = setting.harness / "peers.py"
    command = [setting.python, script, "--prepare", workload, "--workdir", setting.workdir]
    subprocess.run([*map(str, command)], check=True, capture_output=True)


def measure_case(setting, workload, peer, threads):
    if peer == "fluxc":
        return run_json([sys.executable, CASE, setting.harness, setting.workdir, workload, threads])
    script = setting.harness / "peers.py"
    case = ["--workload", workload, "--peer", peer, "--threads", threads]
    return run_json([setting.python, script, *case, "--workdir", setting.workdir])


def workloads_of(harness):
    """Every workload of the harness, in its order."""
    sys.path.insert(0, str(harness))
    from bench.workloads import REGISTRY

    return tuple(REGISTRY)


def supports(peer, workload):
    return not workload.startswith("train_") or peer in ("fluxc", *TRAINING_PEERS)


def peers_section(setting, threads, rounds):
    """Median over rounds of each case's median, interleaved so that all see the same machine."""
    seen = {}
    for _ in range(rounds):
        for workload in setting.workloads:
            for peer in ("fluxc", *setting.peers):
                if supports(peer, workload):
                    row = measure_case(setting, workload, peer, threads)
                    seen.setdefault((workload, peer), []).append(row)
                    result = row.get("error") or f"{row['median_ms']:.4f} ms"
                    print(workload, peer, threads, result, flush=True)
    return {case: merge(rows) for case, rows in seen.items()}


def merge(rows):
    good = [r for r in rows if "error" not in r]
    if not good:
        return rows[0]
    medians = statistics.median(r["median_ms"] for r in good)
    return {**good[0], "median_ms": medians, "correct": all(r["correct"] for r in good)}


def cell(row, best):
    if row is None:
        return ""
    if "error" in row:
        return "failed"
    text = f"{row['median_ms']:.3g}" + ("" if row["correct"] else " (wrong)")
    return f"**{text}**" if row["median_ms"] == best else text


def peers_table(setting, cases, peak):
    """A row a workload; a ratio above 1 says how many times as fast as that peer fluxc is."""
    rates = ["eager / fluxc", "best peer / fluxc", "GFLOP/s or GB/s", "of FMA peak", "compile, s"]
    head = ["workload", "fluxc", *setting.peers, *rates]
    rows = []
    for workload in setting.workloads:
        here = {p: cases.get((workload, p)) for p in ("fluxc", *setting.peers)}
        times = {p: r["median_ms"] for p, r in here.items() if r and "error" not in r}
        best = min(times.values(), default=None)
        cells = [cell(here[p], best) for p in ("fluxc", *setting.peers)]
        rows.append([workload, *cells, *rate_cells(here.get("fluxc"), times, peak)])
    return table(head, rows)


def rate_cells(row, times, peak):
    """Ratios to PyTorch eager and the best peer, rate, share of the peak, compile time."""
    if "fluxc" not in times:
        return [""] * 5
    own = times["fluxc"]
    others = [t for p, t in times.items() if p != "fluxc"]
    eager = f"{times['torch_eager'] / own:.2f}" if "torch_eager" in times else ""
    ratio = f"{min(others) / own:.2f}" if others else ""
    if row["gbytes_per_s"]:
        rate, share = f"{row['gbytes_per_s']:.1f} GB/s", ""
    else:
        rate, share = f"{row['gflops']:.0f}", f"{row['gflops'] / peak:.0%}"
    return [eager, ratio, rate, share, f"{row['compile_s']:.1f}"]


# ------------------------------------------------------------------ fluxc alone


def digits_section():
    """Compile time, size and latency of the digits model, and the time of `import fluxc`."""
    script = ROOT / "benchmarks" / "digits.py"
    return run_json([sys.executable, script])


def digits_table(row):
    compiled, imported = f"{row['compile_s']:.2f} s", f"{row['import_s']:.3f} s"
    budget = [
        ["compile the digits model with its training step, warm Python", compiled, "2 s"],
        ["`import fluxc` in a fresh process, beyond Python's own start", imported, "0.2 s"],
        ["the artifact's library", f"{row['library_bytes'] / 1024:.0f} KiB", "150 KiB"],
        ["`predict` at batch 1 from Python, one thread", f"{row['predict_us']:.2f} us", "10 us"],
        ["`train_step` at batch 64 from Python, one thread", f"{row['train_us']:.0f} us", ""],
    ]
    return table(["what", "measured", "budget"], budget)


def table_of(script):
    """The table that a script prints, from a process of its own: NumPy too has one thread."""
    command = [sys.executable, Path(__file__).with_name(script)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return text[text.index("|") :].strip()


def main():
    as_written = argparse.RawDescriptionHelpFormatter
    a = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    a.add_argument("--harness", type=Path)
    a.add_argument("--peer-python")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--threads", default="1,2", help="numbers of threads, with commas between")
    a.add_argument("--peers", default=",".join(PEERS), help="names, with commas between")
    a.add_argument("--workloads", help="names, with commas between; all by default")
    a.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks.md")
    args = a.parse_args()

    from contraction import peak_gflops

    peak = {threads: peak_gflops(threads) for threads in (1, 2)}
    date = time.strftime("%Y-%m-%d")
    sections = [HEADER.format(machine=machine(), date=date, one=peak[1], two=peak[2])]
    sections += ["## The digits model", digits_table(digits_section())]
    sections += [COMPILE_TIME, table_of("compile_time.py")]
    sections += [
        "## Matrix products, one thread, constant weights, f32",
        table_of("contraction.py"),
    ]
    if args.harness and args.peer_python:
        setting = setting_of(args)
        for workload in setting.workloads:
            prepare(setting, workload)
        for threads in map(int, args.threads.split(",")):
            cases = peers_section(setting, threads, args.rounds)
            name = "one thread" if threads == 1 else f"{threads} threads"
            sections += [f"## Beside the peers, {name}: milliseconds"]
            sections += [peers_table(setting, cases, peak[threads])]
            write(args.output, sections)  # a run that is cut short keeps what it has
    write(args.output, sections)


def write(file, sections):
    file.write_text("\n\n".join(sections) + "\n")


def setting_of(args):
    harness = args.harness.resolve()
    chosen = args.workloads.split(",") if args.workloads else workloads_of(harness)
    workdir = Path(tempfile.gettempdir()) / "fluxc_peers"
    peers = tuple(args.peers.split(","))
    return Setting(harness, args.peer_python, workdir, tuple(chosen), peers)


def machine():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return platform.processor()


HEADER = """\
# Benchmarks

Written by `python benchmarks/run.py` on {date}: {machine}. Every number is a median, taken in this
one run on this machine; other tenants of the machine add noise of some percent. Measured FMA peak,
f32: {one:.0f} GFLOP/s with one thread, {two:.0f} with two.

The peers run as their makers advise (see the harness's own notes). fluxc runs what a user gets:
the workload's own forward function under `fx.export`, `fx.compile`, then the package's entry
called from Python with NumPy arrays and all checks; the first axis is symbolic where the
workload does not write its size out. Every result is compared with the reference (1e-3 of the
largest value)."""

COMPILE_TIME = """\
## The time of compiling

Seconds of one processor from tracing to the finished artifact, as a model grows: twice the length
is twice the time. Kernels are those emitted: equal ones are emitted once, however often they are
launched."""

if __name__ == "__main__":
    main()
