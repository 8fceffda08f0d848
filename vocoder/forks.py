"""Processes that are forked after a model has run: servers that load once, then fork workers."""

from __future__ import annotations

import functools
import os


@functools.cache
def survive_forks() -> None:
    """From now on, forked children run PyTorch on a single thread.

    A fork copies the memory of PyTorch's thread pool but not its threads. A child whose parent had
    computed on several threads would wait for them for ever; on a single thread it needs no pool.
    Servers with a worker for each core lose nothing.
    """
    if hasattr(os, "register_at_fork"):  # Windows does not fork
        os.register_at_fork(after_in_child=_run_on_one_thread)


def _run_on_one_thread() -> None:
    import torch

    torch.set_num_threads(1)
