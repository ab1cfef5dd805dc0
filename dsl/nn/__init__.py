"""Layers, under Flux's names."""

from fluxc.module import Module, freeze, thaw
from fluxc.nn.basic import Chain, Dense, Embedding
from fluxc.nn.normalise import BatchNorm, Dropout, LayerNorm

__all__ = [
    "BatchNorm",
    "Chain",
    "Dense",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Module",
    "freeze",
    "thaw",
]
