"""What references share: exact integer semantics on top of NumPy, and arrays from stored bytes."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.ir.interp import round_to, widen

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.types import DType

__all__ = [
    "cast_to",
    "computed",
    "from_storage",
    "quiet",
    "reinterpret",
    "shift_left",
    "shift_right",
    "whole_power",
]


def quiet(reference: Callable[..., Any]) -> Callable[..., Any]:
    """The reference without NumPy's warnings, and with arrays where NumPy gives scalars."""

    @wraps(reference)
    def run(*arrays: np.ndarray, **attrs: Any) -> Any:
        with np.errstate(all="ignore"):
            result = reference(*arrays, **attrs)
        return result if isinstance(result, tuple) else np.asarray(result)

    return run


def computed(dtype: DType) -> np.dtype:
    """The NumPy dtype in which values of `dtype` are computed: float64 for every float."""
    return np.dtype(np.float64) if dtype.is_float else dtype.numpy


def from_storage(data: bytes, dtype: DType) -> np.ndarray:
    """The values that `data` stores, one after another."""
    stored = np.frombuffer(data, dtype.numpy.newbyteorder("<")).astype(dtype.numpy)
    if dtype.name == "bf16":
        stored = (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(computed(dtype))


def cast_to(x: np.ndarray, *, dtype: DType) -> np.ndarray:
    if x.dtype.kind == "f" and dtype.is_integer:
        return _saturate(np.trunc(x), dtype)
    if dtype.is_float and dtype.bits == 16:  # whoever asks for 16 bits means to have no more
        return widen(round_to(x.astype(np.float64), dtype), dtype)
    return x.astype(computed(dtype))


def _saturate(x: np.ndarray, dtype: DType) -> np.ndarray:
    info = np.iinfo(dtype.numpy)
    above, below = x >= float(info.max) + 1.0, x < float(info.min)
    whole = np.where(above | below | np.isnan(x), 0.0, x).astype(dtype.numpy)
    return np.where(above, info.max, np.where(below, info.min, whole)).astype(dtype.numpy)


def reinterpret(x: np.ndarray, *, dtype: DType) -> np.ndarray:
    stored = x.astype(f"f{dtype.itemsize}") if x.dtype.kind == "f" else x
    return np.asarray(stored.view(dtype.numpy).astype(computed(dtype)))


def whole_power(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f":
        return np.asarray(np.power(x, p))
    # Of 1 / x**-p, truncated, 1 and -1 keep their size; dividing by 0 gives 0.
    size = np.where(p < 0, np.where(np.abs(x) == 1, x, 0), x).astype(x.dtype)
    return np.asarray(np.power(size, np.where(p < 0, p & 1, p)) * ((p >= 0) | (size != 0)))


def _in_range(x: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    fits = (count >= 0) & (count < 8 * x.dtype.itemsize)
    return fits, np.where(fits, count, 0).astype(x.dtype)


def shift_left(x: np.ndarray, count: np.ndarray) -> np.ndarray:
    fits, safe = _in_range(x, count)
    return np.where(fits, np.left_shift(x, safe), 0).astype(x.dtype)


def shift_right(x: np.ndarray, count: np.ndarray) -> np.ndarray:
    fits, safe = _in_range(x, count)
    sign = np.where(x < 0, -1, 0).astype(x.dtype)
    return np.where(fits, np.right_shift(x, safe), sign)
