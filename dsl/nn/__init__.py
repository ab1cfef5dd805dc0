"""Layers, under Flux's names."""

from fluxc.module import Module, freeze, modules, thaw, trainables
from fluxc.nn.attention import (
    KVCache,
    MultiHeadAttention,
    PositionEmbedding,
    RotaryEmbedding,
    SinusoidalEmbedding,
)
from fluxc.nn.basic import Bilinear, Dense, Scale
from fluxc.nn.combine import (
    Chain,
    Maxout,
    PairwiseFusion,
    Parallel,
    SkipConnection,
    activations,
)
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
from fluxc.nn.dropout import AlphaDropout, Dropout
from fluxc.nn.embed import Embedding, EmbeddingBag
from fluxc.nn.mode import testmode, trainmode
from fluxc.nn.normalise import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
    hasaffine,
)
from fluxc.nn.precision import bf16, cast, f16, f32, f64
from fluxc.nn.transformer import (
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from fluxc.nn.weight_norm import WeightNorm, remove_weight_norms
from fluxc.rebuild import destructure
from fluxc.shapes import autosize, outputsize, sized

__all__ = [
    "AdaptiveMaxPool",
    "AdaptiveMeanPool",
    "AlphaDropout",
    "BatchNorm",
    "Bilinear",
    "Chain",
    "Conv",
    "ConvTranspose",
    "CrossCor",
    "Dense",
    "DepthwiseConv",
    "Dropout",
    "Embedding",
    "EmbeddingBag",
    "GlobalMaxPool",
    "GlobalMeanPool",
    "GroupNorm",
    "InstanceNorm",
    "KVCache",
    "LayerNorm",
    "LocalResponseNorm",
    "MaxPool",
    "Maxout",
    "MeanPool",
    "Module",
    "MultiHeadAttention",
    "PairwiseFusion",
    "Parallel",
    "PositionEmbedding",
    "RMSNorm",
    "RotaryEmbedding",
    "SamePad",
    "Scale",
    "SinusoidalEmbedding",
    "SkipConnection",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "WeightNorm",
    "activations",
    "autosize",
    "bf16",
    "cast",
    "destructure",
    "f16",
    "f32",
    "f64",
    "flatten",
    "freeze",
    "hasaffine",
    "modules",
    "outputsize",
    "remove_weight_norms",
    "sized",
    "testmode",
    "thaw",
    "trainables",
    "trainmode",
]
