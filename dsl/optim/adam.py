"""Adam and its kin: averages of the gradient and of its square, without the bias of their start.

With m <- beta1*m + (1 - beta1)*g and v <- beta2*v + (1 - beta2)*g**2, both 0 at first, m' stands
for m/(1 - beta1**t) and v' for v/(1 - beta2**t).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from fluxc import ops
from fluxc.compiler.ir import types as ir
from fluxc.optim.rule import Rule, betas, either
from fluxc.tensor import cast

if TYPE_CHECKING:
    from fluxc.optim.rule import Update
    from fluxc.tensor import Tensor

__all__ = [
    "AMSGrad", "AdaBelief", "AdaMax", "Adam", "AdamW", "NAdam", "OAdam", "RAdam",
]  # fmt: skip


def _average(u: Update, slot: str, beta: Tensor, x: Tensor) -> Tensor:
    return u.keep(slot, beta * u.slot(slot) + (1 - beta) * x)


def _bias(beta: Tensor, t: Tensor) -> Tensor:
    """1 - beta**t, accurate also where beta is close to 1."""
    return -ops.expm1(t * ops.log(beta))


def _unbiased(u: Update) -> tuple[Tensor, Tensor]:
    """m' and v'."""
    beta1, beta2, t = u["beta1"], u["beta2"], u.t
    m = _average(u, "m", beta1, u.g)
    v = _average(u, "v", beta2, u.g * u.g)
    return m / _bias(beta1, t), v / _bias(beta2, t)


def _direction(u: Update) -> Tensor:
    m, v = _unbiased(u)
    return m / (ops.sqrt(v) + u["eps"])


class Adam(Rule):
    """lr * m'/(sqrt(v') + eps)."""

    slots: ClassVar = {"m": 0.0, "v": 0.0}

    def __init__(
        self,
        lr: Any = 0.001,
        beta: tuple[Any, Any] = (0.9, 0.999),
        eps: Any = 1e-8,
        *,
        eta: Any = None,
        epsilon: Any = None,
    ) -> None:
        name = type(self).__name__
        hypers = {"lr": either(lr, eta), **betas(name, beta), "eps": either(eps, epsilon)}
        super().__init__(hypers)

    def step(self, u: Update) -> Tensor:
        return u["lr"] * _direction(u)


class AdamW(Rule):
    """With Adam's direction a = m'/(sqrt(v') + eps): lr*(a + lambda*x).

    lambda_  Flux's lambda, PyTorch's weight_decay.
    couple   False: lr*a + lambda*x.
    """

    slots: ClassVar = {"m": 0.0, "v": 0.0}

    def __init__(
        self,
        lr: Any = 0.001,
        beta: tuple[Any, Any] = (0.9, 0.999),
        lambda_: Any = 0.0,
        eps: Any = 1e-8,
        *,
        couple: bool = True,
        eta: Any = None,
        epsilon: Any = None,
    ) -> None:
        hypers = {"lr": either(lr, eta), **betas("AdamW", beta), "lambda": lambda_}
        super().__init__({**hypers, "eps": either(eps, epsilon)}, couple=couple)

    def step(self, u: Update) -> Tensor:
        a, decay = _direction(u), u["lambda"] * u.x
        return u["lr"] * (a + decay) if self.options["couple"] else u["lr"] * a + decay


class RAdam(Adam):
    """Adam's step times r, where the variance of its denominator is tractable, else lr*m':

        last = 2/(1 - beta2) - 1,  rho = last - 2*t*beta2**t/(1 - beta2**t)
        r = sqrt((rho - 4)*(rho - 2)*last / ((last - 4)*(last - 2)*rho))   where rho > 4

    rho and r are computed in f64: for beta2 near 1, rho is a small difference of large numbers.
    """

    def step(self, u: Update) -> Tensor:
        m, v = _unbiased(u)
        beta2, t = cast(u["beta2"], ir.f64), u.t64
        last = 2 / (1 - beta2) - 1
        rho = last - 2 * t * beta2**t / _bias(beta2, t)
        ratio = (rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho)
        r = cast(ops.sqrt(ops.maximum(ratio, 0.0)), u.g.type.dtype)
        return u["lr"] * m * ops.where(rho > 4, r / (ops.sqrt(v) + u["eps"]), 1.0)


class AdaMax(Adam):
    """n <- max(beta2*n, abs(g)), then lr * m'/(n + eps)."""

    slots: ClassVar = {"m": 0.0, "n": 0.0}

    def step(self, u: Update) -> Tensor:
        m = _average(u, "m", u["beta1"], u.g)
        n = u.keep("n", ops.maximum(u["beta2"] * u.slot("n"), ops.abs(u.g)))
        return u["lr"] / _bias(u["beta1"], u.t) * m / (n + u["eps"])


class OAdam(Adam):
    """Optimistic Adam: 2*d - d_before, where d is Adam's step and d_before that of last time."""

    slots: ClassVar = {"m": 0.0, "v": 0.0, "d": 0.0}

    def __init__(
        self,
        lr: Any = 0.001,
        beta: tuple[Any, Any] = (0.5, 0.9),
        eps: Any = 1e-8,
        *,
        eta: Any = None,
        epsilon: Any = None,
    ) -> None:
        super().__init__(lr, beta, eps, eta=eta, epsilon=epsilon)

    def step(self, u: Update) -> Tensor:
        before = u.slot("d")
        return 2 * u.keep("d", u["lr"] * _direction(u)) - before


class AMSGrad(Adam):
    """top <- max(top, v), then lr * m/(sqrt(top) + eps); m, v and top are eps at first."""

    slots: ClassVar = {"m": "eps", "v": "eps", "top": "eps"}

    def step(self, u: Update) -> Tensor:
        m = _average(u, "m", u["beta1"], u.g)
        v = _average(u, "v", u["beta2"], u.g * u.g)
        top = u.keep("top", ops.maximum(u.slot("top"), v))
        return u["lr"] * m / (ops.sqrt(top) + u["eps"])


class NAdam(Adam):
    """lr * (beta1*m/(1 - beta1**(t + 1)) + (1 - beta1)*g/(1 - beta1**t)) / (sqrt(beta2*v') + eps).

    PyTorch's NAdam with momentum_decay=0.
    """

    def step(self, u: Update) -> Tensor:
        beta1, beta2, t = u["beta1"], u["beta2"], u.t
        m = _average(u, "m", beta1, u.g)
        v = _average(u, "v", beta2, u.g * u.g)
        ahead = beta1 * m / _bias(beta1, t + 1) + (1 - beta1) * u.g / _bias(beta1, t)
        return u["lr"] * ahead / (ops.sqrt(beta2 * v / _bias(beta2, t)) + u["eps"])


class AdaBelief(Adam):
    """s <- beta2*s + (1 - beta2)*(g - m)**2 + eps, then lr * m'/(sqrt(s/(1 - beta2**t)) + eps)."""

    slots: ClassVar = {"m": 0.0, "s": 0.0}

    def __init__(
        self,
        lr: Any = 0.001,
        beta: tuple[Any, Any] = (0.9, 0.999),
        eps: Any = 1e-16,
        *,
        eta: Any = None,
        epsilon: Any = None,
    ) -> None:
        super().__init__(lr, beta, eps, eta=eta, epsilon=epsilon)

    def step(self, u: Update) -> Tensor:
        beta1, beta2, t = u["beta1"], u["beta2"], u.t
        m = _average(u, "m", beta1, u.g)
        s = u.keep("s", beta2 * u.slot("s") + (1 - beta2) * (u.g - m) ** 2 + u["eps"])
        return u["lr"] * m / _bias(beta1, t) / (ops.sqrt(s / _bias(beta2, t)) + u["eps"])
