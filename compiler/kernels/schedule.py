"""Schedules: how a kernel runs on a target, as data.

A schedule never changes what is computed, apart from the order of a sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fluxc.compiler.kernels.kernel import Axis

__all__ = [
    "BlockSchedule",
    "ContractSchedule",
    "NestSchedule",
    "Schedule",
    "Target",
    "TileSchedule",
]


@dataclass(frozen=True, slots=True)
class Target:
    """What a cost model must know of a machine.

    triple, cpu, features: LLVM's spelling.
    vector_bytes, vector_registers: of the widest vector unit worth using.
    l2: bytes of the second data cache of a core.
    has_fma: whether a*b + c is one instruction.
    gpu: whether kernels run as grids of blocks; `cpu` is then the chip, as `sm_90`.
    """

    triple: str
    cpu: str
    features: str
    vector_bytes: int
    vector_registers: int
    l2: int = 1 << 20
    has_fma: bool = True
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class NestSchedule:
    """vector: the axis whose neighbouring points share a vector register, or None for scalar code.
    width:  lanes of a vector.
    unroll: vectors of the vector axis in flight at once.
    grain:  fewest points of the parallel space (the product of the rows, in units of width * unroll
            where `vector` is a row) worth handing to another thread; 0: never split.
    """

    vector: Axis | None
    width: int
    unroll: int
    grain: int


@dataclass(frozen=True, slots=True)
class ContractSchedule:
    """mr, nv: the register tile, rows x vectors of `width` lanes.
    kc:    the longest run of k between two visits of the accumulators; all of k where it fits.
    mc:    rows of a task; one task is (mc rows) x (one panel of nv * width columns).
    grain: fewest tasks worth handing to another thread; 0: never split.
    staged: a task copies the panel of a `b` that is not packed before its rows pass by.
    """

    mr: int
    nv: int
    width: int
    kc: int
    mc: int
    grain: int
    staged: bool = False


@dataclass(frozen=True, slots=True)
class BlockSchedule:
    """A Nest on a GPU: a program computes `rows` points of the rows, `inner` of a pass at a time.

    Both are powers of two.  warps: of 32 threads, for each program.
    """

    rows: int
    inner: int
    warps: int


@dataclass(frozen=True, slots=True)
class TileSchedule:
    """A Contract on a GPU: a program computes a tile m x n, k deep at a time.

    group:  rows of tiles that are computed column by column, for the sake of the cache.
    stages: loads in flight.
    """

    m: int
    n: int
    k: int
    group: int
    warps: int
    stages: int


Schedule: TypeAlias = NestSchedule | ContractSchedule | BlockSchedule | TileSchedule
