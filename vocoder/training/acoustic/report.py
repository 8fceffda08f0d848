"""What a finished run of the acoustic model writes: the model, held-out speech, and a page."""

from __future__ import annotations

import copy
import logging
import shlex
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from vocoder.atomic import file_name
from vocoder.audio import write_audio
from vocoder.evaluation.griffin_lim import griffin_lim
from vocoder.text.acoustic import AcousticModel, Batch
from vocoder.training.acoustic.data import collate
from vocoder.training.acoustic.module import held_out_scores
from vocoder.training.module import DivergedError
from vocoder.training.report import (
    HELD_OUT,
    Picture,
    announce_report,
    draw,
    run_facts,
    save_report,
    table,
    validation_table,
)
from vocoder.training.run_folder import Record

COLUMNS = {
    "mel_distance": "mel distance, nats",
    "pitch_error": "pitch error, semitones",
    "duration_error": "duration error, frames per symbol",
    "length_error": "length error, fraction",
}


@torch.no_grad()
def write_acoustic_report(
    run: Path,
    trainer: lightning.Trainer,
    module: Any,
    data: Any,
    rows: list[dict[str, Any]],
    record: Record,
) -> None:
    """Write `run`/report.md, report.json, `run`/held-out and the report's picture.

    The page comes first, since audio may not fit on a full disk. Ends by logging a command that
    uses the model, which is in `run`/model.

    Args:
        run: folder of the run.
        trainer, module, data: an `AcousticTraining` and its `TextAndSpeech`.
        rows: the recorded validations.
        record: of the run.

    Raises:
        DivergedError: mels that the model predicts are not finite; all that could be written is.
    """
    model: AcousticModel = module.model.fused()
    folder = run / "held-out"
    try:
        audible = griffin_lim(model.mel_spec, seed=0)
    except ImportError as error:  # what was trained is worth more than its Griffin-Lim
        logging.getLogger(__name__).warning("No Griffin-Lim in held-out: %s", error)
        audible = None
    scores: list[dict[str, Any]] = []
    halved = _halved(module.model).fused()
    halved_scores: list[dict[str, Any]] = []
    pictures: list[list[Picture]] = []
    mels: dict[str, torch.Tensor] = {}
    problems: list[str] = []
    for id, item in data.items(data.split.test, model).items():
        batch = Batch(*(part.to(model.device) for part in collate([item])))
        scores.append({"utterance": id, **held_out_scores(model, batch)})
        halved_scores.append(held_out_scores(halved, batch))
        if len(pictures) + len(problems) == HELD_OUT:
            continue
        voice = model.voices[item.voice]
        predicted = model.synthesize(data.phonemes[id], voice).cpu()
        if not predicted.isfinite().all():
            problems.append(id)
            continue
        mels[id] = predicted
        recorded = data.mels[id].float()
        limits = recorded.min().item(), recorded.max().item()
        pictures.append(
            [
                Picture(f"{id}, recorded", recorded, *limits),
                Picture("with its durations and pitch", model(batch).mel[0].T.cpu(), *limits),
                Picture("from the text alone", predicted, *limits),
            ]
        )
    means = {key: float(np.mean([s[key] for s in scores])) for key in COLUMNS}
    cost = {key: float(np.mean([s[key] for s in halved_scores])) - means[key] for key in COLUMNS}
    summary = {
        "facts": run_facts(trainer, module, data, rows, record),
        "validation": rows,
        "test": scores,
        "test_mean": means,
        "half_precision": cost,
    }
    command = f'vocoder say "A sentence." --acoustic {shlex.quote(str(run / "model"))} -o out.wav'
    words = f"predicted mels that are not finite: {', '.join(problems)}" if problems else ""
    opening = [words, ""] if words else []
    save_report(run, summary, [*opening, *_sections(module, summary)], command)
    folder.mkdir(exist_ok=True)
    for id, predicted in mels.items():
        name, rate = file_name(id), model.sample_rate
        write_audio(folder / f"{name}.original.wav", torch.tensor(data.audio(id)), rate)
        if audible is not None:
            write_audio(folder / f"{name}.griffin-lim.wav", audible(predicted), rate)
        np.save(folder / f"{name}.npy", predicted.numpy())
    curves = ("mel_distance", "pitch_error", "duration_error")
    draw(run / "report.png", rows, {f"val/{key}": COLUMNS[key] for key in curves}, pictures)
    if problems:
        raise DivergedError(f"training has diverged: {words}")
    announce_report(run, command)


def _halved(model: AcousticModel) -> AcousticModel:
    """The model with weights rounded to half precision, as in a checkpoint of half the size."""
    halved = copy.deepcopy(model)
    with torch.no_grad():
        for value in (*halved.parameters(), *halved.buffers()):
            value.copy_(value.half())
    return halved


def _sections(module: Any, summary: dict[str, Any]) -> list[str]:
    rows, scores = summary["validation"], summary["test"]
    tested = [
        {"utterance": s["utterance"], **{label: s[key] for key, label in COLUMNS.items()}}
        for s in (
            {"utterance": f"mean of {len(scores)}", **summary["test_mean"]},
            {"utterance": "change by half precision", **summary["half_precision"]},
            *scores[:HELD_OUT],
        )
    ]
    return [
        "Test utterances:",
        "",
        table(tested),
        "",
        "![learning curve and mels](report.png)",
        "",
        "Validation:",
        "",
        validation_table(rows, {f"val/{key}": label for key, label in COLUMNS.items()}),
        "",
        "Mel distance is the mean absolute error of the mel predicted with the durations, pitch, "
        "voicing and loudness of the recording; pitch error that of the predicted F0 in voiced "
        "frames. Duration error compares predicted and aligned durations, length error the length "
        "of the utterance. Held-out mels, predicted from the text alone, are in `held-out`, made "
        "audible by Griffin-Lim, which needs no trained vocoder and sounds accordingly.",
    ]
