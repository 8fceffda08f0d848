"""Measures the restoring flow: speech from degraded mels of unseen human speakers.

    python recipes/unseen-speakers/build.py
    python docs/scripts/restoration.py --half test

writes docs/results/restoration.json: for each kind of degradation, the scores of `default` without
and with restoration, of HiFi-GAN, and the error of the mel. The recordings are those of both
rates, at 22.05 kHz; `--half development` is for choosing. Restoration is timed by itself.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vocoder
from paths import RESULTS, ROOT
from vocoder.evaluation import measure
from vocoder.evaluation.baselines import HifiGan
from vocoder.evaluation.results import machine_facts, save_result
from vocoder.models.restoration import Restoration, load_checkpoint
from vocoder.training.restoration import smooth

MEASURES = ("pesq", "stoi", "dnsmos", "distillmos")

KINDS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "clean": lambda mel, generator: mel,
    "jitter of 0.25 nats": lambda mel, generator: (
        mel + 0.25 * torch.randn(mel.shape, generator=generator)
    ),
    "mean over 3 frames": lambda mel, generator: smooth(mel, 3),
    "mean over 5 frames and 3 bands": lambda mel, generator: smooth(smooth(mel, 5).mT, 3).mT,
}


def recordings(half: str, limit: int) -> list[tuple[str, Tensor]]:
    """At most `limit` recordings of each rate, cut to whole frames."""
    found = []
    for rate in ("44k", "22k"):
        for path in sorted((ROOT / "data/unseen-speakers" / half / rate).glob("*.wav"))[:limit]:
            audio, _ = vocoder.read_audio(path, 22050)
            found.append((path.stem, audio[: len(audio) // 256 * 256]))
    return found


def milliseconds(flow: Restoration) -> float:
    """Of one thread per second of audio: the median of nine runs on 20 s."""
    mel, times = torch.full((80, 20 * 22050 // 256), -5.0), []
    for _ in range(10):
        start = time.perf_counter()
        flow.restore(mel)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:]) / 20


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=("development", "test"), default="test")
    parser.add_argument("--limit", type=int, default=8, help="recordings of each rate (8)")
    parser.add_argument("--weights", type=Path, help="checkpoint (default: the bundled one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, other = vocoder.load(), HifiGan()
    flow = load_checkpoint(options.weights).fused() if options.weights else model.restoration
    if not isinstance(flow, Restoration):
        parser.error("no weights are bundled: give --weights")
    systems: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
        "as it is": lambda mel: (mel, model.synthesize(mel, restore=0)),
        "restored": lambda mel: ((used := flow.restore(mel)), model.synthesize(used, restore=0)),
        "HiFi-GAN": lambda mel: (mel, other.synthesize(mel)),
    }
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    speech = recordings(options.half, options.limit)
    for index, (_, audio) in enumerate(speech):
        true = model.mel(audio)
        judged = measure(audio.numpy(), audio.numpy(), 22050, names=["dnsmos", "distillmos"])
        rows.setdefault(("recording", ""), []).append(judged)
        for kind, degraded in KINDS.items():
            mel = degraded(true[None], torch.Generator().manual_seed(index))[0]
            mel = mel.clamp_min(model.mel_spec.log_floor)
            for name, system in systems.items():
                used, synthesis = system(mel)
                scores = measure(audio.numpy(), synthesis.numpy(), 22050, names=MEASURES)
                scores["mel_error"] = float((used - true).abs().mean())
                rows.setdefault((kind, name), []).append(scores)
    result = {
        "about": {
            "recordings": len(speech),
            "half": options.half,
            "milliseconds": milliseconds(flow),
            "parameters": sum(weight.numel() for weight in flow.parameters()),
            "machine": machine_facts(torch.device("cpu")),
        },
        "rows": [
            {"mel": kind, "system": name, **_means(values)} for (kind, name), values in rows.items()
        ],
    }  # fmt: skip
    save_result(result, RESULTS / "restoration.json")


def _means(values: list[dict[str, Any]]) -> dict[str, float]:
    kept = {key: [v[key] for v in values if v[key] is not None] for key in values[0]}
    return {key: statistics.fmean(own) for key, own in kept.items() if own}


if __name__ == "__main__":
    main()
