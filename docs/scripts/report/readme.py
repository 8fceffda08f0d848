"""Tables of README.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.markdown import Tables, markdown, mean
from report.rows import DEFAULT_ROWS, FLOW, PUBLISHED
from vocoder.evaluation.tables import heading


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
        f"{markdown(headings, rows, [0])}\n\nMeans over {len(result['files'])} recordings of "
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


TABLES: Tables = {
    "standing": ("scores/default.unseen-speakers.json", standing_table),
    "cost": ("benchmark.json", cost_sentence),
}
