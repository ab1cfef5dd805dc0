"""Golden values of convolution and pooling, with gradients, from PyTorch.

`python tests/golden/convolution.py` writes convolution.npz beside this file and needs PyTorch; the
tests need the file alone.  A case is a function of fluxc, its keywords, and shapes.  For each the
file holds the result and the gradients of `sum(result * seed)` by every operand.
"""

# ruff: noqa: E501  (a row of a table is one line)

from pathlib import Path

import numpy as np
import record

FILE = Path(__file__).with_suffix(".npz")


def _case(function, *shapes, ties=False, **options):
    return {"function": function, "shapes": shapes, "options": options, "ties": ties}


CASES = {
    "line": _case("conv", (3, 4, 11), (6, 4, 3), stride=2, pad=1, dilation=2),
    "line_groups": _case("conv", (2, 6, 9), (4, 3, 4), groups=2, pad=2),
    "line_one": _case("conv", (1, 1, 1), (1, 1, 1)),
    "image": _case("conv", (2, 3, 9, 8), (5, 3, 3, 3)),
    "image_steps": _case("conv", (2, 3, 10, 11), (4, 3, 3, 2), stride=(2, 3), pad=(1, 2), dilation=(1, 2)),
    "image_groups": _case("conv", (2, 4, 7, 6), (6, 2, 3, 3), groups=2, stride=2, pad=1),
    "image_depthwise": _case("conv", (2, 5, 8, 7), (10, 1, 3, 3), groups=5, pad=1),
    "image_sides": _case("conv", (2, 3, 6, 7), (4, 3, 3, 2), pad=(2, 0, 1, 3)),
    "image_wide": _case("conv", (1, 8, 17, 19), (20, 8, 3, 3), pad=1),
    "image_wide_steps": _case("conv", (1, 9, 19, 18), (17, 9, 3, 3), pad=1, stride=2),
    "image_wide_groups": _case("conv", (1, 16, 9, 21), (24, 8, 5, 3), pad=(2, 1), groups=2),
    "image_points": _case("conv", (2, 12, 6, 7), (18, 12, 1, 1)),
    "image_points_steps": _case("conv", (2, 12, 7, 6), (18, 12, 1, 1), stride=2),
    "image_whole": _case("conv", (3, 8, 4, 5), (9, 8, 4, 5)),
    "image_padding_alone": _case("conv", (2, 2, 2, 2), (3, 2, 2, 2), stride=3, pad=3),
    "image_empty_batch": _case("conv", (0, 3, 6, 7), (4, 3, 3, 3), pad=1),
    "image_one": _case("conv", (1, 1, 1, 1), (1, 1, 1, 1), pad=1),
    "volume": _case("conv", (2, 2, 5, 4, 6), (3, 2, 2, 3, 2), pad=1),
    "volume_steps": _case("conv", (2, 4, 6, 5, 7), (6, 2, 3, 2, 2), groups=2, stride=(2, 1, 3), pad=(1, 0, 1), dilation=(1, 2, 1)),
    "back_line": _case("conv_transpose", (2, 3, 6), (3, 4, 3), stride=2, pad=1),
    "back_image": _case("conv_transpose", (2, 4, 5, 4), (4, 3, 3, 3)),
    "back_image_steps": _case("conv_transpose", (2, 4, 5, 4), (4, 3, 3, 2), stride=(2, 3), pad=(1, 0), outpad=(1, 2)),
    "back_image_groups": _case("conv_transpose", (2, 4, 4, 3), (4, 3, 2, 3), stride=2, groups=2, dilation=(2, 1), pad=1, outpad=1),
    "back_image_wide": _case("conv_transpose", (1, 16, 9, 10), (16, 12, 4, 4), stride=2, pad=1),
    "back_volume": _case("conv_transpose", (1, 2, 3, 4, 2), (2, 3, 2, 2, 3), stride=2, pad=(1, 0, 1)),
    "max_line": _case("maxpool", (2, 3, 10), k=3, stride=2, pad=1),
    "max_image": _case("maxpool", (2, 3, 9, 8), k=2),
    "max_image_steps": _case("maxpool", (2, 3, 11, 10), k=(3, 2), stride=(2, 1), pad=(1, 1), dilation=(2, 3)),
    "max_image_over": _case("maxpool", (2, 2, 7, 9), k=3, stride=1, pad=1),
    "max_image_ties": _case("maxpool", (2, 2, 9, 8), k=3, stride=2, pad=1, ties=True),
    "max_volume": _case("maxpool", (2, 2, 5, 6, 4), k=2, stride=(1, 2, 2), pad=(1, 0, 1)),
    "mean_line": _case("meanpool", (2, 3, 10), k=3, stride=2, pad=1),
    "mean_image": _case("meanpool", (2, 3, 9, 8), k=(2, 3)),
    "mean_image_over": _case("meanpool", (2, 2, 7, 9), k=3, stride=1, pad=1),
    "mean_image_inside": _case("meanpool", (2, 2, 7, 9), k=3, stride=2, pad=1, count_include_pad=False),
    "mean_volume": _case("meanpool", (2, 2, 5, 6, 4), k=2, stride=(1, 2, 2), pad=(1, 0, 1)),
    "adaptive_max": _case("adaptive_maxpool", (2, 3, 7, 9), out=(3, 4)),
    "adaptive_mean": _case("adaptive_meanpool", (2, 3, 7, 9), out=(3, 4)),
    "adaptive_mean_whole": _case("adaptive_meanpool", (2, 3, 6, 9), out=(3, 3)),
}  # fmt: skip


def inputs(name):
    """The operands of a case; with ties, a few small integers."""
    rng = record.generator(name)
    case = CASES[name]
    draw = (lambda s: rng.integers(0, 3, s)) if case["ties"] else (lambda s: rng.normal(size=s))
    return [draw(shape).astype(np.float32) for shape in case["shapes"]]


def seed(name, shape):
    """What the result is multiplied by before it is summed and differentiated."""
    return record.seed(name, shape).astype(np.float32)


def apply(torch, name, xs):
    f = torch.nn.functional
    options, rank = dict(CASES[name]["options"]), xs[0].ndim - 2
    match CASES[name]["function"]:
        case "conv":
            sides = options.pop("pad", 0)
            if isinstance(sides, tuple) and len(sides) == 2 * rank and rank > 1:
                pairs = [(sides[2 * i], sides[2 * i + 1]) for i in range(rank)]
                xs = [f.pad(xs[0], [p for pair in pairs[::-1] for p in pair]), *xs[1:]]
                sides = 0
            convolve = (f.conv1d, f.conv2d, f.conv3d)[rank - 1]
            return convolve(*xs, padding=sides, **options)
        case "conv_transpose":
            names = {"pad": "padding", "outpad": "output_padding"}
            options = {names.get(key, key): value for key, value in options.items()}
            back = (f.conv_transpose1d, f.conv_transpose2d, f.conv_transpose3d)[rank - 1]
            return back(*xs, **options)
        case "maxpool" | "meanpool" as kind:
            largest = (f.max_pool1d, f.max_pool2d, f.max_pool3d)[rank - 1]
            mean = (f.avg_pool1d, f.avg_pool2d, f.avg_pool3d)[rank - 1]
            pool = largest if kind == "maxpool" else mean
            names = {"k": "kernel_size", "pad": "padding"}
            return pool(*xs, **{names.get(key, key): value for key, value in options.items()})
        case "adaptive_maxpool":
            return f.adaptive_max_pool2d(*xs, options["out"])
    return f.adaptive_avg_pool2d(*xs, options["out"])


def main():
    record.record(FILE, CASES, inputs, apply, seed=seed, dtype=np.float32)


if __name__ == "__main__":
    main()
