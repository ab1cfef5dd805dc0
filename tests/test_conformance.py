"""Every case of Flux's own expected values, or in words why it cannot hold.

A case without a runner fails; so does an exception that names no case, or one that has a runner.
"""

import sys

import numpy as np
import pytest
from compiled import assert_graph_agrees, compile_graphs, expected
from conformance import (
    convolutions,
    data,
    derivatives,
    functions,
    layers,
    optimisers,
    places,
    sizes,
)
from conformance.cases import CASES, FILE, RUNNERS, Stated, agree, fits, runners

from dsl import run, spec_of, trace
from fluxc.compiler.errors import FluxcError

pytestmark = pytest.mark.skipif(
    not FILE.exists(), reason=f"there is no {FILE.name} beside the project"
)

PROGRAMS = (convolutions, derivatives, functions, places)
"""Families whose cases are mostly functions of their inputs alone."""
FAMILIES = (*PROGRAMS, data, layers, optimisers, sizes)

EXCEPTIONS = {
    "complex gradient abs2": "there are no complex dtypes: a complex number is a pair of floats",
    "optim Adam(1e-4) Float16 first step": "the value comes of Float16 moments that underflow;"
    " 16-bit parameters are updated in f32 here",
}


def runner_of(what):
    found = runners(what)
    assert len(found) == 1, f"{len(found)} runners cover it"
    return found[0]


def run_case(case):
    """What the case's runner gives, and what is expected of it."""
    runner = runner_of(case.what)
    if isinstance(case.expect, str) and case.expect.startswith("error:"):
        with pytest.raises(FluxcError):
            runner(case)
        return case.expect, case.expect
    found = runner(case)
    return (found.actual, found.expected) if isinstance(found, Stated) else (found, case.expect)


@pytest.mark.parametrize("what", [what for what in CASES if what not in EXCEPTIONS])
def test_case(what):
    agree(CASES[what], *run_case(CASES[what]))


def interpreted(monkeypatch):
    """The programs that the families' runners interpret, each with its arrays."""
    programs = []

    def recorded(f, *arrays, **options):
        if not options:
            entry, kept = trace(f, *map(spec_of, arrays))
            programs.extend([] if kept else [(entry.graph, list(map(np.asarray, arrays)))])
        return run(f, *arrays, **options)

    for family in PROGRAMS:
        monkeypatch.setattr(family, "run", recorded)
    for what, case in CASES.items():
        if what not in EXCEPTIONS and sys.modules[runner_of(what).__module__] in PROGRAMS:
            run_case(case)
    return programs


@pytest.mark.cc
def test_compiled_code_computes_the_same(monkeypatch, tmp_path):
    """Every third of these programs, as native code."""
    sample = {f"c{i}": program for i, program in enumerate(interpreted(monkeypatch)[::3])}
    compiled = compile_graphs({name: graph for name, (graph, _) in sample.items()}, tmp_path)
    for name, (graph, arrays) in sample.items():
        got = getattr(compiled.model(), name)(*arrays)
        assert_graph_agrees(graph, got, expected(graph, arrays), name)


def test_exceptions_are_few_cases_of_the_file_and_have_reasons():
    assert len(EXCEPTIONS) <= 2
    for what, reason in EXCEPTIONS.items():
        assert what in CASES
        assert not runners(what), f"{what} has a runner: {reason}"


def test_every_runner_has_a_case_and_every_family_runners():
    unused = [n for names, _ in RUNNERS for n in names if not any(fits(n, what) for what in CASES)]
    assert not unused
    assert {f.__module__ for _, f in RUNNERS} == {family.__name__ for family in FAMILIES}
