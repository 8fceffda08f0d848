"""The Lightning module of the acoustic model, and its validation scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocoder.text.acoustic import AcousticModel, Batch
from vocoder.text.alignment import alignment_posterior
from vocoder.text.settings import ACOUSTIC_TEMPERATURE
from vocoder.training.acoustic.data import Drawn
from vocoder.training.module import Training


class AcousticTraining(Training):
    r"""Trains an `AcousticModel` by maximum likelihood.

    .. math:: -\frac{1}{T M} \log p(x \mid c, \hat d) + \lambda\, \mathrm{duration}

    For `flat_start_steps` steps the durations are those of `flat_start`, then those of the best
    alignment, found anew in every step.

    Args:
        model: what to train.
        flat_start_steps: steps with the alignment that does not depend on the flow.
        duration_weight: lambda, of the duration predictor, which shares nothing with the rest.
        temperature: of the mels generated at validation.
        optimisation: see `Training`.
    """

    model: AcousticModel
    unit = "mel element"

    def __init__(
        self,
        model: AcousticModel,
        flat_start_steps: int = 500,
        duration_weight: float = 0.1,
        temperature: float = ACOUSTIC_TEMPERATURE,
        **optimisation: Any,
    ) -> None:
        super().__init__(model, **optimisation)
        self.flat_start_steps = flat_start_steps
        self.duration_weight = duration_weight
        self.temperature = temperature

    def training_step(self, drawn: Drawn, batch_idx: int) -> Tensor:
        batch = drawn.batch
        durations = drawn.durations if self.global_step < self.flat_start_steps else None
        terms = self.model.training_terms(batch, durations)
        loss = terms["nll"] + self.duration_weight * terms["duration"]
        world = self.trainer.world_size
        self.items_seen += len(batch.frames) * world
        self.samples_seen += int(batch.frames.sum()) * self.model.mel_spec.hop_length * world
        return self.logged({"loss": loss, "nll": terms["nll"], "duration": terms["duration"]})

    def on_validation_epoch_start(self) -> None:
        self._scores: list[dict[str, float]] = []
        self._frames: list[int] = []
        # In a list, so that Lightning does not register it as a part of the module.
        self._fused = [self.model.fused()]

    def validation_step(self, drawn: Drawn, batch_idx: int) -> None:
        """Score one held-out utterance."""
        # In float32 whatever the precision of the training, so that runs can be compared.
        with torch.autocast(drawn.batch.mel.device.type, enabled=False):
            self._scores.append(held_out_scores(self._fused[0], drawn.batch, self.temperature))
        self._frames.append(drawn.batch.mel.shape[2])

    def on_validation_epoch_end(self) -> None:
        self._fused.clear()
        # Every device validates on everything: the means are complete and the same on each.
        for name in self._scores[0]:
            mean = np.average([scores[name] for scores in self._scores], weights=self._frames)
            self.log(f"val/{name}", float(mean), sync_dist=True)


@torch.no_grad()
def held_out_scores(model: AcousticModel, batch: Batch, temperature: float) -> dict[str, float]:
    """Scores of one utterance.

    log_likelihood: in nats per mel element, given the best alignment.
    mel_distance: mean absolute difference in nats from the mel generated with its durations.
    duration_error: mean absolute difference in frames between a symbol's aligned and predicted
    duration.
    length_error: absolute difference between its length and the predicted one, over its length.
    certainty: mean over frames of the probability of the likeliest state, see
    `alignment_posterior`.
    """
    prior = model.prior(batch.symbols, batch.symbol_counts)
    z, log_det = model(batch.mel, batch.frames)
    durations = model.align(z, batch.frames, prior)
    likelihood = model.log_likelihood(z, log_det, batch.frames, prior, durations)
    generated = model.render(prior, durations, temperature, seed=0)
    predicted = prior.log_duration[0].exp().reshape(-1, model.states).sum(1)
    aligned = durations[0].reshape(-1, model.states).sum(1)
    frames = batch.mel.shape[2]
    posterior = alignment_posterior(model.alignment_scores(z, prior)[0].cpu())
    return {
        "log_likelihood": float(likelihood) / batch.mel.numel(),
        "mel_distance": float(model.mel_spec.distance(generated, batch.mel)),
        "duration_error": float((predicted - aligned).abs().mean()),
        "length_error": float((predicted.sum() - frames).abs()) / frames,
        "certainty": float(posterior.amax(dim=1).mean()),
    }
