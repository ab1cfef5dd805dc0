"""Images as the patches that a kernel sees, and back: each is the other's gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fluxc.compiler.errors import ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import Size, exact_quotient, floordiv, product
from fluxc.ops.create import arange
from fluxc.ops.elementwise import where
from fluxc.ops.index import gather_axes
from fluxc.ops.layout import expand_dims, transpose
from fluxc.ops.padding import pad_zeros
from fluxc.ops.reduce import sum
from fluxc.ops.spatial import fits, image_rank, numbers, pads, reaches_of, sizes_of
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast
from fluxc.trace import fail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fold", "unfold"]


class _Patches:
    """Where the patches of an image lie."""

    def __init__(
        self, name: str, shape: tuple[Size, ...], k: Any, stride: Any, pad: Any, dilation: Any
    ) -> None:
        self.sizes = shape[2:]
        count = len(self.sizes)
        self.kernel = numbers(f"{name}: kernel", k, count)
        self.stride = numbers(f"{name}: stride", stride, count)
        self.dilation = numbers(f"{name}: dilation", dilation, count)
        reaches = reaches_of(self.kernel, self.dilation)
        self.pads: Any = pads(f"{name}: pad", pad, reaches)
        self.out: list[Size] = []
        for a, ((low, high), reach) in enumerate(zip(self.pads, reaches, strict=True)):
            room = self.sizes[a] + low + high
            fits(name, shape, a + 2, room, reach)
            self.out.append(floordiv(room - reach, self.stride[a]) + 1)

    def cut(self, x: Tensor) -> Tensor:
        """[N, C, S...] -> [N, C * kernel, patches]."""
        rank = len(self.sizes)
        y = pad_zeros(x, tuple(p for pair in self.pads for p in pair), tuple(range(2, rank + 2)))
        for a in reversed(range(rank)):
            offset = expand_dims(arange(self.kernel[a], dtype=ir.i64) * self.dilation[a], 1)
            first = arange(self.out[a], dtype=ir.i64) * self.stride[a]
            y = gather_axes(y, [a + 2], [first + offset], a + 2)
        within, among = range(2, 2 * rank + 2, 2), range(3, 2 * rank + 2, 2)
        y = transpose(y, (0, 1, *within, *among))
        return y.reshape((x.shape[0], x.shape[1] * product(self.kernel), product(self.out)))

    def put(self, y: Tensor) -> Tensor:
        """[N, C * kernel, patches] -> [N, C, S...], the sum of what comes to lie at each place."""
        rank = len(self.sizes)
        channels = exact_quotient(y.shape[1], product(self.kernel))
        x = y.reshape((y.shape[0], channels, *self.kernel, *self.out))
        pairs = (axis for a in range(rank) for axis in (2 + a, 2 + rank + a))
        x = transpose(x, (0, 1, *pairs))
        for a in range(rank):
            x = self._put_axis(x, a)
        return x

    def _put_axis(self, x: Tensor, a: int) -> Tensor:
        """[..., kernel, patches, ...] -> [..., size, ...] at axis a + 2."""
        within, patch = self._meeting(a)
        met = (within >= 0) & (within < self.kernel[a]) & (patch >= 0) & (patch < self.out[a])
        columns = [where(met, within, 0), where(met, patch, 0)]
        seen = gather_axes(x, [a + 2, a + 3], columns, a + 2)
        inner = met.reshape((*met.shape, *(1,) * (x.ndim - a - 4)))
        return sum(where(inner, seen, 0), a + 2)

    def _meeting(self, a: int) -> tuple[Tensor, Tensor]:
        """[terms, size] places in the kernel and patches that may meet at each place; -1: none."""
        kernel, step, gap = self.kernel[a], self.stride[a], self.dilation[a]
        place = arange(self.sizes[a], dtype=ir.i64) + self.pads[a][0]
        patches = -(-((kernel - 1) * gap + 1) // step)
        if patches < kernel:
            patch = place // step - expand_dims(arange(patches, dtype=ir.i64), 1)
            offset = place - patch * step
            within = offset // gap
            return where(within * gap == offset, within, -1), patch
        within = expand_dims(arange(kernel, dtype=ir.i64), 1)
        first = place - within * gap
        patch = first // step
        return broadcast(within, first.shape), where(patch * step == first, patch, -1)


def unfold(x: TensorLike, k: Any, stride: Any = 1, pad: Any = 0, dilation: Any = 1) -> Tensor:
    """Every patch that a kernel sees as a column.

        y[n, (c, i...), p] = x[n, c, p*stride + i*dilation - low], 0 in the padding

    Shapes  x [N, C, S...] -> [N, C * product(k), product(S')], S' as `conv` has it; channels and
            places in the kernel, and the patches, are in row-major order.
    `conv` is `weight.reshape(O, -1) @ unfold(x, ...)`.  Its gradient is `fold`.
    Errors  ShapeError if a kernel does not fit.
    PyTorch's nn.functional.unfold, for any number of axes.  NNlib's has the axes [N, C*k, L] too,
    once reversed, with flipped=true.
    """
    t = as_tensor(x)
    image_rank("unfold", t)
    patches = _Patches("unfold", t.shape, k, stride, pad, dilation)
    return _adjoint(patches.cut, patches.put, t)


def fold(
    y: TensorLike, size: Any, k: Any, stride: Any = 1, pad: Any = 0, dilation: Any = 1
) -> Tensor:
    """The sum of patches at their places: the gradient of `unfold`, whose gradient is `unfold`.

    size    the image's spatial sizes.
    Shapes  y [N, C * product(k), patches] -> [N, C, *size].
    Errors  ShapeError if y is not what `unfold` makes of an image of this size.
    PyTorch's nn.functional.fold, for any number of axes.
    """
    t = as_tensor(y)
    given = [len(v) for v in (size, k) if isinstance(v, tuple | list)]
    sizes = sizes_of("fold: size", size, given[0] if given else 1)
    points = product(numbers("fold: kernel", k, len(sizes)))
    channels = exact_quotient(t.shape[1], points) if t.ndim == 3 else None
    patches = _Patches("fold", (1, channels or 1, *sizes), k, stride, pad, dilation)
    if channels is None or t.shape[2] != product(patches.out):
        fail(
            ShapeError,
            "fold: the patches do not fit",
            expected=f"[N, C * {points}, {product(patches.out)}] for an image of {list(sizes)}",
            got=str(t.type),
        )
    return _adjoint(patches.put, patches.cut, t)


def _adjoint(
    f: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """f(x), linear, whose gradient is its adjoint."""
    from fluxc.transforms import custom_vjp

    if not x.type.dtype.is_float:
        return f(x)

    def backward(inputs: Any, y: Tensor, dy: Tensor) -> tuple[Tensor]:
        del inputs, y
        return (adjoint(dy),)

    y: Tensor = custom_vjp(f, backward)(x)
    return y
