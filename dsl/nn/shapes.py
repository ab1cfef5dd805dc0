"""What a model makes of sizes, found by tracing: nothing is computed and nothing allocated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError, TraceError
from fluxc.compiler.ir.dims import Dim
from fluxc.export import trace_exports
from fluxc.jit import Typed
from fluxc.nn.combine import Chain
from fluxc.trace import fail, user_loc
from fluxc.types import DTypeLike, TensorSpec, as_dtype

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.types import TensorType

__all__ = ["autosize", "outputsize", "sized"]


def outputsize(model: Any, *sizes: Any, padbatch: bool = False, dtype: DTypeLike = "f32") -> Any:
    """The shape of what a model returns for inputs of these shapes, in test mode.

        fx.outputsize(model, ("batch", 3, 32, 32))            # ("batch", 10)
        fx.outputsize(nn.Parallel(fx.add, f, g), (8, 4), (8, 5))
        fx.outputsize(model, (3, 32, 32), padbatch=True)      # (1, 10)

    model     a layer, any function of tensors, or a list or tuple of layers, one after the other.
    sizes     a shape for each input, of integers, names, arithmetic on names, or `fx.dim`s; or a
              tensor type, `fx.i32["batch", 5]`, for an input of another dtype than `dtype`.
    padbatch  puts a batch of 1 before each shape; the result has it too.
    Symbolic sizes come back as they were given: as text where they were names, such as "2*n + 1",
    else as `fx.dim`s.  What is no single tensor comes back as the same nesting of shapes.
    Errors    those of the model; TraceError without a shape.
    """
    if not sizes:
        fail(
            TraceError, "outputsize needs the shape of an input", hint="fx.outputsize(model, (8,))"
        )
    model = Chain(*model) if isinstance(model, list | tuple) else model
    specs = [_spec(s, dtype, padbatch) for s in sizes]
    as_text = not any(isinstance(d, Dim) for spec in specs for d in spec.dims)
    entry = Typed(model, "outputsize", specs)
    entry.loc = user_loc() or entry.loc
    (traced,) = trace_exports([entry], {"model": model}, anywhere=True).entries
    shapes = iter([_shape(v.type, as_text) for v in traced.graph.results])
    return _nested(traced.output_tree, shapes)


def _spec(size: Any, dtype: DTypeLike, padbatch: bool) -> TensorSpec:
    batch = (1,) if padbatch else ()
    if isinstance(size, TensorSpec):
        return TensorSpec(size.dtype, (*batch, *size.dims))
    if not isinstance(size, tuple | list):
        fail(ShapeError, f"outputsize: {size!r} is no shape", expected="a tuple of sizes")
    return TensorSpec(as_dtype(dtype), (*batch, *size))


def _shape(type: TensorType, as_text: bool) -> tuple[Any, ...]:
    return tuple(str(s) if as_text and isinstance(s, Dim) else s for s in type.shape)


def _nested(tree: Any, shapes: Any) -> Any:
    if tree == "leaf":
        return next(shapes)
    kind, parts = tree
    if kind == "dict":
        return {name: _nested(part, shapes) for name, part in parts.items()}
    made = [_nested(part, shapes) for part in parts]
    return tuple(made) if kind == "tuple" else made


class sized:  # noqa: N801
    """A layer that is made when its input's size is known, for `nn.autosize`.

        nn.sized(lambda n: nn.Dense(n, 10))

    make  gets the size of the input's axis `axis`, by default 1: features of [batch, features],
          channels of [batch, channels, ...]; axis=-1 is the last, as for [batch, time, features].
    """

    def __init__(self, make: Callable[[int], Any], axis: int = 1) -> None:
        self.make, self.axis = make, axis

    def layer(self, shape: tuple[Any, ...]) -> Any:
        """The layer for an input of this shape.  Errors  ShapeError if its size is symbolic."""
        if not -len(shape) <= self.axis < len(shape):
            fail(
                ShapeError,
                f"autosize: the input of a layer has no axis {self.axis}",
                got=f"{shape}",
            )
        size = shape[self.axis]
        if not isinstance(size, int):
            fail(
                ShapeError,
                f"autosize: the size of axis {self.axis}, which a layer is made for, is not fixed",
                got=str(size),
            )
        return self.make(size)


def autosize(size: Any, *layers: Any, dtype: DTypeLike = "f32") -> Any:
    """A Chain whose layers learn the sizes of their inputs from the layers before them.

        nn.autosize(
            ("batch", 1, 28, 28),
            nn.sized(lambda n: nn.Conv((3, 3), n, 6, fx.relu)),
            nn.MaxPool((2, 2)),
            nn.flatten,
            nn.sized(lambda n: nn.Dense(n, 10)),
        )

    size    the shape of the input, as `fx.outputsize` takes it.
    layers  layers, and `nn.sized` where one needs a size.
    Flux's `@autosize`, in which `_` stands for a size.
    Errors  those of the layers; ShapeError where a size that is needed is symbolic.
    """
    made: list[Any] = []
    spec = _spec(size, dtype, padbatch=False)
    for layer in layers:
        if isinstance(layer, sized):
            shape = outputsize(made, spec) if made else tuple(spec.dims)
            layer = layer.layer(shape)  # noqa: PLW2901
        made.append(layer)
    return Chain(*made)
