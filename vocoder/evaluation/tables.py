"""Results as text: Markdown for documents, rich tables for the terminal.

A result of `benchmark`, `copy_synthesis` or `recognition` becomes a `Report` by the function of
that name; pictures are in `vocoder.evaluation.plots`. Nothing is measured here.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocoder.atomic import write_atomic

from .copy_synthesis import MEASURES
from .results import Result

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

Estimate = Mapping[str, Any]
"""mean, lower, upper and n, see `vocoder.evaluation.estimates`."""

LIKELIHOOD = "log_likelihood"
"""The measure that is only a lower bound for some families."""


@dataclass(frozen=True)
class Table:
    """Headings and cells as text.

    Attributes:
        title: heading above the table.
        headings, cells: a row of cells for each line.
        labels: how many of the first columns are words; the others are figures.
        terminal: how the terminal shows it: "lines" as it is, "columns" with a column for each
            line, "" not at all (too long).
    """

    title: str
    headings: Sequence[str]
    cells: Sequence[Sequence[str]]
    labels: int = 1
    terminal: str = "lines"

    def markdown(self) -> str:
        """The table without its title."""
        figures = len(self.headings) - self.labels
        lines = [self.headings, ["---"] * self.labels + ["---:"] * figures]
        lines += [[cell.replace("|", r"\|") for cell in line] for line in self.cells]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def turned(self) -> Table:
        """The same with lines and columns exchanged."""
        names, *lines = zip(self.headings, *self.cells, strict=True)
        return Table(self.title, names, lines)


@dataclass(frozen=True)
class Report:
    """What is shown of a result: tables, a caption that says what the figures are, and notes."""

    tables: Sequence[Table]
    caption: str
    notes: Sequence[str] = ()
    """Blocks of Markdown at the end, not shown in the terminal."""

    def markdown(self) -> str:
        """A document with a section for each table."""
        first, *others = self.tables
        blocks = [f"## {first.title}", self.section()]
        for table in others:
            blocks += [f"## {table.title}", table.markdown()]
        return "\n\n".join([*blocks, *self.notes]) + "\n"

    def section(self) -> str:
        """The first table and the caption, for a place in another document."""
        return self.tables[0].markdown() + "\n\n" + self.caption.replace("*", r"\*")

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write `markdown` to a file. Returns the path."""
        return write_atomic(Path(path), self.markdown().encode())

    def render(self) -> RenderableType:
        """For the terminal (rich)."""
        from rich.console import Group
        from rich.text import Text

        kept = [t.turned() if t.terminal == "columns" else t for t in self.tables if t.terminal]
        return Group(*map(_InBlocks, kept), Text(self.caption))


class _InBlocks:
    """A table for the terminal: columns that do not fit its width go on below, with the labels."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        labels = list(range(self.table.labels))
        columns: list[int] = []
        anything = options.update(max_width=10_000)
        for column in range(self.table.labels, len(self.table.headings)):
            wider = console.measure(self._columns([*labels, *columns, column]), options=anything)
            if columns and wider.minimum > options.max_width:
                yield self._columns([*labels, *columns])
                columns = []
            columns.append(column)
        yield self._columns([*labels, *columns])

    def _columns(self, columns: Sequence[int]) -> RenderableType:
        from rich import box
        from rich.table import Table as Rendered
        from rich.text import Text

        rendered = Rendered(
            title=self.table.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        for index in columns:
            words = index < self.table.labels  # which may wrap; figures keep their digits
            cells = [line[index] for line in self.table.cells]
            parts = [part for cell in cells for part in (cell.split() if words else [cell])]
            parts += self.table.headings[index].split()
            rendered.add_column(
                Text(self.table.headings[index]),
                justify="left" if words else "right",
                min_width=max(map(len, parts), default=0),
                # rich narrows what may wrap first, below its min_width too.
                no_wrap=not words and " " not in self.table.headings[index],
            )
        for line in self.table.cells:
            rendered.add_row(*(Text(line[index]) for index in columns))
        return rendered


# -- speed -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The rows of one system on one device, by their workload ("5 s", "16 × 1 s")."""

    label: str
    """The name, with the device if there are several."""
    rows: Mapping[str, Mapping[str, Any]]


def lines(result: Result) -> list[Line]:
    """A benchmark result by system, the fastest first (by the median speed over its workloads)."""
    grouped: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in result["rows"]:
        length = f"{row['audio_seconds']:g} s"
        label = length if row["batch"] == 1 else f"{row['batch']} × {length}"
        grouped.setdefault((row["name"], row["device"]), {})[label] = row
    several = len({device for _, device in grouped}) > 1
    found = [
        Line(f"{name} ({device})" if several else name, rows)
        for (name, device), rows in grouped.items()
    ]

    def speed(line: Line) -> float:
        return statistics.median(row["samples_per_second"] for row in line.rows.values())

    return sorted(found, key=speed, reverse=True)


def is_scaled(row: Mapping[str, Any]) -> bool:
    """Whether a row was measured on less audio than its workload."""
    return bool(row["measured_audio_seconds"] < row["batch"] * row["audio_seconds"])


def benchmark(result: Result) -> Report:
    """A result of `vocoder.evaluation.benchmark`; a star marks speeds measured on less audio."""
    found = lines(result)
    labels = list(dict.fromkeys(label for line in found for label in line.rows))
    headings = ["vocoder", "weights", "parameters", "GMAC/s", *labels]
    headings += ["±", "roofline", "first audio", "memory"]
    cells = []
    for line in found:
        row = next(iter(line.rows.values()))
        memory = row["peak_memory_bytes"]
        spread = max(r["seconds_spread"] / r["seconds_median"] for r in line.rows.values())
        cells.append(
            [
                line.label,
                row["weights"],
                f"{row['parameters'] / 1e6:.2f}M" if row["parameters"] else "–",
                _two_digits(row["gmac_per_audio_second"]),
                *(_speed(line.rows[label]) if label in line.rows else "–" for label in labels),
                f"{50 * spread:.0f} %",
                _roofline(line),
                f"{_two_digits(1000 * row['first_audio_seconds'])} ms",
                "–" if memory is None else f"{memory / 2**20:.0f} MiB",
            ]
        )
    caption = _benchmark_caption(result, labels[0] if labels else "–")
    return Report([Table("Speed", headings, cells, labels=2)], caption)


def _benchmark_caption(result: Result, first_label: str) -> str:
    machine = result["machine"]
    threads = sorted({row["threads"] for row in result["rows"]})
    where = ", ".join(str(machine[key]) for key in ("cpu", "gpu") if machine[key])
    products = ", ".join(
        f"{_two_digits(speed)} GMAC/s in {dtype} ({device})"
        for device, speeds in machine["matmul_gmac_per_second"].items()
        for dtype, speed in speeds.items()
    )
    text = (
        "Times real time (seconds of audio per second of computing), more is faster; * on less "
        f"audio. Medians of {machine['rounds']} rounds; ±: half the interquartile range, of the "
        "workload where it is largest. First audio (computing alone, once the mel that it needs is "
        f"there) and memory: at {first_label}. GMAC/s: 1e9 multiply-accumulates per second of "
        "audio. Roofline: multiply-accumulates achieved per second of computing over those of a "
        f"plain matrix product, {products or '–'}. {where}, {machine['cores']} cores, "
        f"{' or '.join(map(str, threads))} {'thread' if threads == [1] else 'threads'}, "
        f"PyTorch {machine['torch']}, {machine['date']}."
    )
    left_out = machine["left_out"]
    return text + (f" Left out: {', '.join(left_out)}." if left_out else "")


def _speed(row: Mapping[str, Any]) -> str:
    return _two_digits(row["times_real_time"]) + ("*" if is_scaled(row) else "")


def _roofline(line: Line) -> str:
    """Least and largest fraction of a plain matrix product, in percent."""
    found = [row["roofline"] for row in line.rows.values()]
    least, most = _two_digits(100 * min(found)), _two_digits(100 * max(found))
    return f"{least} %" if least == most else f"{least}–{most} %"


def _two_digits(value: float) -> str:
    """Two significant digits, three from 100 on."""
    decimals = max(0, 1 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{decimals}f}"


# -- copy synthesis --------------------------------------------------------------------------------


def copy_synthesis(result: Result) -> Report:
    """A result of `vocoder.evaluation.copy_synthesis`: totals, paired differences, recordings."""
    measures = result["measures"]
    headings = [heading(measure) for measure in measures.values()]
    first = next(iter(result["about"]["models"]))
    bounds = _bounds(result)

    def shown(name: str, key: str, text: str) -> str:
        return f"≥ {text}" if key == LIKELIHOOD and name in bounds else text

    totals = [
        [name, *(shown(name, key, with_interval(row[key])) for key in measures)]
        for name, row in result["rows"].items()
        if any(row[key]["n"] for key in measures)
    ]
    differences = [
        [f"{first} – {other}", *(with_interval(row[key], "+") for key in measures)]
        for other, row in result["differences"].items()
    ]
    recordings = [
        [
            file["file"],
            f"{file['seconds']:.1f}",
            *(shown(first, key, _number(file["values"][first][key])) for key in measures),
        ]
        for file in result["files"]
    ]
    found = [Table("Copy synthesis", ["", *headings], totals, terminal="columns")]
    if differences:
        found.append(Table("Paired differences", ["", *headings], differences, terminal="columns"))
    columns = ["recording", "seconds", *headings]
    found.append(Table(f"Recordings, {first}", columns, recordings, terminal=""))
    return Report(found, _copy_synthesis_caption(result))


def _bounds(result: Result) -> list[str]:
    """The rows whose log-likelihood is a lower bound."""
    models = result["about"]["models"]
    return [name for name, facts in models.items() if facts.get("likelihood") == "lower bound"]


def _copy_synthesis_caption(result: Result) -> str:
    about = result["about"]
    machine = about["machine"]
    seconds = sum(file["seconds"] for file in result["files"])
    where = machine["gpu"] if about["device"] == "cuda" else machine["cpu"]
    threads = about["threads"]
    own = {name: facts.get("temperature") for name, facts in about["models"].items()}
    temperature = f"temperature {about['temperature']:g}"
    if len(set(own.values())) > 1:
        temperature = "temperatures " + ", ".join(f"{t:g} ({name})" for name, t in own.items())
    sentences = [
        f"Copy synthesis of {len(result['files'])} recordings ({seconds:.0f} s) at {temperature}, "
        f"seed {about['seed']}: means and {100 * about['confidence']:g} % confidence intervals "
        f"({about['interval']}); ↑ more is better, ↓ less is.",
        "Log-likelihood: of audio in [-1, 1], dequantised from 16 bits.",
        f"Speed: {where}, {threads} {'thread' if threads == 1 else 'threads'}, "
        f"PyTorch {machine['torch']}, {machine['date']}.",
    ]
    bounds = _bounds(result)
    if bounds and LIKELIHOOD in result["measures"]:
        sentences.insert(2, f"≥: only a lower bound of it is known ({', '.join(bounds)}).")
    if result["left_out"]:
        titles = [MEASURES[name].title for name in result["left_out"]]
        sentences.append(f"Left out, not installed: {', '.join(titles)}.")
    if result["skipped"]:
        sentences.append(f"Skipped: {', '.join(result['skipped'])}.")
    return " ".join(sentences)


def heading(measure: Mapping[str, Any]) -> str:
    """Title, unit and direction of a measure, as in "MCD, dB ↓"."""
    better = "↑" if measure["better"] == "higher" else "↓"
    unit = f", {measure['unit']}" if measure["unit"] else ""
    return f"{measure['title']}{unit} {better}"


def with_interval(row: Estimate, sign: str = "") -> str:
    """A mean and half its interval."""
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


# -- recognition -----------------------------------------------------------------------------------


def recognition(result: Result) -> Report:
    """A result of `vocoder.evaluation.recognition`: a line for each row, in percent."""
    headings = ["", "word error rate, %", "less the recording's"]
    headings += ["substituted", "left out", "added"]
    cells = []
    for name, row in result["rows"].items():
        difference = result["differences"].get(name)
        cells.append(
            [
                name,
                _percent(row["word_error_rate"]),
                "" if difference is None else _percent(difference, "+"),
                *(str(row[kind]) for kind in ("substitutions", "deletions", "insertions")),
            ]
        )
    notes = ["## What was heard"]
    for sentence in result["sentences"]:
        heard = [
            f"- {name} ({sentence[name]['errors']} of {sentence['words']}): "
            f"{sentence[name]['heard'] or '(nothing)'}"
            for name in result["rows"]
        ]
        notes.append("\n".join([f"{sentence['id']}: {sentence['text']}", "", *heard]))
    table = Table("Word error rate", headings, cells)
    return Report([table], _recognition_caption(result), notes)


def _recognition_caption(result: Result) -> str:
    about = result["about"]
    recogniser = about["recogniser"]
    settings = ", ".join(f"{name} {value}" for name, value in recogniser["settings"].items())
    words = next(iter(result["rows"].values()))["words"]
    voice = f", ids {about['prefix']}*" if about["prefix"] else ""
    return (
        f"{len(result['sentences'])} sentences ({words} words) of {about['corpus']}{voice} that "
        f"were kept from training, as {recogniser['name']} {recogniser['version']} "
        f"({recogniser['model']}, {settings}) hears them; "
        f"lower is better. Temperature {about['temperature']:g} (vocoder) and "
        f"{about['acoustic_temperature']:g} (acoustic model), seed {about['seed']}. "
        f"{100 * about['confidence']:g} % intervals: {about['interval']}. "
        f"{about['machine']['date']}."
    )


def _percent(row: Estimate, sign: str = "") -> str:
    mean = f"{100 * row['mean']:{sign}.1f}"
    if row["lower"] is None:
        return mean
    return f"{mean} ({100 * row['lower']:{sign}.1f} to {100 * row['upper']:{sign}.1f})"
