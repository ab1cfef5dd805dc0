"""Rules with a step size for all, or one of its own for every element, and no bias correction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from fluxc import ops
from fluxc.optim.rule import Rule, betas, check_hyper, either

if TYPE_CHECKING:
    from fluxc.optim.rule import Update
    from fluxc.tensor import Tensor

__all__ = ["AdaDelta", "AdaGrad", "Descent", "Lion", "Momentum", "Nesterov", "RMSProp", "Rprop"]


class Descent(Rule):
    """lr*g.  PyTorch's SGD."""

    def __init__(self, lr: Any = 0.1, *, eta: Any = None) -> None:
        super().__init__({"lr": either(lr, eta)})

    def step(self, u: Update) -> Tensor:
        return u["lr"] * u.g


class Momentum(Rule):
    """v <- rho*v + lr*g, then v.  PyTorch's SGD with momentum, where lr stays the same."""

    slots: ClassVar = {"v": 0.0}

    def __init__(self, lr: Any = 0.01, rho: Any = 0.9, *, eta: Any = None) -> None:
        super().__init__({"lr": either(lr, eta), "rho": rho})

    def step(self, u: Update) -> Tensor:
        return u.keep("v", u["rho"] * u.slot("v") + u["lr"] * u.g)


class Nesterov(Rule):
    """(1 + rho)*lr*g - rho**2*v, then v <- rho*v - lr*g."""

    slots: ClassVar = {"v": 0.0}

    def __init__(self, lr: Any = 0.001, rho: Any = 0.9, *, eta: Any = None) -> None:
        super().__init__({"lr": either(lr, eta), "rho": rho})

    def step(self, u: Update) -> Tensor:
        v, rho, scaled = u.slot("v"), u["rho"], u["lr"] * u.g
        u.keep("v", rho * v - scaled)
        return (1 + rho) * scaled - rho * rho * v


class Rprop(Rule):
    """r*sign(g), where each element has a step size r of its own, lr at first.

    Where the gradient kept its sign since the last update, r <- min(ell2*r, gamma2); where it
    changed, r <- max(ell1*r, gamma1) and g <- 0.
    """

    slots: ClassVar = {"g": 0.0, "r": "lr"}

    def __init__(
        self,
        lr: float = 1e-3,
        ell: tuple[Any, Any] = (0.5, 1.2),
        gamma: tuple[Any, Any] = (1e-6, 50.0),
        *,
        eta: float | None = None,
    ) -> None:
        hypers = {"ell1": ell[0], "ell2": ell[1], "gamma1": gamma[0], "gamma2": gamma[1]}
        super().__init__(hypers, lr=check_hyper("Rprop: lr", either(lr, eta)))

    def step(self, u: Update) -> Tensor:
        agreement, r = u.slot("g") * u.g, u.slot("r")
        longer = ops.minimum(u["ell2"] * r, u["gamma2"])
        shorter = ops.maximum(u["ell1"] * r, u["gamma1"])
        changed = ops.where(agreement < 0, shorter, r)
        g = u.keep("g", ops.where(agreement < 0, 0.0, u.g))
        return u.keep("r", ops.where(agreement > 0, longer, changed)) * ops.sign(g)


class RMSProp(Rule):
    """q <- rho*q + (1 - rho)*g**2, then lr*g/(sqrt(q) + eps).

    centred  (or centered) also l <- rho*l + (1 - rho)*g, and q - l**2 in place of q.
    """

    slots: ClassVar = {"q": 0.0, "l": 0.0}

    def __init__(
        self,
        lr: Any = 0.001,
        rho: Any = 0.9,
        eps: Any = 1e-8,
        *,
        centred: bool = False,
        centered: bool = False,
        eta: Any = None,
        epsilon: Any = None,
    ) -> None:
        hypers = {"lr": either(lr, eta), "rho": rho, "eps": either(eps, epsilon)}
        super().__init__(hypers, centred=centred or centered)

    def step(self, u: Update) -> Tensor:
        rho = u["rho"]
        q = u.keep("q", rho * u.slot("q") + (1 - rho) * (u.g * u.g))
        if self.options["centred"]:
            mean = u.keep("l", rho * u.slot("l") + (1 - rho) * u.g)
            q = q - mean * mean
        return u["lr"] * u.g / (ops.sqrt(q) + u["eps"])


class AdaGrad(Rule):
    """acc <- acc + g**2, eps at first, then lr*g/(sqrt(acc) + eps)."""

    slots: ClassVar = {"acc": "eps"}

    def __init__(
        self, lr: Any = 0.1, eps: Any = 1e-8, *, eta: Any = None, epsilon: Any = None
    ) -> None:
        super().__init__({"lr": either(lr, eta), "eps": either(eps, epsilon)})

    def step(self, u: Update) -> Tensor:
        acc = u.keep("acc", u.slot("acc") + u.g * u.g)
        return u["lr"] * u.g / (ops.sqrt(acc) + u["eps"])


class AdaDelta(Rule):
    """acc <- rho*acc + (1 - rho)*g**2, the step d = g*sqrt(delta + eps)/sqrt(acc + eps), then
    delta <- rho*delta + (1 - rho)*d**2.
    """

    slots: ClassVar = {"acc": 0.0, "delta": 0.0}

    def __init__(self, rho: Any = 0.9, eps: Any = 1e-8, *, epsilon: Any = None) -> None:
        super().__init__({"rho": rho, "eps": either(eps, epsilon)})

    def step(self, u: Update) -> Tensor:
        rho, eps, delta = u["rho"], u["eps"], u.slot("delta")
        acc = u.keep("acc", rho * u.slot("acc") + (1 - rho) * (u.g * u.g))
        step = u.g * ops.sqrt(delta + eps) / ops.sqrt(acc + eps)
        u.keep("delta", rho * delta + (1 - rho) * (step * step))
        return step


class Lion(Rule):
    """s <- beta2*g + (1 - beta2)*s, then lr*sign((beta2 - beta1)*g + beta1*s)."""

    slots: ClassVar = {"s": 0.0}

    def __init__(
        self, lr: Any = 0.001, beta: tuple[Any, Any] = (0.9, 0.999), *, eta: Any = None
    ) -> None:
        super().__init__({"lr": either(lr, eta), **betas("Lion", beta)})

    def step(self, u: Update) -> Tensor:
        beta1, beta2 = u["beta1"], u["beta2"]
        s = u.keep("s", beta2 * u.g + (1 - beta2) * u.slot("s"))
        return u["lr"] * ops.sign((beta2 - beta1) * u.g + beta1 * s)
