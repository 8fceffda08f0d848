"""Writing files whole or not at all: an interrupted write leaves the previous file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to, renamed to `path` when the block ends without an exception.

    It is in the same folder, because renaming is atomic only within a file system. If the block
    raises, the temporary file is deleted and `path` is untouched.

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


def write_atomic(path: Path, content: bytes) -> Path:
    """Write a file through `atomic_path` and return its path.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path
