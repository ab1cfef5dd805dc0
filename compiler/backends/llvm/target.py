"""Machines: what LLVM calls them, and what the cost models must know of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from llvmlite import binding

from fluxc.compiler.errors import Unsupported
from fluxc.compiler.kernels.schedule import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["native_target", "target_for", "target_machine"]

_X86 = ("x86_64", "amd64")
_ARM = ("aarch64", "arm64")
# What a machine has whose `cpu` is not named: every x86-64 and every 64-bit ARM.
_BASELINE_CPU = {"x86_64": "x86-64", "aarch64": "generic"}
# Features that LLVM implies from a name; asking it for the list is not possible through llvmlite.
_X86_LEVELS = {
    "x86-64": "",
    "x86-64-v2": "+sse4.1,+sse4.2,+ssse3,+popcnt",
    "x86-64-v3": "+sse4.1,+sse4.2,+ssse3,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2",
    "x86-64-v4": "+sse4.1,+sse4.2,+ssse3,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,"
    "+avx512f,+avx512vl,+avx512dq,+avx512bw,+avx512cd",
}
_V3 = ("haswell", "broadwell", "skylake", "alderlake", "znver1", "znver2", "znver3")
_V4 = (
    "skylake-avx512",
    "cascadelake",
    "cooperlake",
    "icelake-client",
    "icelake-server",
    "sapphirerapids",
    "emeraldrapids",
    "graniterapids",
    "znver4",
    "znver5",
)
_WIDE = "-prefer-256-bit"  # LLVM's tuning for Intel's servers would halve the vectors


@functools.cache
def native_target() -> Target:
    """The machine that this process runs on."""
    host = binding.get_host_cpu_features()
    features = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(host.items()))
    triple, cpu = binding.get_process_triple(), binding.get_host_cpu_name()
    return _describe(triple, cpu, features, host, **_caches())


@functools.cache
def target_for(triple: str, cpu: str | None = None, features: str | None = None) -> Target:
    """A machine by LLVM's triple, and where wanted the CPU's name and features (`+avx2,+fma`).

    Errors  Unsupported for an architecture, a CPU or features that are not known.
    """
    architecture = triple.split("-", maxsplit=1)[0]
    name = "x86_64" if architecture in _X86 else "aarch64" if architecture in _ARM else None
    if name is None or triple.count("-") < 1:
        raise Unsupported(
            f"cannot compile for {triple!r}",
            expected="a triple such as x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu",
        )
    host = native_target()
    if cpu in ("native", host.cpu) and triple == host.triple and not features:
        return host
    cpu = cpu or _BASELINE_CPU[name]
    given = _level(cpu) if name == "x86_64" else "+neon"
    if given is None and not features:
        raise Unsupported(
            f"unknown CPU {cpu!r} for {triple}",
            expected=", ".join((*_X86_LEVELS, *_V3, *_V4)),
        )
    text = ",".join(x for x in (given, features) if x)
    has = {f[1:]: f[0] == "+" for f in text.split(",") if f}
    return _describe(triple, cpu, text, has)


def _level(cpu: str) -> str | None:
    if cpu in _V3:
        return _X86_LEVELS["x86-64-v3"]
    return _X86_LEVELS["x86-64-v4"] if cpu in _V4 else _X86_LEVELS.get(cpu)


def _describe(
    triple: str, cpu: str, features: str, has: Mapping[str, bool], l2: int = 1 << 20
) -> Target:
    def every(*names: str) -> bool:
        return all(has.get(name, False) for name in names)

    if triple.split("-", maxsplit=1)[0] in _ARM:
        return Target(triple, cpu, features, 16, 32, l2, has_fma=True)
    fma = every("fma")
    if every("avx512f", "avx512vl", "avx512dq", "avx512bw"):
        return Target(triple, cpu, f"{features},{_WIDE}", 64, 32, l2, has_fma=fma)
    return Target(triple, cpu, features, 32 if every("avx2") else 16, 16, l2, has_fma=fma)


def _caches() -> dict[str, int]:
    """Bytes of the first core's second data cache, where the system says them."""
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((cache / f).read_text().strip() for f in ("type", "level", "size"))
        except OSError:
            continue
        known = size[-1:] in "KM" and size[:-1].isdigit()
        if kind in ("Data", "Unified") and level == "2" and known:
            return {"l2": int(size[:-1]) << (10 if size[-1] == "K" else 20)}
    return {}


@functools.cache
def target_machine(target: Target) -> binding.TargetMachine:
    """LLVM's code generator for a target.

    Errors  Unsupported where this LLVM was built without it.
    """
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    try:
        machine = binding.Target.from_triple(target.triple)
    except RuntimeError as error:
        raise Unsupported(f"cannot compile for {target.triple!r}: {error}") from error
    return machine.create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="default"
    )
