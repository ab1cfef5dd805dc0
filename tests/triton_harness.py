"""Runs emitted Triton kernels on NumPy arrays, through Triton's interpreter.

The interpreter asks its array arguments for little; `Array` answers with a NumPy array's memory.
"""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fluxc.compiler import driver
from fluxc.compiler.backends.triton.build import has_triton, load_source
from fluxc.compiler.backends.triton.module import emit_module
from fluxc.compiler.backends.triton.target import gpu_target
from fluxc.compiler.ir.dims import evaluate_size
from fluxc.compiler.ir.entry import ModelSpec
from fluxc.compiler.kernels import evaluate
from fluxc.compiler.kernels.kernel import kernel_stores, kernel_symbols

TARGET = gpu_target("cuda:sm_80")
NAMES = {
    "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "bool": "int8",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8",
}  # fmt: skip
FENCE = 256  # bytes before and behind an array that nobody may change


@contextmanager
def interpreting():
    """Triton reads the variable when it is imported, at every @triton.jit, and when a kernel runs.

    A process that has imported Triton so cannot compile kernels any more: `build` says so.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        from triton.runtime import interpreter

        builder = interpreter.InterpreterBuilder
        patch.setattr(builder, "create_splat", _splat)
        dot = builder.create_dot
        patch.setattr(builder, "create_dot", lambda b, x, y, *rest: dot(b, _f32(x), _f32(y), *rest))
        yield


def _splat(_, type, x):
    """The interpreter's own makes integers of a comparison of single numbers."""
    from triton.runtime.interpreter import TensorHandle

    return TensorHandle(np.full(type.shape, x.data, x.data.dtype), x.dtype.scalar)


def _f32(x):
    """The interpreter's own product multiplies the bits of bf16."""
    from triton import language as tl
    from triton.runtime.interpreter import TensorHandle

    if x.dtype.scalar != tl.bfloat16:
        return x
    return TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


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
    """Programs whose kernels run in Triton: `run` does what `evaluate.run_program` does."""

    def __init__(self, programs, folder):
        self.module = emit_module(programs, TARGET)
        with interpreting():
            self.functions = load_source(self.module.source, Path(folder))
        self.names = {}
        for program, names in zip(programs, self.module.names, strict=True):
            launches = (*program.prepare, *program.run)
            kernels = (launch.scheduled.kernel for launch in launches)
            self.names |= dict(zip(kernels, names, strict=True))

    def run(self, program, inputs, storages=None, sizes=None):
        """Run a program; its storages change in place."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluate, "run_kernel", self._run_kernel)
            return evaluate.run_program(program, inputs, storages or {}, sizes)

    def _run_kernel(self, kernel, memory, sizes):
        made = self.module.kernels[self.names[kernel]]
        stored = {s.buffer for s in kernel_stores(kernel)}
        arrays = [Array(memory[b], b.dtype) for b in kernel.buffers]
        given = [sizes[s.name] for s in kernel_symbols(kernel)]
        programs = evaluate_size(made.programs, sizes)
        if programs:
            function = getattr(self.functions, made.name)
            with np.errstate(all="ignore"), interpreting():
                function[(programs,)](*arrays, *given, **made.blocks)
        for b, a in zip(kernel.buffers, arrays, strict=True):
            a.finish(f"{kernel.name} {b.name}", stored=b in stored)


def planned(entry):
    (program,) = driver.lower(ModelSpec((entry,), ()), TARGET)
    return program


needs_triton = pytest.mark.skipif(not has_triton(), reason="Triton is not installed")
