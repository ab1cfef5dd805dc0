"""Forward-mode derivatives, and matrices of derivatives: `fx.jvp`, `fx.jacobian`, `fx.hessian`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from fluxc.compiler.autodiff import pushforward
from fluxc.compiler.errors import DTypeError, ShapeError, TraceError
from fluxc.compiler.ir.dims import product
from fluxc.ops.create import eye
from fluxc.trace import current, fail
from fluxc.transforms import Differentiated, chosen, grad, like, or_zeros, traced, vjp
from fluxc.tree import leaves, map_leaves, refill
from fluxc.vmap import vmap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Value
    from fluxc.tensor import Tensor

__all__ = ["diaghessian", "hessian", "jacobian", "jvp", "linearize"]


def linearize(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """f(*primals), and the linear function from tangents of them to the tangent of that.

    A tangent has the structure, shapes and dtypes of its primal; that of a module is a dict from
    the names of its trainable parameters.  None is zero.
    has_aux  f returns (value, aux); the third part is aux.
    """
    _, result, push, *aux = _linearized(f, primals, has_aux)
    return (result, push, *aux)


def _linearized(f: Callable[..., Any], primals: Sequence[Any], has_aux: bool) -> tuple[Any, ...]:
    """What the derivative is taken with respect to, and what `linearize` returns."""
    wrt, nodes, result, *aux = traced(f, primals, has_aux)
    builder, outputs = current().builder, [t.value for t in leaves(result)]

    def push(*tangents: Any) -> Any:
        found = pushforward(builder, nodes, _by_value(wrt, tangents), outputs)
        return refill(result, map(or_zeros, found, outputs))

    return (wrt, result, push, *aux)


def _by_value(wrt: Differentiated, tangents: tuple[Any, ...]) -> dict[Value, Value]:
    """The tangent of each value that the derivative is taken with respect to."""
    if len(tangents) != len(wrt.originals):
        fail(
            TraceError,
            "a tangent for each primal",
            expected=str(len(wrt.originals)),
            got=str(len(tangents)),
        )
    given: dict[Value, Value] = {}
    for place, tangent in zip(wrt.places(), tangents, strict=True):
        if tangent is None:
            continue
        ends, parts = leaves(place), leaves(tangent)
        if len(ends) != len(parts):
            fail(
                ShapeError,
                "a tangent has another structure than its primal",
                expected=f"{len(ends)} tensors",
                got=f"{len(parts)}",
            )
        for end, part in zip(ends, parts, strict=True):
            if part is not None:
                given[end.value] = like(part, end.value, "a tangent")
    return given


def jvp(
    f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], *, has_aux: bool = False
) -> tuple[Any, ...]:
    """f(*primals) and its derivative in the direction of `tangents`, in one forward sweep.

        y, dy = fx.jvp(f, (x,), (dx,))        # dy = J(x) @ dx

    primals, tangents  one of each for each argument, in tuples or lists; see `linearize`.
    has_aux            f returns (value, aux); the third part is aux.
    Errors             ShapeError if a tangent does not fit its primal.
    """
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, tuple | list):
            fail(TraceError, f"jvp: {name} must be a tuple, one for each argument of the function")
    value, push, *aux = linearize(f, *primals, has_aux=has_aux)
    return (value, push(*tangents), *aux)


def jacobian(
    f: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    has_aux: bool = False,
    mode: str = "reverse",
) -> Callable[..., Any]:
    """A function that returns the matrix of all derivatives of f's value.

    For a result of shape S and an argument of shape T its shape is S + T.  For containers it is
    f's result, each tensor in it replaced by the container of matrices for the argument.

    argnums  position of the argument, or several: then each matrix becomes a tuple of them.
    mode     "reverse" takes one sweep for each element of the result, best for few results;
             "forward" one for each element of the arguments, best for few arguments.
    has_aux  f returns (value, aux); the function returns (matrices, aux).
    Errors   DTypeError if the value or an argument is not float.
    """
    if mode not in ("reverse", "forward"):
        raise TraceError(f"jacobian: mode={mode!r}", expected="'reverse' or 'forward'")
    by_mode = _by_rows if mode == "reverse" else _by_columns

    @functools.wraps(f)
    def derived(*args: Any, **kwargs: Any) -> Any:
        numbers = chosen(argnums, len(args), "jacobian")
        of_chosen = _of_chosen(f, numbers, args, kwargs)
        result, rows, *aux = by_mode(of_chosen, [args[n] for n in numbers], has_aux)
        shown = [row[0] if isinstance(argnums, int) else tuple(row) for row in rows]
        matrices = refill(result, iter(shown))
        return (matrices, *aux) if has_aux else matrices

    return derived


def _of_chosen(
    f: Callable[..., Any], numbers: list[int], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[..., Any]:
    """f as a function of some of its arguments."""

    def of_chosen(*some: Any) -> Any:
        every = list(args)
        for n, x in zip(numbers, some, strict=True):
            every[n] = x
        return f(*every, **kwargs)

    return of_chosen


def _by_rows(f: Callable[..., Any], args: list[Any], has_aux: bool) -> tuple[Any, ...]:
    """f's value, and for each tensor in it the matrices: each unit cotangent, pulled back."""
    result, pull, *aux = vjp(f, *args, has_aux=has_aux)
    ends = leaves(result)
    rows = []
    for i, y in enumerate(ends):
        _require_float(y)

        def unit(e: Tensor, i: int = i) -> Any:
            return pull(_only(result, i, e))

        def shaped(m: Tensor, y: Tensor = y) -> Tensor:
            return m.reshape((*y.shape, *m.shape[1:]))

        rows.append(map_leaves(shaped, vmap(unit)(_basis(y))))
    return (result, rows, *aux)


def _by_columns(f: Callable[..., Any], args: list[Any], has_aux: bool) -> tuple[Any, ...]:
    """f's value, and for each tensor in it the matrices: each unit tangent, pushed forward."""
    wrt, result, push, *aux = _linearized(f, args, has_aux)
    for y in leaves(result):
        _require_float(y)
    places = wrt.places()
    columns = []
    for i, x in enumerate(leaves(places)):

        def unit(e: Tensor, i: int = i) -> Any:
            return push(*_only(places, i, e))

        flat = leaves(vmap(unit, out_axes=-1)(_basis(x)))
        columns.append([m.reshape((*m.shape[:-1], *x.shape)) for m in flat])
    rows = [refill(places, iter(row)) for row in zip(*columns, strict=True)]
    return (result, rows, *aux)


def _only(tree: Any, i: int, e: Tensor) -> Any:
    """The nesting of `tree` with `e` as leaf number i, and None, which is zero, elsewhere."""
    return refill(tree, iter([e if j == i else None for j in range(len(leaves(tree)))]))


def _basis(x: Tensor) -> Tensor:
    """Every unit vector of the space of x, along a first axis."""
    count: Size = product(x.shape)
    return eye(count, dtype=x.type.dtype).reshape((count, *x.shape))


def _require_float(y: Tensor) -> None:
    if not y.type.dtype.is_float:
        fail(
            DTypeError,
            "a jacobian of a result that is not float",
            got=str(y.type),
            hint="has_aux=True, and return it beside the value",
        )


def hessian(
    f: Callable[..., Any], argnums: int | Sequence[int] = 0, *, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the matrix of all second derivatives of f: forward over reverse.

    For a scalar f and an argument of shape T its shape is T + T.  Parameters as for `jacobian`.
    """
    first = jacobian(f, argnums, has_aux=has_aux)
    return jacobian(first, argnums, has_aux=has_aux, mode="forward")


def diaghessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns the diagonal of `hessian`: f's second derivative by each number.

        d[i] = d2 f / dx[i]**2

    It has the structure and shapes of a gradient.  One forward sweep over the gradient for each
    number, all of one tensor at once, without the blocks of the matrix between tensors.
    argnums  position of the argument, or several: then the diagonals are a tuple.
    Errors   ShapeError if f's value is not a scalar; DTypeError if an argument is not float.
    """

    @functools.wraps(f)
    def derived(*args: Any, **kwargs: Any) -> Any:
        numbers = chosen(argnums, len(args), "diaghessian")
        slope = grad(_of_chosen(f, numbers, args, kwargs), range(len(numbers)))
        wrt, _, push = _linearized(slope, [args[n] for n in numbers], has_aux=False)
        places = wrt.places()
        found = [_diagonal(push, places, i) for i in range(len(leaves(places)))]
        diagonals = refill(places, iter(found))
        return diagonals[0] if isinstance(argnums, int) else tuple(diagonals)

    return derived


def _diagonal(push: Callable[..., Any], places: list[Any], i: int) -> Tensor:
    """Of each unit tangent of leaf number i, what the tangent of its own gradient has there."""
    x: Tensor = leaves(places)[i]

    def unit(e: Tensor) -> Tensor:
        own: Tensor = leaves(push(*_only(places, i, e)))[i]
        return (own * e).sum()

    found: Tensor = vmap(unit)(_basis(x))
    return found.reshape(x.shape)
