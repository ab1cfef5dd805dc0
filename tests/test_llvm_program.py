"""Whole artifacts written by hand: launches, places, sizes, threads, the C interface."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from fluxc.compiler.backends.llvm import compile_programs, print_asm, print_llvm
from fluxc.compiler.backends.llvm.link import link_library, start_runtime_build
from fluxc.compiler.backends.llvm.target import native_target
from fluxc.compiler.errors import FluxcError
from fluxc.compiler.ir.dims import dim, largest
from fluxc.compiler.ir.entry import Entry, ModelSpec, Storage
from fluxc.compiler.ir.types import TensorType, f32, i32
from fluxc.compiler.kernels.evaluate import run_program
from fluxc.compiler.kernels.kernel import Axis, Buffer, Expressions, Nest, Pass, Reduction, Store
from fluxc.compiler.kernels.program import (
    ArenaAt,
    Constant,
    ConstantAt,
    InputAt,
    Launch,
    OutputAt,
    Prepared,
    PreparedAt,
    Program,
    Scheduled,
    StorageAt,
)
from fluxc.compiler.kernels.schedule import NestSchedule

FUNCTIONS = ("open", "close", "save", "load", "error", "get", "set")
N = dim("n")
TARGET = native_target()


def mapped(name, size, op, grain, inputs=2):
    """out[i] = op(x[i], y[i]...)."""
    k = Expressions()
    i = Axis("i", size)
    buffers = [Buffer(f"x{n}", f32, (size,)) for n in range(inputs)]
    out = Buffer("out", f32, (size,))
    at = (k.index(i),)
    value = k.apply(op, *(k.load(b, at) for b in buffers))
    kernel = Nest(name, (*buffers, out), (i,), (Pass((), (), (Store(out, at, value),)),))
    return Scheduled(kernel, NestSchedule(i, 16, 1, grain))


def summed(size):
    """out[] = sum of x[i]."""
    k = Expressions()
    i = Axis("i", size)
    x, out = Buffer("x", f32, (size,)), Buffer("out", f32, ())
    total = k.local("total", f32)
    passes = (
        Pass((i,), (Reduction(total, "add", k.load(x, (k.index(i),))),)),
        Pass((), (), (Store(out, (), total),)),
    )
    return Scheduled(Nest("sum", (x, out), (), passes), NestSchedule(i, 16, 2, 0))


def storage(name, shape, kind="optimizer", value=0.0):
    return Storage(name, TensorType(f32, shape), kind, value)


def program(name, symbols, inputs, outputs, run, **rest):
    empty = {"reads": (), "updates": (), "prepared": (), "constants": (), "prepare": ()}
    given = {**empty, "prepare_arena": 0, "arena": 0, **rest}
    return Program(name=name, symbols=symbols, inputs=inputs, outputs=outputs, run=run, **given)


def entry(p):
    return Entry(
        p.name,
        None,
        tuple(f"x{i}" for i in range(len(p.inputs))),
        p.reads,
        tuple(f"y{i}" for i in range(len(p.outputs))),
        p.updates,
    )


def symbol(size):
    ((((atom,), _),)) = size.terms
    return atom


VECTOR = TensorType(f32, (N,))
ONE = TensorType(f32, ())
ADD, MUL, NEG = (mapped(op, N, op, 4, 2 if op != "neg" else 1) for op in ("add", "mul", "neg"))
CONSTANT = Constant(TensorType(f32, (4,)), np.arange(4, dtype=np.float32).tobytes())


def everything():
    """Entries that use every kind of place and of launch."""
    other, m = mapped("add", dim("k"), "add", 4), largest(N, 5)
    small = mapped("scale", 4, "mul", 0)
    chain = program(
        "chain",
        (symbol(N),),
        (VECTOR, VECTOR),
        (VECTOR, ONE),
        (
            Launch(ADD, (InputAt(0), InputAt(1), ArenaAt(0))),
            Launch(MUL, (InputAt(0), InputAt(1), ArenaAt(4 * m)), independent=True),
            Launch(NEG, (InputAt(0), OutputAt(0)), independent=True),
            Launch(mapped("plus", N, "add", 4), (ArenaAt(0), ArenaAt(4 * m), OutputAt(0))),
            Launch(summed(N), (OutputAt(0), OutputAt(1))),
            # The same kernel for a size with another name.
            Launch(other, (OutputAt(0), InputAt(1), OutputAt(0)), sizes=(N,)),
        ),
        arena=8 * m + 64,
    )
    packed = program(
        "packed",
        (),
        (TensorType(f32, (4,)),),
        (TensorType(f32, (4,)),),
        (Launch(small, (InputAt(0), PreparedAt(0), OutputAt(0))),),
        reads=("weight",),
        prepared=(Prepared(f32, (4,)),),
        constants=(CONSTANT,),
        prepare=(
            Launch(small, (StorageAt("weight"), ConstantAt(0), ArenaAt(0))),
            Launch(small, (ArenaAt(0), ConstantAt(0), PreparedAt(0))),
        ),
        prepare_arena=64,
    )
    step = program(
        "step",
        (),
        (TensorType(f32, (4,)),),
        (),
        (
            Launch(
                mapped("gain", 4, "add", 0), (StorageAt("weight"), InputAt(0), StorageAt("weight"))
            ),
        ),
        reads=("weight",),
        updates=("weight",),
    )
    return [chain, packed, step]


def spec_of(programs):
    storages = (storage("lr", (), "hyper", 0.5), storage("weight", (4,), value=2.0))
    return ModelSpec(tuple(map(entry, programs)), storages)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The artifact of `everything`, linked and loaded."""
    programs = everything()
    code = compile_programs("hand", spec_of(programs), programs, TARGET, "0.1.0")
    path = tmp_path_factory.mktemp("hand") / "libhand.so"
    names = [f"hand_{f}" for f in (*FUNCTIONS, *(p.name for p in programs))]
    link_library(code, start_runtime_build(TARGET), path, names)
    loaded = ctypes.CDLL(str(path))
    loaded.hand_open.restype = loaded.hand_get.restype = ctypes.c_void_p
    loaded.hand_error.restype = ctypes.c_char_p
    return loaded


class Model:
    def __init__(self, library, threads=1):
        self.library = library
        self.handle = ctypes.c_void_p(library.hand_open(None, ctypes.c_uint64(0), threads))
        assert self.handle.value, library.hand_error()

    def __call__(self, name, *args):
        given = [
            ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(a.ctypes.data)
            for a in args
        ]
        return getattr(self.library, f"hand_{name}")(self.handle, *given)

    def weight(self):
        at = self.library.hand_get(self.handle, b"weight")
        return np.ctypeslib.as_array(ctypes.cast(at, ctypes.POINTER(ctypes.c_float)), (4,))


@pytest.mark.cc
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_launches_agree_with_the_evaluator(library, threads):
    """Sequences, parallel regions, arenas of symbolic size, one kernel for two sizes."""
    chain, model, rng = everything()[0], Model(library, threads), np.random.default_rng(0)
    for n in (0, 1, 3, 17, 64, 129, 5000):
        x, y = rng.normal(size=(2, n)).astype(np.float32)
        out, total = np.empty(n, np.float32), np.empty((), np.float32)
        assert model("chain", n, x, y, out, total) == 0, library.hand_error()
        want, sum_ = run_program(chain, (x, y), {}, {"n": n})
        np.testing.assert_allclose(out, want, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(total, sum_, rtol=1e-4, atol=1e-4)


@pytest.mark.cc
def test_prepared_tensors_follow_the_weights(library):
    """prepare runs before the first call, and again after the weights have changed."""
    model = Model(library, 2)
    x, out = np.ones(4, np.float32), np.empty(4, np.float32)
    squares = np.arange(4, dtype=np.float32) ** 2
    assert model("packed", x, out) == 0
    np.testing.assert_array_equal(out, 2 * squares)
    assert model("step", x) == 0
    np.testing.assert_array_equal(model.weight(), np.full(4, 3, np.float32))
    assert model("packed", x, out) == 0
    np.testing.assert_array_equal(out, 3 * squares)


@pytest.mark.cc
def test_sizes_too_large_for_memory_are_refused(library):
    """The element counts of 2**61 floats do not fit: an error, not a wrapped number."""
    x = np.zeros(1, np.float32)
    assert Model(library)("chain", 2**61, x, x, x, x) != 0
    assert b"n" in library.hand_error()


def test_equal_kernels_are_emitted_once():
    """The kernel `plus` is `add` under another name; the one over `k` is another kernel."""
    text = print_llvm("hand", spec_of(everything()), everything(), TARGET, "0.1.0")
    assert "@plus" not in text
    assert text.count("define internal void @add") == 2


def test_the_same_source_gives_the_same_bytes():
    """Nothing in the object depends on time, addresses or hashing."""
    first, second = (
        compile_programs("hand", spec_of(everything()), everything(), TARGET, "0.1.0")
        for _ in range(2)
    )
    assert first == second


def test_vectors_are_as_wide_as_the_machine():
    """AVX-512 machines get their widest registers, whatever LLVM's tuning prefers."""
    if TARGET.vector_bytes < 64:
        pytest.skip("a machine with AVX-512")
    assert "zmm" in print_asm("hand", spec_of(everything()), everything(), TARGET, "0.1.0")


@pytest.mark.parametrize("name", ["open", "close", "error"])
def test_entries_named_like_the_artifacts_functions_are_refused(name):
    """hand_open is taken."""
    p = program(name, (), (), (TensorType(i32, ()),), ())
    with pytest.raises(FluxcError, match=f"hand_{name}"):
        compile_programs("hand", ModelSpec((entry(p),), ()), [p], TARGET, "0.1.0")
