"""The Triton back end: programs in, readable Python source out; cubins by `build`.

It reads the loop IR that the LLVM back end reads.  Triton itself is needed only to compile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.kernels.program import Program
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["print_ptx", "print_triton"]


def print_triton(programs: Sequence[Program], target: Target) -> str:
    """The kernels of some programs as one Python file.

    Errors  Unsupported naming the kernel, for what Triton cannot do exactly.
    """
    from fluxc.compiler.backends.triton.module import emit_module

    return emit_module(programs, target).source


def print_ptx(programs: Sequence[Program], target: Target) -> str:
    """The kernels as PTX, NVIDIA's portable assembly.

    Errors  as `print_triton`; BuildError where Triton is not installed.
    """
    from fluxc.compiler.backends.triton.build import compile_module
    from fluxc.compiler.backends.triton.module import emit_module

    return "\n".join(k.ptx for k in compile_module(emit_module(programs, target), target))
