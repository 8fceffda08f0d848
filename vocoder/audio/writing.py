"""Audio out, to files (whole or not at all) and pipes: 16 bits or compressed, clipping counted."""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NoReturn, Self

import numpy as np
import soundfile
import soxr  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocoder.atomic import partial_file
from vocoder.audio.containers import openable
from vocoder.audio.pcm import to_pcm16
from vocoder.audio.reading import checked_rate

Audio = Tensor | NDArray[Any]

#: Suffixes that can be written -> libsndfile's container and encoding.
_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".opus": ("OGG", "OPUS"),
}
_STREAMS = {"pcm": ("RAW", "PCM_16")} | {
    name: _FORMATS[f".{name}"] for name in ("mp3", "opus", "flac")
}

#: The sample rates in Hz that a format has; audio at any other is resampled to the next.
_RATES = {("OGG", "OPUS"): (8000, 12000, 16000, 24000, 48000), ("RAW", "PCM_16"): (24000,)}


def write_audio(target: str | os.PathLike[str] | IO[bytes], audio: Audio, sample_rate: int) -> None:
    """Write mono audio as 16-bit WAV or FLAC, OGG Vorbis, MP3 or Opus, by the path's suffix.

    Opus has few sample rates: other audio is resampled to the next higher one. A sample x becomes
    round(32768 * x), so 16-bit audio survives reading and writing. Samples beyond [-1, 1] are
    clipped, never wrapped around. The file is written whole or not at all: after an error the
    previous one is still there.

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
    suffix = name.suffix.lower() if name.suffix.lower() in _FORMATS else ".wav"
    samples, encoded = _Samples(name.name or "the file object", sample_rate), io.BytesIO()
    with samples._encoder(encoded, samples.name, *_FORMATS[suffix]) as sound:
        for block in samples._blocks(audio):
            sound.write(block)
        sound.write(samples._rest())
    try:
        target.write(encoded.getvalue())
    except TypeError as error:
        message = f"{samples.name} is opened as text: open it in binary mode, 'wb'."
        raise ValueError(message) from error
    samples._warn()


class _File(io.FileIO):
    """Keeps what ends a write: libsndfile calls it, and drops its exceptions.

    That is the error of a full disk, or `SystemExit` or `KeyboardInterrupt` of a signal.
    """

    error: BaseException | None = None

    def write(self, data: Any) -> int:
        """Write all of it; 0 after an error."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[super().write(rest) :]
        except BaseException as error:
            self.error = error
            return 0
        return len(data)


class _Samples:
    """Checks audio to write, rounds it to 16 bits, and counts the samples that this clips."""

    def __init__(self, name: str, sample_rate: int) -> None:
        self.name, self.sample_rate = name, checked_rate(sample_rate)
        self.samples = 0
        """Number of samples written so far."""
        self._clipped, self._peak, self._encoded = 0, 0.0, 0
        self._resampler: Any = None

    def _encoder(
        self, target: Any, name: str, container: str, encoding: str
    ) -> soundfile.SoundFile:
        """The file that `_blocks` and, at the end, `_rest` go to."""
        rates = _RATES.get((container, encoding), (self.sample_rate,))
        rate = min((rate for rate in rates if rate >= self.sample_rate), default=rates[-1])
        if rate != self.sample_rate:
            self._resampler = soxr.ResampleStream(self.sample_rate, rate, 1, dtype="float32")
        try:
            return soundfile.SoundFile(target, "w", rate, 1, encoding, "FILE", container)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.rstrip(".")
            by = f"libsndfile {soundfile.__libsndfile_version__}"
            raise ValueError(
                f"Cannot write {name} as {container} at {self.sample_rate} Hz by {by} ({reason})."
            ) from error

    def _resampled(self, block: NDArray[np.float32], last: bool = False) -> NDArray[np.int16]:
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block, last=last)
        self._encoded += len(block)
        return to_pcm16(block)

    def _rest(self) -> NDArray[np.int16]:
        """What resampling still holds."""
        return self._resampled(np.empty(0, np.float32), last=True)

    def __enter__(self) -> Self:
        return self

    def _blocks(self, audio: Any) -> Iterator[NDArray[np.int16]]:
        """Audio (samples,) block by block, once it is checked."""
        kind = audio.dtype if isinstance(audio, Tensor | np.ndarray) else type(audio).__name__
        if isinstance(audio, Tensor) and audio.is_floating_point():
            audio = audio.detach().to("cpu", torch.float32).numpy()  # numpy has no bfloat16
        if not isinstance(audio, np.ndarray) or audio.dtype.kind != "f":
            raise ValueError(
                f"Audio to write must be floating point in [-1, 1], as a torch tensor or a numpy "
                f"array, got {kind}; divide int16 samples by 32768."
            )
        if audio.ndim != 1:
            raise ValueError(
                f"Audio to write must be mono, (samples,), got shape {audio.shape}; write the "
                "items of a batch one by one."
            )
        if audio.size == 0:
            raise ValueError("There are no samples to write.")
        if bad := audio.size - int(np.isfinite(audio).sum()):
            raise ValueError(f"The audio holds NaN or infinity in {bad} of {audio.size} samples.")
        # libsndfile's Vorbis encoder overflows the stack on minutes of audio at once.
        for start in range(0, len(audio), 1 << 16):
            block = audio[start : start + (1 << 16)].astype(np.float32)
            size = np.abs(block)
            self.samples += len(block)
            self._clipped += int((size > 1).sum())
            self._peak = max(self._peak, float(size.max()))
            yield self._resampled(block)

    def _warn(self) -> None:
        """Once the file is safe, because a caller may turn warnings into errors."""
        if self._clipped:
            warnings.warn(
                f"Clipped {self._clipped} of {self.samples} samples of {self.name} to [-1, 1]; the "
                f"peak was {self._peak:.3g}.",
                stacklevel=3,
            )


class AudioWriter(_Samples):
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
        super().__init__(self.path.name, sample_rate)

    def __enter__(self) -> Self:
        with ExitStack() as cleaning:
            self._partial = cleaning.enter_context(partial_file(self.path))
            self._file = cleaning.enter_context(_File(self._partial, "w"))
            how = _FORMATS[self.path.suffix.lower()]
            self._sound = self._encoder(self._file, str(self.path), *how)
            self._cleaning = cleaning.pop_all()
        return self

    def write(self, audio: Audio) -> None:
        """Append audio, (samples,), floating point in [-1, 1]; samples beyond are clipped.

        Raises:
            OSError: the disk is full, or the file is too long for its format (4 GB of .wav).
            ValueError: the audio is not (samples,), not floating point, empty, NaN or infinite.
        """
        for block in self._blocks(audio):
            try:
                self._sound.write(block)
            except (soundfile.LibsndfileError, AssertionError) as error:
                # soundfile asserts that all samples were written.
                self._cut_short(error)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._cleaning:
            written = 0
            try:
                if kind is None and self.samples:
                    self._sound.write(self._rest())
                self._sound.close()
                self._file.close()  # before it is renamed, for Windows
                if kind is None:
                    written = soundfile.info(openable(self._partial)).frames
            except (soundfile.LibsndfileError, AssertionError) as error:
                self._file.error = self._file.error or OSError(str(error))
            if kind is not None:
                return
            if self.samples == 0:
                raise ValueError("There are no samples to write.")
            if self._file.error or written < self._encoded:
                self._cut_short(self._file.error)
            os.replace(self._partial, self.path)
        self._warn()

    def _cut_short(self, cause: BaseException | None) -> NoReturn:
        if self._file.error is not None and not isinstance(self._file.error, OSError):
            raise self._file.error
        raise OSError(
            f"{self.path} could not be continued after {self.samples} samples: is the disk full, "
            "or the file longer than its format allows?"
        ) from cause


class WavStream(_Samples):
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
        super().__init__("the stream", sample_rate)
        self._file = file

    def write(self, audio: Audio) -> None:
        """Append audio, (samples,), floating point in [-1, 1]; samples beyond are clipped.

        Raises:
            BrokenPipeError: the reader is gone.
            ValueError: the audio is not (samples,), not floating point, empty, NaN or infinite.
        """
        begun, rate, unknown = self.samples, self.sample_rate, 0xFFFFFFFF
        for block in self._blocks(audio):
            if not begun:  # 16 bits, mono, of unknown length
                form = b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", unknown
                riff = b"RIFF", unknown, b"WAVE"
                self._file.write(struct.pack("<4sI4s4sIHHIIHH4sI", *riff, *form))
                begun = 1
            self._file.write(block.astype("<i2").tobytes())
        self._file.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._warn()


class EncodedStream(_Samples):
    """`WavStream` in another format: "mp3", "opus", "flac", or "pcm" at 24 kHz without a header.

    Args:
        file: a file object opened in binary mode.
        sample_rate: in Hz.
        form: one of these.

    Raises:
        ValueError: libsndfile cannot write this format at this sample rate.
    """

    def __init__(self, file: IO[bytes], sample_rate: int, form: str) -> None:
        super().__init__("the stream", sample_rate)
        self._sound = self._encoder(_Once(file, form == "mp3"), self.name, *_STREAMS[form])

    def write(self, audio: Audio) -> None:
        """As `WavStream.write`; an encoder may keep up to half a second for its next block."""
        for block in self._blocks(audio):
            self._sound.write(block)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._sound.write(self._rest())
        self._sound.close()
        if kind is None:
            self._warn()


class _Once(io.RawIOBase):
    """Passes on what libsndfile appends, and leaves out what it would put right later: headers.

    The first write to an MP3 is such a header, its number of frames, which a stream must not have.
    """

    def __init__(self, file: IO[bytes], skips_first: bool) -> None:
        self._file, self._skips = file, skips_first
        self._at = self._end = 0

    def write(self, data: Any) -> int:
        """Write what goes beyond the end; all of it counts as written."""
        new = bytes(data)[self._end - self._at :]
        if not self._skips:
            self._file.write(new)
        self._skips = False
        self._at += len(data)
        self._end = max(self._end, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Any place before the end."""
        self._at = offset + (0, self._at, self._end)[whence]
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at


def checked_path(path: str | os.PathLike[str]) -> Path:
    """The path, after a check that `write_audio` can write there; raises as it does."""
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
