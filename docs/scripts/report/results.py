"""Tables of docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables, markdown, mean
from vocoder.evaluation import tables
from vocoder.evaluation.tables import heading


def benchmark_table(result: Mapping[str, Any]) -> str:
    """The result of `vocoder benchmark` as Markdown."""
    return tables.benchmark(dict(result)).section()


def scores_table(totals: Mapping[str, Any]) -> str:
    """docs/results/scores.json, the scores of the bundled weights."""
    shown = ("pesq", "stoi", "mcd", "log_mel_distance", "f0_rmse", "voicing_f1")
    shown += ("dnsmos", "tone_excess", "log_likelihood")
    measures: dict[str, Any] = {}
    for labels in totals.values():
        for result in labels.values():
            measures |= result["measures"]
    shown = tuple(name for name in shown if name in measures)
    rows = []
    for name, labels in sorted(totals.items()):
        for label, result in labels.items():
            speech = f"{label}, {result['recordings']} recordings"
            for system, row in result["rows"].items():
                cells = [mean(row.get(measure)) for measure in shown]
                own = system == name or system.startswith(f"{name}, ")
                title = f"**{system}**" if own else system
                rows.append([f"`{name}`", speech, title, *cells])
    headings = ["weights", "held-out speech", "", *(heading(measures[name]) for name in shown)]
    return markdown(headings, rows, [0, 1, 2])


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


def refine_table(result: Mapping[str, Any]) -> str:
    """A result of `vocoder evaluate --refine`: quality and speed by the number of iterations."""
    shown = ("pesq", "stoi", "mcd", "log_mel_distance", "dnsmos", "periodicity_error")
    shown += ("voicing_f1", "f0_rmse", "tone_excess", "times_real_time")
    measures, about = result["measures"], result["about"]
    rows = [
        [name, *(mean(row.get(measure)) for measure in shown)]
        for name, row in result["rows"].items()
    ]
    headings = ["", *(heading(measures[measure]) for measure in shown)]
    return "\n".join(
        [
            markdown(headings, rows, [0]),
            "",
            f"Means over {len(result['files'])} recordings; ± is half a 95 % interval. Speed: "
            f"{about['threads']} thread, {about['machine']['cpu']}.",
        ]
    )


TABLES: Tables = {
    "scores": ("scores.json", scores_table),
    "refine": ("scores/default.unseen-speakers.json", refine_table),
    "samples": ("samples.json", samples_table),
    "benchmark": ("benchmark.json", benchmark_table),
}
