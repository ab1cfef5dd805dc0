"""Tensors of a traced program: immutable, with NumPy's operators, methods and indexing.

Promotion of dtypes when two operands meet:

- Python's and NumPy's scalars and lists are weak: `f16_tensor * 2.0` stays f16.  They change the
  kind alone: an integer tensor with a float scalar is f32, a bool tensor with an integer is i32.
- Tensors and NumPy arrays keep their dtype.  A float with an integer or bool takes the float's
  dtype, two floats the wider of them, f16 with bf16 is f32; two integers as in NumPy (i8 with
  u8 is i16), except that u64 with a signed integer is i64.
- Functions of floats (`/`, `fx.exp`, `mean`) turn integers and bools into f32.

Sizes (`x.shape[0]`) may be used as integer scalars, symbolic or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, Union

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError, TraceError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Dim, Size
from fluxc.trace import emit, fail
from fluxc.types import DTypeLike, ElementType, as_dtype, element_type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from fluxc.compiler.ir.graph import Value

__all__ = ["Operators", "Tensor", "TensorLike", "as_tensor", "operands", "promote"]

TensorLike: TypeAlias = Union[
    "Operators", np.ndarray, float, int, bool, list[Any], tuple[Any, ...], Dim
]

_READS_VALUE = {
    "bool": "fx.where(condition, x, y), or fx.cond(condition, f, g) to compute one side only",
    "number": "tensor arithmetic; the number is known when the compiled program runs",
    "array": "functions of fx instead of NumPy's; a tensor has no values while it is traced",
}


def _ops() -> ModuleType:
    from fluxc import ops

    return ops


class Operators:
    """What can be written on a tensor.  Parameters have it too: they are read as tensors.

    `x + y`, `x @ w`, `x[:, 0]`, `x.reshape(...)`, `x.sum(axis=1)`: NumPy's names and broadcasting.
    """

    __slots__ = ()
    __array_ufunc__ = None  # NumPy's arrays leave mixed operators to the ones here
    __hash__ = object.__hash__

    @property
    def type(self) -> ir.TensorType:
        raise NotImplementedError

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.type.shape

    @property
    def dtype(self) -> ElementType:
        return element_type(self.type.dtype)

    @property
    def ndim(self) -> int:
        return self.type.rank

    @property
    def size(self) -> Size:
        return self.type.size

    # Arithmetic.

    def __add__(self, other: TensorLike) -> Tensor:
        return _ops().add(self, other)

    def __radd__(self, other: TensorLike) -> Tensor:
        return _ops().add(other, self)

    def __sub__(self, other: TensorLike) -> Tensor:
        return _ops().subtract(self, other)

    def __rsub__(self, other: TensorLike) -> Tensor:
        return _ops().subtract(other, self)

    def __mul__(self, other: TensorLike) -> Tensor:
        return _ops().multiply(self, other)

    def __rmul__(self, other: TensorLike) -> Tensor:  # type: ignore[misc]
        return _ops().multiply(other, self)

    def __truediv__(self, other: TensorLike) -> Tensor:
        return _ops().divide(self, other)

    def __rtruediv__(self, other: TensorLike) -> Tensor:
        return _ops().divide(other, self)

    def __floordiv__(self, other: TensorLike) -> Tensor:
        return _ops().floor_divide(self, other)

    def __rfloordiv__(self, other: TensorLike) -> Tensor:
        return _ops().floor_divide(other, self)

    def __mod__(self, other: TensorLike) -> Tensor:
        return _ops().mod(self, other)

    def __rmod__(self, other: TensorLike) -> Tensor:
        return _ops().mod(other, self)

    def __pow__(self, other: TensorLike) -> Tensor:
        return _ops().power(self, other)

    def __rpow__(self, other: TensorLike) -> Tensor:
        return _ops().power(other, self)

    def __matmul__(self, other: TensorLike) -> Tensor:
        return _ops().matmul(self, other)

    def __rmatmul__(self, other: TensorLike) -> Tensor:
        return _ops().matmul(other, self)

    def __neg__(self) -> Tensor:
        return _ops().negative(self)

    def __pos__(self) -> Tensor:
        return as_tensor(self)

    def __abs__(self) -> Tensor:
        return _ops().abs(self)

    def __round__(self) -> Tensor:
        return _ops().round(self)

    # Bits and comparisons.

    def __and__(self, other: TensorLike) -> Tensor:
        return _ops().bitwise_and(self, other)

    def __rand__(self, other: TensorLike) -> Tensor:
        return _ops().bitwise_and(other, self)

    def __or__(self, other: TensorLike) -> Tensor:
        return _ops().bitwise_or(self, other)

    def __ror__(self, other: TensorLike) -> Tensor:
        return _ops().bitwise_or(other, self)

    def __xor__(self, other: TensorLike) -> Tensor:
        return _ops().bitwise_xor(self, other)

    def __rxor__(self, other: TensorLike) -> Tensor:
        return _ops().bitwise_xor(other, self)

    def __lshift__(self, other: TensorLike) -> Tensor:
        return _ops().left_shift(self, other)

    def __rlshift__(self, other: TensorLike) -> Tensor:
        return _ops().left_shift(other, self)

    def __rshift__(self, other: TensorLike) -> Tensor:
        return _ops().right_shift(self, other)

    def __rrshift__(self, other: TensorLike) -> Tensor:
        return _ops().right_shift(other, self)

    def __invert__(self) -> Tensor:
        return _ops().invert(self)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return _ops().equal(self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _ops().not_equal(self, other)

    def __lt__(self, other: TensorLike) -> Tensor:  # type: ignore[misc]
        return _ops().less(self, other)

    def __le__(self, other: TensorLike) -> Tensor:  # type: ignore[misc]
        return _ops().less_equal(self, other)

    def __gt__(self, other: TensorLike) -> Tensor:  # type: ignore[misc]
        return _ops().greater(self, other)

    def __ge__(self, other: TensorLike) -> Tensor:  # type: ignore[misc]
        return _ops().greater_equal(self, other)

    # Layout.

    def __getitem__(self, index: Any) -> Tensor:
        return _ops().getitem(self, index)

    @property
    def T(self) -> Tensor:  # noqa: N802
        """All axes reversed."""
        return _ops().transpose(self)

    @property
    def mT(self) -> Tensor:  # noqa: N802
        """The last two axes swapped."""
        return _ops().swapaxes(self, -1, -2)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        return _ops().reshape(self, shape[0] if _is_sequence(shape) else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """Axes in another order; all reversed by default."""
        return _ops().transpose(self, (axes[0] if _is_sequence(axes) else axes) or None)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        return _ops().swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Any = None) -> Tensor:
        return _ops().squeeze(self, axis)

    def ravel(self) -> Tensor:
        return _ops().reshape(self, (-1,))

    flatten = ravel

    def astype(self, dtype: DTypeLike) -> Tensor:
        """Another dtype: floats truncate to integers, saturated, NaN is 0; bool is `!= 0`."""
        return _ops().astype(self, dtype)

    def repeat(self, repeats: int, axis: int | None = None) -> Tensor:
        return _ops().repeat(self, repeats, axis)

    def take(self, indices: TensorLike, axis: int | None = None) -> Tensor:
        return _ops().take(self, indices, axis)

    # Reductions.

    def sum(self, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        return _ops().sum(self, axis, keepdims=keepdims)

    def prod(self, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        return _ops().prod(self, axis, keepdims=keepdims)

    def mean(self, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        return _ops().mean(self, axis, keepdims=keepdims)

    def max(self, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        return _ops().max(self, axis, keepdims=keepdims)

    def min(self, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        return _ops().min(self, axis, keepdims=keepdims)

    def any(self, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        return _ops().any(self, axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        return _ops().argmax(self, axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        return _ops().argmin(self, axis, keepdims=keepdims)

    def argsort(self, axis: int = -1, *, descending: bool = False) -> Tensor:
        return _ops().argsort(self, axis, descending=descending)

    def sort(self, axis: int = -1, *, descending: bool = False) -> Tensor:
        return _ops().sort(self, axis, descending=descending)

    def cumsum(self, axis: int | None = None) -> Tensor:
        return _ops().cumsum(self, axis)

    def cumprod(self, axis: int | None = None) -> Tensor:
        return _ops().cumprod(self, axis)

    def all(self, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        return _ops().all(self, axis, keepdims=keepdims)

    def var(self, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Tensor:
        return _ops().var(self, axis, ddof=ddof, keepdims=keepdims)

    def std(self, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Tensor:
        return _ops().std(self, axis, ddof=ddof, keepdims=keepdims)

    def clip(self, min: TensorLike | None = None, max: TensorLike | None = None) -> Tensor:
        return _ops().clip(self, min, max)

    def round(self) -> Tensor:
        return _ops().round(self)

    def dot(self, other: TensorLike) -> Tensor:
        return _ops().dot(self, other)

    # What a traced tensor cannot do.

    def __len__(self) -> int:
        if not self.shape:
            fail(TraceError, "a scalar has no length", got=str(self.type))
        if not isinstance(self.shape[0], int):
            fail(
                TraceError,
                f"len() of a tensor whose first size is the symbolic {self.shape[0]}",
                got=str(self.type),
                hint="x.shape[0] is the size; it may be used in arithmetic and shapes",
            )
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape or not isinstance(self.shape[0], int):
            fail(
                TraceError,
                "iteration over a tensor needs a first axis of fixed size",
                got=str(self.type),
                hint="whole-tensor functions, or fx.scan over the first axis",
            )
        return iter([self[i] for i in range(self.shape[0])])

    def __contains__(self, item: TensorLike) -> bool:
        return _no_value(self, "`in`", "bool")

    def __bool__(self) -> bool:
        return _no_value(self, "`if`, `while`, `and`, `or`, `not` or bool()", "bool")

    def __float__(self) -> float:
        return _no_value(self, "float()", "number")

    def __int__(self) -> int:
        return _no_value(self, "int()", "number")

    def __index__(self) -> int:
        return _no_value(self, "an index of a Python sequence, range() or a shape", "number")

    def __complex__(self) -> complex:
        return _no_value(self, "complex()", "number")

    def item(self) -> NoReturn:
        _no_value(self, "item()", "number")

    def tolist(self) -> NoReturn:
        _no_value(self, "tolist()", "array")

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return _no_value(self, "a NumPy function", "array")

    def __setitem__(self, index: Any, value: Any) -> None:
        fail(
            TraceError,
            "tensors are immutable: x[...] = y",
            got=str(self.type),
            hint="x = fx.where(mask, y, x), fx.dynamic_update_slice, or fx.scatter(x, index, y)",
        )


def _no_value(x: Operators, reader: str, what: str) -> NoReturn:
    fail(
        TraceError,
        f"{reader} reads the value of a tensor, which has none while it is traced",
        got=str(x.type),
        hint=_READS_VALUE[what],
    )


def _is_sequence(arguments: tuple[Any, ...]) -> bool:
    return len(arguments) == 1 and isinstance(arguments[0], tuple | list)


class Tensor(Operators):
    """A value of the program that is being traced.  Arithmetic on it adds to the program."""

    __slots__ = ("value",)

    def __init__(self, value: Value) -> None:
        self.value = value

    @property
    def type(self) -> ir.TensorType:
        return self.value.type

    def __repr__(self) -> str:
        return f"Tensor({self.type})"


def as_tensor(x: Any, dtype: DTypeLike | None = None) -> Tensor:
    """`x` as a tensor: a tensor, parameter, array, number, size, or nested lists of them.

    dtype  converts it; without it numbers become f32, i32 or bool.
    Errors TraceError for anything else.
    """
    if isinstance(x, Tensor):
        return x if dtype is None else cast(x, as_dtype(dtype))
    if isinstance(x, Operators):  # a parameter or a state
        return as_tensor(x.read(), dtype)  # type: ignore[attr-defined]
    if isinstance(x, np.ndarray):
        return _constant(x, as_dtype(dtype or x.dtype))
    if isinstance(x, list | tuple):
        return _from_list(x, dtype)
    kind = _scalar_kind(x)
    return scalar(x, as_dtype(dtype or kind))


def _scalar_kind(x: Any) -> type:
    """Python's type of a weak scalar."""
    if isinstance(x, bool | np.bool_):
        return bool
    if isinstance(x, int | np.integer | Dim):
        return int
    if not isinstance(x, float | np.floating):
        fail(
            TraceError,
            f"a {type(x).__name__} is not a tensor",
            expected="a tensor, a parameter, a NumPy array or a number",
            got=repr(x)[:80],
        )
    return float


def scalar(x: Any, dtype: ir.DType, shape: tuple[Size, ...] = ()) -> Tensor:
    """One number everywhere in `shape`; the number may be a size."""
    if isinstance(x, Dim):
        return _size_scalar(x, dtype, shape)
    number: Any = x.item() if isinstance(x, np.generic) else x
    if dtype.is_float:
        number = float(number)
    elif dtype.kind == "b":
        number = bool(number)
    else:
        number = _integer(number, dtype)
    return Tensor(emit("full", value=number, dtype=dtype, shape=shape))


def _integer(number: Any, dtype: ir.DType) -> int:
    low = -(2 ** (dtype.bits - 1)) if dtype.kind == "i" else 0
    high = low + 2**dtype.bits - 1
    if number != int(number) or not low <= number <= high:
        fail(DTypeError, f"{number} does not fit into {dtype}", expected=f"{low} .. {high}")
    return int(number)


def _size_scalar(x: Dim, dtype: ir.DType, shape: tuple[Size, ...]) -> Tensor:
    """A size as a number: known when the entry is called."""
    if dtype.is_float:
        return Tensor(emit("full", value=x, dtype=dtype, shape=shape))
    value = emit("full", value=x, dtype=ir.i64, shape=())
    return broadcast(cast(Tensor(value), dtype), shape)


def _from_list(x: Any, dtype: DTypeLike | None) -> Tensor:
    if _holds_tensors(x):
        return _ops().stack([as_tensor(item, dtype) for item in x])
    array = np.asarray(x)
    if array.dtype == object:
        fail(TraceError, "a ragged or mixed list is not a tensor", got=repr(x)[:80])
    default = {"f": ir.f32, "b": ir.bool_}.get(array.dtype.kind, ir.i32)
    return _constant(array, as_dtype(dtype or default))


def _holds_tensors(x: Any) -> bool:
    return any(
        _holds_tensors(i) if isinstance(i, list | tuple) else isinstance(i, Operators | Dim)
        for i in x
    )


def _constant(x: np.ndarray, dtype: ir.DType) -> Tensor:
    if x.dtype.kind not in "fiub":
        fail(DTypeError, f"a NumPy array of {x.dtype} is not a tensor")
    source = as_dtype(x.dtype)
    if dtype.name == "bf16":
        return cast(_constant(x, ir.f32), dtype)
    if x.size and source != dtype and dtype.is_integer and source.is_integer:
        _integer(x.min().item(), dtype), _integer(x.max().item(), dtype)
    stored = np.ascontiguousarray(x, dtype=dtype.numpy.newbyteorder("<"))
    if x.ndim == 0:
        return scalar(x.item(), dtype)
    return Tensor(emit("constant", data=stored.tobytes(), dtype=dtype, shape=x.shape))


def cast(x: Tensor, dtype: ir.DType) -> Tensor:
    return x if x.type.dtype == dtype else Tensor(emit("cast", x.value, dtype=dtype))


# Promotion.


def _is_weak(x: Any) -> bool:
    return not isinstance(x, Operators | np.ndarray) and not (
        isinstance(x, list | tuple) and _holds_tensors(x)
    )


def _weak_kind(x: Any) -> type:
    if isinstance(x, list | tuple):
        return {"f": float, "b": bool}.get(np.asarray(x).dtype.kind, int)
    return _scalar_kind(x)


def promote(left: ir.DType, right: ir.DType) -> ir.DType:
    """The dtype in which two tensors meet."""
    if left == right:
        return left
    if left.is_float or right.is_float:
        if not (left.is_float and right.is_float):
            return left if left.is_float else right
        if left.bits == right.bits:  # f16 and bf16
            return ir.f32
        return left if left.bits > right.bits else right
    if "b" in (left.kind, right.kind):
        return right if left.kind == "b" else left
    met = np.promote_types(left.numpy, right.numpy)
    return ir.i64 if met.kind == "f" else as_dtype(met)


def _with_weak(dtype: ir.DType, kind: type) -> ir.DType:
    if kind is float and not dtype.is_float:
        return ir.f32
    if kind is int and dtype.kind == "b":
        return ir.i32
    return dtype


def common_dtype(*xs: Any) -> ir.DType:
    """The dtype in which operands meet, by the rules at the top of this module."""
    met: ir.DType | None = None
    for x in xs:
        if not _is_weak(x):
            own = x.type.dtype if isinstance(x, Operators) else as_tensor_dtype(x)
            met = own if met is None else promote(met, own)
    kinds = [_weak_kind(x) for x in xs if _is_weak(x)]
    if met is None:
        met = ir.bool_
    for kind in kinds:
        met = _with_weak(met, kind)
    return met


def as_tensor_dtype(x: Any) -> ir.DType:
    return as_dtype(x.dtype) if isinstance(x, np.ndarray) else as_tensor(x).type.dtype


def operands(*xs: Any, dtype: ir.DType | None = None) -> tuple[Tensor, ...]:
    """The operands of an element-wise operation in one dtype and one shape.

    Errors  ShapeError if the shapes do not broadcast.
    """
    met = common_dtype(*xs) if dtype is None else dtype
    shaped = [x if is_number(x) else as_tensor(x, met) for x in xs]
    shape = broadcast_shapes(*(x.shape for x in shaped if isinstance(x, Tensor)))
    return tuple(
        broadcast(x, shape) if isinstance(x, Tensor) else scalar(x, met, shape) for x in shaped
    )


def is_number(x: Any) -> bool:
    return _is_weak(x) and not isinstance(x, list | tuple)


# Broadcasting.


def broadcast_shapes(*shapes: tuple[Size, ...]) -> tuple[Size, ...]:
    """The shape in which operands meet: axes align at the right, a size of 1 stretches."""
    rank = max((len(s) for s in shapes), default=0)
    met: list[Size] = []
    for axis in range(-rank, 0):
        sizes = {s[axis] for s in shapes if len(s) >= -axis and s[axis] != 1}
        if len(sizes) > 1:
            fail(
                ShapeError,
                "shapes do not broadcast: sizes differ at axis " + str(axis),
                got=" and ".join(f"[{', '.join(map(str, s))}]" for s in shapes),
                expected="equal sizes, or 1, axis by axis from the right",
            )
        met.append(next(iter(sizes), 1))
    return tuple(met)


def broadcast(x: Tensor, shape: tuple[Size, ...]) -> Tensor:
    """`x` stretched to `shape`, which it is known to fit."""
    if x.shape == shape:
        return x
    offset = len(shape) - x.ndim
    kept = [i for i, s in enumerate(x.shape) if s == shape[i + offset]]
    value = x.value
    if len(kept) < x.ndim:
        value = emit("reshape", value, shape=tuple(x.shape[i] for i in kept))
    if tuple(value.type.shape) == shape:
        return Tensor(value)
    axes = tuple(i + offset for i in kept)
    return Tensor(emit("broadcast", value, shape=shape, axes=axes))
