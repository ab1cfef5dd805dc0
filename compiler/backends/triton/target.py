"""GPUs that kernels are compiled for, by the name of their instruction set."""

from __future__ import annotations

import re

from fluxc.compiler.errors import Unsupported
from fluxc.compiler.kernels.schedule import Target

__all__ = ["CHIPS", "capability", "gpu_target", "is_gpu"]

CHIPS = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


def is_gpu(name: str) -> bool:
    """Whether a target's name means a GPU: `cuda:sm_90`."""
    return name.partition(":")[0] in ("cuda", "hip")


def gpu_target(name: str) -> Target:
    """A GPU by name.

    Errors  Unsupported for one that is not known.
    """
    kind, _, chip = name.partition(":")
    if kind != "cuda" or chip not in CHIPS:
        raise Unsupported(
            f"cannot compile for {name!r}", expected=", ".join(f"cuda:{c}" for c in CHIPS)
        )
    return Target("cuda", chip, "", vector_bytes=16, vector_registers=64, gpu=True)


def capability(target: Target) -> int:
    """90 of `sm_90`."""
    found = re.fullmatch(r"sm_(\d+)", target.cpu)
    assert found is not None, "the target is a GPU's"
    return int(found[1])
