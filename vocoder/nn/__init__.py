"""Networks: convolution stacks, pitch, the harmonic source, the parts of WaveNet."""

from .networks import ConvNeXtBlock, GatedConvStack, fuse_weight_norm
from .source import BandScale, MelSource, SourceFilter, WhiteSource

__all__ = [
    "BandScale",
    "ConvNeXtBlock",
    "GatedConvStack",
    "MelSource",
    "SourceFilter",
    "WhiteSource",
    "fuse_weight_norm",
]
