"""Contractions as machine code against the evaluator: shapes, strides, epilogues, edges."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pytest
from llvm_harness import HOST
from llvmlite import binding, ir

from fluxc.compiler.backends.llvm.contract import emit_contract
from fluxc.compiler.backends.llvm.values import declare_target
from fluxc.compiler.errors import Unsupported
from fluxc.compiler.ir.dims import dim, evaluate_size
from fluxc.compiler.ir.types import DTYPES, bf16, f16, f32, f64, i32
from fluxc.compiler.kernels.contraction import choose_contract_schedule, contract_tasks
from fluxc.compiler.kernels.evaluate import from_storage, run_kernel, to_storage
from fluxc.compiler.kernels.kernel import (
    Axis,
    Buffer,
    Contract,
    Expressions,
    Store,
    kernel_symbols,
)
from fluxc.compiler.kernels.schedule import ContractSchedule

LANES = HOST.vector_bytes // 4
SIZES = [0, 1, 3, 17, 64, 129]
TILE = ContractSchedule(mr=6, nv=2, width=LANES, kc=1 << 30, mc=13, grain=0)
MARGIN = 256  # bytes before and after every array, which must stay as they are


@dataclass
class Operands:
    """How the operands of a test's product lie in memory."""

    a: str = "mk"  # the order of its axes
    b: str = "kn"
    out: str = "mn"
    packed: bool = False
    batch: tuple = ()
    broadcast_b: bool = False  # b is the same for every batch element


PLAIN = Operands()


def contraction(m, n, k, dtype, tile, how=PLAIN, epilogue=None, extra=()):
    """A product of buffers a and b; `epilogue(e, acc, index)` -> the value stored."""
    e = Expressions()
    axes = {name: Axis(name, size) for name, size in (("m", m), ("n", n), ("k", k))}
    batch = tuple(Axis(f"b{i}", s) for i, s in enumerate(how.batch))
    lead = [e.index(x) for x in batch]
    nr = tile.nv * tile.width

    def operand(name, order, shape_of, lead, sizes):
        shape = (*sizes, *(axes[x].extent for x in order))
        buffer = Buffer(name, shape_of, shape)
        return buffer, e.load(buffer, (*lead, *(e.index(axes[x]) for x in order)))

    a, load_a = operand("a", how.a, dtype, lead, how.batch)
    over_b = [] if how.broadcast_b else lead
    sizes_b = () if how.broadcast_b else how.batch
    if how.packed:
        j = e.index(axes["n"])
        b = Buffer("b", dtype, (*sizes_b, -(-n // nr), k, nr))
        at = (*over_b, e.apply("floor_div", j, nr), e.index(axes["k"]), e.apply("mod", j, nr))
        load_b = e.load(b, at)
    else:
        b, load_b = operand("b", how.b, dtype, over_b, sizes_b)
    wide = f32 if dtype in (f16, bf16) else dtype
    acc = e.local("acc", wide)
    out = Buffer("out", dtype, (*how.batch, *(axes[x].extent for x in how.out)))
    index = (*lead, *(e.index(axes[x]) for x in how.out))
    value = epilogue(e, acc, axes) if epilogue else acc
    stores = [Store(out, index, e.cast(value, dtype))]
    if extra:
        stores += extra(e, acc, axes)
    from fluxc.compiler.kernels.kernel import kernel_roots, walk

    buffers = dict.fromkeys([a, b, *(s.buffer for s in stores)])
    kernel = Contract(
        "product", (), batch, axes["m"], axes["n"], axes["k"], load_a, load_b, acc, tuple(stores)
    )
    for x in walk(*kernel_roots(kernel)):
        if hasattr(x, "buffer"):
            buffers[x.buffer] = None
    return replace(kernel, buffers=tuple(buffers), packed=nr if how.packed else None)


ENGINES = []  # machine code lives as long as its engine
COMPILED = {}


def compiled(kernel, tile, target=HOST):
    module = ir.Module("test")
    module.triple = target.triple
    declare_target(module, target)
    emit_contract(module, "kernel", kernel, tile, target)
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=1
    )
    engine = binding.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    ENGINES.append(engine)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    return kind(engine.get_function_address("kernel"))


class Guarded:
    """A copy of an array, 64-byte aligned, between margins that nobody may touch."""

    def __init__(self, array):
        raw = np.full(array.nbytes + 2 * MARGIN + 64, 0xA5, np.uint8)
        start = MARGIN + -(raw.ctypes.data + MARGIN) % 64
        self.raw, self.start, self.stop = raw, start, start + array.nbytes
        self.array = raw[start : self.stop].view(array.dtype).reshape(array.shape)
        self.array[...] = array

    @property
    def intact(self):
        return bool(
            (self.raw[: self.start] == 0xA5).all() and (self.raw[self.stop :] == 0xA5).all()
        )


def values(buffer, sizes, rng):
    shape = [evaluate_size(s, sizes) for s in buffer.shape]
    if buffer.dtype.is_float:
        return to_storage(rng.normal(size=shape), buffer.dtype)
    return rng.integers(-3, 4, size=shape).astype(buffer.dtype.numpy)


def pack_zeros(kernel, memory, sizes):
    """Panels are zero beyond n."""
    if kernel.packed:
        columns = evaluate_size(kernel.n.extent, sizes) % kernel.packed
        if columns and memory[kernel.b.buffer].size:
            memory[kernel.b.buffer][..., -1, :, columns:] = 0


def check(kernel, tile, sizes=MappingProxyType({}), parts=1, tolerance=None):
    """Compiled and evaluated stores agree; nothing else is touched; returns the arrays."""
    rng = np.random.default_rng(0)
    memory = {buffer: values(buffer, sizes, rng) for buffer in kernel.buffers}
    pack_zeros(kernel, memory, sizes)
    guarded = [Guarded(x) for x in memory.values()]
    function = COMPILED.get((kernel, tile)) or compiled(kernel, tile)
    COMPILED[kernel, tile] = function
    tasks = evaluate_size(contract_tasks(kernel, tile), sizes)
    pointers = (ctypes.c_void_p * len(guarded))(*(g.array.ctypes.data for g in guarded))
    numbers = [sizes[s.name] for s in kernel_symbols(kernel)]
    extents = (ctypes.c_int64 * (len(numbers) + 1))(*numbers)
    for part in reversed(range(parts)):
        function(pointers, extents, tasks * part // parts, tasks * (part + 1) // parts)
    run_kernel(kernel, memory, sizes)
    k = max(1, evaluate_size(kernel.k.extent, sizes))
    for buffer, g in zip(kernel.buffers, guarded, strict=True):
        assert g.intact, f"{buffer.name}: memory outside was written"
        got, want = (from_storage(x, buffer.dtype) for x in (g.array, memory[buffer]))
        if not buffer.dtype.is_float:
            np.testing.assert_array_equal(got, want)
            continue
        eps = {"f64": 2e-16, "f32": 1.2e-7, "f16": 1e-3, "bf16": 8e-3}[buffer.dtype.name]
        bound = tolerance or 4 * eps * np.sqrt(k) * 4
        np.testing.assert_allclose(got, want, rtol=bound, atol=bound)
    return [g.array.copy() for g in guarded]


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "direct"])
@pytest.mark.parametrize("n", SIZES)
def test_products_of_every_shape(n, packed):
    for m, k in [(0, 3), (1, 17), (3, 0), (17, 1), (64, 3), (129, 17), (3, 129)]:
        check(contraction(m, n, k, f32, TILE, Operands(packed=packed)), TILE, parts=2)


@pytest.mark.parametrize("a", ["mk", "km"])
@pytest.mark.parametrize("b", ["kn", "nk"])
@pytest.mark.parametrize("out", ["mn", "nm"])
def test_every_order_of_the_axes(a, b, out):
    check(contraction(17, 37, 9, f32, TILE, Operands(a, b, out)), TILE)


@pytest.mark.parametrize("name", ["f64", "f32", "f16", "bf16", "i64", "i32", "i8", "u32", "u8"])
def test_every_dtype(name):
    dtype = DTYPES[name]
    for packed in (True, False):
        tile = choose_contract_schedule(7, 21, 19, dtype, HOST)
        check(contraction(7, 21, 19, dtype, tile, Operands(packed=packed)), tile)


@pytest.mark.parametrize("tile", [(1, 1), (1, 8), (2, 3), (5, 5), (8, 3), (14, 2), (28, 1)])
def test_every_register_tile(tile):
    mr, nv = tile
    s = ContractSchedule(mr=mr, nv=nv, width=LANES, kc=1 << 30, mc=2 * mr + 1, grain=0)
    check(contraction(4 * mr + 3, nv * LANES + 5, 23, f32, s, Operands(packed=True)), s)


def test_a_long_sum_is_cut_into_runs():
    tile = replace(TILE, kc=8)
    for k in (0, 1, 7, 8, 9, 64, 131):
        check(contraction(17, 37, k, f32, tile, Operands(packed=True)), tile)
    check(contraction(17, 37, dim("k"), f32, tile), tile, {"k": 19})


def test_sizes_known_at_run_time_only():
    m, n, k = dim("m"), dim("n"), dim("k")
    kernel = contraction(m, n, k, f32, TILE, Operands(batch=(dim("t"), 2)))
    for sizes in [
        (5, 70, 9, 2),
        (1, 1, 1, 1),
        (0, 4, 4, 2),
        (4, 0, 4, 2),
        (4, 4, 0, 2),
        (4, 4, 4, 0),
        (40, 33, 65, 3),
    ]:
        check(kernel, TILE, dict(zip("mnkt", sizes, strict=True)), parts=3)
    kernel = contraction(m, 40, 16, f32, TILE, Operands(packed=True))
    for rows in (0, 1, 5, 6, 7, 12, 13, 26, 100):
        check(kernel, TILE, {"m": rows})


def test_batches():
    for packed in (True, False):
        how = Operands(batch=(2, 3), packed=packed)
        check(contraction(5, 33, 7, f32, TILE, how), TILE, parts=5)
        check(contraction(5, 33, 7, f32, TILE, replace(how, broadcast_b=True)), TILE)


def relu_of_scaled_and_shifted(e, acc, axes):
    """max(acc * scale[m] + bias[n], 0)."""
    bias = e.load(Buffer("bias", f32, (axes["n"].extent,)), (e.index(axes["n"]),))
    scale = e.load(Buffer("scale", f32, (axes["m"].extent,)), (e.index(axes["m"]),))
    shifted = e.apply("add", e.apply("mul", acc, scale), bias)
    return e.apply("maximum", shifted, e.const(0.0, f32))


@pytest.mark.parametrize("out", ["mn", "nm"])
def test_epilogue_with_row_and_column_operands(out):
    for n in (5, 32, 37, 64):
        how = Operands(out=out, packed=True)
        check(contraction(17, n, 12, f32, TILE, how, relu_of_scaled_and_shifted), TILE)


def test_epilogue_updates_several_arrays_in_place():
    """Momentum: v = 0.9 v + acc; p = p - 0.1 v, and the product itself is stored too."""

    def update(e, acc, axes):
        at = (e.index(axes["m"]), e.index(axes["n"]))
        shape = (axes["m"].extent, axes["n"].extent)
        v, p = Buffer("v", f32, shape), Buffer("p", f32, shape)
        new = e.apply("add", e.apply("mul", e.load(v, at), e.const(0.9, f32)), acc)
        step = e.apply("mul", new, e.const(0.1, f32))
        return [Store(v, at, new), Store(p, at, e.apply("sub", e.load(p, at), step))]

    for how in (Operands(), Operands(a="km")):
        check(contraction(19, 41, 12, f32, TILE, how, extra=update), TILE, parts=2)


def test_epilogue_accumulates_and_casts():
    def more(e, acc, axes):
        at = (e.index(axes["m"]), e.index(axes["n"]))
        total = Buffer("total", f32, (axes["m"].extent, axes["n"].extent))
        counts = Buffer("counts", i32, (axes["m"].extent, axes["n"].extent))
        early = e.lt(e.index(axes["n"]), 20)
        return [
            Store(total, at, acc, accumulate="add"),
            Store(counts, at, e.cast(acc, i32), guard=early),
        ]

    # Whole numbers, so that a truncating cast cannot fall on the other side.
    kernel = contraction(9, 37, 4, i32, replace(TILE, width=LANES), Operands(), extra=None)
    check(kernel, TILE)
    kernel = contraction(9, 37, 1, f32, TILE, Operands(), extra=more)
    check(kernel, TILE)


def test_shares_of_the_tasks_give_the_same_bits():
    kernel = contraction(65, 200, 130, f32, TILE, Operands(packed=True))
    once = check(kernel, TILE)
    for parts in (2, 3, 7):
        for x, y in zip(once, check(kernel, TILE, parts=parts), strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("b", ["kn", "nk"])
@pytest.mark.parametrize("dtype", [f32, bf16, f64], ids=str)
def test_panels_copied_to_the_stack(b, dtype):
    for n in (1, 37):
        for k, kc in ((9, 9), (40, 16)):
            tile = choose_contract_schedule(33, n, k, dtype, HOST)
            tile = replace(tile, kc=kc, staged=True)
            check(contraction(33, n, k, dtype, tile, Operands(b=b)), tile)
    m, n, k = dim("m"), dim("n"), dim("k")
    tile = replace(TILE, kc=16, staged=True)
    kernel = contraction(m, n, k, f32, tile, Operands(b=b))
    for sizes in [(17, 37, 35), (1, 1, 1), (2, 64, 16), (3, 5, 0)]:
        check(kernel, tile, dict(zip("mnk", sizes, strict=True)), parts=2)


def windows(n, points, kernel, c, outputs, tile, *, stride=1, packed=False):
    """A product whose rows are points and whose depth is windows of images [n, h, w, c]."""
    e = Expressions()
    sizes = [(p - 1) * stride + q for p, q in zip(points, kernel, strict=True)]
    a = Buffer("a", f32, (n, *sizes, c))
    depth = kernel[0] * kernel[1] * c
    m, j, k = Axis("m", n * points[0] * points[1]), Axis("n", outputs), Axis("k", depth)
    i, *p = e.unflatten(e.index(m), (n, *points))
    *q, channel = e.unflatten(e.index(k), (*kernel, c))
    at = [e.add(e.mul(x, stride), y) for x, y in zip(p, q, strict=True)]
    nr = tile.nv * tile.width
    if packed:
        b = Buffer("b", f32, (-(-outputs // nr), depth, nr))
        column = e.index(j)
        index = (e.floordiv(column, nr), e.index(k), e.mod(column, nr))
    else:
        b, index = Buffer("b", f32, (depth, outputs)), (e.index(k), e.index(j))
    acc, out = e.local("acc", f32), Buffer("out", f32, (m.extent, outputs))
    stores = (Store(out, (e.index(m), e.index(j)), acc),)
    load_a, load_b = e.load(a, (i, *at, channel)), e.load(b, index)
    panel = nr if packed else None
    return Contract("conv", (a, b, out), (), m, j, k, load_a, load_b, acc, stores, panel)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_rows_and_depth_may_be_several_loops(stride, packed):
    """Windows of images are read where they are, whole, in runs, and in parts of a line."""
    cases = [(2, (3, 7), (3, 3), 4), (1, (5, 1), (1, 2), 17), (0, (2, 2), (2, 2), 2)]
    for kc, mc in ((1 << 30, 13), (24, 7), (5, 14)):
        tile = replace(TILE, kc=kc, mc=mc)
        for n, points, window, c in cases:
            kernel = windows(n, points, window, c, 37, tile, stride=stride, packed=packed)
            check(kernel, tile, parts=2)
    tile = replace(TILE, kc=24, mc=14)
    for n in (0, 1, 3):
        kernel = windows(dim("b"), (3, 7), (3, 3), 4, 37, tile, stride=stride, packed=packed)
        check(kernel, tile, {"b": n})


def test_an_index_that_is_not_affine_is_refused():
    kernel = contraction(4, 16, 4, f32, TILE)
    e = Expressions()
    m, k = e.index(kernel.m), e.index(kernel.k)
    bent = e.load(kernel.a.buffer, (e.apply("mul", m, m), k))
    guarded = e.load(kernel.a.buffer, (m, k), e.lt(m, 2))
    for a in (bent, guarded):
        with pytest.raises(Unsupported, match="not affine"):
            emit_contract(ir.Module("test"), "kernel", replace(kernel, a=a), TILE, HOST)
