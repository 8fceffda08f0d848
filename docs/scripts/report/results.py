"""Tables of README.md, docs/results.md and docs/text.md: quality, and the speed benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from paths import ROOT
from report.markdown import Tables, mean, on
from vocoder.evaluation import tables
from vocoder.evaluation.copy_synthesis import row_name
from vocoder.evaluation.results import estimate
from vocoder.evaluation.tables import heading, markdown

FLOW = "MDCT flow"
PUBLISHED = "WaveGlow"
REFINE = json.loads((ROOT / "vocoder/weights/default/config.json").read_text(encoding="utf-8"))[
    "config"
]["refine"]
"""The refinement that the bundled default ends with."""
DEFAULT = row_name("default", REFINE)
"""Its row in a result of `vocoder evaluate --refine`."""
DEFAULT_ROWS = (row_name("default", 0), DEFAULT, row_name("Griffin-Lim", 0))
"""The model alone, as it ships, and what learns nothing."""


def standing_table(result: Mapping[str, Any]) -> str:
    """Scores of the default for unseen speakers, as it ships and without refinement."""
    shown = ("pesq", "stoi", "distillmos", "dnsmos", "log_mel_distance", "times_real_time")
    shown = tuple(measure for measure in shown if measure in result["measures"])
    plain, refined, reference = DEFAULT_ROWS
    titles = {
        "recording": "[recording](docs/samples/english.recording.flac)",
        refined: f"[{FLOW} (`default`)](docs/samples/english.default.flac)",
        plain: "network output only",
        reference: "[Griffin-Lim](docs/samples/english.griffin-lim.flac)",
    }
    rows = [
        [title, *(mean(result["rows"][name].get(measure)) for measure in shown)]
        for name, title in titles.items()
    ]
    about = result["about"]
    headings = ["listen", *(heading(result["measures"][measure]) for measure in shown)]
    return (
        f"{markdown(headings, rows)}\n\nMeans over {len(result['files'])} recordings of "
        f"unseen human speakers; ± is half a 95 % interval.\n"
        f"Speed: {about['threads']} thread, {about['machine']['cpu']}."
    )


def cost_sentence(result: Mapping[str, Any]) -> str:
    """What a second of speech costs, from docs/results/benchmark.json."""
    costs = {row["name"]: row["gmac_per_audio_second"] for row in result["rows"]}
    return (
        f"A second of speech takes the flow of mdct.yaml {costs[FLOW]:.2f} billion "
        f"multiply-accumulates, and the published WaveGlow {costs[PUBLISHED]:.0f} billion."
    )


SCORES = (
    "pesq", "stoi", "distillmos", "dnsmos", "envelope_depth", "log_mel_distance",
    "periodicity_error", "voicing_f1", "speaker_similarity", "word_error_rate", "tonal_artifacts",
)  # fmt: skip
"""Measures of quality, in the order of the columns; a column that is empty is left out."""


def benchmark_table(result: Mapping[str, Any]) -> str:
    """The result of `vocoder benchmark` as Markdown."""
    return tables.benchmark(dict(result))


def scores_table(totals: Mapping[str, Any]) -> str:
    """docs/results/scores.json, the scores of the bundled weights."""
    results = [(name, *item) for name, labels in sorted(totals.items()) for item in labels.items()]
    shown, headings = _columns([result for *_, result in results], (*SCORES, "log_likelihood"))
    rows = []
    for name, label, result in results:
        speech = f"{label.replace('-', ' ')}, {result['recordings']} recordings"
        for system, row in result["rows"].items():
            own = system == name or system.startswith(f"{name}, ")
            cells = [f"`{name}`", speech, f"**{system}**" if own else system]
            rows.append([*cells, *(mean(row.get(measure)) for measure in shown)])
    return markdown(["weights", "held-out speech", "", *headings], rows, [0, 1, 2])


def refine_table(result: Mapping[str, Any]) -> str:
    """A result of `vocoder evaluate --refine`: quality and speed by the number of iterations."""
    shown, headings = _columns([result], (*SCORES, "times_real_time"))
    rows = [
        [name, *(mean(row.get(measure)) for measure in shown)]
        for name, row in result["rows"].items()
    ]
    about = result["about"]
    return (
        f"{markdown(['', *headings], rows)}\n\n"
        f"Means over {len(result['files'])} recordings; ± is half a 95 % interval. Speed: "
        f"{about['threads']} thread, {about['machine']['cpu']}."
    )


def _columns(
    results: Sequence[Mapping[str, Any]], among: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The measures that any of the results has, and their headings."""
    found = {
        name: heading(measure)
        for result in results
        for name, measure in result["measures"].items()
        if any(row[name]["n"] for row in result["rows"].values())
    }
    shown = [name for name in among if name in found]
    return shown, [found[name] for name in shown]


def samples_table(groups: Mapping[str, Any]) -> str:
    """docs/results/samples.json: links to the sound, with the scores of each."""
    shown = {"pesq": "PESQ ↑", "stoi": "STOI ↑", "log_mel_distance": "log-mel distance, nats ↓"}
    rows = []
    for name, group in groups.items():
        for row in group["rows"]:
            scores = row.get("scores", {})
            cells = [f"{scores[key]:.2f}" if scores.get(key) is not None else "" for key in shown]
            rows.append([name, f"[{row['name']}](samples/{row['file']})", *cells])
    return markdown(["sample", "sound", *shown.values()], rows, [0, 1])


def speech_table(result: Mapping[str, Any]) -> str:
    """Word error rates of a result of `vocoder evaluate --acoustic`."""
    about = result["about"]
    headings = ["", "word error rate, %", "less the recording"]
    others = {name: m for name, m in result["measures"].items() if name != "word_error_rate"}
    rows = [
        [
            name,
            _percent(row["word_error_rate"]),
            _percent(_less_recording(result, name)),
            *(f"{row[other]['mean']:.2f}" for other in others),
        ]
        for name, row in result["rows"].items()
        if row["word_error_rate"]["n"]
    ]
    headings += [measure["title"] for measure in others.values()]
    return (
        f"{markdown(headings, rows)}\n\n"
        f"Means over {len(result['files'])} sentences of {about['corpus']} that were kept from "
        f"training, transcribed by {about['recogniser']}; ± is half a 95 % interval. "
        f"{on(about['machine'])}"
    )


def _less_recording(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    values = [file["values"] for file in result["files"]]
    rates = [(v[name]["word_error_rate"], v["recording"]["word_error_rate"]) for v in values]
    return estimate([own - other for own, other in rates if None not in (own, other)])


def _percent(row: Mapping[str, Any]) -> str:
    return f"{100 * row['mean']:.1f} ± {100 * (row['upper'] - row['mean']):.1f}"


TABLES: Tables = {
    "standing": ("scores/default.unseen-speakers.json", standing_table),
    "cost": ("benchmark.json", cost_sentence),
    "scores": ("scores.json", scores_table),
    "refine": ("scores/default.unseen-speakers.json", refine_table),
    "samples": ("samples.json", samples_table),
    "benchmark": ("benchmark.json", benchmark_table),
    "speech": ("scores/acoustic.speech.json", speech_table),
}
