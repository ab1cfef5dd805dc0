"""The LLVM back end: programs in, one object file out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.ir.entry import ModelSpec
    from fluxc.compiler.kernels.program import Program
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["compile_programs", "print_asm", "print_llvm"]


def compile_programs(
    name: str, spec: ModelSpec, programs: Sequence[Program], target: Target, version: str
) -> bytes:
    """The object file of an artifact; `programs[i]` is the plan of `spec.entries[i]`.

    The same arguments give the same bytes.
    Errors  Unsupported for what this back end refuses.
    """
    from fluxc.compiler.backends.llvm.object import object_bytes
    from fluxc.compiler.backends.llvm.program import emit_module

    return object_bytes(emit_module(name, spec, programs, target, version), target)


def print_llvm(
    name: str, spec: ModelSpec, programs: Sequence[Program], target: Target, version: str
) -> str:
    """The artifact's LLVM IR, as optimised."""
    from fluxc.compiler.backends.llvm.object import optimized
    from fluxc.compiler.backends.llvm.program import emit_module

    return str(optimized(emit_module(name, spec, programs, target, version), target))


def print_asm(
    name: str, spec: ModelSpec, programs: Sequence[Program], target: Target, version: str
) -> str:
    """The artifact's machine code as assembly."""
    from fluxc.compiler.backends.llvm.object import assembly
    from fluxc.compiler.backends.llvm.program import emit_module

    return assembly(emit_module(name, spec, programs, target, version), target)
