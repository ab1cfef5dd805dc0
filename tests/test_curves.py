"""Examples train as the same models do in PyTorch: losses of 50 steps from the same weights."""

import numpy as np
import pytest
from golden import curves

with np.load(curves.FILE) as stored:
    GOLDEN = dict(stored)


@pytest.mark.cc
@pytest.mark.parametrize("name", curves.CASES)
def test_an_example_s_losses_are_pytorch_s(name):
    losses = curves.run(name).losses()
    np.testing.assert_allclose(losses, GOLDEN[name], rtol=1e-4)
    assert losses[-5:].mean() < 0.97 * losses[:5].mean(), "a curve that does not fall shows nothing"
