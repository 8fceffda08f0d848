"""Plain networks: nothing here knows about flows or training."""

from .band_scale import BandScale
from .causal import CausalGatedStack
from .consistency import LearntConsistency
from .gated import GatedConvStack
from .mixture import DiscretisedMixture, Distribution
from .source import MelSource
from .transformer import SequenceEncoder
from .upsampling import LinearUpsampling, TransposedUpsampling

__all__ = [
    "BandScale",
    "CausalGatedStack",
    "DiscretisedMixture",
    "Distribution",
    "GatedConvStack",
    "LearntConsistency",
    "LinearUpsampling",
    "MelSource",
    "SequenceEncoder",
    "TransposedUpsampling",
]
