"""Activation functions under Flux's names.  NaN propagates, dtypes are kept, integers become f32.

Each says what its derivative is where the formula leaves a choice.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.ops.elementwise import abs, as_float, exp, expm1, log, log1p, maximum, tanh, where
from fluxc.ops.elementwise import erf as _erf
from fluxc.ops.layout import normal_axis, split
from fluxc.ops.reduce import shift_of, sum
from fluxc.trace import fail

if TYPE_CHECKING:
    from fluxc.tensor import Tensor, TensorLike

__all__ = [
    "celu", "elu", "gelu", "gelu_erf", "gelu_sigmoid", "gelu_tanh", "glu", "hardsigmoid",
    "hardswish", "hardtanh", "leakyrelu", "lisht", "logcosh", "logsigmoid", "logsoftmax", "mish",
    "relu", "relu6", "rrelu", "selu", "sigmoid", "sigmoid_fast", "softmax", "softplus",
    "softshrink", "softsign", "swish", "tanh_fast", "tanhshrink", "thresholdrelu", "trelu",
]  # fmt: skip

SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


def relu(x: TensorLike) -> Tensor:
    """max(x, 0); derivative 0 at 0."""
    x = as_float(x)
    return where(x <= 0, 0, x)


def leakyrelu(x: TensorLike, a: float = 0.01) -> Tensor:
    """x where x > 0, a*x elsewhere; derivative a at 0."""
    x = as_float(x)
    return where(x > 0, x, a * x)


def rrelu(x: TensorLike, lo: float = 1 / 8, hi: float = 1 / 3) -> Tensor:
    """x where x > 0, a*x elsewhere, with a drawn anew for each element from [lo, hi).

    It draws in test mode too, as Flux's does; PyTorch's then takes (lo + hi)/2.  Derivative a at 0.
    Errors  ShapeError unless lo <= hi.
    """
    from fluxc.ops.random import uniform

    if not lo <= hi:
        fail(ShapeError, "rrelu: lo must not be above hi", got=f"lo={lo!r}, hi={hi!r}")
    x = as_float(x)
    a = lo + (hi - lo) * uniform(x.shape, dtype=x.type.dtype.name)
    return where(x > 0, x, a * x)


def _between(x: Tensor, low: float, high: float) -> Tensor:
    """x clamped; derivative 0 at and beyond the bounds."""
    return where(x <= low, low, where(x >= high, high, x))


def relu6(x: TensorLike) -> Tensor:
    """min(max(x, 0), 6); derivative 0 at 0 and 6."""
    return _between(as_float(x), 0, 6)


def hardtanh(x: TensorLike) -> Tensor:
    """x clamped to [-1, 1]; derivative 0 at -1 and 1."""
    return _between(as_float(x), -1, 1)


def hardsigmoid(x: TensorLike) -> Tensor:
    """(x + 3)/6 clamped to [0, 1]; derivative 0 at the bounds."""
    return _between((as_float(x) + 3) / 6, 0, 1)


def hardswish(x: TensorLike) -> Tensor:
    """x * hardsigmoid(x)."""
    x = as_float(x)
    return x * hardsigmoid(x)


def sigmoid(x: TensorLike) -> Tensor:
    """1 / (1 + exp(-x)), finite with its derivative y*(1 - y) for every x."""
    from fluxc.transforms import custom_vjp

    y: Tensor = custom_vjp(_sigmoid, _sigmoid_backward)(as_float(x))
    return y


def _sigmoid(x: Tensor) -> Tensor:
    return 1.0 / (1.0 + exp(-x))


def _sigmoid_backward(inputs: Any, y: Tensor, dy: Tensor) -> tuple[Tensor]:
    del inputs
    return (dy * (y * (1.0 - y)),)


sigmoid_fast = sigmoid  # Flux's name for a quick approximation: compiled code needs none
tanh_fast = tanh


def softplus(x: TensorLike) -> Tensor:
    """log(1 + exp(x)) without overflow; derivative sigmoid(x)."""
    from fluxc.transforms import custom_vjp

    y: Tensor = custom_vjp(_softplus, _softplus_backward)(as_float(x))
    return y


def _softplus(x: Tensor) -> Tensor:
    return maximum(x, 0) + log1p(exp(-abs(x)))


def _softplus_backward(inputs: tuple[Tensor], y: Tensor, dy: Tensor) -> tuple[Tensor]:
    del y
    return (dy * sigmoid(inputs[0]),)


def logsigmoid(x: TensorLike) -> Tensor:
    """log(sigmoid(x)) = -softplus(-x)."""
    return -softplus(-as_float(x))


def swish(x: TensorLike) -> Tensor:
    """x * sigmoid(x); PyTorch's SiLU."""
    x = as_float(x)
    return x * sigmoid(x)


def mish(x: TensorLike) -> Tensor:
    """x * tanh(softplus(x))."""
    x = as_float(x)
    return x * tanh(softplus(x))


def lisht(x: TensorLike) -> Tensor:
    """x * tanh(x)."""
    x = as_float(x)
    return x * tanh(x)


def gelu(x: TensorLike) -> Tensor:
    """x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715*x**3)))."""
    x = as_float(x)
    inner = math.sqrt(2 / math.pi) * x * (1.0 + 0.044715 * (x * x))
    return 0.5 * x * (1.0 + tanh(inner))


gelu_tanh = gelu


def gelu_sigmoid(x: TensorLike) -> Tensor:
    """x * sigmoid(sqrt(8/pi) * x * (1 + 0.044715*x**2)): gelu_tanh written with sigmoid."""
    x = as_float(x)
    return x * sigmoid(math.sqrt(8 / math.pi) * x * (1.0 + 0.044715 * (x * x)))


def gelu_erf(x: TensorLike) -> Tensor:
    """x/2 * (1 + erf(x / sqrt(2))); PyTorch's default GELU."""
    x = as_float(x)
    return 0.5 * x * (1.0 + _erf(x * math.sqrt(0.5)))


def _negative_part(x: Tensor) -> Tensor:
    """x below 0, and 0 elsewhere: exponentials of it, and their derivatives, stay finite."""
    return where(x >= 0, 0, x)


def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """x where x >= 0, alpha*(exp(x) - 1) elsewhere."""
    x = as_float(x)
    return where(x >= 0, x, alpha * expm1(_negative_part(x)))


def celu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """x where x >= 0, alpha*(exp(x/alpha) - 1) elsewhere."""
    x = as_float(x)
    return where(x >= 0, x, alpha * expm1(_negative_part(x) / alpha))


def selu(x: TensorLike) -> Tensor:
    """scale * (x where x > 0, alpha*(exp(x) - 1) elsewhere), with SELU's scale and alpha."""
    x = as_float(x)
    low = SELU_ALPHA * expm1(where(x > 0, 0, x))
    return SELU_SCALE * where(x > 0, x, low)


def trelu(x: TensorLike, theta: float = 1.0) -> Tensor:
    """x where x > theta, 0 elsewhere."""
    x = as_float(x)
    return where(x <= theta, 0, x)


thresholdrelu = trelu


def softsign(x: TensorLike) -> Tensor:
    """x / (1 + abs(x))."""
    x = as_float(x)
    return x / (1.0 + abs(x))


def logcosh(x: TensorLike) -> Tensor:
    """log(cosh(x)) = x + softplus(-2x) - log(2)."""
    x = as_float(x)
    return x + softplus(-2.0 * x) - math.log(2)


def tanhshrink(x: TensorLike) -> Tensor:
    """x - tanh(x)."""
    x = as_float(x)
    return x - tanh(x)


def softshrink(x: TensorLike, lam: float = 0.5) -> Tensor:
    """x - lam where x > lam, x + lam where x < -lam, 0 between; derivative 0 at the bounds."""
    x = as_float(x)
    # NaN takes the last branch and stays NaN.
    return where(x > lam, x - lam, where(abs(x) <= lam, 0, x + lam))


def glu(x: TensorLike, axis: int = -1) -> Tensor:
    """a * sigmoid(b), where a and b are the halves of x along `axis`.

    Errors  ShapeError if the axis does not halve.
    """
    a, b = _halves(as_float(x), axis)
    return a * sigmoid(b)


def _halves(x: Tensor, axis: int) -> list[Tensor]:
    a = normal_axis(axis, x.ndim)
    if isinstance(x.shape[a], int) and x.shape[a] % 2:
        fail(ShapeError, f"glu along axis {axis} of odd size {x.shape[a]}", got=str(x.type))
    return split(x, 2, a)


def softmax(x: TensorLike, axis: Any = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along `axis`, without overflow.

    A +inf takes everything; several share it.
    """
    x = as_float(x)
    e = exp(shifted(x, shift_of(x, axis)))
    return e / sum(e, axis, keepdims=True)


def logsoftmax(x: TensorLike, axis: Any = -1) -> Tensor:
    """log(softmax(x)) along `axis`: x - logsumexp(x), without overflow."""
    x = as_float(x)
    z = shifted(x, shift_of(x, axis))
    return z - log(sum(exp(z), axis, keepdims=True))


def shifted(x: Tensor, shift: Tensor) -> Tensor:
    """x - shift, where +inf less itself is 0."""
    return where(x == math.inf, 0, x - shift)
