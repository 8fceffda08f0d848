"""What a run folder knows of its run: a record of all that made it, and who is writing to it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

import vocoder
from vocoder.atomic import write_atomic
from vocoder.checkpoints import checkpoint_hash
from vocoder.training.module import TrainingError
from vocoder.training.resume import resume_files

log = logging.getLogger("vocoder.training")

RECORD = "run.json"
CONFIG = "config.yaml"
LOCK = ".lock"

_FREE = {
    # Where things are, what is recorded by its content instead, and the budget.
    "config", "data", "start_from", "run", "cache", "max_steps", "max_time",
    # What is kept on the way, and by how many processes it is loaded.
    "save_every", "snapshot_minutes", "patience", "speech.workers", "training.max_skipped",
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

    The system releases the lock of a process that is killed. A new folder in which the block leaves
    nothing is removed.

    Raises:
        TrainingError: the path is a file, or another process trains in the folder.
    """
    for path in (run, *run.parents):
        if path.exists() and not path.is_dir():
            raise TrainingError(
                f"{path} is a file: --run names the folder of a run; choose another, or remove it"
            )
    new = [path for path in (run, *run.parents) if not path.exists()]
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / LOCK)
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
        if new:
            # Whatever is not empty stays.
            with suppress(OSError):
                if {path.name for path in run.iterdir()} <= {LOCK}:
                    (run / LOCK).unlink(missing_ok=True)
                for path in new:
                    path.rmdir()


def describe(program: str, config: Mapping[str, Any]) -> Record:
    """What is known of a run before its data is read.

    Args:
        program: name of the recipe.
        config: all options, also those that are null, as plain values.
    """
    start = config.get("start_from")
    return {
        "flow_vocoder": vocoder.__version__,
        "program": program,
        "seed": config["seed"],
        "start_from": parent(Path(start)) if start else None,
        "options": config,
    }


def parent(checkpoint: Path) -> Record:
    """A checkpoint to start from: its path, its hash (None if it is gone), and its own run."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    found: Record = {"path": str(checkpoint), "sha256": None}
    try:
        found["sha256"] = checkpoint_hash(checkpoint)
        of = read_record(folder.parent)
        of.pop("options", None)
    except (OSError, ValueError, AttributeError):
        return found
    return {**found, "run": {"folder": str(folder.parent), **of}}


def refuse_another(run: Path, record: Record) -> None:
    """Refuse to resume a run that was made by other values.

    Args:
        run: folder of the run.
        record: of the run that is to be resumed; what it lacks is not compared.

    Raises:
        TrainingError: something differs, or the folder does not say what made its run.
    """
    if not resume_files(run):
        return
    try:
        name = RECORD
        found = read_record(run)
        before = _facts(found)
        settings = _settings(found["options"])
        name = CONFIG
        yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise TrainingError(
            f"{run / name} {reason}, so what made the run in {run} is not known: choose another "
            "folder with --run, or remove that one"
        ) from error
    now = _facts(record)
    started, start = before.get("start_from"), now.get("start_from")
    if start and started and not start.sha256 and start.name == started.name:
        del now["start_from"]  # the checkpoint is gone, and needed no longer
    differences = [
        *differing(before, now),
        *differing(settings, _settings(record["options"])),
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


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two mappings differ in, each as a phrase with both values.

    Keys that only one of them has are ignored, so that a run can be resumed even if a class has
    gained or lost an argument since.
    """
    return [
        f"{name} was {_shown(before[name])}, is now {_shown(now[name])}"
        for name in before
        if name in now and before[name] != now[name]
    ]


@dataclass(frozen=True)
class _Hashed:
    """Something known by its content; its name is only shown."""

    sha256: str
    name: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.name} (hash {self.sha256[:12]})"


def _shown(value: Any) -> str:
    if isinstance(value, _Hashed):
        return str(value)
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _facts(record: Record) -> dict[str, Any]:
    """What is compared of a record, by the name of the option that sets it."""
    facts: dict[str, Any] = {
        "the version of flow-vocoder": record.get("flow_vocoder"),
        "the recipe": record.get("program"),
    }
    if corpus := record.get("corpus"):
        facts["data"] = _Hashed(corpus["sha256"], corpus["name"])
    if "start_from" in record:
        start = record["start_from"]
        facts["start_from"] = start and _Hashed(start["sha256"] or "", start["path"])
    if "items_per_step" in record:
        facts["items per step (speech.batch_size on all devices)"] = record["items_per_step"]
    return facts


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make a run what it is, by dotted name."""
    kept = dict(_leaves(config, ""))
    return {
        name: value
        for name, value in kept.items()
        if name not in _FREE
        and (not name.startswith("trainer.") or name.removeprefix("trainer.") in _TRAINER)
    }


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif (
        isinstance(value, list)
        and value
        and all(isinstance(item, Mapping) and "class_path" in item for item in value)
    ):
        # Objects of different classes, such as the terms of a loss.
        classes = [str(item["class_path"]).rpartition(".")[2] for item in value]
        yield name, ", ".join(classes)
        for kind, item in zip(classes, value, strict=True):
            yield from _leaves(item, f"{name}[{kind}]")
    else:
        yield name, value
