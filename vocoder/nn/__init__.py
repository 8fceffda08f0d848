"""Networks, and what they read off a mel: the level of bands, pitch, the harmonic source."""

from .band_scale import BandScale
from .causal import CausalGatedStack
from .gated import GatedConvStack
from .mixture import DiscretisedMixture, Distribution
from .source import MelSource, WhiteSource
from .transformer import SequenceEncoder
from .upsampling import LinearUpsampling, TransposedUpsampling

__all__ = [
    "BandScale",
    "CausalGatedStack",
    "DiscretisedMixture",
    "Distribution",
    "GatedConvStack",
    "LinearUpsampling",
    "MelSource",
    "SequenceEncoder",
    "TransposedUpsampling",
    "WhiteSource",
]
