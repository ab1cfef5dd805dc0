"""How much arithmetic a program does, as a size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import evaluate_size, product
from fluxc.compiler.kernels.kernel import Apply, Contract, Nest, kernel_symbols, walk
from fluxc.compiler.kernels.program import Launch

if TYPE_CHECKING:
    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.kernel import Expr, Kernel, Pass
    from fluxc.compiler.kernels.program import Program

__all__ = ["count_flops"]


def count_flops(program: Program) -> Size | None:
    """The floating-point operations of a call: two for a multiply-add, one for any function.

    None where it depends on data: loops and choices.
    """
    total: Size = 0
    for step in program.run:
        if not isinstance(step, Launch):
            return None
        total = total + _launch(step)
    return total


def _launch(launch: Launch) -> Size:
    kernel = launch.scheduled.kernel
    count = _kernel(kernel)
    if launch.sizes is None:
        return count
    names = [s.name for s in kernel_symbols(kernel)]
    # Sizes add and multiply as numbers do.
    values: dict[str, int] = dict(zip(names, launch.sizes, strict=True))  # type: ignore[arg-type]
    return evaluate_size(count, values)


def _kernel(kernel: Kernel) -> Size:
    if isinstance(kernel, Contract):
        points = product(a.extent for a in (*kernel.batch, kernel.m, kernel.n))
        return points * kernel.k.extent * 2 + points * _operations([s.value for s in kernel.stores])
    if not isinstance(kernel, Nest):
        return 0
    rows = product(a.extent for a in kernel.rows)
    total: Size = 0
    for p in kernel.passes:
        total = total + rows * product(a.extent for a in p.axes) * _pass(p)
    return total


def _pass(p: Pass) -> int:
    reductions = sum(r.target.dtype.is_float for r in p.reductions)
    values = [*(r.value for r in p.reductions), *(s.value for s in p.stores)]
    return reductions + _operations(values)


def _operations(values: list[Expr]) -> int:
    quiet = {"select", "cast", "identity", "stop_gradient", "bitcast"}
    return sum(
        isinstance(e, Apply) and e.dtype.is_float and e.op not in quiet for e in walk(*values)
    )
