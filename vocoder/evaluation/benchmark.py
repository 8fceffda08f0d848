"""The speed benchmark: every system timed in one process, in turns, on the machine at hand.

`run_benchmark` measures and returns plain JSON values, which `.tables` shows. Speed does not depend
on the weights, so most systems have random ones.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.benchmark import Timer
from torch.utils.benchmark.utils.timer import timer as synchronised_clock
from torch.utils.flop_counter import FlopCounterMode

from vocoder.audio import Refine
from vocoder.devices import device_named
from vocoder.extras import require
from vocoder.models import ARCHITECTURES, Vocoder

from .baselines import GriffinLim, HifiGan, Vocos
from .results import Progress, Result, machine_facts

Synthesize = Callable[[Tensor], object]  # from (batch, n_mels, frames) to (batch, frames * hop)


class Workload(NamedTuple):
    """Audio to make at once: ``batch`` items of ``audio_seconds`` each."""

    batch: int
    audio_seconds: float


WORKLOADS = (Workload(1, 1), Workload(1, 5), Workload(1, 20), Workload(16, 1))


class Effort(NamedTuple):
    """How often every system has its turn, and how long one run may take: a slower system makes
    less audio, and its time is scaled."""

    rounds: int
    seconds: float


FULL, QUICK = Effort(9, 3.5), Effort(3, 0.25)


@dataclass
class System:
    """A vocoder: the unique name of its row, and how to build it. A flow may run as an ONNX graph;
    it and other dtypes than float32 run on the CPU only."""

    name: str
    build: Callable[[], Vocoder]
    graph: bool = False
    dtype: torch.dtype = torch.float32
    refine: Refine = 0

    def load(self, device: torch.device) -> tuple[Vocoder, Synthesize]:
        """The model in the form that is fastest to run, and what synthesizes with it."""
        model = self.build().fused(self.dtype).to(device)
        if self.graph:
            from vocoder.export import OnnxVocoder, export_onnx

            require("onnxruntime", "a flow as an ONNX graph", "export")
            with tempfile.TemporaryDirectory() as folder:
                path = export_onnx(model, Path(folder) / "flow.onnx", refine=0)  # type: ignore[arg-type]
                graph = OnnxVocoder(path, threads=torch.get_num_threads())
            return model, lambda mel: graph.synthesize(mel.numpy())
        return model, lambda mel: model.synthesize(mel, refine=self.refine)


def standard_systems(
    models: Mapping[str, Vocoder] | None = None, quick: bool = False
) -> list[System]:
    """Every architecture, and others' vocoders, after trained `models` by the name of their row.

    `quick` leaves out the ONNX graph, whose export takes longer than all the rest of its row.
    """
    found: list[System] = []
    for name, own in (models or {}).items():
        build = functools.partial(lambda model: model, own)
        found.append(System(name, build))
        if own.default_refine:
            found.append(System(f"{name}, refined", build, refine=own.default_refine))
    for model in ARCHITECTURES.values():
        found.append(System(model.title, model))
        if torch.bfloat16 in model.dtypes:
            found.append(System(f"{model.title}, bfloat16", model, dtype=torch.bfloat16))
            if not quick:
                found.append(System(f"{model.title}, ONNX", model, graph=True))
    for title, other in {"HiFi-GAN V1": HifiGan, "Griffin-Lim": GriffinLim}.items():
        found += [System(title, other), System(f"{title}, refined", other, refine="default")]
    return [*found, System("Vocos", Vocos)]


def run_benchmark(
    systems: Sequence[System],
    effort: Effort = FULL,
    *,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    workloads: Sequence[Workload] = WORKLOADS,
) -> Result:
    """Time every system on every workload, from a mel on the device to audio on the device.

    After a warm-up all are timed once a round, so that a machine that slows down does so for all.

    Args:
        systems: such as `standard_systems`.
        effort: how long to measure; `QUICK` takes less than two minutes on two CPU cores.
        device: "auto" (a CUDA device if there is one), "cpu" or "cuda", where systems run on it.
        threads: CPU threads of PyTorch; None leaves them.
        progress: called with (steps done, steps in all, what is next).
        workloads: what to measure.

    Returns:
        ``{"machine": {...}, "rows": [...]}`` of JSON values, a row for each system and workload.
        Times and speeds are of the whole batch: medians over the rounds, seconds_spread the
        interquartile range. first_audio_seconds is the time until `Vocoder.stream` gives its first
        chunk, or the whole pass of a batch or of what cannot stream. measured_audio_seconds is the
        audio that was made, gmac_per_audio_second 1e9 multiply-accumulates (`count_macs`). machine,
        left_out says why systems could not run.
    """
    target = device_named(device)
    threads_before = torch.get_num_threads()
    clamping = logging.getLogger("vocoder.audio.validation")  # random weights are too loud
    total, done = len(systems) * (1 + effort.rounds), itertools.count()
    left_out: dict[str, str] = {}
    entries: list[_Entry] = []

    def step(label: str) -> None:
        if progress is not None:
            progress(next(done), total, label)

    try:
        torch.set_num_threads(threads or threads_before)
        clamping.disabled = True
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            for system in systems:
                step(f"{system.name}: load and warm up")
                try:
                    entries.append(_Entry(system, target, workloads, effort.seconds))
                except Exception as error:  # one that cannot run here does not stop the others
                    left_out[system.name] = str(error).split("\n")[0] or type(error).__name__
                    total -= effort.rounds
            for turn in range(effort.rounds):
                for entry in entries:
                    step(f"{entry.system.name}, round {turn + 1} of {effort.rounds}")
                    entry.measure()
        rows = [row for entry in entries for row in entry.rows()]
    finally:
        torch.set_num_threads(threads_before)
        clamping.disabled = False
    step("done")
    facts = machine_facts(target) | {"rounds": effort.rounds, "left_out": left_out}
    return {"machine": facts, "rows": rows}


class _Entry:
    """A system on its device, with the times of each workload and of a stream's first chunk."""

    def __init__(
        self, system: System, target: torch.device, workloads: Sequence[Workload], seconds: float
    ) -> None:
        self.system = system
        model = system.build().eval()
        self.macs = _macs_per_second(model)
        on_cpu = system.graph or model.sequential or system.dtype != torch.float32
        self.model, self.synthesize = system.load(torch.device("cpu") if on_cpu else target)
        self.frame_seconds = self.model.mel_spec.hop_length / self.model.sample_rate
        self.measured: dict[Workload, float] = {}  # seconds of audio
        self.timers: dict[Workload | None, tuple[Timer, list[float]]] = {}  # None: the first chunk
        for workload in workloads:
            frames = self._affordable(workload, seconds)
            self.measured[workload] = workload.batch * frames * self.frame_seconds
            self._time(workload, self._job(workload.batch, frames))
        if self.model.sequential or self.model.context_frames[0] is not None:
            needed = self.model.look_ahead(system.refine) + 1  # frames for the first chunk
            chunks = mel_of(self.model, 2 * needed)[0].split(needed, dim=1)
            self._time(None, lambda: next(self.model.stream(iter(chunks), refine=system.refine)))

    def _job(self, batch: int, frames: int) -> Callable[[], object]:
        mel = mel_of(self.model, frames).expand(batch, -1, -1).contiguous()
        return lambda: self.synthesize(mel)

    def _affordable(self, workload: Workload, seconds: float) -> int:
        """Frames of the workload, or as many as take about that long."""
        wanted = math.ceil(workload.audio_seconds / self.frame_seconds)
        frames = 1 if self.model.sequential else min(wanted, 16)
        run = self._job(workload.batch, frames)
        run()
        began = synchronised_clock()
        run()
        spare = seconds / max(synchronised_clock() - began, 1e-9)
        return max(frames, min(wanted, int(frames * spare)))

    def _time(self, key: Workload | None, run: Callable[[], object]) -> None:
        run()  # warm
        names, threads = {"run": run}, torch.get_num_threads()
        timer = Timer("run()", timer=synchronised_clock, globals=names, num_threads=threads)
        self.timers[key] = timer, []

    def measure(self) -> None:
        """A round: short runs are repeated for a tenth of a second."""
        for timer, rounds in self.timers.values():
            rounds.append(timer.blocked_autorange(min_run_time=0.1).median)

    def rows(self) -> Iterator[dict[str, Any]]:
        model = self.model
        for workload, measured in self.measured.items():
            audio = workload.batch * workload.audio_seconds
            quartiles = np.percentile(self.timers[workload][1], [25, 50, 75])
            low, seconds, high = (float(value) * audio / measured for value in quartiles)
            streams = workload.batch == 1 and None in self.timers
            first = float(np.median(self.timers[None][1])) if streams else seconds
            yield {
                "name": self.system.name,
                "device": model.device.type,
                "threads": torch.get_num_threads(),
                "dtype": str(self.system.dtype).removeprefix("torch."),
                **workload._asdict(),
                "seconds_median": seconds,
                "seconds_spread": high - low,
                "samples_per_second": audio * model.sample_rate / seconds,
                "times_real_time": audio / seconds,
                "first_audio_seconds": first,
                "measured_audio_seconds": min(measured, audio),
                "parameters": sum(p.numel() for p in model.parameters()),
                "gmac_per_audio_second": self.macs / 1e9,
            }


def count_macs(run: Callable[[], object]) -> float:
    """Multiply-accumulates of a call, of matrix products and convolutions: half the floating point
    operations of PyTorch's counter, which does not see compiled code."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def _macs_per_second(model: Vocoder) -> float:
    """`count_macs` of a model in plain PyTorch for a second of audio."""
    frames = 8 if model.sequential else model.sample_rate // model.mel_spec.hop_length
    samples = frames * model.mel_spec.hop_length
    mel = mel_of(model, frames)
    if model.sequential:
        # Teacher forcing computes the same for each sample as a step of generation.
        macs = count_macs(lambda: model.log_likelihood(mel.new_zeros(1, samples), mel))
    else:
        macs = count_macs(lambda: model.synthesize(mel, refine=0))
    return macs * model.sample_rate / samples


def mel_of(model: Vocoder, frames: int) -> Tensor:
    """A mel like that of a voiced sound in some noise, (1, n_mels, frames)."""
    samples = frames * model.mel_spec.hop_length
    phase = torch.arange(samples, dtype=torch.float64) * 120 / model.sample_rate % 1
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    audio = 0.2 * (torch.exp(-12 * phase).float() - 0.08) + 0.01 * noise
    return model.mel(audio)[:, :frames].unsqueeze(0).to(model.device)
