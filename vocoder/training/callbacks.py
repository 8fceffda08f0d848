"""Lightning callbacks: averaged weights, the checkpoint to resume from, the record of a run, and
the progress bar.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar, Timer, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from tqdm import tqdm

from vocoder.atomic import write_atomic
from vocoder.training.module import Training, VocoderTraining


class AveragedWeights(WeightAveraging):
    r"""Exponential moving average (EMA) of the weights, used to validate and kept at the end.

    .. math:: \bar\theta \leftarrow \bar\theta + (1 - d_n)(\theta - \bar\theta), \qquad
        d_n = \min\Bigl(decay, \frac{1 + n}{10 + n}\Bigr)

    after update n, so that a short run is not an average over its random start. Checkpoints hold
    both sets of weights.

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

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        # Lightning would replace the weights here, before the last checkpoint is saved, and a run
        # resumed with a larger budget would go on from the average. See `apply_to`.
        pass

    def apply_to(self, pl_module: lightning.LightningModule) -> None:
        """Replace the weights by their average, for good."""
        self._copy_average_to_current(pl_module)

    @property
    def averaged(self) -> Training:
        """The module with the averaged weights, while training goes on."""
        assert self._average_model is not None
        module = self._average_model.module
        assert isinstance(module, Training)
        return module

    # Lightning writes through .data, which leaves the version counters of the parameters as they
    # are: what a model caches by them (inverted 1x1 convolutions) would go stale unnoticed.

    @torch.no_grad()
    def _swap_models(self, pl_module: lightning.LightningModule) -> None:
        for average, current in self._pairs(pl_module):
            kept = average.clone()
            average.copy_(current)
            current.copy_(kept)

    @torch.no_grad()
    def _copy_average_to_current(self, pl_module: lightning.LightningModule) -> None:
        for average, current in self._pairs(pl_module):
            current.copy_(average)

    def _pairs(self, pl_module: lightning.LightningModule) -> Any:
        assert self._average_model is not None
        average = self._average_model.module
        return zip(
            itertools.chain(average.parameters(), average.buffers()),
            itertools.chain(pl_module.parameters(), pl_module.buffers()),
            strict=True,
        )


class LastCheckpoint(Checkpoint):
    """Keeps one checkpoint to resume from, replaced by one rename, and saves before leaving.

    Saved every `seconds`, at the end, and, after SIGTERM or Ctrl-C, at the end of the step under
    way; whichever device is asked to stop, all stop after the same step. A second signal leaves at
    once, without saving.

    Args:
        path: of the checkpoint.
        seconds: between saves.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.seconds = seconds
        self._saved_at = 0.0
        self._asked = 0
        """The number of the signal that asked to stop, or 0."""
        self._handlers: dict[int, Any] = {}

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        def ask_to_stop(signal_number: int, frame: FrameType | None) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = signal_number
            sys.stderr.write("\nstopping after this step; again to stop at once\n")

        # In place of Lightning's own for SIGTERM, which lets devices stop after different steps:
        # those that are left wait for the others, or read what was never sent.
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, ask_to_stop)
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        due = int(time.monotonic() - self._saved_at >= self.seconds)
        asked = self._asked
        if trainer.world_size > 1:
            wishes = torch.tensor([due, asked], device=trainer.strategy.root_device)
            due, asked = trainer.strategy.reduce(wishes, reduce_op="max").tolist()
        if due or asked:
            self._save(trainer)
        if asked:
            raise Interrupted(asked)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._save(trainer)

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        self._restore_handlers()

    def teardown(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _save(self, trainer: lightning.Trainer) -> None:
        partial = self.path.with_suffix(".partial")
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, self.path)
        self._saved_at = time.monotonic()


class Interrupted(Exception):  # noqa: N818  (not an error)
    """Training was asked to stop by a signal. Everything is saved."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)


class Snapshots(Callback):
    """Keeps the averaged model as it is after so many minutes of training: the learning curve.

    Each goes to a folder of its own, `folder`/10min, a checkpoint like that of the finished run,
    with ``training.json`` beside the weights: minutes, steps, seconds of audio seen, learning rate.
    Those that are there are kept, so a resumed run adds the later ones.

    Args:
        folder: for the snapshots.
        minutes: of training, validation included; null or an empty list for none.

    Needs an `AveragedWeights` before it among the callbacks.
    """

    def __init__(self, folder: Path, minutes: Sequence[float] | None) -> None:
        if any(point <= 0 for point in minutes or ()):
            raise ValueError(f"snapshot_minutes is {minutes}: give minutes above 0")
        self.folder = folder
        self._left = sorted(minutes or ())

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        # A point that a resumed run is past can no longer be taken, and the next would be late.
        spent = training_seconds(trainer) / 60
        self._left = [point for point in self._left if point > spent]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        spent = training_seconds(trainer) / 60
        if not self._left or spent < self._left[0] or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Training)
        folder = self.folder / f"{self._left.pop(0):g}min"
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        (average,) = (c for c in callbacks if isinstance(c, AveragedWeights))
        model = average.averaged.model
        model.save(folder)
        facts = {
            "minutes": round(spent, 2),
            "steps": trainer.global_step,
            "audio_seconds": round(pl_module.samples_seen / model.sample_rate, 1),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
        }
        write_atomic(folder / "training.json", (json.dumps(facts, indent=1) + "\n").encode())


class History(Callback):
    """Appends a line of JSON to a file at every validation: steps, seconds, audio seen, scores.

    After a resume from an older checkpoint, lines of later steps are dropped, since those steps
    are made again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if trainer.is_global_zero and self.path.exists():
            lines = [json.dumps(row) for row in self.rows() if row["step"] <= trainer.global_step]
            write_atomic(self.path, "".join(line + "\n" for line in lines).encode())

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        assert isinstance(pl_module, Training)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        row = {
            "step": trainer.global_step,
            "train_seconds": round(training_seconds(trainer), 1),
            "audio_seconds": round(pl_module.samples_seen / pl_module.model.sample_rate, 1),
            "skipped": pl_module.skipped,
            **{k: metrics[k] for k in sorted(metrics) if k.startswith(("val/", "train/"))},
        }
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """What was recorded, oldest first; one row a step, the later one."""
        rows: dict[int, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the line that a kill cut off
                    continue
                rows[row["step"]] = row
        return [rows[step] for step in sorted(rows)]


class HeldOutSound(Callback):
    """Shows held-out audio and mels, recorded and synthesised, in TensorBoard.

    Args:
        utterances: how many of the validation utterances.
    """

    def __init__(self, utterances: int = 3) -> None:
        self.utterances = utterances

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.is_global_zero or batch_idx >= self.utterances or "made" not in outputs:
            return
        assert isinstance(pl_module, VocoderTraining)
        boards = [x.experiment for x in trainer.loggers if isinstance(x, TensorBoardLogger)]
        for board in boards:
            for kind in ("original", "made"):
                board.add_audio(
                    f"{outputs['id']}/{kind}",
                    outputs[kind].cpu(),
                    trainer.global_step,
                    pl_module.model.sample_rate,
                )
            board.add_image(
                f"{outputs['id']}/mel", mel_picture(outputs["mel"], outputs["made_mel"]),
                trainer.global_step, dataformats="HW",
            )  # fmt: skip


def mel_picture(*mels: Tensor) -> Tensor:
    """Grey picture (height, width) uint8 of mels (n_mels, frames), one above the other.

    White is the loudest and black the softest value of the first.
    """
    low, high = mels[0].min(), mels[0].max()
    scaled = torch.cat([mel.flip(0) for mel in mels]).sub(low).div((high - low).clamp_min(1e-6))
    return scaled.clamp(0, 1).mul(255).to(torch.uint8).cpu()


class TrainingBar(ProgressBar):
    """One line that shows how much of the budget is used, and what matters meanwhile.

    Steps, training loss and held-out log-likelihood in nats, seconds of audio seen per
    second, skipped steps where there are any, and the time left of `max_time`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: Any = None
        self._drawn = 0.0
        self._loss: float | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, Training)
        if not self._enabled or not trainer.is_global_zero:
            return
        self._started = time.monotonic()
        self._samples = pl_module.samples_seen
        # A log file gets a line now and then, and not a bar redrawn twice a second.
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=100,
            bar_format="{percentage:3.0f}%|{bar:20}| {desc}",
            dynamic_ncols=True,
            disable=not self._terminal,
        )

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._bar is None:
            return
        assert isinstance(pl_module, Training)
        loss = float(trainer.callback_metrics["train/nll"])
        if math.isfinite(loss):
            # Crops differ by nats: smoothed over the last fifty steps or so.
            self._loss = loss if self._loss is None else self._loss + (loss - self._loss) / 50
        if time.monotonic() - self._drawn >= (0.5 if self._terminal else 30):
            self._draw(trainer, pl_module)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if self._bar is not None:
            assert isinstance(pl_module, Training)
            self._draw(trainer, pl_module)

    def _draw(self, trainer: lightning.Trainer, pl_module: Training) -> None:
        self._drawn = time.monotonic()
        line = self._line(trainer, pl_module)
        used = pl_module.measure_budget()
        if self._terminal:
            self._bar.n = 100 * used
            self._bar.set_description_str(line)
        else:
            sys.stderr.write(f"{used:4.0%} {line}\n")

    def _line(self, trainer: lightning.Trainer, pl_module: Training) -> str:
        metrics = trainer.callback_metrics
        parts = [f"step {trainer.global_step:,}"]
        if self._loss is not None:
            parts.append(f"loss {self._loss:.3f} nats/{pl_module.unit}")
        if "val/log_likelihood" in metrics:
            parts.append(f"held-out likelihood {float(metrics['val/log_likelihood']):.3f}")
        seen = (pl_module.samples_seen - self._samples) / pl_module.model.sample_rate
        parts.append(f"{seen / max(time.monotonic() - self._started, 1e-9):.1f} s audio/s")
        if pl_module.skipped:
            parts.append(f"{pl_module.skipped} skipped")
        for timer in timers(trainer):
            if (left := timer.time_remaining()) is not None:
                parts.append(f"{timedelta(seconds=max(round(left), 0))} left")
        return ", ".join(parts)

    def teardown(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def timers(trainer: lightning.Trainer) -> list[Timer]:
    """The timers of a trainer."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, Timer)]


def training_seconds(trainer: lightning.Trainer) -> float:
    """Seconds of training so far, those before a resume included."""
    return max((timer.time_elapsed() for timer in timers(trainer)), default=0.0)
