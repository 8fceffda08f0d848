"""Writing files whole or not at all: what is stopped in between leaves what was there before."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A new path beside `path` to write to, which takes its place when the block has ended well.

    It is in the same folder, since only within a file system is the exchange atomic. If the block
    raises, what was written is deleted and `path` is as before.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename, error.filename2 = str(path), None  # the name that the user gave
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> Path:
    """Write a file by `atomic_path`; returns its path.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path
