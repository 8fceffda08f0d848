"""Networks, and what they read off a mel: the level of bands, pitch, the harmonic source."""

from .band_scale import BandScale
from .causal import CausalGatedStack
from .gated import GatedConvStack
from .mixture import LogisticMixture
from .source import MelSource, WhiteSource
from .transformer import SequenceEncoder
from .upsampling import LinearUpsampling, TransposedUpsampling

__all__ = [
    "BandScale",
    "CausalGatedStack",
    "GatedConvStack",
    "LinearUpsampling",
    "LogisticMixture",
    "MelSource",
    "SequenceEncoder",
    "TransposedUpsampling",
    "WhiteSource",
]
