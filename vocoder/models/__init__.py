"""The model families: one file each, all of them a `Vocoder`, found by name in `FAMILIES`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from vocoder.audio import MelSpec, Noise
from vocoder.checkpoints import CheckpointError, read_checkpoint

from .base import Vocoder
from .flow import FlowVocoder
from .mdct_flow import MdctFlow
from .published import load_published_waveglow
from .waveglow import WaveGlow
from .wavenet import WaveNet
from .wavernn import WaveRNN

FAMILIES: dict[str, type[Vocoder]] = {
    model.family: model for model in (MdctFlow, WaveGlow, WaveNet, WaveRNN)
}
"""Every family by the name that checkpoints give it."""


def build(family: str, config: Mapping[str, Any]) -> Vocoder:
    """A model with random weights from its family and constructor arguments.

    Raises:
        CheckpointError: the family is unknown or does not take these arguments.
    """
    if family not in FAMILIES:
        raise CheckpointError(
            f"the model family {family!r} is unknown; this version knows {', '.join(FAMILIES)}"
        )
    arguments = dict(config)
    if isinstance(arguments.get("mel_spec"), Mapping):
        arguments["mel_spec"] = MelSpec.from_dict(arguments["mel_spec"])
    try:
        return FAMILIES[family](**arguments)
    except TypeError as error:
        raise CheckpointError(
            f"the config does not fit {FAMILIES[family].__name__} of this version: {error}"
        ) from error


def load_checkpoint(path: str | os.PathLike[str]) -> Vocoder:
    """The model of a checkpoint directory (or of the weights file in it), in evaluation mode.

    Raises:
        CheckpointError: no checkpoint there, or not one that this version reads.
    """
    config, tensors = read_checkpoint(path)
    if not isinstance(config.get("family"), str) or not isinstance(config.get("config"), dict):
        raise CheckpointError(
            f"{path} lacks `family` or `config`: it is not a checkpoint of a vocoder"
        )
    model = build(config["family"], config["config"])
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit their config: {error}") from error
    return model.eval()


__all__ = [
    "FAMILIES",
    "FlowVocoder",
    "MdctFlow",
    "Noise",
    "Vocoder",
    "WaveGlow",
    "WaveNet",
    "WaveRNN",
    "build",
    "load_checkpoint",
    "load_published_waveglow",
]
