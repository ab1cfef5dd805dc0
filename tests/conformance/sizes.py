"""Sizes of what layers return, of their weights, and how many parameters they have."""

# ruff: noqa: E501 (runners of one signature; a row of a table is one line)

import numpy as np

import fluxc as fx
from conformance.cases import Stated, covers, julia_shape
from fluxc import nn

C, CT = nn.Conv, nn.ConvTranspose

# fmt: off
RETURNED = {
    # Pads of single axes are those of Julia's axes from the last to the first.
    "outputsize Conv((3,3),3=>16)": C((3, 3), 3, 16),
    "outputsize Conv((3,3),3=>16; stride=2)": C((3, 3), 3, 16, stride=2),
    "outputsize Conv((3,3),3=>16; stride=2,pad=3)": C((3, 3), 3, 16, stride=2, pad=3),
    "outputsize Conv((3,3),3=>16; stride=2,pad=3,dilation=2)": C((3, 3), 3, 16, stride=2, pad=3, dilation=2),
    "outputsize ConvTranspose((3,3),3=>16)": CT((3, 3), 3, 16),
    "outputsize ConvTranspose((3,3),3=>16; stride=2)": CT((3, 3), 3, 16, stride=2),
    "outputsize ConvTranspose((3,3),3=>16; stride=2,pad=3,dilation=2)": CT((3, 3), 3, 16, stride=2, pad=3, dilation=2),
    "outputsize DepthwiseConv((3,3),3=>6)": nn.DepthwiseConv((3, 3), 3, 6),
    "outputsize AdaptiveMaxPool((2,2))": nn.AdaptiveMaxPool((2, 2)),
    "outputsize GlobalMaxPool()": nn.GlobalMaxPool(),
    "outputsize MaxPool((2,2); stride=2,pad=3)": nn.MaxPool((2, 2), stride=2, pad=3),
    "outputsize Chain conv+BN+flatten+Dense": nn.Chain(C((3, 3), 3, 16), nn.BatchNorm(16), nn.flatten, nn.Dense(1024, 10)),
    "layer output size doc Conv((5,5),3=>7; stride=2)": C((5, 5), 3, 7, stride=2),
    "layer output size doc Conv((5,5),3=>7; stride=2, pad=SamePad())": C((5, 5), 3, 7, stride=2, pad=nn.SamePad()),
    "layer output size doc Conv((1,1),3=>7; pad=(20,10,0,0))": C((1, 1), 3, 7, pad=(0, 0, 20, 10)),
    "layer output size doc Conv((5,5),3=>7; stride=2, dilation=4)": C((5, 5), 3, 7, stride=2, dilation=4),
    "layer output size doc ConvTranspose((5,5),3=>7, stride=2)": CT((5, 5), 3, 7, stride=2),
    "layer output size doc ConvTranspose((5,5),3=>7, stride=2, outpad=1)": CT((5, 5), 3, 7, stride=2, outpad=1),
    "layer output size doc ConvTranspose((5,5),3=>7, stride=3, pad=SamePad())": CT((5, 5), 3, 7, stride=3, pad=nn.SamePad()),
    "layer output size doc CrossCor((5,5),3=>7, stride=3, pad=(2,0))": nn.CrossCor((5, 5), 3, 7, stride=3, pad=(0, 2)),
}
# fmt: on


def size_of(layer, *inputs):
    """What a layer makes of Julia's sizes, as Julia's sizes."""
    return julia_shape(fx.outputsize(layer, *(tuple(julia_shape(s)) for s in inputs)))


@covers(*RETURNED)
def returned(case):
    return size_of(RETURNED[case.what], case.args["input"])


@covers("outputsize Parallel two inputs")
def returned_of_several(case):
    joined = lambda a, b: fx.concatenate([a, b], axis=-1)
    layer = nn.Parallel(joined, nn.Dense(2, 4, fx.relu), nn.Dense(3, 6, fx.relu))
    return size_of(layer, *case.args["inputs"])


@covers("Dense batch dims")
def returned_of_batches(case):
    return {"y_shapes": [size_of(nn.Dense(10, 5), s) for s in case.args["x_shapes"]]}


def weight_shape(layer):
    return julia_shape(layer.weight.type.shape)


@covers("ConvTranspose weight shape with groups")
def transposed_weights(case):
    shapes = {
        "ConvTranspose((3,3),2=>4)": nn.ConvTranspose((3, 3), 2, 4),
        "ConvTranspose((3,3),2=>4,groups=2)": nn.ConvTranspose((3, 3), 2, 4, groups=2),
    }
    return Stated({k: weight_shape(v) for k, v in shapes.items()}, case.args["layers"])


@covers("Conv weight shape with groups")
def grouped_weights(case):
    layer = nn.Conv((3, 3), 100, 25, groups=5)
    y = size_of(layer, (28, 28, 100, 2))
    return Stated([weight_shape(layer), y], list(case.args.values()))


COUNTED = {
    "Dense(5=>2)": nn.Dense(5, 2),
    "Bilinear((5,5)=>7)": nn.Bilinear((5, 5), 7),
    "RNN(4=>6)": nn.RNN(4, 6),
    "LSTMCell(3=>5)": nn.LSTMCell(3, 5),
    "GRUCell(3=>5)": nn.GRUCell(3, 5),
    "Conv((5,5),3=>7,bias=false)": nn.Conv((5, 5), 3, 7, bias=False),
    "ConvTranspose((5,5),3=>7)": nn.ConvTranspose((5, 5), 3, 7),
    "DepthwiseConv((5,5),3=>6,bias=false)": nn.DepthwiseConv((5, 5), 3, 6, bias=False),
}


@covers("parameter count*")
def parameter_count(case):
    parameters = nn.trainables(COUNTED[case.what.removeprefix("parameter count ")])
    return sum(int(np.prod(p.type.shape)) for p in parameters)
