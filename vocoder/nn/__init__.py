"""Networks: convolution stacks, the scale of bands, pitch, the harmonic source."""

from .band_scale import BandScale
from .causal import CausalGatedStack
from .gated import GatedConvStack
from .mixture import LogisticMixture
from .source import MelSource, WhiteSource
from .upsampling import LinearUpsampling, TransposedUpsampling

__all__ = [
    "BandScale",
    "CausalGatedStack",
    "GatedConvStack",
    "LinearUpsampling",
    "LogisticMixture",
    "MelSource",
    "TransposedUpsampling",
    "WhiteSource",
]
