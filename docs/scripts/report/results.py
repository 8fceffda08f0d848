"""Tables of docs/results.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from report.markdown import Tables, markdown, mean
from vocoder.evaluation import tables
from vocoder.evaluation.tables import heading


def benchmark_table(result: Mapping[str, Any]) -> str:
    """The result of `vocoder benchmark` as Markdown."""
    return tables.benchmark(dict(result)).section()


def runs_table(group: str) -> Callable[[Mapping[str, Any]], str]:
    """What makes Markdown of one group of docs/results/runs.json."""

    def make(groups: Mapping[str, Any]) -> str:
        runs = groups[group]
        names = list(dict.fromkeys(name for row in runs for name in _means(row["test"])))
        rows = []
        for run in runs:
            means = _means(run["test"])
            cells = [
                run["family"],
                f"{run['parameters'] / 1e6:.1f}M",
                f"{run['train_seconds'] / 60:.0f}",
                f"{run['audio_seconds']:,.0f} s",
                _change(run["log_likelihood"]),
                _change(run["mel_distance"]),
            ]
            rows.append([*cells, *(f"{means[n]:.2f}" if n in means else "" for n in names)])
        headings = ["model", "parameters", "minutes", "audio seen", "log-likelihood"]
        facts = f"{runs[0]['data']}; {runs[0]['hardware']}; seed {runs[0]['seed']}."
        table = markdown([*headings, "log-mel distance", *names], rows, [0])
        return f"{table}\n\n{facts}"

    return make


def _change(pair: list[float | None]) -> str:
    return "" if None in pair else " → ".join(f"{value:.3f}" for value in pair)


def _means(test: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the test utterances of the measures that validation does not take."""
    shown = ("STOI", "PESQ")
    values = {name: [row[name] for row in test if row.get(name) is not None] for name in shown}
    return {name: sum(found) / len(found) for name, found in values.items() if found}


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
    """A result of `vocoder evaluate --refine`: quality and speed by the number of sweeps."""
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


def curve_table(groups: Mapping[str, Any]) -> str:
    """docs/results/curve.json, a table for each run."""
    shown = ("log_likelihood", "log_mel_distance", "stoi", "pesq")
    blocks = []
    for name, group in groups.items():
        headings = ["minutes", "steps", "audio seen"]
        headings += [heading(group["measures"][measure]) for measure in shown]
        rows = []
        for point in group["points"]:
            minutes = f"{point['minutes']:.0f}" + (" (end)" if point.get("finished") else "")
            sound = f"[{minutes}](samples/{point['audio']})"
            cells = [sound, f"{point['steps']:,}", f"{point['audio_seconds']:,.0f} s"]
            rows.append([*cells, *(mean(point[measure]) for measure in shown)])
        reference = [mean(group["reference"][measure]) for measure in shown]
        rows.append(["Griffin-Lim", "", "", *reference])
        facts = group["facts"]
        where = f"{facts['hardware']}, {facts.get('precision', '')}".removesuffix(", ")
        blocks.append(markdown(headings, rows, []))
        blocks.append(
            f"{name}: {facts['data']}. Measured on {len(group['recordings'])} test recordings. "
            f"{where}, seed {facts['seed']}."
        )
    return "\n\n".join(blocks)


TABLES: Tables = {
    "scores": ("scores.json", scores_table),
    "refine": ("scores/default.unheard-speech.json", refine_table),
    "samples": ("samples.json", samples_table),
    "curve": ("curve.json", curve_table),
    "sample": ("runs.json", runs_table("sample")),
    "likelihood": ("runs.json", runs_table("likelihood")),
    "benchmark": ("benchmark.json", benchmark_table),
}
