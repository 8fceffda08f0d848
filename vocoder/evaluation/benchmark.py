"""The speed benchmark: every system timed in one process, in turns, on the machine at hand.

`run_benchmark` measures and returns plain JSON values, `render_table` and `plot` show them; who is
compared is in `vocoder.evaluation.systems`.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import io
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vocoder.atomic import write_atomic

from .results import Progress, Result, device_named, machine_facts, timed
from .systems import Job, System, standard_systems

if TYPE_CHECKING:
    from rich.table import Table

Timer = Callable[[Callable[[], object], torch.device], float]


@dataclass(frozen=True)
class Workload:
    """Audio to make at once: ``batch`` items of ``audio_seconds`` each."""

    batch: int
    audio_seconds: float

    @property
    def label(self) -> str:
        """As in "5 s" and "16 × 1 s"."""
        length = f"{self.audio_seconds:g} s"
        return length if self.batch == 1 else f"{self.batch} × {length}"


WORKLOADS = (Workload(1, 1), Workload(1, 5), Workload(1, 20), Workload(16, 1))


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: timings of each cell, n.
        parallel_seconds, sequential_seconds: about how long one timing may take, for systems
            that make all samples in parallel and for those that make them one by one. A slower
            one makes less audio than the workload asks for, and its time is scaled.
        parallel_audio_seconds: audio, of all items together, that a system of the first kind
            makes at least, however slow it is: on a few frames it would look slower.
    """

    rounds: int
    parallel_seconds: float
    sequential_seconds: float
    parallel_audio_seconds: float


FULL = Effort(9, parallel_seconds=3.5, sequential_seconds=1.5, parallel_audio_seconds=0.5)
QUICK = Effort(3, parallel_seconds=0.25, sequential_seconds=0.15, parallel_audio_seconds=0.15)

# A timing shorter than this is preceded by an untimed run, which brings caches and threads back
# from the system before.
_SETTLE_BELOW = 0.2


def run_benchmark(
    systems: Sequence[System] | None = None,
    *,
    quick: bool = False,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    workloads: Sequence[Workload] = WORKLOADS,
    effort: Effort | None = None,
    timer: Timer | None = None,
) -> Result:
    """Times every system on every workload and says what it costs.

    First each system is loaded, its multiply-accumulates are counted, and each of its cells (a
    system at a workload) is warmed up; compiling happens here. Then every cell is timed once a
    round, for ``effort.rounds`` rounds, so that a machine that slows down does so for all. On a GPU
    the clock is read after synchronising. What is timed goes from a mel that is on the device to
    audio that is on the device, through the interface that users call.

    A system that is too slow for a workload makes less audio and its times are scaled to the
    workload in proportion; ``measured_audio_seconds`` says how much it made. Where it makes samples
    one by one, such a measurement stands for longer workloads of the same batch, too. One that
    cannot run here is left out, with its reason under ``machine.left_out``.

    The machine should have nothing else to do: a second thread that has to wait for its core makes
    all others wait, and can slow a system down tenfold. ``machine.load_before`` is the load
    average of the minute before, which says whether it was idle (0); null where there is none.

    Args:
        systems: None for `standard_systems`, all with random weights.
        quick: less audio and fewer rounds: below two minutes on two CPU cores.
        device: "auto" (a CUDA device if there is one), "cpu" or "cuda". Systems that only run on
            the CPU do so in any case, and their rows say it.
        threads: CPU threads of PyTorch; None leaves them.
        progress: called with (steps done, steps in all, what is next) before every step and once
            at the end.
        workloads, effort, timer: what is measured, how long (overrides ``quick``) and by what.

    Returns:
        ``{"machine": {...}, "rows": [...]}`` of JSON values, a row for each cell:

        - name, family, engine, device, threads, dtype, weights: what ran;
        - batch, audio_seconds: the workload;
        - seconds_median, seconds_spread: median and interquartile range of the n timings;
        - samples_per_second: of the whole batch, by the median;
        - times_real_time: seconds of audio, of the whole batch, per second;
        - first_audio_seconds: median time until `Vocoder.stream` gives its first chunk, given
          chunks of mel no longer than that needs; for a batch, and for a system that cannot
          stream, the whole pass;
        - measured_audio_seconds: audio of all items together that was really made; less than batch
          * audio_seconds where the system was too slow for the effort;
        - parameters: their number;
        - gmac_per_audio_second: 1e9 multiply-accumulates per second of audio, see `count_macs`;
        - gmac_per_second: those achieved, per second of computing;
        - roofline: the same over what a plain matrix product achieves in the same process, turn by
          turn with the systems, on the same device and in the same type
          (``machine.matmul_gmac_per_second``, by device and type); 1 would be as fast;
        - peak_memory_bytes: parameters and buffers, and what a run adds to them at its peak: on a
          GPU by PyTorch's allocator, on Linux by the resident memory of the process; null
          elsewhere. Of the run that was timed, so where that made less audio it is for less.

    Raises:
        ValueError: an unknown device, or CUDA is asked for and not there.
    """
    target = device_named(device)
    entries = list(standard_systems(quick=quick) if systems is None else systems)
    if effort is None:
        effort = QUICK if quick else FULL
    timer = timed if timer is None else timer
    threads_before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        return _run(entries, workloads, effort, target, timer, progress)
    finally:
        torch.set_num_threads(threads_before)


def _run(
    systems: Sequence[System],
    workloads: Sequence[Workload],
    effort: Effort,
    target: torch.device,
    timer: Timer,
    progress: Progress | None,
) -> Result:
    entries: list[_Entry] = []
    left_out: dict[str, str] = {}
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    steps = 1 + len(workloads) * (1 + effort.rounds)
    total, done = steps * len(systems), 0

    def step(label: str) -> None:
        nonlocal done
        if progress is not None:
            progress(done, total, label)
        done += 1

    for system in systems:
        before = done
        step(f"{system.name}: load and count")
        try:
            system.load(torch.device("cpu"))
            macs = system.multiply_accumulates()  # on the CPU, where no fused kernel hides any
            device = target if target.type in system.devices else torch.device("cpu")
            if device.type != "cpu":
                system.load(device)
            system.job(1, 1).run()  # compiles, where there is something to compile
            entry = _Entry(system, device, timer, effort, macs)
            for workload in workloads:
                step(f"{system.name}: warm up, {workload.label}")
                entry.prepare(workload)
            entry.prepare_first()
        except Exception as error:  # what keeps one from running keeps nobody else from it
            left_out[system.name] = str(error).split("\n")[0] or type(error).__name__
            total -= steps - (done - before)
            continue
        entries.append(entry)

    products = {
        (entry.device, entry.system.dtype): _Product(entry.device, entry.system.dtype)
        for entry in entries
    }
    for turn in range(effort.rounds):
        for product in products.values():
            product.measure()
        for entry in entries:
            for cell in entry.cells:
                label = f"{entry.system.name}: {cell.workload.label}"
                step(f"{label}, round {turn + 1} of {effort.rounds}")
                entry.measure(cell, turn)
            entry.measure_first()
    if progress is not None:
        progress(total, total, "done")
    machine = machine_facts(target)
    machine["load_before"] = load_before
    machine["rounds"] = effort.rounds
    machine["left_out"] = left_out
    achieved: dict[str, dict[str, float]] = {}
    rows = []
    for entry in entries:
        product = products[entry.device, entry.system.dtype]
        achieved.setdefault(entry.device.type, {})[product.dtype] = product.gmac_per_second
        rows += [entry.row(cell, product.gmac_per_second) for cell in entry.cells]
    machine["matmul_gmac_per_second"] = achieved
    return {"machine": machine, "rows": rows}


class _Product:
    """A plain product of two square matrices: what the arithmetic of a device can do."""

    def __init__(self, device: torch.device, dtype: str) -> None:
        self.dtype = dtype
        self.device = device
        # Large enough to keep the device busy, small enough for its caches.
        self.size = 1024 if device.type == "cpu" else 8192
        shape = (self.size, self.size)
        values = torch.rand(shape, device=device).to(getattr(torch, dtype))
        self.values, self.result = values, torch.empty_like(values)
        self.timings: list[float] = []

    def run(self) -> object:
        return torch.mm(self.values, self.values, out=self.result)

    def measure(self) -> None:
        self.run()
        self.timings.append(timed(self.run, self.device))

    @property
    def gmac_per_second(self) -> float:
        return self.size**3 / 1e9 / statistics.median(self.timings)


@dataclass
class _Cell:
    """A system at a workload."""

    workload: Workload
    job: Job
    estimate: float  # seconds for the job
    peak_memory: int | None
    timings: list[float] = dataclasses.field(default_factory=list)


class _Entry:
    """A system on its device, with what is measured of it."""

    def __init__(
        self,
        system: System,
        device: torch.device,
        timer: Timer,
        effort: Effort,
        macs: float,
    ) -> None:
        self.system = system
        self.device = device
        self.timer = timer
        self.effort = effort
        self.macs = macs
        self.cap = effort.sequential_seconds if system.sequential else effort.parallel_seconds
        self.cells: list[_Cell] = []
        self.first = system.first_audio()
        self.first_timings: list[float] = []
        self.first_is_slow = False

    def prepare(self, workload: Workload) -> None:
        """Add the cell, warm, with as much of the workload as takes the time that it may."""
        system, cap, batch = self.system, self.cap, workload.batch
        wanted = round(workload.audio_seconds * system.sample_rate)
        smaller = [cell for cell in self.cells if cell.workload.batch == batch]
        if system.sequential and smaller and smaller[-1].job.samples < wanted:
            known = smaller[-1]
            if known.job.samples < known.workload.audio_seconds * system.sample_rate:
                # The same samples again, at the same cost each: one measurement says it all.
                self.cells.append(dataclasses.replace(known, workload=workload))
                return
        least = 1
        if not system.sequential:
            audio = min(self.effort.parallel_audio_seconds / batch, workload.audio_seconds)
            least = max(1, round(audio * system.sample_rate))
        # What it could do at the smaller workload is where to start; else with the least there is.
        job = system.job(batch, min(smaller[-1].job.samples if smaller else least, wanted))
        seconds = self._time(job)
        if seconds < cap:  # it may have been the first of its shape
            seconds = self._time(job)
        while job.samples < wanted and seconds < cap / 2:
            growth = min(cap / max(seconds, 1e-9), 8.0)
            job = system.job(batch, min(wanted, int(job.samples * growth)))
            seconds = self._time(job)
        if seconds > 1.5 * cap:
            samples = max(least, int(job.samples * cap / seconds))
            if system.job(batch, samples).samples < job.samples:
                job = system.job(batch, samples)
        timings: list[float] = []
        peak = _peak_memory(system, lambda: timings.append(self._time(job)), self.device)
        if not timings:  # memory cannot be read here
            timings.append(self._time(job))
        self.cells.append(_Cell(workload, job, timings[-1], peak))

    def _time(self, job: Job) -> float:
        return self.timer(job.run, self.device)

    def prepare_first(self) -> None:
        """Warm up the first chunk of a stream; if it takes long, this one timing has to do."""
        if self.first is None:
            return
        seconds = self.timer(self.first, self.device)
        self.first_is_slow = seconds > self.cap
        if self.first_is_slow:
            self.first_timings.append(seconds)

    def measure(self, cell: _Cell, turn: int) -> None:
        if len(cell.timings) > turn:
            return  # shared with a cell before
        if cell.estimate < _SETTLE_BELOW:
            cell.job.run()
        cell.timings.append(self._time(cell.job))

    def measure_first(self) -> None:
        if self.first is not None and not self.first_is_slow:
            self.first_timings.append(self.timer(self.first, self.device))

    def row(self, cell: _Cell, product: float) -> dict[str, Any]:
        system, workload = self.system, cell.workload
        audio = workload.batch * workload.audio_seconds
        measured = cell.job.items * cell.job.samples / system.sample_rate
        scale = audio / measured
        seconds = scale * statistics.median(cell.timings)
        lower, upper = np.percentile(cell.timings, [25, 75])
        streams = workload.batch == 1 and self.first_timings
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
            "seconds_spread": scale * float(upper - lower),
            "samples_per_second": audio * system.sample_rate / seconds,
            "times_real_time": audio / seconds,
            "first_audio_seconds": statistics.median(self.first_timings) if streams else seconds,
            "measured_audio_seconds": measured,
            "parameters": system.parameters,
            "gmac_per_audio_second": self.macs / 1e9,
            "gmac_per_second": self.macs / 1e9 * audio / seconds,
            "roofline": self.macs / 1e9 * audio / seconds / product,
            "peak_memory_bytes": cell.peak_memory,
            "weights": system.weights,
        }


def _peak_memory(system: System, run: Callable[[], object], device: torch.device) -> int | None:
    module = system.module
    own = sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return own + torch.cuda.max_memory_allocated(device) - before
    extra = _resident_peak(run)
    return None if extra is None else own + extra


def _resident_peak(run: Callable[[], object]) -> int | None:
    """Bytes by which a call raises the resident memory at its peak; None where Linux is not."""
    # What the allocator keeps of earlier runs would be used again and not be seen. Where the C
    # library is not glibc, the figure can be too low by that.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _status_bytes("VmRSS")
        run()
        return max(_status_bytes("VmHWM") - before, 0)
    except OSError:
        return None


def _status_bytes(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"^{key}:\s+(\d+) kB", status, re.MULTILINE)
    if match is None:
        raise OSError(f"/proc/self/status has no {key}")
    return 1024 * int(match[1])


# -- showing a result --------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The rows of one system on one device, by the label of their workload."""

    label: str
    """The name, with the device where there are several."""
    rows: Mapping[str, Mapping[str, Any]]

    @property
    def any_row(self) -> Mapping[str, Any]:
        """One of the rows, for what they share."""
        return next(iter(self.rows.values()))


def lines(result: Result) -> list[Line]:
    """A result by system, the fastest first (by the median speed over its workloads)."""
    grouped: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in result["rows"]:
        label = Workload(row["batch"], row["audio_seconds"]).label
        grouped.setdefault((row["name"], row["device"]), {})[label] = row
    several = len({device for _, device in grouped}) > 1
    found = [
        Line(f"{name} ({device})" if several else name, rows)
        for (name, device), rows in grouped.items()
    ]

    def speed(line: Line) -> float:
        return statistics.median(row["samples_per_second"] for row in line.rows.values())

    return sorted(found, key=speed, reverse=True)


def table(result: Result) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a result, as text; a star marks speeds measured on less audio."""
    found = lines(result)
    labels = list(dict.fromkeys(label for line in found for label in line.rows))
    headings = ["vocoder", "weights", "parameters", "GMAC/s", *labels]
    headings += ["±", "roofline", "first audio", "memory"]
    cells = []
    for line in found:
        row = line.any_row
        memory = row["peak_memory_bytes"]
        cells.append(
            [
                line.label,
                row["weights"],
                f"{row['parameters'] / 1e6:.2f}M" if row["parameters"] else "–",
                _significant(row["gmac_per_audio_second"]),
                *(_speed(line.rows[label]) if label in line.rows else "–" for label in labels),
                f"{50 * max(_relative_spread(row) for row in line.rows.values()):.0f} %",
                _roofline(line),
                f"{_significant(1000 * row['first_audio_seconds'])} ms",
                "–" if memory is None else f"{memory / 2**20:.0f} MiB",
            ]
        )
    return headings, cells


def caption(result: Result) -> str:
    """What the numbers of `table` are, and where they were measured."""
    machine = result["machine"]
    threads = sorted({row["threads"] for row in result["rows"]})
    where = ", ".join(str(machine[key]) for key in ("cpu", "gpu") if machine[key])
    left_out = machine["left_out"]
    labels = [label for line in lines(result) for label in line.rows] or ["–"]
    text = (
        "Times real time (seconds of audio per second of computing), more is faster; * on less "
        f"audio. Medians of {machine['rounds']}; ±: half the interquartile range, of the workload "
        f"where it is largest. First audio (computing alone, once the mel that it needs is there) "
        f"and memory: at {labels[0]}. GMAC/s: 1e9 "
        f"multiply-accumulates per second of audio.{_products(machine)} {where}, "
        f"{machine['cores']} cores, "
        f"{' or '.join(map(str, threads))} {'thread' if threads == [1] else 'threads'}, "
        f"PyTorch {machine['torch']}, {machine['date']}."
    )
    return text + (f" Left out: {', '.join(left_out)}." if left_out else "")


def render_table(result: Result) -> Table:
    """A result as a table for the terminal (rich)."""
    from rich.table import Table

    headings, cells = table(result)
    rendered = Table(caption=caption(result), caption_justify="left")
    for index, heading in enumerate(headings):
        rendered.add_column(heading, justify="left" if index < 2 else "right")
    for line in cells:
        rendered.add_row(*line)
    return rendered


def plot(result: Result, path: str | os.PathLike[str]) -> Path:
    """A PNG of samples per second, on a log scale, of every system at every workload.

    Returns:
        The path.

    Raises:
        ValueError: the result has no rows.
    """
    if not result["rows"]:
        raise ValueError("nothing could be measured, so there is nothing to plot")
    # The figure by itself, without pyplot, leaves the caller's backend alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = lines(result)[::-1]
    labels = list(dict.fromkeys(label for line in found for label in line.rows))
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, label in enumerate(labels):
        offset = 0.5 * (0.5 - (index + 0.5) / len(labels))
        rows = [(y + offset, line.rows[label]) for y, line in enumerate(found)]
        for scaled in (False, True):
            points = [(y, row) for y, row in rows if _scaled(row) is scaled]
            axes.plot(
                [row["samples_per_second"] for _, row in points],
                [y for y, _ in points],
                "osD^v"[index % 5],
                color=f"C{index}",
                markersize=6,
                fillstyle="none" if scaled else "full",
                label=None if scaled else label,
            )
    rates = {round(row["samples_per_second"] / row["times_real_time"]) for row in result["rows"]}
    axes.axvspan(0.99 * min(rates), 1.01 * max(rates), color="0.8", zorder=0)
    axes.text(
        max(rates),
        1.0,
        " real time",
        transform=axes.get_xaxis_transform(),
        va="bottom",
        color="0.4",
    )
    axes.set_yticks(range(len(found)), [line.label for line in found])
    axes.set_xscale("log")
    axes.grid(axis="x", which="major", color="0.9")
    axes.set_axisbelow(True)
    axes.set_xlabel("samples per second")
    machine = result["machine"]
    figure.suptitle(
        f"{machine['gpu'] or machine['cpu']}, {machine['cores']} CPU cores "
        "(hollow: measured on less audio)",
        fontsize="medium",
    )
    axes.legend(title="audio at once", loc="lower right")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=144)
    return write_atomic(Path(path), content.getvalue())


def _scaled(row: Mapping[str, Any]) -> bool:
    return bool(row["measured_audio_seconds"] < row["batch"] * row["audio_seconds"])


def _speed(row: Mapping[str, Any]) -> str:
    return _significant(row["times_real_time"]) + ("*" if _scaled(row) else "")


def _relative_spread(row: Mapping[str, Any]) -> float:
    return float(row["seconds_spread"] / row["seconds_median"])


def _roofline(line: Line) -> str:
    """Least and largest fraction of a plain matrix product, in percent."""
    found = [row["roofline"] for row in line.rows.values() if row.get("roofline")]
    if not found:
        return "–"
    least, most = f"{100 * min(found):.2g}", f"{100 * max(found):.2g}"
    return f"{least} %" if least == most else f"{least}–{most} %"


def _products(machine: Mapping[str, Any]) -> str:
    """What plain matrix products achieved, as a sentence; nothing in results that lack it."""
    found = [
        f"{_significant(speed)} GMAC/s in {dtype} ({device})"
        for device, speeds in machine.get("matmul_gmac_per_second", {}).items()
        for dtype, speed in speeds.items()
    ]
    if not found:
        return ""
    return (
        " Roofline: multiply-accumulates achieved per second of computing over those of a plain "
        f"matrix product, {', '.join(found)}."
    )


def _significant(value: float) -> str:
    return f"{value:.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    """Decimals that show two significant digits, three from 100 on."""
    if value <= 0:
        return 0
    return max(0, 1 - int(np.floor(np.log10(value))))
