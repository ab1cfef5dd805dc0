"""Optimisers: rules that turn gradients into steps, x <- x - step.

A rule is an immutable value.  Its hyper-parameters are the values that a compiled model starts
with; they stay inputs of the compiled step: `model.optimizer["lr"] = 1e-4` changes them.  Each may
be a schedule (`fluxc.schedules`).  `eta` is another name of lr and `epsilon` of eps, as Flux has
them.  Below, g is the gradient, x the parameter, t the number of the update from 1.
"""

from fluxc.optim.adam import AdaBelief, Adam, AdaMax, AdamW, AMSGrad, NAdam, OAdam, RAdam
from fluxc.optim.average import EMA
from fluxc.optim.compose import AccumGrad, Chain, Groups, LossScale, MixedPrecision
from fluxc.optim.gradients import ClipGrad, ClipNorm, SignDecay, WeightDecay
from fluxc.optim.plain import (
    AdaDelta,
    AdaGrad,
    Descent,
    Lion,
    Momentum,
    Nesterov,
    RMSProp,
    Rprop,
)
from fluxc.optim.rule import Rule, Update

OptimiserChain = Chain

__all__ = [
    "EMA",
    "AMSGrad",
    "AccumGrad",
    "AdaBelief",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "AdamW",
    "Chain",
    "ClipGrad",
    "ClipNorm",
    "Descent",
    "Groups",
    "Lion",
    "LossScale",
    "MixedPrecision",
    "Momentum",
    "NAdam",
    "Nesterov",
    "OAdam",
    "OptimiserChain",
    "RAdam",
    "RMSProp",
    "Rprop",
    "Rule",
    "SignDecay",
    "Update",
    "WeightDecay",
]  # fmt: skip
