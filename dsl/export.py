"""`fx.export`: functions become entries of a compiled model."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from fluxc import optim
from fluxc.compiler.advice import describe, hint_for
from fluxc.compiler.errors import FluxcError, ModelFileError, TraceError
from fluxc.compiler.ir.dims import Size, Symbol, is_at_least, parse_size, size_symbols
from fluxc.compiler.ir.entry import Entry, ModelSpec, Storage
from fluxc.compiler.ir.graph import Graph, Loc, Value
from fluxc.compiler.ir.locate import is_library
from fluxc.limits import memory_limit
from fluxc.module import Declared, Param, is_container
from fluxc.naming import declared_names, variable_names
from fluxc.ops.random import SEED, STEP
from fluxc.optim.rule import Count, Hyper, Slot
from fluxc.precision import compute_dtype, narrow_products
from fluxc.schedules import Schedule
from fluxc.tensor import Operators, Tensor, as_tensor
from fluxc.trace import NeedsSize, Trace, current, is_users, user_loc
from fluxc.tree import structure
from fluxc.types import ElementType, TensorSpec, resolve_specs
from fluxc.update import (
    Averages,
    averaged_weights,
    check_loss,
    kept_averages,
    needs_averages,
    update,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from fluxc.compiler.ir import types as ir

__all__ = ["ExportedFunction", "export", "trace_exports"]

_REGISTRY = "__fluxc_exports__"
_KINDS = ("parameter", "state", "optimizer", "hyper", "seed", "step")


class ExportedFunction:
    """An entry of a compiled model.  Inside another entry it is called like the function it was."""

    def __init__(
        self,
        f: Callable[..., Any],
        *,
        optimizer: optim.Rule | None = None,
        wrt: Any = None,
        training: bool | None = None,
        stateful: bool = False,
        name: str | None = None,
        average: optim.EMA | None = None,
        weights: optim.EMA | None = None,
        memory: Any = None,
        precision: Any = None,
    ) -> None:
        if inspect.isfunction(f):
            functools.update_wrapper(self, f)
        self.f = f
        self.name = f.__name__ if name is None else name
        code = getattr(f, "__code__", None)
        self.loc: Loc | None = code and Loc(code.co_filename, code.co_firstlineno)
        self.optimizer, self.wrt = optimizer, wrt
        self.average, self.weights = average, weights
        self.training = optimizer is not None if training is None else training
        self.stateful = stateful or self.training
        self.memory = memory_limit(memory, self.fail)
        self.precision = compute_dtype(precision, self.fail)
        self._check()

    def _check(self) -> None:
        if not self.name.isidentifier():
            self.fail(f"{self.name!r} cannot be an entry's name", hint="@fx.export(name='...')")
        if self.optimizer is not None and not isinstance(self.optimizer, optim.Rule):
            rate = "schedules.Exp(1e-3, 0.9)" if isinstance(self.optimizer, Schedule) else "1e-3"
            self.fail(f"{self.optimizer!r} is not an optimiser", hint=f"optim.Adam({rate})")
        if self.optimizer is not None and not self.training:
            self.fail("an entry with an optimizer trains: training=False makes no sense")
        if self.wrt is not None and self.optimizer is None:
            self.fail(
                "wrt= says what an optimizer updates", hint="@fx.export(optimizer=..., wrt=...)"
            )
        if self.wrt is not None and not is_container(self.wrt):
            self.fail("wrt= takes a module, a parameter, or a list of them", got=repr(self.wrt))
        for name, given in (("average", self.average), ("weights", self.weights)):
            if given is not None and not isinstance(given, optim.EMA):
                self.fail(f"{name}= takes an average", expected="optim.EMA()", got=repr(given))
        if self.average is not None and self.optimizer is None:
            self.fail(
                "average= is kept by a training step", hint="weights=average reads what it keeps"
            )
        if self.weights is not None and self.optimizer is not None:
            self.fail("a training step computes with the weights that it trains, not with weights=")

    def fail(self, summary: str, **sides: str) -> NoReturn:
        """Raise an error that names the entry and its line."""
        raise ModelFileError(f"export {self.name}: {summary}", loc=self.loc, **sides)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.f(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<export {self.name}>"

    def needs_names(self) -> bool:
        """Whether its program depends on the names of parameters."""
        return self.optimizer is not None and self.optimizer.needs_names()

    def inputs(self) -> tuple[list[str], list[TensorSpec]]:
        """Names and declared types.  Errors  ModelFileError for a parameter without one."""
        try:
            signature = inspect.signature(self.f, eval_str=True)
        except Exception as error:  # noqa: BLE001 (whatever the annotation's own code raises)
            self.fail(f"its annotations cannot be read: {error}")
        specs: list[TensorSpec] = []
        for p in signature.parameters.values():
            if p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                self.fail(f"parameter {p} is not positional", hint="name each input")
            if p.default is not p.empty:
                self.fail(f"parameter {p.name} has a default value", hint="entries take all inputs")
            specs.append(self._spec(p))
        return list(signature.parameters), specs

    def _spec(self, p: inspect.Parameter) -> TensorSpec:
        if isinstance(p.annotation, TensorSpec):
            return p.annotation
        if isinstance(p.annotation, ElementType):
            return TensorSpec(p.annotation.dtype, ())
        missing = p.annotation is p.empty
        raise ModelFileError(
            f"export {self.name}: parameter {p.name} has "
            + ("no type" if missing else "a type that is not a tensor's"),
            loc=self.loc,
            expected='a tensor type such as fx.f32["batch", 64]',
            got="" if missing else repr(p.annotation),
            hint=f'def {self.name}({p.name}: fx.f32["batch", 64], ...)',
        )

    def trace_model(self, namespace: dict[str, Any]) -> ModelSpec:
        """Trace every export of the model file whose module-level names are `namespace`."""
        return trace_exports(_exports(namespace), namespace)


def export(
    f: Callable[..., Any] | None = None,
    *,
    optimizer: optim.Rule | None = None,
    wrt: Any = None,
    training: bool | None = None,
    stateful: bool = False,
    name: str | None = None,
    average: optim.EMA | None = None,
    weights: optim.EMA | None = None,
    memory: Any = None,
    precision: Any = None,
) -> Any:
    """Make a function an entry of the compiled model.

        @fx.export
        def predict(x: fx.f32["batch", 64]):
            return model(x)

        @fx.export(optimizer=optim.Adam(1e-3))
        def train_step(x: fx.f32["batch", 64], y: fx.i32["batch"]):
            return losses.logitcrossentropy(model(x), y)

    optimizer  makes it a training step: the function returns a float scalar, the loss, or
               (loss, aux...); every trainable parameter that the loss reaches is updated.
    wrt        a module, a parameter, or a list of them: only these are updated.
    training   whether dropout drops and batch statistics are used; default: with an optimizer.
    stateful   whether an entry that does not train may assign states (`fx.State`), such as a cache
               of keys and values; calls of it run alone.
    name       of the entry; the function's by default.
    average    an `optim.EMA` of the weights that a training step keeps.
    weights    the average whose weights an entry computes with, instead of the last ones.
    memory     what the call's scratch memory must fit in, "64MiB" or a number of bytes: what does
               not fit is computed again instead of kept.  It must fit at the largest size that
               every named size can have, or at given ones: {"limit": "64MiB", "batch": 64}.
    precision  "bf16" or "f16": products and convolutions of f32 values take them in 16 bits, as do
               their gradients; parameters, sums and losses stay f32.
    """
    options = {"optimizer": optimizer, "wrt": wrt, "training": training, "stateful": stateful}
    options |= {"name": name, "average": average, "weights": weights}
    options |= {"memory": memory, "precision": precision}
    if f is None:
        return lambda g: export(g, **options)
    if not inspect.isfunction(f):
        is_rule = isinstance(f, optim.Rule)
        raise ModelFileError(
            "fx.export takes a function",
            loc=user_loc(),
            got=f"{f!r}" if is_rule or isinstance(f, type) else f"a {type(f).__name__}",
            hint=f"@fx.export(optimizer={f!r})"
            if is_rule
            else "@fx.export right above a def: def predict(x: ...): return model(x)",
        )
    made = ExportedFunction(f, **options)
    # Kept beside the names themselves: a second def of one name hides the first.
    f.__globals__.setdefault(_REGISTRY, []).append(made)
    return made


def _exports(namespace: dict[str, Any]) -> list[ExportedFunction]:
    """The exports of a model file in order.  Errors  ModelFileError for one name twice."""
    found: dict[int, ExportedFunction] = {}
    for value in namespace.values():
        if isinstance(value, ExportedFunction):
            found.setdefault(id(value), value)
    by_name: dict[str, ExportedFunction] = {}
    for made in [*found.values(), *_hidden(namespace, found)]:
        other = by_name.setdefault(made.name, made)
        if other is not made:
            raise ModelFileError(
                f"two exports are named {made.name!r}",
                loc=max((made.loc, other.loc), key=lambda loc: loc.line if loc else 0),
                got=f"{other.loc} and {made.loc}",
                hint="@fx.export(name='...') gives another name",
            )
    return list(found.values())


def _hidden(namespace: dict[str, Any], found: dict[int, Any]) -> list[ExportedFunction]:
    """Exports whose variable was defined again, in one reading of one file."""
    visible = {e.name: e for e in found.values()}
    hidden = []
    for made in namespace.get(_REGISTRY, []):
        other = visible.get(made.name)
        if other is None or other is made or made.loc is None or other.loc is None:
            continue
        # A file that is read again, by a reload, defines its names at the same lines.
        if made.loc.file == other.loc.file and made.loc.line != other.loc.line:
            hidden.append(made)
    return hidden


# Tracing.


@dataclass(frozen=True, slots=True)
class Known:
    """What is known while an entry is traced.

    variables  names of the file's modules, by identity.
    names      names of all stored tensors, by identity, once every entry was traced.
    averages   that steps keep, once every step was traced.
    reads      what the entry read when it was traced before.
    """

    variables: dict[int, str]
    names: dict[int, str] | None = None
    averages: Averages = ()
    reads: tuple[Any, ...] = ()


@dataclass
class Traced:
    """An entry before its stored tensors have names."""

    export: ExportedFunction
    inputs: list[str]
    trace: Trace
    results: list[Value]
    outputs: tuple[str, ...]
    tree: Any
    forward: Graph | None


def trace_exports(
    exports: list[ExportedFunction], namespace: dict[str, Any], *, anywhere: bool = False
) -> ModelSpec:
    """Entries and storages of exports that share the modules of one namespace.

    anywhere  parameters may stand where no variable leads to them; their names are numbers.
    """
    known = Known(variable_names(namespace))
    traced = [_trace(e, known) for e in exports]
    used = [
        k for t in traced for k in (*t.trace.reads, *t.trace.updates) if isinstance(k, Declared)
    ]
    called = [m for t in traced for m in t.trace.called]
    if anywhere:
        namespace = {**namespace, "unnamed": list(dict.fromkeys(used))}
    try:
        names = declared_names(used, called, namespace)
    except TraceError as error:
        error.loc = error.loc or traced[0].export.loc
        raise
    traced = _completed(traced, replace(known, names=names))
    storages: dict[str, Storage] = {}
    entries = [_entry(t, names, storages) for t in traced]
    place = {name: i for i, name in enumerate(names.values())}
    # Parameters and states in the model's order, then the rest in the order of use.
    kept = sorted(
        storages.values(), key=lambda s: (_KINDS.index(s.kind), place.get(s.name, len(place)))
    )
    return ModelSpec(tuple(entries), tuple(kept))


def _completed(traced: list[Traced], known: Known) -> list[Traced]:
    """The entries; those that depend on names, or on averages that others keep, traced again."""
    steps = [_trace(t.export, known) if t.export.needs_names() else t for t in traced]
    averages = kept_averages([(t.export, list(t.trace.updates)) for t in steps])
    return [
        _trace(t.export, replace(known, averages=averages, reads=tuple(t.trace.reads)))
        if needs_averages(t.export, t.trace.updates, averages)
        else t
        for t in steps
    ]


def _trace(made: ExportedFunction, known: Known) -> Traced:
    """Trace one entry; again where it needs a larger least size of a name without a range."""
    names, specs = made.inputs()
    minimum: dict[str, int] = {}
    for _ in range(100):
        try:
            types, stated = resolve_specs(specs, minimum)
        except FluxcError as error:
            error.loc = error.loc or made.loc
            raise
        try:
            return _trace_once(made, names, types, known)
        except NeedsSize as need:
            minimum = _raised(minimum, need, stated)
    raise AssertionError(f"{made.name}: least sizes do not settle")


def _raised(minimum: dict[str, int], need: NeedsSize, stated: frozenset[str]) -> dict[str, int]:
    """The least sizes by which `need` holds, if raising them can make it hold."""
    symbols = {s.name for s in size_symbols(need.size)}
    if not symbols or symbols & stated:
        raise need.error from None
    low = min(minimum.get(name, 0) for name in symbols)
    for least in range(low + 1, low + 4097):
        raised = {name: max(least, minimum.get(name, 0)) for name in symbols}
        if is_at_least(_with_minimum(need.size, raised), need.least):
            return minimum | raised
    raise need.error from None


def _with_minimum(size: Size, minimum: dict[str, int]) -> Size:
    return parse_size(str(size), {n: Symbol(n, min=least) for n, least in minimum.items()})


def _trace_once(
    made: ExportedFunction, names: list[str], types: list[ir.TensorType], known: Known
) -> Traced:
    trace = Trace(
        training=made.training,
        stateful=made.stateful,
        variables=known.variables,
        loc=made.loc,
    )
    arguments = [Tensor(trace.builder.param(t, n)) for n, t in zip(names, types, strict=True)]
    return trace.run(lambda: _program(made, names, trace, arguments, known))


def _program(
    made: ExportedFunction, names: list[str], trace: Trace, arguments: list[Tensor], known: Known
) -> Traced:
    """What the user's function computes, then what the optimiser does with it."""
    with trace.shadowing(averaged_weights(made, trace, known.reads, known.averages)):
        returned = _run(made, lambda: made.f(*arguments))
    tree, outputs, values = _outputs(made, names, returned)
    forward = None
    _check_own(made, trace, values)
    if made.optimizer is not None:
        check_loss(made, returned)
    if made.precision is not None:
        values = narrow_products(trace, values, made.precision)
    if made.optimizer is not None and (known.names is not None or not made.needs_names()):
        with trace.builder.at(made.loc):
            forward = trace.builder.graph(made.name, values)
            _run(made, lambda: update(made, trace, values[0], known.names, known.averages))
    if STEP in trace.reads:  # the next call draws other numbers
        trace.updates[STEP] = (Tensor(trace.reads[STEP]) + 1).value
    return Traced(made, names, trace, values, outputs, tree, forward)


def _check_own(made: ExportedFunction, trace: Trace, values: list[Value]) -> None:
    """Every tensor that is used was made in this very run of the function."""
    known = set(trace.builder.params)
    for node in trace.builder.nodes:
        if not known.issuperset(node.inputs):
            _fail_foreign(made, node.loc)
        known.update(node.outputs)
    if not known.issuperset(values):
        _fail_foreign(made, made.loc)


def _fail_foreign(made: ExportedFunction, loc: Loc | None) -> NoReturn:
    raise TraceError(
        f"export {made.name} uses a tensor that another entry or an earlier run computed",
        loc=loc,
        hint="fx.State keeps a value between calls; a global or an attribute cannot hold a tensor",
    )


def _run(made: ExportedFunction, run: Callable[[], Any]) -> Any:
    """Call the user's function or rule; what their code raises is reported at their line."""
    try:
        return run()
    except NeedsSize:
        raise
    except FluxcError as error:
        error.loc = error.loc or _last_line(error) or made.loc
        raise
    except Exception as error:
        if isinstance(error, AssertionError) and not _is_users_own(error):
            raise
        where = _last_line(error) or made.loc
        raise TraceError(
            f"export {made.name}: {describe(error)}",
            loc=where and replace(where, layer=current().failed),
            hint=hint_for(error),
        ) from error


def _is_users_own(error: BaseException) -> bool:
    """Whether code outside of this package raised it."""
    *_, last = _steps(error.__traceback__)
    return is_users(last.tb_frame)


def _last_line(error: BaseException) -> Loc | None:
    """Where the innermost code of the user's own was."""
    lines = [
        (tb.tb_frame.f_code.co_filename, tb.tb_lineno)
        for tb in _steps(error.__traceback__)
        if is_users(tb.tb_frame)
    ]
    own = [line for line in lines if not is_library(line[0])] or lines
    return Loc(*own[-1]) if own else None


def _steps(step: TracebackType | None) -> Iterator[TracebackType]:
    while step is not None:
        yield step
        step = step.tb_next


_RETURN_HINTS = {
    "NoneType": "return what the entry computes",
    "generator": "return, not yield",
    "coroutine": "def, not async def",
}


def _outputs(
    made: ExportedFunction, inputs: list[str], returned: Any
) -> tuple[Any, tuple[str, ...], list[Value]]:
    """The nesting, names and values of what the function returned."""
    named: list[tuple[str, Any]] = []
    _name_leaves("", returned, named)
    if not named:
        made.fail("it returns nothing", expected="a tensor, or a tuple, list or dict of tensors")
    names: list[str] = []
    values: list[Value] = []
    for i, (path, leaf) in enumerate(named):
        if not isinstance(leaf, Operators):
            raise TraceError(
                f"export {made.name} returns a {type(leaf).__name__}"
                + (f" at {path}" if path else ""),
                loc=made.loc,
                expected="a tensor, or a tuple, list or dict of tensors",
                got=repr(leaf)[:80],
                hint=_RETURN_HINTS.get(
                    type(leaf).__name__, "fx.array(x) makes a tensor of numbers"
                ),
            )
        name = "loss" if made.optimizer is not None and i == 0 else path or "out"
        taken = (*inputs, *names)
        while name in taken or not name.isidentifier():
            name = f"out_{name}" if (f"out_{name}").isidentifier() else f"out{i}"
        names.append(name)
        values.append(as_tensor(leaf).value)
    return structure(returned), tuple(names), values


def _name_leaves(path: str, tree: Any, named: list[tuple[str, Any]]) -> None:
    if isinstance(tree, dict):
        for key, part in tree.items():
            _name_leaves(f"{path}_{key}" if path else str(key), part, named)
    elif isinstance(tree, tuple | list):
        for i, part in enumerate(tree):
            _name_leaves(f"{path}_{i}" if path else f"out{i}", part, named)
    else:
        named.append((path, tree))


# Entries.


def _entry(t: Traced, names: dict[int, str], storages: dict[str, Storage]) -> Entry:
    """The entry with named storages, which are added to `storages`."""
    made, builder = t.export, t.trace.builder
    reads = list(t.trace.reads)
    updates = list(t.trace.updates)
    own = {key: _storage(key, t, names) for key in (*reads, *updates)}
    _check_distinct(made, list(own.values()))
    for storage in own.values():
        storages.setdefault(storage.name, storage)
    read_names = tuple(own[key].name for key in reads)
    update_names = tuple(own[key].name for key in updates)
    results = [*t.results, *(t.trace.updates[key] for key in updates)]
    graph = builder.graph(made.name, results)
    titles = dict(zip((t.trace.reads[key] for key in reads), read_names, strict=True))
    return Entry(
        name=made.name,
        graph=_named(graph, titles),
        inputs=tuple(t.inputs),
        storages=read_names,
        outputs=t.outputs,
        updates=update_names,
        output_tree=t.tree,
        training=made.training,
        forward=None if t.forward is None else _named(t.forward, titles),
        memory=made.memory,
        loc=made.loc,
    )


def _check_distinct(made: ExportedFunction, storages: list[Storage]) -> None:
    """No two stored tensors have one name, as a parameter and a pattern might bring about."""
    for name, count in Counter(s.name for s in storages).items():
        if count > 1:
            made.fail(f"two stored tensors are named {name!r}", hint="name one of them otherwise")


def _named(graph: Graph, titles: dict[Value, str]) -> Graph:
    """The graph whose parameters have these names."""
    fresh = {v: Value(v.type, title) for v, title in titles.items()}
    nodes = tuple(replace(n, inputs=tuple(fresh.get(v, v) for v in n.inputs)) for n in graph.nodes)
    return Graph(
        graph.name,
        tuple(fresh.get(v, v) for v in graph.params),
        nodes,
        tuple(fresh.get(v, v) for v in graph.results),
    )


def _storage(key: Any, traced: Traced, names: dict[int, str]) -> Storage:
    """What keeps the tensor that a trace knows by `key`."""
    entry, trace = traced.export.name, traced.trace
    type = (trace.reads.get(key) or trace.updates[key]).type
    if isinstance(key, str):
        return Storage(key, type, "seed" if key == SEED else "step", 0.0)
    if isinstance(key, Declared):
        trainable = isinstance(key, Param) and key.trainable
        source = names[id(key.source)] if key.source is not None else ""
        return Storage(names[id(key)], key.type, key.kind, key.initial, trainable, source)
    assert isinstance(key, Hyper | Slot | Count)
    owner = f"optimizer.{getattr(key, 'owner', '') or entry}"
    if isinstance(key, Hyper):
        return Storage(f"{owner}.{key.name}", type, "hyper", key.value)
    beside = f".{names[key.parameter]}" if isinstance(key, Slot) else ""
    return Storage(f"{owner}.{key.name}{beside}", type, "optimizer", key.first)
