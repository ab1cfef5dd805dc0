"""Each invariant, broken on purpose: the verifier names it and shows the node."""

import re

import numpy as np
import pytest

from fluxc.compiler.errors import InvalidGraph
from fluxc.compiler.ir import verify as module_function
from fluxc.compiler.ir.dims import Symbol, dim, symbol_size
from fluxc.compiler.ir.graph import Graph, Loc, Node, Value
from fluxc.compiler.ir.parser import parse_graph
from fluxc.compiler.ir.types import TensorType, f32, f64
from fluxc.compiler.ir.verify import verify
from fluxc.compiler.ops import infer

F32 = TensorType(f32, (2,))


def exp(x, out=None, **attrs):
    return Node("exp", (x,), (out or Value(x.type),), attrs, Loc("model.py", 7, "head"))


def graph(params, nodes, results):
    return Graph("g", tuple(params), tuple(nodes), tuple(results))


def defined_twice():
    x = Value(F32)
    a = exp(x)
    return graph([x], [a, exp(x, a.output)], [a.output])


def parameter_twice():
    x = Value(F32)
    return graph([x, x], [], [x])


def used_before_definition():
    x = Value(F32)
    a = exp(x)
    b = exp(a.output)
    return graph([x], [b, a], [b.output])


def uses_itself():
    x = Value(F32)
    return graph([], [exp(x, x)], [x])


def undefined_result():
    return graph([Value(F32)], [], [Value(F32)])


def undeclared_operation():
    return parse_graph("graph @g(%x: f32[2]) { %y: f32[2] = expp(%x) return %y }")


def surplus_attribute():
    return parse_graph("graph @g(%x: f32[2]) { %y: f32[2] = exp(%x) {axis = 1} return %y }")


def missing_attribute():
    return parse_graph("graph @g(%x: f32[2]) { %y: f32[] = reduce_sum(%x) return %y }")


def attribute_that_the_rule_stumbles_over():
    return parse_graph('graph @g(%x: f32[2]) { %y: f32[] = reduce_sum(%x) {axes = "a"} return %y }')


def surplus_operand():
    return parse_graph("graph @g(%x: f32[2]) { %y: f32[2] = exp(%x, %x) return %y }")


def wrong_type():
    return parse_graph("graph @g(%x: f32[2]) { %y: f32[3] = exp(%x) return %y }")


def wrong_number_of_outputs():
    return parse_graph("graph @g(%x: f32[2]) { %y: f32[2], %z: f32[2] = exp(%x) return %y }")


def numpy_scalar():
    out = Value(F32)
    node = Node("full", (), (out,), {"value": np.float64(1), "dtype": f32, "shape": (2,)})
    return graph([], [node], [out])


def list_attribute():
    x, out = Value(F32), Value(TensorType(f32))
    return graph([x], [Node("reduce_sum", (x,), (out,), {"axes": [0]})], [out])


def negative_size():
    return parse_graph("graph @g(%x: f32[n - 3]) { return %x }")


def two_ranges():
    n, other = symbol_size(Symbol("n", 1, 8)), symbol_size(Symbol("n", 1, 9))
    return graph([Value(TensorType(f32, (n,))), Value(TensorType(f32, (other,)))], [], [])


def unknown_size():
    return parse_graph(
        "graph @g() { %x: f32[n] = full() {dtype = f32, shape = (n,), value = 1.0} return %x }"
    )


def invalid_sub_graph():
    return parse_graph("""
        graph @g(%x: f32[2]) {
          %y: f32[2] = custom_vjp(%x) {
            body = graph @body(%x: f32[2]) { %y: f32[2] = abs(%x) %z: f64[2] = exp(%y) return %y },
            backward = graph @backward(%x: f32[2], %y: f32[2], %dy: f32[2]) { return %dy }}
          return %y }""")


BROKEN = [
    ("V1", "%1 is defined twice", defined_twice),
    ("V1", "%0 is defined twice", parameter_twice),
    ("V2", "not defined before its use", used_before_definition),
    ("V2", "comes after its use", uses_itself),
    ("V2", "a result of type", undefined_result),
    ("V3", "unknown operation 'expp'", undeclared_operation),
    ("V3", "exp: these are not its operands and attributes", surplus_attribute),
    ("V3", "reduce_sum: these are not its operands and attributes", missing_attribute),
    ("V3", "axes must be a tuple of integers", attribute_that_the_rule_stumbles_over),
    ("V3", "exp takes 1 operands", surplus_operand),
    ("V4", "the types written are not the types inferred", wrong_type),
    ("V4", "the types written are not the types inferred", wrong_number_of_outputs),
    ("V5", "attribute value is a float64", numpy_scalar),
    ("V5", "attribute axes is a list", list_attribute),
    ("V6", "the size n - 3 may be negative", negative_size),
    ("V7", "the named size n has two ranges", two_ranges),
    ("V8", "no parameter's type tells the named size n", unknown_size),
    ("V9", "the sub-graph @body is not valid", invalid_sub_graph),
]


@pytest.mark.parametrize(
    ("number", "what", "make"), BROKEN, ids=[f"{n}_{m.__name__}" for n, _, m in BROKEN]
)
def test_a_broken_invariant_is_named(number, what, make):
    with pytest.raises(InvalidGraph) as caught:
        verify(make(), infer)
    assert re.search(f"{number}: @g: .*{re.escape(what)}", str(caught.value))


def test_every_invariant_is_tested():
    text = verify.__globals__["__doc__"]
    assert {n for n, *_ in BROKEN} == set(re.findall(r"^(V\d+) ", text, re.MULTILINE))


def test_a_violation_shows_the_node_both_types_and_the_place():
    g = wrong_type()
    node = Node("exp", (g.params[0],), g.nodes[0].outputs, loc=Loc("model.py", 7, "head"))
    with pytest.raises(InvalidGraph) as caught:
        verify(graph(g.params, [node], g.results), infer)
    assert str(caught.value) == (
        "model.py:7 (in head): V4: @g: the types written are not the types inferred, "
        "in %1: f32[3] = exp(%0)\n  expected: f32[2]\n  got:      f32[3]"
    )


def test_all_violations_are_collected():
    g = parse_graph("graph @g(%x: f32[2]) { %y: f32[3] = exp(%x) %z: f32[3] = wat(%y) return %z }")
    with pytest.raises(InvalidGraph) as caught:
        verify(g, infer)
    assert re.findall(r"V\d", str(caught.value)) == ["V4", "V3"]


def test_the_violations_of_a_sub_graph_are_listed_too():
    with pytest.raises(InvalidGraph) as caught:
        verify(invalid_sub_graph(), infer)
    assert re.findall(r"V\d: @\w+", str(caught.value)) == ["V9: @g", "V4: @body"]


def test_a_valid_graph_is_returned():
    n = dim("n", min=3)
    x = Value(TensorType(f64, (n - 3,)))
    g = graph([x, Value(TensorType(f32, (n,)))], [exp(x)], [x])
    assert verify(g, infer) is g
    assert module_function is verify


def test_a_size_that_rules_prove_is_not_negative_to_the_verifier():
    text = "graph @g(%x: f32[n], %y: f32[((n + 1)//2)*m - (n + 1)//2]) where m in 1.. { return %y }"
    verify(parse_graph(text), infer)
