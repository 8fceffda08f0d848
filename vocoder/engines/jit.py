"""Compilation of loops to machine code by numba: float32, one core, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(fastmath: set[str], inner: bool = False) -> Callable[[Any], Any]:
    """A decorator that compiles a function on its first call.

    The result is kept in numba's cache: next to the function's file, else in the user's cache
    folder. Where neither can be written, every process compiles again. Numba only notices changes
    of the function's own file: touch it after changing functions in other files that it calls.

    Args:
        fastmath: LLVM's flags for floating-point arithmetic that is allowed to deviate.
        inner: whether only compiled functions call this one. Such functions compile faster, and
            are kept as parts of their callers.
    """
    options: dict[str, Any] = {"fastmath": fastmath, "error_model": "numpy", "nogil": True}
    if inner:
        options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

    def compiled(function: Any) -> Any:
        try:
            return numba.njit(cache=not inner, **options)(function)
        except RuntimeError:  # no folder for the cache can be written
            return numba.njit(**options)(function)

    return compiled
