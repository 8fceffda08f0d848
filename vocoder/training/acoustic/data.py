"""What the acoustic model is trained and validated on: phonemes and mels of whole utterances, in
batches of similar length.
"""

from __future__ import annotations

import itertools
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler

from vocoder.audio import LogMel, MelSpec, from_pcm16
from vocoder.corpus import Corpus, CorpusError, check_texts, read_corpus, split
from vocoder.text.acoustic import AcousticModel, Batch
from vocoder.text.alignment import flat_start, whole_durations
from vocoder.text.frontend import TextError, phonemes
from vocoder.training.prepared import PreparedCorpus, manifest, prepare

log = logging.getLogger("vocoder.training")


class Item(NamedTuple):
    """Symbols (symbols,), mel (n_mels, frames) and durations (states,) of an utterance."""

    symbols: Tensor
    mel: Tensor
    durations: Tensor


class Drawn(NamedTuple):
    """A batch, and the durations (batch, states) of its items."""

    batch: Batch
    durations: Tensor


class Utterances(Dataset[Item]):
    """Utterances with new noise on the mel at every draw.

    Item (n, i) is the i-th utterance as the n-th draw, and depends on nothing else.

    Args:
        items: the utterances.
        noise: standard deviation of the noise, in nats of the log-mel.
        seed: of the noise.
    """

    def __init__(self, items: Sequence[Item], noise: float, seed: int) -> None:
        self.items = items
        self.noise = noise
        self.seed = seed

    def __getitem__(self, index: tuple[int, int]) -> Item:
        n, i = index
        item = self.items[i]
        return item._replace(mel=noisy(item.mel, self.noise, self.seed * 1_000_003 + n))


class LikeLengths(Sampler[list[tuple[int, int]]]):
    """Endless batches of utterances of similar length, starting with the draw number `start`.

    An epoch sorts the utterances by length, with jitter so that epochs have different batches,
    cuts the list into batches (a random remainder is left out) and shuffles these. Epoch e depends
    on (seed, e) alone, so a resumed run repeats and skips none. Several devices take batches in
    turn.

    Args:
        frames: length of each utterance.
        batch_size: utterances per batch and device.
        start: utterances drawn so far by all devices together.
        seed: of the order.
    """

    def __init__(
        self,
        frames: Sequence[int],
        batch_size: int,
        start: int = 0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.frames = np.asarray(frames)
        self.batch_size = min(batch_size, len(frames))
        self.start = start
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = len(self.frames) // self.batch_size
        first = self.start // self.batch_size + self.rank
        epoch, batches = -1, []
        for batch in itertools.count(first, self.world_size):
            if batch // per_epoch != epoch:
                epoch = batch // per_epoch
                batches = self._epoch(epoch)
            drawn = batch * self.batch_size
            yield [(drawn + k, int(i)) for k, i in enumerate(batches[batch % per_epoch])]

    def _epoch(self, epoch: int) -> list[Any]:
        rng = np.random.default_rng((self.seed, epoch))
        jittered = self.frames * rng.uniform(0.9, 1.1, len(self.frames))
        order = np.argsort(jittered)
        spare = len(order) % self.batch_size
        order = np.delete(order, rng.choice(len(order), spare, replace=False))
        batches = order.reshape(-1, self.batch_size)
        return list(batches[rng.permutation(len(batches))])


class TextAndSpeech(lightning.LightningDataModule):
    """Phonemes and mels of a corpus in LJSpeech's layout, held in memory.

    Mels get a little noise, always the same in validation: in digital silence all bands are at the
    floor of the logarithm, where a density would be unbounded.

    Args:
        mel_spec: of the model.
        folder: the corpus.
        cache: where prepared corpora are kept.
        prefix: only utterances whose id begins with this are used: one voice of several.
        batch_size: utterances per step and device.
        noise: standard deviation of the noise on the mels, in nats.
        longest_seconds: longer utterances are left out.
        validation_fraction: share of the utterances held out for validation; see `corpus.split`.
        test_fraction: share held out for testing.
        validation_utterances: at most this many are used at each validation.
        seed: of order and noise.

    Raises:
        ValueError: batch_size is below 1.
    """

    def __init__(
        self,
        mel_spec: MelSpec,
        folder: Path,
        cache: Path,
        prefix: str = "",
        batch_size: int = 16,
        noise: float = 0.05,
        longest_seconds: float = 12.0,
        validation_fraction: float = 0.02,
        test_fraction: float = 0.02,
        validation_utterances: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
        self.mel_spec = mel_spec
        self.folder = folder
        self.cache = cache
        self.prefix = prefix
        self.batch_size = batch_size
        self.noise = noise
        self.longest_seconds = longest_seconds
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction
        self.validation_utterances = validation_utterances
        self.seed = seed
        self._corpus: Corpus | None = None
        self._prepared: PreparedCorpus | None = None

    def prepare_data(self) -> None:
        prepare(self._read(), self.mel_spec.sample_rate, self.cache)

    def _read(self) -> Corpus:
        corpus = read_corpus(self.folder)
        check_texts(corpus)
        chosen = tuple(u for u in corpus.utterances if u.id.startswith(self.prefix))
        if not chosen:
            raise CorpusError(
                f"no utterance of {self.folder} has an id that begins with {self.prefix!r}: the "
                f"first is {corpus.utterances[0].id}"
            )
        return replace(corpus, utterances=chosen)

    def setup(self, stage: str | None = None) -> None:
        if self._prepared is not None:
            return
        corpus = self._corpus = self._read()
        self._prepared = prepare(corpus, self.mel_spec.sample_rate, self.cache)
        whole = split(
            [u.id for u in corpus.utterances], self.validation_fraction, self.test_fraction
        )
        log_mel = LogMel(self.mel_spec)
        unreadable: list[str] = []
        self.phonemes: dict[str, list[str]] = {}
        self.mels: dict[str, Tensor] = {}
        for utterance in corpus.utterances:
            if utterance.id not in self._prepared.entries:
                continue
            try:
                self.phonemes[utterance.id] = phonemes(utterance.normalised)
            except TextError as error:
                unreadable.append(f"{utterance.id} ({error})")
                continue
            self.mels[utterance.id] = even(log_mel(torch.from_numpy(self.audio(utterance.id))))
        if unreadable:
            log.warning("%s: %d utterances left out, text unreadable (first: %s)", corpus.name,
                        len(unreadable), unreadable[0])  # fmt: skip
        longest = self.longest_seconds * self.mel_spec.sample_rate / self.mel_spec.hop_length
        usable = {id for id, mel in self.mels.items() if mel.shape[1] <= longest}
        self.split = whole.only(usable, self.folder, self._prepared.missing)

    @property
    def prepared(self) -> PreparedCorpus:
        """The prepared corpus, after `setup`."""
        assert self._prepared is not None
        return self._prepared

    def manifest(self) -> str:
        """Hash of the corpus and its text, after `setup`; see `prepared.manifest`."""
        assert self._corpus is not None
        return manifest(self._corpus, self.prepared, text=True)

    def audio(self, id: str) -> NDArray[np.float32]:
        """The recording of an utterance, (samples,), in [-1, 1)."""
        return from_pcm16(self.prepared.audio(id))

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every band over the training set, (n_mels,) each."""
        frames = torch.cat([self.mels[id] for id in self.split.train], dim=1).double()
        variance = frames.var(dim=1, correction=0) + self.noise**2
        return frames.mean(dim=1).float(), variance.sqrt().float()

    def items(self, ids: Sequence[str], model: AcousticModel) -> dict[str, Item]:
        """Symbols, clean mels, and durations as equal as whole numbers allow.

        An utterance with fewer frames than states is left out.
        """
        items = {}
        for id in ids:
            symbols = model.indices(self.phonemes[id])
            states, frames = len(symbols) * model.states, self.mels[id].shape[1]
            if states > frames:
                log.warning("%s is left out: its text is too long for its audio", id)
                continue
            durations = whole_durations(torch.full((states,), frames / states))
            items[id] = Item(symbols, self.mels[id], durations)
        return items

    def held_out(self, ids: Sequence[str], model: AcousticModel) -> dict[str, Item]:
        """Items with noise that depends on the id alone."""
        return {
            id: item._replace(mel=noisy(item.mel, self.noise, zlib.crc32(id.encode())))
            for id, item in self.items(ids, model).items()
        }

    def train_dataloader(self) -> DataLoader[Item]:
        trainer: Any = self.trainer
        module = trainer.lightning_module
        items = list(self.items(self.split.train, module.model).values())
        if trainer.global_step < module.flat_start_steps:
            found = flat_start([(item.symbols, item.mel) for item in items], module.model.states)
            items = [
                item._replace(durations=durations)
                for item, durations in zip(items, found, strict=True)
            ]
        sampler = LikeLengths(
            [item.mel.shape[1] for item in items],
            self.batch_size,
            module.items_seen,  # kept in its checkpoints
            self.seed,
            trainer.global_rank,
            trainer.world_size,
        )
        data = Utterances(items, self.noise, self.seed)
        return DataLoader(data, batch_sampler=sampler, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[Item]:
        trainer: Any = self.trainer
        ids = self.split.validation[: self.validation_utterances]
        items: Any = list(self.held_out(ids, trainer.lightning_module.model).values())
        return DataLoader(items, batch_size=1, collate_fn=collate)


def collate(items: Sequence[Item]) -> Drawn:
    """Items padded with zeros to the longest."""
    batch = Batch(
        pad_sequence([item.symbols for item in items], batch_first=True),
        torch.tensor([len(item.symbols) for item in items]),
        pad_sequence([item.mel.T for item in items], batch_first=True).transpose(1, 2),
        torch.tensor([item.mel.shape[1] for item in items]),
    )
    return Drawn(batch, pad_sequence([item.durations for item in items], batch_first=True))


def even(mel: Tensor) -> Tensor:
    """The mel without its last frame if the number of frames is odd."""
    return mel[:, : mel.shape[1] // 2 * 2]


def noisy(mel: Tensor, noise: float, seed: int) -> Tensor:
    """The mel with normal noise of the given standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    return mel + noise * torch.randn(mel.shape, generator=generator)
