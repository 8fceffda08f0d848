"""Copy synthesis: recordings to mels and back by a vocoder, and how close to them it comes.

`evaluate` measures and returns plain JSON values; `tables`, `caption`, `render`, `markdown` and
`plot` show them. The measures themselves are in
`vocoder.evaluation.metrics` and `.dnsmos`.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import statistics
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vocoder.atomic import write_atomic
from vocoder.audio import LogMel, MelSpec, fade, read_audio
from vocoder.corpus import SUFFIXES, CorpusError, held_out, read_corpus
from vocoder.models import Vocoder

from . import systems
from .dnsmos import dnsmos
from .extras import MissingExtraError, require
from .metrics import METRICS, Metric, MetricError, measure, missing_metrics, tone_excess_db
from .results import Progress, Result, device_named, machine_facts, timed

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "MEASURES",
    "EvaluationError",
    "caption",
    "estimate",
    "evaluate",
    "find_recordings",
    "griffin_lim",
    "markdown",
    "plot",
    "render",
    "tables",
]

CONFIDENCE = 0.95

RECORDING = "recording"
"""Name of the row of the recordings themselves."""

GRIFFIN_LIM = "Griffin-Lim"
"""Name of the row of Griffin-Lim."""

MEASURES: dict[str, Metric] = {
    **METRICS,
    "dnsmos": Metric("dnsmos", "DNSMOS", "MOS", "higher", None),
    "tone_excess": Metric("tone_excess", "tone excess", "dB", "lower", None),
    "log_likelihood": Metric("log_likelihood", "log-likelihood", "nats/sample", "higher", None),
    "times_real_time": Metric("times_real_time", "times real time", "", "higher", None),
}
"""What is measured, by name: `METRICS`, and what needs a model or no reference."""

_WARM_UP_SECONDS = 0.25


class EvaluationError(ValueError):
    """There is nothing to evaluate; the message says why, and the way out."""


def find_recordings(directory: str | os.PathLike[str]) -> list[Path]:
    """The recordings of a directory that a vocoder should be judged by.

    Of a corpus in LJSpeech's layout (a folder with `metadata.csv`) these are the test utterances of
    `vocoder.corpus.held_out`, which no recipe trains on; of any other folder all audio
    files in it and below it, in the order of their paths. Files whose names begin with a dot are
    left out.

    Raises:
        EvaluationError: no such directory, or no audio in it.
    """
    folder = Path(directory)
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise EvaluationError(f"{folder} is {what}: give a directory with recordings in it")
    if (folder / "metadata.csv").is_file():
        try:
            test = set(held_out(folder).test)
            return [u.path for u in read_corpus(folder).utterances if u.id in test]
        except CorpusError as error:
            raise EvaluationError(str(error)) from error
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise EvaluationError(f"{folder} holds no audio ({', '.join(SUFFIXES)} files)")
    return found


def estimate(values: Sequence[float]) -> dict[str, Any]:
    r"""Mean of a sample and its 95 % confidence interval by Student's t.

    .. math:: \bar v \pm t_{n-1} \, s / \sqrt n, \qquad
        s^2 = \frac{1}{n - 1} \sum_i (v_i - \bar v)^2

    with :math:`t_{n-1}` the 97.5th percentile. Student's t rather than the bootstrap, because test
    sets of speech are small: resampling n = 3 to 20 utterances gives intervals that are too narrow
    by about the root of (n - 1) / n and by the tails, and these are exact for normal values and
    need no seed. The interval is about other utterances of the same kind, not about other
    speakers.

    Returns:
        mean, lower, upper and n. The bounds are None for fewer than 2 values, the mean for none.
    """
    from scipy import stats  # takes long to import

    n = len(values)
    mean = statistics.fmean(values) if n else None
    if mean is None or n < 2:
        return {"mean": mean, "lower": None, "upper": None, "n": n}
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return {"mean": mean, "lower": mean - half, "upper": mean + half, "n": n}


def evaluate(
    models: Mapping[str, Vocoder],
    directory: str | os.PathLike[str],
    *,
    limit: int | None = None,
    measures: Sequence[str] | None = None,
    temperature: float | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Result:
    """Measure the copy synthesis of recordings.

    Every recording is made mono, resampled to the rate of the model, rounded to 16 bits and cut to
    whole mel frames. Its mel is turned back into audio, which is compared with it. Beside the
    models there are two points of reference: the recordings themselves, for what needs no
    reference, and Griffin-Lim from the mel of the first model. The log-likelihood is that of the
    recording with its ends faded over one hop and one quantisation step of uniform noise, drawn by
    its name, as in training.
    Measures whose package is missing are left out and named, files that cannot be read or made
    are skipped by all and named.

    Args:
        models: name -> model. The first is judged; the others are compared with it, in pairs.
        directory: see `find_recordings`.
        limit: take only the first so many recordings.
        measures: names of `MEASURES` to take; all by default. Those of pitch take the longest.
        temperature, seed: as in `Vocoder.synthesize`.
        device: "auto" (a CUDA device if there is one), "cpu" or "cuda": where the models are moved.
        progress: called with (steps done, steps in all, what is next) before every step and once
            at the end.

    Returns:
        JSON values:

        - about: the settings, each model's facts, and the machine;
        - measures: name -> title, unit, and which is better;
        - left_out: measure -> why it could not be taken;
        - skipped: file -> why it counts for nothing;
        - rows: name -> measure -> mean, lower, upper, n (see `estimate`), over the files where the
          measure has a value;
        - differences: name of another model -> measure -> the same of its paired differences,
          first model less the other. Log-likelihoods at different sample rates have none;
        - files: file, seconds, and values: name -> measure -> value. None where it has none.

    Raises:
        EvaluationError: nothing to evaluate: no directory, no audio, none that could be used.
        ValueError: temperature, device or limit are out of range, or a measure is unknown.
    """
    unknown = [name for name in measures or () if name not in MEASURES]
    if unknown:
        raise ValueError(f"there is no measure {unknown[0]!r}: choose from {', '.join(MEASURES)}")
    if limit is not None and limit < 1:
        raise ValueError(f"the limit is {limit}: take at least 1 recording")
    target = device_named(device)
    folder = Path(directory)
    paths = find_recordings(folder)[:limit]
    wanted, left_out = _available(MEASURES if measures is None else measures)
    systems = _systems(models, temperature, seed, target)
    first = next(iter(models.values()))
    files: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    total = len(paths) * len(systems)
    for index, path in enumerate(paths):
        name = path.relative_to(folder).as_posix()
        values: dict[str, dict[str, float | None]] = {}
        seconds = 0.0
        try:
            for turn, system in enumerate(systems):
                if progress is not None:
                    progress(index * len(systems) + turn, total, f"{name}: {system.name}")
                clean = _recording(path, system.mel_spec)
                seconds = len(clean) / system.mel_spec.sample_rate
                values[system.name] = _judge(
                    system, clean, name, wanted, first.mel_spec, warm=not files
                )
        except (ValueError, OSError) as error:
            skipped[name] = str(error)
            continue
        files.append({"file": name, "seconds": seconds, "values": values})
    if progress is not None:
        progress(total, total, "done")
    if not files:
        raise EvaluationError(
            f"none of the {len(paths)} recordings in {folder} could be evaluated; the first: "
            f"{next(iter(skipped.values()))}"
        )
    return {
        "about": {
            "models": {name: _facts(model) for name, model in models.items()},
            "temperature": temperature,
            "seed": seed,
            "confidence": CONFIDENCE,
            "interval": "Student's t over recordings",
            "device": target.type,
            "threads": torch.get_num_threads(),
            "machine": machine_facts(target),
        },
        "measures": {
            name: {"title": m.title, "unit": m.unit, "better": m.better}
            for name, m in ((name, MEASURES[name]) for name in wanted)
        },
        "left_out": left_out,
        "skipped": skipped,
        "rows": _rows(files, [system.name for system in systems], wanted),
        "differences": _differences(files, models, wanted),
        "files": files,
    }


def _available(asked: Collection[str]) -> tuple[list[str], dict[str, str]]:
    missing = missing_metrics()
    try:
        require("speechmos.dnsmos", "DNSMOS", "metrics")
    except MissingExtraError as error:
        missing["dnsmos"] = str(error)
    left_out = {name: why for name, why in missing.items() if name in asked}
    return [name for name in MEASURES if name in asked and name not in left_out], left_out


# -- who turns mels into audio -----------------------------------------------------------------


@dataclass(frozen=True)
class _System:
    """A row of the result: something that turns a mel into audio."""

    name: str
    mel_spec: MelSpec
    device: torch.device
    synthesize: Callable[[Tensor], Tensor] | None
    """Mel (n_mels, frames) -> audio, at least as long as what the mel is of; None: the recording"""
    mel: Callable[[Tensor], Tensor]
    log_prob: Callable[[Tensor, Tensor], Tensor] | None = None


def _systems(
    models: Mapping[str, Vocoder], temperature: float | None, seed: int, device: torch.device
) -> list[_System]:
    first = next(iter(models.values()))
    cpu = torch.device("cpu")
    log_mel = LogMel(first.mel_spec)
    found = [_System(RECORDING, first.mel_spec, cpu, None, log_mel)]
    for name, model in models.items():
        model = model.to(device)

        def make(mel: Tensor, model: Vocoder = model) -> Tensor:
            return model.synthesize(mel, temperature, seed)

        found.append(_System(name, model.mel_spec, device, make, model.mel, model.log_prob))
    phases = griffin_lim(first.mel_spec, seed)
    return [*found, _System(GRIFFIN_LIM, first.mel_spec, cpu, phases, log_mel)]


def griffin_lim(spec: MelSpec, seed: int) -> Callable[[Tensor], Tensor]:
    """Griffin-Lim of torchaudio, on the CPU.

    Args:
        spec: the convention of the log-mels that it will be given.
        seed: of the phases that it starts from.

    Returns:
        A function from a log-mel (n_mels, frames) to audio, (frames * hop,) or longer.
    """
    vocoder = systems.GriffinLim(spec)
    vocoder.load(torch.device("cpu"))

    def make(mel: Tensor) -> Tensor:
        frames = mel.shape[-1]
        magnitude = mel.exp() if spec.log_base == "e" else 10.0**mel
        if not spec.center:
            # torchaudio centres frame k on sample k * hop, this mel half a hop later: with one more
            # frame on either side the audio begins half a hop early and is long enough.
            magnitude = F.pad(magnitude.unsqueeze(0), (1, 1), mode="replicate")[0]
        # Its phase is reflected by half a window at the ends.
        least = spec.n_fft // 2 // spec.hop_length + 2
        magnitude = F.pad(magnitude, (0, max(0, least - magnitude.shape[-1])))
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            audio: Tensor = vocoder.module(magnitude)
        start = 0 if spec.center else spec.hop_length // 2
        return audio[start : start + frames * spec.hop_length]

    return make


def _recording(path: Path, spec: MelSpec) -> Tensor:
    """A recording in 16 bits, (frames * hop,)."""
    audio, _ = read_audio(path, spec.sample_rate)
    levels = np.clip(np.rint(audio.numpy() * np.float32(32768)), -32768, 32767)
    levels = levels[: len(levels) // spec.hop_length * spec.hop_length]
    if len(levels) < spec.n_fft:
        raise ValueError(f"{path} is too short: a mel frame looks at {spec.n_fft} samples")
    return torch.from_numpy(levels / np.float32(32768))


def _dequantised(clean: Tensor, name: str, hop_length: int) -> tuple[Tensor, Tensor]:
    """A recording with faded ends, in 16 bits, and the same with a quantisation step of noise."""
    levels = np.rint(fade(clean.numpy() * np.float32(32768), hop_length))
    rng = np.random.default_rng(zlib.crc32(name.encode(errors="surrogateescape")))
    noise = rng.random(levels.size, dtype=np.float32) - np.float32(0.5)
    scale = np.float32(32768)
    return torch.from_numpy(levels / scale), torch.from_numpy((levels + noise) / scale)


def _judge(
    system: _System,
    clean: Tensor,
    name: str,
    wanted: Sequence[str],
    mel_spec: MelSpec,
    *,
    warm: bool,
) -> dict[str, float | None]:
    rate = system.mel_spec.sample_rate
    nats: float | None
    values: dict[str, float | None] = dict.fromkeys(wanted)
    if system.synthesize is None:
        values.update(_without_reference(clean, system.mel_spec, wanted))
        return values
    make = system.synthesize
    with torch.no_grad():
        mel = system.mel(clean).to(system.device)
        if warm:  # the first call compiles, where there is something to compile
            make(mel[:, : max(1, round(_WARM_UP_SECONDS * rate / system.mel_spec.hop_length))])
        made: list[Tensor] = []
        taken = timed(lambda: made.append(make(mel)), system.device)
        audio = made[0][: len(clean)].cpu()
        if not audio.isfinite().all():
            raise ValueError(f"{system.name} made NaN or infinity of it")
        compared = [measured for measured in wanted if measured in METRICS]
        values.update(measure(clean, audio, rate, mel_spec, compared))
        values.update(_without_reference(audio, system.mel_spec, wanted))
        if system.log_prob is not None and "log_likelihood" in values:
            try:
                hop = system.mel_spec.hop_length
                faded, dequantised = _dequantised(clean, name, hop)
                # A mel in the centred convention has one frame more, which is of no sample.
                whole = system.mel(faded)[:, : len(clean) // hop].to(system.device)
                nats = float(system.log_prob(dequantised, whole)) / len(clean)
            except NotImplementedError:  # a model that defines none
                nats = None
            if nats is not None and not math.isfinite(nats):
                raise ValueError(f"{system.name} gives it no finite log-likelihood")
            values["log_likelihood"] = nats
    if "times_real_time" in values:
        values["times_real_time"] = len(clean) / rate / taken
    return values


def _without_reference(
    audio: Tensor, mel_spec: MelSpec, wanted: Sequence[str]
) -> dict[str, float | None]:
    """The measures that hear the audio alone: DNSMOS, and tones of half the frame rate."""
    values: dict[str, float | None] = {}
    rate = mel_spec.sample_rate
    if "dnsmos" in wanted:
        values["dnsmos"] = dnsmos(audio, rate)
    if "tone_excess" in wanted:
        try:
            # What repeats every two frames has tones there, and so has what repeats every frame.
            values["tone_excess"] = tone_excess_db(audio, rate, rate / (2 * mel_spec.hop_length))
        except MetricError:  # too short, or silent in some band
            values["tone_excess"] = None
    return values


def _facts(model: Vocoder) -> dict[str, Any]:
    return {
        "family": model.family,
        "parameters": sum(p.numel() for p in model.parameters()),
        "mel_spec": dataclasses.asdict(model.mel_spec),
    }


def _rows(
    files: Sequence[Mapping[str, Any]], systems: Sequence[str], wanted: Sequence[str]
) -> dict[str, dict[str, Any]]:
    rows = {}
    for system in systems:
        row = {}
        for name in wanted:
            values = [file["values"][system][name] for file in files]
            row[name] = estimate([value for value in values if value is not None])
        rows[system] = row
    return rows


def _differences(
    files: Sequence[Mapping[str, Any]], models: Mapping[str, Vocoder], wanted: Sequence[str]
) -> dict[str, dict[str, Any]]:
    (first, own), *others = models.items()
    found = {}
    for other, model in others:
        row = {}
        for name in wanted:
            pairs = [(f["values"][first][name], f["values"][other][name]) for f in files]
            if name == "log_likelihood" and own.sample_rate != model.sample_rate:
                pairs = []  # nats per sample of different samples
            row[name] = estimate([a - b for a, b in pairs if a is not None and b is not None])
        found[other] = row
    return found


# -- showing a result --------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Headings and cells as text."""

    title: str
    headings: list[str]
    cells: list[list[str]]


def tables(result: Result) -> list[Table]:
    """The totals; the paired differences to each other model; and the files."""
    measures = result["measures"]
    headings = [_heading(measure) for measure in measures.values()]
    first = next(iter(result["about"]["models"]))
    found = [
        Table(
            "Copy synthesis",
            ["", *headings],
            [
                [name, *(_with_interval(row[key]) for key in measures)]
                for name, row in result["rows"].items()
                if any(row[key]["n"] for key in measures)
            ],
        )
    ]
    if result["differences"]:
        found.append(
            Table(
                "Paired differences",
                ["", *headings],
                [
                    [f"{first} – {other}", *(_with_interval(row[key], "+") for key in measures)]
                    for other, row in result["differences"].items()
                ],
            )
        )
    found.append(
        Table(
            f"Recordings, {first}",
            ["recording", "seconds", *headings],
            [
                [
                    file["file"],
                    f"{file['seconds']:.1f}",
                    *(_number(file["values"][first][key]) for key in measures),
                ]
                for file in result["files"]
            ],
        )
    )
    return found


def caption(result: Result) -> str:
    """What the figures of `tables` are, and how and where they were measured."""
    about = result["about"]
    machine = about["machine"]
    seconds = sum(file["seconds"] for file in result["files"])
    where = machine["gpu"] if about["device"] == "cuda" else machine["cpu"]
    threads = about["threads"]
    temperature = (
        "each model's default temperature"
        if about["temperature"] is None
        else f"temperature {about['temperature']:g}"
    )
    sentences = [
        f"Copy synthesis of {len(result['files'])} recordings ({seconds:.0f} s) at "
        f"{temperature}, seed {about['seed']}: means and "
        f"{100 * about['confidence']:g} % confidence intervals ({about['interval']}); "
        "↑ more is better, ↓ less is.",
        "Log-likelihood: of audio in [-1, 1], dequantised from 16 bits.",
        f"Speed: {where}, {threads} {'thread' if threads == 1 else 'threads'}, "
        f"PyTorch {machine['torch']}, {machine['date']}.",
    ]
    if result["left_out"]:
        titles = [MEASURES[name].title for name in result["left_out"]]
        sentences.append(f"Left out, not installed: {', '.join(titles)}.")
    if result["skipped"]:
        sentences.append(f"Skipped: {', '.join(result['skipped'])}.")
    return " ".join(sentences)


def render(result: Result) -> RenderableType:
    """The totals and differences for the terminal (rich), a line for each measure."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as Rendered
    from rich.text import Text

    shown: list[RenderableType] = []
    for table in tables(result)[:-1]:
        rendered = Rendered(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
        rendered.add_column("")
        for line in table.cells:
            rendered.add_column(Text(line[0]), justify="right")
        for index, heading in enumerate(table.headings[1:], 1):
            rendered.add_row(heading, *(line[index] for line in table.cells))
        shown.append(rendered)
    return Group(*shown, Text(caption(result)))


def markdown(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write the totals, the differences and the files as Markdown. Returns the path."""
    blocks = []
    for table in tables(result):
        rule = ["---", *["---:"] * (len(table.headings) - 1)]
        lines = [table.headings, rule, *([_escaped(cell) for cell in line] for line in table.cells)]
        rows = ["| " + " | ".join(line) + " |" for line in lines]
        blocks.append("\n".join([f"## {table.title}", "", *rows]))
        if len(blocks) == 1:
            blocks.append(caption(result))
    return write_atomic(Path(path), ("\n\n".join(blocks) + "\n").encode())


def plot(result: Result, path: str | os.PathLike[str]) -> Path:
    """A PNG with a panel for each measure: means, intervals and recordings of every row.

    Returns:
        The path.
    """
    # The figure by itself, without pyplot, leaves the caller's backend alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = result["rows"]
    shown = [name for name in result["measures"] if any(row[name]["n"] for row in rows.values())]
    systems = list(rows)[::-1]
    columns = max(1, min(3, len(shown)))
    lines = max(1, -(-len(shown) // columns))
    size = (1.5 + 3.2 * columns, lines * (0.9 + 0.35 * len(systems)))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).flat
    for name, axes in zip(shown, panels, strict=False):
        for y, system in enumerate(systems):
            points = [file["values"][system][name] for file in result["files"]]
            points = [value for value in points if value is not None]
            axes.plot(points, [y] * len(points), "|", color="0.7", markersize=9)
            row = rows[system][name]
            if row["mean"] is None:
                continue
            half = 0 if row["upper"] is None else row["upper"] - row["mean"]
            axes.errorbar(row["mean"], y, xerr=half, fmt="o", color=f"C{len(systems) - 1 - y}")
        axes.set_yticks(range(len(systems)), systems)
        axes.set_ylim(-0.6, len(systems) - 0.4)
        axes.set_title(_heading(result["measures"][name]), fontsize="medium")
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    for axes in list(figure.axes)[len(shown) :]:
        axes.set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=144)
    return write_atomic(Path(path), content.getvalue())


def _heading(measure: Mapping[str, Any]) -> str:
    better = "↑" if measure["better"] == "higher" else "↓"
    unit = f", {measure['unit']}" if measure["unit"] else ""
    return f"{measure['title']}{unit} {better}"


def _with_interval(row: Mapping[str, Any], sign: str = "") -> str:
    if row["upper"] is None:
        return _number(row["mean"], sign)
    half = row["upper"] - row["mean"]
    decimals = _decimals(max(abs(row["mean"]), half))
    return f"{row['mean']:{sign}.{decimals}f} ± {half:.{decimals}f}"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    """Decimals that show three or four digits, and never more than three decimals."""
    return 3 if abs(value) < 2 else 2 if abs(value) < 20 else 1 if abs(value) < 200 else 0


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")
