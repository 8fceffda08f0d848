"""Puts a finished training run into the package: weights, model card, the scores behind it.

    python recipes/bundle.py runs/several-voices default \\
        --statement recipes/synthetic-english/statement.md \\
        --evaluate voices-heard=data/synthetic-english \\
        --evaluate voice-unheard=data/synthetic-english-unseen/wavs

writes `vocoder/weights/default` (weights in half precision, config, MODEL_CARD.md) and the scores
as `docs/scores/default.LABEL.json`, their totals in `docs/scores.json`. What halving the precision
costs is measured on the first corpus, against the weights as they were trained. Every figure of the
card comes from those files or from the report of the run; the statement is prose about the data,
its licences and what to expect. Of a corpus the test utterances are taken, of a folder without
metadata.csv all recordings.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vocoder.atomic import write_atomic
from vocoder.evaluation import tables
from vocoder.evaluation.copy_synthesis import evaluate
from vocoder.evaluation.results import save_result
from vocoder.models import load_checkpoint

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "vocoder" / "weights"
SCORES = ROOT / "docs" / "scores"
TOTALS = ROOT / "docs" / "scores.json"

# What half precision could harm, without the slow measures of pitch.
PRECISION_MEASURES = ("log_likelihood", "log_mel_distance", "stoi", "pesq")
PRECISION_RECORDINGS = 8


def measured(
    label: str, models: dict[str, Any], folder: Path, temperature: float, **options: Any
) -> Any:
    """`evaluate` with a progress bar, the corpus named by its folder alone."""
    with tqdm(unit="steps", desc=label, disable=None) as bar:

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = evaluate(
            models, folder, progress=progress, temperature=temperature, device="cpu", **options
        )
    inside = folder.name == "wavs"  # all of a corpus, not its test utterances alone
    result["about"]["corpus"] = folder.parent.name if inside else folder.name
    return result


def scores(file: Path, reuse: bool, measure: Callable[[], Any]) -> Any:
    """What is in the file already, if that is wanted; else what is measured now, and kept there."""
    if reuse and file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    result = measure()
    save_result(result, file)
    return result


def bundle(
    run: Path,
    name: str,
    statement: Path,
    corpora: dict[str, Path],
    temperature: float,
    limit: int | None,
    reuse: bool,
    notice: Path | None,
) -> Path:
    """Write weights, scores and card; returns the folder of the weights.

    With `reuse`, scores that are there already are taken for those of this run.

    Raises:
        ValueError: the run is not finished, or a corpus cannot be evaluated.
    """
    if not (run / "report.json").is_file():
        raise ValueError(f"{run} holds no finished run: it has no report.json")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    trained = load_checkpoint(run / "model").fused()
    folder = WEIGHTS / name
    SCORES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=ROOT / "docs") as scratch:
        trained.save(Path(scratch) / "half", torch.float16)
        halved = load_checkpoint(Path(scratch) / "half").fused()
        results = {}
        for label, corpus in corpora.items():
            results[label] = scores(
                SCORES / f"{name}.{label}.json",
                reuse,
                lambda label=label, corpus=corpus: measured(
                    label, {name: halved}, corpus, temperature, limit=limit
                ),
            )
        first = next(iter(corpora.values()))
        precision = scores(
            SCORES / f"{name}.precision.json",
            reuse,
            lambda: measured(
                "precision",
                {"float16": halved, "float32": trained},
                first,
                temperature,
                limit=min(PRECISION_RECORDINGS, limit or PRECISION_RECORDINGS),
                measures=PRECISION_MEASURES,
            ),
        )
        totals = json.loads(TOTALS.read_text(encoding="utf-8")) if TOTALS.exists() else {}
        totals[name] = {
            label: {key: value for key, value in result.items() if key != "files"}
            | {"recordings": len(result["files"])}
            for label, result in results.items()
        }
        save_result(totals, TOTALS)
        card = model_card(name, report, statement.read_text(encoding="utf-8"), results, precision)
        write_atomic(Path(scratch) / "half" / "MODEL_CARD.md", card.encode())
        if notice is not None:
            shutil.copy(notice, Path(scratch) / "half" / "NOTICE")
        # All of it or nothing: a half-replaced model would load and be wrong.
        shutil.rmtree(folder, ignore_errors=True)
        WEIGHTS.mkdir(exist_ok=True)
        shutil.move(Path(scratch) / "half", folder)
    return folder


def model_card(
    name: str,
    report: dict[str, Any],
    statement: str,
    results: dict[str, Any],
    precision: dict[str, Any],
) -> str:
    """The card as Markdown."""
    first, last = report["validation"][0], report["validation"][-1]
    lines = [f"# {name}", "", statement.strip(), "", "## Training", ""]
    for key, value in report["facts"].items():
        lines.append(f"- {key}: {value.replace('`config.yaml`', '`config.json`')}")
    for key, label in (
        ("val/log_likelihood", "log-likelihood of the validation utterances, nats per sample"),
        ("val/mel_distance", "log-mel distance of their copy synthesis, nats"),
    ):
        if key in first and key in last:
            lines.append(f"- {label}: {first[key]:.3f} before training, {last[key]:.3f} after it")
    lines += ["", "## Scores", ""]
    for label, result in results.items():
        scored = tables.copy_synthesis(result)
        lines += [f"### {label}: {result['about']['corpus']}", ""]
        # A line for each measure: there are more of them than of rows.
        lines += [scored.tables[0].turned().markdown(), "", scored.caption, ""]
    difference = precision["differences"]["float32"]
    changes = [
        f"{precision['measures'][key]['title']} {row['mean']:+.1g} (95 % interval "
        f"{row['lower']:+.1g} to {row['upper']:+.1g})"
        for key, row in difference.items()
        if row["lower"] is not None
    ]
    lines += [
        "## Half precision",
        "",
        "The weights are stored in float16 and computed with in float32. Paired differences to the "
        f"weights as trained, over {len(precision['files'])} recordings: {'; '.join(changes)}.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Put a finished training run into the package.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("name", help="of the bundled model: vocoder.load(NAME)")
    parser.add_argument("--statement", type=Path, required=True, help="Markdown about the data")
    parser.add_argument("--notice", type=Path, help="terms of the data, to lie beside the weights")
    parser.add_argument(
        "--evaluate", action="append", required=True, metavar="LABEL=FOLDER", help="repeatable"
    )
    parser.add_argument("--temperature", type=float, default=0.667, help="of the scores")
    parser.add_argument(
        "--limit", type=int, help="take only so many recordings of each: for models that are slow"
    )
    parser.add_argument(
        "--reuse", action="store_true", help="keep the scores in docs/scores; measure the others"
    )
    arguments = parser.parse_args()
    corpora = {}
    for pair in arguments.evaluate:
        label, separator, folder = pair.partition("=")
        if not separator:
            parser.error(f"--evaluate {pair}: write LABEL=FOLDER")
        corpora[label] = Path(folder)
    try:
        folder = bundle(
            arguments.run,
            arguments.name,
            arguments.statement,
            corpora,
            arguments.temperature,
            arguments.limit,
            arguments.reuse,
            arguments.notice,
        )
    except ValueError as error:
        sys.stderr.write(f"bundle.py: {error}\n")
        return 2
    size = (folder / "model.safetensors").stat().st_size
    print(f"{folder.relative_to(ROOT)}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
