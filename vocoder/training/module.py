"""The Lightning modules: optimiser, learning rate, skipped steps, validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn

from vocoder.models import Vocoder
from vocoder.training.losses import Loss, Step, mel_of_hops, total_loss

Scores = dict[str, tuple[Any, int]]
"""Scores of held-out items by name, each with its weight in the mean over all items."""


class TrainingError(Exception):
    """Training cannot continue; the message names the problem and the way out."""


class DivergedError(TrainingError):
    """The weights, or what comes of them, are no longer finite."""


class Training(lightning.LightningModule):
    r"""AdamW with a learning rate that decays along the budget: what all training here shares.

    Learning rate at optimiser step n (from 0), with b the fraction of the budget that is used up
    (steps over `max_steps` or training time over `max_time`, whichever is larger; 0 if neither is
    set):

    .. math:: \eta_n = \eta \min\Bigl(1, \frac{n + 1}{warmup}\Bigr)
        \Bigl(r + (1 - r) \frac{1 + \cos \pi b}{2}\Bigr)

    A step with a non-finite loss or gradient changes no weight, on all devices alike. Training ends
    where such steps outnumber the others by `max_skipped`, counted from where they last were no
    majority.

    Args:
        model: what to train; has a ``sample_rate`` and can ``save`` itself.
        learning_rate: eta, after warm-up.
        final_learning_rate: r, the fraction of `learning_rate` that is left at the end.
        warmup_steps: optimiser steps of linear warm-up.
        betas, weight_decay: of AdamW.
        gradient_clip: greatest norm of the gradient of all parameters together.
        max_skipped: surplus of skipped steps at which training ends.
        seed: of all random numbers in training.
    """

    settled = 0.0
    """Fraction of the budget from which on all losses apply."""

    def __init__(
        self, model: Any, learning_rate: float = 1e-3, final_learning_rate: float = 0.02,
        warmup_steps: int = 200, betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0, gradient_clip: float = 1.0, max_skipped: int = 50, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = model
        self.learning_rate, self.final_learning_rate = learning_rate, final_learning_rate
        self.warmup_steps = warmup_steps
        self.adamw: dict[str, Any] = {"betas": betas, "weight_decay": weight_decay}
        self.gradient_clip, self.max_skipped, self.seed = gradient_clip, max_skipped, seed
        self.items_seen = 0  # crops or utterances drawn by all devices: sampling resumes there
        self.samples_seen = 0  # of audio, by all devices
        self.skipped = 0
        self.surplus_skipped = 0  # skipped steps less the others, counted from where it was last 0
        self.budget_used = 0.0  # fraction of the training budget, in [0, 1]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        weights = [p for p in self.model.parameters() if p.requires_grad]
        # Several times as fast. In fp16 it would undo the loss scaling after our clipping.
        fused = self.trainer.precision != "16-mixed"
        return torch.optim.AdamW(weights, self.learning_rate, fused=fused, **self.adamw)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Clocks differ, and devices that disagree on the learning rate drift apart.
        self.budget_used = self.trainer.strategy.broadcast(self.measure_budget())
        (group,) = self.trainer.optimizers[0].param_groups
        group["lr"] = self.learning_rate * self.schedule_at(self.global_step, self.budget_used)

    def schedule_at(self, step: int, budget_used: float) -> float:
        """Factor of the learning rate at an optimiser step; see the class."""
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        r = self.final_learning_rate
        return warmup * (r + (1 - r) * (1 + math.cos(math.pi * budget_used)) / 2)

    @property
    def timer(self) -> Timer:
        """The timer of the trainer, resumes included; one that has not run if there is none."""
        callbacks: list[lightning.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        return next((found for found in callbacks if isinstance(found, Timer)), Timer())

    def measure_budget(self) -> float:
        """Fraction of the budget used up by now, in [0, 1], by this device's clock."""
        steps, left = self.trainer.max_steps, self.timer.time_remaining()
        used = self.global_step / steps if steps > 0 else 0.0
        if left is not None:
            seconds = self.timer.time_elapsed()
            used = max(used, seconds / max(seconds + left, 1e-9))
        return min(used, 1.0)

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Of this step and device, so that a resumed run draws what an unbroken one would."""
        draw = self.seed * 1_000_003 + self.items_seen
        draw = draw * self.trainer.world_size + self.global_rank
        return torch.Generator(device).manual_seed(draw % 2**63)

    def logged(self, values: dict[str, Tensor], items: int, samples: int) -> Tensor:
        """Log the scalars of a training step, and count its data. Returns the loss."""
        self.items_seen += items * self.trainer.world_size
        self.samples_seen += samples * self.trainer.world_size
        self.log_dict({f"train/{name}": value.detach() for name, value in values.items()})
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        # A loss that is not finite may have finite gradients. Multiplied by NaN it has none, on any
        # device once gradients are averaged: so all of them skip the step.
        return values["loss"] * torch.where(values["loss"].detach().isfinite(), 1.0, math.nan)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        parameters = optimizer.param_groups[0]["params"]
        norm = nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
        if norm.isfinite():
            self.log("train/gradient_norm", norm)
            self.surplus_skipped = max(self.surplus_skipped - 1, 0)
            return
        optimizer.zero_grad()  # which leaves the weights alone
        self.skipped += 1
        self.surplus_skipped += 1

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Not within the step, so that all before it can be saved.
        if self.surplus_skipped >= self.max_skipped:
            raise DivergedError(
                f"training has diverged: lately {self.surplus_skipped} more steps were skipped "
                "than not, because their loss or gradient is not finite"
            )

    def scores(self, batch: Any, index: int) -> Scores:
        """Scores of held-out item `index`, a batch of one; each is logged as val/NAME."""
        raise NotImplementedError

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        # On everything on every device, and in float32 whatever the precision of the training.
        with torch.autocast(self.device.type, enabled=False):
            for name, (score, weight) in self.scores(batch, batch_idx).items():
                self.log(f"val/{name}", score, batch_size=weight, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = ("items_seen", "samples_seen", "skipped")
        checkpoint["vocoder_training"] = {name: getattr(self, name) for name in saved}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        vars(self).update(checkpoint["vocoder_training"])


class VocoderTraining(Training):
    """Trains a `Vocoder` on a sum of losses.

    Args:
        model: what to train.
        losses: see `vocoder.training.losses`.
        temperature: of the audio synthesised at validation; None for the model's default.
        validation_syntheses: at most this many utterances are synthesised at each validation; the
            likelihood is always measured on all.
        sample_temperature, sample_fraction: see `Step`.
        optimisation: see `Training`.
    """

    model: Vocoder

    def __init__(
        self, model: Vocoder, losses: Sequence[Loss], temperature: float | None = None,
        validation_syntheses: int = 20, sample_temperature: float = 0.7,
        sample_fraction: float = 0.5, **optimisation: Any,
    ) -> None:  # fmt: skip
        super().__init__(model, **optimisation)
        if all(loss.start > 0 for loss in losses):
            raise ValueError("no loss applies at first: one of the losses must have start 0")
        self.losses = nn.ModuleList(losses).requires_grad_(False)
        self.settled = max(loss.start for loss in losses)
        self.temperature = model.default_temperature if temperature is None else temperature
        self.validation_syntheses = validation_syntheses
        self.sampling = sample_temperature, sample_fraction

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        audio, mel = batch["audio"], mel_of_hops(self.model, batch["clean"])
        generator = self.generator(audio.device)
        step = Step(self.model, audio, mel, self.budget_used, generator, *self.sampling)
        try:
            values = total_loss(self.losses, step)  # type: ignore[arg-type]
        except NotImplementedError as error:
            raise TrainingError(f"one of the losses does not suit the model: {error}") from error
        return self.logged(values, audio.shape[0], audio.numel())

    def on_validation_epoch_start(self) -> None:
        self._fused = [self.model.fused()]  # in a list: no part of the module

    def scores(self, batch: dict[str, Any], index: int) -> Scores:
        """Log-likelihood in nats per sample, and the mel distance of copy synthesis in nats."""
        (model,), found = self._fused, Scores()
        mel, samples = mel_of_hops(model, batch["clean"]), batch["audio"].numel()
        if model.likelihood:
            likelihood = model.log_prob(batch["audio"], mel).sum() / samples
            found["log_likelihood"] = likelihood, samples
        if index < self.validation_syntheses:
            generated = model.synthesize(mel, self.temperature, seed=0)
            found["mel_distance"] = model.mel_spec.distance(mel_of_hops(model, generated), mel), 1
        return found

    def on_validation_epoch_end(self) -> None:
        self._fused.clear()
