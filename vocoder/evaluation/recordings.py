"""The recordings that models are judged by: finding them, and reading them as training does."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vocoder.audio import MelSpec, dequantise, fade, from_pcm16, read_audio, to_pcm16
from vocoder.corpus import SUFFIXES, CorpusError, held_out, read_corpus


class EvaluationError(ValueError):
    """There is nothing to evaluate; the message says why, and the way out."""


def find_recordings(directory: str | os.PathLike[str]) -> list[Path]:
    """The recordings in a directory that a vocoder should be judged by.

    In a corpus in LJSpeech's layout (a folder with `metadata.csv`) these are the test utterances of
    `vocoder.corpus.held_out`, which no recipe trains on; in any other folder all audio files in it
    and below it, sorted by path. Files whose names begin with a dot are left out.

    Raises:
        EvaluationError: no such directory, or no audio in it.
    """
    folder = Path(directory)
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise EvaluationError(f"{folder} is {what}: give a directory with recordings in it")
    if (folder / "metadata.csv").is_file():
        try:
            test = set(held_out(folder).test)
            return [u.path for u in read_corpus(folder).utterances if u.id in test]
        except CorpusError as error:
            raise EvaluationError(str(error)) from error
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise EvaluationError(f"{folder} holds no audio ({', '.join(SUFFIXES)} files)")
    return found


def read_recording(path: Path, spec: MelSpec) -> Tensor:
    """A recording in 16 bits, resampled and cut to whole mel frames: (frames * hop,).

    Raises:
        ValueError: it is shorter than the window of the mel, or is not audio.
    """
    audio, _ = read_audio(path, spec.sample_rate)
    samples = len(audio) // spec.hop_length * spec.hop_length
    if samples < spec.n_fft:
        raise ValueError(f"{path} is too short: a mel frame looks at {spec.n_fft} samples")
    return torch.from_numpy(from_pcm16(to_pcm16(audio[:samples].numpy())))


def faded_and_dequantised(recording: Tensor, name: str, spec: MelSpec) -> tuple[Tensor, Tensor]:
    """What likelihoods are measured on: the recording with its ends faded over one hop.

    Args:
        recording: (samples,), from `read_recording`.
        name: of the recording; the noise is drawn by it.
        spec: gives the hop.

    Returns:
        The faded audio in 16 bits, and the same with a quantisation step of noise.
    """
    levels = to_pcm16(fade(recording.numpy(), spec.hop_length))
    rng = np.random.default_rng(zlib.crc32(name.encode(errors="surrogateescape")))
    return torch.from_numpy(from_pcm16(levels)), torch.from_numpy(dequantise(levels, rng))
