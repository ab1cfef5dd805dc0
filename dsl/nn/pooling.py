"""Pooling of images [batch, channels, spatial...]."""

from __future__ import annotations

from typing import Any

from fluxc import ops
from fluxc.module import Module
from fluxc.nn.images import check_image, kernel_sizes, options_text, shortest, sizes_text
from fluxc.ops.pooling import powers, root
from fluxc.ops.spatial import numbers, pads
from fluxc.tensor import Tensor, TensorLike, as_tensor

__all__ = [
    "AdaptiveMaxPool", "AdaptiveMeanPool", "FractionalMaxPool", "GlobalLPPool", "GlobalMaxPool",
    "GlobalMeanPool", "LPPool", "MaxPool", "MaxUnpool", "MeanPool",
]  # fmt: skip


class _Pool(Module):
    """A window of fixed size that moves over the image."""

    def __init__(
        self, k: Any, *, stride: Any = None, pad: Any = 0, ceil_mode: bool = False
    ) -> None:
        name = type(self).__name__
        self.k = kernel_sizes(name, k)
        steps = self.k if stride is None else stride
        self.stride = numbers(f"{name}: stride", steps, len(self.k))
        pads(f"{name}: pad", pad, self.k)
        self.pad, self.ceil_mode = pad, bool(ceil_mode)

    def _checked(self, x: TensorLike) -> Tensor:
        t = as_tensor(x)
        check_image(self, t, len(self.k), None)
        return t

    def _options(self) -> dict[str, tuple[Any, Any]]:
        """Keywords and their defaults."""
        return {
            "stride": (self.stride, self.k),
            "pad": (shortest(self.pad), 0),
            "ceil_mode": (self.ceil_mode, False),
        }

    def _first(self) -> str:
        """What stands before the window's size."""
        return ""

    def describe(self) -> str:
        given = f"{self._first()}{sizes_text(self.k)}{options_text(self._options())}"
        return f"{type(self).__name__}({given})"


class MaxPool(_Pool):
    """The greatest element of each window; padding is never one.  `stride` is `k` by default.

    `fx.maxpool` says what `dilation`, `ceil_mode` and `return_indices` do.
    Shapes  x [N, C, S...] -> [N, C, S'...],
            S' = (S + low + high - ((k - 1)*dilation + 1)) // stride + 1.
    PyTorch's MaxPool1d, 2d, 3d.
    """

    def __init__(
        self,
        k: Any,
        *,
        stride: Any = None,
        pad: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> None:
        super().__init__(k, stride=stride, pad=pad, ceil_mode=ceil_mode)
        self.dilation = numbers("MaxPool: dilation", dilation, len(self.k))
        self.return_indices = bool(return_indices)

    def __call__(self, x: TensorLike) -> Any:
        return ops.maxpool(
            self._checked(x),
            self.k,
            self.stride,
            self.pad,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def _options(self) -> dict[str, tuple[Any, Any]]:
        return super()._options() | {
            "dilation": (self.dilation, (1,) * len(self.k)),
            "return_indices": (self.return_indices, False),
        }


class MeanPool(_Pool):
    """The mean of each window, padding counted as zeros unless count_include_pad=False.

    Shapes  as MaxPool has them.  PyTorch's AvgPool1d, 2d, 3d.
    """

    def __init__(
        self,
        k: Any,
        *,
        stride: Any = None,
        pad: Any = 0,
        count_include_pad: bool = True,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(k, stride=stride, pad=pad, ceil_mode=ceil_mode)
        self.count_include_pad = bool(count_include_pad)

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.meanpool(
            self._checked(x),
            self.k,
            self.stride,
            self.pad,
            self.count_include_pad,
            ceil_mode=self.ceil_mode,
        )

    def _options(self) -> dict[str, tuple[Any, Any]]:
        return super()._options() | {"count_include_pad": (self.count_include_pad, True)}


class LPPool(_Pool):
    """(sum of x**p over each window) ** (1/p): `fx.lpnormpool`, which says how PyTorch differs.

    Shapes  as MaxPool has them.  PyTorch's LPPool1d, 2d, 3d.
    """

    def __init__(
        self, p: float, k: Any, *, stride: Any = None, pad: Any = 0, ceil_mode: bool = False
    ) -> None:
        super().__init__(k, stride=stride, pad=pad, ceil_mode=ceil_mode)
        self.p = p

    def __call__(self, x: TensorLike) -> Tensor:
        t = self._checked(x)
        return ops.lpnormpool(t, self.p, self.k, self.stride, self.pad, ceil_mode=self.ceil_mode)

    def _first(self) -> str:
        return f"{self.p}, "


class MaxUnpool(_Pool):
    """Elements back where MaxPool(..., return_indices=True) found them, zeros elsewhere.

        y, indices = pool(x);  unpool(y, indices, size=x.shape[2:])

    size    of the result, which MaxPool's rounding hides; by default the least that it may be.
    Shapes  [N, C, S...] -> [N, C, size...], see `fx.maxunpool`.  PyTorch's MaxUnpool1d, 2d, 3d.
    """

    def __init__(self, k: Any, *, stride: Any = None, pad: Any = 0) -> None:
        super().__init__(k, stride=stride, pad=pad)

    def __call__(self, x: TensorLike, indices: TensorLike, size: Any = None) -> Tensor:
        return ops.maxunpool(self._checked(x), indices, self.k, self.stride, self.pad, size)


class _Adaptive(Module):
    """Windows that divide the image into `out` parts."""

    def __init__(self, out: Any) -> None:
        self.out = kernel_sizes(type(self).__name__, out)

    def _checked(self, x: TensorLike) -> Tensor:
        t = as_tensor(x)
        check_image(self, t, len(self.out), None)
        return t

    def describe(self) -> str:
        return f"{type(self).__name__}({sizes_text(self.out)})"


class AdaptiveMaxPool(_Adaptive):
    """The greatest elements of windows chosen so that the result has the sizes `out`.

    Window i of an axis of size S covers i*S // out up to ceil((i + 1)*S / out), as PyTorch has it.
    Shapes  x [N, C, S...] -> [N, C, *out].
    """

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.adaptive_maxpool(self._checked(x), self.out)


class AdaptiveMeanPool(_Adaptive):
    """The means of windows chosen so that the result has the sizes `out`; see AdaptiveMaxPool."""

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.adaptive_meanpool(self._checked(x), self.out)


class FractionalMaxPool(_Adaptive):
    """The greatest elements of windows of size k that begin at random places.

    Random in test mode too; `fx.fractional_maxpool` takes the samples instead.
    Shapes  x [N, C, S...] -> [N, C, *out].  PyTorch's FractionalMaxPool2d, 3d.
    """

    def __init__(self, k: Any, out: Any) -> None:
        super().__init__(out)
        self.k = numbers("FractionalMaxPool: window", k, len(self.out))

    def __call__(self, x: TensorLike) -> Tensor:
        return ops.fractional_maxpool(self._checked(x), self.k, self.out)

    def describe(self) -> str:
        return f"FractionalMaxPool({sizes_text(self.k)}, {sizes_text(self.out)})"


class _Global(Module):
    def _axes(self, x: TensorLike) -> tuple[Tensor, tuple[int, ...]]:
        t = as_tensor(x)
        check_image(self, t, None, None)
        return t, tuple(range(2, t.ndim))

    def describe(self) -> str:
        return f"{type(self).__name__}()"


class GlobalMaxPool(_Global):
    """The greatest element of each channel: [N, C, S...] -> [N, C, 1...]."""

    def __call__(self, x: TensorLike) -> Tensor:
        t, axes = self._axes(x)
        return ops.max(t, axes, keepdims=True)


class GlobalMeanPool(_Global):
    """The mean of each channel: [N, C, S...] -> [N, C, 1...]."""

    def __call__(self, x: TensorLike) -> Tensor:
        t, axes = self._axes(x)
        return ops.mean(t, axes, keepdims=True)


class GlobalLPPool(_Global):
    """(sum of x**p over each channel) ** (1/p): [N, C, S...] -> [N, C, 1...], as LPPool."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, x: TensorLike) -> Tensor:
        t, axes = self._axes(x)
        return root(ops.sum(powers("GlobalLPPool", t, self.p), axes, keepdims=True), self.p)

    def describe(self) -> str:
        return f"GlobalLPPool({self.p})"
