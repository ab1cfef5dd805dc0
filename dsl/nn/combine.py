"""Layers made of other layers.  Any callable is a layer: functions need no wrapping."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from fluxc import ops
from fluxc.compiler.errors import ShapeError, TraceError
from fluxc.module import Module
from fluxc.nn.checks import count
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluxc.tensor import Tensor

__all__ = ["Chain", "Maxout", "PairwiseFusion", "Parallel", "SkipConnection", "activations"]


def _checked_layers(
    kind: str, layers: tuple[Any, ...], named: dict[str, Any], *reserved: str
) -> Any:
    """The layers by position, as a tuple, or by name, as a dict."""
    if layers and named:
        fail(TraceError, f"{kind} takes layers by position or by name, not both")
    if len(layers) == 1 and isinstance(layers[0], list | tuple):
        layers = tuple(layers[0])
    for name in ("layers", *reserved):
        if name in named:
            fail(TraceError, f"{kind}: {name!r} is an attribute of it and names no layer")
    for layer in (*layers, *named.values()):
        _check_callable(kind, "a layer", layer)
    return named or layers


def _check_callable(kind: str, what: str, x: Any) -> None:
    if not callable(x):
        fail(TraceError, f"{kind}: {x!r} is not {what}", expected="something callable")
    if isinstance(x, type) and issubclass(x, Module):
        name = x.__name__
        fail(TraceError, f"{kind}: {name} is a kind of layer, not {what}", hint=f"nn.{name}(...)")


class _Sequence(Module):
    """Layers by position or by name, that can be counted, indexed, sliced and iterated over."""

    layers: Any

    def _all(self) -> tuple[Callable[..., Any], ...]:
        return tuple(self.layers.values()) if isinstance(self.layers, dict) else self.layers

    def _of(self, layers: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The same combination of other layers."""
        return type(self)(*layers, **named)

    def __getitem__(self, index: int | str | slice) -> Any:
        if isinstance(index, str):
            return self._named(index)
        if not isinstance(index, slice):
            return self._all()[index]
        if isinstance(self.layers, dict):
            return self._of((), {name: self.layers[name] for name in list(self.layers)[index]})
        return self._of(self.layers[index], {})

    def _named(self, name: str) -> Any:
        names = list(self.layers) if isinstance(self.layers, dict) else []
        if name not in names:
            fail(
                TraceError,
                f"{type(self).__name__} has no layer {name!r}",
                expected=" ".join(names) or "a number: its layers have no names",
            )
        return self.layers[name]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter(self._all())

    def children(self) -> list[tuple[str, Any]]:
        if isinstance(self.layers, dict):
            return list(self.layers.items())
        return [(str(i), layer) for i, layer in enumerate(self.layers)]


class Chain(_Sequence):
    """One layer after the other.

        layers[n](... layers[1](layers[0](x)))

    `Chain(a, b)` and `Chain([a, b])` name their layers 0, 1; `Chain(encoder=a, decoder=b)` by
    keyword.  `chain[0]` and `chain["encoder"]` are layers, `chain[:2]` is a Chain of the same
    layers; `len(chain)` and iteration work.  Without layers it is the identity.  Called with
    several arguments it hands them to the first layer as a tuple.  PyTorch's Sequential.

    Errors  TraceError for what is not callable, a layer named `layers`, names and positions
            together, or a name that is not there.
    """

    def __init__(self, *layers: Any, **named: Callable[..., Any]) -> None:
        self.layers = _checked_layers("Chain", layers, named)

    def __call__(self, *xs: Any) -> Any:
        x = _packed("Chain", xs)
        for layer in self._all():
            x = layer(x)
        return x


def _packed(kind: str, xs: tuple[Any, ...]) -> Any:
    """The only argument, or the tuple of several."""
    if not xs:
        fail(TraceError, f"{kind} is called without an input")
    return xs[0] if len(xs) == 1 else xs


def activations(chain: Any, *xs: Any) -> tuple[Any, ...]:
    """The output of every layer of a Chain, first to last: the last is `chain(*xs)`.

    Errors  TraceError for anything but a Chain, or a list or tuple of layers.
    """
    if not isinstance(chain, Chain | list | tuple):
        fail(TraceError, "activations of what is no Chain", got=type(chain).__name__)
    x, found = _packed("activations", xs), []
    for layer in chain:
        x = layer(x)
        found.append(x)
    return tuple(found)


class SkipConnection(Module):
    """A layer and a way around it.

        connection(layers(x), x)

    connection  any function of two tensors: `fx.add`, `lambda y, x: fx.concatenate([y, x], 1)`, or
                a layer of two inputs with parameters of its own.
    """

    def __init__(self, layers: Callable[..., Any], connection: Callable[..., Any]) -> None:
        _check_callable("SkipConnection", "a layer", layers)
        _check_callable("SkipConnection", "a connection", connection)
        self.layers, self.connection = layers, connection

    def __call__(self, *xs: Any) -> Any:
        x = _packed("SkipConnection", xs)
        return self.connection(self.layers(x), x)

    def children(self) -> list[tuple[str, Any]]:
        return [("", self.layers), ("", self.connection)]


class _Branches(_Sequence):
    """Layers beside one another, and what joins them."""

    def __init__(self, connection: Callable[..., Any], /, *layers: Any, **named: Any) -> None:
        kind = type(self).__name__
        _check_callable(kind, "a connection", connection)
        self.connection = connection
        self.layers = _checked_layers(kind, layers, named, "connection")
        if not self.layers:
            fail(TraceError, f"{kind} needs at least one layer")

    def _of(self, layers: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return type(self)(self.connection, *layers, **named)

    def _inputs(self, xs: tuple[Any, ...]) -> tuple[Any, ...]:
        """What came: several arguments, or a tuple of them."""
        inputs = tuple(xs[0]) if len(xs) == 1 and isinstance(xs[0], tuple | list) else xs
        if not inputs:
            fail(TraceError, f"{type(self).__name__} is called without an input")
        return inputs

    def _fail_count(self, got: int) -> None:
        fail(
            ShapeError,
            f"{type(self).__name__}: as many inputs as layers, or one for all of them",
            expected=f"{len(self)} inputs",
            got=f"{got} inputs",
        )

    def children(self) -> list[tuple[str, Any]]:
        return [("", self.connection), *super().children()]


class Parallel(_Branches):
    """Layers side by side, whose outputs one function joins.

        Parallel(connection, f, g)(x)        connection(f(x), g(x))
        Parallel(connection, f, g)(x, y)     connection(f(x), g(y))
        Parallel(connection, f)(x, y)        connection(f(x), f(y))

    connection  a function of as many tensors, such as `fx.add` or `nn.Bilinear(...)`, whose
                parameters are trained; `tuple` and `list` keep the outputs apart, in one of those.
    A tuple or list of tensors counts as that many inputs: so Parallel may follow a layer that
    returns several.  Layers are named, indexed and sliced as those of Chain are.

    Errors  TraceError without layers or inputs; ShapeError for another number of inputs.
    """

    def __call__(self, *xs: Any) -> Any:
        layers, inputs = self._all(), self._inputs(xs)
        if len(inputs) == 1:
            inputs = inputs * len(layers)
        elif len(layers) == 1:
            layers = layers * len(inputs)
        if len(inputs) != len(layers):
            self._fail_count(len(inputs))
        outputs = [f(x) for f, x in zip(layers, inputs, strict=True)]
        if self.connection in (tuple, list):
            return self.connection(outputs)
        return self.connection(*outputs)


class PairwiseFusion(_Branches):
    """Layers in a row, each of which sees the output before it joined with an input of its own.

        y[0] = layers[0](x[0]),  y[i] = layers[i](connection(y[i-1], x[i]))  ->  (y[0], y[1], ...)

    One input stands for every x[i].  A tuple or list of tensors counts as that many inputs.

    Errors  TraceError without layers or inputs; ShapeError for another number of inputs.
    """

    def __call__(self, *xs: Any) -> tuple[Any, ...]:
        inputs = self._inputs(xs)
        if len(inputs) == 1:
            inputs = inputs * len(self)
        if len(inputs) != len(self):
            self._fail_count(len(inputs))
        first, *others = self._all()
        outputs = [first(inputs[0])]
        for layer, x in zip(others, inputs[1:], strict=True):
            outputs.append(layer(self.connection(outputs[-1], x)))
        return tuple(outputs)


class Maxout(_Sequence):
    """The greatest of what several layers give, element by element.

        max(layers[0](x), layers[1](x), ...)

    `Maxout(a, b, c)`, or `Maxout(f, n)`: n layers, each what `f()` returns.
    At ties the gradient is as `fx.maximum` has it.

    Errors  TraceError without layers.
    """

    def __init__(self, *layers: Any) -> None:
        if len(layers) == 2 and callable(layers[0]) and not callable(layers[1]):
            number = count("Maxout: the number of layers", layers[1])
            layers = tuple(layers[0]() for _ in range(number))
        self.layers = _checked_layers("Maxout", layers, {})
        if not self.layers:
            fail(TraceError, "Maxout needs at least one layer")

    def __call__(self, *xs: Any) -> Tensor:
        greatest: Tensor = functools.reduce(ops.maximum, (layer(*xs) for layer in self.layers))
        return greatest
