"""Tensor types as a user writes them: `fx.f32["batch", 64]`, `fx.dim("batch", min=1)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Dim, Size, Symbol, dim, parse_size, size_symbols

__all__ = [
    "DTypeLike",
    "ElementType",
    "TensorSpec",
    "as_dtype",
    "bf16",
    "bool_",
    "dim",
    "element_type",
    "f16",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "resolve_specs",
    "u8",
]

DTypeLike: TypeAlias = "ElementType | ir.DType | np.dtype | type | str"


@dataclass(frozen=True, slots=True)
class ElementType:
    """A dtype.  Subscripted with dimensions it is a tensor type; alone it is a scalar's type.

    `fx.f32["batch", 64]`  a matrix of any number of rows and 64 columns
    `fx.f32["2*n + 1"]`    integer arithmetic on names is understood
    `fx.f32[()]`, `fx.f32` a scalar
    `x.astype(fx.f32)`     the dtype itself
    """

    dtype: ir.DType

    @property
    def name(self) -> str:
        return self.dtype.name

    @property
    def numpy(self) -> np.dtype:
        """How NumPy stores it (bf16, which NumPy lacks, as uint16)."""
        return self.dtype.numpy

    def __getitem__(self, dims: Any) -> TensorSpec:
        return TensorSpec(self.dtype, tuple(dims) if isinstance(dims, tuple) else (dims,))

    def __call__(self, *_: Any) -> None:
        raise DTypeError(
            f"{self} is a dtype, not a function",
            hint=f"x.astype(fx.{self})" + f", or nn.{self}(model)" * self.dtype.is_float,
        )

    def __str__(self) -> str:
        return self.dtype.name

    def __repr__(self) -> str:
        return f"fx.{'bool_' if self.dtype.name == 'bool' else self.dtype.name}"


ELEMENT_TYPES = {name: ElementType(dtype) for name, dtype in ir.DTYPES.items()}
f64, f32, f16, bf16 = (ELEMENT_TYPES[n] for n in ("f64", "f32", "f16", "bf16"))
i64, i32, i16, i8 = (ELEMENT_TYPES[n] for n in ("i64", "i32", "i16", "i8"))
u8, bool_ = ELEMENT_TYPES["u8"], ELEMENT_TYPES["bool"]

# Python's own types mean the dtypes that their literals get.
_PYTHON = {bool: ir.bool_, int: ir.i32, float: ir.f32}
_NUMPY = {d.numpy: d for name, d in ir.DTYPES.items() if name != "bf16"}


def element_type(dtype: ir.DType) -> ElementType:
    """The public object of a dtype."""
    return ELEMENT_TYPES[dtype.name]


def as_dtype(dtype: DTypeLike) -> ir.DType:
    """The dtype that `fx.f32`, `"f32"`, `np.float32`, or Python's `float` means.

    Errors  DTypeError if there is none.
    """
    if isinstance(dtype, ir.DType):
        return dtype
    if isinstance(dtype, ElementType):
        return dtype.dtype
    if isinstance(dtype, str) and dtype in ir.DTYPES:
        return ir.DTYPES[dtype]
    if isinstance(dtype, type) and dtype in _PYTHON:
        return _PYTHON[dtype]
    try:
        return _NUMPY[np.dtype(dtype)]
    except (TypeError, KeyError):
        raise DTypeError(
            f"{dtype!r} is not a dtype", expected="f64 f32 f16 bf16 i64 i32 i16 i8 u8 bool_"
        ) from None


class TensorSpec:
    """A declared type: a dtype and dimensions that are integers, strings or `fx.dim`."""

    __slots__ = ("dims", "dtype")

    def __init__(self, dtype: ir.DType, dims: tuple[Any, ...]) -> None:
        self.dtype, self.dims = dtype, dims
        for d in dims:
            if isinstance(d, str):
                _parse(d, {})
            elif not isinstance(d, Dim) and not _is_size(d):
                raise ShapeError(
                    f"{d!r} is not a dimension of {self}",
                    expected="an integer >= 0, a name such as 'batch', or fx.dim('batch', ...)",
                )

    def symbols(self) -> frozenset[Symbol]:
        """The symbols that were declared as objects, with their ranges."""
        return frozenset().union(*(size_symbols(d) for d in self.dims if isinstance(d, Dim)))

    def resolve(self, symbols: dict[str, Symbol]) -> ir.TensorType:
        """The IR's type, where names have the ranges in `symbols`."""
        sizes = [_parse(str(d), symbols) if isinstance(d, str | Dim) else int(d) for d in self.dims]
        return ir.TensorType(self.dtype, tuple(sizes))

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.dims))}]"

    def __repr__(self) -> str:
        return f"fx.{self}"


def _is_size(d: Any) -> bool:
    return isinstance(d, int | np.integer) and not isinstance(d, bool) and bool(d >= 0)


def _parse(text: str, symbols: dict[str, Symbol]) -> Size:
    try:
        return parse_size(text, symbols)
    except ValueError:
        raise ShapeError(
            f"{text!r} is not a dimension",
            expected="a name or integer arithmetic on names, such as 'n' or '2*n + 1'",
        ) from None


def resolve_specs(
    specs: list[TensorSpec], minimum: dict[str, int]
) -> tuple[list[ir.TensorType], frozenset[str]]:
    """The types of an entry's inputs, and the names whose range the user stated.

    minimum  least sizes that the traced program turned out to need, for names without a range.
    Errors   ShapeError if one name is declared with two ranges.
    """
    declared: dict[str, Symbol] = {}
    for symbol in sorted(frozenset().union(*(s.symbols() for s in specs))):
        other = declared.setdefault(symbol.name, symbol)
        if other != symbol:
            raise ShapeError(
                f"dimension {symbol.name!r} is declared with two different ranges",
                expected=_range(other),
                got=_range(symbol),
                hint=f"declare it once, {symbol.name} = fx.dim({symbol.name!r}, ...), and reuse it",
            )
    stated = frozenset(n for n, s in declared.items() if s != Symbol(n))
    symbols = dict(declared)
    for name, least in minimum.items():
        if name not in stated:
            symbols[name] = Symbol(name, min=least)
    return [s.resolve(symbols) for s in specs], stated


def _range(symbol: Symbol) -> str:
    upper = "" if symbol.max == Symbol("").max else f", max={symbol.max}"
    step = "" if symbol.multiple_of == 1 else f", multiple_of={symbol.multiple_of}"
    return f"fx.dim({symbol.name!r}, min={symbol.min}{upper}{step})"
