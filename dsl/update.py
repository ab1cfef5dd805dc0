"""What a training step does after the user's function, and the averages that it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.autodiff import pullback
from fluxc.compiler.errors import ShapeError
from fluxc.module import Param, walk
from fluxc.optim.step import plan
from fluxc.tensor import Operators, Tensor, scalar
from fluxc.transforms import scalar_float

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluxc import optim
    from fluxc.compiler.ir.graph import Value
    from fluxc.export import ExportedFunction
    from fluxc.trace import Trace

__all__ = ["averaged", "averages_of", "check_loss", "kept_averages", "update"]


def check_loss(made: ExportedFunction, returned: Any) -> None:
    first = returned[0] if isinstance(returned, tuple) and returned else returned
    if not isinstance(first, Operators) or isinstance(returned, list | dict):
        made.fail(
            "a training step must return its loss, or a tuple that begins with it",
            got=type(returned).__name__,
        )
    try:
        scalar_float(first, "training")
    except ShapeError as error:
        raise ShapeError(
            f"export {made.name}: the loss must be a float scalar",
            loc=made.loc,
            expected="f32[]",
            got=error.got,
            hint="losses.mse(...) or loss.mean()",
        ) from None


def update(made: ExportedFunction, trace: Trace, loss: Value, names: dict[int, str] | None) -> None:
    """Differentiate the loss and trace the optimiser's step.

    names  of stored tensors, by identity; not given where the optimiser does not ask for them.
    """
    assert made.optimizer is not None
    reached = _reached(made, trace)
    if not reached:
        _fail_unreached(made)
    titles = {p: str(i) if names is None else names[id(p)] for i, p in enumerate(reached)}
    chosen = plan(made.optimizer, titles, made.average)
    wrt = [trace.reads[p] for p in chosen.trained]
    nodes = tuple(trace.builder.nodes)
    result = Tensor(loss)
    seed = chosen.seed(trace, scalar(1.0, result.type.dtype, result.shape)).value
    found = pullback(trace.builder, nodes, [loss], [seed], wrt)
    gradients = {p: Tensor(g) for p, g in zip(chosen.trained, found, strict=True) if g is not None}
    if not gradients:
        _fail_unreached(made)
    _check_wrt(made, gradients)
    chosen.apply(trace, gradients)


def _fail_unreached(made: ExportedFunction) -> None:
    made.fail(
        "the loss reaches no trainable parameter",
        hint="thaw the module, or call it in the function",
    )


def _reached(made: ExportedFunction, trace: Trace) -> list[Param]:
    read = [p for p in trace.reads if isinstance(p, Param) and p.trainable]
    if made.wrt is None:
        return read
    wanted = {id(p) for _, p in walk(made.wrt)}
    return [p for p in read if id(p) in wanted]


def _check_wrt(made: ExportedFunction, gradients: dict[Param, Tensor]) -> None:
    """Each thing named in wrt= has a parameter that the loss reaches."""
    if made.wrt is None:
        return
    named = made.wrt if isinstance(made.wrt, list | tuple) else [made.wrt]
    for one in named:
        own = [p for _, p in walk(one)]
        if not any(p is q for p in own for q in gradients):
            made.fail(
                f"wrt= names a {type(one).__name__} that the loss does not reach",
                got=repr(one).splitlines()[0],
            )


# Averages.


def averages_of(
    made: ExportedFunction, trace: Trace, parameters: Iterable[Param]
) -> dict[Any, Value]:
    """What an entry with `weights=` computes with in place of these parameters."""
    return {p: made.weights.read(trace, p).value for p in parameters if made.weights}


def kept_averages(
    steps: list[tuple[ExportedFunction, list[Any]]], names: dict[int, str]
) -> dict[str, tuple[optim.EMA, set[int]]]:
    """The averages by name, and the identities of the parameters that each has.

    steps  entries, and the keys of what each updates.
    Errors  ModelFileError where two averages, or an average and an entry, have one name, and where
            a step changes parameters that another one averages.
    """
    found: dict[str, tuple[optim.EMA, set[int]]] = {}
    for made, keys in steps:
        if made.average is None:
            continue
        own, members = found.setdefault(made.average.name, (made.average, set()))
        if own is not made.average or any(other.name == own.name for other, _ in steps):
            made.fail(
                f"another average or entry is named {own.name!r}", hint="optim.EMA(name='...')"
            )
        members |= {key.parameter for key in keys if own.keeps(key)}
    for made, keys in steps:
        for average, members in found.values():
            lost = [key for key in keys if isinstance(key, Param) and id(key) in members]
            if lost and made.average is not average:
                made.fail(
                    f"it changes {names[id(lost[0])]}, whose average another step keeps",
                    hint="the same average= for both, or wrt=",
                )
    return found


def averaged(
    made: ExportedFunction,
    reads: Iterable[Any],
    averages: dict[str, tuple[optim.EMA, set[int]]],
) -> tuple[Param, ...]:
    """Of what an entry with `weights=` reads, the parameters that have an average."""
    assert made.weights is not None
    average, members = averages.get(made.weights.name, (None, set()))
    if average is not made.weights:
        made.fail("no training step keeps the average of weights=", hint="average= on that step")
    return tuple(p for p in reads if isinstance(p, Param) and id(p) in members)
