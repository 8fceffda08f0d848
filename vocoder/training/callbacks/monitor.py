"""What a run shows: its history on disk, TensorBoard, and a progress bar."""

from __future__ import annotations

import json
import math
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from torch import Tensor

from vocoder.atomic import write_atomic
from vocoder.training.module import Training, VocoderTraining, timers, training_seconds


class History(Callback):
    """Adds a line of JSON to a file at every validation: steps, seconds, audio seen, scores.

    When a run resumes, the lines of steps after its checkpoint are dropped, since those steps are
    repeated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if trainer.is_global_zero and self.path.exists():
            self._write([row for row in self.rows() if row["step"] <= trainer.global_step])

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
        self._write([*(r for r in self.rows() if r["step"] != row["step"]), row])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        # Whole, since a line that a full disk or a kill cuts off would swallow the next one.
        write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def rows(self) -> list[dict[str, Any]]:
        """The recorded rows in the order of steps, the last one of each step."""
        rows: dict[int, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    rows[row["step"]] = row
                except (json.JSONDecodeError, TypeError, KeyError):  # of a damaged file
                    continue
        return [rows[step] for step in sorted(rows)]


class HeldOutSound(Callback):
    """Shows held-out audio and mels, recorded and synthesised, in TensorBoard.

    Args:
        utterances: how many of the validation utterances to show.
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
        if not trainer.is_global_zero or batch_idx >= self.utterances or "generated" not in outputs:
            return
        assert isinstance(pl_module, VocoderTraining)
        boards = [x.experiment for x in trainer.loggers if isinstance(x, TensorBoardLogger)]
        for board in boards:
            for kind in ("original", "generated"):
                board.add_audio(
                    f"{outputs['id']}/{kind}",
                    outputs[kind].cpu(),
                    trainer.global_step,
                    pl_module.model.sample_rate,
                )
            board.add_image(
                f"{outputs['id']}/mel", mel_picture(outputs["mel"], outputs["generated_mel"]),
                trainer.global_step, dataformats="HW",
            )  # fmt: skip


def mel_picture(*mels: Tensor) -> Tensor:
    """Grey picture (height, width), uint8, of mels (n_mels, frames), one above the other.

    White is the loudest value of the first, black its softest.
    """
    low, high = mels[0].min(), mels[0].max()
    scaled = torch.cat([mel.flip(0) for mel in mels]).sub(low).div((high - low).clamp_min(1e-6))
    return scaled.clamp(0, 1).mul(255).to(torch.uint8).cpu()


class TrainingBar(ProgressBar):
    """One line on stderr: the share of the budget used, and the state of the run.

    That is steps, log-likelihood in training and held out, seconds of audio seen per second,
    skipped steps if there are any, and the time left of `max_time`. In a terminal it is a bar that
    is redrawn twice a second; anything else, such as a log file, gets a line every 30 seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: Progress | None = None
        self._drawn = 0.0
        self._likelihood: float | None = None

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
        self._bar = Progress(
            TaskProgressColumn(),
            BarColumn(20),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=1.0)
        if self._bar.console.is_terminal:
            self._bar.start()

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
        metrics = trainer.callback_metrics
        nll = float(metrics.get("train/nll", math.nan))
        if math.isfinite(nll):
            # Crops differ by nats: smoothed over the last fifty steps or so.
            before = -nll if self._likelihood is None else self._likelihood
            self._likelihood = before + (-nll - before) / 50
        if time.monotonic() - self._drawn >= (0.5 if self._bar.console.is_terminal else 30):
            self._draw(trainer, pl_module, self._bar)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if self._bar is not None:
            assert isinstance(pl_module, Training)
            self._draw(trainer, pl_module, self._bar)

    def _draw(self, trainer: lightning.Trainer, pl_module: Training, bar: Progress) -> None:
        self._drawn = time.monotonic()
        line = self._line(trainer, pl_module)
        used = pl_module.measure_budget()
        if bar.console.is_terminal:
            bar.update(self._task, completed=used, description=line, refresh=True)
        else:
            sys.stderr.write(f"{used:4.0%} {line}\n")

    def _line(self, trainer: lightning.Trainer, pl_module: Training) -> str:
        metrics = trainer.callback_metrics
        parts = [f"step {trainer.global_step:,}"]
        likelihoods = []
        if self._likelihood is not None:
            likelihoods.append(f"{self._likelihood:.3f} in training")
        if "val/log_likelihood" in metrics:
            likelihoods.append(f"{float(metrics['val/log_likelihood']):.3f} held out")
        if likelihoods:
            parts.append(f"log-likelihood {' and '.join(likelihoods)} (nats/{pl_module.unit})")
        seen = (pl_module.samples_seen - self._samples) / pl_module.model.sample_rate
        parts.append(f"{seen / max(time.monotonic() - self._started, 1e-9):.1f} s audio/s")
        if pl_module.skipped:
            parts.append(f"{pl_module.skipped} skipped")
        for timer in timers(trainer):
            if (left := timer.time_remaining()) is not None:
                parts.append(f"{timedelta(seconds=max(round(left), 0))} left")
        return ", ".join(parts)

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        self._stop()

    def teardown(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None and self._bar.console.is_terminal:
            self._bar.stop()
        self._bar = None
