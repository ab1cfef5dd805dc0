"""Derivatives inside a program, of any order: each may be used inside the others.

An argument is a tensor, a nested tuple, list or dict of tensors, or a module.  The gradient with
respect to a tensor is a tensor; to a container, the same container; to a module, a dict from the
names of its trainable parameters (`layers.0.weight`) to gradients.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from fluxc.compiler.autodiff import pullback
from fluxc.compiler.errors import DTypeError, ShapeError, TraceError
from fluxc.compiler.ir.graph import Value
from fluxc.module import Declared, Module, trainables
from fluxc.tensor import Tensor, as_tensor, broadcast, cast, scalar
from fluxc.trace import Trace, close, current, emit, emit_all, fail, user_loc
from fluxc.tree import leaves, map_leaves, refill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fluxc.compiler.ir.graph import Node

__all__ = ["custom_vjp", "grad", "hook", "value_and_grad", "vjp"]


class Differentiated:
    """Arguments with respect to which a derivative is taken: fresh values stand for them."""

    def __init__(self, arguments: Sequence[Any]) -> None:
        self.wrt: list[Value] = []
        self.shadows: dict[Any, Value] = {}
        self.arguments = [self._shadowed(a) for a in arguments]
        self.originals = list(arguments)

    def _shadowed(self, tree: Any) -> Any:
        if isinstance(tree, Module):
            for _, p in trainables(tree, path=True):
                self._declare(p)
            return tree
        return map_leaves(self._leaf, tree)

    def _leaf(self, x: Any) -> Any:
        if isinstance(x, Module):
            return self._shadowed(x)
        if isinstance(x, Declared):
            self._declare(x)
            return x
        t = as_tensor(x)
        if not t.type.dtype.is_float:
            fail(
                DTypeError,
                "a derivative with respect to a tensor that is not float",
                got=str(t.type),
                hint="argnums=... to choose other arguments",
            )
        self.wrt.append(emit("identity", t.value))
        return Tensor(self.wrt[-1])

    def _declare(self, p: Declared) -> None:
        if p not in self.shadows:
            self.shadows[p] = emit("identity", as_tensor(p).value)
            self.wrt.append(self.shadows[p])

    def results(self, cotangents: Sequence[Value | None]) -> list[Any]:
        """One gradient for each argument, in its structure; zeros where nothing leads there."""
        by_value = dict(zip(self.wrt, map(or_zeros, cotangents, self.wrt), strict=True))
        return [map_leaves(lambda t: by_value[t.value], place) for place in self.places()]

    def places(self) -> list[Any]:
        """The tensors with respect to which each argument is differentiated, in the structure of
        its gradient."""

        def leaf(x: Any) -> Any:
            if isinstance(x, Module):
                return {path: Tensor(self.shadows[p]) for path, p in trainables(x, path=True)}
            return Tensor(self.shadows[x]) if isinstance(x, Declared) else x

        return [map_leaves(leaf, tree) for tree in self.arguments]


def or_zeros(found: Value | None, like: Value) -> Tensor:
    """A derivative; zeros like `like` where there is none."""
    return scalar(0, like.type.dtype, like.type.shape) if found is None else Tensor(found)


def chosen(argnums: int | Sequence[int], count: int, name: str) -> list[int]:
    numbers = [argnums] if isinstance(argnums, int) else list(argnums)
    for n in numbers:
        if not -count <= n < count:
            fail(TraceError, f"{name}: argnums {n} of {count} positional arguments")
    return [n % count for n in numbers]


def value_and_grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that returns f's value and its gradient with respect to chosen arguments.

    f        returns a float scalar; with has_aux, a pair of it and anything else, as the value.
    argnums  position of the argument, or several: then the gradients are a tuple.
    Errors   ShapeError if the value is not a scalar; DTypeError if an argument is not float.
    """

    @functools.wraps(f)
    def derived(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        trace = current("a gradient")
        numbers = chosen(argnums, len(args), "grad")
        wrt = Differentiated([args[n] for n in numbers])
        replaced = list(args)
        for n, argument in zip(numbers, wrt.arguments, strict=True):
            replaced[n] = argument
        start = len(trace.builder.nodes)
        with trace.shadowing(wrt.shadows):
            result, *aux = split_aux(f(*replaced, **kwargs), has_aux)
        value = scalar_float(result, "grad")
        nodes = tuple(trace.builder.nodes[start:])
        one = ones_like(value)
        gradients = wrt.results(pullback(trace.builder, nodes, [value.value], [one], wrt.wrt))
        found = gradients[0] if isinstance(argnums, int) else tuple(gradients)
        return (value, *aux) if has_aux else value, found

    return derived


def split_aux(result: Any, has_aux: bool) -> tuple[Any, ...]:
    """What a function returned: (value,), or with `has_aux` (value, aux)."""
    if not has_aux:
        return (result,)
    if not (isinstance(result, tuple) and len(result) == 2):
        fail(TraceError, "has_aux=True needs a function that returns (value, aux)")
    return result


def ones_like(x: Tensor) -> Value:
    return scalar(1.0, x.type.dtype, x.shape).value


def scalar_float(x: Any, what: str) -> Tensor:
    """A float scalar, or an error that says what came instead."""
    t = as_tensor(x)
    if t.shape != () or not t.type.dtype.is_float:
        fail(
            ShapeError,
            f"{what} of a function whose value is not a float scalar",
            expected="f32[]",
            got=str(t.type),
            hint="loss.mean() or loss.sum()" if t.shape else "",
        )
    return t


def grad(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the gradient of f, as `value_and_grad`; or (gradient, aux)."""
    both = value_and_grad(f, argnums, has_aux=has_aux)

    @functools.wraps(f)
    def derived(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return derived


def traced(f: Callable[..., Any], args: Sequence[Any], has_aux: bool) -> tuple[Any, ...]:
    """Call f on arguments that derivatives can be taken with respect to: these, the nodes of the
    call, its result in tensors, and what else it returned."""
    trace = current("a derivative")
    wrt = Differentiated(args)
    start = len(trace.builder.nodes)
    with trace.shadowing(wrt.shadows):
        value, *aux = split_aux(f(*wrt.arguments), has_aux)
    nodes = tuple(trace.builder.nodes[start:])
    return (wrt, nodes, map_leaves(as_tensor, value), *aux)


def vjp(f: Callable[..., Any], *args: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """f(*args), and a function from a cotangent of that to the cotangents of all arguments.

    The cotangent has the structure, shapes and dtypes of the result; None in it is zero.
    has_aux  f returns (value, aux); the third part is aux.
    """
    wrt, nodes, result, *aux = traced(f, args, has_aux)
    builder, outputs = current().builder, [t.value for t in leaves(result)]

    def pull(cotangent: Any) -> tuple[Any, ...]:
        given = leaves(cotangent)
        if len(given) != len(outputs):
            fail(
                ShapeError,
                "vjp: the cotangent has another structure than the result",
                expected=f"{len(outputs)} tensors",
                got=f"{len(given)}",
            )
        pairs = zip(given, outputs, strict=True)
        values = [
            None if c is None or not v.type.dtype.is_float else like(c, v, "vjp: a cotangent")
            for c, v in pairs
        ]
        return tuple(wrt.results(pullback(builder, nodes, outputs, values, wrt.wrt)))

    return (result, pull, *aux)


def like(x: Any, value: Value, what: str) -> Value:
    """x in the type of `value`: numbers broadcast, anything else must fit."""
    t = cast(as_tensor(x), value.type.dtype)
    if t.shape == ():
        t = broadcast(t, value.type.shape)
    if t.type != value.type:
        fail(ShapeError, f"{what} has the wrong shape", expected=str(value.type), got=str(t.type))
    return t.value


# A function with its own derivative.


class custom_vjp:  # noqa: N801
    """A function whose derivative is given instead of derived.

        @fx.custom_vjp
        def clipped(x): return x
        clipped.defvjp(lambda x: (x, x), lambda x, dy: (fx.where(abs(x) < 1, dy, 0),))

    defvjp(forward, backward): forward(*args) returns (result, residuals), anything that backward
    needs; backward(residuals, cotangent) returns one cotangent for each argument, None for zero.
    Shorter, `fx.custom_vjp(f, backward)` with backward(args, result, cotangent).

    Both see their arguments alone: a float tensor or a parameter from outside is an error, since
    its gradient would be lost; pass it as an argument, or wrap it in `fx.stop_gradient`.
    """

    def __init__(
        self, f: Callable[..., Any], backward: Callable[..., tuple[Any, ...]] | None = None
    ) -> None:
        functools.update_wrapper(self, f)
        self.f = f
        self.forward: Callable[..., tuple[Any, Any]] | None = None
        self.backward = backward

    def defvjp(
        self,
        forward: Callable[..., tuple[Any, Any]],
        backward: Callable[..., tuple[Any, ...]],
    ) -> None:
        """Give the derivative in two parts; see the class."""
        self.forward, self.backward = forward, backward

    def __call__(self, *args: Any) -> Any:
        if self.backward is None:
            fail(TraceError, f"{self.f.__name__} has no derivative yet", hint="f.defvjp(fwd, bwd)")
        trace = current(f"the result of {self.f.__name__}")
        return _Call(trace, self, args).emit()


def hook(f: Callable[[Any], Any], x: Any) -> Any:
    """x, whose cotangent becomes f(cotangent) on the way back: to clip, scale or mask a gradient.

        fx.grad(lambda a, b: fx.hook(fx.negative, a) * b)(2.0, 3.0)      # -3

    x       a tensor, or a container of them; f sees their cotangents in the same container.
    Errors  ShapeError if f returns neither their shapes nor a number; TraceError where f uses a
            float tensor from outside, as for `custom_vjp`.
    """
    return custom_vjp(lambda x: x, lambda _args, _result, dx: (f(dx),))(x)


class _Call:
    """One application of a function with its own derivative."""

    def __init__(self, trace: Trace, rule: custom_vjp, args: tuple[Any, ...]) -> None:
        self.trace, self.rule, self.args = trace, rule, args
        self.inputs = [as_tensor(x) for x in leaves(args)]
        self.name = rule.f.__name__.strip("<>_") or "f"

    def emit(self) -> Any:
        params = [x.value for x in self._fresh(x.value for x in self.inputs)]
        nodes, results = self.trace.region(lambda: self._body(params))
        body, captured = close(self.name, params, nodes, results)
        self._check_captured(captured)
        outer = [*(x.value for x in self.inputs), *captured]
        backward = self._backward(outer, len(params), results)
        values = emit_all("custom_vjp", *outer, body=body, backward=backward)
        return refill(self.result, iter([Tensor(v) for v in values]))

    def _fresh(self, values: Iterator[Value]) -> list[Tensor]:
        return [Tensor(Value(v.type)) for v in values]

    def _body(self, params: list[Value]) -> list[Value]:
        self.first_site = self.trace.sites
        args = refill(self.args, iter([Tensor(v) for v in params]))
        result = self.rule.f(*args) if self.rule.forward is None else self._forward(args)[0]
        self.result = map_leaves(as_tensor, result)
        return [t.value for t in leaves(self.result)]

    def _forward(self, args: tuple[Any, ...]) -> tuple[Any, Any]:
        assert self.rule.forward is not None
        pair = self.rule.forward(*args)
        if not isinstance(pair, tuple) or len(pair) != 2:
            fail(TraceError, f"{self.name}: forward must return (result, residuals)")
        return pair

    def _residuals(self, args: tuple[Any, ...]) -> Any:
        """Computed from the arguments once more, so that they can be differentiated again.

        Where it draws random numbers they are the same; what is computed twice is shared later.
        """
        site, self.trace.sites = self.trace.sites, self.first_site
        residuals = self._forward(args)[1]
        self.trace.sites = max(site, self.trace.sites)
        return residuals

    def _backward(self, outer: list[Value], own: int, results: list[Value]) -> Any:
        xs = self._fresh(iter(outer))
        ys = self._fresh(iter(results))
        floats = [v for v in results if v.type.dtype.is_float]
        dys = self._fresh(iter(floats))

        def run() -> list[Value]:
            given = self._call_backward(xs[:own], ys, dys, results)
            return self._cotangents(xs, own, given)

        params = [t.value for t in (*xs, *ys, *dys)]
        nodes, cotangents = self.trace.region(run)
        graph, captured = close(f"{self.name}_vjp", params, nodes, cotangents)
        if captured:
            fail(
                TraceError,
                f"the derivative of {self.name} uses a tensor that is not handed to it",
                got=", ".join(str(v.type) for v in captured),
                hint="return it among the residuals, or pass it as an argument",
            )
        return graph

    def _call_backward(
        self, xs: list[Tensor], ys: list[Tensor], dys: list[Tensor], results: list[Value]
    ) -> tuple[Any, ...]:
        named = iter(dys)
        cotangents = [next(named) if v.type.dtype.is_float else None for v in results]
        args, cotangent = refill(self.args, iter(xs)), refill(self.result, iter(cotangents))
        assert self.rule.backward is not None
        if self.rule.forward is None:
            given = self.rule.backward(args, refill(self.result, iter(ys)), cotangent)
        else:
            given = self.rule.backward(self._residuals(args), cotangent)
        if not isinstance(given, tuple) or len(given) != len(self.args):
            fail(
                TraceError,
                f"the derivative of {self.name} must return a tuple: a cotangent for each argument",
                expected=f"{len(self.args)} cotangents",
                got=repr(given)[:80],
            )
        return given

    def _cotangents(self, xs: list[Tensor], own: int, given: tuple[Any, ...]) -> list[Value]:
        """One for each float input; what was captured holds no gradient."""
        flat = [leaf for g, a in zip(given, self.args, strict=True) for leaf in _spread(g, a)]
        found: list[Value] = []
        for x, g in zip(xs[:own], flat, strict=True):
            if x.type.dtype.is_float:
                what = f"a cotangent from the derivative of {self.name}"
                found.append(like(0.0 if g is None else g, x.value, what))
        zeros = [x for x in xs[own:] if x.type.dtype.is_float]
        return found + [scalar(0.0, x.type.dtype, x.shape).value for x in zeros]

    def _check_captured(self, captured: list[Value]) -> None:
        programs = (*self.trace.around, self.trace.builder.nodes)
        makers = {v: n for nodes in programs for n in nodes for v in n.outputs}
        for value in captured:
            if value.type.dtype.is_float and not _is_constant(makers.get(value)):
                raise TraceError(
                    f"{self.name} has its own derivative and uses a tensor that is not an argument",
                    loc=user_loc(),
                    got=str(value.type),
                    hint="pass it as an argument, or wrap it in fx.stop_gradient outside",
                )


def _spread(g: Any, argument: Any) -> list[Any]:
    count = len(leaves(argument))
    return [None] * count if g is None else leaves(g)


def _is_constant(node: Node | None) -> bool:
    return node is not None and (node.op == "stop_gradient" or not node.inputs)
