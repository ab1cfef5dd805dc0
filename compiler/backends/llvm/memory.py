"""Reads and writes of one element or of the lanes of a vector, with the dtypes' forms in memory.

Masks are <lanes x i1> values or None for all lanes.  Where a mask is false no memory is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import ir

from fluxc.compiler.backends.llvm.scalar import LlvmScalar
from fluxc.compiler.backends.llvm.values import memory_type, poison, splat_constant, zero
from fluxc.compiler.ir.types import i64

if TYPE_CHECKING:
    from fluxc.compiler.ir.types import DType

__all__ = [
    "advance",
    "gather",
    "iota",
    "load",
    "nowhere",
    "pointers",
    "reverse",
    "scatter",
    "store",
    "tail_mask",
]

I1, I8, I32, I64 = (ir.IntType(n) for n in (1, 8, 32, 64))
_ZEROS = 512  # bytes: the widest vector that a load can ask for


def from_memory(b: ir.IRBuilder, raw: ir.Value, dtype: DType) -> LlvmScalar:
    if dtype.kind == "b":
        raw = b.icmp_unsigned("!=", raw, zero(raw.type))
    return LlvmScalar(b, raw, dtype)


def to_memory(x: LlvmScalar) -> ir.Value:
    return x.b.zext(x.v, memory_type(x.dtype, x.lanes)) if x.dtype.kind == "b" else x.v


def nowhere(b: ir.IRBuilder) -> ir.Value:
    """Memory that holds zeros: what a guarded load reads where its guard is false."""
    zeros = b.module.globals.get("zeros")
    if zeros is None:
        zeros = ir.GlobalVariable(b.module, ir.ArrayType(I8, _ZEROS), "zeros")
        zeros.linkage, zeros.global_constant, zeros.align = "internal", True, 64
        zeros.initializer = ir.Constant(zeros.value_type, None)
        zeros.type = ir.PointerType()
    return zeros


def iota(width: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(I64, width), list(range(width)))


def tail_mask(b: ir.IRBuilder, first: ir.Value, stop: ir.Value, width: int) -> ir.Value:
    """The lanes l with first + l < stop, where first <= stop."""
    rest = b.sub(stop, first)
    enough = b.icmp_unsigned("<", rest, I64(width))
    rest = b.trunc(b.select(enough, rest, I64(width)), I32)
    lanes = ir.Constant(ir.VectorType(I32, width), list(range(width)))
    return b.icmp_unsigned("<", lanes, splat(b, rest, width))


def splat(b: ir.IRBuilder, value: ir.Value, width: int) -> ir.Value:
    return LlvmScalar(b, value, i64).splat(width).v


def reverse(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    width = value.type.count
    order = ir.Constant(ir.VectorType(I32, width), list(range(width - 1, -1, -1)))
    return b.shuffle_vector(value, poison(value.type.element, width), order)


def advance(b: ir.IRBuilder, pointer: ir.Value, elements: ir.Value, dtype: DType) -> ir.Value:
    return b.gep(pointer, [elements], source_etype=memory_type(dtype))


def pointers(b: ir.IRBuilder, base: ir.Value, offsets: ir.Value, dtype: DType) -> ir.Value:
    """`base` moved by each lane's offset in elements."""
    instruction = b.gep(base, [offsets], source_etype=memory_type(dtype))
    instruction.type = ir.VectorType(
        ir.PointerType(), offsets.type.count
    )  # llvmlite says one pointer
    return instruction


def load(
    b: ir.IRBuilder, pointer: ir.Value, dtype: DType, width: int = 1, mask: ir.Value | None = None
) -> LlvmScalar:
    """`width` neighbouring elements; 0 where the mask is false."""
    kind = memory_type(dtype, width)
    if mask is None:
        return from_memory(b, b.load(pointer, typ=kind, align=dtype.itemsize), dtype)
    function = _declare(b, "masked.load", kind, [ir.PointerType(), mask.type, kind])
    call = b.call(function, [pointer, mask, zero(kind)], arg_attrs={0: ()})
    call.arg_attributes[0].align = dtype.itemsize
    return from_memory(b, call, dtype)


def store(x: LlvmScalar, pointer: ir.Value, mask: ir.Value | None = None) -> None:
    b, value = x.b, to_memory(x)
    if mask is None:
        b.store(value, pointer, align=x.dtype.itemsize)
        return
    function = _declare(b, "masked.store", None, [value.type, ir.PointerType(), mask.type])
    call = b.call(function, [value, pointer, mask], arg_attrs={1: ()})
    call.arg_attributes[1].align = x.dtype.itemsize


def gather(b: ir.IRBuilder, at: ir.Value, dtype: DType, mask: ir.Value | None = None) -> LlvmScalar:
    """One element from each of a vector of pointers; 0 where the mask is false."""
    width = at.type.count
    kind = memory_type(dtype, width)
    if mask is not None and dtype.itemsize < 4:  # no machine gathers these: spare it the branches
        at = b.select(mask, at, splat(b, nowhere(b), width))
        mask = None
    if mask is None:
        mask = splat_constant(I1(1), width)
    function = _declare(b, "masked.gather", kind, [at.type, mask.type, kind])
    call = b.call(function, [at, mask, zero(kind)], arg_attrs={0: ()})
    call.arg_attributes[0].align = dtype.itemsize
    return from_memory(b, call, dtype)


def scatter(x: LlvmScalar, at: ir.Value, mask: ir.Value | None = None) -> None:
    """Lane by lane in order: of two lanes with one pointer the later one stays."""
    b, value = x.b, to_memory(x)
    if mask is None:
        mask = splat_constant(I1(1), x.lanes)
    function = _declare(b, "masked.scatter", None, [value.type, at.type, mask.type])
    call = b.call(function, [value, at, mask], arg_attrs={1: ()})
    call.arg_attributes[1].align = x.dtype.itemsize


def _declare(
    b: ir.IRBuilder, name: str, result: ir.Type | None, parameters: list[ir.Type]
) -> ir.Function:
    """The masked intrinsics are overloaded on the vector's and the pointer's types."""
    vector = result or parameters[0]
    pointer = next(p for p in parameters if _is_pointer(p))
    suffix = f"v{vector.count}{_element(vector)}"
    suffix += f".v{pointer.count}p0" if isinstance(pointer, ir.VectorType) else ".p0"
    full = f"llvm.{name}.{suffix}"
    function = b.module.globals.get(full)
    if function is None:
        kind = ir.FunctionType(result or ir.VoidType(), parameters)
        function = ir.Function(b.module, kind, full)
    return function


def _is_pointer(kind: ir.Type) -> bool:
    return isinstance(kind.element if isinstance(kind, ir.VectorType) else kind, ir.PointerType)


def _element(vector: ir.VectorType) -> str:
    return getattr(vector.element, "intrinsic_name", None) or f"i{vector.element.width}"
