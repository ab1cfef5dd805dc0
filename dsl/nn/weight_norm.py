"""Weights as a direction and a length."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc import ops
from fluxc.compiler.errors import DTypeError, ShapeError, TraceError
from fluxc.module import Derived, Module, Param, modules, walk
from fluxc.nn.checks import function_name
from fluxc.ops.layout import normal_axes
from fluxc.ops.normalisation import widened
from fluxc.rebuild import rebuilt
from fluxc.tensor import as_tensor
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["WeightNorm", "remove_weight_norms"]


class WeightNorm(Module):
    """A layer one of whose weights is a length times a direction, trained apart.

        w = g * v / sqrt(sum of v**2 over dims + eps)

    with the eps of the dtype, at least of f32.

    v is the layer's own parameter `which`, under its own name; g is a parameter beside the layer,
    [...] with size 1 along `dims`.  g starts as the length of v, so that w starts as v.

    which   the name of the parameter.
    dims    the axes that a length is summed over.  -1, the default: all but the first, so that each
            output of the layer has a length of its own (of a vector, its only axis); None: all.
    PyTorch's `weight_norm`, whose `dim` is the axis that is kept.
    Errors  TraceError if the layer has no such parameter; ShapeError for an axis that it has not,
            or if it starts as zeros, which have no direction: at once where its first value is the
            number 0, else when first values are drawn.
    """

    def __init__(self, layer: Callable[..., Any], which: str = "weight", *, dims: Any = -1) -> None:
        own: dict[str, Any] = vars(layer) if isinstance(layer, Module) else {}
        v = own.get(which)
        if not isinstance(v, Param):
            names = [n for n, p in own.items() if isinstance(p, Param)]
            fail(
                TraceError,
                f"WeightNorm: {function_name(layer)} has no parameter {which!r}",
                expected=" ".join(names) or "a layer with parameters of its own",
                got=type(v).__name__,
            )
        self.layer, self.which, self.dims = layer, which, dims
        if v.initial == 0.0:
            _fail_zeros(which)
        axes = self.axes_of(v)
        sizes = tuple(1 if i in axes else s for i, s in enumerate(v.shape))
        self.g = Derived(v, sizes, functools.partial(_lengths, axes, which))

    def axes_of(self, v: Any) -> tuple[int, ...]:
        """The axes that a length of v is summed over."""
        if isinstance(self.dims, int) and self.dims == -1:
            return tuple(range(min(1, v.ndim - 1), v.ndim))
        return normal_axes(self.dims, v.ndim)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        v = as_tensor(vars(self.layer)[self.which])
        wide = widened(v)
        squares = ops.sum(wide * wide, self.axes_of(v), keepdims=True)
        factor = as_tensor(self.g, wide.dtype) * ops.rsqrt(squares + ops.finfo(wide.dtype).eps)
        bare = copy.copy(self.layer)
        vars(bare)[self.which] = as_tensor(wide * factor, v.dtype)
        return bare(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """What only the layer has, such as a cell's `initialstates`."""
        if name.startswith("__") or "layer" not in vars(self):
            raise AttributeError(name)
        return getattr(self.layer, name)

    def children(self) -> list[tuple[str, Any]]:
        return [("", self.layer), ("g", self.g)]


def _fail_zeros(which: str) -> None:
    fail(
        ShapeError,
        f"WeightNorm: {which!r} starts as zeros, which have no direction",
        hint="init=fx.init.glorot_uniform",
    )


def _lengths(
    axes: tuple[int, ...], which: str, v: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """The first value of g."""
    wide = v.astype(np.float64)
    if wide.size and not wide.any():
        _fail_zeros(which)
    lengths: np.ndarray = np.sqrt((wide * wide).sum(axes))
    return lengths.reshape(shape)


def _product(g: np.ndarray, v: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The weight of a length and a direction."""
    if v.dtype.kind != "f":
        raise DTypeError(
            "remove_weight_norms: values that are no floats",
            got=str(v.dtype),
            hint="convert bf16, which NumPy has not, to f32",
        )
    wide = v.astype(np.result_type(v, np.float32))
    eps = np.finfo(wide.dtype).eps
    w: np.ndarray = g * wide / np.sqrt((wide * wide).sum(axes, keepdims=True) + eps)
    return w.astype(v.dtype)


def remove_weight_norms(model: Any, values: Mapping[str, Any] | None = None) -> Any:
    """A copy of the model in which layers stand for their WeightNorm.

    Declaring a model allocates no values, so there is nothing to fold in a model file: g starts as
    the length of v, and the layer without WeightNorm starts as the layer with it.  To go on from
    trained values, give them by name, such as an artifact's `m.parameters` or the contents of its
    weights file; then the result is the pair of the copy and its values, in which g is multiplied
    into v and names have lost the part that WeightNorm added.

    values  names as of an artifact whose only root is `model`: `layers.0.layer.weight`.
    Errors  TraceError if g or v of a WeightNorm is missing among the values; DTypeError if they
            are no floats, as the bits of bf16 are not.
    """
    plain = rebuilt(model, lambda x: x.layer if isinstance(x, WeightNorm) else x)
    if values is None:
        return plain
    found = {name: np.asarray(value) for name, value in values.items()}
    old = {id(leaf): name for name, leaf in walk(model)}
    for wrapper in (m for m in modules(model) if isinstance(m, WeightNorm)):
        v = vars(wrapper.layer)[wrapper.which]
        names = old[id(wrapper.g)], old[id(v)]
        for name in names:
            if name not in found:
                raise TraceError(f"remove_weight_norms: no value {name}", got=" ".join(found))
        found[names[1]] = _product(found.pop(names[0]), found[names[1]], wrapper.axes_of(v))
    new = {old[id(leaf)]: name for name, leaf in walk(plain)}
    return plain, {new.get(name, name): value for name, value in found.items()}
