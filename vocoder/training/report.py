"""What a finished run writes: held-out audio, and a page of facts and test scores."""

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

from vocoder.atomic import file_name, write_atomic
from vocoder.audio import write_audio
from vocoder.evaluation.results import finite, machine_facts, save_result
from vocoder.nn import fuse_weight_norm
from vocoder.training.callbacks import Validations
from vocoder.training.losses import mel_of_hops
from vocoder.training.module import DivergedError
from vocoder.training.run import read_record

log = logging.getLogger("vocoder.training")

HELD_OUT = 3
"""Test utterances that are written as audio."""


@dataclass(frozen=True)
class Finished:
    """A run that has ended, with its model in `folder`/model."""

    folder: Path
    trainer: Any
    module: Any
    data: Any
    validations: Validations


class Example(NamedTuple):
    """A test utterance; its audio (.wav) and mels (.npy) by the end of their file names."""

    id: str
    scores: dict[str, float]
    files: dict[str, Tensor]


@torch.no_grad()
def report_vocoder(run: Finished) -> None:
    """Write the report of a vocoder; see `write_report`."""
    model, data, temperature = run.module.model.fused(), run.data, run.module.temperature
    likelihood, distance = "log-likelihood, nats per sample", "mel distance, nats"
    examples = []
    # Whole utterances of the test set, which no choice was based on.
    for item in data.held_out(data.split.test[:HELD_OUT]):
        original, scores = torch.from_numpy(item["clean"]), {}
        mel = mel_of_hops(model, original)
        generated = model.synthesize(mel, temperature, seed=0).cpu()
        if model.likelihood:
            density = model.log_prob(torch.from_numpy(item["audio"]), mel)
            scores[likelihood] = float(density / len(original))
        scores[distance] = float(model.mel_spec.distance(mel_of_hops(model, generated), mel))
        files = {".original.wav": original, ".wav": generated}
        examples.append(Example(item["id"], scores, files))
    columns = {"val/log_likelihood": likelihood, "val/mel_distance": distance}
    recording = run.folder / "held-out" / f"{file_name(data.split.test[0])}.original.wav"
    words = ["vocoder", "resynthesize", recording, "--checkpoint", run.folder / "model"]
    explained = f"Test utterances are copies by synthesis at temperature {temperature:g}."
    write_report(run, columns, shlex.join(map(str, [*words, "-o", "out.wav"])), explained, examples)


def write_report(
    run: Finished, columns: Mapping[str, str], command: str, explained: str = "",
    examples: Sequence[Example] = (), **test: Any,
) -> None:  # fmt: skip
    """Write report.md, report.json and held-out/, and log a command that uses the model.

    `columns` are titles of the validation scores, by name; `explained` says what they are; `test`
    goes into the JSON. DivergedError, after all is written, if some of the examples are not finite.
    """
    rows, facts = run.validations.rows(), run_facts(run)
    scores = {example.id: example.scores for example in examples}
    last = {title: rows[-1][key] for key, title in columns.items() if key in rows[-1]}
    broken = [e.id for e in examples if not all(it.isfinite().all() for it in e.files.values())]
    problem = f"what the model makes is not finite: {', '.join(broken)}" if broken else ""
    lines = [f"# {run.folder.name}\n", *(f"- {name}: {fact}" for name, fact in facts.items()), ""]
    for name, values in {"last validation": last, **scores}.items():
        shown = ", ".join(f"{title} {value:.3f}" for title, value in values.items())
        lines.append(f"- {name}: {shown}")
    # The page comes first, since audio may not fit on a full disk.
    page = "\n".join([*lines, "", problem, explained, "", f"    {command}", ""])
    write_atomic(run.folder / "report.md", page.encode(errors="backslashreplace"))
    summary = {"facts": facts, "validation": rows, "test": scores, **test}
    save_result(finite(summary), run.folder / "report.json")
    (run.folder / "held-out").mkdir(exist_ok=True)
    for example in examples:
        for ending, content in example.files.items():
            file = run.folder / "held-out" / f"{file_name(example.id)}{ending}"
            if ending == ".npy":
                np.save(file, content.numpy())
            elif content.isfinite().all():
                write_audio(file, content, run.module.model.sample_rate)
    if problem:
        raise DivergedError(f"training has diverged: {problem}")
    log.info("\n%s\nUse the model:\n  %s", run.folder / "report.md", command)


def setting_facts(model: Any, data: Any) -> dict[str, str]:
    """What is trained, and on what data."""
    prepared, split = data.prepared, data.split
    size = sum(p.numel() for p in fuse_weight_norm(dict(model.named_parameters())).values())
    return {
        "model": f"{type(model).__name__}, {size / 1e6:.2f}M parameters, {model.sample_rate} Hz",
        "data": f"{prepared.name}: {len(split.train)} utterances to train on "
        f"({prepared.seconds(split.train) / 60:.1f} min), {len(split.validation)} for "
        f"validation, {len(split.test)} for the test; left out: {prepared.missing or 'none'}",
    }


def run_facts(run: Finished) -> dict[str, str]:
    """What was trained, on what data and hardware, and for how long; `RECORD` has the options."""
    module, trainer, record = run.module, run.trainer, read_record(run.folder)
    seconds = round(module.timer.time_elapsed())
    machine, start = machine_facts(trainer.strategy.root_device), record["start_from"]
    cpu = f"CPU process of {torch.get_num_threads()} threads, {machine['cpu']}"
    return {
        **setting_facts(module.model, run.data),
        **({"started from": f"{start['path']}, SHA-256 {start['sha256']}"} if start else {}),
        "weights": run.validations.words(),
        "audio seen": f"{module.samples_seen / module.model.sample_rate:,.0f} s",
        "steps": f"{trainer.global_step:,}, of which {module.skipped} skipped (not finite)",
        "training time": f"{timedelta(seconds=seconds)} (validation included)",
        "hardware": f"{trainer.world_size} x {machine['gpu'] or cpu}, {trainer.precision}",
        "seed": str(record["seed"]),
        "version": record["flow_vocoder"],
    }
