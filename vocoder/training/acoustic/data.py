"""Data of the acoustic model: phonemes, alignments, pitch and mels."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler

from vocoder.audio import LogMel, MelSpec, from_pcm16
from vocoder.corpus import Corpus, CorpusError, check_texts, read_corpus
from vocoder.nn.pitch import load_pitch
from vocoder.text.acoustic import REFERENCE_HZ, AcousticModel, Batch, places
from vocoder.text.alignment import align
from vocoder.text.frontend import TextError, phonemes
from vocoder.training.crops import CorpusData

log = logging.getLogger("vocoder.training")


class Item(NamedTuple):
    """An utterance, or an excerpt of T frames; see `Batch` for its fields."""

    symbols: Tensor
    voice: int
    durations: Tensor
    place: Tensor
    mel: Tensor
    pitch: Tensor
    voicing: Tensor

    def excerpt(self, first: int, frames: int) -> Item:
        """At most ``frames`` frames from ``first`` on; symbols and durations stay whole."""
        kept = slice(first, first + frames)
        return self._replace(
            place=self.place[kept],
            mel=self.mel[kept],
            pitch=self.pitch[kept],
            voicing=self.voicing[kept],
        )


def collate(items: Sequence[Item]) -> Batch:
    """Items padded to the longest."""

    def padded(name: str) -> Tensor:
        return pad_sequence([getattr(item, name) for item in items], batch_first=True)

    frames = torch.tensor([len(item.mel) for item in items])
    place = padded("place")
    mask = (torch.arange(place.shape[1]) < frames.unsqueeze(1)).float().unsqueeze(2)
    place[..., 2] = place[..., 2].clamp_min(1)  # the length of a state, whose logarithm is taken
    return Batch(
        padded("symbols"),
        torch.tensor([len(item.symbols) for item in items]),
        torch.tensor([item.voice for item in items]),
        padded("durations"),
        place,
        padded("mel").float(),
        padded("pitch"),
        padded("voicing"),
        mask,
    )


class Excerpts(Dataset[Item]):
    """Excerpts at random places: item (n, i) is the n-th draw, from utterance i."""

    def __init__(self, items: Sequence[Item], frames: int, seed: int) -> None:
        self.items = items
        self.frames = frames
        self.seed = seed

    def __getitem__(self, index: tuple[int, int]) -> Item:
        n, i = index
        item = self.items[i]
        spare = max(0, len(item.mel) - self.frames)
        first = np.random.default_rng((self.seed, n)).integers(spare + 1)
        return item.excerpt(int(first), self.frames)


class Shuffled(Sampler[list[tuple[int, int]]]):
    """Endless batches of draws (n, i), beginning with draw number `start`.

    Every epoch is a new order of all utterances that depends on (seed, epoch) alone, so a resumed
    run repeats and skips none. Several devices take batches in turn.
    """

    def __init__(
        self, count: int, batch_size: int, start: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.batch_size, self.start, self.seed = count, batch_size, start, seed
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, np.int64)
        for batch in itertools.count(self.start // self.batch_size + self.rank, self.world):
            draws = range(batch * self.batch_size, (batch + 1) * self.batch_size)
            chosen = []
            for n in draws:
                if n // self.count != epoch:
                    epoch = n // self.count
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
                chosen.append((n, int(order[n % self.count])))
            yield chosen


@dataclass(eq=False)
class TextAndSpeech(CorpusData):
    """Text and speech of a corpus in LJSpeech's layout, aligned, in memory (about 60 MB an hour).

    Durations come from `vocoder.text.alignment.align`, pitch and voicing from the network that
    reads them off mels (`vocoder.nn.pitch`).

    Args:
        mel_spec: of the model.
        folder: the corpus.
        cache: where prepared corpora are kept.
        voices: name of each voice and what the ids of its utterances begin with; one voice named
            "speaker", of all utterances, by default.
        batch_size: excerpts per step and device.
        frames: of an excerpt.
        longest_seconds: longer utterances are left out.
        validation_utterances: at most this many are used at each validation.
        seed: of order and excerpts.

    Raises:
        ValueError: batch_size or frames is below 1.
    """

    mel_spec: MelSpec
    folder: Path
    cache: Path
    voices: Mapping[str, str] | None = None
    batch_size: int = 16
    frames: int = 160
    longest_seconds: float = 15.0
    validation_utterances: int = 20
    seed: int = 0
    trains_on_text = True

    def __post_init__(self) -> None:
        super().__init__()
        if self.batch_size < 1 or self.frames < 1:
            raise ValueError(
                f"batch_size is {self.batch_size} and frames {self.frames}: at least 1 each"
            )
        self.prefixes = dict(self.voices or {"speaker": ""})

    def read(self) -> Corpus:
        corpus = read_corpus(self.folder)
        check_texts(corpus)
        for voice, prefix in self.prefixes.items():
            if not any(u.id.startswith(prefix) for u in corpus.utterances):
                raise CorpusError(
                    f"no utterance of {self.folder} has an id that begins with {prefix!r} (voice "
                    f"{voice}): the first is {corpus.utterances[0].id}"
                )
        kept = tuple(u for u in corpus.utterances if self._voice(u.id) is not None)
        return replace(corpus, utterances=kept)

    def _voice(self, id: str) -> str | None:
        return next((v for v, prefix in self.prefixes.items() if id.startswith(prefix)), None)

    def usable(self) -> dict[str, Tensor]:
        log_mel, read_pitch = LogMel(self.mel_spec), load_pitch(self.mel_spec)
        longest = self.longest_seconds * self.mel_spec.sample_rate
        unreadable: list[str] = []
        self.phonemes: dict[str, list[str]] = {}
        self.mels: dict[str, Tensor] = {}
        self._pitch: dict[str, tuple[Tensor, Tensor]] = {}
        self._items: dict[str, Item] | None = None  # aligned when first asked for
        for utterance in track(self.corpus.utterances, "mels and pitch", transient=True):
            entry = self.prepared.entries.get(utterance.id)
            if entry is None or entry.samples > longest:
                continue
            try:
                self.phonemes[utterance.id] = phonemes(utterance.normalised)
            except TextError as error:
                unreadable.append(f"{utterance.id} ({error})")
                continue
            with torch.inference_mode():
                mel = log_mel(torch.from_numpy(self.audio(utterance.id)))
                f0, voicing = read_pitch(mel.unsqueeze(0))
            self.mels[utterance.id] = mel.half()  # an error of 0.004 nats at most
            self._pitch[utterance.id] = (f0[0] / REFERENCE_HZ).log(), voicing[0]
        if unreadable:
            log.warning("%s: %d utterances left out, text unreadable (first: %s)",
                        self.prepared.name, len(unreadable), unreadable[0])  # fmt: skip
        return self.mels

    def audio(self, id: str) -> NDArray[np.float32]:
        """The recording of an utterance, (samples,), in [-1, 1)."""
        return from_pcm16(self.prepared.audio(id))

    def items(self, ids: Sequence[str], model: AcousticModel) -> dict[str, Item]:
        """Aligned utterances; one with fewer frames than states is left out."""
        if self._items is None:
            self._items = self._aligned(model)
        return {id: self._items[id] for id in ids if id in self._items}

    def _aligned(self, model: AcousticModel) -> dict[str, Item]:
        """All utterances: the more of them, the better the alignment, held-out ones included."""
        items: dict[str, Item] = {}
        for voice, name in enumerate(self.prefixes):
            symbols: dict[str, Tensor] = {}
            for id in self.mels:
                if self._voice(id) != name:
                    continue
                found = model.indices(self.phonemes[id])
                if len(found) * model.states > self.mels[id].shape[1]:
                    log.warning("%s is left out: its text is too long for its audio", id)
                    continue
                symbols[id] = found
            if not symbols:
                continue
            durations = align(
                [(found, self.mels[id].float()) for id, found in symbols.items()],
                model.states,
                [self._pitch[id][1] for id in symbols],
            )
            for (id, found), duration in zip(symbols.items(), durations, strict=True):
                mel = self.mels[id].T
                items[id] = Item(found, voice, duration, places(duration), mel, *self._pitch[id])
        return items

    def bands(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every band over the training set, (n_mels,) each."""
        frames = torch.cat([self.mels[id].float() for id in self.split.train], dim=1).double()
        return frames.mean(dim=1).float(), frames.std(dim=1).float().clamp_min(1e-3)

    def prosody(self, voices: Sequence[str], mean: Tensor, scale: Tensor) -> Tensor:
        """Mean pitch and loudness of every voice, (voices, 2); see `AcousticModel.normalise_by`."""
        result = torch.zeros(len(voices), 2)
        for row, voice in enumerate(voices):
            own = [id for id in self.split.train if self._voice(id) == voice]
            pitch = torch.cat([p[v > 0.5] for p, v in (self._pitch[id] for id in own)])
            mels = torch.cat([self.mels[id].T.float() for id in own])
            result[row, 0] = pitch.mean() if len(pitch) else 0.0
            result[row, 1] = ((mels - mean) / scale).mean()
        return result

    def train_dataloader(self) -> DataLoader[Item]:
        trainer: Any = self.trainer
        module = trainer.lightning_module
        items = list(self.items(self.split.train, module.model).values())
        sampler = Shuffled(
            len(items),
            self.batch_size,
            module.items_seen,  # kept in its checkpoints
            self.seed,
            trainer.global_rank,
            trainer.world_size,
        )
        data = Excerpts(items, self.frames, self.seed)
        return DataLoader(data, batch_sampler=sampler, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[Item]:
        trainer: Any = self.trainer
        ids = self.split.validation[: self.validation_utterances]
        items: Any = list(self.items(ids, trainer.lightning_module.model).values())
        return DataLoader(items, batch_size=1, collate_fn=collate)
