"""A whole artifact as one LLVM module: kernels, entries that run them, descriptor, C interface.

Per entry the module has `run` and, where weights are packed ahead, `prepare`: straight code that
puts the addresses and sizes of each launch in arrays on the stack and calls its kernel, or hands it
to the runtime's threads where the schedule finds that worth while.  The layout of the descriptor
and the runtime's functions are those of runtime/native/abi.h.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from llvmlite import ir

from fluxc.compiler.backends.llvm.contract import emit_contract
from fluxc.compiler.backends.llvm.descriptor import (
    I32,
    I64,
    POINTER,
    Data,
    address,
    entry_storages,
)
from fluxc.compiler.backends.llvm.loops import KERNEL_TYPE, emit_nest, parallel_count
from fluxc.compiler.backends.llvm.sizes import Sizes, emit_bounded
from fluxc.compiler.backends.llvm.sort import emit_sort
from fluxc.compiler.backends.llvm.values import declare_target
from fluxc.compiler.errors import FluxcError
from fluxc.compiler.kernels.contraction import contract_tasks
from fluxc.compiler.kernels.kernel import Contract, Sort, kernel_symbols
from fluxc.compiler.kernels.printer import print_kernel
from fluxc.compiler.kernels.program import (
    ArenaAt,
    Choice,
    ConstantAt,
    InputAt,
    Launch,
    Loop,
    OutputAt,
    PartAt,
    PreparedAt,
    StorageAt,
    While,
)
from fluxc.compiler.kernels.schedule import ContractSchedule, NestSchedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fluxc.compiler.ir.dims import Size, Symbol
    from fluxc.compiler.ir.entry import ModelSpec
    from fluxc.compiler.kernels.program import Place, Program, Scheduled, Step
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["RESERVED", "emit_module"]

VOID = ir.VoidType()
_LAUNCH = ir.LiteralStructType([POINTER, POINTER, POINTER, I64, I64])
_RUNTIME = {
    "fx_parallel": (VOID, [POINTER, POINTER, POINTER, POINTER, I64, I64]),
    "fx_parallel_batch": (VOID, [POINTER, POINTER, I32]),
    "fx_open": (POINTER, [POINTER, POINTER, I64, I32]),
    "fx_close": (VOID, [POINTER]),
    "fx_run": (I32, [POINTER, I32, POINTER, POINTER]),
    "fx_save": (I32, [POINTER, POINTER]),
    "fx_load": (I32, [POINTER, POINTER]),
    "fx_storage": (POINTER, [POINTER, POINTER]),
    "fx_set": (I32, [POINTER, POINTER, POINTER, I64]),
    "fx_error": (POINTER, []),
}
# NAME_<suffix>: the runtime's function that it is; `open` and the entries have bodies of their own.
_FORWARDED = {
    "close": "fx_close",
    "save": "fx_save",
    "load": "fx_load",
    "get": "fx_storage",
    "set": "fx_set",
    "error": "fx_error",
}
RESERVED = ("open", *_FORWARDED, "t")


def emit_module(
    name: str, spec: ModelSpec, programs: Sequence[Program], target: Target, version: str
) -> ir.Module:
    """The module of the artifact `name`; `programs[i]` is the plan of `spec.entries[i]`.

    Errors  FluxcError if an entry's name is one of the artifact's own functions.
    """
    module = ir.Module(name)
    module.triple = target.triple
    declare_target(module, target)
    return _Emitter(module, name, spec, target).emit(programs, version)


class _Emitter:
    def __init__(self, module: ir.Module, name: str, spec: ModelSpec, target: Target) -> None:
        self.module, self.name, self.spec, self.target = module, name, spec, target
        self.data = Data(module)
        self.kernels: dict[str, ir.Function] = {}

    def emit(self, programs: Sequence[Program], version: str) -> ir.Module:
        rows = []
        for entry, program in zip(self.spec.entries, programs, strict=True):
            if entry.name in RESERVED:
                raise FluxcError(
                    f"an entry cannot be named {entry.name!r}: {self.name}_{entry.name} is "
                    "a function of every artifact",
                    loc=entry.loc,
                )
            rows.append(self.data.entry(entry, program, self.spec, self.functions(program)))
        model = self.data.model(self.name, version, self.spec, rows)
        self.public(model, programs)
        return self.module

    # Functions.

    def function(
        self, name: str, result: ir.Type, parameters: Sequence[ir.Type], linkage: str = "internal"
    ) -> ir.Function:
        made = ir.Function(self.module, ir.FunctionType(result, parameters), name)
        made.linkage = linkage
        made.attributes.add("nounwind")
        return made

    def runtime(self, name: str) -> ir.Function:
        """A function of the runtime, in the same library."""
        known = self.module.globals.get(name)
        return known or self.function(name, *_RUNTIME[name], linkage="hidden")

    def unique(self, name: str) -> str:
        return self.module.get_unique_name("".join(c if c.isalnum() else "_" for c in name))

    def functions(self, p: Program) -> list[ir.Function | None]:
        return [
            self.arg_counts(p),
            self.arena_bytes(p),
            self.prepare(p) if p.prepared else None,
            self.run(p),
        ]

    def arg_counts(self, p: Program) -> ir.Function:
        f = self.function(self.unique(f"{p.name}_arg_counts"), VOID, [POINTER, POINTER])
        b = ir.IRBuilder(f.append_basic_block("entry"))
        symbols = _symbols(b, f.args[0], p.symbols)
        for i, type in enumerate((*p.inputs, *p.outputs)):
            count = emit_bounded(b, symbols, type.size)
            b.store(count, b.gep(f.args[1], [I64(i)], source_etype=I64))
        b.ret_void()
        return f

    def arena_bytes(self, p: Program) -> ir.Function:
        f = self.function(self.unique(f"{p.name}_arena_bytes"), I64, [POINTER])
        b = ir.IRBuilder(f.append_basic_block("entry"))
        b.ret(emit_bounded(b, _symbols(b, f.args[0], p.symbols), p.arena))
        return f

    def prepare(self, p: Program) -> ir.Function:
        f = self.function(self.unique(f"{p.name}_prepare"), VOID, [POINTER] * 4)
        call, storages, prepared, arena = f.args
        b = ir.IRBuilder(f.append_basic_block("entry"))
        frame = _Frame(self, p, b, call, None, None, storages, prepared, arena)
        frame.steps(p.prepare)
        frame.b.ret_void()
        return f

    def run(self, p: Program) -> ir.Function:
        f = self.function(self.unique(f"{p.name}_run"), VOID, [POINTER] * 6)
        call, symbols, args, storages, prepared, arena = f.args
        b = ir.IRBuilder(f.append_basic_block("entry"))
        frame = _Frame(self, p, b, call, symbols, args, storages, prepared, arena)
        frame.steps(p.run)
        frame.b.ret_void()
        return f

    def kernel(self, scheduled: Scheduled) -> ir.Function:
        """The function of a kernel; equal kernels share one."""
        kernel, schedule = scheduled.kernel, scheduled.schedule
        text = print_kernel(replace(kernel, name="kernel"), schedule)
        if text not in self.kernels:
            name = self.unique(kernel.name)
            if isinstance(kernel, Contract):
                assert isinstance(schedule, ContractSchedule), f"{name}: schedule of another kind"
                made = emit_contract(self.module, name, kernel, schedule, self.target)
            elif isinstance(kernel, Sort):
                made = emit_sort(self.module, name, kernel)
            else:
                assert isinstance(schedule, NestSchedule), f"{name}: schedule of another kind"
                made = emit_nest(self.module, name, kernel, schedule, self.target)
            made.linkage, made.type = "internal", KERNEL_TYPE.as_pointer()
            self.kernels[text] = made
        return self.kernels[text]

    # The C interface.

    def public(self, model: ir.GlobalVariable, programs: Sequence[Program]) -> None:
        opened = self.function(f"{self.name}_open", POINTER, [POINTER, I64, I32], linkage="")
        b = ir.IRBuilder(opened.append_basic_block("entry"))
        b.ret(b.call(self.runtime("fx_open"), [model, *opened.args]))
        for suffix, name in _FORWARDED.items():
            result, parameters = _RUNTIME[name]
            f = self.function(f"{self.name}_{suffix}", result, parameters, linkage="")
            b = ir.IRBuilder(f.append_basic_block("entry"))
            value = b.call(self.runtime(name), f.args)
            if result is VOID:
                b.ret_void()
            else:
                b.ret(value)
        for i, p in enumerate(programs):
            self.public_entry(i, p)

    def public_entry(self, index: int, p: Program) -> None:
        """`int32_t NAME_ENTRY(model, symbols..., inputs..., outputs...)`."""
        arrays = len(p.inputs) + len(p.outputs)
        kinds = [POINTER, *[I64] * len(p.symbols), *[POINTER] * arrays]
        f = self.function(f"{self.name}_{p.name}", I32, kinds, linkage="")
        b = ir.IRBuilder(f.append_basic_block("entry"))
        model, *rest = f.args
        sizes = _on_stack(b, I64, rest[: len(p.symbols)])
        args = _on_stack(b, POINTER, rest[len(p.symbols) :])
        b.ret(b.call(self.runtime("fx_run"), [model, I32(index), sizes, args]))


class _Frame:
    """The body of a `run` or `prepare` function: straight code, one launch after another."""

    def __init__(
        self,
        emitter: _Emitter,
        program: Program,
        b: ir.IRBuilder,
        call: ir.Value,
        symbols: ir.Value | None,
        args: ir.Value | None,
        storages: ir.Value,
        prepared: ir.Value,
        arena: ir.Value,
    ) -> None:
        self.emitter, self.program, self.b, self.call = emitter, program, b, call
        self.args, self.storages, self.prepared, self.arena = args, storages, prepared, arena
        values = {} if symbols is None else _symbols(b, symbols, program.symbols)
        self.sizes = Sizes(b, values)
        self.storage_at = {name: i for i, name in enumerate(entry_storages(program))}
        self.known: dict[Place, ir.Value] = {}

    def steps(self, steps: Sequence[Step]) -> None:
        region: list[Launch] = []
        for step in steps:
            if isinstance(step, Launch) and step.independent and region:
                region.append(step)
                continue
            self.region(region)
            region = [step] if isinstance(step, Launch) else []
            if not isinstance(step, Launch):
                self.control(step)
        self.region(region)

    # Loops and choices.

    def control(self, step: Loop | While | Choice) -> None:
        if isinstance(step, Loop):
            self.loop(step)
        elif isinstance(step, While):
            self.while_(step)
        else:
            self.choice(step)

    @contextmanager
    def inside(self, block: ir.Block, **counted: ir.Value) -> Iterator[None]:
        """Go on in another block.  What is computed there is known to what follows inside."""
        known, sizes = self.known, self.sizes
        self.b.position_at_end(block)
        self.known = dict(known)
        self.sizes = Sizes(self.b, {**sizes.symbols, **counted})
        self.sizes.known.update(sizes.known)
        try:
            yield
        finally:
            self.known, self.sizes = known, sizes

    def loop(self, step: Loop) -> None:
        b = self.b
        trips = self.sizes.value(step.trips)
        before = b.block
        head, body, after = (b.append_basic_block(n) for n in ("for", "step", "done"))
        b.branch(head)
        b.position_at_end(head)
        now = b.phi(I64, name="now")
        now.add_incoming(I64(0), before)
        b.cbranch(b.icmp_signed("<", now, trips), body, after)
        with self.inside(body, **{step.counter.name: now}):
            self.steps(step.body)
            now.add_incoming(b.add(now, I64(1)), b.block)
            b.branch(head)
        b.position_at_end(after)

    def while_(self, step: While) -> None:
        b = self.b
        head, body, after = (b.append_basic_block(n) for n in ("while", "step", "done"))
        b.branch(head)
        with self.inside(head):
            self.steps(step.test)
            goes_on = b.load(self.pointer(step.goes_on), typ=ir.IntType(8))
            b.cbranch(b.icmp_unsigned("!=", goes_on, ir.IntType(8)(0)), body, after)
            with self.inside(body):
                self.steps(step.body)
                b.branch(head)
        b.position_at_end(after)

    def choice(self, step: Choice) -> None:
        b, count = self.b, len(step.branches)
        index = b.load(self.pointer(step.index), typ=I32)
        blocks = [b.append_basic_block(f"case{i}") for i in range(count)]
        after = b.append_basic_block("done")
        # Below the first it is the first, beyond the last the last.
        low = b.select(b.icmp_signed("<", index, I32(0)), I32(0), index)
        switch = b.switch(low, blocks[-1])
        for i, block in enumerate(blocks[:-1]):
            switch.add_case(I32(i), block)
        for block, branch in zip(blocks, step.branches, strict=True):
            with self.inside(block):
                self.steps(branch)
                b.branch(after)
        b.position_at_end(after)

    # Launches.

    def region(self, launches: Sequence[Launch]) -> None:
        """Small launches one after another, then what is worth splitting in one parallel region."""
        split = []
        for launch in launches:
            sizes = self.sizes_of(launch)
            schedule, count = launch.scheduled.schedule, _count(launch.scheduled)
            assert isinstance(schedule, NestSchedule | ContractSchedule), "made for a GPU"
            grain = schedule.grain
            if grain == 0 or (isinstance(count, int) and count <= grain):
                _, buffers, values = self.operands(launch, sizes)
                kernel = self.emitter.kernel(launch.scheduled)
                self.b.call(kernel, [buffers, values, I64(0), sizes.value(count)])
            else:
                split.append((launch, sizes, sizes.value(count), grain))
        if len(split) == 1:
            ((launch, sizes, points, grain),) = split
            operands = self.operands(launch, sizes)
            function = self.emitter.runtime("fx_parallel")
            self.b.call(function, [self.call, *operands, points, I64(grain)])
        elif split:
            self.batch(split)

    def batch(self, split: Sequence[tuple[Launch, Sizes, ir.Value, int]]) -> None:
        b = self.b
        table = _room(b, _LAUNCH, len(split))
        for i, (launch, sizes, points, grain) in enumerate(split):
            fields = (*self.operands(launch, sizes), points, I64(grain))
            for k, field in enumerate(fields):
                b.store(field, b.gep(table, [I32(i), I32(k)], source_etype=_LAUNCH))
        function = self.emitter.runtime("fx_parallel_batch")
        b.call(function, [self.call, table, I32(len(split))])

    def sizes_of(self, launch: Launch) -> Sizes:
        """The kernel's own sizes, in terms of the entry's."""
        if launch.sizes is None:
            return self.sizes
        names = [s.name for s in kernel_symbols(launch.scheduled.kernel)]
        values = [self.sizes.value(size) for size in launch.sizes]
        return Sizes(self.b, dict(zip(names, values, strict=True)))

    def operands(self, launch: Launch, sizes: Sizes) -> tuple[ir.Value, ir.Value, ir.Value]:
        """The kernel, its arrays and its sizes."""
        kernel = launch.scheduled.kernel
        buffers = [self.pointer(place) for place in launch.places]
        values = [sizes.symbols[s.name] for s in kernel_symbols(kernel)]
        return (
            address(self.emitter.kernel(launch.scheduled)),
            _on_stack(self.b, POINTER, buffers),
            _on_stack(self.b, I64, values),
        )

    def pointer(self, place: Place) -> ir.Value:
        if place not in self.known:
            self.known[place] = self.find(place)
        return self.known[place]

    def find(self, place: Place) -> ir.Value:  # noqa: PLR0911  each kind of place
        b, p = self.b, self.program
        match place:
            case InputAt(i):
                return self.element(self.args, i)
            case OutputAt(i):
                return self.element(self.args, len(p.inputs) + i)
            case StorageAt(name):
                return self.element(self.storages, self.storage_at[name])
            case PreparedAt(i):
                return self.element(self.prepared, i)
            case ConstantAt(i):
                return self.emitter.data.bytes("constant", p.constants[i].data, align=64)
            case ArenaAt(offset):
                at = self.sizes.value(offset)
                return b.gep(self.arena, [at], source_etype=ir.IntType(8))
            case PartAt(whole, offset):
                at = self.sizes.value(offset)
                return b.gep(self.pointer(whole), [at], source_etype=ir.IntType(8))
        raise AssertionError(f"no place is {place}")

    def element(self, array: ir.Value | None, i: int) -> ir.Value:
        assert array is not None, "prepare has no arguments"
        return self.b.load(self.b.gep(array, [I64(i)], source_etype=POINTER), typ=POINTER)


def _count(scheduled: Scheduled) -> Size:
    """The points of a kernel's parallel space."""
    kernel, schedule = scheduled.kernel, scheduled.schedule
    if isinstance(kernel, Contract):
        assert isinstance(schedule, ContractSchedule), f"{kernel.name}: schedule of another kind"
        return contract_tasks(kernel, schedule)
    if isinstance(kernel, Sort):
        return kernel.row.extent
    assert isinstance(schedule, NestSchedule), f"{kernel.name}: schedule of another kind"
    return parallel_count(kernel, schedule)


def _symbols(b: ir.IRBuilder, array: ir.Value, symbols: Sequence[Symbol]) -> dict[str, ir.Value]:
    return {
        s.name: b.load(b.gep(array, [I64(i)], source_etype=I64), name=s.name, typ=I64)
        for i, s in enumerate(symbols)
    }


def _room(b: ir.IRBuilder, kind: ir.Type, count: int) -> ir.Value:
    """Room on the stack, taken once a call however often a loop comes by."""
    with b.goto_entry_block():
        array = b.alloca(kind, I32(count))
    array.type = POINTER  # llvmlite would print a typed one
    return array


def _on_stack(b: ir.IRBuilder, kind: ir.Type, values: Sequence[ir.Value]) -> ir.Value:
    """An array of values; null where there are none."""
    if not values:
        return ir.Constant(POINTER, None)
    array = _room(b, kind, len(values))
    for i, value in enumerate(values):
        b.store(value, b.gep(array, [I64(i)], source_etype=kind))
    return array
