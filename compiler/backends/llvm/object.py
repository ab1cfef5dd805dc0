"""From an emitted module to an object file: parse, verify, optimise, encode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llvmlite import binding

from fluxc.compiler.backends.llvm.target import target_machine

if TYPE_CHECKING:
    from llvmlite import ir

    from fluxc.compiler.kernels.schedule import Target

__all__ = ["assembly", "object_bytes", "optimized"]


def optimized(module: ir.Module, target: Target) -> binding.ModuleRef:
    """The module as LLVM holds it, after its passes.

    The emitters have vectorised, unrolled and hoisted already: what is left is to simplify what
    they wrote without looking.  What they wrote twice in a block the selection of instructions
    shares; value numbering beyond that gained nothing measurable, and LLVM's new one does not
    settle on some programs, at which a build with assertions ends the process.
    """
    machine = target_machine(target)
    parsed = binding.parse_assembly(str(module))
    parsed.triple = target.triple
    parsed.data_layout = str(machine.target_data)
    parsed.verify()
    builder = binding.create_pass_builder(machine, _tuning())
    passes = binding.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_dead_code_elimination_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(parsed, builder)
    return parsed


def _tuning() -> binding.PipelineTuningOptions:
    tuning = binding.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = False
    tuning.slp_vectorization = False
    tuning.loop_interleaving = False
    tuning.loop_unrolling = False
    return tuning


def object_bytes(module: ir.Module, target: Target) -> bytes:
    """The relocatable object file."""
    return target_machine(target).emit_object(optimized(module, target))


def assembly(module: ir.Module, target: Target) -> str:
    """The text of the same code."""
    return target_machine(target).emit_assembly(optimized(module, target))
