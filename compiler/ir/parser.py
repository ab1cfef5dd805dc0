"""Reads the text form of graphs.  The one module that imports lark; nothing imports it eagerly."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from fluxc.compiler.errors import IRSyntaxError
from fluxc.compiler.ir.dims import Symbol, dim, floordiv, largest, smallest, symbol_size
from fluxc.compiler.ir.graph import Graph, Loc, Node, Value
from fluxc.compiler.ir.types import DTYPES, TensorType

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluxc.compiler.ir.dims import Size

__all__ = ["parse_graph", "parse_graphs"]

Syntax: TypeAlias = Any
"""A lark Tree whose children the grammar declares; their types are beyond Python's."""


def parse_graph(text: str) -> Graph:
    """Read one graph.  Values may have any names; `verify` checks what it means.

    Errors  IRSyntaxError with the line and a caret: text that is not a graph, a value that is
            undefined or defined twice, an unknown dtype.
    """
    graphs = parse_graphs(text)
    if len(graphs) != 1:
        raise IRSyntaxError(f"expected one graph, got {len(graphs)}")
    return graphs[0]


def parse_graphs(text: str) -> tuple[Graph, ...]:
    """Read the graphs of a text, in order.  Errors as in `parse_graph`."""
    try:
        tree = _lark().parse(text)
    except UnexpectedInput as error:
        _refuse(text, error)
    reader = _Reader(text)
    return tuple(reader.graph(child, {}) for child in tree.children if isinstance(child, Tree))


@lru_cache(maxsize=1)
def _lark() -> Lark:
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=True)


class _Reader:
    """One small method per rule, outermost first: a size needs the ranges declared before."""

    def __init__(self, text: str) -> None:
        self.text = text

    def fail(self, at: Syntax, what: str, *, expected: str = "") -> NoReturn:
        where = at if isinstance(at, Token) else at.meta
        raise _error(self.text, where.line or 1, where.column or 1, what, expected)

    def graph(self, tree: Syntax, symbols: dict[str, Symbol]) -> Graph:
        _, name, params, where, nodes, results = tree.children
        if where is not None:
            symbols = symbols | dict(map(self.range, where.children))
        env: dict[str, Value] = {}
        return Graph(
            _unquote(name.children[0]),
            tuple(self.param(p, env, symbols) for p in params.children if p is not None),
            tuple(self.node(n, env, symbols) for n in nodes.children),
            self.values(results, env),
        )

    def range(self, tree: Syntax) -> tuple[str, Symbol]:
        name, least, most, factor = tree.children
        symbol = Symbol(
            str(name),
            int(least),
            Symbol(str(name)).max if most is None else int(most),
            1 if factor is None else int(factor),
        )
        try:
            dim(symbol.name, min=symbol.min, max=symbol.max, multiple_of=symbol.multiple_of)
        except ValueError as error:
            self.fail(tree, str(error))
        return symbol.name, symbol

    def param(self, tree: Syntax, env: dict[str, Value], symbols: dict[str, Symbol]) -> Value:
        name, quoted, type = tree.children
        label = "" if quoted is None else self.string(quoted)
        return self.define(name, Value(self.type(type, symbols), label), env)

    def define(self, name: Token, value: Value, env: dict[str, Value]) -> Value:
        if env.setdefault(str(name), value) is not value:
            self.fail(name, f"{name} is defined twice")
        return value

    def node(self, tree: Syntax, env: dict[str, Value], symbols: dict[str, Symbol]) -> Node:
        outputs, op, operands, attrs, loc = tree.children
        inputs = self.values(operands, env)
        values = tuple(
            self.define(name, Value(self.type(type, symbols)), env)
            for name, type in (output.children for output in outputs.children)
        )
        return Node(str(op), inputs, values, self.attrs(attrs, symbols), self.loc(loc))

    def values(self, tree: Syntax, env: dict[str, Value]) -> tuple[Value, ...]:
        names = [name for name in tree.children if isinstance(name, Token)]
        for name in names:
            if str(name) not in env:
                self.fail(name, f"{name} is used before it is defined")
        return tuple(env[str(name)] for name in names)

    def attrs(self, tree: Syntax, symbols: dict[str, Symbol]) -> MappingProxyType[str, Any]:
        read: dict[str, Any] = {}
        for name, literal in (attr.children for attr in (tree.children if tree else ())):
            if str(name) in read:
                self.fail(name, f"attribute {name} is given twice")
            read[str(name)] = self.literal(literal, symbols)
        return MappingProxyType(read)

    def loc(self, tree: Syntax) -> Loc | None:
        if tree is None:
            return None
        file, line, layer = tree.children
        return Loc(self.string(file), int(line), "" if layer is None else self.string(layer))

    def type(self, tree: Syntax, symbols: dict[str, Symbol]) -> TensorType:
        name, *sizes = tree.children
        dtype = DTYPES.get(str(name))
        if dtype is None:
            self.fail(name, f"unknown dtype {str(name)!r}", expected=", ".join(DTYPES))
        return TensorType(dtype, tuple(self.size(s, symbols) for s in sizes if s is not None))

    def string(self, token: Token) -> str:
        try:
            return str(json.loads(token))
        except ValueError:
            self.fail(token, "this string has an escape that is not one of JSON's")

    def literal(self, tree: Syntax, symbols: dict[str, Symbol]) -> Any:
        if tree.data == "tuple":
            return tuple(self.literal(item, symbols) for item in tree.children)
        if tree.data == "graph":
            return self.graph(tree, symbols)
        (only,) = tree.children
        return self.word(only, symbols) if tree.data == "word" else self.scalar(tree.data, only)

    def scalar(self, kind: str, token: Token) -> float | str | bytes:
        if kind == "string":
            return self.string(token)
        if kind == "bytes":
            digits = token[len('hex"') : -1]
            if len(digits) % 2:
                self.fail(token, "these bytes end in half a byte")
            return bytes.fromhex(digits)
        return -float(token) if kind == "negative_float" else float(token)

    def word(self, tree: Syntax, symbols: dict[str, Symbol]) -> Any:
        """A size, unless it is a word that means something else where it stands alone."""
        name = str(tree.children[0]) if tree.data == "symbol" else ""
        if name in DTYPES:
            return DTYPES[name]
        if name in ("true", "false"):
            return name == "true"
        if name in ("inf", "nan"):
            return float(name)
        if tree.data == "negative" and tree.children[0].data == "symbol":
            inner = str(tree.children[0].children[0])
            if inner in ("inf", "nan"):
                return -float(inner)
        return self.size(tree, symbols)

    def size(self, tree: Syntax, symbols: dict[str, Symbol]) -> Size:
        if tree.data == "integer":
            return int(tree.children[0])
        if tree.data == "symbol":
            name = str(tree.children[0])
            return symbol_size(symbols.get(name, Symbol(name)))
        operands = list(tree.children)
        function = str(operands.pop(0) if tree.data == "call" else tree.data)
        if function not in _ARITHMETIC:
            self.fail(tree, f"{function} is no function of sizes", expected="max, min")
        try:
            return _ARITHMETIC[function](*(self.size(x, symbols) for x in operands))
        except ZeroDivisionError:
            self.fail(tree, "a size is divided by zero")


_ARITHMETIC: dict[str, Callable[..., Size]] = {
    "sum": lambda x, y: x + y,
    "difference": lambda x, y: x - y,
    "product": lambda x, y: x * y,
    "quotient": floordiv,
    "negative": lambda x: -x,
    "parentheses": lambda x: x,
    "max": largest,
    "min": smallest,
}


def _unquote(token: Token) -> str:
    text = str(token).removeprefix("@")
    return str(json.loads(text)) if text.startswith('"') else text


def _error(text: str, line: int, column: int, what: str, expected: str = "") -> IRSyntaxError:
    """The line at fault with a caret under its column, aligned with the rows of the message."""
    lines = text.splitlines() or [""]
    source = lines[min(line, len(lines)) - 1]
    caret = " " * (len("  expected: ") + column - 1) + "^"
    return IRSyntaxError(f"line {line}: {what}", expected=expected, got=f"{source}\n{caret}")


def _refuse(text: str, error: UnexpectedInput) -> NoReturn:
    line, column = error.line, error.column
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        lines = text.rstrip().splitlines() or [""]
        line, column = len(lines), len(lines[-1]) + 1
    expected: set[str] = set()
    if isinstance(error, UnexpectedToken):
        expected = error.accepts or error.expected
    elif isinstance(error, UnexpectedCharacters):
        expected = error.allowed or set()
    names = sorted({_terminal(name) for name in expected} - {""})
    raise _error(text, line, column, "cannot read this graph", ", ".join(names)) from None


_TERMINALS = {
    "VALUE": "a value such as %x",
    "NAME": "a name",
    "AT_NAME": "a name such as @f",
    "INT": "an integer",
    "FLOAT": "a number",
    "STRING": "a string",
    "HEX": 'bytes such as hex"00ff"',
    "$END": "the end",
    "WS": "",
    "COMMENT": "",
}


def _terminal(name: str) -> str:
    if name in _TERMINALS:
        return _TERMINALS[name]
    pattern = next(t.pattern for t in _lark().terminals if t.name == name)
    return "graph" if name == "GRAPH" else f"`{pattern.value}`"
