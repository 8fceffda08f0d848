"""Results as text: Markdown for documents, rich tables for the terminal.

A result of `benchmark` or `copy_synthesis` becomes a `Report` by the function of that name. Nothing
is measured here.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocoder.atomic import write_atomic

from .results import Result

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

Row = Mapping[str, Any]


def markdown(
    headings: Sequence[str], rows: Sequence[Sequence[str]], text: Collection[int] = (0,)
) -> str:
    """A Markdown table; the columns whose numbers are in ``text`` hold text, the others figures."""
    rule = ["---" if index in text else "---:" for index in range(len(headings))]
    lines = ([cell.replace("|", "\\|") for cell in row] for row in [headings, rule, *rows])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(frozen=True)
class Table:
    """A title, headings, and cells as text; the first column is words, the others are figures."""

    title: str
    headings: Sequence[str]
    cells: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table without its title."""
        return markdown(self.headings, self.cells)

    def turned(self) -> Table:
        """The same with lines and columns exchanged."""
        names, *lines = zip(self.headings, *self.cells, strict=True)
        return Table(self.title, names, lines)


@dataclass(frozen=True)
class Report:
    """What is shown of a result: tables, and a caption that says what the figures are."""

    tables: Sequence[Table]
    caption: str
    turned: bool = False
    """Whether the terminal shows the tables turned."""

    def markdown(self) -> str:
        """A document with a section for each table."""
        first, *others = self.tables
        blocks = [f"## {first.title}", self.section()]
        for table in others:
            blocks += [f"## {table.title}", table.markdown()]
        return "\n\n".join(blocks) + "\n"

    def section(self) -> str:
        """The first table and the caption, for a place in another document."""
        return self.tables[0].markdown() + "\n\n" + self.caption.replace("*", r"\*")

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write `markdown` to a file. Returns the path."""
        return write_atomic(Path(path), self.markdown().encode())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich import box
        from rich.table import Table as Rendered
        from rich.text import Text

        for table in self.tables:
            shown = table.turned() if self.turned else table
            rendered = Rendered(title=shown.title, title_justify="left", box=box.SIMPLE_HEAD)
            for index, heading in enumerate(shown.headings):
                rendered.add_column(Text(heading), justify="right" if index else "left")
            for cells in shown.cells:
                rendered.add_row(*map(Text, cells))
            yield rendered
        yield Text(self.caption)


# -- speed -----------------------------------------------------------------------------------------


def benchmark(result: Result) -> Report:
    """A result of `vocoder.evaluation.benchmark`, the fastest first (by the median over workloads).

    A star marks speeds measured on less audio. The device is named if there are several.
    """
    machine = result["machine"]
    several = len({row["device"] for row in result["rows"]}) > 1
    systems: dict[str, dict[str, Row]] = {}  # name -> workload ("5 s", "16 × 1 s") -> row
    for row in result["rows"]:
        length = f"{row['audio_seconds']:g} s"
        name = f"{row['name']} ({row['device']})" if several else row["name"]
        label = length if row["batch"] == 1 else f"{row['batch']} × {length}"
        systems.setdefault(name, {})[label] = row

    def speed(name: str) -> float:
        return statistics.median(row["samples_per_second"] for row in systems[name].values())

    labels = list(dict.fromkeys(label for rows in systems.values() for label in rows))
    cells = []
    for name in sorted(systems, key=speed, reverse=True):
        rows = systems[name]
        row = next(iter(rows.values()))
        spread = max(r["seconds_spread"] / r["seconds_median"] for r in rows.values())
        cells.append(
            [
                name,
                f"{row['parameters'] / 1e6:.2f}M" if row["parameters"] else "–",
                _two_digits(row["gmac_per_audio_second"]),
                *(_times_real_time(rows[label]) for label in labels if label in rows),
                f"{50 * spread:.0f} %",
                f"{_two_digits(1000 * row['first_audio_seconds'])} ms",
            ]
        )
    where = ", ".join(str(machine[key]) for key in ("cpu", "gpu") if machine[key])
    threads = max([row["threads"] for row in result["rows"]], default=1)
    caption = (
        "Times real time (seconds of audio per second of computing), more is faster; * on less "
        f"audio. Medians of {machine['rounds']} rounds; ±: half the interquartile range, of the "
        "workload where it is largest. First audio: computing alone, once the mel that it needs is "
        "there. GMAC/s: 1e9 multiply-accumulates of matrix products and convolutions per second of "
        f"audio. {where}, {machine['cores']} cores, {_threads(threads)}, PyTorch "
        f"{machine['torch']}, {machine['date']}."
    )
    if machine["left_out"]:
        caption += f" Left out: {', '.join(machine['left_out'])}."
    headings = ["vocoder", "parameters", "GMAC/s", *labels, "±", "first audio"]
    return Report([Table("Speed", headings, cells)], caption)


def _times_real_time(row: Row) -> str:
    scaled = row["measured_audio_seconds"] < row["batch"] * row["audio_seconds"]
    return _two_digits(row["times_real_time"]) + "*" * scaled


def _threads(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'}"


def _two_digits(value: float) -> str:
    """Two significant digits, three from 100 on."""
    decimals = max(0, 1 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{decimals}f}"


# -- copy synthesis --------------------------------------------------------------------------------


def copy_synthesis(result: Result) -> Report:
    """A result of `vocoder.evaluation.copy_synthesis`: totals, and paired differences."""
    measures, about, machine = result["measures"], result["about"], result["about"]["machine"]
    headings = ["", *map(heading, measures.values())]
    bounds = [n for n, facts in about["models"].items() if facts["likelihood"] == "lower bound"]

    def cells(rows: Mapping[str, Row], sign: str = "") -> list[list[str]]:
        found = []
        for name, row in rows.items():
            texts = {key: with_interval(row[key], sign) for key in measures}
            if name in bounds and "log_likelihood" in texts and not sign:
                texts["log_likelihood"] = f"≥ {texts['log_likelihood']}"
            found.append([name, *texts.values()])
        return found

    tables = [Table("Copy synthesis", headings, cells(result["rows"]))]
    if result["differences"]:
        title = f"Paired differences, {next(iter(about['models']))} less"
        tables.append(Table(title, headings, cells(result["differences"], "+")))
    own = {facts["temperature"] for facts in about["models"].values()}
    temperature = f"temperature {own.pop():g}" if len(own) == 1 else "each model's temperature"
    sentences = [
        f"Copy synthesis of {len(result['files'])} recordings at {temperature}, seed "
        f"{about['seed']}: means and {100 * about['confidence']:g} % confidence intervals "
        f"({about['interval']}); ↑ more is better, ↓ less is. Log-likelihood: of audio in [-1, 1], "
        f"dequantised from 16 bits. Speed: "
        f"{machine['gpu'] if about['device'] == 'cuda' else machine['cpu']}, "
        f"{_threads(about['threads'])}, PyTorch {machine['torch']}, {machine['date']}."
    ]
    if bounds and "log_likelihood" in measures:
        sentences.append(f"≥: only a lower bound of it is known ({', '.join(bounds)}).")
    for reason, names in (("Left out, not installed", "left_out"), ("Skipped", "skipped")):
        if result[names]:
            sentences.append(f"{reason}: {', '.join(result[names])}.")
    return Report(tables, " ".join(sentences), turned=True)


def heading(measure: Row) -> str:
    """Title, unit and direction of a measure, as in "PESQ, MOS ↑"."""
    better = "↑" if measure["better"] == "higher" else "↓"
    unit = f", {measure['unit']}" if measure["unit"] else ""
    return f"{measure['title']}{unit} {better}"


def with_interval(row: Row, sign: str = "") -> str:
    """An `estimate`: the mean and half its interval, in three or four digits."""
    if row["mean"] is None:
        return "–"
    half = 0 if row["upper"] is None else row["upper"] - row["mean"]
    largest = max(abs(row["mean"]), half)
    decimals = 3 if largest < 2 else 2 if largest < 20 else 1 if largest < 200 else 0
    mean = f"{row['mean']:{sign}.{decimals}f}"
    return mean if row["upper"] is None else f"{mean} ± {half:.{decimals}f}"
