"""Tables of docs/comparison.md: what was measured here, and facts from elsewhere with sources."""

from collections.abc import Iterable, Mapping
from typing import Any

from report import results
from report.markdown import Tables, mean, on
from report.results import milliseconds, row_of
from vocoder.evaluation.copy_synthesis import SAY
from vocoder.evaluation.results import estimate
from vocoder.evaluation.tables import heading, markdown, two_digits

OTHERS = {
    "HiFi-GAN V1": ("hifi-gan", False),
    "HiFi-GAN V1, refined": ("hifi-gan", True),
    "Griffin-Lim": ("Griffin-Lim", False),
    "Griffin-Lim, refined": ("Griffin-Lim", True),
}
"""Title -> system, and whether it is refined like `default`."""


def verdicts(result: Mapping[str, Any]) -> str:
    """What each of the others does better than `default`, then what it does worse.

    Means of paired differences over the recordings whose interval leaves out zero.
    """
    own = row_of(result, "default", refined=True)
    lost, won, equal = [], [], []
    for title, system in OTHERS.items():
        other = row_of(result, *system)
        if other is None or own is None:
            continue
        better, worse = [], []
        for name, measure in result["measures"].items():
            if name in {"log_likelihood", "tonal_artifacts"}:
                continue
            pairs = [
                (file["values"][other][name], file["values"][own][name]) for file in result["files"]
            ]
            change = estimate([a - b for a, b in pairs if a is not None and b is not None])
            if change["lower"] is None or change["lower"] <= 0 <= change["upper"]:
                continue
            more = (change["mean"] > 0) == (measure["better"] == "higher")
            if name == "times_real_time":
                cost = [milliseconds(result["rows"][row]) for row in (other, own)]
                text = f"speed ({cost[0]} ms for {cost[1]})"
            else:
                text = (
                    f"{heading(measure)[:-2].split(',')[0]} ({change['mean']:+.{_digits(change)}f})"
                )
            (better if more else worse).append(text)
        for part, found in ((lost, better), (won, worse)):
            if found:
                part.append(f"- **{title}**: {', '.join(found)}")
        if not better and not worse:
            equal.append(title)
    text = ["Better than `default`:", "", *lost, "", "Worse than `default`:", "", *won]
    if equal:
        text += ["", f"No difference was found for {', '.join(equal)}."]
    return "\n".join(
        [*text, "", "In brackets: the other less `default`; 95 % intervals leave out 0."]
    )


def _digits(change: Mapping[str, Any]) -> int:
    return 1 if abs(change["mean"]) >= 10 else 2 if abs(change["mean"]) >= 0.1 else 3


def spoken_table(result: Mapping[str, Any]) -> str:
    """Text to speech: mels of the bundled acoustic model."""
    shown = ("distillmos", "dnsmos", "envelope_depth", "word_error_rate")
    headings = ["vocoder", *(heading(result["measures"][name]) for name in shown)]
    rows = []
    for name, row in result["rows"].items():
        if name == "recording" or name.startswith(SAY):
            title = name.removeprefix(SAY).strip(", ") or "**`default`**"
            rows.append([title, *(mean(row[measure]) for measure in shown)])
    return (
        f"{markdown(headings, rows)}\n\nMeans over {len(result['files'])} held-out sentences of "
        f'`{result["about"]["corpus"]}`; "recording" is the synthetic voice that the acoustic '
        "model learnt from."
    )


def footprint_table(result: Mapping[str, Any]) -> str:
    """docs/results/footprint.json: cost of the vocoders that can be installed."""
    rows = dict(result["rows"])
    nothing = rows.pop("nothing")["megabytes"]
    cells = [
        [
            f"**`{name}`**" if name == "default" else name,
            f"{row['parameters'] / 1e6:.1f}M" if row["parameters"] else "",
            two_digits(1000 * row["seconds"]),
            f"{row['megabytes'] - nothing:,.0f} MB",
            f"{row['installed_megabytes']:,.0f} MB",
        ]
        for name, row in rows.items()
    ]
    headings = ["vocoder", "parameters", "ms", "memory", "installed"]
    return (
        f"{markdown(headings, cells)}\n\nms: processor time for a second of audio, in one piece of "
        f"{result['seconds']} s. Memory: peak above that of a process that only loads PyTorch and "
        "this package. Installed: the package, its weights and what it requires beside PyTorch; "
        "that of `default` includes training and text to speech. Vocos with random weights. "
        f"{on(result['machine'])}"
    )


SOURCES = {
    "HiFi-GAN": "https://arxiv.org/abs/2010.05646",
    "hifi-gan 7": "https://github.com/jik876/hifi-gan/issues/7",
    "Vocos": "https://arxiv.org/abs/2306.00814",
    "VOCODE": "https://github.com/rahul1-bot/VOCODE-Efficient-Neural-Vocoders",
    "DeepLearningExamples": "https://github.com/NVIDIA/DeepLearningExamples",
    "wavenet_vocoder 41": "https://github.com/r9y9/wavenet_vocoder/issues/41",
    "DiffWave": "https://arxiv.org/abs/2009.09761",
    "piper 93": "https://github.com/rhasspy/piper/issues/93",
    "piper1-gpl": "https://github.com/OHF-Voice/piper1-gpl",
    "vocos 26": "https://github.com/gemelo-ai/vocos/issues/26",
    "model card": "../vocoder/weights/default/MODEL_CARD.md",
    "streaming": "backends.md#streaming",
}

FACTS: dict[str, tuple[str, str, str, str, tuple[str, ...]]] = {
    # training, likelihood, streaming, licence of code and weights, sources
    "HiFi-GAN V1": (
        "13 to 14 days of two V100", "no", "no; sees 16 frames ahead", "MIT", ("hifi-gan 7",),
    ),
    "Vocos": ("4.8 h of one L40S, 125k steps", "no", "no", "MIT", ("VOCODE", "vocos 26")),
    "Griffin-Lim": ("none", "no", "no", "BSD-2-Clause (torchaudio)", ()),
    "WaveGlow": ("188 h of one A100", "exact", "no", "BSD-3-Clause", ("DeepLearningExamples",)),
    "WaveNet": (
        "8 days of one GTX 1080 Ti", "exact", "sample by sample", "MIT (wavenet_vocoder)",
        ("wavenet_vocoder 41",),
    ),
    "piper": (
        "one model from text to audio: takes no mel", "no", "by the sentence",
        "MIT, its phonemes GPL-3.0; successor GPL-3.0", ("piper 93", "piper1-gpl"),
    ),
}  # fmt: skip


def facts_table(result: Mapping[str, Any]) -> str:
    """What can be looked up; our own delay is from docs/results/streaming.json."""
    delay = next(row for row in result["rows"] if row["name"] == "default")["look_ahead_seconds"]
    trained = results.card("default") or {}
    own = (
        f"{trained['training']} of {trained['on']}", "exact",
        f"yes, {1000 * delay:.0f} ms without refinement", "Apache-2.0",
        ("model card", "streaming"),
    )  # fmt: skip
    rows = [
        [title, *cells, _links(sources)]
        for title, (*cells, sources) in {"**`default`**": own, **FACTS}.items()
    ]
    return markdown(
        ["", "training", "likelihood", "streaming", "licence", "source"], rows, range(6)
    )


QUOTED: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    # test, measure, values, sources
    ("LJSpeech, listeners", "MOS", "ground truth 4.52, WaveNet 4.43, WaveGlow 4.33", ("DiffWave",)),
    (
        "LibriTTS, 24 kHz", "PESQ / UTMOS",
        "Vocos 3.70 / 3.73, HiFi-GAN V1 3.09 / 3.67, ground truth UTMOS 4.06", ("Vocos",),
    ),
    ("LJSpeech, short training", "PESQ / UTMOS", "Vocos 3.61 / 4.09", ("VOCODE",)),
    ("times real time, CPU", "", "HiFi-GAN V1 1.43", ("HiFi-GAN",)),
    ("times real time, CPU of many cores", "", "Vocos 170", ("Vocos",)),
)  # fmt: skip


def quoted_table(_: Mapping[str, Any]) -> str:
    """Figures of papers."""
    rows = [[test, measure, values, _links(sources)] for test, measure, values, sources in QUOTED]
    return markdown(["test", "measure", "figures", "source"], rows, range(4))


def _links(sources: Iterable[str]) -> str:
    return ", ".join(f"[{name}]({SOURCES[name]})" for name in sources)


TABLES: Tables = {
    "verdicts": ("scores/default.unseen-speakers.json", verdicts),
    "spoken": ("scores/acoustic.speech.json", spoken_table),
    "footprint": ("footprint.json", footprint_table),
    "facts": ("streaming.json", facts_table),
    "quoted": ("footprint.json", quoted_table),
}
