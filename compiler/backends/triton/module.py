"""Programs as one Triton file: a header, the functions that kernels share, each kernel once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fluxc.compiler.backends.triton.contract import contract_programs, emit_contract
from fluxc.compiler.backends.triton.loops import emit_nest
from fluxc.compiler.backends.triton.scalar import Library
from fluxc.compiler.errors import Unsupported
from fluxc.compiler.ir.dims import ceildiv, product
from fluxc.compiler.kernels.kernel import Contract, Nest, kernel_symbols
from fluxc.compiler.kernels.printer import print_kernel
from fluxc.compiler.kernels.program import Launch
from fluxc.compiler.kernels.schedule import BlockSchedule, TileSchedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.kernels.kernel import Kernel
    from fluxc.compiler.kernels.program import Program, Scheduled, Step
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["TritonKernel", "TritonModule", "emit_kernel", "emit_module"]

_POINTERS = {
    "f64": "fp64", "f32": "fp32", "f16": "fp16", "bf16": "bf16", "bool": "i8",
}  # fmt: skip
HEADER = """\
# Kernels for {chip}, written by fluxc.
import triton
import triton.language as tl
"""


@dataclass(frozen=True, slots=True)
class TritonKernel:
    """One kernel, and how it is launched.

    signature: Triton's type of each argument; `constexpr` of the sizes of blocks.
    blocks:    the values of those.
    programs:  how many there are, in the sizes that are the kernel's arguments.
    """

    name: str
    source: str
    signature: Mapping[str, str]
    blocks: Mapping[str, int]
    programs: Size
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class TritonModule:
    """A file of kernels.  names: of each program's launches, first prepare, then run."""

    source: str
    kernels: Mapping[str, TritonKernel]
    names: tuple[tuple[str, ...], ...]


def emit_module(programs: Sequence[Program], target: Target) -> TritonModule:
    """The kernels of some programs, equal ones once.

    Errors  Unsupported naming the kernel and the entry.
    """
    library = Library()
    known: dict[str, str] = {}
    kernels: dict[str, TritonKernel] = {}
    names = []
    for program in programs:
        used = []
        for step in (*program.prepare, *program.run):
            scheduled = _scheduled(step, program.name)
            text = print_kernel(scheduled.kernel, scheduled.schedule)
            if text not in known:
                name = _fresh(scheduled.kernel.name, kernels)
                kernels[name] = _in_entry(program.name, name, scheduled, library)
                known[text] = name
            used.append(known[text])
        names.append(tuple(used))
    parts = [*library.texts.values(), *(k.source for k in kernels.values())]
    source = HEADER.format(chip=target.cpu) + "".join(f"\n\n{p}\n" for p in parts)
    return TritonModule(source, kernels, tuple(names))


def _scheduled(step: Step, entry: str) -> Scheduled:
    if not isinstance(step, Launch):
        raise Unsupported(
            f"{entry}: control flow that depends on data does not run on a GPU yet",
            expected="kernels alone",
            hint="compile it for a CPU: --target native",
        )
    return step.scheduled


def _in_entry(entry: str, name: str, scheduled: Scheduled, library: Library) -> TritonKernel:
    try:
        return emit_kernel(name, scheduled, library)
    except Unsupported as error:
        raise Unsupported(
            f"{entry}: {error.summary}",
            loc=error.loc,
            hint=error.hint or "compile it for a CPU: --target native",
        ) from error


def emit_kernel(name: str, scheduled: Scheduled, library: Library) -> TritonKernel:
    """One kernel under a name."""
    kernel, s = scheduled.kernel, scheduled.schedule
    blocks: dict[str, int]
    if isinstance(kernel, Nest) and isinstance(s, BlockSchedule):
        text = emit_nest(name, kernel, s, library)
        flat = not any(p.axes for p in kernel.passes)
        blocks = {"ROWS": s.rows} if flat else {"ROWS": s.rows, "INNER": s.inner}
        programs = ceildiv(product(a.extent for a in kernel.rows), s.rows)
        warps, stages = s.warps, 2
    elif isinstance(kernel, Contract) and isinstance(s, TileSchedule):
        text = emit_contract(name, kernel, s, library)
        blocks = {"BLOCK_M": s.m, "BLOCK_N": s.n, "BLOCK_K": s.k, "GROUP": s.group}
        programs = contract_programs(kernel, s)
        warps, stages = s.warps, s.stages
    else:
        raise Unsupported(f"kernel {kernel.name}: Triton takes no {type(kernel).__name__} kernels")
    comment = "\n".join(f"# {line}".rstrip() for line in print_kernel(kernel, s).splitlines())
    return TritonKernel(
        name,
        f"{comment}\n{text}",
        _signature(kernel, blocks),
        blocks,
        programs,
        warps,
        stages,
    )


def _signature(kernel: Kernel, blocks: Mapping[str, int]) -> dict[str, str]:
    pointers = {
        f"b{i}": f"*{_POINTERS.get(b.dtype.name, b.dtype.name)}"
        for i, b in enumerate(kernel.buffers)
    }
    sizes = {f"n_{s.name}": "i64" for s in kernel_symbols(kernel)}
    return pointers | sizes | dict.fromkeys(blocks, "constexpr")


def _fresh(name: str, taken: Mapping[str, TritonKernel]) -> str:
    """A name that Python takes and nothing else in the file has."""
    base = re.sub(r"\W", "_", name)
    base = base if base[:1].isalpha() and not base.startswith("fx_") else f"kernel_{base}"
    if base not in taken:
        return base
    return next(n for n in (f"{base}_{i}" for i in range(2, 1 << 30)) if n not in taken)
