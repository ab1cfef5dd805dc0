"""PyTorch's and Keras's weights as fluxc's: arrays by their names there to arrays by ours.

    arrays = {name: x.numpy() for name, x in torch_model.state_dict().items()}
    for name, array in convert.from_torch(model, arrays).items():
        m.parameters[name] = array

Layers correspond where they compute the same; what is no weight (an activation, `eps`, the
momentum of a BatchNorm, the number of heads) is the user's to make equal.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fluxc.compiler.errors import ShapeError, TraceError
from fluxc.compiler.ir.interp import round_to
from fluxc.module import Declared, Module, parts
from fluxc.nn.attention import MultiHeadAttention
from fluxc.nn.basic import Dense
from fluxc.nn.cells import Cell as RecurrentCell
from fluxc.nn.cells import GRUCell, GRUv3Cell
from fluxc.nn.checks import function_name
from fluxc.nn.combine import Chain
from fluxc.nn.convolution import Convolution
from fluxc.nn.embed import Embedding, EmbeddingBag
from fluxc.nn.recurrent import Bidirectional, Recurrence, Stacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["from_keras", "from_torch"]

Arrays: TypeAlias = dict[str, np.ndarray]
Rule: TypeAlias = "Callable[[Any, _Source], Arrays | None]"
IGNORED = ("num_batches_tracked", "seed_generator_state")


def from_torch(model: Module, arrays: Mapping[str, Any]) -> Arrays:
    """Arrays by the names of a PyTorch `state_dict` as arrays by the names of `model`'s parameters.

        convert.from_torch(nn.LSTM(3, 4), {"weight_ih_l0": ..., "weight_hh_l0": ..., ...})

    Modules correspond by their paths: a Chain to a Sequential, an attribute to one of its name.

    Dense, Conv, ConvTranspose, Embedding, LayerNorm, BatchNorm and the like: the same layouts; a
        norm's `scale` is PyTorch's weight; kernels of layers with flip=True are reversed.
    RNN, LSTM, GRU, their cells, `Bidirectional` (bidirectional=True), `Stacked` (num_layers): the
        gates stand in the same order.  PyTorch's two biases are added; of a GRU's, the part of
        bias_hh that the reset gate scales is our `reset_bias`: make the cell with reset_bias=True.
    MultiHeadAttention: in_proj_weight is the rows of q_proj, k_proj and v_proj.

    Returns numbers in the parameters' dtypes (the bits of bf16 as uint16).
    Errors  TraceError for names that are missing, or left over; ShapeError for other sizes.
    """
    return _converted(model, _Source("from_torch", arrays, TORCH_NAMES), _torch)


def from_keras(model: Module, arrays: Mapping[str, Any]) -> Arrays:
    """Arrays by the names of Keras's variables as arrays by the names of `model`'s parameters.

        convert.from_keras(nn.Dense(3, 4), {"kernel": ..., "bias": ...})

    Of a name the last parts count: "dense_1/kernel:0" is kernel.  In a model of several layers,
    names begin with the layer's path here, a Chain's layers with their place: "0/kernel".

    Dense, Conv, ConvTranspose: `kernel`, which is transposed; Embedding: `embeddings`;
        DepthwiseConv: `depthwise_kernel` or `kernel` [*kernel, in, multiplier].
    LayerNorm, BatchNorm: gamma, beta, moving_mean, moving_variance.
    RNN (SimpleRNN), LSTM: kernel, recurrent_kernel, bias, transposed; gates in the same order.
    GRU: z, r, h become r, z, n; reset_after=True, the default there, is GRU(reset_bias=True), and
        reset_after=False is GRUv3.  `Bidirectional`: forward_.../kernel, backward_.../kernel.
    MultiHeadAttention: query/kernel [in, heads, size], key, value, attention_output, with biases.

    Returns numbers in the parameters' dtypes (the bits of bf16 as uint16).
    Errors  TraceError for names that are missing, or left over; ShapeError for other sizes.
    """
    named = {name.removesuffix(":0").replace("/", "."): x for name, x in arrays.items()}
    return _converted(model, _Source("from_keras", named, KERAS_NAMES, loose=True), _keras)


class _Source:
    """The arrays below one path, and which of all have been taken.

    names  what a layer's own names are called there; ours are looked for too.
    loose  the last parts of a name count, wherever below the path it stands.
    """

    def __init__(
        self,
        function: str,
        arrays: Mapping[str, Any],
        names: Mapping[str, str],
        *,
        loose: bool = False,
    ) -> None:
        self.function, self.names, self.loose, self.path = function, names, loose, ""
        self.arrays = {name: np.asarray(x) for name, x in arrays.items()}
        self.taken: set[str] = set()

    def below(self, name: str) -> _Source:
        """The source of a part; it reports what it takes to the same set."""
        part = copy.copy(self)
        part.path = f"{self.path}{name}."
        return part

    def side(self, word: str) -> _Source:
        """What stands below a part of the path that begins with `word`."""
        part = copy.copy(self)
        part.arrays = {
            name: x
            for name, x in self.arrays.items()
            if any(p.startswith(word) for p in name.removeprefix(self.path).split("."))
        }
        return part

    def _found(self, name: str) -> list[str]:
        if not self.loose:
            return [self.path + name] if self.path + name in self.arrays else []
        own = [n for n in self.arrays if n.startswith(self.path)]
        return [n for n in own if f".{n}".endswith(f".{name}")]

    def has(self, name: str) -> bool:
        return bool(self._found(name))

    def take(self, *names: str) -> np.ndarray:
        """The array of the first of these names that is there."""
        found = [n for name in names for n in self._found(name)]
        if len(found) != 1:
            raise TraceError(
                f"convert.{self.function}: {len(found) or 'no'} arrays are {self.path}{names[0]}",
                expected="one",
                got=", ".join(found or sorted(self.arrays)) or "no arrays",
            )
        self.taken.add(found[0])
        return self.arrays[found[0]]

    def check_empty(self) -> None:
        left = [n for n in self.arrays if n not in self.taken and not n.endswith(IGNORED)]
        if left:
            raise TraceError(
                f"convert.{self.function}: arrays that the model has no place for",
                got=", ".join(sorted(left)),
            )


def _converted(model: Module, source: _Source, rule: Rule) -> Arrays:
    arrays = _tree(model, source, rule)
    source.check_empty()
    declared = model.parameters() | model.states()
    return {name: _fitted(source, name, arrays[name], d) for name, d in declared.items()}


def _fitted(source: _Source, name: str, array: np.ndarray, declared: Declared) -> np.ndarray:
    if array.shape != declared.type.shape:
        raise ShapeError(
            f"convert.{source.function}: {name} has another shape",
            expected=str(list(declared.type.shape)),
            got=f"{list(array.shape)} after conversion",
        )
    return round_to(array, declared.type.dtype)


def _tree(module: Any, source: _Source, rule: Rule) -> Arrays:
    """The arrays of a module or container by our paths below it."""
    own = rule(module, source)
    if own is not None:
        return own
    arrays: Arrays = {}
    for name, part in parts(module):
        if isinstance(part, Declared):
            arrays[name] = source.take(name, *filter(None, [source.names.get(name)]))
            continue
        # A Sequential has its layers by their places, with nothing in between.
        inside = source if isinstance(module, Chain | Stacked) and name == "layers" else None
        below = _tree(part, inside or source.below(name), rule)
        arrays |= {f"{name}.{path}": x for path, x in below.items()}
    return arrays


def _prefixed(name: str, arrays: Arrays) -> Arrays:
    return {f"{name}.{path}": x for path, x in arrays.items()}


def _flipped(module: Convolution, weight: np.ndarray) -> np.ndarray:
    return np.flip(weight, tuple(range(2, weight.ndim))) if module.flip else weight


def _bias(module: Any, source: _Source) -> Arrays:
    return {} if module.bias is None else {"bias": source.take("bias")}


# PyTorch.

TORCH_NAMES = {"scale": "weight", "mean": "running_mean", "var": "running_var"}


def _torch(module: Any, source: _Source) -> Arrays | None:
    """The arrays of a layer that has other layouts there, else None."""
    if isinstance(module, Recurrence | Bidirectional | Stacked):
        return _torch_recurrence(module, source)
    if isinstance(module, RecurrentCell):
        return _torch_cell(module, source, "")
    if isinstance(module, MultiHeadAttention):
        return _torch_attention(module, source)
    if isinstance(module, Convolution) and module.flip:
        return {"weight": _flipped(module, source.take("weight"))} | _bias(module, source)
    return None


def _torch_recurrence(module: Any, source: _Source) -> Arrays | None:
    """Layers l0, l1, ... of one PyTorch module; None where each has its own."""
    if isinstance(module, Stacked):
        if not source.has("weight_ih_l0"):
            return None
        numbered = [(f"layers.{i}.", layer) for i, layer in enumerate(module.layers)]
    else:
        numbered = [("", module)]
    arrays: Arrays = {}
    for number, (path, layer) in enumerate(numbered):
        for name, cell in _cells(layer):
            suffix = f"_l{number}" + ("_reverse" if name.startswith("backward") else "")
            arrays |= _prefixed(f"{path}{name}", _torch_cell(cell, source, suffix))
    return arrays


def _cells(layer: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(layer, Bidirectional):
        return [("forward.cell", layer.forward.cell), ("backward.cell", layer.backward.cell)]
    return [("cell", layer.cell)]


def _torch_cell(cell: Any, source: _Source, suffix: str) -> Arrays:
    if not isinstance(cell, RecurrentCell) or isinstance(cell, GRUv3Cell):
        raise TraceError(f"convert.from_torch: PyTorch has no {function_name(cell)}")
    arrays = {
        "Wi": source.take(f"weight_ih{suffix}"),
        "Wh": source.take(f"weight_hh{suffix}"),
    }
    if cell.bias is None:
        return arrays
    given, recurrent = (source.take(f"bias_{side}h{suffix}") for side in "ih")
    if not isinstance(cell, GRUCell):
        return arrays | {"bias": given + recurrent}
    return arrays | _gru_biases(cell, source, given, recurrent)


def _gru_biases(cell: GRUCell, source: _Source, given: np.ndarray, recurrent: np.ndarray) -> Arrays:
    """Of the recurrent bias, the reset gate scales the last chunk; the others are added."""
    last = recurrent[2 * cell.out_size :]
    bias = given + np.concatenate([recurrent[: 2 * cell.out_size], np.zeros_like(last)])
    if cell.reset_bias is not None:
        return {"bias": bias, "reset_bias": last}
    if last.any():
        raise TraceError(
            f"convert.{source.function}: the reset gate scales a bias that {cell.describe()} lacks",
            hint="make the cell or layer with reset_bias=True",
        )
    return {"bias": bias}


ROLES = ("q", "k", "v")


def _torch_attention(module: MultiHeadAttention, source: _Source) -> Arrays:
    layers = {f"{role}_proj": getattr(module, f"{role}_proj") for role in ROLES}
    rows = np.cumsum([layer.out_size for layer in layers.values()])[:-1]
    if source.has("in_proj_weight"):
        weights = np.split(source.take("in_proj_weight"), rows)
    else:
        weights = [source.take(f"{name}_weight") for name in layers]
    arrays = {f"{name}.weight": w for name, w in zip(layers, weights, strict=True)}
    arrays["out_proj.weight"] = source.take("out_proj.weight")
    if module.out_proj.bias is not None:
        biases = np.split(source.take("in_proj_bias"), rows)
        arrays |= {f"{name}.bias": x for name, x in zip(layers, biases, strict=True)}
        arrays["out_proj.bias"] = source.take("out_proj.bias")
    return arrays


# Keras.


def _keras(module: Any, source: _Source) -> Arrays | None:
    """The arrays of a layer that has other layouts there, else None."""
    if isinstance(module, Bidirectional | Recurrence | RecurrentCell):
        return _keras_recurrence(module, source)
    if isinstance(module, MultiHeadAttention):
        return _keras_attention(module, source)
    if isinstance(module, Embedding | EmbeddingBag):
        return {"weight": source.take("embeddings")}
    if isinstance(module, Dense | Convolution):
        kernel = source.take("kernel", "depthwise_kernel")
        weight = _keras_weight(module, kernel) if isinstance(module, Convolution) else kernel.T
        return {"weight": weight} | _bias(module, source)
    return None


KERAS_NAMES = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}


def _keras_weight(module: Convolution, kernel: np.ndarray) -> np.ndarray:
    """[*kernel, a, b] as [b, a, *kernel]; of a depthwise one, [in * multiplier, 1, *kernel]."""
    if module.groups > 1 and kernel.shape[-2] == module.groups:
        kernel = kernel.reshape(*kernel.shape[:-2], 1, math.prod(kernel.shape[-2:]))
    last = kernel.ndim - 1
    return _flipped(module, kernel.transpose(last, last - 1, *range(last - 1)))


def _keras_recurrence(module: Any, source: _Source) -> Arrays:
    if isinstance(module, RecurrentCell):
        return _keras_cell(module, source)
    if isinstance(module, Recurrence):
        return _prefixed("cell", _keras_cell(module.cell, source))
    ways = {"forward": module.forward, "backward": module.backward}
    cells = {way: _keras_cell(part.cell, source.side(way)) for way, part in ways.items()}
    return {f"{way}.cell.{name}": x for way, cell in cells.items() for name, x in cell.items()}


def _keras_cell(cell: Any, source: _Source) -> Arrays:
    if not isinstance(cell, RecurrentCell):
        raise TraceError(f"convert.from_keras: Keras has no {function_name(cell)}")
    arrays = {"Wi": source.take("kernel").T, "Wh": source.take("recurrent_kernel").T}
    if not isinstance(cell, GRUCell | GRUv3Cell):
        return arrays | _bias(cell, source)
    arrays = {name: _gates_reordered(x) for name, x in arrays.items()}
    if isinstance(cell, GRUv3Cell):
        gates, arrays["Wh_h"] = np.split(arrays["Wh"], [2 * cell.out_size])
        arrays["Wh"] = np.concatenate([gates, np.zeros_like(arrays["Wh_h"])])
    if cell.bias is None:
        return arrays
    bias = source.take("bias")
    if isinstance(cell, GRUv3Cell):
        return arrays | {"bias": _gates_reordered(bias)}
    if bias.shape != (2, 3 * cell.out_size):
        raise ShapeError(
            f"convert.from_keras: the bias of {cell.describe()} has another shape",
            expected=f"[2, {3 * cell.out_size}] of reset_after=True",
            got=str(list(bias.shape)),
            hint="reset_after=False is GRUv3",
        )
    given, recurrent = map(_gates_reordered, bias)
    return arrays | _gru_biases(cell, source, given, recurrent)


def _gates_reordered(x: np.ndarray) -> np.ndarray:
    """Chunks z, r, h of rows as r, z, n."""
    z, r, h = np.split(x, 3)
    return np.concatenate([r, z, h])


def _keras_attention(module: MultiHeadAttention, source: _Source) -> Arrays:
    arrays: Arrays = {}
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
    for own, name in names.items():
        kernel = source.take(f"{name}.kernel")
        arrays[f"{own}.weight"] = kernel.reshape(kernel.shape[0], -1).T
        if getattr(module, own).bias is not None:
            arrays[f"{own}.bias"] = source.take(f"{name}.bias").reshape(-1)
    kernel = source.take("attention_output.kernel")
    arrays["out_proj.weight"] = kernel.reshape(-1, kernel.shape[-1]).T
    if module.out_proj.bias is not None:
        arrays["out_proj.bias"] = source.take("attention_output.bias")
    return arrays
