"""The folder of a run: its lock, what made it, and the files that it resumes from after any stop,
kill -9 included, which are written whole, two of them kept, and read without running code.
"""

from __future__ import annotations

import io
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from jsonargparse import Namespace
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

import vocoder
from vocoder.atomic import atomic_path
from vocoder.checkpoints import CheckpointError, checkpoint_hash
from vocoder.training.module import TrainingError

log = logging.getLogger("vocoder.training")

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
RECORD = "run.json"

_FREE = {
    # Where things are, what is recorded by its content instead, and the budget.
    "config", "data", "start_from", "run", "cache", "max_steps", "max_time",
    "save_every", "patience", "speech.workers", "training.max_skipped",
    # Recorded as items per step, on all devices together.
    "speech.batch_size", "trainer.accumulate_grad_batches",
}  # fmt: skip
"""Options that may change when a run is resumed."""

_TRAINER = {"precision", "limit_train_batches", "limit_val_batches"}
"""Options of the trainer that may not; the others say where and how it runs."""

Record = dict[str, Any]


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Create the folder of a run, and keep other processes from training in it within the block.
    The system releases the lock of a process that is killed."""
    run.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(run / ".lock", blocking=False))
        except Timeout:
            raise TrainingError(
                f"another process is training in {run}: wait until it ends, or choose another "
                "folder with --run"
            ) from None
        yield


def describe(run: Path, program: str, config: Namespace, corpus: Record, items: int) -> Record:
    """What makes a run: recipe, options, corpus, and items per step on all devices together;
    TrainingError if the run in the folder was made by other values."""
    new, start = not resume_files(run), None
    if config.start_from:  # of which a resumed run needs no more, and it may be gone
        digest = checkpoint_hash(config.start_from) if new else None
        start = {"path": config.start_from, "sha256": digest}
    record = {
        "flow_vocoder": vocoder.__version__,
        "program": program,
        "seed": config.seed,
        "start_from": start,
        # As JSON values, and with its nulls, which a dump may leave out.
        "options": json.loads(json.dumps(config.as_dict(), default=str)),
        "corpus": corpus,
        "items_per_step": items,
    }
    if not new:
        _refuse_another(run, record)
    return record


def _refuse_another(run: Path, record: Record) -> None:
    try:
        before, now = _facts(read_record(run)), _facts(record)
    except (OSError, ValueError, LookupError) as error:
        raise TrainingError(
            f"{run / RECORD} is missing or damaged, so what made the run in {run} is not known: "
            "choose another folder with --run, or remove that one"
        ) from error
    different = [name for name in before if name in now and before[name] != now[name]]
    differences = [f"{n} was {_shown(before[n])}, is now {_shown(now[n])}" for n in different]
    if differences:
        raise TrainingError(
            f"{run} holds another run (different: {'; '.join(differences)}): give the values it "
            "was made with to resume it, choose another folder with --run, or remove that one"
        )


def read_record(run: Path) -> Record:
    """The record in a run's folder."""
    record: Record = json.loads((run / RECORD).read_text(encoding="utf-8"))
    return record


def _facts(record: Record) -> dict[str, Any]:
    """What makes a run what it is, by the name of the option that sets it."""
    facts = {
        "the version of flow-vocoder": record["flow_vocoder"],
        "the recipe": record["program"],
        "start_from": record["start_from"] and record["start_from"]["path"],
        "data": f"hash {record['corpus']['sha256']}",
        "items per step (speech.batch_size on all devices)": record["items_per_step"],
    }
    for name, value in _leaves(record["options"], ""):
        part, _, option = name.partition(".")
        if name not in _FREE and (part != "trainer" or option in _TRAINER):
            facts[name] = value
    return facts


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The options by dotted name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _shown(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


class ResumeFiles(TorchCheckpointIO):
    """Reads and writes resume files for a trainer. The file before a new one becomes `PREVIOUS`
    once that is complete on the disk; if it does not fit there, the two before it stay."""

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
    """The content of a resume file, tensors on the CPU; PyTorch's weights-only unpickler builds
    tensors and plain values, and runs no code."""
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
    """The newest resume file of a run that is whole, or None if there is none at all."""
    problems = []
    for path in resume_files(run):
        try:
            read_resume_file(path)
            return path
        except CheckpointError as error:
            log.warning("%s", error)
            problems.append(str(error))
    if problems:
        raise CheckpointError(
            f"{'; '.join(problems)}: there is nothing else to resume from, so remove {run} to "
            "start again, or choose another folder with --run"
        )
    return None


def resume_files(run: Path) -> list[Path]:
    """The resume files of a run, the newest first."""
    return [path for path in (run / LAST, run / PREVIOUS) if path.exists()]
