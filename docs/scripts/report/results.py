"""Tables of README.md, docs/results.md and docs/text.md: quality, and the speed benchmark."""

import json
import re
from collections.abc import Mapping
from typing import Any

from paths import ROOT
from report.markdown import Tables, mean, on
from vocoder.evaluation import tables
from vocoder.evaluation.copy_synthesis import SAY, row_name
from vocoder.evaluation.results import estimate
from vocoder.evaluation.tables import heading, markdown

FLOW = "MDCT flow"
PUBLISHED = "WaveGlow"
REFINE = json.loads((ROOT / "vocoder/weights/default/config.json").read_text(encoding="utf-8"))[
    "config"
]["refine"]
"""The refinement that the bundled default ends with."""


def row_of(result: Mapping[str, Any], system: str, refined: bool) -> str | None:
    """The row of a system as its network made it, or with the refinement that `default` ships with.

    None if it was not measured. A name alone is what a system does by itself: `default` refines,
    the others do not.
    """
    names = [row_name(system, value) for value in ((REFINE, "default") if refined else (0,))]
    if refined == (system == "default"):
        names.append(system)
    return next((name for name in names if name in result["rows"]), None)


def milliseconds(row: Mapping[str, Any]) -> str:
    """Computing for a second of audio, from the times real time of a row."""
    speed = row.get("times_real_time") or {"mean": None}
    return tables.two_digits(1000 / speed["mean"]) if speed["mean"] else ""


STANDING = ("pesq", "distillmos", "dnsmos", "envelope_depth")


def standing_table(result: Mapping[str, Any]) -> str:
    """Scores and cost of the default and of others, on the same recordings."""
    systems = (
        ("HiFi-GAN V1", "hifi-gan", False),
        ("HiFi-GAN V1, refined", "hifi-gan", True),
        ("Griffin-Lim, refined", "Griffin-Lim", True),
        ("**`default`**", "default", True),
        ("`default`, network output only", "default", False),
    )
    rows = {"recording": "recording"}
    for title, system, refined in systems:
        if name := row_of(result, system, refined):
            rows[title] = name
    shown = [name for name in STANDING if name in result["measures"]]
    # Narrow enough for a phone: units and intervals are in the long table.
    headings = [heading(result["measures"][name]).replace(", MOS", "") for name in shown]
    headings = ["", *headings, "ms ↓"]
    cells = [
        [
            title,
            *(mean(result["rows"][name].get(measure)).partition(" ")[0] for measure in shown),
            milliseconds(result["rows"][name]),
        ]
        for title, name in rows.items()
    ]
    about = result["about"]
    universal = " HiFi-GAN V1: the published universal weights." * ("HiFi-GAN V1" in rows)
    return (
        f"{markdown(headings, cells)}\n\nMeans over {len(result['files'])} recordings of speakers "
        "that no model was trained on. ms: computing for a second of "
        f"audio, {about['threads']} thread of an {about['machine']['cpu']}. Refined: by the "
        f"iterations that `default` ends with.{universal}"
    )


def headline(result: Mapping[str, Any]) -> str:
    """What the package is, in a sentence with its numbers."""
    own = result["rows"][row_of(result, "default", refined=True)]
    text = (
        "A neural vocoder, built as a normalizing flow: it turns log-mel spectrograms into speech "
        f"in {milliseconds(own)} ms of one CPU core per second of audio. For speakers that it "
        f"never heard its PESQ is {own['pesq']['mean']:.2f}"
    )
    row = result["rows"][row_of(result, "hifi-gan", refined=False)]
    rows = own, result["rows"]["recording"], row
    opinions = [f"{row['distillmos']['mean']:.2f}" for row in rows]
    return (
        f"{text} and its DistillMOS {opinions[0]}, where the recordings themselves have "
        f"{opinions[1]} (HiFi-GAN V1: {row['pesq']['mean']:.2f} and {opinions[2]}, in "
        f"{float(milliseconds(row)):,.0f} ms)."
    )


def cost_sentence(result: Mapping[str, Any]) -> str:
    """Speed of the slower ones, from docs/results/benchmark.json."""
    speed = {row["name"]: row for row in result["rows"] if row["audio_seconds"] == 5}

    def of(name: str, title: str) -> str:
        row = speed[name]
        milliseconds = tables.two_digits(1000 / row["times_real_time"])
        macs = tables.two_digits(row["gmac_per_audio_second"])
        return f"{title} {float(milliseconds):,.0f} ms ({macs} GMAC)"

    systems = {PUBLISHED: PUBLISHED, "WaveNet, compiled": "WaveNet"}
    others = " and ".join(of(name, title) for name, title in systems.items())
    machine = result["machine"]
    return (
        f"On {machine['cores']} cores of another machine, a second of audio takes {others}, and "
        f"a larger flow of this package {of(FLOW, '').strip()}."
    )


CORPORA = {
    "many-voices": "synthetic English, many voices",
    "heart": "synthetic English, two voices",
    "festvox-ru": "recorded Russian, one voice",
    "restoration": "recorded Russian, synthetic English, many voices",
}
WEIGHTS = ROOT / "vocoder/weights"


def card(name: str) -> dict[str, str]:
    """Parameters, speech, minutes and hardware of bundled weights, from their model card."""
    text = (WEIGHTS / name / "MODEL_CARD.md").read_text(encoding="utf-8")
    facts = dict(re.findall(r"^- ([a-z ]+): (.+)$", text, re.MULTILINE))
    size = re.search(r"([\d.]+M) parameters", facts["model"])
    spoken = re.findall(r"\(([\d.]+) (h|min)\b", facts["data"])
    hours = sum(float(number) / (60 if unit == "min" else 1) for number, unit in spoken)
    corpus = re.split(r"[:,]", facts["data"])[0]
    time = f"{facts.get('started from', '')} {facts['training time']}"
    minutes = sum(60 * int(h) + int(m) for h, m in re.findall(r"\b(\d+):(\d\d):\d\d", time))
    minutes += sum(map(int, re.findall(r"\b(\d+) minutes", time)))
    return {
        "parameters": size[1] if size else "",
        "speech": f"{hours:.1f} h, {CORPORA.get(corpus, corpus)}",
        "training": f"{minutes} min",
        "on": re.sub(r" process of (\d+) threads?", r", \1 thread", facts["hardware"]),
    }


def trained_table(_: Mapping[str, Any]) -> str:
    """What the bundled weights were trained on and for how long."""
    cards = {name: card(name) for name in ("default", "restoration", "acoustic")}
    rows = [[f"`{name}`", *facts.values()] for name, facts in cards.items()]
    return markdown(["weights", "parameters", "speech", "training", "on"], rows, [0, 2, 4])


SCORES = (
    "pesq", "stoi", "distillmos", "dnsmos", "envelope_depth", "log_mel_distance",
    "tonal_artifacts", "times_real_time",
)  # fmt: skip
"""Measures in the order of the columns; a column that is empty is left out."""


def refine_table(result: Mapping[str, Any]) -> str:
    """A result of `vocoder evaluate --refine`: quality and speed by the number of iterations."""
    measures = {name: result["measures"][name] for name in SCORES if name in result["measures"]}
    shown = [name for name in measures if any(row[name]["n"] for row in result["rows"].values())]
    rows = [
        [name, *(mean(row.get(measure)) for measure in shown)]
        for name, row in result["rows"].items()
    ]
    about = result["about"]
    return (
        f"{markdown(['', *(heading(measures[name]) for name in shown)], rows)}\n\n"
        f"Means over {len(result['files'])} recordings; ± is half a 95 % interval. Speed: "
        f"{about['threads']} thread, {about['machine']['cpu']}."
    )


def samples_list(groups: Mapping[str, Any]) -> str:
    """docs/results/samples.json: links to the sound, with the PESQ of each."""
    lines = []
    for name, group in groups.items():
        sounds = []
        for row in group["rows"]:
            score = row.get("scores", {}).get("pesq")
            link = f"[{row['name']}](samples/{row['file']})"
            sounds.append(link if score is None else f"{link} {score:.2f}")
        lines.append(f"- {name}: {', '.join(sounds)}")
    return "\n".join(lines)


def speech_table(result: Mapping[str, Any]) -> str:
    """Word error rates of a result of `vocoder evaluate --acoustic`, through our vocoder."""
    rows = [
        [name, _percent(result["rows"][name]["word_error_rate"]), *_less_recording(result, name)]
        for name in ("recording", "default", SAY)
    ]
    return (
        f"{markdown(['', 'word error rate, %', 'less the recording'], rows)}\n\n"
        f"Means over {len(result['files'])} sentences of {result['about']['corpus']} that were "
        f"kept from training, transcribed by {result['about']['recogniser']}; ± is half a 95 % "
        f"interval. {on(result['about']['machine'])}"
    )


def _less_recording(result: Mapping[str, Any], name: str) -> list[str]:
    if name == "recording":
        return [""]
    values = [file["values"] for file in result["files"]]
    rates = [(v[name]["word_error_rate"], v["recording"]["word_error_rate"]) for v in values]
    return [_percent(estimate([own - other for own, other in rates if None not in (own, other)]))]


def _percent(row: Mapping[str, Any]) -> str:
    return f"{100 * row['mean']:.1f} ± {100 * (row['upper'] - row['mean']):.1f}"


def restoration_table(result: Mapping[str, Any]) -> str:
    """docs/results/restoration.json: degraded mels, as they are and restored."""
    columns = {
        "pesq": ("PESQ ↑", 2), "dnsmos": ("DNSMOS ↑", 2),
        "distillmos": ("DistillMOS ↑", 2), "mel_error": ("error of the mel, nats ↓", 3),
    }  # fmt: skip
    headings = ["mel", "", *(title for title, _ in columns.values())]
    rows = [
        [row["mel"], row["system"]]
        + [f"{row[key]:.{digits}f}" if key in row else "" for key, (_, digits) in columns.items()]
        for row in result["rows"]
    ]
    about = result["about"]
    caption = (
        f"Means over {about['recordings']} recordings of the {about['half']} half. Restoring takes "
        f"{about['milliseconds']:.1f} ms of one thread per second of audio; "
        f"{about['parameters'] / 1e6:.2f}M parameters. {on(about['machine'])}"
    )
    return markdown(headings, rows, [0, 1]) + "\n\n" + caption


def adaptation_table(result: Mapping[str, Any]) -> str:
    """docs/results/adaptation.json: sentences of a voice before and after an evening's training."""
    columns = {
        "word_error_rate": ("word error rate ↓", 3),
        "speaker_similarity": ("speaker similarity ↑", 3),
        "distillmos": ("DistillMOS ↑", 2),
        "dnsmos": ("DNSMOS ↑", 2),
    }
    rows = [
        [row["name"], *(f"{row[key]:.{digits}f}" for key, (_, digits) in columns.items())]
        for row in result["rows"]
    ]
    about = result["about"]
    return (
        f"{markdown(['', *(title for title, _ in columns.values())], rows)}\n\n"
        f"Means over {about['sentences']} held-out sentences of {about['voice']}, after training "
        f"on {about['minutes']:g} minutes of it: vocoder "
        f"{about['training']['vocoder']}, acoustic model {about['training']['acoustic']}, one "
        f"shared core. {on(about['machine'])}"
    )


TABLES: Tables = {
    "adaptation": ("adaptation.json", adaptation_table),
    "restoration": ("restoration.json", restoration_table),
    "headline": ("scores/default.unseen-speakers.json", headline),
    "standing": ("scores/default.unseen-speakers.json", standing_table),
    "trained": ("scores.json", trained_table),
    "cost": ("benchmark.json", cost_sentence),
    "scores": ("scores/autoregressive.seen-speaker.json", refine_table),
    "refine": ("scores/default.unseen-speakers.json", refine_table),
    "conventions": ("conventions.json", refine_table),
    "samples": ("samples.json", samples_list),
    "benchmark": ("benchmark.json", tables.benchmark),
    "speech": ("scores/acoustic.speech.json", speech_table),
}
