"""Rules that change a gradient for the rule behind them in a Chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc import ops
from fluxc.compiler.errors import ShapeError, Unsupported
from fluxc.optim.rule import Rule
from fluxc.tensor import cast
from fluxc.trace import user_loc

if TYPE_CHECKING:
    from fluxc.optim.rule import Update
    from fluxc.tensor import Tensor

__all__ = ["ClipGrad", "ClipNorm", "SignDecay", "WeightDecay"]


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
        widest = max((u.g.type.dtype for u in updates), key=lambda dtype: dtype.bits)
        parts = ops.stack([cast(self._collected(u.g), widest) for u in updates])
        whole = ops.max(parts) if self.options["p"] == float("inf") else ops.sum(parts)
        return [u.g * self._factor(u, cast(whole, u.g.type.dtype)) for u in updates]

    def step(self, u: Update) -> Tensor:
        return u.g * self._factor(u, self._collected(u.g))

    def _collected(self, g: Tensor) -> Tensor:
        """The norm before its root: the sum of powers, or the greatest magnitude."""
        p = self.options["p"]
        if p == float("inf"):
            return ops.sum(g) if 0 in g.shape else ops.max(ops.abs(g))
        return ops.sum(g * g if p == 2 else ops.abs(g) ** p)

    def _factor(self, u: Update, collected: Tensor) -> Tensor:
        p = self.options["p"]
        norm = collected if p == float("inf") else collected ** (1 / p)
        return ops.minimum(u["omega"] / norm, 1.0)  # a norm of 0 gives inf, and so 1
