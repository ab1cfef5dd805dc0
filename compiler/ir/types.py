"""Types of values: a dtype and a shape whose sizes may be symbolic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fluxc.compiler.ir.dims import Size, product, size_symbols

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Symbol

__all__ = [
    "DTYPES", "DType", "TensorType", "bf16", "bool_", "f16", "f32", "f64",
    "i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.  kind: f float, i signed, u unsigned, b bool."""

    name: str
    kind: str
    bits: int

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    @property
    def itemsize(self) -> int:
        return self.bits // 8

    @property
    def numpy(self) -> np.dtype:
        """How NumPy stores it: bf16, which it lacks, as the upper half of an f32 in uint16."""
        return _NUMPY[self.name]

    def __str__(self) -> str:
        return self.name


f64, f32, f16 = (DType(f"f{b}", "f", b) for b in (64, 32, 16))
bf16 = DType("bf16", "f", 16)
i64, i32, i16, i8 = (DType(f"i{b}", "i", b) for b in (64, 32, 16, 8))
u64, u32, u16, u8 = (DType(f"u{b}", "u", b) for b in (64, 32, 16, 8))
bool_ = DType("bool", "b", 8)

DTYPES: dict[str, DType] = {
    d.name: d for d in (f64, f32, f16, bf16, i64, i32, i16, i8, u64, u32, u16, u8, bool_)
}
_NUMPY = {
    name: np.dtype(f"{d.kind}{d.itemsize}")  # b1 is NumPy's bool
    for name, d in DTYPES.items()
    if d != bf16
} | {"bf16": np.dtype(np.uint16)}


@dataclass(frozen=True, slots=True)
class TensorType:
    """`f32[batch, 64]`: dtype and shape.  Rank 0 is a scalar, `f32[]`."""

    dtype: DType
    shape: tuple[Size, ...] = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        """The number of elements."""
        return product(self.shape)

    @property
    def symbols(self) -> frozenset[Symbol]:
        return frozenset().union(*(size_symbols(s) for s in self.shape))

    def with_shape(self, *shape: Size) -> TensorType:
        return TensorType(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"
