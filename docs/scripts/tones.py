"""Measures tones and quality against temperature, with and without the denoiser.

    python docs/scripts/tones.py recipes/ljspeech/sample --checkpoint runs/mdct/model

Copy synthesis of the held-out recordings of a corpus (or of all recordings of a folder) at several
temperatures, denoised at several strengths (0: not at all): one group of docs/results/tones.json.
With --dtype bfloat16 the flow's couplings compute in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

import vocoder
from paths import RESULTS
from vocoder.evaluation import metrics
from vocoder.evaluation.recordings import find_recordings
from vocoder.evaluation.results import machine_facts, save_result
from vocoder.models.denoiser import Denoiser

FILE = RESULTS / "tones.json"
TEMPERATURES = (0.0, 0.3, 0.667, 1.0)
STRENGTHS = (0.0, 0.003, 0.01, 0.03, 0.1)


def measure(
    checkpoint: str | None,
    directory: Path,
    limit: int | None,
    dtype: torch.dtype,
    strengths: tuple[float, ...],
) -> dict[str, Any]:
    """A group of docs/results/tones.json."""
    model = vocoder.load(checkpoint, dtype)
    rate, hop = model.sample_rate, model.mel_spec.hop_length
    denoise = Denoiser(model)
    paths = find_recordings(directory)[:limit]
    recordings = [vocoder.read_audio(path, rate)[0] for path in paths]
    mels = [model.mel(recording) for recording in recordings]
    # Patterns that repeat every two frames have tones at multiples of half the frame rate: count
    # those, which include the multiples of the frame rate.
    spacing = rate / (2 * hop)
    rows = []
    with Progress() as bar:
        task = bar.add_task("rows", total=len(TEMPERATURES) * len(strengths))
        for temperature in TEMPERATURES:
            audio = [
                model.synthesize(mel, temperature=temperature)[: len(recording)]
                for mel, recording in zip(mels, recordings, strict=True)
            ]
            for strength in strengths:
                cleaned = [denoise(item, strength) if strength else item for item in audio]
                pairs = list(zip(recordings, cleaned, strict=True))

                def mean(function: Any, *extra: Any, pairs: Any = pairs) -> float:
                    return statistics.fmean(function(a, b, rate, *extra) for a, b in pairs)

                rows.append(
                    {
                        "temperature": temperature,
                        "strength": strength,
                        "stoi": mean(metrics.stoi),
                        "pesq": mean(metrics.pesq),
                        "log_mel_distance": mean(metrics.log_mel_distance, model.mel_spec),
                        "tone_excess_db": metrics.tone_excess_db(torch.cat(cleaned), rate, spacing),
                    }
                )
                bar.advance(task)
    natural = metrics.tone_excess_db(torch.cat(recordings), rate, spacing)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "recordings": len(recordings),
        "seconds": sum(map(len, recordings)) / rate,
        "spacing": spacing,
        "natural_tone_excess_db": natural,
        "machine": machine_facts(torch.device("cpu")),
        "rows": rows,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure tones and quality over temperature.")
    parser.add_argument("directory", type=Path, help="corpus or folder of recordings")
    parser.add_argument("--checkpoint", help="model; the bundled default if not given")
    parser.add_argument("--group", default="default", help="key in docs/results/tones.json")
    parser.add_argument("--limit", type=int, help="only the first so many recordings")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--strengths", type=float, nargs="*", default=STRENGTHS)
    arguments = parser.parse_args()
    groups = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    groups[arguments.group] = measure(
        arguments.checkpoint,
        arguments.directory,
        arguments.limit,
        getattr(torch, arguments.dtype),
        tuple(arguments.strengths),
    )
    save_result(groups, FILE)


if __name__ == "__main__":
    main()
