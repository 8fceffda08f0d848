"""The recordings that models are judged by: finding them, and reading them as training does."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from vocoder.audio import MelSpec, from_pcm16, read_audio, to_pcm16
from vocoder.corpus import SUFFIXES, CorpusError, held_out, read_corpus


class EvaluationError(ValueError):
    """There is nothing to evaluate; the message says why, and the way out."""


def find_recordings(directory: str | os.PathLike[str]) -> dict[Path, str | None]:
    """The recordings in a directory that a vocoder should be judged by, with their texts.

    In a corpus in LJSpeech's layout (a folder with `metadata.csv`) these are the test utterances of
    `vocoder.corpus.held_out`, which no recipe trains on; in any other folder all audio files in it
    and below it, sorted by path, without texts. Files whose names begin with a dot are left out.

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
            utterances = read_corpus(folder).utterances
        except CorpusError as error:
            raise EvaluationError(str(error)) from error
        return {u.path: u.normalised for u in utterances if u.id in test}
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise EvaluationError(f"{folder} holds no audio ({', '.join(SUFFIXES)} files)")
    return dict.fromkeys(found)


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
