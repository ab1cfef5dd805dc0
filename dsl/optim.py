"""Optimisers: rules that turn gradients into steps, x <- x - step.

A rule is an immutable value.  Its hyper-parameters are the values that a compiled model starts
with; they stay inputs of the compiled step: `model.optimizer["lr"] = 1e-4` changes them.  `eta` is
another name of lr and `epsilon` of eps, as Flux has them.
Below, g is the gradient, x the parameter, t the number of the step from 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fluxc import ops
from fluxc.compiler.errors import ShapeError, Unsupported
from fluxc.compiler.ir import types as ir
from fluxc.tensor import Tensor, as_tensor, cast
from fluxc.trace import user_loc

if TYPE_CHECKING:
    from fluxc.module import Param
    from fluxc.trace import Trace

__all__ = [
    "Adam", "AdamW", "Chain", "ClipGrad", "ClipNorm", "Descent", "Momentum", "Nesterov", "RMSProp",
    "Rule", "SignDecay", "WeightDecay",
]  # fmt: skip

Gradients = dict[Any, Tensor]  # by parameter


class Hyper(NamedTuple):
    """The key of a hyper-parameter of the entry's optimiser, and its first value."""

    name: str
    value: float


class Slot(NamedTuple):
    """The key of a tensor that the optimiser keeps beside the parameter with this identity."""

    name: str
    parameter: int


class Counter(NamedTuple):
    """The key of the number of steps taken."""


def wide(param: Param) -> ir.DType:
    """Updates of 16-bit parameters are computed and kept in f32."""
    dtype = param.type.dtype
    return ir.f32 if dtype.bits == 16 else dtype


class Update:
    """What a rule sees of one parameter: `u.g`, `u.x`, `u["lr"]`, `u.t`, `u.slot("m")`."""

    def __init__(
        self, trace: Trace, hypers: dict[str, Tensor], prefix: str, p: Param, g: Tensor
    ) -> None:
        self.trace, self.hypers, self.prefix, self.p, self.g = trace, hypers, prefix, p, g

    @property
    def x(self) -> Tensor:
        return as_tensor(self.p, self.g.dtype)

    def __getitem__(self, name: str) -> Tensor:
        """A hyper-parameter in the gradient's dtype."""
        return cast(self.hypers[name], self.g.type.dtype)

    @property
    def t(self) -> Tensor:
        """The number of this step from 1."""
        before = Tensor(self.trace.reads.get(Counter()) or self._first_step())
        return cast(before + 1, self.g.type.dtype)

    def _first_step(self) -> Any:
        before = self.trace.read(Counter(), ir.TensorType(ir.i64))
        self.trace.updates[Counter()] = (Tensor(before) + 1).value
        return before

    def slot(self, name: str) -> Tensor:
        """What is kept beside the parameter under this name, 0 at first."""
        type = self.p.type.with_dtype(wide(self.p))
        return Tensor(self.trace.read(Slot(self.prefix + name, id(self.p)), type))

    def keep(self, name: str, value: Tensor) -> Tensor:
        self.trace.updates[Slot(self.prefix + name, id(self.p))] = value.value
        return value


class Rule:
    """The base of all rules: hyper-parameters, and `step`.

    hypers    names and first values of what stays changeable.
    options   what is fixed when the model is compiled.
    slots     whether the rule keeps anything beside parameters.
    """

    slots = False
    hypers: dict[str, float]
    options: dict[str, Any]

    def __init__(self, hypers: dict[str, float], **options: Any) -> None:
        for name, value in hypers.items():
            _check_number(type(self).__name__, name, value)
        self.__dict__.update(hypers={k: float(v) for k, v in hypers.items()}, options=options)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self!r} is immutable; make another one")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *self.hypers.items()))

    def __repr__(self) -> str:
        shown = {**self.hypers, **self.options}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def rules(self) -> tuple[Rule, ...]:
        """The rules that it is made of."""
        return (self,)

    def steps(self, updates: list[Update]) -> list[Tensor]:
        """The step of every parameter."""
        return [self.step(u) for u in updates]

    def step(self, u: Update) -> Tensor:
        """The step of one parameter."""
        raise NotImplementedError


def _check_number(rule: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ShapeError(
            f"{rule}: {name} must be a number that is not negative", loc=user_loc(), got=repr(value)
        )


def _betas(rule: str, beta: Any) -> dict[str, float]:
    if not isinstance(beta, tuple | list) or len(beta) != 2:
        raise ShapeError(f"{rule}: beta must be two numbers", loc=user_loc(), got=repr(beta))
    return {"beta1": beta[0], "beta2": beta[1]}


def _either(value: float, other: float | None) -> float:
    """A hyper-parameter under either of its two names."""
    return value if other is None else other


class Descent(Rule):
    """lr*g.  PyTorch's SGD."""

    def __init__(self, lr: float = 0.1, *, eta: float | None = None) -> None:
        super().__init__({"lr": _either(lr, eta)})

    def step(self, u: Update) -> Tensor:
        return u["lr"] * u.g


class Momentum(Rule):
    """v <- rho*v + lr*g, then v."""

    slots = True

    def __init__(self, lr: float = 0.01, rho: float = 0.9, *, eta: float | None = None) -> None:
        super().__init__({"lr": _either(lr, eta), "rho": rho})

    def step(self, u: Update) -> Tensor:
        return u.keep("v", u["rho"] * u.slot("v") + u["lr"] * u.g)


class Nesterov(Rule):
    """(1 + rho)*lr*g - rho**2*v, then v <- rho*v - lr*g."""

    slots = True

    def __init__(self, lr: float = 0.001, rho: float = 0.9, *, eta: float | None = None) -> None:
        super().__init__({"lr": _either(lr, eta), "rho": rho})

    def step(self, u: Update) -> Tensor:
        v, rho, scaled = u.slot("v"), u["rho"], u["lr"] * u.g
        u.keep("v", rho * v - scaled)
        return (1 + rho) * scaled - rho * rho * v


class RMSProp(Rule):
    """q <- rho*q + (1 - rho)*g**2, then lr*g/(sqrt(q) + eps).

    centred  also l <- rho*l + (1 - rho)*g, and q - l**2 in place of q.
    """

    slots = True

    def __init__(
        self,
        lr: float = 0.001,
        rho: float = 0.9,
        eps: float = 1e-8,
        *,
        centred: bool = False,
        eta: float | None = None,
        epsilon: float | None = None,
    ) -> None:
        hypers = {"lr": _either(lr, eta), "rho": rho, "eps": _either(eps, epsilon)}
        super().__init__(hypers, centred=centred)

    def step(self, u: Update) -> Tensor:
        rho = u["rho"]
        q = u.keep("q", rho * u.slot("q") + (1 - rho) * (u.g * u.g))
        if self.options["centred"]:
            mean = u.keep("l", rho * u.slot("l") + (1 - rho) * u.g)
            q = q - mean * mean
        return u["lr"] * u.g / (ops.sqrt(q) + u["eps"])


def _without_bias(average: Tensor, beta: Tensor, t: Tensor) -> Tensor:
    """average / (1 - beta**t), accurate also where beta is close to 1."""
    return average / -ops.expm1(t * ops.log(beta))


def _adam(u: Update) -> Tensor:
    beta1, beta2 = u["beta1"], u["beta2"]
    m = u.keep("m", beta1 * u.slot("m") + (1 - beta1) * u.g)
    v = u.keep("v", beta2 * u.slot("v") + (1 - beta2) * (u.g * u.g))
    t = u.t
    return _without_bias(m, beta1, t) / (ops.sqrt(_without_bias(v, beta2, t)) + u["eps"])


class Adam(Rule):
    """m <- beta1*m + (1 - beta1)*g and v <- beta2*v + (1 - beta2)*g**2, then
    lr * m/(1 - beta1**t) / (sqrt(v/(1 - beta2**t)) + eps).
    """

    slots = True

    def __init__(
        self,
        lr: float = 0.001,
        beta: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        eta: float | None = None,
        epsilon: float | None = None,
    ) -> None:
        hypers = {"lr": _either(lr, eta), **_betas("Adam", beta), "eps": _either(eps, epsilon)}
        super().__init__(hypers)

    def step(self, u: Update) -> Tensor:
        return u["lr"] * _adam(u)


class AdamW(Rule):
    """With Adam's direction a, the step without its lr: lr*(a + lambda*x).

    lambda_  Flux's lambda, PyTorch's weight_decay.
    couple   False: lr*a + lambda*x.
    """

    slots = True

    def __init__(
        self,
        lr: float = 0.001,
        beta: tuple[float, float] = (0.9, 0.999),
        lambda_: float = 0.0,
        eps: float = 1e-8,
        *,
        couple: bool = True,
        eta: float | None = None,
        epsilon: float | None = None,
    ) -> None:
        hypers = {"lr": _either(lr, eta), **_betas("AdamW", beta), "lambda": lambda_}
        super().__init__({**hypers, "eps": _either(eps, epsilon)}, couple=couple)

    def step(self, u: Update) -> Tensor:
        a, decay = _adam(u), u["lambda"] * u.x
        return u["lr"] * (a + decay) if self.options["couple"] else u["lr"] * a + decay


class WeightDecay(Rule):
    """g + lambda*x: the gradient of an L2 penalty; before a rule, in a Chain."""

    def __init__(self, lambda_: float = 5e-4) -> None:
        super().__init__({"lambda": lambda_})

    def step(self, u: Update) -> Tensor:
        return u.g + u["lambda"] * u.x


class SignDecay(Rule):
    """g + lambda*sign(x): the gradient of an L1 penalty; before a rule, in a Chain."""

    def __init__(self, lambda_: float = 1e-3) -> None:
        super().__init__({"lambda": lambda_})

    def step(self, u: Update) -> Tensor:
        return u.g + u["lambda"] * ops.sign(u.x)


class ClipGrad(Rule):
    """min(max(g, -delta), delta)."""

    def __init__(self, delta: float = 10.0) -> None:
        super().__init__({"delta": delta})

    def step(self, u: Update) -> Tensor:
        return ops.minimum(ops.maximum(u.g, -u["delta"]), u["delta"])


class ClipNorm(Rule):
    """g * min(omega/norm(g), 1), where norm(g) = sum(abs(g)**p)**(1/p); p may be infinite.

    The norm is each array's own; with global_norm=True, that of all gradients together.
    A norm that is not finite makes the step 0 or NaN, as throw=False does in Flux: a compiled step
    cannot raise, so throw=True is an error.  Where the loss is not finite, `load` what was saved.
    """

    def __init__(
        self, omega: float = 10.0, p: float = 2, *, global_norm: bool = False, throw: bool = False
    ) -> None:
        if throw:
            raise Unsupported(
                "ClipNorm: a compiled step cannot raise when the norm is not finite",
                loc=user_loc(),
                got="throw=True",
                hint="check that the returned loss is finite",
            )
        if isinstance(p, bool) or not isinstance(p, int | float) or not p > 0:
            raise ShapeError("ClipNorm: p must be positive", loc=user_loc(), got=repr(p))
        super().__init__({"omega": omega}, p=float(p), global_norm=global_norm)

    def steps(self, updates: list[Update]) -> list[Tensor]:
        if not self.options["global_norm"]:
            return super().steps(updates)
        parts = ops.stack([cast(self._collected(u.g), ir.f32) for u in updates])
        whole = ops.max(parts) if self.options["p"] == float("inf") else ops.sum(parts)
        return [u.g * self._factor(u, cast(whole, u.g.type.dtype)) for u in updates]

    def step(self, u: Update) -> Tensor:
        return u.g * self._factor(u, self._collected(u.g))

    def _collected(self, g: Tensor) -> Tensor:
        """The norm before its root: the sum of powers, or the greatest magnitude."""
        p = self.options["p"]
        if p == float("inf"):
            return ops.max(ops.abs(g))
        return ops.sum(g * g if p == 2 else ops.abs(g) ** p)

    def _factor(self, u: Update, collected: Tensor) -> Tensor:
        p = self.options["p"]
        norm = collected if p == float("inf") else collected ** (1 / p)
        return ops.minimum(u["omega"] / norm, 1.0)  # a norm of 0 gives inf, and so 1


class Chain(Rule):
    """Rules one after another: each one's step is the next one's gradient.  Flux's OptimiserChain.

    A hyper-parameter or a slot that several rules have is named after its rule:
    `weightdecay.lambda`, `adamw.lambda`.
    """

    def __init__(self, *parts: Rule) -> None:
        for rule in parts:
            if not isinstance(rule, Rule):
                raise ShapeError(f"{rule!r} is not an optimiser", loc=user_loc())
        super().__init__({}, parts=parts)

    def rules(self) -> tuple[Rule, ...]:
        return tuple(rule for part in self.options["parts"] for rule in part.rules())

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.options['parts']))})"


def apply(rule: Rule, trace: Trace, gradients: Gradients) -> None:
    """Trace one update: new values of the parameters and of what the optimiser keeps."""
    rules = rule.rules()
    several = sum(one.slots for one in rules) > 1
    steps = {p: cast(g, wide(p)) for p, g in gradients.items()}
    for one, title in zip(rules, _titles(rules), strict=True):
        hypers = {
            name: _hyper(trace, f"{title}.{name}" if _is_shared(name, rules) else name, value)
            for name, value in one.hypers.items()
        }
        prefix = f"{title}." if several else ""
        updates = [Update(trace, hypers, prefix, p, g) for p, g in steps.items()]
        steps = dict(zip(steps, one.steps(updates), strict=True))
    for p, step in steps.items():
        x = as_tensor(p, wide(p))
        trace.updates[p] = cast(x - step, p.type.dtype).value


def _hyper(trace: Trace, name: str, value: float) -> Tensor:
    return Tensor(trace.read(Hyper(name, value), ir.TensorType(ir.f32)))


def _is_shared(name: str, rules: tuple[Rule, ...]) -> bool:
    return sum(name in one.hypers for one in rules) > 1


def _titles(rules: tuple[Rule, ...]) -> list[str]:
    """A name for each rule: its class in lower case, numbered from the second on."""
    names = [type(rule).__name__.lower() for rule in rules]
    counts = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name}_{n + 1}" if n else name for name, n in zip(names, counts, strict=True)]
