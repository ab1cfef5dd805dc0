"""Data for training: containers, splits, one-hot classes, batches.

Plain Python and NumPy, at the time of training; nothing here is compiled.  Observations lie along
axis 0 everywhere.
"""

from fluxc.data.arrays import (
    batch_sequence,
    batchseq,
    chunk,
    normalise,
    rescale,
    rpad_constant,
    unsqueeze,
)
from fluxc.data.generated import make_moons, make_poly, make_sin, make_spiral
from fluxc.data.loader import DataLoader, eachobs
from fluxc.data.observations import ObsView, batch, getobs, numobs, obsview, unbatch
from fluxc.data.onehot import onecold, onehot, onehotbatch
from fluxc.data.splits import (
    kfolds,
    leavepout,
    oversample,
    splitobs,
    timeseries_kfolds,
    undersample,
)
from fluxc.data.views import (
    BatchView,
    filterobs,
    group_counts,
    group_indices,
    groupobs,
    joinobs,
    mapobs,
    randobs,
    shuffleobs,
    slidingwindow,
)

__all__ = [
    "BatchView",
    "DataLoader",
    "ObsView",
    "batch",
    "batch_sequence",
    "batchseq",
    "chunk",
    "eachobs",
    "filterobs",
    "getobs",
    "group_counts",
    "group_indices",
    "groupobs",
    "joinobs",
    "kfolds",
    "leavepout",
    "make_moons",
    "make_poly",
    "make_sin",
    "make_spiral",
    "mapobs",
    "normalise",
    "numobs",
    "obsview",
    "onecold",
    "onehot",
    "onehotbatch",
    "oversample",
    "randobs",
    "rescale",
    "rpad_constant",
    "shuffleobs",
    "slidingwindow",
    "splitobs",
    "timeseries_kfolds",
    "unbatch",
    "undersample",
    "unsqueeze",
]
