"""Measures how far the audio of one seed differs between ways to make it.

    python docs/scripts/determinism.py  the bundled default; writes docs/results/determinism.json

ROWS are the ways, each with the difference that is promised; tests/test_determinism.py checks them,
ONNX for a small flow without refinement only.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vocoder
from paths import RESULTS, ROOT
from vocoder.evaluation.results import machine_facts, save_result
from vocoder.models import load_checkpoint
from vocoder.pretrained import find_model

RECORDING = ROOT / "recipes/ljspeech/sample/wavs/ru_0024.flac"
FRAMES = 80
SEED = 3


class Case:
    """A checkpoint, a mel of speech, and what the model makes of it by `synthesize` alone.

    Args:
        checkpoint: directory of the model.
        refine: iterations of refinement.
    """

    def __init__(self, checkpoint: Path, refine: int) -> None:
        self.checkpoint, self.refine = checkpoint, refine
        self.model = vocoder.load(checkpoint)
        audio, _ = vocoder.read_audio(RECORDING, self.model.sample_rate)
        self.mel = self.model.mel(audio)[:, 40 : 40 + FRAMES].clone()
        self.audio = self.synthesize()

    def synthesize(self, mel: Tensor | None = None, **how: Any) -> Tensor:
        return self.model.synthesize(
            self.mel if mel is None else mel, **{"seed": SEED, "refine": self.refine, **how}
        )


def _again(case: Case) -> Tensor:
    return case.synthesize()


def _batch(case: Case) -> Tensor:
    others = torch.stack([case.mel.flip(1), case.mel, case.mel.roll(9, 1)])
    return case.synthesize(others, seed=[7, SEED, 8])[1]


def _padding(case: Case) -> Tensor:
    longer = torch.cat([case.mel, case.mel[:, :33]], dim=1)
    padded = torch.nn.functional.pad(case.mel, (0, 33))
    return case.synthesize(torch.stack([longer, padded]), lengths=[FRAMES + 33, FRAMES])[1][
        : len(case.audio)
    ]


def _stream(case: Case) -> Tensor:
    chunks = case.mel.split([1, 7, 40, 3, FRAMES - 51], dim=1)
    return torch.cat(list(case.model.stream(chunks, seed=SEED, refine=case.refine)))


def _threads(case: Case) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        return case.synthesize()
    finally:
        torch.set_num_threads(before)


_CHILD = """
import sys
import numpy as np, torch, vocoder
checkpoint, mel, output, threads, seed, refine = sys.argv[1:]
torch.set_num_threads(int(threads))
audio = vocoder.load(checkpoint).synthesize(np.load(mel), seed=int(seed), refine=int(refine))
np.save(output, audio)
"""


def _process(case: Case) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        mel, output = Path(folder) / "mel.npy", Path(folder) / "audio.npy"
        np.save(mel, case.mel.numpy())
        facts = [case.checkpoint, mel, output, torch.get_num_threads(), SEED, case.refine]
        command = [sys.executable, "-c", _CHILD, *map(str, facts)]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
        return torch.from_numpy(np.load(output))


def _layers(case: Case) -> Tensor:
    model = load_checkpoint(case.checkpoint).restored_by(case.model.restoration)
    return model.synthesize(case.mel, seed=SEED, refine=case.refine)


def _onnx(case: Case) -> Tensor:
    from vocoder.export import OnnxVocoder, export_onnx

    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(case.model, Path(folder) / "model.onnx", case.refine)  # type: ignore[arg-type]
        return torch.from_numpy(
            OnnxVocoder(path, threads=1).synthesize(case.mel.numpy(), seed=SEED)
        )


@dataclass(frozen=True)
class Row:
    """What is varied, the promised differences, and how to make the other audio."""

    title: str
    tolerance: float
    """Largest difference of a sample, of audio in [-1, 1], without refinement."""
    refined: float
    """The same with the bundled models' refinement."""
    other: Callable[[Case], Tensor]

    def difference(self, case: Case) -> float:
        """The largest difference of a sample."""
        return float((self.other(case) - case.audio).abs().max())


ROWS = {
    "again": Row("the same call again", 0.0, 0.0, _again),
    "process": Row("another process, as many threads", 0.0, 0.0, _process),
    "threads": Row("another number of threads", 1e-5, 1e-4, _threads),
    "batch": Row("in a batch, among other seeds", 1e-5, 1e-4, _batch),
    "padding": Row("in a batch, padded (`lengths`)", 1e-5, 1e-4, _padding),
    "stream": Row("in chunks (`stream`)", 1e-5, 1e-4, _stream),
    "layers": Row("as trained (`load_checkpoint`), not fused", 1e-5, 1e-4, _layers),
    "onnx": Row("ONNX", 1e-4, 1e-3, _onnx),
}


def main() -> None:
    """The command."""
    checkpoint = find_model()
    iterations = vocoder.load(checkpoint).default_refine
    cases = [Case(checkpoint, refine) for refine in (0, iterations)]
    rows = [
        {
            "title": row.title,
            "promised": [row.tolerance, row.refined],
            "measured": [row.difference(case) for case in cases],
        }
        for row in ROWS.values()
    ]
    result = {"iterations": iterations, "rows": rows, "machine": machine_facts(torch.device("cpu"))}
    save_result(result, RESULTS / "determinism.json")


if __name__ == "__main__":
    main()
