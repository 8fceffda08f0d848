"""Vocoders, listed by architecture in `ARCHITECTURES`, and their checkpoints."""

from __future__ import annotations

import os

from vocoder.checkpoints import CheckpointError, read_checkpoint

from .base import Noise, SavedModel, Vocoder
from .flow import FlowVocoder
from .mdct_flow import MdctFlow
from .published import load_published_waveglow
from .waveglow import WaveGlow
from .wavenet import WaveNet

ARCHITECTURES: dict[str, type[Vocoder]] = {
    model.architecture: model for model in (MdctFlow, WaveGlow, WaveNet)
}
"""Every architecture by the name that checkpoints give it."""


def load_checkpoint(path: str | os.PathLike[str]) -> Vocoder:
    """The model of a checkpoint directory (or of the weights file in it), in evaluation mode.

    Raises:
        CheckpointError: no checkpoint there, or not one that this version reads.
    """
    header, tensors = read_checkpoint(path)
    architecture, config = header.get("family"), header.get("config")
    if architecture is None or not isinstance(config, dict):
        raise CheckpointError(
            f"{path} lacks `family` or `config`: it is not a checkpoint of a vocoder"
        )
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"the architecture {architecture!r} is unknown; known are {known}")
    return ARCHITECTURES[architecture].from_checkpoint(config, tensors)


__all__ = [
    "ARCHITECTURES",
    "FlowVocoder",
    "MdctFlow",
    "Noise",
    "SavedModel",
    "Vocoder",
    "WaveGlow",
    "WaveNet",
    "load_checkpoint",
    "load_published_waveglow",
]
