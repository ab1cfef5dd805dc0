"""The arena: offsets that hold for every size."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels_oracle import planned
from random_graphs import random_graph

from fluxc.compiler.ir.dims import dim, evaluate_size, product
from fluxc.compiler.kernels.kernel import kernel_symbols
from fluxc.compiler.kernels.memory import ALIGNMENT, Tenant, arrange
from fluxc.compiler.kernels.program import ArenaAt, Choice, Loop, While

n, m = dim("n"), dim("m", min=1, max=100, multiple_of=4)
sizes = st.sampled_from([0, 4, 60, 64, 4096, n, 4 * n, 4 * n + 256, 4 * n * m, 16 * m, n * n])
tenants = st.lists(st.tuples(sizes, st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=150)
@given(tenants, st.integers(0, 1000), st.integers(1, 25))
def test_what_is_live_together_never_overlaps(found, n_value, quarter):
    values = {"n": n_value, "m": 4 * quarter}
    people = [Tenant(i, b, first, first + more) for i, (b, first, more) in enumerate(found)]
    offsets, total = arrange(people)
    end = evaluate_size(total, values)
    at = {t.key: evaluate_size(offsets[t.key], values) for t in people}
    size = {t.key: evaluate_size(t.bytes, values) for t in people}

    assert all(a % ALIGNMENT == 0 for a in at.values())
    assert all(at[t.key] + size[t.key] <= end for t in people)
    for a in people:
        for b in people:
            if a.key < b.key and a.first <= b.last and b.first <= a.last:
                apart = at[a.key] + size[a.key] <= at[b.key] or at[b.key] + size[b.key] <= at[a.key]
                assert apart


def test_memory_is_used_again():
    chain = [Tenant(i, 4 * n, i, i + 1) for i in range(10)]
    _, total = arrange(chain)

    assert evaluate_size(total, {"n": 16}) == 2 * 64


def test_a_size_that_may_be_larger_gets_its_own_memory():
    offsets, _ = arrange([Tenant("a", 4 * n, 0, 1), Tenant("b", 4096, 2, 3)])

    assert offsets["a"] != offsets["b"]


def test_nothing_needs_no_arena():
    assert arrange([]) == ({}, 0)


def test_the_programs_of_random_graphs_stay_within_their_arena():
    """That live buffers keep apart is seen in test_kernels_programs: every arena is one array."""
    rng = np.random.default_rng(5)
    checked = 0
    for _ in range(40):
        program = planned(random_graph(rng, 20, differentiable=False))
        values = {s.name: int(rng.integers(max(s.min, 1), 20)) for s in program.symbols}
        for launch, at in _launches(program.run, values):
            checked += sum(_is_inside(launch, i, program, at) for i in range(len(launch.places)))

    assert checked > 20


def _launches(steps, values):
    """Every launch, with the sizes and the first and the last values of the counters around it."""
    for step in steps:
        match step:
            case Loop():
                trips = evaluate_size(step.trips, values)
                for counter in {0, trips - 1} if trips > 0 else ():
                    yield from _launches(step.body, values | {step.counter.name: counter})
            case While():
                yield from _launches((*step.test, *step.body), values)
            case Choice():
                yield from _launches([s for branch in step.branches for s in branch], values)
            case _:
                yield step, values


def _is_inside(launch, position, program, values):
    kernel, place = launch.scheduled.kernel, launch.places[position]
    if not isinstance(place, ArenaAt):
        return False
    local = values
    if launch.sizes is not None:
        given_sizes = (evaluate_size(s, values) for s in launch.sizes)
        names = (s.name for s in kernel_symbols(kernel))
        local = dict(zip(names, given_sizes, strict=True))
    buffer = kernel.buffers[position]
    count = evaluate_size(product(buffer.shape), local)
    stop = evaluate_size(place.offset, values) + count * buffer.dtype.itemsize
    assert stop <= evaluate_size(program.arena, values)
    return True
