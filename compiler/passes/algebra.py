"""Rules of elementwise operations.

Each holds for every value of every dtype that it takes, NaN, infinities and -0.0 included (which
NaN is open).  `x * 0 = 0` and `x + 0.0 = x` do not, so they are not here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluxc.compiler.ir.graph import Node, Value
    from fluxc.compiler.ir.types import DType
    from fluxc.compiler.passes.rewrite import Rewriter, Rules

__all__ = ["RULES"]

TO_INTEGER = ("floor", "ceil", "round", "trunc")
OPPOSITE = {"eq": "ne", "ne": "eq"}
ORDER_OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}
MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
GREATEST_EXPONENT = {
    "f64": 1022,
    "f32": 126,
    "bf16": 126,
    "f16": 14,
}  # of normal numbers, both ways


def _is_float(n: Node) -> bool:
    return n.inputs[0].type.dtype.is_float


# ---- signs


def neg_neg(r: Rewriter, n: Node) -> Value | None:  # -(-x) = x
    inner = r.by(n.inputs[0], "neg")
    return inner.inputs[0] if inner else None


def neg_product(r: Rewriter, n: Node) -> Value | None:  # -(x * c) = x * -c, and of quotients
    inner = r.by(n.inputs[0], "mul", "div")
    c = r.number(inner.inputs[1]) if inner and _is_float(n) else None
    if inner is None or c is None:
        return None
    return r.emit(inner.op, inner.inputs[0], r.full(-c, n.output.type))


def neg_difference(r: Rewriter, n: Node) -> Value | None:  # -(x - z) = z - x of integers
    inner = r.by(n.inputs[0], "sub")
    return r.emit("sub", *reversed(inner.inputs)) if inner and not _is_float(n) else None


def abs_of_sign(r: Rewriter, n: Node) -> Value | None:  # |-x| = ||x|| = |x|
    inner = r.by(n.inputs[0], "neg", "abs")
    fine = inner is not None and n.output.type.dtype.kind in "fi"
    return r.emit("abs", inner.inputs[0]) if inner and fine else None


def abs_unsigned(_: Rewriter, n: Node) -> Value | None:  # |x| = x of unsigned x
    return n.inputs[0] if n.output.type.dtype.kind == "u" else None


# ---- sums


def add_zero(r: Rewriter, n: Node) -> Value | None:  # x + -0.0 = x of floats, x + 0 = x of integers
    x, z = n.inputs
    return x if r.is_number(z, -0.0 if _is_float(n) else 0) else None


def add_neg(r: Rewriter, n: Node) -> Value | None:  # x + (-z) = x - z = (-z) + x
    x, z = n.inputs
    if inner := r.by(z, "neg"):
        return r.emit("sub", x, inner.inputs[0])
    inner = r.by(x, "neg")
    return r.emit("sub", z, inner.inputs[0]) if inner else None


def sub_zero(r: Rewriter, n: Node) -> Value | None:  # x - 0 = x
    x, z = n.inputs
    return x if r.is_number(z, 0.0) else None


def zero_sub(r: Rewriter, n: Node) -> Value | None:  # -0.0 - x = -x of floats, 0 - x of integers
    x, z = n.inputs
    return r.emit("neg", z) if r.is_number(x, -0.0 if _is_float(n) else 0) else None


def sub_neg(r: Rewriter, n: Node) -> Value | None:  # x - (-z) = x + z
    x, z = n.inputs
    inner = r.by(z, "neg")
    return r.emit("add", x, inner.inputs[0]) if inner else None


def sub_self(r: Rewriter, n: Node) -> Value | None:  # x - x = 0 of integers
    x, z = n.inputs
    return r.full(0, n.output.type) if x is z and not _is_float(n) else None


# ---- products


def mul_one(r: Rewriter, n: Node) -> Value | None:  # x * 1 = x / 1 = x
    x, z = n.inputs
    return x if r.is_number(z, 1) else None


def mul_minus_one(r: Rewriter, n: Node) -> Value | None:  # x * -1 = x / -1 = -x
    x, z = n.inputs
    return r.emit("neg", x) if r.is_number(z, -1) else None


def mul_zero(r: Rewriter, n: Node) -> Value | None:  # x * 0 = 0 of integers
    zero = not _is_float(n) and r.is_number(n.inputs[1], 0)
    return r.full(0, n.output.type) if zero else None


def mul_signs(r: Rewriter, n: Node) -> Value | None:  # -x * -z = x * z, -x * c = x * -c
    x, z = n.inputs
    left, right, c = r.by(x, "neg"), r.by(z, "neg"), r.number(z)
    if left is None or not _is_float(n):
        return None
    if right is not None:
        return r.emit(n.op, left.inputs[0], right.inputs[0])
    return None if c is None else r.emit(n.op, left.inputs[0], r.full(-c, z.type))


def div_power_of_two(r: Rewriter, n: Node) -> Value | None:  # x / 2**k = x * 2**-k
    x, z = n.inputs
    c = r.number(z)
    if c is None or c == 0 or not math.isfinite(c):
        return None
    mantissa, exponent = math.frexp(c)
    if abs(mantissa) != 0.5 or abs(exponent - 1) > GREATEST_EXPONENT[x.type.dtype.name]:
        return None
    return r.emit("mul", x, r.full(1 / c, z.type))


def pow_zero(r: Rewriter, n: Node) -> Value | None:  # x**0 = 1
    one = 1.0 if _is_float(n) else 1
    return r.full(one, n.output.type) if r.number(n.inputs[1]) == 0 else None


def pow_one(r: Rewriter, n: Node) -> Value | None:  # x**1 = x
    return n.inputs[0] if r.is_number(n.inputs[1], 1) else None


def pow_two(r: Rewriter, n: Node) -> Value | None:  # x**2 = x * x; the product is rounded correctly
    x, z = n.inputs
    return r.emit("mul", x, x) if r.is_number(z, 2) else None


# ---- order of operands


def constant_last(r: Rewriter, n: Node) -> Value | None:  # c + x = x + c
    x, z = n.inputs
    swap = r.by(x, "full", "constant") and not r.by(z, "full", "constant")
    return r.emit(n.op, z, x) if swap else None


def constant_last_in_order(r: Rewriter, n: Node) -> Value | None:  # c < x = x > c
    x, z = n.inputs
    swap = r.by(x, "full", "constant") and not r.by(z, "full", "constant")
    return r.emit(MIRRORED[n.op], z, x) if swap else None


# ---- extremes, logic, comparisons


def same_operands(_: Rewriter, n: Node) -> Value | None:  # max(x, x) = x & x = x
    x, z = n.inputs
    return x if x is z else None


def max_neutral(r: Rewriter, n: Node) -> Value | None:  # max(x, -inf) = x, min(x, inf) = x
    x, z = n.inputs
    neutral = -math.inf if n.op == "maximum" else math.inf
    if r.number(z) == neutral:
        return x
    return z if r.number(x) == neutral else None


def max_of_wider(r: Rewriter, n: Node) -> Value | None:  # max(cast x, c) = cast max(x, c)
    """Integers by way of a wider dtype, where the narrow one has c too."""
    x, z = n.inputs
    inner, c = r.by(x, "cast"), r.number(z)
    if inner is None or c is None or _is_float(n):
        return None
    source = inner.inputs[0]
    dtype = source.type.dtype
    if not dtype.is_integer or not _holds(x.type.dtype, dtype) or not _in_range(c, dtype):
        return None
    value = r.emit(n.op, source, r.full(c, source.type))
    return r.emit("cast", value, dtype=x.type.dtype)


def _in_range(c: float, dtype: DType) -> bool:
    least = -(1 << dtype.bits - 1) if dtype.kind == "i" else 0
    return least <= c < least + (1 << dtype.bits)


def and_all(r: Rewriter, n: Node) -> Value | None:  # x & true = x, x & -1 = x
    x, z = n.inputs
    return x if r.number(z) == _all_bits(n.output.type.dtype) else None


def and_none(r: Rewriter, n: Node) -> Value | None:  # x & false = false, x & 0 = 0
    z = n.inputs[1]
    return z if r.number(z) == 0 else None


def or_none(r: Rewriter, n: Node) -> Value | None:  # x | false = x ^ false = x, and of 0
    x, z = n.inputs
    return x if r.number(z) == 0 else None


def or_all(r: Rewriter, n: Node) -> Value | None:  # x | true = true, x | -1 = -1
    z = n.inputs[1]
    return z if r.number(z) == _all_bits(n.output.type.dtype) else None


def _all_bits(dtype: DType) -> int:
    ones: dict[str, int] = {"b": 1, "i": -1, "u": (1 << dtype.bits) - 1}
    return ones[dtype.kind]


def xor_self(r: Rewriter, n: Node) -> Value | None:  # x ^ x = 0
    x, z = n.inputs
    zero = False if n.output.type.dtype.kind == "b" else 0
    return r.full(zero, n.output.type) if x is z else None


def not_not(r: Rewriter, n: Node) -> Value | None:  # not not x = x
    inner = r.by(n.inputs[0], "not")
    return inner.inputs[0] if inner else None


def not_equal(r: Rewriter, n: Node) -> Value | None:  # not (x == z) = (x != z), NaN included
    inner = r.by(n.inputs[0], *OPPOSITE)
    return r.emit(OPPOSITE[inner.op], *inner.inputs) if inner else None


def not_ordered(r: Rewriter, n: Node) -> Value | None:  # not (x < z) = (x >= z), NaN excluded
    inner = r.by(n.inputs[0], *ORDER_OPPOSITE)
    return (
        r.emit(ORDER_OPPOSITE[inner.op], *inner.inputs) if inner and not _is_float(inner) else None
    )


def compare_self(r: Rewriter, n: Node) -> Value | None:  # x == x, x <= x, x >= x without NaN
    x, z = n.inputs
    known = x is z and not _is_float(n)
    return r.full(n.op in ("eq", "le", "ge"), n.output.type) if known else None


# ---- selection


def select_constant(r: Rewriter, n: Node) -> Value | None:  # select(true, x, z) = x
    c, x, z = n.inputs
    known = r.number(c)
    return None if known is None else x if known else z


def select_same(_: Rewriter, n: Node) -> Value | None:  # select(c, x, x) = x
    _c, x, z = n.inputs
    return x if x is z else None


def select_not(r: Rewriter, n: Node) -> Value | None:  # select(not c, x, z) = select(c, z, x)
    c, x, z = n.inputs
    inner = r.by(c, "not")
    return r.emit("select", inner.inputs[0], z, x) if inner else None


def select_bools(r: Rewriter, n: Node) -> Value | None:  # select(c, true, false) = c, and negated
    c, x, z = n.inputs
    if n.output.type.dtype.kind != "b" or r.number(x) is None or r.number(z) is None:
        return None
    return c if r.number(x) else r.emit("not", c)


# ---- rounding, conversion


def round_rounded(r: Rewriter, n: Node) -> Value | None:  # floor(ceil(x)) = ceil(x), any pair
    return n.inputs[0] if r.by(n.inputs[0], *TO_INTEGER) else None


def sign_sign(r: Rewriter, n: Node) -> Value | None:  # sign(sign(x)) = sign(x)
    return n.inputs[0] if r.by(n.inputs[0], "sign") else None


def convert_same(_: Rewriter, n: Node) -> Value | None:  # cast(x) = bitcast(x) = x to x's dtype
    x = n.inputs[0]
    return x if x.type.dtype == n.attrs["dtype"] else None


def bitcast_bitcast(r: Rewriter, n: Node) -> Value | None:  # the bits are those of x
    inner = r.by(n.inputs[0], "bitcast")
    return r.emit("bitcast", inner.inputs[0], dtype=n.attrs["dtype"]) if inner else None


def cast_cast(
    r: Rewriter, n: Node
) -> Value | None:  # cast(cast(x)) = cast(x) by way of a wider dtype
    inner = r.by(n.inputs[0], "cast")
    if inner is None:
        return None
    x, to = inner.inputs[0], n.attrs["dtype"]
    # Integers by way of a float would saturate where integers wrap.
    saturates = x.type.dtype.is_integer and inner.attrs["dtype"].is_float and to.is_integer
    exact = _holds(inner.attrs["dtype"], x.type.dtype) and not saturates
    return r.emit("cast", x, dtype=to) if exact else None


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether every number of `narrow` is one of `wide`."""
    if narrow.kind == "b" or narrow == wide:
        return True
    if wide.kind == "f":
        digits = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}
        if narrow.kind == "f":
            return digits[wide.name] >= digits[narrow.name] and wide.bits > narrow.bits
        return digits[wide.name] >= narrow.bits
    if wide.kind == "b" or narrow.kind == "f":
        return False
    return wide.bits > narrow.bits and (wide.kind == "i" or narrow.kind == "u")


EXTREME = (same_operands, max_neutral, max_of_wider)
RULES: Rules = {
    "neg": (neg_neg, neg_product, neg_difference),
    "abs": (abs_unsigned, abs_of_sign),
    "add": (constant_last, add_zero, add_neg),
    "sub": (sub_zero, zero_sub, sub_neg, sub_self),
    "mul": (constant_last, mul_one, mul_minus_one, mul_zero, mul_signs),
    "div": (mul_one, mul_minus_one, mul_signs, div_power_of_two),
    "pow": (pow_zero, pow_one, pow_two),
    "maximum": EXTREME,
    "minimum": EXTREME,
    "and": (constant_last, same_operands, and_all, and_none),
    "or": (constant_last, same_operands, or_none, or_all),
    "xor": (constant_last, xor_self, or_none),
    "not": (not_not, not_equal, not_ordered),
    "eq": (constant_last, compare_self),
    "ne": (constant_last, compare_self),
    **dict.fromkeys(MIRRORED, (constant_last_in_order, compare_self)),
    "select": (select_constant, select_same, select_not, select_bools),
    **dict.fromkeys(TO_INTEGER, (round_rounded,)),
    "sign": (sign_sign,),
    "cast": (convert_same, cast_cast),
    "bitcast": (convert_same, bitcast_bitcast),
}
