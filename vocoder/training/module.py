"""The Lightning module: optimiser, learning rate, skipped steps, validation."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from vocoder.models import Vocoder
from vocoder.training.errors import TrainingError
from vocoder.training.objectives import Objective


class Training(lightning.LightningModule):
    r"""AdamW with a learning rate that falls along the budget: what all training here shares.

    Learning rate at optimiser step n (from 0), with b the fraction of the budget that is used up
    (steps over `max_steps` or training time over `max_time`, whichever is further along; 0 where
    neither is set):

    .. math:: \eta_n = \eta \min\Bigl(1, \frac{n + 1}{warmup}\Bigr)
        \Bigl(r + (1 - r) \frac{1 + \cos \pi b}{2}\Bigr)

    So a run that is resumed with a larger budget goes on where the larger budget would be.

    A step with a non-finite loss or gradient changes no weight: it is counted in `skipped`, on
    all devices alike.

    Args:
        model: what to train; has a ``sample_rate`` and can ``save`` itself.
        learning_rate: eta, after warm-up.
        final_learning_rate: r, the fraction of `learning_rate` that is left at the end.
        warmup_steps: optimiser steps of linear warm-up.
        betas, weight_decay: of AdamW.
        gradient_clip: greatest norm of the gradient of all parameters together.
        max_skipped: so many skipped steps in a row end the training.
        seed: of what training draws.
    """

    unit = "sample"
    """What the losses, in nats, are divided by."""

    def __init__(
        self,
        model: Any,
        learning_rate: float = 1e-3,
        final_learning_rate: float = 0.02,
        warmup_steps: int = 200,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        gradient_clip: float = 1.0,
        max_skipped: int = 50,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = model
        self.learning_rate = learning_rate
        self.final_learning_rate = final_learning_rate
        self.warmup_steps = warmup_steps
        self.betas = betas
        self.weight_decay = weight_decay
        self.gradient_clip = gradient_clip
        self.max_skipped = max_skipped
        self.seed = seed
        self.items_seen = 0
        """Crops (or utterances) drawn so far by all devices together: where sampling resumes."""
        self.samples_seen = 0
        """Samples of audio trained on so far by all devices together."""
        self.skipped = 0
        """Steps skipped so far because of a non-finite loss or gradient."""
        self._skipped_in_a_row = 0
        self.budget_used = 0.0
        """Fraction of the training budget that is used up, in [0, 1]."""

    # -- training ------------------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            parameters,
            self.learning_rate,
            betas=self.betas,
            weight_decay=self.weight_decay,
            # Several times as fast. It would undo fp16's scaling itself, after we have clipped.
            fused=self.trainer.precision != "16-mixed",
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.budget_used = self.measure_budget()
        if self.trainer.world_size > 1:
            # Clocks differ, and devices that disagree on the learning rate drift apart.
            self.budget_used = self.trainer.strategy.broadcast(self.budget_used)
        rate = self.learning_rate_at(self.global_step, self.budget_used)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def learning_rate_at(self, step: int, budget_used: float) -> float:
        """The learning rate of optimiser step `step`, counted from 0; see the class."""
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        r = self.final_learning_rate
        decay = r + (1 - r) * (1 + math.cos(math.pi * budget_used)) / 2
        return self.learning_rate * warmup * decay

    def measure_budget(self) -> float:
        """Fraction of the budget used up by now, in [0, 1], by this device's clock."""
        used = 0.0
        if self.trainer.max_steps > 0:
            used = self.global_step / self.trainer.max_steps
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None:
                elapsed = callback.time_elapsed()
                used = max(used, elapsed / max(elapsed + left, 1e-9))
        return min(used, 1.0)

    def logged(self, terms: dict[str, Tensor]) -> Tensor:
        """Log the terms of a training step, and return what to differentiate of ``loss``."""
        for name, value in terms.items():
            self.log(f"train/{name}", value.detach())
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        loss = terms["loss"]
        # A loss that is not finite may have finite gradients. Multiplied by NaN it has none, on
        # this device and, once gradients are averaged, on all: so all of them skip the step.
        return loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
        if norm.isfinite():
            self._skipped_in_a_row = 0
            self.log("train/gradient_norm", norm)
            return
        for parameter in parameters:
            parameter.grad = None  # without one, the optimiser leaves a parameter alone
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= self.max_skipped:
            raise TrainingError(
                f"{self._skipped_in_a_row} steps in a row had a loss or gradient that is not "
                "finite: lower training.learning_rate, or train with --trainer.precision 32"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vocoder_training"] = {
            "items_seen": self.items_seen,
            "samples_seen": self.samples_seen,
            "skipped": self.skipped,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name, value in checkpoint["vocoder_training"].items():
            setattr(self, name, value)


class VocoderTraining(Training):
    """Trains a `Vocoder` on an `Objective`.

    Args:
        model: what to train.
        objective: what to minimise.
        temperature: of the audio made at validation.
        validation_syntheses: at most so many utterances are synthesised at each validation; the
            likelihood is always that of all.
        optimisation: see `Training`.
    """

    model: Vocoder

    def __init__(
        self,
        model: Vocoder,
        objective: Objective,
        temperature: float = 0.667,
        validation_syntheses: int = 20,
        **optimisation: Any,
    ) -> None:
        super().__init__(model, **optimisation)
        self.objective = objective
        self.temperature = temperature
        self.validation_syntheses = validation_syntheses

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        audio = batch["audio"]
        world = self.trainer.world_size
        # Stateless as the crops are, so that a resumed run draws what an unbroken one would.
        draw = (self.seed * 1_000_003 + self.items_seen) * world + self.global_rank
        generator = torch.Generator(audio.device).manual_seed(draw % 2**63)
        mel = self.model.mel(batch["clean"])
        terms = self.objective(self.model, audio, mel, self.budget_used, generator)
        self.items_seen += audio.shape[0] * world
        self.samples_seen += audio.numel() * world
        return self.logged(terms)

    # -- validation ----------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._log_likelihood = 0.0
        self._samples = 0
        self._distances: list[float] = []

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Log-likelihood of one held-out excerpt, and its copy synthesis."""
        result: dict[str, Any] = {"id": batch["id"][0]}
        # In float32 whatever the precision of the training, so that runs can be compared.
        with torch.autocast(batch["audio"].device.type, enabled=False):
            mel = self.model.mel(batch["clean"])
            with contextlib.suppress(NotImplementedError):  # a model without a likelihood
                self._log_likelihood += float(self.model.log_prob(batch["audio"], mel).sum())
                self._samples += batch["audio"].numel()
            if batch_idx < self.validation_syntheses:
                made = self.model.synthesize(mel, self.temperature, seed=0)
                made_mel = self.model.mel(made)
                nats = math.log(10) if self.model.mel_spec.log_base == "10" else 1.0
                self._distances.append(nats * float((made_mel - mel).abs().mean()))
                result |= {
                    "original": batch["clean"][0],
                    "made": made[0],
                    "mel": mel[0],
                    "made_mel": made_mel[0],
                }
        return result

    def on_validation_epoch_end(self) -> None:
        # Every device validates on everything: the sums are complete and the same on each.
        if self._samples:
            self.log("val/log_likelihood", self._log_likelihood / self._samples, sync_dist=True)
        if self._distances:
            mean = sum(self._distances) / len(self._distances)
            self.log("val/mel_distance", mean, sync_dist=True)
