"""Optimisers: rules that turn gradients into steps, x <- x - step.

A rule is an immutable value.  Its hyper-parameters are the values that a compiled model starts
with; they stay inputs of the compiled step, `model.optimizer["lr"] = 1e-4` changes them.
g is the gradient, x the parameter, t the number of the step from 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from fluxc import ops
from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.tensor import Tensor, as_tensor, cast
from fluxc.trace import user_loc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluxc.module import Param
    from fluxc.trace import Trace

__all__ = [
    "Adam", "AdamW", "Chain", "ClipGrad", "ClipNorm", "Descent", "Momentum", "Nesterov", "RMSProp",
    "Rule", "SignDecay", "WeightDecay",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hyper:
    """The key of a hyper-parameter of the entry's optimiser."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Slot:
    """The key of a tensor that the optimiser keeps beside a parameter."""

    name: str
    identity: int
    param: Param = field(compare=False)
    init: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class Counter:
    """The key of the number of steps taken."""


class Context:
    """What a rule may ask for while its update is traced."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def hyper(self, name: str, value: float) -> Tensor:
        """A hyper-parameter, f32, as it is when the step runs."""
        return Tensor(self.trace.read(Hyper(name, value), ir.TensorType(ir.f32)))

    def step(self) -> Tensor:
        """The number of this step from 1, f32."""
        before = self.trace.reads.get(Counter())
        if before is None:
            before = self.trace.read(Counter(), ir.TensorType(ir.i64))
            self.trace.updates[Counter()] = (Tensor(before) + 1).value
        return cast(Tensor(before) + 1, ir.f32)

    def slot(self, name: str, param: Param, init: float = 0.0) -> Tensor:
        """What the optimiser keeps beside a parameter, in the parameter's shape (f32 at least)."""
        key = Slot(name, id(param), param, init)
        return Tensor(self.trace.read(key, param.type.with_dtype(wide(param))))

    def keep(self, name: str, param: Param, value: Tensor, init: float = 0.0) -> None:
        self.trace.updates[Slot(name, id(param), param, init)] = cast(value, wide(param)).value


def wide(param: Param) -> ir.DType:
    """Updates of 16-bit parameters are computed in f32."""
    dtype = param.type.dtype
    return ir.f32 if dtype.bits == 16 else dtype


Gradients = dict[Any, Tensor]  # by parameter


class Fixed(float):
    """A number that is fixed when the model is compiled, unlike a hyper-parameter."""


@dataclass(frozen=True)
class Rule:
    """The base of all rules: fields are hyper-parameters.

    `names` gives the names under which fields are known to the compiled model, where they differ.
    """

    names: ClassVar[dict[str, str]] = {}

    def hypers(self) -> dict[str, float]:
        """Names and first values of the hyper-parameters."""
        named = {self.names.get(f.name, f.name): getattr(self, f.name) for f in fields(self)}
        flat: dict[str, float] = {}
        for name, value in named.items():
            if isinstance(value, tuple):
                flat |= {f"{name}{i}": v for i, v in enumerate(value, 1)}
            elif isinstance(value, float) and not isinstance(value, Fixed):
                flat[name] = value
        return flat

    def rules(self) -> Iterator[Rule]:
        yield self

    def steps(
        self, context: Context, h: dict[str, Tensor], gradients: Gradients, prefix: str
    ) -> Gradients:
        """The step of every parameter from its gradient."""
        done: Gradients = {}
        for p, g in gradients.items():
            dtype = g.type.dtype
            own = {name: cast(value, dtype) for name, value in h.items()}
            done[p] = self.step(context, own, p, as_tensor(p, dtype), g, prefix)
        return done

    def step(
        self, c: Context, h: dict[str, Tensor], p: Param, x: Tensor, g: Tensor, prefix: str
    ) -> Tensor:
        """The step of one parameter."""
        raise NotImplementedError


def _number(rule: str, name: str, value: Any, low: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= low:
        raise ShapeError(
            f"{rule}: {name} must be a number >= {low:g}", loc=user_loc(), got=repr(value)
        )
    return float(value)


def _rate(rule: str, lr: Any, eta: Any) -> float:
    return _number(rule, "lr", lr if eta is None else eta)


def _betas(rule: str, beta: Any) -> tuple[float, float]:
    if not isinstance(beta, tuple | list) or len(beta) != 2:
        raise ShapeError(f"{rule}: beta must be two numbers", loc=user_loc(), got=repr(beta))
    return _number(rule, "beta", beta[0]), _number(rule, "beta", beta[1])


@dataclass(frozen=True, init=False)
class Descent(Rule):
    """lr*g: plain gradient descent.  PyTorch's SGD."""

    lr: float

    def __init__(self, lr: float = 0.1, *, eta: float | None = None) -> None:
        object.__setattr__(self, "lr", _rate("Descent", lr, eta))

    def step(self, c, h, p, x, g, prefix):  # noqa: ANN001, ANN201
        return h["lr"] * g


@dataclass(frozen=True, init=False)
class Momentum(Rule):
    """v <- rho*v + lr*g, then v."""

    lr: float
    rho: float

    def __init__(self, lr: float = 0.01, rho: float = 0.9, *, eta: float | None = None) -> None:
        object.__setattr__(self, "lr", _rate("Momentum", lr, eta))
        object.__setattr__(self, "rho", _number("Momentum", "rho", rho))

    def step(self, c, h, p, x, g, prefix):  # noqa: ANN001, ANN201
        v = h["rho"] * c.slot(prefix + "v", p) + h["lr"] * g
        c.keep(prefix + "v", p, v)
        return v


@dataclass(frozen=True, init=False)
class Nesterov(Rule):
    """(1 + rho)*lr*g - rho**2*v, then v <- rho*v - lr*g."""

    lr: float
    rho: float

    def __init__(self, lr: float = 0.001, rho: float = 0.9, *, eta: float | None = None) -> None:
        object.__setattr__(self, "lr", _rate("Nesterov", lr, eta))
        object.__setattr__(self, "rho", _number("Nesterov", "rho", rho))

    def step(self, c, h, p, x, g, prefix):  # noqa: ANN001, ANN201
        v, rho, scaled = c.slot(prefix + "v", p), h["rho"], h["lr"] * g
        c.keep(prefix + "v", p, rho * v - scaled)
        return (1 + rho) * scaled - rho * rho * v


@dataclass(frozen=True, init=False)
class RMSProp(Rule):
    """q <- rho*q + (1 - rho)*g**2, then lr*g/(sqrt(q) + eps).

    centred  also l <- rho*l + (1 - rho)*g, and q - l**2 in place of q.
    """

    lr: float
    rho: float
    eps: float
    centred: bool

    def __init__(
        self,
        lr: float = 0.001,
        rho: float = 0.9,
        eps: float = 1e-8,
        *,
        centred: bool = False,
        eta: float | None = None,
    ) -> None:
        object.__setattr__(self, "lr", _rate("RMSProp", lr, eta))
        object.__setattr__(self, "rho", _number("RMSProp", "rho", rho))
        object.__setattr__(self, "eps", _number("RMSProp", "eps", eps))
        object.__setattr__(self, "centred", bool(centred))

    def step(self, c, h, p, x, g, prefix):  # noqa: ANN001, ANN201
        rho = h["rho"]
        q = rho * c.slot(prefix + "q", p) + (1 - rho) * (g * g)
        c.keep(prefix + "q", p, q)
        if self.centred:
            mean = rho * c.slot(prefix + "l", p) + (1 - rho) * g
            c.keep(prefix + "l", p, mean)
            q = q - mean * mean
        return h["lr"] * g / (ops.sqrt(q) + h["eps"])


def _correction(beta: Tensor, t: Tensor) -> Tensor:
    """1 - beta**t, accurate where beta is close to 1."""
    return -ops.expm1(t * ops.log(beta))


def _adam_direction(c: Context, h: dict[str, Tensor], p: Param, g: Tensor, prefix: str) -> Tensor:
    beta1, beta2, t = h["beta1"], h["beta2"], c.step()
    m = beta1 * c.slot(prefix + "m", p) + (1 - beta1) * g
    v = beta2 * c.slot(prefix + "v", p) + (1 - beta2) * (g * g)
    c.keep(prefix + "m", p, m)
    c.keep(prefix + "v", p, v)
    m, v = m / _correction(h["beta1"], t), v / _correction(h["beta2"], t)
    return m / (ops.sqrt(v) + h["eps"])


@dataclass(frozen=True, init=False)
class Adam(Rule):
    """m <- beta1*m + (1 - beta1)*g, v <- beta2*v + (1 - beta2)*g**2, then
    lr * m/(1 - beta1**t) / (sqrt(v/(1 - beta2**t)) + eps).
    """

    lr: float
    beta: tuple[float, float]
    eps: float

    def __init__(
        self,
        lr: float = 0.001,
        beta: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        eta: float | None = None,
    ) -> None:
        object.__setattr__(self, "lr", _rate("Adam", lr, eta))
        object.__setattr__(self, "beta", _betas("Adam", beta))
        object.__setattr__(self, "eps", _number("Adam", "eps", eps))

    def step(self, c, h, p, x, g, prefix):  # noqa: ANN001, ANN201
        return h["lr"] * _adam_direction(c, h, p, g, prefix)


@dataclass(frozen=True, init=False)
class AdamW(Rule):
    """Adam with decoupled weight decay: with Adam's direction a = m'/(sqrt(v') + eps),
    lr*(a + lambda*x), or lr*a + lambda*x with couple=False.
    """

    names: ClassVar[dict[str, str]] = {"lambda_": "lambda"}
    lr: float
    beta: tuple[float, float]
    lambda_: float
    eps: float
    couple: bool

    def __init__(
        self,
        lr: float = 0.001,
        beta: tuple[float, float] = (0.9, 0.999),
        lambda_: float = 0.0,
        eps: float = 1e-8,
        *,
        couple: bool = True,
        eta: float | None = None,
    ) -> None:
        object.__setattr__(self, "lr", _rate("AdamW", lr, eta))
        object.__setattr__(self, "beta", _betas("AdamW", beta))
        object.__setattr__(self, "lambda_", _number("AdamW", "lambda_", lambda_))
        object.__setattr__(self, "eps", _number("AdamW", "eps", eps))
        object.__setattr__(self, "couple", bool(couple))

    def step(self, c, h, p, x, g, prefix):  # noqa: ANN001, ANN201
        a, decay = _adam_direction(c, h, p, g, prefix), h["lambda"] * x
        return h["lr"] * (a + decay) if self.couple else h["lr"] * a + decay


@dataclass(frozen=True, init=False)
class WeightDecay(Rule):
    """g + lambda*x: the gradient of an L2 penalty; first in a Chain."""

    names: ClassVar[dict[str, str]] = {"lambda_": "lambda"}
    lambda_: float

    def __init__(self, lambda_: float = 5e-4) -> None:
        object.__setattr__(self, "lambda_", _number("WeightDecay", "lambda_", lambda_))

    def step(self, c, h, p, x, g, prefix):  # noqa: ANN001, ANN201
        return g + h["lambda"] * x


@dataclass(frozen=True, init=False)
class SignDecay(Rule):
    """g + lambda*sign(x): the gradient of an L1 penalty; first in a Chain."""

    names: ClassVar[dict[str, str]] = {"lambda_": "lambda"}
    lambda_: float

    def __init__(self, lambda_: float = 1e-3) -> None:
        object.__setattr__(self, "lambda_", _number("SignDecay", "lambda_", lambda_))

    def step(self, c, h, p, x, g, prefix):  # noqa: ANN001, ANN201
        return g + h["lambda"] * ops.sign(x)


@dataclass(frozen=True, init=False)
class ClipGrad(Rule):
    """min(max(g, -delta), delta)."""

    delta: float

    def __init__(self, delta: float = 10.0) -> None:
        object.__setattr__(self, "delta", _number("ClipGrad", "delta", delta))

    def step(self, c, h, p, x, g, prefix):  # noqa: ANN001, ANN201
        return ops.minimum(ops.maximum(g, -h["delta"]), h["delta"])


@dataclass(frozen=True, init=False)
class ClipNorm(Rule):
    """g * min(omega/norm(g), 1), where norm(g) = sum(abs(g)**p)**(1/p).

    The norm is of each array by itself; with global_norm=True, of all gradients together.
    """

    omega: float
    p: Fixed
    global_norm: bool

    def __init__(self, omega: float = 10.0, p: float = 2, *, global_norm: bool = False) -> None:
        object.__setattr__(self, "omega", _number("ClipNorm", "omega", omega))
        object.__setattr__(self, "p", Fixed(_number("ClipNorm", "p", p, 1e-300)))
        object.__setattr__(self, "global_norm", bool(global_norm))

    def _power_sum(self, g: Tensor) -> Tensor:
        if self.p == float("inf"):
            return ops.max(ops.abs(g))
        return ops.sum(g * g if self.p == 2 else ops.abs(g) ** float(self.p))

    def _factor(self, power_sum: Tensor, omega: Tensor) -> Tensor:
        if self.p == 2:
            norm = ops.sqrt(power_sum)
        elif self.p == float("inf"):
            norm = power_sum
        else:
            norm = power_sum ** (1 / float(self.p))
        # A norm of 0 clips nothing: omega/0 is inf.
        return ops.minimum(omega / norm, 1.0)

    def steps(
        self, context: Context, h: dict[str, Tensor], gradients: Gradients, prefix: str
    ) -> Gradients:
        if not self.global_norm or not gradients:
            return super().steps(context, h, gradients, prefix)
        parts = ops.stack([cast(self._power_sum(g), ir.f32) for g in gradients.values()])
        whole = ops.max(parts) if self.p == float("inf") else ops.sum(parts)
        factor = self._factor(whole, h["omega"])
        return {p: g * cast(factor, g.type.dtype) for p, g in gradients.items()}

    def step(self, c, h, p, x, g, prefix):  # noqa: ANN001, ANN201
        return g * self._factor(self._power_sum(g), h["omega"])


@dataclass(frozen=True, init=False)
class Chain(Rule):
    """Rules one after another: each one's step is the next one's gradient.

    Hyper-parameters keep their names where only one rule has them; elsewhere the rule's name stands
    before: `weightdecay.lambda`, `adamw.lambda`.
    """

    parts: tuple[Rule, ...]

    def __init__(self, *parts: Rule) -> None:
        for rule in parts:
            if not isinstance(rule, Rule):
                raise ShapeError(f"{rule!r} is not an optimiser", loc=user_loc())
        object.__setattr__(self, "parts", tuple(parts))

    def rules(self) -> Iterator[Rule]:
        for part in self.parts:
            yield from part.rules()


def apply(rule: Rule, trace: Trace, gradients: Gradients) -> None:
    """Trace one update: new values of the parameters and of what the optimiser keeps."""
    context = Context(trace)
    rules = list(rule.rules())
    titles = _titles(rules)
    stateful = sum(_keeps_state(r) for r in rules)
    steps = {p: cast(g, wide(p)) for p, g in gradients.items()}
    for one, title in zip(rules, titles, strict=True):
        names = _hyper_names(rules, one, title)
        hypers = {k: context.hyper(names[k], v) for k, v in one.hypers().items()}
        steps = one.steps(context, hypers, steps, f"{title}." if stateful > 1 else "")
    for p, step in steps.items():
        x = cast(as_tensor(p), wide(p))
        trace.updates[p] = cast(x - cast(step, wide(p)), p.type.dtype).value


def _keeps_state(rule: Rule) -> bool:
    return isinstance(rule, Momentum | Nesterov | RMSProp | Adam | AdamW)


def _titles(rules: list[Rule]) -> list[str]:
    """A name for each rule: its class in lower case, numbered where it comes twice."""
    titles: list[str] = []
    for rule in rules:
        name = type(rule).__name__.lower()
        count = sum(1 for other in rules[: len(titles)] if type(other) is type(rule))
        titles.append(f"{name}_{count + 1}" if count else name)
    return titles


def _hyper_names(rules: list[Rule], rule: Rule, title: str) -> dict[str, str]:
    def shared(name: str) -> bool:
        return sum(name in other.hypers() for other in rules) > 1

    return {name: f"{title}.{name}" if shared(name) else name for name in rule.hypers()}
