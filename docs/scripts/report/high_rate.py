"""The tables of recipes/high-rate/README.md, which that recipe's measure.py measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables, interval, markdown

COLUMNS = {
    "log_mel_distance": ("log-mel distance, nats", 3),
    "high_distance": ("above 8 kHz", 3),
    "stoi": ("STOI", 3),
    "pesq": ("PESQ", 2),
    "tone_excess": ("tone excess, dB", 2),
    "log_likelihood": ("log-likelihood, nats per sample", 2),
    "times_real_time": ("× real time", 0),
}


def rates_tables(results: Mapping[str, Any]) -> str:
    """A table for each rate, and what was measured."""
    return "\n\n".join(section(name, result) for name, result in results.items())


def section(name: str, result: Mapping[str, Any]) -> str:
    """The table of one rate."""
    lines, notes = [], []
    for of, group in result["sets"].items():
        for row, values in group["rows"].items():
            cells = [
                interval(values[key], digits) if key in values else "–"
                for key, (_, digits) in COLUMNS.items()
            ]
            lines.append([of, row, *cells])
        sound = "; ".join(
            f"{band} {loud:.0f} and {quiet:.0f}" for band, (loud, quiet) in group["levels"].items()
        )
        notes.append(
            f"{of}: {group['recordings']} recordings, {group['seconds']:.0f} s; level in loud and "
            f"in quiet frames, dB relative to 1–4 kHz: {sound}."
        )
    headings = ["voice", "", *(title for title, _ in COLUMNS.values())]
    facts = result["facts"]
    about = next(iter(result["sets"].values()))["about"]
    machine = about["machine"]
    training = (
        f"Trained in {result['steps']:,} steps of {result['step_seconds']:.2g} s, that is "
        f"{result['steps'] * result['step_seconds'] / 60:.0f} minutes of one core; audio seen: "
        f"{facts['audio seen']}; {facts['model'].split(';')[0]}; "
        f"seed {facts['seed']}. Copy synthesis at "
        f"temperature {about['temperature']:g}, seed {about['seed']}; means and 95 % confidence "
        f"intervals over recordings; {machine['cpu']}, {about['threads']} thread, "
        f"{machine['date']}."
    )
    return "\n\n".join([f"**{name}**", markdown(headings, lines, [0, 1]), training, *notes])


TABLES: Tables = {"high-rate": ("high_rate.json", rates_tables)}
