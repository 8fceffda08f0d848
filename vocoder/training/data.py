"""A corpus decoded once, random crops and held-out excerpts of it, each a pure function of a seed
and an index, and the Lightning data modules.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import shutil
import zlib
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning
import numpy as np
import soundfile
from filelock import FileLock
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.signal import lfilter
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from vocoder.audio import MelSpec, dequantise, fade, from_pcm16, read_audio, to_pcm16
from vocoder.audio.reading import openable
from vocoder.corpus import Corpus, CorpusError, read_corpus, split

log = logging.getLogger("vocoder.training")

SILENT_RMS = 1e-3
"""Root mean square, of full scale 1, below which a file is left out as silent."""

SHORTEST_SECONDS = 0.1
"""Files shorter than this are left out."""

_LAYOUT = 3
"""Part of the fingerprint: raised when the format of a prepared corpus changes."""

Item = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """Where an utterance is: `samples` int16 values from `offset`, none of them above `peak`."""

    id: str
    offset: int
    samples: int
    peak: int
    sha256: str


class PreparedCorpus:
    """A corpus as 16-bit mono at one sample rate, in one memory-mapped file. Pickled, for worker
    processes, it is the path of its folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        self.name: str = index["name"]
        self.sample_rate: int = index["sample_rate"]
        self.original_sample_rate: int = index["original_sample_rate"]  # the lowest of the files
        self.entries = {e["id"]: Entry(**e) for e in index["utterances"]}
        left_out = [f"{len(ids)} {why}" for why, ids in index["left_out"].items()]
        self.missing = ", ".join(left_out)
        """How many files were left out, and why; empty if none were."""
        self._audio = np.memmap(self.folder / "audio.int16", dtype="<i2", mode="r")

    def __reduce__(self) -> tuple[type[PreparedCorpus], tuple[Path]]:
        return PreparedCorpus, (self.folder,)

    def audio(self, id: str) -> NDArray[np.int16]:
        """(samples,) int16 of an utterance; divide by 32768 for [-1, 1)."""
        entry = self.entries[id]
        return self._audio[entry.offset : entry.offset + entry.samples]

    def seconds(self, ids: Sequence[str]) -> float:
        """Duration of the named utterances together."""
        return sum(self.entries[id].samples for id in ids) / self.sample_rate


def prepare(corpus: Corpus, sample_rate: int, cache: str | Path) -> PreparedCorpus:
    """Decode, mix down and resample a corpus into `cache`/NAME-RATE-HASH, unless it is there.

    The hash covers the sample rate and the name, size and modification time of every file, so a
    changed corpus is prepared again. The folder gets its name only when it is complete. Files that
    are silent, too short or unreadable are left out, counted, and reported as warnings.
    """
    digest = hashlib.sha256(f"{_LAYOUT} {sample_rate}\n".encode())
    for u in corpus.utterances:
        stat = u.path.stat()
        digest.update(f"{u.id} {u.path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    folder = Path(cache) / f"{corpus.name[:40]}-{sample_rate}-{digest.hexdigest()[:12]}"
    partial = folder.with_name(f".{folder.name}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            shutil.rmtree(partial, ignore_errors=True)  # of a killed process
            if not folder.is_dir():
                partial.mkdir()
                try:
                    _write(corpus, sample_rate, partial)
                    partial.rename(folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CorpusError(
            f"the decoded corpus cannot be kept in {cache} ({error.strerror}): make room, or give "
            "another folder with --cache"
        ) from error
    return PreparedCorpus(folder)


def manifest(corpus: Corpus, prepared: PreparedCorpus, text: bool = False) -> str:
    """SHA-256 of what a model is trained on: ids and decoded audio, and the text if asked for.

    It depends on neither paths nor dates, so a copy of a corpus has the same.
    """
    digest = hashlib.sha256()
    for utterance in corpus.utterances:
        if entry := prepared.entries.get(utterance.id):
            parts = [entry.id, entry.sha256] + [utterance.normalised] * text
            digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def _write(corpus: Corpus, sample_rate: int, folder: Path) -> None:
    entries: list[Entry] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    rates: set[int] = set()
    console, what = Console(stderr=True), f"preparing {corpus.name}"
    bar = track(corpus.utterances, what, console=console, disable=not console.is_terminal)
    with (folder / "audio.int16").open("wb") as file:
        for utterance in bar:
            id, path = utterance.id, utterance.path
            try:
                audio = read_audio(path, sample_rate)[0].numpy()
                rates.add(soundfile.info(openable(path)).samplerate)
            except (OSError, ValueError) as error:
                left_out["unreadable"].append(str(error))
                continue
            samples = to_pcm16(audio).astype("<i2")  # clips what resampling overshoots
            if samples.size < SHORTEST_SECONDS * sample_rate:
                left_out["too short"].append(id)
            elif np.sqrt(np.mean(from_pcm16(samples) ** 2)) < SILENT_RMS:
                left_out["silent"].append(id)
            else:
                peak, content = int(np.abs(samples.astype(np.int32)).max()), samples.tobytes()
                digest = hashlib.sha256(content).hexdigest()
                entries.append(Entry(id, file.tell() // 2, samples.size, peak, digest))
                file.write(content)
    reasons = [f"{len(them)} {why} (first: {them[0]})" for why, them in left_out.items()]
    if not entries:
        raise CorpusError(f"{corpus.folder} has no usable audio: {'; '.join(reasons)}")
    for reason in reasons:
        log.warning("%s: files left out: %s", corpus.name, reason)
    index = {
        "name": corpus.name,
        "sample_rate": sample_rate,
        "original_sample_rate": min(rates),
        "left_out": left_out,
        "utterances": [asdict(entry) for entry in entries],
    }
    (folder / "index.json").write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")


@dataclass
class Crops(Dataset[Item]):
    r"""An endless set of random crops; crop i depends on (seed, i) and its length alone.

    A crop is drawn from an utterance chosen in proportion to its length, at any sample, and scaled
    by a gain g, uniform in decibels within `gain_db` and limited so that the utterance does not
    clip. Its ends are faded (`vocoder.audio.fade`), so that its own mel describes it to the ends,
    and it is rounded to 16 bits again: q = round(g n) for recorded samples n. Utterances shorter
    than a crop are padded with zeros.

    Item: `audio`, (frames * hop,) float32, is q dequantised (see `vocoder.audio.dequantise`);
    `clean`, of the same shape, is q / 32768, whose mel the model is conditioned on.

    A share `noisy` of the crops gets Gaussian noise, a first-order autoregressive process of a
    coefficient between 0 and 0.97, at a signal-to-noise ratio between 0 and 40 dB.

    Args:
        corpus, ids: what to crop from, and the utterances.
        hop_length: samples per mel frame.
        crop_frames, gain_db, noisy, seed: see `SpeechData`.
        batch: crops of a step on all devices together: those of every other step are one frame
            shorter, so that models learn both even and odd lengths. 0 for none.
    """

    corpus: PreparedCorpus
    ids: Sequence[str]
    hop_length: int
    crop_frames: int
    gain_db: tuple[float, float] = (0.0, 0.0)
    noisy: float = 0.0
    seed: int = 0
    batch: int = 0

    def __post_init__(self) -> None:
        self.ends = np.cumsum([self.corpus.entries[id].samples for id in self.ids])

    def __getitem__(self, index: int) -> Item:
        shorter = index // self.batch % 2 if self.batch else 0
        samples = (self.crop_frames - shorter) * self.hop_length
        rng = np.random.default_rng((self.seed, index))
        which = np.searchsorted(self.ends, rng.integers(self.ends[-1]), side="right")
        id = self.ids[int(which)]
        recorded = self.corpus.audio(id)
        offset = int(rng.integers(max(recorded.size - samples, 0) + 1))
        loudest = 32767 / max(self.corpus.entries[id].peak, 1)
        gain = min(10 ** (rng.uniform(*self.gain_db) / 20), loudest)
        crop = np.zeros(samples, dtype=np.float32)
        piece = recorded[offset : offset + samples]
        np.multiply(piece, gain, out=crop[: piece.size], casting="unsafe")
        if self.noisy and rng.random() < self.noisy:
            crop = _with_noise(crop, rng)
        return _item(crop, self.hop_length, rng)


def _with_noise(crop: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A crop with noise of a random colour and level; see `Crops`."""
    coefficient, decibels = rng.uniform(0, 0.97), rng.uniform(0, 40)
    noise = lfilter([1.0], [1.0, -coefficient], rng.standard_normal(crop.size))
    # Each RMS is at least that of one level: in a crop of silence there is quiet noise.
    level = max(float(np.sqrt(np.mean(np.square(crop)))), 1.0) * 10 ** (-decibels / 20)
    crop = (crop + noise * (level / np.sqrt(np.mean(np.square(noise))))).astype(np.float32)
    loudest = float(np.abs(crop).max())
    return crop * np.float32(min(1.0, 32767 / loudest))


def _item(samples: NDArray[np.float32], hop: int, rng: np.random.Generator) -> Item:
    """`audio` and `clean` of samples in 16-bit steps; see `Crops`."""
    levels = np.rint(fade(samples, hop))
    return {"audio": dequantise(levels, rng), "clean": from_pcm16(levels)}


def held_out(corpus: PreparedCorpus, id: str, hop: int, seconds: float | None = None) -> Item:
    """An utterance, or its middle, in whole hops, its ends faded: `id`, `audio` and `clean` as in
    `Crops`. Its noise depends on the id alone."""
    recorded = corpus.audio(id)
    longest = frames = recorded.size // hop
    if seconds is not None:
        longest = max(int(seconds * corpus.sample_rate / hop), 2)
    start = max(frames - longest, 0) // 2
    samples = recorded[start * hop : min(start + longest, frames) * hop].astype(np.float32)
    return {"id": id, **_item(samples, hop, np.random.default_rng(zlib.crc32(id.encode())))}


@dataclass
class Batches(Sampler[list[int]]):
    """Endless batches of draws 0, 1, 2 ..., from draw `start` on, so that a resumed run repeats and
    skips nothing; n devices see what one would with n times the batch size."""

    batch_size: int
    start: int = 0
    rank: int = 0
    world_size: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start + self.rank * self.batch_size
        for index in itertools.count(first, self.batch_size * self.world_size):
            yield list(range(index, index + self.batch_size))


@dataclass(eq=False)
class CorpusData(lightning.LightningDataModule):
    """A corpus that is read, decoded and split: what the data of all recipes share.

    Args:
        mel_spec: of the model; its sample rate is the one that the corpus is prepared at.
        folder: the corpus, in LJSpeech's layout.
        cache: where prepared corpora are kept.
        batch_size: crops or excerpts per step and device.
        validation_utterances: at most this many are used at each validation.
        seed: of what is drawn.
        workers: processes that load crops; 0 for none, null for 4 with a GPU and 0 without.
    """

    mel_spec: MelSpec
    folder: Path
    cache: Path
    batch_size: int = 16
    validation_utterances: int = 20
    seed: int = 0
    workers: int | None = 0

    trains_on_text: ClassVar[bool] = False
    collate = staticmethod(default_collate)

    def __post_init__(self) -> None:
        super().__init__()
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}: a batch has at least one item")

    def read(self) -> Corpus:
        """The corpus, or the part of it that is used."""
        return read_corpus(self.folder)

    def usable(self) -> Container[str]:
        """Ids of the utterances that can be used; called once by `setup`."""
        return self.prepared.entries

    def training_set(self, batch: int) -> Dataset[Any]:
        """An endless dataset to train on, for steps of `batch` items on all devices."""
        raise NotImplementedError

    def held_out(self, ids: Sequence[str], excerpts: bool = False) -> list[Any]:
        """These utterances, or the excerpts of them that are validated on."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "prepared"):
            return
        self.corpus = self.read()
        self.prepared = prepare(self.corpus, self.mel_spec.sample_rate, self.cache)
        # Split before files are left out, so that the choice does not depend on the sample rate.
        whole = split([utterance.id for utterance in self.corpus.utterances])
        self.split = whole.only(self.usable(), self.folder, self.prepared.missing or "unusable")

    def train_dataloader(self) -> DataLoader[Any]:
        trainer: Any = self.trainer
        start, devices = trainer.lightning_module.items_seen, trainer.world_size
        gpu = trainer.strategy.root_device.type != "cpu"
        workers = 4 * gpu if self.workers is None else self.workers
        return DataLoader(
            self.training_set(self.batch_size * devices),
            batch_sampler=Batches(self.batch_size, start, trainer.global_rank, devices),
            collate_fn=self.collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=gpu,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        ids = self.split.validation[: self.validation_utterances]
        items: Any = self.held_out(ids, excerpts=True)
        return DataLoader(items, batch_size=1, collate_fn=self.collate)


@dataclass(eq=False)
class SpeechData(CorpusData):
    """Crops to train on and held-out utterances of one corpus, chosen by `corpus.split`.

    Args:
        crop_frames: length of a crop in mel frames; every other batch is one frame shorter.
        gain_db: least and greatest gain of the volume augmentation, in decibels.
        noisy: share of the training crops that get noise, 0 to 1; see `Crops`.
        validation_seconds: longest excerpt of each; null for whole utterances.
    """

    crop_frames: int = 64
    gain_db: tuple[float, float] = (-9.0, 3.0)
    noisy: float = 0.0
    validation_seconds: float | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_frames < 2:
            raise ValueError(f"crop_frames is {self.crop_frames}: a crop has two frames or more")

    def training_set(self, batch: int) -> Crops:
        how = self.crop_frames, self.gain_db, self.noisy, self.seed, batch
        return Crops(self.prepared, self.split.train, self.mel_spec.hop_length, *how)

    def held_out(self, ids: Sequence[str], excerpts: bool = False) -> list[Item]:
        seconds = self.validation_seconds if excerpts else None
        return [held_out(self.prepared, id, self.mel_spec.hop_length, seconds) for id in ids]
