"""Layers, under Flux's names."""

from fluxc.module import Module, freeze, thaw
from fluxc.nn.basic import Chain, Dense, Embedding
from fluxc.nn.convolution import (
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    Conv,
    ConvTranspose,
    CrossCor,
    DepthwiseConv,
    GlobalMaxPool,
    GlobalMeanPool,
    MaxPool,
    MeanPool,
    SamePad,
    flatten,
)
from fluxc.nn.normalise import BatchNorm, Dropout, LayerNorm

__all__ = [
    "AdaptiveMaxPool",
    "AdaptiveMeanPool",
    "BatchNorm",
    "Chain",
    "Conv",
    "ConvTranspose",
    "CrossCor",
    "Dense",
    "DepthwiseConv",
    "Dropout",
    "Embedding",
    "GlobalMaxPool",
    "GlobalMeanPool",
    "LayerNorm",
    "MaxPool",
    "MeanPool",
    "Module",
    "SamePad",
    "flatten",
    "freeze",
    "thaw",
]
