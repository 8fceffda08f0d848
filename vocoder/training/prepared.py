"""A corpus decoded once: 16-bit mono at one sample rate in one memory-mapped file, so that a
random crop costs microseconds and no worker processes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from vocoder.audio import from_pcm16, read_audio, to_pcm16
from vocoder.corpus import Corpus, CorpusError, Utterance

log = logging.getLogger(__name__)

SILENT_RMS = 1e-3
"""Root mean square, of full scale 1, below which a file counts as silent (-60 dB)."""

SHORTEST_SECONDS = 0.1
"""Files shorter than this are left out; those shorter than a crop are padded when cropped."""

_LAYOUT = 1
"""Part of the fingerprint: raised when the format of a prepared corpus changes."""


@dataclass(frozen=True)
class Entry:
    """Where an utterance is: `samples` int16 values from `offset`, none of them above `peak`."""

    id: str
    offset: int
    samples: int
    peak: int


class PreparedCorpus:
    """A prepared corpus on disk.

    Attributes:
        name: name of the corpus.
        sample_rate: of all utterances, Hz.
        original_sample_rate: the lowest among the original files, Hz. If it is below
            `sample_rate`, the bands above half of it are empty.
        entries: the utterances, by id.
        left_out: ids of the files left out, by reason.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        self.name: str = index["name"]
        self.sample_rate: int = index["sample_rate"]
        self.original_sample_rate: int = index["original_sample_rate"]
        self.left_out: dict[str, list[str]] = index["left_out"]
        self.entries = {e["id"]: Entry(**e) for e in index["utterances"]}
        self._audio = np.memmap(self.folder / "audio.int16", dtype="<i2", mode="r")

    def audio(self, id: str) -> NDArray[np.int16]:
        """(samples,) int16 of an utterance; divide by 32768 for [-1, 1)."""
        entry = self.entries[id]
        return self._audio[entry.offset : entry.offset + entry.samples]

    def seconds(self, ids: tuple[str, ...] | None = None) -> float:
        """Duration of the named utterances, or of all."""
        chosen = self.entries if ids is None else ids
        return sum(self.entries[id].samples for id in chosen) / self.sample_rate


def prepare(corpus: Corpus, sample_rate: int, cache: str | Path) -> PreparedCorpus:
    """Decode, mix down and resample a corpus into `cache`/NAME-RATE-HASH, unless it is there.

    The hash covers the sample rate and the name, size and modification time of every file, so a
    changed corpus is prepared again. The folder gets its name only when it is complete. Files that
    are silent, too short or unreadable are left out, counted, and reported as warnings.

    Raises:
        CorpusError: no file is usable.
    """
    fingerprint = _fingerprint(corpus, sample_rate)
    folder = Path(cache) / f"{corpus.name}-{sample_rate}-{fingerprint}"
    if folder.is_dir():
        return PreparedCorpus(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(corpus, sample_rate, partial)
        try:
            os.replace(partial, folder)
        except OSError:
            if not folder.is_dir():  # else another process has finished first, with the same result
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return PreparedCorpus(folder)


def _remove_abandoned(cache: Path) -> None:
    """Remove what killed processes left: folders not written to for an hour."""
    for audio in cache.glob(".*/audio.int16"):
        if time.time() - audio.stat().st_mtime > 3600:
            shutil.rmtree(audio.parent, ignore_errors=True)


def _fingerprint(corpus: Corpus, sample_rate: int) -> str:
    digest = hashlib.sha256(f"{_LAYOUT} {sample_rate}\n".encode())
    for utterance in corpus.utterances:
        stat = utterance.path.stat()
        line = f"{utterance.id} {utterance.path.name} {stat.st_size} {stat.st_mtime_ns}\n"
        digest.update(line.encode())
    return digest.hexdigest()[:12]


def _write(corpus: Corpus, sample_rate: int, folder: Path) -> None:
    entries: list[Entry] = []
    left_out: dict[str, list[str]] = {"silent": [], "too short": [], "unreadable": []}
    first_error = ""
    rates = set()
    offset = 0
    with (folder / "audio.int16").open("wb") as file:
        console = Console(stderr=True)
        for utterance in track(
            corpus.utterances,
            f"preparing {corpus.name}",
            console=console,
            disable=not console.is_terminal,
        ):
            try:
                samples, rate = _decode(utterance, sample_rate)
            except (OSError, ValueError) as error:
                left_out["unreadable"].append(utterance.id)
                first_error = first_error or str(error)
                continue
            peak = int(np.abs(samples.astype(np.int32)).max())
            rms = float(np.sqrt(np.mean(from_pcm16(samples) ** 2)))
            if samples.size < SHORTEST_SECONDS * sample_rate:
                left_out["too short"].append(utterance.id)
            elif rms < SILENT_RMS:
                left_out["silent"].append(utterance.id)
            else:
                file.write(samples.astype("<i2").tobytes())
                entries.append(Entry(utterance.id, offset, samples.size, peak))
                offset += samples.size
                rates.add(rate)
    for reason, ids in left_out.items():
        if ids:
            example = first_error if reason == "unreadable" else ids[0]
            log.warning("%s: %d files left out, %s (first: %s)", corpus.name, len(ids), reason,
                        example)  # fmt: skip
    if not entries:
        reasons = ", ".join(f"{len(ids)} {reason}" for reason, ids in left_out.items() if ids)
        raise CorpusError(f"{corpus.folder} has no usable audio: {reasons}")
    index = {
        "name": corpus.name,
        "sample_rate": sample_rate,
        "original_sample_rate": min(rates),
        "left_out": left_out,
        "utterances": [asdict(entry) for entry in entries],
    }
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")


def _decode(utterance: Utterance, sample_rate: int) -> tuple[NDArray[np.int16], int]:
    """Samples at `sample_rate`, and the rate of the file."""
    audio, _ = read_audio(utterance.path, sample_rate)
    # Resampling overshoots slightly in loud recordings; the rounding clips that, as a recorder
    # does.
    return to_pcm16(audio.numpy()), soundfile.info(utterance.path).samplerate
