"""Compilation of loops to machine code by numba: float32, one core, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(fastmath: set[str], inner: bool = False) -> Callable[[Any], Any]:
    """A decorator that compiles a function on its first call.

    The result is kept in numba's cache; where that cannot be written, every process compiles again.
    Numba only notices changes in the function's own file: touch the files of those that call it.

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
