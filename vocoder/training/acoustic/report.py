"""Results of a run of the acoustic model: the model, held-out speech, a report."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from vocoder.atomic import file_name
from vocoder.audio import write_audio
from vocoder.audio.validation import limited
from vocoder.evaluation.baselines import GriffinLim
from vocoder.text.acoustic import AcousticModel, Batch
from vocoder.training.acoustic.data import collate
from vocoder.training.acoustic.module import held_out_scores
from vocoder.training.report import (
    HELD_OUT,
    draw,
    published,
    run_facts,
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
    try:
        audible = GriffinLim(model.mel_spec)
    except ImportError as error:  # what was trained is worth more than its Griffin-Lim
        logging.getLogger(__name__).warning("No Griffin-Lim in held-out: %s", error)
        audible = None
    scores: list[dict[str, Any]] = []
    pictures: list[dict[str, torch.Tensor]] = []
    mels: dict[str, torch.Tensor] = {}
    problems: list[str] = []
    for id, item in data.items(data.split.test, model).items():
        batch = Batch(*(part.to(model.device) for part in collate([item])))
        scores.append({"utterance": id, **held_out_scores(model, batch)})
        if len(pictures) + len(problems) == HELD_OUT:
            continue
        predicted = model.synthesize(data.phonemes[id], model.voices[item.voice]).cpu()
        if not predicted.isfinite().all():
            problems.append(id)
            continue
        mels[id] = predicted
        pictures.append(
            {
                f"{id}, recorded": data.mels[id].float(),
                "with its durations and pitch": model(batch).mel[0].T.cpu(),
                "from the text alone": predicted,
            }
        )
    summary: dict[str, Any] = {
        "facts": run_facts(trainer, module, data, rows, record),
        "validation": rows,
        "test": scores,
        "test_mean": {key: float(np.mean([s[key] for s in scores])) for key in COLUMNS},
    }
    shown = [
        {"utterance": f"mean of {len(scores)}", **summary["test_mean"]},
        *scores[:HELD_OUT],
    ]
    labels = {"utterance": "utterance", **COLUMNS}
    sections = [
        "Test utterances:",
        table([{label: score[key] for key, label in labels.items()} for score in shown]),
        "![learning curve and mels](report.png)",
        "Validation:",
        validation_table(rows, {f"val/{key}": label for key, label in COLUMNS.items()}),
        "Mel distance is the mean absolute error of the mel predicted with the durations, pitch, "
        "voicing and loudness of the recording; pitch error that of the predicted F0 in voiced "
        "frames. Duration error compares predicted and aligned durations, length error the length "
        "of the utterance. Held-out mels, predicted from the text alone, are in `held-out`, made "
        "audible by Griffin-Lim, which needs no trained vocoder and sounds accordingly.",
    ]
    command = f'vocoder say "A sentence." --acoustic {shlex.quote(str(run / "model"))} -o out.wav'
    with published(run, summary, sections, command, "predicted mels", problems):
        (run / "held-out").mkdir(exist_ok=True)
        for id, predicted in mels.items():
            stem, rate = run / "held-out" / file_name(id), model.sample_rate
            write_audio(f"{stem}.original.wav", torch.tensor(data.audio(id)), rate)
            if audible is not None:
                # Mels of a model that has hardly learnt leave the range of recordings.
                sound = audible.synthesize(limited(predicted, model.mel_spec))
                write_audio(f"{stem}.griffin-lim.wav", sound, rate)
            np.save(f"{stem}.npy", predicted.numpy())
        curves = ("mel_distance", "pitch_error", "duration_error")
        draw(run / "report.png", rows, {f"val/{key}": COLUMNS[key] for key in curves}, pictures)
