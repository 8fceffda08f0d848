"""Writes measured figures into the documents, so that none is typed by hand.

    python docs/scripts/tables.py           writes the tables
    python docs/scripts/tables.py --check   reports documents that are out of date, and changes nothing

A table stands between two comments, <!-- benchmark:begin --> and <!-- benchmark:end -->, and comes
from results/benchmark.json, which `vocoder benchmark` writes; the others likewise, see TABLES.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ablation
import families_report
import filling
import frontier_report
import mel_parity

from vocoder.atomic import write_atomic
from vocoder.evaluation import tables as reports

ROOT = Path(__file__).parents[1]
FLOW = "MDCT flow"
PUBLISHED = "WaveGlow, published"
SWEEPS = json.loads((ROOT / "vocoder/weights/default/config.json").read_text(encoding="utf-8"))[
    "config"
]["refine"]
DEFAULT_ROWS = ("default, 0 sweeps", f"default, {SWEEPS} sweeps", "Griffin-Lim, 0 sweeps")
"""Rows of `vocoder evaluate --refine`: the model alone, as it ships, and what learns nothing."""


def benchmark_table(result: Mapping[str, Any]) -> str:
    """The result of `vocoder benchmark` as Markdown."""
    return reports.benchmark(dict(result)).section()


def runs_table(group: str) -> Callable[[Mapping[str, Any]], str]:
    """What makes Markdown of one group of results/runs.json."""

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
        table = filling.markdown([*headings, "log-mel distance", *names], rows, [0])
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
    """results/scores.json, the scores of the bundled weights."""
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
                cells = [_mean(row.get(measure)) for measure in shown]
                own = system == name or system.startswith(f"{name}, ")
                title = f"**{system}**" if own else system
                rows.append([f"`{name}`", speech, title, *cells])
    headings = ["weights", "held-out speech", "", *(_heading(measures[name]) for name in shown)]
    return filling.markdown(headings, rows, [0, 1, 2])


def speech_table(result: Mapping[str, Any]) -> str:
    """The result of `vocoder evaluate-speech` as Markdown."""
    return reports.recognition(dict(result)).section()


def samples_table(groups: Mapping[str, Any]) -> str:
    """results/samples.json: links to the sound, with the scores of each."""
    shown = {"pesq": "PESQ ↑", "stoi": "STOI ↑", "log_mel_distance": "log-mel distance, nats ↓"}
    rows = []
    for name, group in groups.items():
        for row in group["rows"]:
            scores = row.get("scores", {})
            cells = [f"{scores[key]:.2f}" if scores.get(key) is not None else "" for key in shown]
            rows.append([name, f"[{row['name']}](samples/{row['file']})", *cells])
    return filling.markdown(["sample", "sound", *shown.values()], rows, [0, 1])


def standing_table(result: Mapping[str, Any]) -> str:
    """Where the default stands on unheard voices, as it ships and without its sweeps."""
    shown = ("pesq", "stoi", "dnsmos", "log_mel_distance", "times_real_time")
    plain, refined, reference = DEFAULT_ROWS
    titles = {
        "recording": "[recording](docs/samples/english.recording.flac)",
        refined: f"[{FLOW} (`default`)](docs/samples/english.default.flac)",
        plain: "the same without sweeps of mel consistency",
        reference: "[Griffin-Lim](docs/samples/english.griffin-lim.flac)",
    }
    rows = [
        [title, *(_mean(result["rows"][name].get(measure)) for measure in shown)]
        for name, title in titles.items()
    ]
    about = result["about"]
    headings = ["listen", *(_heading(result["measures"][measure]) for measure in shown)]
    return "\n".join(
        [
            filling.markdown(headings, rows, [0]),
            "",
            f"Means over {len(result['files'])} recordings of human voices that no model was "
            "trained on; ± is half a 95 % interval.",
            f"Speed: {about['threads']} thread, {about['machine']['cpu']}, while other work ran.",
        ]
    )


def refine_table(result: Mapping[str, Any]) -> str:
    """A result of `vocoder evaluate --refine`: quality and speed by the number of sweeps."""
    shown = ("pesq", "stoi", "mcd", "log_mel_distance", "dnsmos", "periodicity_error")
    shown += ("voicing_f1", "f0_rmse", "tone_excess", "times_real_time")
    measures, about = result["measures"], result["about"]
    rows = [
        [name, *(_mean(row.get(measure)) for measure in shown)]
        for name, row in result["rows"].items()
    ]
    headings = ["", *(_heading(measures[measure]) for measure in shown)]
    return "\n".join(
        [
            filling.markdown(headings, rows, [0]),
            "",
            f"Means over {len(result['files'])} recordings; ± is half a 95 % interval. Speed: "
            f"{about['threads']} thread, {about['machine']['cpu']}.",
        ]
    )


def curve_table(groups: Mapping[str, Any]) -> str:
    """results/curve.json, a table for each run."""
    shown = ("log_likelihood", "log_mel_distance", "stoi", "pesq")
    blocks = []
    for name, group in groups.items():
        headings = ["minutes", "steps", "audio seen"]
        headings += [_heading(group["measures"][measure]) for measure in shown]
        rows = []
        for point in group["points"]:
            minutes = f"{point['minutes']:.0f}" + (" (end)" if point.get("finished") else "")
            sound = f"[{minutes}](samples/{point['audio']})"
            cells = [sound, f"{point['steps']:,}", f"{point['audio_seconds']:,.0f} s"]
            rows.append([*cells, *(_mean(point[measure]) for measure in shown)])
        reference = [_mean(group["reference"][measure]) for measure in shown]
        rows.append(["Griffin-Lim", "", "", *reference])
        facts = group["facts"]
        where = f"{facts['hardware']}, {facts.get('precision', '')}".removesuffix(", ")
        blocks.append(filling.markdown(headings, rows, []))
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
    """results/benchmark.json: which engine of the MDCT flow is fastest where."""
    measured = result["rows"]
    headings = ["audio at once", "fastest in float32", "× real time", "fastest in any type"]
    headings += ["× real time", "over Vocos, float32", "any type", "over published WaveGlow"]
    rows = []
    for batch, seconds in dict.fromkeys((row["batch"], row["audio_seconds"]) for row in measured):
        here = {
            row["name"]: row
            for row in measured
            if (row["batch"], row["audio_seconds"]) == (batch, seconds)
        }
        own = [row for name, row in here.items() if name.startswith(FLOW)]
        if not own:
            continue
        best = max(own, key=_speed)
        exact = max((row for row in own if row["dtype"] == "float32"), key=_speed)
        vocos, published = here.get("Vocos"), here.get(PUBLISHED)
        rows.append(
            [
                f"{seconds:g} s" if batch == 1 else f"{batch} × {seconds:g} s",
                _engine(exact),
                f"{_speed(exact):.0f}",
                _engine(best),
                f"{_speed(best):.0f}",
                f"{_speed(exact) / _speed(vocos):.1f}" if vocos else "",
                f"{_speed(best) / _speed(vocos):.1f}" if vocos else "",
                f"{_speed(exact) / _speed(published):.0f}" if published else "",
            ]
        )
    return filling.markdown(headings, rows, [0, 1, 3])


def _speed(row: Mapping[str, Any]) -> float:
    return float(row["times_real_time"])


def _engine(row: Mapping[str, Any]) -> str:
    return str(row["name"]).removeprefix(FLOW).strip(", ") or "PyTorch"


def cost_sentence(result: Mapping[str, Any]) -> str:
    """What a second of speech costs, from results/benchmark.json."""
    costs = {row["name"]: row["gmac_per_audio_second"] for row in result["rows"]}
    return (
        f"A second of speech costs the flow of mdct.yaml {costs[FLOW]:.2f} billion "
        f"multiply-accumulates, and the published WaveGlow {costs[PUBLISHED]:.0f} billion."
    )


def streaming_table(result: Mapping[str, Any]) -> str:
    """results/streaming.json."""
    headings = ["flow", "look-ahead", "computing to the first audio", "streamed", "memory at most"]
    headings += ["after the first minute", "before the first chunk", "× real time"]
    rows = []
    for row in result["rows"]:
        ahead = f"{row['look_ahead_frames']} frames, {1000 * row['look_ahead_seconds']:.0f} ms"
        memory = ("megabytes", "megabytes_after_a_minute", "megabytes_before")
        cells = [row["name"], ahead, f"{1000 * row['first_audio_seconds']:.0f} ms"]
        cells += [f"{row['minutes']:.0f} min", *(f"{row[key]:.0f} MB" for key in memory)]
        rows.append([*cells, f"{row['times_real_time']:.0f}"])
    first, machine = result["rows"][0], result["machine"]
    return (
        f"{filling.markdown(headings, rows, [0])}\n\n"
        f"Memory of the whole process, PyTorch included. {first['chunk_frames']} frames "
        f"at once, {first['threads']} thread, × real time in processor time. {machine['cpu']}, "
        f"PyTorch {machine['torch']}, {machine['date']}."
    )


def tones_table(groups: Mapping[str, Any]) -> str:
    """results/tones.json, a table for each group."""
    headings = ["temperature", "denoiser", "STOI ↑", "PESQ ↑", "log-mel distance, nats ↓"]
    blocks = []
    for name, group in groups.items():
        rows = [
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
        blocks.append(filling.markdown([*headings, "tone excess, dB"], rows, []))
        blocks.append(
            f"{name}, in {group['dtype']}: {group['recordings']} recordings, "
            f"{group['seconds']:.0f} s. Tone excess at multiples of {group['spacing']:g} Hz; "
            f"the recordings themselves: {group['natural_tone_excess_db']:.1f} dB."
        )
    return "\n\n".join(blocks)


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
            filling.markdown(headings, rows, [0, 1, 2]),
            "",
            f"PESQ / STOI. Trained on {about['training']}; minutes of processor time. Start: "
            f"{about['start']}.",
            f"Human: {about['recordings']['human']}. Synthetic: "
            f"{about['recordings']['synthetic']}.",
        ]
    )


def unheard_likelihood_table(result: Mapping[str, Any]) -> str:
    """results/ablation/likelihood.json: log-likelihoods of voices that no model was trained on."""
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
        f"{filling.markdown(headings, rows, [0])}\n\nNats per sample; minutes of training, most of "
        f"it on one core. Human: {corpora['human']} ({counts['human']}). Synthetic: "
        f"{corpora['synthetic']} ({counts['synthetic']})."
    )


HOURS = 1000
"""Of speech, in the arithmetic of docs/scale.md."""
TERAFLOPS = 10
"""What the estimate assumes that a GPU sustains on this model."""
GPUS = 8


def hours_table(result: Mapping[str, Any]) -> str:
    """What a thousand hours take, from the speed of results/scores/default.unheard-speech.json."""
    (name,) = (n for n in result["rows"] if n == f"default, {SWEEPS} sweeps")
    speed = result["rows"][name]["times_real_time"]["mean"]
    about, seconds = result["about"], HOURS * 3600
    spec = about["models"][name]["mel_spec"]
    frames = seconds * spec["sample_rate"] / spec["hop_length"]
    rows = [
        [
            f"{HOURS:,} hours of audio, 16 bits",
            f"{2 * spec['sample_rate'] * seconds / 1e9:,.0f} GB",
        ],
        ["their mels, float32", f"{4 * spec['n_mels'] * frames / 1e9:,.0f} GB"],
        [f"synthesis, {SWEEPS} sweeps", f"{HOURS / speed:,.0f} hours of {about['threads']} thread"],
        ["the same on 64 cores", f"{60 * HOURS / speed / 64:,.0f} minutes"],
    ]
    note = (
        f"From the measured {speed:.0f} times real time of one worker ("
        f"{about['machine']['cpu']}); the last row assumes that workers do not disturb each other."
    )
    return f"{filling.markdown(['what', 'how much'], rows, [0])}\n\n{note}"


def node_sentence(result: Mapping[str, Any]) -> str:
    """An estimate for a node with GPUs, from the cost in results/benchmark.json."""
    cost = next(r["gmac_per_audio_second"] for r in result["rows"] if r["name"] == FLOW)
    # Forwards and backwards cost three passes; a multiply-accumulate is two operations.
    operations = HOURS * 3600 * cost * 1e9 * 2 * 3
    return (
        f"**Estimated, not measured**: an epoch of {HOURS:,} hours is {operations / 1e15:.0f} "
        f"PFLOP in the flow (three passes of {cost:.2f} billion multiply-accumulates a second of "
        f"audio). {GPUS} GPUs that sustained {TERAFLOPS} TFLOP/s each would take "
        f"{operations / (GPUS * TERAFLOPS * 1e12) / 60:.0f} minutes for it; the spectral terms of "
        "the loss, the loader and the gradients' exchange come on top."
    )


def dependencies_table(result: Mapping[str, Any]) -> str:
    """What the plain install and the extras take on disk and in time."""
    rows = [
        [
            f"`{row['package']}`",
            row["extra"] or "plain install",
            f"{row['brings']:,.0f}",
            f"{row['alone']:,.0f}",
            f"{row['import_seconds']:.2f}" if "import_seconds" in row else "",
        ]
        for row in sorted(result["rows"], key=lambda row: (row["extra"], -row["brings"]))
    ]
    headings = ["package", "of", "MB, with what it needs", "MB, it alone", "import, s"]
    prose = (
        f"PyTorch takes {result['pytorch'] / 1000:.1f} GB and {result['pytorch_seconds']:.1f} s to "
        f"import, all else of the plain install {result['rest']:,.0f} MB. Below, sizes are beyond "
        "PyTorch's: of a package with all that it needs, and what would go if only it went. A "
        "package is imported where it is first needed; its time is beyond those of PyTorch and of "
        "the packages before it in pyproject.toml. `import vocoder` takes "
        f"{result['import_vocoder_seconds']:.2f} s and `vocoder --help` "
        f"{result['help_seconds']:.2f} s. All seconds are of processor time (Python "
        f"{result['python']}, torch {result['torch']}; [dependencies.py](dependencies.py))."
    )
    return f"{prose}\n\n{filling.markdown(headings, rows, text={0, 1})}"


TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    **ablation.tables("bands"),
    "frames": ablation.tables("frames")["frames"],  # temperatures were varied in "bands" alone
    "sweeps": ("results/ablation/sweeps.json", sweeps_table),
    "standing": ("results/scores/default.unheard-speech.json", standing_table),
    "scores": ("results/scores.json", scores_table),
    "refine": ("results/scores/default.unheard-speech.json", refine_table),
    "samples": ("results/samples.json", samples_table),
    "curve": ("results/curve.json", curve_table),
    "likelihood": ("results/runs.json", runs_table("likelihood")),
    "sample": ("results/runs.json", runs_table("sample")),
    "speech": ("results/scores/acoustic.speech.json", speech_table),
    "tones": ("results/tones.json", tones_table),
    "benchmark": ("results/benchmark.json", benchmark_table),
    "dependencies": ("results/dependencies.json", dependencies_table),
    "cost": ("results/benchmark.json", cost_sentence),
    "engines": ("results/benchmark.json", engines_table),
    "unheard-likelihood": ("results/ablation/likelihood.json", unheard_likelihood_table),
    "hours": ("results/scores/default.unheard-speech.json", hours_table),
    "node": ("results/benchmark.json", node_sentence),
    "streaming": ("results/streaming.json", streaming_table),
    **frontier_report.TABLES,
    **families_report.TABLES,
    **mel_parity.TABLES,
}


def filled(text: str, root: Path = ROOT) -> str:
    """A document with its tables regenerated; see `filling.filled`."""
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
