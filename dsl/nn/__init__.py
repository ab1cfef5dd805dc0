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
from fluxc.nn.cells import GRUCell, GRUv3Cell, LSTMCell, RNNCell, initialstates
from fluxc.nn.combine import (
    Chain,
    Maxout,
    PairwiseFusion,
    Parallel,
    SkipConnection,
    activations,
)
from fluxc.nn.convolution import Conv, ConvTranspose, CrossCor, DepthwiseConv, SamePad, flatten
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
from fluxc.nn.padding import CircularPad, ConstantPad, ReflectionPad, ReplicationPad, ZeroPad
from fluxc.nn.pooling import (
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    FractionalMaxPool,
    GlobalLPPool,
    GlobalMaxPool,
    GlobalMeanPool,
    LPPool,
    MaxPool,
    MaxUnpool,
    MeanPool,
)
from fluxc.nn.precision import bf16, cast, f16, f32, f64
from fluxc.nn.recurrent import GRU, LSTM, RNN, Bidirectional, GRUv3, Recurrence, Stacked
from fluxc.nn.resample import PixelShuffle, PixelUnshuffle, Upsample
from fluxc.nn.shapes import autosize, outputsize, sized
from fluxc.nn.transformer import (
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)
from fluxc.nn.weight_norm import WeightNorm, remove_weight_norms
from fluxc.rebuild import destructure

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveMaxPool",
    "AdaptiveMeanPool",
    "AlphaDropout",
    "BatchNorm",
    "Bidirectional",
    "Bilinear",
    "Chain",
    "CircularPad",
    "ConstantPad",
    "Conv",
    "ConvTranspose",
    "CrossCor",
    "Dense",
    "DepthwiseConv",
    "Dropout",
    "Embedding",
    "EmbeddingBag",
    "FractionalMaxPool",
    "GRUCell",
    "GRUv3",
    "GRUv3Cell",
    "GlobalLPPool",
    "GlobalMaxPool",
    "GlobalMeanPool",
    "GroupNorm",
    "InstanceNorm",
    "KVCache",
    "LPPool",
    "LSTMCell",
    "LayerNorm",
    "LocalResponseNorm",
    "MaxPool",
    "MaxUnpool",
    "Maxout",
    "MeanPool",
    "Module",
    "MultiHeadAttention",
    "PairwiseFusion",
    "Parallel",
    "PixelShuffle",
    "PixelUnshuffle",
    "PositionEmbedding",
    "RMSNorm",
    "RNNCell",
    "Recurrence",
    "ReflectionPad",
    "ReplicationPad",
    "RotaryEmbedding",
    "SamePad",
    "Scale",
    "SinusoidalEmbedding",
    "SkipConnection",
    "Stacked",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "Upsample",
    "WeightNorm",
    "ZeroPad",
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
    "initialstates",
    "modules",
    "outputsize",
    "remove_weight_norms",
    "sized",
    "testmode",
    "thaw",
    "trainables",
    "trainmode",
]
