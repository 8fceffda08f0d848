"""Plain networks: nothing here knows about flows or training."""

from .autoencoder import Autoencoder, Bound, Gaussian
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
    "Bound",
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
