"""Tensors from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.dims import Dim, product, size_bounds
from fluxc.compiler.ir.types import TensorType, bool_, f64, i32, i64
from fluxc.compiler.ops.checks import check_axis, check_dtype, check_dtype_attr, check_shape, show
from fluxc.compiler.ops.op import Op, register
from fluxc.compiler.ops.reference import cast_to, computed, from_storage

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.types import DType

__all__: list[str] = []

Sizes = tuple["Size", ...]


def infer_full(*, value: float | Size, dtype: DType, shape: Sizes) -> TensorType:
    check_dtype_attr("full", dtype)
    check_shape("full", shape)
    _check_number(value, dtype)
    return TensorType(dtype, shape)


def _check_number(value: float | Size, dtype: DType) -> None:
    """A bool for bools, an integer in range for integers, any number for floats."""
    is_size = isinstance(value, Dim) or type(value) is int
    if dtype == bool_:
        fits = isinstance(value, bool)
    elif dtype.is_float:
        fits = is_size or isinstance(value, float)
    else:
        # No tensor has more elements than i64 counts, whatever the ranges of its sizes allow.
        info = np.iinfo(dtype.numpy)
        counts = isinstance(value, Dim) and dtype == i64
        fits = is_size and (counts or _between(value, int(info.min), int(info.max)))
    if not fits:
        hint = "make it i64 and cast" if isinstance(value, Dim) else ""
        raise DTypeError(f"full: not a number of {dtype}", got=repr(value), hint=hint)


def _between(value: Any, least: int, greatest: int) -> bool:
    low, high = size_bounds(value)
    return bool(low >= least and high <= greatest)


def full_lower(
    k: Any, index: Any, _types: Any, *, value: float | Size, dtype: DType, shape: Sizes
) -> Any:
    assert len(shape) == len(index)
    return k.cast(k.size(value), dtype) if isinstance(value, Dim) else k.const(value, dtype)


def infer_constant(*, data: bytes, dtype: DType, shape: Sizes) -> TensorType:
    check_dtype_attr("constant", dtype)
    check_shape("constant", shape)
    count = product(shape)
    if not isinstance(count, int) or len(data) != count * dtype.itemsize:
        raise ShapeError(
            "constant: the data does not fill the shape",
            expected=f"{count * dtype.itemsize} bytes for {dtype}{show(shape)}",
            got=f"{len(data)} bytes",
        )
    return TensorType(dtype, shape)


def infer_iota(*, dtype: DType, shape: Sizes, axis: int) -> TensorType:
    check_dtype_attr("iota", dtype)
    check_shape("iota", shape)
    check_dtype("iota", TensorType(dtype, shape), "fiu")
    check_axis("iota", axis, len(shape))
    return TensorType(dtype, shape)


def iota_reference(*, dtype: DType, shape: tuple[int, ...], axis: int) -> np.ndarray:
    line = cast_to(np.arange(shape[axis], dtype=np.int64), dtype=dtype)
    aligned = line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return np.broadcast_to(aligned, shape).copy()


def iota_lower(k: Any, index: Any, _types: Any, *, dtype: DType, shape: Sizes, axis: int) -> Any:
    assert len(shape) == len(index)
    return k.cast(index[axis], dtype)


def no_inputs(_b: Any, _dy: Any, _y: Any, **_: Any) -> tuple[()]:
    return ()


register(
    Op(
        name="full",
        infer=infer_full,
        reference=lambda *, value, dtype, shape: np.full(shape, value, computed(dtype)),
        vjp=no_inputs,
        sample=lambda _rng: ((), {"value": 1.5, "dtype": f64, "shape": (2, 3)}),
        lower=full_lower,
        doc="one number everywhere; the number may be a size, known when the entry is called",
    )
)
register(
    Op(
        name="constant",
        infer=infer_constant,
        reference=lambda *, data, dtype, shape: from_storage(data, dtype).reshape(shape),
        vjp=no_inputs,
        sample=lambda rng: (
            (),
            {"data": rng.bytes(24), "dtype": i32, "shape": (2, 3)},
        ),
        doc="stored numbers: little-endian, row-major",
    )
)
register(
    Op(
        name="iota",
        infer=infer_iota,
        reference=iota_reference,
        vjp=no_inputs,
        sample=lambda _rng: ((), {"dtype": i32, "shape": (2, 3), "axis": 1}),
        lower=iota_lower,
        doc="the position along axis: 0, 1, 2, ...",
    )
)
