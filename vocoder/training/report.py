"""What a finished run writes: held-out audio, and a page on how it went."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vocoder.atomic import atomic_path, file_name, write_atomic
from vocoder.audio import write_audio
from vocoder.evaluation import METRICS, installed_metrics, measure
from vocoder.evaluation.results import finite, machine_facts, save_result
from vocoder.evaluation.tables import markdown
from vocoder.nn import fuse_weight_norm
from vocoder.training.callbacks import Validations
from vocoder.training.losses import mel_of_hops
from vocoder.training.module import DivergedError
from vocoder.training.run import read_record

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


@dataclass(frozen=True)
class Finished:
    """A run that has ended; its model is in `folder`/model."""

    folder: Path
    trainer: Any
    module: Any
    data: Any
    validations: Validations


@dataclass
class Examples:
    """What a trained model makes of test utterances."""

    title: str
    """Of the table of their scores."""
    made: str
    """What the model makes, with its verb, for a message."""
    scores: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Tensor]] = field(default_factory=list)
    """Rows of mels (bands, frames) by title; the first of a row sets its darkest and brightest."""
    audio: dict[str, Tensor] = field(default_factory=dict)
    """By file name, without its suffix."""
    mels: dict[str, Tensor] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)
    """Ids of the utterances of which it makes numbers that are not finite."""


@torch.no_grad()
def report_vocoder(run: Finished) -> None:
    """Write the report of a vocoder; see `write_report`."""
    model, data, temperature = run.module.model.fused(), run.data, run.module.temperature
    title = f"Test utterances, copy synthesis at temperature {temperature:g}:"
    examples = Examples(title, "generated audio that is")
    # Whole utterances of the test set, which no choice was based on.
    for item in data.held_out(data.split.test[:HELD_OUT]):
        id, name = item["id"], file_name(item["id"])
        original, dequantised = torch.from_numpy(item["clean"]), torch.from_numpy(item["audio"])
        examples.audio[f"{name}.original"] = original
        mel = mel_of_hops(model, original)
        examples.scores.append({"utterance": id})
        if model.likelihood:
            nats = float(model.log_prob(dequantised, mel)) / len(original)
            examples.scores[-1]["log-likelihood"] = nats
        generated = model.synthesize(mel, temperature, seed=0).cpu()
        if not generated.isfinite().all():
            examples.not_finite.append(id)
            continue
        examples.audio[name] = generated
        again = mel_of_hops(model, generated)
        examples.pictures.append({f"{id}, recorded": mel.cpu(), f"{id}, synthesised": again.cpu()})
        measures = [name for name in installed_metrics() if name in SCORES]
        values = measure(original, generated, model.sample_rate, model.mel_spec, measures)
        examples.scores[-1] |= {METRICS[name].title: value for name, value in values.items()}
    recording = run.folder / "held-out" / f"{file_name(data.split.test[0])}.original.wav"
    command = (
        f"vocoder resynthesize {shlex.quote(str(recording))} "
        f"--checkpoint {shlex.quote(str(run.folder / 'model'))} -o out.wav"
    )
    explained = (
        "Log-likelihood is in nats per sample of audio in [-1, 1], dequantised from 16 bits with "
        "noise that is the same at every validation. Mel distance is the mean absolute "
        "difference of log-mels, in nats."
    )
    write_report(run, COLUMNS, command, explained, examples)


def write_report(
    run: Finished,
    columns: Mapping[str, str],
    command: str,
    explained: str = "",
    examples: Examples | None = None,
    test: Mapping[str, Any] | None = None,
) -> None:
    """Write report.md, report.json, held-out/ and report.png, and log a command for the model.

    The page comes first, since audio may not fit on a full disk.

    Args:
        columns: titles of the scores of its validations, by name.
        explained: what the scores are.
        test: of the JSON, in place of the examples' scores.

    Raises:
        DivergedError: some of the examples are not finite; all that could be written is.
    """
    rows, facts = run.validations.rows(), run_facts(run)
    sections = [f"# {run.folder.name}", "\n".join(f"- {name}: {it}" for name, it in facts.items())]
    problem = ""
    summary: dict[str, Any] = {"facts": facts, "validation": rows}
    if examples:
        summary |= test or {"test": examples.scores}
        if examples.not_finite:
            problem = f"{examples.made} not finite: {', '.join(examples.not_finite)}"
            sections += [problem]
        sections += [examples.title, table(examples.scores)]
        sections += ["![learning curve and mels](report.png)"]
    sections += ["Validation:", validation_table(rows, columns), explained, f"    {command}\n"]
    save_result(finite(summary), run.folder / "report.json")
    page = "\n\n".join(filter(None, sections))
    write_atomic(run.folder / "report.md", page.encode(errors="backslashreplace"))
    if examples:
        folder, rate = run.folder / "held-out", run.module.model.sample_rate
        folder.mkdir(exist_ok=True)
        for name, samples in examples.audio.items():
            write_audio(folder / f"{name}.wav", samples, rate)
        for name, mel in examples.mels.items():
            np.save(folder / f"{name}.npy", mel.numpy())
        draw(run.folder / "report.png", rows, columns, examples.pictures)
    if problem:
        raise DivergedError(f"training has diverged: {problem}")
    log.info("\n%s\nUse the model:\n  %s", run.folder / "report.md", command)


def setting_facts(model: Any, data: Any) -> dict[str, str]:
    """What is trained, and on what data."""
    prepared, split = data.prepared, data.split
    # Counted without weight normalisation.
    size = sum(p.numel() for p in fuse_weight_norm(dict(model.named_parameters())).values())
    return {
        "model": f"{type(model).__name__}, {size / 1e6:.2f}M parameters, {model.sample_rate} Hz; "
        "all arguments in `config.yaml`",
        "data": f"{prepared.name}: {len(split.train)} utterances to train on "
        f"({prepared.seconds(split.train) / 60:.1f} min), {len(split.validation)} for "
        f"validation, {len(split.test)} for the test; left out: {prepared.missing or 'none'}",
    }


def run_facts(run: Finished) -> dict[str, str]:
    """What was trained, from what, on what data and hardware, and for how long."""
    module, trainer, record = run.module, run.trainer, read_record(run.folder)
    machine = machine_facts(trainer.strategy.root_device)
    cpu = f"CPU process of {torch.get_num_threads()} threads, {machine['cpu']}"
    start = record["start_from"] or {}
    return {
        **setting_facts(module.model, run.data),
        "corpus": f"SHA-256 {record['corpus']['sha256']} of its recordings and ids",
        **({"started from": f"{start['path']}, SHA-256 {start['sha256']}"} if start else {}),
        "weights": run.validations.words(),
        "audio seen": f"{module.samples_seen / module.model.sample_rate:,.0f} s",
        "steps": f"{trainer.global_step:,}, of which {module.skipped} skipped (not finite)",
        "training time": f"{timedelta(seconds=round(module.seconds))} (validation included)",
        "hardware": f"{trainer.world_size} x {machine['gpu'] or cpu}",
        "precision": str(trainer.precision),
        "seed": str(record["seed"]),
        "version": record["flow_vocoder"],
    }


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
    path: Path,
    rows: list[dict[str, Any]],
    curves: Mapping[str, str],
    pictures: list[dict[str, Tensor]],
) -> None:
    """Write a PNG: learning curves, of which there are as many as mels in a row, above the mels."""
    from matplotlib.figure import Figure

    across = len(pictures[0]) if pictures else len(curves)
    figure = Figure((8 if across < 3 else 12, 2.4 * (1 + len(pictures))), layout="constrained")
    axes = figure.subplots(1 + len(pictures), across, squeeze=False)
    for axis, (key, label) in zip(axes[0], curves.items(), strict=False):
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
