"""Copies of models in which something is another."""

from __future__ import annotations

import copy
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.compiler.errors import ShapeError, TraceError
from fluxc.compiler.ir.types import DType, TensorType, f32
from fluxc.module import Declared, Module, Param, is_container, trainables
from fluxc.ops.layout import split
from fluxc.tensor import Operators, Tensor, as_tensor, promote
from fluxc.trace import fail
from fluxc.transforms import custom_vjp

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.tensor import TensorLike

__all__ = ["destructure", "rebuilt"]


def rebuilt(tree: Any, swap: Callable[[Any], Any]) -> Any:
    """A copy of a tree of modules in which `swap(part)` stands for each part.

    `swap` returns what it is given where nothing is to change.  What is reached on several ways is
    one in the copy too; what is neither module, parameter nor container is shared with the copy.
    """
    made: dict[int, Any] = {}

    def visit(x: Any) -> Any:
        if not is_container(x):
            return x
        if id(x) not in made:
            new = swap(x)
            if new is not x and not isinstance(x, Declared):
                new = visit(new)
            elif not isinstance(x, Declared):
                new = inside(x)
            made[id(x)] = new
        return made[id(x)]

    def inside(x: Any) -> Any:
        if isinstance(x, Module):
            new = made[id(x)] = copy.copy(x)
            vars(new).update({name: visit(part) for name, part in vars(x).items()})
            return new
        if isinstance(x, dict):
            return copy.copy(x) | {key: visit(part) for key, part in x.items()}
        parts = [visit(part) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)

    return visit(tree)


class Flat(Operators):
    """The trainable parameters of a model in one vector.  It is read where it is used."""

    def __init__(self, parameters: list[Param]) -> None:
        self.parameters = parameters
        dtype: DType = parameters[0].type.dtype if parameters else f32
        for p in parameters:
            dtype = promote(dtype, p.type.dtype)
        count = sum(int(p.size) for p in parameters)  # type: ignore[misc, arg-type]
        self._type = TensorType(dtype, (count,))

    @property
    def type(self) -> TensorType:
        return self._type

    def read(self) -> Tensor:
        """The present values, one parameter after the other."""
        if not self.parameters:
            return ops.zeros(0, self.dtype)
        return ops.concatenate([as_tensor(p, self.dtype).ravel() for p in self.parameters])

    def taken_apart(self, vector: Tensor) -> tuple[Tensor, ...]:
        """The parts of such a vector as tensors like the parameters.

        Its derivative is given: one concatenation, not a sum of as many vectors as there are parts.
        """
        return custom_vjp(self._parts, self._joined)(vector)  # type: ignore[no-any-return]

    def _parts(self, vector: Tensor) -> tuple[Tensor, ...]:
        ends = list(accumulate(int(p.size) for p in self.parameters))  # type: ignore[arg-type]
        pairs = zip(self.parameters, split(vector, ends[:-1]), strict=True)
        return tuple(as_tensor(part.reshape(p.shape), p.dtype) for p, part in pairs)

    def _joined(
        self, vectors: tuple[Tensor], parts: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]
    ) -> tuple[Tensor]:
        del parts
        dtype = vectors[0].dtype
        return (ops.concatenate([as_tensor(c, dtype).ravel() for c in cotangents]),)

    def __repr__(self) -> str:
        return f"Flat({self.type})"


def destructure(model: Any) -> tuple[Flat, Callable[[TensorLike], Any]]:
    """The trainable parameters of a model in one vector, and the model as a function of such one.

        flat, re = fx.destructure(model)
        fx.grad(lambda v: loss(re(v), x))(flat)

    flat  a tensor [count], in the order of `nn.trainables` and row by row; a parameter that is
          reached on several ways is in it once.  Its values are those at the place of the program
          where it is used.
    re    `re(v)` is a copy of the model in which parts of v, in the parameters' dtypes, stand for
          the parameters: call it, index it, differentiate by v.  It has the states of the model
          and those of its parameters that are not trained.
    Errors  TraceError for what is no model; ShapeError from `re` for a tensor that is not such a
            vector.
    """
    if not is_container(model):
        fail(TraceError, f"a {type(model).__name__} has no parameters", expected="a module")
    flat = Flat(trainables(model))

    def re(vector: TensorLike) -> Any:
        v = as_tensor(vector)
        if v.shape != flat.shape or not v.type.dtype.is_float:
            fail(
                ShapeError,
                "the vector does not hold the parameters of the model",
                expected=str(flat.type),
                got=str(v.type),
            )
        parts = flat.taken_apart(v) if flat.parameters else ()
        found = {id(p): part for p, part in zip(flat.parameters, parts, strict=True)}
        return rebuilt(model, lambda x: found.get(id(x), x))

    return flat, re
