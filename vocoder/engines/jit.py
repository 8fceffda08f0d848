"""Compilation of loops to machine code by numba: float32, one core, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(fastmath: set[str]) -> Callable[[Any], Any]:
    """A decorator that compiles a function on its first call.

    The result is kept in numba's cache: next to the function's file, else in the user's cache
    folder. Where neither can be written, every process compiles again.

    Args:
        fastmath: LLVM's flags for floating-point arithmetic that is allowed to deviate.
    """
    options: dict[str, Any] = {"fastmath": fastmath, "error_model": "numpy", "nogil": True}

    def compiled(function: Any) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder for the cache can be written
            return numba.njit(**options)(function)

    return compiled
