"""Faster implementations for a CPU, compiled by numba: refinement, and WaveNet's loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(fastmath: set[str], inner: bool = False) -> Callable[[Any], Any]:
    """A decorator that compiles a function on its first call, with LLVM's flags ``fastmath``.

    The result is cached if that can be written; numba only notices changes in the function's own
    file: touch those of its callers. Only compiled functions may call an ``inner`` one.
    """
    options: dict[str, Any] = {"fastmath": fastmath, "error_model": "numpy", "nogil": True}
    options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": inner}

    def compiled(function: Any) -> Any:
        try:
            return numba.njit(cache=not inner, **options)(function)
        except RuntimeError:  # no folder for the cache can be written
            return numba.njit(**options)(function)

    return compiled
