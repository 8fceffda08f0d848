"""Audio files: reads every format of libsndfile, writes 16-bit audio whole or not at all.

`write_audio` writes audio that is in memory, `AudioWriter` audio that arrives in pieces.
"""

from __future__ import annotations

import io
import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import soundfile
import soxr  # type: ignore[import-untyped]
import torch
from torch import Tensor

from vocoder.atomic import partial_file, write_atomic
from vocoder.audio.pcm import to_pcm16

#: Suffixes that can be written -> libsndfile's container and encoding.
_FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}

# Samples per call: libsndfile's Vorbis encoder overflows the stack on minutes of audio at once.
_BLOCK = 1 << 16


def read_audio(path: str | os.PathLike[str], sample_rate: int | None = None) -> tuple[Tensor, int]:
    """Read an audio file as mono float32.

    Args:
        path: a file in any format that libsndfile reads: WAV, FLAC, OGG, MP3, AIFF and others.
        sample_rate: rate to resample to, in Hz; None keeps the file's own.

    Returns:
        The audio, (samples,), float32, the mean of the file's channels; and its sample rate in Hz.
        The audio is in [-1, 1] unless the file holds floating point beyond it, or resampling
        overshoots a little. Resampled from rate r, n samples become about n * sample_rate / r.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: there is no such file, or it cannot
            be opened.
        ValueError: the file is not audio, has no samples, or holds NaN or infinities; or
            sample_rate is not positive.
    """
    path = Path(path)
    if sample_rate is not None:
        sample_rate = _checked_rate(sample_rate)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory, not an audio file.")
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.is_file() and path.stat().st_size == 0:  # pipes have size 0 too
        raise ValueError(f"{path} is empty.")
    with path.open("rb") as file:
        try:
            samples, file_rate = soundfile.read(file, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"{path} is not audio that can be read ({error.error_string.rstrip('.')}); "
                f"WAV, FLAC, OGG and MP3 can."
            ) from error
    if samples.shape[0] == 0:
        raise ValueError(f"{path} holds no samples.")
    bad = samples.shape[0] - int(np.isfinite(samples).all(axis=1).sum())
    if bad:
        raise ValueError(f"{path} holds NaN or infinity in {bad} of {samples.shape[0]} samples.")

    mono = samples.mean(axis=1, dtype=np.float32)
    if sample_rate is not None and sample_rate != file_rate:
        # soxr, which librosa uses too, rejects aliases by more than 100 dB, takes 10 ms for a
        # minute of audio, and little memory for any pair of rates: torchaudio's kernel from 44,101
        # to 22,050 Hz would fill gigabytes. Importing librosa takes seconds.
        mono = soxr.resample(mono, file_rate, sample_rate, quality="HQ")
        if mono.shape[0] == 0:
            raise ValueError(
                f"{path} is too short to resample from {file_rate} to {sample_rate} Hz."
            )
        file_rate = sample_rate
    return torch.from_numpy(np.ascontiguousarray(mono)), int(file_rate)


def write_audio(
    path: str | os.PathLike[str], audio: Tensor | npt.NDArray[Any], sample_rate: int
) -> None:
    """Write mono audio as 16-bit WAV or FLAC, or as OGG Vorbis, by the path's suffix.

    A sample x becomes round(32768 * x), so 16-bit audio survives reading and writing. Samples
    beyond [-1, 1] are clipped, never wrapped around. The file is written whole or not at all: after
    an error the previous one is still there.

    Args:
        path: file to write, with suffix .wav, .flac or .ogg; an existing one is replaced.
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
    path = checked_path(path)
    sample_rate = _checked_rate(sample_rate)
    samples = _checked_samples(audio)

    peak = max(float(samples.max()), -float(samples.min()))
    clipped = 0
    container, encoding = _FORMATS[path.suffix.lower()]
    # Encoded in memory: on a full disk Python raises an OSError, which libsndfile ignores in its
    # callbacks.
    encoded = io.BytesIO()
    try:
        with soundfile.SoundFile(
            encoded, "w", sample_rate, channels=1, format=container, subtype=encoding
        ) as sound:
            for start in range(0, len(samples), _BLOCK):
                block = samples[start : start + _BLOCK]
                clipped += int((np.abs(block) > 1).sum())
                sound.write(to_pcm16(block))
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"Cannot write {path} as {container} at {sample_rate} Hz "
            f"({error.error_string.rstrip('.')})."
        ) from error

    write_atomic(path, encoded.getvalue())

    # Once the file is safe, because a caller may turn warnings into errors.
    if clipped:
        warnings.warn(
            f"Clipped {clipped} of {len(samples)} samples of {path.name} to [-1, 1]; the peak was "
            f"{peak:.3g}.",
            stacklevel=2,
        )


class AudioWriter:
    """Writes a file of mono audio piece by piece, in constant memory; a context manager.

    Samples go to a hidden file in the same folder, which is renamed when the block ends. After an
    exception (Ctrl-C is one) the hidden file is deleted and the previous file is still there.
    Samples become 16 bits as in `write_audio`.

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
        self.sample_rate = _checked_rate(sample_rate)
        self.samples = 0
        self._cleaning = ExitStack()
        self._sound: soundfile.SoundFile | None = None

    def __enter__(self) -> Self:
        container, encoding = _FORMATS[self.path.suffix.lower()]
        with ExitStack() as cleaning:
            self._partial = cleaning.enter_context(partial_file(self.path))
            self._partial.open("wb").close()  # for Python's own error where writing is not allowed
            try:
                self._sound = soundfile.SoundFile(
                    self._partial, "w", self.sample_rate, 1, encoding, format=container
                )
            except soundfile.LibsndfileError as error:
                raise ValueError(
                    f"Cannot write {self.path} as {container} at {self.sample_rate} Hz "
                    f"({error.error_string.rstrip('.')})."
                ) from error
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
                self._sound.write(to_pcm16(samples[start : start + _BLOCK]))
        except (soundfile.LibsndfileError, AssertionError) as error:
            # soundfile asserts that all samples were written.
            raise self._cut_short() from error
        self.samples += len(samples)

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
                os.replace(self._partial, self.path)
        finally:
            self._cleaning.close()

    def _cut_short(self) -> OSError:
        return OSError(
            f"{self.path} could not be continued after {self.samples} samples: is the disk full, "
            "or the file longer than its format allows?"
        )


def checked_path(path: str | os.PathLike[str]) -> Path:
    """The path, after a check that `write_audio` can write there: its suffix and folder.

    Raises:
        FileNotFoundError, IsADirectoryError: the folder does not exist, or the path is one.
        ValueError: the suffix is not that of a format that can be written.
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
    return path


def _checked_rate(sample_rate: object) -> int:
    if (
        isinstance(sample_rate, bool)
        or not isinstance(sample_rate, int | np.integer)
        or sample_rate < 1
    ):
        raise ValueError(f"A sample rate is a positive whole number of Hz, got {sample_rate!r}.")
    return int(sample_rate)


def _checked_samples(audio: Tensor | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if isinstance(audio, Tensor):
        if not audio.is_floating_point():
            raise ValueError(_not_floating(audio.dtype))
        # numpy has no bfloat16.
        array = audio.detach().to("cpu", torch.float32).numpy()
    else:
        array = np.asarray(audio)
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
