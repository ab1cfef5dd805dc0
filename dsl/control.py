"""Control flow that depends on data: `cond`, `switch`, `while_loop`, `fori_loop`, `scan`.

What a function returns or carries is a tensor or nested tuples, lists and dicts of tensors; None
stands for nothing.  Functions may use tensors and parameters from around them.  A loop becomes a
loop in the compiled program, and its body is compiled once, however many steps it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from fluxc.compiler.errors import DTypeError, ShapeError, TraceError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Dim, Size, is_at_least, largest
from fluxc.compiler.ir.graph import Graph, Value
from fluxc.ops.elementwise import clip
from fluxc.tensor import Tensor, TensorLike, as_tensor, cast, is_number
from fluxc.trace import Trace, close, current, emit, emit_all, fail
from fluxc.tree import leaves, map_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fluxc.compiler.ir.graph import Node

__all__ = ["cond", "fori_loop", "scan", "switch", "while_loop"]


def cond(
    pred: TensorLike,
    then: Callable[..., Any],
    otherwise: Callable[..., Any],
    *operands: Any,
) -> Any:
    """then(*operands) if `pred` else otherwise(*operands); only that one is computed.

        fx.cond(x.sum() > 0, lambda: x * 2, lambda: -x)

    pred     a bool scalar.
    Errors   ShapeError or DTypeError if the two return different structures, shapes or dtypes.
    """
    if isinstance(pred, bool):
        return (then if pred else otherwise)(*operands)
    chosen = as_tensor(pred)
    if chosen.type != ir.TensorType(ir.bool_):
        fail(
            DTypeError if chosen.shape == () else ShapeError,
            "fx.cond: the condition is no bool scalar",
            expected="bool[]",
            got=str(chosen.type),
            hint="x > 0, or (x > 0).all()",
        )
    return _choose("fx.cond", cast(chosen, ir.i32), (otherwise, then), operands)


def switch(index: TensorLike, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """branches[index](*operands); only that one is computed.

    index    an integer scalar; below 0 it counts as 0, beyond the last as the last.
    Errors   ShapeError or DTypeError if the branches return different structures, shapes or dtypes.
    """
    functions = list(branches)
    if not functions:
        fail(TraceError, "fx.switch: no branches")
    if isinstance(index, int) and not isinstance(index, bool):
        return functions[min(max(index, 0), len(functions) - 1)](*operands)
    chosen = as_tensor(index)
    if chosen.shape != () or not chosen.type.dtype.is_integer:
        fail(
            DTypeError if chosen.shape == () else ShapeError,
            "fx.switch: the index is no integer scalar",
            expected="i32[]",
            got=str(chosen.type),
        )
    number = cast(clip(chosen, 0, len(functions) - 1), ir.i32)
    return _choose("fx.switch", number, functions, operands)


def while_loop(test: Callable[[Any], Any], body: Callable[[Any], Any], init: Any) -> Any:
    """`carry = init; while test(carry): carry = body(carry)`, and the last carry.

    The carry keeps its structure, shapes and dtypes.  It can be differentiated in forward mode
    (`fx.jvp`); where the number of steps is known, `fori_loop` and `scan` can in both modes.
    Errors   ShapeError or DTypeError if the body changes a type, or the test is no bool scalar.
    """
    return _While(current("the result of fx.while_loop"), test, body, init).emit("fx.while_loop")


def fori_loop(
    lower: TensorLike, upper: TensorLike, body: Callable[[Any, Any], Any], init: Any
) -> Any:
    """`carry = init; for i in range(lower, upper): carry = body(i, carry)`, and the last carry.

    i        an i32 scalar.
    lower, upper  numbers or sizes, or tensors: with these it is a `while_loop`, and has no
             derivative in reverse mode.
    """
    if _is_size(lower) and _is_size(upper):
        length = _trips(lower, upper)  # type: ignore[arg-type]

        def step(carry: Any, i: Tensor) -> tuple[Any, None]:
            return body(i if _is_zero(lower) else i + lower, carry), None

        count = Tensor(emit("iota", dtype=ir.i32, shape=(length,), axis=0))
        loop = _Scan(current("the result of fx.fori_loop"), step, init, count, length)
        return loop.emit("fx.fori_loop")[0]
    start, stop = (as_tensor(x, ir.i32) for x in (lower, upper))
    _, carry = while_loop(
        lambda c: c[0] < stop, lambda c: (c[0] + 1, body(c[0], c[1])), (start, init)
    )
    return carry


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: Size | None = None,
    reverse: bool = False,
    *,
    remat: bool = False,
) -> tuple[Any, Any]:
    """Carry something along the first axis of `xs`, and stack what each step returns.

        def scan(f, init, xs):
            carry, ys = init, []
            for x in xs:
                carry, y = f(carry, x)
                ys.append(y)
            return carry, stack(ys)

    f        (carry, x) -> (carry, y); x is a row of every tensor of `xs`, None without xs.
    length   the number of steps; that of the tensors in `xs` by default.
    reverse  from the last row to the first; y[t] still belongs to x[t].
    remat    a gradient computes the steps again rather than keep what they computed.
    Errors   ShapeError or DTypeError if f changes the carry's structure, shapes or dtypes, or if
             the tensors of `xs` have different lengths.
    """
    steps = _length(xs, length)
    loop = _Scan(current("the result of fx.scan"), f, init, xs, steps)
    loop.attrs = {"reverse": bool(reverse), **({"remat": True} if remat else {})}
    result: tuple[Any, Any] = loop.emit("fx.scan")
    return result


# Sizes.


def _is_size(x: Any) -> bool:
    return isinstance(x, int | Dim) and not isinstance(x, bool)


def _is_zero(x: Any) -> bool:
    return isinstance(x, int) and x == 0


def _trips(lower: Size, upper: Size) -> Size:
    return largest(upper - lower, 0)


def _length(xs: Any, length: Size | None) -> Size:
    """The number of steps that `xs` and `length` agree on."""
    found: dict[str, Size] = {} if length is None else {"length": length}
    for path, x in _named(xs, "xs"):
        t = as_tensor(x)
        if not t.shape:
            fail(ShapeError, f"fx.scan: {path} is a scalar and has no rows", got=str(t.type))
        found[path] = t.shape[0]
    if not found:
        fail(TraceError, "fx.scan: how many steps?", hint="xs with a first axis, or length=...")
    (name, steps), *others = found.items()
    for other, size in others:
        if size != steps:
            fail(
                ShapeError,
                f"fx.scan: {other} has another length than {name}",
                expected=str(steps),
                got=str(size),
            )
    if not is_at_least(steps, 0):
        fail(ShapeError, "fx.scan: the length may be negative", got=str(steps))
    return steps


# Trees of tensors.


def _named(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The leaves with their paths, as one would write them; None is no leaf."""
    if isinstance(tree, dict):
        for key, part in tree.items():
            yield from _named(part, f"{path}[{key!r}]")
    elif isinstance(tree, tuple | list):
        for i, part in enumerate(tree):
            yield from _named(part, f"{path}[{i}]")
    elif tree is not None:
        yield path, tree


def _filled(tree: Any, values: Iterator[Value]) -> Any:
    return map_leaves(lambda x: None if x is None else Tensor(next(values)), tree)


def _aligned(what: str, wanted: Any, got: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Pairs of leaves of two trees of one structure.  Errors  TraceError where they differ."""
    if isinstance(wanted, dict):
        if not isinstance(got, dict) or set(got) != set(wanted):
            _mismatch(what, wanted, got, path)
        for key, part in wanted.items():
            yield from _aligned(what, part, got[key], f"{path}[{key!r}]")
    elif isinstance(wanted, tuple | list):
        if not isinstance(got, type(wanted)) or len(got) != len(wanted):
            _mismatch(what, wanted, got, path)
        for i, (part, other) in enumerate(zip(wanted, got, strict=True)):
            yield from _aligned(what, part, other, f"{path}[{i}]")
    elif (wanted is None) != (got is None) or isinstance(got, tuple | list | dict):
        _mismatch(what, wanted, got, path)
    elif wanted is not None:
        yield path, wanted, got


def _mismatch(what: str, wanted: Any, got: Any, path: str) -> NoReturn:
    fail(
        TraceError,
        f"{what} has another structure at {path}",
        expected=_structure(wanted),
        got=_structure(got),
    )


def _structure(tree: Any) -> str:
    if isinstance(tree, dict):
        return f"{{{', '.join(f'{k!r}: {_structure(v)}' for k, v in tree.items())}}}"
    if isinstance(tree, tuple | list):
        left, right = "()" if isinstance(tree, tuple) else "[]"
        return f"{left}{', '.join(map(_structure, tree))}{right}"
    return "None" if tree is None else "a tensor"


def _as(type: ir.TensorType, x: Any, what: str, path: str) -> Value:
    """x as a tensor of a type; a number takes the dtype, anything else must have it."""
    t = as_tensor(x, type.dtype) if is_number(x) else as_tensor(x)
    if t.type.shape != type.shape:
        fail(ShapeError, f"{what} has another shape at {path}", expected=str(type), got=str(t.type))
    if t.type != type:
        fail(
            DTypeError,
            f"{what} has another dtype at {path}",
            expected=str(type),
            got=str(t.type),
            hint=f"x.astype(fx.{type.dtype}), or begin with another dtype",
        )
    return t.value


# Bodies.


class _Traced:
    """A function traced apart from the program around it.

    It may assign states: these are carried along, which the first trace finds out.
    """

    def __init__(self, trace: Trace, name: str, f: Callable[..., Any]) -> None:
        self.trace, self.name = trace, name
        self.label = getattr(f, "__name__", type(f).__name__).strip("<>_") or "f"
        self.nodes: list[Node] = []
        self.results: list[Value] = []

    def run(
        self, body: Callable[[], list[Value]], states: dict[Any, Value], counter: Value | None
    ) -> list[Any]:
        """Trace; the keys of states that were assigned and are not among `states`.

        states   for each state that is carried, its value inside; its new one is added to the
                 results.
        counter  the number of the step
        """
        trace = self.trace
        before, steps = dict(trace.updates), trace.steps
        inside = {**before, **states}
        assigned: list[Any] = []

        def traced() -> list[Value]:
            trace.updates = dict(inside)
            results = body()
            now = trace.updates
            assigned.extend(k for k, v in now.items() if inside.get(k) is not v)
            found = [*results, *(now[key] for key in states)]
            trace.updates = dict(before)
            return found

        trace.steps = steps if counter is None else (*steps, counter)
        try:
            self.nodes, self.results = trace.region(traced, f"a function under {self.name}")
        finally:
            trace.steps = steps
        return [key for key in assigned if key not in states]

    def uses(self, value: Value) -> bool:
        return value in self.results or any(value in n.inputs for n in self.nodes)

    def captured(self, params: list[Value]) -> list[Value]:
        return close(self.label, params, self.nodes, self.results)[1]

    def graph(self, params: list[Value]) -> Graph:
        return close(self.label, params, self.nodes, self.results)[0]


def _settled(trace: Trace, attempt: Callable[[dict[Any, Value]], list[Any]]) -> list[Any]:
    """The states that a construct assigns: trace it until it assigns no others."""
    keys: list[Any] = []
    site = trace.sites
    while True:
        trace.sites = site
        states = {key: Value(trace.read(key, key.type).type) for key in keys}
        more = attempt(states)
        if not more:
            return keys
        keys += [key for key in dict.fromkeys(more) if key not in keys]


class _Scan:
    """One scan: `attrs` beside what the body decides."""

    def __init__(
        self, trace: Trace, f: Callable[..., Any], init: Any, xs: Any, length: Size
    ) -> None:
        self.trace, self.f, self.init, self.xs, self.length = trace, f, init, xs, length
        self.attrs: dict[str, Any] = {"reverse": False}
        self.carry = [as_tensor(x).value for _, x in _named(init, "carry")]
        self.stacked = [as_tensor(x).value for _, x in _named(xs, "xs")]
        self.ys: Any = None

    def emit(self, name: str) -> tuple[Any, Any]:
        traced = _Traced(self.trace, name, self.f)
        keys = _settled(self.trace, lambda states: self._trace(traced, states))
        if not traced.results:
            return self.init, self.ys
        operands = [*self.carry, *(self.trace.read(key, key.type) for key in keys)]
        params, rows, stacked = [*self.inside, *self.states.values()], self.rows, self.stacked
        if traced.uses(self.counter):
            rows, stacked = [*rows, self.counter], [*stacked, _count(self.length)]
        own = [*params, *rows]
        captured = traced.captured(own)
        count, results = len(self.carry), traced.results
        states = results[len(results) - len(keys) :]
        traced.results = [*results[:count], *states, *results[count : len(results) - len(keys)]]
        made = emit_all(
            "scan", *captured, *operands, *stacked,
            body=traced.graph([*captured, *own]), consts=len(captured), carried=len(operands),
            length=self.length, **self.attrs,
        )  # fmt: skip
        self.trace.updates.update(zip(keys, made[count : len(operands)], strict=True))
        return _filled(self.init, iter(made[:count])), _filled(self.ys, iter(made[len(operands) :]))

    def _trace(self, traced: _Traced, states: dict[Any, Value]) -> list[Any]:
        self.inside = [Value(v.type) for v in self.carry]
        self.rows = [Value(v.type.with_shape(*v.type.shape[1:])) for v in self.stacked]
        self.states, self.counter = states, Value(ir.TensorType(ir.i64))
        return traced.run(lambda: self._body(traced.name), states, self.counter)

    def _body(self, name: str) -> list[Value]:
        carry = _filled(self.init, iter(self.inside))
        result = self.f(carry, _filled(self.xs, iter(self.rows)))
        if not isinstance(result, tuple) or len(result) != 2:
            fail(
                TraceError,
                f"{name}: the function must return (carry, y)",
                got=_structure(result),
                hint="return carry, y; y may be None",
            )
        after, self.ys = result
        found = _carried(name, self.init, self.carry, after)
        return [*found, *(as_tensor(y).value for _, y in _named(self.ys, "y"))]


def _carried(name: str, init: Any, types: list[Value], after: Any) -> list[Value]:
    """The new carry, which has the structure and types of the first one."""
    what = f"{name}: the carry that the body returns"
    rows = zip(types, _aligned(what, init, after, "carry"), strict=True)
    return [_as(old.type, new, what, path) for old, (path, _, new) in rows]


def _count(length: Size) -> Value:
    return emit("iota", dtype=ir.i64, shape=(length,), axis=0)


class _While:
    """One while loop."""

    def __init__(
        self, trace: Trace, test: Callable[..., Any], body: Callable[..., Any], init: Any
    ) -> None:
        self.trace, self.test, self.body, self.init = trace, test, body, init
        self.carry = [as_tensor(x).value for _, x in _named(init, "carry")]

    def emit(self, name: str) -> Any:
        trace = self.trace
        if not self.carry:
            fail(TraceError, f"{name} carries nothing", hint="the test reads what the body changes")
        test, body = _Traced(trace, name, self.test), _Traced(trace, name, self.body)
        keys = _settled(trace, lambda states: self._trace(test, body, states))
        counts = any(t.uses(c) for t, c in zip((test, body), self.counters, strict=True))
        operands = [*self.carry, *(trace.read(key, key.type) for key in keys)]
        if counts:
            operands.append(emit("full", value=0, dtype=ir.i64, shape=()))
            nodes, (after,) = trace.region(
                lambda: [(Tensor(self.counters[1]) + 1).value], f"a function under {name}"
            )
            body.nodes, body.results = [*body.nodes, *nodes], [*body.results, after]
        params = [
            [*inside, *states.values(), *([counter] if counts else [])]
            for inside, states, counter in zip(self.inside, self.states, self.counters, strict=True)
        ]
        captured = list(dict.fromkeys([*test.captured(params[0]), *body.captured(params[1])]))
        made = emit_all(
            "while", *operands, *captured,
            test=test.graph([*params[0], *captured]), body=body.graph([*params[1], *captured]),
            carried=len(operands),
        )  # fmt: skip
        count = len(self.carry)
        trace.updates.update(zip(keys, made[count : count + len(keys)], strict=True))
        return _filled(self.init, iter(made[:count]))

    def _trace(self, test: _Traced, body: _Traced, states: dict[Any, Value]) -> list[Any]:
        self.inside = [[Value(v.type) for v in self.carry] for _ in range(2)]
        self.counters = [Value(ir.TensorType(ir.i64)) for _ in range(2)]
        self.states = [{key: Value(v.type) for key, v in states.items()}, states]
        more = test.run(lambda: self._test(test.name), self.states[0], self.counters[0])
        if more or any(
            new is not old
            for new, old in zip(test.results[1:], self.states[0].values(), strict=True)
        ):
            fail(TraceError, f"{test.name}: the test assigns a state", hint="assign it in the body")
        test.results = test.results[:1]
        return body.run(lambda: self._body(body.name), states, self.counters[1])

    def _test(self, name: str) -> list[Value]:
        verdict = as_tensor(self.test(_filled(self.init, iter(self.inside[0]))))
        if verdict.type != ir.TensorType(ir.bool_):
            fail(
                DTypeError if verdict.shape == () else ShapeError,
                f"{name}: the test returns no bool scalar",
                expected="bool[]",
                got=str(verdict.type),
                hint="x > 0, or (x > 0).any()",
            )
        return [verdict.value]

    def _body(self, name: str) -> list[Value]:
        after = self.body(_filled(self.init, iter(self.inside[1])))
        return _carried(name, self.init, self.carry, after)


# Choices.


def _choose(
    name: str,
    index: Tensor,
    functions: Sequence[Callable[..., Any]],
    operands: tuple[Any, ...],
) -> Any:
    """A switch over functions of the same operands; states that any assigns, all return."""
    trace = current(f"the result of {name}")
    given = [as_tensor(x) for x in leaves(operands) if x is not None]
    branches = [_Branch(trace, name, f, operands, given) for f in functions]

    def attempt(states: dict[Any, Value]) -> list[Any]:
        return [key for branch in branches for key in branch.attempt(list(states))]

    keys = _settled(trace, attempt)
    wanted = _common(branches)
    for branch in branches:
        branch.finish(branches[0].tree, wanted)
    if not branches[0].results:
        return branches[0].tree
    outer = [x.value for x in given]
    captured = list(dict.fromkeys(v for b in branches for v in b.captured(b.params)))
    graphs = tuple(b.graph([*b.params, *captured]) for b in branches)
    made = emit_all("switch", index.value, *outer, *captured, branches=graphs)
    count = len(made) - len(keys)
    trace.updates.update(zip(keys, made[count:], strict=True))
    return _filled(branches[0].tree, iter(made[:count]))


class _Branch(_Traced):
    """One function of a choice.  Until all are traced, the numbers that it returns stay numbers."""

    def __init__(
        self,
        trace: Trace,
        name: str,
        f: Callable[..., Any],
        operands: tuple[Any, ...],
        given: list[Tensor],
    ) -> None:
        super().__init__(trace, name, f)
        self.f, self.operands, self.given = f, operands, given
        self.tree: Any = None

    def attempt(self, keys: list[Any]) -> list[Any]:
        self.params = [Value(x.type) for x in self.given]
        self.tree = None
        # A state has inside the value that it has outside: it is captured where it is read.
        states = {key: self.trace.read(key, key.type) for key in keys}
        return self.run(self._body, states, None)

    def _body(self) -> list[Value]:
        tree = self.f(*_filled(self.operands, iter(self.params)))
        self.tree = map_leaves(lambda x: x if x is None or is_number(x) else as_tensor(x), tree)
        return []

    def finish(self, first: Any, wanted: list[ir.TensorType]) -> None:
        """Give the results the types that all branches agree on."""
        what = f"{self.name}: what {self.label} returns"
        rows = list(zip(wanted, _aligned(what, first, self.tree, "result"), strict=True))

        def convert() -> list[Value]:
            return [_as(type, x, what, path) for type, (path, _, x) in rows]

        nodes, results = self.trace.region(convert, f"a function under {self.name}")
        self.nodes, self.results = [*self.nodes, *nodes], [*results, *self.results]


def _common(branches: Sequence[_Branch]) -> list[ir.TensorType]:
    """The type of each result: that of the first branch that returns no bare number there."""
    columns: list[list[Any]] = [[x] for _, x in _named(branches[0].tree, "result")]
    for branch in branches[1:]:
        what = f"{branch.name}: what {branch.label} returns"
        pairs = _aligned(what, branches[0].tree, branch.tree, "result")
        for column, (_, _, x) in zip(columns, pairs, strict=True):
            column.append(x)
    found = []
    for column in columns:
        tensors = [x for x in column if isinstance(x, Tensor)]
        found.append(tensors[0].type if tensors else _number_type(column))
    return found


def _number_type(numbers: list[Any]) -> ir.TensorType:
    kinds = {type(x) for x in numbers}
    dtype = ir.f32 if float in kinds else ir.bool_ if kinds == {bool} else ir.i32
    return ir.TensorType(dtype)
