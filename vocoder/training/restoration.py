"""Training of the restoring flow: degraded mels, the Lightning module and the recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from vocoder.audio import LogMel, MelSpec, from_pcm16
from vocoder.corpus import CorpusError
from vocoder.models.restoration import PAIR, Restoration, load_checkpoint
from vocoder.training.data import Crops, Item, SpeechData
from vocoder.training.module import Scores, Training
from vocoder.training.recipe import Recipe
from vocoder.training.report import Finished, write_report

CLEAN = 1 / 3
"""Share of the examples that are not degraded, so that mels of recordings pass unchanged."""


def in_a_room(audio: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Crops (batch, samples) with the reverberation and the noise that recordings have.

    Without them, echoes and noise look like faults of a mel, and recordings do not stay as they
    are. Each crop gets, half of the time, an exponential decay by 60 dB in 0.08 to 1.6 s at -3 to
    20 dB below the direct sound; and, half of the time, coloured noise 12 to 50 dB below.
    """
    if len(audio) > 1:
        return torch.cat([in_a_room(one, sample_rate, generator) for one in audio.split(1)])

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    samples = audio.shape[-1]
    level = audio.square().mean().sqrt()
    if between(0, 1) < 0.5:
        seconds = torch.arange(samples) / sample_rate
        decay = torch.exp(-6.9 * seconds / math.exp(between(math.log(0.08), math.log(1.6))))
        response = torch.randn(samples, generator=generator) * decay
        response = (response / response.norm()).to(audio)
        size = 2 * samples  # long enough for a linear convolution
        spectrum = torch.fft.rfft(audio, size) * torch.fft.rfft(response, size)
        tail = torch.fft.irfft(spectrum, size)[..., :samples]
        audio = audio + 10 ** (-between(-3, 20) / 20) * tail
    if between(0, 1) < 0.5:
        noise = torch.fft.rfft(torch.randn(samples, generator=generator))
        colour = torch.linspace(0.01, 1, len(noise)) ** between(-1.6, 0.3)
        noise = torch.fft.irfft(noise * colour, samples).to(audio)
        audio = audio + noise / noise.square().mean().sqrt() * level * 10 ** (-between(12, 50) / 20)
    return audio


def degrade(mel: Tensor, generator: torch.Generator) -> Tensor:
    """Log-mels (batch, n_mels, frames) in nats with the faults that acoustic models' mels have.

    A share `CLEAN` stays as it is. The others are, each by chance and to a random degree, smoothed
    over 3 to 7 frames and over 3 bands, and jittered by up to 0.4 nats (white noise, or smooth in
    time or frequency). Level and tilt stay: undoing them would teach the colour of the voices.
    """
    if len(mel) > 1:
        return torch.cat([degrade(one, generator) for one in mel.split(1)])

    def chance() -> float:
        return float(torch.rand((), generator=generator))

    if chance() < CLEAN:
        return mel
    if chance() < 0.5:
        mel = smooth(mel, 3 if chance() < 0.5 else 5 if chance() < 0.6 else 7)
    if chance() < 0.3:
        mel = smooth(mel.mT, 3).mT
    if chance() < 0.65:
        noise, kind = torch.randn(mel.shape, generator=generator), chance()
        if kind < 0.45:  # smoothing over 3 divides the deviation by 1.7
            noise = 1.7 * (smooth(noise, 3) if kind < 0.3 else smooth(noise.mT, 3).mT)
        mel = mel + 0.4 * chance() * noise.to(mel)
    return mel


def smooth(x: Tensor, width: int) -> Tensor:
    """A running mean over the last dimension; the ends repeat."""
    return F.avg_pool1d(F.pad(x, (width // 2, width // 2), mode="replicate"), width, 1)


@dataclass
class CropsWithMels(Dataset[Item]):
    """`Crops`, of which a share has the mel that something made of the recording.

    Item: `clean` as in `Crops`, and `made`, (n_mels, frames) float32: the made mel, NaN where there
    is none and in the frames that see the ends of the crop.

    Args:
        crops: what to draw from.
        mels: utterances, files of mels in time with them, and their frames.
        share: of the crops that have one.
        mel_spec: their convention.
    """

    crops: Crops
    mels: Sequence[tuple[str, Path, int]]
    share: float
    mel_spec: MelSpec

    def __getitem__(self, index: int) -> Item:
        rng = np.random.default_rng((self.crops.seed, 1, index))
        clean = self.crops[index]["clean"]
        spec, hop = self.mel_spec, self.mel_spec.hop_length
        frames = len(clean) // hop
        made = np.full((spec.n_mels, frames), np.nan, dtype=np.float32)
        if self.mels and rng.random() < self.share:
            id, path, whole = self.mels[int(rng.integers(len(self.mels)))]
            first = int(rng.integers(whole - frames + 1))
            recorded = self.crops.corpus.audio(id)[first * hop :][: frames * hop]
            clean = from_pcm16(recorded)
            edge = spec.win_length // (2 * hop) + 1
            made[:, edge:-edge] = np.load(path, mmap_mode="r")[:, first:][:, edge : frames - edge]
        return {"clean": clean, "made": made}


@dataclass(eq=False)
class RestorationData(SpeechData):
    """`SpeechData`, and mels that acoustic models or other vocoders made of the recordings.

    Args:
        mels: folders of ID.npy, as `recipes/restoration/make_mels.py` writes them: log-mels
            (n_mels, frames) in the model's convention, in time with the utterance ID.
        made: share of the crops that have such a mel, if there are any.
    """

    mels: tuple[str, ...] = ()
    made: float = 0.25

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.made_mels: list[tuple[str, Path, int]] = []
        for folder in map(Path, self.mels):
            files = {path.stem: path for path in folder.glob("*.npy")}
            if not files.keys() & self.prepared.entries.keys():
                raise CorpusError(
                    f"{folder} holds no mel of an utterance of {self.folder}: give a folder of "
                    "ID.npy, or leave --speech.mels out"
                )
            for id in filter(files.__contains__, self.split.train):
                if (frames := self._frames(id, files[id])) >= self.crop_frames:
                    self.made_mels.append((id, files[id], frames))

    def _frames(self, id: str, path: Path) -> int:
        """Of a made mel, in whole hops of its recording; CorpusError if it cannot be its mel."""
        shape, spec = np.load(path, mmap_mode="r").shape, self.mel_spec
        whole = self.prepared.entries[id].samples // spec.hop_length
        if len(shape) != 2 or shape[0] != spec.n_mels or shape[1] > whole + 1:
            raise CorpusError(
                f"{path} has the shape {shape}: a mel of this recording has {spec.n_mels} bands "
                f"and {whole} frames"
            )
        return min(int(shape[1]), whole)

    def training_set(self, batch: int) -> Any:
        crops = super().training_set(batch)
        return CropsWithMels(crops, self.made_mels, self.made, self.mel_spec)


class RestorationTraining(Training):
    r"""Trains a `Restoration`: its mean by regression, its density by exact likelihood.

    .. math:: \rho(\mu - x) + 0.3\, [\rho(\Delta_t (\mu - x)) + \rho(\Delta_f (\mu - x))]
        - \frac{\lambda}{T M} \log p(x + \epsilon \mid y), \qquad \rho(d) = \sqrt{d^2 + 0.04}

    x are the mels of crops `in_a_room`, y the same after `degrade` (or x the mels of crops and y
    those made of them, see `RestorationData`), and :math:`\epsilon` noise of 0.05 nats, since the
    density of an undegraded mel would be unbounded. :math:`\rho` is smooth at zero: with an
    absolute error and many undegraded examples the network stays the identity. The likelihood
    trains the flow alone: neither h nor the mean sees its gradient.

    Args:
        model: what to train.
        likelihood_weight: lambda.
        noise: standard deviation of epsilon, in nats.
        optimisation: see `Training`.
    """

    model: Restoration

    def __init__(
        self, model: Restoration, likelihood_weight: float = 0.1, noise: float = 0.05,
        **optimisation: Any,
    ) -> None:  # fmt: skip
        super().__init__(model, **optimisation)
        self.log_mel = LogMel(model.mel_spec)
        self.likelihood_weight, self.noise = likelihood_weight, noise

    def _mel(self, audio: Tensor) -> Tensor:
        mel: Tensor = self.log_mel(audio)
        return mel[..., : mel.shape[-1] // PAIR * PAIR]

    def _parts(
        self, mel: Tensor, degraded: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        degraded = degraded.clamp_min(self.model.mel_spec.log_floor)
        h, mean = self.model.read(degraded)
        error = mean - mel
        noise = self.noise * torch.randn(mel.shape, generator=generator).to(mel)
        likelihood = self.model.log_density(noise - error.detach(), h.detach()).sum() / mel.numel()
        return {
            "error": _rho(error),
            "slopes": _rho(torch.diff(error, dim=1)) + _rho(torch.diff(error, dim=2)),
            "log_likelihood": likelihood,
            "distance": error.abs().mean(),
            "degraded": (degraded - mel).abs().mean(),
        }

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        generator, audio = self.generator(), batch["clean"]
        given = batch["made"].isfinite().any(dim=2).any(dim=1)
        heard = in_a_room(audio, self.model.sample_rate, generator)
        mel = self._mel(torch.where(given.unsqueeze(1), audio, heard))
        made = batch["made"][..., : mel.shape[-1]]
        degraded = torch.where(made.isnan(), degrade(mel, generator), made)
        scores = self._parts(mel, degraded, generator)
        loss = scores["error"] + 0.3 * scores["slopes"]
        loss = loss - self.likelihood_weight * scores["log_likelihood"]
        return self.logged({"loss": loss, **scores}, len(audio), audio.numel())

    def scores(self, batch: dict[str, Any], index: int) -> Scores:
        """Of a held-out excerpt, degraded in four ways that depend on its index alone."""
        generator = torch.Generator().manual_seed(index)
        heard = in_a_room(batch["clean"], self.model.sample_rate, generator)
        mel = self._mel(heard).expand(4, -1, -1)
        found = self._parts(mel, degrade(mel, generator), generator)
        return {name: (found[name], 1) for name in ("log_likelihood", "distance", "degraded")}


def _rho(d: Tensor) -> Tensor:
    return ((d.square() + 0.04).sqrt() - 0.2).mean()


class RestorationRecipe(Recipe):
    """Trains the restoring flow on a folder of speech; no text is needed."""

    module_class = RestorationTraining
    data_class = RestorationData

    def add_model(self, options: ArgumentParser) -> None:
        options.add_class_arguments(Restoration, "model")

    def load(self, path: str, model: Any) -> Any:
        return load_checkpoint(path)

    def report(self, run: Finished) -> None:
        columns = {
            "val/log_likelihood": "log-likelihood, nats per mel element",
            "val/distance": "error of the mean, nats",
            "val/degraded": "error of the degraded mel, nats",
        }
        load = "from vocoder.models.restoration import load_checkpoint as load"
        model = str(run.folder / "model")
        write_report(run, columns, f'python -c "{load}; print(load({model!r}))"')
