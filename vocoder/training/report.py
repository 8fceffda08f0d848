"""What a finished run writes: held-out audio, and a page on how it went."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from vocoder.atomic import atomic_path, file_name, write_atomic
from vocoder.audio import write_audio
from vocoder.evaluation import METRICS, installed_metrics, measure
from vocoder.evaluation.results import finite, machine_facts, save_result
from vocoder.evaluation.tables import markdown
from vocoder.nn import fuse_weight_norm
from vocoder.training.callbacks import Best
from vocoder.training.crops import SpeechData
from vocoder.training.losses import mel_of_hops
from vocoder.training.module import DivergedError, Training, VocoderTraining, training_seconds
from vocoder.training.run_folder import Record

log = logging.getLogger("vocoder.training")

HELD_OUT = 3
"""Test utterances that are drawn and written as audio."""

COLUMNS = {
    "val/log_likelihood": "log-likelihood, nats per sample",
    "val/mel_distance": "mel distance, nats",
}

SCORES = ("pesq", "stoi", "log_mel_distance")
"""The measures in a report, if installed: the others load networks or track the pitch, which takes
longer than training a small model; `vocoder evaluate` takes them all."""


Pictures = Sequence[Mapping[str, Tensor]]
"""Rows of mels (bands, frames) by title; the first of a row sets its darkest and brightest."""


@torch.no_grad()
def write_report(
    run: Path,
    trainer: lightning.Trainer,
    module: VocoderTraining,
    data: SpeechData,
    rows: list[dict[str, Any]],
    record: Record,
) -> None:
    """Write `run`/report.md, report.json, `run`/held-out/*.wav and the report's picture.

    The page comes first, since audio may not fit on a full disk. Ends by logging a command that
    uses the model, which is in `run`/model.

    Raises:
        DivergedError: audio that the model generates is not finite; all that could be written is.
    """
    model = module.model.fused()
    scores: list[dict[str, Any]] = []
    pictures: list[dict[str, Tensor]] = []
    audio: dict[str, Tensor] = {}
    problems: list[str] = []
    # Whole utterances of the test set, which no choice was based on.
    held_out = data.held_out(data.split.test[:HELD_OUT])
    for index in range(len(held_out)):
        item = held_out[index]
        id, name = item["id"], file_name(item["id"])
        original, dequantised = torch.from_numpy(item["clean"]), torch.from_numpy(item["audio"])
        audio[f"{name}.original.wav"] = original
        mel = mel_of_hops(model, original)
        scores.append({"utterance": id})
        if model.likelihood:
            nats = float(model.log_prob(dequantised, mel)) / len(original)
            scores[-1]["log-likelihood"] = nats
        generated = model.synthesize(mel, module.temperature, seed=0).cpu()
        if not generated.isfinite().all():
            problems.append(id)
            continue
        audio[f"{name}.wav"] = generated
        again = mel_of_hops(model, generated)
        pictures.append({f"{id}, recorded": mel.cpu(), f"{id}, synthesised": again.cpu()})
        measures = [name for name in installed_metrics() if name in SCORES]
        values = measure(original, generated, model.sample_rate, model.mel_spec, measures)
        scores[-1] |= {METRICS[name].title: value for name, value in values.items()}
    example = run / "held-out" / f"{file_name(data.split.test[0])}.original.wav"
    command = (
        f"vocoder resynthesize {shlex.quote(str(example))} "
        f"--checkpoint {shlex.quote(str(run / 'model'))} -o out.wav"
    )
    sections = [
        f"Test utterances, copy synthesis at temperature {module.temperature:g}:",
        table(scores),
        "![learning curve and mels](report.png)",
        "Validation:",
        validation_table(rows, COLUMNS),
        "Log-likelihood is in nats per sample of audio in [-1, 1], dequantised from 16 bits with "
        "noise that is the same at every validation. Mel distance is the mean absolute "
        "difference of log-mels, in nats.",
    ]
    facts = run_facts(trainer, module, data, rows, record)
    summary = {"facts": facts, "validation": rows, "test": scores}
    with published(run, summary, sections, command, "generated audio", problems):
        (run / "held-out").mkdir(exist_ok=True)
        for name, samples in audio.items():
            write_audio(run / "held-out" / name, samples, model.sample_rate)
        draw(run / "report.png", rows, COLUMNS, pictures)


# -- shared with the acoustic model's report -----------------------------------------------------


def run_facts(
    trainer: lightning.Trainer,
    module: Training,
    data: Any,
    rows: Sequence[dict[str, Any]],
    record: Record,
) -> dict[str, str]:
    """What was trained, from what, on what data and hardware, and for how long."""
    model, prepared, split = module.model, data.prepared, data.split
    # Counted without weight normalisation.
    size = sum(p.numel() for p in fuse_weight_norm(dict(model.named_parameters())).values())
    callbacks: list[lightning.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    (best,) = (callback for callback in callbacks if isinstance(callback, Best))
    machine = machine_facts(trainer.strategy.root_device)
    cpu = f"CPU process of {torch.get_num_threads()} threads, {machine['cpu']}"
    start = record["start_from"] or {}
    return {
        "model": f"{type(model).__name__}, {size / 1e6:.2f}M parameters, {model.sample_rate} Hz; "
        "all arguments in `config.yaml`",
        "data": f"{prepared.name}: {len(split.train)} utterances to train on "
        f"({prepared.seconds(split.train) / 60:.1f} min), {len(split.validation)} for "
        f"validation, {len(split.test)} for the test; left out: {prepared.missing or 'none'}",
        "corpus": f"SHA-256 {record['corpus']['sha256']} of its recordings and ids",
        **({"started from": f"{start['path']}, SHA-256 {start['sha256']}"} if start else {}),
        "weights": best.words(rows),
        "audio seen": f"{module.samples_seen / model.sample_rate:,.0f} s",
        "steps": f"{trainer.global_step:,}, of which {module.skipped} skipped (not finite)",
        "training time": f"{timedelta(seconds=round(training_seconds(trainer)))} (validation "
        "included)",
        "hardware": f"{trainer.world_size} x {machine['gpu'] or cpu}",
        "precision": str(trainer.precision),
        "seed": str(record["seed"]),
        "version": record["flow_vocoder"],
    }


@contextmanager
def published(
    run: Path,
    summary: dict[str, Any],
    sections: Sequence[str],
    command: str,
    what: str = "",
    problems: Sequence[str] = (),
) -> Iterator[None]:
    """Write `run`/report.json and report.md; the block then writes sound and pictures.

    Ends by logging where the report is, and the command.

    Args:
        run: folder of the run.
        summary: for the JSON; its ``facts`` head the page.
        sections: of the page, after the facts.
        command: a command that uses the model.
        what: was made of the utterances ``problems`` but is not finite.

    Raises:
        DivergedError: there are such utterances; after the block.
    """
    words = f"{what} that {'are' if what.endswith('s') else 'is'} not finite: {', '.join(problems)}"
    save_result(finite(summary), run / "report.json")
    facts = "\n".join(f"- {name}: {fact}" for name, fact in summary["facts"].items())
    page = [f"# {run.name}", facts, *([words] if problems else []), *sections, f"    {command}\n"]
    write_atomic(run / "report.md", "\n\n".join(page).encode(errors="backslashreplace"))
    yield
    if problems:
        raise DivergedError(f"training has diverged: {words}")
    log.info("\n%s\nUse the model:\n  %s", run / "report.md", command)


def validation_table(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> str:
    """A Markdown table of at most twenty validations, the first and last among them."""
    always = {"step": "step", "train_seconds": "seconds", "audio_seconds": "audio seen, s"}
    shown = {**always, **columns}
    if len(rows) > 20:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, 20).round().astype(int)]
    return table([{label: row.get(key) for key, label in shown.items()} for row in rows])


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table with the keys as its header; not every row needs all of them."""
    names = list(dict.fromkeys(name for row in rows for name in row))

    def cell(value: Any) -> str:
        return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    return markdown(names, [[cell(row.get(name)) for name in names] for row in rows])


def draw(
    path: Path, rows: list[dict[str, Any]], curves: Mapping[str, str], pictures: Pictures
) -> None:
    """Write a PNG: a row of learning curves above the rows of mels, one mel for each curve.

    Args:
        path: of the file.
        rows: the validations.
        curves: titles of the curves, by key of the rows.
        pictures: the mels.
    """
    from matplotlib.figure import Figure

    size = 10 if len(curves) == 2 else 12, 2.4 * (1 + len(pictures))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1 + len(pictures), len(curves), squeeze=False)
    for axis, (key, label) in zip(axes[0], curves.items(), strict=True):
        points = [(row["train_seconds"] / 60, row[key]) for row in rows if key in row]
        axis.plot(*zip(*points, strict=True), marker=".")
        axis.set_xlabel("minutes of training")
        axis.set_title(label, fontsize=9)
        axis.grid(alpha=0.3)
    for line, row in zip(axes[1:], pictures, strict=True):
        low, high, *_ = next(iter(row.values())).aminmax()
        for axis, (title, mel) in zip(line, row.items(), strict=True):
            axis.imshow(mel, origin="lower", aspect="auto", vmin=float(low), vmax=float(high))
            axis.set_title(title, fontsize=9)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=80, format="png")
