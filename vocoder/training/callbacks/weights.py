"""The weights that a run keeps: their average, a checkpoint to resume from, and snapshots."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, WeightAveraging
from torch import Tensor

from vocoder.atomic import write_atomic
from vocoder.training.module import Training, training_seconds
from vocoder.training.resume import ResumeFiles


class AveragedWeights(WeightAveraging):
    r"""Exponential moving average (EMA) of the model's weights, validated and kept at the end.

    .. math:: \bar\theta \leftarrow \bar\theta + (1 - d_n)(\theta - \bar\theta), \qquad
        d_n = \min\Bigl(decay, \frac{1 + n}{10 + n}\Bigr)

    after update n, so that a short run is not an average over its random start. Checkpoints hold
    both sets of weights. Parameters of loss terms are not averaged.

    Args:
        decay: of the average, in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}: it must be in [0, 1)")
        self.decay = decay
        super().__init__(multi_avg_fn=self._update)

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            # Everything but the model is shared: averaging it with itself changes nothing.
            for name, part in pl_module.named_children():
                if name != "model":
                    setattr(self.averaged, name, part)

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
        # Lightning would replace the weights here, before the last checkpoint is saved, so a run
        # resumed with a larger budget would continue from the average. See `apply_to`.
        pass

    def apply_to(self, pl_module: lightning.LightningModule) -> None:
        """Replace the weights by their average, permanently."""
        self._copy_average_to_current(pl_module)

    @property
    def averaged(self) -> Any:
        """The module with the averaged weights, during training."""
        assert self._average_model is not None
        return self._average_model.module


class LastCheckpoint(Checkpoint):
    """Saves what a run resumes from, always whole, and again before the run stops.

    It is saved every `seconds`, at the end, and, after SIGTERM or Ctrl-C, at the end of the current
    step; all devices stop after the same step, whichever gets the signal. A second signal stops at
    once, without saving. Where a validation follows the step, it is saved after that, so that a
    resumed run neither repeats nor misses one. An error between two steps, such as the death of a
    loader worker, loses no step either.

    The file before it is kept too; see `ResumeFiles`.

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
        self._after_validation: tuple[int, int] | None = None
        """Whether to save, and the signal to stop by, once the validation is over."""
        self._between_steps = False
        self._handlers: dict[int, Any] = {}

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        if stage == "fit":
            trainer.strategy.checkpoint_io = ResumeFiles()

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        def ask_to_stop(signal_number: int, frame: FrameType | None) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = signal_number
            sys.stderr.write("\nstopping after this step; again to stop at once\n")

        # Lightning's own handler of SIGTERM lets devices stop after different steps: the others
        # then wait forever, or read what was never sent.
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, ask_to_stop)
        self._saved_at = time.monotonic()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._between_steps = False
        # PyTorch's handler raises an error wherever training is when a loader worker dies. Without
        # it the loader notices when it next waits for a batch, which is between two steps.
        child = getattr(signal, "SIGCHLD", None)  # Windows has none
        if child is not None and child not in self._handlers:
            self._handlers[child] = signal.signal(child, signal.SIG_DFL) or signal.SIG_DFL

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
            flags = torch.tensor([due, asked], device=trainer.strategy.root_device)
            due, asked = trainer.strategy.reduce(flags, reduce_op="max").tolist()
        self._between_steps = True
        if _validates_next(trainer):
            self._after_validation = due, asked
        else:
            self._save_and_stop(trainer, due, asked)

    def on_validation_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._between_steps = False  # the model has the averaged weights now

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if self._after_validation is not None:
            due, asked = self._after_validation
            self._after_validation = None
            self._between_steps = True
            self._save_and_stop(trainer, due, asked)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._between_steps = False
        self._save(trainer)

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        # Not after a second Ctrl-C, which is no Exception. On several devices all would have to
        # save, and the others may not have failed.
        failed = isinstance(exception, Exception) and not isinstance(exception, Interrupted)
        if failed and self._between_steps and trainer.world_size == 1:
            # If even that fails, what matters is the first error.
            with contextlib.suppress(OSError):
                self._save(trainer)
        self._restore_handlers()

    def teardown(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _save_and_stop(self, trainer: lightning.Trainer, due: int, asked: int) -> None:
        if due or asked:
            self._save(trainer)
        if asked:
            raise Interrupted(asked)

    def _save(self, trainer: lightning.Trainer) -> None:
        try:
            trainer.save_checkpoint(self.path)
        except OSError:
            self._between_steps = False  # nor would it work after the exception
            raise
        self._saved_at = time.monotonic()


def _validates_next(trainer: lightning.Trainer) -> bool:
    """Whether a validation follows the step that has just ended."""
    every = trainer.val_check_batch
    if not isinstance(every, int) or trainer.check_val_every_n_epoch is not None:
        return False
    return (trainer.fit_loop.total_batch_idx + 1) % every == 0 and trainer.enable_validation


class Interrupted(Exception):  # noqa: N818  (not an error)
    """A signal stopped the training. Everything is saved."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)


class Snapshots(Callback):
    """Saves the averaged model after given minutes of training: the learning curve.

    Each snapshot is a folder such as `folder`/10min, a checkpoint like that of the finished run
    with ``training.json`` in addition: minutes, steps, seconds of audio seen, learning rate.
    A resumed run adds the later ones.

    Needs an `AveragedWeights` before it among the callbacks.

    Args:
        folder: for the snapshots.
        minutes: of training, including validation; null or an empty list for none.

    Raises:
        ValueError: minutes of 0 or below.
    """

    def __init__(self, folder: Path, minutes: Sequence[float] | None) -> None:
        if any(point <= 0 for point in minutes or ()):
            raise ValueError(f"snapshot_minutes is {minutes}: give minutes above 0")
        self.folder = folder
        self._left = sorted(minutes or ())

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        # A resumed run cannot save points that it has already passed.
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
