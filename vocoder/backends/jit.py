"""Compilation of loops to machine code by numba: float32, one core, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(fastmath: set[str], inner: bool = False) -> Callable[[Any], Any]:
    """A decorator that compiles a function on its first call.

    The result is kept in numba's cache if that can be written. Numba only notices changes in the
    function's own file: touch the files of those that call it. ``fastmath`` are LLVM's flags for
    arithmetic that may deviate. An ``inner`` function is called by compiled ones only; Python
    crashes if it calls one.
    """
    options: dict[str, Any] = {"fastmath": fastmath, "error_model": "numpy", "nogil": True}
    options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": inner}

    def compiled(function: Any) -> Any:
        try:
            return numba.njit(cache=not inner, **options)(function)
        except RuntimeError:  # no folder for the cache can be written
            return numba.njit(**options)(function)

    return compiled
