"""Convolution, pooling, padding: NNlib's functions of images."""

import numpy as np

import fluxc as fx
from conformance.cases import CASES, array, counting, covers, images, julia_shape
from dsl import run


def per_axis(value):
    return tuple(reversed(value)) if isinstance(value, list) else value


def options(args):
    return {k: per_axis(args[k]) for k in ("stride", "pad", "dilation") if k in args}


@covers("conv1d/*", "conv2d/*", "conv3d/*")
def conv(case):
    a = case.args
    x, w = counting(a["x_spatial_shape"]), counting(a["w_spatial_shape"])
    flip = not a.get("flipped", False)
    return run(lambda x, w: fx.conv(x, w, flip=flip, **options(a)), x, w)[0, 0]


def filled(text):
    """An image from words: "1..20 col-major, shape [5, 4]"."""
    return counting([int(n) for n in text.split("[")[1].rstrip("]").split(",")])


@covers("conv1d grad/*", "conv2d grad/*")
def conv_gradient(case):
    """The cotangent is the result itself."""
    x, w = filled(case.args["x"]), filled(case.args["w"])

    def gradient(x, w):
        f = lambda x, w: fx.conv(x, w, flip=True, **options(case.args["options"]))
        y, pull = fx.vjp(f, x, w)
        return pull(y)

    dx, dw = run(gradient, x, w)
    return (dx if case.name.startswith("d_input") else dw)[0, 0]


@covers("convdims/*")
def conv_sizes(case):
    a = case.args
    shapes = [tuple(julia_shape(a[k])) for k in ("x_shape", "w_shape")]
    y = fx.outputsize(lambda x, w: fx.conv(x, w, **options(a)), *shapes)
    return julia_shape(y[2:])


# ---- pooling


def pooled(f, x, a):
    k = a["window"]
    return run(lambda x: f(x, (k,) * (x.ndim - 2), **options(a)), x)[0, 0]


@covers("maxpool1d/*", "maxpool2d/*", "meanpool1d/window*", "meanpool2d/*")
def pool(case):
    f = getattr(fx, case.what.split("/")[0][:-2])
    return pooled(f, counting(case.args["x_shape"]), case.args)


@covers("meanpool1d/grad")
def meanpool_gradient(case):
    a = case.args

    def gradient(x):
        y, pull = fx.vjp(lambda x: fx.meanpool(x, a["window"], **options(a)), x)
        return pull(y)[0]

    return run(gradient, images(a["x"]))[0, 0]


@covers("lpnormpool1d*", "lpnormpool2d*")
def lpnormpool(case):
    a = case.args
    x = counting(a["x_shape"]) if "x_shape" in a else images(a["x"])
    return pooled(lambda x, k, **o: fx.lpnormpool(x, a["p"], k, **o), x, a)


@covers("pool/output sizes")
def pool_sizes(case):
    x, k = tuple(julia_shape(case.args["x_shape"])), tuple(case.args["window"])
    size = lambda **o: julia_shape(fx.outputsize(lambda x: fx.maxpool(x, k, **o), x))
    return {"default": size(), "pad1_stride2": size(pad=1, stride=2)}


# ---- padding


@covers("pad_repeat*", "pad_reflect*", "pad_symmetric*", "pad_circular*", "pad_constant (*")
def pad(case):
    a = case.args
    f = getattr(fx, case.name)
    dims = tuple(-d for d in a.get("dims", range(1, len(a["pad"]) // 2 + 1)))
    value = [a["value"]] if "value" in a else []
    return run(lambda x: f(x, tuple(a["pad"]), *value, dims=dims), array(a["x"]))


@covers("pad_constant sizes")
def pad_sizes(case):
    pad = per_axis(case.args["pad"])
    y = fx.outputsize(lambda x: fx.pad_constant(x, pad), tuple(case.args["x_shape"]))
    return julia_shape(y)


# ---- patches


@covers("unfold 1D*")
def unfold(case):
    a = case.args
    x, k = images(a["x"]), a["kernel"][0]
    return run(lambda x: fx.unfold(x, k, stride=a["stride"], pad=a["pad"]), x)[0]


@covers("conv with flipped=true equals unfold*w")
def conv_is_a_product(case):
    a = case.args
    x, w = images(a["x"]), images(a["w"])
    direct = run(lambda x, w: fx.conv(x, w, stride=a["stride"], pad=a["pad"]), x, w)[0, 0]
    patches = unfold(CASES["unfold 1D k=3 pad=1 stride=2 flipped=true"])
    np.testing.assert_array_equal(direct, w[0, 0] @ patches)
    return direct


@covers("fold(unfold(x)) accumulates")
def fold(case):
    x, k = images(case.args["x"]), case.args["kernel"][0]
    return run(lambda x: fx.fold(fx.unfold(x, k), x.shape[2:], k), x)[0, 0]


@covers("unfold sizes")
def unfold_sizes(case):
    x = tuple(julia_shape(case.args["x_shape"]))
    k = tuple(case.args["kernel_shape"][:2])
    size = lambda **o: julia_shape(fx.outputsize(lambda x: fx.unfold(x, k, **o), x))
    sizes = {f"{name}=2": size(**{name: 2}) for name in ("pad", "stride", "dilation")}
    return {"default": size(), **sizes}
