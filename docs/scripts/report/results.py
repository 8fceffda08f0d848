"""Tables of docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from report.markdown import Tables, markdown, mean
from vocoder.evaluation import tables
from vocoder.evaluation.tables import heading

SCORES = (
    "pesq", "stoi", "distillmos", "dnsmos", "envelope_depth", "log_mel_distance",
    "periodicity_error", "voicing_f1", "speaker_similarity", "word_error_rate", "tone_excess",
)  # fmt: skip
"""Measures of quality, in the order of the columns; a column that is empty is left out."""


def benchmark_table(result: Mapping[str, Any]) -> str:
    """The result of `vocoder benchmark` as Markdown."""
    return tables.benchmark(dict(result)).section()


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
        f"{markdown(['', *headings], rows, [0])}\n\n"
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


TABLES: Tables = {
    "scores": ("scores.json", scores_table),
    "refine": ("scores/default.unseen-speakers.json", refine_table),
    "samples": ("samples.json", samples_table),
    "benchmark": ("benchmark.json", benchmark_table),
}
