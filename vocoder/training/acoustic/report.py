"""What a run of the acoustic model leaves behind: the model, held-out speech, and one page."""

from __future__ import annotations

import copy
import logging
import shlex
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from vocoder.atomic import atomic_path, write_atomic
from vocoder.audio import write_audio
from vocoder.evaluation.griffin_lim import griffin_lim
from vocoder.evaluation.results import save_result
from vocoder.text.acoustic import AcousticModel, Batch
from vocoder.text.alignment import alignment_posterior
from vocoder.training.acoustic.module import collate, held_out_scores
from vocoder.training.report import run_facts, table, thinned

log = logging.getLogger("vocoder.training")

HELD_OUT = 3
"""Test utterances that are drawn and made audible."""

COLUMNS = {
    "log_likelihood": "log-likelihood, nats per mel element",
    "mel_distance": "mel distance, nats",
    "duration_error": "duration error, frames per symbol",
    "length_error": "length error, fraction",
    "certainty": "certainty of the alignment",
}


@torch.no_grad()
def write_acoustic_report(
    run: Path,
    trainer: lightning.Trainer,
    module: Any,
    data: Any,
    rows: list[dict[str, Any]],
    seed: int,
) -> None:
    """Write `run`/model, `run`/held-out, `run`/report.md, its picture and `run`/report.json.

    Ends by logging the command that uses the model.

    Args:
        run: folder of the run.
        trainer, module, data: an `AcousticTraining` and its `TextAndSpeech`.
        rows: what was recorded at the validations.
        seed: of the run.
    """
    model: AcousticModel = module.model.eval()
    device = model.normal_mean.device
    model.save(run / "model")
    folder = run / "held-out"
    folder.mkdir(exist_ok=True)
    audible = griffin_lim(model.mel_spec, seed=0)
    scores: list[dict[str, Any]] = []
    halved = _halved(model)
    halved_scores: list[dict[str, Any]] = []
    pictures: list[tuple[str, Tensor, Tensor, Tensor]] = []
    for id, item in data.held_out(data.split.test, model).items():
        batch = Batch(*(part.to(device) for part in collate([item]).batch))
        scores.append({"utterance": id, **held_out_scores(model, batch, module.temperature)})
        halved_scores.append(held_out_scores(halved, batch, module.temperature))
        if len(pictures) == HELD_OUT:
            continue
        prior = model.prior(batch.symbols, batch.symbol_counts)
        z, _ = model(batch.mel, batch.frames)
        posterior = alignment_posterior(model.alignment_scores(z, prior)[0].cpu())
        said = model.synthesize(data.phonemes[id], module.temperature).cpu()
        pictures.append((id, data.mels[id], posterior, said))
        name = id.replace("/", "_")
        rate = model.sample_rate
        write_audio(folder / f"{name}.original.wav", torch.tensor(data.audio(id)), rate)
        write_audio(folder / f"{name}.griffin-lim.wav", audible(said), rate)
        np.save(folder / f"{name}.npy", said.numpy())
    _draw(run / "report.png", rows, pictures)
    facts = run_facts(trainer, module, data, seed)
    means = {key: float(np.mean([s[key] for s in scores])) for key in COLUMNS}
    cost = {key: float(np.mean([s[key] for s in halved_scores])) - means[key] for key in COLUMNS}
    summary = {
        "facts": facts,
        "validation": rows,
        "test": scores,
        "test_mean": means,
        "half_precision": cost,
    }
    save_result(summary, run / "report.json")
    command = f'vocoder say "A sentence." --acoustic {shlex.quote(str(run / "model"))} -o out.wav'
    write_atomic(run / "report.md", _page(run, module, summary, command).encode())
    log.info("\n%s\nUse the model:\n  %s", run / "report.md", command)


def _halved(model: AcousticModel) -> AcousticModel:
    """The model with weights rounded to half precision, as a smaller checkpoint would hold them."""
    halved = copy.deepcopy(model)
    with torch.no_grad():
        for value in (*halved.parameters(), *halved.buffers()):
            value.copy_(value.half())
    return halved


def _page(run: Path, module: Any, summary: dict[str, Any], command: str) -> str:
    rows, scores = summary["validation"], summary["test"]
    lines = [f"# {run.name}", ""]
    lines += [f"- {name}: {fact}" for name, fact in summary["facts"].items()]
    shown = {
        "step": "step",
        "train_seconds": "seconds",
        "audio_seconds": "audio seen, s",
        **{f"val/{key}": label for key, label in COLUMNS.items()},
    }
    points = [{label: row.get(key) for key, label in shown.items()} for row in thinned(rows, 20)]
    tested = [
        {"utterance": s["utterance"], **{label: s[key] for key, label in COLUMNS.items()}}
        for s in (
            {"utterance": f"mean of {len(scores)}", **summary["test_mean"]},
            {"utterance": "change by half precision", **summary["half_precision"]},
            *scores[:HELD_OUT],
        )
    ]
    lines += ["", "Test utterances:", ""]
    lines += table(tested)
    lines += ["", "![learning curve, alignments and mels](report.png)", ""]
    lines += ["Validation:", ""]
    lines += table(points)
    lines += [
        "",
        "Log-likelihood is that of the log-mel in nats per element (frame and band) with noise of "
        f"{module.trainer.datamodule.noise:g} nats, given the best alignment. Mel distance is the "
        "mean absolute difference between the mel and one made from the text at temperature "
        f"{module.temperature:g} with the durations of the best alignment. Duration error compares "
        "predicted and aligned durations, length error the length of the utterance. Certainty is "
        "the mean over frames of the probability of the likeliest state. Held-out mels, predicted "
        "from the text alone, are in `held-out`, made audible by Griffin-Lim, which needs no "
        "trained vocoder and sounds like it.",
        "",
        f"    {command}",
        "",
    ]
    return "\n".join(lines)


def _draw(
    path: Path,
    rows: list[dict[str, Any]],
    pictures: list[tuple[str, Tensor, Tensor, Tensor]],
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.4 * (1 + len(pictures))), layout="constrained")
    axes = figure.subplots(1 + len(pictures), 3, squeeze=False)
    curves = ("log_likelihood", "mel_distance", "duration_error")
    for axis, key in zip(axes[0], curves, strict=True):
        points = [(r["train_seconds"] / 60, r[f"val/{key}"]) for r in rows if f"val/{key}" in r]
        axis.plot([x for x, _ in points], [y for _, y in points], marker=".")
        axis.set_xlabel("minutes of training")
        axis.set_title(COLUMNS[key], fontsize=9)
        axis.grid(alpha=0.3)
    for row, (name, mel, posterior, said) in zip(axes[1:], pictures, strict=True):
        low, high = mel.min().item(), mel.max().item()
        row[0].imshow(mel, origin="lower", aspect="auto", vmin=low, vmax=high)
        row[0].set_title(f"{name}, recorded", fontsize=9)
        row[1].imshow(posterior.T, origin="lower", aspect="auto", vmin=0, vmax=1)
        row[1].set_title("alignment: states over frames", fontsize=9)
        row[2].imshow(said, origin="lower", aspect="auto", vmin=low, vmax=high)
        row[2].set_title("from the text alone", fontsize=9)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=80, format="png")
