"""What a finished run writes: held-out audio, and a page on how it went."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

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
"""Test utterances that are written as audio."""

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


class Example(NamedTuple):
    """What a trained model makes of a test utterance."""

    id: str
    scores: dict[str, Any]
    files: dict[str, Tensor]
    """Audio (.wav) and mels (.npy) by what follows the utterance's name in theirs."""
    mels: dict[str, Tensor]
    """(bands, frames) each, by title; empty if what the model makes is not finite."""


@torch.no_grad()
def report_vocoder(run: Finished) -> None:
    """Write the report of a vocoder; see `write_report`."""
    model, data, temperature = run.module.model.fused(), run.data, run.module.temperature
    examples = []
    # Whole utterances of the test set, which no choice was based on.
    for item in data.held_out(data.split.test[:HELD_OUT]):
        original, dequantised = torch.from_numpy(item["clean"]), torch.from_numpy(item["audio"])
        mel = mel_of_hops(model, original)
        example = Example(item["id"], {}, {".original.wav": original}, {})
        examples.append(example)
        if model.likelihood:
            nats = float(model.log_prob(dequantised, mel)) / len(original)
            example.scores["log-likelihood"] = nats
        generated = model.synthesize(mel, temperature, seed=0).cpu()
        if not generated.isfinite().all():
            continue
        example.files[".wav"] = generated
        example.mels.update(recorded=mel, synthesised=mel_of_hops(model, generated))
        measures = [name for name in installed_metrics() if name in SCORES]
        values = measure(original, generated, model.sample_rate, model.mel_spec, measures)
        example.scores.update({METRICS[name].title: value for name, value in values.items()})
    recording = run.folder / "held-out" / f"{file_name(data.split.test[0])}.original.wav"
    command = (
        f"vocoder resynthesize {shlex.quote(str(recording))} "
        f"--checkpoint {shlex.quote(str(run.folder / 'model'))} -o out.wav"
    )
    explained = (
        f"Test utterances are copies by synthesis at temperature {temperature:g}. Log-likelihood "
        "is in nats per sample of audio in [-1, 1], dequantised from 16 bits with noise that is "
        "the same at every validation. Mel distance is the mean absolute difference of log-mels, "
        "in nats."
    )
    write_report(run, COLUMNS, command, explained, examples)


def write_report(
    run: Finished,
    columns: Mapping[str, str],
    command: str,
    explained: str = "",
    examples: Sequence[Example] = (),
    made: str = "generated audio that is",
    **test: Any,
) -> None:
    """Write report.md, report.json, held-out/ and report.png, and log a command for the model.

    The page comes first, since audio may not fit on a full disk.

    Args:
        columns: titles of the scores of its validations, by name.
        explained: what the scores are.
        examples: in the page, in held-out and, the first, in the picture.
        made: what the model makes, with its verb, for a message.
        test: further values of the JSON.

    Raises:
        DivergedError: some of the examples are not finite; all that could be written is.
    """
    rows, facts = run.validations.rows(), run_facts(run)
    scores = [{"utterance": example.id, **example.scores} for example in examples]
    broken = [example.id for example in examples if not example.mels]
    problem = f"{made} not finite: {', '.join(broken)}" if broken else ""
    shown = {"step": "step", "train_seconds": "seconds", "audio_seconds": "audio seen, s"}
    shown |= columns
    # At most twenty validations, the first and last among them.
    some = sorted(set(np.linspace(0, len(rows) - 1, 20).round().astype(int)))
    history = [{label: rows[i].get(key) for key, label in shown.items()} for i in some]
    sections = [f"# {run.folder.name}", "\n".join(f"- {name}: {it}" for name, it in facts.items())]
    if examples:
        sections += [problem, "Test utterances:", table(scores)]
        sections += ["![learning curve and mels](report.png)"]
    sections += ["Validation:", table(history), explained, f"    {command}\n"]
    summary = {"facts": facts, "validation": rows, "test": scores, **test}
    save_result(finite(summary), run.folder / "report.json")
    page = "\n\n".join(filter(None, sections))
    write_atomic(run.folder / "report.md", page.encode(errors="backslashreplace"))
    for example in examples:
        for ending, content in example.files.items():
            file = run.folder / "held-out" / f"{file_name(example.id)}{ending}"
            file.parent.mkdir(exist_ok=True)
            if file.suffix == ".npy":
                np.save(file, content.numpy())
            else:
                write_audio(file, content, run.module.model.sample_rate)
    if examples:
        draw(run, columns, examples[0].mels)
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


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with the keys as its header; not every row needs all of them."""
    names = list(dict.fromkeys(name for row in rows for name in row))

    def cell(value: Any) -> str:
        return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    return markdown(names, [[cell(row.get(name)) for name in names] for row in rows])


def draw(run: Finished, columns: Mapping[str, str], mels: Mapping[str, Tensor]) -> None:
    """Write report.png: the monitored score over time, and mels in the colours of the first."""
    from matplotlib.figure import Figure

    key = run.validations.monitor
    figure = Figure((4 * (1 + len(mels)), 3), layout="constrained")
    curve, *axes = figure.subplots(1, 1 + len(mels), squeeze=False)[0]
    points = [(row["train_seconds"] / 60, row[key]) for row in run.validations.rows()]
    curve.plot(*zip(*points, strict=True), marker=".")
    curve.set(xlabel="minutes of training", title=columns.get(key, key))
    curve.grid(alpha=0.3)
    for axis, (title, mel) in zip(axes, mels.items(), strict=True):
        low, high = (float(value) for value in next(iter(mels.values())).aminmax())
        axis.imshow(mel.cpu(), origin="lower", aspect="auto", vmin=low, vmax=high)
        axis.set_title(title)
    with atomic_path(run.folder / "report.png") as partial:
        figure.savefig(partial, dpi=80, format="png")
