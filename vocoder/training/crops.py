"""What a model is trained and validated on: random crops and held-out excerpts of a prepared
corpus, each a pure function of a seed and an index, with its Lightning data module.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from torch.utils.data import DataLoader, Dataset, Sampler

from vocoder.audio import MelSpec, dequantise, fade, from_pcm16
from vocoder.corpus import Corpus, read_corpus, split
from vocoder.training.prepared import PreparedCorpus, manifest, prepare

Item = dict[str, Any]


@dataclass
class Crops(Dataset[Item]):
    r"""An endless set of random crops; crop i depends on (seed, i) and its length alone.

    Indexed by i, or by (i, frames) for another length than `crop_frames`. A crop is drawn from an
    utterance chosen in proportion to its length, at any sample, and scaled by a gain g, uniform in
    decibels within `gain_db` and limited so that the utterance does not clip. Its ends are faded
    (`fade`), and it is rounded to 16 bits again, like a recording at that volume: q = round(g n)
    for recorded samples n.

    Item: `audio`, (frames * hop,) float32, is q dequantised (see `dequantise`); `clean`, of the
    same shape, is q / 32768, whose mel the model is conditioned on. Utterances shorter than a crop
    are padded with zeros. A faded crop is an utterance that its own mel describes to the ends; in
    the mel of the uncut utterance, its ends would be jumps that the mel does not show.

    A share `noisy` of the crops gets Gaussian noise, a first-order autoregressive process of a
    coefficient between 0 and 0.97, at a signal-to-noise ratio between 0 and 40 dB. Speech from a
    studio or a synthesiser has digital silence in its pauses, and a flow that has seen nothing else
    gives recordings with a noise floor absurdly low likelihoods.

    Args:
        corpus: what to crop from.
        ids: the utterances to crop from.
        hop_length: samples per mel frame.
        crop_frames: length of a crop in mel frames.
        gain_db: least and greatest gain, in decibels.
        noisy: share of the crops that get noise, 0 to 1.
        seed: another seed gives other crops.
    """

    corpus: PreparedCorpus
    ids: Sequence[str]
    hop_length: int
    crop_frames: int
    gain_db: tuple[float, float] = (0.0, 0.0)
    noisy: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self.ends = np.cumsum([self.corpus.entries[id].samples for id in self.ids])

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        index, frames = key if isinstance(key, tuple) else (key, self.crop_frames)
        samples = frames * self.hop_length
        rng = np.random.default_rng((self.seed, index))
        which = np.searchsorted(self.ends, rng.integers(self.ends[-1]), side="right")
        id = self.ids[int(which)]
        recorded = self.corpus.audio(id)
        offset = int(rng.integers(max(recorded.size - samples, 0) + 1))
        gain = 10 ** (rng.uniform(*self.gain_db) / 20)
        gain = min(gain, 32767 / max(self.corpus.entries[id].peak, 1))
        crop = np.zeros(samples, dtype=np.float32)
        piece = recorded[offset : offset + samples]
        np.multiply(piece, gain, out=crop[: piece.size], casting="unsafe")
        if self.noisy and rng.random() < self.noisy:
            crop = _with_noise(crop, rng)
        return _item(np.rint(fade(crop, self.hop_length)), rng)


def _with_noise(crop: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A crop with noise of a random colour and level; see `Crops`."""
    coefficient, decibels = rng.uniform(0, 0.97), rng.uniform(0, 40)
    noise = lfilter([1.0], [1.0, -coefficient], rng.standard_normal(crop.size))
    # Each RMS is at least that of one level: in a crop of silence there is quiet noise.
    level = max(float(np.sqrt(np.mean(np.square(crop)))), 1.0) * 10 ** (-decibels / 20)
    crop = (crop + noise * (level / np.sqrt(np.mean(np.square(noise))))).astype(np.float32)
    loudest = float(np.abs(crop).max())
    return crop * np.float32(min(1.0, 32767 / loudest))


def _item(levels: NDArray[Any], rng: np.random.Generator) -> Item:
    """16-bit levels q, dequantised as `audio` and exact as `clean`."""
    return {"audio": dequantise(levels, rng), "clean": from_pcm16(levels)}


@dataclass
class HeldOut(Dataset[Item]):
    """Held-out utterances, or their middles, dequantised with noise that depends on the id alone.

    Their ends are faded like those of crops, since a recording may end in the middle of a sound.

    Item: `id`, and `audio` and `clean` (frames * hop,) as in `Crops`.

    Args:
        corpus: what to take them from.
        ids: the utterances.
        hop_length: every item is cut to a whole number of hops, in samples.
        seconds: longest item; longer utterances are cut to their middle. None for whole utterances.
    """

    corpus: PreparedCorpus
    ids: Sequence[str]
    hop_length: int
    seconds: float | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Item:
        id, hop = self.ids[index], self.hop_length
        recorded = self.corpus.audio(id)
        frames, start = recorded.size // hop, 0
        if self.seconds is not None:
            longest = max(int(self.seconds * self.corpus.sample_rate / hop), 2)
            start = max(frames - longest, 0) // 2
            frames = min(frames, longest)
        samples = np.array(recorded[start * hop : (start + frames) * hop], dtype=np.float32)
        levels = np.rint(fade(samples, hop))
        return {"id": id, **_item(levels, np.random.default_rng(zlib.crc32(id.encode())))}


@dataclass
class CropSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of crops (index, frames), starting with crop `start`.

    The crops of every other batch are one frame shorter than `crop_frames`: models that treat even
    and odd frames differently need to learn both kinds of ending.

    A batch of all devices together is a range of indices, of which device `rank` of `world_size`
    takes its share. So n devices see the crops that one would see with n times the batch size, and
    a resumed run repeats and skips none.
    """

    batch_size: int
    crop_frames: int
    start: int = 0
    rank: int = 0
    world_size: int = 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        stride = self.batch_size * self.world_size
        for start in itertools.count(self.start, stride):
            frames = self.crop_frames - start // stride % 2
            first = start + self.rank * self.batch_size
            yield [(index, frames) for index in range(first, first + self.batch_size)]


class CorpusData(lightning.LightningDataModule):
    """A corpus that is read, decoded and split: what the data of all recipes share.

    After `setup`, `corpus` is the corpus, `prepared` the prepared one, and `split` the usable
    utterances of each set.
    """

    mel_spec: MelSpec
    folder: Path
    cache: Path
    trains_on_text = False

    def read(self) -> Corpus:
        """The corpus, or the part of it that is used."""
        return read_corpus(self.folder)

    def usable(self) -> Container[str]:
        """Ids of the utterances that can be used; called once by `setup`."""
        return self.prepared.entries

    def prepare_data(self) -> None:
        prepare(self.read(), self.mel_spec.sample_rate, self.cache)

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "prepared"):
            return
        self.corpus = self.read()
        self.prepared = prepare(self.corpus, self.mel_spec.sample_rate, self.cache)
        # Split before files are left out, so that the choice does not depend on the sample rate.
        whole = split([utterance.id for utterance in self.corpus.utterances])
        self.split = whole.only(self.usable(), self.folder, self.prepared.missing)

    def manifest(self) -> str:
        """Hash of the corpus, after `setup`; see `prepared.manifest`."""
        return manifest(self.corpus, self.prepared, self.trains_on_text)


@dataclass(eq=False)
class SpeechData(CorpusData):
    """Crops to train on and held-out utterances of one corpus, chosen by `corpus.split`.

    Args:
        mel_spec: of the model; its sample rate is the one that the corpus is prepared at.
        folder: the corpus, in LJSpeech's layout.
        cache: where prepared corpora are kept.
        batch_size: crops per step and device.
        crop_frames: length of a crop in mel frames; every other batch is one frame shorter.
        gain_db: least and greatest gain of the volume augmentation, in decibels.
        noisy: share of the training crops that get noise, 0 to 1; see `Crops`.
        validation_utterances: at most this many are used at each validation.
        validation_seconds: longest excerpt of each; null for whole utterances.
        workers: processes that load crops; 0 loads them in the training process. By default 4
            with a GPU, which would otherwise wait, and 0 when training on the CPU.
        seed: of the crops.

    Raises:
        ValueError: batches or crops that are too small, gains in the wrong order, or a
            share out of range.
    """

    mel_spec: MelSpec
    folder: Path
    cache: Path
    batch_size: int = 16
    crop_frames: int = 64
    gain_db: tuple[float, float] = (-9.0, 3.0)
    noisy: float = 0.0
    validation_utterances: int = 20
    validation_seconds: float | None = None
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}: a batch has at least one crop")
        if self.crop_frames < 2:
            raise ValueError(f"crop_frames is {self.crop_frames}: a crop has two frames or more")
        if self.gain_db[0] > self.gain_db[1]:
            raise ValueError(f"gain_db is {self.gain_db}: give the least gain first")
        if not 0 <= self.noisy <= 1:
            raise ValueError(f"noisy is {self.noisy}: give the share of the crops that get noise")

    def held_out(self, ids: Sequence[str], seconds: float | None = None) -> HeldOut:
        """The dataset of these utterances."""
        return HeldOut(self.prepared, ids, self.mel_spec.hop_length, seconds)

    def train_dataloader(self) -> DataLoader[Item]:
        trainer: Any = self.trainer
        how = self.crop_frames, self.gain_db, self.noisy, self.seed
        crops = Crops(self.prepared, self.split.train, self.mel_spec.hop_length, *how)
        sampler = CropSampler(
            self.batch_size,
            self.crop_frames,
            # Counted by the training module and saved in its checkpoints.
            start=trainer.lightning_module.items_seen,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        gpu = trainer.strategy.root_device.type != "cpu"
        workers = self.workers if self.workers is not None else 4 * gpu
        return DataLoader(
            crops,
            batch_sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=gpu,
        )

    def val_dataloader(self) -> DataLoader[Item]:
        ids = self.split.validation[: self.validation_utterances]
        return DataLoader(self.held_out(ids, self.validation_seconds), batch_size=1)
