"""The text form: print and read back, write by hand, and see what is wrong."""

# ruff: noqa: E501, graphs and tables of errors have one row each

import math
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import random_graph

from fluxc.compiler.errors import IRSyntaxError
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.dims import Symbol, dim, symbol_size
from fluxc.compiler.ir.graph import Graph, Loc, Node, Value
from fluxc.compiler.ir.parser import parse_graph, parse_graphs
from fluxc.compiler.ir.printer import print_graph, print_literal
from fluxc.compiler.ir.types import DTYPES, TensorType, f32
from fluxc.compiler.ir.verify import verify
from fluxc.compiler.ops import OPS, infer

EXAMPLE = """\
graph @layer(%0 "x": f32[batch, 64], %1: f32[32, 64]) where batch in 8..1024 multiple of 8 {
  %2: f32[batch, 32] = contract(%0, %1) {batch_a = (), batch_b = (), over_a = (1,), over_b = (1,)} loc("model.py", 12, "layers.0")
  %3: f32[batch, 32] = full() {dtype = f32, shape = (batch, 32), value = -0.0} loc("model.py", 13)
  %4: f32[batch, 32] = maximum(%2, %3)
  return %4, %2
}"""


def with_attr(value):
    """A graph whose one node has an attribute; no operation is asked whether it likes it."""
    out = Value(TensorType(f32))
    return Graph("g", (), (Node("any", (), (out,), {"a": value}),), (out,))


def test_canonical_text_reads_back_as_itself():
    assert print_graph(parse_graph(EXAMPLE)) == EXAMPLE


def test_locations_are_printed_on_request_only():
    assert "loc(" not in print_graph(parse_graph(EXAMPLE), locations=False)
    assert parse_graph(EXAMPLE).nodes[0].loc == Loc("model.py", 12, "layers.0")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_every_graph_reads_back(seed, differentiable):
    rng = np.random.default_rng(seed)
    g = random_graph(rng, int(rng.integers(1, 10)), differentiable=differentiable)
    again = parse_graph(print_graph(g))
    assert again == g
    assert [p.name for p in again.params] == [p.name for p in g.params]
    assert [v.type for v in again.results] == [v.type for v in g.results]
    verify(again, infer)


names = st.text(max_size=12)
sizes = st.sampled_from(
    [dim("n"), 2 * dim("n") + 1, dim("n") // 2, symbol_size(Symbol("inf", 2, 9)), symbol_size(Symbol("f32")), -dim("n"), dim("graph") * dim("max")]
)  # fmt: skip
leaves = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.floats(),
    st.floats(width=16),
    names,
    st.binary(max_size=9),
    st.sampled_from(list(DTYPES.values())),
    sizes,
)
attrs = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


@settings(max_examples=80, deadline=None)
@given(attrs)
def test_every_attribute_reads_back(value):
    again = parse_graph(print_graph(with_attr(value))).nodes[0].attrs["a"]
    assert print_literal(again) == print_literal(value)
    assert type(again) is type(value)


@settings(max_examples=50, deadline=None)
@given(names, names, names, st.integers(0, 10**9))
def test_every_name_and_place_reads_back(name, param, file, line):
    x = Value(TensorType(f32), param)
    y = Value(TensorType(f32))
    g = Graph(name, (x,), (Node("exp", (x,), (y,), loc=Loc(file, line, param)),), (y,))
    again = parse_graph(print_graph(g))
    assert (again.name, again.params[0].name, again.nodes[0].loc) == (
        name,
        param,
        Loc(file, line, param),
    )


def test_floats_keep_their_sign_and_are_not_integers():
    values = (0.0, -0.0, 1.0, 1, True, math.inf, -math.inf, math.nan, 1e300, 5e-324, 0.1)
    text = print_literal(values)
    assert text == "(0.0, -0.0, 1.0, 1, true, inf, -inf, nan, 1e+300, 5e-324, 0.1)"
    again = parse_graph(print_graph(with_attr(values))).nodes[0].attrs["a"]
    assert list(map(type, again)) == list(map(type, values))
    assert math.copysign(1, again[1]) == -1


def test_ranges_of_named_sizes_are_declared_once_and_read_back():
    b = Builder(infer)
    x = b.param(TensorType(f32, (dim("n", min=2), dim("m", max=64, multiple_of=4), dim("k"))))
    text = print_graph(b.graph("f", [x]))
    assert "where m in 0..64 multiple of 4, n in 2.. {" in text
    assert parse_graph(text).params[0].type == x.type


def test_sub_graphs_and_several_outputs_read_back():
    (x,), attrs = OPS["custom_vjp"].sample(np.random.default_rng(0))
    b = Builder(infer)
    g = b.graph("f", b.emit_all("custom_vjp", b.param(TensorType(DTYPES["f64"], x.shape)), **attrs))
    again = parse_graph(print_graph(g))
    assert again == g
    assert again.nodes[0].attrs["body"] == attrs["body"]
    two = parse_graph("graph @f(%x: f32[]) { %a: f32[], %b: i32[n] = split(%x) return %b, %a }")
    assert "%1: f32[], %2: i32[n] = split(%0)" in print_graph(two)


def test_values_may_have_any_names_and_lines_any_breaks():
    g = parse_graph(
        "; a comment\ngraph @f(%x.y: f32[2])\n{%_1: f32[2]\n= exp(%x.y) ; here\nreturn %_1}"
    )
    assert print_graph(g).splitlines()[1] == "  %1: f32[2] = exp(%0)"


def test_long_headers_have_one_parameter_a_line():
    b = Builder(infer)
    for i in range(8):
        b.param(TensorType(f32, (64, 64)), f"layers.{i}.weight")
    g = b.graph("f", b.params)
    lines = print_graph(g).splitlines()
    assert lines[1] == '    %0 "layers.0.weight": f32[64, 64],'
    assert parse_graph(print_graph(g)) == g


def test_several_graphs_are_read_in_order():
    assert [g.name for g in parse_graphs(f"{EXAMPLE}\n\ngraph @other() {{ return }}")] == [
        "layer",
        "other",
    ]


# what is wrong, the text, the message's first line, what the caret points at
WRONG = [
    (
        "no equals sign",
        "graph @f(%x: f32[]) {\n  %y: f32[] exp(%x)\n  return %y\n}",
        "line 2: cannot read this graph",
        "exp(%x)",
    ),
    (
        "undefined value",
        "graph @f() {\n  return %x\n}",
        "line 2: %x is used before it is defined",
        "%x",
    ),
    (
        "use before definition",
        "graph @f() {\n  %a: f32[] = exp(%b)\n  %b: f32[] = exp(%a)\n return %b }",
        "line 2: %b is used before it is defined",
        "%b)",
    ),
    (
        "defined twice",
        "graph @f(%x: f32[]) {\n  %x: f32[] = exp(%x)\n  return %x }",
        "line 2: %x is defined twice",
        "%x: f32",
    ),
    ("unknown dtype", "graph @f(%x: f31[2]) { return %x }", "line 1: unknown dtype 'f31'", "f31"),
    (
        "empty range",
        "graph @f() where n in 5..2 { return }",
        "line 1: dimension 'n' has no legal size",
        "n in 5",
    ),
    (
        "attribute twice",
        "graph @f() { %x: f32[] = full() {a = 1, a = 2} return %x }",
        "line 1: attribute a is given twice",
        "a = 2",
    ),
    (
        "half a byte",
        'graph @f() { %x: f32[] = constant() {data = hex"123"} return %x }',
        "line 1: these bytes end in half a byte",
        'hex"123"',
    ),
    (
        "bad escape",
        'graph @f(%x "\\q": f32[]) { return %x }',
        "line 1: this string has an escape",
        '"\\q"',
    ),
    (
        "unknown function",
        "graph @f(%x: f32[abs(n, m)]) { return %x }",
        "line 1: abs is no function of sizes",
        "abs",
    ),
    (
        "division by zero",
        "graph @f(%x: f32[n//0]) { return %x }",
        "line 1: a size is divided by zero",
        "n//0",
    ),
    ("strange sign", "graph @f(%x: f32[]) { return $x }", "line 1: cannot read this graph", "$x"),
    (
        "closure",
        "graph @f(%x: f32[]) {\n  %y: f32[] = call(%x) {g = graph @g() { return %x }}\n  return %y }",
        "line 2: %x is used before it is defined",
        "%x }}",
    ),
]


@pytest.mark.parametrize(
    ("text", "summary", "at"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG]
)
def test_what_is_wrong_is_shown_with_its_line_and_a_caret(text, summary, at):
    with pytest.raises(IRSyntaxError, match=re.escape(summary)) as caught:
        parse_graph(text)
    lines = str(caught.value).splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("  got:"))
    assert lines[row][lines[row + 1].index("^") :].startswith(at)


def test_an_unfinished_graph_is_shown_at_its_end():
    with pytest.raises(IRSyntaxError, match="line 2") as caught:
        parse_graph("graph @f() {\n  return")
    assert "expected: `}`, a value such as %x" in str(caught.value)


def test_an_unknown_dtype_lists_the_known_ones():
    with pytest.raises(IRSyntaxError) as caught:
        parse_graph("graph @f(%x: float[2]) { return %x }")
    assert caught.value.expected == ", ".join(DTYPES)


def test_nothing_but_the_parser_needs_lark():
    code = "import sys; import fluxc.compiler.ir, fluxc.compiler.passes; assert 'lark' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_printing_thousands_of_nodes_is_quick():
    b = Builder(infer)
    x = v = b.param(TensorType(f32, (dim("n"), 64)))
    for _ in range(2000):
        v = b.emit("broadcast", b.emit("add", v, x), shape=x.type.shape, axes=(0, 1))
    g = b.graph("chain", [v])
    start = time.process_time()
    print_graph(g)
    assert time.process_time() - start < 0.5


# ---- docs/ir.md is true

DOCS = Path(__file__).parent.parent / "docs" / "ir.md"
BLOCKS = re.findall(r"```text\n(graph.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def test_the_documentation_has_examples():
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("text", BLOCKS)
def test_graphs_of_the_documentation_are_valid_and_canonical(text):
    graphs = parse_graphs(text)
    for g in graphs:
        verify(g, infer)
    assert "\n\n".join(map(print_graph, graphs)) == text.rstrip()


def test_the_documented_grammar_is_the_grammar():
    grammar = (DOCS.parent.parent / "compiler" / "ir" / "grammar.lark").read_text(encoding="utf-8")
    assert f"```text\n{grammar}```" in DOCS.read_text(encoding="utf-8")


def test_every_invariant_is_documented():
    numbers = set(re.findall(r"^(V\d+) ", sys.modules[verify.__module__].__doc__, re.MULTILINE))
    documented = set(re.findall(r"^\| (V\d+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert numbers == documented
