"""Audio out, to files (whole or not at all) and pipes: 16 bits or compressed, clipping counted."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np
import soundfile
import soxr  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocoder.atomic import atomic_path
from vocoder.audio.pcm import to_pcm16
from vocoder.audio.reading import checked_rate, openable
from vocoder.audio.validation import as_tensor, check_audio

Audio = Tensor | NDArray[Any]


class Format(NamedTuple):
    """How audio is encoded, by libsndfile's names; at other rates it is resampled to the next."""

    container: str
    encoding: str
    media_type: str
    rates: tuple[int, ...] = ()  # in Hz; any if empty


FORMATS = {
    "wav": Format("WAV", "PCM_16", "audio/wav"),
    "flac": Format("FLAC", "PCM_16", "audio/flac"),
    "ogg": Format("OGG", "VORBIS", "audio/ogg"),
    "mp3": Format("MP3", "MPEG_LAYER_III", "audio/mpeg"),
    "opus": Format("OGG", "OPUS", "audio/ogg", (8000, 12000, 16000, 24000, 48000)),
    "pcm": Format("RAW", "PCM_16", "audio/pcm", (24000,)),
}
_SUFFIXES = [f".{name}" for name in FORMATS if name != "pcm"]

_BLOCK = 1 << 16
# soundfile asserts that all samples were written.
_FAILED = (soundfile.LibsndfileError, AssertionError)


def write_audio(target: str | os.PathLike[str] | IO[bytes], audio: Audio, sample_rate: int) -> None:
    """Write mono audio as 16-bit WAV or FLAC, OGG Vorbis, MP3 or Opus, by the path's suffix.

    Opus has few sample rates: other audio is resampled to the next higher one. A sample x becomes
    round(32768 * x), clipped to 16 bits. The file is written whole or not at all: after an error
    the previous one is still there.

    Args:
        target: file to write, with suffix .wav, .flac, .ogg, .mp3 or .opus; an existing one is
            replaced. Or a file object opened in binary mode: it gets a WAV file, unless it has a
            name with one of the suffixes, and is left open.
        audio: (samples,), floating point in [-1, 1], a torch tensor on any device or a numpy
            array.
        sample_rate: in Hz.

    Warns:
        UserWarning: samples were clipped: how many, and the peak.

    Raises:
        FileNotFoundError, IsADirectoryError: the folder does not exist, or the path is one.
        OSError: the folder cannot be written to, or the disk is full.
        ValueError: the suffix is none of these; the audio is not (samples,), not floating point,
            empty, NaN or infinite; or the format does not support this sample rate.
    """
    if isinstance(target, str | os.PathLike):
        with AudioWriter(target, sample_rate) as file:
            file.write(audio)
        return
    name = Path(str(getattr(target, "name", "")))
    form = name.suffix.lower() if name.suffix.lower() in _SUFFIXES else ".wav"
    encoder, encoded = _Encoder(name.name or "the file object", sample_rate, form), io.BytesIO()
    encoder.open(encoded)
    encoder.write(audio)
    encoder.finish()
    try:
        target.write(encoded.getvalue())
    except TypeError as error:
        message = f"{encoder.name} is opened as text: open it in binary mode, 'wb'."
        raise ValueError(message) from error
    encoder.warn()


class _Encoder:
    """Mono audio for libsndfile: checked, rounded to 16 bits, the samples that this clips counted.

    `name` is for messages, `form` is a key of `FORMATS` or a suffix.
    """

    _sound: Any = None

    def __init__(self, name: str, sample_rate: int, form: str) -> None:
        self.name, self.sample_rate = name, checked_rate(sample_rate)
        self.samples = 0
        """Number of samples written so far."""
        self.format = FORMATS[form.lower().lstrip(".")]
        rates = self.format.rates or (self.sample_rate,)
        self._rate = min((rate for rate in rates if rate >= sample_rate), default=rates[-1])
        self._resampler = soxr.ResampleStream(self.sample_rate, self._rate, 1, dtype="float32")
        self._encoded = 0  # samples, at the rate of the format
        self._clipped, self._peak = 0, 0.0

    def open(self, target: Any) -> None:
        """Encode to a path or a file object; closing `_sound` may raise `_FAILED`."""
        container, encoding = self.format[:2]
        form: Any = (self._rate, 1, encoding, "FILE", container)
        try:
            self._sound = soundfile.SoundFile(target, "w", *form)
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"Cannot write {self.name} as {container} at {self.sample_rate} Hz by libsndfile "
                f"{soundfile.__libsndfile_version__} ({error.error_string.rstrip('.')})."
            ) from error

    def write(self, audio: Audio) -> None:
        """Append audio, (samples,), floating point in [-1, 1]; samples beyond are clipped.

        Raises:
            OSError: the disk is full, the file is too long for its format (4 GB of .wav), or the
                reader of a pipe is gone.
            ValueError: the audio is not (samples,), not floating point, empty, NaN or infinite.
        """
        samples = as_tensor(audio, "Audio to write")
        if samples.ndim != 1:
            raise ValueError(
                f"Audio to write must be mono, (samples,), got shape {tuple(samples.shape)}; write "
                "the items of a batch one by one."
            )
        check_audio(samples)
        # libsndfile's Vorbis encoder overflows the stack on minutes of audio at once.
        for piece in samples.detach().split(_BLOCK):
            block = piece.to("cpu", torch.float32).numpy()
            size = np.abs(block)
            self.samples += len(block)
            self._clipped += int((size > 1).sum())
            self._peak = max(self._peak, float(size.max()))
            self._encode(block)

    def finish(self) -> None:
        self._encode(np.empty(0, np.float32), last=True)  # what resampling still holds
        if self._sound is not None:
            self._sound.close()

    def warn(self) -> None:
        # Once the file is safe, because a caller may turn warnings into errors.
        if self._clipped:
            warnings.warn(
                f"Clipped {self._clipped} of {self.samples} samples of {self.name} to [-1, 1]; the "
                f"peak was {self._peak:.3g}.",
                stacklevel=3,
            )

    def _encode(self, block: NDArray[np.float32], last: bool = False) -> None:
        if self._rate != self.sample_rate:
            block = self._resampler.resample_chunk(block, last=last)
        self._encoded += len(block)
        self._put(to_pcm16(block))

    def _put(self, levels: NDArray[np.int16]) -> None:
        self._sound.write(levels)


class _File(io.FileIO):
    """Keeps what ends a write, such as a full disk or a signal: libsndfile drops exceptions."""

    error: BaseException | None = None

    def write(self, data: Any) -> int:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[super().write(rest) :]
        except BaseException as error:
            self.error = error
            return 0
        return len(data)


class AudioWriter(_Encoder):
    """Writes a file of mono audio piece by piece, in constant memory; a context manager.

    Samples go to a hidden file in the same folder, which is renamed when the block ends. After an
    exception (Ctrl-C is one) the hidden file is deleted and the previous file is still there.
    Samples become 16 bits as in `write_audio`, and a warning at the end counts the clipped ones.

    >>> with AudioWriter("long.wav", 22050) as file:  # doctest: +SKIP
    ...     for audio in pieces:
    ...         file.write(audio)

    Args:
        path: file to write, with a suffix that `write_audio` takes; an existing one is replaced.
        sample_rate: in Hz.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: the file cannot be created there.
        ValueError: the suffix is none of these, or the format does not support this sample rate.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int) -> None:
        self.path = checked_path(path)
        super().__init__(self.path.name, sample_rate, self.path.suffix)

    def __enter__(self) -> Self:
        with ExitStack() as cleaning:
            self._partial = cleaning.enter_context(atomic_path(self.path))
            self._file = cleaning.enter_context(_File(self._partial, "w"))
            self.open(self._file)
            self._cleaning = cleaning.pop_all()
        return self

    def _put(self, levels: NDArray[np.int16]) -> None:
        with self._explained():
            super()._put(levels)

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is None and self.samples:
            with self._cleaning:
                self.finish()
            self.warn()
            return
        with suppress(*_FAILED):
            self._sound.close()
        if kind is not None:
            self._cleaning.__exit__(kind, *error)
            return
        with self._cleaning:
            raise ValueError("There are no samples to write.")

    def finish(self) -> None:
        """Close, and check that all of it was written: closing hides the errors of some formats."""
        with self._explained():
            super().finish()
            if self._file.error or soundfile.info(openable(self._partial)).frames < self._encoded:
                raise AssertionError

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except _FAILED as error:
            cause = self._file.error or error
            if not isinstance(cause, Exception):  # a signal
                raise cause from None
            raise OSError(
                f"{self.path} could not be continued after {self.samples} samples: is the disk "
                "full, or the file longer than its format allows?"
            ) from cause


class AudioStream(_Encoder):
    """Writes audio piece by piece to a pipe; a context manager, which leaves the file object open.

    WAV and PCM are sent as they are made, in constant memory. The sizes in a WAV header are the
    largest there are, as ffmpeg writes them to a pipe, since nothing can be put right later:
    programs read to the end. Compressed audio is sent when the block ends.

    Args:
        file: a file object opened in binary mode.
        sample_rate: in Hz.
        form: "wav", "mp3", "opus", "flac", or "pcm", 16 bits at 24 kHz without a header.

    Raises:
        ValueError: the sample rate is not a positive whole number, or not one of the format.
    """

    def __init__(self, file: IO[bytes] | io.RawIOBase, sample_rate: int, form: str = "wav") -> None:
        super().__init__("the stream", sample_rate, form)
        self._file, self._compressed = file, io.BytesIO()
        if form not in ("wav", "pcm"):
            self.open(self._compressed)

    def __enter__(self) -> Self:
        return self

    def _put(self, levels: NDArray[np.int16]) -> None:
        if self._sound is not None:
            super()._put(levels)
            return
        if self.format.container == "WAV" and self._encoded == len(levels) > 0:
            rate, most = self.sample_rate, 0xFFFFFFFF  # 16 bits, mono, of unknown length
            riff, form = (b"RIFF", most, b"WAVE"), (b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
            self._file.write(struct.pack("<4sI4s4sIHHIIHH4sI", *riff, *form, b"data", most))
        self._file.write(levels.astype("<i2").tobytes())
        self._file.flush()

    def finish(self) -> None:
        super().finish()
        self._file.write(self._compressed.getvalue())
        self._file.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
            self.warn()


def checked_path(path: str | os.PathLike[str]) -> Path:
    """The path, after a check that `write_audio` can write there; raises as it does."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file in it, such as audio.wav.")
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(
            f"Cannot tell the format of {path.name!r} by its suffix: use {', '.join(_SUFFIXES)}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")
    if path.exists() and not path.is_file():  # replacing it would remove it
        raise ValueError(f"{path} is a device or a pipe: write to a file, or to standard output.")
    return path
