"""Writing files whole or not at all, so that an interrupted write leaves the previous file; names
for them; and signals that end a process, turned into an exception so that it cleans up.
"""

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
    """A temporary path to write to, renamed to `path` when the block ends without an exception.

    It is hidden and in the same folder, because renaming is atomic only within a file system. If
    the block raises, the temporary file is deleted and `path` is untouched.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None  # the name that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes | memoryview) -> Path:
    """Write a file through `atomic_path` and return its path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def file_name(text: str, longest: int = 150) -> str:
    """A file name of at most `longest` bytes that stands for `text`, such as an utterance's id.

    Slashes become underscores; of a text that is too long, the start and a hash are left.
    """
    name = text.replace("/", "_").replace("\\", "_")
    if len(os.fsencode(name)) <= longest:
        return name
    digest = hashlib.sha256(os.fsencode(text)).hexdigest()[:12]
    start = os.fsencode(name)[: longest - len(digest) - 1].decode("utf-8", errors="ignore")
    return f"{start}~{digest}"


@contextmanager
def exit_on_termination(status: int | None = None) -> Iterator[None]:
    """Within the block, SIGTERM and SIGHUP (a closed terminal) raise `SystemExit`.

    So ``finally`` clauses run, and half-written and temporary files are deleted. A signal that is
    ignored, as under nohup, stays ignored, as do all outside of the main thread.

    Args:
        status: exit status; None for 128 + the number of the signal, as in shells.
    """

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number if status is None else status)

    main = threading.current_thread() is threading.main_thread()
    previous = {
        number: signal.signal(number, leave)
        for name in ("SIGTERM", "SIGHUP")
        if main
        and (number := getattr(signal, name, None))  # Windows has one
        and signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
