"""Collects what training runs measured into docs/results/runs.json, for docs/results.md.

    python docs/scripts/runs.py sample runs/sample-10m
    python docs/scripts/runs.py likelihood runs/flow runs/wavenet

Each call replaces one group. A run folder is what recipes/ljspeech/train.py leaves behind; its
history, its model and its report are read.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from paths import RESULTS
from vocoder.evaluation.results import save_result
from vocoder.models import load_checkpoint

FILE = RESULTS / "runs.json"


def run_row(run: Path) -> dict[str, Any]:
    """The measurements of one run, as JSON values; ``family`` is its title.

    Raises:
        ValueError: the folder holds no finished run.
    """
    if not (run / "report.json").is_file():
        raise ValueError(f"{run} holds no finished run: it has no report.json")
    model = load_checkpoint(run / "model")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    facts, first, last = report["facts"], report["validation"][0], report["validation"][-1]
    return {
        "run": run.name,
        "family": model.title,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sample_rate": model.sample_rate,
        "train_seconds": last["train_seconds"],
        "audio_seconds": last["audio_seconds"],
        "steps": last["step"],
        "log_likelihood": [first["val/log_likelihood"], last["val/log_likelihood"]],
        "mel_distance": [first.get("val/mel_distance"), last.get("val/mel_distance")],
        "test": report["test"],
        "data": facts["data"],
        "hardware": facts["hardware"],
        "seed": int(facts["seed"]),
        "commit": facts.get("commit"),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Collect measurements of training runs.")
    parser.add_argument("group", help="key in docs/results/runs.json")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    arguments = parser.parse_args()
    groups = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    groups[arguments.group] = [run_row(run) for run in arguments.runs]
    save_result(groups, FILE)


if __name__ == "__main__":
    main()
