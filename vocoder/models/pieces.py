"""Mels and recordings in pieces, from which a model makes audio in constant memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocoder.audio import AudioReader, LogMel, MelError, MelSpec, check_mel

from .base import Vocoder

PIECE = 1024
"""Frames of mel that are worked on at once."""


def mel_pieces(mel: Any, spec: MelSpec) -> Iterator[Any]:
    """A mapped mel (n_mels, frames) in pieces of `PIECE` frames, checked as a whole before."""
    if mel.ndim == 3:
        raise MelError(f"The file holds {len(mel)} mels: write the one to use to a file of its own")
    check_mel(torch.from_numpy(np.array(mel, np.float32)), spec)
    return (
        np.array(mel[:, start : start + PIECE], np.float32)
        for start in range(0, mel.shape[1], PIECE)
    )


def unwarned(pieces: Iterator[Any]) -> Iterator[Any]:
    """Without warnings about a piece of mel that, alone, looks like another convention."""
    while True:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The mel", UserWarning)
            try:
                piece = next(pieces)
            except StopIteration:
                return
        yield piece


def from_mel(model: Vocoder, mel: Any, **how: Any) -> Iterator[Any]:
    """Audio in pieces from a mapped mel; ``how`` is what `Vocoder.stream` takes."""
    return unwarned(model.stream(mel_pieces(mel, model.mel_spec), **how))


def from_recording(model: Vocoder, reader: AudioReader, **how: Any) -> Iterator[Any]:
    """Copy synthesis of a recording in pieces, of its length; ``how`` as in `from_mel`."""
    received = given = 0

    def counted() -> Iterator[Tensor]:
        nonlocal received
        for piece in reader:
            received += len(piece)
            yield piece

    for piece in unwarned(model.stream(LogMel(model.mel_spec).stream(counted()), **how)):
        piece = piece[: received - given]
        given += len(piece)
        if len(piece):
            yield piece
