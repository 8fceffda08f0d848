"""Puts a finished run of the acoustic model into the package: weights and model card.

    vocoder evaluate-speech data/synthetic-english --prefix joe- --acoustic runs/acoustic/model \\
        -o docs/scores/acoustic.speech.json
    python recipes/bundle_acoustic.py runs/acoustic docs/scores/acoustic.speech.json \\
        --statement recipes/synthetic-english/acoustic.md

writes `vocoder/weights/acoustic`: weights in half precision, config and MODEL_CARD.md. Every figure
of the card comes from the report of the run or from that measurement; the statement is prose about
the data, its licences and what to expect.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from vocoder.atomic import write_atomic
from vocoder.evaluation import tables
from vocoder.pretrained import ACOUSTIC_NAME
from vocoder.text.acoustic import load_checkpoint
from vocoder.training.acoustic.report import COLUMNS

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "vocoder" / "weights"


def bundle(run: Path, speech: Path, statement: Path) -> Path:
    """Write weights and card; returns their folder.

    Raises:
        ValueError: the run is not finished, or the measurement is of another model.
    """
    if not (run / "report.json").is_file():
        raise ValueError(f"{run} holds no finished run: it has no report.json")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    heard = json.loads(speech.read_text(encoding="utf-8"))
    folder = WEIGHTS / ACOUSTIC_NAME
    WEIGHTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=WEIGHTS) as scratch:
        made = load_checkpoint(run / "model").save(Path(scratch) / "half", torch.float16)
        card = model_card(report, heard, statement.read_text(encoding="utf-8"))
        write_atomic(made / "MODEL_CARD.md", card.encode())
        # All of it or nothing: a half-replaced model would load and be wrong.
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(made, folder)
    return folder


def model_card(report: dict[str, Any], heard: dict[str, Any], statement: str) -> str:
    """The card as Markdown."""
    first, last = report["validation"][0], report["validation"][-1]
    lines = [f"# {ACOUSTIC_NAME}", "", statement.strip(), "", "## Training", ""]
    for key, value in report["facts"].items():
        lines.append(f"- {key}: {value.replace('`config.yaml`', '`config.json`')}")
    lines += ["", "## Scores", ""]
    lines += ["| | validation, untrained | validation, trained | test | half precision |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for key, label in COLUMNS.items():
        before, after = first[f"val/{key}"], last[f"val/{key}"]
        tested, cost = report["test_mean"][key], report["half_precision"][key]
        lines.append(f"| {label} | {before:.3f} | {after:.3f} | {tested:.3f} | {cost:+.1g} |")
    lines += [
        "",
        f"Test: the mean over {len(report['test'])} utterances that were never trained on. Half "
        "precision: what storing the weights in float16 changes in it (computed with in float32). "
        "What the scores are is told in the report that the recipe writes.",
        "",
        "### Word error rate",
        "",
    ]
    lines += [tables.recognition(heard).section(), ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Put an acoustic model into the package.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("speech", type=Path, help="JSON of `vocoder evaluate-speech`")
    parser.add_argument("--statement", type=Path, required=True, help="Markdown about the data")
    arguments = parser.parse_args()
    try:
        folder = bundle(arguments.run, arguments.speech, arguments.statement)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"bundle_acoustic.py: {error}\n")
        return 2
    print(f"{folder}: {sum(f.stat().st_size for f in folder.iterdir()) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
