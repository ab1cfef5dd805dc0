"""What is being traced now: the graph under construction, the mode, and where the user stands."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from fluxc.compiler.errors import FluxcError, TraceError
from fluxc.compiler.ir.build import Builder
from fluxc.compiler.ir.graph import Loc
from fluxc.compiler.ir.locate import is_library
from fluxc.compiler.ops import infer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from fluxc.compiler.ir.dims import Size
    from fluxc.compiler.ir.graph import Graph, Node, Value
    from fluxc.compiler.ir.types import TensorType

__all__ = ["NeedsSize", "Trace", "current", "emit", "emit_all", "fail", "training", "user_loc"]

T = TypeVar("T")
_CURRENT: ContextVar[Trace | None] = ContextVar("fluxc_trace", default=None)
_HINT = "call it inside a function under @fx.export, or through fx.jit(f)"


class NeedsSize(Exception):
    """The program reads a part that exists only if `size` is at least `least`."""

    def __init__(self, size: Size, least: int, error: FluxcError) -> None:
        self.size, self.least, self.error = size, least, error
        super().__init__(str(error))


class Trace:
    """One traced entry.

    builder:   collects the nodes; its params are the inputs, then the storages in order of use.
    training:  whether dropout drops and batch statistics are used and recorded.
    stateful:  whether states may be assigned.
    variables: names of the model file's modules, by identity, for paths in messages.
    loc:       the export's own line.
    reads:     stored tensors that were read, by what declares them.
    updates:   new values of stored tensors.
    shadows:   values that stand for parameters while a gradient with respect to them is taken.
    path:      the modules that are being called, with the path of each.
    called:    the outermost modules that were called, in order.
    around:    the nodes of the programs around the region that is being run.
    failed:    the path of the module in which an exception was raised.
    steps:     the number of the present step, i64, of each loop whose body is being traced.
    """

    def __init__(
        self,
        *,
        training: bool,
        stateful: bool = False,
        variables: dict[int, str] | None = None,
        loc: Loc | None = None,
    ) -> None:
        self.builder = Builder(infer)
        self.training, self.stateful, self.loc = training, stateful or training, loc
        self.variables = variables or {}
        self.reads: dict[Any, Value] = {}
        self.updates: dict[Any, Value] = {}
        self.shadows: dict[Any, Value] = {}
        self.path: list[tuple[Any, str]] = []
        self.called: list[Any] = []
        self.failed = ""
        self.sites = 0
        self.around: list[list[Node]] = []
        self.steps: tuple[Value, ...] = ()

    def read(self, key: Any, type: TensorType) -> Value:
        """The value, at this point of the program, of the stored tensor that `key` declares."""
        if key in self.shadows:
            return self.shadows[key]
        if key in self.updates:
            return self.updates[key]
        if key not in self.reads:
            self.reads[key] = self.builder.param(type)
        return self.reads[key]

    def next_site(self) -> int:
        """A number of its own for each place that draws random numbers."""
        self.sites += 1
        return self.sites - 1

    @property
    def layer(self) -> str:
        return self.path[-1][1] if self.path else ""

    def run(self, f: Callable[[], T]) -> T:
        """f(), whose tensors belong to this trace.  What called this is no code of the user's."""
        token = _CURRENT.set(self)
        try:
            return f()
        finally:
            _CURRENT.reset(token)

    @contextmanager
    def shadowing(self, shadows: dict[Any, Value]) -> Iterator[None]:
        before = self.shadows
        self.shadows = {**before, **shadows}
        try:
            yield
        finally:
            self.shadows = before

    def region(
        self, run: Callable[[], list[Value]], what: str = "a function with its own gradient"
    ) -> tuple[list[Node], list[Value]]:
        """Run a part of the program apart: the nodes that it adds are taken out and returned.

        Errors  TraceError if it assigns state, which would escape.
        """
        nodes, updates = self.builder.nodes, dict(self.updates)
        self.builder.nodes = []
        self.around.append(nodes)
        try:
            results = run()
            if self.updates != updates:
                fail(TraceError, f"state cannot be assigned inside {what}")
            return self.builder.nodes, results
        finally:
            self.builder.nodes, self.updates = self.around.pop(), updates


def current(what: str = "a tensor's value") -> Trace:
    """The trace under way.

    Errors  TraceError outside of one.
    """
    trace = _CURRENT.get()
    if trace is None:
        raise TraceError(
            f"{what} exists only while a function is traced", loc=user_loc(), hint=_HINT
        )
    return trace


def training() -> bool:
    """Whether the entry that is being traced is a training step (or asked for `training=True`)."""
    return current("the mode").training


def is_users(frame: FrameType) -> bool:
    """Whether code outside of this package is running in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] != "fluxc"


def user_loc() -> Loc | None:
    """The user's own line: the innermost frame outside of this package and of installed ones.

    Where only this package runs, as in an optimiser's step, it is the line of the export.
    """
    trace = _CURRENT.get()
    layer = trace.layer if trace else ""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 (inspect.stack reads source files)
    nearest = None
    while frame is not None and frame.f_code is not Trace.run.__code__:
        if is_users(frame):
            if not is_library(frame.f_code.co_filename):
                return Loc(frame.f_code.co_filename, frame.f_lineno, layer)
            nearest = nearest or Loc(frame.f_code.co_filename, frame.f_lineno, layer)
        frame = frame.f_back
    if nearest or trace is None or trace.loc is None:
        return nearest
    return replace(trace.loc, layer=layer)


def emit_all(op: str, *inputs: Value, **attrs: Any) -> tuple[Value, ...]:
    """Add an operation to the program that is being traced, located at the user's line."""
    builder = current(f"the result of {op}").builder
    with builder.at(user_loc()):
        return builder.emit_all(op, *inputs, **attrs)


def emit(op: str, *inputs: Value, **attrs: Any) -> Value:
    """`emit_all` for operations with one result."""
    (value,) = emit_all(op, *inputs, **attrs)
    return value


def fail(
    kind: type[FluxcError], summary: str, *, expected: str = "", got: str = "", hint: str = ""
) -> NoReturn:
    """Raise an error that names the user's line and the layer that was running."""
    raise kind(summary, loc=user_loc(), expected=expected, got=got, hint=hint)


def close(
    name: str, params: list[Value], nodes: list[Node], results: list[Value]
) -> tuple[Graph, list[Value]]:
    """A graph of its own from nodes of a trace, and the outer values that it captured.

    The captured values become the graph's last parameters.
    """
    own = {*params, *(v for n in nodes for v in n.outputs)}
    used = [*(v for n in nodes for v in n.inputs), *results]
    captured = list(dict.fromkeys(v for v in used if v not in own))
    inner = Builder(infer)
    env = {v: inner.param(v.type, v.name) for v in (*params, *captured)}
    for node in nodes:
        with inner.at(node.loc):
            outputs = inner.emit_all(node.op, *(env[v] for v in node.inputs), **node.attrs)
        env.update(zip(node.outputs, outputs, strict=True))
    return inner.graph(name, [env[v] for v in results]), captured
