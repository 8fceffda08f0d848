"""What a run resumes from after any stop, kill -9 included, without losing or repeating a step:
files that are written whole, two of them kept, and read without running code.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import time
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from vocoder.atomic import atomic_path
from vocoder.checkpoints import CheckpointError

log = logging.getLogger("vocoder.training")

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"


class Interrupted(Exception):  # noqa: N818  (not an error)
    """A signal stopped the training. Everything is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class LastCheckpoint(Checkpoint):
    """Saves what a run resumes from, always whole, and again before the run stops.

    It is saved every `seconds`, at the end, and, after SIGTERM or Ctrl-C, at the end of the current
    step; all devices stop after the same step, whichever gets the signal. A second signal stops at
    once, without saving. Where a validation follows the step, it is saved after that, so that a
    resumed run neither repeats nor misses one.

    Lightning's `ModelCheckpoint` saves before that validation, and its handler of SIGTERM lets
    devices stop after different steps: the others then wait for ever.

    Args:
        path: of the checkpoint; the one before it is kept, see `ResumeFiles`.
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
        if self._after_validation is not None:
            due, asked = self._after_validation
            self._after_validation = None
            self._save_and_stop(trainer, due, asked)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.path)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._restore_handlers()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _save_and_stop(self, trainer: Trainer, due: int, asked: int) -> None:
        if due or asked:
            trainer.save_checkpoint(self.path)
            self._saved_at = time.monotonic()
        if asked:
            raise Interrupted(asked)


class ResumeFiles(TorchCheckpointIO):
    """Reads and writes resume files for a trainer.

    A file that is written replaces the one before it, which becomes `PREVIOUS` in the same folder.
    The new file is complete on the disk before that. If it does not fit, what was written of it is
    removed and both others stay.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        path = Path(path)
        # In memory first, as Lightning does: torch.save hides the system's reason for a failure.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with atomic_path(path) as partial:
                with partial.open("wb") as file:
                    file.write(content.getbuffer())
                    file.flush()
                    os.fsync(file.fileno())
                if path.exists():
                    os.replace(path, path.with_name(PREVIOUS))
        except OSError as error:
            error.filename, error.filename2 = str(path), None  # the name that the user knows
            raise

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read_resume_file(Path(path))


def read_resume_file(path: Path) -> dict[str, Any]:
    """The content of a resume file, tensors on the CPU wherever they were.

    It is read by PyTorch's weights-only unpickler, which builds tensors and plain values and runs
    no code that a file may hold.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or is something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                raise ValueError(f"the checksum of {broken} is wrong")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler makes of what it finds
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise CheckpointError(f"{path} is damaged ({reason})") from error
    return content


def newest_resume_file(run: Path) -> Path | None:
    """The newest resume file of a run that is whole, or None if there is none at all.

    Raises:
        CheckpointError: there are files, but none of them is whole.
    """
    problems = []
    for path in resume_files(run):
        try:
            read_resume_file(path)
        except CheckpointError as error:
            log.warning("%s", error)
            problems.append(str(error))
        else:
            return path
    if problems:
        raise CheckpointError(
            f"{'; '.join(problems)}: there is nothing else to resume from, so remove {run} to "
            "start again, or choose another folder with --run"
        )
    return None


def resume_files(run: Path) -> list[Path]:
    """The resume files of a run, the newest first."""
    return [path for path in (run / LAST, run / PREVIOUS) if path.exists()]
