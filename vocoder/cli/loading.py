"""What commands run: models on a device, their denoiser, and mels from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vocoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


def read_mel(path: Path) -> NDArray[np.float32]:
    """A mel (n_mels, frames) or (batch, n_mels, frames) from a .npy file, mapped, not read.

    Raises:
        ValueError: it is not an array of floating-point numbers; the message says what it is.
    """
    import numpy as np

    if not path.is_file():
        raise ValueError(f"there is no file {path}: give a .npy file with a log-mel spectrogram")
    try:
        with path.open("rb") as file:
            archive = file.read(2) == b"PK"
        # Mapped: a header that promises more than the file has is refused without allocating it.
        mel: Any = None if archive else np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError, OverflowError, TypeError, SyntaxError, MemoryError,
            RecursionError) as error:  # fmt: skip
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a readable .npy array of numbers ({reason}): write one with numpy.save"
        ) from error
    if not isinstance(mel, np.ndarray) or mel.dtype.kind != "f":
        what = f"{mel.dtype} numbers" if isinstance(mel, np.ndarray) else "an archive of arrays"
        raise ValueError(
            f"{path} holds {what}: write one array of floating-point numbers with numpy.save"
        )
    return mel[0] if mel.ndim == 3 and len(mel) == 1 else mel
