"""The cost model of contractions: tiles, blocks and decisions for sizes that models really have."""

from __future__ import annotations

import math

import pytest

from fluxc.compiler.ir.dims import dim
from fluxc.compiler.ir.types import bf16, f32, f64, i8
from fluxc.compiler.kernels.affine import Level, affine_index, flat_index, levels, walked_index
from fluxc.compiler.kernels.contraction import (
    choose_contract_schedule,
    contract_cycles,
    row_heights,
    row_steps,
    worth_contract,
    worth_packing,
)
from fluxc.compiler.kernels.kernel import Axis, Buffer, Expressions
from fluxc.compiler.kernels.schedule import Target

AVX512 = Target("x86_64-unknown-linux-gnu", "", "", 64, 32, 2 << 20)
AVX2 = Target("x86_64-unknown-linux-gnu", "", "", 32, 16, 512 << 10)
NEON = Target("aarch64-unknown-linux-gnu", "", "", 16, 32, 1 << 20)
SSE2 = Target("x86_64-unknown-linux-gnu", "", "", 16, 16, 256 << 10, has_fma=False)
TARGETS = [AVX512, AVX2, NEON, SSE2]
SIZES = [(m, n, k) for m in (0, 1, 7, 128, 1024) for n in (0, 1, 10, 48, 1000) for k in (0, 1, 768)]


@pytest.mark.parametrize("target", TARGETS, ids=["avx512", "avx2", "neon", "sse2"])
def test_tiles_fit_the_registers(target):
    for m, n, k in [*SIZES, (dim("batch"), 512, 784), (784, 512, dim("batch"))]:
        s = choose_contract_schedule(m, n, k, f32, target)
        assert s.mr * s.nv + s.nv < target.vector_registers
        assert s.width * 4 == target.vector_bytes
        assert min(s.mr, s.nv, s.kc, s.mc) >= 1


def test_columns_are_not_wasted():
    for n, vectors in [(10, 1), (16, 1), (48, 3), (32, 2)]:
        assert choose_contract_schedule(64, n, 64, f32, AVX512).nv == vectors
    s = choose_contract_schedule(128, 3072, 768, f32, AVX512)
    assert 3072 % (s.nv * s.width) == 0
    assert s.mr * s.nv >= 20


def test_asking_again_with_the_panel_width_gives_the_same_tile():
    for target in TARGETS:
        for m, n, k in [*SIZES, (dim("batch"), 512, 784)]:
            first = choose_contract_schedule(m, n, k, f32, target)
            again = choose_contract_schedule(m, n, k, f32, target, packed=first.nv * first.width)
            assert (first.mr, first.nv) == (again.mr, again.nv)
            assert not again.staged


def test_one_row_keeps_enough_sums_in_flight():
    assert choose_contract_schedule(1, 3072, 768, f32, AVX512).nv >= 4


def test_widths_follow_the_accumulator():
    widths = {
        d: choose_contract_schedule(64, 64, 64, d, AVX512).width for d in (f64, f32, bf16, i8)
    }
    assert widths == {f64: 8, f32: 16, bf16: 16, i8: 64}


def test_blocks_fit_the_caches():
    for target in TARGETS:
        s = choose_contract_schedule(4096, 4096, 100_000, f32, target)
        assert s.staged
        assert s.mc * s.kc * 4 <= target.l2
        assert s.kc * s.nv * s.width * 4 <= target.l2 // 2


def test_large_products_are_shared_and_small_ones_are_not():
    large = choose_contract_schedule(1024, 1024, 1024, f32, AVX512)
    assert 1 <= large.grain <= 2
    assert choose_contract_schedule(8, 64, 64, f32, AVX512).grain == 0
    tall = choose_contract_schedule(2048, 64, 512, f32, AVX512)
    assert math.ceil(2048 / tall.mc) >= 8


@pytest.mark.parametrize("mr", [1, 4, 6, 8, 13])
def test_row_steps_cover_the_rows_with_heights_that_exist(mr):
    for rows in range(60):
        for known, m in ((True, rows), (False, dim("m"))):
            steps = row_steps(rows, mr, known=known)
            assert sum(steps) == rows
            assert set(steps) <= set(row_heights(m, mr, max(rows, 1)))
    assert row_steps(9, 8, known=True) == [5, 4]


def test_what_is_worth_a_contraction():
    assert worth_contract(128, 64, 64, f32, AVX512)
    assert worth_contract(dim("batch"), 10, 64, f32, AVX512)
    assert not worth_contract(128, 1, 64, f32, AVX512)
    assert not worth_contract(1, 512, 512, f32, AVX512, unit_stride=False)
    assert worth_contract(1, 512, 512, f32, AVX512)


def test_only_what_stays_is_packed_ahead():
    shape = (256, 512, 784, f32, AVX512)
    assert worth_packing(*shape, unit_stride=True, constant=True)
    assert not worth_packing(*shape, unit_stride=False, constant=False)


def test_cycles_grow_with_the_work():
    small, large = (contract_cycles(m, 512, 512, f32, AVX512) for m in (64, 128))
    assert small < large <= 2.2 * small
    assert 64 * 512 * 512 / 32 <= small <= 1.5 * 64 * 512 * 512 / 32


def test_affine_indices():
    e, n = Expressions(), dim("n")
    i, j = Axis("i", n), Axis("j", 8)
    at = affine_index(e.add(e.mul(e.index(i), 3), e.add(e.index(j), n)))
    assert (at.constant, at.steps) == (n, {i: 3, j: 1})
    assert affine_index(e.mod(e.index(i), 3)) is None
    load = e.load(
        Buffer("x", f32, (n, 8)), (e.index(i), e.sub(e.const(7, e.index(j).dtype), e.index(j)))
    )
    flat = flat_index(load)
    assert (flat.constant, flat.step(i), flat.step(j)) == (7, 8, -1)


def test_digits_of_an_axis_are_loops_of_their_own():
    e, n = Expressions(), dim("n")
    m = Axis("m", n * 12)
    i, h, w = e.unflatten(e.index(m), (n, 3, 4))
    padded = walked_index(e.load(Buffer("x", f32, (n, 5, 6, 8)), (i, h, w, e.size(0))))
    assert levels(padded, m) == (Level(n, 240), Level(3, 48), Level(4, 8))
    dense = walked_index(e.load(Buffer("x", f32, (n, 3, 4, 8)), (i, h, w, e.size(0))))
    assert levels(dense, m) == (Level(n * 12, 8),)
    line = walked_index(e.load(Buffer("x", f32, (n, 8)), (i, e.size(0))))
    assert levels(line, m) == (Level(n, 8), Level(12, 0))
    row, same = Axis("row", n), walked_index(e.load(Buffer("x", f32, (8,)), (e.size(0),)))
    assert levels(same, row) == (Level(n, 0),)
    twice = walked_index(e.load(Buffer("x", f32, (n * 12, 3)), (e.index(m), h)))
    assert levels(twice, m) is None
