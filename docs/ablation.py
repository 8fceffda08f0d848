"""Writes the tables and the picture of a study of variants from ablation/<study>.json.

    python docs/ablation.py frames [--folder docs]

recipes/ljspeech/ablation/run.py measures, writes that file and calls this. ablation.md is made if
it is not there; of one that is, only what stands between the markers changes, and tables.py does
that too.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import filling
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vocoder.atomic import write_atomic
from vocoder.evaluation import METRICS
from vocoder.evaluation.copy_synthesis import estimate

DOCS = Path(__file__).parent
BASE = "base"
QUALITY = ("log_likelihood", "stoi", "pesq", "log_mel_distance")
TITLES = {
    "log_likelihood": "log-likelihood",
    **{name: METRICS[name].title for name in QUALITY[1:]},
}
DECIMALS = {"log_likelihood": 3, "stoi": 3, "pesq": 2, "log_mel_distance": 3}
TONES = (
    " Tone excess: how far tones at multiples of half the frame rate stand out of the mean "
    "spectrum of all test utterances."
)
PAGE = """# What was tried: variants of the flow

Every variant is a file of [recipes/ljspeech/ablation](../recipes/ljspeech/ablation) that states its
difference from the base of its study. All of a study were trained for the same time on the same
speech and are judged by copy synthesis of the same held-out test utterances.

<!-- {study}:begin -->
<!-- {study}:end -->

![quality against cost](ablation/{study}.png)

## The spectral term: its price in nats and what it buys

<!-- {study}-objective:begin -->
<!-- {study}-objective:end -->

## Temperature, and temperature by band, of the base

<!-- {study}-temperature:begin -->
<!-- {study}-temperature:end -->
"""


def mean(row: Mapping[str, Any], measure: str) -> float | None:
    """Mean over the test utterances that have a value."""
    values = [item[measure] for item in row["test"] if item.get(measure) is not None]
    return statistics.fmean(values) if values else None


def paired(row: Mapping[str, Any], other: Mapping[str, Any], measure: str) -> list[float]:
    """Differences, `row` less `other`, of the utterances that both have a value for."""
    values = {item["utterance"]: item.get(measure) for item in other["test"]}
    return [
        item[measure] - values[item["utterance"]]
        for item in row["test"]
        if item.get(measure) is not None and values.get(item["utterance"]) is not None
    ]


def ordered(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs, best first: by PESQ, or by STOI where PESQ was not installed."""
    runs = list(result["runs"])
    by = "pesq" if all(mean(run, "pesq") is not None for run in runs) else "stoi"
    return sorted(runs, key=lambda run: mean(run, by) or 0.0, reverse=True)


def base_of(runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The run that the others are compared with, once it is there."""
    return next((run for run in runs if run["name"] == BASE), None)


def ablation_table(result: Mapping[str, Any]) -> str:
    """All variants, with their paired differences from the base, and what failed."""
    runs = ordered(result)
    base = base_of(runs)
    shown = measured(runs)
    headings = ["variant", "change", "parameters", "GMAC/s", "steps", "audio seen"]
    headings += [f"{TITLES[name]}" for name in shown]
    # The first study was made before this was measured.
    tones = any("tone_excess_db" in run for run in runs)
    headings += ["tone excess"] * tones + ["× real time", "look-ahead"]
    lines = []
    for run in runs:
        cells = [name_of(run), change(run), f"{run['parameters'] / 1e6:.1f}M"]
        cells += [f"{run['gmac_per_audio_second']:.2f}", f"{run['steps']:,}"]
        cells.append(f"{run['audio_seconds']:,.0f} s")
        cells += [with_difference(run, base, name) for name in shown]
        if tones:
            excess = run.get("tone_excess_db")
            cells.append("" if excess is None else f"{excess:.1f} dB")
        cells += [f"{run['times_real_time_per_core']:.0f}", str(run["look_ahead_frames"])]
        lines.append(cells)
    for failure in result["failures"]:
        blank = [""] * (len(headings) - 3)
        lines.append([name_of(failure), f"failed: {failure['message']}", *blank, ""])
    return markdown(headings, lines, 2) + "\n\n" + caption(runs)


def caption(runs: Sequence[Mapping[str, Any]]) -> str:
    """What the figures of the table are and were measured on."""
    first = runs[0]
    settings, facts = first["settings"], first["facts"]
    shares = [run["processor_seconds"] / run["wall_seconds"] for run in runs]
    commits = sorted({run["facts"].get("commit", "unknown") for run in runs})
    return (
        f"{facts['data']}. {facts['hardware']}; {settings['minutes']:g} minutes of processor time "
        f"for each, validation included ({min(shares):.0%} to {max(shares):.0%} of the time by the "
        f"clock), {facts['precision']}; commit {', '.join(commits)}. Copy synthesis of "
        f"{len(first['test'])} test utterances at temperature {first['temperature']:g}; in "
        "brackets the mean paired difference from the base with its 95 % interval over "
        "utterances. That leaves the chance of training aside: for it compare seed-1 with base. "
        "Log-likelihood in nats per sample of 16-bit audio in [-1, 1], dequantised; GMAC/s: 1e9 "
        "multiply-accumulates per second of audio; × real time: on one core, beside whatever else "
        "it was doing; look-ahead in mel frames."
        + (TONES if any("tone_excess_db" in run for run in runs) else "")
    )


def objective_table(result: Mapping[str, Any]) -> str:
    """What each weight of the spectral term costs in likelihood, and what it buys."""
    runs = [
        run
        for run in result["runs"]
        if set(run["difference"]) <= {"objective.class_path", "objective.init_args.weight"}
    ]
    likelihood = next((run for run in runs if spectral_weight(run) == 0), None)
    if likelihood is None:
        return "Not measured yet: it needs the variant `likelihood`."
    shown = measured(runs)
    headings = ["spectral weight", "steps", "price, nats per sample"]
    headings += [TITLES[name] for name in shown]
    lines = []
    for run in sorted(runs, key=spectral_weight):
        price = estimate([-value for value in paired(run, likelihood, "log_likelihood")])
        text = "" if run is likelihood else interval(price, 3, "")
        cells = [f"{spectral_weight(run):g}", f"{run['steps']:,}", text]
        for name in shown:
            other = None if name == "log_likelihood" else likelihood  # the price says it
            cells.append(with_difference(run, other, name))
        lines.append(cells)
    return markdown(headings, lines, 0)


def spectral_weight(run: Mapping[str, Any]) -> float:
    """Of the spectral term; 0 for likelihood alone."""
    arguments = run["objective"].get("init_args") or {}
    return float(arguments.get("weight", 0))


def temperature_table(result: Mapping[str, Any]) -> str:
    """The base at several temperatures, and with factors by band."""
    rows = result["temperatures"]
    if not rows:
        return "Not measured yet."
    shown = [name for name in measured(rows) if name != "log_likelihood"]
    lines = []
    for row in rows:
        curve = row["band_temperature"]
        factors = "1" if curve is None else " → ".join(f"{factor:g}" for factor in curve)
        cells = [f"{row['temperature']:g}", factors]
        lines.append([*cells, *(with_difference(row, None, name) for name in shown)])
    return markdown(
        ["temperature", "factor, low to high bands", *(TITLES[n] for n in shown)], lines, 0
    )


def measured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The measures of quality that any row has a value of."""
    return [name for name in QUALITY if any(mean(row, name) is not None for row in rows)]


def with_difference(row: Mapping[str, Any], other: Mapping[str, Any] | None, measure: str) -> str:
    """A mean, and in brackets the paired difference from another row."""
    value = mean(row, measure)
    if value is None:
        return ""
    text = f"{value:.{DECIMALS[measure]}f}"
    if other is None or other is row:
        return text
    return f"{text} ({interval(estimate(paired(row, other, measure)), DECIMALS[measure], '+')})"


def interval(found: Mapping[str, Any], decimals: int, sign: str) -> str:
    """A mean and half the length of its interval."""
    if found["mean"] is None:
        return "–"
    text = f"{found['mean']:{sign}.{decimals}f}"
    if found["upper"] is None:
        return text
    return f"{text} ± {found['upper'] - found['mean']:.{decimals}f}"


def name_of(run: Mapping[str, Any]) -> str:
    """A variant's name, with a link to its file."""
    folder = f"../recipes/ljspeech/ablation/{run['settings']['study']}"
    if run["name"] == BASE:
        return f"**[{BASE}]({folder}/study.yaml)**"
    return f"[{run['name']}]({folder}/{run['name']}.yaml)"


def change(run: Mapping[str, Any]) -> str:
    """What a variant changes, in the words of its options."""
    parts = []
    for key, value in run["difference"].items():
        option = key.rpartition(".")[2]
        if option == "class_path":
            parts.append(value.rpartition(".")[2])
        else:
            words = ", ".join(map(str, value)) if isinstance(value, list) else value
            parts.append(f"{option} {words}")
    return "; ".join(parts)


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]], text_columns: int) -> str:
    """A Markdown table whose first columns are text and the others numbers."""
    rule = ["---" if index < text_columns else "---:" for index in range(len(headings))]
    rows = ([cell.replace("|", "\\|") for cell in line] for line in [headings, rule, *lines])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def picture(result: Mapping[str, Any]) -> bytes:
    """A PNG: every measure against cost, and below it the paired differences from the base."""
    runs = ordered(result)
    base = base_of(runs)
    shown = measured(runs)
    below = 0.8 + 0.24 * len(runs)
    figure = Figure(figsize=(3.4 * len(shown) + 1.4, 3.4 + below), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(shown), squeeze=False, height_ratios=[3.4, below])
    for column, name in enumerate(shown):
        cost, differences = panels[:, column]
        for index, run in enumerate(runs):
            style = {"color": f"C{index % 10}", "marker": "osD^v<>PX"[index // 10 % 9]}
            if run is base:
                style = {"color": "black", "marker": "*", "markersize": 13}
            cost.plot(run["gmac_per_audio_second"], mean(run, name), linestyle="", **style)
            if base is None or (found := estimate(paired(run, base, name)))["mean"] is None:
                continue
            half = 0 if found["upper"] is None else found["upper"] - found["mean"]
            differences.errorbar(found["mean"], -index, xerr=half, linestyle="", **style)
        better = "lower" if name == "log_mel_distance" else "higher"
        cost.set_title(f"{TITLES[name]} ({better} is better)", fontsize="medium")
        cost.set_xlabel("GMAC per second of audio")
        cost.margins(0.12)
        differences.axvline(0, color="0.6", linewidth=0.8)
        differences.set_xlabel("difference from the base, 95 %")
        differences.set_yticks(range(0, -len(runs), -1), [run["name"] for run in runs])
        differences.set_ylim(0.7 - len(runs), 0.7)
        if column:
            differences.tick_params(labelleft=False)
        for axes in (cost, differences):
            axes.locator_params(axis="x", nbins=5)
            axes.grid(color="0.92")
            axes.set_axisbelow(True)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def tables(study: str) -> filling.Tables:
    """The tables of a study, whose files are found from the folder of the documents."""
    made = {"": ablation_table, "-objective": objective_table, "-temperature": temperature_table}
    return {f"{study}{ending}": (f"ablation/{study}.json", make) for ending, make in made.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Write the tables of a study of variants.")
    parser.add_argument("study", help="whose ablation/<study>.json is in the folder")
    parser.add_argument("--folder", type=Path, default=DOCS, help="of ablation.md and ablation/")
    given = parser.parse_args()
    page, study = given.folder / "ablation.md", given.study
    text = page.read_text(encoding="utf-8") if page.exists() else PAGE.format(study=study)
    write_atomic(page, filling.filled(text, tables(study), given.folder).encode())
    result = json.loads((given.folder / "ablation" / f"{study}.json").read_text(encoding="utf-8"))
    write_atomic(given.folder / "ablation" / f"{study}.png", picture(result))


if __name__ == "__main__":
    main()
