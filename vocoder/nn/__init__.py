"""Plain networks: nothing here knows about flows or training."""

from .autoencoder import Autoencoder, Gaussian
from .band_scale import BandScale
from .causal import CausalGatedStack
from .gated import GatedConvStack
from .mixture import DiscretisedMixture, Distribution
from .source import MelSource
from .transformer import SequenceEncoder
from .upsampling import LinearUpsampling, TransposedUpsampling

__all__ = [
    "Autoencoder",
    "BandScale",
    "CausalGatedStack",
    "DiscretisedMixture",
    "Distribution",
    "GatedConvStack",
    "Gaussian",
    "LinearUpsampling",
    "MelSource",
    "SequenceEncoder",
    "TransposedUpsampling",
]
