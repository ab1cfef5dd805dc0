"""Classes as one-hot rows, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from fluxc.compiler.errors import FluxcError

__all__ = ["onecold", "onehot", "onehotbatch"]

_NONE = object()


def onehot(x: Any, labels: Any, default: Any = _NONE, *, dtype: Any = np.float32) -> np.ndarray:
    """A vector with 1 where `labels` holds x, and 0 elsewhere.

    Shapes  y: dtype[n] for n labels.
    default the label that stands for an x that is no label; without one that is an error.

    >>> onehot("b", ["a", "b", "c"])
    array([0., 1., 0.], dtype=float32)
    """
    row: np.ndarray = onehotbatch([x], labels, default, dtype=dtype)[0]
    return row


def onehotbatch(x: Any, labels: Any, default: Any = _NONE, *, dtype: Any = np.float32) -> Any:
    """One-hot rows of many values: the classes along a new last axis.

    Shapes  x: [...] or a list  ->  y: dtype[..., n] for n labels
    labels  the values that classes stand for, each once; `range(n)` for integers.
    default as `onehot` has it.
    PyTorch's name: `torch.nn.functional.one_hot`.
    """
    if not hasattr(labels, "__iter__"):
        raise FluxcError(
            f"labels are values, not {labels!r}", hint=f"range({labels}) for 0, 1, 2, ..."
        )
    known = list(labels)
    places = {_plain(label): i for i, label in enumerate(known)}
    if not known or len(places) != len(known):
        raise FluxcError("labels are one or more, each once", got=str(known)[:60])
    values = np.asarray(x)
    if isinstance(labels, range) and labels.step == 1 and values.dtype.kind in "iu":
        index = values.astype(np.int64) - labels.start
    else:
        flat = [places.get(_plain(v), -1) for v in values.reshape(-1).tolist()]
        index = np.array(flat, np.int64).reshape(values.shape)
    strange = (index < 0) | (index >= len(known))
    if strange.any():
        if default is _NONE or _plain(default) not in places:
            value = values[strange].reshape(-1)[0] if default is _NONE else default
            raise FluxcError(
                f"{_plain(value)!r} is no label",
                expected=", ".join(map(str, known[:10])) + (", ..." if len(known) > 10 else ""),
            )
        index = np.where(strange, places[_plain(default)], index)
    y = np.zeros((*values.shape, len(known)), dtype)
    np.put_along_axis(y, index[..., None], 1, axis=-1)
    return y


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def onecold(y: Any, labels: Any = None, *, axis: int = -1) -> Any:
    """The label of the largest value along `axis`, the first of equals: `onehotbatch` undone.

    Shapes  y: [..., n, ...], n at `axis`  ->  [...]; a label itself where y has rank 1
    labels  what is returned for the classes; by default their indices.
    Errors  FluxcError for a NaN, or where labels are not n.

    >>> onecold(np.array([[0.1, 0.9], [0.7, 0.3]]), ["no", "yes"]).tolist()
    ['yes', 'no']
    """
    y = np.asarray(y)
    if y.ndim == 0 or y.shape[axis] == 0:
        raise FluxcError("there is no class to choose", got=f"{y.dtype}{list(y.shape)}")
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise FluxcError("a NaN is not the score of a class", hint="look for it with np.isnan")
    index = y.argmax(axis)
    if labels is None:
        return index
    known = list(labels)
    if len(known) != y.shape[axis]:
        raise FluxcError(
            "labels are one for each class", expected=str(y.shape[axis]), got=str(len(known))
        )
    if y.ndim == 1:
        return known[int(index)]
    named = np.asarray(known)
    if named.ndim != 1:  # labels that are sequences themselves
        named = np.empty(len(known), object)
        named[:] = known
    return named[index]
