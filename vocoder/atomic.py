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
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to `path` when the block ends without an exception.

    It is in the same folder, because renaming is atomic only within a file system. If the block
    raises, the temporary file is deleted and `path` is untouched. What a killed process leaves is
    overwritten by the next write to `path`.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")
    with partial_file(path) as temporary:
        try:
            yield temporary
            os.replace(temporary, path)
        except OSError as error:
            if error.filename == str(temporary):
                error.filename, error.filename2 = str(path), None  # the name that the user knows
            raise


def write_atomic(path: Path, content: bytes | memoryview) -> Path:
    """Write a file through `atomic_path` and return its path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """A hidden file next to `path`, for the block to write and rename; deleted if still there.

    Its name depends on `path` alone, so that the next writer finds what a killed one left. It is
    locked while it is written: a second writer of the same `path` at the same time gets a name of
    its own. Where files cannot be locked, all do.
    """
    # The name of `path` may be as long as names can be: this one has a fixed length.
    key = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    temporary = path.with_name(f".{key}.part")
    lock = _lock(temporary)
    if lock is None:
        temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield temporary
    finally:
        # Once renamed, its name may already belong to the next writer.
        if lock is None or _is_at(lock, temporary):
            temporary.unlink(missing_ok=True)
        if lock is not None:
            os.close(lock)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock of an empty file at `path`; None if that cannot be had."""
    if fcntl is None:
        return None
    with suppress(OSError):  # another user's, say; or no folder to write in, as the caller will see
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Neither renamed by another writer between the two calls, nor a hard link to a file.
            if _is_at(descriptor, path) and os.fstat(descriptor).st_nlink == 1:
                os.ftruncate(descriptor, 0)
                return descriptor
        os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    return False


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
    ignored, as under nohup, stays ignored. Only the main thread can handle signals: in any other
    the block changes nothing.

    Args:
        status: exit status; None for 128 + the number of the signal, as in shells.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number if status is None else status)

    previous = {
        number: signal.signal(number, leave)
        for name in ("SIGTERM", "SIGHUP")
        if (number := getattr(signal, name, None))  # Windows has one
        and signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
