"""What commands run: models on a device, and their denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import vocoder

if TYPE_CHECKING:
    from vocoder.models import Vocoder
    from vocoder.text.acoustic import AcousticModel


def load(checkpoint: str | None, device: str) -> Vocoder:
    """The vocoder of that name on the device "auto", "cpu" or "cuda"."""
    return vocoder.load(checkpoint, device=device)


def load_acoustic(name: str | None, device: str) -> AcousticModel:
    """The acoustic model of that name on the device "auto", "cpu" or "cuda"."""
    return vocoder.load_acoustic(name, device)


def denoised(model: Vocoder, strength: float) -> Callable[[Any], Any]:
    """A function of audio that subtracts the model's tones; with strength 0 it changes nothing."""
    if strength == 0:
        return lambda audio: audio
    from vocoder.models.denoiser import Denoiser

    denoiser = Denoiser(model)
    return lambda audio: denoiser(audio, strength)
