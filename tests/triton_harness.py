"""Runs emitted Triton kernels on NumPy arrays, through Triton's interpreter.

The interpreter asks its array arguments for little; `Array` answers with a NumPy array's memory.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fluxc.compiler.backends.triton.build import has_triton
from fluxc.compiler.backends.triton.module import emit_module
from fluxc.compiler.backends.triton.target import gpu_target
from fluxc.compiler.ir.dims import evaluate_size
from fluxc.compiler.kernels import evaluate
from fluxc.compiler.kernels.kernel import kernel_stores, kernel_symbols
from fluxc.compiler.kernels.plan import plan

TARGET = gpu_target("cuda:sm_80")
NAMES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "bool": "int8",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8",
}  # fmt: skip
FENCE = 256  # bytes before and behind an array that nobody may change


def load_interpreted(source, folder):
    """The functions of a file of kernels, to be interpreted."""
    from fluxc.compiler.backends.triton.build import load_source

    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, and at every @triton.jit
    try:
        return load_source(source, Path(folder))
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]


class Array:
    """A NumPy array in the middle of fenced memory, in the words of the interpreter."""

    def __init__(self, array, dtype):
        self.dtype = NAMES[dtype.name]
        self.array = array
        data = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
        self.memory = np.full(data.size + 2 * FENCE, 0xA5, np.uint8)
        self.memory[FENCE : FENCE + data.size] = data

    def data_ptr(self):
        return self.memory.ctypes.data + FENCE

    def untyped_storage(self):
        return self

    def cpu(self):
        return self

    def new_empty(self, *_, **__):
        return self

    def set_(self, *_):
        return self

    def storage_offset(self):
        return 0

    def size(self):
        return self.array.shape

    def stride(self):
        return self.array.strides

    def copy_(self, other):
        assert other is self

    def finish(self, name, *, stored):
        """Take over what was stored; nothing else may have changed."""
        assert (self.memory[:FENCE] == 0xA5).all(), f"memory before {name} was written"
        assert (self.memory[-FENCE:] == 0xA5).all(), f"memory behind {name} was written"
        data = self.memory[FENCE:-FENCE].view(self.array.dtype).reshape(self.array.shape)
        if stored:
            self.array[...] = data
        else:
            assert data.tobytes() == self.array.tobytes(), f"{name} is read, yet was written"


class Interpreted:
    """Stands in for `evaluate.run_kernel` while a program runs."""

    def __init__(self, program, folder):
        self.module = emit_module([program], TARGET)
        self.functions = load_interpreted(self.module.source, folder)
        launches = (*program.prepare, *program.run)
        self.names = {
            launch.scheduled.kernel: name
            for launch, name in zip(launches, self.module.names[0], strict=True)
        }
        self.runs = 0

    def __call__(self, kernel, memory, sizes):
        made = self.module.kernels[self.names[kernel]]
        stored = {s.buffer for s in kernel_stores(kernel)}
        arrays = [Array(memory[b], b.dtype) for b in kernel.buffers]
        given = [sizes[s.name] for s in kernel_symbols(kernel)]
        programs = evaluate_size(made.programs, sizes)
        if programs:
            function = getattr(self.functions, made.name)
            with np.errstate(all="ignore"):
                function[(programs,)](*arrays, *given, **made.blocks)
            self.runs += 1
        for b, a in zip(kernel.buffers, arrays, strict=True):
            a.finish(f"{kernel.name} {b.name}", stored=b in stored)


def run_interpreted(program, inputs, storages, sizes=None):
    """What `evaluate.run_program` does, with every kernel in Triton."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        interpreted = Interpreted(program, folder)
        patch.setattr(evaluate, "run_kernel", interpreted)
        outputs = evaluate.run_program(program, inputs, storages, sizes)
        assert interpreted.runs or not program.run
    return outputs


def planned(entry):
    return plan(entry, TARGET)


needs_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
