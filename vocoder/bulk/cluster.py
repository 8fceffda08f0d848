"""Items rendered by workers on a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from vocoder.bulk.items import Item, Outcome
from vocoder.bulk.rendering import Renderer, Settings
from vocoder.extras import require


def render_on_ray(
    items: list[Item], renderer: tuple[Settings, Path, str], workers: int, address: str | None
) -> Iterator[Outcome]:
    """Render items, the longest first, by workers with one thread and, on CUDA, one GPU each.

    A worker that dies is replaced, and its item is done again. ``renderer`` are the arguments of
    `Renderer`; paths must be the same on all machines. ``address`` is that of a running cluster
    ("auto" for the one this machine is part of); None starts one here, and stops it at the end.

    Raises:
        MissingExtraError: Ray is not installed.
        ValueError, OSError: the cluster has too few processors or GPUs, or cannot be reached.
    """
    if not items:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it prints what concerns its authors
    ray = require("ray", "synthesis by several workers", "ray")
    device = renderer[0].device
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}},
            **({} if address else {"num_cpus": workers, "include_dashboard": False}),
        )
        have = ray.cluster_resources()
        for kind, needed in (("CPU", workers), ("GPU", workers * cuda)):
            if have.get(kind, 0) < needed:
                raise ValueError(
                    f"the cluster has {have.get(kind, 0):g} {kind}s, too few for {workers} "
                    "workers: give fewer workers, or add machines"
                )
        remote = ray.remote(num_cpus=1, num_gpus=int(cuda), max_restarts=-1, max_task_retries=-1)
        pool = ray.util.ActorPool([remote(Renderer).remote(*renderer) for _ in items[:workers]])
        yield from pool.map_unordered(lambda worker, item: worker.render.remote(item), items)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise OSError(f"Ray, or its cluster {address or 'here'}, fails: {error}") from error
    finally:
        ray.shutdown()
