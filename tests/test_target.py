"""Descriptions of machines."""

from __future__ import annotations

import pytest

from fluxc.compiler.backends.llvm.target import native_target, target_for, target_machine
from fluxc.compiler.errors import Unsupported

LINUX = "x86_64-unknown-linux-gnu"


@pytest.mark.parametrize(
    ("triple", "cpu", "vector", "registers", "fma"),
    [
        (LINUX, None, 16, 16, False),
        (LINUX, "x86-64-v3", 32, 16, True),
        (LINUX, "haswell", 32, 16, True),
        (LINUX, "x86-64-v4", 64, 32, True),
        (LINUX, "znver4", 64, 32, True),
        (LINUX, "sapphirerapids", 64, 32, True),
        ("aarch64-unknown-linux-gnu", None, 16, 32, True),
    ],
)
def test_machines_by_name(triple, cpu, vector, registers, fma):
    """The widest vectors, their number, and whether a multiply-add is one instruction."""
    target = target_for(triple, cpu)
    got = (target.vector_bytes, target.vector_registers, target.has_fma)
    assert got == (vector, registers, fma)
    assert target_machine(target).triple.startswith(triple.split("-", maxsplit=1)[0])


def test_features_add_to_the_name():
    """AVX2 without FMA is a machine too."""
    target = target_for(LINUX, "x86-64-v2", "+avx,+avx2")
    assert (target.vector_bytes, target.has_fma) == (32, False)


def test_wide_vectors_are_asked_for():
    """LLVM would otherwise use half of a server's registers."""
    assert "-prefer-256-bit" in target_for(LINUX, "sapphirerapids").features


def test_this_machine():
    """Its own name gives its own description; the caches are those that the system reports."""
    host = native_target()
    assert host.vector_bytes in (16, 32, 64)
    assert host.l2 >= 64 << 10
    assert target_for(host.triple, host.cpu) == host


@pytest.mark.parametrize(
    ("triple", "cpu"),
    [("sparc-sun-solaris", None), ("x86_64", None), ("", None), (LINUX, "pentium-9000")],
)
def test_unknown_machines_are_refused(triple, cpu):
    """An error that says what is known, never a guess."""
    with pytest.raises(Unsupported):
        target_for(triple, cpu)
