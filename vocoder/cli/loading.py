"""What commands run: models on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
