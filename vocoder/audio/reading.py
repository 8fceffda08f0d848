"""Audio and mels from files: every format of libsndfile as mono float32, whole or in blocks.

Refused: samples far beyond full scale, channels that cancel, files that end early, false headers.
What a header says too little about is read whole (`vocoder.audio.containers`).
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import soxr  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio.containers import DOUBTFUL, openable, split
from vocoder.audio.pcm import FULL_SCALE

Source = str | os.PathLike[str] | IO[bytes]
"""A path, or a file object opened in binary mode."""

MOST_BEYOND = 1.5
"""Peak from which audio is refused: lossy formats and limiters overshoot by less."""

LEAST_RATE, MOST_RATE = 1_000, 1_000_000
"""Sample rates that a recording can have, in Hz; with any other the header is damaged."""

_BLOCK = 1 << 16  # samples of all channels

# What libsndfile notes about a header that promises more than the file has. Programs that write to
# a pipe put the largest size there is, or nearly so.
_DECLARED = re.compile(r"^ *(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", re.M)
_DECLARED_FRAMES = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_UNKNOWN_SIZE = 0x7FFF0000


class AudioReader(AbstractContextManager["AudioReader"]):
    """Reads audio block by block in constant memory, as mono float32; a context manager.

    The file is read twice: first to check it, so that nothing is done with audio that is refused
    later. The blocks together are what `read_audio` gives.

    >>> with AudioReader("long.flac", 22050) as audio:  # doctest: +SKIP
    ...     for block in audio:
    ...         print(block.shape)

    Args:
        source: a path, or a file object opened in binary mode, which is read from its position
            on, copied to a temporary file, and left open. So are pipes.
        sample_rate: rate to resample to, in Hz; None keeps the file's own.

    Raises, warns:
        As `read_audio`.
    """

    def __init__(self, source: Source, sample_rate: int | None = None) -> None:
        if sample_rate is not None and checked_rate(sample_rate) > MOST_RATE:
            raise ValueError(f"A sample rate of {sample_rate:,} Hz is beyond any audio.")
        name = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
        self.name = str(name) if isinstance(name, str | os.PathLike) else "The audio file object"
        if name == "<stdin>":
            self.name = "Standard input"
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vocoder-")))
            path = _on_disk(source, self.name, folder)
            try:
                self._parts, doubts = split(path, folder)
            except ValueError as error:
                raise self._refused(str(error)) from None
            with self._opened(self._parts[0]) as sound:
                self._file_rate, self._channels = int(sound.samplerate), int(sound.channels)
                self._floating = sound.subtype in ("FLOAT", "DOUBLE")
            if not LEAST_RATE <= self._file_rate <= MOST_RATE:
                raise self._refused(f"is damaged: it has a sample rate of {self._file_rate:,} Hz.")
            self.sample_rate = int(sample_rate or self._file_rate)
            """Of the blocks, in Hz."""
            for doubt in doubts + self._check():
                warnings.warn(f"{self.name} {doubt}.", stacklevel=3)
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _refused(self, why: str, error: Exception | None = None) -> ValueError:
        reason = getattr(error, "error_string", "").rstrip(". ")
        return ValueError(f"{self.name} {why}{f' ({reason})' if reason else ''}")

    def _opened(self, path: Path) -> soundfile.SoundFile:
        try:
            # By its name: libsndfile 1.2 now and then takes an MP3 without one for something else.
            return soundfile.SoundFile(openable(path))
        except soundfile.LibsndfileError as error:
            why = "is not audio that can be read; WAV, FLAC, OGG and MP3 can"
            raise self._refused(why, error) from error

    def __iter__(self) -> Iterator[Tensor]:
        """The audio from its start: (samples,) each, float32."""
        # Importing librosa, which resamples by soxr too, takes seconds.
        stream = soxr.ResampleStream(
            self._file_rate, self.sample_rate, 1, dtype="float32", quality="HQ"
        )
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
        first, size = (self._file_rate, self._channels), max(_BLOCK // self._channels, 1)
        self._missing = 0
        try:
            for path in self._parts:
                # Opened again, since not all formats can go back to their start.
                with self._opened(path) as sound:
                    if first != (other := (sound.samplerate, sound.channels)):
                        kinds = [f"{r:,} Hz, {c} channels" for r, c in (first, other)]
                        raise self._refused(f"joins audio of {' and of '.join(kinds)}: split it.")
                    samples = 0
                    while len(block := sound.read(size, dtype="float32", always_2d=True)):
                        samples += len(block)
                        yield block
                    self._missing += max(_declared(sound, samples) - samples, 0)
        except (soundfile.LibsndfileError, AssertionError) as error:
            why = "is damaged: only a part of it can be decoded, so copy or convert it again"
            raise self._refused(why, error) from error

    def _check(self) -> list[str]:
        """Read the file once, refuse what cannot be right, and return what is doubtful."""
        samples = bad = beyond = 0
        peak, whole = 0.0, True
        channel_power = mono_power = 0.0
        for block in self._blocks():
            samples += len(block)
            bad += len(block) - int(np.isfinite(block).all(axis=1).sum())
            if bad:
                continue
            size = np.abs(block)
            peak = max(peak, float(size.max()))
            beyond += int((size > 1).any(axis=1).sum())
            whole = whole and bool((block == np.rint(block)).all())
            channel_power += float(np.square(block, dtype=np.float64).mean(axis=1).sum())
            mono_power += float(np.square(block.mean(axis=1, dtype=np.float64)).sum())
        if not samples:
            raise self._refused("holds no samples.")
        if bad:
            raise self._refused(f"holds NaN or infinity in {bad} of {samples} samples.")
        # Channels that have nothing in common leave 1 / channels of their power.
        channels, seconds = self._channels, samples / self._file_rate
        if channels > 1 and mono_power * channels < 0.04 * channel_power:
            raise self._refused(
                f"has {channels} channels that cancel each other, as if one had its polarity "
                "reversed: keep a single channel."
            )
        if self._missing > max(DOUBTFUL * self._file_rate, 1):
            promised = seconds + self._missing / self._file_rate
            raise self._refused(
                f"is cut off: its header promises {promised:.2f} s and it holds {seconds:.2f} s. "
                "Copy it again."
            )
        doubts: list[str] = []
        if self._floating and 0 < peak < 1 / FULL_SCALE:
            doubts += [f"is nearly silent, peak {peak:.2g}: was it divided by 32768 twice?"]
        if beyond:
            what = f"{beyond} of {samples} samples beyond [-1, 1], with a peak of {peak:.4g}"
            if peak > MOST_BEYOND or (self._floating and whole):
                hint = _scale(peak, whole)
                raise self._refused(f"is not audio in [-1, 1]: it has {what}; {hint}.")
            doubts += [f"has {what}: they are kept here, and clipped when stored in 16 bits"]
        if self._missing > 1:
            doubts += [f"ends {self._missing} samples before its header says"]
        return doubts


def _scale(peak: float, whole: bool) -> str:
    """What to do about a peak far beyond 1; `whole`: all samples are whole numbers."""
    if not whole and peak <= 256:
        return "write it again at a lower level"
    if bits := next((b for b in (16, 24, 32) if peak <= 2 ** (b - 1)), 0):
        return f"it looks like {bits}-bit integers, so divide it by {2 ** (bits - 1)}"
    return "it is damaged, or not audio"


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
        FileNotFoundError, IsADirectoryError, PermissionError: there is no such file, or it cannot
            be opened.
        ValueError: the file is not audio, has no samples, is cut off or damaged, or holds NaN or
            infinities; its peak is beyond `MOST_BEYOND`; its channels cancel each other; or
            sample_rate is out of range.

    Warns:
        UserWarning: some samples are beyond [-1, 1]; floating-point audio is so quiet that it
            was probably scaled twice; or the file's length or end is doubtful.
    """
    with AudioReader(source, sample_rate) as audio:
        return torch.cat(list(audio)), audio.sample_rate


def checked_rate(sample_rate: object) -> int:
    """A sample rate as an int; ValueError if it is not a positive whole number."""
    whole = isinstance(sample_rate, int | np.integer) and not isinstance(sample_rate, bool)
    if not whole or sample_rate < 1:  # type: ignore[operator]
        raise ValueError(f"A sample rate is a positive whole number of Hz, got {sample_rate!r}.")
    return int(sample_rate)  # type: ignore[call-overload]


def read_mel(path: Path) -> NDArray[np.float32]:
    """A mel (n_mels, frames) or (batch, n_mels, frames) from a .npy file, mapped, not read.

    Raises:
        ValueError: it is not an array of floating-point numbers; the message says what it is.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give a .npy file with a log-mel spectrogram")
    try:
        # Mapped: a header that promises more than the file has is refused without allocating it.
        mel: Any = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header raises anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path} is not a readable .npy array of numbers ({reason}): write one with numpy.save"
        ) from error
    if mel.dtype.kind != "f":
        raise ValueError(f"{path} holds {mel.dtype} numbers: save floating-point numbers")
    return mel[0] if mel.ndim == 3 and len(mel) == 1 else mel


def _on_disk(source: Source, name: str, folder: Path) -> Path:
    """A file with the audio: the source, or a copy in the folder of what is left in it."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, ValueError) as error:  # of a zero byte
            raise FileNotFoundError(f"There is no file {path}.") from error
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(f"{path} is a directory, not an audio file.")
        if stat.S_ISFIFO(mode):
            with path.open("rb") as pipe:
                return _on_disk(pipe, name, folder)
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is a device, not an audio file.")
    elif callable(getattr(source, "read", None)):
        path = folder / "copy"
        try:
            with path.open("wb") as copy:  # closed before it is opened by its name, for Windows
                shutil.copyfileobj(source, copy)
        except TypeError as error:
            raise ValueError(f"{name} is opened as text: open it in binary mode, 'rb'.") from error
    else:
        raise TypeError(f"Audio is read from a path or a file object, got {type(source).__name__}.")
    if not path.stat().st_size:
        raise ValueError(f"{name} is empty.")
    return path


def _declared(sound: soundfile.SoundFile, samples: int) -> int:
    """Samples that a file should have by its header, where those have been read."""
    declared = samples if sound.frames >= 2**62 else int(sound.frames)
    notes = sound.extra_info
    if match := _DECLARED_FRAMES.search(notes):
        declared = int(match[2])
    for match in _DECLARED.finditer(notes):
        promised, found = int(match[1]), int(match[2])
        # All bytes of these formats but a few are samples.
        if promised < _UNKNOWN_SIZE and found:
            declared = max(declared, samples * promised // found)
    return declared
