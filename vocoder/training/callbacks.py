"""Callbacks: averaged and best weights, history on disk, progress."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from vocoder.atomic import write_atomic
from vocoder.training.module import TrainingError, timer_of, training_seconds


class AveragedWeights(WeightAveraging):
    r"""Exponential moving average (EMA) of the weights, validated and kept at the end.

    .. math:: \bar\theta \leftarrow \bar\theta + (1 - d_n)(\theta - \bar\theta), \qquad
        d_n = \min\Bigl(decay, \frac{1 + n}{10 + n}\Bigr)

    after update n, so that a short run is not an average over its random start, as that of
    Lightning's `EMAWeightAveraging` is. Checkpoints hold both sets of weights.

    Args:
        decay: of the average, in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}: it must be in [0, 1)")
        self.decay = decay
        super().__init__(multi_avg_fn=self._update)

    def _update(
        self, averaged: list[Tensor], current: list[Tensor], n_averaged: Tensor | int
    ) -> None:
        if not averaged[0].is_floating_point():
            torch._foreach_copy_(averaged, current)
            return
        n = torch.as_tensor(n_averaged, dtype=torch.float32, device=averaged[0].device)
        step = 1 - torch.clamp((1 + n) / (10 + n), max=self.decay)
        difference = torch._foreach_sub(current, averaged)
        torch._foreach_mul_(difference, step.to(averaged[0].dtype))
        torch._foreach_add_(averaged, difference)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning would replace the weights here, before the last checkpoint is saved, so a run
        # resumed with a larger budget would continue from the average. See `apply_to`.
        pass

    def apply_to(self, pl_module: LightningModule) -> None:
        """Replace the weights by their average, permanently."""
        self._copy_average_to_current(pl_module)

    @property
    def model(self) -> Any:
        """The model with the averaged weights, during training."""
        assert self._average_model is not None
        return self._average_model.module.model


class Best(Callback):
    """Keeps the averaged weights of the best validation, and ends a run that gets no better.

    They are a checkpoint in `folder`, with step, minutes of training, and the score's name and
    value in ``training.json``. Lightning's `ModelCheckpoint` and `EarlyStopping` would write a
    pickle, and count validations that do not count here: those before all losses apply
    (`Training.settled`), since a loss that starts may cost some of the score. The end counts, and,
    with `from_start`, the validation before the first step. A score that is not finite never does.

    Args:
        folder: for the best weights.
        average: where the weights come from.
        monitor: the score: ``val/log_likelihood``, ``val/certainty`` (higher is better), or an
            error such as ``val/mel_distance`` (lower is better).
        patience: validations without a better one after which training ends; 0 for never.
        from_start: whether the weights that training starts with may be the best.
    """

    def __init__(
        self, folder: Path, average: AveragedWeights, monitor: str, patience: int, from_start: bool
    ) -> None:
        self.folder = folder
        self.average = average
        self.monitor = monitor
        self.patience = patience
        self.from_start = from_start
        self.found: dict[str, Any] | None = None
        """Step, minutes, monitor and score of the best so far."""
        self.waited = 0
        """Validations since the best."""

    def begin(self, resumed: bool, writes: bool) -> None:
        """Read what a resumed run has found; in a new one, remove what an old one left."""
        if resumed:
            with contextlib.suppress(FileNotFoundError):
                self.found = json.loads((self.folder / "training.json").read_text("utf-8"))
        elif writes:
            shutil.rmtree(self.folder, ignore_errors=True)

    def state_dict(self) -> dict[str, Any]:
        return {"waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.waited = state_dict["waited"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_waited(trainer)  # a run that ended so, and is run again

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        training = trainer.state.fn == TrainerFn.FITTING
        step, scores = trainer.global_step, trainer.callback_metrics
        if self.monitor not in scores:
            raise TrainingError(
                f"--monitor {self.monitor} is not among the scores of a validation: give one of "
                f"{', '.join(sorted(name for name in scores if name.startswith('val/')))}"
            )
        score = float(scores[self.monitor])
        if module.budget_used < module.settled if training else not (step or self.from_start):
            return
        if self._is_better(score):
            self.found = {
                "step": step,
                "minutes": round(training_seconds(trainer) / 60, 2),
                "monitor": self.monitor,
                "score": score,
            }
            self.waited = 0
            if trainer.is_global_zero:
                # By now the module has the weights that are trained again.
                (self.average.model if training else module.model).save(self.folder)
                facts = json.dumps(self.found, indent=1) + "\n"
                write_atomic(self.folder / "training.json", facts.encode())
        elif self.found is not None and self.found["step"] == step:
            self.waited = 0  # a step that a killed run had reached already
        elif training:
            self.waited += 1
            self._stop_if_waited(trainer)

    def _is_better(self, score: float) -> bool:
        if self.found is None:
            return math.isfinite(score)
        higher = self.monitor.endswith(("log_likelihood", "certainty"))
        return score > self.found["score"] if higher else score < self.found["score"]

    def restore(self, model: Any, load: Callable[[str], Any]) -> None:
        """Give `model` the best weights, if there are any, read by `load`."""
        if self.found is not None:
            model.load_state_dict(load(str(self.folder)).state_dict())

    def words(self, rows: Sequence[dict[str, Any]]) -> str:
        """Which weights the run ends with, for its report, from all its validations."""
        best = self.found
        if best is None:
            return f"those of the end: no {self.monitor} was finite"
        words = (
            f"the best by {self.monitor}, {best['score']:.3f}, of step {best['step']:,} after "
            f"{best['minutes']:.1f} min"
        )
        scores = [f"{row[self.monitor]:.3f}" for row in rows if self.monitor in row]
        if scores:
            words += f" (start {scores[0]}, end {scores[-1]})"
        if self._has_waited():
            words += f"; stopped after {self.waited} validations without a better one"
        return words

    def _has_waited(self) -> bool:
        return 0 < self.patience <= self.waited

    def _stop_if_waited(self, trainer: Trainer) -> None:
        # All devices stop alike, whatever each of them could read.
        if trainer.strategy.broadcast(self._has_waited()):
            trainer.should_stop = True


class History(Callback):
    """Adds a line of JSON to a file at every validation: steps, seconds, audio seen, scores.

    When a run resumes, the lines of steps after its checkpoint are dropped, since those steps are
    repeated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """The recorded rows in the order of steps."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        module: Any = pl_module
        row = {
            "step": trainer.global_step,
            "train_seconds": round(training_seconds(trainer), 1),
            "audio_seconds": round(module.samples_seen / module.model.sample_rate, 1),
            "skipped": module.skipped,
            **{name: float(value) for name, value in sorted(trainer.callback_metrics.items())},
        }
        rows = [*(kept for kept in self.rows() if kept["step"] < row["step"]), row]
        # Whole, since a line that a full disk or a kill cuts off would swallow the next one.
        write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())


class TrainingBar(Callback):
    """One line on stderr: the share of the budget used, and the state of the run.

    That is steps, log-likelihood in training and held out, seconds of audio seen per second,
    skipped steps if there are any, and the time left of `max_time`. In a terminal it is redrawn
    twice a second; anything else, such as a log file, gets a line every 30 seconds.
    """

    def __init__(self) -> None:
        self._drawn = 0.0
        self._likelihood: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        self._started, self._samples = time.monotonic(), module.samples_seen

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        nll = float(trainer.callback_metrics.get("train/nll", math.nan))
        if math.isfinite(nll):
            # Crops differ by nats: smoothed over the last fifty steps or so.
            before = -nll if self._likelihood is None else self._likelihood
            self._likelihood = before + (-nll - before) / 50
        if time.monotonic() - self._drawn >= (0.5 if sys.stderr.isatty() else 30):
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, last=True)

    def _draw(self, trainer: Trainer, module: Any, last: bool = False) -> None:
        if not trainer.is_global_zero:
            return
        self._drawn = time.monotonic()
        parts = [f"{module.measure_budget():4.0%} step {trainer.global_step:,}"]
        held_out = trainer.callback_metrics.get("val/log_likelihood")
        likelihoods = {"in training": self._likelihood, "held out": held_out}
        shown = [f"{float(value):.3f} {k}" for k, value in likelihoods.items() if value is not None]
        if shown:
            parts.append(f"log-likelihood {' and '.join(shown)} (nats/{module.unit})")
        seen = (module.samples_seen - self._samples) / module.model.sample_rate
        parts.append(f"{seen / max(self._drawn - self._started, 1e-9):.1f} s audio/s")
        if module.skipped:
            parts.append(f"{module.skipped} skipped")
        timer = timer_of(trainer)
        if timer and (left := timer.time_remaining()) is not None:
            parts.append(f"{timedelta(seconds=max(round(left), 0))} left")
        line = ", ".join(parts)
        if sys.stderr.isatty():
            line = f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}"
        sys.stderr.write(line + "\n" * (last or not sys.stderr.isatty()))
        sys.stderr.flush()
