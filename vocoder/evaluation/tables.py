"""Results as Markdown, for documents and for the terminal. Nothing is measured here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .results import Result

Row = Mapping[str, Any]


def markdown(
    headings: Sequence[str], rows: Sequence[Sequence[str]], text: Collection[int] = (0,)
) -> str:
    """A Markdown table; the columns whose numbers are in ``text`` hold text, the others figures."""
    rule = ["---" if index in text else "---:" for index in range(len(headings))]
    lines = ([cell.replace("|", "\\|") for cell in row] for row in [headings, rule, *rows])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def benchmark(result: Result) -> str:
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
        size = f"{row['parameters'] / 1e6:.2f}M" if row["parameters"] else "–"
        speeds = [_times_real_time(rows[label]) for label in labels if label in rows]
        spread = max(r["seconds_spread"] / r["seconds_median"] for r in rows.values())
        first = f"{two_digits(1000 * row['first_audio_seconds'])} ms"
        macs = two_digits(row["gmac_per_audio_second"])
        cells.append([name, size, macs, *speeds, f"{50 * spread:.0f} %", first])
    where = ", ".join(str(machine[key]) for key in ("cpu", "gpu") if machine[key])
    threads = max([row["threads"] for row in result["rows"]], default=1)
    caption = (
        r"Times real time (seconds of audio per second of computing), more is faster; \* on less "
        f"audio. Medians of {machine['rounds']} rounds; ±: half the interquartile range, of the "
        "workload where it is largest. First audio: computing alone, once the mel that it needs is "
        "there. GMAC/s: 1e9 multiply-accumulates of matrix products and convolutions per second of "
        f"audio. {where}, {machine['cores']} cores, {_threads(threads)}, PyTorch "
        f"{machine['torch']}, {machine['date']}."
    )
    if machine["left_out"]:
        caption += f" Left out: {', '.join(machine['left_out'])}."
    headings = ["vocoder", "parameters", "GMAC/s", *labels, "±", "first audio"]
    return f"{markdown(headings, cells)}\n\n{caption}"


def _times_real_time(row: Row) -> str:
    scaled = row["measured_audio_seconds"] < row["batch"] * row["audio_seconds"]
    return two_digits(row["times_real_time"]) + "*" * scaled


def _threads(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'}"


def two_digits(value: float) -> str:
    """Two significant digits, three from 100 on."""
    decimals = max(0, 1 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{decimals}f}"


def copy_synthesis(result: Result) -> str:
    """A result of `vocoder.evaluation.copy_synthesis`: means, and paired differences."""
    parts = ["## Copy synthesis", scores(result), caption(result)]
    if result["differences"]:
        judged = next(iter(result["about"]["models"]))
        parts += [f"## Paired differences, {judged} less", scores(result, "differences")]
    return "\n\n".join(parts) + "\n"


def scores(result: Result, part: str = "rows") -> str:
    """The means, or the "differences", of a result: a line for each measure."""
    bounds = _bounds(result) if part == "rows" else []
    lines = []
    for key, measure in result["measures"].items():
        cells = [heading(measure)]
        for name, row in result[part].items():
            text = with_interval(row[key], "" if part == "rows" else "+")
            cells.append(f"≥ {text}" if key == "log_likelihood" and name in bounds else text)
        lines.append(cells)
    return markdown(["", *result[part]], lines)


def _bounds(result: Result) -> list[str]:
    models = result["about"]["models"]
    return [name for name, facts in models.items() if facts["likelihood"] == "lower bound"]


def caption(result: Result) -> str:
    """What the figures of a result are."""
    about, machine, bounds = result["about"], result["about"]["machine"], _bounds(result)
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
    if bounds and "log_likelihood" in result["measures"]:
        sentences.append(f"≥: only a lower bound of it is known ({', '.join(bounds)}).")
    for reason, names in (("Left out, not installed", "left_out"), ("Skipped", "skipped")):
        if result[names]:
            sentences.append(f"{reason}: {', '.join(result[names])}.")
    return " ".join(sentences)


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
