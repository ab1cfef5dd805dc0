"""Random bits from a counter: the same on every machine, in any order, on any number of threads."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir.types import TensorType, i64, u32, u64
from fluxc.compiler.ops.checks import check_shape
from fluxc.compiler.ops.op import Op, ZeroGradient, register

if TYPE_CHECKING:
    from fluxc.compiler.ir.build import Builder
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Value
    from fluxc.compiler.ir.types import DType

__all__ = ["philox"]

# Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Four random u32 words for each counter; words are uint64 arrays below 2**32."""
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        left, right = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1 = _high(right) ^ c1 ^ np.uint64(k0), _low(right)
        c2, c3 = _high(left) ^ c3 ^ np.uint64(k1), _low(left)
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return c0, c1, c2, c3


def _high(word: np.ndarray) -> np.ndarray:
    return word >> np.uint64(32)


def _low(word: np.ndarray) -> np.ndarray:
    return word & np.uint64(MASK)


def infer_random_bits(
    seed: TensorType, step: TensorType, *, site: int, shape: tuple[Size, ...]
) -> TensorType:
    for name, given in (("seed", seed), ("step", step)):
        if given != TensorType(i64):
            raise DTypeError(
                f"random_bits: {name} must be a scalar", expected="i64[]", got=str(given)
            )
    if type(site) is not int or not 0 <= site <= MASK:
        raise ShapeError("random_bits: site must be a number of 32 bits", got=repr(site))
    check_shape("random_bits", shape)
    return TensorType(u32, shape)


def random_bits_reference(
    seed: np.ndarray, step: np.ndarray, *, site: int, shape: tuple[int, ...]
) -> np.ndarray:
    s, t = int(seed) & (2**64 - 1), int(step) & (2**64 - 1)
    i = np.arange(prod(shape), dtype=np.uint64)
    words = philox((_low(i), _high(i), t & MASK, site), (s & MASK, s >> 32 ^ t >> 32))
    return np.asarray(words[0].astype(np.uint32).reshape(shape))


def random_bits_lower(
    k: Any, index: Any, _types: Any, seed: Any, step: Any, *, site: int, shape: tuple[Size, ...]
) -> Any:
    position = k.size(0)
    for i, size in zip(index, shape, strict=True):
        position = k.add(k.mul(position, k.size(size)), i)
    (s0, s1), (t0, t1) = (_halves(k, x(())) for x in (seed, step))
    c0, c1 = _halves(k, position)
    c2, c3 = t0, k.const(site, u32)
    k0, k1 = s0, k.apply("xor", s1, t1)
    for _ in range(ROUNDS):
        (low0, high0), (low1, high1) = (
            _wide_product(k, c, m) for c, m in zip((c0, c2), MULTIPLIERS, strict=True)
        )
        c0, c1 = k.apply("xor", k.apply("xor", high1, c1), k0), low1
        c2, c3 = k.apply("xor", k.apply("xor", high0, c3), k1), low0
        k0 = k.apply("add", k0, k.const(KEY_STEPS[0], u32))
        k1 = k.apply("add", k1, k.const(KEY_STEPS[1], u32))
    return c0


def random_bits_batch(
    b: Builder,
    size: Size,
    seed: Value,
    step: Value,
    *,
    batched: tuple[bool, ...],
    site: int,
    shape: tuple[Size, ...],
) -> Value:
    """Each example draws bits of its own: those of one tensor with the batch as its first axis.

    With a seed or step for each example, the bits that it would draw alone; by arithmetic, since
    the operation takes one seed.
    """
    whole = (size, *shape)
    if not any(batched):
        return b.emit("random_bits", seed, step, site=site, shape=whole)

    def spread(x: Value) -> Any:
        axes = tuple(range(x.type.rank))
        return lambda _index: b.emit("broadcast", x, shape=whole, axes=axes)

    index = [b.emit("iota", dtype=i64, shape=whole, axis=a) for a in range(1, len(whole))]
    k = _Arithmetic(b, whole)
    bits: Value = random_bits_lower(
        k, index, None, spread(seed), spread(step), site=site, shape=shape
    )
    return bits


class _Arithmetic:
    """The part of `kernels.kernel.Expressions` that Philox needs, on whole tensors."""

    def __init__(self, b: Builder, shape: tuple[Size, ...]) -> None:
        self.b, self.shape = b, shape

    def const(self, number: int, dtype: DType) -> Value:
        return self.b.emit("full", value=number, dtype=dtype, shape=self.shape)

    def size(self, size: Size) -> Value:
        return self.b.emit("full", value=size, dtype=i64, shape=self.shape)

    def cast(self, x: Value, dtype: DType) -> Value:
        return self.b.emit("cast", x, dtype=dtype)

    def apply(self, op: str, *xs: Value) -> Value:
        return self.b.emit(op, *xs)

    def add(self, x: Value, z: Value) -> Value:
        return self.b.emit("add", x, z)

    def mul(self, x: Value, z: Value) -> Value:
        return self.b.emit("mul", x, z)


def _halves(k: Any, word: Any) -> tuple[Any, Any]:
    """The low and the high u32 of an i64."""
    return k.cast(word, u32), k.cast(k.apply("shift_right", word, k.const(32, i64)), u32)


def _wide_product(k: Any, word: Any, multiplier: int) -> tuple[Any, Any]:
    """The low and the high u32 of a product of u32s."""
    wide = k.apply("mul", k.cast(word, u64), k.const(multiplier, u64))
    return k.cast(wide, u32), k.cast(k.apply("shift_right", wide, k.const(32, u64)), u32)


def sample_bits(_rng: np.random.Generator) -> tuple[tuple[np.ndarray, ...], dict[str, Any]]:
    return (np.array(7), np.array(3)), {"site": 5, "shape": (2, 3)}


register(
    Op(
        name="random_bits",
        infer=infer_random_bits,
        reference=random_bits_reference,
        vjp=ZeroGradient("random bits are integers, which carry no derivative"),
        sample=sample_bits,
        lower=random_bits_lower,
        batch=random_bits_batch,
        doc="element i is word 0 of Philox4x32-10 with counter (i low, i high, step low, site) and "
        "key (seed low, seed high xor step high)",
    )
)
