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
    items: list[Item],
    settings: Settings,
    output: Path,
    model_hash: str,
    workers: int,
    address: str | None = None,
) -> Iterator[Outcome]:
    """Render items by workers, each a process with one thread and, on CUDA, one GPU.

    A worker that dies is replaced, and its item is done again. ``output``, the sources and the
    checkpoint must have the same paths on all machines.

    Args:
        items: the longest first; outcomes come in any order.
        settings, output, model_hash: as in `Renderer`.
        workers: how many.
        address: of a running Ray cluster ("auto" for the one this machine is part of); None starts
            one on this machine and stops it at the end.

    Raises:
        MissingExtraError: Ray is not installed.
        ValueError: the cluster has too few processors or GPUs for the workers.
        OSError: the cluster cannot be reached, or its workers cannot start.
    """
    if not items:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it prints what concerns its authors
    ray = require("ray", "synthesis by several workers", "ray")
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
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
        actor = remote(_Worker)
        actors = [actor.remote(settings, output, model_hash) for _ in items[:workers]]
        pool = ray.util.ActorPool(actors)
        yield from pool.map_unordered(lambda worker, item: worker.render.remote(item), items)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise OSError(f"Ray, or its cluster {address or 'here'}, fails: {error}") from error
    finally:
        ray.shutdown()


class _Worker:
    """A process of the cluster that holds the model."""

    def __init__(self, settings: Settings, output: Path, model_hash: str) -> None:
        torch.set_num_threads(1)
        self.renderer = Renderer(settings, output, model_hash)

    def render(self, item: Item) -> Outcome:
        return self.renderer(item)
