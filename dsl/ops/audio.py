"""Short-time Fourier transforms, spectrograms, decibels, mel filters.

A complex number is a pair (real, imaginary) along a last axis of size 2, as PyTorch's view_as_real
has it.  The transform is a product with a constant matrix: n_fft*(n_fft + 2) multiplications a
frame, where an FFT takes about 5*n_fft*log2(n_fft)/2; a frame of 512 costs some 20 times as many,
as fast as the machine multiplies matrices.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ShapeError
from fluxc.compiler.ir import types as ir
from fluxc.compiler.ir.dims import product
from fluxc.ops.contract import matmul
from fluxc.ops.create import ones
from fluxc.ops.elementwise import as_float, log10, maximum, sqrt, where
from fluxc.ops.layout import moveaxis
from fluxc.ops.padding import pad_reflect, pad_zeros
from fluxc.ops.patches import fold, unfold
from fluxc.ops.reduce import max as greatest
from fluxc.ops.reduce import sum
from fluxc.ops.spatial import fits, is_integer
from fluxc.tensor import Tensor, TensorLike, as_tensor, broadcast, cast
from fluxc.trace import fail
from fluxc.types import DTypeLike, as_dtype

__all__ = [
    "db_to_power", "hamming_window", "hann_window", "istft", "melscale_filterbanks", "power_to_db",
    "spectrogram", "stft",
]  # fmt: skip


def hamming_window(
    n: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, dtype: DTypeLike = "f32"
) -> np.ndarray:
    """alpha - beta*cos(2*pi*i/(n - 1)), a constant array [n]; a window of one element is 1.

    periodic  the first n elements of the window of n + 1, which is what transforms take.
    PyTorch's hamming_window.
    """
    length, chosen = _length("the length of a window", n), as_dtype(dtype)
    if not chosen.is_float or chosen.name == "bf16":
        fail(DTypeError, f"a window of dtype {chosen}", expected="f64, f32 or f16")
    if length == 1:
        return np.ones(1, chosen.numpy)
    turns = np.arange(length) / (length if periodic else length - 1)
    return (alpha - beta * np.cos(2 * np.pi * turns)).astype(chosen.numpy)


def hann_window(n: int, periodic: bool = True, dtype: DTypeLike = "f32") -> np.ndarray:
    """1/2 - cos(2*pi*i/(n - 1))/2: `hamming_window` with alpha and beta 1/2."""
    return hamming_window(n, periodic, 0.5, 0.5, dtype)


def stft(
    x: TensorLike,
    n_fft: int,
    hop_length: int | None = None,
    window: TensorLike | None = None,
    center: bool = True,
    normalized: bool = False,
) -> Tensor:
    """The Fourier transforms of windows that move over a signal.

        y[..., f, m] = sum over k of window[k] * x[..., m*hop_length + k] * exp(-2i*pi*f*k/n_fft)

    hop_length  n_fft // 4 by default.
    window      [n] with n <= n_fft, padded with zeros on both sides; all ones by default.
    center      mirrors n_fft // 2 elements at each end, so that frame m lies about m*hop_length.
    normalized  divides by sqrt(n_fft).
    Shapes  x [..., T] -> [..., n_fft // 2 + 1, frames, 2].
    Errors  ShapeError if a frame does not fit.
    PyTorch's stft(..., return_complex=True) under view_as_real.
    """
    t = as_float(x)
    size, hop = _sizes("stft", n_fft, hop_length)
    if t.ndim == 0:
        fail(ShapeError, "stft takes [..., time]", got=str(t.type))
    wide = cast(t, ir.f32) if t.type.dtype.bits == 16 else t
    signal = wide.reshape((product(t.shape[:-1]), 1, t.shape[-1]))
    if center:
        signal = pad_reflect(signal, size // 2)
    fits("stft", signal.shape, 2, signal.shape[2], size)
    rows = _waves(size) * (size**-0.5 if normalized else 1.0)
    weight = as_tensor(rows, wide.dtype) * _window("stft", window, size, wide.dtype)
    y = matmul(weight, unfold(signal, size, hop))
    y = y.reshape((*t.shape[:-1], 2, size // 2 + 1, y.shape[-1]))
    return cast(moveaxis(y, -3, -1), t.type.dtype)


def istft(
    y: TensorLike,
    n_fft: int,
    hop_length: int | None = None,
    window: TensorLike | None = None,
    center: bool = True,
    normalized: bool = False,
    original_length: Any = None,
) -> Tensor:
    """The real signal whose `stft`, with the same options, is closest to y.

        x[t] = sum over m of w[k]*irfft(y[..., m])[k] / sum over m of w[k]**2, k = t - m*hop_length

    original_length  cuts the signal, or continues it with zeros; without it the last elements,
                     that no whole frame covered, are missing.
    Shapes  y [..., n_fft // 2 + 1, frames, 2] -> [..., T].
    Where all windows are 0 so is the signal, which PyTorch refuses.
    Errors  ShapeError if the shapes do not match.
    PyTorch's istft of view_as_complex.
    """
    t = as_float(y)
    size, hop = _sizes("istft", n_fft, hop_length)
    half = size // 2 + 1
    if t.ndim < 3 or t.shape[-1] != 2 or t.shape[-3] != half:
        fail(
            ShapeError,
            "istft: the spectrum does not fit",
            expected=f"[..., {half}, frames, 2]",
            got=str(t.type),
        )
    wide = cast(t, ir.f32) if t.type.dtype.bits == 16 else t
    lead, frames = t.shape[:-3], t.shape[-2]
    pairs = moveaxis(wide, -1, -3).reshape((product(lead), 2 * half, frames))
    w = _window("istft", window, size, wide.dtype)
    rows = as_tensor(_inverse_waves(size), wide.dtype) * (size**0.5 if normalized else 1.0)
    length = (frames - 1) * hop + size
    total = fold(matmul((rows * w).T, pairs), length, size, hop)
    squares = broadcast((w * w).reshape((1, size, 1)), (1, size, frames))
    seen = fold(squares, length, size, hop)
    signal = where(seen > 1e-11, total / where(seen > 1e-11, seen, 1), 0)[:, 0]
    begin = size // 2 if center else 0
    count = signal.shape[1] - 2 * begin if original_length is None else original_length
    missing = begin + count - signal.shape[1]
    if isinstance(missing, int) and missing > 0:
        signal = pad_zeros(signal, (0, missing), dims=1)
    return cast(signal[:, begin : begin + count], t.type.dtype).reshape((*lead, count))


def _length(what: str, n: Any) -> int:
    if not is_integer(n) or n < 1:
        fail(ShapeError, f"{what} must be an integer >= 1", got=repr(n))
    return int(n)


def _sizes(name: str, n_fft: Any, hop_length: Any) -> tuple[int, int]:
    size = _length(f"{name}: n_fft", n_fft)
    hop = max(size // 4, 1) if hop_length is None else hop_length
    return size, _length(f"{name}: hop_length", hop)


def _waves(size: int) -> np.ndarray:
    """The real and the imaginary part of each frequency's exponential, [2*half, size]."""
    # The product is reduced before it is rounded.
    turns = np.outer(np.arange(size // 2 + 1), np.arange(size)) % size
    angles = 2 * np.pi * turns / size
    return np.concatenate([np.cos(angles), -np.sin(angles)])


def _inverse_waves(size: int) -> np.ndarray:
    """The signal of each real and each imaginary part; all but 0 and size/2 stand for two."""
    half = size // 2 + 1
    count = np.where((np.arange(half) == 0) | (2 * np.arange(half) == size), 1, 2)
    return np.asarray(_waves(size) * np.tile(count, 2)[:, None] / size)


def _window(name: str, window: Any, size: int, dtype: Any) -> Tensor:
    """The window, [size]."""
    if window is None:
        return ones(size, dtype)
    w = as_tensor(window, dtype)
    length = w.shape[0] if w.ndim == 1 else None
    if not isinstance(length, int) or not 1 <= length <= size:
        fail(ShapeError, f"{name}: the window", expected=f"[n] with n <= {size}", got=str(w.type))
    low = (size - length) // 2
    return pad_zeros(w, (low, size - length - low))


def spectrogram(
    x: TensorLike,
    n_fft: int,
    hop_length: int | None = None,
    window: TensorLike | None = None,
    *,
    pad: int = 0,
    center: bool = True,
    power: float = 2.0,
    normalized: bool = False,
    window_normalized: bool = False,
) -> Tensor:
    """Magnitudes of the `stft` to a power.

        y = |stft(x) + eps|**power, eps of the dtype, which keeps the derivative finite in silence

    pad                zeros put on both sides first.
    power              1 magnitudes, 2 powers; 0 gives the complex spectrum.
    window_normalized  divides by the norm of the window first.
    Shapes  x [..., T] -> [..., n_fft // 2 + 1, frames], or [..., 2] more for power=0.
    Errors  ShapeError if power is negative.
    torchaudio's functional.spectrogram.
    """
    t = as_float(x)
    if power < 0:
        fail(ShapeError, "spectrogram: power must not be negative", got=repr(power))
    z = stft(
        pad_zeros(t, pad, dims=-1) if pad else t, n_fft, hop_length, window, center, normalized
    )
    if window_normalized:
        w = ones(n_fft, t.dtype) if window is None else as_tensor(window, t.dtype)
        z = z / sqrt(sum(w * w))
    if power == 0:
        return z
    epsilon = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}
    re, im = z[..., 0] + epsilon[t.type.dtype.name], z[..., 1]
    squares = re * re + im * im
    return squares if power == 2 else squares ** (power / 2)


def power_to_db(
    s: TensorLike, ref: float = 1.0, amin: float = 1e-10, top_db: float | None = 80.0
) -> Tensor:
    """Decibels of powers.

        y = 10*log10(max(s, amin)) - 10*log10(max(ref, amin)), at least max(y) - top_db

    top_db  None: no such bound.  The greatest is that of the whole tensor.
    librosa's power_to_db.
    """
    t = as_float(s)
    y = 10 * log10(maximum(t, amin)) - 10 * math.log10(max(ref, amin))
    return y if top_db is None else maximum(y, greatest(y) - top_db)


def db_to_power(s: TensorLike, ref: float = 1.0) -> Tensor:
    """ref * 10**(s/10): the inverse of `power_to_db`."""
    return ref * 10.0 ** (as_float(s) * 0.1)


def melscale_filterbanks(
    n_freqs: int,
    n_mels: int,
    sample_rate: float,
    fmin: float = 0.0,
    fmax: float | None = None,
    dtype: DTypeLike = "f32",
) -> np.ndarray:
    """Triangles over frequencies whose corners lie at equal distances on the mel scale.

        mel(f) = 2595*log10(1 + f/700)

    Shapes  a constant array [n_freqs, n_mels] for frequencies from 0 to sample_rate/2; the mel
            spectrogram is `filters.T @ spectrogram(...)`.
    fmax    sample_rate / 2 by default.  Areas are not normalised.
    torchaudio's functional.melscale_fbanks.
    """
    count = _length("melscale_filterbanks: n_freqs", n_freqs)
    bands = _length("melscale_filterbanks: n_mels", n_mels)
    top = sample_rate / 2 if fmax is None else fmax
    if not 0 <= fmin < top:
        fail(ShapeError, "melscale_filterbanks: 0 <= fmin < fmax", got=f"{fmin} and {top}")
    low, high = (2595 * math.log10(1 + f / 700) for f in (fmin, top))
    corners = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    slopes = corners[None] - np.linspace(0, sample_rate / 2, count)[:, None]
    up, down = -slopes[:, :-2] / np.diff(corners)[:-1], slopes[:, 2:] / np.diff(corners)[1:]
    return np.maximum(0, np.minimum(up, down)).astype(as_dtype(dtype).numpy)
