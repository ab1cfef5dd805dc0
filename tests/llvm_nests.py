"""Loop nests compiled in this process and run on arrays that end, or begin, at forbidden memory."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
from llvmlite import binding, ir

from fluxc.compiler.backends.llvm.loops import emit_nest, parallel_count
from fluxc.compiler.backends.llvm.object import optimized
from fluxc.compiler.backends.llvm.target import native_target
from fluxc.compiler.backends.llvm.values import declare_target
from fluxc.compiler.ir.dims import evaluate_size
from fluxc.compiler.kernels.evaluate import from_storage, run_kernel, to_storage
from fluxc.compiler.kernels.kernel import kernel_stores, kernel_symbols

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None)
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
TOLERANCE = {"f64": 1e-12, "f32": 2e-5, "f16": 2e-3, "bf16": 2e-2}


class Fenced:
    """Memory between two pages that nobody may touch; the data lies against one of them."""

    def __init__(self, array: np.ndarray, *, at_end: bool) -> None:
        pages = max(1, -(-array.nbytes // PAGE))
        self.map = mmap.mmap(-1, (pages + 2) * PAGE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for fence in (base, base + (pages + 1) * PAGE):
            assert _libc.mprotect(ctypes.c_void_p(fence), PAGE, 0) == 0
        self.offset = PAGE + (pages * PAGE - array.nbytes if at_end else 0)
        self.address = base + self.offset
        self.array = np.frombuffer(self.map, array.dtype, array.size, self.offset).reshape(
            array.shape
        )
        self.array[...] = array
        # What the page holds beside the data must stay as it is.
        self.rest = np.frombuffer(self.map, np.uint8, pages * PAGE, PAGE)
        start = self.offset - PAGE
        self.outside = np.ones(pages * PAGE, bool)
        self.outside[start : start + array.nbytes] = False
        self.rest[self.outside] = 0xA5

    def untouched(self) -> bool:
        return bool((self.rest[self.outside] == 0xA5).all())


def compile_nest(nest, schedule, target=None):
    """`run(arrays, sizes, lo, hi)` of machine code; the engine must be kept."""
    target = target or native_target()
    module = ir.Module("test")
    module.triple = target.triple
    declare_target(module, target)
    emit_nest(module, "kernel", nest, schedule, target)
    reference = optimized(module, target)
    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, jit=True, reloc="pic"
    )
    engine = binding.create_mcjit_compiler(reference, machine)
    engine.finalize_object()
    function = _KERNEL(engine.get_function_address("kernel"))
    function.engine = engine
    return function


def call(function, pointers, values, lo, hi):
    buffers = (ctypes.c_void_p * max(1, len(pointers)))(*pointers)
    sizes = (ctypes.c_int64 * max(1, len(values)))(*values)
    function(ctypes.addressof(buffers), ctypes.addressof(sizes), lo, hi)


def pieces(count):
    """Ways to cut 0..count into runs."""
    yield [(0, count)]
    if count > 1:
        yield [(0, 1), (1, count)]
        yield [(i, i + 1) for i in reversed(range(count))] if count < 12 else [
            (count // 3, count), (0, count // 3)
        ]  # fmt: skip


def fill(buffer, sizes, rng):
    """Data of a buffer, in storage format."""
    shape = tuple(evaluate_size(s, sizes) for s in buffer.shape)
    if buffer.dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if buffer.dtype.is_float:
        return to_storage(rng.normal(size=shape), buffer.dtype)
    return rng.integers(0 if buffer.dtype.kind == "u" else -9, 10, shape).astype(buffer.dtype.numpy)


def check_nest(nest, schedule, sizes, *, given=None, target=None, function=None):
    """Machine code and evaluator agree, however placed and cut; nothing else is touched."""
    rng = np.random.default_rng(7)
    function = function or compile_nest(nest, schedule, target)
    data = {b: fill(b, sizes, rng) for b in nest.buffers}
    for b in nest.buffers:
        if given and b.name in given:
            data[b] = np.asarray(given[b.name], b.dtype.numpy).reshape(data[b].shape)
    want = {b: a.copy() for b, a in data.items()}
    run_kernel(nest, want, sizes)
    values = [sizes[s.name] for s in kernel_symbols(nest)]
    count = evaluate_size(parallel_count(nest, schedule), sizes)
    stored = {s.buffer for s in kernel_stores(nest)}
    first = None
    for at_end in (True, False):
        for cut in pieces(count):
            fenced = {b: Fenced(a, at_end=at_end) for b, a in data.items()}
            for lo, hi in cut:
                call(function, [f.address for f in fenced.values()], values, lo, hi)
            for b, f in fenced.items():
                assert f.untouched(), f"{b.name}: memory around it was written"
                compare(
                    b, f.array, want[b] if b in stored else data[b], f"{nest.name} {sizes} {b.name}"
                )
            bits = [fenced[b].array.tobytes() for b in stored]
            assert first is None or bits == first, f"{nest.name} {sizes}: {cut} gives other bits"
            first = bits
    return function


def compare(buffer, got, want, context):
    if not buffer.dtype.is_float:
        np.testing.assert_array_equal(got, want, err_msg=context)
        return
    x, y = from_storage(got, buffer.dtype), from_storage(want, buffer.dtype)
    bound = TOLERANCE[buffer.dtype.name]
    np.testing.assert_allclose(
        x, y, rtol=bound, atol=bound * max(1, x.size) ** 0.5, err_msg=context
    )
