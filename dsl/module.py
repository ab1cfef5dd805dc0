"""Modules: trees of parameters with a `__call__`."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc import init as inits
from fluxc.compiler.errors import DTypeError, ShapeError, TraceError
from fluxc.compiler.ir.types import TensorType
from fluxc.tensor import Operators, Tensor, TensorLike, as_tensor, broadcast, cast
from fluxc.trace import current, fail, user_loc
from fluxc.types import DTypeLike, as_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

    from fluxc.trace import Trace

__all__ = [
    "Module", "Param", "State", "freeze", "is_container", "modules", "thaw", "trainables", "walk",
]  # fmt: skip


class Declared(Operators):
    """A tensor that lives in the model.  Declaring it allocates nothing.

    source  the tensor from whose first value its own is computed, if any; see `Derived`.
    """

    kind, noun = "", ""
    source: Declared | None = None

    def __init__(self, shape: Any, *, init: Any, dtype: DTypeLike) -> None:
        sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
        for s in sizes:
            if isinstance(s, bool) or not hasattr(s, "__index__") or s < 0:
                raise ShapeError(
                    f"{self.noun}: {s!r} is not a size",
                    loc=user_loc(),
                    expected="fixed sizes: integers >= 0",
                )
        self._type = TensorType(as_dtype(dtype), tuple(map(int, sizes)))
        self.init = self._checked(init)

    def _checked(self, init: Any) -> Any:
        if callable(init) or (isinstance(init, int | float) and not isinstance(init, bool)):
            return init
        if isinstance(init, np.ndarray | list | np.generic):
            array = np.array(init)
            if array.shape != self.type.shape:
                raise ShapeError(
                    f"{self.noun}: the initial value has another shape",
                    loc=user_loc(),
                    expected=str(self.type),
                    got=str(list(array.shape)),
                )
            return functools.partial(_given, array)
        raise DTypeError(
            f"{self.noun}: init={init!r}",
            loc=user_loc(),
            expected="a number, an array, or a function of (rng, shape) such as fx.init.randn",
        )

    @property
    def type(self) -> TensorType:
        return self._type

    @property
    def initial(self) -> float | Callable[[np.random.Generator], np.ndarray]:
        """The number that fills it, or a function of a generator that makes its first value."""
        if not callable(self.init):
            return float(self.init)
        shape = tuple(int(s) for s in self.type.shape)  # type: ignore[arg-type]
        return functools.partial(_initial, self.init, shape, self.type)

    def with_dtype(self, dtype: DTypeLike) -> Self:
        """Another tensor that is declared in the same way, of another dtype."""
        made = copy.copy(self)
        vars(made)["_type"] = TensorType(as_dtype(dtype), self.type.shape)
        return made

    def read(self) -> Tensor:
        """Its value at this point of the program that is being traced."""
        return Tensor(current(f"the value of {self!r}").read(self, self.type))

    def __repr__(self) -> str:
        return f"{self.noun}({self.type})"


def _given(array: np.ndarray, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The initialiser that gives one array."""
    del rng, shape
    return array


def _initial(
    init: Callable[..., np.ndarray],
    shape: tuple[int, ...],
    type: TensorType,
    rng: np.random.Generator,
) -> np.ndarray:
    array = np.asarray(init(rng, shape))
    if array.shape != shape:
        raise ShapeError(
            "an initialiser returned another shape", expected=str(type), got=str(list(array.shape))
        )
    return array


def _derived(
    source: Declared,
    init: Callable[..., np.ndarray],
    shape: tuple[int, ...],
    type: TensorType,
    rng: np.random.Generator,
) -> np.ndarray:
    """`init` of what the source's initialiser makes with the same generator."""
    first = source.initial
    filled = first(rng) if callable(first) else np.full(source.type.shape, first)  # type: ignore[type-var, arg-type]
    return _initial(lambda _, s: init(np.asarray(filled), s), shape, type, rng)


class Param(Declared):
    """A parameter that training changes.  In arithmetic it is its value.

    shape      fixed sizes.
    init       a number, an array, or a function of (rng, shape) such as `fx.init.randn`.
    trainable  False: training leaves it alone, though it is saved with the model.
    """

    kind, noun = "parameter", "Param"

    def __init__(
        self,
        shape: Any,
        init: Any = inits.glorot_uniform,
        dtype: DTypeLike = "f32",
        trainable: bool = True,
    ) -> None:
        super().__init__(shape, init=init, dtype=dtype)
        self.declared_trainable = trainable and self.type.dtype.is_float
        self.frozen = False

    @property
    def trainable(self) -> bool:
        return self.declared_trainable and not self.frozen


class Derived(Param):
    """A parameter whose first value is computed from that of another, its `source`.

    init  a function of (first value of the source, shape).
    """

    def __init__(self, source: Declared, shape: Any, init: Callable[..., np.ndarray]) -> None:
        super().__init__(shape, init=init, dtype=source.type.dtype)
        self.source: Declared = source

    @property
    def initial(self) -> float | Callable[[np.random.Generator], np.ndarray]:
        shape = tuple(int(s) for s in self.type.shape)  # type: ignore[arg-type]
        return functools.partial(_derived, self.source, self.init, shape, self.type)


class State(Declared):
    """A tensor that the model keeps but does not train, such as running statistics.

    In arithmetic it is its value; `state.assign(x)` in a training step, or in an entry
    under `fx.export(stateful=True)`, gives it a new one.
    """

    kind, noun = "state", "State"

    def __init__(self, shape: Any, init: Any = 0.0, dtype: DTypeLike = "f32") -> None:
        super().__init__(shape, init=init, dtype=dtype)

    def assign(self, value: TensorLike) -> None:
        """From here on the state has this value; the model keeps it when the call is over.

        Errors  TraceError in test mode; ShapeError if the value does not broadcast to the state.
        """
        trace = current("a state")
        if not trace.stateful:
            fail(
                TraceError,
                "a state is assigned in test mode, where entries change nothing",
                got=repr(self),
                hint="if fx.training(): state.assign(...), or @fx.export(stateful=True)",
            )
        x = cast(as_tensor(value), self.type.dtype)
        offset = len(self.type.shape) - x.ndim
        pairs = zip(x.shape, self.type.shape[max(offset, 0) :], strict=False)
        if offset < 0 or any(s not in (1, t) for s, t in pairs):
            fail(ShapeError, "assign to a state", expected=str(self.type), got=str(x.type))
        trace.read(self, self.type)  # what an entry changes is among what it is given
        trace.updates[self] = broadcast(x, self.type.shape).value


class Module:
    """The base class of layers and models.

    Assign parameters and other modules in `__init__`, compute in `__call__`:

        class Affine(fx.Module):
            def __init__(self, n):
                self.scale, self.shift = fx.Param(n, init=1.0), fx.Param(n, init=0.0)

            def __call__(self, x):
                return x * self.scale + self.shift

    Lists, tuples and dicts of modules are followed.  A parameter's name is its path:
    `layers.0.weight`; one that is reached on several ways has the name of the first.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__call__" in cls.__dict__:
            cls.__call__ = _called(cls.__dict__["__call__"])  # type: ignore[method-assign]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and isinstance(self.__dict__.get(name), Declared):
            fail(
                TraceError,
                f"{type(self).__name__}.{name} is declared once, and a tensor is assigned to it",
                got=str(value.type),
                hint="training changes parameters; a State changes by state.assign(x)",
            )
        super().__setattr__(name, value)

    def parameters(self) -> dict[str, Param]:
        """All parameters by name, each once."""
        return {path: p for path, p in walk(self) if isinstance(p, Param)}

    def states(self) -> dict[str, State]:
        """All states by name, each once."""
        return {path: s for path, s in walk(self) if isinstance(s, State)}

    def describe(self) -> str | None:
        """The constructor call that a layer prints as, or None for a tree of its parts."""
        return None

    def children(self) -> list[tuple[str, Any]]:
        """What a tree prints below it: names and modules, parameters, containers, functions."""
        return list(parts(self))

    def __repr__(self) -> str:
        from fluxc.show import show

        return show(self)


def _called(call: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps the path of the running module, for messages and names."""

    @functools.wraps(call)
    def wrapper(self: Module, *args: Any, **kwargs: Any) -> Any:
        trace = current(f"the result of {type(self).__name__}")
        if trace.path and trace.path[-1][0] is self:
            return call(self, *args, **kwargs)  # super().__call__
        if not trace.path:
            trace.called.append(self)
        trace.path.append((self, _path(trace, self)))
        try:
            return call(self, *args, **kwargs)
        except Exception:
            trace.failed = trace.failed or trace.layer
            raise
        finally:
            trace.path.pop()

    return wrapper


def _path(trace: Trace, module: Module) -> str:
    """Where a module that is being called stands: the caller's path and the way from there."""
    for owner, path in reversed(trace.path):
        for own, part in subtree(owner):
            if part is module:
                return f"{path}.{own}"
    name = type(module).__name__
    inside = f"{trace.path[-1][1]}.{name}" if trace.path else name
    return trace.variables.get(id(module), inside)


def is_container(x: Any) -> bool:
    """Whether modules and parameters are looked for inside."""
    return isinstance(x, Module | Declared | list | tuple | dict)


def parts(x: Any) -> Iterator[tuple[str, Any]]:
    """The named parts of a module or a container that may hold parameters."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(x, Module):
        items = vars(x).items()
    elif isinstance(x, dict):
        items = x.items()
    elif isinstance(x, list | tuple):
        items = enumerate(x)
    else:
        return
    yield from ((str(name), part) for name, part in items if is_container(part))


def subtree(x: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Everything below x with its path, each object once, in order of definition."""
    seen = set() if seen is None else seen
    for name, part in parts(x):
        if id(part) in seen:
            continue
        seen.add(id(part))
        own = f"{path}.{name}" if path else name
        yield own, part
        yield from subtree(part, own, seen)


def walk(x: Any) -> Iterator[tuple[str, Declared]]:
    """The parameters and states of a tree with their paths, each once."""
    if isinstance(x, Declared):
        yield "", x
    for path, part in subtree(x):
        if isinstance(part, Declared):
            yield path, part


def modules(tree: Any) -> list[Module]:
    """Every module of a tree, the tree itself first, each once, in order of definition."""
    own = [tree] if isinstance(tree, Module) else []
    return own + [
        part for _, part in subtree(tree) if isinstance(part, Module) and part is not tree
    ]


def trainables(tree: Any, path: bool = False) -> list[Any]:
    """The parameters that training changes, each once, in order of definition.

    path  gives pairs of a path such as `layers.0.weight` and the parameter.
    """
    found = [(p, leaf) for p, leaf in walk(tree) if isinstance(leaf, Param) and leaf.trainable]
    return found if path else [leaf for _, leaf in found]


def freeze(*trees: Any) -> Any:
    """Training leaves the parameters of these modules alone, until `thaw`; returns the modules.

    One module comes back as it is, several as a tuple.
    """
    return _set_frozen(trees, frozen=True)


def thaw(*trees: Any) -> Any:
    """Undo `freeze`; returns the modules, as it does.

    Parameters that were declared with trainable=False stay as they are.
    """
    return _set_frozen(trees, frozen=False)


def _set_frozen(trees: tuple[Any, ...], *, frozen: bool) -> Any:
    for tree in trees:
        if not is_container(tree):
            raise TraceError(f"a {type(tree).__name__} has no parameters", expected="a module")
        for _, leaf in walk(tree):
            if isinstance(leaf, Param):
                leaf.frozen = frozen
    return trees[0] if len(trees) == 1 else trees
