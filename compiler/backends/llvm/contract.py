"""Contractions as LLVM code: tasks of rows x one panel of columns, register tiles, fused epilogue.

One task is `mc` rows of one panel of `nr = nv * width` columns.  Its rows pass by in tiles of at
most `mr`; a tile keeps its sums in registers over a run of k and leaves them in a scratch on the
stack.  The epilogue reads them from there, so that one copy of it serves every number of rows.  A
long k is cut into runs of `kc`; between two runs the sums of the whole task stay in the scratch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llvmlite import ir

from fluxc.compiler.backends.llvm import memory
from fluxc.compiler.backends.llvm.loops import KERNEL_TYPE, open_kernel
from fluxc.compiler.backends.llvm.scalar import number
from fluxc.compiler.backends.llvm.scope import Lanes, Scope
from fluxc.compiler.backends.llvm.stage import copy_panel, zero_rows
from fluxc.compiler.backends.llvm.tile import I64, Plane, Run, Tile, emit_tile, moved
from fluxc.compiler.backends.llvm.values import llvm_type
from fluxc.compiler.errors import Unsupported
from fluxc.compiler.ir.dims import is_multiple_of, size_bounds
from fluxc.compiler.kernels.affine import affine_index, flat_index, levels, walked_index
from fluxc.compiler.kernels.contraction import (
    STAGED_RUN,
    aligned_rows,
    contract_staged,
    row_heights,
    row_segment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fluxc.compiler.backends.llvm.scalar import LlvmScalar
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.affine import Affine, Level
    from fluxc.compiler.kernels.kernel import Contract, Load
    from fluxc.compiler.kernels.schedule import ContractSchedule, Target

__all__ = ["emit_contract"]

_LINE = 64
_AHEAD = 12  # steps of k: some hundred cycles
_STREAM_AHEAD = 16 << 10  # bytes


def emit_contract(
    module: ir.Module, name: str, kernel: Contract, schedule: ContractSchedule, target: Target
) -> ir.Function:
    """Defines `void name(ptr* buffers, i64* sizes, i64 lo, i64 hi)`: the tasks lo <= t < hi.

    Tasks in order: batch elements, blocks of `schedule.mc` rows, panels.
    Errors  Unsupported where `a` or `b` is guarded or not read at an affine index.
    """
    del target
    return _Emitter(module, name, kernel, schedule).emit()


@dataclass(frozen=True, slots=True)
class _Columns:
    """A panel that occurs: its vectors, and whether some lanes may lie beyond the last column."""

    vectors: int
    cut: bool


@dataclass(frozen=True, slots=True)
class _Block:
    """The rows first <= i < last of one panel, and the operands at row 0 and the panel's column.

    run: the steps of k.
    """

    columns: _Columns
    masks: tuple[ir.Value | None, ...]
    first: ir.Value
    last: ir.Value
    a: Plane
    b: Plane
    run: Run


class _Emitter:
    def __init__(
        self, module: ir.Module, name: str, kernel: Contract, schedule: ContractSchedule
    ) -> None:
        self.kernel, self.schedule = kernel, schedule
        self.nr = schedule.nv * schedule.width
        assert kernel.packed in (None, self.nr), f"{name}: panels of {kernel.packed}, not {self.nr}"
        self.function = ir.Function(module, KERNEL_TYPE, name)
        self.function.type = ir.PointerType()  # llvmlite would print a typed one
        self.function.attributes.add("nounwind")
        self.root, self.evaluator = open_kernel(
            self.function, kernel, kernel.n, rows=(*kernel.batch, kernel.m, kernel.n)
        )
        self.b = self.root.b
        self.staged_b = contract_staged(kernel, schedule)
        longest = size_bounds(kernel.k.extent)[1]
        bound = STAGED_RUN if self.staged_b else schedule.kc
        self.kc = int(max(1, min(schedule.kc, bound, longest)))
        self.in_runs = longest > self.kc
        where = walked_index(kernel.a)
        rows, depth = (None if where is None else levels(where, x) for x in (kernel.m, kernel.k))
        if where is None or rows is None or depth is None or kernel.a.guard is not None:
            raise self.unsupported(kernel.a)
        self.where_a, self.rows_of_a, self.depth_of_a = where, rows, depth
        self.cut, self.inside = self.cut_of_k()

    def cut_of_k(self) -> tuple[int, Size]:
        """Which of the loops that k stands for is cut in runs, and the steps of k inside of it."""
        inside: Size = 1
        for i in range(len(self.depth_of_a) - 1, 0, -1):
            more = inside * self.depth_of_a[i].extent
            if size_bounds(more)[1] > self.kc:
                return i, inside
            inside = more
        return 0, inside

    def emit(self) -> ir.Function:
        b, kernel = self.b, self.kernel
        _, _, lo, hi = self.function.args
        self.m, self.n, self.k = (self.size(x.extent) for x in (kernel.m, kernel.n, kernel.k))
        self.scratch = self.stack("sums", (self.schedule.mc if self.in_runs else self.schedule.mr))
        if self.staged_b:
            w = self.schedule.width
            self.stage = self.stack("panel", -(-self.kc // w) * w)
        some = b.icmp_signed("<", lo, hi)
        self.root.when(some, [], lambda s, _: s.loop(lo, hi, 1, [], self.task, "task"), "tasks")
        b.ret_void()
        return self.function

    def stack(self, name: str, rows: int) -> ir.Value:
        """Room for rows x nr numbers."""
        b, t = self.b, llvm_type(self.kernel.acc.dtype)
        typed = b.alloca(ir.ArrayType(t, rows * self.nr), name=name)
        typed.align = _LINE
        # llvmlite holds a typed pointer and an opaque one for equal and drops a plain cast.
        opaque = ir.CastInstr(b.block, "bitcast", typed, ir.PointerType())
        b._insert(opaque)  # noqa: SLF001
        return opaque

    def size(self, size: Size) -> ir.Value:
        with self.root.here():
            return self.evaluator.sizes.value(size)

    def step(self, size: Size) -> int | ir.Value:
        return size if isinstance(size, int) else self.size(size)

    # --- which rows and columns

    def task(self, scope: Scope, task: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        b, mc = self.b, self.schedule.mc
        panels, blocks = self.ceildiv(self.n, self.nr), self.ceildiv(self.m, mc)
        rest, panel = b.udiv(task, panels), b.urem(task, panels)
        rest, block = b.udiv(rest, blocks), b.urem(rest, blocks)
        for axis in reversed(self.kernel.batch):
            extent = self.size(axis.extent)
            scope.axes[axis], rest = b.urem(rest, extent), b.udiv(rest, extent)
        first = b.mul(block, I64(mc))
        last = self.smaller(b.add(first, I64(mc)), self.m)
        column = b.mul(panel, I64(self.nr))
        whole, cut = self.panels()

        def emit(columns: _Columns) -> Callable[..., list[ir.Value]]:
            return lambda inner, _: self.panel(inner, columns, first, last, column, panel)

        inside = b.icmp_signed("<=", b.add(column, I64(self.nr)), self.n)
        if whole:
            scope.when(inside if cut else None, [], emit(whole), "whole", certain=cut is None)
        if cut:
            outside = b.not_(inside) if whole else None
            scope.when(outside, [], emit(cut), "cut", certain=whole is None)
        return []

    def ceildiv(self, x: ir.Value, y: int) -> ir.Value:
        return self.b.udiv(self.b.add(x, I64(y - 1)), I64(y))

    def larger(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed(">", x, y), x, y)

    def smaller(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def panels(self) -> tuple[_Columns | None, _Columns | None]:
        """The kinds of panels that occur: whole ones, and the last where it is cut."""
        n, s = self.kernel.n.extent, self.schedule
        whole = _Columns(s.nv, cut=False)
        if is_multiple_of(n, self.nr):
            return whole, None
        if isinstance(n, int):
            cut = _Columns(-(-(n % self.nr) // s.width), cut=n % s.width != 0)
            return (whole if n > self.nr else None), cut
        return whole, _Columns(s.nv, cut=True)

    def panel(
        self,
        scope: Scope,
        columns: _Columns,
        first: ir.Value,
        last: ir.Value,
        column: ir.Value,
        panel: ir.Value,
    ) -> list[ir.Value]:
        """Rows first..last of one panel."""
        b = self.b
        masks = self.masks(columns, column)
        scope.spread(Lanes(self.kernel.n, self.schedule.width, masks), column)
        steps = (self.step(x[-1].step) for x in (self.rows_of_a, self.depth_of_a))
        a = self.plane(scope, self.kernel.a, self.where_a, *steps)
        right = self.panel_of_b(scope, column, panel)
        block = _Block(columns, masks, first, last, a, right, self.whole_run())
        if not self.in_runs:
            self.rows(scope, self.staged(block, self.k), None)
            return []
        zero_rows(
            b,
            self.scratch,
            self.kernel.acc.dtype,
            self.schedule.width,
            self.schedule.mc * self.schedule.nv,
        )

        loop = self.depth_of_a[self.cut]
        each = max(1, self.kc // self.inside) if isinstance(self.inside, int) else 1
        often = self.size(loop.extent)
        # A loop without steps counts as one of them, so that nothing is divided by 0.
        cuts = self.larger(self.ceildiv(often, each), I64(1))
        before = [self.larger(self.size(x.extent), I64(1)) for x in self.depth_of_a[: self.cut]]
        total = cuts
        for extent in before:
            total = b.mul(total, extent)

        def run(inner: Scope, turn: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            rest, part = (b.udiv(turn, cuts), b.urem(turn, cuts)) if before else (I64(0), turn)
            start = b.mul(part, I64(each))
            count = self.smaller(b.sub(often, start), I64(each))
            count = self.smaller(count, self.k)  # none where another loop has none
            steps = [(start, self.step(loop.step)), *self.digits(rest, before)]
            pointer = moved(b, a.pointer, steps, a.dtype.itemsize)
            depth = b.mul(b.add(b.mul(rest, often), start), self.size(self.inside))
            run = self.run_from(count)
            here = replace(block, a=replace(a, pointer=pointer), b=right.at(b, depth), run=run)
            final = b.icmp_signed("==", b.add(turn, I64(1)), total)
            self.rows(inner, self.staged(here, b.mul(count, self.size(self.inside))), final)
            return []

        # There is always a turn, so that the epilogue sees the empty sum where k is 0.
        scope.loop(I64(0), total, 1, [], run, "run")
        return []

    def digits(
        self, position: ir.Value, extents: list[ir.Value]
    ) -> list[tuple[ir.Value, int | ir.Value]]:
        """How often and how far `a` moves along the outer loops of k at a position among them."""
        b, steps = self.b, []
        for i, extent in reversed(list(enumerate(extents))):
            at = position if i == 0 else b.urem(position, extent)
            position = position if i == 0 else b.udiv(position, extent)
            steps.append((at, self.step(self.depth_of_a[i].step)))
        return steps

    def whole_run(self) -> Run:
        *around, last = self.depth_of_a
        return Run(self.step(last.extent), self.loops(around))

    def loops(self, around: Sequence[Level]) -> tuple[tuple[int | ir.Value, int | ir.Value], ...]:
        return tuple((self.step(x.extent), self.step(x.step)) for x in around)

    def run_from(self, count: ir.Value) -> Run:
        """A run of `count` steps of the loop that is cut, and all inside of each."""
        *_, last = self.depth_of_a
        if self.cut == len(self.depth_of_a) - 1:
            return Run(count)
        step = self.step(self.depth_of_a[self.cut].step)
        inner = self.loops(self.depth_of_a[self.cut + 1 : -1])
        return Run(self.step(last.extent), ((count, step), *inner))

    def masks(self, columns: _Columns, column: ir.Value) -> tuple[ir.Value | None, ...]:
        """Which lanes of each vector lie inside; None where all do."""
        w, b = self.schedule.width, self.b
        known = isinstance(self.kernel.n.extent, int)
        masks: list[ir.Value | None] = []
        for v in range(columns.vectors):
            cut = columns.cut and (not known or v == columns.vectors - 1)
            at = b.add(column, I64(v * w))
            at = self.smaller(at, self.n)  # a vector that lies outside altogether has no lanes
            masks.append(memory.tail_mask(b, at, self.n, w) if cut and w > 1 else None)
        return tuple(masks)

    # --- operands

    def plane(
        self,
        scope: Scope,
        load: Load,
        where: Affine,
        outer: int | ir.Value,
        inner: int | ir.Value,
    ) -> Plane:
        """An operand at this scope's batch element."""
        steps = [(self.step(where.constant), 1), *self.batch_steps(scope, where, 1)]
        pointer = moved(self.b, self.evaluator.pointers[load.buffer], steps, load.dtype.itemsize)
        return Plane(pointer, load.dtype, outer, inner)

    def unsupported(self, load: Load) -> Unsupported:
        what = f"{self.kernel.name}: a contraction reads {load.buffer.name}"
        return Unsupported(f"{what} at an index that is guarded or not affine")

    def batch_steps(
        self, scope: Scope, where: Affine, stride: Size
    ) -> list[tuple[ir.Value, int | ir.Value]]:
        axes = [axis for axis in self.kernel.batch if axis in where.steps]
        at = [scope.binder(axis).axes[axis] for axis in axes]
        return [(i, self.step(where.step(x) * stride)) for i, x in zip(at, axes, strict=True)]

    def panel_of_b(self, scope: Scope, column: ir.Value, panel: ir.Value) -> Plane:
        kernel, load, b = self.kernel, self.kernel.b, self.b
        if kernel.packed is None:
            where = flat_index(load)
            if where is None or load.guard is not None:
                raise self.unsupported(load)
            strides = (self.step(where.step(x)) for x in (kernel.k, kernel.n))
            plane = self.plane(scope, load, where, *strides)
            if kernel.n.extent == 1:  # one column has no stride; its vector is masked anyway
                plane = Plane(plane.pointer, plane.dtype, plane.outer, 1)
            return plane.at(b, 0, column)
        shape = load.buffer.shape
        stride: Size = shape[-2] * self.nr
        steps = [(panel, self.step(stride))]
        stride = stride * shape[-3]
        for extent, e in reversed(list(zip(shape[:-3], load.index[:-3], strict=True))):
            where = affine_index(e)
            if where is None:
                raise self.unsupported(load)
            steps += [(self.step(where.constant), self.step(stride))]
            steps += self.batch_steps(scope, where, stride)
            stride = stride * extent
        pointer = moved(b, self.evaluator.pointers[load.buffer], steps, load.dtype.itemsize)
        return Plane(pointer, load.dtype, self.nr, 1)

    def staged(self, block: _Block, count: ir.Value) -> _Block:
        """The block with its panel of `b` copied to the stack, where the schedule asks for it."""
        s = self.schedule
        if not self.staged_b:
            return block
        acc = self.kernel.acc.dtype
        copy = copy_panel(self.b, block.b, self.stage, acc, s.width, s.nv, block.masks, count)
        return replace(block, b=copy)

    # --- rows

    def rows(self, scope: Scope, block: _Block, final: ir.Value | None) -> None:
        """Tiles of all rows of a block; then their epilogue, where `final` (None: always)."""
        if len(self.rows_of_a) == 1:
            self.segment(scope, block, block.first, block.last, final)
            return
        b, (*outer, line) = self.b, self.rows_of_a
        extent, step = self.size(line.extent), self.step(line.step)

        def visit(inner: Scope, row: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            rest, past = b.udiv(row, extent), b.urem(row, extent)
            start = b.sub(row, past)
            last = self.smaller(b.add(start, extent), block.last)
            steps = [(b.neg(start), step)]
            for i, level in reversed(list(enumerate(outer))):
                size = self.size(level.extent)
                at = rest if i == 0 else b.urem(rest, size)
                rest = rest if i == 0 else b.udiv(rest, size)
                steps.append((at, self.step(level.step)))
            pointer = moved(b, block.a.pointer, steps, block.a.dtype.itemsize)
            here = replace(block, a=replace(block.a, pointer=pointer))
            self.segment(inner, here, row, last, final)
            return [last]

        scope.loop_by(block.first, block.last, [], visit, "segment")

    def segment(
        self,
        scope: Scope,
        block: _Block,
        first: ir.Value,
        last: ir.Value,
        final: ir.Value | None,
    ) -> None:
        """Tiles of rows that lie equally far apart in `a`."""
        b = self.b

        def tiles(inner: Scope, row: ir.Value, count: ir.Value) -> None:
            base = self.sums_of(b.sub(row, block.first) if self.in_runs else I64(0))
            self.tile(block, row, count, base)

            def finish(last: Scope, _: list[ir.Value]) -> list[ir.Value]:
                stop = b.add(row, count)
                body = lambda s, i, _: self.epilogue(s, block, i, base, row)
                return last.loop(row, stop, 1, [], body, "epilogue")

            inner.when(final, [], finish, "final", certain=final is None)

        self.row_loop(scope, first, last, tiles)

    def row_loop(
        self,
        scope: Scope,
        first: ir.Value,
        last: ir.Value,
        body: Callable[[Scope, ir.Value, ir.Value], None],
    ) -> None:
        """`body(row, count)` for first <= row < last, count rows at a time.  There is a row."""

        def visit(inner: Scope, row: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            count = self.next_count(self.b.sub(last, row))
            body(inner, row, count)
            return [self.b.add(row, count)]

        scope.loop_by(first, last, [], visit, "rows")

    def tile(self, block: _Block, row: ir.Value, count: ir.Value, base: ir.Value) -> None:
        """Adds the products of `count` rows to their sums; a variant for each count."""
        b = self.b
        heights = self.heights()
        cases = [(r, b.append_basic_block(f"rows{r}")) for r in heights]
        after = b.append_basic_block("tile_end")
        switch = b.switch(count, cases[-1][1])
        a = block.a
        for r, case in cases:
            if case is not cases[-1][1]:
                switch.add_case(I64(r), case)
            b.position_at_end(case)
            tile = self.shape(block, r, row)
            start = self.initial(base, tile)
            sums = emit_tile(b, tile, a.at(b, row), block.b, block.run, start)
            for i, x in enumerate(sums):
                memory.store(x, self.place(base, *divmod(i, tile.vectors)))
            b.branch(after)
        b.position_at_end(after)

    def heights(self) -> list[int]:
        s = self.schedule
        return row_heights(self.kernel.m.extent, s.mr, s.mc, row_segment(self.kernel))

    def next_count(self, left: ir.Value) -> ir.Value:
        """The rows of the next tile, as `row_steps` has them."""
        b, mr = self.b, self.schedule.mr
        segment, m = row_segment(self.kernel), self.kernel.m.extent
        known = isinstance(m, int) if segment is None else aligned_rows(self.schedule.mc, segment)
        if known:
            half = b.lshr(b.add(left, I64(1)), I64(1))
            some = b.select(b.icmp_signed(">", left, I64(mr)), half, left)
            return b.select(b.icmp_signed(">=", left, I64(2 * mr)), I64(mr), some)
        count: ir.Value = I64(1)
        for height in self.heights()[1:]:
            count = b.select(b.icmp_signed(">=", left, I64(height)), I64(height), count)
        return count

    def shape(self, block: _Block, r: int, row: ir.Value) -> Tile:
        s = self.schedule
        padded = self.kernel.packed is not None or self.staged_b
        masks = (None,) * block.columns.vectors if padded else block.masks
        sums = r * block.columns.vectors
        unroll = (4 if sums >= 8 else 8) if r == self.heights()[-1] else 2 if sums >= 4 else 4
        ahead = 0 if block.a.inner == 1 else _AHEAD
        return Tile(r, s.width, masks, unroll, self.prefetch(block, r, row, unroll), ahead)

    def prefetch(
        self, block: _Block, r: int, row: ir.Value, unroll: int
    ) -> tuple[ir.Value, int] | None:
        """While the rows of a task pass by, each tile fetches its share of the next panel.

        Where all rows are one tile, panels stream by: what comes some pages later is fetched.
        """
        b, m, s = self.b, self.kernel.m.extent, self.schedule
        rows = min(m, s.mc) if isinstance(m, int) else s.mc
        if self.kernel.packed is None:
            return None
        item = block.b.dtype.itemsize
        if rows <= s.mr:
            later = moved(b, block.b.pointer, [(1, _STREAM_AHEAD)], 1)
            return later, max(1, unroll * self.nr * item // _LINE)
        size = self.step(self.kernel.k.extent * self.nr)
        share = size // rows if isinstance(size, int) else b.udiv(size, I64(rows))
        past = b.sub(row, block.first)
        pointer = moved(b, block.b.pointer, [(1, size), (past, share)], item)
        return pointer, -(-r * unroll * self.nr * item // (rows * _LINE))

    # --- sums

    def sums_of(self, row: ir.Value) -> ir.Value:
        """Where in the scratch a row's sums lie."""
        return moved(self.b, self.scratch, [(row, self.nr)], self.kernel.acc.dtype.itemsize)

    def place(self, base: ir.Value, r: int | ir.Value, v: int) -> ir.Value:
        steps = [(r, self.nr), (v * self.schedule.width, 1)]
        return moved(self.b, base, steps, self.kernel.acc.dtype.itemsize)

    def initial(self, base: ir.Value, tile: Tile) -> list[LlvmScalar]:
        dtype = self.kernel.acc.dtype
        if not self.in_runs:
            return [number(self.b, dtype, 0, tile.width)] * (tile.rows * tile.vectors)
        places = [self.place(base, r, v) for r in range(tile.rows) for v in range(tile.vectors)]
        return [memory.load(self.b, p, dtype, tile.width) for p in places]

    def epilogue(
        self, scope: Scope, block: _Block, i: ir.Value, base: ir.Value, row: ir.Value
    ) -> list[ir.Value]:
        """The stores of row i."""
        b, acc = self.b, self.kernel.acc
        scope.axes[self.kernel.m] = i
        places = [self.place(base, b.sub(i, row), v) for v in range(block.columns.vectors)]
        width = self.schedule.width
        scope.locals[acc] = tuple(memory.load(b, p, acc.dtype, width) for p in places)
        self.evaluator.store_all(scope, self.kernel.stores, block.columns.vectors)
        return []
