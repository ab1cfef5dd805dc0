"""Layers, under Flux's names."""

from fluxc.module import Module, freeze, thaw
from fluxc.nn.attention import (
    KVCache,
    MultiHeadAttention,
    PositionEmbedding,
    RotaryEmbedding,
    SinusoidalEmbedding,
)
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
from fluxc.nn.transformer import (
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)

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
    "KVCache",
    "LayerNorm",
    "MaxPool",
    "MeanPool",
    "Module",
    "MultiHeadAttention",
    "PositionEmbedding",
    "RotaryEmbedding",
    "SamePad",
    "SinusoidalEmbedding",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "flatten",
    "freeze",
    "thaw",
]
