"""Measures the runs of this recipe, for the tables of README.md.

    python recipes/high-rate/measure.py     runs/source+24k and runs/source+44k; writes
                                            docs/results/high_rate.json

Copy synthesis of recordings that the runs were not trained on: of the two voices of the corpus and
of another voice, with and without sweeps of mel consistency, next to the same model untrained and
to Griffin-Lim. Beyond the measures of `vocoder evaluate`: the log-mel distance of the bands above
8 kHz alone, and how much sound the recordings have there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import vocoder
from vocoder.audio import LogMel, MelSpec
from vocoder.evaluation.copy_synthesis import GRIFFIN_LIM, evaluate
from vocoder.evaluation.estimates import estimate
from vocoder.evaluation.griffin_lim import griffin_lim
from vocoder.evaluation.recordings import find_recordings, read_recording
from vocoder.evaluation.results import save_result
from vocoder.models import load_checkpoint

RESULTS = Path(__file__).parents[2] / "docs/results/high_rate.json"
RATES = ("24k", "44k")
SWEEPS = (0, 16)
MEASURES = ("log_mel_distance", "stoi", "pesq", "tone_excess", "log_likelihood", "times_real_time")
HIGH = 8000.0
"""Hz: what PESQ and STOI do not hear lies above."""

RANGES = ((8000, 12000), (12000, 16000), (16000, 20000))
REFERENCE = (1000, 4000)
"""Hz: what the level of each of `RANGES` is compared with."""


def high_distance(spec: MelSpec) -> Callable[[Tensor, Tensor], float]:
    """Log-mel distance in nats of two signals (samples,), over the bands centred above `HIGH`."""
    log_mel = LogMel(spec)
    centres = spec.filters().argmax(dim=1) * spec.sample_rate / spec.n_fft
    high = centres > HIGH

    def distance(a: Tensor, b: Tensor) -> float:
        return float(spec.distance(log_mel(a)[high], log_mel(b)[high]))

    return distance


def levels(audio: Tensor, sample_rate: int) -> dict[str, tuple[float, float]]:
    """The 95th and 5th percentile over frames of the level in each of `RANGES`, in dB relative to
    the mean level in `REFERENCE`.
    """
    size = 2048
    spectrum = torch.stft(audio, size, window=torch.hann_window(size), return_complex=True)
    power = spectrum.abs().square()
    hertz = torch.arange(len(power)) * sample_rate / size

    def within(low: float, high: float) -> Tensor:
        return power[(hertz >= low) & (hertz < high)].mean(dim=0)

    reference = within(*REFERENCE).mean()
    found = {}
    for low, high in RANGES:
        if high <= sample_rate / 2:
            decibels = 10 * (within(low, high) / reference).clamp(min=1e-12).log10()
            loud, quiet = decibels.quantile(torch.tensor([0.95, 0.05])).tolist()
            found[f"{low // 1000}–{high // 1000} kHz"] = (loud, quiet)
    return found


def measure(model: vocoder.Vocoder, folder: Path) -> dict[str, Any]:
    """The rows of a folder of recordings, and how much sound they have in the upper bands."""
    spec = model.mel_spec
    untrained = type(model).from_config({**model.config, "mel_spec": spec}).fused()
    models = {"trained": model, "untrained": untrained}
    result = evaluate(models, folder, measures=MEASURES, refine=SWEEPS)
    if result["left_out"]:
        raise ImportError("; ".join(result["left_out"].values()))
    recordings = [read_recording(path, spec) for path in find_recordings(folder)]
    distance = high_distance(spec)
    for sweeps in SWEEPS:
        systems: dict[str, Callable[[Tensor], Tensor]] = {
            name: lambda mel, own=own, sweeps=sweeps: own.synthesize(mel, refine=sweeps)
            for name, own in models.items()
        }
        systems[GRIFFIN_LIM] = griffin_lim(spec, refine=sweeps)
        for name, synthesize in systems.items():
            result["rows"][f"{name}, {sweeps} sweeps"]["high_distance"] = estimate(
                [distance(x, synthesize(model.mel(x))[: len(x)]) for x in recordings]
            )
    found = [levels(x, spec.sample_rate) for x in recordings]
    return {
        "about": result["about"],
        "seconds": sum(map(len, recordings)) / spec.sample_rate,
        "recordings": len(recordings),
        "rows": result["rows"],
        "levels": {
            name: [statistics.fmean(own[name][i] for own in found) for i in range(2)]
            for name in found[0]
        },
    }


def step_seconds(run: Path, steps: int = 5) -> float:
    """Median processor time of a training step, without its optimiser and reading of data."""
    trained = load_checkpoint(run / "model").train()
    speech = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["speech"]
    samples = speech["crop_frames"] * trained.mel_spec.hop_length
    audio = 0.1 * torch.randn(speech["batch_size"], samples)
    batch = {"audio": audio, "mel": trained.mel(audio)}
    found = []
    for _ in range(steps + 1):
        start = time.process_time()
        trained.training_loss(batch).backward()
        found.append(time.process_time() - start)
    return statistics.median(found[1:])


def measure_run(run: Path, folders: Mapping[str, Path]) -> dict[str, Any]:
    """One run on each of the folders."""
    model = vocoder.load(run / "model")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    return {
        "facts": report["facts"],
        "steps": report["validation"][-1]["step"],
        "step_seconds": step_seconds(run),
        "sets": {name: measure(model, folder) for name, folder in folders.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--data", type=Path, default=Path("data/high-rate"), help="the corpus")
    arguments = parser.parse_args()
    data = arguments.data
    folders = {"trained on": data, "never heard": data.with_name(f"{data.name}-unseen")}
    try:
        results = {name: measure_run(arguments.runs / f"source+{name}", folders) for name in RATES}
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"measure.py: {error}")
    save_result(results, RESULTS)


if __name__ == "__main__":
    main()
