"""Items rendered by workers on a Ray cluster: the glue between Ray Data and `rendering`."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vocoder.bulk.items import Item, Outcome
from vocoder.bulk.rendering import Renderer, Settings
from vocoder.extras import require

# A worker that dies takes its block of items along, which are done again.
_BLOCKS_PER_WORKER = 50


def render_on_ray(
    items: list[Item],
    settings: Settings,
    output: Path,
    model_hash: str | None,
    workers: int,
    address: str | None = None,
) -> Iterator[Outcome]:
    """Render items by workers, each a process with one thread and, on CUDA, one GPU.

    A worker that dies is replaced, and its items are done again. ``output``, the sources and the
    checkpoint must have the same paths on all machines.

    Args:
        items: the longest first.
        settings, output, model_hash: as in `Renderer`.
        workers: how many.
        address: of a running Ray cluster ("auto" for the one this machine is part of); None starts
            one on this machine and stops it at the end.

    Yields:
        The outcomes as they come, in any order.

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
    require("ray.data", "synthesis by several workers", "ray")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}},
            **({} if address else {"num_cpus": workers, "include_dashboard": False}),
        )
        cuda = settings.device == "cuda" or (
            settings.device == "auto" and torch.cuda.is_available()
        )
        have = ray.cluster_resources()
        for kind, needed in (("CPU", workers), ("GPU", workers * cuda)):
            if have.get(kind, 0) < needed:
                raise ValueError(
                    f"the cluster has {have.get(kind, 0):g} {kind}s, too few for {workers} "
                    "workers: give fewer workers, or add machines"
                )
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # JSON, as names of files need not be Unicode.
        rows = [{"item": json.dumps(asdict(item))} for item in items]
        blocks = min(len(rows), _BLOCKS_PER_WORKER * workers)
        done = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            _Worker,
            fn_constructor_args=(asdict(settings), str(output), model_hash),
            batch_size=1,
            num_cpus=1,
            num_gpus=1 if cuda else None,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
        )
        for row in done.iter_rows():
            yield Outcome(**json.loads(row["outcome"]))
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise OSError(f"Ray, or its cluster {address or 'here'}, fails: {reason[0]}") from error
    finally:
        ray.shutdown()


class _Worker:
    """A process of the cluster that holds the model."""

    def __init__(self, settings: dict[str, Any], output: str, model_hash: str | None) -> None:
        torch.set_num_threads(1)
        self.renderer = Renderer(Settings(**settings), Path(output), model_hash)

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        items = [Item(**json.loads(text)) for text in rows["item"]]
        return {"outcome": [json.dumps(asdict(self.renderer(item))) for item in items]}
