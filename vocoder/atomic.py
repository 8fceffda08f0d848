"""Files written whole or not at all, names for them, and an end by a signal that cleans up."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A hidden path in the same folder to write to, renamed to `path` when the block ends.

    If the block raises, the hidden file is deleted and `path` is untouched.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)  # the name that the user knows
            del error.filename2
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | memoryview) -> Path:
    """Write a file through `atomic_path` and return its path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def file_name(text: str, longest: int = 150) -> str:
    """A file name for a text such as an id: without slashes, the start and a hash if too long."""
    name = text.replace("/", "_").replace("\\", "_")
    if len(os.fsencode(name)) <= longest:
        return name
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()[:12]
    start = os.fsencode(name)[: longest - len(digest) - 1].decode("utf-8", errors="ignore")
    return f"{start}~{digest}"


@contextmanager
def exit_on_termination(status: int | None = None) -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP (a closed terminal) raise `SystemExit`, so that
    half-written files are deleted; None is the status of shells, 128 + the signal's number.

    A signal that is ignored, as under nohup, stays ignored, as do all outside of the main thread.
    """

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number if status is None else status)

    main = threading.current_thread() is threading.main_thread()
    signals = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)} if main else set()
    heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, leave) for number in heard}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
