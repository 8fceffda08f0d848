"""Puts a finished training run into the package: weights in half precision, config and model card.

A vocoder:

    python recipes/bundle.py vocoder runs/source default \\
        --statement recipes/synthetic-english/statement.md \\
        --evaluate seen-speakers=data/synthetic-english \\
        --evaluate unseen-speakers=data/synthetic-english-unseen/wavs

writes `vocoder/weights/default`, the scores to `docs/results/scores/default.LABEL.json` and their
totals to `docs/results/scores.json`. In a corpus the test utterances are scored, in a folder
without metadata.csv all recordings. The cost of half precision is measured on the first corpus,
against the weights as trained.

The acoustic model:

    vocoder evaluate data/heart --acoustic runs/acoustic/model --limit 50 \\
        --measures word_error_rate -o docs/results/scores/acoustic.speech.json
    python recipes/bundle.py acoustic runs/acoustic docs/results/scores/acoustic.speech.json \\
        --statement recipes/synthetic-english/acoustic.md

writes `vocoder/weights/acoustic`. The restoring flow:

    python recipes/bundle.py restoration runs/restoration/model \\
        --statement recipes/restoration/statement.md

writes `vocoder/weights/restoration`; `docs/scripts/restoration.py` measures it there.

Every figure in a card comes from those scores or from the report of the run. The statement is prose
about the data, its licences and what to expect.
"""

import argparse
import json
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from vocoder.atomic import write_atomic
from vocoder.evaluation import tables
from vocoder.evaluation.copy_synthesis import evaluate
from vocoder.evaluation.results import save_result
from vocoder.models import load_checkpoint, restoration
from vocoder.models.card import CARD_NAME
from vocoder.pretrained import ACOUSTIC_NAME, RESTORATION_NAME
from vocoder.text import acoustic
from vocoder.training.acoustic import COLUMNS

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "vocoder" / "weights"
SCORES = ROOT / "docs" / "results" / "scores"
TOTALS = ROOT / "docs" / "results" / "scores.json"

# Measures that half precision could harm, without the slow ones of pitch.
PRECISION_MEASURES = ("log_likelihood", "log_mel_distance", "stoi", "pesq")
PRECISION_RECORDINGS = 8

# -- a vocoder ---------------------------------------------------------------------------------


def bundle_vocoder(
    run: Path,
    name: str,
    statement: Path,
    corpora: dict[str, Path],
    temperature: float | None = None,
    limit: int | None = None,
    reuse: bool = False,
    notice: Path | None = None,
) -> Path:
    """Write weights, scores and card; returns the folder of the weights.

    With `reuse`, existing scores are taken to be those of this run.

    Raises:
        ValueError: the run is not finished, or a corpus cannot be evaluated.
    """
    report = read_report(run)
    trained = load_checkpoint(run / "model").fused()
    SCORES.mkdir(exist_ok=True)
    with replacing(WEIGHTS / name) as folder:
        trained.save(folder, torch.float16)
        halved = load_checkpoint(folder).fused()

        def scores(label: str, models: dict[str, Any], corpus: Path, **options: Any) -> Any:
            file = SCORES / f"{name}.{label}.json"
            if reuse and file.is_file():
                return json.loads(file.read_text(encoding="utf-8"))
            with Progress(console=Console(stderr=True)) as bar:
                task = bar.add_task(label, total=None)
                result = evaluate(
                    models,
                    corpus,
                    progress=lambda done, total, _: bar.update(task, completed=done, total=total),
                    device="cpu",
                    **({} if temperature is None else {"temperature": temperature}),
                    **options,
                )
            # `wavs` is all of a corpus, not its test utterances alone.
            inside = corpus.parent if corpus.name == "wavs" else corpus
            result["about"]["corpus"] = inside.name
            save_result(result, file)
            return result

        # Without refinement, and with the iterations that the model ships with.
        refine = [0, halved.default_refine] if halved.default_refine else None
        results = {
            label: scores(label, {name: halved}, corpus, limit=limit, refine=refine)
            for label, corpus in corpora.items()
        }
        precision = scores(
            "precision",
            {"float16": halved, "float32": trained},
            next(iter(corpora.values())),
            limit=min(PRECISION_RECORDINGS, limit or PRECISION_RECORDINGS),
            measures=PRECISION_MEASURES,
        )
        totals = json.loads(TOTALS.read_text(encoding="utf-8")) if TOTALS.exists() else {}
        totals[name] = {
            label: {key: value for key, value in result.items() if key != "files"}
            | {"recordings": len(result["files"])}
            for label, result in results.items()
        }
        save_result(totals, TOTALS)
        prose = statement.read_text(encoding="utf-8")
        write_card(folder, vocoder_card(name, prose, report, results, precision))
        if notice is not None:
            shutil.copy(notice, folder / "NOTICE")
    return WEIGHTS / name


def vocoder_card(
    name: str,
    statement: str,
    report: dict[str, Any],
    results: dict[str, Any],
    precision: dict[str, Any],
) -> str:
    """The model card of a vocoder, as Markdown."""
    first, last = report["validation"][0], report["validation"][-1]
    facts = dict(report["facts"])
    for key, label in (
        ("val/log_likelihood", "log-likelihood of the validation utterances, nats per sample"),
        ("val/mel_distance", "log-mel distance of their copy synthesis, nats"),
    ):
        if key in first and key in last:
            facts[label] = f"{first[key]:.3f} before training, {last[key]:.3f} after it"
    lines = []
    for label, result in results.items():
        lines += [f"### {label}: {result['about']['corpus']}", ""]
        lines += [tables.scores(result), "", paragraph(tables.caption(result)), ""]
    changes = [
        f"{precision['measures'][key]['title']} {row['mean']:+.1g} (95 % interval "
        f"{row['lower']:+.1g} to {row['upper']:+.1g})"
        for key, row in precision["differences"]["float32"].items()
        if row["lower"] is not None
    ]
    half = (
        "Weights are stored in float16; computation is in float32. Paired differences to the "
        f"weights as trained, over {len(precision['files'])} recordings: {'; '.join(changes)}."
    )
    lines += ["## Half precision", "", paragraph(half), ""]
    return card(name, statement, facts, lines)


# -- the acoustic model ------------------------------------------------------------------------


def bundle_acoustic(run: Path, speech: Path, statement: Path) -> Path:
    """Write weights and card; returns their folder.

    Raises:
        ValueError: the run is not finished.
    """
    report = read_report(run)
    recognised = json.loads(speech.read_text(encoding="utf-8"))
    with replacing(WEIGHTS / ACOUSTIC_NAME) as folder:
        acoustic.load_checkpoint(run / "model").save(folder, torch.float16)
        write_card(folder, acoustic_card(statement.read_text(encoding="utf-8"), report, recognised))
    return WEIGHTS / ACOUSTIC_NAME


def acoustic_card(statement: str, report: dict[str, Any], recognised: dict[str, Any]) -> str:
    """The model card of the acoustic model, as Markdown."""
    first, last = report["validation"][0], report["validation"][-1]
    headings = ["", "validation, before", "validation, after", "test"]
    cells = []
    for key, label in COLUMNS.items():
        values = (first[f"val/{key}"], last[f"val/{key}"], report["test_mean"][key])
        cells.append([label, *(f"{value:.3f}" for value in values)])
    explained = (
        f"Test: mean over {len(report['test'])} utterances that were never trained on. The report "
        "that the recipe writes defines the scores. Weights are stored in float16; computation is "
        "in float32."
    )
    lines = [tables.markdown(headings, cells), "", paragraph(explained), ""]
    lines += ["### Word error rate", ""]
    lines += [tables.scores(recognised), "", paragraph(tables.caption(recognised)), ""]
    return card(ACOUSTIC_NAME, statement, report["facts"], lines)


# -- the restoring flow ------------------------------------------------------------------------


def bundle_restoration(checkpoint: Path, statement: Path) -> Path:
    """Write weights and card; returns their folder."""
    with replacing(WEIGHTS / RESTORATION_NAME) as folder:
        restoration.load_checkpoint(checkpoint).save(folder, torch.float16)
        write_card(folder, f"# restoration\n\n{statement.read_text(encoding='utf-8')}")
    return WEIGHTS / RESTORATION_NAME


# -- both --------------------------------------------------------------------------------------


def read_report(run: Path) -> Any:
    """The report of a finished run."""
    if not (run / "report.json").is_file():
        raise ValueError(f"{run} holds no finished run: it has no report.json")
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A path to write to, whose folder replaces `folder` at the end: all of it or nothing."""
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parents[1]) as scratch:
        yield Path(scratch) / folder.name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(Path(scratch) / folder.name, folder)


def write_card(folder: Path, text: str) -> None:
    write_atomic(folder / "MODEL_CARD.md", text.encode())
    (folder / CARD_NAME).unlink()  # the general one that `save` wrote


def card(name: str, statement: str, facts: dict[str, str], scored: Sequence[str]) -> str:
    """A model card: the statement, the facts of the training run, and the lines of the scores."""
    lines = [f"# {name}", "", statement.strip(), "", "## Training", ""]
    for key, value in facts.items():
        # The model's arguments are in the file next to the card.
        fact = f"- {key}: {value.replace('`config.yaml`', '`config.json`')}"
        lines.append(paragraph(fact, indent="  "))
    return "\n".join([*lines, "", "## Scores", "", *scored])


def paragraph(text: str, indent: str = "") -> str:
    """Text in lines of 120 characters; `indent` begins every line but the first."""
    return textwrap.fill(
        text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def corpus(pair: str) -> tuple[str, Path]:
    """LABEL=FOLDER."""
    label, separator, folder = pair.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{pair!r}: write LABEL=FOLDER")
    return label, Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Put a finished training run into the package.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    vocoder = kinds.add_parser("vocoder", help="a vocoder, with its scores")
    vocoder.add_argument("run", type=Path, help="folder of the run")
    vocoder.add_argument("name", help="of the bundled model: vocoder.load(NAME)")
    vocoder.add_argument("--notice", type=Path, help="terms of the data, copied to the weights")
    vocoder.add_argument(
        "--evaluate", dest="corpora", action="append", required=True, type=corpus,
        metavar="LABEL=FOLDER", help="repeatable",
    )  # fmt: skip
    vocoder.add_argument("--temperature", type=float, help="of the scores (default: the model's)")
    vocoder.add_argument("--limit", type=int, help="recordings per corpus, for slow models")
    vocoder.add_argument("--reuse", action="store_true", help="measure missing scores only")
    speech = kinds.add_parser("acoustic", help="the acoustic model")
    speech.add_argument("run", type=Path, help="folder of the run")
    speech.add_argument("speech", type=Path, help="JSON of `vocoder evaluate --acoustic`")
    flow = kinds.add_parser("restoration", help="the restoring flow")
    flow.add_argument("checkpoint", type=Path, help="folder of its weights")
    for kind in (vocoder, speech, flow):
        kind.add_argument("--statement", type=Path, required=True, help="Markdown about the data")
    arguments = vars(parser.parse_args())
    try:
        kind = arguments.pop("kind")
        if kind == "vocoder":
            folder = bundle_vocoder(**arguments | {"corpora": dict(arguments["corpora"])})
        else:
            write = bundle_acoustic if kind == "acoustic" else bundle_restoration
            folder = write(**arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"bundle.py: {error}")
    print(f"{folder}: {(folder / 'model.safetensors').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
