"""Copies of models in which something is another."""

from __future__ import annotations

import copy
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.compiler.errors import ShapeError, TraceError
from fluxc.compiler.ir.types import DType, TensorType, f32
from fluxc.module import Declared, Module, Param, is_container
from fluxc.ops.layout import split
from fluxc.tensor import Operators, Tensor, as_tensor, promote
from fluxc.trace import fail
from fluxc.transforms import custom_vjp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fluxc.tensor import TensorLike

__all__ = ["destructure", "rebuilt"]


def rebuilt(tree: Any, swap: Callable[[Any], Any]) -> Any:
    """A copy of a tree of modules in which `swap(part)` stands for each part.

    `swap` returns what it is given where nothing is to change.  What is reached on several ways is
    one in the copy too; what is no module, parameter, tensor or container is shared with the copy.
    """
    made: dict[int, Any] = {}

    def visit(x: Any) -> Any:
        leaf = isinstance(x, Declared | Tensor)
        if not leaf and not is_container(x):
            return x
        if id(x) not in made:
            new = swap(x)
            if not leaf:
                new = visit(new) if new is not x else inside(x)
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


def _numbers(tree: Any) -> list[Param | Tensor]:
    """The trainable parameters, and the float tensors that stand for such in a copy; each once, in
    the order of `trainables`."""
    seen: dict[int, Any] = {}

    def visit(x: Any) -> None:
        if id(x) not in seen and (isinstance(x, Tensor) or is_container(x)):
            seen[id(x)] = x
            for part in _inside(x):
                visit(part)

    visit(tree)
    return [x for x in seen.values() if isinstance(x, Tensor | Param) and _is_trained(x)]


def _inside(x: Any) -> Iterable[Any]:
    if isinstance(x, Declared | Tensor):
        return ()
    if isinstance(x, Module):
        return vars(x).values()
    return x.values() if isinstance(x, dict) else x


def _is_trained(x: Param | Tensor) -> bool:
    return x.trainable if isinstance(x, Param) else x.type.dtype.is_float


class Flat(Operators):
    """The trainable parameters of a model in one vector.  It is read where it is used."""

    def __init__(self, parameters: list[Param | Tensor]) -> None:
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
          where it is used.  Of a copy that `re` made, or another tree of float tensors, it has
          those.
    re    `re(v)` is a copy of the model in which parts of v, in the parameters' dtypes, stand for
          the parameters: call it, index it, differentiate by v.  It has the states of the model
          and those of its parameters that are not trained.
    Errors  TraceError for what is no model; ShapeError from `re` for a tensor that is not such a
            vector.
    """
    if not is_container(model):
        fail(TraceError, f"a {type(model).__name__} has no parameters", expected="a module")
    flat = Flat(_numbers(model))

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
