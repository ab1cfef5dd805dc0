"""What a model file declares, as the compiler takes it: entries over graphs, and stored tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from fluxc.compiler.ir.graph import Graph, Loc
    from fluxc.compiler.ir.types import TensorType

__all__ = ["Entry", "Export", "Limit", "ModelSpec", "Storage"]


@dataclass(frozen=True, slots=True)
class Storage:
    """A tensor that lives in the model between calls.

    name:      `layers.0.weight`; optimiser state is `optimizer.<entry>.<slot>.<parameter>`,
               a hyper-parameter `optimizer.<entry>.<name>`, random numbers `random.seed` and
               `random.step`.
    type:      its type; every size is an integer.
    kind:      parameter, state, optimizer, hyper, seed or step.
    init:      the number that fills it, or a function of a NumPy generator that makes it.
    trainable: whether a training step may change it (parameters only).
    source:    the storage whose generator `init` gets, so that both can be made of the same random
               numbers; its own where it is empty.
    """

    name: str
    type: TensorType
    kind: str
    init: float | Callable[[np.random.Generator], np.ndarray]
    trainable: bool = False
    source: str = ""

    @property
    def in_file(self) -> bool:
        """Whether an artifact ships its initial value in a file: one number needs none."""
        return self.kind in ("parameter", "state") or callable(self.init)


@dataclass(frozen=True, slots=True)
class Limit:
    """The bytes of scratch memory that a call may take where named sizes have these values.

    A size without one has the largest value of its range.
    """

    bytes: int
    sizes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One exported function.

    graph:       params are the inputs, then the storages that it reads; results are the output
                 leaves, then the new values of the storages that it updates.
    inputs:      names of the inputs, for graph.params[:len(inputs)].
    storages:    names of the storages read, for the rest of graph.params.
    outputs:     names of the output leaves, for graph.results[:len(outputs)].
    updates:     names of the storages written, for the rest of graph.results.
    output_tree: how the leaves form the returned value: "leaf", or nested
                 ("tuple" | "list", [trees]) and ("dict", {key: tree}), as JSON has it.
    training:    whether it was traced in training mode.
    forward:     the traced program before differentiation, where it differs from `graph`.
    memory:      what its scratch memory must fit in, if anything was said.
    """

    name: str
    graph: Graph
    inputs: tuple[str, ...]
    storages: tuple[str, ...]
    outputs: tuple[str, ...]
    updates: tuple[str, ...] = ()
    output_tree: Any = "leaf"
    training: bool = False
    forward: Graph | None = None
    memory: Limit | None = None
    loc: Loc | None = None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All entries of one model file and the storages that they share, by name."""

    entries: tuple[Entry, ...]
    storages: tuple[Storage, ...]


@runtime_checkable
class Export(Protocol):
    """What the driver looks for in a model file; `fluxc.export` makes them."""

    name: str
    loc: Loc | None

    def trace_model(self, namespace: dict[str, Any]) -> ModelSpec:
        """Trace every export of the model file whose module-level names are `namespace`."""
        ...
