"""fluxc: an ahead-of-time compiler for machine-learning models.

import fluxc as fx
from fluxc import nn, losses, optim

model = nn.Chain(nn.Dense(64, 32, fx.relu), nn.Dense(32, 10))

@fx.export
def predict(x: fx.f32["batch", 64]):
    return fx.softmax(model(x), axis=-1)

@fx.export(optimizer=optim.Adam(1e-3))
def train_step(x: fx.f32["batch", 64], y: fx.i32["batch"]):
    return losses.logitcrossentropy(model(x), y)
"""

from fluxc import (
    convert,
    data,
    init,
    linalg,
    losses,
    nn,
    ops,
    optim,
    schedules,
    train,
)
from fluxc.checkpoint import checkpoint
from fluxc.compiler.errors import (
    BuildError,
    DTypeError,
    FluxcError,
    ModelFileError,
    NotDifferentiable,
    ShapeError,
    TraceError,
    Unsupported,
)
from fluxc.control import cond, fori_loop, scan, switch, while_loop
from fluxc.export import export
from fluxc.forward import diaghessian, hessian, jacobian, jvp, linearize
from fluxc.jit import compile, jit
from fluxc.module import Module, Param, State
from fluxc.nn import activations, outputsize
from fluxc.ops import *  # noqa: F403
from fluxc.ops import random
from fluxc.rebuild import destructure
from fluxc.tensor import Tensor
from fluxc.trace import training
from fluxc.transforms import custom_vjp, grad, hook, value_and_grad, vjp
from fluxc.types import bf16, bool_, dim, f16, f32, f64, i8, i16, i32, i64, u8
from fluxc.vmap import vmap

__version__ = "0.1.0"

__all__ = [
    "BuildError",
    "DTypeError",
    "FluxcError",
    "ModelFileError",
    "Module",
    "NotDifferentiable",
    "Param",
    "ShapeError",
    "State",
    "Tensor",
    "TraceError",
    "Unsupported",
    "activations",
    "bf16",
    "bool_",
    "checkpoint",
    "compile",
    "cond",
    "convert",
    "custom_vjp",
    "data",
    "destructure",
    "diaghessian",
    "dim",
    "export",
    "f16",
    "f32",
    "f64",
    "fori_loop",
    "grad",
    "hessian",
    "hook",
    "i8",
    "i16",
    "i32",
    "i64",
    "init",
    "jacobian",
    "jit",
    "jvp",
    "linalg",
    "linearize",
    "losses",
    "nn",
    "optim",
    "outputsize",
    "random",
    "scan",
    "schedules",
    "switch",
    "train",
    "training",
    "u8",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]
__all__ += ops.__all__
