"""The invariants of a Graph, in the order in which a reader would ask about them.

V1  every value is defined exactly once, by a parameter or by a node.
V2  every operand and every result is defined before it is used, in the same graph: a sub-graph
    sees nothing of the graph around it.
V3  every node names a declared operation, and its type rule takes the operands and attributes.
V4  the types written on a node are the types that the rule infers.
V5  attributes are bool, int, Dim, float, str, bytes, DType, Graph or tuples of them: no NumPy
    scalars, no lists.
V6  no size can be negative, whatever the named sizes are in their ranges.
V7  all symbols of one name have one range, those of sub-graphs included.
V8  every named size of the graph and of its sub-graphs occurs in the type of a parameter, so that
    a call determines it.
V9  sub-graphs are valid graphs: V1 to V7 hold in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import InvalidGraph
from fluxc.compiler.ir.dims import Dim, is_at_least
from fluxc.compiler.ir.graph import Graph, graph_symbols, subgraphs
from fluxc.compiler.ir.printer import print_node
from fluxc.compiler.ir.types import DType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluxc.compiler.ir.build import Infer
    from fluxc.compiler.ir.dims import Symbol
    from fluxc.compiler.ir.graph import Node, Value
    from fluxc.compiler.ir.types import TensorType

__all__ = ["verify"]

ATTR_KINDS = frozenset({bool, int, Dim, float, str, bytes, DType, Graph})


def verify(g: Graph, infer: Infer) -> Graph:
    """Return `g` if it keeps every invariant.

    Errors  InvalidGraph that lists every violation: the number of the invariant, the graph, the
            node as it is printed, and the node's location.
    """
    found = [*_Check(g, infer).run(), *_symbol_violations(g)]
    if len(found) == 1:
        raise found[0]
    if found:
        raise InvalidGraph("\n".join(map(str, found)))
    return g


class _Check:
    """One walk over one graph, collecting violations."""

    def __init__(self, g: Graph, infer: Infer) -> None:
        self.g, self.infer = g, infer
        self.names: dict[Value, str] = {}
        self.fine: set[TensorType] = set()  # types whose sizes were seen to be no negative
        self.found: list[InvalidGraph] = []

    def run(self) -> list[InvalidGraph]:
        for v in self.g.params:
            self.define(v, None)
        for node in self.g.nodes:
            self.node(node)
        for v in self.g.results:
            if v not in self.names:
                self.fail("V2", f"a result of type {v.type} is not defined", None)
        return self.found

    def fail(
        self, number: str, what: str, node: Node | None, *, expected: str = "", got: str = ""
    ) -> None:
        where = f"{number}: @{self.g.name}: {what}"
        if node is not None:
            where += f", in {print_node(node, self.names)}"
        loc = node.loc if node is not None else None
        self.found.append(InvalidGraph(where, loc=loc, expected=expected, got=got))

    def define(self, v: Value, node: Node | None) -> None:
        if v in self.names:
            self.fail("V1", f"{self.names[v]} is defined twice", node)
        self.names.setdefault(v, f"%{len(self.names)}")
        if v.type not in self.fine:
            self.sizes(v.type, node)

    def sizes(self, type: TensorType, node: Node | None) -> None:
        self.fine.add(type)
        for size in type.shape:
            if not is_at_least(size, 0):
                self.fail("V6", f"the size {size} may be negative", node, got=str(type))

    def node(self, node: Node) -> None:
        undefined = [v for v in node.inputs if v not in self.names]
        for v in node.outputs:
            self.define(v, node)
        for v in undefined:
            what = "comes after its use" if v in node.outputs else "is not defined before its use"
            self.fail("V2", f"an operand of type {v.type} {what}", node)
        for name, attr in node.attrs.items():
            if not _is_attr(attr):
                self.fail(
                    "V5", f"attribute {name} is a {type(attr).__name__}", node, got=repr(attr)
                )
        self.types(node)
        for sub in subgraphs(node):
            inner = _Check(sub, self.infer).run()
            if inner:
                self.fail("V9", f"the sub-graph @{sub.name} is not valid", node)
                self.found += inner

    def types(self, node: Node) -> None:
        try:
            inferred = self.infer(node.op, tuple(v.type for v in node.inputs), node.attrs)
        # Given attributes of the wrong kind, a type rule may stumble in any way.
        except Exception as error:  # noqa: BLE001
            summary = getattr(error, "summary", None) or f"{type(error).__name__}: {error}"
            rows = {k: getattr(error, k, "") for k in ("expected", "got")}
            self.fail("V3", summary, node, **rows)
            return
        written = tuple(v.type for v in node.outputs)
        if written != inferred:
            self.fail("V4", "the types written are not the types inferred", node,
                      expected=_types(inferred), got=_types(written))  # fmt: skip


def _is_attr(attr: Any) -> bool:
    return all(map(_is_attr, attr)) if type(attr) is tuple else type(attr) in ATTR_KINDS


def _types(types: Iterable[TensorType]) -> str:
    return ", ".join(map(str, types)) or "nothing"


def _symbol_violations(g: Graph) -> list[InvalidGraph]:
    symbols = graph_symbols(g)
    by_name: dict[str, Symbol] = {}
    found = []
    for s in symbols:
        if by_name.setdefault(s.name, s) != s:
            ranges = [f"{t.min}..{t.max} multiple of {t.multiple_of}" for t in (by_name[s.name], s)]
            found.append(
                InvalidGraph(
                    f"V7: @{g.name}: the named size {s} has two ranges",
                    expected=ranges[0],
                    got=ranges[1],
                )
            )
    given = {s.name for v in g.params for s in v.type.symbols}
    found += [
        InvalidGraph(f"V8: @{g.name}: no parameter's type tells the named size {name}")
        for name in sorted(by_name.keys() - given)
    ]
    return found
