"""Losses: `loss(prediction, target, agg=fx.mean)`.

`agg` is any reduction; `fx.identity` gives the losses one by one.  Targets have the prediction's
shape, or are scalars.  Losses of classes take integer labels as well as one-hot targets; labels
must be in 0 .. classes - 1, which a compiled entry checks where they are its inputs.
"""

from fluxc.losses import alignment, binary, classes, regression, similarity
from fluxc.losses.alignment import *  # noqa: F403
from fluxc.losses.binary import *  # noqa: F403
from fluxc.losses.classes import *  # noqa: F403
from fluxc.losses.regression import *  # noqa: F403
from fluxc.losses.similarity import *  # noqa: F403
from fluxc.losses.terms import xlogx, xlogy

FAMILIES = (regression, classes, binary, similarity, alignment)
__all__ = ["xlogx", "xlogy"]
__all__ += [name for family in FAMILIES for name in family.__all__]
