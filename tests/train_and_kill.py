"""Kills a tiny training run at random moments and compares it with an undisturbed one.

    python -m tests.train_and_kill KILLS [SEED]

Prints a line of JSON: kills, the steps that were trained in vain, and whether weights, optimiser
and curve are those of the undisturbed run. The processes are forked from one that has imported
everything, so a life costs no imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from tests.test_recipe_ljspeech import TINY, Tiny, rows
from vocoder.training.recipe import main
from vocoder.training.resume import read_resume_file

STEPS_PER_LIFE = 40


def count(*_: Any) -> None:
    """Write a byte for every step, whether or not it is ever saved."""
    with open("steps", "ab", buffering=0) as file:
        file.write(b".")


def life(folder: Path, steps: int, seconds: float | None) -> int:
    """Start or resume the run in a process of its own, killed after `seconds`; its status."""
    child = os.fork()
    if not child:
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        warnings.simplefilter("ignore")
        words = [
            "--config", str(TINY), "--max_steps", str(steps),
            "--run", "run", "--cache", "../cache", "--save_every", "0.1",
            "--trainer.accelerator", "cpu", "--trainer.val_check_interval", "7",
            "--speech.validation_utterances", "1", "--speech.validation_seconds", "0.2",
            "--speech.crop_frames", "8",
        ]  # fmt: skip
        code = 1
        try:
            code = main(Tiny(count), words)
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def same(a: Any, b: Any) -> bool:
    """Whether two nests of values are equal, tensors to the last bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def curve(run: Path) -> list[dict[str, Any]]:
    """The validations without their times."""
    return [{k: v for k, v in row.items() if k != "train_seconds"} for row in rows(run)]


def compare(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Train one run in peace and one with kills, both in `folder`."""
    rng = random.Random(seed)
    steps = STEPS_PER_LIFE * (kills + 1)
    whole, killed = folder / "whole", folder / "killed"
    for place in (whole, killed):
        place.mkdir()
    started = time.monotonic()
    assert life(whole, steps, None) == 0, (whole / "log").read_text(encoding="utf-8")
    # Of starting, training and ending, the whole is cut into about as many lives as there are.
    longest = 1 + 2 * (time.monotonic() - started) / (kills + 1)
    survived = 0
    while survived < kills:
        status = life(killed, steps, rng.uniform(0, longest))
        assert status in (0, -signal.SIGKILL), (killed / "log").read_text(encoding="utf-8")
        if status == 0:
            break
        survived += 1
    assert life(killed, steps, None) == 0, (killed / "log").read_text(encoding="utf-8")
    saved = [read_resume_file(place / "run" / "last.ckpt") for place in (whole, killed)]
    parts = ("state_dict", "current_model_state", "optimizer_states", "vocoder_training")
    return {
        "kills": survived,
        "steps": steps,
        "steps_lost": (killed / "steps").stat().st_size - steps,
        "differing": [part for part in parts if not same(saved[0][part], saved[1][part])],
        "same_curve": curve(whole / "run") == curve(killed / "run"),
        "rows": len(curve(whole / "run")),
        "left_over": sorted(
            path.name for path in (killed / "run").iterdir() if path.suffix in (".part", ".partial")
        ),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    kills, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        sys.stdout.write(json.dumps(compare(Path(name), kills, seed)) + "\n")
