"""Training of the acoustic model, text to mel: its data, Lightning module, report and recipe."""

from __future__ import annotations

import functools
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from vocoder.audio import LogMel, from_pcm16
from vocoder.audio.validation import limited
from vocoder.corpus import Corpus, CorpusError, check_texts
from vocoder.evaluation.baselines import GriffinLim
from vocoder.nn.pitch import load_pitch
from vocoder.text.acoustic import REFERENCE_HZ, AcousticModel, Batch, load_checkpoint, places
from vocoder.text.alignment import align
from vocoder.text.frontend import SYMBOLS, TextError, phonemes
from vocoder.training.data import CorpusData, log
from vocoder.training.module import Scores, Training
from vocoder.training.recipe import Recipe
from vocoder.training.report import HELD_OUT, Example, Finished, write_report

COLUMNS = {
    "mel_distance": "mel distance, nats",
    "pitch_error": "pitch error, semitones",
    "duration_error": "duration error, frames per symbol",
    "length_error": "length error, fraction",
}
"""Titles of the scores of `held_out_scores`."""

_WEIGHTS = {"mel": 1.0, "slope": 0.3, "duration": 0.1, "pitch": 1.0, "bend": 2.0,
            "voicing": 0.3, "loudness": 0.3}  # fmt: skip


class Item(NamedTuple):
    """An utterance, or an excerpt of T frames; see `Batch` for its fields."""

    symbols: Tensor
    voice: int
    durations: Tensor
    place: Tensor
    mel: Tensor
    pitch: Tensor
    voicing: Tensor


def collate(items: Sequence[Item]) -> Batch:
    """Items padded to the longest."""
    columns: list[Any] = [list(column) for column in zip(*items, strict=True)]
    symbols, voice, durations, place, mel, pitch, voicing = (
        pad_sequence(column, batch_first=True) if isinstance(column[0], Tensor)
        else torch.tensor(column) for column in columns
    )  # fmt: skip
    frames = torch.tensor([len(item.mel) for item in items])
    mask = (torch.arange(place.shape[1]) < frames.unsqueeze(1)).float().unsqueeze(2)
    place[..., 2] = place[..., 2].clamp_min(1)  # the length of a state, whose logarithm is taken
    counts = torch.tensor([len(item.symbols) for item in items])
    return Batch(symbols, counts, voice, durations, place, mel.float(), pitch, voicing, mask)


@dataclass
class Excerpts(Dataset[Item]):
    """An endless set of excerpts at random places, of which draw n depends on (seed, n) alone; each
    epoch is a new order of all utterances."""

    items: Sequence[Item]
    frames: int
    seed: int

    def __getitem__(self, n: int) -> Item:
        epoch, place = divmod(n, len(self.items))
        item = self.items[int(_order(len(self.items), self.seed, epoch)[place])]
        spare = max(0, len(item.mel) - self.frames)
        first = int(np.random.default_rng((self.seed, n)).integers(spare + 1))
        timed = {name: getattr(item, name) for name in ("place", "mel", "pitch", "voicing")}
        return item._replace(**{name: v[first : first + self.frames] for name, v in timed.items()})


def balanced(items: Sequence[Item]) -> list[Item]:
    """The items, repeated until each voice has about 0.4 times as many as the largest."""
    counts = Counter(item.voice for item in items)
    most = max(counts.values(), default=0)
    copies = {voice: max(1, round(most * 0.4 / count)) for voice, count in counts.items()}
    return [item for item in items for _ in range(copies[item.voice])]


@functools.lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass(eq=False)
class TextAndSpeech(CorpusData):
    """Text and speech of a corpus in LJSpeech's layout, aligned, in memory (about 60 MB an hour).

    Durations come from `vocoder.text.alignment.align`, pitch and voicing from the network that
    reads them off mels (`vocoder.nn.pitch`).

    Args:
        voices: name of each voice and what the ids of its utterances begin with; one voice named
            "speaker", of all utterances, by default.
        frames: of an excerpt.
        longest_seconds: longer utterances are left out.
    """

    voices: Mapping[str, str] | None = None
    frames: int = 160
    longest_seconds: float = 15.0

    trains_on_text = True
    collate = staticmethod(collate)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.prefixes = dict(self.voices or {"speaker": ""})

    def read(self) -> Corpus:
        corpus = super().read()
        check_texts(corpus)
        kept = tuple(u for u in corpus.utterances if self._voice(u.id) is not None)
        if missing := self.prefixes.keys() - {self._voice(u.id) for u in kept}:
            voice = min(missing)
            raise CorpusError(
                f"no utterance of {self.folder} has an id that begins with "
                f"{self.prefixes[voice]!r} (voice {voice}): the first is {corpus.utterances[0].id}"
            )
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
        self._items: dict[str, Item] = {}  # aligned when first asked for
        texts = {utterance.id: utterance.normalised for utterance in self.corpus.utterances}
        short = [id for id, entry in self.prepared.entries.items() if entry.samples <= longest]
        for id in track(short, "mels and pitch", transient=True):
            try:
                self.phonemes[id] = phonemes(texts[id])
            except TextError as error:
                unreadable.append(f"{id} ({error})")
                continue
            with torch.inference_mode():
                mel = log_mel(torch.from_numpy(self.audio(id)))
                f0, voicing = read_pitch(mel.unsqueeze(0))
            self.mels[id] = mel.half()  # an error of 0.004 nats at most
            self._pitch[id] = (f0[0] / REFERENCE_HZ).log(), voicing[0]
        if unreadable:
            log.warning("%d texts are unreadable (first: %s)", len(unreadable), unreadable[0])
        return self.mels

    def audio(self, id: str) -> NDArray[np.float32]:
        """The recording of an utterance, (samples,), in [-1, 1)."""
        return from_pcm16(self.prepared.audio(id))

    def items(self, ids: Sequence[str], model: AcousticModel) -> dict[str, Item]:
        """Aligned utterances; one with fewer frames than states is left out."""
        if not self._items:
            # All utterances: the more, the better the alignment, held-out ones included.
            for voice, name in enumerate(self.prefixes):
                own = [id for id in self.mels if self._voice(id) == name]
                self._items |= self._aligned(own, voice, model)
        return {id: self._items[id] for id in ids if id in self._items}

    def _aligned(self, ids: list[str], voice: int, model: AcousticModel) -> dict[str, Item]:
        symbols = {id: model.indices(self.phonemes[id]) for id in ids}
        for id in ids:
            if len(symbols[id]) * model.states > self.mels[id].shape[1]:
                log.warning("%s is left out: its text is too long for its audio", id)
                del symbols[id]
        if not symbols:
            return {}
        pairs = [(found, self.mels[id].float()) for id, found in symbols.items()]
        durations = align(pairs, model.states, [self._pitch[id][1] for id in symbols])
        return {
            id: Item(found, voice, own, places(own), self.mels[id].T, *self._pitch[id])
            for (id, found), own in zip(symbols.items(), durations, strict=True)
        }

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

    def training_set(self, batch: int) -> Excerpts:
        return Excerpts(balanced(self.held_out(self.split.train)), self.frames, self.seed)

    def held_out(self, ids: Sequence[str], excerpts: bool = False) -> list[Item]:
        trainer: Any = self.trainer
        return list(self.items(ids, trainer.lightning_module.model).values())


class AcousticTraining(Training):
    """Trains an `AcousticModel` by regression on aligned speech; see `losses`."""

    model: AcousticModel

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        parts = losses(self.model, batch)
        loss = sum((_WEIGHTS[name] * value for name, value in parts.items()), torch.zeros(()))
        samples = int(batch.mask.sum()) * self.model.mel_spec.hop_length
        return self.logged({"loss": loss, **parts}, len(batch.mel), samples)

    def scores(self, batch: Batch, index: int) -> Scores:
        """See `held_out_scores`; means are weighted by the frames."""
        found = held_out_scores(self.model, batch)
        return {name: (value, batch.mel.shape[1]) for name, value in found.items()}


def losses(model: AcousticModel, batch: Batch) -> dict[str, Tensor]:
    r"""The parts of the loss, scalars; means over the frames or states that are no padding.

    mel: absolute error of the mel, in standard deviations of its band. slope: that of its
    differences in time and frequency. duration: :math:`l + d e^{-l}` of states of d frames with
    predicted log-mean l, the negative log-likelihood of an exponential distribution, so that the
    mean is learnt. pitch, bend: absolute error of log F0 in voiced frames, and of its differences
    in time. voicing: cross-entropy. loudness: absolute error.
    """
    predicted = model(batch)
    mask, frames = batch.mask, batch.mask.sum()
    error = (predicted.mel - batch.mel) / model.mel_scale * mask
    slopes = torch.diff(error, dim=1).abs().sum() + torch.diff(error, dim=2).abs().sum()
    expected = predicted.log_duration
    duration = (expected + batch.durations * (-expected).exp()) * predicted.symbol_mask
    mask = mask[..., 0]
    voiced = batch.voicing * mask
    off = (predicted.pitch - batch.pitch) * mask
    voicing = F.binary_cross_entropy_with_logits(predicted.voicing, batch.voicing, reduction="none")
    loudness = predicted.loudness - model.loudness(batch.mel)
    some = voiced.sum().clamp_min(1.0)
    return {
        "mel": error.abs().sum() / (frames * error.shape[2]),
        "slope": slopes / (frames * error.shape[2]),
        "duration": duration.sum() / predicted.symbol_mask.sum(),
        "pitch": (off.abs() * voiced).sum() / some,
        "bend": (torch.diff(off, dim=1).abs() * voiced[:, 1:]).sum() / some,
        "voicing": (voicing * mask).sum() / frames,
        "loudness": (loudness.abs() * mask).sum() / frames,
    }


@torch.no_grad()
def held_out_scores(model: AcousticModel, batch: Batch) -> dict[str, float]:
    """Scores of one utterance, given its true durations, pitch, voicing and loudness.

    mel_distance: mean absolute error in nats. pitch_error: mean absolute error in semitones of
    voiced frames. duration_error: mean absolute error of the symbols' durations, in frames.
    length_error: absolute difference between its length and the predicted one, over its length.
    """
    predicted = model(batch)
    expected = predicted.log_duration.exp().reshape(-1, model.states).sum(dim=1)
    aligned = batch.durations.reshape(-1, model.states).sum(dim=1)
    voiced = batch.voicing > 0.5
    semitones = 12 / np.log(2) * (predicted.pitch - batch.pitch)[voiced].abs()
    frames = batch.mel.shape[1]
    return {
        "mel_distance": float(model.mel_spec.distance(predicted.mel, batch.mel)),
        "pitch_error": float(semitones.mean()) if len(semitones) else 0.0,
        "duration_error": float((expected - aligned).abs().mean()),
        "length_error": float((expected.sum() - frames).abs()) / frames,
    }


@torch.no_grad()
def report_acoustic(run: Finished) -> None:
    """Write the report of an acoustic model; see `write_report`."""
    model: AcousticModel = run.module.model.fused()
    data, spec = run.data, model.mel_spec
    griffin_lim = GriffinLim(spec)
    examples: list[Example] = []
    scores: list[dict[str, Any]] = []
    for id, item in data.items(data.split.test, model).items():
        batch = Batch(*(part.to(model.device) for part in collate([item])))
        found = held_out_scores(model, batch)
        scores.append({"utterance": id, **found})
        if len(examples) < HELD_OUT:
            mel = model.synthesize(data.phonemes[id], model.voices[item.voice]).cpu()
            files = {".original.wav": torch.from_numpy(data.audio(id)), ".npy": mel}
            if mel.isfinite().all():
                # A model that has hardly learnt leaves the range of recordings.
                files[".griffin-lim.wav"] = griffin_lim.synthesize(limited(mel, spec))
            titled = {title: found[key] for key, title in COLUMNS.items()}
            examples.append(Example(id, titled, files))
    means = {key: float(np.mean([score[key] for score in scores])) for key in COLUMNS}
    shown = ", ".join(f"{label} {means[key]:.3f}" for key, label in COLUMNS.items())
    explained = (
        f"Means over {len(scores)} test utterances: {shown}. Mel distance and pitch error are "
        "those of predictions with the durations, pitch, voicing and loudness of the recording. "
        "Held-out mels are predicted from the text alone, and made audible by Griffin-Lim."
    )
    trained = shlex.quote(str(run.folder / "model"))
    command = f'vocoder say "A sentence." --acoustic {trained} -o out.wav'
    columns = {f"val/{key}": label for key, label in COLUMNS.items()}
    write_report(run, columns, command, explained, examples, test=scores, test_mean=means)


class AcousticRecipe(Recipe):
    """Trains the acoustic model on a corpus of English speech with text."""

    program = "train_acoustic.py"
    module_class = AcousticTraining
    data_class = TextAndSpeech

    def add_model(self, options: ArgumentParser) -> None:
        skip = {"symbols", "voices"}
        options.add_class_arguments(AcousticModel, "model", skip=skip, instantiate=False)

    def model(self, objects: Namespace) -> AcousticModel:
        voices = list(objects.speech.voices or ["speaker"])
        return AcousticModel(SYMBOLS, voices=voices, **objects.model.as_dict())

    def begin(self, module: Any, data: Any, started: bool) -> None:
        model = module.model
        # The statistics of the bands stay what trained weights know.
        bands = (model.mel_mean, model.mel_scale) if started else data.bands()
        model.normalise_by(*bands, data.prosody(model.voices, *bands))

    def load(self, path: str, model: Any) -> AcousticModel:
        return load_checkpoint(path).with_voices(model.voices)

    def report(self, run: Finished) -> None:
        report_acoustic(run)
