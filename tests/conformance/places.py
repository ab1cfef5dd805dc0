"""Resampling, sampling at places, gather and scatter, attention: more of NNlib."""

# ruff: noqa: ARG001 (runners of one signature)

import numpy as np

import fluxc as fx
from conformance.cases import CASES, array, covers, dtype_of, images
from dsl import run


@covers("upsample_nearest (3,3) first row")
def nearest(case):
    a = case.args
    return run(lambda x: fx.upsample_nearest(x, tuple(a["scale"])), images(a["x"]))[0, 0, :, 0]


@covers("upsample_nearest gradient*")
def nearest_gradient(case):
    scale = tuple(reversed(case.args["scale"]))

    def gradient(x):
        y, pull = fx.vjp(lambda x: fx.upsample_nearest(x, scale), x)
        return pull(y)[0]

    return run(gradient, images([[1, 2], [3, 4]]))[0, 0]


@covers("upsample_linear 1D*", "upsample_bilinear (3,2)", "upsample_bilinear scale 2.5*",
        "upsample_bilinear integer*", "upsample_bilinear doc*")  # fmt: skip
def linear(case):
    a = case.args
    f, scale = getattr(fx, case.name), a["scale"]
    scale = tuple(reversed(scale)) if isinstance(scale, list) else scale
    x = array(a["x"], dtype_of(a))[None, None]
    return run(lambda x: f(x, scale), x)[0, 0]


@covers("upsample_bilinear gradient of ones*")
def bilinear_gradient(case):
    size = tuple(reversed(case.args["size"]))
    f = lambda x: fx.upsample_bilinear(x, size=(4, 6)).sum()
    return run(fx.grad(f), np.zeros((1, 1, *size)))[0, 0]


@covers("upsample_trilinear depth ramp")
def trilinear(case):
    """Julia's depth, its third axis, is the first of the spatial ones here."""
    x = np.broadcast_to(np.arange(1.0, 4)[:, None, None], (1, 1, 3, 3, 3))
    y = run(lambda x: fx.upsample_trilinear(x, size=tuple(case.args["size"])), x)[0, 0]
    assert (y == y[:, :1, :1]).all()
    return {"depth_values": y[:, 0, 0]}


@covers("pixel_shuffle*")
def pixel_shuffle(case):
    return run(lambda x: fx.pixel_shuffle(x, case.args["r"]), array(case.args["x"]))


@covers("imrotate*")
def imrotate(case):
    a = case.args
    centre = tuple(n - 1 for n in reversed(a["rotation_center"]))
    f = lambda x: fx.imrotate(x, a["theta"], rotation_center=centre)
    return run(f, images(a["x"]))[0, 0]


def grid(case):
    value = case.args["grid_xy"]
    return array(CASES["grid_sample zeros"].args["grid_xy"] if value == "same grid" else value)


@covers("grid_sample zeros", "grid_sample border")
def grid_sample(case):
    mode = case.args["padding_mode"]
    f = lambda x, g: fx.grid_sample(x, g, padding_mode=mode)
    return run(f, images(case.args["input"]), grid(case))[0, 0]


@covers("grid_sample gradient zeros mode")
def grid_sample_gradient(case):
    x = np.ones((1, 1, 2, 2))
    corners = np.array([[-1.0, -1], [1, -1], [-1, 1], [1, 1]]).reshape(1, 2, 2, 2)

    def gradients(mode):
        total = lambda x, g: fx.grid_sample(x, g, padding_mode=mode).sum()
        return run(fx.grad(total, (0, 1)), x, corners)

    assert not gradients("border")[1].any()
    dx, dgrid = gradients("zeros")
    return {"d_input": dx[0, 0], "d_grid_colmajor_2x2x2": dgrid.ravel()}


# ---- gather and scatter


@covers("gather 1-D*", "gather 2-D*")
def gather(case):
    return run(fx.gather, array(case.args["src"]), array(case.args["idx"], np.int64) - 1)


@covers("gather tuple index")
def gather_tuples(case):
    j, i = array(case.args["idx_tuples"], np.int64)[::-1] - 1
    return run(lambda x, j, i: fx.gather(x, (j, i)), array(case.args["src"]), j, i)


@covers("gather IJ vectors")
def gather_vectors(case):
    i, j = (array(case.args[k], np.int64) - 1 for k in "IJ")
    src = np.arange(1.0, 16).reshape(5, 3)
    return run(lambda x, j, i: fx.gather(x, (j, i)), src, j, i)


REDUCTIONS = {"+": "add", "-": "sub", "*": "mul", "/": "div"}


def reduction(args):
    op = args.get("op", "+")
    return REDUCTIONS.get(op, op)


def scatter_inputs(args):
    idx = array(args["idx"], np.int64) - 1
    src = np.ones(idx.shape) if isinstance(args["src"], str) else array(args["src"])
    return src, idx


@covers("scatter(*")
def scatter(case):
    src, idx = scatter_inputs(case.args)
    size = int(idx.max()) + 1
    return run(lambda u, i: fx.scatter(reduction(case.args), u, i, dstsize=size), src, idx)


@covers("scatter!(*")
def scatter_into(case):
    src, idx = scatter_inputs(case.args)
    f = lambda x, i, u: fx.scatter(x, i, u, reduction(case.args))
    return run(f, array(case.args["dst"]), idx, src)


# ---- attention


@covers("dot_product_attention*")
def attention(case):
    q = np.arange(1.0, 13).reshape(1, 3, 4) / 12
    f = lambda q: fx.dot_product_attention(q, q, q, nheads=case.args["nheads"])
    y, alpha = run(f, q)
    return y if case.what.endswith("output") else alpha
