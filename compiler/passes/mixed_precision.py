"""Computes products of f32 values in 16 bits: parameters, sums and what is delicate stay in f32.

Applied to a program before it is differentiated, so that its way back computes as it does and the
gradient of what came in as f32 goes out as f32.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fluxc.compiler.ir.graph import Graph, Node, Value, map_subgraphs, subgraphs
from fluxc.compiler.ir.types import f32
from fluxc.compiler.ops import infer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fluxc.compiler.ir.graph import Loc
    from fluxc.compiler.ir.types import DType

__all__ = ["FAMILIES", "mixed_precision"]

FAMILIES: dict[str, tuple[str, str]] = {
    "products": ("narrow", "contract conv conv_last"),
    "layout": ("follow", "broadcast reshape transpose reverse slice pad concatenate"),
    "parts": ("follow", "gather dynamic_slice dynamic_update"),
    "copies": ("follow", "identity stop_gradient barrier"),
    "plain arithmetic": ("follow", "neg abs add sub mul maximum minimum copysign select"),
    "bounded functions": ("follow", "tanh sign sin cos erf atan"),
    "windows": ("follow", "window_max window_argmax window_pick window_place"),
    "tests": ("follow", "eq ne lt le gt ge is_nan is_inf is_finite argmax argmin"),
    "exponentials": ("wide", "exp exp2 expm1 log log2 log10 log1p pow sinh cosh asinh acosh atanh"),
    "roots and angles": ("wide", "sqrt rsqrt cbrt tan asin acos atan2"),
    "quotients": ("wide", "div floor_div mod fmod"),
    "steps": ("wide", "floor ceil round trunc"),
    "sums": ("wide", "reduce_sum reduce_prod cumulative recurrence scatter window_sum"),
    "extremes": ("wide", "reduce_max reduce_min argsort"),
    "bits": ("wide", "not and or xor shift_left shift_right reduce_and reduce_or bitcast cast"),
    "sources": ("wide", "full constant iota random_bits"),
    "programs": ("wide", "checkpoint custom_vjp switch while scan"),
}
"""Families of operations, and what each does with f32 operands: `narrow` casts them to 16 bits,
`wide` takes them in f32, and `follow` computes in 16 bits if all operands are; parameters and
numbers, which are any dtype's, are then cast.  Of programs the insides follow these rules."""
POLICY = {op: kind for kind, ops in FAMILIES.values() for op in ops.split()}
_VIEWS = frozenset(FAMILIES["layout"][1].split())
_NUMBERS = frozenset({"full", "constant"})


def mixed_precision(g: Graph, dtype: DType, parameters: Iterable[Value] = ()) -> Graph:
    """`g` with its products in `dtype`, f16 or bf16; parameters and results keep their types.

    parameters  those of the graph's parameters that follow what they meet, as numbers do
    """
    caster = _Caster(g, dtype, parameters)
    for node in g.nodes:
        caster.visit(node)
    results = tuple(caster.wide(v) for v in g.results)
    return Graph(g.name, g.params, tuple(caster.nodes), results)


class _Caster:
    """The graph as rebuilt so far: for every value of it one in f32, one in 16 bits, or both."""

    def __init__(self, g: Graph, dtype: DType, parameters: Iterable[Value]) -> None:
        self.dtype = dtype
        self.nodes: list[Node] = []
        self.loc: Loc | None = None
        self.in_f32: dict[Value, Value] = {v: v for v in g.params}
        self.in_16: dict[Value, Value] = {}
        self.low: set[Value] = set()  # computed in 16 bits, not merely cast
        self.any = set(parameters)  # of whichever precision they meet
        self.numbers = {n.output: n for n in g.nodes if n.op == "full"}

    def visit(self, node: Node) -> None:
        self.loc = node.loc
        policy = POLICY[node.op]
        floats = [v for v in node.inputs if v.type.dtype == f32]
        narrow = policy == "narrow" and bool(floats)
        if policy == "follow":
            deciding = [v for v in floats if v not in self.any]
            narrow = bool(deciding) and self.low.issuperset(deciding)
        if node.op in _NUMBERS or (node.op in _VIEWS and floats and self.any.issuperset(floats)):
            self.any.update(node.outputs)
        if narrow:
            self._narrow(node)
            return
        node = map_subgraphs(node, lambda sub: mixed_precision(sub, self.dtype))
        inputs = tuple(map(self.wide, node.inputs))
        self.nodes.append(Node(node.op, inputs, node.outputs, node.attrs, node.loc))
        self.in_f32.update((v, v) for v in node.outputs)

    def _narrow(self, node: Node) -> None:
        assert not subgraphs(node)
        inputs = tuple(self._in_16(v) if v.type.dtype == f32 else self.wide(v) for v in node.inputs)
        outputs = self._emit(node.op, inputs, node.attrs)
        for old, new in zip(node.outputs, outputs, strict=True):
            if old.type.dtype == f32:
                self.low.add(old)
                self.in_16[old] = new
            else:
                self.in_f32[old] = new

    def wide(self, v: Value) -> Value:
        """The value in its own dtype."""
        if v not in self.in_f32:
            (self.in_f32[v],) = self._emit("cast", (self.in_16[v],), {"dtype": f32})
        return self.in_f32[v]

    def _in_16(self, v: Value) -> Value:
        if v not in self.in_16:
            number = self.numbers.get(v)
            if number is not None:  # as it is: registers hold more digits than 16 bits
                made = self._emit("full", (), {**number.attrs, "dtype": self.dtype})
            else:
                made = self._emit("cast", (self.in_f32[v],), {"dtype": self.dtype})
            (self.in_16[v],) = made
        return self.in_16[v]

    def _emit(
        self, op: str, inputs: Sequence[Value], attrs: Mapping[str, Any]
    ) -> tuple[Value, ...]:
        given = MappingProxyType(dict(attrs))
        outputs = tuple(Value(t) for t in infer(op, tuple(v.type for v in inputs), given))
        self.nodes.append(Node(op, tuple(inputs), outputs, given, self.loc))
        return outputs
