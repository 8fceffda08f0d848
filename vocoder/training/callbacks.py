"""Callbacks: averaged weights, validations and the best of them, progress, resume files."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from vocoder.atomic import write_atomic
from vocoder.training.module import TrainingError
from vocoder.training.run import ResumeFiles


class AveragedWeights(WeightAveraging):
    r"""Exponential moving average (EMA) of the weights, validated and kept at the end.

    .. math:: \bar\theta \leftarrow \bar\theta + (1 - d_n)(\theta - \bar\theta), \qquad
        d_n = \min\Bigl(decay, \frac{1 + n}{10 + n}\Bigr)

    after update n; Lightning's `EMAWeightAveraging` has no such warm-up. Checkpoints hold both sets
    of weights.

    Args:
        decay: of the average, in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}: it must be in [0, 1)")
        self.decay = decay
        super().__init__(avg_fn=self._update)

    def _update(self, averaged: Tensor, current: Tensor, n: Any) -> Tensor:
        if not averaged.is_floating_point():
            return current
        step = 1 - torch.clamp((1 + n) / (10 + n), max=self.decay)
        return averaged + step * (current - averaged)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass  # Lightning would replace the weights before the last checkpoint; see `apply_to`

    def apply_to(self, pl_module: LightningModule) -> None:
        """Replace the weights by their average, permanently."""
        self._copy_average_to_current(pl_module)

    @property
    def model(self) -> Any:
        """The model with the averaged weights, during training."""
        assert self._average_model is not None
        return self._average_model.module.model


class Validations(Callback):
    """Records every validation, keeps the best averaged weights, and ends a run that gets no
    better.

    ``history.jsonl`` gets a line for each, without those of steps that a resumed run repeats. The
    best weights are a checkpoint in ``best``. Unlike in Lightning's `ModelCheckpoint`, which writes
    a pickle, and `EarlyStopping`, those before all losses apply (`Training.settled`) do not count,
    nor, without `from_start`, the one before the first step. More of ``log_likelihood`` is better,
    less of any other `monitor`. A run ends after `patience` validations without a better one; 0 for
    never.
    """

    def __init__(
        self, run: Path, average: AveragedWeights, monitor: str, patience: int, from_start: bool
    ) -> None:
        self.history, self.folder = run / "history.jsonl", run / "best"
        self.average, self.from_start = average, from_start
        self.monitor, self.patience = monitor, patience

    def rows(self, steps: float = math.inf) -> list[dict[str, Any]]:
        """What is recorded, up to a number of steps."""
        lines = self.history.read_text("utf-8").splitlines() if self.history.exists() else []
        return [row for row in map(json.loads, lines) if row["step"] <= steps]

    def best(self, rows: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, int]:
        """The best validation that counts, if any, the first of equals; and those since then."""
        sign = 1 if self.monitor.endswith("log_likelihood") else -1
        counting = [row for row in rows if row["counts"]]
        finite = [n for n, row in enumerate(counting) if math.isfinite(row[self.monitor])]
        if not finite:
            return None, len(counting)
        best = max(finite, key=lambda n: sign * counting[n][self.monitor])
        return counting[best], len(counting) - 1 - best

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_waited(trainer)  # a run that ended so, and is run again

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        training, step = trainer.state.fn == TrainerFn.FITTING, trainer.global_step
        scores = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        if self.monitor not in scores:
            raise TrainingError(
                f"--monitor {self.monitor} is not among the scores of a validation: give one of "
                f"{', '.join(name for name in scores if name.startswith('val/'))}"
            )
        if trainer.is_global_zero:
            settled = module.budget_used >= module.settled
            row = {
                "step": step,
                "train_seconds": round(module.timer.time_elapsed(), 1),
                "audio_seconds": round(module.samples_seen / module.model.sample_rate, 1),
                "skipped": module.skipped,
                "counts": settled if training else bool(step) or self.from_start,
                **scores,
            }
            rows = [*self.rows(step - 1), row]
            # Whole, since a line that a full disk or a kill cuts off would swallow the next one.
            write_atomic(self.history, "".join(json.dumps(row) + "\n" for row in rows).encode())
            if self.best(rows)[0] is row:
                # By now the module has the weights that are trained again.
                (self.average.model if training else module.model).save(self.folder)
        if training:
            self._stop_if_waited(trainer)

    def restore(self, model: Any, load: Callable[[str, Any], Any]) -> None:
        """Give `model` the best weights, if there are any, read by `Recipe.load`."""
        if self.best(self.rows())[0] is not None:
            model.load_state_dict(load(str(self.folder), model).state_dict())

    def words(self) -> str:
        """Which weights the run ends with, for its report."""
        rows = self.rows()
        best, _ = self.best(rows)
        if best is None:
            return f"those of the end: no {self.monitor} was finite"
        score, start, end = (f"{row[self.monitor]:.3f}" for row in (best, rows[0], rows[-1]))
        return (
            f"the best by {self.monitor}, {score}, of step {best['step']:,} after "
            f"{best['train_seconds'] / 60:.1f} min (start {start}, end {end})"
        )

    def _stop_if_waited(self, trainer: Trainer) -> None:
        _, waited = self.best(self.rows(trainer.global_step))
        # All devices stop alike, whatever each of them could read.
        if trainer.strategy.broadcast(0 < self.patience <= waited):
            trainer.should_stop = True


class Progress(Callback):
    """A line on stderr, redrawn in a terminal and repeated every 30 seconds in a log file.
    Lightning's bars count epochs, of which there are none here."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        self._drawn, self._samples = time.monotonic(), module.samples_seen

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module: Any = pl_module
        now, terminal = time.monotonic(), sys.stderr.isatty()
        elapsed, samples = now - self._drawn, module.samples_seen
        if trainer.is_global_zero and elapsed >= (0.5 if terminal else 30):
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            shown = [name for name in metrics if name == "train/loss" or name[:4] == "val/"]
            scores = [f"{name} {metrics[name]:.3f}" for name in shown]
            speed = (samples - self._samples) / module.model.sample_rate / elapsed
            used = f"{module.measure_budget():4.0%} step {trainer.global_step:,}"
            line = ", ".join([used, *scores, f"{speed:.1f} s audio/s"])
            if (left := module.timer.time_remaining()) is not None:
                line += f", {timedelta(seconds=max(round(left), 0))} left"
            sys.stderr.write(f"\r\033[K{line}" if terminal else f"{line}\n")
            sys.stderr.flush()
            self._drawn, self._samples = now, samples


class Interrupted(Exception):  # noqa: N818  (not an error)
    """The signal that is its argument stopped the training. Everything is saved."""


class LastCheckpoint(Checkpoint):
    """Saves what a run resumes from, always whole: every `seconds`, at the end, and, after SIGTERM
    or Ctrl-C, at the end of the current step and of the validation that follows it, if one does.

    Unlike with Lightning's `ModelCheckpoint` and its handler of SIGTERM, all devices stop after the
    same step. A second signal stops at once, without saving.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._saved_at = 0.0
        self._asked = 0  # the number of the signal that asked to stop
        self._after_validation = (0, 0)
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            trainer.strategy.checkpoint_io = ResumeFiles()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def ask_to_stop(signal_number: int, frame: FrameType | None) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = signal_number
            sys.stderr.write("\nstopping after this step; again to stop at once\n")

        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, ask_to_stop)
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due, asked = int(time.monotonic() - self._saved_at >= self.seconds), self._asked
        if trainer.world_size > 1:
            flags = torch.tensor([due, asked], device=trainer.strategy.root_device)
            due, asked = trainer.strategy.reduce(flags, reduce_op="max").tolist()
        every = trainer.val_check_batch
        steps = trainer.fit_loop.total_batch_idx + 1
        if isinstance(every, int) and steps % every == 0 and trainer.enable_validation:
            self._after_validation = due, asked
        else:
            self._save_and_stop(trainer, due, asked)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (due, asked), self._after_validation = self._after_validation, (0, 0)
        self._save_and_stop(trainer, due, asked)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)

    def on_exception(self, *_: Any) -> None:
        self.teardown()

    def teardown(self, *_: Any, **__: Any) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _save_and_stop(self, trainer: Trainer, due: int, asked: int) -> None:
        if due or asked:
            trainer.save_checkpoint(self.path)
            self._saved_at = time.monotonic()
        if asked:
            raise Interrupted(asked)
