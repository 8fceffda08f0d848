"""Which errors a user can mend, and the sentence for each; all others are faults of the program."""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from vocoder.checkpoints import CheckpointError
from vocoder.corpus import CorpusError
from vocoder.training.module import TrainingError

_WORKER = re.compile(r"DataLoader worker \(pid.*?\) (is killed by signal: [\w ]+|exited)")
_TOO_LARGE = re.compile("can't allocate memory|out of memory|not enough memory", re.IGNORECASE)


def sentence(error: BaseException) -> str | None:
    """What went wrong and what to do, in one line; None if that is not for the user to mend."""
    words = _sentence(error)
    return None if words is None else " ".join(words.split())


def _sentence(error: BaseException) -> str | None:
    if isinstance(error, TrainingError | CorpusError | CheckpointError | MisconfigurationException):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _TOO_LARGE.search(str(error))
    ):
        return (
            "there is not enough memory: lower --speech.batch_size, or --speech.crop_frames if the "
            f"recipe has it ({str(error).split('. ')[0] or 'no details'})"
        )
    if died := worker_died(error):
        return died
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, yaml.YAMLError):
        return f"a file is not valid YAML: {error}"
    return None


def worker_died(error: BaseException) -> str | None:
    """The sentence for an error that says that a process which loads crops has died."""
    found = _WORKER.search(str(error)) if isinstance(error, RuntimeError) else None
    # Or its last batch could not be fetched from it any more.
    cut_off = isinstance(error, ConnectionError | EOFError | FileNotFoundError) and (
        _passed(error, "/torch/utils/data/dataloader.py") and _passed(error, "/multiprocessing/")
    )
    if not found and not cut_off:
        return None
    return (
        f"a process that loads crops {found[1] if found else 'exited'}; often the memory is not "
        "enough for all of them: run the same command again to resume, with fewer "
        "--speech.workers (0 loads in the training process)"
    )


def _passed(error: BaseException, file: str) -> bool:
    """Whether the error came through a file."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(file in frame.filename.replace("\\", "/") for frame in frames)


def _of_the_system(error: OSError) -> str:
    where = str(error.filename) if error.filename is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        at = f"{where} could not be written" if where else "a file could not be written"
        return (
            f"{at}: {error.strerror}; what was saved before is kept, so make room and run the same "
            "command again to resume"
        )
    if error.errno is None:
        return str(error)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{where or 'a file'}: {error.strerror}; give a folder that you can write with --run, "
            "or --cache for decoded corpora"
        )
    return f"{where}: {error.strerror}" if where else str(error)


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn constructors' errors about their arguments into a message without a traceback."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        hint = ""
        if "SLURM_NTASKS" in os.environ and "SLURM" in f"{error}{error!r}".upper():
            hint = (
                "; SLURM's variables say that this is a task of a job: start it with srun and "
                "--ntasks-per-node, or, to train in this shell alone, first "
                "`export SLURM_JOB_NAME=interactive`"
            )
        elif not isinstance(error, TypeError | ValueError):
            raise
        words = str(error).rstrip(".") if hint else error
        raise TrainingError(f"{what}: {words}{hint}") from error
