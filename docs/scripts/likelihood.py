"""Draws docs/pictures/likelihood.png: held-out likelihood against speed.

    python docs/scripts/likelihood.py

The models are the group "likelihood" of docs/results/runs.json, trained on the same speech for the
same time. Their speed is that of the fastest engine of their family in docs/results/benchmark.json
(batch 1, 5 s).
"""

from __future__ import annotations

import json
from typing import Any

from paths import PICTURES, RESULTS
from vocoder.evaluation.plots import new_figure, save_figure
from vocoder.models import FAMILIES


def fastest(rows: list[dict[str, Any]], title: str) -> dict[str, Any]:
    """The fastest row of the family of that title, for 5 s of audio."""
    names = [name for name, family in FAMILIES.items() if family.title == title]
    same = [row for row in rows if row["family"] in names]
    return max(
        (row for row in same if row["batch"] == 1 and row["audio_seconds"] == 5),
        key=lambda row: row["samples_per_second"],
    )


def main() -> None:
    """The command."""
    models = json.loads((RESULTS / "runs.json").read_text(encoding="utf-8"))["likelihood"]
    result = json.loads((RESULTS / "benchmark.json").read_text(encoding="utf-8"))
    figure = new_figure(7, 4)
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
    save_figure(figure, PICTURES / "likelihood.png")


if __name__ == "__main__":
    main()
