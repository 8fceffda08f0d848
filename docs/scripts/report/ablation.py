"""Tables of docs/ablation.md: studies of variants, and what was measured besides.

recipes/ljspeech/ablation/run.py measures variants.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from report.markdown import Tables, interval, markdown
from vocoder.evaluation import METRICS
from vocoder.evaluation.estimates import estimate

BASE = "base"
QUALITY = ("log_likelihood", "stoi", "pesq", "log_mel_distance")
TITLES = {
    "log_likelihood": "log-likelihood",
    **{name: METRICS[name].title for name in QUALITY[1:]},
}
DECIMALS = {"log_likelihood": 3, "stoi": 3, "pesq": 2, "log_mel_distance": 3}


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
    headings += [TITLES[name] for name in shown]
    tones = any(run.get("tone_excess_db") is not None for run in runs)  # not in the first study
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
    return markdown(headings, lines, [0, 1]) + "\n\n" + (caption(runs) if runs else "none finished")


def caption(runs: Sequence[Mapping[str, Any]]) -> str:
    """What the figures of the table are and were measured on."""
    first = runs[0]
    facts, minutes = first["facts"], first["settings"].get("minutes")
    budget = f", {minutes:g} minutes of processor time each" if minutes else ""
    return (
        f"{facts['data']}. {facts['hardware']}, {facts['precision']}{budget}, validation included. "
        f"Copy synthesis of {len(first['test'])} test utterances at temperature "
        f"{first['temperature']:g}; in brackets the mean paired difference from the base and its "
        "95 % interval over utterances, which leaves out the chance of training (compare seed-1 "
        "with base). Log-likelihood in nats per sample; GMAC/s: 1e9 multiply-accumulates per "
        "second of audio; × real time: on one core; look-ahead in mel frames."
    )


def temperature_table(result: Mapping[str, Any]) -> str:
    """The base at several temperatures, some of them with factors by band."""
    rows = result["temperatures"]
    shown = [name for name in measured(rows) if name != "log_likelihood"]
    lines = []
    for row in rows:
        factors = " → ".join(f"{factor:g}" for factor in row["band_temperature"] or [1])
        cells = [f"{row['temperature']:g}", factors]
        lines.append([*cells, *(with_difference(row, None, name) for name in shown)])
    headings = ["temperature", "factor, low to high bands", *(TITLES[name] for name in shown)]
    return markdown(headings, lines, [])


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


def name_of(run: Mapping[str, Any]) -> str:
    """A variant's name, the base's in bold."""
    return f"**{BASE}**" if run["name"] == BASE else str(run["name"])


def change(run: Mapping[str, Any]) -> str:
    """What a variant changes, in the words of its options."""
    parts = []
    for key, value in run["difference"].items():
        _, _, option = key.rpartition(".")
        parts.append(plain(value) if option == "class_path" else f"{option} {plain(value)}")
    return "; ".join(parts)


def plain(value: Any) -> str:
    """A value of an option: classes by their names, with their arguments in brackets."""
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        arguments = ", ".join(f"{k} {plain(v)}" for k, v in value.get("init_args", {}).items())
        return plain(value["class_path"]) + (f" ({arguments})" if arguments else "")
    return value.rpartition(".")[2] if isinstance(value, str) else str(value)


def sweeps_table(result: Mapping[str, Any]) -> str:
    """What was learnt around the sweeps: PESQ and STOI by their number, next to plain ones."""
    kinds = {"human": "human", "synthetic": "synthetic", "mixed": "both"}
    parts = [
        *result["groups"],
        {"title": "ceiling: magnitudes of the recording", **result["ceiling"]},
    ]
    counts = sorted(
        {int(n) for part in parts for row in part["rows"] for k in kinds for n in row.get(k, ())}
    )
    rows = []
    for part in parts:
        minutes = f", {part['minutes']} min" if "minutes" in part else ""
        for row in part["rows"]:
            for kind, title in kinds.items():
                if kind in row:
                    values = [row[kind].get(str(n)) for n in counts]
                    shown = [f"{v['pesq']:.2f} / {v['stoi']:.3f}" if v else "" for v in values]
                    rows.append([part["title"] + minutes, row["name"], title, *shown])
    headings = ["what", "row", "voices", *(f"{n} sweeps" for n in counts)]
    about = result["about"]
    return "\n".join(
        [
            markdown(headings, rows, [0, 1, 2]),
            "",
            f"PESQ / STOI. Trained on {about['training']}; minutes of processor time. Start: "
            f"{about['start']}.",
            f"Human: {about['recordings']['human']}. Synthetic: "
            f"{about['recordings']['synthetic']}.",
        ]
    )


def unheard_likelihood_table(result: Mapping[str, Any]) -> str:
    """Log-likelihoods of voices that no model was trained on."""
    headings = ["flow", "minutes", "parameters", "human: mean", "median", "least"]
    headings += ["synthetic: mean", "least"]
    rows = [
        [
            row["what"],
            f"{row['minutes']}",
            f"{row['parameters'] / 1e6:.1f}M",
            *(f"{row['human'][key]:,.1f}" for key in ("mean", "median", "least")),
            *(f"{row['synthetic'][key]:,.1f}" for key in ("mean", "least")),
        ]
        for row in result["rows"]
    ]
    corpora = result["corpora"]
    counts = {key: result["rows"][0][key]["n"] for key in corpora}
    return (
        f"{markdown(headings, rows, [0])}\n\nNats per sample; minutes of training, most of "
        f"it on one core. Human: {corpora['human']} ({counts['human']}). Synthetic: "
        f"{corpora['synthetic']} ({counts['synthetic']})."
    )


TABLES: Tables = {
    "bands": ("ablation/bands.json", ablation_table),
    "bands-temperature": ("ablation/bands.json", temperature_table),
    "frames": ("ablation/frames.json", ablation_table),
    "sweeps": ("ablation/sweeps.json", sweeps_table),
    "unheard-likelihood": ("ablation/likelihood.json", unheard_likelihood_table),
}
