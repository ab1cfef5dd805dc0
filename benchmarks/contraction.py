"""Matrix products as the compiler emits them, beside NumPy's, as a share of the machine's FMA peak.

    python benchmarks/contraction.py [part of a case's name]

One thread, f32.  `packed`: `b` is a constant that was packed ahead of time; `strided`: both
operands lie as a training step finds them.  The peak is measured between the products, in the same
moments.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import statistics
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import binding, ir

from fluxc.compiler.backends.llvm.contract import emit_contract
from fluxc.compiler.backends.llvm.object import optimized
from fluxc.compiler.backends.llvm.target import native_target, target_machine
from fluxc.compiler.backends.llvm.values import declare_target
from fluxc.compiler.ir.types import f32
from fluxc.compiler.kernels.contraction import choose_contract_schedule, contract_tasks
from fluxc.compiler.kernels.kernel import Axis, Buffer, Contract, Expressions, Store

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["contraction_table", "peak_gflops"]

_ENGINES = []  # machine code lives as long as its engine
_CHAINS = 20  # independent sums: more than latency times units


@dataclass(frozen=True)
class Case:
    """c[m, n] = sum over k.  a, b: the order of the axes in memory."""

    name: str
    m: int
    n: int
    k: int
    a: str = "mk"
    b: str = "kn"
    packed: bool = True


CASES = (
    Case("128 rows, wide layer", 128, 3072, 768),
    Case("square", 1024, 1024, 1024),
    Case("256 rows, layer of 784 -> 512", 256, 512, 784),
    Case("the same, weights that change", 256, 512, 784, packed=False),
    Case("its weight gradient, a transposed", 784, 512, 256, a="km", packed=False),
    Case("its input gradient, b transposed", 256, 784, 512, b="nk", packed=False),
    Case("square, b transposed", 1024, 1024, 1024, b="nk", packed=False),
    Case("64 rows", 64, 1000, 512),
    Case("16 rows", 16, 3072, 768),
    Case("4 rows", 4, 3072, 768),
    Case("1 row", 1, 3072, 768),
    Case("1 row, small layer", 1, 512, 784),
    Case("10 columns", 256, 10, 512),
)


def kernel_of(case: Case) -> Contract:
    e = Expressions()
    axes = {name: Axis(name, getattr(case, name)) for name in "mnk"}
    index = {name: e.index(axis) for name, axis in axes.items()}
    load = lambda name, order: e.load(
        Buffer(name, f32, tuple(axes[x].extent for x in order)), tuple(index[x] for x in order)
    )
    a, b = load("a", case.a), load("b", case.b)
    nr = None
    if case.packed:
        s = choose_contract_schedule(case.m, case.n, case.k, f32, native_target())
        nr = s.nv * s.width
        panels = Buffer("b", f32, (-(-case.n // nr), case.k, nr))
        at = e.floordiv(index["n"], nr), index["k"], e.mod(index["n"], nr)
        b = e.load(panels, at)
    out, acc = Buffer("c", f32, (case.m, case.n)), e.local("acc", f32)
    stores = (Store(out, (index["m"], index["n"]), acc),)
    buffers = (a.buffer, b.buffer, out)
    return Contract("product", buffers, (), *axes.values(), a, b, acc, stores, nr)


def engine_of(module: ir.Module) -> binding.ExecutionEngine:
    engine = binding.create_mcjit_compiler(
        optimized(module, native_target()), target_machine(native_target())
    )
    engine.finalize_object()
    _ENGINES.append(engine)
    return engine


def native_module() -> ir.Module:
    module = ir.Module("benchmark")
    module.triple = native_target().triple
    declare_target(module, native_target())
    return module


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    raw = np.zeros(int(np.prod(shape)) * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + int(np.prod(shape)) * 4].view(np.float32).reshape(shape)


def filled(array: np.ndarray) -> np.ndarray:
    copy = aligned(array.shape)
    copy[...] = array
    return copy


def packed(b: np.ndarray, nr: int) -> np.ndarray:
    k, n = b.shape
    panels = np.zeros((k, -(-n // nr) * nr), np.float32)
    panels[:, :n] = b
    return filled(panels.reshape(k, -1, nr).transpose(1, 0, 2))


def compiled(case: Case) -> tuple:
    """The product as a function of a range of tasks, their number, the schedule, a, b and c."""
    kernel = kernel_of(case)
    target = native_target()
    s = choose_contract_schedule(case.m, case.n, case.k, f32, target, packed=kernel.packed)
    module = native_module()
    emit_contract(module, "product", kernel, s, target)
    signature = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    address = engine_of(module).get_function_address("product")
    function = ctypes.CFUNCTYPE(None, *signature)(address)
    rng = np.random.default_rng(0)
    a = rng.normal(size=(case.m, case.k)).astype(np.float32)
    b = rng.normal(size=(case.k, case.n)).astype(np.float32)
    in_a = filled(a if case.a == "mk" else a.T)
    in_b = packed(b, kernel.packed) if kernel.packed else filled(b if case.b == "kn" else b.T)
    c = aligned((case.m, case.n))
    pointers = (ctypes.c_void_p * 3)(in_a.ctypes.data, in_b.ctypes.data, c.ctypes.data)
    sizes, tasks = (ctypes.c_int64 * 1)(), int(contract_tasks(kernel, s))
    keep = (in_a, in_b)

    def call(first: int = 0, last: int = tasks) -> None:
        assert keep
        function(pointers, sizes, first, last)

    return (
        call,
        tasks,
        s,
        (in_a if case.a == "mk" else in_a.T),
        (filled(b) if case.b == "kn" else filled(b.T).T),
        c,
    )


def peak_function() -> tuple:
    """Runs `n` rounds of independent multiply-adds on vectors; (function, flops per round)."""
    module, lanes, i64 = native_module(), native_target().vector_bytes // 4, ir.IntType(64)
    vector = ir.VectorType(ir.FloatType(), lanes)
    kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), i64])
    function = ir.Function(module, kind, "peak")
    fma = ir.Function(module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f32")
    entry, loop, done = (function.append_basic_block(x) for x in ("entry", "loop", "done"))
    b = ir.IRBuilder(entry)
    # Different numbers for each chain, so that no pass can find two of them equal.
    slots = [b.gep(function.args[0], [i64(i)], source_etype=vector) for i in range(_CHAINS)]
    start = [b.load(slot, typ=vector, align=4) for slot in slots]
    b.branch(loop)
    b.position_at_end(loop)
    count = b.phi(i64)
    chains = [b.phi(vector) for _ in range(_CHAINS)]
    new = [b.call(fma, [chain, start[0], start[0]]) for chain in chains]
    following = b.add(count, i64(1))
    b.cbranch(b.icmp_signed("<", following, function.args[1]), loop, done)
    firsts, lasts = (i64(0), *start), (following, *new)
    for phi, first, last in zip((count, *chains), firsts, lasts, strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(last, loop)
    b.position_at_end(done)
    total = new[0]
    for value in new[1:]:
        total = b.fadd(total, value)
    b.store(total, function.args[0], align=4)
    b.ret_void()
    address = engine_of(module).get_function_address("peak")
    native = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)
    return native, _CHAINS * lanes * 2


_PEAK = None


def peak_once(rounds: int = 20_000) -> float:
    """GFLOP/s of one thread, from one short measurement."""
    global _PEAK  # noqa: PLW0603  compiled at its first use
    _PEAK = _PEAK or peak_function()
    function, flops = _PEAK
    memory = np.zeros(_CHAINS * 64, np.float32)
    start = time.perf_counter()
    function(memory.ctypes.data, rounds)
    return flops * rounds / (time.perf_counter() - start) / 1e9


def peak_gflops(threads: int = 1) -> float:
    """The machine's FMA rate in f32, all threads together: median of 15."""
    peak_once()
    results: list[list[float]] = [[] for _ in range(threads)]

    def measure(mine: list[float]) -> None:
        mine.extend(peak_once(200_000) for _ in range(15))

    workers = [threading.Thread(target=measure, args=(mine,)) for mine in results]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(statistics.median(mine) for mine in results)


def seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def measure(case: Case, rounds: int = 25) -> dict:
    """Times that alternate with the peak and with NumPy's product.

    A product is timed in pieces of at most about 200 microseconds, and the medians of the pieces
    are added: what the system takes away from a long call would hide how fast the code is.  The
    peak is the upper quartile of as many pieces of the same length.
    """
    call, tasks, schedule, a, b, c = compiled(case)
    out = np.empty((case.m, case.n), np.float32)
    call()
    assert np.allclose(c, a @ b, rtol=1e-3, atol=1e-3), case.name
    flops = 2 * case.m * case.n * case.k
    repeats = max(1, int(2e7 / flops))
    pieces = min(tasks, max(1, round(flops / 2e7)))
    bounds = [tasks * i // pieces for i in range(pieces + 1)]
    ours, peaks, numpy = [], [], []
    for _ in range(rounds):
        times = []
        for lo, hi in itertools.pairwise(bounds):
            times.append(seconds(lambda lo=lo, hi=hi: call(lo, hi), repeats))
            peaks.append(peak_once())
        ours.append(times)
        numpy.append(seconds(lambda: np.matmul(a, b, out=out), repeats))
    time_of_ours = float(np.median(np.array(ours), axis=0).sum())
    rate = flops / time_of_ours / 1e9
    return {
        "schedule": schedule,
        "us": time_of_ours * 1e6,
        "gflops": rate,
        "share": rate / float(np.quantile(peaks, 0.75)),
        "numpy": flops / float(np.min(numpy)) / 1e9,
        "gb_s": (case.k * case.n + case.m * (case.k + case.n)) * 4 / time_of_ours / 1e9,
    }


def contraction_table(part: str = "") -> str:
    """The cases whose names contain `part` as a Markdown table."""
    head = [
        "product",
        "m x n x k",
        "operands",
        "tile",
        "us",
        "GFLOP/s",
        "of peak",
        "GB/s",
        "NumPy GFLOP/s, best",
    ]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- | --- |" + " ---: |" * 6]
    for case in CASES:
        if part not in case.name:
            continue
        row = measure(case)
        s = row["schedule"]
        operands = "packed" if case.packed else "strided"
        cells = [
            case.name,
            f"{case.m} x {case.n} x {case.k}",
            operands,
            f"{s.mr} x {s.nv}",
            f"{row['us']:.1f}",
            f"{row['gflops']:.0f}",
            f"{row['share']:.0%}",
            f"{row['gb_s']:.0f}",
            f"{row['numpy']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_by_itself() -> None:
    """Starts again with NumPy at one thread and free of settings that others made for it."""
    hidden = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    if os.environ.get("OPENBLAS_NUM_THREADS") == "1" and not any(x in os.environ for x in hidden):
        return
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)  # noqa: S606  itself


if __name__ == "__main__":
    as_by_itself()
    print(f"peak, one thread: {peak_gflops():.0f} GFLOP/s")
    print(contraction_table(*sys.argv[1:]))
