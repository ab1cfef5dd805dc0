"""Contractions as Triton kernels: a tile of the result in registers, a block of k at a time.

Products of 16-bit floats are summed in f32; of f32 in full precision, not in TF32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.backends.triton.expression import NONE, Points, count_uses, size_text
from fluxc.compiler.backends.triton.loops import arguments_text, names_of, unflatten
from fluxc.compiler.backends.triton.scalar import TritonScalar, Writer, register_type, triton_type
from fluxc.compiler.errors import Unsupported
from fluxc.compiler.ir.dims import ceildiv, product

if TYPE_CHECKING:
    from fluxc.compiler.backends.triton.expression import Sides
    from fluxc.compiler.backends.triton.scalar import Library
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.kernel import Axis, Contract, Load
    from fluxc.compiler.kernels.schedule import TileSchedule

__all__ = ["contract_programs", "emit_contract"]

BOTH: Sides = frozenset((0, 1))
BLOCKS = ("BLOCK_M", "BLOCK_N", "BLOCK_K", "GROUP")

HEAD = """\
@triton.jit
def {name}({arguments}):
    tiles_m = {tiles_m}
    tiles_n = {tiles_n}
    tile = tl.program_id(0) % (tiles_m * tiles_n)
    # GROUP rows of tiles at a time, column by column: neighbours find their operands in the cache.
    group = tile // (GROUP * tiles_n)
    height = tl.minimum(tiles_m - group * GROUP, GROUP)
    tile_m = group * GROUP + tile % (GROUP * tiles_n) % height
    tile_n = tile % (GROUP * tiles_n) // height
    start_m, start_n = tile_m.to(tl.int64) * BLOCK_M, tile_n.to(tl.int64) * BLOCK_N
    rows, columns = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    depths = tl.arange(0, BLOCK_K).to(tl.int64)
    m = start_m + rows[:, None]
    n = start_n + columns[None, :]"""


def emit_contract(name: str, kernel: Contract, schedule: TileSchedule, library: Library) -> str:
    """The text of a kernel.

    Errors  Unsupported where Triton has no such product.
    """
    dtype = kernel.a.dtype
    if not dtype.is_float or kernel.b.dtype != dtype or kernel.packed is not None:
        raise Unsupported(f"kernel {kernel.name}: Triton multiplies no such matrices")
    if any(s.accumulate for s in kernel.stores):
        raise Unsupported(f"kernel {kernel.name}: its result accumulates")
    return _ContractEmitter(name, kernel, schedule, library).text()


def contract_programs(kernel: Contract, schedule: TileSchedule) -> Size:
    """How many programs compute the result."""
    tiles = ceildiv(kernel.m.extent, schedule.m) * ceildiv(kernel.n.extent, schedule.n)
    return product(a.extent for a in kernel.batch) * tiles


class _ContractEmitter:
    def __init__(self, name: str, kernel: Contract, s: TileSchedule, library: Library) -> None:
        self.name, self.kernel = name, kernel
        self.out = Writer(library)
        self.blocks = {kernel.m: s.m, kernel.n: s.n, kernel.k: s.k}
        self.batch: dict[Axis, tuple[str, Sides]] = {}
        self.uses = count_uses(kernel)

    def text(self) -> str:
        kernel, out = self.kernel, self.out
        m, n, k = kernel.m, kernel.n, kernel.k
        head = HEAD.format(
            name=self.name,
            arguments=arguments_text(kernel, BLOCKS),
            tiles_m=f"tl.cdiv({size_text(m.extent)}, BLOCK_M)",
            tiles_n=f"tl.cdiv({size_text(n.extent)}, BLOCK_N)",
        )
        if kernel.batch:
            out.line("batch = (tl.program_id(0) // (tiles_m * tiles_n)).to(tl.int64)")
            names = [f"batch{i}" for i in range(len(kernel.batch))]
            found = unflatten(out, "batch", kernel.batch, names)
            self.batch = {a: (text, NONE) for a, text in found.items()}
        kind = triton_type(register_type(kernel.acc.dtype))
        out.line(f"acc = tl.zeros((BLOCK_M, BLOCK_N), {kind})")
        out.line(f"for start_k in range(0, {size_text(k.extent)}, BLOCK_K):")
        out.indent += 1
        out.line("k_right = start_k + depths[None, :]")
        out.line("k_down = start_k + depths[:, None]")
        a = self._operand(kernel.a, (m, "m"), (k, "k_right"), ("BLOCK_M", "BLOCK_K"))
        b = self._operand(kernel.b, (k, "k_down"), (n, "n"), ("BLOCK_K", "BLOCK_N"))
        out.line(f'acc = tl.dot({a}, {b}, acc, input_precision="ieee", out_dtype={kind})')
        out.indent -= 1
        self._epilogue()
        return "\n".join([head, *out.lines])

    def _points(
        self, first: tuple[Axis, str], second: tuple[Axis, str], shape: tuple[str, str]
    ) -> Points:
        """The points of a block whose sides run along two axes."""
        points = Points(self.out, names_of(self.kernel), shape, dict(self.batch), uses=self.uses)
        for i, (axis, text) in enumerate((first, second)):
            points.axes[axis] = (text, frozenset((i,)))
            if not isinstance(axis.extent, int) or axis.extent % self.blocks[axis]:
                points.masks[i] = f"({text} < {size_text(axis.extent)})"
        return points

    def _operand(
        self, load: Load, first: tuple[Axis, str], second: tuple[Axis, str], shape: tuple[str, str]
    ) -> str:
        """A block of an operand, 0 beyond its end."""
        points = self._points(first, second, shape)
        loaded, sides = points.value(load), points.sides(load)
        if sides == BOTH:
            return loaded.text
        text, mask = points.spread(loaded, sides, BOTH), points.mask(BOTH, None)
        return self.out.let(f"tl.where({mask}, {text}, 0)" if mask else text)

    def _epilogue(self) -> None:
        kernel = self.kernel
        points = self._points((kernel.m, "m"), (kernel.n, "n"), ("BLOCK_M", "BLOCK_N"))
        acc = TritonScalar("acc", register_type(kernel.acc.dtype), self.out)
        points.locals[kernel.acc.name] = (acc, BOTH)
        for s in kernel.stores:
            points.value(s.value)
        for s in kernel.stores:
            points.store(s, BOTH)
