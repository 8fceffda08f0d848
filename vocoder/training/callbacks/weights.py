"""The weights that a run keeps: their average, the best, what it resumes from, and snapshots."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from vocoder.atomic import write_atomic
from vocoder.training.module import Training, TrainingError, training_seconds
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


def averaged_model(trainer: lightning.Trainer) -> Any:
    """The model with the averaged weights, during training."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    (average,) = (c for c in callbacks if isinstance(c, AveragedWeights))
    return average.averaged.model


class Best(Callback):
    """Keeps the averaged weights of the best validation, and ends a run that gets no better.

    They are in `folder`, a checkpoint with ``training.json`` in addition: step, minutes of
    training, the score's name and value. It is replaced whole. A run that is resumed, also after a
    kill, goes on from what is there.

    A validation counts once all terms of the loss have started (`Training.settled`), since a term
    that starts may cost some of the score; so does the end, and, with `from_start`, the validation
    before the first step. A score that is not finite never counts.

    Needs an `AveragedWeights` before it among the callbacks.

    Args:
        folder: for the best weights.
        monitor: the score: ``val/log_likelihood``, ``val/certainty`` (higher is better), or an
            error such as ``val/mel_distance`` (lower is better).
        patience: validations without a better one after which training ends; 0 for never.
        from_start: whether the weights that training starts with may be the best.
    """

    FACTS = "training.json"

    def __init__(self, folder: Path, monitor: str, patience: int, from_start: bool) -> None:
        self.folder = folder
        self.monitor = monitor
        self.patience = patience
        self.from_start = from_start
        self.found: dict[str, Any] | None = None
        """Step, minutes, monitor and score of the best so far."""
        self.waited = 0
        """Validations since the best."""

    def begin(self, new: bool, writes: bool) -> None:
        """Read what a resumed run has, or, in a `new` one, remove what a run left in its folder.

        Only the process that `writes` changes anything on the disk.
        """
        if new:
            if writes:
                for folder in (self.folder, self._next):
                    shutil.rmtree(folder, ignore_errors=True)
            return
        if writes:
            self._replace()
        with contextlib.suppress(OSError, ValueError):
            self.found = json.loads((self.folder / self.FACTS).read_text(encoding="utf-8"))

    def state_dict(self) -> dict[str, Any]:
        return {"waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.waited = state_dict["waited"]

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self._stop_if_waited(trainer)  # a run that ended so, and is run again

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, Training)
        training = trainer.state.fn == TrainerFn.FITTING
        step = trainer.global_step
        score = self._score(trainer)
        if training:
            counts = pl_module.budget_used >= pl_module.settled
        else:
            counts = step > 0 or self.from_start
        if score is None or not counts:
            return
        if self.better(score):
            self.found = {
                "step": step,
                "minutes": round(training_seconds(trainer) / 60, 2),
                "monitor": self.monitor,
                "score": score,
            }
            self.waited = 0
            if trainer.is_global_zero:
                # By now the module has the weights that are trained again.
                self._write(averaged_model(trainer) if training else pl_module.model)
        elif self.found is not None and self.found["step"] == step:
            self.waited = 0  # a step that a killed run had reached already
        elif training:
            self.waited += 1
            self._stop_if_waited(trainer)

    def better(self, score: float, than: float | None = None) -> bool:
        """Whether a score is better than another one, or than the best so far."""
        if than is None:
            if self.found is None:
                return math.isfinite(score)
            than = self.found["score"]
        higher = self.monitor.endswith(("log_likelihood", "certainty"))
        return score > than if higher else score < than

    def restore(self, model: Any, load: Callable[[str], Any]) -> None:
        """Give `model` the best weights, if there are any, read by `load`."""
        if self.found is not None:
            model.load_state_dict(load(str(self.folder)).state_dict())

    def words(self, rows: Sequence[dict[str, Any]]) -> str:
        """Which weights the run ends with, for its report.

        Args:
            rows: the validations, the first and the last of the run among them.
        """
        best = self.found
        if best is None:
            return f"those of the end: no {self.monitor} was finite"
        ended = f", stopped after {self.waited} validations without a better one"
        words = (
            f"the best by {self.monitor}, {best['score']:.3f}, of step {best['step']:,} after "
            f"{best['minutes']:.1f} min{ended if self._has_waited() else ''}"
        )
        scores = [row[self.monitor] for row in rows if self.monitor in row]
        if len(scores) < 2:
            return words
        start, end = scores[0], scores[-1]
        verdict = "better" if self.better(start, end) else "not better"
        return f"{words}; the start ({start:.3f}) was {verdict} than the end ({end:.3f})"

    def _score(self, trainer: lightning.Trainer) -> float | None:
        measured = [name for name in trainer.callback_metrics if name.startswith("val/")]
        if not measured:  # there is nothing to validate on
            return None
        if self.monitor not in measured:
            raise TrainingError(
                f"--monitor {self.monitor} is not among the scores of a validation: give one of "
                f"{', '.join(sorted(measured))}"
            )
        return float(trainer.callback_metrics[self.monitor])

    def _has_waited(self) -> bool:
        return 0 < self.patience <= self.waited

    def _stop_if_waited(self, trainer: lightning.Trainer) -> None:
        # All devices stop alike, whatever each of them could read.
        if trainer.strategy.broadcast(self._has_waited()):
            trainer.should_stop = True

    @property
    def _next(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.next")

    def _write(self, model: Any) -> None:
        shutil.rmtree(self._next, ignore_errors=True)
        model.save(self._next)
        content = (json.dumps(self.found, indent=1) + "\n").encode()
        write_atomic(self._next / self.FACTS, content)  # last: now it is whole
        self._replace()

    def _replace(self) -> None:
        """Put the next best in place, if it is whole: also one that a kill has left."""
        if (self._next / self.FACTS).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            os.replace(self._next, self.folder)


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
        model = averaged_model(trainer)
        model.save(folder)
        facts = {
            "minutes": round(spent, 2),
            "steps": trainer.global_step,
            "audio_seconds": round(pl_module.samples_seen / model.sample_rate, 1),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
        }
        write_atomic(folder / "training.json", (json.dumps(facts, indent=1) + "\n").encode())
