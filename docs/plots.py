"""Draws docs/likelihood.png: held-out likelihood against speed, from what was measured.

    python docs/plots.py

The models are the group "likelihood" of docs/runs.json, trained on the same speech for the same
time; their speed is that of their family's fastest engine in docs/benchmark.json (batch 1, 5 s).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DOCS = Path(__file__).parent


def fastest(rows: list[dict[str, Any]], family: str) -> dict[str, Any]:
    """The row of a family that makes most samples per second of 5 s of audio."""
    same = [r for r in rows if r["family"] == family.lower() and r["name"] != "WaveGlow, published"]
    return max(
        (r for r in same if r["batch"] == 1 and r["audio_seconds"] == 5),
        key=lambda row: row["samples_per_second"],
    )


def main() -> None:
    """The command."""
    models = json.loads((DOCS / "runs.json").read_text(encoding="utf-8"))["likelihood"]
    result = json.loads((DOCS / "benchmark.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, model in enumerate(models):
        speed = fastest(result["rows"], model["family"])
        likelihood = model["log_likelihood"][1]
        axes.plot(speed["samples_per_second"], likelihood, "o", color=f"C{index}", markersize=9)
        axes.annotate(
            f"{model['family']}, {model['parameters'] / 1e6:.1f}M\n{speed['engine']}",
            (speed["samples_per_second"], likelihood),
            textcoords="offset points",
            xytext=(10, 0),
            va="center",
        )
    axes.set_xscale("log")
    axes.margins(x=0.4, y=0.3)
    axes.axvline(models[0]["sample_rate"], color="0.8", zorder=0)
    axes.set_xlabel("samples per second (line: real time)")
    axes.set_ylabel("held-out log-likelihood, nats per sample")
    minutes = round(models[0]["train_seconds"] / 60)
    axes.set_title(f"same speech, {minutes} minutes of training each", fontsize="medium")
    figure.savefig(DOCS / "likelihood.png", dpi=144)


if __name__ == "__main__":
    main()
