"""Mels from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_mel(path: Path) -> NDArray[np.float32]:
    """A mel (n_mels, frames) or (batch, n_mels, frames) from a .npy file, mapped, not read.

    Raises:
        ValueError: it is not an array of floating-point numbers; the message says what it is.
    """
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
