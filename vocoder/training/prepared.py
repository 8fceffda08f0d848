"""A corpus decoded once: 16-bit mono at one sample rate in one memory-mapped file, so that a
random crop costs microseconds and no worker processes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from vocoder.atomic import file_name
from vocoder.audio import from_pcm16, read_audio, to_pcm16
from vocoder.audio.containers import openable
from vocoder.corpus import Corpus, CorpusError

log = logging.getLogger(__name__)

SILENT_RMS = 1e-3
"""Root mean square, of full scale 1, below which a file counts as silent (-60 dB)."""

SHORTEST_SECONDS = 0.1
"""Files shorter than this are left out; those shorter than a crop are padded when cropped."""

_LAYOUT = 2
"""Part of the fingerprint: raised when the format of a prepared corpus changes."""


@dataclass(frozen=True)
class Entry:
    """Where an utterance is: `samples` int16 values from `offset`, none of them above `peak`."""

    id: str
    offset: int
    samples: int
    peak: int


class PreparedCorpus:
    """A prepared corpus on disk. Pickled, it is the path of its folder.

    Attributes:
        name: name of the corpus.
        sample_rate: of all utterances, Hz.
        original_sample_rate: the lowest among the original files, Hz. If it is below
            `sample_rate`, the bands above half of it are empty.
        entries: the utterances, by id.
        left_out: ids of the files left out, by reason.
        sources: SHA-256 of every original file, by id; empty for a file that cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        self.name: str = index["name"]
        self.sample_rate: int = index["sample_rate"]
        self.original_sample_rate: int = index["original_sample_rate"]
        self.left_out: dict[str, list[str]] = index["left_out"]
        self.sources: dict[str, str] = index["sources"]
        self.entries = {e["id"]: Entry(**e) for e in index["utterances"]}
        self._audio = np.memmap(self.folder / "audio.int16", dtype="<i2", mode="r")

    def __reduce__(self) -> tuple[type[PreparedCorpus], tuple[Path]]:
        # A worker process that is spawned, not forked, gets everything by pickle.
        return PreparedCorpus, (self.folder,)

    @property
    def missing(self) -> str:
        """How many files were left out, and why; empty if none were."""
        return ", ".join(f"{len(ids)} {why}" for why, ids in self.left_out.items() if ids)

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
        CorpusError: no file is usable, or the cache cannot be written.
    """
    digest = hashlib.sha256(f"{_LAYOUT} {sample_rate}\n".encode())
    for utterance in corpus.utterances:
        stat = utterance.path.stat()
        line = f"{utterance.id} {utterance.path.name} {stat.st_size} {stat.st_mtime_ns}\n"
        digest.update(line.encode())
    name = f"{file_name(corpus.name)}-{sample_rate}-{digest.hexdigest()[:12]}"
    folder = Path(cache) / name
    if folder.is_dir():
        return PreparedCorpus(folder)
    partial = folder.with_name(f".{name}.{uuid.uuid4().hex}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for audio in folder.parent.glob(".*/audio.int16"):
            if time.time() - audio.stat().st_mtime > 3600:  # what a killed process left
                shutil.rmtree(audio.parent, ignore_errors=True)
        partial.mkdir()  # not mkdtemp, whose folders are closed to everybody else
        _write(corpus, sample_rate, partial)
        try:
            os.replace(partial, folder)
        except OSError:
            if not folder.is_dir():  # else another process has finished first, with the same result
                raise
    except OSError as error:
        raise CorpusError(
            f"the decoded corpus cannot be kept in {cache} ({error.strerror}): make room, or give "
            "another folder with --cache"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return PreparedCorpus(folder)


def manifest(corpus: Corpus, prepared: PreparedCorpus, text: bool = False) -> str:
    """SHA-256 of what a model is trained on: ids and original files, and the text if asked for.

    It depends on neither paths nor dates, so a copy of a corpus has the same.
    """
    digest = hashlib.sha256()
    for utterance in corpus.utterances:
        parts = [utterance.id, prepared.sources[utterance.id]]
        digest.update(json.dumps(parts + [utterance.normalised] * text).encode())
    return digest.hexdigest()


def _write(corpus: Corpus, sample_rate: int, folder: Path) -> None:
    entries: list[Entry] = []
    left_out: dict[str, list[str]] = {"silent": [], "too short": [], "unreadable": []}
    examples: dict[str, str] = {}
    rates: set[int] = set()
    sources: dict[str, str] = {}

    def leave_out(id: str, reason: str, example: Any) -> None:
        left_out[reason].append(id)
        examples.setdefault(reason, str(example))

    console = Console(stderr=True)
    with (folder / "audio.int16").open("wb") as file:
        for utterance in track(
            corpus.utterances,
            f"preparing {corpus.name}",
            console=console,
            disable=not console.is_terminal,
        ):
            id, path = utterance.id, utterance.path
            sources[id] = ""
            try:
                with path.open("rb") as original:
                    sources[id] = hashlib.file_digest(original, "sha256").hexdigest()
                audio, _ = read_audio(path, sample_rate)
                rate = soundfile.info(openable(path)).samplerate
            except (OSError, ValueError) as error:
                leave_out(id, "unreadable", error)
                continue
            # Resampling overshoots slightly in loud recordings; the rounding clips that, as a
            # recorder does.
            samples = to_pcm16(audio.numpy())
            if samples.size < SHORTEST_SECONDS * sample_rate:
                leave_out(id, "too short", id)
            elif np.sqrt(np.mean(from_pcm16(samples) ** 2)) < SILENT_RMS:
                leave_out(id, "silent", id)
            else:
                peak = int(np.abs(samples.astype(np.int32)).max())
                entries.append(Entry(id, file.tell() // 2, samples.size, peak))
                file.write(samples.astype("<i2").tobytes())
                rates.add(rate)
    for reason, example in examples.items():
        count = len(left_out[reason])
        log.warning("%s: %d files left out, %s (first: %s)", corpus.name, count, reason, example)
    if not entries:
        reasons = "; ".join(f"{len(left_out[r])} {r} ({first})" for r, first in examples.items())
        raise CorpusError(f"{corpus.folder} has no usable audio: {reasons}")
    index = {
        "name": corpus.name,
        "sample_rate": sample_rate,
        "original_sample_rate": min(rates),
        "left_out": left_out,
        "sources": sources,
        "utterances": [asdict(entry) for entry in entries],
    }
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
