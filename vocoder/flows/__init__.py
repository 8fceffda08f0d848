"""The mathematics of normalizing flows: invertible pieces under one contract, and no audio.

Every piece is a `Bijection`: ``forward(x, condition) -> (z, log_det)`` and
``inverse(z, condition) -> x``.
"""

from .bijection import Bijection, Chain, FactorOut, log_density
from .coupling import (
    AdditiveCoupling,
    AffineCoupling,
    AlternatingFrames,
    ChannelHalves,
    ChannelMask,
    Checkerboard,
    ConditionalScale,
    Partition,
)
from .linear import Conv1x1Init, FusedConv1x1, InvertibleConv1x1, Swap, initial_matrix
from .mdct import Mdct
from .normalization import ActNorm, BatchNorm
from .source_filter import SourceFilter
from .squeeze import Squeeze

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AlternatingFrames",
    "BatchNorm",
    "Bijection",
    "Chain",
    "ChannelHalves",
    "ChannelMask",
    "Checkerboard",
    "ConditionalScale",
    "Conv1x1Init",
    "FactorOut",
    "FusedConv1x1",
    "InvertibleConv1x1",
    "Mdct",
    "Partition",
    "SourceFilter",
    "Squeeze",
    "Swap",
    "initial_matrix",
    "log_density",
]
