"""What a rule is, and what it sees of one parameter in one update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fluxc import ops
from fluxc.compiler.errors import ShapeError, TraceError
from fluxc.compiler.ir import types as ir
from fluxc.schedules import Moment, Schedule
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast, cast
from fluxc.trace import fail, user_loc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fluxc.module import Param
    from fluxc.trace import Trace

__all__ = ["Rule", "Update"]


# What a step reads and writes beside parameters.  `owner` is the name after `optimizer.`; without
# one it is the entry's.


class Hyper(NamedTuple):
    """The key of a hyper-parameter, and its first value."""

    name: str
    value: float
    owner: str = ""


class Slot(NamedTuple):
    """The key of a tensor that is kept beside the parameter with this identity."""

    name: str
    parameter: int
    first: float = 0.0
    owner: str = ""


class Count(NamedTuple):
    """The key of one number that is kept for many parameters."""

    name: str
    first: float = 0.0


class Stage(NamedTuple):
    """A rule at its place among those that make an update.

    parameters  what it applies to.
    title       its name among the rules of its group.
    group       the pattern that chose the parameters; "" for all others.
    shared      the names of hyper-parameters that carry the title, as several rules have them.
    """

    rule: Rule
    parameters: tuple[Param, ...]
    title: str
    group: str
    shared: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.group}.{self.title}" if self.group else self.title

    def hyper(self, name: str) -> str:
        """The name of a hyper-parameter of the rule, as `model.optimizer` has it."""
        parts = (self.group, self.title if name in self.shared else "", name)
        return ".".join(part for part in parts if part)

    @property
    def dtype(self) -> ir.DType:
        """That of hyper-parameters: f64 for f64 parameters, which see 0.1 and not its f32."""
        return ir.f64 if any(p.type.dtype == ir.f64 for p in self.parameters) else ir.f32


def wide(param: Param) -> ir.DType:
    """Updates of 16-bit parameters are computed and kept in f32."""
    dtype = param.type.dtype
    return ir.f32 if dtype.bits == 16 else dtype


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """One update of one parameter, as a rule sees it.

    p        the parameter.
    g        the gradient, or what the rules before this one made of it.
    x        the parameter's value in g's dtype.
    ready    whether the update is made at this call; None: it is.  A call that makes none leaves
             everything that is kept as it was.
    counter  before the name of what counts the updates that are made.
    clashes  the names of slots that carry the rule's, as several rules of the parameter have them.
    master   the update where the wider copy of the parameter is kept, if there is one.
    """

    trace: Trace
    p: Param
    g: Tensor
    x: Tensor
    stage: Stage
    clashes: frozenset[str] = frozenset()
    ready: Tensor | None = None
    counter: str = ""
    master: Update | None = None

    def __getitem__(self, name: str) -> Tensor:
        """A hyper-parameter in the gradient's dtype."""
        hypers = self.stage.rule.hypers
        if name not in hypers:
            fail(
                TraceError,
                f"{type(self.stage.rule).__name__} has no hyper-parameter {name!r}",
                expected=", ".join(hypers) or "a name given to Rule.__init__",
            )
        name, first = self.stage.hyper(name), hypers[name]
        value = hyper_value(self.trace, name, first, self._count, dtype=self.stage.dtype)
        return cast(value, self.g.type.dtype)

    @property
    def t(self) -> Tensor:
        """The number of this update from 1, in the gradient's dtype."""
        return cast(self._count(), self.g.type.dtype)

    @property
    def t64(self) -> Tensor:
        """The number of this update in f64, for what loses digits in a narrower dtype."""
        return cast(self._count(), ir.f64)

    def _count(self) -> Tensor:
        return count_of(self.trace, self.counter, self.ready)

    def slot(self, name: str) -> Tensor:
        """What is kept beside the parameter under this name; first, what `Rule.slots` says."""
        type = self.p.type.with_dtype(self.g.type.dtype)
        return Tensor(self.trace.read(self._slot(name), type))

    def keep(self, name: str, value: TensorLike) -> Tensor:
        """Keep a new value until the next update.  Returns it."""
        before = self.slot(name)
        after = broadcast(as_tensor(value, before.type.dtype), before.shape)
        self.trace.updates[self._slot(name)] = self.chosen(after, before).value
        return after

    def _slot(self, name: str) -> Slot:
        rule = self.stage.rule
        if name not in rule.slots:
            fail(
                TraceError,
                f"{type(rule).__name__} keeps nothing named {name!r}",
                expected=", ".join(rule.slots) or "a name in the class's `slots`",
                hint=f'slots = {{"{name}": 0.0}}',
            )
        full = f"{self.stage.name}.{name}" if name in self.clashes else name
        return Slot(full, id(self.p), rule.first_value(name))

    def chosen(self, new: Tensor, old: Tensor) -> Tensor:
        """The new value where the update is made, else the old one."""
        return new if self.ready is None else ops.where(self.ready, new, old)

    def only_if(self, test: Tensor, gate: str) -> Update:
        """The update, made only if the test holds too; `gate` names who asks."""
        ready = test if self.ready is None else self.ready & test
        return replace(self, ready=ready, counter=f"{self.counter}{gate}.")

    def stepping(self, step: TensorLike) -> Update:
        """The update with what a rule made of its gradient.

        Errors  ShapeError if it has another shape.
        """
        g = as_tensor(step, self.g.type.dtype)
        if g.shape != self.g.shape:
            fail(
                ShapeError,
                f"a step of {type(self.stage.rule).__name__} has another shape than its parameter",
                expected=str(self.g.type),
                got=str(g.type),
            )
        return replace(self, g=g)


def hyper_value(
    trace: Trace,
    name: str,
    first: Any,
    count: Callable[[], Tensor] | None = None,
    owner: str = "",
    dtype: ir.DType = ir.f32,
) -> Tensor:
    """The present value of a hyper-parameter; f64 of a schedule."""
    if not isinstance(first, Schedule):
        return Tensor(trace.read(Hyper(name, first, owner), ir.TensorType(dtype)))
    if count is None:
        fail(TraceError, f"the hyper-parameter {name} cannot follow a schedule", got=repr(first))

    def number(path: str, value: float) -> Tensor:
        key = Hyper(f"{name}.{path}", float(value), owner)
        return Tensor(trace.read(key, ir.TensorType(ir.f64)))

    return as_tensor(Moment(first, cast(count(), ir.f64), number).value(), ir.f64)


def count_of(trace: Trace, counter: str, ready: Tensor | None) -> Tensor:
    """The number, from 1, of the update that this call makes or is on the way to; i64."""
    key = Count(f"{counter}step")
    before = count_before(trace, key)
    after = before + 1
    if key not in trace.updates:
        trace.updates[key] = (after if ready is None else ops.where(ready, after, before)).value
    return after


def count_before(trace: Trace, key: Count) -> Tensor:
    """A count as the last call left it; i64."""
    return Tensor(trace.reads.get(key) or trace.read(key, ir.TensorType(ir.i64)))


class Rule:
    """The base of all rules.  A rule of one's own is a class like this:

        class SignMomentum(optim.Rule):
            slots = {"v": 0.0}

            def __init__(self, lr=0.01, rho=0.9):
                super().__init__({"lr": lr, "rho": rho})

            def step(self, u):
                v = u.keep("v", u["rho"] * u.slot("v") + (1 - u["rho"]) * u.g)
                return u["lr"] * fx.sign(v)

    slots    what is kept beside each parameter: by name the number that fills it at first, or the
             name of the hyper-parameter (or option) whose first value does.
    hypers   by name the first values of what stays changeable: numbers that are not negative, or
             schedules.
    options  what is fixed when the model is compiled.
    """

    slots: ClassVar[dict[str, float | str]] = {}
    hypers: dict[str, Any]
    options: dict[str, Any]

    def __init__(self, hypers: dict[str, Any], **options: Any) -> None:
        rule = type(self).__name__
        kept = {name: check_hyper(f"{rule}: {name}", value) for name, value in hypers.items()}
        self.__dict__.update(hypers=kept, options=options)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self!r} is immutable; make another one")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *self.hypers.items()))

    def __repr__(self) -> str:
        shown = {**self.hypers, **self.options}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def step(self, u: Update) -> Tensor:
        """The step of one parameter, x <- x - step; the next rule in a Chain takes it as u.g."""
        raise NotImplementedError

    def steps(self, updates: list[Update]) -> list[Tensor]:
        """The steps of all parameters, for rules that look at all of them at once."""
        return [self.step(u) for u in updates]

    def advance(self, updates: list[Update]) -> list[Update]:
        """The updates as the next rule sees them."""
        steps = self.steps(updates)
        if len(steps) != len(updates):
            name = type(self).__name__
            fail(
                TraceError, f"{name}.steps returns {len(steps)} steps of {len(updates)} parameters"
            )
        return [u.stepping(step) for u, step in zip(updates, steps, strict=True)]

    def flat(self, group: str, names: dict[Any, str]) -> Iterator[tuple[Rule, str, dict[Any, str]]]:
        """The rules that it is made of, each with its group and the names of its parameters."""
        yield self, group, names

    def parts(self) -> tuple[Rule, ...]:
        """The rules inside of it."""
        return ()

    def frozen(self, names: dict[Any, str]) -> set[Any]:
        """Of the named parameters, those that it leaves alone."""
        return {p for part in self.parts() for p in part.frozen(names)}

    def needs_names(self) -> bool:
        """Whether it chooses parameters by their paths."""
        return any(part.needs_names() for part in self.parts())

    def first_value(self, slot: str) -> float:
        """The number that fills a slot at first."""
        first = self.slots[slot]
        value = {**self.options, **self.hypers}[first] if isinstance(first, str) else first
        return value(1) if isinstance(value, Schedule) else float(value)


def check_hyper(what: str, value: Any) -> Any:
    """A first value of a hyper-parameter: a number that is not negative, or a schedule."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        hint = "schedules.next(it) gives numbers for model.optimizer['lr']"
        raise ShapeError(
            f"{what} must be a number that is not negative, or a schedule",
            loc=user_loc(),
            got=repr(value),
            hint=hint if type(value).__name__ == "Stateful" else "",
        )
    return float(value)


def betas(rule: str, beta: Any) -> dict[str, Any]:
    """beta1 and beta2."""
    if not isinstance(beta, tuple | list) or len(beta) != 2:
        raise ShapeError(f"{rule}: beta must be two numbers", loc=user_loc(), got=repr(beta))
    return {"beta1": beta[0], "beta2": beta[1]}


def either(value: Any, other: Any) -> Any:
    """A hyper-parameter under either of its two names."""
    return value if other is None else other
