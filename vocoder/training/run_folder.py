"""Run metadata and lock: what made the run in a folder, and who is writing to it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import vocoder
from vocoder.atomic import write_atomic
from vocoder.checkpoints import checkpoint_hash
from vocoder.training.module import TrainingError
from vocoder.training.resume import resume_files

log = logging.getLogger("vocoder.training")

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

    The system releases the lock of a process that is killed.

    Raises:
        TrainingError: the path is a file, or another process trains in the folder.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise TrainingError(f"{run} is a file, or in one: give --run a folder") from error
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise TrainingError(
            f"another process is training in {run}: wait until it ends, or choose another folder "
            "with --run"
        ) from None
    except NotImplementedError:
        log.warning("%s is on a file system without locks: train in it only once at a time", run)
    try:
        yield
    finally:
        lock.release()


def describe(program: str, config: Mapping[str, Any]) -> Record:
    """What is known of a run before its data is read.

    Args:
        program: name of the recipe.
        config: all options, also those that are null, as plain values.
    """
    start: Record | None = None
    if config["start_from"]:
        start = {"path": config["start_from"], "sha256": None}
        with suppress(OSError, ValueError):  # it may be gone, and is needed no longer
            start["sha256"] = checkpoint_hash(start["path"])
    return {
        "flow_vocoder": vocoder.__version__,
        "program": program,
        "seed": config["seed"],
        "start_from": start,
        "options": config,
    }


def refuse_another(run: Path, record: Record) -> None:
    """Refuse to resume a run that was made by other values.

    Args:
        run: folder of the run.
        record: of the run that is to be resumed; what either lacks is not compared.

    Raises:
        TrainingError: something differs, or the folder does not say what made its run.
    """
    if not resume_files(run):
        return
    try:
        before = _facts(read_record(run))
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise TrainingError(
            f"{run / RECORD} is missing or damaged, so what made the run in {run} is not known: "
            "choose another folder with --run, or remove that one"
        ) from error
    now = _facts(record)
    if record["start_from"] and not record["start_from"]["sha256"]:
        del now["start_from"]
    differences = [
        f"{name} was {_shown(before[name])}, is now {_shown(now[name])}"
        for name in before
        if name in now and before[name] != now[name]
    ]
    if differences:
        raise TrainingError(
            f"{run} holds another run (different: {'; '.join(differences)}): give the values it "
            "was made with to resume it, choose another folder with --run, or remove that one"
        )


def write_record(run: Path, record: Record) -> None:
    """Write the record of a new run."""
    text = json.dumps(record, indent=1, ensure_ascii=False)
    # File names that are not UTF-8 contain surrogates, which become JSON escapes.
    write_atomic(run / RECORD, (text + "\n").encode(errors="backslashreplace"))


def read_record(run: Path) -> Record:
    """The record in a run's folder."""
    record: Record = json.loads((run / RECORD).read_text(encoding="utf-8"))
    return record


def _facts(record: Record) -> dict[str, Any]:
    """What makes a run what it is, by the name of the option that sets it."""
    start, corpus = record["start_from"], record.get("corpus")
    facts = {
        "the version of flow-vocoder": record["flow_vocoder"],
        "the recipe": record["program"],
        "start_from": f"hash {start['sha256']}" if start else None,
    }
    if corpus:
        facts["data"] = f"hash {corpus['sha256']}"
        facts["items per step (speech.batch_size on all devices)"] = record["items_per_step"]
    for name, value in _leaves(record["options"], ""):
        part, _, option = name.partition(".")
        if name not in _FREE and (part != "trainer" or option in _TRAINER):
            facts[name] = value
    return facts


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The options by dotted name; a list of losses by the names of their classes."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        classes = [str(item["class_path"]).rpartition(".")[2] for item in value]
        yield name, ", ".join(classes)
        for kind, item in zip(classes, value, strict=True):
            yield from _leaves(item.get("init_args", {}), f"{name}[{kind}]")
    else:
        yield name, value


def _shown(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
