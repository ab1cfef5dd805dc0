"""What the runtime knows of an artifact, as constant data: the structs of runtime/native/abi.h."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from fluxc.compiler.ir.dims import product
from fluxc.compiler.ir.types import DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.entry import Entry, ModelSpec, Storage
    from fluxc.compiler.ir.types import TensorType
    from fluxc.compiler.kernels.program import Program

__all__ = ["I32", "I64", "POINTER", "Data", "address", "entry_storages"]

I8, I32, I64, POINTER = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.PointerType()
_NULL = ir.Constant(POINTER, None)
_DTYPE = {name: code for code, name in enumerate(DTYPES)}  # enum fx_dtype
_KIND = {
    name: code
    for code, name in enumerate(("parameter", "state", "optimizer", "hyper", "seed", "step"))
}  # enum fx_kind
_STORAGE = ir.LiteralStructType(
    [POINTER, I32, I32, I32, I32, POINTER, I64, ir.DoubleType(), I32, I32]
)
_SYMBOL = ir.LiteralStructType([POINTER, I64, I64, I64])
_ARG = ir.LiteralStructType([POINTER, I32, I32, I64, I64])
_ENTRY = ir.LiteralStructType([POINTER, *[I32] * 6, *[POINTER] * 4, I64, *[POINTER] * 4])
_MODEL = ir.LiteralStructType([POINTER, POINTER, I32, I32, POINTER, POINTER])


def address(function: ir.Function) -> ir.Constant:
    """A function as a value; llvmlite would print a typed pointer."""
    return ir.FormattedConstant(POINTER, function.get_reference())


def entry_storages(program: Program) -> tuple[str, ...]:
    """The storages of an entry, in the order in which `run` is handed them."""
    return tuple(dict.fromkeys((*program.reads, *program.updates)))


class Data:
    """Constant data of one module; equal data is one constant."""

    def __init__(self, module: ir.Module) -> None:
        self.module = module
        self._known: dict[object, ir.GlobalVariable] = {}

    def constant(
        self, name: str, value: ir.Constant, align: int | None = None
    ) -> ir.GlobalVariable:
        """A private constant and, as a value, its address."""
        made = ir.GlobalVariable(self.module, value.type, self.module.get_unique_name(name))
        made.type = POINTER  # llvmlite would print a typed one
        made.linkage, made.global_constant, made.initializer = "internal", True, value
        made.align = align
        return made

    def bytes(self, name: str, data: bytes, align: int | None = None) -> ir.GlobalVariable:
        key = (data, align)
        if key not in self._known:
            kind = ir.ArrayType(I8, len(data))
            self._known[key] = self.constant(name, ir.Constant(kind, bytearray(data)), align)
        return self._known[key]

    def text(self, text: str) -> ir.GlobalVariable:
        return self.bytes("text", text.encode() + b"\0")

    def array(self, name: str, element: ir.Type, items: Sequence[ir.Constant]) -> ir.Constant:
        """The address of an array of constants; null where there are none."""
        if not items:
            return _NULL
        return self.constant(name, ir.Constant(ir.ArrayType(element, len(items)), list(items)))

    def integers(self, name: str, element: ir.IntType, numbers: Sequence[int]) -> ir.Constant:
        return self.array(name, element, [element(x) for x in numbers])

    # The structs.

    def storage(self, s: Storage) -> ir.Constant:
        shape = [int(x) for x in s.type.shape]  # type: ignore[arg-type]  # sizes of storages are known
        fill = 0.0 if callable(s.init) else float(s.init)
        fields = [
            self.text(s.name),
            I32(_DTYPE[s.type.dtype.name]),
            I32(_KIND[s.kind]),
            I32(len(shape)),
            I32(int(s.trainable)),
            self.integers("shape", I64, shape),
            I64(product(shape)),
            ir.Constant(ir.DoubleType(), fill),
            I32(int(s.in_file)),
            I32(0),
        ]
        return ir.Constant(_STORAGE, fields)

    def argument(self, name: str, type: TensorType, bounds: tuple[int, int] | None) -> ir.Constant:
        low, high = bounds or (0, 0)
        dtype = I32(_DTYPE[type.dtype.name])
        return ir.Constant(_ARG, [self.text(name), dtype, I32(type.rank), I64(low), I64(high)])

    def entry(
        self,
        entry: Entry,
        program: Program,
        spec: ModelSpec,
        functions: Sequence[ir.Function | None],
    ) -> ir.Constant:
        """functions: arg_counts, arena_bytes, prepare (None where nothing is prepared), run."""
        p = program
        ranges = p.index_ranges or (None,) * len(p.inputs)
        names = (*entry.inputs, *entry.outputs)
        types = (*p.inputs, *p.outputs)
        bounds = (*ranges, *[None] * len(p.outputs))
        position = {s.name: i for i, s in enumerate(spec.storages)}
        symbols = [
            ir.Constant(_SYMBOL, [self.text(s.name), I64(s.min), I64(s.max), I64(s.multiple_of)])
            for s in p.symbols
        ]
        args = [self.argument(*row) for row in zip(names, types, bounds, strict=True)]
        prepared = [int(product(t.shape)) * t.dtype.itemsize for t in p.prepared]  # type: ignore[arg-type]
        storages = [position[n] for n in entry_storages(p)]
        counts = (
            len(p.symbols), len(p.inputs), len(p.outputs), len(p.prepared), len(storages),
            bool(p.updates),
        )  # fmt: skip
        fields = [
            self.text(p.name),
            *(I32(int(n)) for n in counts),
            self.array(f"{p.name}_symbols", _SYMBOL, symbols),
            self.array(f"{p.name}_args", _ARG, args),
            self.integers(f"{p.name}_storages", I32, storages),
            self.integers(f"{p.name}_prepared", I64, prepared),
            I64(p.prepare_arena),
            *(_NULL if f is None else address(f) for f in functions),
        ]
        return ir.Constant(_ENTRY, fields)

    def model(
        self, name: str, version: str, spec: ModelSpec, entries: Sequence[ir.Constant]
    ) -> ir.GlobalVariable:
        fields = [
            self.text(name),
            self.text(version),
            I32(len(spec.storages)),
            I32(len(entries)),
            self.array("storages", _STORAGE, [self.storage(s) for s in spec.storages]),
            self.array("entries", _ENTRY, entries),
        ]
        return self.constant("model", ir.Constant(_MODEL, fields))
