"""Compilation of loops to machine code by numba: float32, one core, cached on disk."""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.misc.appdirs import AppDirs


def jit(fastmath: set[str], inner: bool = False) -> Callable[[Any], Any]:
    """A decorator that compiles a function on its first call.

    The result is kept in numba's cache: next to the function's file, else in the user's cache
    folder. Where neither can be written, every process compiles again. Numba only notices changes
    in the function's own file: after editing a function in another file that it calls, touch both.

    Args:
        fastmath: LLVM's flags for floating-point arithmetic that is allowed to deviate.
        inner: whether the function is only called by compiled ones; Python crashes if it calls
            one. It compiles faster, and is cached as part of its callers.
    """
    options: dict[str, Any] = {"fastmath": fastmath, "error_model": "numpy", "nogil": True}
    options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": inner}

    def compiled(function: Any) -> Any:
        try:
            return numba.njit(cache=not inner, **options)(function)
        except RuntimeError:  # no folder for the cache can be written
            return numba.njit(**options)(function)

    return compiled


def give_cache_to(package: str) -> None:
    """Before the import of a package that caches what numba compiles, see that numba can cache.

    numba refuses to compile where it can write neither next to the package's files nor in the
    user's cache folder, as in a read-only installation without a home. It then gets a temporary
    folder, which goes with the process.
    """
    config: Any = numba.config
    found = importlib.util.find_spec(package)
    own = Path(found.origin).parent if found and found.origin else None
    if config.CACHE_DIR or (own and _can_write(own)):
        return
    if not _can_write(Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)):
        config.CACHE_DIR = tempfile.mkdtemp(prefix="numba-")
        atexit.register(shutil.rmtree, config.CACHE_DIR, ignore_errors=True)


def _can_write(folder: Path) -> bool:
    """Whether files can be created in a folder, which is created if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
