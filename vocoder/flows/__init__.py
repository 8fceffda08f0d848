"""The mathematics of normalizing flows: invertible pieces under one contract, and no audio.

Every piece is a `Bijection`: ``forward(x, condition) -> (z, log_det)`` and
``inverse(z, condition) -> x``.
"""

from .layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    AlternatingFrames,
    BatchNorm,
    Bijection,
    Chain,
    ChannelHalves,
    ChannelMask,
    Checkerboard,
    ConditionalScale,
    Conv1x1Init,
    FactorOut,
    InvertibleConv1x1,
    Mdct,
    Partition,
    Squeeze,
    Swap,
    log_density,
    zero_log_det,
)

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
    "InvertibleConv1x1",
    "Mdct",
    "Partition",
    "Squeeze",
    "Swap",
    "log_density",
    "zero_log_det",
]
