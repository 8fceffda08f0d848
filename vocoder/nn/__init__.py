"""Plain networks: nothing here knows about flows or training."""

from .band_scale import BandScale
from .causal import CausalGatedStack
from .gated import GatedConvStack
from .mixture import LogisticMixture
from .source import MelSource
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
]
