"""The text form of a graph: deterministic, canonical, and read back by `parser.parse_graph`.

One node a line; results with their types on the left; values numbered in the order of their
definition; attributes sorted by name; the ranges of named sizes declared once, in a `where` clause.
Equal text means equal graphs, which is how graphs are compared.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from fluxc.compiler.ir.dims import Dim, Symbol
from fluxc.compiler.ir.graph import Graph, graph_symbols
from fluxc.compiler.ir.locate import short_name
from fluxc.compiler.ir.types import DTYPES, DType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fluxc.compiler.ir.graph import Loc, Node, Value
    from fluxc.compiler.ir.types import TensorType

__all__ = ["WORDS", "print_graph", "print_literal", "print_node"]

Names: TypeAlias = "dict[Value, str]"

WIDTH = 100
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
WORDS = frozenset({"true", "false", "inf", "nan", *DTYPES})
"""What a bare word means in an attribute before it means a named size, which then stands in ()."""


def print_graph(g: Graph, locations: bool = True) -> str:
    """The text of `g`; without `loc(...)` where locations is false."""
    return _graph(g, locations, "", _where(g))


def print_node(node: Node, names: Names) -> str:
    """One line of a graph's text; a value that `names` lacks is `%?`."""
    return _node(node, names, False, "", str)


def print_literal(value: Any) -> str:
    """An attribute's text.  Values of different kinds differ in it: `1`, `1.0` and `true`."""
    return _literal(value, False, "")


def _graph(g: Graph, locations: bool, indent: str, where: str) -> str:
    names: Names = {}
    types: dict[TensorType, str] = {}

    def type_text(t: TensorType) -> str:
        text = types.get(t)
        if text is None:
            text = types[t] = str(t)
        return text

    params = [_param(v, _define(names, v), type_text) for v in g.params]
    lines = [_header(f"graph {_graph_name(g.name)}", params, where, indent)]
    inner = indent + "  "
    for node in g.nodes:
        for v in node.outputs:
            _define(names, v)
        lines.append(inner + _node(node, names, locations, inner, type_text))
    results = ", ".join(_used(names, g.results))
    lines += [f"{inner}return {results}".rstrip(), indent + "}"]
    return "\n".join(lines)


def _define(names: Names, v: Value) -> str:
    return names.setdefault(v, f"%{len(names)}")


def _used(names: Names, values: Iterable[Value]) -> list[str]:
    return [names.get(v, "%?") for v in values]


def _param(v: Value, name: str, type_text: Callable[[TensorType], str]) -> str:
    quoted = f" {json.dumps(v.name)}" if v.name else ""
    return f"{name}{quoted}: {type_text(v.type)}"


def _header(start: str, params: list[str], where: str, indent: str) -> str:
    """On one line where it fits, else one parameter a line."""
    line = f"{start}({', '.join(params)}){where} {{"
    if len(indent) + len(line) <= WIDTH or not params:
        return line
    inner = f"\n{indent}    "
    return f"{start}({inner}{f',{inner}'.join(params)}\n{indent}){where} {{"


def _graph_name(name: str) -> str:
    return "@" + (name if NAME.fullmatch(name) else json.dumps(name))


def _where(g: Graph) -> str:
    ranges = [_range(s) for s in graph_symbols(g) if s != Symbol(s.name)]
    return f" where {', '.join(ranges)}" if ranges else ""


def _range(s: Symbol) -> str:
    upper = "" if s.max == Symbol(s.name).max else str(s.max)
    multiple = "" if s.multiple_of == 1 else f" multiple of {s.multiple_of}"
    return f"{s.name} in {s.min}..{upper}{multiple}"


def _node(
    node: Node,
    names: Names,
    locations: bool,
    indent: str,
    type_text: Callable[[TensorType], str],
) -> str:
    outputs = [
        f"{name}: {type_text(v.type)}"
        for name, v in zip(_used(names, node.outputs), node.outputs, strict=True)
    ]
    text = f"{', '.join(outputs)} = {node.op}({', '.join(_used(names, node.inputs))})"
    if node.attrs:
        attrs = [f"{k} = {_literal(v, locations, indent)}" for k, v in sorted(node.attrs.items())]
        text += f" {{{', '.join(attrs)}}}"
    return f"{text} {_loc(node.loc)}" if locations and node.loc else text


def _loc(loc: Loc) -> str:
    layer = f", {json.dumps(loc.layer)}" if loc.layer else ""
    return f"loc({json.dumps(short_name(loc.file))}, {loc.line}{layer})"


def _literal(value: Any, locations: bool, indent: str) -> str:  # noqa: PLR0911
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return int.__repr__(value)
        case float():
            return _float(value)
        case str():
            return json.dumps(value)
        case bytes():
            return f'hex"{value.hex()}"'
        case tuple():
            items = [_literal(item, locations, indent) for item in value]
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
        case Dim() if str(value) in WORDS:
            return f"({value})"
        case Dim() | DType():
            return str(value)
        case Graph():
            return _graph(value, locations, indent, "")
    return f"<{type(value).__name__} {value!r}>"  # readable, and no text of a graph: V5


def _float(value: float) -> str:
    """The shortest decimal that reads back as the same float; NaN keeps its sign."""
    if math.isnan(value):
        return "-nan" if math.copysign(1.0, value) < 0 else "nan"
    return float.__repr__(value)
