"""Tables of docs/comparison.md: what was measured here, and facts from elsewhere with sources."""

from collections.abc import Mapping
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


FACTS: dict[str, tuple[str, str, str, str]] = {
    # training, likelihood, streaming, licence of code and weights
    "HiFi-GAN V1": (
        "[13 to 14 days of two V100](https://github.com/jik876/hifi-gan/issues/7)", "no",
        "no; sees 16 frames ahead", "MIT",
    ),
    "Vocos": (
        "[4.8 h of one L40S](https://github.com/rahul1-bot/VOCODE-Efficient-Neural-Vocoders)",
        "no", "[no](https://github.com/gemelo-ai/vocos/issues/26)", "MIT",
    ),
    "Griffin-Lim": ("none", "no", "no", "BSD-2-Clause (torchaudio)"),
    "WaveGlow": (
        "[188 h of one A100](https://github.com/NVIDIA/DeepLearningExamples)", "exact", "no",
        "BSD-3-Clause",
    ),
    "WaveNet": (
        "[8 days of one GTX 1080 Ti](https://github.com/r9y9/wavenet_vocoder/issues/41)", "exact",
        "sample by sample", "MIT (wavenet_vocoder)",
    ),
    "piper": (
        "text to audio, takes no mel", "no",
        "[by the sentence](https://github.com/rhasspy/piper/issues/93)",
        "MIT, phonemes GPL-3.0; [successor](https://github.com/OHF-Voice/piper1-gpl) GPL-3.0",
    ),
}  # fmt: skip


def facts_table(result: Mapping[str, Any]) -> str:
    """What can be looked up; our own delay is from docs/results/streaming.json."""
    delay = next(row for row in result["rows"] if row["name"] == "default")["look_ahead_seconds"]
    trained = results.card("default")
    own = (
        f"[{trained['training']} of {trained['on']}](../vocoder/weights/default/MODEL_CARD.md)",
        "exact",
        f"[{1000 * delay:.0f} ms ahead](backends.md#streaming), without refinement",
        "Apache-2.0",
    )
    rows = [[title, *cells] for title, cells in {"**`default`**": own, **FACTS}.items()]
    return markdown(["", "training", "likelihood", "streaming", "licence"], rows, range(5))


TABLES: Tables = {
    "verdicts": ("scores/default.unseen-speakers.json", verdicts),
    "spoken": ("scores/acoustic.speech.json", spoken_table),
    "footprint": ("footprint.json", footprint_table),
    "facts": ("streaming.json", facts_table),
}
