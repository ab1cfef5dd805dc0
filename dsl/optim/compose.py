"""Rules made of rules: one after another, one for each group of parameters, at some calls alone."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

from fluxc import ops
from fluxc.compiler.errors import ShapeError, TraceError
from fluxc.compiler.ir import types as ir
from fluxc.optim.rule import Count, Rule, count_before, hyper_value
from fluxc.tensor import Tensor, cast
from fluxc.trace import fail, user_loc
from fluxc.types import DTypeLike, as_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluxc.optim.rule import Stage, Update
    from fluxc.trace import Trace

__all__ = ["AccumGrad", "Chain", "Groups", "LossScale", "MixedPrecision"]


def _check_rule(what: str, rule: Any) -> None:
    if not isinstance(rule, Rule):
        raise ShapeError(f"{what}{rule!r} is not an optimiser", loc=user_loc())


class Chain(Rule):
    """Rules one after another: each one's step is the next one's gradient.  Flux's OptimiserChain.

    `Chain(a, b)` or `Chain([a, b])`.

    A hyper-parameter or a slot that several rules have is named after its rule:
    `weightdecay.lambda`, `adamw.lambda`.
    """

    def __init__(self, *parts: Any) -> None:
        if len(parts) == 1 and isinstance(parts[0], list | tuple):
            parts = tuple(parts[0])
        for rule in parts:
            _check_rule("", rule)
        super().__init__({}, parts=parts)

    def parts(self) -> tuple[Rule, ...]:
        found: tuple[Rule, ...] = self.options["parts"]
        return found

    def flat(self, group: str, names: dict[Any, str]) -> Iterator[tuple[Rule, str, dict[Any, str]]]:
        for part in self.parts():
            yield from part.flat(group, names)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.parts()))})"


class Groups(Rule):
    """A rule for each group of parameters, chosen by their paths.

        optim.Groups({"*.bias": optim.Descent(0.1), "encoder.*": None}, default=optim.Adam(1e-3))

    patterns  shell patterns (`*`, `?`, `[abc]`) and the rule of what they match; a parameter
              belongs to the first that matches it.  None: training leaves these alone.
    default   the rule of all others, or None.
    A group's hyper-parameters are named after its pattern: `model.optimizer["*.bias.lr"]`.
    Errors    TraceError for a pattern without a parameter.
    """

    def __init__(self, patterns: dict[str, Rule | None], *, default: Rule | None) -> None:
        for pattern, rule in {**patterns, "default": default}.items():
            if rule is not None:
                _check_rule(f"Groups: {pattern}: ", rule)
        super().__init__({}, patterns=dict(patterns), default=default)

    def _split(self, names: dict[Any, str]) -> list[tuple[str, Rule | None, dict[Any, str]]]:
        """Each group's name, rule and parameters; the default's name is empty."""
        patterns = self.options["patterns"]
        members: dict[str, dict[Any, str]] = {pattern: {} for pattern in (*patterns, "")}
        for p, name in names.items():
            chosen = next((q for q in patterns if fnmatchcase(name, q)), "")
            members[chosen][p] = name
        for pattern in patterns:
            if not members[pattern]:
                _fail_unmatched(pattern, names)
        found = [(pattern, rule, members[pattern]) for pattern, rule in patterns.items()]
        return [*found, ("", self.options["default"], members[""])]

    def flat(self, group: str, names: dict[Any, str]) -> Iterator[tuple[Rule, str, dict[Any, str]]]:
        for pattern, rule, members in self._split(names):
            if rule is not None and members:
                label = ".".join(part for part in (group, pattern) if part)
                yield from rule.flat(label, members)

    def frozen(self, names: dict[Any, str]) -> set[Any]:
        found: set[Any] = set()
        for _, rule, members in self._split(names):
            found |= set(members) if rule is None else rule.frozen(members)
        return found

    def needs_names(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"Groups({self.options['patterns']!r}, default={self.options['default']!r})"


def _fail_unmatched(pattern: str, names: dict[Any, str]) -> None:
    taken = any(fnmatchcase(name, pattern) for name in names.values())
    fail(
        TraceError,
        f"optim.Groups: {pattern!r} matches "
        + ("what earlier patterns have taken" if taken else "no parameter that the step trains"),
        expected=f"a pattern for some of {', '.join(names.values())}",
        hint="the first pattern that matches has the parameter" if taken else "",
    )


class AccumGrad(Rule):
    """The mean of the gradients of n calls, for the rules behind it, at each n-th call.

    At the others nothing is updated: no parameter, and nothing that the rules behind it keep or
    count.  n is fixed when the model is compiled.
    """

    slots: ClassVar = {"acc": 0.0}

    def __init__(self, n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ShapeError(
                "AccumGrad: n is a number of calls",
                loc=user_loc(),
                expected="a whole number >= 1",
                got=repr(n),
            )
        super().__init__({}, n=n)

    def advance(self, updates: list[Update]) -> list[Update]:
        return [self._one(u) for u in updates]

    def _one(self, u: Update) -> Update:
        n = self.options["n"]
        key = Count(f"{u.counter}{u.stage.name}.calls")
        before = count_before(u.trace, key)
        now = u.chosen(ops.where(before + 1 == n, 0, before + 1), before)
        u.trace.updates[key] = cast(now, ir.i64).value
        share = u.g / n
        total = u.keep("acc", ops.where(before == 0, share, u.slot("acc") + share))
        return u.stepping(total).only_if(before + 1 == n, u.stage.name)


class MixedPrecision(Rule):
    """The rule on a copy of each parameter in a wider dtype; the parameter is the rounded copy.

        optim.MixedPrecision(optim.Adam(1e-3))
        optim.MixedPrecision(fx.f64, optim.Adam(1e-3))

    Steps smaller than half a unit in the last place of an f16 or bf16 parameter add up, which
    otherwise are lost.  A parameter that is assigned or loaded without its copy is its copy.
    Parameters that are as wide as the dtype (f32 by default) have none.
    """

    slots: ClassVar = {"master": 0.0}

    def __init__(self, dtype_or_rule: Any, rule: Rule | None = None) -> None:
        dtype, inner = ("f32", dtype_or_rule) if rule is None else (dtype_or_rule, rule)
        _check_rule("MixedPrecision: ", inner)
        super().__init__({}, dtype=_float(dtype), rule=inner)

    def parts(self) -> tuple[Rule, ...]:
        return (self.options["rule"],)

    def flat(self, group: str, names: dict[Any, str]) -> Iterator[tuple[Rule, str, dict[Any, str]]]:
        yield self, group, names
        yield from self.options["rule"].flat(group, names)

    def advance(self, updates: list[Update]) -> list[Update]:
        return [self._one(u) for u in updates]

    def _one(self, u: Update) -> Update:
        dtype, stored = self.options["dtype"], u.p.read()
        if stored.type.dtype.bits >= dtype.bits:
            return u
        u = replace(u, g=cast(u.g, dtype))
        master = u.slot("master")
        # What does not round to the parameter is not its copy: at first, or after an assignment.
        x = ops.where(cast(master, stored.type.dtype) == stored, master, cast(stored, dtype))
        return replace(u, x=x, master=u)

    def __repr__(self) -> str:
        return f"MixedPrecision({self.options['dtype']}, {self.options['rule']!r})"


def _float(dtype: DTypeLike) -> ir.DType:
    found = as_dtype(dtype)
    if found not in (ir.f32, ir.f64):
        raise ShapeError(
            "MixedPrecision: a wider dtype", loc=user_loc(), expected="f32 or f64", got=str(found)
        )
    return found


class LossScale(Rule):
    """Gradients of the loss times a scale, divided by it again; first in a Chain.

        optim.MixedPrecision(optim.Chain(optim.LossScale(), optim.Adam(1e-3)))

    Small gradients of a 16-bit model survive its backward pass.  Where any gradient is not finite,
    the call updates nothing that the optimiser changes or counts.
    dynamic   the scale is multiplied by `backoff` at such a call, and by `growth` after `interval`
              calls without one.  It stays between 2**-24 and 2**120.
              False: the scale is the hyper-parameter `scale`.
    PyTorch's GradScaler.  Powers of 2 lose no digits.
    """

    def __init__(
        self,
        scale: float = 2.0**15,
        *,
        dynamic: bool = True,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
    ) -> None:
        if not isinstance(scale, int | float) or isinstance(scale, bool) or not scale > 0:
            raise ShapeError("LossScale: scale must be positive", loc=user_loc(), got=repr(scale))
        if dynamic:
            moving = {"growth": growth, "backoff": backoff, "interval": interval}
            super().__init__(moving, dynamic=True, first=float(scale))
        else:
            super().__init__({"scale": scale}, dynamic=False)

    def scale(self, trace: Trace, stage: Stage) -> Tensor:
        """The factor of the loss at this call, f32."""
        if not self.options["dynamic"]:
            return hyper_value(trace, stage.hyper("scale"), self.hypers["scale"])
        key = Count(f"{stage.name}.scale", self.options["first"])
        return Tensor(trace.read(key, ir.TensorType(ir.f32)))

    def advance(self, updates: list[Update]) -> list[Update]:
        first = updates[0]
        scale = self.scale(first.trace, first.stage)
        finite = ops.stack([ops.all(ops.isfinite(u.g)) for u in updates]).all()
        if self.options["dynamic"]:
            self._adapt(first, scale, finite)
        gate = first.stage.name
        return [
            u.stepping(u.g / cast(scale, u.g.type.dtype)).only_if(finite, gate) for u in updates
        ]

    def _adapt(self, u: Update, scale: Tensor, finite: Tensor) -> None:
        """The next call's scale, and how many calls in a row were finite."""
        scale_key = Count(f"{u.stage.name}.scale", self.options["first"])
        calm_key = Count(f"{u.stage.name}.calm")
        calm = count_before(u.trace, calm_key) + 1
        growth, backoff, interval = (
            hyper_value(u.trace, u.stage.hyper(name), self.hypers[name])
            for name in ("growth", "backoff", "interval")
        )
        grows = finite & (cast(calm, ir.f32) >= interval)
        larger = ops.minimum(scale * growth, 2.0**120)
        smaller = ops.maximum(scale * backoff, 2.0**-24)
        now = ops.where(grows, larger, ops.where(finite, scale, smaller))
        u.trace.updates[scale_key] = now.value
        u.trace.updates[calm_key] = cast(ops.where(finite & ~grows, calm, 0), ir.i64).value
