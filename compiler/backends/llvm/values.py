"""LLVM types and constants of the dtypes, and what a module may assume of its machine."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir
from llvmlite.ir.types import _BaseFloatType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.kernels.schedule import Target

__all__ = [
    "BFloatType",
    "Features",
    "constant",
    "declare_target",
    "features",
    "first_lane",
    "intrinsic",
    "lanes_of",
    "llvm_type",
    "memory_type",
    "merge",
    "poison",
    "splat_constant",
    "vector_of",
    "zero",
]


def merge(b: ir.IRBuilder, *ways: tuple[ir.Block, Sequence[ir.Value]]) -> list[ir.Value]:
    """What each value is where blocks meet; `ways` are the blocks with the values they bring."""
    blocks = [block for block, _ in ways]
    merged = []
    for values in zip(*(brought for _, brought in ways), strict=True):
        phi = b.phi(values[0].type)
        for block, value in zip(blocks, values, strict=True):
            phi.add_incoming(value, block)
        merged.append(phi)
    return merged


class BFloatType(_BaseFloatType):
    """LLVM's `bfloat`, which llvmlite does not declare."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"

    def format_constant(self, value: float) -> str:
        upper = _bf16_bits(value)
        return f"0xR{upper:04X}"


BFloatType._create_instance()  # noqa: SLF001  llvmlite keeps one object per type

_REGISTER = {
    "f64": ir.DoubleType(),
    "f32": ir.FloatType(),
    "f16": ir.HalfType(),
    "bf16": BFloatType(),
    "bool": ir.IntType(1),
}


def vector_of(element: ir.Type, lanes: int) -> ir.Type:
    """`element` itself for one lane, else `<lanes x element>`."""
    return element if lanes == 1 else ir.VectorType(element, lanes)


def llvm_type(dtype: DType, lanes: int = 1) -> ir.Type:
    """The type of a value in a register; bool is i1."""
    return vector_of(_REGISTER.get(dtype.name) or ir.IntType(dtype.bits), lanes)


def memory_type(dtype: DType, lanes: int = 1) -> ir.Type:
    """The type of a value in memory; bool is one byte, 0 or 1."""
    return vector_of(ir.IntType(8), lanes) if dtype.kind == "b" else llvm_type(dtype, lanes)


def lanes_of(value: ir.Value) -> int:
    return value.type.count if isinstance(value.type, ir.VectorType) else 1


def constant(dtype: DType, value: float | bool, lanes: int = 1) -> ir.Constant:
    """A number as a register value, rounded to a float dtype, wrapped to an integer one."""
    element = llvm_type(dtype)
    scalar = ir.Constant(element, _representable(dtype, value))
    return splat_constant(scalar, lanes)


def splat_constant(scalar: ir.Constant, lanes: int) -> ir.Constant:
    """A constant in every lane, in LLVM's short form of it."""
    if lanes == 1:
        return scalar
    return _splat_constant(scalar.type, scalar.get_reference(), lanes)


class _Written(ir.Constant):
    """A vector constant with a text of its own; `elements` is what llvmlite may look at."""

    def __init__(self, kind: ir.Type, text: str, elements: list[int] | None = None) -> None:
        super().__init__(kind, elements)
        self.text = text

    def _get_reference(self) -> str:
        return self.text


@lru_cache(maxsize=4096)
def _splat_constant(element: ir.Type, text: str, lanes: int) -> ir.Constant:
    return _Written(ir.VectorType(element, lanes), f"splat ({element} {text})")


@lru_cache(maxsize=64)
def poison(element: ir.Type, lanes: int) -> ir.Constant:
    """The vector whose lanes are all still to be set."""
    return _Written(ir.VectorType(element, lanes), "poison")


@lru_cache(maxsize=256)
def zero(kind: ir.Type) -> ir.Constant:
    """0 of a type, in every lane."""
    if isinstance(kind, ir.VectorType):
        return _Written(kind, "zeroinitializer")
    return ir.Constant(kind, None)


@lru_cache(maxsize=64)
def first_lane(lanes: int) -> ir.Constant:
    """The shuffle that takes lane 0 everywhere."""
    return _Written(ir.VectorType(ir.IntType(32), lanes), "zeroinitializer", [0] * lanes)


def _representable(dtype: DType, value: float | bool) -> float | int:
    if dtype.kind == "b":
        return int(bool(value))
    if dtype.is_integer:
        wrapped = int(value) & ((1 << dtype.bits) - 1)
        return wrapped - (1 << dtype.bits) if wrapped >> (dtype.bits - 1) else wrapped
    if dtype.name in ("f32", "f16"):
        with np.errstate(over="ignore"):
            return float(dtype.numpy.type(value))
    return float(value)


def _bf16_bits(value: float) -> int:
    """The upper half of the f32, rounded to nearest even."""
    with np.errstate(over="ignore"):
        (bits,) = struct.unpack("<I", struct.pack("<f", np.float32(value)))
    if value != value:  # noqa: PLR0124  NaN
        return bits >> 16 | 0x40
    return bits + 0x7FFF + (bits >> 16 & 1) >> 16


def intrinsic(b: ir.IRBuilder, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
    """Calls `llvm.<name>` overloaded on the result's type."""
    element = result.element if isinstance(result, ir.VectorType) else result
    suffix = getattr(element, "intrinsic_name", None) or f"i{element.width}"
    if isinstance(result, ir.VectorType):
        suffix = f"v{result.count}{suffix}"
    full = f"llvm.{name}.{suffix}"
    function = b.module.globals.get(full)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, [a.type for a in args]), full)
    return b.call(function, args)


@dataclass(frozen=True, slots=True)
class Features:
    """Instructions that may be assumed.  Without them a longer sequence is emitted, never a call.

    fma:      a*b + c in one rounding.
    rounding: floor, ceil, trunc and round to integral floats (SSE4.1).
    half:     conversions between f16 and f32 (F16C).
    scalef:   x * 2**floor(y) of 64-byte vectors (AVX-512).
    """

    fma: bool = False
    rounding: bool = False
    half: bool = False
    scalef: bool = False


_NODE = "fluxc.features"


def declare_target(module: ir.Module, target: Target) -> None:
    """Tells the emitters of this module which instructions its machine has."""
    x86 = target.triple.split("-")[0] in ("x86_64", "i686", "i386", "amd64")
    wide = (
        target.vector_bytes >= 32
    )  # AVX contains SSE4.1; every FMA machine but none else has F16C
    given = Features(
        fma=target.has_fma,
        rounding=not x86 or wide or "+sse4.1" in target.features,
        half=not x86 or "+f16c" in target.features or (not target.features and target.has_fma),
        scalef=x86 and target.vector_bytes == 64 and "+avx512f" in target.features,
    )
    names = [name for name in Features.__slots__ if getattr(given, name)]
    assert _NODE not in module.namedmetadata, "a module has one target"
    module.add_named_metadata(_NODE, names)


def features(module: ir.Module) -> Features:
    """What `declare_target` said; the bare machine where nothing was said."""
    if _NODE not in module.namedmetadata:
        return Features()
    (node,) = module.get_named_metadata(_NODE).operands
    return Features(**{operand.string: True for operand in node.operands})
