"""Measures streaming: look-ahead, computing time to the first audio, memory over an hour.

    python docs/scripts/streaming.py
    python docs/scripts/streaming.py --delays folder/of/recordings    # of development speakers

The first writes the rows of docs/results/streaming.json: one for the bundled default and one for
the untrained flow of low-latency.yaml, whose speed and memory are those of a trained one. Each is
measured in a separate process, because the peak memory of a process cannot be reset. The second
writes its delays: quality and computing time of streams of the default with a short delay, and of
the exact one.
"""

import argparse
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import vocoder
from paths import RESULTS, ROOT, SAMPLES
from vocoder.evaluation.metrics import measure as measures
from vocoder.evaluation.results import machine_facts, save_result
from vocoder.models import MdctFlow, Vocoder

FILE = RESULTS / "streaming.json"
SPEECH = SAMPLES / "english.recording.flac"
CONFIGS = ROOT / "vocoder/training/config"
MODELS = ("default", "low-latency")
CHUNK = 20  # frames, as a text-to-speech system may give them
REPEATS = 20
LOOK_AHEADS = (1, 2, 4, 8, None)


def build(name: str) -> Vocoder:
    """The bundled default, or an untrained flow with the changes of a config file."""
    if name == "default":
        return vocoder.load()
    arguments: dict[str, Any] = {}
    for file in ("mdct", name):
        config = yaml.safe_load((CONFIGS / f"{file}.yaml").read_text(encoding="utf-8"))
        arguments |= config["model"]["init_args"]
    torch.manual_seed(0)
    return MdctFlow(**arguments).fused()


def peak_megabytes() -> float:
    """Peak memory of this process so far (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure(name: str, minutes: float) -> dict[str, Any]:
    """One row of docs/results/streaming.json."""
    torch.set_num_threads(1)
    model = build(name)
    hop, rate = model.mel_spec.hop_length, model.sample_rate
    mel = model.mel(vocoder.read_audio(SPEECH, rate)[0])
    frames = round(minutes * 60 * rate / hop)

    def speech(count: int) -> Iterator[Tensor]:
        pieces = itertools.cycle(mel.split(CHUNK, dim=1))
        while count > 0:
            piece = next(pieces)[:, :count]
            count -= piece.shape[1]
            yield piece

    _, ahead = model.context_frames
    needed = mel.repeat(1, -(-(ahead + 1) // mel.shape[1]))[:, : ahead + 1]
    first = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        next(iter(model.stream([needed])))  # all that the first frame of audio depends on
        first.append(time.perf_counter() - began)
    started = peak_megabytes()
    spent, samples, after_a_minute = time.process_time(), 0, None
    for chunk in model.stream(speech(frames)):
        samples += len(chunk)
        if after_a_minute is None and samples >= 60 * rate:
            after_a_minute = peak_megabytes()
    return {
        "name": name,
        "look_ahead_frames": ahead,
        "look_ahead_seconds": ahead * hop / rate,
        "first_audio_seconds": statistics.median(first),
        "minutes": samples / rate / 60,
        "megabytes_before": started,
        "megabytes_after_a_minute": after_a_minute,
        "megabytes": peak_megabytes(),
        "times_real_time": samples / rate / (time.process_time() - spent),
        "chunk_frames": CHUNK,
        "threads": torch.get_num_threads(),
    }


def delays(folder: Path, count: int) -> dict[str, Any]:
    """Quality and cost of each look-ahead on recordings of a folder, drawn by a seed."""
    torch.set_num_threads(1)
    model = vocoder.load()
    files = sorted(folder.glob("*.wav"))
    files = random.Random(1).sample(files, min(count, len(files)))
    recordings = [vocoder.read_audio(file, model.sample_rate)[0] for file in files]
    list(model.stream([model.mel(recordings[0])[:, :8]], look_ahead=1))  # compiles
    rows = []
    for look_ahead in LOOK_AHEADS:
        scores, spent, samples = [], 0.0, 0
        for recording in recordings:
            mel = model.mel(recording)
            began = time.process_time()
            audio = torch.cat(list(model.stream(mel.split(CHUNK, dim=1), look_ahead=look_ahead)))
            spent += time.process_time() - began
            samples += len(audio)
            audio = audio[: len(recording)].numpy()
            scores.append(
                measures(recording.numpy(), audio, model.sample_rate, names=["pesq", "distillmos"])
            )
        frames = model.look_ahead(restore=0, look_ahead=look_ahead)
        rows.append(
            {
                "look_ahead": look_ahead,
                "delay_frames": frames,
                "delay_seconds": frames * model.mel_spec.hop_length / model.sample_rate,
                **{key: statistics.mean(score[key] for score in scores) for key in scores[0]},
                "seconds_per_second": spent * model.sample_rate / samples,
            }
        )
    facts = machine_facts(torch.device("cpu"))
    return {"rows": rows, "recordings": len(recordings), "chunk_frames": CHUNK, "machine": facts}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure streaming.")
    parser.add_argument("--minutes", type=float, default=60, help="of speech to stream")
    parser.add_argument("--model", choices=MODELS, help="measure this alone, in this process")
    parser.add_argument("--delays", type=Path, help="measure delays on this folder's recordings")
    parser.add_argument("--recordings", type=int, default=8, help="for --delays")
    given = parser.parse_args()
    saved = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if given.delays:
        save_result(saved | {"delays": delays(given.delays, given.recordings)}, FILE)
        return
    if given.model:
        sys.stdout.write(json.dumps(measure(given.model, given.minutes)))
        return
    rows = []
    for name in MODELS:
        command = [sys.executable, __file__, "--model", name, "--minutes", str(given.minutes)]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(result.stdout))
    save_result(saved | {"rows": rows, "machine": machine_facts(torch.device("cpu"))}, FILE)


if __name__ == "__main__":
    main()
