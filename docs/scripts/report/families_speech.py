"""Tables of docs/families_speech.md, which docs/scripts/families_speech.py measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables, markdown

FILE = "families_speech.json"
MEASURES = ("pesq", "stoi", "log_mel_distance", "periodicity_error", "voicing_f1", "tone_excess")

Result = Mapping[str, Any]


def mean(row: Mapping[str, Any], name: str, digits: int) -> str:
    """A mean, or nothing if nothing was measured."""
    value = row[name]["mean"] if name in row else None
    return "" if value is None else f"{value:.{digits}f}"


def by_sweeps(rows: Mapping[str, Any], name: str, digits: int) -> str:
    """A measure at each number of sweeps: 0 first."""
    return " / ".join(mean(row, name, digits) for row in rows.values())


def nats(entry: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    """Held-out log-likelihood, marked where it is a bound."""
    found = mean(next(iter(rows.values())), "log_likelihood", 2)
    return f"≥ {found}" if found and entry["likelihood"] == "lower bound" else found


def is_curve(entry: Mapping[str, Any]) -> bool:
    """Whether it is a run of Flow-GAN, which has a table of its own."""
    return "adversarial_weight" in entry["training"]


def trained(entry: Mapping[str, Any]) -> list[str]:
    """Seconds of audio seen, and the time it took."""
    facts = entry["training"]
    return [facts.get("audio_seen") or "", facts.get("time") or ""]


def families(result: Result) -> str:
    """A line for each model and speech: likelihood, quality, diversity, speed, size, training."""
    headings = ["model", "speech", "likelihood", "nats per sample ↑"]
    headings += ["PESQ by sweeps, 0 / 4 / 16 ↑", "STOI ↑", "diversity", "× real time ↑"]
    headings += ["parameters", "audio seen, s", "training time"]
    lines = []
    for name, entry in result["models"].items():
        if is_curve(entry):
            continue
        for speech, rows in entry["speech"].items():
            size = f"{entry['parameters'] / 1e6:.2f}M" if entry["parameters"] else "–"
            lines.append(
                [
                    name,
                    speech,
                    entry["likelihood"] or "none",
                    nats(entry, rows) or "–",
                    by_sweeps(rows, "pesq", 2),
                    by_sweeps(rows, "stoi", 3),
                    f"{entry['diversity']:.2f}",
                    f"{entry['times_real_time']:.0f}",
                    size,
                    *(cell or "–" for cell in trained(entry)),
                ]
            )
    machine = result["about"]["machine"]
    counts = {len(files) for files in result["recordings"].values()}
    return "\n".join(
        [
            markdown(headings, lines, [0, 1, 2]),
            "",
            f"Means over {' or '.join(map(str, sorted(counts)))} recordings. ≥: a lower bound. "
            "Diversity: 0 where every seed gives the same audio, 1 where the audio of two seeds "
            "is unrelated. Speed, of the model's own pass alone: seconds of audio per second of "
            f"processor time, one thread, {machine['cpu']}. Training time on a shared machine: "
            "the audio seen compares, the time does not.",
        ]
    )


def short(result: Result) -> str:
    """Some columns of the first speech, for the front page."""
    usual = next(iter(result["recordings"]), None)
    headings = ["model", "likelihood", "PESQ ↑", "PESQ, 16 sweeps ↑", "diversity", "× real time ↑"]
    lines = []
    for name, entry in result["models"].items():
        if is_curve(entry):
            continue
        (speech, rows), *_ = entry["speech"].items()
        first, *_, last = rows.values()
        if speech != usual:  # other recordings: its figures do not compare
            name = f"{name} ({speech})"
        quality = [mean(first, "pesq", 2), mean(last, "pesq", 2)]
        numbers = [f"{entry['diversity']:.2f}", f"{entry['times_real_time']:.0f}"]
        lines.append([name, entry["likelihood"] or "none", *quality, *numbers])
    return markdown(headings, lines, [0, 1])


def measures(result: Result) -> str:
    """Every measure by model, speech and sweeps."""
    titles = result["measures"]
    headings = ["model", "speech", "sweeps"]
    headings += [
        f"{titles[m]['title']} {'↑' if titles[m]['better'] == 'higher' else '↓'}" for m in MEASURES
    ]
    lines = [
        [name, speech, sweeps, *(mean(row, measure, 3) for measure in MEASURES)]
        for name, entry in result["models"].items()
        for speech, rows in entry["speech"].items()
        for sweeps, row in rows.items()
    ]
    return markdown(headings, lines, [0, 1])


def flow_gan(result: Result) -> str:
    """The runs of Flow-GAN by their adversarial weight, after the flow they started from."""
    runs = [entry for entry in result["models"].values() if is_curve(entry)]
    runs.sort(key=lambda entry: entry["training"]["adversarial_weight"])
    parents = {entry["training"]["started_from"] for entry in runs}
    start = [e for e in result["models"].values() if e["weights"] in parents]
    headings = ["adversarial weight", "steps", "speech", "nats per sample ↑"]
    headings += ["PESQ by sweeps, 0 / 4 / 16 ↑", "voicing F1 ↑", "periodicity error ↓"]
    headings += ["tone excess ↓"]
    lines = []
    for entry in [*start[:1], *runs]:
        facts = entry["training"]
        weight = f"{facts['adversarial_weight']:g}" if is_curve(entry) else "start"
        steps = (facts["steps"] or "") if is_curve(entry) else "–"
        for speech, rows in entry["speech"].items():
            cells = [by_sweeps(rows, "pesq", 2), by_sweeps(rows, "voicing_f1", 2)]
            cells += [by_sweeps(rows, "periodicity_error", 3), by_sweeps(rows, "tone_excess", 2)]
            lines.append([weight, steps, speech, nats(entry, rows), *cells])
    return markdown(headings, lines, [0, 2])


TABLES: Tables = {
    "families": (FILE, families),
    "families-short": (FILE, short),
    "families-measures": (FILE, measures),
    "flow-gan": (FILE, flow_gan),
}
