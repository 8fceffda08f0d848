"""The Lightning modules: optimiser, learning rate, skipped steps, validation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn

from vocoder.models import Vocoder
from vocoder.training.step import Step, mel_of_hops
from vocoder.training.terms import Term, TrainedTerm, total_loss


class TrainingError(Exception):
    """Training cannot continue; the message names the problem and the way out."""


class DivergedError(TrainingError):
    """The weights, or what comes of them, are no longer finite."""


class ParameterGroup(NamedTuple):
    """Parameters that share a learning rate (after warm-up) and a gradient clip."""

    name: str
    parameters: list[nn.Parameter]
    learning_rate: float
    gradient_clip: float
    idle: bool = False
    """Whether they are left alone in this step."""


class Training(lightning.LightningModule):
    r"""AdamW with a learning rate that decays along the budget: what all training here shares.

    Learning rate at optimiser step n (from 0), with b the fraction of the budget that is used up
    (steps over `max_steps` or training time over `max_time`, whichever is larger; 0 if neither is
    set):

    .. math:: \eta_n = \eta \min\Bigl(1, \frac{n + 1}{warmup}\Bigr)
        \Bigl(r + (1 - r) \frac{1 + \cos \pi b}{2}\Bigr)

    So a run resumed with a larger budget continues at the rate of the larger budget.

    A step with a non-finite loss or gradient changes no weight: it is counted in `skipped`, on
    all devices alike. Training ends where such steps outnumber the others by `max_skipped`,
    counted from where they last were no majority.

    There is one optimiser, since Lightning would count the steps of two, and the budget with them;
    `parameter_groups` have their own rates and clips.

    Args:
        model: what to train; has a ``sample_rate`` and can ``save`` itself.
        learning_rate: eta, after warm-up.
        final_learning_rate: r, the fraction of `learning_rate` that is left at the end.
        warmup_steps: optimiser steps of linear warm-up.
        betas, weight_decay: of AdamW.
        gradient_clip: greatest norm of the gradient of all parameters together.
        max_skipped: surplus of skipped steps at which training ends: as many in a row, say.
        seed: of all random numbers in training.
    """

    unit = "sample"
    """What the losses, in nats, are divided by."""

    settled = 0.0
    """Fraction of the budget from which on the loss has all its terms."""

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
        self.surplus_skipped = 0
        """Skipped steps less the others, counted from where that was last 0."""
        self.budget_used = 0.0
        """Fraction of the training budget that is used up, in [0, 1]."""

    # -- training ------------------------------------------------------------------------------

    def parameter_groups(self) -> list[ParameterGroup]:
        """The optimiser's groups, always in the same order; the model's is the first."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return [ParameterGroup("", parameters, self.learning_rate, self.gradient_clip)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [{"params": group.parameters} for group in self.parameter_groups()],
            self.learning_rate,
            betas=self.betas,
            weight_decay=self.weight_decay,
            # Several times as fast. In fp16 it would undo the loss scaling after our clipping.
            fused=self.trainer.precision != "16-mixed",
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.budget_used = self.measure_budget()
        if self.trainer.world_size > 1:
            # Clocks differ, and devices that disagree on the learning rate drift apart.
            self.budget_used = self.trainer.strategy.broadcast(self.budget_used)
        schedule = self.schedule_at(self.global_step, self.budget_used)
        (optimizer,) = self.trainer.optimizers
        for group, own in zip(optimizer.param_groups, self.parameter_groups(), strict=True):
            group["lr"] = own.learning_rate * schedule

    def schedule_at(self, step: int, budget_used: float) -> float:
        """Factor of the learning rates at optimiser step `step`, counted from 0; see the class."""
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        r = self.final_learning_rate
        return warmup * (r + (1 - r) * (1 + math.cos(math.pi * budget_used)) / 2)

    def measure_budget(self) -> float:
        """Fraction of the budget used up by now, in [0, 1], by this device's clock."""
        used = 0.0
        if self.trainer.max_steps > 0:
            used = self.global_step / self.trainer.max_steps
        for timer in timers(self.trainer):
            if (left := timer.time_remaining()) is not None:
                elapsed = timer.time_elapsed()
                used = max(used, elapsed / max(elapsed + left, 1e-9))
        return min(used, 1.0)

    def logged(self, values: dict[str, Tensor]) -> Tensor:
        """Log the scalars of a training step; returns the loss to differentiate."""
        for name, value in values.items():
            self.log(f"train/{name}", value.detach())
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        loss = values["loss"]
        # A loss that is not finite may have finite gradients. Multiplied by NaN it has none, here
        # and, once gradients are averaged, on every device: so all of them skip the step.
        return loss * torch.where(loss.detach().isfinite(), 1.0, math.nan)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        groups = self.parameter_groups()
        finite = True
        for group in groups:
            if group.idle:
                _drop_gradients(group)
                continue
            norm = nn.utils.clip_grad_norm_(group.parameters, group.gradient_clip)
            finite = finite and bool(norm.isfinite())
            if finite:
                self.log(f"train/{group.name}{'_' * bool(group.name)}gradient_norm", norm)
        if finite:
            self.surplus_skipped = max(self.surplus_skipped - 1, 0)
            return
        for group in groups:
            _drop_gradients(group)
        self.skipped += 1
        self.surplus_skipped += 1

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Not within the step, so that all before it can be saved.
        if self.surplus_skipped >= self.max_skipped:
            raise DivergedError(
                f"training has diverged: lately {self.surplus_skipped} more steps were skipped "
                "than not, because their loss or gradient is not finite"
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


def _drop_gradients(group: ParameterGroup) -> None:
    for parameter in group.parameters:
        parameter.grad = None  # without one, the optimiser leaves a parameter alone


class VocoderTraining(Training):
    """Trains a `Vocoder` on a sum of `Term`s.

    A batch goes through `Step` and `total_loss`. The parameters of each `TrainedTerm` form a group
    in the optimiser; those of any other term are fixed.

    Args:
        model: what to train.
        terms: of the loss.
        temperature: of the audio synthesised at validation; None for the model's default.
        validation_syntheses: at most this many utterances are synthesised at each validation; the
            likelihood is always measured on all.
        sample_temperature, sample_fraction: temperature of the sample that terms may ask for in a
            training step, and the part of the batch that is sampled; see `Step`.
        optimisation: see `Training`.

    Raises:
        ValueError: terms that cannot be trained on; the message says why.
    """

    model: Vocoder

    def __init__(
        self,
        model: Vocoder,
        terms: Sequence[Term],
        temperature: float | None = None,
        validation_syntheses: int = 20,
        sample_temperature: float = 0.7,
        sample_fraction: float = 0.5,
        **optimisation: Any,
    ) -> None:
        super().__init__(model, **optimisation)
        names = [term.name for term in terms]
        if all(term.start > 0 for term in terms):
            raise ValueError("no term is active at first: one of the terms must have start 0")
        if len(set(names)) < len(names):
            raise ValueError(f"terms are {', '.join(names)}: give each kind once")
        for term in terms:
            if not isinstance(term, TrainedTerm):
                term.requires_grad_(False)
        self.terms = nn.ModuleList(terms)
        self.settled = max(term.start for term in terms)
        self.temperature = model.default_temperature if temperature is None else temperature
        self.validation_syntheses = validation_syntheses
        self.sample_temperature = sample_temperature
        self.sample_fraction = sample_fraction

    def parameter_groups(self) -> list[ParameterGroup]:
        groups = super().parameter_groups()
        for term in self.terms:
            if isinstance(term, TrainedTerm):
                rate, clip = term.learning_rate, term.gradient_clip
                groups.append(
                    ParameterGroup(
                        term.name,
                        [p for p in term.parameters() if p.requires_grad],
                        self.learning_rate if rate is None else rate,
                        self.gradient_clip if clip is None else clip,
                        idle=self.budget_used < term.trained_from,
                    )
                )
        return groups

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        audio = batch["audio"]
        world = self.trainer.world_size
        # Stateless, like the crops, so that a resumed run draws what an unbroken one would.
        draw = (self.seed * 1_000_003 + self.items_seen) * world + self.global_rank
        step = Step(
            self.model,
            audio,
            mel_of_hops(self.model, batch["clean"]),
            self.budget_used,
            torch.Generator(audio.device).manual_seed(draw % 2**63),
            self.sample_temperature,
            self.sample_fraction,
        )
        terms: Any = self.terms
        try:
            values = total_loss(terms, step)
        except NotImplementedError as error:
            raise TrainingError(f"a term of the loss does not suit the model: {error}") from error
        self.items_seen += audio.shape[0] * world
        self.samples_seen += audio.numel() * world
        return self.logged(values)

    # -- validation ----------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        try:
            self._validation = _Validation(self.model.fused())
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # no inverse
            raise DivergedError(f"training has diverged: {error}") from error

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Log-likelihood of one held-out excerpt, and its copy synthesis."""
        result: dict[str, Any] = {"id": batch["id"][0]}
        seen = self._validation
        model = seen.model
        # In float32 whatever the precision of the training, so that runs can be compared.
        with torch.autocast(batch["audio"].device.type, enabled=False):
            mel = mel_of_hops(model, batch["clean"])
            with contextlib.suppress(NotImplementedError):  # a model without a likelihood
                seen.log_likelihood += float(model.log_prob(batch["audio"], mel).sum())
                seen.samples += batch["audio"].numel()
            if batch_idx < self.validation_syntheses:
                generated = model.synthesize(mel, self.temperature, seed=0)
                # A model that has diverged has no mel, but the run still ends with its report.
                finite = bool(generated.isfinite().all())
                generated_mel = torch.full_like(mel, math.nan)
                if finite:
                    generated_mel = mel_of_hops(model, generated)
                seen.distances.append(float(model.mel_spec.distance(generated_mel, mel)))
                result |= {
                    "original": batch["clean"][0],
                    "generated": generated[0],
                    "mel": mel[0],
                    "generated_mel": generated_mel[0],
                }
        return result

    def on_validation_epoch_end(self) -> None:
        # Every device validates on everything: the sums are complete and the same on each.
        seen = self._validation
        del self._validation
        if seen.samples:
            self.log("val/log_likelihood", seen.log_likelihood / seen.samples, sync_dist=True)
        if seen.distances:
            mean = sum(seen.distances) / len(seen.distances)
            self.log("val/mel_distance", mean, sync_dist=True)


@dataclass
class _Validation:
    """One validation under way."""

    model: Vocoder  # not an attribute of the Lightning module, which would register it
    log_likelihood: float = 0.0
    samples: int = 0
    distances: list[float] = field(default_factory=list)


def timers(trainer: lightning.Trainer) -> list[Timer]:
    """The timers of a trainer."""
    callbacks: list[lightning.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, Timer)]


def training_seconds(trainer: lightning.Trainer) -> float:
    """Seconds of training so far, including those before a resume."""
    return max((timer.time_elapsed() for timer in timers(trainer)), default=0.0)
