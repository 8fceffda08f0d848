"""A corpus decoded once: 16-bit mono at one sample rate in one memory-mapped file, so that a
random crop costs microseconds and no worker processes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from vocoder.atomic import file_name
from vocoder.audio import from_pcm16, read_audio, to_pcm16
from vocoder.audio.containers import openable
from vocoder.corpus import Corpus, CorpusError, Utterance

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

    Raises:
        CorpusError: the folder is damaged or belongs to another user.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
            self.name: str = index["name"]
            self.sample_rate: int = index["sample_rate"]
            self.original_sample_rate: int = index["original_sample_rate"]
            self.left_out: dict[str, list[str]] = index["left_out"]
            self.sources: dict[str, str] = index["sources"]
            self.entries = {e["id"]: Entry(**e) for e in index["utterances"]}
            self._audio = np.memmap(self.folder / "audio.int16", dtype="<i2", mode="r")
            if self._audio.size != sum(entry.samples for entry in self.entries.values()):
                raise ValueError("audio.int16 has another length")
        except PermissionError as error:
            raise CorpusError(
                f"{self.folder} cannot be read ({error.strerror}): it may be another user's; give "
                "a folder of your own with --cache"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(
                f"{self.folder} is damaged ({error}): remove it, and it will be prepared again"
            ) from error

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
    fingerprint = _fingerprint(corpus, sample_rate)
    folder = Path(cache) / f"{file_name(corpus.name)}-{sample_rate}-{fingerprint}"
    if folder.is_dir():
        return PreparedCorpus(folder)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        partial.mkdir()  # not mkdtemp, whose folders are closed to everybody else
    except OSError as error:
        raise CorpusError(
            f"the decoded corpus cannot be kept in {cache} ({error.strerror}): give another folder "
            "with --cache"
        ) from error
    try:
        _write(corpus, sample_rate, partial)
        try:
            os.replace(partial, folder)
        except OSError:
            if not folder.is_dir():  # else another process has finished first, with the same result
                raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CorpusError(
            f"the disk is full: the decoded corpus does not fit in {cache}; make room, or give "
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
    sources: dict[str, str] = {}
    offset = 0
    with (folder / "audio.int16").open("wb") as file:
        console = Console(stderr=True)
        for utterance in track(
            corpus.utterances,
            f"preparing {corpus.name}",
            console=console,
            disable=not console.is_terminal,
        ):
            sources[utterance.id] = ""
            try:
                with utterance.path.open("rb") as original:
                    sources[utterance.id] = hashlib.file_digest(original, "sha256").hexdigest()
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
        example = f" ({first_error})" * bool(first_error)
        raise CorpusError(f"{corpus.folder} has no usable audio: {reasons}{example}")
    index = {
        "name": corpus.name,
        "sample_rate": sample_rate,
        "original_sample_rate": min(rates),
        "left_out": left_out,
        "sources": sources,
        "utterances": [asdict(entry) for entry in entries],
    }
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")


def _decode(utterance: Utterance, sample_rate: int) -> tuple[NDArray[np.int16], int]:
    """Samples at `sample_rate`, and the rate of the file."""
    audio, _ = read_audio(utterance.path, sample_rate)
    # Resampling overshoots slightly in loud recordings; the rounding clips that, as a recorder
    # does.
    return to_pcm16(audio.numpy()), soundfile.info(openable(utterance.path)).samplerate
