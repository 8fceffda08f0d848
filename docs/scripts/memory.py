"""Measures the memory of the commands on long input.

    python docs/scripts/memory.py       writes docs/results/memory.json

An hour of speech, and for comparison a minute, goes through `resynthesize`, `synthesize`
and `say`, each in a process of its own. The speech repeats the recordings of the sample corpus, the
text repeats a few sentences.
"""

import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

import vocoder
from paths import RESULTS, ROOT
from vocoder.audio import LogMel
from vocoder.evaluation.results import machine_facts, save_result

RECORDINGS = ROOT / "recipes/ljspeech/sample/wavs"
SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "A normalizing flow is an invertible network from sound to noise.",
    "It was half past four when the last of the boats came in.",
)
SENTENCES_A_MINUTE = 22
MINUTES = (1, 60)

# Prints the peak memory of a command, in KiB.
_MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def prepare(folder: Path, minutes: int) -> None:
    """speech.wav, speech.npy and text.txt of about this many minutes."""
    spec = vocoder.load().mel_spec
    paths = sorted(RECORDINGS.iterdir())
    once = torch.cat([vocoder.read_audio(path, spec.sample_rate)[0] for path in paths])
    audio = once.repeat(1 + minutes * 60 * spec.sample_rate // len(once))
    audio = audio[: minutes * 60 * spec.sample_rate]
    vocoder.write_audio(folder / "speech.wav", audio, spec.sample_rate)
    mel = torch.cat(list(LogMel(spec).stream(audio.split(2**20))), dim=1)
    np.save(folder / "speech.npy", mel.numpy())
    sentences = itertools.islice(itertools.cycle(SENTENCES), minutes * SENTENCES_A_MINUTE)
    (folder / "text.txt").write_text(" ".join(sentences), encoding="utf-8")


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Peak memory and time of each command."""
    speech, mel, text = (str(folder / name) for name in ("speech.wav", "speech.npy", "text.txt"))
    commands = {
        "resynthesize": [speech],
        "synthesize": [mel],
        "say": ["--file", text],
    }
    found = {}
    for name, arguments in commands.items():
        output = folder / f"{name}.wav"
        command = [sys.executable, "-m", "vocoder", name, *arguments, "-o", str(output)]
        started = time.perf_counter()
        run = [sys.executable, "-c", _MEASURED, *command]
        printed = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[name] = {
            "megabytes": int(printed) / 1024,
            "seconds": time.perf_counter() - started,
            "audio_seconds": soundfile.info(output).duration,
        }
        output.unlink()
    return found


def main() -> None:
    """The command."""
    result: dict[str, Any] = {"minutes": {}, "machine": machine_facts(torch.device("cpu"))}
    for minutes in MINUTES:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), minutes)
            result["minutes"][str(minutes)] = measure(Path(folder))
    save_result(result, RESULTS / "memory.json")


if __name__ == "__main__":
    main()
