"""The files that a run resumes from: written whole, two of them kept, read without running code."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from vocoder.atomic import partial_file
from vocoder.checkpoints import CheckpointError

log = logging.getLogger("vocoder.training")

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"

_NEEDED = {"state_dict", "optimizer_states", "loops", "global_step", "vocoder_training"}


class ResumeFiles(TorchCheckpointIO):
    """Reads and writes resume files for a trainer.

    A file that is written replaces the one before it, which becomes `PREVIOUS` in the same folder,
    unless it is not known to be whole. The new file is complete on the disk before that. If it
    does not fit, what was written of it is removed and both others stay.
    """

    def __init__(self) -> None:
        self._whole: Path | None = None
        """The file that this process has written or read."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        path = Path(path)
        # In memory first, as Lightning does: torch.save hides the system's reason for a failure.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial_file(path) as partial:
                with partial.open("wb") as file:
                    file.write(content.getbuffer())
                    file.flush()
                    os.fsync(file.fileno())
                if self._whole == path and path.exists():
                    _keep(path, path.with_name(PREVIOUS))
                os.replace(partial, path)
        except OSError as error:
            error.filename, error.filename2 = str(path), None  # the name that the user knows
            raise
        self._whole = path

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        found = read_resume_file(Path(path))
        self._whole = Path(path)
        return found


def _keep(path: Path, name: Path) -> None:
    """Give a file a second name, so that it is there under the first at every moment.

    Where the file system has no second names, the first one is gone until the next file takes it.
    """
    with partial_file(name) as second:
        second.unlink(missing_ok=True)
        try:
            os.link(path, second)
        except OSError:
            os.replace(path, name)
        else:
            os.replace(second, name)


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
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever the unpickler makes of what it finds
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise CheckpointError(f"{path} is damaged ({reason})") from error
    if not isinstance(content, dict) or not content.keys() >= _NEEDED:
        raise CheckpointError(f"{path} is not what a training run writes to resume from")
    return content


def newest_resume_file(run: Path) -> Path | None:
    """The newest resume file of a run that is whole, or None if there is none at all.

    If that is the one before the last, a warning says so.

    Raises:
        CheckpointError: there are files, but none of them is whole.
    """
    problems = []
    for path in resume_files(run):
        try:
            step = read_resume_file(path)["global_step"]
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            log.warning("%s: resuming from the one before it, %s (step %s)", problem, path, step)
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
