"""Networks: convolution stacks, pitch, the harmonic source, the distribution of samples."""

from .mixture import LogisticMixture
from .networks import (
    CausalGatedStack,
    ConvNeXtBlock,
    GatedConvStack,
    LinearUpsampling,
    fuse_weight_norm,
)
from .source import BandScale, MelSource, SourceFilter, WhiteSource

__all__ = [
    "BandScale",
    "CausalGatedStack",
    "ConvNeXtBlock",
    "GatedConvStack",
    "LinearUpsampling",
    "LogisticMixture",
    "MelSource",
    "SourceFilter",
    "WhiteSource",
    "fuse_weight_norm",
]
