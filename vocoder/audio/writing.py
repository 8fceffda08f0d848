"""Audio files out: 16-bit audio, written whole or not at all, and what is clipped is counted.

`write_audio` writes audio that is in memory, `AudioWriter` a file of audio that arrives in pieces,
`WavStream` the same to a pipe.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torch import Tensor

from vocoder.atomic import partial_file, write_atomic
from vocoder.audio.containers import openable
from vocoder.audio.pcm import to_pcm16
from vocoder.audio.reading import checked_rate

#: Suffixes that can be written -> libsndfile's container and encoding.
_FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}

# Samples per call: libsndfile's Vorbis encoder overflows the stack on minutes of audio at once.
_BLOCK = 1 << 16


class _Clipping:
    """Counts the samples that writing clips."""

    def __init__(self) -> None:
        self.samples = self.clipped = 0
        self.peak = 0.0

    def to_pcm16(self, block: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
        size = np.abs(block)
        self.samples += len(block)
        self.clipped += int((size > 1).sum())
        self.peak = max(self.peak, float(size.max()))
        return to_pcm16(block)

    def warn(self, name: str) -> None:
        if self.clipped:
            warnings.warn(
                f"Clipped {self.clipped} of {self.samples} samples of {name} to [-1, 1]; the peak "
                f"was {self.peak:.3g}.",
                stacklevel=3,
            )


def write_audio(
    target: str | os.PathLike[str] | IO[bytes],
    audio: Tensor | npt.NDArray[Any],
    sample_rate: int,
) -> None:
    """Write mono audio as 16-bit WAV or FLAC, or as OGG Vorbis, by the path's suffix.

    A sample x becomes round(32768 * x), so 16-bit audio survives reading and writing. Samples
    beyond [-1, 1] are clipped, never wrapped around. The file is written whole or not at all: after
    an error the previous one is still there.

    Args:
        target: file to write, with suffix .wav, .flac or .ogg; an existing one is replaced. Or a
            file object opened in binary mode: it gets a WAV file, unless it has a name with one of
            the suffixes, and is left open.
        audio: (samples,), floating point in [-1, 1], a torch tensor on any device or a numpy
            array.
        sample_rate: in Hz.

    Warns:
        UserWarning: samples were clipped: how many, and the peak.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
        OSError: the folder cannot be written to, or the disk is full.
        ValueError: the suffix is none of these; the audio is not (samples,), not floating point,
            empty, NaN or infinite; or the format does not support this sample rate.
    """
    path = checked_path(target) if isinstance(target, str | os.PathLike) else None
    name, suffix = _named(target) if path is None else (path.name, path.suffix.lower())
    sample_rate = checked_rate(sample_rate)
    samples = _checked_samples(audio)

    clipping = _Clipping()
    container, encoding = _FORMATS[suffix]
    # Encoded in memory: on a full disk Python raises an OSError, which libsndfile ignores in its
    # callbacks.
    encoded = io.BytesIO()
    try:
        with soundfile.SoundFile(
            encoded, "w", sample_rate, channels=1, format=container, subtype=encoding
        ) as sound:
            for start in range(0, len(samples), _BLOCK):
                sound.write(clipping.to_pcm16(samples[start : start + _BLOCK]))
    except soundfile.LibsndfileError as error:
        raise _cannot_write(path or name, container, sample_rate, error) from error

    if path is not None:
        write_atomic(path, encoded.getvalue())
    else:
        try:
            target.write(encoded.getvalue())  # type: ignore[union-attr]
        except TypeError as error:
            raise ValueError(f"{name} is opened as text: open it in binary mode, 'wb'.") from error

    # Once the file is safe, because a caller may turn warnings into errors.
    clipping.warn(name)


class AudioWriter:
    """Writes a file of mono audio piece by piece, in constant memory; a context manager.

    Samples go to a hidden file in the same folder, which is renamed when the block ends. After an
    exception (Ctrl-C is one) the hidden file is deleted and the previous file is still there.
    Samples become 16 bits as in `write_audio`, and a warning at the end counts the clipped ones.

    >>> with AudioWriter("long.wav", 22050) as file:  # doctest: +SKIP
    ...     for audio in pieces:
    ...         file.write(audio)

    Args:
        path: file to write, with suffix .wav, .flac or .ogg; an existing one is replaced.
        sample_rate: in Hz.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: the file cannot be created there.
        ValueError: the suffix is none of these, or the format does not support this sample rate.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int) -> None:
        self.path = checked_path(path)
        self.sample_rate = checked_rate(sample_rate)
        self._clipping = _Clipping()
        self._cleaning = ExitStack()
        self._sound: soundfile.SoundFile | None = None

    @property
    def samples(self) -> int:
        """Number of samples written so far."""
        return self._clipping.samples

    def __enter__(self) -> Self:
        container, encoding = _FORMATS[self.path.suffix.lower()]
        with ExitStack() as cleaning:
            self._partial = cleaning.enter_context(partial_file(self.path))
            self._partial.open("wb").close()  # for Python's own error where writing is not allowed
            try:
                self._sound = soundfile.SoundFile(
                    openable(self._partial), "w", self.sample_rate, 1, encoding, format=container
                )
            except soundfile.LibsndfileError as error:
                raise _cannot_write(self.path, container, self.sample_rate, error) from error
            self._cleaning = cleaning.pop_all()
        return self

    def write(self, audio: Tensor | npt.NDArray[Any]) -> None:
        """Append audio, (samples,), floating point in [-1, 1]; samples beyond are clipped.

        Raises:
            OSError: the disk is full, or the file is too long for its format (4 GB of .wav).
            ValueError: the audio is not (samples,), not floating point, empty, NaN or infinite.
        """
        assert self._sound is not None, "write within a with block"
        samples = _checked_samples(audio)
        try:
            for start in range(0, len(samples), _BLOCK):
                self._sound.write(self._clipping.to_pcm16(samples[start : start + _BLOCK]))
        except (soundfile.LibsndfileError, AssertionError) as error:
            # soundfile asserts that all samples were written.
            raise self._cut_short() from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._sound is not None
        try:
            try:
                self._sound.close()
            except soundfile.LibsndfileError as cause:
                if kind is None:
                    raise self._cut_short() from cause
            if kind is None:
                if self.samples == 0:
                    raise ValueError("There are no samples to write.")
                self._check_whole()
                os.replace(self._partial, self.path)
        finally:
            self._cleaning.close()
        if kind is None:
            self._clipping.warn(self.path.name)

    def _check_whole(self) -> None:
        # Closing a Vorbis file on a full disk reports no error.
        try:
            written = soundfile.info(openable(self._partial)).frames
        except soundfile.LibsndfileError as cause:
            raise self._cut_short() from cause
        if written < self.samples:
            raise self._cut_short()

    def _cut_short(self) -> OSError:
        return OSError(
            f"{self.path} could not be continued after {self.samples} samples: is the disk full, "
            "or the file longer than its format allows?"
        )


class WavStream:
    """Writes a WAV file piece by piece to a pipe: what a player reads while it is being made.

    The header comes with the first piece. Its sizes are the largest there are, as ffmpeg writes
    them to a pipe, since nothing can be put right later: programs read to the end. A context
    manager, which leaves the file object open.

    Args:
        file: a file object opened in binary mode.
        sample_rate: in Hz.

    Raises:
        ValueError: the sample rate is not a positive whole number.
    """

    def __init__(self, file: IO[bytes], sample_rate: int) -> None:
        self.sample_rate = checked_rate(sample_rate)
        self._file = file
        self._clipping = _Clipping()

    @property
    def samples(self) -> int:
        """Number of samples written so far."""
        return self._clipping.samples

    def __enter__(self) -> Self:
        return self

    def write(self, audio: Tensor | npt.NDArray[Any]) -> None:
        """Append audio, (samples,), floating point in [-1, 1]; samples beyond are clipped.

        Raises:
            BrokenPipeError: the reader is gone.
            ValueError: the audio is not (samples,), not floating point, empty, NaN or infinite.
        """
        samples = _checked_samples(audio)
        if not self.samples:
            self._file.write(_stream_header(self.sample_rate))
        self._file.write(self._clipping.to_pcm16(samples).astype("<i2").tobytes())
        self._file.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._clipping.warn("the stream")


def _stream_header(sample_rate: int) -> bytes:
    """Of a WAV file of unknown length: 16 bits, mono."""
    unknown = 0xFFFFFFFF
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", unknown)
    )


def checked_path(path: str | os.PathLike[str]) -> Path:
    """The path, after a check that `write_audio` can write there: its suffix and folder.

    Raises:
        FileNotFoundError, IsADirectoryError: the folder does not exist, or the path is one.
        ValueError: the suffix is not that of a format that can be written, or the path is a device
            or a pipe.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file in it, such as audio.wav.")
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(
            f"Cannot tell the format of {path.name!r} by its suffix: use {', '.join(_FORMATS)}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):  # replacing it would remove it
        raise ValueError(f"{path} is a device or a pipe: write to a file, or to standard output.")
    return path


def _named(file: object) -> tuple[str, str]:
    """What messages call a file object, and the suffix of the format to write to it."""
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else ""
    suffix = Path(name).suffix.lower()
    return Path(name).name or "the file object", suffix if suffix in _FORMATS else ".wav"


def _cannot_write(
    name: object, container: str, sample_rate: int, error: soundfile.LibsndfileError
) -> ValueError:
    return ValueError(
        f"Cannot write {name} as {container} at {sample_rate} Hz "
        f"({error.error_string.rstrip('.')})."
    )


def _checked_samples(audio: Tensor | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if not isinstance(audio, Tensor | np.ndarray):
        raise TypeError(
            f"Audio to write is a {type(audio).__name__}: give a torch tensor or a numpy array."
        )
    if isinstance(audio, Tensor):
        if not audio.is_floating_point():
            raise ValueError(_not_floating(audio.dtype))
        # numpy has no bfloat16.
        array = audio.detach().to("cpu", torch.float32).numpy()
    else:
        array = audio
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(_not_floating(array.dtype))
    if array.ndim != 1:
        raise ValueError(
            f"Audio to write must be mono, (samples,), got shape {array.shape}; "
            f"write the items of a batch one by one."
        )
    if array.size == 0:
        raise ValueError("There are no samples to write.")
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ValueError(f"Audio to write holds NaN or infinity in {bad} of {array.size} samples.")
    return array.astype(np.float32, copy=False)


def _not_floating(dtype: object) -> str:
    return (
        f"Audio to write must be floating point in [-1, 1], got {dtype}; "
        f"divide int16 samples by 32768."
    )
