"""Golden values of pooling, padding, resampling, sampling, patches and transforms, from PyTorch.

`python tests/golden/spatial.py` writes spatial.npz beside this file and needs PyTorch; the tests
need the file alone.  A case has the shapes of its operands, a function of fluxc and one of PyTorch.
For each the file holds the result and the gradients of `sum(result * seed)` by every operand.
"""

# ruff: noqa: E501  (a row of a table is one line)

import zlib
from pathlib import Path

import numpy as np
import record
from record import seed  # noqa: F401  (tests take it from here)

FILE = Path(__file__).with_suffix(".npz")


def _pool(name, **options):
    return lambda fx, x: getattr(fx, name)(x, **options)


def _unpooled(fx, x, k, **options):
    y, at = fx.maxpool(x, k, return_indices=True, **options)
    return fx.maxunpool(y * y, at, k, size=x.shape[2:], **options)


def _torch_unpooled(t, x, k, **options):
    rank = x.ndim - 2
    f = t.nn.functional
    pool = (f.max_pool1d, f.max_pool2d, f.max_pool3d)[rank - 1]
    unpool = (f.max_unpool1d, f.max_unpool2d, f.max_unpool3d)[rank - 1]
    y, at = pool(x, k, return_indices=True, **options)
    return unpool(y * y, at, k, output_size=x.shape[2:], **options)


def _up(name, **options):
    return lambda fx, x: getattr(fx, "upsample_" + name)(x, **options)


def _torch_up(mode, **options):
    def function(t, x):
        given = dict(options)
        if "scale" in given:
            given["scale_factor"] = given.pop("scale")
        return t.nn.functional.interpolate(x, mode=mode, **given)

    return function


def _ups(name, shape, target, corners=(True, False)):
    """A case for each convention of corners."""
    mode = name.removeprefix("upsample_")
    for c in corners:
        yield f"{mode}_{'x'.join(map(str, shape[2:]))}_{'corners' if c else 'edges'}_{zlib.crc32(repr(target).encode()) % 1000}", (
            [shape], _up(mode, **target, align_corners=c), _torch_up(mode, **target, align_corners=c),
        )  # fmt: skip


def _grid(shape, places, **options):
    def ours(fx, x, g):
        return fx.grid_sample(x, 0.9 * g, **options)

    def theirs(t, x, g):
        return t.nn.functional.grid_sample(x, 0.9 * g, **options)

    return [shape, places], ours, theirs


def _f(name, **options):
    return lambda t, x: getattr(t.nn.functional, name)(x, **options)


WINDOW = np.hanning(9)[1:-1]


def _istft(fx, y, **options):
    return fx.istft(y, 8, 2, np.hanning(10)[1:-1], **options)


def _torch_istft(t, y, **options):
    window = t.tensor(np.hanning(10)[1:-1])
    return t.istft(t.view_as_complex(y.contiguous()), 8, 2, window=window, **options)


# name: shapes, by fluxc, by PyTorch.
CASES = {
    "max_ceil": ([(2, 3, 8, 11)], _pool("maxpool", k=3, stride=2, ceil_mode=True), _f("max_pool2d", kernel_size=3, stride=2, ceil_mode=True)),
    "max_ceil_pad": ([(1, 2, 7, 6)], _pool("maxpool", k=(2, 3), stride=(3, 2), pad=1, ceil_mode=True), _f("max_pool2d", kernel_size=(2, 3), stride=(3, 2), padding=1, ceil_mode=True)),
    "max_ceil_dilated": ([(2, 2, 12)], _pool("maxpool", k=3, stride=2, pad=1, dilation=2, ceil_mode=True), _f("max_pool1d", kernel_size=3, stride=2, padding=1, dilation=2, ceil_mode=True)),
    "max_ceil_drops": ([(1, 1, 4)], _pool("maxpool", k=2, stride=3, pad=1, ceil_mode=True), _f("max_pool1d", kernel_size=2, stride=3, padding=1, ceil_mode=True)),
    "mean_ceil": ([(2, 3, 8, 11)], _pool("meanpool", k=3, stride=2, ceil_mode=True), _f("avg_pool2d", kernel_size=3, stride=2, ceil_mode=True)),
    "mean_ceil_pad": ([(1, 2, 7, 6)], _pool("meanpool", k=(2, 3), stride=(3, 2), pad=1, ceil_mode=True), _f("avg_pool2d", kernel_size=(2, 3), stride=(3, 2), padding=1, ceil_mode=True)),
    "mean_ceil_inside": ([(1, 2, 7, 6)], _pool("meanpool", k=(2, 3), stride=(3, 2), pad=1, ceil_mode=True, count_include_pad=False), _f("avg_pool2d", kernel_size=(2, 3), stride=(3, 2), padding=1, ceil_mode=True, count_include_pad=False)),
    "mean_ceil_volume": ([(1, 2, 4, 5, 3)], _pool("meanpool", k=2, ceil_mode=True), _f("avg_pool3d", kernel_size=2, ceil_mode=True)),
    "lp": ([(2, 3, 8, 7)], lambda fx, x: fx.lpnormpool(abs(x) + 0.1, 3, 2, stride=(2, 1)), lambda t, x: t.nn.functional.lp_pool2d(abs(x) + 0.1, 3, 2, stride=(2, 1))),
    "lp_root": ([(2, 3, 8)], lambda fx, x: fx.lpnormpool(abs(x) + 0.1, 2.5, 3), lambda t, x: t.nn.functional.lp_pool1d(abs(x) + 0.1, 2.5, 3)),
    "unpool": ([(2, 3, 9, 8)], lambda fx, x: _unpooled(fx, x, 2), lambda t, x: _torch_unpooled(t, x, 2)),
    "unpool_volume": ([(1, 2, 4, 5, 6)], lambda fx, x: _unpooled(fx, x, (2, 2, 3)), lambda t, x: _torch_unpooled(t, x, (2, 2, 3))),
    "adaptive_line": ([(2, 3, 11)], _pool("adaptive_meanpool", out=4), _f("adaptive_avg_pool1d", output_size=4)),
    "adaptive_more": ([(1, 2, 3, 2)], _pool("adaptive_maxpool", out=(5, 4)), _f("adaptive_max_pool2d", output_size=(5, 4))),
    "adaptive_volume": ([(1, 2, 5, 4, 3)], _pool("adaptive_meanpool", out=(2, 4, 2)), _f("adaptive_avg_pool3d", output_size=(2, 4, 2))),
    "fractional": ([(2, 3, 9, 8)], lambda fx, x: fx.fractional_maxpool(x, (2, 3), (4, 3), SAMPLES), lambda t, x: t.nn.functional.fractional_max_pool2d(x, (2, 3), (4, 3), _random_samples=t.tensor(SAMPLES[..., ::-1].copy()))),
    "pad_reflect": ([(2, 3, 5, 4)], lambda fx, x: fx.pad_reflect(x, (1, 2, 3, 0)), lambda t, x: t.nn.functional.pad(x, (3, 0, 1, 2), "reflect")),
    "pad_repeat": ([(2, 3, 1, 4)], lambda fx, x: fx.pad_repeat(x, (1, 2, 5, 0)), lambda t, x: t.nn.functional.pad(x, (5, 0, 1, 2), "replicate")),
    "pad_circular": ([(2, 3, 5, 4, 2)], lambda fx, x: fx.pad_circular(x, (1, 2, 3, 0, 2, 1)), lambda t, x: t.nn.functional.pad(x, (2, 1, 3, 0, 1, 2), "circular")),
    "pad_constant": ([(2, 3, 5, 4)], lambda fx, x: fx.pad_constant(x, (1, 2, 3, 0), 7, dims=(2, 3)), lambda t, x: t.nn.functional.pad(x, (3, 0, 1, 2), value=7)),
    "nearest_whole": ([(2, 3, 4, 5)], _up("nearest", scale=(2, 3)), _torch_up("nearest", scale=(2.0, 3.0))),
    "nearest_size": ([(2, 3, 4, 7)], _up("nearest", size=(7, 5)), _torch_up("nearest", size=(7, 5))),
    "nearest_less": ([(2, 1, 9, 8, 3)], _up("nearest", size=(3, 5, 7)), _torch_up("nearest", size=(3, 5, 7))),
    **dict(_ups("linear", (2, 3, 7), {"scale": 2})),
    **dict(_ups("linear", (2, 3, 13), {"size": 5})),
    **dict(_ups("linear", (2, 1, 1), {"size": 5})),
    **dict(_ups("linear", (1, 2, 3), {"size": 40})),
    **dict(_ups("bilinear", (2, 3, 4, 5), {"size": (9, 7)})),
    **dict(_ups("bilinear", (2, 3, 8, 1), {"size": (3, 1)})),
    **dict(_ups("bilinear", (2, 3, 4, 6), {"scale": 1.5})),
    **dict(_ups("trilinear", (1, 2, 3, 4, 2), {"size": (5, 3, 7)})),
    **dict(_ups("bicubic", (2, 3, 4, 5), {"size": (9, 7)})),
    **dict(_ups("bicubic", (1, 2, 9, 1), {"size": (4, 6)})),
    "shuffle": ([(2, 12, 3, 5)], lambda fx, x: fx.pixel_shuffle(x, 2), lambda t, x: t.nn.functional.pixel_shuffle(x, 2)),
    "unshuffle": ([(2, 3, 6, 9)], lambda fx, x: fx.pixel_unshuffle(x, 3), lambda t, x: t.nn.functional.pixel_unshuffle(x, 3)),
    "unfold": ([(2, 3, 7, 6)], lambda fx, x: fx.unfold(x, (3, 2), stride=(2, 1), pad=(1, 2), dilation=(1, 2)), lambda t, x: t.nn.functional.unfold(x, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))),
    "fold": ([(2, 18, 12)], lambda fx, x: fx.fold(x, (5, 6), (3, 2), stride=(2, 1), pad=(1, 0), dilation=(1, 2)), lambda t, x: t.nn.functional.fold(x, (5, 6), (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))),
    **{
        f"grid_{mode}_{border}_{'corners' if corners else 'edges'}": _grid((2, 3, 5, 4), (2, 3, 6, 2), mode=mode, padding_mode=border, align_corners=corners)
        for mode in ("bilinear", "nearest") for border in ("zeros", "border", "reflection") for corners in (True, False)
    },
    "grid_volume": _grid((2, 2, 3, 4, 5), (2, 2, 3, 2, 3), padding_mode="reflection", align_corners=True),
    "grid_one": _grid((1, 2, 1, 3), (1, 2, 2, 2), padding_mode="reflection", align_corners=True),
    "affine": ([(2, 2, 3)], lambda fx, x: fx.affine_grid(x, (2, 1, 4, 5)), lambda t, x: t.nn.functional.affine_grid(x, (2, 1, 4, 5), align_corners=True)),
    "affine_edges": ([(2, 3, 4)], lambda fx, x: fx.affine_grid(x, (3, 1, 2), False), lambda t, x: t.nn.functional.affine_grid(x, (2, 1, 3, 1, 2), align_corners=False)),
    "stft": ([(2, 37)], lambda fx, x: fx.stft(x, 16, 5, WINDOW), lambda t, x: t.view_as_real(t.stft(x, 16, 5, 7, t.tensor(WINDOW), return_complex=True))),
    "stft_plain": ([(30,)], lambda fx, x: fx.stft(x, 7, center=False, normalized=True), lambda t, x: t.view_as_real(t.stft(x, 7, 1, window=t.ones(7, dtype=x.dtype), center=False, normalized=True, return_complex=True))),
    "istft": ([(2, 5, 11, 2)], _istft, _torch_istft),
    "istft_length": ([(5, 9, 2)], lambda fx, y: _istft(fx, y, normalized=True, original_length=19), lambda t, y: _torch_istft(t, y, normalized=True, length=19)),
}  # fmt: skip
SAMPLES = np.random.default_rng(4).uniform(size=(2, 3, 2))


def inputs(name):
    """The operands of a case."""
    return record.normal(name, CASES[name][0])


def main():
    record.record(
        FILE, CASES, inputs, lambda torch, name, xs: CASES[name][2](torch, *xs), dtype=np.float32
    )


if __name__ == "__main__":
    main()
