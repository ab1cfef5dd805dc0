"""Triton source to PTX and cubins, ahead of time, on a machine that needs no GPU.

The only file that imports Triton, and only when it is asked to compile.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxc.compiler.backends.triton.target import capability
from fluxc.compiler.errors import BuildError

if TYPE_CHECKING:
    from fluxc.compiler.backends.triton.module import TritonKernel, TritonModule
    from fluxc.compiler.kernels.schedule import Target

__all__ = ["GpuKernel", "compile_module", "has_triton", "load_source"]


@dataclass(frozen=True, slots=True)
class GpuKernel:
    """A compiled kernel and what a launcher must know.

    entry:      the symbol in `cubin` and `ptx`.
    threads:    of a program.
    shared:     bytes of shared memory that a launch asks for.
    hidden:     pointers after the kernel's own arguments; they are null.
    """

    kernel: TritonKernel
    entry: str
    ptx: str
    cubin: bytes
    threads: int
    shared: int
    hidden: int


def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def compile_module(module: TritonModule, target: Target) -> tuple[GpuKernel, ...]:
    """Compile every kernel of a file.

    Errors  BuildError where Triton is missing, set to interpret, or fails.
    """
    if not has_triton():
        raise BuildError(
            "compiling for a GPU needs Triton, which is not installed",
            hint="pip install 'fluxc[gpu]'",
        )
    import triton

    if triton.knobs.runtime.interpret or not isinstance(
        triton.language.cdiv, triton.runtime.JITFunction
    ):
        raise BuildError(
            "Triton interprets kernels in this process instead of compiling them",
            hint="unset TRITON_INTERPRET before the process starts",
        )
    with (
        tempfile.TemporaryDirectory(prefix="fluxc-triton-") as folder,
        triton.knobs.cache.scope(),
    ):
        # A cache of its own: the result depends on nothing that was compiled before.
        triton.knobs.cache.dir = str(Path(folder) / "cache")
        functions = load_source(module.source, Path(folder))
        return tuple(_compile(functions, k, target) for k in module.kernels.values())


def load_source(source: str, folder: Path) -> Any:
    """The functions of a file of kernels; Triton reads their text from it."""
    file = folder / "kernels.py"
    file.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location("fluxc_triton_kernels", file)
    assert spec is not None, "a Python file has a spec"
    assert spec.loader is not None, "and a loader"
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def _compile(functions: Any, kernel: TritonKernel, target: Target) -> GpuKernel:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(
        fn=getattr(functions, kernel.name),
        signature=dict(kernel.signature),
        constexprs=dict(kernel.blocks),
    )
    options = {"num_warps": kernel.warps, "num_stages": kernel.stages, "enable_fp_fusion": True}
    try:
        made = triton.compile(
            source, target=GPUTarget("cuda", capability(target), 32), options=options
        )
    except Exception as error:
        # Triton raises what its parser, MLIR or ptxas raise: no common type.
        raise BuildError(
            f"Triton could not compile {kernel.name}: {type(error).__name__}",
            got="\n            ".join(str(error).strip().splitlines()[:8]),
        ) from error
    return _described(kernel, made)


def _described(kernel: TritonKernel, made: Any) -> GpuKernel:
    ptx, facts = made.asm["ptx"], made.metadata
    entry = re.search(r"\.visible \.entry (\w+)\((.*?)\)", ptx, re.DOTALL)
    assert entry is not None, "PTX has an entry"
    own = sum(kind != "constexpr" for kind in kernel.signature.values())
    if facts.global_scratch_size or facts.profile_scratch_size:
        raise BuildError(f"{kernel.name} would need scratch memory on the GPU")
    return GpuKernel(
        kernel,
        entry[1],
        ptx,
        made.asm["cubin"],
        32 * facts.num_warps,
        facts.shared,
        entry[2].count(".param") - own,
    )
