"""Measures `vocoder synthesize-corpus`: files a second in one process and on a local Ray cluster.

    python docs/scripts/bulk.py         writes docs/results/bulk.json

A short and a long corpus of equal mels of speech; the difference of their times gives the rate, and
what remains is the start. Every worker has one thread.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vocoder
from paths import RESULTS, ROOT
from vocoder.evaluation.results import machine_facts, save_result

RECORDING = ROOT / "recipes/ljspeech/sample/wavs/ru_0024.flac"
SECONDS = 4.0
SHORT, LONG = 80, 480
WAYS = {
    "one process": (),
    "Ray, 1 worker": ("--address", "local"),
    "Ray, 2 workers": ("--workers", "2"),
}


def seconds(mels: Path, output: Path, options: tuple[str, ...]) -> float:
    """How long the command takes."""
    command = [sys.executable, "-m", "vocoder", "synthesize-corpus", str(mels), "-o", str(output)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    subprocess.run(
        [*command, "--device", "cpu", *options], check=True, capture_output=True, env=env
    )
    return time.perf_counter() - started


def main() -> None:
    """The command."""
    model = vocoder.load()
    audio, _ = vocoder.read_audio(RECORDING, model.sample_rate)
    mel = model.mel(audio[: round(SECONDS * model.sample_rate)]).numpy()
    result: dict[str, Any] = {
        "audio_seconds": mel.shape[1] * model.mel_spec.hop_length / model.sample_rate,
        "files": [SHORT, LONG],
        "ways": {},
        "machine": machine_facts(torch.device("cpu")),
    }
    with tempfile.TemporaryDirectory() as folder:
        corpora = {size: Path(folder) / f"mels-{size}" for size in (SHORT, LONG)}
        for size, mels in corpora.items():
            mels.mkdir()
            for index in range(size):
                np.save(mels / f"{index:03}.npy", mel)
        for name, options in WAYS.items():
            taken = {
                size: seconds(mels, Path(folder) / f"{name} {size}", options)
                for size, mels in corpora.items()
            }
            rate = (LONG - SHORT) / (taken[LONG] - taken[SHORT])
            start = taken[SHORT] - SHORT / rate
            result["ways"][name] = {"files_per_second": rate, "start_seconds": start}
    save_result(result, RESULTS / "bulk.json")


if __name__ == "__main__":
    main()
