"""Random numbers have the distributions that PyTorch has under their names."""

import numpy as np
import pytest
from golden import sampling

import fluxc as fx

with np.load(sampling.FILE) as stored:
    GOLDEN = dict(stored)

DRAWS = {name: case[0] for name, case in (sampling.CONTINUOUS | sampling.DISCRETE).items()}


@pytest.fixture(scope="module")
def drawn():
    """COUNT numbers of every distribution, by one compiled entry."""

    def draws():
        return {name: draw(fx.random) for name, draw in DRAWS.items()}

    package = fx.compile({"draws": fx.export(draws)})
    return package.Model(seed=11).draws()


@pytest.mark.cc
@pytest.mark.parametrize("name", sampling.CONTINUOUS)
def test_as_many_numbers_lie_below_each_place_as_should(drawn, name):
    """Within 4.5 standard deviations of its share, for one seed."""
    x = np.sort(np.asarray(drawn[name], np.float64))
    assert np.isfinite(x).all()
    below = np.searchsorted(x, GOLDEN[f"{name}.places"]) / len(x)
    share = GOLDEN[f"{name}.below"]
    deviation = np.sqrt(share * (1 - share) / len(x))
    assert (np.abs(below - share) < 4.5 * deviation).all(), (below - share) / deviation


@pytest.mark.cc
@pytest.mark.parametrize("name", sampling.DISCRETE)
def test_each_value_is_as_frequent_as_it_should_be(drawn, name):
    x = np.asarray(drawn[name]).astype(np.int64)
    share = GOLDEN[f"{name}.probabilities"]
    counts = np.bincount(x, minlength=len(share))
    assert len(counts) == len(share)
    deviation = np.sqrt(share * (1 - share) / len(x))
    assert (np.abs(counts / len(x) - share) < 4.5 * deviation).all()
