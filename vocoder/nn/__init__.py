"""Plain networks: nothing here knows of flows, mels or training."""

from .gated import GatedConvStack
from .upsampling import TransposedUpsampling

__all__ = ["GatedConvStack", "TransposedUpsampling"]
