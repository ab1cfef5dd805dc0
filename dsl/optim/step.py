"""One update of all parameters: which rules apply to which, and their traced program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import TraceError
from fluxc.optim.compose import LossScale, MixedPrecision
from fluxc.optim.rule import Rule, Stage, Update, wide
from fluxc.tensor import Tensor, as_tensor, cast
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.module import Param
    from fluxc.optim.average import EMA
    from fluxc.trace import Trace

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules of an update in order, and the parameters that it changes.

    average  of these parameters that the update keeps.
    others   averages of other steps, each with the parameters that it has, by identity.
    """

    stages: tuple[Stage, ...]
    trained: tuple[Param, ...]
    average: EMA | None
    others: tuple[tuple[EMA, frozenset[int]], ...]

    def seed(self, trace: Trace, one: Tensor) -> Tensor:
        """What the backward pass starts with: 1, or the loss scale."""
        for stage in self.stages:
            if isinstance(stage.rule, LossScale):
                return one * cast(stage.rule.scale(trace, stage), one.type.dtype)
        return one

    def apply(self, trace: Trace, gradients: dict[Param, Tensor]) -> None:
        """Trace the update: new values of the parameters and of what the optimiser keeps."""
        updates: dict[Param, Update] = {}
        for p, g in gradients.items():
            dtype = wide(p)
            updates[p] = Update(trace, p, cast(g, dtype), as_tensor(p, dtype), _NOBODY)
        clashes = _clashes(self.stages)
        for stage in self.stages:
            here = [
                replace(updates[p], stage=stage, clashes=clashes[p])
                for p in stage.parameters
                if p in gradients
            ]
            if here:
                moved = stage.rule.advance(here)
                updates.update((u.p, u) for u in moved)
        for u in updates.values():
            self._finish(u)

    def _finish(self, u: Update) -> None:
        """x <- x - step, in every place where x is kept."""
        before, after = u.p.read(), u.x - u.g
        if u.master is not None:
            replace(u.master, ready=u.ready).keep("master", after)
        new = u.chosen(cast(after, u.p.type.dtype), before)
        if self.average is not None:
            self.average.update(u, before, new)
        for other, members in self.others:
            if id(u.p) in members:
                other.stay(u, before, new)
        u.trace.updates[u.p] = new.value


_NOBODY = Stage(Rule({}), (), "", "", frozenset())


def plan(
    rule: Rule,
    names: dict[Param, str],
    average: EMA | None = None,
    others: tuple[tuple[EMA, frozenset[int]], ...] = (),
) -> Plan:
    """The update of the parameters with these names; averages as `Plan` has them.

    Errors  TraceError where the rule's patterns or its order make no sense.
    """
    frozen = rule.frozen(names)
    if names and frozen == set(names):
        fail(TraceError, f"{rule!r} leaves every parameter alone", got=", ".join(names.values()))
    flat = list(rule.flat("", names))
    _check_scale(flat, len(names))
    titles = _titles([(group, type(one).__name__.lower()) for one, group, _ in flat])
    stages = []
    for (one, group, members), title in zip(flat, titles, strict=True):
        beside = [other for other, its, _ in flat if its == group]
        shared = frozenset(n for n in one.hypers if sum(n in other.hypers for other in beside) > 1)
        parameters = tuple(p for p in members if p not in frozen)
        stages.append(Stage(one, parameters, title, group, shared))
    return Plan(tuple(stages), tuple(p for p in names if p not in frozen), average, others)


def _check_scale(flat: list[tuple[Rule, str, dict[Any, str]]], everything: int) -> None:
    """A loss has one scale, and gradients are divided by it before anything else."""
    order = [(rule, members) for rule, _, members in flat if not isinstance(rule, MixedPrecision)]
    places = [i for i, (rule, _) in enumerate(order) if isinstance(rule, LossScale)]
    if places and (places != [0] or len(order[0][1]) != everything):
        fail(
            TraceError,
            "optim.LossScale stands first, once, and for all parameters",
            hint="optim.Chain(optim.LossScale(), optim.Adam(1e-3))",
        )


def _titles(kinds: list[tuple[str, str]]) -> list[str]:
    """A name for each rule in its group: its class in lower case, numbered from the second on."""
    counts = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
    return [f"{name}_{n + 1}" if n else name for (_, name), n in zip(kinds, counts, strict=True)]


def _clashes(stages: tuple[Stage, ...]) -> dict[Param, frozenset[str]]:
    """For each parameter the names of slots that several of its rules have."""
    names: dict[Any, list[str]] = {}
    for stage in stages:
        for p in stage.parameters:
            names.setdefault(p, []).extend(stage.rule.slots)
    return {p: frozenset(n for n in own if own.count(n) > 1) for p, own in names.items()}
