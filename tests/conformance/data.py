"""Data: splits, batches, one-hot classes, order."""

import numpy as np

import fluxc as fx
from conformance.cases import array, covers
from dsl import run
from fluxc import data


def from_one(indices):
    return [int(i) + 1 for i in indices]


def ends(indices):
    """A range of the file: its first and last position, from 1."""
    return [int(indices[0]) + 1, int(indices[-1]) + 1]


@covers("splitobs int", "splitobs three-way")
def splitobs(case):
    return [ends(part) for part in data.splitobs(case.args["n"], at=tuple(case.args["at"]))]


@covers("splitobs stratified doc")
def stratified(case):
    a = case.args
    parts = data.splitobs(10, at=a["at"], stratified=a["labels"])
    return [from_one(part) for part in parts]


@covers("kfolds(10,5) validation folds doc")
def kfolds(case):
    train, validation = data.kfolds(case.args["n"], case.args["k"])
    for t, v in zip(train, validation, strict=True):
        assert sorted([*t, *v]) == list(range(case.args["n"]))
    return [from_one(v) for v in validation]


@covers("timeseries_kfolds(10;k=3) doc")
def timeseries_kfolds(case):
    train, validation = data.timeseries_kfolds(case.args["n"], case.args["k"])
    return {"train": [ends(t) for t in train], "val": [ends(v) for v in validation]}


@covers("batch of vectors doc")
def batch(case):
    return data.batch([np.array(x) for x in case.args["xs"]])


@covers("batchseq doc")
def batchseq(case):
    return data.batchseq(case.args["seqs"], case.args["pad"])


@covers("batch_sequence doc")
def batch_sequence(case):
    return data.batch_sequence(case.args["seqs"], case.args["pad"])


@covers("chunk(1:10,3) doc")
def chunk(case):
    return [ends(c) for c in data.chunk(np.arange(10), case.args["n"])]


@covers("rpad_constant doc")
def rpad_constant(case):
    a = case.args
    return np.asarray(data.rpad_constant(a["x"], a["n"], a["val"]))


@covers("slidingwindow(11:30*")
def slidingwindow(case):
    a = case.args
    windows = data.slidingwindow(np.arange(11, 31), size=a["size"], stride=a["stride"])
    return [[w[0], w[-1]] for w in windows]


@covers("DataLoader batchsize=2*")
def loader(case):
    x, size = array(case.args["X"]), case.args["batchsize"]
    assert len(list(data.DataLoader(x, size, partial=False))) == 2
    return list(data.DataLoader(x, size))


# ---- one-hot classes


def chosen(args):
    return [args[k] for k in ("labels", "default") if k in args]


@covers("onehot", "onehot default")
def onehot(case):
    return data.onehot(case.args["x"], *chosen(case.args))


@covers("onehotbatch*")
def onehotbatch(case):
    return data.onehotbatch(case.args["xs"], *chosen(case.args))


@covers("onecold vector and matrix")
def onecold(case):
    return {k: np.asarray(data.onecold(array(case.args[k]))) + 1 for k in ("a", "A")}


@covers("matrix * one-hot matrix selects columns")
def product_with_onehot(case):
    """A Julia product of two matrices is that of their transposes, turned around."""
    columns = data.onehotbatch(array(case.args["indices"], int) - 1, range(3), dtype=np.float64)
    return run(fx.matmul, columns, array(case.args["A"]))


# ---- order


@covers("topk*")
def topk(case):
    a = case.args
    f = lambda x: fx.topk(x, a["k"], largest=a.get("rev", True))
    values, places = run(f, array(a["x"]))
    return {"values": values, "indices": places + 1}


@covers("batched_searchsorted")
def searchsorted(case):
    """Julia's last place is one before where the value would be put after its equals."""
    v, q = array(case.args["v"]), array(case.args["q"])
    first, after = (
        run(lambda v, q, s=s: fx.searchsorted(v, q, s), v, q) for s in ("left", "right")
    )
    return {"first": first + 1, "last": after}
