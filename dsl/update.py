"""What a training step does after the user's function, and the averages that it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

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

__all__ = [
    "Averages", "averaged_weights", "check_loss", "kept_averages", "needs_averages", "update",
]  # fmt: skip

Averages: TypeAlias = "tuple[tuple[optim.EMA, frozenset[int]], ...]"  # each with its parameters


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


def update(
    made: ExportedFunction,
    trace: Trace,
    loss: Value,
    names: dict[int, str] | None,
    averages: Averages,
) -> None:
    """Differentiate the loss and trace the optimiser's step.

    names     of stored tensors, by identity; not given where the optimiser does not ask for them.
    averages  those of all steps, as far as they are known.
    """
    assert made.optimizer is not None
    reached = _reached(made, trace)
    if not reached:
        _fail_unreached(made)
    titles = {p: str(i) if names is None else names[id(p)] for i, p in enumerate(reached)}
    others = tuple(pair for pair in averages if pair[0] is not made.average)
    chosen = plan(made.optimizer, titles, made.average, others)
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


def _fail_unreached(made: ExportedFunction) -> NoReturn:
    among = "" if made.wrt is None else " of those that wrt= names"
    made.fail(
        f"the loss reaches no trainable parameter{among}",
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


def kept_averages(steps: list[tuple[ExportedFunction, list[Any]]]) -> Averages:
    """The averages that steps keep, each with its parameters by identity.

    steps   entries, and the keys of what each updates.
    Errors  ModelFileError where two averages, or an average and an entry, have one name.
    """
    found: dict[str, tuple[optim.EMA, frozenset[int]]] = {}
    for made, keys in steps:
        if made.average is None:
            continue
        own, members = found.get(made.average.name, (made.average, frozenset()))
        if own is not made.average or any(other.name == own.name for other, _ in steps):
            made.fail(
                f"another average or entry is named {own.name!r}", hint="optim.EMA(name='...')"
            )
        found[own.name] = own, members | {key.parameter for key in keys if own.keeps(key)}
    return tuple(found.values())


def needs_averages(made: ExportedFunction, keys: Iterable[Any], averages: Averages) -> bool:
    """Whether an entry computes with an average, or changes weights that another step averages.

    Errors  ModelFileError where no step keeps the average of `weights=`.
    """
    if made.weights is not None and not any(own is made.weights for own, _ in averages):
        made.fail("no training step keeps the average of weights=", hint="average= on that step")
    changed = {id(key) for key in keys if isinstance(key, Param)}
    beside = (members for own, members in averages if own is not made.average)
    return made.weights is not None or any(changed & members for members in beside)


def averaged_weights(
    made: ExportedFunction, trace: Trace, reads: Iterable[Any], averages: Averages
) -> dict[Any, Value]:
    """What an entry with `weights=` computes with in place of the parameters among `reads`."""
    members = next((members for own, members in averages if own is made.weights), frozenset())
    averaged = (p for p in reads if isinstance(p, Param) and id(p) in members)
    return {p: made.weights.read(trace, p).value for p in averaged if made.weights}
