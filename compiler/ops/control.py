"""Control flow: operations that run graphs, zero, one or many times.

Their graphs are closed: whatever they use is an operand.  All of them are pure; a loop that never
ends is a program that never ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.graph import Graph
from fluxc.compiler.ir.types import TensorType, bool_, f64, i32
from fluxc.compiler.ops.checks import prove_at_least
from fluxc.compiler.ops.control_batch import scan_batch, switch_batch, while_batch
from fluxc.compiler.ops.control_jvp import scan_jvp, switch_jvp, while_jvp
from fluxc.compiler.ops.control_vjp import scan_vjp, switch_vjp
from fluxc.compiler.ops.op import GraphRule, NoGradient, Op, infer, register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Node

__all__ = ["CONTROL", "carried_operands"]

CONTROL = frozenset({"scan", "switch", "while"})
"""The operations of this file."""


def carried_operands(node: Node) -> tuple[int, int]:
    """The positions, from the first to behind the last, of the operands that a loop carries."""
    first = node.attrs["consts"] if node.op == "scan" else 0
    return first, first + (0 if node.op == "switch" else node.attrs["carried"])


def _types(values: Sequence[Any]) -> str:
    return ", ".join(str(getattr(v, "type", v)) for v in values) or "nothing"


def _check(what: str, expected: Sequence[TensorType], got: Graph, *, results: bool) -> None:
    values = got.results if results else got.params
    if tuple(v.type for v in values) != tuple(expected):
        raise ShapeError(
            f"{what} of @{got.name} do not fit", expected=_types(expected), got=_types(values)
        )


def _check_graph(op: str, name: str, graph: Any) -> None:
    if not isinstance(graph, Graph):
        raise ShapeError(f"{op}: attribute {name} is not a graph", got=repr(graph)[:80])


def _check_count(op: str, name: str, count: Any, most: int, least: int = 0) -> None:
    if type(count) is not int or not least <= count <= most:
        raise ShapeError(
            f"{op}: {name} is not the number of {name} operands",
            expected=f"{least} <= {name} <= {most}",
            got=str(count),
        )


# switch


def infer_switch(
    index: TensorType, *operands: TensorType, branches: tuple[Graph, ...]
) -> tuple[TensorType, ...]:
    """All branches take the operands and return the same types."""
    if index != TensorType(i32):
        raise DTypeError("switch: the index is no i32[]", expected="i32[]", got=str(index))
    if not isinstance(branches, tuple) or not branches:
        raise ShapeError("switch: branches must be a tuple of graphs, at least one")
    for branch in branches:
        _check_graph("switch", "branches", branch)
        _check("switch: the parameters", operands, branch, results=False)
    outputs = tuple(v.type for v in branches[0].results)
    if not outputs:
        raise ShapeError("switch: the branches return nothing")
    for branch in branches[1:]:
        _check("switch: the results", outputs, branch, results=True)
    return outputs


def switch_reference(
    index: np.ndarray, *operands: np.ndarray, branches: tuple[Any, ...]
) -> tuple[np.ndarray, ...]:
    return tuple(branches[min(max(int(index), 0), len(branches) - 1)](*operands))


def sample_switch(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """x*sin(y), y, or x + y, y."""
    type = TensorType(f64, (3,))
    graphs = []
    for name in ("wave", "sum"):
        b = Builder(infer)
        x, y = b.param(type, "x"), b.param(type, "y")
        one = b.emit("mul", x, b.emit("sin", y)) if name == "wave" else b.emit("add", x, y)
        graphs.append(b.graph(name, [one, y]))
    index = np.array(rng.integers(0, 2), np.int32)
    return (index, rng.normal(size=3), rng.normal(size=3)), {"branches": tuple(graphs)}


# while


def infer_while(
    *operands: TensorType, test: Graph, body: Graph, carried: int
) -> tuple[TensorType, ...]:
    """The carried operands come first; `test` and `body` take all operands."""
    _check_graph("while", "test", test)
    _check_graph("while", "body", body)
    _check_count("while", "carried", carried, len(operands), least=1)
    _check("while: the parameters", operands, test, results=False)
    _check("while: the parameters", operands, body, results=False)
    _check("while: the results", (TensorType(bool_),), test, results=True)
    _check("while: the results", operands[:carried], body, results=True)
    return operands[:carried]


def while_reference(
    *operands: np.ndarray, test: Any, body: Any, carried: int
) -> tuple[np.ndarray, ...]:
    carry, constants = operands[:carried], operands[carried:]
    while bool(test(*carry, *constants)[0]):
        carry = tuple(body(*carry, *constants))
    return tuple(carry)


def sample_while(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """x = sin(x) + c, k = k + 1 while k < 3."""
    whole, type = TensorType(i32), TensorType(f64, (3,))
    test, body = Builder(infer), Builder(infer)
    k, _, _ = (test.param(t) for t in (whole, type, type))
    three = test.emit("full", value=3, dtype=i32, shape=())
    less = test.graph("less", [test.emit("lt", k, three)])
    k, x, c = (body.param(t, n) for t, n in ((whole, "k"), (type, "x"), (type, "c")))
    one = body.emit("full", value=1, dtype=i32, shape=())
    x = body.emit("add", body.emit("sin", x), c)
    step = body.graph("step", [body.emit("add", k, one), x])
    start = np.array(rng.integers(0, 4), np.int32)
    arrays = (start, rng.normal(size=3), rng.normal(size=3))
    return arrays, {"test": less, "body": step, "carried": 2}


# scan


def infer_scan(
    *operands: TensorType,
    body: Graph,
    consts: int,
    carried: int,
    length: Size,
    reverse: bool,
    remat: bool = False,
) -> tuple[TensorType, ...]:
    """Operands are constants, carried, stacked; outputs are the last carried, then stacked ones."""
    _check_graph("scan", "body", body)
    _check_count("scan", "consts", consts, len(operands))
    _check_count("scan", "carried", carried, len(operands) - consts)
    if type(reverse) is not bool or type(remat) is not bool:
        raise ShapeError("scan: reverse and remat must be true or false")
    prove_at_least("scan", "length", length, 0)
    carry = operands[consts : consts + carried]
    rows = []
    for x in operands[consts + carried :]:
        if not x.shape or x.shape[0] != length:
            raise ShapeError(
                "scan: the first size of a stacked operand is not the length",
                expected=f"[{length}, ...]",
                got=str(x),
            )
        rows.append(x.with_shape(*x.shape[1:]))
    _check("scan: the parameters", (*operands[: consts + carried], *rows), body, results=False)
    if len(body.results) < max(carried, 1):
        raise ShapeError(
            f"scan: the results of @{body.name} do not fit",
            expected=f"{_types(carry)}, then one or more stacked" if not carry else _types(carry),
            got=_types(body.results),
        )
    changed = Graph(body.name, (), (), body.results[:carried])
    _check("scan: the carried results", carry, changed, results=True)
    stacked = [v.type.with_shape(length, *v.type.shape) for v in body.results[carried:]]
    return (*carry, *stacked)


def scan_reference(
    *operands: np.ndarray,
    body: Any,
    consts: int,
    carried: int,
    length: int,
    reverse: bool,
    remat: bool = False,
) -> tuple[np.ndarray, ...]:
    del remat
    fixed, carry = operands[:consts], operands[consts : consts + carried]
    stacked = operands[consts + carried :]
    rows: list[tuple[np.ndarray, ...]] = []
    for t in reversed(range(length)) if reverse else range(length):
        results = tuple(body(*fixed, *carry, *(x[t] for x in stacked)))
        carry, row = results[:carried], results[carried:]
        rows.append(row)
    if reverse:
        rows.reverse()
    if rows:
        ys = [np.stack(column) for column in zip(*rows, strict=True)]
    else:
        count = len(body.graph.results)
        ys = [body.empty(i) for i in range(carried, count)]
    return (*carry, *ys)


def sample_scan(rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    """h = sin(w*h + x), y = h*h, over 4 rows, from the last to the first in half of the samples."""
    type = TensorType(f64, (3,))
    b = Builder(infer)
    w, h, x = (b.param(type, name) for name in "whx")
    h = b.emit("sin", b.emit("add", b.emit("mul", w, h), x))
    body = b.graph("cell", [h, b.emit("mul", h, h)])
    arrays = (rng.normal(size=3), rng.normal(size=3), rng.normal(size=(4, 3)))
    reverse = bool(rng.integers(0, 2))
    return arrays, {"body": body, "consts": 1, "carried": 1, "length": 4, "reverse": reverse}


register(
    Op(
        name="switch",
        infer=infer_switch,
        reference=switch_reference,
        vjp=GraphRule(switch_vjp),
        sample=sample_switch,
        batch=switch_batch,
        jvp=GraphRule(switch_jvp),
        doc="branches[index](*operands), the index clamped to the branches",
    )
)
register(
    Op(
        name="while",
        infer=infer_while,
        reference=while_reference,
        vjp=NoGradient(
            "a loop whose number of steps is unknown keeps nothing to go back by; use fx.scan, or "
            "fx.fori_loop with bounds that are sizes"
        ),
        sample=sample_while,
        batch=while_batch,
        jvp=GraphRule(while_jvp),
        doc="carried = body(*carried, *constants) while test(*carried, *constants)",
    )
)
register(
    Op(
        name="scan",
        infer=infer_scan,
        reference=scan_reference,
        vjp=GraphRule(scan_vjp),
        sample=sample_scan,
        batch=scan_batch,
        jvp=GraphRule(scan_jvp),
        doc="carried, y[t] = body(*constants, *carried, x[t]) for t in 0 .. length - 1, or back",
    )
)
