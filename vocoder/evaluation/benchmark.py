"""The speed benchmark: every system timed in one process, in turns, on the machine at hand.

`run_benchmark` measures and returns plain JSON values. What is compared is in
`vocoder.evaluation.systems`, how it is shown in `.tables` and `.plots`.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import math
import multiprocessing
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import Timer
from torch.utils.benchmark.utils.timer import timer as synchronised_clock

from vocoder.devices import device_named

from .results import Progress, Result, machine_facts
from .systems import Job, System, standard_systems


@dataclass(frozen=True)
class Workload:
    """Audio to make at once: ``batch`` items of ``audio_seconds`` each."""

    batch: int
    audio_seconds: float


WORKLOADS = (Workload(1, 1), Workload(1, 5), Workload(1, 20), Workload(16, 1))


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: how often every system has its turn.
        seconds: about how long one run may take. A slower system makes less audio than the workload
            asks for, and its time is scaled.
        audio_seconds: the least audio, of all items together, that a system makes if it makes
            samples in parallel: on a few frames it would look slower than it is.
        memory: whether to measure memory on the CPU, a process of a few seconds for each cell.
    """

    rounds: int
    seconds: float
    audio_seconds: float
    memory: bool = False


FULL = Effort(9, seconds=3.5, audio_seconds=0.5, memory=True)
QUICK = Effort(3, seconds=0.25, audio_seconds=0.15)

_REPEATED_SECONDS = 0.1
"""Shorter runs are repeated for this long in each round."""


@contextlib.contextmanager
def _random_weights() -> Iterator[None]:
    """No warnings that samples are clamped: random weights are too loud by nature."""
    clamping = logging.getLogger("vocoder.audio.validation")
    level = clamping.level
    clamping.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Clamped", UserWarning)
            yield
    finally:
        clamping.setLevel(level)


@_random_weights()
def run_benchmark(
    systems: Sequence[System] | None = None,
    *,
    quick: bool = False,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    workloads: Sequence[Workload] = WORKLOADS,
    effort: Effort | None = None,
    clock: Callable[[], float] = synchronised_clock,
) -> Result:
    """Time every system on every workload.

    First each system is loaded, its multiply-accumulates are counted, and each of its cells (a
    system at a workload) is warmed up. Then every cell is timed by `torch.utils.benchmark.Timer`,
    once a round for ``effort.rounds`` rounds, so that a machine that slows down does so for all
    systems. What is timed goes from a mel on the device to audio on the device, through the
    interface that users call.

    A system that is too slow for a workload makes less audio, and its times are scaled to the
    workload; ``measured_audio_seconds`` is how much it made. If it makes samples one by one, such a
    measurement stands for longer workloads of the same batch, too. A system that cannot run here is
    left out, with the reason under ``machine.left_out``.

    The machine should have nothing else to do: a second thread that has to wait for its core can
    slow a system down tenfold. ``machine.load_before`` is the load average of the minute before (0:
    idle); null where there is none.

    Args:
        systems: None for `standard_systems`, all with random weights.
        quick: less audio, fewer rounds, no memory: below two minutes on two CPU cores.
        device: "auto" (a CUDA device if there is one), "cpu" or "cuda". Systems that only run on
            the CPU do so in any case, and their rows say it.
        threads: CPU threads of PyTorch; None leaves them.
        progress: called with (steps done, steps in all, what is next) before every step and once
            at the end.
        workloads, effort, clock: what to measure, how long (overrides ``quick``) and by which clock
            (seconds; by default one that waits for the GPU).

    Returns:
        ``{"machine": {...}, "rows": [...]}`` of JSON values, a row for each cell:

        - name, family, engine, device, threads, dtype, weights: what ran;
        - batch, audio_seconds: the workload;
        - seconds_median, seconds_spread: median and interquartile range of the rounds;
        - samples_per_second: of the whole batch, by the median;
        - times_real_time: seconds of audio, of the whole batch, per second;
        - first_audio_seconds: median time until `Vocoder.stream` gives its first chunk, once the
          mel it needs is there; for a batch, and for a system that cannot stream, the whole pass;
        - measured_audio_seconds: audio of all items together that was made; less than batch *
          audio_seconds for a system that is too slow;
        - parameters: their number;
        - gmac_per_audio_second: 1e9 multiply-accumulates per second of audio, see `count_macs`;
        - gmac_per_second: those achieved, per second of computing;
        - roofline: the same over what a plain matrix product achieves in the same process, turn by
          turn with the systems, on the same device and in the same type
          (``machine.matmul_gmac_per_second``, by device and type); 1 would be as fast;
        - peak_memory_bytes: on a GPU, parameters, buffers and what the run adds at its peak; on the
          CPU, by how much loading the system and one run raise the peak memory of a fresh process,
          libraries included (null without ``effort.memory``, and on Windows). For the audio that
          was made.

    Raises:
        ValueError: an unknown device, or CUDA is asked for and not there.
    """
    target = device_named(device)
    chosen = list(standard_systems(quick=quick) if systems is None else systems)
    effort = effort or (QUICK if quick else FULL)
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    threads_before = torch.get_num_threads()
    total, done = len(chosen) * (1 + effort.rounds), 0
    left_out: dict[str, str] = {}
    entries: list[_Entry] = []

    def step(label: str) -> None:
        nonlocal done
        if progress is not None:
            progress(done, total, label)
        done += 1

    try:
        torch.set_num_threads(threads or threads_before)
        for system in chosen:
            step(f"{system.name}: load and warm up")
            try:
                entries.append(_Entry(system, target, workloads, effort, clock))
            except Exception as error:  # one that cannot run here does not stop the others
                left_out[system.name] = str(error).split("\n")[0] or type(error).__name__
                total -= effort.rounds
        products = {kind: _matrix_product(*kind, clock) for kind in {e.kind for e in entries}}
        for turn in range(effort.rounds):
            for product in products.values():
                product.measure()
            for entry in entries:
                step(f"{entry.system.name}, round {turn + 1} of {effort.rounds}")
                entry.measure()
        achieved: dict[str, dict[str, float]] = {}
        for (device_type, dtype), product in products.items():
            gmac = _product_size(device_type) ** 3 / 1e9
            achieved.setdefault(device_type, {})[dtype] = gmac / product.median
        rows = [row for entry in entries for row in entry.rows(achieved)]
    finally:
        torch.set_num_threads(threads_before)
    if progress is not None:
        progress(total, total, "done")
    machine = machine_facts(target) | {
        "load_before": load_before,
        "rounds": effort.rounds,
        "left_out": left_out,
        "matmul_gmac_per_second": achieved,
    }
    return {"machine": machine, "rows": rows}


class _Stopwatch:
    """A call, timed in several rounds."""

    def __init__(self, run: Callable[[], object], clock: Callable[[], float]) -> None:
        names = {"run": run}
        threads = torch.get_num_threads()
        self._timer = Timer("run()", globals=names, timer=clock, num_threads=threads)
        self._rounds: list[float] = []

    def measure(self, longest: float = math.inf) -> None:
        """One round; only the first for a call that takes more than ``longest`` seconds."""
        if not self._rounds or self._rounds[0] <= longest:
            timings = self._timer.blocked_autorange(min_run_time=_REPEATED_SECONDS)
            self._rounds.append(timings.median)

    @property
    def median(self) -> float:
        """Of the rounds, in seconds."""
        return statistics.median(self._rounds)

    @property
    def spread(self) -> float:
        """Interquartile range of the rounds, in seconds."""
        lower, upper = np.percentile(self._rounds, [25, 75])
        return float(upper - lower)


def _product_size(device_type: str) -> int:
    # Large enough to keep the device busy, small enough for its caches.
    return 1024 if device_type == "cpu" else 8192


def _matrix_product(device_type: str, dtype: str, clock: Callable[[], float]) -> _Stopwatch:
    """A plain product of two square matrices: what the arithmetic of a device can do."""
    size = _product_size(device_type)
    values = torch.rand(size, size, device=device_type).to(getattr(torch, dtype))
    result = torch.empty_like(values)
    return _Stopwatch(lambda: torch.mm(values, values, out=result), clock)


@dataclass
class _Cell:
    """A system at a workload."""

    job: Job
    whole: bool  # all audio of the workload
    stopwatch: _Stopwatch
    peak_memory: int | None


class _Entry:
    """A system on its device, with what is measured of it."""

    def __init__(
        self,
        system: System,
        target: torch.device,
        workloads: Sequence[Workload],
        effort: Effort,
        clock: Callable[[], float],
    ) -> None:
        blank = copy.copy(system)  # a loaded one may not pickle
        system.load(torch.device("cpu"))
        system.job(1, 1).run()  # compiles, where there is something to compile
        self.macs = system.multiply_accumulates()  # on the CPU, where no fused kernel hides any
        self.system = system
        self.effort = effort
        self.device = target if target.type in system.devices else torch.device("cpu")
        if self.device.type != "cpu":
            system.load(self.device)
        self.cells: dict[Workload, _Cell] = {}
        for workload in workloads:
            known = [c for w, c in self.cells.items() if w.batch == workload.batch]
            if system.sequential and known and not known[-1].whole:
                # The same samples again, at the same cost each.
                self.cells[workload] = known[-1]
                continue
            job = self._fitted(workload, known[-1].job.samples if known else 1, effort, clock)
            whole = job.samples >= workload.audio_seconds * system.mel_spec.sample_rate
            peak = self._peak_memory(job, blank if effort.memory else None)
            self.cells[workload] = _Cell(job, whole, _Stopwatch(job.run, clock), peak)
        first = system.first_audio()
        self.first = None if first is None else _Stopwatch(first, clock)

    @property
    def kind(self) -> tuple[str, str]:
        return self.device.type, self.system.dtype

    def _fitted(
        self, workload: Workload, start: int, effort: Effort, clock: Callable[[], float]
    ) -> Job:
        """The workload, or as much of it as takes about ``effort.seconds``; warm."""
        system, rate = self.system, self.system.mel_spec.sample_rate
        wanted = round(workload.audio_seconds * rate)
        if not system.sequential:
            start = max(start, round(effort.audio_seconds * rate / workload.batch))
        samples = min(start, wanted)
        while True:
            job = system.job(workload.batch, samples)
            job.run()
            began = clock()
            job.run()
            growth = min(effort.seconds / max(clock() - began, 1e-9), 8.0)
            if job.samples >= wanted or growth < 2:
                return job
            samples = min(wanted, int(job.samples * growth))

    def _peak_memory(self, job: Job, blank: System | None) -> int | None:
        if self.device.type == "cuda":
            module = self.system.module
            held = [*module.parameters(), *module.buffers()]
            gc.collect()
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            job.run()
            torch.cuda.synchronize(self.device)
            added = torch.cuda.max_memory_allocated(self.device) - before
            return added + sum(tensor.numel() * tensor.element_size() for tensor in held)
        if blank is None or sys.platform == "win32":
            return None
        # The peak of a process cannot be set back: each measurement takes a new one.
        spawn = multiprocessing.get_context("spawn")
        with contextlib.suppress(Exception), ProcessPoolExecutor(1, mp_context=spawn) as pool:
            return pool.submit(_added_memory, blank, job.items, job.samples).result()
        return None

    def measure(self) -> None:
        """One round."""
        for cell in {id(cell): cell for cell in self.cells.values()}.values():  # some are shared
            cell.stopwatch.measure()
        if self.first is not None:
            self.first.measure(self.effort.seconds)

    def rows(self, products: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
        return [self._row(workload, cell, products) for workload, cell in self.cells.items()]

    def _row(
        self, workload: Workload, cell: _Cell, products: dict[str, dict[str, float]]
    ) -> dict[str, Any]:
        system, job, stopwatch = self.system, cell.job, cell.stopwatch
        rate = system.mel_spec.sample_rate
        audio = workload.batch * workload.audio_seconds
        measured = job.items * job.samples / rate
        seconds = audio / measured * stopwatch.median
        first = self.first if workload.batch == 1 else None
        achieved = self.macs / 1e9 * audio / seconds
        return {
            "name": system.name,
            "family": system.family,
            "engine": system.engine,
            "device": self.device.type,
            "threads": system.threads,
            "dtype": system.dtype,
            "batch": workload.batch,
            "audio_seconds": workload.audio_seconds,
            "seconds_median": seconds,
            "seconds_spread": audio / measured * stopwatch.spread,
            "samples_per_second": audio * rate / seconds,
            "times_real_time": audio / seconds,
            "first_audio_seconds": seconds if first is None else first.median,
            "measured_audio_seconds": measured,
            "parameters": system.parameters,
            "gmac_per_audio_second": self.macs / 1e9,
            "gmac_per_second": achieved,
            "roofline": achieved / products[self.device.type][system.dtype],
            "peak_memory_bytes": cell.peak_memory,
            "weights": system.weights,
        }


@_random_weights()
def _added_memory(system: System, batch: int, samples: int) -> int:
    """By how much loading a system and one run raise this process's peak memory, in bytes."""
    before = _peak_of_process()
    system.load(torch.device("cpu"))
    system.job(batch, samples).run()
    return _peak_of_process() - before


def _peak_of_process() -> int:
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # in KiB elsewhere
