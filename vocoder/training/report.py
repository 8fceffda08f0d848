"""What a run leaves behind: the model, held-out audio, and one page that says how it went."""

from __future__ import annotations

import logging
import platform
import shlex
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from vocoder.atomic import atomic_path, write_atomic
from vocoder.audio import write_audio
from vocoder.evaluation import METRICS, installed_metrics, measure
from vocoder.evaluation.results import save_result
from vocoder.nn.weight_norm import fuse_weight_norm
from vocoder.training.callbacks import training_seconds
from vocoder.training.crops import SpeechData
from vocoder.training.module import Training, VocoderTraining

log = logging.getLogger("vocoder.training")

HELD_OUT_WAVS = 3


@torch.no_grad()
def write_report(
    run: Path,
    trainer: lightning.Trainer,
    module: VocoderTraining,
    data: SpeechData,
    rows: list[dict[str, Any]],
    seed: int,
) -> None:
    """Write `run`/model, `run`/held-out/*.wav, `run`/report.md and its picture.

    Ends by logging the command that uses the model.
    """
    model = module.model.eval()
    model.save(run / "model")
    folder = run / "held-out"
    folder.mkdir(exist_ok=True)
    scores: list[dict[str, Any]] = []
    pictures: list[tuple[str, Tensor, Tensor]] = []
    # Whole utterances of the test set, which nothing was chosen by.
    held_out = data.held_out(data.split.test[:HELD_OUT_WAVS])
    for index in range(len(held_out)):
        item = held_out[index]
        name = item["id"].replace("/", "_")
        original = torch.from_numpy(item["clean"])
        mel = model.mel(original)
        made = model.synthesize(mel, module.temperature, seed=0).cpu()
        write_audio(folder / f"{name}.original.wav", original, model.sample_rate)
        write_audio(folder / f"{name}.wav", made, model.sample_rate)
        pictures.append((item["id"], mel.cpu(), model.mel(made).cpu()))
        # The mel describes whole hops, so what is made may be longer by a part of one.
        pair = (original, made[: len(original)])
        values = measure(*pair, model.sample_rate, model.mel_spec, _measures())
        scores.append(
            {
                "utterance": item["id"],
                "log-likelihood": _log_likelihood(model, torch.from_numpy(item["audio"]), mel),
                **{METRICS[name].title: value for name, value in values.items()},
            }
        )
    _draw(run / "report.png", rows, pictures)
    example = folder / f"{data.split.test[0].replace('/', '_')}.original.wav"
    command = (
        f"vocoder resynthesize {shlex.quote(str(example))} "
        f"--checkpoint {shlex.quote(str(run / 'model'))} -o out.wav"
    )
    facts = run_facts(trainer, module, data, seed)
    summary = {"facts": facts, "validation": rows, "test": scores}
    save_result(summary, run / "report.json")
    page = _page(run, module, facts, rows, scores, command)
    write_atomic(run / "report.md", page.encode())
    log.info("\n%s\nUse the model:\n  %s", run / "report.md", command)


def _log_likelihood(model: Any, audio: Tensor, mel: Tensor) -> float | None:
    try:
        return float(model.log_prob(audio, mel)) / audio.numel()
    except NotImplementedError:
        return None


def _measures() -> list[str]:
    """The quick measures; those of pitch take longer than making the audio."""
    of_pitch = ("f0_rmse", "voicing_f1", "periodicity_error")
    return [name for name in installed_metrics() if name not in of_pitch]


def run_facts(trainer: lightning.Trainer, module: Training, data: Any, seed: int) -> dict[str, str]:
    """What was trained, on what, where and for how long."""
    model = module.model
    prepared, split = data.prepared, data.split
    left_out = ", ".join(f"{len(ids)} {why}" for why, ids in prepared.left_out.items() if ids)
    seen = module.samples_seen / model.sample_rate
    # A weight and its norm are one parameter once they are fused, which is how models run.
    size = sum(p.numel() for p in fuse_weight_norm(dict(model.named_parameters())).values())
    spent = timedelta(seconds=round(training_seconds(trainer)))
    facts = {
        "model": f"{type(model).__name__}, "
        f"{size / 1e6:.2f}M parameters, "
        f"{model.sample_rate} Hz; all arguments in `config.yaml`",
        "data": f"{prepared.name}: {len(split.train)} utterances to train on "
        f"({prepared.seconds(split.train) / 60:.1f} min), {len(split.validation)} for "
        f"validation, {len(split.test)} for the test; left out: {left_out or 'none'}",
        "audio seen": f"{seen:,.0f} s",
        "steps": f"{trainer.global_step:,}, of which {module.skipped} skipped (not finite)",
        "training time": f"{spent} (validation included)",
        "hardware": _hardware(trainer),
        "precision": str(trainer.precision),
        "seed": str(seed),
        "commit": _commit(),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _page(
    run: Path,
    module: VocoderTraining,
    facts: dict[str, str],
    rows: list[dict[str, Any]],
    scores: list[dict[str, Any]],
    command: str,
) -> str:
    lines = [f"# {run.name}", ""]
    lines += [f"- {name}: {fact}" for name, fact in facts.items()]
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        lines += ["", "Held out (validation), start to end:", ""]
        for key, label in _COLUMNS.items():
            if key in first and key in last:
                lines.append(f"- {label}: {first[key]:.3f} to {last[key]:.3f}")
    lines += ["", f"Test utterances, copy synthesis at temperature {module.temperature:g}:", ""]
    lines += table(scores)
    lines += ["", "![learning curve and mels](report.png)", "", "Validation points:", ""]
    keep = {"step": "step", "train_seconds": "seconds", "audio_seconds": "audio seen, s"} | _COLUMNS
    shown = [{label: row.get(key) for key, label in keep.items()} for row in thinned(rows, 20)]
    lines += table(shown)
    lines += [
        "",
        "Log-likelihood is in nats per sample of audio in [-1, 1], dequantised from 16 bits with "
        "noise that is the same at every validation; mel distance is the mean absolute difference "
        "of log-mels, in nats.",
        "",
        f"    {command}",
        "",
    ]
    return "\n".join(lines)


_COLUMNS = {
    "val/log_likelihood": "log-likelihood, nats per sample",
    "val/mel_distance": "mel distance, nats",
}


def thinned(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most so many rows, the first and the last among them: a page is a page."""
    if len(rows) <= most:
        return rows
    return [rows[i] for i in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table with the keys as its head."""
    if not rows:
        return ["none"]
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in rows:
        cells = (_cell(row.get(name)) for name in names)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _hardware(trainer: lightning.Trainer) -> str:
    devices = f"{trainer.world_size} x "
    if torch.cuda.is_available() and trainer.strategy.root_device.type == "cuda":
        return devices + torch.cuda.get_device_name(trainer.strategy.root_device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{devices}CPU process of {torch.get_num_threads()} threads, {name}"


def _commit() -> str:
    """The commit of this package's own repository, with a mark if files have changed since."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _draw(
    path: Path, rows: list[dict[str, Any]], pictures: list[tuple[str, Tensor, Tensor]]
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.4 * (1 + len(pictures))), layout="constrained")
    axes = figure.subplots(1 + len(pictures), 2, squeeze=False)
    for axis, (key, label) in zip(axes[0], _COLUMNS.items(), strict=True):
        points = [(row["train_seconds"] / 60, row[key]) for row in rows if key in row]
        axis.plot([x for x, _ in points], [y for _, y in points], marker=".")
        axis.set_xlabel("minutes of training")
        axis.set_title(label, fontsize=9)
        axis.grid(alpha=0.3)
    for row, (name, mel, made) in zip(axes[1:], pictures, strict=True):
        for axis, picture, title in zip(row, (mel, made), ("recorded", "synthesised"), strict=True):
            axis.imshow(
                picture, origin="lower", aspect="auto", vmin=mel.min().item(), vmax=mel.max().item()
            )
            axis.set_title(f"{name}, {title}", fontsize=9)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=80, format="png")
