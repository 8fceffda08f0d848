"""Writes what was measured into the documents, so that no figure is typed in by hand.

    python docs/tables.py           writes the tables anew
    python docs/tables.py --check   says whether they are up to date, and changes nothing

A table stands between two comments, <!-- benchmark:begin --> and <!-- benchmark:end -->, and comes
from docs/benchmark.json, which `vocoder benchmark` writes; the others likewise, see TABLES.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ablation
import filling

from vocoder.atomic import write_atomic
from vocoder.evaluation import tables as reports

ROOT = Path(__file__).parents[1]


def benchmark_table(result: Mapping[str, Any]) -> str:
    """The result of `vocoder benchmark` as Markdown."""
    return reports.benchmark(dict(result)).section()


def runs_table(group: str) -> Callable[[Mapping[str, Any]], str]:
    """What makes Markdown of one group of docs/runs.json."""

    def make(groups: Mapping[str, Any]) -> str:
        rows = groups[group]
        names = list(dict.fromkeys(name for row in rows for name in _means(row["test"])))
        headings = ["model", "parameters", "minutes", "audio seen", "log-likelihood"]
        lines = [[*headings, "log-mel distance", *names], ["---", *["---:"] * (5 + len(names))]]
        for row in rows:
            means = _means(row["test"])
            cells = [
                row["family"],
                f"{row['parameters'] / 1e6:.1f}M",
                f"{row['train_seconds'] / 60:.0f}",
                f"{row['audio_seconds']:,.0f} s",
                _change(row["log_likelihood"]),
                _change(row["mel_distance"]),
            ]
            lines.append([*cells, *(f"{means[n]:.2f}" if n in means else "" for n in names)])
        text = ["| " + " | ".join(line) + " |" for line in lines]
        facts = [f"{rows[0]['data']}; {rows[0]['hardware']}; seed {rows[0]['seed']}."]
        return "\n".join([*text, "", *facts])

    return make


def _change(pair: list[float | None]) -> str:
    return "" if None in pair else " → ".join(f"{value:.3f}" for value in pair)


def _means(test: list[dict[str, Any]]) -> dict[str, float]:
    """The mean over the test utterances of what the columns of the validation do not show."""
    shown = ("STOI", "PESQ")
    values = {name: [row[name] for row in test if row.get(name) is not None] for name in shown}
    return {name: sum(found) / len(found) for name, found in values.items() if found}


def scores_table(totals: Mapping[str, Any]) -> str:
    """docs/scores.json, the scores of the bundled weights, as Markdown."""
    shown = ("pesq", "stoi", "mcd", "log_mel_distance", "f0_rmse", "voicing_f1")
    shown += ("dnsmos", "tone_excess", "log_likelihood")
    measures: dict[str, Any] = {}
    for labels in totals.values():
        for result in labels.values():
            measures |= result["measures"]
    shown = tuple(name for name in shown if name in measures)
    headings = ["weights", "held-out speech", ""]
    headings += [_heading(measures[name]) for name in shown]
    lines = [headings, ["---", "---", "---", *["---:"] * len(shown)]]
    for name, labels in sorted(totals.items()):
        for label, result in labels.items():
            speech = f"{label}, {result['recordings']} recordings"
            for row_name, row in result["rows"].items():
                cells = [_mean(row.get(measure)) for measure in shown]
                who = f"**{row_name}**" if row_name == name else row_name
                lines.append([f"`{name}`", speech, who, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def speech_table(result: Mapping[str, Any]) -> str:
    """The result of `vocoder evaluate-speech` as Markdown."""
    return reports.recognition(dict(result)).section()


def samples_table(groups: Mapping[str, Any]) -> str:
    """docs/samples.json as Markdown: links to the sound, with the scores of each."""
    shown = {"pesq": "PESQ ↑", "stoi": "STOI ↑", "log_mel_distance": "log-mel distance, nats ↓"}
    lines = [["sample", "sound", *shown.values()], ["---", "---", *["---:"] * len(shown)]]
    for name, group in groups.items():
        for row in group["rows"]:
            scores = row.get("scores", {})
            cells = [f"{scores[key]:.2f}" if scores.get(key) is not None else "" for key in shown]
            lines.append([name, f"[{row['name']}](docs/samples/{row['file']})", *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def curve_table(groups: Mapping[str, Any]) -> str:
    """docs/curve.json as Markdown, a table for each run."""
    shown = ("log_likelihood", "log_mel_distance", "stoi", "pesq")
    blocks = []
    for name, group in groups.items():
        headings = ["minutes", "steps", "audio seen"]
        headings += [_heading(group["measures"][measure]) for measure in shown]
        lines = [headings, ["---:"] * len(headings)]
        for point in group["points"]:
            minutes = f"{point['minutes']:.0f}" + (" (end)" if point.get("finished") else "")
            sound = f"[{minutes}](docs/samples/{point['audio']})"
            cells = [sound, f"{point['steps']:,}", f"{point['audio_seconds']:,.0f} s"]
            lines.append([*cells, *(_mean(point[measure]) for measure in shown)])
        reference = [_mean(group["reference"][measure]) for measure in shown]
        lines.append(["Griffin-Lim", "", "", *reference])
        facts = group["facts"]
        where = f"{facts['hardware']}, {facts.get('precision', '')}".removesuffix(", ")
        blocks.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
        blocks.append(
            f"{name}: {facts['data']}. Measured on {len(group['recordings'])} test recordings. "
            f"{where}, seed {facts['seed']}."
        )
    return "\n\n".join(blocks)


def _heading(measure: Mapping[str, Any]) -> str:
    unit = f", {measure['unit']}" if measure["unit"] else ""
    return f"{measure['title']}{unit} {'↑' if measure['better'] == 'higher' else '↓'}"


def _mean(estimate: Mapping[str, Any] | None) -> str:
    """Mean and half the interval (of five values or more), or nothing if nothing was measured."""
    if estimate is None or estimate["mean"] is None:
        return ""
    digits = 0 if abs(estimate["mean"]) >= 20 else 2 if abs(estimate["mean"]) >= 1 else 3
    text = f"{estimate['mean']:.{digits}f}"
    if estimate["upper"] is not None and estimate["n"] >= 5:
        text += f" ± {estimate['upper'] - estimate['mean']:.{digits}f}"
    return text


def engines_table(result: Mapping[str, Any]) -> str:
    """docs/benchmark.json as Markdown: which engine of the default flow is fastest where."""
    rows = result["rows"]
    headings = ["audio at once", "fastest in float32", "× real time", "fastest in any type"]
    headings += ["× real time", "over Vocos, float32", "any type", "over published WaveGlow"]
    lines = [headings, ["---", "---", "---:", "---", *["---:"] * 4]]
    for batch, seconds in dict.fromkeys((row["batch"], row["audio_seconds"]) for row in rows):
        here = {
            row["name"]: row
            for row in rows
            if (row["batch"], row["audio_seconds"]) == (batch, seconds)
        }
        own = [row for name, row in here.items() if name.startswith("MDCT flow")]
        if not own:
            continue
        best = max(own, key=_speed)
        exact = max((row for row in own if row["dtype"] == "float32"), key=_speed)
        rivals = [here.get("Vocos"), here.get("WaveGlow, published")]
        vocos, published = ({} if row is None else row for row in rivals)
        lines.append(
            [
                f"{seconds:g} s" if batch == 1 else f"{batch} × {seconds:g} s",
                exact["name"].removeprefix("MDCT flow").strip(", ") or "PyTorch",
                f"{_speed(exact):.0f}",
                best["name"].removeprefix("MDCT flow").strip(", ") or "PyTorch",
                f"{_speed(best):.0f}",
                f"{_speed(exact) / _speed(vocos):.1f}" if vocos else "",
                f"{_speed(best) / _speed(vocos):.1f}" if vocos else "",
                f"{_speed(exact) / _speed(published):.0f}" if published else "",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _speed(row: Mapping[str, Any]) -> float:
    return float(row["times_real_time"])


def streaming_table(result: Mapping[str, Any]) -> str:
    """docs/streaming.json as Markdown."""
    headings = ["flow", "look-ahead", "computing to the first audio", "streamed", "memory at most"]
    headings += ["after the first minute", "before the first chunk", "× real time"]
    lines = [headings, ["---", *["---:"] * 7]]
    for row in result["rows"]:
        ahead = f"{row['look_ahead_frames']} frames, {1000 * row['look_ahead_seconds']:.0f} ms"
        memory = ("megabytes", "megabytes_after_a_minute", "megabytes_before")
        cells = [row["name"], ahead, f"{1000 * row['first_audio_seconds']:.0f} ms"]
        cells += [f"{row['minutes']:.0f} min", *(f"{row[key]:.0f} MB" for key in memory)]
        lines.append([*cells, f"{row['times_real_time']:.0f}"])
    first, machine = result["rows"][0], result["machine"]
    return "\n".join(
        [
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
            f"Memory of the whole process, PyTorch included. {first['chunk_frames']} frames "
            f"at once, {first['threads']} thread, × real time in processor time. {machine['cpu']}, "
            f"PyTorch {machine['torch']}, {machine['date']}.",
        ]
    )


def tones_table(groups: Mapping[str, Any]) -> str:
    """docs/tones.json as Markdown, a table for each group."""
    blocks = []
    for name, group in groups.items():
        headings = ["temperature", "denoiser", "STOI ↑", "PESQ ↑", "log-mel distance, nats ↓"]
        lines = [[*headings, "tone excess, dB"], ["---:"] * 6]
        lines += [
            [
                f"{row['temperature']:g}",
                f"{row['strength']:g}" if row["strength"] else "–",
                f"{row['stoi']:.3f}",
                f"{row['pesq']:.2f}",
                f"{row['log_mel_distance']:.3f}",
                f"{row['tone_excess_db']:.1f}",
            ]
            for row in group["rows"]
        ]
        blocks.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
        blocks.append(
            f"{name}, in {group['dtype']}: {group['recordings']} recordings, "
            f"{group['seconds']:.0f} s. Tone excess at multiples of {group['spacing']:g} Hz; "
            f"the recordings themselves: {group['natural_tone_excess_db']:.1f} dB."
        )
    return "\n\n".join(blocks)


# Weights of the spectral term, and temperatures, were measured in the first study.
STUDIES = {**ablation.tables("bands"), "frames": ablation.tables("frames")["frames"]}
TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    **{name: (f"docs/{file}", make) for name, (file, make) in STUDIES.items()},
    "benchmark": ("docs/benchmark.json", benchmark_table),
    "engines": ("docs/benchmark.json", engines_table),
    "streaming": ("docs/streaming.json", streaming_table),
    "tones": ("docs/tones.json", tones_table),
    "curve": ("docs/curve.json", curve_table),
    "likelihood": ("docs/runs.json", runs_table("likelihood")),
    "sample": ("docs/runs.json", runs_table("sample")),
    "samples": ("docs/samples.json", samples_table),
    "scores": ("docs/scores.json", scores_table),
    "speech": ("docs/scores/acoustic.speech.json", speech_table),
}


def filled(text: str, root: Path = ROOT) -> str:
    """A document with its tables made anew; see `filling.filled`."""
    return filling.filled(text, TABLES, root)


def documents(root: Path = ROOT) -> list[Path]:
    """The documents that may hold tables."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def update(root: Path = ROOT, check: bool = False) -> list[Path]:
    """Fills the tables of all documents, unless ``check``; returns those that were out of date."""
    changed = []
    for document in documents(root):
        old = document.read_text(encoding="utf-8")
        new = filled(old, root)
        if new == old:
            continue
        changed.append(document)
        if not check:
            write_atomic(document, new.encode())
    return changed


def main() -> int:
    """The command; 1 if ``--check`` finds a document out of date."""
    parser = argparse.ArgumentParser(description="Write measured figures into the documents.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if out of date")
    check = parser.parse_args().check
    try:
        changed = update(check=check)
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    for document in changed:
        print(f"{document.relative_to(ROOT)}: {'out of date' if check else 'written'}")  # noqa: T201
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
