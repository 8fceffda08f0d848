"""Audio and mels from files: every format of libsndfile as mono float32, whole or in blocks."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import soxr  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor

Source = str | os.PathLike[str] | IO[bytes]
"""A path, or a file object opened in binary mode."""

MOST_BEYOND = 1.5  # peak from which audio is refused: lossy formats and limiters overshoot by less
_BLOCK = 1 << 16  # samples of all channels
_DOUBTFUL = 0.01  # seconds that a header may be wrong by

# What libsndfile notes about a WAV or AIFF that has fewer bytes than its header says. Programs
# that write to a pipe put the largest size there is, or nearly so.
_DECLARED = re.compile(r"^ *(?:data|SSND) *: (\d+) \(should be (\d+)\)", re.M)
_UNKNOWN_SIZE = 0x7FFF0000


class AudioReader:
    """Reads audio block by block in constant memory, as mono float32.

    The file is read twice: first to check it, with the errors and warnings of `read_audio`, so that
    nothing is done with audio that is refused later. The blocks together are what that gives.

    >>> for block in AudioReader("long.flac", 22050):  # doctest: +SKIP
    ...     print(block.shape)

    Args:
        source: a path, or a file object opened in binary mode, which is read into memory from its
            position on, and left open.
        sample_rate: rate to resample to, in Hz; None keeps the file's own.
    """

    def __init__(self, source: Source, sample_rate: int | None = None) -> None:
        name = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
        self.name = str(name) if isinstance(name, str | os.PathLike) else "The audio file object"
        self.name = "Standard input" if name == "<stdin>" else self.name
        self._source = self._seekable(source)
        with self._opened() as sound:
            self._file_rate, self._channels = int(sound.samplerate), int(sound.channels)
        self.sample_rate = self._file_rate if sample_rate is None else checked_rate(sample_rate)
        """Of the blocks, in Hz."""
        self._check()

    def _seekable(self, source: Source) -> str | bytes | io.BytesIO:
        """The source for soundfile: a path, or what is left in a file object."""
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            if not path.exists():
                raise FileNotFoundError(f"There is no file {path}.")
            if path.is_dir():
                raise IsADirectoryError(f"{path} is a directory, not an audio file.")
            if path.is_fifo():
                with path.open("rb") as pipe:
                    return self._seekable(pipe)
            if not path.stat().st_size:  # so are devices
                raise self._refused("is empty.")
            return openable(path)
        content = source.read()
        if isinstance(content, str):
            raise self._refused("is opened as text: open it in binary mode, 'rb'.")
        if not content:
            raise self._refused("is empty.")
        return io.BytesIO(content)

    def _refused(self, why: str, error: Exception | None = None) -> ValueError:
        reason = getattr(error, "error_string", "").rstrip(". ")
        return ValueError(f"{self.name} {why}{f' ({reason})' if reason else ''}")

    def _opened(self) -> soundfile.SoundFile:
        if not isinstance(self._source, str | bytes):
            self._source.seek(0)
        try:
            return soundfile.SoundFile(self._source)
        except soundfile.LibsndfileError as error:
            why = "is not audio that can be read; WAV, FLAC, OGG and MP3 can"
            raise self._refused(why, error) from error

    def __iter__(self) -> Iterator[Tensor]:
        """The audio from its start: (samples,) each, float32."""
        stream = soxr.ResampleStream(self._file_rate, self.sample_rate, 1, dtype="float32")
        given = 0
        for block in chain(self._blocks(), [None]):
            mono = np.zeros(0, np.float32) if block is None else block.mean(1, dtype=np.float32)
            if self.sample_rate != self._file_rate:
                mono = stream.resample_chunk(mono, last=block is None)
            if len(mono):
                given += len(mono)
                yield torch.from_numpy(mono)
        if not given:
            raise self._refused(f"is too short to resample to {self.sample_rate} Hz.")

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        """(samples, channels) each, until the file ends, whatever its header promises."""
        size, samples = max(_BLOCK // self._channels, 1), 0
        try:
            with self._opened() as sound:  # again, since not all formats can go back to the start
                while len(block := sound.read(size, dtype="float32", always_2d=True)):
                    samples += len(block)
                    yield block
                self._missing = _declared(sound, samples) - samples
        except (soundfile.LibsndfileError, AssertionError) as error:
            why = "is damaged: only a part of it can be decoded, so copy or convert it again"
            raise self._refused(why, error) from error

    def _check(self) -> None:
        """Read the file once, refuse what cannot be right, and warn of what is doubtful."""
        samples = bad = beyond = 0
        peak = 0.0
        for block in self._blocks():
            samples += len(block)
            bad += len(block) - int(np.isfinite(block).all(axis=1).sum())
            size = np.abs(block)
            peak = max(peak, float(size.max()))
            beyond += int((size > 1).any(axis=1).sum())
        if not samples:
            raise self._refused("holds no samples.")
        if bad:
            raise self._refused(f"holds NaN or infinity in {bad} of {samples} samples.")
        if self._missing > max(_DOUBTFUL * self._file_rate, 1):
            held, promised = (n / self._file_rate for n in (samples, samples + self._missing))
            raise self._refused(
                f"is cut off: its header promises {promised:.2f} s and it holds {held:.2f} s. "
                "Copy it again."
            )
        if beyond:
            what = f"{beyond} of {samples} samples beyond [-1, 1], with a peak of {peak:.4g}"
            if peak > MOST_BEYOND:
                hint = "write it again at a lower level"
                if bits := next((b for b in (16, 24, 32) if 256 < peak <= 2 ** (b - 1)), 0):
                    hint = f"it looks like {bits}-bit integers, so divide it by {2 ** (bits - 1)}"
                raise self._refused(f"is not audio in [-1, 1]: it has {what}; {hint}.")
            what += ": they are kept here, and clipped when stored in 16 bits"
            warnings.warn(f"{self.name} has {what}.", stacklevel=4)


def read_audio(source: Source, sample_rate: int | None = None) -> tuple[Tensor, int]:
    """Read an audio file as mono float32.

    Args:
        source: a file in any format that libsndfile reads: WAV, FLAC, OGG, MP3, AIFF and others;
            a path, or a file object opened in binary mode.
        sample_rate: rate to resample to, in Hz; None keeps the file's own.

    Returns:
        The audio, (samples,), float32, the mean of the file's channels; and its sample rate in Hz.
        The audio is in [-1, 1] unless the file goes a little beyond (which is warned of), or
        resampling overshoots. Resampled from rate r, n samples become about n * sample_rate / r.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file is not audio, has no samples, has fewer than its header says, or holds
            NaN or infinities; its peak is beyond 1.5; or sample_rate is no positive whole number.

    Warns:
        UserWarning: some samples are beyond [-1, 1].
    """
    audio = AudioReader(source, sample_rate)
    return torch.cat(list(audio)), audio.sample_rate


def openable(path: str | os.PathLike[str]) -> str | bytes:
    """A path for soundfile, which encodes names itself, and not those that are not UTF-8."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def checked_rate(sample_rate: object) -> int:
    """A sample rate as an int; ValueError if it is not a positive whole number."""
    whole = int(sample_rate) if isinstance(sample_rate, int | np.integer) else 0
    if whole < 1 or isinstance(sample_rate, bool):
        raise ValueError(f"A sample rate is a positive whole number of Hz, got {sample_rate!r}.")
    return whole


def read_mel(source: Path | bytes) -> NDArray[np.float32]:
    """A mel (n_mels, frames) or (batch, n_mels, frames) from a .npy file, mapped, or its content;
    ValueError that says what it is if it is not an array of floating-point numbers.
    """
    name = "the content" if isinstance(source, bytes) else str(source)
    if isinstance(source, Path) and not source.is_file():
        raise ValueError(f"there is no file {name}: give a .npy file with a log-mel spectrogram")
    try:
        mel: Any = (
            np.lib.format.open_memmap(source, mode="r")
            if isinstance(source, Path)
            else np.lib.format.read_array(io.BytesIO(source), allow_pickle=False)
        )
    except Exception as error:  # a damaged header raises anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{name} is not a readable .npy array of numbers ({reason}): write one with numpy.save"
        ) from error
    if mel.dtype.kind != "f":
        raise ValueError(f"{name} holds {mel.dtype} numbers: save floating-point numbers")
    return mel[0] if mel.ndim == 3 and len(mel) == 1 else mel


def _declared(sound: soundfile.SoundFile, samples: int) -> int:
    """Samples that a file should have by its header, where those have been read."""
    declared = samples if sound.frames >= 2**62 else int(sound.frames)
    if match := _DECLARED.search(sound.extra_info):
        promised, found = int(match[1]), int(match[2])
        if promised < _UNKNOWN_SIZE and found:
            declared = max(declared, samples * promised // found)
    return declared
