"""The Lightning module of the acoustic model, and its validation scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vocoder.text.acoustic import AcousticModel, Batch
from vocoder.training.module import Training

_WEIGHTS = {"mel": 1.0, "slope": 0.3, "duration": 0.1, "pitch": 1.0, "bend": 2.0,
            "voicing": 0.3, "loudness": 0.3}  # fmt: skip


class AcousticTraining(Training):
    r"""Trains an `AcousticModel` by regression on aligned speech; see `losses`.

    Args:
        model: what to train.
        optimisation: see `Training`.
    """

    model: AcousticModel
    unit = "mel element"

    def __init__(self, model: AcousticModel, **optimisation: Any) -> None:
        super().__init__(model, **optimisation)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        parts = losses(self.model, batch)
        samples = int(batch.mask.sum()) * self.model.mel_spec.hop_length
        self.count(len(batch.mel), samples)
        loss = sum((_WEIGHTS[name] * value for name, value in parts.items()), torch.zeros(()))
        return self.logged({"loss": loss, **parts})

    def on_validation_epoch_start(self) -> None:
        self._scores: list[dict[str, float]] = []
        self._frames: list[int] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one held-out utterance."""
        # In float32 whatever the precision of the training, so that runs can be compared.
        with torch.autocast(batch.mel.device.type, enabled=False):
            self._scores.append(held_out_scores(self.model, batch))
        self._frames.append(batch.mel.shape[1])

    def on_validation_epoch_end(self) -> None:
        # Every device validates on everything: the means are complete and the same on each.
        for name in self._scores[0]:
            mean = np.average([scores[name] for scores in self._scores], weights=self._frames)
            self.log(f"val/{name}", float(mean), sync_dist=True)


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
