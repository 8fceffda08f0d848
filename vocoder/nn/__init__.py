"""Plain networks: nothing here knows of flows, mels or training."""

from .causal import CausalGatedStack
from .gated import GatedConvStack
from .mixture import DiscretisedMixture, Distribution
from .transformer import SequenceEncoder
from .upsampling import LinearUpsampling, TransposedUpsampling

__all__ = [
    "CausalGatedStack",
    "DiscretisedMixture",
    "Distribution",
    "GatedConvStack",
    "LinearUpsampling",
    "SequenceEncoder",
    "TransposedUpsampling",
]
