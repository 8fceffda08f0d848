"""Audio files in: every format of libsndfile as mono float32, whole or in blocks, and checked.

What a header says too little about is read whole (`vocoder.audio.containers`).

`read_audio` reads a file into memory, `AudioReader` gives it block by block. Both look for what
makes a recording unusable or wrong without a word: samples beyond full scale, channels that cancel,
files that end early, headers that cannot be true.
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
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import soxr  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocoder.audio.containers import DOUBTFUL, ContainerError, openable, split
from vocoder.audio.pcm import FULL_SCALE

Source = str | os.PathLike[str] | IO[bytes]
"""A path, or a file object opened in binary mode."""

MOST_BEYOND = 1.5
"""Peak from which audio is refused: lossy formats and limiters overshoot by less."""

LEAST_RATE, MOST_RATE = 1_000, 1_000_000
"""Sample rates that a recording can have, in Hz; with any other the header is damaged."""

_BLOCK = 1 << 16  # samples of all channels

# What libsndfile notes about a header that promises more than the file has.
_DECLARED = re.compile(r"^ *(?:data|SSND|Data Size|riff) *: (\d+) \(should be (\d+)\)", re.M)
_DECLARED_FRAMES = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
# Programs that write to a pipe put the largest size there is, or nearly so.
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

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: there is no such file, or it cannot
            be opened.
        ValueError: as for `read_audio`.

    Warns:
        UserWarning: as for `read_audio`.
    """

    def __init__(self, source: Source, sample_rate: int | None = None) -> None:
        if sample_rate is not None:
            sample_rate = checked_rate(sample_rate)
            if sample_rate > MOST_RATE:
                raise ValueError(f"A sample rate of {sample_rate:,} Hz is beyond any audio.")
        self.name = _name(source)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vocoder-")))
            path = _on_disk(source, folder)
            try:
                self._parts, doubts = split(path, folder)
            except ContainerError as error:
                raise ValueError(f"{self.name} {error}") from None
            self._sound = stack.enter_context(self._decoder(self._parts[0]))
            self._file_rate = int(self._sound.samplerate)
            if not LEAST_RATE <= self._file_rate <= MOST_RATE:
                raise ValueError(
                    f"{self.name} has a sample rate of {self._file_rate:,} Hz, which no recording "
                    "has: its header is damaged."
                )
            self.sample_rate = sample_rate or self._file_rate
            """Of the blocks, in Hz."""
            self._check()
            for doubt in doubts:
                warnings.warn(f"{self.name} {doubt}.", stacklevel=3)
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _decoder(self, path: Path) -> soundfile.SoundFile:
        try:
            # By its name: libsndfile 1.2 now and then takes an MP3 without one for something else.
            return soundfile.SoundFile(openable(path))
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"{self.name} is not audio that can be read{_reason(error)}; WAV, FLAC, OGG and "
                "MP3 can."
            ) from error

    def __iter__(self) -> Iterator[Tensor]:
        """The audio from its start: (samples,) each, float32."""
        given = 0
        for block in self._resampled():
            if len(block):
                given += len(block)
                yield torch.from_numpy(block)
        if not given:
            raise ValueError(
                f"{self.name} is too short to resample from {self._file_rate} to "
                f"{self.sample_rate} Hz."
            )

    def _resampled(self) -> Iterator[NDArray[np.float32]]:
        mono = (block.mean(axis=1, dtype=np.float32) for block in self._blocks())
        if self.sample_rate == self._file_rate:
            yield from mono
            return
        # soxr, which librosa uses too, rejects aliases by more than 100 dB, takes 10 ms for a
        # minute of audio, and little memory for any pair of rates: torchaudio's kernel from 44,101
        # to 22,050 Hz would fill gigabytes. Importing librosa takes seconds.
        stream = soxr.ResampleStream(
            self._file_rate, self.sample_rate, 1, dtype="float32", quality="HQ"
        )
        for block in mono:
            yield stream.resample_chunk(block)
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        """(samples, channels) each, until the file ends, whatever its header promises."""
        frames = max(_BLOCK // self._sound.channels, 1)
        self._declared = 0
        try:
            for path in self._parts:
                with self._decoder(path) as sound:  # not all formats can go back to their start
                    self._check_alike(sound)
                    self._declared += sound.frames
                    while len(block := sound.read(frames, dtype="float32", always_2d=True)):
                        yield block
        except (soundfile.LibsndfileError, AssertionError) as error:
            raise ValueError(
                f"{self.name} is damaged{_reason(error)}: only a part of it can be decoded, so "
                "copy or convert it again."
            ) from error

    def _check_alike(self, part: soundfile.SoundFile) -> None:
        """Refuse files joined of different ones."""
        first, other = ((s.samplerate, s.channels) for s in (self._sound, part))
        if first != other:
            raise ValueError(
                f"{self.name} joins audio of {first[0]:,} Hz, {first[1]} channels, and of "
                f"{other[0]:,} Hz, {other[1]} channels: split or convert it."
            )

    def _check(self) -> None:
        """Read the file once and refuse what cannot be right.

        Raises:
            ValueError: as for `read_audio`.
        """
        samples = bad = beyond = 0
        peak, whole = 0.0, True
        channel_power = mono_power = 0.0
        for block in self._blocks():
            samples += len(block)
            finite = np.isfinite(block)
            bad += len(block) - int(finite.all(axis=1).sum())
            if bad:
                continue
            size = np.abs(block)
            peak = max(peak, float(size.max()))
            beyond += int((size > 1).any(axis=1).sum())
            whole = whole and bool((block == np.rint(block)).all())
            channel_power += float(np.square(block, dtype=np.float64).mean(axis=1).sum())
            mono_power += float(np.square(block.mean(axis=1, dtype=np.float64)).sum())
        if not samples:
            raise ValueError(f"{self.name} holds no samples.")
        if bad:
            raise ValueError(f"{self.name} holds NaN or infinity in {bad} of {samples} samples.")
        self._check_length(samples)
        self._check_amplitude(samples, peak, beyond, whole)
        channels = self._sound.channels
        # Channels that have nothing in common leave 1 / channels of their power.
        if channels > 1 and mono_power * channels < 0.04 * channel_power:
            raise ValueError(
                f"{self.name} has {channels} channels that cancel each other: their mean is "
                "nearly silent, as if one had its polarity reversed; keep a single channel."
            )

    def _check_length(self, samples: int) -> None:
        """Refuse a file that ends before its header says."""
        declared = samples if self._declared >= 2**62 else self._declared
        notes = self._sound.extra_info
        if match := _DECLARED_FRAMES.search(notes):
            declared = int(match[2])
        for match in _DECLARED.finditer(notes):
            promised, found = int(match[1]), int(match[2])
            # All bytes of these formats but a few are samples.
            if promised < _UNKNOWN_SIZE and found:
                declared = max(declared, samples * promised // found)
        missing = declared - samples
        if 1 < missing <= DOUBTFUL * self._file_rate:
            warnings.warn(
                f"{self.name} ends {missing} samples before its header says: they are few enough "
                "for a wrong header, and all that is there is read.",
                stacklevel=5,
            )
        elif missing > 1:
            raise ValueError(
                f"{self.name} is cut off: its header promises "
                f"{declared / self._file_rate:.2f} s and it holds {samples / self._file_rate:.2f} "
                "s. Copy it again."
            )

    def _check_amplitude(self, samples: int, peak: float, beyond: int, whole: bool) -> None:
        """Refuse audio far beyond full scale, and warn about audio a little beyond it.

        Raises:
            ValueError: it cannot be in [-1, 1].
        """
        floating = self._sound.subtype in ("FLOAT", "DOUBLE")
        if floating and 0 < peak < 1 / FULL_SCALE:
            warnings.warn(
                f"{self.name} is nearly silent, with a peak of {peak:.2g}, less than one step of "
                "16-bit audio: was it divided by 32768 twice?",
                stacklevel=5,
            )
        if not beyond:
            return
        if peak > MOST_BEYOND or (floating and whole):
            if whole or peak > 256:
                bits = next((bits for bits in (16, 24, 32) if peak <= 2 ** (bits - 1)), None)
                hint = (
                    f"it looks like {bits}-bit integers stored as floating point, so divide it by "
                    f"{2 ** (bits - 1)}"
                    if bits
                    else "it is damaged, or not audio"
                )
            else:
                hint = "write it again at a lower level"
            raise ValueError(
                f"{self.name} is not audio in [-1, 1]: its peak is {peak:.4g}, and {beyond} of "
                f"{samples} samples are beyond full scale; {hint}."
            )
        warnings.warn(
            f"{self.name} has {beyond} of {samples} samples beyond [-1, 1], with a peak of "
            f"{peak:.4g}: they are kept here, and clipped where audio is stored in 16 bits.",
            stacklevel=5,
        )


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
    """A sample rate as an int.

    Raises:
        ValueError: it is not a positive whole number.
    """
    if (
        isinstance(sample_rate, bool)
        or not isinstance(sample_rate, int | np.integer)
        or sample_rate < 1
    ):
        raise ValueError(f"A sample rate is a positive whole number of Hz, got {sample_rate!r}.")
    return int(sample_rate)


def _name(source: Any) -> str:
    """What messages call a path or a file object."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    name = getattr(source, "name", None)
    if name == "<stdin>":
        return "Standard input"
    return name if isinstance(name, str) else "The audio file object"


def _on_disk(source: Source, folder: Path) -> Path:
    """A file with the audio: the source, or a copy in the folder of what is left in it.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        TypeError: the source is neither a path nor a file object.
        ValueError: it is empty, a device, or a file object of text.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            status = path.stat()
        except FileNotFoundError:
            raise FileNotFoundError(f"There is no file {path}.") from None
        except ValueError as error:  # a zero byte
            raise FileNotFoundError(f"There is no file {str(path)!r} ({error}).") from None
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(f"{path} is a directory, not an audio file.")
        if stat.S_ISREG(status.st_mode):
            if status.st_size == 0:
                raise ValueError(f"{path} is empty.")
            return path
        if not stat.S_ISFIFO(status.st_mode):
            raise ValueError(f"{path} is a device, not an audio file.")
        with path.open("rb") as pipe:
            return _copied(pipe, str(path), folder)
    if not callable(getattr(source, "read", None)):
        raise TypeError(f"Audio is read from a path or a file object, got {type(source).__name__}.")
    return _copied(source, _name(source), folder)


def _copied(file: IO[bytes], name: str, folder: Path) -> Path:
    # Closed before it is opened by its name, which Windows asks for.
    path = folder / "copy"
    try:
        with path.open("wb") as copy:
            shutil.copyfileobj(file, copy)
    except TypeError as error:
        raise ValueError(f"{name} is opened as text: open it in binary mode, 'rb'.") from error
    if not path.stat().st_size:
        raise ValueError(f"{name} is empty.")
    return path


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", "").rstrip(". ")
    return f" ({text})" if text else ""


__all__ = ["AudioReader", "Source", "checked_rate", "read_audio"]
