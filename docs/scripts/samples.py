"""Makes the samples that the README shows: sound, spectrograms, and scores.

    python docs/scripts/samples.py english af_heart-0123456789.wav default
    python docs/scripts/samples.py russian ru_0141.wav autoregressive default hifi-gan

Each call makes one group: a recording that no model was trained on, and its copy synthesis by
bundled models, checkpoints or pretrained baselines and by Griffin-Lim, as FLAC files in
docs/samples, with one picture of all their spectrograms. The recording and Griffin-Lim have the
sample rate of the first model, the others their own. Scores go to docs/results/samples.json, of
which docs/scripts/tables.py makes the table.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from paths import RESULTS, SAMPLES
from vocoder import load, read_audio, write_audio
from vocoder.audio import MelSpec
from vocoder.evaluation import installed_metrics, measure
from vocoder.evaluation.baselines import BASELINES, GriffinLim
from vocoder.evaluation.results import finite, save_result

FILE = RESULTS / "samples.json"
SECONDS = 4.0
DECIBELS = 80.0  # range of the pictures


def make(group: str, recording: Path, models: list[str]) -> dict[str, Any]:
    """The sound and the picture of a group; returns its scores."""
    systems = {name: BASELINES[name]() if name in BASELINES else load(name) for name in models}
    first = systems[models[0]]
    systems["Griffin-Lim"] = GriffinLim(first.mel_spec)
    sounds = {"recording": (_beginning(recording, first.mel_spec), first.sample_rate)}
    scores = {}
    for name, model in systems.items():
        spec, rate = model.mel_spec, model.sample_rate
        audio = _beginning(recording, spec)
        made = model.synthesize(model.mel(audio), seed=0)[: len(audio)]
        sounds[name] = made, rate
        scores[name] = measure(audio, made, rate, spec, installed_metrics())
    SAMPLES.mkdir(exist_ok=True)
    rows = []
    for name, (sound, rate) in sounds.items():
        file = SAMPLES / f"{group}.{Path(name).name.lower()}.flac"
        write_audio(file, sound, rate)
        row: dict[str, Any] = {"name": name, "file": file.name}
        rows.append(row | ({"scores": scores[name]} if name in scores else {}))
    _draw(SAMPLES / f"{group}.png", sounds)
    audio, rate = sounds["recording"]
    return {
        "recording": recording.stem,
        "seconds": len(audio) / rate,
        "sample_rate": rate,
        "rows": rows,
    }


def _beginning(recording: Path, spec: MelSpec) -> Tensor:
    """The first seconds of a recording, cut to whole mel frames."""
    audio, _ = read_audio(recording, spec.sample_rate)
    frames = min(len(audio), round(SECONDS * spec.sample_rate)) // spec.hop_length
    return audio[: frames * spec.hop_length]


def _draw(path: Path, sounds: dict[str, tuple[Tensor, int]]) -> None:
    figure = Figure(figsize=(10, 2.1 * len(sounds)), layout="constrained")
    panels = figure.subplots(len(sounds), 1, sharex=True, squeeze=False)[:, 0]
    peak = None
    for axes, (name, (sound, rate)) in zip(panels, sounds.items(), strict=True):
        magnitude = np.abs(librosa.stft(sound.numpy(), n_fft=1024, hop_length=128))
        decibels = 20 * np.log10(np.maximum(magnitude, 1e-7))
        peak = decibels.max() if peak is None else peak
        axes.imshow(
            decibels,
            origin="lower",
            aspect="auto",
            extent=(0, len(sound) / rate, 0, rate / 2000),
            vmin=peak - DECIBELS,
            vmax=peak,
            cmap="magma",
        )
        axes.set_ylabel("kHz")
        axes.set_title(name, fontsize="medium", loc="left")
    panels[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=90)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Make the samples of the documents.")
    parser.add_argument("group", help="name of the group")
    parser.add_argument("recording", type=Path)
    parser.add_argument("models", nargs="+", help="bundled names or checkpoints")
    arguments = parser.parse_args()
    groups = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for old in SAMPLES.glob(f"{arguments.group}.*"):
        old.unlink()
    with torch.no_grad():
        groups[arguments.group] = make(**vars(arguments))
    save_result(finite(groups), FILE)


if __name__ == "__main__":
    main()
