"""The mathematics of normalizing flows: invertible pieces under one contract, and no audio.

Every piece is a `Bijection`: ``forward(x, condition) -> (z, log_det)`` and
``inverse(z, condition) -> x``.
"""

from .bijection import Bijection, Chain, FactorOut
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
from .linear import (
    ChannelMixing,
    InvertibleConv1x1,
    Mixing,
    PLUConv1x1,
    Swap,
    mixing_matrix,
    values_key,
)
from .normalization import ActNorm, BatchNorm
from .squeeze import AnotherSize, LappedTransform, Squeeze

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AlternatingFrames",
    "AnotherSize",
    "BatchNorm",
    "Bijection",
    "Chain",
    "ChannelHalves",
    "ChannelMask",
    "ChannelMixing",
    "Checkerboard",
    "ConditionalScale",
    "FactorOut",
    "InvertibleConv1x1",
    "LappedTransform",
    "Mixing",
    "PLUConv1x1",
    "Partition",
    "Squeeze",
    "Swap",
    "mixing_matrix",
    "values_key",
]
