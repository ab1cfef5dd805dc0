"""Compiles functions of `LlvmScalar`s in this process and runs them over NumPy arrays."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import binding, ir

from fluxc.compiler.backends.llvm.scalar import LlvmScalar
from fluxc.compiler.backends.llvm.values import declare_target, memory_type
from fluxc.compiler.kernels.schedule import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.types import DType

binding.initialize_all_targets()
binding.initialize_all_asmprinters()
binding.initialize_native_target()
binding.initialize_native_asmprinter()

HOST = Target(
    triple=binding.get_process_triple(),
    cpu=binding.get_host_cpu_name(),
    features=binding.get_host_cpu_features().flatten(),
    vector_bytes=64 if binding.get_host_cpu_features().get("avx512f") else 32,
    vector_registers=32,
    has_fma=binding.get_host_cpu_features().get("fma", False)
    or not binding.get_process_triple().startswith("x86"),
)
BASELINE = Target("x86_64-unknown-linux-gnu", "x86-64", "", 16, 16, has_fma=False)


@dataclass
class Compiled:
    """`call(*arrays)` for the host; `assembly` and `symbols` of the object file."""

    call: Callable[..., np.ndarray]
    module: binding.ModuleRef
    machine: binding.TargetMachine
    engine: object = None

    @property
    def assembly(self) -> str:
        return self.machine.emit_assembly(self.module)

    @property
    def undefined(self) -> set[str]:
        """Symbols that the object needs from outside."""
        return undefined_symbols(self.machine.emit_object(self.module))


def undefined_symbols(image: bytes) -> set[str]:
    """The undefined symbols of a 64-bit little-endian ELF relocatable."""
    word = lambda at, size: int.from_bytes(image[at : at + size], "little")
    table, entry, count = word(0x28, 8), word(0x3A, 2), word(0x3C, 2)
    sections = [table + i * entry for i in range(count)]
    found: set[str] = set()
    for section in sections:
        if word(section + 4, 4) != 2:  # SHT_SYMTAB
            continue
        start, size = word(section + 0x18, 8), word(section + 0x20, 8)
        names = word(sections[word(section + 0x28, 4)] + 0x18, 8)
        for symbol in range(start + 24, start + size, 24):  # the first one is no symbol
            if word(symbol + 6, 2) == 0:  # SHN_UNDEF
                at = names + word(symbol, 4)
                found.add(image[at : image.index(b"\0", at)].decode())
    return found


def build(
    body: Callable[..., LlvmScalar],
    inputs: tuple[DType, ...],
    output: DType,
    lanes: int = 1,
    target: Target = HOST,
) -> Compiled:
    """A loop `out[i] = body(*(x[i] for x in inputs))` over `lanes` elements at once.

    Arrays are padded to whole vectors by `call`.
    """
    module = ir.Module("test")
    module.triple = target.triple
    declare_target(module, target)
    pointer, i64 = ir.PointerType(), ir.IntType(64)
    arguments = [pointer] * (len(inputs) + 1) + [i64]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), "kernel")
    entry, loop, done = (function.append_basic_block(n) for n in ("entry", "loop", "done"))
    b = ir.IRBuilder(entry)
    b.cbranch(b.icmp_signed(">", function.args[-1], i64(0)), loop, done)
    b.position_at_end(loop)
    i = b.phi(i64)
    i.add_incoming(i64(0), entry)
    values = [_load(b, p, i, d, lanes) for p, d in zip(function.args, inputs, strict=False)]
    result = body(*values)
    assert result.dtype == output, f"{result.dtype} is not {output}"
    _store(b, function.args[len(inputs)], i, result.splat(lanes))
    after = b.add(i, i64(lanes))
    i.add_incoming(after, b.block)
    b.cbranch(b.icmp_signed("<", after, function.args[-1]), loop, done)
    b.position_at_end(done)
    b.ret_void()
    return _compile(module, inputs, output, lanes, target)


def _address(b: ir.IRBuilder, pointer: ir.Value, i: ir.Value, dtype: DType) -> ir.Value:
    return b.gep(pointer, [i], source_etype=memory_type(dtype))


def _load(b: ir.IRBuilder, p: ir.Value, i: ir.Value, dtype: DType, lanes: int) -> LlvmScalar:
    value = b.load(_address(b, p, i, dtype), typ=memory_type(dtype, lanes), align=dtype.itemsize)
    if dtype.kind == "b":
        zero = ir.Constant(value.type, [0] * lanes if lanes > 1 else 0)
        value = b.icmp_unsigned("!=", value, zero)
    return LlvmScalar(b, value, dtype)


def _store(b: ir.IRBuilder, p: ir.Value, i: ir.Value, x: LlvmScalar) -> None:
    value = b.zext(x.v, memory_type(x.dtype, x.lanes)) if x.dtype.kind == "b" else x.v
    b.store(value, _address(b, p, i, x.dtype), align=x.dtype.itemsize)


def _compile(
    module: ir.Module, inputs: tuple[DType, ...], output: DType, lanes: int, target: Target
) -> Compiled:
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3
    )
    options = binding.create_pipeline_tuning_options(speed_level=2)
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    if target.triple.split("-")[0] != HOST.triple.split("-")[0]:
        return Compiled(_not_runnable, parsed, machine)
    engine = binding.create_mcjit_compiler(
        binding.parse_assembly(str(parsed)), machine, use_lmm=True
    )
    engine.finalize_object()
    signature = [ctypes.c_void_p] * (len(inputs) + 1) + [ctypes.c_int64]
    address = engine.get_function_address("kernel")
    native = ctypes.CFUNCTYPE(None, *signature)(address)
    native.owner = engine  # the code lives as long as its function

    def call(*arrays: np.ndarray) -> np.ndarray:
        n = len(arrays[0])
        padded = -(-n // lanes) * lanes
        whole = [
            np.concatenate([np.asarray(a, d.numpy), np.zeros(padded - n, d.numpy)])
            for a, d in zip(arrays, inputs, strict=True)
        ]
        out = np.empty(padded, output.numpy)
        native(*(a.ctypes.data for a in whole), out.ctypes.data, padded)
        return out[:n]

    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3
    )  # the engine took the other one
    return Compiled(call, parsed, machine, engine)


def _not_runnable(*_: np.ndarray) -> np.ndarray:
    raise AssertionError("compiled for another machine")
